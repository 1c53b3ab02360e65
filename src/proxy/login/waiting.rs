//! Logins that need a server wait for one in the pool's queue, as a query would.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::failure::Failure;
use super::newcomer::Newcomer;
use crate::clock;
use crate::error::{Refusal, sqlstate};
use crate::pool::{Outcome, Waiter};
use crate::proxy::give_back::give_back;
use crate::proxy::grow;
use crate::proxy::pools::{Pool, User};
use crate::proxy::server::Server;
use crate::proxy::shared::Shared;
use crate::route::cluster::Purpose;
use crate::session::parameters::Parameters;

impl Newcomer {
    /// What the pool's servers report; if none was reached yet, waits for one as for a query.
    pub(super) async fn reported_parameters(
        &mut self,
        pool: &Arc<Pool>,
        user: &User,
    ) -> Result<Arc<Parameters>, Failure> {
        loop {
            // While there is no primary to be asked reads go on, and so do logins.
            let only_reads = {
                let topology = pool.database.hosts.load();
                topology.has_replica && topology.primary.is_none()
            };
            if let Some(welcome) = if only_reads { pool.last_welcome() } else { pool.welcome() } {
                return Ok(welcome);
            }
            if let Some(welcome) = pool.last_welcome().filter(|_| pool.is_refused(clock::now())) {
                // Nothing newer can be learnt for now. The first query waits for the next attempt, and reads what comes of it.
                return Ok(welcome);
            }
            let server = Box::pin(self.wait_for_server(pool, &user.name)).await?;
            // It was opened before all others became obsolete: its defaults may be old ones.
            let is_obsolete = server.info.is_obsolete();
            let parameters = Arc::clone(&server.session.parameters);
            give_back(&self.shared, pool, server, self.worker, false);
            if !is_obsolete {
                return Ok(pool.welcome().unwrap_or(parameters));
            }
        }
    }

    /// Waits for a server of a pool, in its queue, as a query would.
    pub(super) async fn wait_for_server(
        &mut self,
        pool: &Arc<Pool>,
        user: &str,
    ) -> Result<Box<Server>, Failure> {
        let timeouts = pool.timeouts(&self.shared.config.load(), user);
        let now = clock::now();
        if let Some((refusal, at)) = &*pool.login_error.lock() {
            if now.since(*at) < pool.settings.load().server_login_retry {
                return Err(grow::login_failing(refusal).into());
            }
        }
        let queued = Queued {
            shared: Arc::clone(&self.shared),
            pool: Arc::clone(pool),
            waiter: Arc::new(Waiter::new(self.worker)),
        };
        if let Some(server) = pool.lane(Purpose::Write).checkout(self.worker) {
            return Ok(server);
        }
        let mut started = false;
        let wait = std::future::poll_fn(|cx| {
            if !started {
                started = true;
                queued.waiter.start(now, cx.waker());
                pool.lane(Purpose::Write).wait(Arc::clone(&queued.waiter));
                grow::grow(&self.shared, pool, Purpose::Write, self.worker, now);
            }
            match queued.waiter.poll(cx) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                // Nobody holds a place for a client that has given up. One that has sent its requests already has not.
                Poll::Pending if self.received.is_empty() => self.stream.poll_closed(cx).map(|()| None),
                Poll::Pending => Poll::Pending,
            }
        });
        let limits = [
            (timeouts.query_wait_timeout, sqlstate::CANNOT_CONNECT, "query_wait_timeout"),
            (timeouts.query_timeout, sqlstate::QUERY_CANCELED, "query_timeout"),
        ];
        let first =
            limits.into_iter().filter(|(limit, ..)| !limit.is_zero()).min_by_key(|(limit, ..)| *limit);
        let (limit, code, words) = first.unwrap_or((Duration::MAX, sqlstate::CANNOT_CONNECT, ""));
        match tokio::time::timeout(limit, wait).await {
            Ok(Some(Outcome::Granted(server))) => Ok(server),
            Ok(Some(Outcome::Refused(refusal))) => Err(refusal.into()),
            Ok(None) => Err(Failure::Silent("client unexpected eof")),
            Err(_) => Err(Refusal::new(code, words)
                .detail("No connection to the server could be had in time.")
                .into()),
        }
    }
}

/// A place in a pool's queue; whoever gives up waiting gives up the place, and what was granted meanwhile.
struct Queued {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    waiter: Arc<Waiter<Box<Server>>>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        if let Some(server) = self.pool.lane(Purpose::Write).give_up(&self.waiter) {
            give_back(&self.shared, &self.pool, server, self.waiter.worker, false);
        }
    }
}
