//! Accepts connections and spreads them over the workers.

use std::sync::Arc;
use std::time::Duration;

use super::login::{self, Arrival};
use super::shared::Shared;
use super::worker::{self, Load};
use crate::net::listener::{Detached, Listener};
use crate::net::stream::Stream;

/// Accepts connections on the first worker's thread until the task is dropped. Each goes to the worker with the fewest.
/// `are_heirs`: they have the options that the listening socket hands down.
pub async fn run(shared: Arc<Shared>, listener: Listener, are_heirs: bool) {
    loop {
        match std::future::poll_fn(|cx| listener.poll_accept(cx)).await {
            Ok((stream, peer)) => {
                // Others wait in the kernel's queue.
                shared.while_suspended().await;
                set_options(&shared, &stream, are_heirs);
                let index = worker::least_loaded(&shared);
                let arrival =
                    Arrival { peer, local: listener.tcp_address(), load: Load::new(&shared, index) };
                // This is the first worker's thread.
                if index == 0 {
                    tokio::task::spawn_local(login::serve(Arc::clone(&shared), arrival, stream));
                } else if let Ok(detached) = Detached::from(stream) {
                    shared.workers[index].accept(detached, arrival);
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

fn set_options(shared: &Shared, stream: &Stream, is_heir: bool) {
    if let Stream::Tcp(tcp) = stream {
        let options = shared.socket_options();
        let _ = if is_heir { options.apply_to_heir(tcp) } else { options.apply(tcp) };
    }
}
