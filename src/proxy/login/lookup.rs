//! `auth_query`: users that no file knows are looked up in a database, as `auth_user`.
//!
//! The query has connections of its own. No client ever uses them, so nothing that a client sends before it has proved
//! who it is, or that another client has left behind, can change what the query means.

use std::sync::Arc;

use super::authenticate::config_error;
use super::{Claim, Failure, Newcomer};
use crate::auth::exchange::Account;
use crate::auth::secret::Secret;
use crate::config::{Config, DatabaseConfig};
use crate::error::{Refusal, sqlstate};
use crate::proxy::pools::{Database, Pool};
use crate::proxy::shared::CONSOLE;
use crate::proxy::{settings, worker};

/// A user that `auth_query` knows.
pub(super) struct Found {
    /// The name, as the query gives it.
    pub(super) user: String,
    /// The secret. A password that is NULL means that none is right.
    pub(super) account: Arc<Account>,
}

impl Newcomer {
    /// Looks a user up. `None`: that is not configured, or there is no database to look in.
    pub(super) async fn look_up(&mut self, config: &Config, claim: &Claim) -> Result<Option<Found>, Failure> {
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
        let pool = settings::auth_pool(&self.shared, &auth_database, auth_user);
        let rows = self.ask(claim, &pool, query).await?;
        match rows.into_iter().next_back().map(<[Option<String>; 2]>::try_from) {
            None => {
                let message = format!("password authentication failed for user \"{}\"", claim.user);
                let refusal = Refusal::new(sqlstate::INVALID_PASSWORD, message);
                Err(refusal.detail("no such user").log("no such user").into())
            }
            Some(Ok([Some(user), password])) => {
                let secret = password.map_or(Secret::Unusable, |text| Secret::parse(&text));
                Ok(Some(Found { user, account: Arc::new(Account::new(secret)) }))
            }
            Some(unusable) => {
                let what = match unusable {
                    Ok(_) => "auth_query response contained null user name".to_owned(),
                    Err(row) => format!("expected 2 columns from auth_query, not {}", row.len()),
                };
                self.log_error(claim, &what);
                Err(config_error("auth_query must give a user name and a password.").into())
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

    async fn ask(
        &mut self,
        claim: &Claim,
        pool: &Arc<Pool>,
        query: &str,
    ) -> Result<Vec<Vec<Option<String>>>, Failure> {
        let mut server = self.wait_for_server(pool).await?;
        match server.run_with(query, &claim.user).await {
            Ok(rows) => {
                worker::give_back(&self.shared, pool, server, self.worker, false);
                Ok(rows)
            }
            Err(error) => {
                tracing::error!("{} error in auth_query: {error}", server.info);
                server.close("error response from auth_query");
                Err(config_error("auth_query failed.").into())
            }
        }
    }
}
