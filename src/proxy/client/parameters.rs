//! What the log says, when asked to, of parameters that follow the client. PgBouncer calls them the varcache.

use super::super::server::Server;
use super::Client;

impl Client {
    /// The server is told what to set, by the query at the end of `pending` that begins at `at`.
    #[cold]
    pub(super) fn log_parameters_set(server: &Server, at: usize) {
        // A simple query: its header, the text, a NUL.
        let pending = &server.pending.bytes;
        let sql = pending.get(at + 5..pending.len() - 1).unwrap_or_default();
        tracing::debug!("{} varcache_apply: {}", server.info, String::from_utf8_lossy(sql));
    }

    /// The server has accepted what the client chose at login: its spelling of the values is the client's from now on.
    #[cold]
    pub(super) fn take_canonical_parameters(&mut self) {
        let Some(server) = &self.server else { return };
        for (name, theirs) in server.session.parameters.iter() {
            let ours = self.session.parameters.get(name).unwrap_or_default();
            if ours != theirs {
                let text = String::from_utf8_lossy;
                let (name, ours, theirs) = (text(name), text(ours), text(theirs));
                tracing::debug!(
                    "{} varcache_set_canonical: setting {name} to its canonical version {ours} -> {theirs}",
                    self.info
                );
            }
        }
        self.session.parameters = std::sync::Arc::clone(&server.session.parameters);
    }
}
