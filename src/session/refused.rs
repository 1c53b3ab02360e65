//! Messages that only the proxy knows to be wrong: a name that the client has not prepared, or has prepared already.
//!
//! The server has to refuse them, so that batch and transaction fail there, too. It is sent something that it cannot but
//! refuse, and its error goes to the client in the words that PostgreSQL has for what the client did.

use crate::error::{Refusal, sqlstate};

/// What the server was made to refuse.
#[derive(Debug)]
pub(super) struct Refused {
    why: RefusedFor,
    name: Box<[u8]>,
}

/// Why a message must fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusedFor {
    /// There is no statement of that name.
    Missing,
    /// The same, and the client has had all its statements forgotten before. PgBouncer's code and words, which its users may
    /// wait for: the client knows what it has done.
    Forgotten,
    /// There is one already.
    Duplicate,
    /// It has other columns by now than those the client has been told of.
    OtherColumns,
}

impl Refused {
    pub(super) fn new(why: RefusedFor, name: &[u8]) -> Self {
        Self { why, name: name.into() }
    }

    /// The error in PostgreSQL's words, if `sqlstate` is what the server says to what it was sent: it may have another
    /// reason to refuse it, which comes first.
    pub(super) fn refusal(&self, sqlstate: &[u8]) -> Option<Refusal> {
        let name = String::from_utf8_lossy(&self.name);
        let (expected, refusal) = match self.why {
            RefusedFor::Missing => (
                sqlstate::UNKNOWN_STATEMENT,
                Refusal::new(
                    sqlstate::UNKNOWN_STATEMENT,
                    format!("prepared statement \"{name}\" does not exist"),
                )
                .detail(
                    "PgBouncer: prepared statement did not exist, server closed the connection unexpectedly.",
                )
                .hint("This client has not prepared it.")
                .log(format!("prepared statement did not exist: {name}")),
            ),
            RefusedFor::Forgotten => (
                sqlstate::UNKNOWN_STATEMENT,
                Refusal::protocol(format!("prepared statement did not exist: {name}"))
                    .hint("DEALLOCATE ALL or DISCARD ALL of this client has removed it."),
            ),
            RefusedFor::Duplicate => (
                sqlstate::DUPLICATE_STATEMENT,
                Refusal::new(
                    sqlstate::DUPLICATE_STATEMENT,
                    format!("prepared statement \"{name}\" already exists"),
                )
                .log(format!("prepared statement '{name}' was already prepared")),
            ),
            RefusedFor::OtherColumns => (
                sqlstate::UNKNOWN_STATEMENT,
                Refusal::new(sqlstate::NOT_SUPPORTED, "cached plan must not change result type"),
            ),
        };
        (sqlstate == expected.as_bytes()).then_some(refusal)
    }
}
