//! How long the turns of a worker take. In a turn it deals with what has happened, one task after the other; what happens
//! meanwhile has to wait for the next one. So a task that takes long is seen here, whatever it is that it does.
//!
//! A turn begins when the thread wakes up and ends when it goes to sleep. A thread that has always something to do looks for
//! what has happened all the same, after so many tasks, and that begins another turn.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::runtime::Builder;

use crate::clock::{self, AtomicMicros, Micros};
use crate::metrics::stats::{Counter, Histogram, HistogramTotals};

/// Tasks after which the runtime looks for what has happened.
const TASKS: u32 = 61;
/// A turn that takes longer is counted, and logged.
const SLOW: u64 = 10_000;
/// Shortest time between two lines in the log.
const PERIOD: Duration = Duration::from_secs(60);

/// The turns of one worker, which is the only one to write here.
#[derive(Debug)]
pub struct Turns {
    worker: usize,
    /// When the turn under way began; 0: the worker sleeps.
    began: AtomicMicros,
    /// How many tasks had their share of it.
    tasks: AtomicU32,
    time: Histogram,
    slow: Counter,
    logged: AtomicMicros,
    /// Slow ones that the log does not tell of yet, and the longest of them.
    unlogged: AtomicU32,
    longest: AtomicU64,
}

impl Turns {
    /// Of a worker that has not begun.
    pub fn new(worker: usize) -> Self {
        Self {
            worker,
            began: AtomicMicros::default(),
            tasks: AtomicU32::new(0),
            time: Histogram::default(),
            slow: Counter::default(),
            logged: AtomicMicros::default(),
            unlogged: AtomicU32::new(0),
            longest: AtomicU64::new(0),
        }
    }

    /// Has a runtime tell when its thread goes to sleep and wakes up.
    pub fn watch<'b>(self: &Arc<Self>, builder: &'b mut Builder) -> &'b mut Builder {
        let (parked, woken) = (Arc::clone(self), Arc::clone(self));
        builder
            .event_interval(TASKS)
            .on_thread_park(move || parked.end(clock::now(), Micros(0)))
            .on_thread_unpark(move || woken.begin(clock::now()))
    }

    /// Counts how often a task has its turn.
    pub async fn count<F: Future>(self: Arc<Self>, task: F) -> F::Output {
        let mut task = pin!(task);
        poll_fn(|cx| {
            self.count_one();
            task.as_mut().poll(cx)
        })
        .await
    }

    #[inline]
    fn count_one(&self) {
        let tasks = self.tasks.load(Relaxed) + 1;
        self.tasks.store(tasks, Relaxed);
        if tasks >= TASKS {
            let now = clock::now();
            self.end(now, now);
        }
    }

    #[inline]
    fn begin(&self, now: Micros) {
        self.began.set(now);
        self.tasks.store(0, Relaxed);
    }

    /// A turn is over; when the next one has begun, 0: not yet.
    #[inline]
    fn end(&self, now: Micros, next: Micros) {
        let began = self.began.get();
        self.begin(next);
        if began != Micros(0) {
            let time = now - began;
            self.time.record(time);
            if time > SLOW {
                self.note_slow(now, time);
            }
        }
    }

    #[cold]
    fn note_slow(&self, now: Micros, time: u64) {
        self.slow.add(1);
        let logged = self.logged.get();
        if logged != Micros(0) && now.since(logged) < PERIOD {
            self.unlogged.store(self.unlogged.load(Relaxed) + 1, Relaxed);
            self.longest.store(self.longest.load(Relaxed).max(time), Relaxed);
            return;
        }
        self.logged.set(now);
        let (worker, time) = (self.worker, time / 1000);
        match (self.unlogged.swap(0, Relaxed), self.longest.swap(0, Relaxed) / 1000) {
            (0, _) => {
                tracing::warn!("worker {worker} was busy for {time} ms and served nobody else meanwhile")
            }
            (more, longest) => tracing::warn!(
                "worker {worker} was busy for {time} ms and served nobody else meanwhile, and {more} times before \
                 since the last such line, for {longest} ms at most"
            ),
        }
    }

    /// How long turns took.
    pub fn time(&self) -> HistogramTotals {
        let mut totals = HistogramTotals::default();
        totals.add(&self.time);
        totals
    }

    /// How many took more than 10 ms.
    pub fn slow(&self) -> u64 {
        self.slow.get()
    }

    /// How long the one under way has taken so far.
    pub fn under_way(&self, now: Micros) -> Duration {
        match self.began.get() {
            Micros(0) => Duration::ZERO,
            began => now.since(began),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_lasts_from_sleep_to_sleep() {
        let turns = Turns::new(3);
        turns.end(Micros(5), Micros(0));
        assert_eq!(turns.time().count(), 0, "it has not begun");
        for (began, ended) in [(10, 11), (100, 10_100), (20_000, 30_001), (40_000, 90_000)] {
            turns.begin(Micros(began));
            assert_eq!(turns.under_way(Micros(began + 7)), Duration::from_micros(7));
            turns.end(Micros(ended), Micros(0));
            assert_eq!(turns.under_way(Micros(ended + 7)), Duration::ZERO);
        }
        assert_eq!((turns.time().count(), turns.slow()), (4, 2));
        assert_eq!(turns.time().sum, 1 + 10_000 + 10_001 + 50_000);
        // The first is logged, the others when a minute has passed.
        assert_eq!((turns.unlogged.load(Relaxed), turns.longest.load(Relaxed)), (1, 50_000));
        turns.begin(Micros(70_000_000));
        turns.end(Micros(70_020_000), Micros(0));
        assert_eq!(turns.unlogged.load(Relaxed), 0);
    }

    #[test]
    fn a_thread_that_never_sleeps_has_turns_as_well() {
        let turns = Arc::new(Turns::new(0));
        let runtime = turns.watch(&mut Builder::new_current_thread()).enable_all().build().unwrap();
        let tasks = 10 * TASKS;
        runtime.block_on(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let mut left = tasks;
            Arc::clone(&turns)
                .count(poll_fn(|cx| {
                    left -= 1;
                    cx.waker().wake_by_ref();
                    if left == 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
                }))
                .await;
        });
        assert!(turns.time().count() >= 10, "{:?}", turns.time());
        let before = turns.slow();
        runtime.block_on(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            std::thread::sleep(Duration::from_millis(30));
            tokio::time::sleep(Duration::from_millis(1)).await;
        });
        assert!(turns.slow() > before);
    }
}
