//! Takes a snapshot of all counters each `stats_period`, for averages, and logs what happened in between.

use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use crate::clock;
use crate::metrics::averages::Average;
use crate::metrics::stats::Totals;

/// Runs until the task is dropped.
pub async fn run(shared: Arc<Shared>) {
    loop {
        let period = shared.config.load().settings.stats_period.max(1);
        tokio::time::sleep(Duration::from_secs(period.into())).await;
        let now = clock::now();
        let totals = shared.database_totals();
        let mut averages = shared.averages.lock();
        averages.roll(now, totals.clone());
        let mut all = Totals::default();
        totals.values().for_each(|totals| all.merge(totals));
        let line = line(&averages.of_all(&all, now));
        drop(averages);
        if shared.config.load().settings.log_stats {
            tracing::info!("{line}");
        }
        // For `systemctl status`, if there is a service manager that listens.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Status(&line)]);
    }
}

/// PgBouncer's line.
fn line(average: &Average) -> String {
    format!(
        "stats: {} xacts/s, {} queries/s, {} client parses/s, {} server parses/s, {} binds/s, \
         {} client logins/s, in {} B/s, out {} B/s, xact {} us, query {} us, wait {} us",
        average.transactions,
        average.queries,
        average.client_parses,
        average.server_parses,
        average.binds,
        average.logins,
        average.received,
        average.sent,
        average.transaction_time,
        average.query_time,
        average.wait_time
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In PgBouncer's order and units: programs read it.
    #[test]
    fn the_line_is_pgbouncers() {
        let average = Average {
            transactions: 1,
            queries: 2,
            client_parses: 3,
            server_parses: 4,
            binds: 5,
            logins: 6,
            received: 7,
            sent: 8,
            transaction_time: 9,
            query_time: 10,
            wait_time: 11,
            assignments: 12,
        };
        assert_eq!(
            line(&average),
            "stats: 1 xacts/s, 2 queries/s, 3 client parses/s, 4 server parses/s, 5 binds/s, 6 client logins/s, in 7 B/s, \
             out 8 B/s, xact 9 us, query 10 us, wait 11 us"
        );
    }
}
