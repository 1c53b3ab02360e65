//! Where a transaction may run. Pure.
//!
//! A decision is made for a batch: one simple query, or the extended-protocol messages up to Sync. Only if all of
//! it is at hand and all of it is known to read does it go to a replica; whatever is unknown goes to the primary.
//! Within an explicit `READ ONLY` transaction the server stays the same, so what follows need not be looked at.

use crate::route::cluster::Purpose;
use crate::session::forward::ClientSession;
use crate::session::parameters::Parameters;
use crate::sql::{self, Class, Dialect};
use crate::wire::frame::peek;
use crate::wire::frontend;

/// What the batch at the start of `buf` needs.
pub fn purpose(buf: &[u8], client: &ClientSession) -> Purpose {
    if is_read(buf, client).unwrap_or(false) { Purpose::Read } else { Purpose::Write }
}

/// The class of a statement that a client with these parameters has sent.
pub fn class(text: &[u8], parameters: &Parameters) -> Class {
    sql::classify(text, Dialect { standard_conforming_strings: parameters.standard_conforming_strings() })
}

/// `None`: something in the batch is missing or not understood.
fn is_read(mut buf: &[u8], client: &ClientSession) -> Option<bool> {
    if !is_ascii_safe(client) && !buf.is_ascii() {
        return None;
    }
    let mut read = false;
    let mut first = true;
    loop {
        let frame = peek(buf).ok()??;
        if !frame.is_complete() {
            return None;
        }
        match frame.tag {
            b'Q' if first => {
                return Some(may_go_to_replica(class(frontend::text(frame.body), &client.parameters)));
            }
            b'P' => {
                let class = class(frontend::parse(frame.body).ok()?.text(), &client.parameters);
                if !may_go_to_replica(class) {
                    return Some(false);
                }
                read = true;
            }
            b'B' => {
                let name = frontend::bind(frame.body)?.name;
                // The unnamed statement is the one parsed in this very batch, or unknown.
                let known = if name.is_empty() {
                    read
                } else {
                    client.statements.get(name).map_or(read, |s| may_go_to_replica(s.class))
                };
                if !known {
                    return Some(false);
                }
                read = true;
            }
            b'D' | b'E' | b'C' => {}
            b'S' => return Some(read),
            _ => return None,
        }
        first = false;
        buf = &buf[frame.len..];
    }
}

/// A read outside a transaction, or the beginning of a transaction that can only read.
fn may_go_to_replica(class: Class) -> bool {
    class.is_replica_safe()
}

/// In some encodings a character's second byte may look like ASCII, which the lexer would misread.
fn is_ascii_safe(client: &ClientSession) -> bool {
    let unsafe_encodings: &[&[u8]] =
        &[b"SJIS", b"BIG5", b"GBK", b"UHC", b"GB18030", b"JOHAB", b"SHIFT_JIS_2004"];
    client
        .parameters
        .get(b"client_encoding")
        .is_none_or(|e| !unsafe_encodings.iter().any(|u| u.eq_ignore_ascii_case(e)))
}
