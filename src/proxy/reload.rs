//! RELOAD and SET: finds out what has changed, and puts it in force while everything is in use.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::close::Retirement;
use super::close_servers::{close_servers, renew_servers};
use super::credentials::credential;
use super::peers;
use super::pools::{Database, Pool};
use super::registry::{add_database, cluster, pool_settings, set_database_limits, set_user_limits};
use super::shared::Shared;
use crate::auth::server_login::Credential;
use crate::config::effective::DatabaseSettings;
use crate::config::settings::{self, Change};
use crate::config::{Access, Config, ConfigError, DatabaseConfig};
use crate::error::{Refusal, sqlstate};
use crate::net::resolve::Ttl;
use crate::net::tls::TlsError;

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
    peers::follow(&shared.peers, &config);
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
            close_servers(shared, &database.name, Retirement::HostsChanged);
        }
    }
    Ok(())
}

fn update_database(
    shared: &Arc<Shared>,
    config: &Config,
    database: &Arc<Database>,
    current: &DatabaseConfig,
) {
    set_database_limits(config, database, current);
    let before = database.config.load_full();
    let split = DatabaseSettings::of(&config.settings, current).read_write_split;
    let hosts = |d: &DatabaseConfig| (d.hosts(), d.load_balance_hosts);
    let old = database.cluster();
    if hosts(&before) != hosts(current) || old.split != split {
        database.set_cluster(cluster(config, current), current.weights());
        // Nobody watches the old hosts any more.
        renew_servers(shared, &database.name, Retirement::HostsChanged);
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
            renew_servers(shared, &database.name, Retirement::HostsChanged);
        }
    }
}

fn remove_database(shared: &Arc<Shared>, database: &Arc<Database>) {
    tracing::info!("database {} is gone", database.name);
    let reason = || Refusal::new(sqlstate::ADMIN_SHUTDOWN, "database removed");
    let clients = shared.clients.iter().filter(|client| !client.admin && client.database == database.name);
    clients.for_each(|client| client.kill(reason()));
    close_servers(shared, &database.name, Retirement::DatabaseRemoved);
    for pool in shared.pools.remove_database(&database.name) {
        for (_, lane) in pool.lanes() {
            lane.refuse_all(&reason());
            lane.take_idle(|_| true).into_iter().for_each(|server| server.close(Retirement::DatabaseRemoved));
        }
    }
}

fn update_pool(shared: &Arc<Shared>, config: &Config, pool: &Arc<Pool>) {
    pool.set_settings(pool_settings(config, &pool.database, &pool.user));
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::build::build;
    use crate::config::{PoolSettings, Timeouts, ini};
    use crate::proxy::registry::{database, pool, user};
    use crate::proxy::versioned::LastSeen;

    const APP: &str = "[databases]\napp = pool_size=3\nforced = user=owner\n";

    fn config(text: &str) -> Config {
        build(ini::parse(&format!("{APP}{text}"), Path::new("x.ini")).unwrap()).unwrap().config
    }

    fn pools(config: &Config) -> (Arc<Shared>, [Arc<Pool>; 2]) {
        let shared = Arc::new(Shared::new(config.clone(), Access::default(), Vec::new()));
        let pools = ["app", "forced"].map(|name| {
            let database = database(&shared, name).unwrap();
            pool(&shared, &database, &user(&shared, "me"))
        });
        (shared, pools)
    }

    fn timeouts(shared: &Shared, pool: &Pool) -> Timeouts {
        pool.timeouts(&shared.config.load(), "me")
    }

    #[test]
    fn what_has_not_changed_is_not_replaced() {
        let config = config("[users]\nme = query_timeout=1\n");
        let (shared, pools) = pools(&config);
        let mut clients = pools.each_ref().map(|pool| LastSeen::new(&pool.settings));
        let before = pools.each_ref().map(|pool| pool.settings.load_full());
        let stays = |expected: [bool; 2], why: &str| {
            let is_same = |at: usize| Arc::ptr_eq(&before[at], &pools[at].settings.load_full());
            assert_eq!([is_same(0), is_same(1)], expected, "{why}");
        };
        apply(&shared, config.clone(), None).unwrap();
        stays([true; 2], "RELOAD without a change");
        for (key, value) in [("pool_mode", "session"), ("log_stats", "0"), ("query_timeout", "3")] {
            change(&shared, key, value).unwrap();
            stays([true; 2], key);
        }
        change(&shared, "default_pool_size", "7").unwrap();
        stays([true, false], "one pool has a size of its own");
        let sizes = |clients: &[LastSeen<PoolSettings>; 2]| clients.each_ref().map(|seen| seen.pool_size);
        assert_eq!(sizes(&clients), [3, 20]);
        clients.iter_mut().zip(&pools).for_each(|(client, pool)| client.refresh(&pool.settings));
        assert_eq!(sizes(&clients), [3, 7]);
        // RELOAD puts in force what the file says.
        apply(&shared, config, None).unwrap();
        assert_eq!(pools[1].sizes().pool, 20);
    }

    #[test]
    fn timeouts_of_clients_change_without_their_pool() {
        let line = |seconds: u32| config(&format!("[users]\nme = client_idle_timeout={seconds}\n"));
        let (shared, pools) = pools(&line(1));
        let before = pools.each_ref().map(|pool| pool.settings.load_full());
        apply(&shared, line(2), None).unwrap();
        for (pool, before) in pools.iter().zip(&before) {
            assert!(Arc::ptr_eq(before, &pool.settings.load_full()));
            assert_eq!(timeouts(&shared, pool).client_idle_timeout.as_secs(), 2);
        }
    }

    #[test]
    fn one_database_may_change_alone() {
        let (shared, pools) = pools(&config(""));
        let before = pools.each_ref().map(|pool| pool.settings.load_full());
        let mut changed = config("");
        changed.databases.get_mut("forced").unwrap().timezone = Some("UTC".into());
        apply(&shared, changed, None).unwrap();
        assert!(Arc::ptr_eq(&before[0], &pools[0].settings.load_full()));
        assert_eq!(pools[1].settings.load().startup_parameters, [("timezone".to_owned(), "UTC".to_owned())]);
        assert_eq!((pools[0].generation(), pools[1].generation()), (0, 1), "its servers have another one");
    }
}
