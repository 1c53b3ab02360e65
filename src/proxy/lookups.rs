//! What `auth_query` has found lately: with `auth_query_ttl` a login need not ask again each time.
//!
//! A user that is not there is remembered for a moment only, since it may be about to be created. What has been found is
//! forgotten when it does not fit what a client proves, as the password may have changed, and is never older than the
//! role's `VALID UNTIL`, if the query tells it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::auth::exchange::Account;
use crate::clock::Micros;

/// How long an unknown user is remembered at most.
const UNKNOWN: Duration = Duration::from_secs(1);
/// Users that are remembered. Names are up to clients, so there must be a limit.
const MAX: usize = 10_000;

/// A user that `auth_query` knows.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The name, as the query gives it.
    pub(super) user: String,
    /// The secret. A password that is NULL means that none is right.
    pub(super) account: Arc<Account>,
    /// How long the role is still valid, if the query tells and it is not for ever.
    pub(super) valid_for: Option<Duration>,
}

/// Where and how a user was looked up, and which.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) database: Arc<str>,
    pub(super) query: String,
    pub(super) user: String,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Lookups(Mutex<HashMap<Key, Entry>>);

#[derive(Debug)]
struct Entry {
    /// `None`: there is no such user.
    found: Option<Found>,
    until: Micros,
}

impl Lookups {
    /// What is remembered; the inner `None`: there is no such user.
    pub(super) fn get(&self, key: &Key, now: Micros) -> Option<Option<Found>> {
        let entries = self.0.lock();
        entries.get(key).filter(|entry| now < entry.until).map(|entry| entry.found.clone())
    }

    /// Remembers a result.
    pub(super) fn put(&self, key: Key, found: Option<Found>, ttl: Duration, now: Micros) {
        if ttl.is_zero() {
            return;
        }
        let life = match &found {
            Some(found) => found.valid_for.map_or(ttl, |valid_for| ttl.min(valid_for)),
            None => ttl.min(UNKNOWN),
        };
        let mut entries = self.0.lock();
        if entries.len() >= MAX {
            entries.retain(|_, entry| now < entry.until && entry.found.is_some());
        }
        if entries.len() < MAX {
            entries.insert(key, Entry { found, until: now + life });
        }
    }

    /// Forgets a user: a client's proof did not fit.
    pub(super) fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }

    /// Forgets everybody: the configuration has changed.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::secret::Secret;

    fn key(user: &str) -> Key {
        Key { database: "db".into(), query: "q".into(), user: user.into() }
    }

    fn found(valid_for: Option<u64>) -> Found {
        let account = Arc::new(Account::new(Secret::parse("x")));
        Found { user: "me".into(), account, valid_for: valid_for.map(Duration::from_secs) }
    }

    #[test]
    fn entries_live_as_long_as_they_may() {
        let lookups = Lookups::default();
        let (start, ttl) = (Micros(0), Duration::from_secs(60));
        lookups.put(key("me"), Some(found(None)), ttl, start);
        lookups.put(key("soon"), Some(found(Some(5))), ttl, start);
        lookups.put(key("nobody"), None, ttl, start);
        let known = |user: &str, seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            lookups.get(&key(user), now).map(|found| found.is_some())
        };
        assert_eq!(known("me", 59), Some(true));
        assert_eq!(known("me", 60), None);
        assert_eq!(known("soon", 4), Some(true));
        assert_eq!(known("soon", 5), None, "not beyond VALID UNTIL");
        assert_eq!(known("nobody", 0), Some(false));
        assert_eq!(known("nobody", 1), None);
        assert_eq!(known("other", 0), None);
        lookups.forget(&key("me"));
        assert_eq!(known("me", 0), None);
    }

    #[test]
    fn nothing_is_remembered_unless_asked_for() {
        let lookups = Lookups::default();
        lookups.put(key("me"), Some(found(None)), Duration::ZERO, Micros(0));
        assert!(lookups.get(&key("me"), Micros(0)).is_none());
    }

    #[test]
    fn unknown_names_do_not_fill_the_memory() {
        let lookups = Lookups::default();
        let ttl = Duration::from_secs(60);
        for n in 0..MAX + 10 {
            lookups.put(key(&n.to_string()), None, ttl, Micros(0));
        }
        assert!(lookups.0.lock().len() <= MAX);
        lookups.put(key("me"), Some(found(None)), ttl, Micros(0));
        assert!(lookups.get(&key("me"), Micros(0)).is_some());
    }
}
