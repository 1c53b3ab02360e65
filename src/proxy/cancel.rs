//! Cancel requests: they must stop the right query and never another client's.
//!
//! A request names its client by the key that client got at login. While the client has a server, and only then,
//! the request is passed on, and the server is marked until the request has been delivered: should its client
//! finish meanwhile, the server is parked and nobody else gets it before that. PostgreSQL has signalled the
//! backend by the time it closes the connection that carried the request, and a backend that is idle by then
//! ignores the signal. While the server is at a query of the proxy's own, which goes in front of its client's first batch, the
//! request waits: it is not that query that shall be stopped.
//!
//! Requests travel over connections of their own. There are as many at a time for a pool as the pool has places; others
//! wait, for `cancel_wait_timeout` at most.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

use subtle::ConstantTimeEq;

use super::cancel_peers;
use super::client_handle::ClientHandle;
use super::give_back::give_back;
use super::peers;
use super::server::encrypt;
use super::server_handle::ServerHandle;
use super::shared::{Parked, Shared};
use crate::net::connect;
use crate::net::stream::Stream;
use crate::wire::startup::CancelKey;
use crate::wire::write;

/// How long a server may take to act on a request before it is given up.
const DELIVERY: Duration = Duration::from_secs(10);

/// What came of a request, for the log: PgBouncer's words, and the database of the client it was for.
#[derive(Debug)]
pub struct Outcome {
    /// Why the connection that brought the request is closed.
    pub reason: &'static str,
    /// `None`: no client has that key.
    pub database: Option<Arc<str>>,
}

/// Passes a client's cancel request on, on the worker with this index. Nothing is answered, whatever comes of it.
pub async fn request(shared: &Arc<Shared>, index: usize, key: &CancelKey) -> Outcome {
    if let Some(reason) = cancel_peers::pass_on(shared, key).await {
        return Outcome { reason, database: None };
    }
    let key = if peers::own_id(&shared.config.load()) > 0 { &key.original() } else { key };
    let client = shared.clients.get(&key.id()).map(|entry| Arc::clone(entry.value()));
    let Some(client) = client.filter(|client| bool::from(client.key.secret.ct_eq(&key.secret))) else {
        // The process that this one has taken over from may still have it.
        shared.predecessor.get().map(|old| old.send(key.clone()));
        return Outcome { reason: "failed cancel request", database: None };
    };
    let reason = pass_on(shared, index, &client).await;
    Outcome { reason, database: Some(Arc::clone(&client.database)) }
}

async fn pass_on(shared: &Arc<Shared>, index: usize, client: &ClientHandle) -> &'static str {
    const IDLE: &str = "cancel request for idle client";
    let server = shared.servers.get(&client.link.load(Relaxed)).map(|entry| Arc::clone(entry.value()));
    let pool = server.and_then(|server| shared.pools.find(&server.database, &server.user));
    let Some(pool) = pool else {
        client.cancelled.store(true, Relaxed);
        client.wake();
        return IDLE;
    };
    let asked = client.requested.get();
    let reach = async {
        let under_way = pool.cancels.enter().await;
        // Nobody has asked to cancel what the client may have come to meanwhile.
        let mark = (client.requested.get() == asked).then(|| Mark::new(shared, client, index)).flatten();
        let Some(mark) = mark else { return Ok(None) };
        mark.server.preamble.ended().await;
        let (target, address) = (&mark.server.target, mark.server.remote.get().copied());
        let options = shared.socket_options();
        let mut stream = connect::connect_again(target, address, &options, &shared.resolver).await?;
        if mark.server.tls.get().is_some() {
            // The key must not travel in plain text where nothing else does.
            encrypt(shared, &mut stream, &mark.server).await.map_err(std::io::Error::other)?;
        }
        Ok::<_, std::io::Error>(Some((under_way, mark, stream)))
    };
    let limit = shared.config.load().settings.cancel_wait_timeout;
    let limit = if limit.is_zero() { Duration::MAX } else { limit };
    let error = match tokio::time::timeout(limit, reach).await {
        Err(_) => return "cancel_wait_timeout",
        Ok(Ok(None)) => return IDLE,
        Ok(Ok(Some((_under_way, mark, stream)))) => {
            tracing::debug!("{client} cancel request for {}", mark.server);
            match tokio::time::timeout(DELIVERY, deliver(&mark.server, stream)).await {
                Ok(Ok(())) => return "successfully sent cancel request",
                Ok(Err(error)) => error,
                Err(elapsed) => elapsed.into(),
            }
        }
        Ok(Err(error)) => error,
    };
    tracing::warn!("{client} cancel request failed: {error}");
    "cancel request failed"
}

/// A client's server, which nobody else gets as long as this exists.
struct Mark<'a> {
    shared: &'a Arc<Shared>,
    server: Arc<ServerHandle>,
    /// The worker's index.
    worker: usize,
}

impl<'a> Mark<'a> {
    fn new(shared: &'a Arc<Shared>, client: &ClientHandle, worker: usize) -> Option<Self> {
        let id = client.link.load(Relaxed);
        let server = shared.servers.get(&id).map(|entry| Arc::clone(entry.value()))?;
        let mut cancels = server.cancels.lock();
        if client.link.load(Acquire) != id {
            return None;
        }
        *cancels += 1;
        drop(cancels);
        Some(Self { shared, server, worker })
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        let mut cancels = self.server.cancels.lock();
        *cancels -= 1;
        if *cancels == 0 {
            let parked = self.shared.parked.lock().remove(&self.server.id);
            drop(cancels);
            if let Some(Parked { server, pool, reset }) = parked {
                give_back(self.shared, &pool, server, self.worker, reset);
            }
        }
    }
}

async fn deliver(server: &ServerHandle, mut stream: Stream) -> std::io::Result<()> {
    let Some(key) = server.key.get() else { return Ok(()) };
    let mut message = Vec::new();
    write::cancel_request(&mut message, key);
    stream.write_all(&message).await?;
    // The server closes the connection once it has passed the signal on.
    let mut rest = [0; 64];
    while stream.read(&mut rest).await.unwrap_or(0) > 0 {}
    Ok(())
}
