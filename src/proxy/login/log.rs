//! What the log says of logins that fail: PgBouncer's lines, which programs look for.

use super::claim::Claim;
use super::newcomer::Newcomer;
use crate::auth::exchange::{Failure, FailureKind};
use crate::config::Config;

impl Newcomer {
    /// No file knows the user, nor does `auth_query` where that was asked.
    pub(super) fn log_unknown_user(&self, config: &Config, claim: &Claim) {
        let own = config.database(&claim.database).map(|(database, _)| database.auth_user.as_ref());
        let is_asked = own.is_some_and(|own| !own.unwrap_or(&config.settings.auth_user).is_empty());
        if !is_asked {
            self.log_line(&claim.database, &claim.user, &format!("no such user: {}", claim.user));
        } else if config.settings.log_connections {
            self.log_line(&claim.database, &claim.user, &format!("login failed: db={}", claim.database));
        }
    }

    /// The proof was none. With SCRAM that has a line of its own; for the others it is the reason why the connection is closed.
    pub(super) fn log_rejected(&self, claim: &Claim, failure: &Failure) {
        let is_malformed = !matches!(failure.log_detail, "wrong password" | "no such user");
        if is_malformed {
            self.log_warning(claim, failure.log_detail);
        } else if failure.kind == FailureKind::Sasl {
            self.log_error(claim, "password authentication failed");
        }
    }

    /// A client is turned away. Only some reasons have a line besides the one that names them.
    pub(super) fn log_turned_away(&self, database: &str, user: &str, reason: &str) {
        let is_one = ["no such database", "username too long", "password too long"];
        let is_one = is_one.iter().any(|start| reason.starts_with(start));
        if is_one && self.shared.config.load().settings.log_connections {
            self.log_line(database, user, &format!("login failed: db={database} user={user}"));
        }
    }

    fn log_line(&self, database: &str, user: &str, text: &str) {
        tracing::info!("C-{:#x}: {database}/{user}@{} {text}", self.id, self.peer);
    }
}
