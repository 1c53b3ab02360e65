//! The old process's side.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::super::cancel;
use super::super::close::CloseReason;
use super::super::handover::{self, MovedClient, Successor};
use super::super::shared::{Lifecycle, Request, Shared};
use super::arrive::move_in;
use super::message::{CANCEL, CLIENT, DOOR, GO, HELLO, READY, REFUSED, VERSION};
use crate::net::descriptors::{Channel, Delivery};

/// How long the successor may take to get ready. Until then it is served here.
const PREPARATION: Duration = Duration::from_secs(60);
/// How often clients that had something under way are looked at again.
const ROUND: Duration = Duration::from_millis(100);

/// A client that was to go stays.
fn keep(shared: &Arc<Shared>, client: Box<MovedClient>) {
    shared.clients.remove(&client.key.id());
    move_in(shared, client);
}

/// Hands over to the process of this process's own user at the other end of the channel. `worker`: the index of the worker
/// this runs on.
pub async fn serve(shared: Arc<Shared>, worker: usize, mut channel: Channel) {
    let pid = channel.peer().ok().and_then(|peer| peer.pid()).unwrap_or(0);
    tracing::info!("process {pid} asks to take over");
    let is_first = !shared.is_being_taken_over.swap(true, Relaxed);
    let prepared = tokio::time::timeout(PREPARATION, prepare(&shared, &mut channel, is_first)).await;
    if let Err(error) = prepared.unwrap_or_else(|elapsed| Err(elapsed.into())) {
        if is_first {
            shared.is_being_taken_over.store(false, Relaxed);
        }
        return tracing::warn!("process {pid} has not taken over: {error}");
    }
    let (successor, departures) = Successor::new();
    let _ = shared.successor.set(successor);
    tracing::info!("process {pid} takes over, waiting for clients to go there");
    request(&shared, Request::HandedOver(pid));
    let mut departures = departures;
    let error = hand_over(&shared, worker, channel, &mut departures).await;
    tracing::warn!("process {pid} takes no more clients ({error}), waiting for those that are left");
    if let Some(successor) = shared.successor.get() {
        successor.takes_no_more();
    }
    // Some may be on their way here still.
    while let Some(client) = departures.recv().await {
        keep(&shared, client);
    }
}

fn request(shared: &Shared, request: Request) {
    if let Some(requests) = shared.requests.get() {
        let _ = requests.send(request);
    }
}

/// Everything up to GO.
async fn prepare(shared: &Arc<Shared>, channel: &mut Channel, is_first: bool) -> io::Result<()> {
    let hello = expect(channel, HELLO).await?;
    let version = hello.body.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes)).min(VERSION);
    let is_paused = || shared.pools.databases().iter().any(|database| database.paused.load(Relaxed));
    let refusal = match shared.lifecycle() {
        _ if version == 0 => Some("it speaks no version of this conversation that is known here"),
        _ if !is_first => Some("another process is taking over"),
        _ if shared.is_shutting_down() => Some("it is shutting down"),
        Lifecycle::Active if is_paused() => Some("a database is paused"),
        Lifecycle::Active => None,
        Lifecycle::Paused => Some("it is paused"),
        Lifecycle::Suspended => Some("it is suspended"),
    };
    if let Some(refusal) = refusal {
        channel.send(REFUSED, refusal.as_bytes(), &[]).await?;
        return Err(io::Error::other(refusal));
    }
    channel.send(HELLO, &version.to_be_bytes(), &[]).await?;
    let (answer, doors) = oneshot::channel();
    request(shared, Request::Doors(answer));
    for door in doors.await.map_err(io::Error::other)? {
        channel.send(DOOR, door.kind.name(), &[door.socket.as_fd()]).await?;
    }
    channel.send(READY, b"", &[]).await?;
    expect(channel, GO).await.map(drop)
}

async fn expect(channel: &mut Channel, tag: u8) -> io::Result<Delivery> {
    match channel.receive().await? {
        Some(delivery) if delivery.tag == tag => Ok(delivery),
        Some(other) => Err(io::Error::other(format!("unexpected message {:?}", char::from(other.tag)))),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Sends clients as they come, until that fails: those that were still to be sent are served here.
async fn hand_over(
    shared: &Arc<Shared>,
    worker: usize,
    mut channel: Channel,
    departures: &mut mpsc::UnboundedReceiver<Box<MovedClient>>,
) -> io::Error {
    let mut round = tokio::time::interval(ROUND);
    let (error, unsent) = loop {
        tokio::select! {
            Some(client) = departures.recv() => {
                if let Err(error) = channel.send(CLIENT, &client.encode(), &client.descriptors()).await {
                    break (error, Some(client));
                }
                shared.clients.remove(&client.key.id());
            }
            delivery = channel.receive() => match delivery {
                Ok(Some(delivery)) => take_back_cancel(shared, worker, &delivery),
                Ok(None) => break (io::ErrorKind::UnexpectedEof.into(), None),
                Err(error) => break (error, None),
            },
            _ = round.tick() => wake_all(shared),
        }
    };
    unsent.into_iter().for_each(|client| keep(shared, client));
    error
}

/// A cancel request for a client that may still be here.
fn take_back_cancel(shared: &Arc<Shared>, worker: usize, delivery: &Delivery) {
    if let Some(key) = handover::key(&delivery.body).filter(|_| delivery.tag == CANCEL) {
        let shared = Arc::clone(shared);
        tokio::task::spawn_local(async move { cancel::request(&shared, worker, &key).await });
    }
}

/// Each client looks whether it can go. Idle servers that nobody here will need go at once.
fn wake_all(shared: &Shared) {
    for client in shared.clients.iter().filter(|client| !client.admin && client.tls.is_empty()) {
        client.wake();
    }
    for pool in shared.pools.all().into_iter().filter(|pool| pool.clients.load(Relaxed) == 0) {
        let idle = pool.lanes().flat_map(|(_, lane)| lane.take_idle(|_| true));
        idle.for_each(|server| server.close(CloseReason::TakenOver));
    }
}
