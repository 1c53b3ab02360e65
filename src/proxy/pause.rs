//! PAUSE and RESUME: nobody is given a server, and those that come back are closed, so that PostgreSQL can be
//! restarted while clients wait.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::pools::Database;
use super::settings::PURPOSES;
use super::shared::Shared;
use crate::clock;

/// Stops giving out servers of these databases. Those in use are waited for with [`in_use`].
pub fn pause(shared: &Shared, databases: &[Arc<Database>]) {
    for database in databases {
        database.paused.store(true, Relaxed);
    }
    for pool in shared.pools.all() {
        if pool.database.paused.load(Relaxed) {
            for lane in pool.lanes() {
                lane.set_paused(true);
                lane.take_idle(|_| true).into_iter().for_each(|server| server.close("paused"));
            }
        }
    }
}

/// Whether any of these databases, unless resumed meanwhile, has a server connection left.
pub fn in_use(shared: &Shared, databases: &[Arc<Database>]) -> bool {
    let has_servers =
        |database: &Database| shared.servers.iter().any(|server| server.database == database.name);
    databases.iter().any(|database| database.paused.load(Relaxed) && has_servers(database))
}

/// Gives out servers again.
pub fn resume(shared: &Arc<Shared>, databases: &[Arc<Database>]) {
    for database in databases {
        database.paused.store(false, Relaxed);
    }
    let now = clock::now();
    for pool in shared.pools.all() {
        if !pool.database.paused.load(Relaxed) {
            for (lane, purpose) in pool.lanes().iter().zip(PURPOSES) {
                lane.set_paused(false);
                lane.retry_now();
                lane.serve_waiters(0);
                pool.grow(shared, purpose, 0, now);
            }
        }
    }
}
