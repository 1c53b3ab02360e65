//! Accepts connections and spreads them over the workers.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::shared::Shared;
use crate::net::listener::Listener;

/// Accepts connections until the task is dropped. Each goes to the worker with the fewest.
pub async fn run(shared: Arc<Shared>, listener: Listener) {
    loop {
        match std::future::poll_fn(|cx| listener.poll_accept(cx)).await {
            Ok((socket, peer)) => {
                // Others wait in the kernel's queue.
                shared.while_suspended().await;
                if let Some(worker) = shared.workers.iter().min_by_key(|worker| worker.load.load(Relaxed)) {
                    worker.accept(socket, peer, listener.tcp_address());
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
