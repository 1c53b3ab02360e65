//! A read that fails where it was sent is run again on the primary, and the client sees nothing of it: a standby cancels
//! queries that are in the way of replay, lacks tables that have just been made, or goes away. So is a batch that uses a
//! prepared statement which the server has lost, or cannot go on with, without the proxy's doing.
//!
//! The batch is kept until something of its result goes to the client. What comes before that (ParseComplete,
//! RowDescription) is held back. An error that only a standby has a reason for (see `attempt`) is not passed on then, the
//! batch runs once more, and what comes of that is final. Any other error is the result, but for that of a lost statement.

use super::super::client_handle::ClientState;
use super::super::relay::Scratch;
use super::attempt::{Attempt, prepared};
use super::phase::Phase;
use super::{Client, max_prepared};

impl Client {
    /// Keeps a batch that reads, so that it can be run again.
    pub(super) fn keep(&mut self, scratch: &mut Scratch, bytes: &[u8]) {
        self.attempt = Attempt::new(scratch, bytes, self.access, self.session.last_change());
    }

    /// Keeps a batch that begins with the use of a prepared statement, or with one that the server may have already. HOT.
    #[inline]
    pub(super) fn keep_with_statements(&mut self, scratch: &mut Scratch, bytes: &[u8]) {
        let uses = match bytes {
            [b'B' | b'D' | b'C', ..] => !self.session.statements.is_empty(),
            [b'P', _, _, _, _, first, ..] => *first != 0,
            _ => false,
        };
        if uses && !self.is_second_run && self.attempt.is_none() && max_prepared(&self.settings) > 0 {
            self.attempt = Attempt::with_statements(scratch, bytes, self.session.last_change());
        }
    }

    /// Has a batch run once more of which the server had lost a prepared statement, or of which the replica has no use.
    pub(super) fn run_again(&mut self) {
        let Some(attempt) = self.attempt.take_if(|attempt| attempt.may_write()) else {
            self.try_on_primary("it has failed");
            return;
        };
        tracing::info!("{} a batch is run again: its server had lost a prepared statement", self.info);
        self.repeat(attempt);
    }

    /// Has a read run on the primary, before whatever the client has sent since. `false`: nothing was kept.
    pub(super) fn try_on_primary(&mut self, why: &str) -> bool {
        let Some(attempt) = self.attempt.take().filter(|attempt| !attempt.may_write()) else { return false };
        tracing::info!("{} a read is run again on the primary: {why}", self.info);
        self.repeat(attempt);
        true
    }

    /// What comes of it then is final.
    fn repeat(&mut self, attempt: Attempt) {
        self.is_second_run = true;
        for name in prepared(&attempt.batch) {
            self.session.statements.remove_set_after(name, attempt.last_change);
        }
        let mut bytes = attempt.batch;
        bytes.extend_from_slice(&self.carry);
        self.carry = bytes;
        (self.hold, self.preparing) = (false, false);
        self.reading = None;
        self.phase = Phase::Idle;
        self.info.set_state(ClientState::Idle);
        self.set_deadline(self.request_started);
    }
}
