//! How the rest of the program reaches a worker thread.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::{mpsc, oneshot};

use super::turns::Turns;

/// Work for a worker, which runs it on its own thread.
type Job = Box<dyn FnOnce(&Arc<Turns>) + Send>;

/// How others reach a worker.
pub struct Worker {
    jobs: mpsc::UnboundedSender<Job>,
    /// Connections it serves; new ones go to the worker with the fewest.
    pub load: Arc<AtomicUsize>,
    /// How long its turns take.
    pub turns: Arc<Turns>,
}

/// One connection in a worker's [`Worker::load`], until dropped.
pub struct Load {
    count: Arc<AtomicUsize>,
    /// The worker's index.
    pub worker: usize,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Relaxed);
    }
}

/// The receiving end, until the thread runs.
pub struct Inbox(mpsc::UnboundedReceiver<Job>);

impl Inbox {
    /// Runs what comes, until the process ends.
    pub async fn serve(mut self, turns: &Arc<Turns>) {
        while let Some(job) = self.0.recv().await {
            job(turns);
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("load", &self.load).finish_non_exhaustive()
    }
}

impl Worker {
    /// The worker with this index, whose thread is yet to be started.
    pub fn new(index: usize) -> (Self, Inbox) {
        let (jobs, inbox) = mpsc::unbounded_channel();
        (Self { jobs, load: Arc::default(), turns: Arc::new(Turns::new(index)) }, Inbox(inbox))
    }

    /// Starts a task on its thread, where `begin` makes it; `None`: there is nothing to be done.
    pub fn spawn<F: Future<Output = ()> + 'static>(
        &self,
        begin: impl FnOnce() -> Option<F> + Send + 'static,
    ) {
        let start = |turns: &Arc<Turns>| {
            if let Some(task) = begin() {
                tokio::task::spawn_local(Arc::clone(turns).count(task));
            }
        };
        let _ = self.jobs.send(Box::new(start));
    }

    /// Runs something on its thread, and ends when that is done.
    pub async fn finish(&self, job: impl FnOnce() + Send + 'static) {
        let (sender, done) = oneshot::channel();
        let job = move |_: &Arc<Turns>| {
            job();
            let _ = sender.send(());
        };
        let _ = self.jobs.send(Box::new(job));
        let _ = done.await;
    }
}

/// Counts a connection at the worker with the fewest. There is one worker at least.
pub fn least_loaded(workers: &[Worker]) -> Load {
    let all = workers.iter().enumerate();
    let worker = all.min_by_key(|(_, worker)| worker.load.load(Relaxed)).map_or(0, |(index, _)| index);
    workers[worker].load.fetch_add(1, Relaxed);
    Load { count: Arc::clone(&workers[worker].load), worker }
}
