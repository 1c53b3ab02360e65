//! Accepts connections and spreads them over the workers.

use std::sync::Arc;
use std::time::Duration;

use super::login::{self, Arrival, ServeConsole};
use super::newcomers;
use super::shared::Shared;
use super::worker;
use crate::error::{Refusal, sqlstate};
use crate::net::detached::Detached;
use crate::net::listener::{Listener, Peer};
use crate::net::stream::Stream;
use crate::wire::write;

/// Accepts connections on the first worker's thread until the task is dropped. Each goes to the worker with the fewest.
/// `are_heirs`: they have the options that the listening socket hands down.
pub async fn run(shared: Arc<Shared>, listener: Listener, are_heirs: bool, serve_console: ServeConsole) {
    loop {
        match std::future::poll_fn(|cx| listener.poll_accept(cx)).await {
            Ok((stream, peer)) => {
                // Others wait in the kernel's queue.
                shared.while_suspended().await;
                set_options(&shared, &stream, are_heirs);
                let id = shared.next_id();
                let Some(place) = newcomers::admit(&shared.newcomers, &shared.config, id, &peer).await else {
                    turn_away(&peer, id, stream).await;
                    continue;
                };
                let (local, load) = (listener.tcp_address(), worker::least_loaded(&shared.workers));
                let index = load.worker;
                let arrival = Arrival { id, peer, local, load, place, serve_console };
                // This is the first worker's thread.
                if index == 0 {
                    tokio::task::spawn_local(login::serve(Arc::clone(&shared), arrival, stream));
                } else if let Ok(detached) = Detached::from(stream) {
                    let own = Arc::clone(&shared);
                    shared.workers[index]
                        .spawn(move || Some(login::serve(own, arrival, detached.adopt().ok()?)));
                }
            }
            Err(error) => {
                // Out of file descriptors, most likely: clients wait in the kernel's queue until some are free.
                tracing::error!("accept failed: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Tells a connection that there are too many of its address.
async fn turn_away(peer: &Peer, id: u64, mut stream: Stream) {
    tracing::info!(
        "C-{id:#x}: (nodb)/(nouser)@{peer} closing because: max_login_clients_per_address (age=0s)"
    );
    let refusal = Refusal::new(
        sqlstate::TOO_MANY_CONNECTIONS,
        "too many connections from this address that have not logged in",
    );
    let mut out = Vec::new();
    write::fatal(&mut out, &refusal);
    // A new socket takes it at once.
    let _ = tokio::time::timeout(Duration::from_millis(10), stream.write_all(&out)).await;
}

fn set_options(shared: &Shared, stream: &Stream, is_heir: bool) {
    if let Stream::Tcp(tcp) = stream {
        let options = shared.socket_options();
        let _ = if is_heir { options.apply_to_heir(tcp) } else { options.apply(tcp) };
    }
}
