//! Limits that several pools share: `max_db_connections`, `max_user_connections` and the like.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How many there are, and how many there may be.
#[derive(Debug, Default)]
pub struct Limit {
    current: AtomicUsize,
    /// 0: any number.
    max: AtomicUsize,
}

impl Limit {
    /// A limit; 0 means none.
    pub fn new(max: usize) -> Self {
        Self { current: AtomicUsize::new(0), max: AtomicUsize::new(max) }
    }

    /// How many there are.
    pub fn current(&self) -> usize {
        self.current.load(Relaxed)
    }

    /// How many there may be; 0 means any number.
    pub fn max(&self) -> usize {
        self.max.load(Relaxed)
    }

    /// Changes the limit. Those above it stay until they go by themselves.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// Counts one more, if there may be one more.
    pub fn acquire(self: &Arc<Self>) -> Option<Permit> {
        let max = self.max();
        self.current
            .fetch_update(Relaxed, Relaxed, |n| (max == 0 || n < max).then_some(n + 1))
            .ok()
            .map(|_| Permit(Arc::clone(self)))
    }

    /// Counts one more, limit or not.
    pub fn acquire_regardless(self: &Arc<Self>) -> Permit {
        self.current.fetch_add(1, Relaxed);
        Permit(Arc::clone(self))
    }
}

/// One counted against a [`Limit`], until dropped.
#[derive(Debug)]
pub struct Permit(Arc<Limit>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.current.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_counted() {
        let limit = Arc::new(Limit::new(2));
        let a = limit.acquire().unwrap();
        let _b = limit.acquire().unwrap();
        assert!(limit.acquire().is_none());
        let c = limit.acquire_regardless();
        drop(a);
        assert!(limit.acquire().is_none());
        drop(c);
        assert!(limit.acquire().is_some());
        limit.set_max(0);
        assert!(limit.acquire().is_some());
    }
}
