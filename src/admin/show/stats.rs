//! SHOW of the counters.

use std::sync::Arc;

use super::super::table::{Row, cell, numeric, text};
use crate::clock;
use crate::metrics::averages::Average;
use crate::metrics::stats::Totals;
use crate::proxy::shared::Shared;
use crate::wire::write::Column;

/// How many figures there are of a database.
const FIGURES: usize = 12;

/// Columns of SHOW STATS: those of PgBouncer 1.25, and behind them the two that its next version has.
pub(super) const STATS: &[Column] = &[
    text("database"),
    numeric("total_server_assignment_count"),
    numeric("total_xact_count"),
    numeric("total_query_count"),
    numeric("total_received"),
    numeric("total_sent"),
    numeric("total_xact_time"),
    numeric("total_query_time"),
    numeric("total_wait_time"),
    numeric("total_client_parse_count"),
    numeric("total_server_parse_count"),
    numeric("total_bind_count"),
    numeric("avg_server_assignment_count"),
    numeric("avg_xact_count"),
    numeric("avg_query_count"),
    numeric("avg_recv"),
    numeric("avg_sent"),
    numeric("avg_xact_time"),
    numeric("avg_query_time"),
    numeric("avg_wait_time"),
    numeric("avg_client_parse_count"),
    numeric("avg_server_parse_count"),
    numeric("avg_bind_count"),
    numeric("total_client_login_count"),
    numeric("avg_client_login_count"),
];

/// Columns of SHOW STATS_TOTALS.
pub(super) const TOTALS: &[Column] = &[
    text("database"),
    numeric("server_assignment_count"),
    numeric("xact_count"),
    numeric("query_count"),
    numeric("bytes_received"),
    numeric("bytes_sent"),
    numeric("xact_time"),
    numeric("query_time"),
    numeric("wait_time"),
    numeric("client_parse_count"),
    numeric("server_parse_count"),
    numeric("bind_count"),
    numeric("client_login_count"),
];

/// Columns of SHOW STATS_AVERAGES.
pub(super) const AVERAGES: &[Column] = &[
    text("database"),
    numeric("server_assignment_count"),
    numeric("xact_count"),
    numeric("query_count"),
    numeric("bytes_received"),
    numeric("bytes_sent"),
    numeric("xact_time"),
    numeric("query_time"),
    numeric("wait_time"),
    numeric("avg_client_parse_count"),
    numeric("avg_server_parse_count"),
    numeric("avg_bind_count"),
    numeric("avg_client_login_count"),
];

/// Columns of SHOW TOTALS.
pub(super) const SUMS: &[Column] = &[text("name"), numeric("value")];

/// The names in SHOW TOTALS, behind `total_` and `avg_`.
const NAMES: [&str; FIGURES] = [
    "server_assignment_count",
    "xact_count",
    "query_count",
    "client_bytes",
    "server_bytes",
    "xact_time",
    "query_time",
    "wait_time",
    "ps_client_parse_count",
    "ps_server_parse_count",
    "ps_bind_count",
    "client_login_count",
];

pub(super) fn stats(shared: &Shared) -> Vec<Row> {
    per_database(shared, |totals, average| {
        let ([totals @ .., logins], [averages @ .., login_rate]) = (totals_of(totals), averages_of(average));
        [&totals[..], &averages[..], &[logins, login_rate]].concat()
    })
}

pub(super) fn totals(shared: &Shared) -> Vec<Row> {
    per_database(shared, |totals, _| totals_of(totals).into())
}

pub(super) fn averages(shared: &Shared) -> Vec<Row> {
    per_database(shared, |_, average| averages_of(average).into())
}

/// One row per database: its name and the numbers that `numbers` takes of it.
fn per_database(shared: &Shared, numbers: impl Fn(&Totals, &Average) -> Vec<u64>) -> Vec<Row> {
    let now = clock::now();
    let averages = shared.averages.lock();
    let row = |(name, totals): (Arc<str>, Totals)| {
        let numbers = numbers(&totals, &averages.of(&name, &totals, now));
        [cell(name)].into_iter().chain(numbers.into_iter().map(cell)).collect()
    };
    shared.database_totals().into_iter().map(row).collect()
}

/// All databases together, one row per figure.
pub(super) fn sums(shared: &Shared) -> Vec<Row> {
    let now = clock::now();
    let databases = shared.database_totals();
    let mut total = Totals::default();
    databases.values().for_each(|totals| total.merge(totals));
    let average = shared.averages.lock().of_all(&total, now);
    let row = |prefix: &str, name: &str, value: u64| vec![cell(format!("{prefix}_{name}")), cell(value)];
    let totals = NAMES.iter().zip(totals_of(&total)).map(|(name, value)| row("total", name, value));
    let averages = NAMES.iter().zip(averages_of(&average)).map(|(name, value)| row("avg", name, value));
    totals.chain(averages).collect()
}

fn totals_of(t: &Totals) -> [u64; FIGURES] {
    [
        t.assignments,
        t.transactions,
        t.queries,
        t.received,
        t.sent,
        t.transaction_time.sum,
        t.query_time,
        t.wait_time.sum,
        t.client_parses,
        t.server_parses,
        t.binds,
        t.logins,
    ]
}

fn averages_of(a: &Average) -> [u64; FIGURES] {
    [
        a.assignments,
        a.transactions,
        a.queries,
        a.received,
        a.sent,
        a.transaction_time,
        a.query_time,
        a.wait_time,
        a.client_parses,
        a.server_parses,
        a.binds,
        a.logins,
    ]
}
