//! Worker threads: each a single-threaded runtime with its own clients and servers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, oneshot};

use super::info::ServerState;
use super::login::{self, Arrival};
use super::pools::{Pool, Slot};
use super::server::{self, ConnectError, Server};
use super::shared::Shared;
use super::takeover::{self, MovedClient};
use super::turns::Turns;
use crate::clock::{self, Micros};
use crate::error::{Refusal, sqlstate};
use crate::net::detached::Detached;
use crate::net::uring;
use crate::route::cluster::Purpose;

/// Work for a worker.
enum Job {
    Client(Detached, Arrival),
    MoveIn(Box<MovedClient>, Load),
    Connect(Slot),
    Flush(oneshot::Sender<()>),
}

/// How others reach a worker.
#[derive(Debug)]
pub struct Worker {
    jobs: mpsc::UnboundedSender<Job>,
    /// Connections it serves; new ones go to whoever has fewest.
    pub load: AtomicUsize,
    /// How long its turns take.
    pub turns: Arc<Turns>,
}

/// One connection in a worker's [`Worker::load`], until dropped.
pub struct Load {
    shared: Arc<Shared>,
    /// The worker's index.
    pub worker: usize,
}

impl Load {
    /// Counts a connection.
    pub fn new(shared: &Arc<Shared>, worker: usize) -> Self {
        shared.workers[worker].load.fetch_add(1, Relaxed);
        Self { shared: Arc::clone(shared), worker }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.workers[self.worker].load.fetch_sub(1, Relaxed);
    }
}

/// The receiving end, until the thread runs.
pub struct Inbox(mpsc::UnboundedReceiver<Job>);

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client(..) => "Client",
            Self::MoveIn(..) => "MoveIn",
            Self::Connect(_) => "Connect",
            Self::Flush(_) => "Flush",
        })
    }
}

impl Worker {
    /// The worker with this index, whose thread is yet to be started.
    pub fn new(index: usize) -> (Self, Inbox) {
        let (jobs, inbox) = mpsc::unbounded_channel();
        let turns = Arc::new(Turns::new(index));
        (Self { jobs, load: AtomicUsize::new(0), turns }, Inbox(inbox))
    }

    /// Gives it an accepted connection.
    pub fn accept(&self, connection: Detached, arrival: Arrival) {
        let _ = self.jobs.send(Job::Client(connection, arrival));
    }

    /// Gives it a client that has logged in to another process.
    pub fn move_in(&self, client: Box<MovedClient>, load: Load) {
        let _ = self.jobs.send(Job::MoveIn(client, load));
    }

    /// Has what its clients have been told so far leave the process. Ends when that is done.
    pub async fn flush(&self) {
        let (sender, done) = oneshot::channel();
        let _ = self.jobs.send(Job::Flush(sender));
        let _ = done.await;
    }

    /// Has it open a server connection.
    pub fn connect(&self, slot: Slot) {
        let _ = self.jobs.send(Job::Connect(slot));
    }
}

/// A client that has logged in to another process goes to the worker with the fewest.
pub fn move_in(shared: &Arc<Shared>, client: Box<MovedClient>) {
    let index = least_loaded(shared);
    shared.workers[index].move_in(client, Load::new(shared, index));
}

/// The index of the worker with the fewest connections.
pub fn least_loaded(shared: &Shared) -> usize {
    let all = shared.workers.iter().enumerate();
    all.min_by_key(|(_, worker)| worker.load.load(Relaxed)).map_or(0, |(index, _)| index)
}

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

/// Runs a worker on its own thread until the process ends.
pub fn run(shared: Arc<Shared>, index: usize, inbox: Inbox, rings: &Rings) -> std::io::Result<()> {
    let runtime = runtime(&shared.workers[index].turns).inspect_err(|_| rings.do_without())?;
    runtime.block_on(async {
        rings.start(shared.config.load().settings.io_uring);
        serve(shared, index, inbox).await;
    });
    Ok(())
}

/// Runs a worker on the thread it is called on.
pub async fn serve(shared: Arc<Shared>, index: usize, Inbox(mut jobs): Inbox) {
    while let Some(job) = jobs.recv().await {
        let turns = Arc::clone(&shared.workers[index].turns);
        let shared = Arc::clone(&shared);
        match job {
            Job::Client(connection, arrival) => {
                if let Ok(stream) = connection.adopt() {
                    tokio::task::spawn_local(turns.count(login::serve(shared, arrival, stream)));
                }
            }
            Job::MoveIn(client, load) => {
                tokio::task::spawn_local(turns.count(takeover::arrive(shared, load, client)));
            }
            Job::Connect(slot) => {
                tokio::task::spawn_local(turns.count(async move { connect(&shared, index, slot).await }));
            }
            Job::Flush(done) => {
                uring::flush();
                let _ = done.send(());
            }
        }
    }
}

/// Opens a server connection and gives it to whoever waits.
async fn connect(shared: &Arc<Shared>, worker: usize, slot: Slot) {
    let pool = Arc::clone(&slot.pool);
    let purpose = slot.purpose;
    let lane = Arc::clone(pool.lane(purpose));
    let generation = pool.generation();
    match server::open(shared, slot, &[]).await {
        Ok(server) => {
            *pool.login_error.lock() = None;
            pool.set_welcome(&server.session.parameters, generation);
            lane.connected();
            if let Some(unwanted) = lane.put_back(worker, server) {
                unwanted.close("paused");
            }
            // Now that one is in, others can follow.
            pool.grow(shared, purpose, worker, clock::now());
        }
        Err((error, slot)) => {
            let retry = pool.settings.load().server_login_retry;
            let refused = matches!(error, ConnectError::Refused(_));
            let now = clock::now();
            let retry_at = lane.connect_failed(|failures| {
                if refused {
                    (now + retry, now + retry)
                } else {
                    next_attempts(purpose, failures, retry, now)
                }
            });
            drop(slot);
            report_failure(shared, &pool, purpose, worker, &error);
            // Those who wait have nobody else to start the next attempt in time.
            tokio::time::sleep(retry_at.since(clock::now())).await;
            pool.grow(shared, purpose, worker, clock::now());
        }
    }
}

/// The longest time between two attempts to reach the server that clients wait for: as soon as it is there again they go
/// on.
const PATIENCE: Duration = Duration::from_millis(500);

/// When the next connection may be opened after so many failures, for clients that wait and for none. It is 50 ms, doubled
/// with each failure up to `server_login_retry`; clients that wait for a replica go to the primary meanwhile.
fn next_attempts(purpose: Purpose, failures: u32, retry: Duration, now: Micros) -> (Micros, Micros) {
    let doubled =
        Duration::from_millis(50).saturating_mul(1 << failures.saturating_sub(1).min(12)).min(retry);
    let waited_for = if purpose == Purpose::Write { doubled.min(PATIENCE) } else { doubled };
    (now + waited_for, now + doubled)
}

fn report_failure(
    shared: &Arc<Shared>,
    pool: &Arc<Pool>,
    purpose: Purpose,
    worker: usize,
    error: &ConnectError,
) {
    if let Purpose::Read(host) = purpose {
        return pool.leave_replica(shared, host, worker);
    }
    if let ConnectError::Refused(refusal) = error {
        *pool.login_error.lock() = Some((refusal.clone(), clock::now()));
        if !has_usable_server(shared, pool) {
            pool.lane(purpose).refuse_all(refusal);
        }
    }
}

/// Whether those who wait can hope for a server although no other can be opened.
fn has_usable_server(shared: &Shared, pool: &Pool) -> bool {
    shared.servers.iter().any(|server| {
        server.database == pool.database.name && server.user == pool.user.name && !server.is_obsolete()
    })
}

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
        return server.close("something is on its way to it");
    }
    let being_canceled = server.info.cancels.lock().in_flight > 0;
    if being_canceled {
        park(shared, pool, server, worker, reset);
    } else if reset {
        server.info.set_state(ServerState::Tested);
        let shared = Arc::clone(shared);
        tokio::task::spawn_local(async move { self::reset(&shared, server, worker).await });
    } else {
        put_back(pool, server, worker);
    }
}

/// Keeps a server until the cancel requests that are on their way to it have arrived.
#[cold]
fn park(shared: &Arc<Shared>, pool: &Arc<Pool>, server: Box<Server>, worker: usize, reset: bool) {
    let info = Arc::clone(&server.info);
    let mut cancels = info.cancels.lock();
    if cancels.in_flight > 0 {
        info.set_state(ServerState::BeingCanceled);
        cancels.parked = Some((server, reset));
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
        unwanted.close("paused");
    }
}

/// `server_reset_query`: what a session left behind must not reach the next client.
async fn reset(shared: &Arc<Shared>, mut server: Box<Server>, worker: usize) {
    let query = server.pool().settings.load().server_reset_query.clone();
    match server.run(&query).await {
        Ok(_) => {
            server.note_application_name();
            let pool = Arc::clone(server.pool());
            give_back(shared, &pool, server, worker, false);
        }
        Err(error) => server.close(&format!("server_reset_query failed: {error}")),
    }
}

/// What a client reads while the server keeps refusing logins.
pub fn login_failing(refusal: &Refusal) -> Refusal {
    Refusal::new(
        sqlstate::CANNOT_CONNECT,
        format!("server login has been failing, cached error: {} (server_login_retry)", refusal.message),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_wait_have_the_server_tried_often() {
        let now = Micros(1_000_000);
        let retry = Duration::from_secs(15);
        let after = |purpose, failures, retry| {
            let (waited_for, spare) = next_attempts(purpose, failures, retry, now);
            [waited_for.since(now), spare.since(now)].map(|time| time.as_millis())
        };
        assert_eq!(after(Purpose::Write, 1, retry), [50, 50]);
        assert_eq!(after(Purpose::Write, 4, retry), [400, 400]);
        assert_eq!(after(Purpose::Write, 5, retry), [500, 800]);
        assert_eq!(after(Purpose::Write, u32::MAX, retry), [500, 15_000]);
        assert_eq!(after(Purpose::Write, u32::MAX, Duration::from_millis(100)), [100, 100]);
        assert_eq!(after(Purpose::Read(0), 9, retry), [12_800, 12_800]);
    }
}
