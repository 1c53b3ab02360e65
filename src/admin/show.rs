//! SHOW: PgBouncer's columns in PgBouncer's order and types, so that scripts and dashboards go on working.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::clock::{self, Micros};
use crate::config::settings::{self, Change, Settings};
use crate::config::value::Value;
use crate::error::Refusal;
use crate::metrics::averages::Average;
use crate::metrics::stats::Totals;
use crate::net::listener::Peer;
use crate::proxy::info::{ClientInfo, ClientState, ServerInfo, ServerState};
use crate::proxy::pools::{Database, Pool};
use crate::proxy::shared::{Lifecycle, Shared};
use crate::wire::write::{self, Column};

/// What `SHOW VERSION` and `--version` say.
pub const VERSION: &str = concat!("pgweir ", env!("CARGO_PKG_VERSION"));

const HELP: &str = "Console usage
\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|HOSTS|USERS|VERSION
\tSHOW SOCKETS|ACTIVE_SOCKETS|PEERS|PEER_POOLS|LISTS|MEM|STATE
\tSHOW DNS_HOSTS|DNS_ZONES
\tSHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS
\tSET key = arg
\tRELOAD
\tPAUSE [<db>]
\tRESUME [<db>]
\tDISABLE <db>
\tENABLE <db>
\tRECONNECT [<db>]
\tKILL [<db>]
\tKILL_CLIENT <client_id>
\tWAIT_CLOSE [<db>]
\tSHUTDOWN
\tSHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS";

type Row = Vec<Option<String>>;

/// Answers `SHOW what`.
pub(super) fn answer(shared: &Shared, what: &str, out: &mut Vec<u8>) -> Result<(), Refusal> {
    match what {
        "help" | "" => help(out),
        "version" => table(out, "s", &["version"], [vec![text(VERSION)]]),
        "config" => config(shared, out),
        "databases" => databases(shared, out),
        "pools" => pools(shared, out),
        "clients" => table(out, SOCKET_TYPES, SOCKET, clients(shared)),
        "servers" => table(out, SOCKET_TYPES, SOCKET, servers(shared)),
        "sockets" | "active_sockets" => sockets(shared, out),
        "hosts" => hosts(shared, out),
        "users" => users(shared, out),
        "lists" => lists(shared, out),
        "state" => state(shared, out),
        "stats" => stats(shared, out),
        "stats_totals" => stats_totals(shared, out),
        "stats_averages" => stats_averages(shared, out),
        "totals" => totals(shared, out),
        "peers" => table(out, "isii", &["peer_id", "host", "port", "pool_size"], []),
        "peer_pools" => table(out, "iiiii", PEER_POOLS, []),
        "dns_hosts" => table(out, "sqs", &["hostname", "ttl", "addrs"], []),
        "dns_zones" => table(out, "sqi", &["zonename", "serial", "count"], []),
        "mem" => table(out, "siiii", &["name", "size", "used", "free", "memtotal"], memory(shared)),
        key => parameter(shared, key, out)?,
    }
    write::command_complete(out, "SHOW");
    Ok(())
}

const PEER_POOLS: &[&str] =
    &["peer_id", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active_cancel", "sv_login"];

/// `s`: text, `i`: integer, `q`: bigint, `N`: numeric.
fn table(out: &mut Vec<u8>, types: &str, names: &[&'static str], rows: impl IntoIterator<Item = Row>) {
    let column = |(kind, name): (u8, &&'static str)| {
        let (oid, size) = match kind {
            b'i' => (23, 4),
            b'q' => (20, 8),
            b'N' => (1700, -1),
            _ => (25, -1),
        };
        Column { name, oid, size }
    };
    let columns: Vec<Column> = types.bytes().zip(names).map(column).collect();
    write::row_description(out, &columns);
    rows.into_iter().for_each(|row| write::data_row(out, &row));
}

fn text(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

fn help(out: &mut Vec<u8>) {
    write::notice(out, HELP);
}

/// `SHOW name` of a single setting.
fn parameter(shared: &Shared, key: &str, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let config = shared.config.load();
    let (Some(info), Some(value)) = (settings::info(key), config.settings.show(key)) else {
        return Err(Refusal::protocol(format!("bad SHOW arg '{key}', use SHOW HELP;")));
    };
    table(out, "s", &[info.name], [vec![Some(value)]]);
    Ok(())
}

fn config(shared: &Shared, out: &mut Vec<u8>) {
    let config = shared.config.load();
    let defaults = Settings::default();
    let row = |info: &settings::SettingInfo| {
        let changeable = if info.change == Change::Reload { "yes" } else { "no" };
        vec![text(info.name), config.settings.show(info.name), defaults.show(info.name), text(changeable)]
    };
    table(out, "ssss", &["key", "value", "default", "changeable"], settings::TABLE.iter().map(row));
}

fn databases(shared: &Shared, out: &mut Vec<u8>) {
    const NAMES: &[&str] = &[
        "name",
        "host",
        "port",
        "database",
        "force_user",
        "pool_size",
        "min_pool_size",
        "reserve_pool_size",
        "server_lifetime",
        "pool_mode",
        "load_balance_hosts",
        "max_connections",
        "current_connections",
        "max_client_connections",
        "current_client_connections",
        "paused",
        "disabled",
    ];
    let config = shared.config.load();
    let own = vec![
        text("pgbouncer"),
        None,
        text(config.settings.listen_port),
        text("pgbouncer"),
        text("pgbouncer"),
        text(2),
        text(0),
        text(0),
        text(config.settings.server_lifetime.as_secs()),
        text("statement"),
        None,
        text(0),
        text(0),
        text(shared.console.clients.max()),
        text(shared.console.clients.current()),
        text(0),
        text(0),
    ];
    let rows = shared.pools.databases().into_iter().map(|database| database_row(shared, &database));
    table(out, "ssissiiiissiiiiii", NAMES, rows.chain([own]));
}

fn database_row(shared: &Shared, database: &Database) -> Row {
    let config = shared.config.load();
    let (s, d) = (&config.settings, database.config.load());
    let several = d.host.as_ref().is_some_and(|hosts| hosts.len() > 1);
    vec![
        text(&database.name),
        d.host.as_ref().map(|hosts| hosts.join(",")),
        text(d.port.as_ref().and_then(|ports| ports.first()).copied().unwrap_or(5432)),
        text(d.dbname.as_deref().unwrap_or(&database.name)),
        d.user.clone(),
        text(d.pool_size.unwrap_or(s.default_pool_size)),
        text(d.min_pool_size.unwrap_or(s.min_pool_size)),
        text(d.reserve_pool_size.unwrap_or(s.reserve_pool_size)),
        text(d.server_lifetime.unwrap_or(s.server_lifetime).as_secs()),
        d.pool_mode.map(|mode| mode.show()),
        several.then(|| d.load_balance_hosts.map_or("round-robin".to_owned(), |balance| balance.show())),
        text(database.servers.max()),
        text(database.servers.current()),
        text(database.clients.max()),
        text(database.clients.current()),
        text(u8::from(database.paused.load(Relaxed))),
        text(u8::from(database.disabled.load(Relaxed))),
    ]
}

fn pools(shared: &Shared, out: &mut Vec<u8>) {
    const NAMES: &[&str] = &[
        "database",
        "user",
        "cl_active",
        "cl_waiting",
        "cl_active_cancel_req",
        "cl_waiting_cancel_req",
        "sv_active",
        "sv_active_cancel",
        "sv_being_canceled",
        "sv_idle",
        "sv_used",
        "sv_tested",
        "sv_login",
        "maxwait",
        "maxwait_us",
        "pool_mode",
        "load_balance_hosts",
    ];
    let at_console = shared.clients.iter().filter(|client| client.admin).count();
    let mut own: Row = vec![text("pgbouncer"), text("pgbouncer"), text(at_console)];
    own.extend((3..15).map(|_| text(0)));
    own.extend([text("statement"), None]);
    let rows = shared.pools.all().into_iter().map(|pool| pool_row(shared, &pool));
    table(out, "ssiiiiiiiiiiiiiss", NAMES, rows.chain([own]));
}

fn pool_row(shared: &Shared, pool: &Pool) -> Row {
    let load = PoolLoad::of(shared, pool);
    let config = pool.database.config.load();
    let several = config.host.as_ref().is_some_and(|hosts| hosts.len() > 1);
    vec![
        text(&pool.database.name),
        text(&pool.user.name),
        text(load.clients_active),
        text(load.clients_waiting),
        text(0),
        text(0),
        text(load.servers_active),
        text(0),
        text(load.servers_being_canceled),
        text(load.servers_idle),
        text(0),
        text(load.servers_tested),
        text(load.servers_login),
        text(load.max_wait.as_secs()),
        text(load.max_wait.subsec_micros()),
        text(pool.settings.load().pool_mode.show()),
        several.then(|| config.load_balance_hosts.map_or("round-robin".to_owned(), |balance| balance.show())),
    ]
}

/// What a pool's clients and servers are doing right now.
#[derive(Debug, Default)]
pub(super) struct PoolLoad {
    pub(super) clients_active: usize,
    pub(super) clients_waiting: usize,
    pub(super) servers_active: usize,
    pub(super) servers_idle: usize,
    pub(super) servers_tested: usize,
    pub(super) servers_being_canceled: usize,
    pub(super) servers_login: usize,
    /// How long the one who waits longest has waited.
    pub(super) max_wait: std::time::Duration,
}

impl PoolLoad {
    pub(super) fn of(shared: &Shared, pool: &Pool) -> Self {
        let mut load = Self::default();
        let now = clock::now();
        for lane in pool.lanes() {
            let counts = lane.counts();
            load.clients_waiting += counts.waiting;
            load.servers_login += counts.connecting;
            if counts.oldest_wait.0 != 0 {
                load.max_wait = load.max_wait.max(now.since(counts.oldest_wait));
            }
        }
        load.clients_active = pool.clients.load(Relaxed).saturating_sub(load.clients_waiting);
        for server in shared.servers.iter() {
            if server.database == pool.database.name && server.user == pool.user.name {
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
        load
    }
}

const SOCKET: &[&str] = &[
    "type",
    "user",
    "database",
    "replication",
    "state",
    "addr",
    "port",
    "local_addr",
    "local_port",
    "connect_time",
    "request_time",
    "wait",
    "wait_us",
    "close_needed",
    "ptr",
    "link",
    "remote_pid",
    "tls",
    "application_name",
    "prepared_statements",
    "id",
];
const SOCKET_TYPES: &str = "ssssssisissiiississii";

fn clients(shared: &Shared) -> Vec<Row> {
    let mut clients: Vec<Arc<ClientInfo>> =
        shared.clients.iter().map(|entry| Arc::clone(entry.value())).collect();
    clients.sort_by_key(|client| client.id);
    clients.iter().map(|client| client_row(shared, client)).collect()
}

fn client_row(shared: &Shared, client: &ClientInfo) -> Row {
    let state = match client.state() {
        ClientState::Idle => "idle",
        ClientState::Waiting => "waiting",
        ClientState::Active => "active",
    };
    let waited = match client.waiting_since.get() {
        Micros(0) => std::time::Duration::ZERO,
        since => clock::now().since(since),
    };
    let (addr, port, pid) = match client.peer {
        Peer::Tcp(address) => (address.ip().to_string(), address.port(), 0),
        Peer::Unix { pid, .. } => ("unix".to_owned(), shared.config.load().settings.listen_port, pid),
    };
    let (local_addr, local_port) = match client.local {
        Some(address) => (address.ip().to_string(), address.port()),
        None => ("unix".to_owned(), shared.config.load().settings.listen_port),
    };
    let link = client.link.load(Relaxed);
    vec![
        text("C"),
        text(&client.user),
        text(&client.database),
        text("none"),
        text(state),
        Some(addr),
        text(port),
        Some(local_addr),
        text(local_port),
        text(clock::local_time(client.connected)),
        text(clock::local_time(client.requested.get())),
        text(waited.as_secs()),
        text(waited.subsec_micros()),
        text(0),
        text(pointer(client.id)),
        Some(if link == 0 { String::new() } else { pointer(link) }),
        text(pid),
        text(""),
        text(&*client.application_name.lock()),
        text(client.prepared.load(Relaxed)),
        text(client.id),
    ]
}

fn servers(shared: &Shared) -> Vec<Row> {
    let mut servers: Vec<Arc<ServerInfo>> =
        shared.servers.iter().map(|entry| Arc::clone(entry.value())).collect();
    servers.sort_by_key(|server| server.id);
    servers.iter().map(|server| server_row(server)).collect()
}

fn server_row(server: &ServerInfo) -> Row {
    let link = server.link.load(Relaxed);
    let local = server.local.get();
    vec![
        text("S"),
        text(&server.user),
        text(&server.database),
        text("none"),
        text(server.state().name()),
        text(if server.target.is_unix() { "unix" } else { &server.target.host }),
        text(server.target.port),
        text(local.map_or("unix".to_owned(), |address| address.ip().to_string())),
        text(local.map_or(server.target.port, |address| address.port())),
        text(clock::local_time(server.connected)),
        text(clock::local_time(server.requested.get())),
        text(0),
        text(0),
        text(u8::from(server.close_needed.get().is_some())),
        text(pointer(server.id)),
        Some(if link == 0 { String::new() } else { pointer(link) }),
        text(server.key.get().map_or(0, |key| key.pid)),
        text(""),
        text(&*server.application_name.lock()),
        text(server.prepared.load(Relaxed)),
        text(server.id),
    ]
}

fn sockets(shared: &Shared, out: &mut Vec<u8>) {
    const BUFFERS: &[&str] =
        &["recv_pos", "pkt_pos", "pkt_remain", "send_pos", "send_remain", "pkt_avail", "send_avail"];
    let names = [SOCKET, BUFFERS].concat();
    let types = format!("{SOCKET_TYPES}iiiiiii");
    let rows = clients(shared).into_iter().chain(servers(shared)).map(|mut row| {
        // Buffers belong to threads here: a connection has none to show.
        row.extend(BUFFERS.iter().map(|_| text(0)));
        row
    });
    table(out, &types, &names, rows);
}

fn pointer(id: u64) -> String {
    format!("{id:#x}")
}

fn hosts(shared: &Shared, out: &mut Vec<u8>) {
    const NAMES: &[&str] =
        &["database", "host", "port", "role", "state", "servers", "reads", "writes", "last_error"];
    let mut rows = Vec::new();
    for database in shared.pools.databases() {
        for host in &database.cluster().hosts {
            rows.push(vec![
                text(&database.name),
                text(&host.name),
                text(host.port),
                text(host.role().name()),
                text(if host.is_reachable() { "up" } else { "down" }),
                text(host.servers.load(Relaxed)),
                text(host.reads.load(Relaxed)),
                text(host.writes.load(Relaxed)),
                host.last_error.lock().clone(),
            ]);
        }
    }
    table(out, "ssissiqqs", NAMES, rows);
}

fn users(shared: &Shared, out: &mut Vec<u8>) {
    const NAMES: &[&str] = &[
        "name",
        "pool_size",
        "reserve_pool_size",
        "pool_mode",
        "max_user_connections",
        "current_connections",
        "max_user_client_connections",
        "current_client_connections",
    ];
    let config = shared.config.load();
    let live: BTreeMap<String, _> =
        shared.pools.users().into_iter().map(|user| (user.name.to_string(), user)).collect();
    let access = shared.access.load();
    let names: BTreeSet<&String> =
        access.accounts.keys().chain(config.users.keys()).chain(live.keys()).collect();
    let rows = names.into_iter().map(|name| {
        let own = config.users.get(name);
        let size = |value: Option<u32>| text(value.map_or(String::new(), |n| n.to_string()));
        let (s, live) = (&config.settings, live.get(name));
        vec![
            text(name),
            size(own.and_then(|u| u.pool_size)),
            size(own.and_then(|u| u.reserve_pool_size)),
            own.and_then(|u| u.pool_mode).map(|mode| mode.show()),
            text(own.and_then(|u| u.max_user_connections).unwrap_or(s.max_user_connections)),
            text(live.map_or(0, |user| user.servers.current())),
            text(own.and_then(|u| u.max_user_client_connections).unwrap_or(s.max_user_client_connections)),
            text(live.map_or(0, |user| user.clients.current())),
        ]
    });
    table(out, "ssssiiii", NAMES, rows);
}

fn lists(shared: &Shared, out: &mut Vec<u8>) {
    let connected: usize = shared.workers.iter().map(|worker| worker.load.load(Relaxed)).sum();
    let clients = shared.clients.len();
    let rows = [
        ("databases", shared.pools.databases().len() + 1),
        ("users", shared.pools.users().len()),
        ("peers", 0),
        ("pools", shared.pools.all().len() + 1),
        ("peer_pools", 0),
        ("free_clients", 0),
        ("used_clients", clients),
        ("login_clients", connected.saturating_sub(clients)),
        ("free_servers", 0),
        ("used_servers", shared.servers.len()),
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ];
    table(out, "si", &["list", "items"], rows.map(|(name, items)| vec![text(name), text(items)]));
}

/// What is allocated in numbers worth mentioning.
fn memory(shared: &Shared) -> Vec<Row> {
    let row = |name: &str, size: usize, used: usize| {
        vec![text(name), text(size), text(used), text(0), text(size * used)]
    };
    vec![
        row(
            "client",
            size_of::<crate::proxy::client::Client>() + size_of::<ClientInfo>(),
            shared.clients.len(),
        ),
        row(
            "server",
            size_of::<crate::proxy::server::Server>() + size_of::<ServerInfo>(),
            shared.servers.len(),
        ),
        row("prepared_statement", size_of::<crate::session::prepared::Statement>(), shared.statements.len()),
    ]
}

fn state(shared: &Shared, out: &mut Vec<u8>) {
    let lifecycle = shared.lifecycle();
    let yes = |is: bool| text(if is { "yes" } else { "no" });
    let rows = [
        vec![text("active"), yes(lifecycle != Lifecycle::Paused)],
        vec![text("paused"), yes(lifecycle == Lifecycle::Paused)],
        vec![text("suspended"), yes(false)],
    ];
    table(out, "ss", &["key", "value"], rows);
}

const STATS: [&str; 12] = [
    "server_assignment_count",
    "xact_count",
    "query_count",
    "received",
    "sent",
    "xact_time",
    "query_time",
    "wait_time",
    "client_parse_count",
    "server_parse_count",
    "bind_count",
    "client_login_count",
];

fn totals_of(t: &Totals) -> [u64; 12] {
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

fn averages_of(a: &Average) -> [u64; 12] {
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

/// One row per database: its name and the numbers that `numbers` takes of it.
fn per_database<const N: usize>(
    shared: &Shared,
    numbers: impl Fn(&Totals, &Average) -> [u64; N],
) -> Vec<Row> {
    let now = clock::now();
    let averages = shared.averages.lock();
    let row = |(name, totals): (Arc<str>, Totals)| {
        let numbers = numbers(&totals, &averages.of(&name, &totals, now));
        [text(name)].into_iter().chain(numbers.map(text)).collect()
    };
    shared.database_totals().into_iter().map(row).collect()
}

fn stats(shared: &Shared, out: &mut Vec<u8>) {
    const NAMES: [&str; 25] = [
        "database",
        "total_server_assignment_count",
        "total_xact_count",
        "total_query_count",
        "total_received",
        "total_sent",
        "total_xact_time",
        "total_query_time",
        "total_wait_time",
        "total_client_parse_count",
        "total_server_parse_count",
        "total_bind_count",
        "total_client_login_count",
        "avg_server_assignment_count",
        "avg_xact_count",
        "avg_query_count",
        "avg_recv",
        "avg_sent",
        "avg_xact_time",
        "avg_query_time",
        "avg_wait_time",
        "avg_client_parse_count",
        "avg_server_parse_count",
        "avg_bind_count",
        "avg_client_login_count",
    ];
    let rows = per_database::<24>(shared, |totals, average| {
        let mut all = [0; 24];
        all[..12].copy_from_slice(&totals_of(totals));
        all[12..].copy_from_slice(&averages_of(average));
        all
    });
    table(out, "sNNNNNNNNNNNNNNNNNNNNNNNN", &NAMES, rows);
}

fn stats_totals(shared: &Shared, out: &mut Vec<u8>) {
    let mut names = vec!["database"];
    names.extend(STATS);
    (names[4], names[5]) = ("bytes_received", "bytes_sent");
    table(out, "sNNNNNNNNNNNN", &names, per_database(shared, |totals, _| totals_of(totals)));
}

fn stats_averages(shared: &Shared, out: &mut Vec<u8>) {
    let mut names = vec!["database"];
    names.extend(STATS);
    (names[4], names[5]) = ("bytes_received", "bytes_sent");
    names.splice(
        9..,
        ["avg_client_parse_count", "avg_server_parse_count", "avg_bind_count", "avg_client_login_count"],
    );
    table(out, "sNNNNNNNNNNNN", &names, per_database(shared, |_, average| averages_of(average)));
}

fn totals(shared: &Shared, out: &mut Vec<u8>) {
    let now = clock::now();
    let averages = shared.averages.lock();
    let (mut sums, mut rates) = ([0; 12], [0; 12]);
    for (name, totals) in shared.database_totals() {
        let average = averages.of(&name, &totals, now);
        sums.iter_mut().zip(totals_of(&totals)).for_each(|(sum, n)| *sum += n);
        rates.iter_mut().zip(averages_of(&average)).for_each(|(sum, n)| *sum += n);
    }
    drop(averages);
    let row = |prefix: &str, name: &str, value: u64| {
        let name = match name {
            "received" => "client_bytes",
            "sent" => "server_bytes",
            other => other,
        };
        vec![text(format!("{prefix}_{name}")), text(value)]
    };
    let totals = STATS.iter().zip(sums).map(|(name, value)| row("total", name, value));
    let averages = STATS.iter().zip(rates).map(|(name, value)| row("avg", name, value));
    table(out, "sN", &["name", "value"], totals.chain(averages));
}
