//! A client's place in the queue.

use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::clock::Micros;
use crate::error::Refusal;

/// Where a waiting client learns what came of it. Kept by the client and used again for its next wait.
#[derive(Debug)]
pub struct Waiter<S> {
    /// The worker whose task waits.
    pub worker: usize,
    inner: Mutex<Wait<S>>,
}

#[derive(Debug)]
struct Wait<S> {
    since: Micros,
    outcome: Option<Outcome<S>>,
    waiting: bool,
    waker: Option<Waker>,
}

/// How a wait ended.
#[derive(Debug)]
pub enum Outcome<S> {
    /// With a server.
    Granted(S),
    /// Without one.
    Refused(Refusal),
}

impl<S> Waiter<S> {
    /// Not waiting yet.
    pub fn new(worker: usize) -> Self {
        Self {
            worker,
            inner: Mutex::new(Wait { since: Micros(0), outcome: None, waiting: false, waker: None }),
        }
    }

    /// Starts a wait. Call before queueing.
    pub fn start(&self, now: Micros, waker: &Waker) {
        let mut inner = self.inner.lock();
        inner.since = now;
        inner.outcome = None;
        inner.waiting = true;
        inner.waker = Some(waker.clone());
    }

    /// When the wait started.
    pub fn since(&self) -> Micros {
        self.inner.lock().since
    }

    /// The outcome, once there is one.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Outcome<S>> {
        let mut inner = self.inner.lock();
        match inner.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                if !inner.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                    inner.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// Hands over a server; gives it back if nobody waits any more.
    pub(super) fn grant(&self, server: S) -> Result<(), S> {
        self.settle(Outcome::Granted(server)).map_err(|outcome| match outcome {
            Outcome::Granted(server) => server,
            Outcome::Refused(_) => unreachable!("settle returns what it was given"),
        })
    }

    pub(super) fn refuse(&self, refusal: Refusal) {
        let _ = self.settle(Outcome::Refused(refusal));
    }

    fn settle(&self, outcome: Outcome<S>) -> Result<(), Outcome<S>> {
        let mut inner = self.inner.lock();
        if !inner.waiting {
            return Err(outcome);
        }
        inner.waiting = false;
        inner.outcome = Some(outcome);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    pub(super) fn abandon(&self) -> Option<S> {
        let mut inner = self.inner.lock();
        inner.waiting = false;
        match inner.outcome.take() {
            Some(Outcome::Granted(server)) => Some(server),
            _ => None,
        }
    }
}
