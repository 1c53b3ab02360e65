//! What `auth_query` has found lately: with `auth_query_ttl` a login need not ask again each time.
//!
//! A user that is not there is not remembered: it may be about to be created, and a failed login must not be quicker for it
//! than for others. What has been found is forgotten when it does not fit what a client proves, as the password may have
//! changed, and is never older than the role's `VALID UNTIL`, if the query tells it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::auth::exchange::Account;
use crate::auth::mock::Face;
use crate::clock::Micros;

/// Users that are remembered.
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
pub struct Lookups {
    known: Mutex<Known>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    entries: HashMap<Key, Entry>,
    /// What the first user's secret looked like from outside that was found: unknown users are shown the same.
    face: Option<Face>,
    /// The configuration has changed since: the next one found counts.
    is_old: bool,
}

#[derive(Debug)]
struct Entry {
    found: Found,
    until: Micros,
}

impl Lookups {
    /// Waits for one's turn to try something that would cost a server too much if many did so at once.
    pub(super) async fn turn(&self) -> impl Drop + '_ {
        self.turn.lock().await
    }

    /// What is remembered of a user.
    pub(super) fn get(&self, key: &Key, now: Micros) -> Option<Found> {
        let known = self.known.lock();
        known.entries.get(key).filter(|entry| now < entry.until).map(|entry| entry.found.clone())
    }

    /// Remembers a result.
    pub(super) fn put(&self, key: Key, found: Found, ttl: Duration, now: Micros) {
        let mut known = self.known.lock();
        if known.face.is_none() || known.is_old {
            if let Some(secret) = &found.account.secret {
                (known.face, known.is_old) = (Some(Face::of(secret)), false);
            }
        }
        if ttl.is_zero() {
            return;
        }
        let life = found.valid_for.map_or(ttl, |valid_for| ttl.min(valid_for));
        let entries = &mut known.entries;
        if entries.len() >= MAX {
            entries.retain(|_, entry| now < entry.until);
        }
        if entries.len() < MAX {
            entries.insert(key, Entry { found, until: now + life });
        }
    }

    /// What an unknown user is shown.
    pub(super) fn face(&self) -> Option<Face> {
        self.known.lock().face
    }

    /// Forgets a user: a client's proof did not fit.
    pub(super) fn forget(&self, key: &Key) {
        self.known.lock().entries.remove(key);
    }

    /// Forgets everybody: the configuration has changed.
    pub(super) fn clear(&self) {
        let mut known = self.known.lock();
        known.entries.clear();
        // What unknown users are shown must not change as long as known ones look as before.
        known.is_old = true;
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
        let account = Arc::new(Account::new("me", Secret::parse("x")));
        Found { user: "me".into(), account, valid_for: valid_for.map(Duration::from_secs) }
    }

    #[test]
    fn entries_live_as_long_as_they_may() {
        let lookups = Lookups::default();
        let (start, ttl) = (Micros(0), Duration::from_secs(60));
        lookups.put(key("me"), found(None), ttl, start);
        lookups.put(key("soon"), found(Some(5)), ttl, start);
        let known = |user: &str, seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            lookups.get(&key(user), now).is_some()
        };
        assert!(known("me", 59) && !known("me", 60));
        assert!(known("soon", 4) && !known("soon", 5), "not beyond VALID UNTIL");
        assert!(!known("other", 0));
        lookups.forget(&key("me"));
        assert!(!known("me", 0));
    }

    #[test]
    fn nothing_is_remembered_unless_asked_for() {
        let lookups = Lookups::default();
        lookups.put(key("me"), found(None), Duration::ZERO, Micros(0));
        assert!(lookups.get(&key("me"), Micros(0)).is_none());
    }

    #[test]
    fn unknown_users_are_shown_what_the_first_one_found_has() {
        let lookups = Lookups::default();
        assert_eq!(lookups.face(), None);
        let md5 = postgres_protocol::password::md5(b"x", "you");
        let find = |secret: &str| {
            let account = Arc::new(Account::looked_up("you", Secret::parse(secret)));
            lookups.put(key("you"), Found { account, ..found(None) }, Duration::ZERO, Micros(0));
        };
        ["", &*md5, "x"].into_iter().for_each(find);
        assert_eq!(lookups.face(), Some(Face::Md5));
        lookups.clear();
        assert_eq!(lookups.face(), Some(Face::Md5));
        ["", "x", &*md5].into_iter().for_each(find);
        assert_eq!(lookups.face(), Some(Face::Plain));
    }

    #[test]
    fn names_do_not_fill_the_memory() {
        let lookups = Lookups::default();
        let ttl = Duration::from_secs(60);
        for n in 0..MAX + 10 {
            lookups.put(key(&n.to_string()), found(None), ttl, Micros(0));
        }
        assert!(lookups.known.lock().entries.len() <= MAX);
        let later = Micros(0) + ttl;
        lookups.put(key("me"), found(None), ttl, later);
        assert!(lookups.get(&key("me"), later).is_some());
    }
}
