//! A value that many tasks read and that is seldom replaced. Each reader keeps the value it has seen, and looks at a number to
//! find out whether there is another one: one atomic load. HOT.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

/// The value in force.
#[derive(Debug)]
pub struct Versioned<T> {
    value: ArcSwap<T>,
    /// How often the value was replaced.
    version: AtomicU64,
}

impl<T> Versioned<T> {
    /// Its first value.
    pub fn new(value: T) -> Self {
        Self { value: ArcSwap::from_pointee(value), version: AtomicU64::new(0) }
    }

    /// The value, for a look at it now.
    pub fn load(&self) -> Guard<Arc<T>> {
        self.value.load()
    }

    /// The value, to be kept.
    pub fn load_full(&self) -> Arc<T> {
        self.value.load_full()
    }

    fn version(&self) -> u64 {
        // Paired with `replace`: a reader that sees the new number finds the new value.
        self.version.load(Ordering::Acquire)
    }
}

impl<T: PartialEq> Versioned<T> {
    /// Replaces the value if this is another one, and says whether it was.
    pub fn replace(&self, value: T) -> bool {
        if **self.value.load() == value {
            return false;
        }
        self.value.store(Arc::new(value));
        self.version.fetch_add(1, Ordering::Release);
        true
    }
}

/// The value as a reader has seen it last. All readers share one, as long as it is not replaced.
#[derive(Debug)]
pub struct LastSeen<T> {
    value: Arc<T>,
    version: u64,
}

impl<T> LastSeen<T> {
    /// The value in force.
    pub fn new(current: &Versioned<T>) -> Self {
        // The number first: if the value is replaced in between, it is only looked at once more.
        let version = current.version();
        Self { version, value: current.load_full() }
    }

    /// Takes the value in force, if there is another one than before.
    #[inline]
    pub fn refresh(&mut self, current: &Versioned<T>) {
        if self.version != current.version() {
            *self = Self::new(current);
        }
    }
}

impl<T> Deref for LastSeen<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_the_same_replaces_nothing() {
        let current = Versioned::new("a".to_owned());
        let before = current.load_full();
        assert!(!current.replace("a".to_owned()));
        assert!(Arc::ptr_eq(&before, &current.load_full()));
        assert_eq!(current.version(), 0);
        assert!(current.replace("b".to_owned()));
        assert_eq!((current.version(), current.load().as_str()), (1, "b"));
    }

    #[test]
    fn readers_share_the_value_and_keep_it_until_they_look_again() {
        let current = Versioned::new(1);
        let mut readers = [LastSeen::new(&current), LastSeen::new(&current)];
        let is_shared = |readers: &[LastSeen<i32>; 2]| {
            let current = current.load_full();
            readers.iter().all(|reader| Arc::ptr_eq(&reader.value, &current))
        };
        assert!(is_shared(&readers));
        current.replace(1);
        readers.iter_mut().for_each(|reader| reader.refresh(&current));
        assert!(is_shared(&readers) && readers.iter().all(|reader| reader.version == 0));
        current.replace(2);
        assert_eq!(readers.each_ref().map(|reader| **reader), [1, 1]);
        readers[0].refresh(&current);
        assert_eq!(readers.each_ref().map(|reader| **reader), [2, 1]);
        readers[1].refresh(&current);
        assert!(is_shared(&readers));
    }

    /// The last value is seen, whichever of several threads has set it.
    #[test]
    fn the_last_value_is_seen() {
        let current = Versioned::new(0);
        let mut reader = LastSeen::new(&current);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let current = &current;
                scope.spawn(move || (0..1000).for_each(|n| _ = current.replace(thread * 1000 + n)));
            }
            (0..1000).for_each(|_| reader.refresh(&current));
        });
        reader.refresh(&current);
        assert_eq!(*reader, **current.load());
    }
}
