//! The extended query protocol at the console: prepared statements and portals. What they run is up to the console.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::command;
use super::parse::{self, Command};
use super::rows::Rows;
use super::table::{self, Formats};
use crate::error::{Refusal, sqlstate};
use crate::wire::frame::{FrameError, cstr};
use crate::wire::{frontend, write};

/// Statements a session may have.
const MAX_STATEMENTS: usize = 1000;
/// Portals it may have. Each may keep a list of all clients.
const MAX_PORTALS: usize = 50;
/// Longest name of either.
const MAX_NAME: usize = 255;

/// The prepared statements and portals of a session.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// `None`: the empty query.
    statements: HashMap<Vec<u8>, Option<Command>>,
    portals: HashMap<Vec<u8>, Portal>,
}

/// A statement about to be executed, or in the middle of it.
#[derive(Debug)]
pub(super) struct Portal {
    /// `None`: the empty query.
    pub(super) command: Option<Command>,
    pub(super) formats: Formats,
    /// Once it has been executed: rows not asked for yet, and what ends them.
    pub(super) rest: Option<(Rows, String)>,
}

/// What Execute asks for.
#[derive(Debug)]
pub(super) struct Execute<'a> {
    pub(super) portal: &'a [u8],
    /// 0: all.
    pub(super) max_rows: usize,
}

impl Prepared {
    /// Parse.
    pub(super) fn parse(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
        let message = frontend::parse(body).map_err(malformed)?;
        let text = String::from_utf8_lossy(message.text());
        let command = match &parse::split(&text)[..] {
            [] => None,
            [statement] => Some(parse::parse(statement)?),
            _ => {
                return Err(Refusal::new(
                    sqlstate::SYNTAX_ERROR,
                    "cannot insert multiple commands into a prepared statement",
                ));
            }
        };
        let name = String::from_utf8_lossy(message.name);
        check_name(message.name)?;
        let full = self.statements.len() >= MAX_STATEMENTS;
        match self.statements.entry(message.name.to_vec()) {
            Entry::Occupied(mut unnamed) if name.is_empty() => drop(unnamed.insert(command)),
            Entry::Occupied(_) => {
                return Err(Refusal::new(
                    sqlstate::DUPLICATE_STATEMENT,
                    format!("prepared statement \"{name}\" already exists"),
                ));
            }
            Entry::Vacant(_) if full => return Err(too_many(MAX_STATEMENTS, "prepared statements")),
            Entry::Vacant(vacant) => drop(vacant.insert(command)),
        }
        write::frame(out, b'1', |_| {});
        Ok(())
    }

    /// Bind.
    pub(super) fn bind(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
        let message = frontend::bind(body).ok_or(FrameError::Body("Bind")).map_err(malformed)?;
        let command = self.statement(message.name)?.clone();
        let portal = message.before.strip_suffix(b"\0").unwrap_or_default();
        let (parameters, formats) =
            rest_of_bind(message.after).ok_or(FrameError::Body("Bind")).map_err(malformed)?;
        if parameters > 0 {
            return Err(Refusal::protocol(format!(
                "bind message supplies {parameters} parameters, but commands of the console take none"
            )));
        }
        if !portal.is_empty() && self.portals.contains_key(portal) {
            let name = String::from_utf8_lossy(portal);
            return Err(Refusal::new(
                sqlstate::DUPLICATE_PORTAL,
                format!("portal \"{name}\" already exists"),
            ));
        }
        check_name(portal)?;
        if self.portals.len() >= MAX_PORTALS {
            return Err(too_many(MAX_PORTALS, "portals"));
        }
        self.portals.insert(portal.to_vec(), Portal { command, formats, rest: None });
        write::frame(out, b'2', |_| {});
        Ok(())
    }

    /// Describe.
    pub(super) fn describe(&self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
        let target = frontend::target(body).map_err(malformed)?;
        let (command, formats) = if target.before == b"S" {
            let command = self.statement(target.name)?;
            write::no_parameters(out);
            (command, &Formats::default())
        } else {
            let portal = self.portals.get(target.name).ok_or_else(|| no_portal(target.name))?;
            (&portal.command, &portal.formats)
        };
        match command.as_ref().and_then(command::columns) {
            Some(columns) => table::describe(out, &columns, formats),
            None => write::frame(out, b'n', |_| {}),
        }
        Ok(())
    }

    /// Close. It is no error to close what is not there.
    pub(super) fn close(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
        let target = frontend::target(body).map_err(malformed)?;
        if target.before == b"S" {
            self.statements.remove(target.name);
        } else {
            self.portals.remove(target.name);
        }
        write::frame(out, b'3', |_| {});
        Ok(())
    }

    /// The portal an Execute means.
    pub(super) fn portal(&mut self, name: &[u8]) -> Result<&mut Portal, Refusal> {
        self.portals.get_mut(name).ok_or_else(|| no_portal(name))
    }

    fn statement(&self, name: &[u8]) -> Result<&Option<Command>, Refusal> {
        self.statements.get(name).ok_or_else(|| no_statement(name))
    }

    /// DEALLOCATE.
    pub(super) fn deallocate(&mut self, name: &str) -> Result<(), Refusal> {
        self.statements.remove(name.as_bytes()).map(drop).ok_or_else(|| no_statement(name.as_bytes()))
    }

    /// DEALLOCATE ALL.
    pub(super) fn deallocate_all(&mut self) {
        self.statements.clear();
    }

    /// The transaction is over.
    pub(super) fn close_portals(&mut self) {
        self.portals.clear();
    }
}

/// Reads an Execute message.
pub(super) fn execute(body: &[u8]) -> Result<Execute<'_>, Refusal> {
    let malformed = || malformed(FrameError::Body("Execute"));
    let (portal, rest) = cstr(body).ok_or_else(malformed)?;
    let max_rows = i32::from_be_bytes(rest.try_into().map_err(|_| malformed())?);
    // Below 0 means all rows, as 0 does.
    Ok(Execute { portal, max_rows: max_rows.try_into().unwrap_or(0) })
}

/// What stands behind the names in a Bind message: how many parameters it has, and the formats of the result.
fn rest_of_bind(body: &[u8]) -> Option<(u16, Formats)> {
    let (_, rest) = numbers(body)?;
    let (count, mut rest) = rest.split_first_chunk::<2>()?;
    let count = u16::from_be_bytes(*count);
    for _ in 0..count {
        let (len, after) = rest.split_first_chunk::<4>()?;
        // NULL has a length of -1 and no bytes.
        let len = usize::try_from(i32::from_be_bytes(*len)).unwrap_or(0);
        rest = after.get(len..)?;
    }
    let (formats, rest) = numbers(rest)?;
    let formats: Option<Vec<bool>> = formats
        .into_iter()
        .map(|format| match format {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        })
        .collect();
    rest.is_empty().then_some((count, Formats(formats?)))
}

/// A number of numbers, and the numbers.
fn numbers(body: &[u8]) -> Option<(Vec<u16>, &[u8])> {
    let (count, rest) = body.split_first_chunk::<2>()?;
    let (numbers, rest) = rest.split_at_checked(2 * usize::from(u16::from_be_bytes(*count)))?;
    Some((numbers.chunks_exact(2).map(|n| u16::from_be_bytes([n[0], n[1]])).collect(), rest))
}

fn malformed(error: FrameError) -> Refusal {
    Refusal::protocol(error.to_string())
}

fn no_statement(name: &[u8]) -> Refusal {
    let name = String::from_utf8_lossy(name);
    Refusal::new(sqlstate::UNKNOWN_STATEMENT, format!("prepared statement \"{name}\" does not exist"))
}

fn no_portal(name: &[u8]) -> Refusal {
    let name = String::from_utf8_lossy(name);
    Refusal::new(sqlstate::UNKNOWN_PORTAL, format!("portal \"{name}\" does not exist"))
}

fn too_many(most: usize, what: &str) -> Refusal {
    Refusal::new(sqlstate::TOO_COMPLEX, format!("a session at the console may have {most} {what}"))
}

fn check_name(name: &[u8]) -> Result<(), Refusal> {
    if name.len() <= MAX_NAME {
        return Ok(());
    }
    let words = format!("a name at the console may have {MAX_NAME} bytes");
    Err(Refusal::new(sqlstate::TOO_COMPLEX, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(prepared: &mut Prepared, name: &str, text: &str) -> Result<(), Refusal> {
        prepared.parse(format!("{name}\0{text}\0\0\0").as_bytes(), &mut Vec::new())
    }

    #[test]
    fn statements_are_made_once_and_forgotten() {
        let mut prepared = Prepared::default();
        parsed(&mut prepared, "a", "SHOW POOLS").unwrap();
        assert_eq!(parsed(&mut prepared, "a", "SHOW POOLS").unwrap_err().sqlstate, "42P05");
        parsed(&mut prepared, "", "SHOW POOLS").unwrap();
        parsed(&mut prepared, "", "").unwrap();
        assert_eq!(parsed(&mut prepared, "b", "PAUSE; RESUME").unwrap_err().sqlstate, "42601");
        assert_eq!(parsed(&mut prepared, "b", "SELECT 2").unwrap_err().sqlstate, "42601");
        prepared.close(b"Sa\0", &mut Vec::new()).unwrap();
        prepared.close(b"Sa\0", &mut Vec::new()).unwrap();
        assert_eq!(prepared.deallocate("a").unwrap_err().sqlstate, "26000");
        for n in 0.. {
            if let Err(refusal) = parsed(&mut prepared, &n.to_string(), "RELOAD") {
                assert_eq!((n, refusal.sqlstate), (MAX_STATEMENTS - 1, "54000"));
                break;
            }
        }
        assert_eq!(parsed(&mut prepared, &"x".repeat(256), "RELOAD").unwrap_err().sqlstate, "54000");
        for n in 0..=MAX_PORTALS {
            let bound = prepared.bind(format!("{n}\0\0\0\0\0\0\0\0").as_bytes(), &mut Vec::new());
            assert_eq!(bound.is_ok(), n < MAX_PORTALS, "{n}");
        }
    }

    #[test]
    fn portals_need_a_statement_and_no_parameters() {
        let mut prepared = Prepared::default();
        let mut out = Vec::new();
        parsed(&mut prepared, "s", "SHOW POOLS").unwrap();
        prepared.bind(b"p\0s\0\0\0\0\0\0\x01\0\x01", &mut out).unwrap();
        assert_eq!(out, b"2\0\0\0\x04");
        let mut error = |body: &[u8]| prepared.bind(body, &mut Vec::new()).unwrap_err();
        assert_eq!(error(b"p\0s\0\0\0\0\0\0\0").sqlstate, "42P03");
        assert_eq!(error(b"\0t\0\0\0\0\0\0\0").sqlstate, "26000");
        assert!(error(b"\0s\0\0\0\0\x01\0\0\0\x011\0\0").message.contains("supplies 1 parameters"));
        for body in [
            &b""[..],
            b"\0s\0",
            b"\0s\0\0\x01",
            b"\0s\0\0\0\0\x01\0\0\0\x09",
            b"\0s\0\0\0\0\0\0\x01\0\x02",
            b"\0s\0\0\0\0\0\0\0x",
        ] {
            assert_eq!(error(body).message, "malformed Bind message", "{body:?}");
        }
        assert!(prepared.portal(b"p").is_ok());
        prepared.close_portals();
        assert_eq!(prepared.portal(b"p").unwrap_err().sqlstate, "34000");
    }

    #[test]
    fn execute_is_read() {
        let read = |body| execute(body).map(|e| (e.portal.to_vec(), e.max_rows));
        assert_eq!(read(b"p\0\0\0\0\x05"), Ok((b"p".to_vec(), 5)));
        assert_eq!(read(b"\0\xff\xff\xff\xff"), Ok((Vec::new(), 0)));
        for body in [&b""[..], b"p", b"p\0", b"p\0\0\0\0", b"p\0\0\0\0\0\0"] {
            assert!(read(body).is_err());
        }
    }
}
