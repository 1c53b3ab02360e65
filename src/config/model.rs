//! The configuration in force: settings, databases, users.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::error::Problem;
use super::settings::Settings;
use super::value::{Consistency, LoadBalance, PoolMode, Value};
use crate::auth::require::RequireAuth;
use crate::auth::secret::{Cleartext, Secret};

/// A validated configuration.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Global settings.
    pub settings: Settings,
    /// Names of the settings that the source gives.
    pub explicit: BTreeSet<String>,
    /// `[databases]` by name.
    pub databases: BTreeMap<String, DatabaseConfig>,
    /// `*` in `[databases]`: stands for any name not listed.
    pub fallback: Option<DatabaseConfig>,
    /// `[users]` by name.
    pub users: BTreeMap<String, UserConfig>,
    /// `[peers]` by their `peer_id`.
    pub peers: BTreeMap<u16, PeerConfig>,
    /// Users and secrets that the environment gives, besides those in `auth_file`; `None`: it gives no password.
    pub passwords: Vec<(String, Option<Secret>)>,
    /// Where all this comes from.
    pub source: Source,
}

/// Where a configuration comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Variables of the environment.
    #[default]
    Environment,
    /// A file.
    File(PathBuf),
}

/// A configuration that can be used, and what its author should know about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Things accepted, but without the effect they seem to promise.
    pub warnings: Vec<Problem>,
    /// What made it, for people: files, or variables of the environment.
    pub sources: Vec<String>,
}

macro_rules! options {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name { $($(#[$field_meta])* pub $field: Option<$kind>,)* }

        impl $name {
            /// Names of all keys.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($field)),*];

            /// Sets a key; the error says what was expected. `None`: there is no such key.
            pub(super) fn set(&mut self, key: &str, text: &str) -> Option<Result<(), String>> {
                match key {
                    $(stringify!($field) => Some(<$kind as Value>::parse(text).map(|value| self.$field = Some(value))),)*
                    _ => None,
                }
            }
        }
    };
}

options! {
    /// A line of `[databases]`. Keys that are not given are `None`: the global setting holds.
    DatabaseConfig {
        /// Hosts, in order.
        host: Vec<String>,
        /// Their ports: one for all, or one for each.
        port: Vec<u16>,
        /// Their shares of the reads: one for all, or one for each; 0: none.
        weight: Vec<u32>,
        /// Name on the server.
        dbname: String,
        /// User for all server connections of this database.
        user: String,
        /// … and its password.
        password: String,
        /// Overrides the global setting, as do the next two.
        auth_user: String,
        /// …
        auth_dbname: String,
        /// …
        auth_query: String,
        /// Startup parameter for servers.
        client_encoding: String,
        /// Startup parameter for servers.
        datestyle: String,
        /// Startup parameter for servers.
        timezone: String,
        /// Startup parameter for servers.
        application_name: String,
        /// Overrides `default_pool_size`.
        pool_size: u32,
        /// Overrides the global setting, as all that follow.
        min_pool_size: u32,
        /// …
        reserve_pool_size: u32,
        /// …
        max_db_connections: u32,
        /// …
        max_db_client_connections: u32,
        /// …
        server_lifetime: Duration,
        /// …
        query_wait_timeout: Duration,
        /// …
        pool_mode: PoolMode,
        /// What servers may ask for when we log in.
        server_require_auth: RequireAuth,
        /// How several hosts are used.
        load_balance_hosts: LoadBalance,
        /// Run on each new server connection.
        connect_query: String,
        /// Send reads to replicas.
        read_write_split: bool,
        /// What reads on replicas must not miss.
        read_consistency: Consistency,
        /// How far behind a replica may be that serves reads.
        max_replica_lag: Duration,
        /// …
        max_replica_lag_bytes: u64,
        /// How long a replica that has come back is warmed up.
        replica_warm_up: Duration,
    }
}

options! {
    /// A line of `[users]`.
    UserConfig {
        /// Overrides the database's, as `reserve_pool_size` does.
        pool_size: u32,
        /// …
        reserve_pool_size: u32,
        /// …
        pool_mode: PoolMode,
        /// Server connections of this user.
        max_user_connections: u32,
        /// Clients of this user.
        max_user_client_connections: u32,
        /// Overrides the global setting, as all that follow.
        query_timeout: Duration,
        /// …
        query_wait_timeout: Duration,
        /// …
        idle_transaction_timeout: Duration,
        /// …
        transaction_timeout: Duration,
        /// …
        client_idle_timeout: Duration,
    }
}

options! {
    /// A line of `[peers]`: another process that may get the cancel requests for this one's clients.
    PeerConfig {
        /// Where it listens: a name, an address or the directory of a Unix socket.
        host: String,
        /// 6432 unless given.
        port: u16,
        /// How many cancel requests may be on their way to it; `default_pool_size` unless given.
        pool_size: u32,
    }
}

impl PeerConfig {
    /// PgBouncer's port.
    pub const DEFAULT_PORT: u16 = 6432;
}

impl DatabaseConfig {
    /// Its own `server_lifetime`; as in PgBouncer 0 means that it has none.
    pub fn server_lifetime(&self) -> Option<Duration> {
        self.server_lifetime.filter(|lifetime| !lifetime.is_zero())
    }

    /// Hosts and their ports. Without a host the name of the only one is empty: it is the setting `unix_socket_dir`.
    pub fn hosts(&self) -> Vec<(String, u16)> {
        let none = [String::new()];
        let hosts = self.host.as_deref().filter(|hosts| !hosts.is_empty()).unwrap_or(&none);
        let ports = self.port.as_deref().unwrap_or(&[5432]);
        let port = |n: usize| ports.get(n).or(ports.first()).copied().unwrap_or(5432);
        hosts.iter().enumerate().map(|(n, host)| (host.clone(), port(n))).collect()
    }

    /// The password for all server connections of this database. An empty one is none.
    pub fn server_password(&self) -> Option<Cleartext> {
        self.password.as_deref().and_then(Cleartext::new)
    }

    /// The hosts' shares of the reads, compared with each other.
    pub fn weights(&self) -> Vec<u32> {
        let weights = self.weight.as_deref().unwrap_or(&[1]);
        let weight = |n: usize| weights.get(n).or(weights.first()).copied().unwrap_or(1);
        (0..self.hosts().len()).map(weight).collect()
    }
}

impl Config {
    /// Whether the source gives this setting.
    pub fn is_explicit(&self, name: &str) -> bool {
        self.explicit.contains(name)
    }

    /// The database a name stands for, and whether only `*` does.
    pub fn database(&self, name: &str) -> Option<(&DatabaseConfig, bool)> {
        self.databases
            .get(name)
            .map(|found| (found, false))
            .or(self.fallback.as_ref().map(|found| (found, true)))
    }
}
