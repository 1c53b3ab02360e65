//! `server_check_query`: a server that fails it is closed, and the client gets another one without noticing.

/// How many servers may fail for one request. The next one is used without a check: then it is the query that fails, and servers
/// that answer are in order, as they are for PgBouncer whatever they answer.
const MOST_FAILED: u8 = 3;

/// Which of the answers that a server owes is that to the check, and how often it was an error.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Check {
    /// How many answers are owed as long as that is the next one; 0: none is.
    pub(super) owed: u8,
    pub(super) failed: u8,
}

impl Check {
    /// The next server is checked, if it has to be.
    pub(super) fn is_wanted(&mut self) -> bool {
        if self.failed < MOST_FAILED {
            return true;
        }
        self.failed = 0;
        false
    }

    /// The query was sent; `owed`: so many answers are owed with its own.
    pub(super) fn begin(&mut self, owed: usize) {
        self.owed = u8::try_from(owed).unwrap_or(u8::MAX);
    }

    /// The server is another one, or none.
    pub(super) fn end(&mut self) {
        self.owed = 0;
    }
}
