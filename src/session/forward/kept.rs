//! What a client has left in sessions of servers.

use crate::sql::{Effect, State};

/// What a client has left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    state: State,
    /// What is not there any more if all goes well that has been sent.
    taken_back: State,
    /// What its unnamed statement does when it is bound.
    pub(super) unnamed: Effect,
}

impl Kept {
    /// What it has left.
    #[inline]
    pub fn state(&self) -> State {
        self.state
    }

    /// Comes with a client from another process.
    pub fn restore(&mut self, state: State) {
        self.state = state;
    }

    /// Whether something is to be taken back when the server has answered.
    #[inline]
    pub fn is_changing(&self) -> bool {
        !self.taken_back.is_empty()
    }

    /// The server has answered: with an error, with ReadyForQuery inside a transaction, whose end may bring back what was
    /// there before, or outside one.
    pub fn settle(&mut self, went_well: bool) {
        let taken_back = std::mem::take(&mut self.taken_back);
        if went_well {
            self.state = self.state.without(taken_back);
        }
    }

    #[inline]
    pub(super) fn take(&mut self, effect: Effect) {
        self.state |= effect.leaves;
        self.taken_back = self.taken_back.without(effect.leaves);
        self.taken_back |= effect.takes_back;
    }
}
