//! How a pool gets its server connections, and loses idle ones to others that need the place.

use std::sync::Arc;
use std::time::Duration;

use super::close::CloseReason;
use super::lease::{Lease, Owner};
use super::pools::Pool;
use super::server::{self, ConnectError, Server};
use super::shared::Shared;
use crate::clock::{self, Micros};
use crate::error::{Refusal, sqlstate};
use crate::pool::Place;
use crate::pool::limits::Permit;
use crate::pool::state::Launch;
use crate::route::cluster::Purpose;

/// Opens the connections that those who wait need and limits allow.
pub fn grow(shared: &Arc<Shared>, pool: &Arc<Pool>, purpose: Purpose, worker: usize, now: Micros) {
    let sizes = pool.sizes();
    let lane = pool.lane(purpose);
    while let Some(launch) = lane.launch(&sizes, now) {
        if launch == Launch::Reserve {
            let (database, user) = (&pool.database.name, &pool.user.name);
            tracing::info!("{database}/{user} taking connection from reserve_pool");
        }
        match lease(shared, pool, purpose) {
            Ok(lease) => open_on(shared, pool, worker, lease),
            Err(full) => {
                lane.launch_denied();
                // A limit that several pools share is reached: an idle server of one of them has to go.
                if !evict_idle(shared, pool, full) {
                    break;
                }
            }
        }
    }
}

/// Opens connections until there are `min_pool_size`.
pub fn warm(shared: &Arc<Shared>, pool: &Arc<Pool>, now: Micros) {
    let settings = pool.settings.load();
    let most = if settings.pool_size == 0 { usize::MAX } else { settings.pool_size };
    let min = settings.min_pool_size.min(most);
    let lane = pool.lane(Purpose::Write);
    let mut worker = 0;
    while lane.may_launch_spare(now) && lane.launch_spare(min, now) {
        let Ok(lease) = lease(shared, pool, Purpose::Write) else {
            lane.launch_denied();
            break;
        };
        open_on(shared, pool, worker % shared.workers.len(), lease);
        worker += 1;
    }
}

/// Sends those who wait for a replica to the primary, which can serve reads, too: the replica may not come back.
pub fn leave_replica(shared: &Arc<Shared>, pool: &Arc<Pool>, host: usize, worker: usize) {
    let primary = pool.lane(Purpose::Write);
    if pool.lane(Purpose::Read(host)).move_waiters_to(primary) > 0 {
        primary.serve_waiters(worker);
        grow(shared, pool, Purpose::Write, worker, clock::now());
    }
}

/// A place for a connection that one client keeps for itself, if there is one now; an idle server may have to go for it. It is
/// counted as one being opened.
pub fn claim(shared: &Arc<Shared>, pool: &Arc<Pool>, now: Micros) -> Option<Lease<Box<Server>>> {
    let lane = pool.lane(Purpose::Write);
    let size = match pool.settings.load().pool_size {
        0 => usize::MAX,
        size => size,
    };
    if !lane.launch_spare(size, now) {
        let mut found = false;
        let evicted = lane.take_idle(|_| !std::mem::replace(&mut found, true));
        evicted.into_iter().for_each(|server| server.close(CloseReason::Evicted));
        if !found || !lane.launch_spare(size, now) {
            return None;
        }
    }
    let lease = lease(shared, pool, Purpose::Write);
    if let Err(full) = lease {
        lane.launch_denied();
        evict_idle(shared, pool, full);
    }
    lease.ok()
}

/// A place for a connection that exists already, however many there may be.
pub fn lease_regardless(shared: &Arc<Shared>, pool: &Arc<Pool>) -> Lease<Box<Server>> {
    pool.lane(Purpose::Write).count_opened();
    let permits = [pool.database.servers.acquire_regardless(), pool.user.servers.acquire_regardless()];
    lease_with(shared, pool, permits, Purpose::Write)
}

fn lease(shared: &Arc<Shared>, pool: &Arc<Pool>, purpose: Purpose) -> Result<Lease<Box<Server>>, Full> {
    let permits = [
        pool.database.servers.acquire().ok_or(Full::Database)?,
        pool.user.servers.acquire().ok_or(Full::User)?,
    ];
    Ok(lease_with(shared, pool, permits, purpose))
}

fn lease_with(
    shared: &Arc<Shared>,
    pool: &Arc<Pool>,
    permits: [Permit; 2],
    purpose: Purpose,
) -> Lease<Box<Server>> {
    let owner = Arc::new(PoolInProcess { shared: Arc::clone(shared), pool: Arc::clone(pool) });
    Lease::new(owner, permits, Place::new(Arc::clone(pool.lane(purpose))), purpose)
}

/// A limit that several pools share and that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// `max_db_connections`.
    Database,
    /// `max_user_connections`.
    User,
}

/// A pool and the process it belongs to: what a place that has become free needs to be used again.
#[derive(Debug)]
struct PoolInProcess {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
}

impl Owner for PoolInProcess {
    fn place_is_free(&self, purpose: Purpose) {
        grow(&self.shared, &self.pool, purpose, 0, clock::now());
    }

    fn recheck_hosts(&self) {
        self.pool.database.recheck_hosts();
    }
}

/// Closes the server that has been idle for the longest time among the pools that count against the same limit; says whether
/// there was one.
fn evict_idle(shared: &Shared, wanting: &Pool, full: Full) -> bool {
    let counts = |pool: &Arc<Pool>| match full {
        Full::Database => Arc::ptr_eq(&pool.database, &wanting.database),
        Full::User => Arc::ptr_eq(&pool.user, &wanting.user),
    };
    let pools: Vec<_> = shared.pools.all().into_iter().filter(counts).collect();
    let lanes = pools.iter().flat_map(|pool| pool.lanes()).map(|(_, lane)| lane);
    let longest = lanes.filter_map(|lane| Some((lane.least_idle_by(|server| server.idle_since)?, lane)));
    let Some((since, lane)) = longest.min_by_key(|(since, _)| *since) else { return false };
    let mut found = false;
    let is_it = |server: &mut Box<Server>| {
        let is_it = !found && server.idle_since == since;
        found |= is_it;
        is_it
    };
    lane.take_idle(is_it).into_iter().for_each(|server| server.close(CloseReason::Evicted));
    // A client that has taken it meanwhile will give it back.
    found
}

fn open_on(shared: &Arc<Shared>, pool: &Arc<Pool>, worker: usize, lease: Lease<Box<Server>>) {
    let (own_shared, pool) = (Arc::clone(shared), Arc::clone(pool));
    shared.workers[worker]
        .spawn(move || Some(async move { connect(&own_shared, &pool, worker, lease).await }));
}
/// Opens a server connection and gives it to whoever waits.
async fn connect(shared: &Arc<Shared>, pool: &Arc<Pool>, worker: usize, lease: Lease<Box<Server>>) {
    let purpose = lease.purpose();
    let lane = Arc::clone(pool.lane(purpose));
    let generation = pool.generation();
    match server::open(shared, pool, lease, &[]).await {
        Ok(server) => {
            *pool.login_error.lock() = None;
            pool.set_welcome(&server.session.parameters, generation);
            lane.connected();
            if let Some(unwanted) = lane.put_back(worker, server) {
                unwanted.close(CloseReason::Paused);
            }
            // Now that one is in, others can follow.
            grow(shared, pool, purpose, worker, clock::now());
        }
        Err((error, lease)) => {
            let retry = pool.settings.load().server_login_retry;
            let refused = matches!(error, ConnectError::Refused(_));
            let now = clock::now();
            let retry_at = lane.connect_failed(|failures| {
                if refused {
                    (now + retry, now + retry)
                } else {
                    next_attempts(purpose, failures, retry, now)
                }
            });
            drop(lease);
            report_failure(shared, pool, purpose, worker, &error);
            // Those who wait have nobody else to start the next attempt in time.
            tokio::time::sleep(retry_at.since(clock::now())).await;
            grow(shared, pool, purpose, worker, clock::now());
        }
    }
}

/// The longest time between two attempts to reach the server that clients wait for: as soon as it is there again they go
/// on.
const PATIENCE: Duration = Duration::from_millis(500);

/// When the next connection may be opened after so many failures, for clients that wait and for none. It is 50 ms, doubled
/// with each failure up to `server_login_retry`; clients that wait for a replica go to the primary meanwhile.
fn next_attempts(purpose: Purpose, failures: u32, retry: Duration, now: Micros) -> (Micros, Micros) {
    let doubled =
        Duration::from_millis(50).saturating_mul(1 << failures.saturating_sub(1).min(12)).min(retry);
    let waited_for = if purpose == Purpose::Write { doubled.min(PATIENCE) } else { doubled };
    (now + waited_for, now + doubled)
}

fn report_failure(
    shared: &Arc<Shared>,
    pool: &Arc<Pool>,
    purpose: Purpose,
    worker: usize,
    error: &ConnectError,
) {
    if let Purpose::Read(host) = purpose {
        return leave_replica(shared, pool, host, worker);
    }
    if let ConnectError::Refused(refusal) = error {
        *pool.login_error.lock() = Some((refusal.clone(), clock::now()));
        if !has_usable_server(shared, pool) {
            pool.lane(purpose).refuse_all(refusal);
        }
    }
}

/// Whether those who wait can hope for a server although no other can be opened.
fn has_usable_server(shared: &Shared, pool: &Pool) -> bool {
    shared.servers.iter().any(|server| {
        server.database == pool.database.name && server.user == pool.user.name && !server.is_obsolete()
    })
}

/// What a client reads while the server keeps refusing logins.
pub fn login_failing(refusal: &Refusal) -> Refusal {
    Refusal::new(
        sqlstate::CANNOT_CONNECT,
        format!("server login has been failing, cached error: {} (server_login_retry)", refusal.message),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_wait_have_the_server_tried_often() {
        let now = Micros(1_000_000);
        let retry = Duration::from_secs(15);
        let after = |purpose, failures, retry| {
            let (waited_for, spare) = next_attempts(purpose, failures, retry, now);
            [waited_for.since(now), spare.since(now)].map(|time| time.as_millis())
        };
        assert_eq!(after(Purpose::Write, 1, retry), [50, 50]);
        assert_eq!(after(Purpose::Write, 4, retry), [400, 400]);
        assert_eq!(after(Purpose::Write, 5, retry), [500, 800]);
        assert_eq!(after(Purpose::Write, u32::MAX, retry), [500, 15_000]);
        assert_eq!(after(Purpose::Write, u32::MAX, Duration::from_millis(100)), [100, 100]);
        assert_eq!(after(Purpose::Read(0), 9, retry), [12_800, 12_800]);
    }
}
