//! Server connections at rest, and clients that wait for one.
//!
//! [`state::PoolState`] is the bookkeeping, pure and generic in the connection; [`Lane`] puts it under a mutex and
//! wakes whoever gets something. [`limits::Limit`] counts what several pools share.
//!
//! Ownership: a connection is moved, pool → client → pool. It carries a [`limits::Permit`] for each limit it
//! counts against and a [`Place`] in its lane, so dropping it is all that closing it takes.

pub mod gate;
pub mod limits;
pub mod state;
mod waiter;

use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::Micros;
use crate::error::Refusal;
pub use state::{Counts, Sizes};
use state::{Launch, PoolState};
pub use waiter::{Outcome, Waiter};

/// The servers of one pool that are alike: any of them will do for whoever waits here.
#[derive(Debug)]
pub struct Lane<S> {
    state: Mutex<PoolState<S>>,
}

impl<S> Lane<S> {
    /// An empty lane for that many workers.
    pub fn new(workers: usize) -> Self {
        Self { state: Mutex::new(PoolState::new(workers)) }
    }

    /// An empty lane that is paused if this one is, and gives servers out in the same order.
    pub fn another(&self) -> Self {
        Self { state: Mutex::new(self.state.lock().another()) }
    }

    /// An idle server, preferably one of `worker`'s own.
    #[inline]
    pub fn checkout(&self, worker: usize) -> Option<S> {
        self.state.lock().checkout(worker)
    }

    /// Queues a client. It is woken when its [`Waiter`] has an outcome, which it has at once if a server was given back since
    /// the client looked for one.
    pub fn wait(&self, waiter: Arc<Waiter<S>>) {
        let worker = waiter.worker;
        let mut state = self.state.lock();
        state.wait(waiter);
        let is_served = state.has_waiters_and_idle();
        drop(state);
        if is_served {
            self.serve_waiters(worker);
        }
    }

    /// Gives a server back: to the next in the queue, else to the idle ones. `None` if neither wants it (PAUSE):
    /// the caller gets it back to close it.
    #[inline]
    pub fn put_back(&self, worker: usize, server: S) -> Option<S> {
        let mut state = self.state.lock();
        match state.put_back(worker, server) {
            state::PutBack::Idle => None,
            state::PutBack::Unwanted(server) => Some(server),
            state::PutBack::Hand(waiter, server) => {
                drop(state);
                self.hand(worker, waiter, server)
            }
        }
    }

    /// Hands a server to a waiter; the next one if that has given up meanwhile.
    fn hand(&self, worker: usize, mut waiter: Arc<Waiter<S>>, mut server: S) -> Option<S> {
        loop {
            match waiter.grant(server) {
                Ok(()) => return None,
                Err(back) => match self.state.lock().put_back(worker, back) {
                    state::PutBack::Idle => return None,
                    state::PutBack::Unwanted(server) => return Some(server),
                    state::PutBack::Hand(next, back) => (waiter, server) = (next, back),
                },
            }
        }
    }

    /// A client no longer waits. What it was granted meanwhile is returned.
    pub fn give_up(&self, waiter: &Arc<Waiter<S>>) -> Option<S> {
        self.state.lock().forget(waiter);
        waiter.abandon()
    }

    /// Ends the wait of everybody in the queue with an error.
    pub fn refuse_all(&self, refusal: &Refusal) -> usize {
        let waiters = self.state.lock().take_waiters();
        let count = waiters.len();
        for waiter in waiters {
            waiter.refuse(refusal.clone());
        }
        count
    }

    /// Sends everybody in the queue to another lane.
    pub fn move_waiters_to(&self, other: &Self) -> usize {
        let waiters = self.state.lock().take_waiters();
        let count = waiters.len();
        let mut state = other.state.lock();
        for waiter in waiters {
            state.wait(waiter);
        }
        count
    }

    /// Whether a connection should be opened now; if so it is counted as one being opened. See
    /// [`PoolState::launch`].
    pub fn launch(&self, sizes: &Sizes, now: Micros) -> Option<Launch> {
        self.state.lock().launch(sizes, now)
    }

    /// Whether a connection should be opened to have `min` of them; if so it is counted as one being opened.
    pub fn launch_spare(&self, min: usize, now: Micros) -> bool {
        self.state.lock().launch_spare(min, now)
    }

    /// What [`Self::launch`] had counted has come to nothing, because a limit shared with other pools is reached.
    pub fn launch_denied(&self) {
        let mut state = self.state.lock();
        state.connecting -= 1;
        state.open -= 1;
    }

    /// Counts a connection that was opened without this lane's doing.
    pub fn count_opened(&self) {
        self.state.lock().open += 1;
    }

    /// A connection being opened has been established.
    pub fn connected(&self) {
        let mut state = self.state.lock();
        state.connecting -= 1;
        state.failures = 0;
    }

    /// A connection being opened has failed; its place is freed by its [`Place`]. `retry_at`: none is opened before the
    /// first of these moments, and none that no client waits for before the second. Gives the first.
    pub fn connect_failed(&self, retry_at: impl FnOnce(u32) -> (Micros, Micros)) -> Micros {
        let mut state = self.state.lock();
        state.connecting -= 1;
        state.failures = state.failures.saturating_add(1);
        (state.retry_at, state.spare_retry_at) = retry_at(state.failures);
        state.retry_at
    }

    /// Whether connections may be opened that no client waits for.
    pub fn may_launch_spare(&self, now: Micros) -> bool {
        now >= self.state.lock().spare_retry_at
    }

    /// Whether none is open, and none will be opened for a while, for the last attempt has failed.
    pub fn is_failing(&self, now: Micros) -> bool {
        let state = self.state.lock();
        state.open == 0 && now < state.retry_at
    }

    /// Forget earlier failures: connections may be opened at once.
    pub fn retry_now(&self) {
        let mut state = self.state.lock();
        (state.retry_at, state.spare_retry_at) = (Micros(0), Micros(0));
    }

    /// While paused, nobody is given a server and what comes back is not kept.
    pub fn set_paused(&self, paused: bool) {
        self.state.lock().paused = paused;
    }

    /// Whether idle servers take turns, instead of the one used last being used again.
    pub fn set_round_robin(&self, round_robin: bool) {
        self.state.lock().round_robin = round_robin;
    }

    /// Takes out idle servers that are no longer wanted, oldest first; `unwanted` sees each once. They are
    /// returned, so that they are closed without the lock.
    pub fn take_idle(&self, unwanted: impl FnMut(&mut S) -> bool) -> Vec<S> {
        self.state.lock().take_idle(unwanted)
    }

    /// The least that `key` gives for an idle server.
    pub fn least_idle_by<K: Ord>(&self, key: impl Fn(&S) -> K) -> Option<K> {
        self.state.lock().idle().map(key).min()
    }

    /// Hands idle servers to those who wait.
    pub fn serve_waiters(&self, worker: usize) {
        while self.state.lock().has_waiters_and_idle() {
            let Some(server) = self.checkout(worker) else { break };
            if let Some(unwanted) = self.put_back(worker, server) {
                drop(unwanted);
                break;
            }
        }
    }

    /// How many there are of each kind.
    pub fn counts(&self) -> Counts {
        self.state.lock().counts()
    }
}

/// A connection's place among the [`Lane`]'s; dropping it frees the place.
#[derive(Debug)]
pub struct Place<S>(Arc<Lane<S>>);

impl<S> Place<S> {
    /// The place that [`Lane::launch`] has counted.
    pub fn new(lane: Arc<Lane<S>>) -> Self {
        Self(lane)
    }
}

impl<S> Drop for Place<S> {
    fn drop(&mut self) {
        self.0.state.lock().open -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn whoever_waits_gets_what_was_given_back_since_he_looked() {
        let lane = Lane::new(2);
        assert_eq!(lane.checkout(0), None);
        assert_eq!(lane.put_back(1, "server"), None);
        let waiter = Arc::new(Waiter::new(0));
        waiter.start(Micros(1), Waker::noop());
        lane.wait(Arc::clone(&waiter));
        let outcome = waiter.poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(outcome, Poll::Ready(Outcome::Granted("server"))));
    }
}
