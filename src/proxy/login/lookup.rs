//! `auth_query`: users that no file knows are looked up in a database, as `auth_user`.
//!
//! The query has connections of its own. No client ever uses them, so nothing that a client sends before it has proved
//! who it is, or that another client has left behind, can change what the query means.

use std::sync::Arc;
use std::time::Duration;

use super::authenticate::config_error;
use super::{Claim, Failure, Newcomer};
use crate::auth::exchange::Account;
use crate::auth::secret::Secret;
use crate::clock;
use crate::config::{Config, DatabaseConfig};
use crate::error::{Refusal, sqlstate};
use crate::proxy::lookups::{Found, Key};
use crate::proxy::pools::{Database, Pool};
use crate::proxy::shared::CONSOLE;
use crate::proxy::{settings, worker};

impl Newcomer {
    /// Looks a user up. `None`: that is not configured, or there is no database to look in.
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
        if auth_user.is_empty() {
            return Ok(None);
        }
        let query = database.auth_query.as_ref().unwrap_or(&s.auth_query);
        let global = Some(&s.auth_dbname).filter(|name| !name.is_empty());
        let name = database.auth_dbname.as_ref().or(global).unwrap_or(&claim.database);
        let auth_database = self.auth_database(claim, name)?;
        let key =
            Key { database: Arc::clone(&auth_database.name), query: query.clone(), user: claim.user.clone() };
        let known = match self.shared.lookups.get(&key, clock::now()) {
            Some(known) => known,
            None => {
                let pool = settings::auth_pool(&self.shared, &auth_database, auth_user);
                let found = self.ask(claim, &pool, query).await?;
                self.shared.lookups.put(key.clone(), found.clone(), s.auth_query_ttl, clock::now());
                found
            }
        };
        match known {
            Some(found) => Ok(Some((found, key))),
            None => {
                self.log_unknown_user(config, claim);
                let message = format!("password authentication failed for user \"{}\"", claim.user);
                let refusal = Refusal::new(sqlstate::INVALID_PASSWORD, message);
                Err(refusal.detail("no such user").log("no such user").into())
            }
        }
    }

    fn auth_database(&self, claim: &Claim, name: &str) -> Result<Arc<Database>, Failure> {
        if name == CONSOLE {
            self.log_error(claim, "cannot use the reserved \"pgbouncer\" database as an auth_dbname");
            return Err(config_error("auth_query cannot run at the console.").into());
        }
        let Some(database) = settings::database(&self.shared, name) else {
            self.log_error(claim, &format!("authentication database \"{name}\" is not configured"));
            return Err(config_error("The authentication database is not configured.").into());
        };
        if database.disabled.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Refusal::protocol(format!("authentication database \"{name}\" is disabled")).into());
        }
        Ok(database)
    }

    /// Runs the query; `None`: it knows no such user.
    async fn ask(&mut self, claim: &Claim, pool: &Arc<Pool>, query: &str) -> Result<Option<Found>, Failure> {
        let mut server = self.wait_for_server(pool, &pool.user.name).await?;
        let rows = match server.run_with(query, &claim.user).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!("{} error in auth_query: {error}", server.info);
                server.close("error response from auth_query");
                return Err(config_error("auth_query failed.").into());
            }
        };
        server.begin_use(pool.settings.load().server_lifetime);
        worker::give_back(&self.shared, pool, server, self.worker, false);
        let Some(row) = rows.into_iter().next_back() else { return Ok(None) };
        match row.as_slice() {
            [None, ..] => self.log_error(claim, "auth_query response contained null user name"),
            [Some(user), password] => return Ok(Some(found(user, password.as_deref(), None))),
            [Some(user), password, seconds] => {
                let seconds = seconds.as_ref().and_then(|seconds| seconds.parse::<f64>().ok());
                return Ok(Some(found(user, password.as_deref(), seconds)));
            }
            _ => self.log_error(claim, &format!("expected 2 columns from auth_query, not {}", row.len())),
        }
        Err(config_error("auth_query must give a user name and a password.").into())
    }
}

fn found(user: &str, password: Option<&str>, seconds: Option<f64>) -> Found {
    // One that is not valid any more has no password that could be right.
    let password = password.filter(|_| seconds.is_none_or(|seconds| seconds > 0.0));
    let secret = password.map_or(Secret::Unusable, Secret::parse);
    let valid_for = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Found { user: user.to_owned(), account: Arc::new(Account::new(secret)), valid_for }
}
