//! `auth_query`: users that no file knows are looked up in a database, as `auth_user`.
//!
//! The query has connections of its own. No client ever uses them, so nothing that a client sends before it has proved
//! who it is, or that another client has left behind, can change what the query means.

use std::sync::Arc;
use std::time::Duration;

use super::claim::Claim;
use super::failure::{Failure, config_error, no_such_database};
use super::newcomer::Newcomer;
use crate::auth::exchange::Account;
use crate::auth::secret::Secret;
use crate::clock;
use crate::config::{Config, DatabaseConfig};
use crate::error::{Refusal, sqlstate};
use crate::proxy::close::CloseReason;
use crate::proxy::give_back::give_back;
use crate::proxy::lookups::{Found, Key};
use crate::proxy::pools::{Database, Pool};
use crate::proxy::registry;
use crate::proxy::shared::CONSOLE;

/// Whether users that no file knows are looked up. For a database that does not exist the answer is that for any other, so
/// that it looks the same.
pub(super) fn is_configured(config: &Config, claim: &Claim) -> bool {
    let own = config.database(&claim.database).and_then(|(database, _)| database.auth_user.as_ref());
    !own.unwrap_or(&config.settings.auth_user).is_empty()
}

/// The database that every server has, for those who look after it.
const MAINTENANCE: &str = "postgres";
/// Whether there is a database of this name to connect to.
const EXISTS: &str =
    "SELECT 1 FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) $1 AND datallowconn";

impl Newcomer {
    /// Looks a user up. `None`: there is no such user, or no database to look in.
    pub(super) async fn look_up(
        &mut self,
        config: &Config,
        claim: &Claim,
    ) -> Result<Option<(Found, Key)>, Failure> {
        let own = DatabaseConfig::default();
        let database = match config.database(&claim.database) {
            Some((database, _)) => database,
            None if claim.database == CONSOLE => &own,
            None => return Ok(None),
        };
        let s = &config.settings;
        let auth_user = database.auth_user.as_ref().unwrap_or(&s.auth_user);
        let query = database.auth_query.as_ref().unwrap_or(&s.auth_query);
        let global = Some(&s.auth_dbname).filter(|name| !name.is_empty());
        let name = database.auth_dbname.as_ref().or(global).unwrap_or(&claim.database);
        let auth_database = self.auth_database(config, claim, name, auth_user).await?;
        let key =
            Key { database: Arc::clone(&auth_database.name), query: query.clone(), user: claim.user.clone() };
        if let Some(known) = self.shared.lookups.get(&key, clock::now()) {
            return Ok(Some((known, key)));
        }
        let pool = registry::auth_pool(&self.shared, &auth_database, auth_user);
        let Some(found) = self.ask(claim, &pool, query).await? else { return Ok(None) };
        self.shared.lookups.put(key.clone(), found.clone(), s.auth_query_ttl, clock::now());
        Ok(Some((found, key)))
    }

    async fn auth_database(
        &mut self,
        config: &Config,
        claim: &Claim,
        name: &str,
        auth_user: &str,
    ) -> Result<Arc<Database>, Failure> {
        if name == CONSOLE {
            self.log_error(claim, "cannot use the reserved \"pgbouncer\" database as an auth_dbname");
            return Err(config_error("auth_query cannot run at the console.").into());
        }
        if name == claim.database && self.shared.pools.database(name).is_none() {
            if let Some((line, true)) = config.database(name) {
                return self.unheard_of(config, claim, line, auth_user).await;
            }
        }
        let Some(database) = registry::database(&self.shared, name) else {
            self.log_error(claim, &format!("authentication database \"{name}\" is not configured"));
            return Err(config_error("The authentication database is not configured.").into());
        };
        if database.disabled.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Refusal::protocol(format!("authentication database \"{name}\" is disabled")).into());
        }
        Ok(database)
    }

    /// Where to look for a client that asks for a database which only `*` covers and nobody has used so far. Names are up to
    /// clients, so nothing is made of one, and no server is asked for a connection to it, unless it is a database's.
    async fn unheard_of(
        &mut self,
        config: &Config,
        claim: &Claim,
        line: &DatabaseConfig,
        auth_user: &str,
    ) -> Result<Arc<Database>, Failure> {
        let name = &*claim.database;
        let maintenance = match config.database(MAINTENANCE) {
            Some((_, true)) => registry::database(&self.shared, MAINTENANCE),
            _ => None,
        };
        let Some(maintenance) = maintenance.filter(|_| name != MAINTENANCE) else {
            return registry::database(&self.shared, name).ok_or_else(|| no_such_database(name).into());
        };
        if line.dbname.is_some() {
            // All names mean the same database.
            return Ok(maintenance);
        }
        let pool = registry::auth_pool(&self.shared, &maintenance, auth_user);
        let exists = match self.wait_for_server(&pool, &pool.user.name).await {
            Ok(mut server) => match server.look_up(EXISTS, name).await {
                Ok(row) => {
                    give_back(&self.shared, &pool, server, self.worker, false);
                    row.is_some()
                }
                Err(error) => {
                    tracing::error!("{} cannot ask for databases: {error}", server.info);
                    server
                        .close(CloseReason::QueryFailed("error response to a question for databases".into()));
                    return Err(config_error("auth_query failed.").into());
                }
            },
            // `auth_user` may not connect there. Then one name after the other is tried.
            Err(Failure::Refused(_)) if pool.login_error.lock().is_some() => {
                let shared = Arc::clone(&self.shared);
                let _turn = shared.lookups.turn().await;
                let database = registry::database(&shared, name);
                let Some(database) = database else { return Err(no_such_database(name).into()) };
                let pool = registry::auth_pool(&shared, &database, auth_user);
                let server = self.wait_for_server(&pool, &pool.user.name).await?;
                give_back(&shared, &pool, server, self.worker, false);
                true
            }
            Err(failure) => return Err(failure),
        };
        if exists {
            return registry::database(&self.shared, name).ok_or_else(|| no_such_database(name).into());
        }
        // A server asked for a connection says so, and log parsers look for it.
        let words = format!("database \"{name}\" does not exist");
        self.log_warning(claim, &format!("server login failed: FATAL {words}"));
        Err(Refusal::new(sqlstate::UNKNOWN_DATABASE, words).into())
    }

    /// Runs the query; `None`: it knows no such user.
    async fn ask(&mut self, claim: &Claim, pool: &Arc<Pool>, query: &str) -> Result<Option<Found>, Failure> {
        let mut server = self.wait_for_server(pool, &pool.user.name).await?;
        let row = match server.look_up(query, &claim.user).await {
            Ok(row) => row,
            Err(error) => {
                tracing::error!("{} error in auth_query: {error}", server.info);
                server.close(CloseReason::QueryFailed("error response from auth_query".into()));
                return Err(config_error("auth_query failed.").into());
            }
        };
        server.begin_use(pool.settings.load().server_lifetime);
        give_back(&self.shared, pool, server, self.worker, false);
        let Some(row) = row else { return Ok(None) };
        match row.as_slice() {
            [None, ..] => self.log_error(claim, "auth_query response contained null user name"),
            [Some(user), password] => return Ok(Some(self.found(claim, user, password.as_deref(), None))),
            [Some(user), password, seconds] => {
                let seconds = seconds.as_ref().and_then(|seconds| seconds.parse::<f64>().ok());
                return Ok(Some(self.found(claim, user, password.as_deref(), seconds)));
            }
            _ => self.log_error(claim, &format!("expected 2 columns from auth_query, not {}", row.len())),
        }
        Err(config_error("auth_query must give a user name and a password.").into())
    }

    /// What the query says of a user. What is wrong with it is for the log: the client is told that the password is wrong.
    fn found(&self, claim: &Claim, user: &str, password: Option<&str>, seconds: Option<f64>) -> Found {
        // One that is not valid any more has no password that could be right.
        let password = password.filter(|_| seconds.is_none_or(|seconds| seconds > 0.0)).unwrap_or_default();
        if let Err(error) = Secret::check(password) {
            self.log_error(claim, &format!("auth_query response for user \"{user}\": {error}"));
        }
        let account = Arc::new(Account::looked_up(user, Secret::parse(password)));
        let valid_for = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Found { user: user.to_owned(), account, valid_for }
    }
}
