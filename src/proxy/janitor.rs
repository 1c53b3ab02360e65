//! The housekeeping that no client asks for: server connections that are too old, idle for too long or broken,
//! pools that are too small, reserves to be tapped.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::close::{CloseReason, Retirement};
use super::grow;
use super::names;
use super::pools::Pool;
use super::registry;
use super::shared::Shared;
use crate::clock::{self, Micros};
use crate::config::effective::DatabaseSettings;
use crate::error::{Refusal, sqlstate};
use crate::route::cluster::Purpose;

/// PgBouncer's period of maintenance.
const PERIOD: Duration = Duration::from_millis(333);

/// How often clients' deadlines are looked at. They are a matter of seconds.
const TICK: Duration = Duration::from_millis(100);

/// Wakes clients whose deadline has passed. Runs until the task is dropped.
pub async fn watch_deadlines(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let now = clock::now();
        for client in &shared.clients {
            let deadline = client.deadline.get();
            if deadline.0 != 0 && deadline <= now {
                client.wake();
            }
        }
    }
}

/// Runs until the task is dropped.
pub async fn run(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(PERIOD);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0u64.. {
        interval.tick().await;
        let now = clock::now();
        let pools = shared.pools.all();
        end_lifetimes(&shared, &pools, now);
        names::leave_old_addresses(&shared);
        if shared.config.load().settings.server_fast_close {
            // Their tasks look after it themselves.
            shared.wake_those_with(|server| server.is_obsolete());
        }
        for pool in pools {
            tend(&shared, &pool, now);
        }
        found_pools(&shared);
        forget_idle(&shared, now);
        if round % 32 == 0 {
            shared.statements.sweep();
            shared.pools.forget_idle_users();
        }
    }
}

/// A database whose line names a user has one pool, which is kept at `min_pool_size` before any client has come.
fn found_pools(shared: &Arc<Shared>) {
    let config = shared.config.load_full();
    for database in shared.pools.databases() {
        let line = database.config.load_full();
        let wanted = DatabaseSettings::of(&config.settings, &line).min_pool_size > 0;
        if let Some(name) = line.user.as_deref().filter(|_| wanted) {
            registry::pool(shared, &database, &registry::user(shared, name));
        }
    }
}

/// Forgets pools and automatic databases that nobody uses any more, and with them their statistics.
fn forget_idle(shared: &Shared, now: Micros) {
    let config = shared.config.load();
    for (pool, age) in shared.pools.forget_idle_pools(config.settings.pool_idle_timeout, now) {
        let (user, database, age) = (&pool.user.name, &pool.database.name, age.as_secs());
        tracing::info!(
            "cleaning up idle pool for user {user} on db {database} because: pool idle timeout (age= {age}s)"
        );
    }
    for database in shared.pools.forget_idle_databases(config.settings.autodb_idle_timeout, now) {
        tracing::info!("dropping idle auto-database: {}", database.name);
    }
}

/// Marks servers that have lived for `server_lifetime`, so that their clients close them when they have finished. If that is
/// zero their clients mark them.
fn end_lifetimes(shared: &Shared, pools: &[Arc<Pool>], now: Micros) {
    let key = |database: &Arc<str>, user: &Arc<str>| (Arc::clone(database), Arc::clone(user));
    let lifetimes: HashMap<_, _> = pools
        .iter()
        .map(|p| (key(&p.database.name, &p.user.name), p.settings.load().server_lifetime))
        .filter(|(_, lifetime)| !lifetime.is_zero())
        .collect();
    for server in shared.servers.iter() {
        let lifetime = lifetimes.get(&key(&server.database, &server.user));
        if lifetime.is_some_and(|lifetime| now.since(server.connected) >= *lifetime) {
            let _ = server.close_needed.set(Retirement::Lifetime);
        }
    }
}

/// Clients that need the primary are held while there is none, but not for ever.
fn end_hold(shared: &Shared, pool: &Pool, now: Micros) {
    let hosts = &pool.database.hosts;
    let limit = shared.config.load().settings.failover_hold_timeout;
    if !hosts.load().cluster.split || limit.is_zero() || hosts.without_primary(now) <= limit {
        return;
    }
    let refusal = Refusal::new(sqlstate::CANNOT_CONNECT_NOW, "no primary server can be reached")
        .detail(format!("There has been none for {} seconds (failover_hold_timeout).", limit.as_secs_f64()));
    pool.lane(Purpose::Write).refuse_all(&refusal);
}

fn tend(shared: &Arc<Shared>, pool: &Arc<Pool>, now: Micros) {
    let settings = pool.settings.load_full();
    let sizes = &pool.sizes();
    let most = if sizes.pool == 0 { usize::MAX } else { sizes.pool + sizes.reserve };
    for (purpose, lane) in pool.lanes() {
        let mut open = lane.counts().open;
        let mut scrap = [0; 512];
        let mut reasons = Vec::new();
        let taken = lane.take_idle(|server| {
            let reason = if let Some(reason) = server.must_go() {
                reason
            } else if let Err(reason) = server.drain_idle(now, &mut scrap) {
                reason
            } else if server.used && settings.server_lifetime.is_zero() {
                // It was zero only after the last use.
                Retirement::Lifetime.into()
            } else if !settings.server_idle_timeout.is_zero()
                && now.since(server.idle_since) >= settings.server_idle_timeout
                && open > settings.min_pool_size
            {
                CloseReason::IdleTimeout
            } else if open > most {
                CloseReason::TooMany
            } else {
                return false;
            };
            open -= 1;
            reasons.push(reason);
            true
        });
        for (server, reason) in taken.into_iter().zip(reasons) {
            server.close(reason);
        }
        if !pool.database.paused.load(Relaxed) {
            grow::grow(shared, pool, purpose, 0, now);
        }
    }
    end_hold(shared, pool, now);
    let is_needed = pool.database.config.load().user.is_some() && shared.successor.get().is_none();
    let in_use = pool.clients.load(Relaxed) > 0 || is_needed;
    if in_use && settings.min_pool_size > 0 && !pool.database.paused.load(Relaxed) {
        grow::warm(shared, pool, now);
    }
}
