//! Changes to what client and server have prepared, counted.

use crate::session::numbers::ChangeNumber;

/// Counts the changes that messages make to what client and server have prepared. All numbers only grow, also when a client
/// goes from one server to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The last one that was sent, or answered in the server's place.
    pub(in crate::session) made: ChangeNumber,
    /// The last one of which it is known whether it happened.
    pub(in crate::session) done: ChangeNumber,
    /// The last one that does not belong to the batch at hand.
    pub(in crate::session) before_batch: ChangeNumber,
    /// All up to this one are about to be forgotten: DEALLOCATE ALL or DISCARD ALL has been sent.
    pub(super) forgetting: Option<ChangeNumber>,
}

impl Changes {
    /// Whether the server has yet to say if a change holds: it belongs to an earlier batch, or a command forgets it.
    pub(in crate::session) fn is_in_doubt(&self, change: ChangeNumber) -> bool {
        change > self.done && change <= self.before_batch
            || self.forgetting.is_some_and(|last| change <= last)
    }

    /// Whether a change belongs to the batch at hand.
    pub(in crate::session) fn is_in_batch(&self, change: ChangeNumber) -> bool {
        change > self.before_batch
    }
}

/// What is not going to happen because of an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::session) struct Skipped {
    /// Changes up to this one are undone.
    pub(in crate::session) last_change: Option<ChangeNumber>,
    /// So many of a client's Describe messages will not be answered.
    pub(in crate::session) describes: usize,
}
