//! What the configuration means for databases, users and pools; and how a changed one takes effect while all of them
//! are in use.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::peers;
use super::pools::{Database, Pool, PoolSettings, User};
use super::shared::Shared;
use crate::auth::exchange::{Account, Learned};
use crate::auth::secret::Secret;
use crate::auth::server_login::{Credential, Password};
use crate::config::settings::{self, Change};
use crate::config::value::names;
use crate::config::{Access, Config, ConfigError, DatabaseConfig, LoadBalance, UserConfig};
use crate::error::{Refusal, sqlstate};
use crate::net::resolve::Ttl;
use crate::net::tls::TlsError;
use crate::pool::Sizes;
use crate::route::cluster::{Balance, Cluster, ReplicaRules};
use crate::route::host::Host;
use crate::session::forward::MaxPacket;

/// Puts a configuration in force. Databases that are no longer there lose their clients; servers that were opened with
/// other parameters are closed as soon as nobody uses them.
/// The error: TLS as configured cannot be had, and that of before goes on; everything else is in force.
pub fn apply(shared: &Arc<Shared>, config: Config, access: Option<Access>) -> Result<(), TlsError> {
    let config = Arc::new(config);
    shared.config.store(Arc::clone(&config));
    if let Some(access) = access {
        shared.access.store(Arc::new(access));
    }
    shared.lookups.clear();
    let (found, failed) = (config.settings.dns_max_ttl, config.settings.dns_nxdomain_ttl);
    shared.resolver.set_ttl(Ttl { found, failed });
    shared.client_limit.set_max(config.settings.max_client_conn as usize);
    shared.console.clients.set_max(config.settings.max_db_client_connections as usize);
    for database in shared.pools.databases() {
        match config.database(&database.name) {
            Some((current, auto)) => {
                database.auto.store(auto, Relaxed);
                update_database(shared, &config, &database, current);
            }
            None => remove_database(shared, &database),
        }
    }
    for (name, database) in &config.databases {
        if shared.pools.database(name).is_none() {
            add_database(shared, &config, name, database, false);
        }
    }
    peers::follow(shared, &config);
    for user in shared.pools.users() {
        set_user_limits(&config, &user);
    }
    for pool in shared.pools.all() {
        update_pool(shared, &config, &pool);
    }
    // Timeouts hold for those who are here already.
    shared.clients.iter().for_each(|client| client.wake());
    refresh_tls(shared, &config)
}

/// Puts TLS as configured in force, and closes connections to servers that were opened in another way as soon as nobody
/// uses them. The error has been logged.
pub fn refresh_tls(shared: &Arc<Shared>, config: &Config) -> Result<(), TlsError> {
    let changed = shared.tls.refresh(&config.settings).inspect_err(|error| {
        tracing::error!("TLS setup failed: {error}");
    })?;
    if changed {
        for database in shared.pools.databases() {
            close_servers(shared, &database.name, HOSTS_CHANGED);
        }
    }
    Ok(())
}

fn add_database(
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

/// Why connections are closed that were opened by another configuration.
pub const HOSTS_CHANGED: &str = "database configuration changed";

fn update_database(
    shared: &Arc<Shared>,
    config: &Config,
    database: &Arc<Database>,
    current: &DatabaseConfig,
) {
    set_database_limits(config, database, current);
    let before = database.config.load_full();
    let split = splits(config, current);
    let hosts = |d: &DatabaseConfig| (d.hosts(), d.load_balance_hosts);
    let old = database.cluster();
    if hosts(&before) != hosts(current) || old.split != split {
        database.set_cluster(cluster(config, current), current.weights());
        // Nobody watches the old hosts any more.
        renew_servers(shared, &database.name, HOSTS_CHANGED);
    } else {
        database.hosts.set_weights(current.weights());
    }
    if *before != *current {
        database.config.store(Arc::new(current.clone()));
        // It may be another database by now.
        database.catalogs.forget();
        let login = |d: &DatabaseConfig| {
            let d = d.clone();
            let parameters =
                (d.client_encoding, d.datestyle, d.timezone, d.application_name, d.connect_query);
            (d.host, d.port, d.dbname, d.user, d.password, parameters)
        };
        if login(&before) != login(current) {
            tracing::info!("database {} has changed, its server connections are obsolete", database.name);
            renew_servers(shared, &database.name, HOSTS_CHANGED);
        }
    }
}

fn remove_database(shared: &Arc<Shared>, database: &Arc<Database>) {
    tracing::info!("database {} is gone", database.name);
    let reason = || Refusal::new(sqlstate::ADMIN_SHUTDOWN, "database removed");
    let clients = shared.clients.iter().filter(|client| !client.admin && client.database == database.name);
    clients.for_each(|client| client.kill(reason()));
    close_servers(shared, &database.name, "database removed");
    for pool in shared.pools.remove_database(&database.name) {
        for (_, lane) in pool.lanes() {
            lane.refuse_all(&reason());
            lane.take_idle(|_| true).into_iter().for_each(|server| server.close("database removed"));
        }
    }
}

fn update_pool(shared: &Arc<Shared>, config: &Config, pool: &Arc<Pool>) {
    let settings = pool_settings(config, &pool.database, &pool.user);
    pool.set_settings(settings);
    let learned = matches!(pool.credential(), Credential::Keys(_));
    let current = credential(shared, &pool.database, &pool.user);
    // What a login has taught us is kept as long as nothing better is known.
    let keeps =
        matches!(current, Credential::None) || (learned && matches!(current, Credential::VerifierOnly));
    if !keeps {
        pool.set_credential(current);
    }
    for (_, lane) in pool.lanes() {
        lane.retry_now();
    }
}

/// Has each server connection of a database closed as soon as nobody uses it: idle ones now.
pub fn close_servers(shared: &Arc<Shared>, database: &str, reason: &'static str) {
    for server in shared.servers.iter().filter(|server| &*server.database == database) {
        let _ = server.close_needed.set(reason);
    }
    for pool in shared.pools.all().into_iter().filter(|pool| &*pool.database.name == database) {
        for (_, lane) in pool.lanes() {
            let idle = lane.take_idle(|server| server.info.close_needed.get().is_some());
            idle.into_iter().for_each(|server| server.close(reason));
        }
    }
}

/// The same, because what servers have said so far, and were told, may not hold any more: new ones are asked again.
pub fn renew_servers(shared: &Arc<Shared>, database: &str, reason: &'static str) {
    let pools = shared.pools.all().into_iter().filter(|pool| &*pool.database.name == database);
    // First, so that a connection that is being opened is either found below or finds this.
    pools.for_each(|pool| pool.begin_generation());
    close_servers(shared, database, reason);
}

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

fn splits(config: &Config, database: &DatabaseConfig) -> bool {
    database.read_write_split.unwrap_or(config.settings.read_write_split)
}

fn cluster(config: &Config, database: &DatabaseConfig) -> Cluster {
    let balance = match database.load_balance_hosts {
        Some(LoadBalance::Disable) => Balance::Disable,
        Some(LoadBalance::RoundRobin) | None => Balance::RoundRobin,
    };
    let hosts = database.hosts().into_iter();
    // As in PgBouncer: servers that are not named listen where clients find the pooler.
    let here = |name: String| if name.is_empty() { config.settings.unix_socket_dir.clone() } else { name };
    let hosts = hosts.map(|(name, port)| Host::new(here(name), port)).collect();
    Cluster::new(hosts, splits(config, database), balance)
}

/// What the replicas of a database must be like to serve reads.
pub fn replica_rules(config: &Config, database: &DatabaseConfig) -> ReplicaRules {
    let s = &config.settings;
    ReplicaRules {
        lag: database.max_replica_lag.unwrap_or(s.max_replica_lag),
        lag_bytes: database.max_replica_lag_bytes.unwrap_or(s.max_replica_lag_bytes),
        warm_up: database.replica_warm_up.unwrap_or(s.replica_warm_up),
    }
}

fn set_database_limits(config: &Config, database: &Database, current: &DatabaseConfig) {
    let settings = &config.settings;
    database.servers.set_max(current.max_db_connections.unwrap_or(settings.max_db_connections) as usize);
    database
        .clients
        .set_max(current.max_db_client_connections.unwrap_or(settings.max_db_client_connections) as usize);
}

fn set_user_limits(config: &Config, user: &User) {
    let own = config.users.get(&*user.name);
    let settings = &config.settings;
    let limit = |value: Option<u32>, default: u32| value.unwrap_or(default) as usize;
    user.servers.set_max(limit(own.and_then(|u| u.max_user_connections), settings.max_user_connections));
    user.clients.set_max(limit(
        own.and_then(|u| u.max_user_client_connections),
        settings.max_user_client_connections,
    ));
}

/// What governs a pool: the user's settings before the database's before the global ones, as in PgBouncer.
fn pool_settings(config: &Config, database: &Database, user: &User) -> PoolSettings {
    let s = &config.settings;
    let d = database.config.load_full();
    let nobody = UserConfig::default();
    let u = config.users.get(&*user.name).unwrap_or(&nobody);
    let reserve = u.reserve_pool_size.or(d.reserve_pool_size).unwrap_or(s.reserve_pool_size) as usize;
    let startup = [
        ("client_encoding", &d.client_encoding),
        ("datestyle", &d.datestyle),
        ("timezone", &d.timezone),
        ("application_name", &d.application_name),
    ];
    let mut settings = PoolSettings {
        version: 0,
        has_timeouts: false,
        pool_mode: u.pool_mode.or(d.pool_mode).unwrap_or(s.pool_mode),
        sizes: Sizes {
            pool: u.pool_size.or(d.pool_size).unwrap_or(s.default_pool_size) as usize,
            // Without a timeout the reserve is never tapped.
            reserve: if s.reserve_pool_timeout.is_zero() { 0 } else { reserve },
            reserve_timeout: s.reserve_pool_timeout,
        },
        min_pool_size: d.min_pool_size.unwrap_or(s.min_pool_size) as usize,
        max_prepared_statements: s.max_prepared_statements as usize,
        max_packet: MaxPacket::of(s.max_packet_size),
        server_lifetime: d.server_lifetime().unwrap_or(s.server_lifetime),
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
        connect_query: d.connect_query.clone().unwrap_or_default(),
        read_write_split: splits(config, &d),
        read_consistency: d.read_consistency.unwrap_or(s.read_consistency),
        replica_rules: replica_rules(config, &d),
        disable_pqexec: s.disable_pqexec,
        server_round_robin: s.server_round_robin,
        query_timeout: u.query_timeout.unwrap_or(s.query_timeout),
        query_wait_timeout: u.query_wait_timeout.or(d.query_wait_timeout).unwrap_or(s.query_wait_timeout),
        query_wait_notify: s.query_wait_notify,
        idle_transaction_timeout: u.idle_transaction_timeout.unwrap_or(s.idle_transaction_timeout),
        transaction_timeout: u.transaction_timeout.unwrap_or(s.transaction_timeout),
        client_idle_timeout: u.client_idle_timeout.unwrap_or(s.client_idle_timeout),
        track_extra_parameters: s.track_extra_parameters.clone(),
        dbname: d.dbname.clone().unwrap_or_else(|| database.name.to_string()),
        startup_parameters: startup
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
            .collect(),
    };
    settings.has_timeouts = has_timeouts(&settings);
    settings
}

/// What governs a pool for one of its clients. Where the database's line names the user for servers, the timeouts of
/// clients are still those of the user who has logged in.
pub fn for_client(shared: &Shared, pool: &Pool, user: &str) -> Arc<PoolSettings> {
    let settings = pool.settings.load_full();
    if *user == *pool.user.name {
        return settings;
    }
    let config = shared.config.load();
    let (s, d) = (&config.settings, pool.database.config.load());
    let own = config.users.get(user);
    let client_idle_timeout = own.and_then(|u| u.client_idle_timeout).unwrap_or(s.client_idle_timeout);
    let query_wait_timeout = own.and_then(|u| u.query_wait_timeout).or(d.query_wait_timeout);
    let query_wait_timeout = query_wait_timeout.unwrap_or(s.query_wait_timeout);
    if (client_idle_timeout, query_wait_timeout)
        == (settings.client_idle_timeout, settings.query_wait_timeout)
    {
        return settings;
    }
    let mut settings = PoolSettings { client_idle_timeout, query_wait_timeout, ..(*settings).clone() };
    settings.has_timeouts = has_timeouts(&settings);
    Arc::new(settings)
}

fn has_timeouts(s: &PoolSettings) -> bool {
    [s.query_timeout, s.idle_transaction_timeout, s.transaction_timeout, s.client_idle_timeout]
        .iter()
        .any(|timeout| !timeout.is_zero())
}

/// What a pool logs in to servers with.
fn credential(shared: &Shared, database: &Database, user: &User) -> Credential {
    let config = database.config.load();
    if let Some(text) = config.server_password() {
        return Credential::Password(Password::new(text));
    }
    of_secret(shared.access.load().accounts.get(&*user.name).and_then(|account| account.secret.as_ref()))
}

fn of_secret(secret: Option<&Secret>) -> Credential {
    match secret {
        Some(Secret::Plain(text)) => Credential::Password(Password::new(text.clone())),
        Some(Secret::Md5(hash)) => Credential::Md5(hash.clone()),
        Some(Secret::Scram(_)) => Credential::VerifierOnly,
        None => Credential::None,
    }
}

/// A login may have shown what servers let this user in with: by what `auth_query` has found for the user, or by what the
/// client has proved.
pub fn learn_credential(pool: &Pool, found: Option<&Account>, learned: Learned) {
    let database = pool.database.config.load();
    if database.user.is_some() || database.server_password().is_some() {
        return;
    }
    let known = pool.credential();
    let stored = found.map_or_else(|| known.clone(), |account| of_secret(account.secret.as_ref()));
    let best = match (stored, learned) {
        (Credential::Password(password), _) => Credential::Password(password),
        (_, Learned::Password(text)) => Credential::Password(Password::new(text)),
        // Keys are good for the salt they were made with: that of a stored verifier, not of one made up here.
        (Credential::VerifierOnly | Credential::Keys(_), Learned::Keys(keys)) => Credential::Keys(keys),
        (stored, _) => stored,
    };
    if best != known {
        pool.set_credential(best);
    }
}

/// A client has come from another process with what servers let its user in with. It is used where nothing better is known.
pub fn inherit_credential(pool: &Pool, inherited: Credential) {
    let database = pool.database.config.load();
    if database.user.is_some() || database.server_password().is_some() {
        return;
    }
    if matches!(pool.credential(), Credential::None | Credential::VerifierOnly)
        && inherited != Credential::None
    {
        pool.set_credential(inherited);
    }
}

/// Whether somebody may do everything at the console.
pub fn is_admin(config: &Config, user: &str) -> bool {
    names(&config.settings.admin_users, user)
}

/// Whether somebody may look around at the console.
pub fn is_stats_user(config: &Config, user: &str) -> bool {
    names(&config.settings.stats_users, user)
}

/// `SET key = value` at the console; says whether everything is in force, which TLS may not be. The error is for the user
/// to read.
pub fn change(shared: &Arc<Shared>, key: &str, value: &str) -> Result<bool, Refusal> {
    let refuse = |message: String| Refusal::new(sqlstate::INVALID_PARAMETER, message);
    let Some(info) = settings::info(key) else {
        let refusal = refuse(format!("unknown setting {key}"));
        let near = settings::nearest(key, settings::TABLE.iter().map(|info| info.name));
        return Err(match near {
            Some(near) => refusal.hint(format!("Did you mean {near}?")),
            None => refusal.hint("SHOW CONFIG lists the settings."),
        });
    };
    if info.change == Change::Restart {
        return Err(refuse(format!("{key} cannot be changed while running"))
            .hint("Change the configuration file and restart."));
    }
    let mut config = Config::clone(&shared.config.load());
    if let Some(Err(expected)) = config.settings.set(key, value) {
        return Err(refuse(format!("invalid value \"{value}\" for {key}: {expected}")));
    }
    // What the settings about logins name is read again, so that a change shows at once, and for all users alike.
    let access = match key.starts_with("auth_") || key == "scram_iterations" {
        false => None,
        true => {
            let access = read_access(&config, Some(&shared.access.load()));
            Some(access.map_err(|error| refuse(error.to_string()))?)
        }
    };
    // The value stays, as it may need another one to be of use: the certificate for a new key.
    Ok(apply(shared, config, access).is_ok())
}

/// Reads what the settings about logins name; what is wrong with it but not fatal goes to the log.
pub fn read_access(config: &Config, current: Option<&Access>) -> Result<Access, ConfigError> {
    let (access, warnings) = Access::read(config, current)?;
    warnings.iter().for_each(|problem| tracing::warn!("{problem}"));
    Ok(access)
}
