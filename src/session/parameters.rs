//! Run-time parameters that follow a client from server to server.
//!
//! A server reports some of its settings in ParameterStatus messages, at login and whenever they change. What it
//! last reported is what a client that leaves it had; when the client comes to another server whose report
//! differs, the difference is `SET` there first. PgBouncer calls this the varcache and follows a fixed list;
//! here everything that a server reports and that can be set follows the client.

use std::ops::Range;
use std::sync::Arc;

use crate::wire::{backend, frame, write};

/// Parameters that are reported but cannot be set in a session, or follow from others.
const FIXED: &[&str] =
    &["server_version", "server_encoding", "integer_datetimes", "in_hot_standby", "is_superuser"];

/// Most parameters that are kept of a server, and most bytes of their names and values. PostgreSQL 18 reports 16.
const MOST: usize = 256;
const MOST_BYTES: usize = 64 * 1024;

/// A ParameterStatus that cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// It makes no sense.
    #[error(transparent)]
    Frame(#[from] frame::FrameError),
    /// The server has reported too many, or too long ones.
    #[error("server reports more than {MOST} parameters, or more than {MOST_BYTES} bytes of them")]
    TooMuch,
}

/// One side's parameters, as last reported. Shared between clients while they are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// A ParameterStatus message for each: what a login sends as it is, what one `memcpy` copies and one `memcmp` compares.
    messages: Vec<u8>,
    /// Names of those that the server does not report.
    unreported: Vec<Box<[u8]>>,
    meaning: Meaning,
}

/// What some of the parameters mean for statements, at hand for whoever has to judge one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// `'…'` literals keep their backslashes (`standard_conforming_strings`).
    pub standard_strings: bool,
    /// Part of a character may look like an ASCII character (`client_encoding`).
    pub ascii_in_characters: bool,
    /// Transactions are SERIALIZABLE unless they say something else (`default_transaction_isolation`).
    pub serializable: bool,
    /// Transactions are read-only unless they say something else (`default_transaction_read_only`).
    pub read_only: bool,
}

impl Default for Meaning {
    fn default() -> Self {
        Self { standard_strings: true, ascii_in_characters: false, serializable: false, read_only: false }
    }
}

impl Parameters {
    /// The value of a parameter; names are compared without regard to case, as PostgreSQL does.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.find(name).map(|(_, value)| value)
    }

    /// Sets a parameter's value and says whether that changed anything. Like all strings of the protocol, name and value
    /// end at their first NUL.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> bool {
        match self.find(name) {
            Some((_, old)) if old == value => return false,
            Some((at, _)) => {
                let (before, after) = (&self.messages[..at.start], &self.messages[at.end..]);
                let name = &self.messages[at.start + frame::HEADER..][..name.len()];
                let mut messages = Vec::with_capacity(self.messages.len() + value.len());
                messages.extend_from_slice(before);
                write::parameter_status(&mut messages, name, value);
                messages.extend_from_slice(after);
                self.messages = messages;
            }
            None => write::parameter_status(&mut self.messages, name, value),
        }
        self.meaning = self.understood();
        true
    }

    /// What they mean for statements.
    #[inline]
    pub fn meaning(&self) -> Meaning {
        self.meaning
    }

    fn understood(&self) -> Meaning {
        // The second byte of a character may be less than 128.
        const ENCODINGS: &[&[u8]] =
            &[b"SJIS", b"BIG5", b"GBK", b"UHC", b"GB18030", b"JOHAB", b"SHIFT_JIS_2004"];
        let encoding = self.get(b"client_encoding").unwrap_or_default();
        Meaning {
            standard_strings: self.get(b"standard_conforming_strings").is_none_or(|v| v == b"on"),
            ascii_in_characters: ENCODINGS.iter().any(|e| e.eq_ignore_ascii_case(encoding)),
            serializable: self.get(b"default_transaction_isolation") == Some(b"serializable"),
            read_only: self.get(b"default_transaction_read_only") == Some(b"on"),
        }
    }

    /// Where a parameter's message lies, and its value.
    fn find(&self, name: &[u8]) -> Option<(Range<usize>, &[u8])> {
        let mut at = 0;
        while let Some((body, len)) = message(&self.messages[at..]) {
            let (start, end) = body.split_at_checked(name.len()).unwrap_or((b"", body));
            if let [0, value @ .., 0] = end {
                if start.eq_ignore_ascii_case(name) {
                    return Some((at..at + len, value));
                }
            }
            at += len;
        }
        None
    }

    /// Sets a parameter of which the server will not say when it changes.
    pub fn set_unreported(&mut self, name: &[u8], value: &[u8]) {
        self.set(name, value);
        self.unreported.push(name.into());
    }

    /// A ParameterStatus message for each parameter, in the order in which they were first reported.
    pub fn messages(&self) -> &[u8] {
        &self.messages
    }

    /// All parameters in the order in which they were first reported.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &*self.messages;
        std::iter::from_fn(move || {
            let (body, len) = message(rest)?;
            rest = &rest[len..];
            backend::parameter_status(body)
        })
    }

    /// Whether a client may choose this parameter's value: the server reports it and it can be set.
    pub fn is_tracked(&self, name: &[u8]) -> bool {
        self.get(name).is_some() && !is_fixed(name)
    }

    /// Those whose values differ from the other's.
    pub fn differing_from<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.iter().filter(|(name, value)| other.get(name) != Some(value))
    }

    /// Appends a simple query that gives a server this value, if it takes it. What a value means may depend on the one before
    /// (`DateStyle`), so the server gets that of `self` first; if the server refuses, neither counts.
    pub fn write_trial(&self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let mut sql = Vec::new();
        if let Some(before) = self.get(name) {
            assignment(&mut sql, name, before);
        }
        assignment(&mut sql, name, value);
        write::query(out, &sql);
    }

    /// The server has taken a value, and may not say so.
    pub fn note_set(&mut self, name: &[u8], value: &[u8]) {
        if self.unreported.iter().any(|unreported| unreported.eq_ignore_ascii_case(name)) {
            self.set(name, value);
        }
    }

    /// Whether the server says it is a standby (PostgreSQL 14 and later report `in_hot_standby`).
    pub fn in_hot_standby(&self) -> Option<bool> {
        self.get(b"in_hot_standby").map(|v| v == b"on")
    }

    /// Appends a simple query that makes `server` equal to `self`; `false` if nothing has to be done. What
    /// `server` will not report it becomes at once; the others in the server's own spelling, when it says so.
    pub fn write_difference(&self, server: &mut Arc<Self>, out: &mut Vec<u8>) -> bool {
        let mut sql = Vec::new();
        for (name, value) in self.iter() {
            if server.get(name).is_some_and(|theirs| theirs != value) && !is_fixed(name) {
                assignment(&mut sql, name, value);
                if server.unreported.iter().any(|unreported| unreported.eq_ignore_ascii_case(name)) {
                    Arc::make_mut(server).set(name, value);
                }
            }
        }
        if sql.is_empty() {
            return false;
        }
        write::query(out, &sql);
        true
    }
}

/// The body and the length of the message in front.
fn message(messages: &[u8]) -> Option<(&[u8], usize)> {
    frame::peek(messages).ok().flatten().map(|frame| (frame.body, frame.len))
}

fn is_fixed(name: &[u8]) -> bool {
    FIXED.iter().any(|fixed| fixed.as_bytes().eq_ignore_ascii_case(name))
}

/// `search_path` is a list of names: only `set_config` takes it as the one string in which it is reported.
fn assignment(sql: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if name.eq_ignore_ascii_case(b"search_path") {
        sql.extend(b"SELECT pg_catalog.set_config('search_path',");
        literal(sql, value);
        sql.extend(b",false);");
    } else {
        sql.extend(b"SET ");
        sql.extend(name);
        sql.push(b'=');
        literal(sql, value);
        sql.push(b';');
    }
}

/// A string literal that means the same under both settings of standard_conforming_strings.
///
/// In some client encodings the second byte of a character may be a backslash, which doubling would turn into an
/// escape; such values (a backslash and bytes beyond ASCII) lose those bytes, as PostgreSQL cleans
/// application_name.
fn literal(sql: &mut Vec<u8>, value: &[u8]) {
    let escapes = value.contains(&b'\\');
    if escapes {
        sql.push(b'E');
    }
    sql.push(b'\'');
    for &byte in value {
        match byte {
            b'\'' => sql.extend(b"''"),
            b'\\' => sql.extend(b"\\\\"),
            0x80.. if escapes => sql.push(b'?'),
            other => sql.push(other),
        }
    }
    sql.push(b'\'');
}

/// A text as the server that reports these parameters makes it one of printable ASCII characters.
pub fn clean_ascii(text: &[u8], reported: &Parameters) -> Vec<u8> {
    let version = String::from_utf8_lossy(reported.get(b"server_version").unwrap_or_default()).into_owned();
    let major =
        version.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse::<u32>().ok());
    let is_new = major.is_some_and(|major| major >= 16);
    let mut clean = Vec::with_capacity(text.len());
    for &byte in text {
        match byte {
            b' '..=b'~' => clean.push(byte),
            _ if is_new => clean.extend(format!("\\x{byte:02x}").bytes()),
            _ => clean.push(b'?'),
        }
    }
    clean
}

/// Reads the parameters a login's ParameterStatus messages carry.
pub fn report(parameters: &mut Parameters, body: &[u8]) -> Result<bool, ReportError> {
    let (name, value) = backend::parameter_status(body).ok_or(frame::FrameError::Body("ParameterStatus"))?;
    let old = parameters.messages.len();
    let has_changed = parameters.set(name, value);
    // Only what makes it longer can be too much.
    let is_too_much = parameters.messages.len() > old
        && (parameters.messages.len() > MOST_BYTES || parameters.iter().count() > MOST);
    if is_too_much { Err(ReportError::TooMuch) } else { Ok(has_changed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        let mut all = Parameters::default();
        for (name, value) in pairs {
            all.set(name.as_bytes(), value.as_bytes());
        }
        all
    }

    fn difference(client: &[(&str, &str)], server: &[(&str, &str)]) -> Option<String> {
        let mut out = Vec::new();
        let any = parameters(client).write_difference(&mut Arc::new(parameters(server)), &mut out);
        any.then(|| String::from_utf8(out[5..out.len() - 1].to_vec()).unwrap())
    }

    #[test]
    fn a_server_cannot_fill_the_memory() {
        let status = |name: &str, value: &str| format!("{name}\0{value}\0").into_bytes();
        let mut all = Parameters::default();
        for n in 0..MOST {
            assert_eq!(report(&mut all, &status(&format!("p{n}"), "")), Ok(true), "{n}");
        }
        assert_eq!(report(&mut all.clone(), &status("one more", "")), Err(ReportError::TooMuch));
        assert_eq!(report(&mut all, &status("p7", "x")), Ok(true), "those that are known may change");
        assert_eq!(report(&mut all, &status("p7", &"x".repeat(MOST_BYTES))), Err(ReportError::TooMuch));
    }

    #[test]
    fn only_differences_are_set() {
        assert_eq!(difference(&[("TimeZone", "UTC")], &[("TimeZone", "UTC")]), None);
        assert_eq!(
            difference(
                &[("TimeZone", "UTC"), ("DateStyle", "ISO, DMY")],
                &[("timezone", "GMT"), ("DateStyle", "ISO")]
            ),
            Some("SET TimeZone='UTC';SET DateStyle='ISO, DMY';".into())
        );
        assert_eq!(difference(&[("server_version", "15")], &[("server_version", "16")]), None);
        assert_eq!(difference(&[("search_path", "a")], &[]), None, "this server does not report it");
    }

    #[test]
    fn what_is_not_reported_is_taken_as_set() {
        let mut server = parameters(&[("DateStyle", "ISO, MDY")]);
        server.set_unreported(b"search_path", b"public");
        let mut server = Arc::new(server);
        let client = parameters(&[("DateStyle", "ISO"), ("search_path", "mine")]);
        assert!(client.write_difference(&mut server, &mut Vec::new()));
        assert_eq!(server.get(b"search_path"), Some(&b"mine"[..]));
        assert_eq!(server.get(b"DateStyle"), Some(&b"ISO, MDY"[..]), "it will say so if that has changed");
    }

    #[test]
    fn a_changed_one_keeps_its_place() {
        let mut all = parameters(&[("DateStyle", "ISO"), ("TimeZone", "GMT"), ("application_name", "")]);
        for value in ["Asia/Ho_Chi_Minh", "", "UTC"] {
            assert!(all.set(b"timezone", value.as_bytes()));
            assert!(!all.set(b"TIMEZONE", value.as_bytes()));
            let expected = [("DateStyle", "ISO"), ("TimeZone", value), ("application_name", "")];
            assert_eq!(all, parameters(&expected));
            assert!(all.iter().eq(expected.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()))));
        }
        for other in ["Time", "TimeZone2", "GMT", ""] {
            assert_eq!(all.get(other.as_bytes()), None, "{other}");
        }
        let expected = [b"S\0\0\0\x12DateStyle\0ISO\0".as_slice(), b"S\0\0\0\x11TimeZone\0UTC\0"].concat();
        assert_eq!(all.messages().strip_prefix(&*expected), Some(&b"S\0\0\0\x16application_name\0\0"[..]));
    }

    #[test]
    fn a_trial_begins_where_the_server_did() {
        let reported = parameters(&[("DateStyle", "ISO, MDY")]);
        let mut out = Vec::new();
        reported.write_trial(b"DateStyle", b"German", &mut out);
        reported.write_trial(b"search_path", b"a'b", &mut out);
        let sql = String::from_utf8_lossy(&out);
        assert!(sql.contains("SET DateStyle='ISO, MDY';SET DateStyle='German';"), "{sql}");
        assert!(sql.contains("SELECT pg_catalog.set_config('search_path','a''b',false);"), "{sql}");
        let own = parameters(&[("DateStyle", "German"), ("TimeZone", "UTC")]);
        let other = parameters(&[("datestyle", "German")]);
        let differing: Vec<_> = own.differing_from(&other).collect();
        assert_eq!(differing, [(&b"TimeZone"[..], &b"UTC"[..])]);
    }

    #[test]
    fn names_of_applications_are_cleaned_as_the_server_does() {
        let of = |version| clean_ascii("né\u{7f}x".as_bytes(), &parameters(&[("server_version", version)]));
        assert_eq!(of("15.14 (Debian)"), b"n???x");
        assert_eq!(of("16beta1"), b"n\\xc3\\xa9\\x7fx");
        assert_eq!(of("CockroachDB"), b"n???x");
    }

    #[test]
    fn values_cannot_break_out() {
        let set = |v| difference(&[("application_name", v)], &[("application_name", "")]).unwrap();
        assert_eq!(set("a'b"), "SET application_name='a''b';");
        assert_eq!(set("a\\'b"), "SET application_name=E'a\\\\''b';");
        assert_eq!(set("é"), "SET application_name='é';");
        assert_eq!(set("é\\"), "SET application_name=E'??\\\\';");
    }

    #[test]
    fn search_path_is_a_list() {
        assert_eq!(
            difference(&[("search_path", "\"$user\", public")], &[("search_path", "x")]).unwrap(),
            "SELECT pg_catalog.set_config('search_path','\"$user\", public',false);"
        );
    }
}
