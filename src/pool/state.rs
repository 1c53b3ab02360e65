//! Bookkeeping of a lane: idle servers, the queue, and when to open a connection. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::waiter::Waiter;
use crate::clock::Micros;

/// How far from the queue's head a waiter of the releasing worker may stand and still be served first. Handing a
/// server to another worker costs a wake-up across threads; this bounds what that economy does to the order.
const LOCAL_WINDOW: usize = 8;

/// Sizes of a pool, from the settings.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// `default_pool_size` or what overrides it; 0 means any number.
    pub pool: usize,
    /// `reserve_pool_size`: as many more when a client waits longer than `reserve_timeout`.
    pub reserve: usize,
    /// `reserve_pool_timeout`.
    pub reserve_timeout: Duration,
}

/// Why a connection is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launch {
    /// A client waits and the pool is not full.
    Regular,
    /// A client has waited too long: one of the reserve.
    Reserve,
}

/// Figures for SHOW.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Connections, those being opened included.
    pub open: usize,
    /// … of them being opened.
    pub connecting: usize,
    /// … of them idle.
    pub idle: usize,
    /// Clients in the queue.
    pub waiting: usize,
    /// When the first of them came; 0 if none waits.
    pub oldest_wait: Micros,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct PoolState<S> {
    idle: Vec<VecDeque<S>>,
    waiters: VecDeque<Arc<Waiter<S>>>,
    /// All connections that count: idle, in use, being opened.
    pub(super) open: usize,
    pub(super) connecting: usize,
    /// Attempts to connect that failed since the last that did not.
    pub(super) failures: u32,
    /// No attempt before this.
    pub(super) retry_at: Micros,
    /// … and none before this for connections that no client waits for.
    pub(super) spare_retry_at: Micros,
    pub(super) paused: bool,
    /// Setting `server_round_robin`.
    pub(super) round_robin: bool,
}

/// What became of a server that was put back.
#[derive(Debug)]
pub enum PutBack<S> {
    /// It is idle now.
    Idle,
    /// It goes to this waiter.
    Hand(Arc<Waiter<S>>, S),
    /// The lane is paused.
    Unwanted(S),
}

impl<S> PoolState<S> {
    /// Empty, with a list of idle servers for each worker.
    pub fn new(workers: usize) -> Self {
        Self {
            idle: (0..workers).map(|_| VecDeque::new()).collect(),
            waiters: VecDeque::new(),
            open: 0,
            connecting: 0,
            failures: 0,
            retry_at: Micros(0),
            spare_retry_at: Micros(0),
            paused: false,
            round_robin: false,
        }
    }

    /// Empty, and otherwise set as this one.
    pub fn another(&self) -> Self {
        Self { paused: self.paused, round_robin: self.round_robin, ..Self::new(self.idle.len()) }
    }

    /// The idle server of `worker` used last (or first, if they take turns), else one of another worker.
    pub fn checkout(&mut self, worker: usize) -> Option<S> {
        if self.paused {
            return None;
        }
        let take = if self.round_robin { VecDeque::pop_front } else { VecDeque::pop_back };
        if let Some(server) = take(&mut self.idle[worker]) {
            return Some(server);
        }
        self.idle.iter_mut().find_map(take)
    }

    /// Queues a waiter.
    pub fn wait(&mut self, waiter: Arc<Waiter<S>>) {
        self.waiters.push_back(waiter);
    }

    /// See [`PutBack`].
    pub fn put_back(&mut self, worker: usize, server: S) -> PutBack<S> {
        if self.paused {
            return PutBack::Unwanted(server);
        }
        match self.next_waiter(worker) {
            Some(waiter) => PutBack::Hand(waiter, server),
            None => {
                self.idle[worker].push_back(server);
                PutBack::Idle
            }
        }
    }

    fn next_waiter(&mut self, worker: usize) -> Option<Arc<Waiter<S>>> {
        if self.idle.len() > 1 {
            let local = self.waiters.iter().take(LOCAL_WINDOW).position(|w| w.worker == worker);
            if let Some(at) = local {
                return self.waiters.remove(at);
            }
        }
        self.waiters.pop_front()
    }

    /// Takes a waiter out of the queue, if it is still in it.
    pub fn forget(&mut self, waiter: &Arc<Waiter<S>>) {
        if let Some(at) = self.waiters.iter().position(|w| Arc::ptr_eq(w, waiter)) {
            self.waiters.remove(at);
        }
    }

    /// Empties the queue.
    pub fn take_waiters(&mut self) -> VecDeque<Arc<Waiter<S>>> {
        std::mem::take(&mut self.waiters)
    }

    /// Whether both somebody waits and something is idle: after a pause, or if a server was given back while somebody was about
    /// to wait for it.
    pub fn has_waiters_and_idle(&self) -> bool {
        !self.paused && !self.waiters.is_empty() && self.idle.iter().any(|list| !list.is_empty())
    }

    /// Decides whether to open a connection for those who wait, and counts it if so. There are never more being
    /// opened than clients wait.
    pub fn launch(&mut self, sizes: &Sizes, now: Micros) -> Option<Launch> {
        if self.paused || self.connecting >= self.waiters.len() || now < self.retry_at {
            return None;
        }
        if self.is_probing() {
            return None;
        }
        let launch = if sizes.pool == 0 || self.open < sizes.pool {
            Launch::Regular
        } else if self.open < sizes.pool + sizes.reserve
            && self.waiters.front().is_some_and(|w| now.since(w.since()) >= sizes.reserve_timeout)
        {
            Launch::Reserve
        } else {
            return None;
        };
        self.open += 1;
        self.connecting += 1;
        Some(launch)
    }

    /// Decides whether to open a connection nobody waits for, to have `min` of them, and counts it if so.
    pub fn launch_spare(&mut self, min: usize, now: Micros) -> bool {
        let launch = !self.paused && self.open < min && now >= self.retry_at && !self.is_probing();
        if launch {
            self.open += 1;
            self.connecting += 1;
        }
        launch
    }

    /// While none is open, and after a failure, one connection at a time finds out whether the server lets us in.
    fn is_probing(&self) -> bool {
        self.connecting > 0 && (self.failures > 0 || self.open == self.connecting)
    }

    /// Takes out those idle servers that `unwanted` says yes to.
    pub fn take_idle(&mut self, mut unwanted: impl FnMut(&mut S) -> bool) -> Vec<S> {
        let mut taken = Vec::new();
        for list in &mut self.idle {
            for _ in 0..list.len() {
                let Some(mut server) = list.pop_front() else { break };
                if unwanted(&mut server) {
                    taken.push(server);
                } else {
                    list.push_back(server);
                }
            }
        }
        taken
    }

    /// All idle servers.
    pub fn idle(&self) -> impl Iterator<Item = &S> {
        self.idle.iter().flatten()
    }

    /// Figures for SHOW.
    pub fn counts(&self) -> Counts {
        Counts {
            open: self.open,
            connecting: self.connecting,
            idle: self.idle.iter().map(VecDeque::len).sum(),
            waiting: self.waiters.len(),
            oldest_wait: self.waiters.front().map_or(Micros(0), |w| w.since()),
        }
    }
}

#[cfg(test)]
mod tests;
