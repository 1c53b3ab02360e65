//! What a client is at.

use super::end::{End, Gone};
use crate::route::cluster::Purpose;

/// See the module `client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Waiting(Purpose),
    Linked,
    Leaving(Departure),
}

/// What is left to be done for a client that has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Departure {
    pub(super) has_said_goodbye: bool,
    /// How many of the answers that its server owes are not waited for.
    pub(super) unfinished: u32,
}

impl Departure {
    /// Why it is over.
    pub(super) fn end(self) -> End {
        End::Gone(if self.has_said_goodbye { Gone::Goodbye } else { Gone::Eof })
    }
}
