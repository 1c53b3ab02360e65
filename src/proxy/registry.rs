//! Databases, users and pools by name. Each is made by what the configuration says when it is asked for the first time.

use std::sync::Arc;

use super::credentials::{credential, of_secret};
use super::pools::{Database, Pool, User};
use super::shared::Shared;
use crate::config::effective::{DatabaseSettings, UserLimits};
use crate::config::{Config, DatabaseConfig, LoadBalance, PoolSettings};
use crate::route::cluster::{Balance, Cluster};
use crate::route::host::Host;

/// A database by the name a client gave; made if only `*` covers it.
pub fn database(shared: &Shared, name: &str) -> Option<Arc<Database>> {
    if let Some(found) = shared.pools.database(name) {
        return Some(found);
    }
    let config = shared.config.load_full();
    let (database, auto) = config.database(name)?;
    tracing::info!("registered new auto-database: {name}");
    Some(add_database(shared, &config, name, database, auto))
}

/// A user by name, limits included.
pub fn user(shared: &Shared, name: &str) -> Arc<User> {
    let user = shared.pools.user(name);
    set_user_limits(&shared.config.load(), &user);
    user
}

/// The pool for a database and a user's clients. All of them share one if the database's line names the user for its
/// servers.
pub fn pool(shared: &Shared, database: &Arc<Database>, client: &Arc<User>) -> Arc<Pool> {
    let config = shared.config.load_full();
    let forced = database.config.load().user.as_deref().map(|name| user(shared, name));
    let user = forced.as_ref().unwrap_or(client);
    shared.pools.pool(shared.workers.len(), database, user, || {
        (pool_settings(&config, database, user), credential(shared, database, user))
    })
}

/// The pool for the lookups of a database's users (`auth_query`), which no client gets.
pub fn auth_pool(shared: &Shared, database: &Arc<Database>, auth_user: &str) -> Arc<Pool> {
    let config = shared.config.load_full();
    let user = user(shared, auth_user);
    shared.pools.auth_pool(shared.workers.len(), database, &user, || {
        let account = shared.access.load().accounts.get(auth_user).cloned();
        let credential = of_secret(account.as_ref().and_then(|account| account.secret.as_ref()));
        (pool_settings(&config, database, &user), credential)
    })
}

/// Adds a database that the configuration has.
pub fn add_database(
    shared: &Shared,
    config: &Config,
    name: &str,
    database: &DatabaseConfig,
    auto: bool,
) -> Arc<Database> {
    let new = Database::new(name, database.clone(), cluster(config, database), auto);
    let added = shared.pools.add_database(new);
    set_database_limits(config, &added, database);
    added
}

/// What holds for the pool of a database and a user for servers.
pub fn pool_settings(config: &Config, database: &Database, user: &User) -> PoolSettings {
    PoolSettings::of(config, &database.name, &database.config.load(), &user.name)
}

/// The hosts that a database's line names.
pub fn cluster(config: &Config, database: &DatabaseConfig) -> Cluster {
    let balance = match database.load_balance_hosts {
        Some(LoadBalance::Disable) => Balance::Disable,
        Some(LoadBalance::RoundRobin) | None => Balance::RoundRobin,
    };
    let hosts = database.hosts().into_iter();
    // As in PgBouncer: servers that are not named listen where clients find the pooler.
    let here = |name: String| if name.is_empty() { config.settings.unix_socket_dir.clone() } else { name };
    let hosts = hosts.map(|(name, port)| Host::new(here(name), port)).collect();
    let split = DatabaseSettings::of(&config.settings, database).read_write_split;
    Cluster::new(hosts, split, balance)
}

/// Puts the limits in force that the configuration has for a database.
pub fn set_database_limits(config: &Config, database: &Database, current: &DatabaseConfig) {
    let settings = DatabaseSettings::of(&config.settings, current);
    database.servers.set_max(settings.max_db_connections as usize);
    database.clients.set_max(settings.max_db_client_connections as usize);
}

/// … and for a user.
pub fn set_user_limits(config: &Config, user: &User) {
    let limits = UserLimits::of(config, &user.name);
    user.servers.set_max(limits.max_user_connections as usize);
    user.clients.set_max(limits.max_user_client_connections as usize);
}
