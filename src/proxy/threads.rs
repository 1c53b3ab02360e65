//! Worker threads: each a single-threaded runtime with its own clients and servers.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Barrier};

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use super::turns::Turns;
use super::worker::Inbox;
use crate::net::uring;

/// The runtime of a worker's thread.
pub fn runtime(turns: &Arc<Turns>) -> std::io::Result<LocalRuntime> {
    turns.watch(&mut Builder::new_current_thread()).enable_all().build_local(LocalOptions::default())
}

/// How the workers agree whether they use io_uring: a server that one of them has had may come to any other.
#[derive(Debug)]
pub struct Rings {
    all: Barrier,
    missing: AtomicBool,
}

impl Rings {
    /// For so many workers.
    pub fn new(workers: usize) -> Self {
        Self { all: Barrier::new(workers), missing: AtomicBool::new(false) }
    }

    /// Gives the calling worker's thread a ring, if all of them can have one. Waits for the others.
    pub fn start(&self, is_wanted: bool) {
        let driver = is_wanted.then(uring::Driver::new);
        if let Some(Err(error)) = &driver {
            if !self.missing.swap(true, Relaxed) {
                tracing::info!("no io_uring here, using epoll: {error}");
            }
        }
        self.all.wait();
        if let Some(Ok(driver)) = driver.filter(|_| !self.missing.load(Relaxed)) {
            driver.start();
        }
    }

    /// A worker's thread cannot have one, for it cannot even begin. Waits for the others.
    fn do_without(&self) {
        self.missing.store(true, Relaxed);
        self.all.wait();
    }
}

/// Runs a worker on its own thread until the process ends. `wants_ring`: the setting `io_uring`.
pub fn run(turns: &Arc<Turns>, inbox: Inbox, rings: &Rings, wants_ring: bool) -> std::io::Result<()> {
    let runtime = runtime(turns).inspect_err(|_| rings.do_without())?;
    runtime.block_on(async {
        rings.start(wants_ring);
        inbox.serve(turns).await;
    });
    Ok(())
}
