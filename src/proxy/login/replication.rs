//! Logins of replication clients: each gets a server connection of its own, opened with the client's own parameters.

use std::sync::Arc;
use std::time::Duration;

use super::failure::Failure;
use super::newcomer::Newcomer;
use crate::clock;
use crate::error::{Refusal, sqlstate};
use crate::proxy::grow;
use crate::proxy::lease::Lease;
use crate::proxy::pools::Pool;
use crate::proxy::server::{self, ConnectError, Server};
use crate::session::startup::own_parameters;
use crate::wire::startup::Session;

/// How often a full pool is looked at.
const RETRY: Duration = Duration::from_millis(50);

impl Newcomer {
    /// Opens a server connection for this client alone. It takes a place in the pool, for which it may have to wait.
    pub(super) async fn own_server(
        &mut self,
        pool: &Arc<Pool>,
        session: &Session,
    ) -> Result<Box<Server>, Failure> {
        let ignored = &self.shared.config.load_full().settings.ignore_startup_parameters;
        let parameters = own_parameters(session, ignored)?;
        let limit = pool.timeouts(&self.shared.config.load(), &pool.user.name).query_wait_timeout;
        let limit = if limit.is_zero() { Duration::MAX } else { limit };
        let lease = tokio::time::timeout(limit, self.wait_for_place(pool))
            .await
            .map_err(|_| Refusal::new(sqlstate::TOO_MANY_CONNECTIONS, "query_wait_timeout"))??;
        let lane = Arc::clone(pool.lane(lease.purpose()));
        match server::open(&self.shared, pool, lease, &parameters).await {
            Ok(server) => {
                lane.connected();
                Ok(server)
            }
            Err((error, lease)) => {
                lane.connected();
                drop(lease);
                let refusal = match error {
                    ConnectError::Refused(refusal) => refusal,
                    other => Refusal::new(sqlstate::CANNOT_CONNECT, other.to_string()),
                };
                Err(refusal.detail("server login failed").log("login failed").into())
            }
        }
    }

    async fn wait_for_place(&mut self, pool: &Arc<Pool>) -> Result<Lease<Box<Server>>, Failure> {
        loop {
            if let Some(lease) = grow::claim(&self.shared, pool, clock::now()) {
                return Ok(lease);
            }
            let gone = std::future::poll_fn(|cx| self.stream.poll_closed(cx));
            if tokio::time::timeout(RETRY, gone).await.is_ok() {
                return Err(Failure::Silent("client unexpected eof"));
            }
        }
    }
}
