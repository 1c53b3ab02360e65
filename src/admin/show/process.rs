//! SHOW of the process itself: its version, settings, state, and what there is how many of.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;

use super::super::table::{Row, bigint, cell, int, text};
use super::pools::{by_name, user_names};
use crate::auth::ldap;
use crate::config::mask;
use crate::config::settings::{self, Change, Settings};
use crate::net::resolve::Known;
use crate::proxy::client::Client;
use crate::proxy::client_handle::ClientHandle;
use crate::proxy::pools::{Database, Pool, User};
use crate::proxy::server::Server;
use crate::proxy::server_handle::ServerHandle;
use crate::proxy::shared::{Lifecycle, Shared};
use crate::session::prepared::Statement;
use crate::wire::write::Column;

/// What `SHOW VERSION` and `--version` say.
pub const VERSION: &str = concat!("pgweir ", env!("CARGO_PKG_VERSION"));

pub(super) fn version(_: &Shared) -> Vec<Row> {
    vec![vec![cell(VERSION)]]
}

pub(super) const CONFIG: &[Column] = &[text("key"), text("value"), text("default"), text("changeable")];

pub(super) fn config(shared: &Shared) -> Vec<Row> {
    let defaults = Settings::default();
    let row = |info: &settings::SettingInfo| {
        let changeable = if info.change == Change::Reload { "yes" } else { "no" };
        let is_null = NULL_BY_DEFAULT.contains(&info.name);
        let value = setting(shared, info).filter(|value| !is_null || !value.is_empty());
        let default = defaults.show(info.name).filter(|_| !is_null);
        vec![cell(info.name), value, default, cell(changeable)]
    };
    settings::TABLE.iter().map(row).collect()
}

/// The value of a setting, but for what is secret in it.
pub(in crate::admin) fn setting(shared: &Shared, info: &settings::SettingInfo) -> Option<String> {
    let value = shared.config.load().settings.show(info.name)?;
    Some(if mask::has_nothing_to_hide(info.name) { value } else { ldap::without_secrets(&value) })
}

/// Settings whose default is NULL in PgBouncer, not an empty text.
const NULL_BY_DEFAULT: &[&str] = &[
    "auth_dbname",
    "auth_file",
    "auth_ident_file",
    "auth_ldap_options",
    "auth_user",
    "client_tls13_ciphers",
    "conffile",
    "server_tls13_ciphers",
    "service_name",
    "user",
    "verbose",
];

pub(super) fn state(shared: &Shared) -> Vec<Row> {
    let lifecycle = shared.lifecycle();
    let (paused, suspended) = (lifecycle == Lifecycle::Paused, lifecycle == Lifecycle::Suspended);
    let row = |key: &str, is: bool| vec![cell(key), cell(if is { "yes" } else { "no" })];
    vec![row("active", !paused && !suspended), row("paused", paused), row("suspended", suspended)]
}

pub(super) const DNS_HOSTS: &[Column] = &[text("hostname"), bigint("ttl"), text("addrs")];

pub(super) fn dns_hosts(shared: &Shared) -> Vec<Row> {
    let row = |known: Known| {
        // With a port, as in PgBouncer; a name has none.
        let with_port = |address: &IpAddr| SocketAddr::new(*address, 0).to_string();
        let addresses: Vec<String> = known.addresses.iter().map(with_port).collect();
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
        row("server_cache", size_of::<Server>() + size_of::<ServerHandle>(), shared.servers.len()),
        row("client_cache", size_of::<Client>() + size_of::<ClientHandle>(), shared.clients.len()),
        row("server_prepared_statement_cache", size_of::<Statement>(), shared.statements.len()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Access, Config};

    #[test]
    fn what_has_no_default_is_null_until_it_is_set() {
        let mut settings = Config::default();
        settings.settings.auth_user = "lookup".into();
        settings.settings.auth_ldap_options = "ldapserver=h ldapbindpasswd=geheim ldaptls=1".into();
        let rows = config(&Shared::new(settings, Access::default(), Vec::new()));
        let row = |name: &str| {
            let found = rows.iter().find(|row| row[0].as_deref() == Some(name)).unwrap();
            (found[1].clone(), found[2].clone())
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(row("auth_user"), (text("lookup"), None));
        assert_eq!(row("auth_ldap_options"), (text("ldapserver=h ldapbindpasswd=***"), None));
        assert_eq!(row("auth_file"), (None, None));
        assert_eq!(row("verbose"), (text("0"), None));
        assert_eq!(row("pidfile"), (text(""), text("")));
        NULL_BY_DEFAULT.iter().for_each(|name| assert_eq!(row(name).1, None));
    }
}
