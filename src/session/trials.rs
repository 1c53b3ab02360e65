//! Which values of parameters servers have taken, and which they have refused.
//!
//! A client that chooses something at login shall be told at login whether the server takes it. Clients of one
//! application choose the same, so a server has to be asked once; and one that tries the same in vain again and again
//! costs no server anything.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::clock::Micros;
use crate::error::Refusal;

/// How long a refusal counts: the server may have learnt of a time zone, or the role of a right.
const REFUSED_FOR: Duration = Duration::from_secs(30);
/// How many values are remembered, of each kind.
const MAX: usize = 200;
/// Longest name and value that are remembered.
const MAX_LEN: usize = 250;

/// What is known of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has taken it.
    Taken,
    /// The server has said no.
    Refused(Refusal),
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Trials {
    taken: HashSet<TrialKey>,
    refused: HashMap<TrialKey, (Refusal, Micros)>,
}

type TrialKey = Box<[u8]>;

fn key(name: &[u8], value: &[u8]) -> TrialKey {
    [&*name.to_ascii_lowercase(), b"\0", value].concat().into()
}

impl Trials {
    /// What is known of this value.
    pub fn get(&self, name: &[u8], value: &[u8], now: Micros) -> Option<Outcome> {
        let key = key(name, value);
        if self.taken.contains(&key) {
            return Some(Outcome::Taken);
        }
        let (refusal, until) = self.refused.get(&key)?;
        (now < *until).then(|| Outcome::Refused(refusal.clone()))
    }

    /// Remembers what a server has said.
    pub fn put(&mut self, name: &[u8], value: &[u8], outcome: &Outcome, now: Micros) {
        let key = key(name, value);
        if key.len() > MAX_LEN {
            return;
        }
        match outcome {
            Outcome::Taken => {
                self.refused.remove(&key);
                if self.taken.len() >= MAX {
                    self.taken.clear();
                }
                self.taken.insert(key);
            }
            Outcome::Refused(refusal) => {
                if self.refused.len() >= MAX {
                    self.refused.clear();
                }
                self.refused.insert(key, (refusal.clone(), now + REFUSED_FOR));
            }
        }
    }

    /// Forgets everything: servers have changed.
    pub fn clear(&mut self) {
        self.taken.clear();
        self.refused.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::sqlstate;

    #[test]
    fn servers_are_asked_once() {
        let mut trials = Trials::default();
        let now = Micros(1);
        let taken = Outcome::Taken;
        let refused = Outcome::Refused(Refusal::new(sqlstate::INVALID_PARAMETER, "no"));
        trials.put(b"DateStyle", b"ISO", &taken, now);
        trials.put(b"TimeZone", b"Mars", &refused, now);
        assert_eq!(trials.get(b"datestyle", b"ISO", now), Some(Outcome::Taken));
        assert_eq!(trials.get(b"datestyle", b"iso", now), None);
        assert_eq!(trials.get(b"TIMEZONE", b"Mars", now), Some(refused));
        assert_eq!(trials.get(b"TimeZone", b"Mars", now + REFUSED_FOR), None);
        trials.put(b"TimeZone", b"Mars", &taken, now);
        assert_eq!(trials.get(b"TimeZone", b"Mars", now), Some(taken));
        trials.clear();
        assert_eq!(trials.get(b"datestyle", b"ISO", now), None);
    }

    #[test]
    fn what_clients_think_of_does_not_fill_the_memory() {
        let mut trials = Trials::default();
        let refused = Outcome::Refused(Refusal::new(sqlstate::INVALID_PARAMETER, "no"));
        for n in 0..1000 {
            let value = n.to_string();
            trials.put(b"TimeZone", value.as_bytes(), &refused, Micros(1));
            trials.put(b"DateStyle", value.as_bytes(), &Outcome::Taken, Micros(1));
            trials.put(b"DateStyle", &[b'x'; 9000], &refused, Micros(1));
        }
        assert!(trials.taken.len() <= MAX && trials.refused.len() <= MAX);
        assert!(trials.refused.keys().chain(&trials.taken).all(|key| key.len() <= MAX_LEN));
    }
}
