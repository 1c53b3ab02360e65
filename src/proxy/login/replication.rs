//! Logins of replication clients: each gets a server connection of its own, opened with the client's own parameters.

use std::sync::Arc;
use std::time::Duration;

use super::{Failure, Newcomer};
use crate::clock;
use crate::error::{Refusal, shown, sqlstate};
use crate::proxy::grow;
use crate::proxy::lease::Lease;
use crate::proxy::pools::Pool;
use crate::proxy::server::{self, ConnectError, Server};
use crate::session::startup::own_parameters;
use crate::wire::startup::Session;

/// How often a full pool is looked at.
const RETRY: Duration = Duration::from_millis(50);

/// What a client wants to replicate (startup parameter `replication`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replication {
    /// It is an ordinary client.
    No,
    /// `database`: a database's changes.
    Logical,
    /// `true`: the whole cluster's log.
    Physical,
}

impl Replication {
    pub(super) fn of(session: &Session) -> Result<Self, Refusal> {
        let Some(value) = session.parameter("replication") else { return Ok(Self::No) };
        match value.to_ascii_lowercase().as_slice() {
            b"database" => Ok(Self::Logical),
            b"true" | b"on" | b"yes" | b"1" | b"t" | b"y" => Ok(Self::Physical),
            b"false" | b"off" | b"no" | b"0" | b"f" | b"n" => Ok(Self::No),
            _ => {
                let shown = shown(value);
                Err(Refusal::new(
                    sqlstate::INVALID_PARAMETER,
                    format!("invalid value for parameter \"replication\": \"{shown}\""),
                )
                .hint("Valid values are: \"false\", 0, \"true\", 1, \"database\"."))
            }
        }
    }

    /// As SHOW says it.
    pub(super) fn shown(self) -> &'static str {
        match self {
            Self::No => "none",
            Self::Logical => "logical",
            Self::Physical => "physical",
        }
    }

    /// As the log says it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Logical => "database",
            Self::Physical => "yes",
        }
    }
}

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
