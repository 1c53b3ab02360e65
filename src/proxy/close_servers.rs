//! Closing the server connections of a database: what they were opened by, or with, does not hold any more.

use std::sync::Arc;

use super::close::Retirement;
use super::shared::Shared;

/// Has each server connection of a database closed as soon as nobody uses it: idle ones now.
pub fn close_servers(shared: &Arc<Shared>, database: &str, why: Retirement) {
    for server in shared.servers.iter().filter(|server| &*server.database == database) {
        let _ = server.close_needed.set(why);
    }
    for pool in shared.pools.all().into_iter().filter(|pool| &*pool.database.name == database) {
        for (_, lane) in pool.lanes() {
            let idle = lane.take_idle(|server| server.info.close_needed.get().is_some());
            idle.into_iter().for_each(|server| server.close(why));
        }
    }
}

/// The same, because what servers have said so far, and were told, may not hold any more: new ones are asked again.
pub fn renew_servers(shared: &Arc<Shared>, database: &str, why: Retirement) {
    let pools = shared.pools.all().into_iter().filter(|pool| &*pool.database.name == database);
    // First, so that a connection that is being opened is either found below or finds this.
    pools.for_each(|pool| pool.begin_generation());
    close_servers(shared, database, why);
}
