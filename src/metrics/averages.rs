//! Averages over time, as SHOW STATS and the log show them: of the current and the last completed `stats_period`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::stats::Totals;
use crate::clock::Micros;

/// Counters as they were at two earlier moments.
#[derive(Debug, Default)]
pub struct Averages {
    older: Snapshot,
    newer: Snapshot,
}

/// Counters of all databases at a moment.
#[derive(Debug, Default, Clone)]
struct Snapshot {
    at: Micros,
    databases: BTreeMap<Arc<str>, Totals>,
}

/// Per second, but for the times: those are per query or transaction, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the same as in Totals")]
pub struct Average {
    pub transactions: u64,
    pub queries: u64,
    pub assignments: u64,
    pub received: u64,
    pub sent: u64,
    pub transaction_time: u64,
    pub query_time: u64,
    /// Microseconds that clients waited for each server they got.
    pub wait_time: u64,
    pub client_parses: u64,
    pub server_parses: u64,
    pub binds: u64,
    pub logins: u64,
}

impl Averages {
    /// Starts counting at a moment.
    pub fn new(now: Micros) -> Self {
        let snapshot = Snapshot { at: now, databases: BTreeMap::new() };
        Self { older: snapshot.clone(), newer: snapshot }
    }

    /// A period has passed.
    pub fn roll(&mut self, now: Micros, databases: BTreeMap<Arc<str>, Totals>) {
        self.older = std::mem::replace(&mut self.newer, Snapshot { at: now, databases });
    }

    /// Averages of a database that has counted this much by now.
    pub fn of(&self, database: &str, current: &Totals, now: Micros) -> Average {
        let nothing = Totals::default();
        self.since(self.older.databases.get(database).unwrap_or(&nothing), current, now)
    }

    /// Averages of all databases together, which have counted this much by now.
    pub fn of_all(&self, current: &Totals, now: Micros) -> Average {
        let mut old = Totals::default();
        self.older.databases.values().for_each(|totals| old.merge(totals));
        self.since(&old, current, now)
    }

    fn since(&self, old: &Totals, current: &Totals, now: Micros) -> Average {
        let micros = u128::from((now - self.older.at).max(1));
        let rate = |current: u64, old: u64| {
            u64::try_from(u128::from(current.saturating_sub(old)) * 1_000_000 / micros).unwrap_or(u64::MAX)
        };
        let each = |time: u64, count: u64| time.checked_div(count).unwrap_or(0);
        Average {
            transactions: rate(current.transactions, old.transactions),
            queries: rate(current.queries, old.queries),
            assignments: rate(current.assignments, old.assignments),
            received: rate(current.received, old.received),
            sent: rate(current.sent, old.sent),
            transaction_time: each(
                current.transaction_time.sum.saturating_sub(old.transaction_time.sum),
                current.transactions.saturating_sub(old.transactions),
            ),
            query_time: each(
                current.query_time.saturating_sub(old.query_time),
                current.queries.saturating_sub(old.queries),
            ),
            wait_time: each(
                current.wait_time.sum.saturating_sub(old.wait_time.sum),
                current.assignments.saturating_sub(old.assignments),
            ),
            client_parses: rate(current.client_parses, old.client_parses),
            server_parses: rate(current.server_parses, old.server_parses),
            binds: rate(current.binds, old.binds),
            logins: rate(current.logins, old.logins),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second_and_times_per_query() {
        let mut averages = Averages::new(Micros(1));
        let totals = |queries, query_time| Totals { queries, query_time, ..Totals::default() };
        let second = |n: u64| Micros(1 + n * 1_000_000);
        assert_eq!(averages.of("a", &totals(20, 100), second(2)).queries, 10);
        averages.roll(second(10), [("a".into(), totals(100, 1000))].into());
        averages.roll(second(20), [("a".into(), totals(200, 5000))].into());
        let now = averages.of("a", &totals(300, 9000), second(20));
        assert_eq!((now.queries, now.query_time), (20, 40));
        averages.roll(second(30), [("a".into(), totals(300, 9000)), ("b".into(), totals(10, 10))].into());
        averages.roll(second(40), [].into());
        let all = averages.of_all(&totals(410, 9110), second(40));
        assert_eq!((all.queries, all.query_time), (10, 1));
        assert_eq!(averages.of("b", &Totals::default(), second(20)), Average::default());
    }
}
