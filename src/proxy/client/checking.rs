//! What becomes of a client whose server has answered, or failed, what it was asked first.

use super::super::close::CloseReason;
use super::Client;
use crate::session::forward::ServerFault;

impl Client {
    /// The server has answered what it was asked first; `false`: it is of no use, and the request begins once more.
    #[cold]
    pub(super) fn is_prepared(&mut self) -> bool {
        let is_checked = std::mem::take(&mut self.check.owed) > 0;
        let is_open = self.server.as_ref().is_some_and(|s| s.session.pipeline.status() != b'I');
        if is_checked && is_open {
            self.failed_check("server_check_query leaves a transaction open".into());
            return false;
        }
        self.check.failed = 0;
        self.take_canonical_parameters();
        true
    }

    /// Whether it is the check that the server has refused. Then the request begins once more.
    pub(super) fn has_failed_check(&mut self, fault: &ServerFault) -> bool {
        let with_check = usize::from(std::mem::take(&mut self.check.owed));
        let ServerFault::Setup(why) = fault else { return false };
        let owed = self.server.as_ref().map_or(0, |server| server.session.pipeline.len());
        let is_check = self.preparing && owed > 0 && owed == with_check;
        if is_check {
            self.failed_check(format!("server_check_query failed: {why}"));
        }
        is_check
    }

    fn failed_check(&mut self, why: String) {
        self.check.failed += 1;
        if let Some(server) = self.server.take() {
            self.info.link.store(0, std::sync::atomic::Ordering::Relaxed);
            server.close(CloseReason::QueryFailed(why));
        }
        self.begin_anew();
    }
}
