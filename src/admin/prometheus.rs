//! `/metrics`: the names of prometheus-community's pgbouncer_exporter, so that dashboards made for it go on working,
//! and what PgBouncer has no figures for under `pgweir_`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::show::{PoolLoad, ServerCounts, VERSION, by_name};
use crate::clock::{self, Micros};
use crate::config::effective::DatabaseSettings;
use crate::config::value::Value;
use crate::metrics::exposition::{Page, seconds};
use crate::metrics::stats::{HistogramTotals, Totals};
use crate::proxy::pools::{Database, Pool};
use crate::proxy::shared::{CONSOLE, Shared};
use crate::route::host::{HostCounters, Role};
use crate::route::topology::HostState;

/// Roughly how long a piece of the page is; a sample more at most.
const PIECE: usize = 16 * 1024;
/// How many pools or servers are looked at before the thread may do something else.
const AT_ONCE: usize = 64;

/// What takes the page, piece by piece.
pub(super) trait Sink {
    /// Takes the next piece; returns when there is room for another.
    async fn take(&mut self, piece: &str) -> io::Result<()>;
}

/// The page in the making.
struct Pieces<'a, S> {
    page: Page,
    sink: &'a mut S,
}

impl<S: Sink> Pieces<'_, S> {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        self.page.metric(name, kind, help);
    }

    async fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) -> io::Result<()> {
        self.page.sample(name, labels, value);
        self.send(PIECE).await
    }

    /// Sends what there is, if it is as much as this, and lets others have the thread.
    async fn send(&mut self, least: usize) -> io::Result<()> {
        if self.page.text().len() < least {
            return Ok(());
        }
        self.sink.take(self.page.text()).await?;
        self.page.clear();
        tokio::task::yield_now().await;
        Ok(())
    }
}

/// Makes the page. No more of it than a piece is in memory at a time, and a few figures for each pool; after each piece the
/// thread has time for others.
pub(super) async fn render<S: Sink>(shared: &Shared, sink: &mut S) -> io::Result<()> {
    let mut page = Pieces { page: Page::default(), sink };
    let all = by_name(shared);
    process(shared, all.len(), &mut page).await?;
    databases(shared, &mut page).await?;
    stats(shared, &all, &mut page).await?;
    pools(shared, &all, &mut page).await?;
    histograms(&all, &mut page).await?;
    hosts(shared, &mut page).await?;
    workers(shared, &mut page.page);
    page.send(1).await
}

async fn process<S: Sink>(shared: &Shared, pools: usize, page: &mut Pieces<'_, S>) -> io::Result<()> {
    let config = shared.config.load_full();
    page.metric("pgbouncer_up", "gauge", "The pooler answers.");
    page.sample("pgbouncer_up", &[], 1.0).await?;
    page.metric("pgbouncer_version_info", "gauge", "The version of the pooler.");
    page.sample("pgbouncer_version_info", &[("version", VERSION)], 1.0).await?;
    let connected: usize = shared.workers.iter().map(|worker| worker.load.load(Relaxed)).sum();
    let clients = shared.clients.len();
    for (name, help, value) in [
        ("pgbouncer_databases", "Databases.", shared.pools.databases().len()),
        ("pgbouncer_users", "Users.", shared.pools.users().len()),
        ("pgbouncer_pools", "Pools.", pools),
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
        page.sample(name, &[], value as f64).await?;
    }
    Ok(())
}

async fn databases<S: Sink>(shared: &Shared, page: &mut Pieces<'_, S>) -> io::Result<()> {
    let config = shared.config.load_full();
    type Figure = fn(&Database, &DatabaseSettings) -> f64;
    let figures: [(&str, &str, Figure); 6] = [
        ("pgbouncer_databases_pool_size", "Largest number of server connections per pool.", |_, own| {
            own.pool_size.into()
        }),
        ("pgbouncer_databases_reserve_pool", "Additional server connections per pool.", |_, own| {
            own.reserve_pool_size.into()
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
            let d = database.config.load_full();
            let own = DatabaseSettings::of(&config.settings, &d);
            let (host, port) = (d.host.clone().unwrap_or_default().join(","), d.hosts()[0].1.to_string());
            let labels = [
                ("name", &*database.name),
                ("host", &host),
                ("port", &port),
                ("database", d.dbname.as_deref().unwrap_or(&database.name)),
                ("force_user", d.user.as_deref().unwrap_or_default()),
                ("pool_mode", &own.pool_mode.show()),
            ];
            page.sample(name, &labels, figure(database, &own)).await?;
        }
    }
    Ok(())
}

/// Figures of the databases, worked out one after the other: pools come by database.
async fn stats<S: Sink>(
    shared: &Shared,
    pools: &[Vec<Arc<Pool>>],
    page: &mut Pieces<'_, S>,
) -> io::Result<()> {
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
    let figures_of = |totals: &Totals| figures.map(|(_, _, figure)| figure(totals));
    let mut all: Vec<(&str, [f64; 12])> = Vec::new();
    for of_database in pools.chunk_by(|a, b| a[0].database.name == b[0].database.name) {
        let mut totals = Totals::default();
        for some in of_database.chunks(AT_ONCE) {
            some.iter().flatten().for_each(|pool| totals.merge(&pool.totals()));
            tokio::task::yield_now().await;
        }
        all.push((&of_database[0][0].database.name, figures_of(&totals)));
    }
    let console = (CONSOLE, figures_of(&shared.console_totals()));
    let at = all.partition_point(|(database, _)| *database < CONSOLE);
    all.insert(at, console);
    for (index, (name, help, _)) in figures.into_iter().enumerate() {
        page.metric(name, "counter", help);
        for (database, figures) in &all {
            page.sample(name, &[("database", database)], figures[index]).await?;
        }
    }
    Ok(())
}

async fn pools<S: Sink>(
    shared: &Shared,
    pools: &[Vec<Arc<Pool>>],
    page: &mut Pieces<'_, S>,
) -> io::Result<()> {
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
    let servers: Vec<_> = shared.servers.iter().map(|server| Arc::clone(&server)).collect();
    let mut counts = ServerCounts::default();
    for some in servers.chunks(AT_ONCE) {
        some.iter().for_each(|server| counts.add(server));
        tokio::task::yield_now().await;
    }
    drop(servers);
    let mut all = Vec::with_capacity(pools.len());
    for some in pools.chunks(AT_ONCE) {
        all.extend(some.iter().map(|pools| (PoolLoad::of(&counts, pools), &pools[0])));
        tokio::task::yield_now().await;
    }
    for (name, help, figure) in figures {
        page.metric(name, "gauge", help);
        for (load, pool) in &all {
            let labels = [("database", &*pool.database.name), ("user", &*pool.user.name)];
            page.sample(name, &labels, figure(load)).await?;
        }
    }
    Ok(())
}

async fn histograms<S: Sink>(pools: &[Vec<Arc<Pool>>], page: &mut Pieces<'_, S>) -> io::Result<()> {
    type Figure = fn(&Totals) -> &HistogramTotals;
    let figures: [(&str, &str, Figure); 2] = [
        ("pgweir_client_wait_seconds", "How long clients waited for a server, those that had to.", |t| {
            &t.wait_time
        }),
        ("pgweir_transaction_seconds", "How long transactions took.", |t| &t.transaction_time),
    ];
    for (name, help, figure) in figures {
        page.metric(name, "histogram", help);
        for pools in pools {
            let mut totals = Totals::default();
            pools.iter().for_each(|pool| totals.merge(&pool.totals()));
            let labels = [("database", &*pools[0].database.name), ("user", &*pools[0].user.name)];
            page.page.histogram(name, &labels, figure(&totals));
            page.send(PIECE).await?;
        }
    }
    Ok(())
}

async fn hosts<S: Sink>(shared: &Shared, page: &mut Pieces<'_, S>) -> io::Result<()> {
    type Figure = fn(&HostCounters, &HostState, Micros, Duration) -> f64;
    let figures: [(&str, &str, &str, Figure); 9] = [
        ("pgweir_host_reads_total", "counter", "Transactions served by a replica.", |c, _, _, _| {
            c.reads.load(Relaxed) as f64
        }),
        ("pgweir_host_writes_total", "counter", "Transactions that may write.", |c, _, _, _| {
            c.writes.load(Relaxed) as f64
        }),
        ("pgweir_host_server_connections", "gauge", "Connections to the host.", |c, _, _, _| {
            c.servers.load(Relaxed) as f64
        }),
        ("pgweir_host_up", "gauge", "Whether the host could be reached.", |_, h, _, _| {
            f64::from(u8::from(h.seen.is_reachable()))
        }),
        ("pgweir_host_lag_bytes", "gauge", "Bytes of WAL by which a replica is behind.", |_, h, _, _| {
            h.seen.bytes_behind as f64
        }),
        ("pgweir_host_lag_seconds", "gauge", "Time by which a replica may be behind.", |_, h, now, _| {
            h.lag(now).map_or(0.0, |lag| lag.as_secs_f64())
        }),
        (
            "pgweir_host_weight",
            "gauge",
            "Its share of the reads as far as it counts now.",
            |_, h, now, warm_up| h.weight_now(warm_up, now),
        ),
        ("pgweir_host_timeline", "gauge", "Timeline; 0 if not known.", |_, h, _, _| {
            h.seen.timeline.unwrap_or(0).into()
        }),
        ("pgweir_host_is_replica", "gauge", "Whether the host says it is a standby.", |_, h, _, _| {
            f64::from(u8::from(h.seen.role == Role::Replica))
        }),
    ];
    let (config, all, now) = (shared.config.load_full(), shared.pools.databases(), clock::now());
    for (name, kind, help, figure) in figures {
        page.metric(name, kind, help);
        for database in &all {
            let own = DatabaseSettings::of(&config.settings, &database.config.load());
            let topology = database.hosts.load_full();
            for (host, known) in topology.cluster.hosts.iter().zip(&topology.hosts) {
                let port = host.port.to_string();
                let labels = [("database", &*database.name), ("host", &*host.name), ("port", &*port)];
                page.sample(name, &labels, figure(&host.counters, known, now, own.replica_warm_up)).await?;
            }
        }
    }
    Ok(())
}

/// While a worker is busy its other clients wait.
fn workers(shared: &Shared, page: &mut Page) {
    let all: Vec<_> = shared.workers.iter().enumerate().map(|(n, w)| (n.to_string(), &w.turns)).collect();
    let name = "pgweir_worker_turn_seconds";
    page.metric(
        name,
        "histogram",
        "How long a worker took to deal with what had happened, before it looked again.",
    );
    for (worker, turns) in &all {
        page.histogram(name, &[("worker", worker)], &turns.time());
    }
    let name = "pgweir_worker_slow_turns_total";
    page.metric(name, "counter", "Turns of a worker that took more than 10 ms.");
    for (worker, turns) in &all {
        page.sample(name, &[("worker", worker)], turns.slow() as f64);
    }
    let (name, now) = ("pgweir_worker_busy_seconds", clock::now());
    page.metric(name, "gauge", "How long the turn that is under way has taken so far.");
    for (worker, turns) in &all {
        page.sample(name, &[("worker", worker)], turns.under_way(now).as_secs_f64());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::task::{Context, Waker};

    use super::*;
    use crate::config::{Access, Config, DatabaseConfig};
    use crate::proxy::registry;

    /// What a program has that serves so many databases, each with a pool.
    pub(in crate::admin) fn with_pools(count: usize) -> Shared {
        let config = Config { fallback: Some(DatabaseConfig::default()), ..Config::default() };
        let shared = Shared::new(config, Access::default(), Vec::new());
        for number in 0..count {
            let database = registry::database(&shared, &format!("database-{number:05}")).unwrap();
            registry::pool(&shared, &database, &registry::user(&shared, "me"));
        }
        shared
    }

    #[derive(Default)]
    struct Kept {
        pieces: Vec<String>,
    }

    impl Sink for Kept {
        async fn take(&mut self, piece: &str) -> io::Result<()> {
            self.pieces.push(piece.to_owned());
            Ok(())
        }
    }

    #[test]
    fn a_big_page_comes_in_pieces_between_which_others_have_the_thread() {
        let shared = with_pools(1500);
        let mut kept = Kept::default();
        let mut turns = 0;
        {
            let mut page = Box::pin(render(&shared, &mut kept));
            while page.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                turns += 1;
            }
        }
        let len: usize = kept.pieces.iter().map(String::len).sum();
        assert!(len > 3_000_000, "{len}");
        // A histogram is the longest that comes at once.
        assert!(kept.pieces.iter().all(|piece| piece.len() < PIECE + 4096));
        assert!(kept.pieces.len() >= len / (PIECE + 4096) && turns > kept.pieces.len() + 2 * 1500 / AT_ONCE);
        let page = kept.pieces.concat();
        for name in ["pgbouncer_stats_queries_pooled_total", "pgbouncer_databases_pool_size"] {
            let samples = page.lines().filter(|line| line.starts_with(&format!("{name}{{")));
            assert_eq!(samples.filter(|line| line.contains("database-")).count(), 1500, "{name}");
        }
        assert_eq!(page.matches("pgweir_transaction_seconds_count{").count(), 1500);
        assert_eq!(page.matches("pgbouncer_pools_server_idle_connections{").count(), 1500);
        assert_eq!(page.matches("pgweir_stats_client_logins_total{database=\"pgbouncer\"}").count(), 1);
    }
}
