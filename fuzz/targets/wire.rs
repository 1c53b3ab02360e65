//! Bytes off the wire: the first packet, frames, the messages that are read, a directory's replies.

use std::sync::Arc;

use pgweir::auth::ldap::message as ldap;
use pgweir::session::parameters::Parameters;
use pgweir::session::startup::Requested;
use pgweir::wire::frame::{self, Frame};
use pgweir::wire::startup::{self as packet, MAX_LENGTH, PROTOCOL_3_0, Session, Startup};
use pgweir::wire::{backend, frontend, write};

use super::bytes::{Bytes, message, messages, pieces};

/// What a client says first, without its length word.
pub(super) fn startup(input: &[u8]) {
    if let Some(word) = input.first_chunk::<4>() {
        if let Ok(len) = packet::body_length(*word) {
            assert!((4..MAX_LENGTH).contains(&len));
        }
    }
    let Ok(parsed) = packet::parse(input) else { return };
    let mut again = Vec::new();
    match parsed {
        Startup::Ssl | Startup::GssEnc => assert_eq!(input.len(), 4),
        Startup::Cancel(key) => {
            write::cancel_request(&mut again, &key);
            assert_eq!(&again[4..], input);
        }
        Startup::Session(session) => {
            if session.protocol == PROTOCOL_3_0 && session.options().next().is_none() {
                write::startup(&mut again, session.parameters());
                assert_eq!(&again[4..], input);
            }
            requested(&session);
        }
    }
}

/// What the client asks for, as it reaches a server.
fn requested(session: &Session) {
    let mut reported = Parameters::default();
    for name in ["client_encoding", "application_name", "TimeZone", "search_path", "server_version"] {
        reported.set(name.as_bytes(), b"before");
    }
    for ignored in [&[][..], &["options".to_owned()]] {
        let Ok(requested) = Requested::new(session, ignored) else { continue };
        let Ok(Some(wanted)) = requested.apply(&reported) else { continue };
        assert_eq!(wanted.get(b"server_version"), Some(&b"before"[..]));
        let mut query = Vec::new();
        if wanted.write_difference(&mut Arc::new(reported.clone()), &mut query) {
            let frame = frame::peek(&query).unwrap().unwrap();
            assert!(frame.is_complete() && frame.tag == b'Q' && frame.len == query.len());
            only_assignments(frame.body, wanted.iter().count());
        }
    }
}

/// A query that assigns literals and does nothing else: outside quotes there are only the words we wrote.
fn only_assignments(query: &[u8], most: usize) {
    let mut outside = Vec::new();
    let mut bytes = query.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\'' {
            outside.push(byte);
            continue;
        }
        let escapes = outside.last() == Some(&b'E');
        loop {
            match bytes.next().expect("a literal that does not end") {
                b'\'' if bytes.peek() == Some(&b'\'') => drop(bytes.next()),
                b'\'' => break,
                b'\\' => assert!(escapes && bytes.next().is_some(), "a backslash that may mean anything"),
                _ => {}
            }
        }
    }
    let outside = String::from_utf8(outside).unwrap();
    let statements: Vec<_> = outside.trim_end_matches('\0').split_terminator(';').collect();
    assert!(statements.len() <= most, "{outside}");
    for statement in statements {
        let known = ["client_encoding", "application_name", "TimeZone"];
        let assignment = statement.strip_prefix("SET ").map(|rest| rest.trim_end_matches(['=', 'E']));
        let list = ["SELECT pg_catalog.set_config(,,false)", "SELECT pg_catalog.set_config(,E,false)"];
        assert!(
            assignment.is_some_and(|name| known.contains(&name)) || list.contains(&statement),
            "{outside}"
        );
    }
}

pub(super) fn startup_seeds() -> Vec<Vec<u8>> {
    let session = |parameters: &[(&str, &str)]| {
        let mut out = Vec::new();
        write::startup(&mut out, parameters.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
        out.split_off(4)
    };
    vec![
        80_877_103u32.to_be_bytes().to_vec(),
        80_877_104u32.to_be_bytes().to_vec(),
        [&80_877_102u32.to_be_bytes()[..], &[0, 0, 0, 1], b"secret"].concat(),
        session(&[("user", "me"), ("database", "db"), ("application_name", "it's \\me\\"), ("_pq_.x", "1")]),
        session(&[
            ("user", "me"),
            ("options", "-c timezone=a\\ 'b -csearch_path=\"$user\",\\\\ --client-encoding=\u{e9}"),
        ]),
        b"\0\x03\x27\x0fuser\0me\0_pq_.command\0on\0\0".to_vec(),
    ]
}

/// Frames in a stream that comes in pieces, and the messages of which something is read.
pub(super) fn frames(input: &[u8]) {
    let mut bytes = Bytes(input);
    let seed = bytes.number();
    let whole = walk(&[bytes.0]);
    assert_eq!(whole, walk(&pieces(bytes.0, seed)));
    let mut at = 0;
    while let Ok(Some(frame)) = frame::peek(&bytes.0[at..]) {
        assert!(frame.available() <= frame.len && frame.available() <= bytes.0.len() - at);
        assert_eq!(frame.is_complete(), frame.available() == frame.len);
        body(&frame);
        at += frame.available();
    }
}

/// Tags and lengths of the frames, and whether the stream was broken.
fn walk(pieces: &[&[u8]]) -> (Vec<(u8, usize)>, bool) {
    let (mut found, mut carry) = (Vec::new(), Vec::new());
    let mut skip = 0;
    for piece in pieces {
        carry.extend_from_slice(piece);
        loop {
            let skipped = skip.min(carry.len());
            skip -= skipped;
            carry.drain(..skipped);
            match frame::peek(&carry) {
                Ok(Some(frame)) => {
                    found.push((frame.tag, frame.len));
                    skip = frame.len;
                }
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

/// Reads a body as each of the messages that the proxy looks into; what can be read can be written again.
fn body(frame: &Frame<'_>) {
    let body = frame.body;
    let same = |written: Vec<u8>, read: &[u8]| assert_eq!(written, message(written[0], read));
    let _ = backend::error_fields(body).text();
    if let Some((name, value)) = backend::parameter_status(body) {
        let mut out = Vec::new();
        write::parameter_status(&mut out, name, value);
        same(out, &body[..name.len() + value.len() + 2]);
    }
    if let Some(key) = backend::backend_key_data(body) {
        let mut out = Vec::new();
        write::backend_key_data(&mut out, &key);
        same(out, body);
    }
    if let Ok(parse) = frontend::parse(body) {
        let mut out = Vec::new();
        write::parse(&mut out, parse.name, parse.text_and_types);
        same(out, body);
        assert!(parse.text_and_types.starts_with(parse.text()));
    }
    for named in [frontend::bind(body), frontend::target(body).ok()].into_iter().flatten() {
        assert_eq!([named.before, named.name, b"\0", named.after].concat(), body);
    }
}

pub(super) fn frames_seeds() -> Vec<Vec<u8>> {
    let stream = messages(&[
        (b'P', b"s1\0select $1\0\0\x01\0\0\0\x17"),
        (b'B', b"portal\0s1\0\0\0"),
        (b'D', b"Ss1\0"),
        (b'E', b"SERROR\0VERROR\0C42601\0Mbad\0\0"),
        (b'S', b"TimeZone\0UTC\0"),
        (b'K', b"\0\0\0\x01abcd"),
        (b'S', b""),
    ]);
    vec![[&[0, 0][..], &stream].concat(), [&[1, 9][..], &stream].concat(), b"\0\0d\x7f\xff\xff\xffx".to_vec()]
}

/// What an LDAP server answers.
pub(super) fn ldap_message(input: &[u8]) {
    if let Ok(Some(len)) = ldap::len(input) {
        assert!(len <= ldap::MAX_LEN);
        for shorter in 0..input.len().min(8) {
            let seen = ldap::len(&input[..shorter]);
            assert!(seen == Ok(None) || seen == Ok(Some(len)), "{seen:?}, then {len}");
        }
        if let Some(whole) = input.get(..len) {
            // Nothing behind a message is taken for a part of it.
            assert_eq!(ldap::decode(whole), ldap::decode(input));
        } else {
            assert!(ldap::decode(input).is_err());
        }
    }
    if let Ok((_, ldap::Reply::Bound(outcome) | ldap::Reply::Searched(outcome))) = ldap::decode(input) {
        let _ = outcome.to_string();
    }
}

pub(super) fn ldap_message_seeds() -> Vec<Vec<u8>> {
    vec![
        b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00".to_vec(),
        b"\x30\x0d\x02\x01\x02\x64\x08\x04\x04cn=x\x30\x00".to_vec(),
        b"\x30\x84\0\0\0\x10\x02\x01\x02\x65\x84\0\0\0\x07\x0a\x01\x31\x04\x00\x04\x00".to_vec(),
        b"\x30\x81\x05\x02\x01\x02\x73\x00".to_vec(),
        ldap::bind(1, "cn=me,dc=example", "secret"),
    ]
}
