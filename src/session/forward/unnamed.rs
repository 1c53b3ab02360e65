//! The unnamed prepared statement. A server has one, which may be another client's.

use super::walk::{Inject, Step, Walk};
use crate::session::pipeline::{Action, Expect};

impl Walk<'_> {
    /// A Parse of the unnamed statement goes to the server. `text`: what follows its name, if it is to be kept for another
    /// server.
    pub(super) fn expect_unnamed(&mut self, text: Option<&[u8]>) {
        self.server.pipeline.expect(Expect::Parse, Action::Forward);
        if !self.context.exclusive && !self.server.pipeline.is_skipping() {
            self.client.unnamed = None;
            let unnamed = &mut self.server.unnamed;
            (unnamed.valid, unnamed.bound) = (true, false);
            (unnamed.in_batch, unnamed.doubtful) = (true, false);
            unnamed.text.clear();
            unnamed.text.extend_from_slice(text.unwrap_or_default());
        }
    }

    /// The unnamed statement is about to be used: is it this client's?
    pub(super) fn unnamed_statement<'a>(&mut self) -> Option<Step<'a>> {
        if self.context.exclusive || self.server.pipeline.is_skipping() {
            return None;
        }
        let unnamed = &self.server.unnamed;
        let again = if !unnamed.valid {
            self.client.unnamed.take()
        } else if unnamed.in_batch || self.server.pipeline.is_empty() && !unnamed.doubtful {
            return None;
        } else {
            // If its batch has failed, or will, the server still has somebody else's.
            (!unnamed.text.is_empty()).then(|| unnamed.text.as_slice().into())
        };
        Some(Step::Inject(again.map_or(Inject::NoUnnamed, Inject::Unnamed)))
    }

    /// A simple query or a Close ends the unnamed statement, wherever it was.
    #[inline]
    pub(super) fn forget_unnamed(&mut self) {
        if !self.server.pipeline.is_skipping() {
            self.server.unnamed.valid = false;
            self.client.unnamed = None;
        }
    }
}
