//! What holds for a pool, a database, a user and a client, of all that the configuration says. Pure.
//!
//! A user's setting goes before the database's, and that before the global one, as in PgBouncer. This is the one place
//! that says so: whatever uses a setting, or shows the value that is in force, asks here.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::model::{Config, DatabaseConfig, UserConfig};
use super::settings::Settings;
use super::value::{Consistency, PoolMode, names};
use crate::auth::require::RequireAuth;

/// What holds for a pool and the servers in it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the settings are")]
pub struct PoolSettings {
    pub pool_mode: PoolMode,
    /// `default_pool_size` or what overrides it; 0 means any number.
    pub pool_size: usize,
    /// 0 as well if `reserve_pool_timeout` is 0: then the reserve is never used.
    pub reserve_pool_size: usize,
    pub reserve_pool_timeout: Duration,
    pub min_pool_size: usize,
    pub max_prepared_statements: usize,
    pub server_lifetime: Duration,
    pub server_idle_timeout: Duration,
    pub server_connect_timeout: Duration,
    pub server_login_retry: Duration,
    /// `None`: not checked.
    pub server_check_query: Option<String>,
    pub server_check_delay: Duration,
    pub server_require_auth: RequireAuth,
    pub server_reset_query: String,
    pub server_reset_query_always: bool,
    pub server_round_robin: bool,
    pub connect_query: String,
    pub read_write_split: bool,
    pub read_consistency: Consistency,
    pub max_replica_lag: Duration,
    pub max_replica_lag_bytes: u64,
    pub replica_warm_up: Duration,
    pub disable_pqexec: bool,
    pub track_extra_parameters: Vec<String>,
    /// Database name on the server.
    pub dbname: String,
    /// Startup parameters fixed in the database's line: `client_encoding`, `timezone` and so on.
    pub startup_parameters: Vec<(String, String)>,
}

impl PoolSettings {
    /// `name` and `database`: the database as clients call it, and its line. `user`: whom its servers are logged in to as.
    pub fn of(config: &Config, name: &str, database: &DatabaseConfig, user: &str) -> Self {
        let (s, d) = (&config.settings, database);
        let none = UserConfig::default();
        let u = config.users.get(user).unwrap_or(&none);
        let of_database = DatabaseSettings::of(s, d);
        let reserve = u.reserve_pool_size.unwrap_or(of_database.reserve_pool_size);
        let startup = [
            ("client_encoding", &d.client_encoding),
            ("datestyle", &d.datestyle),
            ("timezone", &d.timezone),
            ("application_name", &d.application_name),
        ];
        Self {
            pool_mode: u.pool_mode.unwrap_or(of_database.pool_mode),
            pool_size: u.pool_size.unwrap_or(of_database.pool_size) as usize,
            reserve_pool_size: if s.reserve_pool_timeout.is_zero() { 0 } else { reserve as usize },
            reserve_pool_timeout: s.reserve_pool_timeout,
            min_pool_size: of_database.min_pool_size as usize,
            max_prepared_statements: s.max_prepared_statements as usize,
            server_lifetime: of_database.server_lifetime,
            server_idle_timeout: s.server_idle_timeout,
            server_connect_timeout: s.server_connect_timeout,
            server_login_retry: s.server_login_retry,
            server_check_query: match s.server_check_query.as_str() {
                "" => None,
                "<empty>" => Some(String::new()),
                query => Some(query.to_owned()),
            },
            server_check_delay: s.server_check_delay,
            server_require_auth: d.server_require_auth.unwrap_or(s.server_require_auth),
            server_reset_query: s.server_reset_query.clone(),
            server_reset_query_always: s.server_reset_query_always,
            server_round_robin: s.server_round_robin,
            connect_query: d.connect_query.clone().unwrap_or_default(),
            read_write_split: of_database.read_write_split,
            read_consistency: d.read_consistency.unwrap_or(s.read_consistency),
            max_replica_lag: d.max_replica_lag.unwrap_or(s.max_replica_lag),
            max_replica_lag_bytes: d.max_replica_lag_bytes.unwrap_or(s.max_replica_lag_bytes),
            replica_warm_up: of_database.replica_warm_up,
            disable_pqexec: s.disable_pqexec,
            track_extra_parameters: s.track_extra_parameters.clone(),
            dbname: d.dbname.clone().unwrap_or_else(|| name.to_owned()),
            startup_parameters: startup
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
                .collect(),
        }
    }
}

/// What holds for a database, and for each of its pools unless the user's line says something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the settings are")]
pub struct DatabaseSettings {
    pub pool_mode: PoolMode,
    pub pool_size: u32,
    pub min_pool_size: u32,
    pub reserve_pool_size: u32,
    pub max_db_connections: u32,
    pub max_db_client_connections: u32,
    pub server_lifetime: Duration,
    pub read_write_split: bool,
    pub replica_warm_up: Duration,
}

impl DatabaseSettings {
    /// From the global settings and the database's line.
    pub fn of(settings: &Settings, database: &DatabaseConfig) -> Self {
        let (s, d) = (settings, database);
        Self {
            pool_mode: d.pool_mode.unwrap_or(s.pool_mode),
            pool_size: d.pool_size.unwrap_or(s.default_pool_size),
            min_pool_size: d.min_pool_size.unwrap_or(s.min_pool_size),
            reserve_pool_size: d.reserve_pool_size.unwrap_or(s.reserve_pool_size),
            max_db_connections: d.max_db_connections.unwrap_or(s.max_db_connections),
            max_db_client_connections: d.max_db_client_connections.unwrap_or(s.max_db_client_connections),
            server_lifetime: d.server_lifetime().unwrap_or(s.server_lifetime),
            read_write_split: d.read_write_split.unwrap_or(s.read_write_split),
            replica_warm_up: d.replica_warm_up.unwrap_or(s.replica_warm_up),
        }
    }
}

/// How many connections a user may have in all pools together; 0 means any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the settings are")]
pub struct UserLimits {
    pub max_user_connections: u32,
    pub max_user_client_connections: u32,
}

impl UserLimits {
    /// From the global settings and the user's line, if there is one.
    pub fn of(config: &Config, user: &str) -> Self {
        let (s, own) = (&config.settings, config.users.get(user));
        Self {
            max_user_connections: own.and_then(|u| u.max_user_connections).unwrap_or(s.max_user_connections),
            max_user_client_connections: own
                .and_then(|u| u.max_user_client_connections)
                .unwrap_or(s.max_user_client_connections),
        }
    }
}

/// How long a client may take for what. Zero means any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the settings are")]
pub struct Timeouts {
    pub query_timeout: Duration,
    pub query_wait_timeout: Duration,
    pub query_wait_notify: Duration,
    pub idle_transaction_timeout: Duration,
    pub transaction_timeout: Duration,
    pub client_idle_timeout: Duration,
    /// See [`Timeouts::apply_outside_queue`].
    outside_queue: bool,
}

impl Timeouts {
    /// `client`: the user that the client has logged in as. `pool_user`: the user that the pooler logs in to servers as, another
    /// one if the database's line names it; then only those timeouts are the client's own that end it while it has no server.
    pub fn of(config: &Config, database: &DatabaseConfig, pool_user: &str, client: &str) -> Self {
        let s = &config.settings;
        let none = UserConfig::default();
        let line = |user: &str| config.users.get(user).unwrap_or(&none);
        let (pool_user, client) = (line(pool_user), line(client));
        let query_timeout = pool_user.query_timeout.unwrap_or(s.query_timeout);
        let idle_transaction_timeout =
            pool_user.idle_transaction_timeout.unwrap_or(s.idle_transaction_timeout);
        let transaction_timeout = pool_user.transaction_timeout.unwrap_or(s.transaction_timeout);
        let client_idle_timeout = client.client_idle_timeout.unwrap_or(s.client_idle_timeout);
        let of_database = database.query_wait_timeout.unwrap_or(s.query_wait_timeout);
        Self {
            query_timeout,
            query_wait_timeout: client.query_wait_timeout.unwrap_or(of_database),
            query_wait_notify: s.query_wait_notify,
            idle_transaction_timeout,
            transaction_timeout,
            client_idle_timeout,
            outside_queue: [
                query_timeout,
                idle_transaction_timeout,
                transaction_timeout,
                client_idle_timeout,
            ]
            .iter()
            .any(|timeout| !timeout.is_zero()),
        }
    }

    /// Whether one is set that a client can exceed while it is not in the queue for a server. If not, it has no deadline then.
    #[inline]
    pub fn apply_outside_queue(&self) -> bool {
        self.outside_queue
    }
}

/// What a user may do at the console.
impl Settings {
    /// Everything.
    pub fn is_admin(&self, user: &str) -> bool {
        names(&self.admin_users, user)
    }

    /// Look at everything.
    pub fn is_stats_user(&self, user: &str) -> bool {
        names(&self.stats_users, user)
    }
}
