//! The unnamed prepared statement in what a client sends. A server has one, which may be another client's.

use super::walk::{Inject, Step, Walk};
use crate::session::pipeline::{Action, Expect};

impl Walk<'_> {
    /// A Parse of the unnamed statement goes to the server. `text`: what follows its name, if it is to be kept for another
    /// server.
    pub(super) fn expect_unnamed(&mut self, text: Option<&[u8]>) {
        if self.context.exclusive || self.server.pipeline.is_skipping() {
            self.server.pipeline.expect(Expect::Parse, Action::Forward);
        } else {
            self.client.unnamed = None;
            let change = self.server.pipeline.expect_change(Expect::Parse, Action::Forward, None);
            self.server.unnamed.prepare(text, false, change);
        }
    }

    /// The pooler's own Parse of it is sent, or a Close if there is to be none.
    pub(super) fn expect_unnamed_of_ours(&mut self, text: Option<&[u8]>) {
        let expect = if text.is_some() { Expect::Parse } else { Expect::Close };
        let change = self.server.pipeline.expect_change(expect, Action::Skip, None);
        self.server.unnamed.prepare(text, true, change);
    }

    /// The unnamed statement is about to be used: is it this client's?
    pub(super) fn unnamed_statement<'a>(&mut self) -> Option<Step<'a>> {
        if self.context.exclusive || self.server.pipeline.is_skipping() {
            return None;
        }
        let unnamed = &self.server.unnamed;
        if !unnamed.valid {
            return Some(Step::Inject(self.client.unnamed.take().map_or(Inject::NoUnnamed, Inject::Unnamed)));
        }
        if unnamed.in_batch {
            return None;
        }
        if self.server.pipeline.changes().is_in_doubt(unnamed.change) {
            return Some(Step::Hold);
        }
        unnamed.is_lost().then_some(Step::Inject(Inject::NoUnnamed))
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
