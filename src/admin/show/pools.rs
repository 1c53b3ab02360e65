//! SHOW of databases, pools, users and hosts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::super::rows::Rows;
use super::super::table::{Row, bigint, cell, int, text};
use crate::clock;
use crate::config::effective::{DatabaseSettings, UserLimits};
use crate::config::value::Value;
use crate::proxy::pools::{Database, Pool};
use crate::proxy::server_handle::{ServerHandle, ServerState};
use crate::proxy::shared::{CONSOLE, Shared};
use crate::route::host::Role;
use crate::wire::write::Column;

/// Columns of SHOW DATABASES.
pub(super) const DATABASES: &[Column] = &[
    text("name"),
    text("host"),
    int("port"),
    text("database"),
    text("force_user"),
    int("pool_size"),
    int("min_pool_size"),
    int("reserve_pool_size"),
    int("server_lifetime"),
    text("pool_mode"),
    text("load_balance_hosts"),
    int("max_connections"),
    int("current_connections"),
    int("max_client_connections"),
    int("current_client_connections"),
    int("paused"),
    int("disabled"),
];

/// By name, the console's own among them.
pub(super) fn databases(shared: &Arc<Shared>) -> Rows {
    let mut all: Vec<_> = shared.pools.databases().into_iter().map(Some).chain([None]).collect();
    all.sort_by_key(|database| {
        database.as_ref().map_or(CONSOLE.into(), |database| Arc::clone(&database.name))
    });
    let shared = Arc::clone(shared);
    Rows::new(all.into_iter().map(move |database| match database {
        Some(database) => database_row(&shared, &database),
        None => console_database(&shared),
    }))
}

fn console_database(shared: &Shared) -> Row {
    let config = shared.config.load();
    vec![
        cell(CONSOLE),
        None,
        cell(config.settings.listen_port),
        cell(CONSOLE),
        cell(CONSOLE),
        cell(2),
        cell(0),
        cell(0),
        cell(config.settings.server_lifetime.as_secs()),
        cell("statement"),
        None,
        cell(0),
        cell(0),
        cell(shared.console.clients.max()),
        cell(shared.console.clients.current()),
        cell(0),
        cell(0),
    ]
}

fn database_row(shared: &Shared, database: &Database) -> Row {
    let config = shared.config.load();
    let d = database.config.load();
    let own = DatabaseSettings::of(&config.settings, &d);
    let several = d.host.as_ref().is_some_and(|hosts| hosts.len() > 1);
    vec![
        cell(&database.name),
        d.host.as_ref().map(|hosts| hosts.join(",")),
        cell(d.port.as_ref().and_then(|ports| ports.first()).copied().unwrap_or(5432)),
        cell(d.dbname.as_deref().unwrap_or(&database.name)),
        d.user.clone(),
        cell(own.pool_size),
        cell(own.min_pool_size),
        cell(own.reserve_pool_size),
        cell(own.server_lifetime.as_secs()),
        d.pool_mode.map(|mode| mode.show()),
        several.then(|| d.load_balance_hosts.map_or("round-robin".to_owned(), |balance| balance.show())),
        cell(database.servers.max()),
        cell(database.servers.current()),
        cell(database.clients.max()),
        cell(database.clients.current()),
        cell(u8::from(database.paused.load(Relaxed))),
        cell(u8::from(database.disabled.load(Relaxed))),
    ]
}

/// Columns of SHOW POOLS.
pub(super) const POOLS: &[Column] = &[
    text("database"),
    text("user"),
    int("cl_active"),
    int("cl_waiting"),
    int("cl_active_cancel_req"),
    int("cl_waiting_cancel_req"),
    int("sv_active"),
    int("sv_active_cancel"),
    int("sv_being_canceled"),
    int("sv_idle"),
    int("sv_used"),
    int("sv_tested"),
    int("sv_login"),
    int("maxwait"),
    int("maxwait_us"),
    text("pool_mode"),
    text("load_balance_hosts"),
];

/// By database and user, the console's own among them.
pub(super) fn pools(shared: &Arc<Shared>) -> Rows {
    let name = |pools: &Vec<Arc<Pool>>| match pools.first() {
        Some(pool) => (Arc::clone(&pool.database.name), Arc::clone(&pool.user.name)),
        None => (CONSOLE.into(), CONSOLE.into()),
    };
    let mut all = by_name(shared);
    all.push(Vec::new());
    all.sort_by_cached_key(name);
    let mut counts = ServerCounts::default();
    shared.servers.iter().for_each(|server| counts.add(&server));
    let shared = Arc::clone(shared);
    let row = move |pools: Vec<Arc<Pool>>| {
        if pools.is_empty() { console_pool(&shared) } else { pool_row(&counts, &pools) }
    };
    Rows::new(all.into_iter().map(row))
}

fn console_pool(shared: &Shared) -> Row {
    let at_console = shared.clients.iter().filter(|client| client.admin).count();
    let mut own: Row = vec![cell(CONSOLE), cell(CONSOLE), cell(at_console)];
    own.extend((3..15).map(|_| cell(0)));
    own.extend([cell("statement"), None]);
    own
}

/// Pools by database and user. Where a user's own clients and the look-ups of `auth_query` use the same there are two,
/// the former first.
pub(in crate::admin) fn by_name(shared: &Shared) -> Vec<Vec<Arc<Pool>>> {
    let name = |pool: &Pool| (Arc::clone(&pool.database.name), Arc::clone(&pool.user.name));
    shared.pools.all().chunk_by(|a, b| name(a) == name(b)).map(<[_]>::to_vec).collect()
}

fn pool_row(counts: &ServerCounts, pools: &[Arc<Pool>]) -> Row {
    let (load, pool) = (PoolLoad::of(counts, pools), &pools[0]);
    let config = pool.database.config.load();
    let several = config.host.as_ref().is_some_and(|hosts| hosts.len() > 1);
    vec![
        cell(&pool.database.name),
        cell(&pool.user.name),
        cell(load.clients_active),
        cell(load.clients_waiting),
        cell(load.cancel_requests),
        cell(pools.iter().map(|pool| pool.cancels.waiting()).sum::<usize>()),
        cell(load.servers_active),
        // Each has a connection of its own.
        cell(load.cancel_requests),
        cell(load.servers_being_canceled),
        cell(load.servers_idle),
        cell(0),
        cell(load.servers_tested),
        cell(load.servers_login),
        cell(load.max_wait.as_secs()),
        cell(load.max_wait.subsec_micros()),
        cell(pool.settings.load().pool_mode.show()),
        several.then(|| config.load_balance_hosts.map_or("round-robin".to_owned(), |balance| balance.show())),
    ]
}

/// What the clients and servers of pools of one name are doing right now.
#[derive(Clone, Debug, Default)]
pub(in crate::admin) struct PoolLoad {
    pub(in crate::admin) clients_active: usize,
    pub(in crate::admin) clients_waiting: usize,
    pub(in crate::admin) servers_active: usize,
    pub(in crate::admin) servers_idle: usize,
    pub(in crate::admin) servers_tested: usize,
    pub(in crate::admin) servers_being_canceled: usize,
    pub(in crate::admin) servers_login: usize,
    /// Cancel requests on their way.
    pub(in crate::admin) cancel_requests: usize,
    /// How long the one who waits longest has waited.
    pub(in crate::admin) max_wait: std::time::Duration,
}

/// How many server connections there are of each kind, by database and user: counted in one pass for all pools.
#[derive(Debug, Default)]
pub(in crate::admin) struct ServerCounts(HashMap<(Arc<str>, Arc<str>), PoolLoad>);

impl ServerCounts {
    pub(in crate::admin) fn add(&mut self, server: &ServerHandle) {
        let load = self.0.entry((Arc::clone(&server.database), Arc::clone(&server.user))).or_default();
        load.cancel_requests += *server.cancels.lock();
        match server.state() {
            ServerState::Active => load.servers_active += 1,
            ServerState::Idle => load.servers_idle += 1,
            ServerState::Tested => load.servers_tested += 1,
            ServerState::BeingCanceled => load.servers_being_canceled += 1,
            // Counted by its lane.
            ServerState::Login => {}
        }
    }
}

impl PoolLoad {
    /// What the servers tell, and what the pools of one name tell of themselves.
    pub(in crate::admin) fn of(counts: &ServerCounts, pools: &[Arc<Pool>]) -> Self {
        let pool = &pools[0];
        let key = (Arc::clone(&pool.database.name), Arc::clone(&pool.user.name));
        let mut load = counts.0.get(&key).cloned().unwrap_or_default();
        let now = clock::now();
        for (_, lane) in pools.iter().flat_map(|pool| pool.lanes()) {
            let counts = lane.counts();
            load.clients_waiting += counts.waiting;
            load.servers_login += counts.connecting;
            if counts.oldest_wait.0 != 0 {
                load.max_wait = load.max_wait.max(now.since(counts.oldest_wait));
            }
        }
        let clients: usize = pools.iter().map(|pool| pool.clients.load(Relaxed)).sum();
        load.clients_active = clients.saturating_sub(load.clients_waiting);
        load
    }
}

/// Columns of SHOW HOSTS, which PgBouncer does not have.
pub(super) const HOSTS: &[Column] = &[
    text("database"),
    text("host"),
    int("port"),
    text("role"),
    text("state"),
    int("servers"),
    bigint("reads"),
    bigint("writes"),
    int("timeline"),
    text("lsn"),
    bigint("lag_bytes"),
    bigint("lag_ms"),
    int("busy"),
    text("weight"),
    text("why"),
];

pub(super) fn hosts(shared: &Shared) -> Vec<Row> {
    let mut rows = Vec::new();
    let (config, now) = (shared.config.load(), clock::now());
    for database in shared.pools.databases() {
        let topology = database.hosts.load();
        let warm_up = DatabaseSettings::of(&config.settings, &database.config.load()).replica_warm_up;
        for (host, known) in topology.cluster.hosts.iter().zip(&topology.hosts) {
            let (counters, seen, obstacle) = (&host.counters, &known.seen, known.obstacle.as_ref());
            let is_replica = seen.role == Role::Replica;
            rows.push(vec![
                cell(&database.name),
                cell(&host.name),
                cell(host.port),
                cell(seen.role.name()),
                cell(obstacle.map_or("up", |obstacle| obstacle.state())),
                cell(counters.servers.load(Relaxed)),
                cell(counters.reads.load(Relaxed)),
                cell(counters.writes.load(Relaxed)),
                seen.timeline.map(|timeline| timeline.to_string()),
                seen.position.map(|position| position.to_string()),
                is_replica.then(|| seen.bytes_behind.to_string()),
                known.lag(now).map(|lag| lag.as_millis().to_string()),
                cell(counters.busy.load(Relaxed)),
                cell(known.weight_now(warm_up, now)),
                obstacle.map(|obstacle| obstacle.why()),
            ]);
        }
    }
    rows
}

/// Columns of SHOW USERS.
pub(super) const USERS: &[Column] = &[
    text("name"),
    text("pool_size"),
    text("reserve_pool_size"),
    text("pool_mode"),
    int("max_user_connections"),
    int("current_connections"),
    int("max_user_client_connections"),
    int("current_client_connections"),
];

/// The users that there are: those with a secret, those of `[users]`, those who have logged in, and the console's own.
pub(super) fn user_names(shared: &Shared) -> BTreeSet<String> {
    let config = shared.config.load();
    let live = shared.pools.users();
    let access = shared.access.load();
    let mut names: BTreeSet<String> = access.accounts.keys().chain(config.users.keys()).cloned().collect();
    names.extend(live.iter().map(|user| user.name.to_string()));
    names.insert(CONSOLE.to_owned());
    names
}

pub(super) fn users(shared: &Arc<Shared>) -> Rows {
    let config = shared.config.load_full();
    let live: BTreeMap<String, _> =
        shared.pools.users().into_iter().map(|user| (user.name.to_string(), user)).collect();
    let row = move |name: String| {
        let own = config.users.get(&name);
        // PgBouncer shows an empty text where nothing is set, not NULL.
        let size = |value: Option<u32>| cell(value.map_or(String::new(), |n| n.to_string()));
        let (limits, live) = (UserLimits::of(&config, &name), live.get(&name));
        vec![
            cell(&name),
            size(own.and_then(|u| u.pool_size)),
            size(own.and_then(|u| u.reserve_pool_size)),
            own.and_then(|u| u.pool_mode).map(|mode| mode.show()),
            cell(limits.max_user_connections),
            cell(live.map_or(0, |user| user.servers.current())),
            cell(limits.max_user_client_connections),
            cell(live.map_or(0, |user| user.clients.current())),
        ]
    };
    Rows::new(user_names(shared).into_iter().map(row))
}
