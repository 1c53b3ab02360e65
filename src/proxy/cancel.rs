//! Cancel requests: they must stop the right query and never another client's.
//!
//! A request names its client by the key that client got at login. While the client has a server, and only then,
//! the request is passed on, and the server is marked until the request has been delivered: should its client
//! finish meanwhile, the server is parked and nobody else gets it before that. PostgreSQL has signalled the
//! backend by the time it closes the connection that carried the request, and a backend that is idle by then
//! ignores the signal.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use subtle::ConstantTimeEq;

use super::info::{ClientInfo, ServerInfo};
use super::shared::Shared;
use super::worker;
use crate::net::connect;
use crate::wire::startup::CancelKey;
use crate::wire::write;

/// How long a server may take to act on a request before it is given up.
const DELIVERY: Duration = Duration::from_secs(10);

/// Passes a client's cancel request on, on the worker with this index. Nothing is answered, whatever comes of it.
pub async fn request(shared: &Arc<Shared>, index: usize, key: &CancelKey) {
    let Some(client) = shared.clients.get(&key.pid).map(|entry| Arc::clone(entry.value())) else { return };
    if !bool::from(client.key.secret.ct_eq(&key.secret)) {
        return;
    }
    let Some(server) = mark(shared, &client) else {
        tracing::debug!("{client} cancel request for a client without a server");
        client.cancelled.store(true, Relaxed);
        client.wake();
        return;
    };
    tracing::debug!("{client} cancel request for {server}");
    if let Err(error) =
        tokio::time::timeout(DELIVERY, deliver(shared, &server)).await.unwrap_or_else(|e| Err(e.into()))
    {
        tracing::warn!("{server} cancel request failed: {error}");
    }
    unmark(shared, &server, index);
}

/// The client's server, which from now on nobody else gets until [`unmark`].
fn mark(shared: &Shared, client: &ClientInfo) -> Option<Arc<ServerInfo>> {
    let id = client.link.load(Relaxed);
    let server = shared.servers.get(&id).map(|entry| Arc::clone(entry.value()))?;
    let mut cancels = server.cancels.lock();
    if client.link.load(Relaxed) != id {
        return None;
    }
    cancels.in_flight += 1;
    drop(cancels);
    Some(server)
}

async fn deliver(shared: &Shared, server: &ServerInfo) -> std::io::Result<()> {
    let Some(key) = server.key.get() else { return Ok(()) };
    let mut stream = connect::connect(&server.target, &shared.socket_options()).await?;
    if server.tls.get().is_some() {
        // The key must not travel in plain text where nothing else does.
        super::server::encrypt(shared, &mut stream, server).await.map_err(std::io::Error::other)?;
    }
    let mut message = Vec::new();
    write::cancel_request(&mut message, key);
    stream.write_all(&message).await?;
    // The server closes the connection once it has passed the signal on.
    let mut rest = [0; 64];
    while stream.read(&mut rest).await.unwrap_or(0) > 0 {}
    Ok(())
}

fn unmark(shared: &Arc<Shared>, server: &ServerInfo, index: usize) {
    let mut cancels = server.cancels.lock();
    cancels.in_flight -= 1;
    if cancels.in_flight == 0 {
        let parked = cancels.parked.take();
        drop(cancels);
        if let Some((server, reset)) = parked {
            let pool = Arc::clone(server.pool());
            worker::give_back(shared, &pool, server, index, reset);
        }
    }
}
