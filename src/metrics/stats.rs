//! Counters of a pool. HOT: each worker has its own set, so that nobody waits for another's cache line.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A counter with one writer and any number of readers: adding is a plain load and store.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only ever called by the worker that owns the set.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the histogram's buckets are 2^n microseconds, n from 0; the last one is open.
pub const BUCKETS: usize = 28;

/// Distribution of durations in powers of two of a microsecond, up to about two minutes.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum: Counter,
}

impl Histogram {
    /// Counts one duration, in microseconds.
    #[inline]
    pub fn record(&self, micros: u64) {
        let bucket = (u64::BITS - micros.saturating_sub(1).leading_zeros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)].add(1);
        self.sum.add(micros);
    }
}

/// Sums of one or more [`Histogram`]s.
#[derive(Clone, Debug, Default)]
pub struct HistogramTotals {
    /// Counts per bucket, not cumulated.
    pub buckets: [u64; BUCKETS],
    /// Sum of all durations in microseconds.
    pub sum: u64,
}

/// What one worker has counted for one pool. Times are in microseconds.
#[derive(Debug, Default)]
pub struct Stats {
    /// Transactions.
    pub transactions: Counter,
    /// Queries: ReadyForQuery messages sent to clients.
    pub queries: Counter,
    /// Times a server was given to a client.
    pub assignments: Counter,
    /// Bytes received from clients.
    pub received: Counter,
    /// Bytes received from servers.
    pub sent: Counter,
    /// Time servers spent on queries.
    pub query_time: Counter,
    /// Parse messages of named statements from clients.
    pub client_parses: Counter,
    /// … and those sent to servers.
    pub server_parses: Counter,
    /// Bind messages of named statements.
    pub binds: Counter,
    /// Successful logins.
    pub logins: Counter,
    /// How long transactions took.
    pub transaction_time: Histogram,
    /// How long clients waited for a server, those that did.
    pub wait_time: Histogram,
}

/// [`Stats`] of all workers together.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the same as in Stats")]
pub struct Totals {
    pub transactions: u64,
    pub queries: u64,
    pub assignments: u64,
    pub received: u64,
    pub sent: u64,
    pub query_time: u64,
    pub client_parses: u64,
    pub server_parses: u64,
    pub binds: u64,
    pub logins: u64,
    pub transaction_time: HistogramTotals,
    pub wait_time: HistogramTotals,
}

impl Totals {
    /// Adds one worker's counters.
    pub fn add(&mut self, stats: &Stats) {
        self.transactions += stats.transactions.get();
        self.queries += stats.queries.get();
        self.assignments += stats.assignments.get();
        self.received += stats.received.get();
        self.sent += stats.sent.get();
        self.query_time += stats.query_time.get();
        self.client_parses += stats.client_parses.get();
        self.server_parses += stats.server_parses.get();
        self.binds += stats.binds.get();
        self.logins += stats.logins.get();
        self.transaction_time.add(&stats.transaction_time);
        self.wait_time.add(&stats.wait_time);
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        self.transactions += other.transactions;
        self.queries += other.queries;
        self.assignments += other.assignments;
        self.received += other.received;
        self.sent += other.sent;
        self.query_time += other.query_time;
        self.client_parses += other.client_parses;
        self.server_parses += other.server_parses;
        self.binds += other.binds;
        self.logins += other.logins;
        self.transaction_time.merge(&other.transaction_time);
        self.wait_time.merge(&other.wait_time);
    }
}

impl HistogramTotals {
    /// Adds a histogram.
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.get();
        }
        self.sum += histogram.sum.get();
    }

    fn merge(&mut self, other: &Self) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += bucket;
        }
        self.sum += other.sum;
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Upper bound of a bucket; `None` for the last.
    pub fn bound(bucket: usize) -> Option<Duration> {
        (bucket + 1 < BUCKETS).then(|| Duration::from_micros(1 << bucket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_bucket() {
        let histogram = Histogram::default();
        for micros in [0, 1, 2, 3, 4, 5, 1 << 20, u64::MAX / 2] {
            histogram.record(micros);
        }
        let mut totals = HistogramTotals::default();
        totals.add(&histogram);
        assert_eq!(totals.buckets[..4], [2, 1, 2, 1]);
        assert_eq!((totals.buckets[20], totals.buckets[BUCKETS - 1]), (1, 1));
        assert_eq!(totals.count(), 8);
        assert_eq!(HistogramTotals::bound(3), Some(Duration::from_micros(8)));
        assert_eq!(HistogramTotals::bound(BUCKETS - 1), None);
    }
}
