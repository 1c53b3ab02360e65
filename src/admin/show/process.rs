//! SHOW of the process itself: its version, settings, state, and what there is how many of.

use std::sync::atomic::Ordering::Relaxed;

use super::super::table::{Row, bigint, cell, int, text};
use super::pools::{by_name, user_names};
use crate::config::settings::{self, Change, Settings};
use crate::net::resolve::Known;
use crate::proxy::client::Client;
use crate::proxy::info::{ClientInfo, ServerInfo};
use crate::proxy::pools::{Database, Pool, User};
use crate::proxy::server::Server;
use crate::proxy::shared::{Lifecycle, Shared};
use crate::session::prepared::Statement;
use crate::wire::write::Column;

pub(super) fn version(_: &Shared) -> Vec<Row> {
    vec![vec![cell(super::VERSION)]]
}

pub(super) const CONFIG: &[Column] = &[text("key"), text("value"), text("default"), text("changeable")];

pub(super) fn config(shared: &Shared) -> Vec<Row> {
    let config = shared.config.load();
    let defaults = Settings::default();
    let row = |info: &settings::SettingInfo| {
        let changeable = if info.change == Change::Reload { "yes" } else { "no" };
        vec![cell(info.name), config.settings.show(info.name), defaults.show(info.name), cell(changeable)]
    };
    settings::TABLE.iter().map(row).collect()
}

pub(super) fn state(shared: &Shared) -> Vec<Row> {
    let lifecycle = shared.lifecycle();
    let (paused, suspended) = (lifecycle == Lifecycle::Paused, lifecycle == Lifecycle::Suspended);
    let row = |key: &str, is: bool| vec![cell(key), cell(if is { "yes" } else { "no" })];
    vec![row("active", !paused && !suspended), row("paused", paused), row("suspended", suspended)]
}

pub(super) const DNS_HOSTS: &[Column] = &[text("hostname"), bigint("ttl"), text("addrs")];

pub(super) fn dns_hosts(shared: &Shared) -> Vec<Row> {
    let row = |known: Known| {
        let addresses: Vec<String> = known.addresses.iter().map(ToString::to_string).collect();
        vec![cell(known.name), cell(known.ttl.as_secs()), cell(addresses.join(","))]
    };
    shared.resolver.snapshot().into_iter().map(row).collect()
}

pub(super) fn lists(shared: &Shared) -> Vec<Row> {
    let connected: usize = shared.workers.iter().map(|worker| worker.load.load(Relaxed)).sum();
    let clients = shared.clients.len();
    let row = |name: &str, items: usize| vec![cell(name), cell(items)];
    vec![
        // The console's own are among them.
        row("databases", shared.pools.databases().len() + 1),
        row("users", user_names(shared).len()),
        row("peers", shared.peers.load().len()),
        row("pools", by_name(shared).len() + 1),
        row("peer_pools", shared.peers.load().len()),
        row("free_clients", 0),
        row("used_clients", clients),
        row("login_clients", connected.saturating_sub(clients)),
        row("free_servers", 0),
        row("used_servers", shared.servers.len()),
        row("dns_names", shared.resolver.snapshot().len()),
        row("dns_zones", 0),
        row("dns_queries", 0),
        row("dns_pending", 0),
    ]
}

pub(super) const MEM: &[Column] = &[text("name"), int("size"), int("used"), int("free"), int("memtotal")];

/// What is allocated in numbers worth mentioning, under PgBouncer's names where it has the same.
pub(super) fn mem(shared: &Shared) -> Vec<Row> {
    let row = |name: &str, size: usize, used: usize| {
        vec![cell(name), cell(size), cell(used), cell(0), cell(size * used)]
    };
    vec![
        row("user_cache", size_of::<User>(), shared.pools.users().len()),
        row("db_cache", size_of::<Database>(), shared.pools.databases().len()),
        row("pool_cache", size_of::<Pool>(), shared.pools.all().len()),
        row("server_cache", size_of::<Server>() + size_of::<ServerInfo>(), shared.servers.len()),
        row("client_cache", size_of::<Client>() + size_of::<ClientInfo>(), shared.clients.len()),
        row("server_prepared_statement_cache", size_of::<Statement>(), shared.statements.len()),
    ]
}
