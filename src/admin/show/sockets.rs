//! SHOW of connections.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::super::rows::Rows;
use super::super::table::{Row, cell, int, text};
use crate::clock::{self, Micros};
use crate::net::listener::Peer;
use crate::proxy::client_handle::{ClientHandle, ClientState};
use crate::proxy::server_handle::{ServerHandle, ServerState};
use crate::proxy::shared::Shared;
use crate::wire::write::Column;

/// Columns of SHOW CLIENTS and SHOW SERVERS.
pub(super) const COLUMNS: &[Column] = WITH_BUFFERS.split_at(21).0;

/// Columns of SHOW SOCKETS: the last seven are PgBouncer's buffers. Here buffers belong to threads, a connection has none
/// to show.
pub(super) const WITH_BUFFERS: &[Column] = &[
    text("type"),
    text("user"),
    text("database"),
    text("replication"),
    text("state"),
    text("addr"),
    int("port"),
    text("local_addr"),
    int("local_port"),
    text("connect_time"),
    text("request_time"),
    int("wait"),
    int("wait_us"),
    int("close_needed"),
    text("ptr"),
    text("link"),
    int("remote_pid"),
    text("tls"),
    text("application_name"),
    int("prepared_statements"),
    int("id"),
    int("recv_pos"),
    int("pkt_pos"),
    int("pkt_remain"),
    int("send_pos"),
    int("send_remain"),
    int("pkt_avail"),
    int("send_avail"),
];

pub(super) fn clients(shared: &Arc<Shared>) -> Rows {
    let (all, shared) = (all_clients(shared), Arc::clone(shared));
    Rows::new(all.into_iter().map(move |client| client_row(&shared, &client, client_state(&client))))
}

pub(super) fn servers(shared: &Arc<Shared>) -> Rows {
    Rows::new(all_servers(shared).into_iter().map(|server| server_row(&server, server.state().name())))
}

pub(super) fn all(shared: &Arc<Shared>) -> Rows {
    sockets(shared, |_| true, |_| true)
}

/// Connections on which something is going on.
pub(super) fn active(shared: &Arc<Shared>) -> Rows {
    sockets(
        shared,
        |client| client.state() != ClientState::Idle,
        |server| server.state() != ServerState::Idle,
    )
}

fn sockets(
    shared: &Arc<Shared>,
    is_meant: impl Fn(&ClientHandle) -> bool + 'static,
    is_server_meant: impl Fn(&ServerHandle) -> bool + 'static,
) -> Rows {
    let client_state = |client: &ClientHandle| match client.state() {
        ClientState::Waiting => "cl_waiting",
        ClientState::Idle | ClientState::Active => "cl_active",
    };
    let server_state = |server: &ServerHandle| match server.state() {
        ServerState::Login => "sv_login",
        ServerState::Idle => "sv_idle",
        ServerState::Active => "sv_active",
        ServerState::Tested => "sv_tested",
        ServerState::BeingCanceled => "sv_being_canceled",
    };
    let clients = all_clients(shared).into_iter().filter(move |client| is_meant(client));
    let servers = all_servers(shared).into_iter().filter(move |server| is_server_meant(server));
    let shared = Arc::clone(shared);
    let clients = clients.map(move |client| client_row(&shared, &client, client_state(&client)));
    let rows = clients.chain(servers.map(move |server| server_row(&server, server_state(&server))));
    let buffers = WITH_BUFFERS.len() - COLUMNS.len();
    Rows::new(rows.map(move |mut row| {
        row.extend((0..buffers).map(|_| cell(0)));
        row
    }))
}

fn all_clients(shared: &Shared) -> Vec<Arc<ClientHandle>> {
    let mut clients: Vec<_> = shared.clients.iter().map(|entry| Arc::clone(entry.value())).collect();
    clients.sort_by_key(|client| client.id);
    clients
}

fn all_servers(shared: &Shared) -> Vec<Arc<ServerHandle>> {
    let mut servers: Vec<_> = shared.servers.iter().map(|entry| Arc::clone(entry.value())).collect();
    servers.sort_by_key(|server| server.id);
    servers
}

/// As in PgBouncer who has no server is not active, whoever asks this question at the console included.
fn client_state(client: &ClientHandle) -> &'static str {
    match client.state() {
        ClientState::Waiting => "waiting",
        ClientState::Active if client.link.load(Relaxed) != 0 => "active",
        ClientState::Idle | ClientState::Active => "idle",
    }
}

fn client_row(shared: &Shared, client: &ClientHandle, state: &str) -> Row {
    let waited = match client.waiting_since.get() {
        Micros(0) => std::time::Duration::ZERO,
        since => clock::now().since(since),
    };
    let (addr, port, pid) = match client.peer {
        Peer::Tcp(address) => (address.ip().to_string(), address.port(), 0),
        Peer::Unix { pid, port, .. } => ("unix".to_owned(), port, pid),
    };
    let (local_addr, local_port) = match client.local {
        Some(address) => (address.ip().to_string(), address.port()),
        None => ("unix".to_owned(), shared.config.load().settings.listen_port),
    };
    vec![
        cell("C"),
        cell(&client.user),
        cell(&client.database),
        cell(client.replication.get().unwrap_or(&"none")),
        cell(state),
        Some(addr),
        cell(port),
        Some(local_addr),
        cell(local_port),
        cell(clock::local_time(client.connected)),
        cell(clock::local_time(client.requested.get())),
        cell(waited.as_secs()),
        cell(waited.subsec_micros()),
        cell(0),
        cell(pointer(client.id)),
        cell(link(client.link.load(Relaxed))),
        cell(pid),
        cell(&client.tls),
        cell(&*client.application_name.lock()),
        cell(client.prepared.load(Relaxed)),
        cell(client.id),
    ]
}

fn server_row(server: &ServerHandle, state: &str) -> Row {
    let local = server.local.get();
    // Until it is reached the name has to do.
    let remote = server.remote.get().map(|address| address.ip().to_string());
    let remote = if server.target.is_unix() {
        "unix".into()
    } else {
        remote.unwrap_or_else(|| server.target.host.clone())
    };
    vec![
        cell("S"),
        cell(&server.user),
        cell(&server.database),
        cell(server.replication.get().unwrap_or(&"none")),
        cell(state),
        cell(remote),
        cell(server.target.port),
        cell(local.map_or("unix".to_owned(), |address| address.ip().to_string())),
        cell(local.map_or(server.target.port, |address| address.port())),
        cell(clock::local_time(server.connected)),
        cell(clock::local_time(server.requested.get())),
        cell(0),
        cell(0),
        cell(u8::from(server.close_needed.get().is_some())),
        cell(pointer(server.id)),
        cell(link(server.link.load(Relaxed))),
        cell(server.key.get().map_or(0, |key| key.pid)),
        cell(server.tls.get().map_or("", |tls| tls)),
        cell(&*server.application_name.lock()),
        cell(server.prepared.load(Relaxed)),
        cell(server.id),
    ]
}

/// PgBouncer shows addresses in its memory; all that matters of them is that `link` is the other's `ptr`.
fn pointer(id: u64) -> String {
    format!("{id:#x}")
}

fn link(id: u64) -> String {
    if id == 0 { String::new() } else { pointer(id) }
}
