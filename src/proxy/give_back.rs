//! Where a server goes when nothing needs it any more: to its pool, or first to be reset, or nowhere as long as a cancel request
//! is on its way to it.

use std::sync::Arc;

use super::close::CloseReason;
use super::pools::Pool;
use super::server::Server;
use super::server_handle::ServerState;
use super::shared::{Parked, Shared};

/// Gives a settled server back to its pool, closes it, or has it reset first. HOT.
#[inline]
pub fn give_back(
    shared: &Arc<Shared>,
    pool: &Arc<Pool>,
    mut server: Box<Server>,
    worker: usize,
    reset: bool,
) {
    if !server.stream.rest() {
        return server.close(CloseReason::InFlight);
    }
    let being_canceled = *server.info.cancels.lock() > 0;
    if being_canceled {
        park(shared, pool, server, worker, reset);
    } else if reset {
        server.info.set_state(ServerState::Tested);
        let (shared, pool) = (Arc::clone(shared), Arc::clone(pool));
        tokio::task::spawn_local(async move { self::reset(&shared, &pool, server, worker).await });
    } else {
        put_back(pool, server, worker);
    }
}

/// Keeps a server until the cancel requests that are on their way to it have arrived.
#[cold]
fn park(shared: &Arc<Shared>, pool: &Arc<Pool>, server: Box<Server>, worker: usize, reset: bool) {
    let info = Arc::clone(&server.info);
    let cancels = info.cancels.lock();
    if *cancels > 0 {
        info.set_state(ServerState::BeingCanceled);
        // Under the lock, so that the request which arrives last finds it.
        let pool = Arc::clone(pool);
        shared.parked.lock().insert(info.id, Parked { server, pool, reset });
    } else {
        // The last one has arrived this very moment. No other can come: no client is linked to this server any more.
        drop(cancels);
        give_back(shared, pool, server, worker, reset);
    }
}

/// Puts a server back that nobody else may have a claim on.
fn put_back(pool: &Pool, server: Box<Server>, worker: usize) {
    if let Some(reason) = server.must_go() {
        return server.close(reason);
    }
    server.info.set_state(ServerState::Idle);
    if let Some(unwanted) = pool.lane(server.purpose).put_back(worker, server) {
        unwanted.close(CloseReason::Paused);
    }
}

/// `server_reset_query`: what a session left behind must not reach the next client.
async fn reset(shared: &Arc<Shared>, pool: &Arc<Pool>, mut server: Box<Server>, worker: usize) {
    let query = pool.settings.load().server_reset_query.clone();
    match server.run(&query).await {
        Ok(_) => {
            server.note_application_name();
            give_back(shared, pool, server, worker, false);
        }
        Err(error) => {
            server.close(CloseReason::QueryFailed(format!("server_reset_query failed: {error}")));
        }
    }
}
