//! Where a transaction may run. Pure.
//!
//! A decision is made for a batch: one simple query, or the extended-protocol messages up to Sync. Only if all of
//! it is at hand and all of it is known to read does it go to a replica; whatever is unknown goes to the primary. So does a
//! `READ ONLY` transaction that is still open at the end of its first batch: what follows may be nothing for a replica.

use crate::session::forward::ClientSession;
use crate::session::parameters::Meaning;
use crate::sql::{self, Catalog, Class, Memo, Route};
use crate::wire::frame::peek;
use crate::wire::frontend;

/// What is known of a database, and its number: each newer one has another, 0 means that nothing is known.
pub type Known<'a> = (Option<&'a Catalog>, u32);

/// What a batch does to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// It may write.
    Write,
    /// It belongs on a replica, for its client says so; elsewhere it may write.
    Hinted,
    /// It begins a transaction that can only read, unless it is told otherwise, and leaves it open.
    ReadOnly,
    /// It reads, wherever it runs, and leaves no transaction open.
    Read,
}

/// What the batch at the start of `buf` needs.
pub fn access(buf: &[u8], client: &mut ClientSession, known: Known<'_>, memo: &mut Memo) -> Access {
    match client.route {
        Route::Auto => of_batch(buf, client, known, memo).unwrap_or(Access::Write),
        Route::Primary => Access::Write,
        Route::Replica => Access::Hinted,
    }
}

/// Whether the first statement of the batch at the start of `buf` says that it belongs on a replica.
#[cold]
pub fn wants_replica(buf: &[u8], client: &ClientSession) -> bool {
    if client.route == Route::Replica {
        return true;
    }
    let Ok(Some(frame)) = peek(buf) else { return false };
    let text = match frame.tag {
        b'Q' => Some(frontend::text(frame.body)),
        b'P' => frontend::parse(frame.body).ok().map(|parse| parse.text()),
        b'B' => {
            frontend::bind(frame.body).and_then(|bind| client.statements.get(bind.name)).map(|s| s.text())
        }
        _ => None,
    };
    text.is_some_and(|text| sql::hint(text) == Some(Route::Replica))
}

/// `None`: something in the batch is missing or not understood.
fn of_batch(
    batch: &[u8],
    client: &mut ClientSession,
    (catalog, generation): Known<'_>,
    memo: &mut Memo,
) -> Option<Access> {
    let rules = Rules { meaning: client.parameters.meaning(), catalog };
    // Nothing is remembered of statements that change their meaning with the next SET.
    let is_usual = rules.meaning.standard_strings && !rules.meaning.ascii_in_characters;
    let generation = if is_usual { generation } else { 0 };
    let mut all: Option<Access> = None;
    let mut at = 0;
    loop {
        let frame = peek(&batch[at..]).ok()??;
        if !frame.is_complete() {
            return None;
        }
        let access = match frame.tag {
            b'Q' if at == 0 => return Some(rules.of_class(rules.class(frontend::text(frame.body)))),
            b'P' => {
                let text = frontend::parse(frame.body).ok()?.text();
                Some(rules.of_class(memo.class(text, generation, || rules.class(text))))
            }
            b'B' => {
                let name = frontend::bind(frame.body)?.name;
                let class = client.statements.class(name, generation, |s| rules.class(s.text()));
                // Whatever has been parsed in this batch has been judged; of earlier ones the names are known.
                Some(match class {
                    Some(class) => rules.of_class(class),
                    None if is_parsed(&batch[..at], name) => Access::Read,
                    None => Access::Write,
                })
            }
            b'D' | b'E' | b'C' => None,
            b'S' => return all,
            _ => return None,
        };
        // The batch is what its least harmless part is.
        if let Some(access) = access {
            if access == Access::Write {
                return Some(access);
            }
            all = Some(all.map_or(access, |all| all.min(access)));
        }
        at += frame.len;
    }
}

/// Whether one of these messages prepares a statement of this name.
fn is_parsed(mut batch: &[u8], name: &[u8]) -> bool {
    while let Ok(Some(frame)) = peek(batch) {
        if frame.tag == b'P' && frontend::parse_name(frame.body) == Some(name) {
            return true;
        }
        batch = &batch[frame.len..];
    }
    false
}

/// What a client's statements are judged by.
struct Rules<'a> {
    meaning: Meaning,
    catalog: Option<&'a Catalog>,
}

impl Rules<'_> {
    fn class(&self, text: &[u8]) -> Class {
        if self.meaning.ascii_in_characters && !text.is_ascii() {
            return Class::Write;
        }
        if !self.meaning.standard_strings && text.contains(&b'\\') {
            return Class::Write;
        }
        sql::classify(text, self.catalog)
    }

    fn of_class(&self, class: Class) -> Access {
        if self.meaning.serializable {
            return Access::Write;
        }
        match class {
            Class::Read => Access::Read,
            Class::ReadOnly => Access::ReadOnly,
            Class::Hinted => Access::Hinted,
            Class::Begin if self.meaning.read_only => Access::ReadOnly,
            Class::Begin | Class::Write => Access::Write,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::session::parameters::Parameters;
    use crate::session::prepared::Registry;
    use crate::wire::samples::{bind, message, parse, query};

    /// A client that has prepared `r` and `w`.
    fn client(parameters: &[(&str, &str)]) -> ClientSession {
        let mut all = Parameters::default();
        for (name, value) in parameters {
            all.set(name.as_bytes(), value.as_bytes());
        }
        let mut client = ClientSession::new(Arc::new(all), Route::Auto);
        let registry = Registry::default();
        client.statements.insert(b"r", registry.intern(b"select 'a\\'\0\0\0"));
        client.statements.insert(b"w", registry.intern(b"delete from t\0\0\0"));
        client
    }

    fn other(tag: u8) -> Vec<u8> {
        message(tag, b"")
    }

    fn reads(client: &mut ClientSession, batch: &[Vec<u8>]) -> bool {
        access_of(client, batch) != Access::Write
    }

    fn access_of(client: &mut ClientSession, batch: &[Vec<u8>]) -> Access {
        access(&batch.concat(), client, (Some(&Catalog::default()), 1), &mut Memo::default())
    }

    #[test]
    fn a_batch_reads_if_all_of_it_does() {
        let mut client = client(&[]);
        let execute_and_sync = [other(b'E'), other(b'S')].concat();
        for (batch, expected) in [
            (vec![parse("", "select 1"), bind("")], true),
            (vec![parse("x", "select 1"), bind("x")], true),
            (vec![bind("r")], true),
            (vec![bind("r"), parse("", "table t"), bind("")], true),
            (vec![parse("", "delete from t"), bind("")], false),
            (vec![bind("w")], false),
            (vec![bind("r"), bind("w")], false),
            (vec![parse("", "select 1"), bind("w")], false),
            // Prepared in an earlier batch, or never.
            (vec![bind("")], false),
            (vec![bind("r"), bind("")], false),
            (vec![parse("x", "select 1"), bind("")], false),
            (vec![bind("r"), bind("unknown")], false),
            (vec![], false),
            (vec![parse("", "select 1"), other(b'H')], false),
        ] {
            let batch = [batch, vec![execute_and_sync.clone()]].concat();
            assert_eq!(reads(&mut client, &batch), expected, "{batch:?}");
            assert!(!reads(&mut client, &batch[..batch.len() - 1]), "some of it is still to come");
        }
    }

    #[test]
    fn settings_change_what_a_statement_means() {
        let run_r = [bind("r"), other(b'E'), other(b'S')];
        let mut plain = client(&[("standard_conforming_strings", "on"), ("client_encoding", "UTF8")]);
        assert!(reads(&mut plain, &run_r) && reads(&mut plain, &[query("select '\\'")]));
        assert!(!reads(&mut plain, &[query("begin")]));
        // What was remembered of `r` is not used.
        Arc::make_mut(&mut plain.parameters).set(b"standard_conforming_strings", b"off");
        assert!(!reads(&mut plain, &run_r) && !reads(&mut plain, &[query("select '\\'")]));
        assert!(reads(&mut plain, &[query("select 'a'")]));

        let mut sjis = client(&[("client_encoding", "SJIS")]);
        assert!(reads(&mut sjis, &[query("select 'a'")]) && !reads(&mut sjis, &[query("select 'é'")]));
        let mut read_only = client(&[("default_transaction_read_only", "on")]);
        assert!(reads(&mut read_only, &[query("begin")]));
        let mut serializable = client(&[("default_transaction_isolation", "serializable")]);
        assert!(!reads(&mut serializable, &[query("select 1")]));
        assert!(!reads(&mut serializable, &[query("begin read only")]));
    }

    #[test]
    fn what_the_client_says_wins() {
        let mut client = client(&[]);
        client.route = Route::Replica;
        assert!(reads(&mut client, &[query("select nextval('s')")]));
        assert!(wants_replica(&query("select 1"), &client));
        client.route = Route::Primary;
        assert!(!reads(&mut client, &[query("select 1")]));
        client.route = Route::Auto;
        let hinted = "/* pgweir: replica */ select 1";
        assert!(wants_replica(&query(hinted), &client) && wants_replica(&parse("x", hinted), &client));
        for batch in [query("select 1"), bind("r"), bind("unknown"), other(b'S'), Vec::new()] {
            assert!(!wants_replica(&batch, &client));
        }
        assert_eq!(access_of(&mut client, &[query("/* pgweir: replica */ begin read only")]), Access::Hinted);
    }
}
