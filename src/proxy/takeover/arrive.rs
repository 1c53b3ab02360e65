//! A client that comes from another process, or comes back because that takes no more of them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::super::client::{Client, LoggedIn};
use super::super::client_handle::ClientHandle;
use super::super::handover::MovedClient;
use super::super::shared::Shared;
use super::super::worker::{self, Load};
use super::super::{credentials, grow, registry, server};
use crate::config::PoolMode;
use crate::error::{Refusal, sqlstate};
use crate::session::forward::ClientSession;
use crate::wire::write;

/// Serves a client that has logged in to another process, on the worker with the fewest.
pub(super) fn move_in(shared: &Arc<Shared>, client: Box<MovedClient>) {
    let (load, own) = (worker::least_loaded(&shared.workers), Arc::clone(shared));
    shared.workers[load.worker].spawn(move || Some(arrive(own, load, client)));
}

/// Serves a client that comes from another process, as if it had logged in here.
async fn arrive(shared: Arc<Shared>, load: Load, moved: Box<MovedClient>) {
    let MovedClient { socket, database, user, server, .. } = *moved;
    let local = socket.local_address();
    // It may have left on the way.
    let Ok(peer) = socket.peer(shared.config.load().settings.listen_port) else { return };
    let Ok(mut stream) = socket.adopt() else { return };
    let refuse = |why: &str| {
        let refusal = Refusal::new(sqlstate::ADMIN_SHUTDOWN, why.to_owned());
        let mut out = Vec::new();
        write::fatal(&mut out, &refusal);
        tracing::info!("{database}/{user}@{peer} closing because: {why}");
        out
    };
    let Some(found) = registry::database(&shared, &database) else {
        let _ = stream.write_all(&refuse("database removed")).await;
        return;
    };
    let user = registry::user(&shared, &user);
    let pool = registry::pool(&shared, &found, &user);
    credentials::inherit(&pool, moved.credential);
    let server = match server {
        Some(_) if pool.settings.load().pool_mode != PoolMode::Session => {
            // What the session has left in its server cannot follow it.
            let _ = stream.write_all(&refuse("pool_mode has changed")).await;
            return;
        }
        Some(server) => match server::move_in(&shared, &pool, grow::lease_regardless(&shared, &pool), server)
        {
            Ok(server) => Some(server),
            Err(_) => return,
        },
        None => None,
    };
    let [route, initial_route] = moved.routes;
    found.entered.store(true, Relaxed);
    let mut session = ClientSession::new(moved.parameters, initial_route);
    session.route = route;
    session.kept.restore(moved.kept);
    for (name, text_and_types) in &moved.statements {
        let statement = shared.statements.intern(text_and_types);
        session.statements.insert(name, statement);
    }
    session.unnamed = moved.unnamed;
    let info = Arc::new(ClientHandle {
        local,
        connected: moved.connected,
        application_name: parking_lot::Mutex::new(moved.application_name.into()),
        prepared: u32::try_from(session.statements.len()).unwrap_or(u32::MAX).into(),
        ..ClientHandle::new(
            shared.next_id(),
            moved.key,
            Arc::clone(&found.name),
            Arc::clone(&user.name),
            peer,
        )
    });
    shared.clients.insert(info.key.id(), Arc::clone(&info));
    let permits = [
        shared.client_limit.acquire_regardless(),
        found.clients.acquire_regardless(),
        user.clients.acquire_regardless(),
    ];
    let login = LoggedIn {
        stream,
        received: moved.received,
        info,
        pool,
        session,
        untried_parameters: moved.untried_parameters,
        permits,
    };
    let mut client = Client::new(shared, load, login);
    client.arrive(server);
    tokio::task::spawn_local(client);
}
