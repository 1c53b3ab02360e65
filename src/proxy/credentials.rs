//! What pools log in to servers with: what the configuration or `auth_file` says, what a login has shown, or what a client has
//! brought from another process.

use super::pools::{Database, Pool, User};
use super::shared::Shared;
use crate::auth::exchange::{Account, Learned};
use crate::auth::secret::Secret;
use crate::auth::server_login::{Credential, Password};

/// What a pool logs in to servers with.
pub fn credential(shared: &Shared, database: &Database, user: &User) -> Credential {
    let config = database.config.load();
    if let Some(text) = config.server_password() {
        return Credential::Password(Password::new(text));
    }
    of_secret(shared.access.load().accounts.get(&*user.name).and_then(|account| account.secret.as_ref()))
}

/// What a secret of `auth_file` lets us in with.
pub fn of_secret(secret: Option<&Secret>) -> Credential {
    match secret {
        Some(Secret::Plain(text)) => Credential::Password(Password::new(text.clone())),
        Some(Secret::Md5(hash)) => Credential::Md5(hash.clone()),
        Some(Secret::Scram(_)) => Credential::VerifierOnly,
        None => Credential::None,
    }
}

/// A login may have shown what servers let this user in with: by what `auth_query` has found for the user, or by what the
/// client has proved.
pub fn learn(pool: &Pool, found: Option<&Account>, learned: Learned) {
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
pub fn inherit(pool: &Pool, inherited: Credential) {
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
