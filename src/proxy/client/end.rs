//! Why the task of a client ends.

use std::io;

use super::super::close::CloseReason;
use crate::error::Refusal;

/// Why the task ends.
pub(super) enum End {
    /// One side has closed the connection.
    Gone(Gone),
    /// It goes to the process that has taken over from this one.
    Moved,
    /// It is told why. Boxed, because results travel up the stack on every transaction and this one never.
    Refused(Box<Refusal>),
}

/// Which side has closed its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// The client has sent Terminate.
    Goodbye,
    /// The client's connection has ended without.
    Eof,
    /// The server, which has told the client why.
    ServerCrashed,
}

impl Gone {
    /// PgBouncer's words for the log.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Goodbye => "client close request",
            Self::Eof => "client unexpected eof",
            Self::ServerCrashed => CloseReason::Crashed.words(),
        }
    }
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Gone(Gone::Eof)
    }
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}
