//! A client that has left something in a session that does not follow it: its reads go to the primary.

use super::super::relay::Scratch;
use super::Client;
use crate::session::forward::{Judge, Received};

impl Client {
    /// Looks at what is about to be sent; says how much of it may be. HOT for what is no read.
    pub(super) fn watch(&mut self, scratch: &mut Scratch, bytes: &[u8], one_batch: bool) -> usize {
        let last = self.pool.database.catalogs.last();
        let known = last.as_ref().map_or((None, 0), |last| (Some(&last.catalog), last.generation));
        let before = self.session.kept.state();
        let shown = self.session.watch(bytes, one_batch, &mut Judge { memo: &mut scratch.memo, known });
        let state = self.session.kept.state();
        if state != before {
            tracing::debug!("{} reads from the primary: its session keeps {state}", self.info);
        }
        shown
    }

    /// The server has answered what takes back what the client has left.
    #[cold]
    pub(super) fn settle_kept(&mut self, received: &Received) {
        let status = self.server.as_ref().map(|server| server.session.pipeline.status());
        let before = self.session.kept.state();
        self.session.kept.settle(!received.failed && status == Some(b'I'));
        if !before.is_empty() && self.session.kept.state().is_empty() {
            tracing::debug!("{} may read from replicas again", self.info);
        }
    }
}
