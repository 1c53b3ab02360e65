//! A gate that few may pass at a time: cancel requests for one pool, or for one peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::Notify;

use super::limits::{Limit, Permit};

/// Lets a limited number of tasks do something at a time; others wait.
#[derive(Debug, Default)]
pub struct Gate {
    /// How many may be at it, and how many are.
    pub entered: Arc<Limit>,
    waiting: AtomicUsize,
    freed: Notify,
}

/// A task that is at it; dropped when it is over.
#[derive(Debug)]
pub struct Entered<'a>(&'a Gate, Option<Permit>);

/// A task that waits; dropped when it does not any more.
struct Waiting<'a>(&'a Gate);

impl Gate {
    /// How many wait until others are done.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Waits for a place.
    pub async fn enter(&self) -> Entered<'_> {
        self.waiting.fetch_add(1, Relaxed);
        let _waiting = Waiting(self);
        loop {
            if let Some(permit) = self.entered.acquire() {
                return Entered(self, Some(permit));
            }
            self.freed.notified().await;
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.1 = None;
        self.0.freed.notify_one();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn one_waits_for_the_other() {
        let gate = Gate::default();
        gate.entered.set_max(1);
        let first = gate.enter().await;
        let mut second = pin!(gate.enter());
        assert!(poll_fn(|cx| Poll::Ready(second.as_mut().poll(cx).is_pending())).await);
        assert_eq!((gate.entered.current(), gate.waiting()), (1, 1));
        drop(first);
        let _second = second.await;
        assert_eq!((gate.entered.current(), gate.waiting()), (1, 0));
    }
}
