//! Where a transaction may run. Pure.
//!
//! A decision is made for a batch: one simple query, or the extended-protocol messages up to Sync. Only if all of
//! it is at hand and all of it is known to read does it go to a replica; whatever is unknown goes to the primary.
//! Within an explicit `READ ONLY` transaction the server stays the same, so what follows need not be looked at.

use crate::route::cluster::Purpose;
use crate::session::forward::ClientSession;
use crate::session::parameters::Parameters;
use crate::sql::{self, Catalog, Class, Dialect, Route};
use crate::wire::frame::peek;
use crate::wire::frontend;

/// What is known of a database, and its number: each newer one has another, 0 means that nothing is known.
pub type Known<'a> = (Option<&'a Catalog>, u32);

/// What the batch at the start of `buf` needs.
pub fn purpose(buf: &[u8], client: &mut ClientSession, known: Known<'_>) -> Purpose {
    let read = match client.route {
        Route::Auto => is_read(buf, client, known).unwrap_or(false),
        Route::Primary => false,
        Route::Replica => true,
    };
    if read { Purpose::Read } else { Purpose::Write }
}

/// `None`: something in the batch is missing or not understood.
fn is_read(mut buf: &[u8], client: &mut ClientSession, (catalog, generation): Known<'_>) -> Option<bool> {
    let rules = Rules { parameters: &client.parameters, catalog };
    let mut read = false;
    let mut first = true;
    loop {
        let frame = peek(buf).ok()??;
        if !frame.is_complete() {
            return None;
        }
        match frame.tag {
            b'Q' if first => return Some(rules.may_go_to_replica(rules.class(frontend::text(frame.body)))),
            b'P' => {
                let class = rules.class(frontend::parse(frame.body).ok()?.text());
                if !rules.may_go_to_replica(class) {
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
                    let class = client.statements.class(name, generation, |s| rules.class(s.text()));
                    class.map_or(read, |class| rules.may_go_to_replica(class))
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

/// What a client's statements are judged by.
struct Rules<'a> {
    parameters: &'a Parameters,
    catalog: Option<&'a Catalog>,
}

impl Rules<'_> {
    fn class(&self, text: &[u8]) -> Class {
        if !text.is_ascii() && self.has_ascii_bytes_in_characters() {
            return Class::Write;
        }
        let standard_conforming_strings = self.parameters.standard_conforming_strings();
        sql::classify(text, Dialect { standard_conforming_strings }, self.catalog)
    }

    /// A read outside a transaction, or the beginning of a transaction that can only read.
    fn may_go_to_replica(&self, class: Class) -> bool {
        match class {
            Class::Read | Class::BeginReadOnly => true,
            Class::Begin => self.parameters.get(b"default_transaction_read_only") == Some(b"on"),
            Class::Write => false,
        }
    }

    /// In some encodings a character's second byte may look like ASCII, which the lexer would misread.
    fn has_ascii_bytes_in_characters(&self) -> bool {
        const ENCODINGS: &[&[u8]] =
            &[b"SJIS", b"BIG5", b"GBK", b"UHC", b"GB18030", b"JOHAB", b"SHIFT_JIS_2004"];
        let encoding = self.parameters.get(b"client_encoding");
        encoding.is_some_and(|encoding| ENCODINGS.iter().any(|e| e.eq_ignore_ascii_case(encoding)))
    }
}
