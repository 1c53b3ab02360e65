//! Takes a snapshot of all counters each `stats_period`, for averages, and logs what happened in between.

use std::sync::Arc;
use std::time::Duration;

use super::shared::{CONSOLE, Shared};
use crate::clock;

/// Runs until the task is dropped.
pub async fn run(shared: Arc<Shared>) {
    loop {
        let period = shared.config.load().settings.stats_period.max(1);
        tokio::time::sleep(Duration::from_secs(period.into())).await;
        let now = clock::now();
        let totals = shared.database_totals();
        let mut averages = shared.averages.lock();
        averages.roll(now, totals.clone());
        if shared.config.load().settings.log_stats {
            let all = totals
                .iter()
                .filter(|(name, _)| &***name != CONSOLE)
                .map(|(name, t)| averages.of(name, t, now));
            let (mut xacts, mut queries, mut received, mut sent, mut wait) = (0, 0, 0, 0, 0);
            let (mut xact_time, mut query_time) = (0, 0);
            for average in all {
                xacts += average.transactions;
                queries += average.queries;
                received += average.received;
                sent += average.sent;
                wait += average.wait_time;
                xact_time = xact_time.max(average.transaction_time);
                query_time = query_time.max(average.query_time);
            }
            drop(averages);
            tracing::info!(
                "stats: {xacts} xacts/s, {queries} queries/s, in {received} B/s, out {sent} B/s, xact {xact_time} us, \
                 query {query_time} us, wait {wait} us"
            );
        }
    }
}
