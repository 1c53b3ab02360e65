//! `/metrics`: the names of prometheus-community's pgbouncer_exporter, so that dashboards made for it go on working,
//! and what PgBouncer has no figures for under `pgweir_`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::show::{PoolLoad, VERSION, by_name};
use crate::clock::{self, Micros};
use crate::config::value::Value;
use crate::metrics::exposition::{Page, seconds};
use crate::metrics::stats::Totals;
use crate::proxy::pools::{Database, Pool};
use crate::proxy::settings;
use crate::proxy::shared::Shared;
use crate::route::host::{Host, Role};

/// Renders the page.
pub(super) fn render(shared: &Shared) -> String {
    let mut page = Page::default();
    process(shared, &mut page);
    databases(shared, &mut page);
    stats(shared, &mut page);
    pools(shared, &mut page);
    histograms(shared, &mut page);
    hosts(shared, &mut page);
    page.finish()
}

fn process(shared: &Shared, page: &mut Page) {
    let config = shared.config.load();
    page.metric("pgbouncer_up", "gauge", "The pooler answers.");
    page.sample("pgbouncer_up", &[], 1.0);
    page.metric("pgbouncer_version_info", "gauge", "The version of the pooler.");
    page.sample("pgbouncer_version_info", &[("version", VERSION)], 1.0);
    let connected: usize = shared.workers.iter().map(|worker| worker.load.load(Relaxed)).sum();
    let clients = shared.clients.len();
    for (name, help, value) in [
        ("pgbouncer_databases", "Databases.", shared.pools.databases().len()),
        ("pgbouncer_users", "Users.", shared.pools.users().len()),
        ("pgbouncer_pools", "Pools.", by_name(shared).len()),
        ("pgbouncer_used_clients", "Clients that are logged in.", clients),
        ("pgbouncer_login_clients", "Clients that are logging in.", connected.saturating_sub(clients)),
        ("pgbouncer_used_servers", "Server connections.", shared.servers.len()),
        (
            "pgbouncer_config_max_client_connections",
            "Setting max_client_conn.",
            config.settings.max_client_conn as usize,
        ),
        (
            "pgbouncer_config_max_user_connections",
            "Setting max_user_connections.",
            config.settings.max_user_connections as usize,
        ),
        (
            "pgweir_prepared_statements",
            "Distinct prepared statements of all clients.",
            shared.statements.len(),
        ),
    ] {
        page.metric(name, "gauge", help);
        page.sample(name, &[], value as f64);
    }
}

fn databases(shared: &Shared, page: &mut Page) {
    let config = shared.config.load();
    let settings = &config.settings;
    type Figure = fn(&Database, &crate::config::Settings) -> f64;
    let figures: [(&str, &str, Figure); 6] = [
        ("pgbouncer_databases_pool_size", "Largest number of server connections per pool.", |d, s| {
            d.config.load().pool_size.unwrap_or(s.default_pool_size).into()
        }),
        ("pgbouncer_databases_reserve_pool", "Additional server connections per pool.", |d, s| {
            d.config.load().reserve_pool_size.unwrap_or(s.reserve_pool_size).into()
        }),
        ("pgbouncer_databases_max_connections", "Largest number of server connections.", |d, _| {
            d.servers.max() as f64
        }),
        ("pgbouncer_databases_current_connections", "Server connections.", |d, _| d.servers.current() as f64),
        ("pgbouncer_databases_paused", "Whether the database is paused.", |d, _| {
            f64::from(u8::from(d.paused.load(Relaxed)))
        }),
        ("pgbouncer_databases_disabled", "Whether the database is disabled.", |d, _| {
            f64::from(u8::from(d.disabled.load(Relaxed)))
        }),
    ];
    let all = shared.pools.databases();
    for (name, help, figure) in figures {
        page.metric(name, "gauge", help);
        for database in &all {
            let d = database.config.load();
            let (host, port) = (d.host.clone().unwrap_or_default().join(","), d.hosts()[0].1.to_string());
            let labels = [
                ("name", &*database.name),
                ("host", &host),
                ("port", &port),
                ("database", d.dbname.as_deref().unwrap_or(&database.name)),
                ("force_user", d.user.as_deref().unwrap_or_default()),
                ("pool_mode", &d.pool_mode.unwrap_or(settings.pool_mode).show()),
            ];
            page.sample(name, &labels, figure(database, settings));
        }
    }
}

fn stats(shared: &Shared, page: &mut Page) {
    type Figure = fn(&Totals) -> f64;
    let figures: [(&str, &str, Figure); 12] = [
        ("pgbouncer_stats_queries_pooled_total", "Queries.", |t| t.queries as f64),
        ("pgbouncer_stats_queries_duration_seconds_total", "Time spent on queries.", |t| {
            seconds(t.query_time)
        }),
        ("pgbouncer_stats_received_bytes_total", "Bytes received from clients.", |t| t.received as f64),
        ("pgbouncer_stats_sent_bytes_total", "Bytes sent to clients.", |t| t.sent as f64),
        ("pgbouncer_stats_client_wait_seconds_total", "Time clients waited for a server.", |t| {
            seconds(t.wait_time.sum)
        }),
        ("pgbouncer_stats_sql_transactions_pooled_total", "Transactions.", |t| t.transactions as f64),
        ("pgbouncer_stats_server_in_transaction_seconds_total", "Time spent in transactions.", |t| {
            seconds(t.transaction_time.sum)
        }),
        ("pgbouncer_stats_client_parses_total", "Parse messages of named statements from clients.", |t| {
            t.client_parses as f64
        }),
        ("pgbouncer_stats_server_parses_total", "… and those sent to servers.", |t| t.server_parses as f64),
        ("pgbouncer_stats_binds_total", "Bind messages of named statements.", |t| t.binds as f64),
        ("pgweir_stats_server_assignments_total", "Times a server was given to a client.", |t| {
            t.assignments as f64
        }),
        ("pgweir_stats_client_logins_total", "Successful logins.", |t| t.logins as f64),
    ];
    let all = shared.database_totals();
    for (name, help, figure) in figures {
        page.metric(name, "counter", help);
        for (database, totals) in &all {
            page.sample(name, &[("database", database)], figure(totals));
        }
    }
}

fn pools(shared: &Shared, page: &mut Page) {
    type Figure = fn(&PoolLoad) -> f64;
    let figures: [(&str, &str, Figure); 12] = [
        ("pgbouncer_pools_client_active_connections", "Clients that do not wait.", |l| {
            l.clients_active as f64
        }),
        ("pgbouncer_pools_client_waiting_connections", "Clients waiting for a server.", |l| {
            l.clients_waiting as f64
        }),
        ("pgbouncer_pools_client_active_cancel_connections", "Cancel requests being passed on.", |l| {
            l.cancel_requests as f64
        }),
        ("pgbouncer_pools_client_waiting_cancel_connections", "Cancel requests waiting.", |_| 0.0),
        ("pgbouncer_pools_server_active_connections", "Servers linked to a client.", |l| {
            l.servers_active as f64
        }),
        ("pgbouncer_pools_server_active_cancel_connections", "Servers passing on a cancel request.", |l| {
            l.cancel_requests as f64
        }),
        (
            "pgbouncer_pools_server_being_canceled_connections",
            "Servers kept back while a cancel request is under way.",
            |l| l.servers_being_canceled as f64,
        ),
        ("pgbouncer_pools_server_idle_connections", "Idle servers.", |l| l.servers_idle as f64),
        (
            "pgbouncer_pools_server_used_connections",
            "Idle servers due for a check: always 0, they are checked in use.",
            |_| 0.0,
        ),
        ("pgbouncer_pools_server_testing_connections", "Servers being reset.", |l| l.servers_tested as f64),
        ("pgbouncer_pools_server_login_connections", "Servers being logged in to.", |l| {
            l.servers_login as f64
        }),
        ("pgbouncer_pools_client_maxwait_seconds", "How long the longest waiting client has waited.", |l| {
            l.max_wait.as_secs_f64()
        }),
    ];
    let all: Vec<_> =
        by_name(shared).into_iter().map(|pools| (PoolLoad::of(shared, &pools), pools)).collect();
    for (name, help, figure) in figures {
        page.metric(name, "gauge", help);
        for (load, pools) in &all {
            let pool = &pools[0];
            page.sample(name, &[("database", &pool.database.name), ("user", &pool.user.name)], figure(load));
        }
    }
}

fn histograms(shared: &Shared, page: &mut Page) {
    let totals_of = |pools: &[Arc<Pool>]| {
        let mut sum = Totals::default();
        pools.iter().for_each(|pool| sum.merge(&pool.totals()));
        sum
    };
    let all: Vec<_> = by_name(shared).into_iter().map(|pools| (totals_of(&pools), pools)).collect();
    for (name, help) in [
        ("pgweir_client_wait_seconds", "How long clients waited for a server, those that had to."),
        ("pgweir_transaction_seconds", "How long transactions took."),
    ] {
        page.metric(name, "histogram", help);
        for (totals, pools) in &all {
            let pool = &pools[0];
            let histogram = if name == "pgweir_client_wait_seconds" {
                &totals.wait_time
            } else {
                &totals.transaction_time
            };
            page.histogram(name, &[("database", &pool.database.name), ("user", &pool.user.name)], histogram);
        }
    }
}

fn hosts(shared: &Shared, page: &mut Page) {
    type Figure = fn(&Host, Micros, Duration) -> f64;
    let figures: [(&str, &str, &str, Figure); 9] = [
        ("pgweir_host_reads_total", "counter", "Transactions served by a replica.", |h, _, _| {
            h.reads.load(Relaxed) as f64
        }),
        ("pgweir_host_writes_total", "counter", "Transactions that may write.", |h, _, _| {
            h.writes.load(Relaxed) as f64
        }),
        ("pgweir_host_server_connections", "gauge", "Connections to the host.", |h, _, _| {
            h.servers.load(Relaxed) as f64
        }),
        ("pgweir_host_up", "gauge", "Whether the host could be reached.", |h, _, _| {
            f64::from(u8::from(h.is_reachable()))
        }),
        ("pgweir_host_lag_bytes", "gauge", "Bytes of WAL by which a replica is behind.", |h, _, _| {
            h.bytes_behind() as f64
        }),
        ("pgweir_host_lag_seconds", "gauge", "Time by which a replica may be behind.", |h, now, _| {
            h.lag(now).map_or(0.0, |lag| lag.as_secs_f64())
        }),
        (
            "pgweir_host_weight",
            "gauge",
            "Its share of the reads as far as it counts now.",
            |h, now, warm_up| h.weight_now(warm_up, now),
        ),
        ("pgweir_host_timeline", "gauge", "Timeline; 0 if not known.", |h, _, _| h.timeline().into()),
        ("pgweir_host_is_replica", "gauge", "Whether the host says it is a standby.", |h, _, _| {
            f64::from(u8::from(h.role() == Role::Replica))
        }),
    ];
    let (config, all, now) = (shared.config.load(), shared.pools.databases(), clock::now());
    for (name, kind, help, figure) in figures {
        page.metric(name, kind, help);
        for database in &all {
            let warm_up = settings::replica_rules(&config, &database.config.load()).warm_up;
            for host in &database.cluster().hosts {
                let port = host.port.to_string();
                let labels = [("database", &*database.name), ("host", &*host.name), ("port", &*port)];
                page.sample(name, &labels, figure(host, now, warm_up));
            }
        }
    }
}
