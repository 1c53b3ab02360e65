//! PAUSE and RESUME: nobody is given a server, and those that come back are closed, so that PostgreSQL can be
//! restarted while clients wait. A database is paused by itself or together with all others; the two do not know of
//! each other.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::close::CloseReason;
use super::grow;
use super::pools::Database;
use super::shared::Shared;
use crate::clock;

/// Stops giving out servers of a database. Those in use go when they are given back: see [`has_servers`].
pub fn pause(shared: &Arc<Shared>, database: &Database) {
    database.paused.store(true, Relaxed);
    tell_lanes(shared);
}

/// … of all databases.
pub fn pause_all(shared: &Arc<Shared>) {
    shared.pools.set_all_paused(true);
    tell_lanes(shared);
}

/// Gives out a database's servers again.
pub fn resume(shared: &Arc<Shared>, database: &Database) {
    database.paused.store(false, Relaxed);
    tell_lanes(shared);
}

/// … those of all databases, but for the ones paused by themselves.
pub fn resume_all(shared: &Arc<Shared>) {
    shared.pools.set_all_paused(false);
    tell_lanes(shared);
}

/// Whether a database has a server connection left.
pub fn has_servers(shared: &Shared, database: &Database) -> bool {
    shared.servers.iter().any(|server| server.database == database.name)
}

fn tell_lanes(shared: &Arc<Shared>) {
    let now = clock::now();
    for pool in shared.pools.all() {
        let paused = shared.pools.is_paused(&pool.database);
        for (purpose, lane) in pool.lanes() {
            lane.set_paused(paused);
            if paused {
                lane.take_idle(|_| true).into_iter().for_each(|server| server.close(CloseReason::Paused));
            } else {
                lane.retry_now();
                lane.serve_waiters(0);
                grow::grow(shared, &pool, purpose, 0, now);
            }
        }
    }
}
