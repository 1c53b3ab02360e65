//! What an unknown user is shown: a login that looks like that of a known one, takes the same steps and the same work, and
//! fails at its end.
//!
//! Kinds of secrets can be told apart from outside: an md5 hash is asked for in another way than SCRAM's proof, and SCRAM
//! tells its iterations. Where all users have the same kind an unknown one gets that kind. Where kinds are mixed each
//! unknown name gets one of them, the same each time, as often as known users have it: what is seen of one name then says no
//! more of it than of any other. A user whose secret does not fit the method, or who has none, is shown the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::exchange::{Account, Method, Standing};
use super::scram::server::mock_salt;
use super::scram::{HASH, hmac};
use super::secret::{Cleartext, Secret, Verifier};

/// Names of which it is remembered that they were tried: bits, to which names are hashed.
const BITS: u64 = 1 << 16;
/// PostgreSQL's default, which is what `auth_query` will most likely find.
const POSTGRESQL_ITERATIONS: u32 = 4096;

/// What can be seen of a secret from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Face {
    /// It is an md5 hash.
    Md5,
    /// It is the password itself: SCRAM's keys have to be derived once.
    Plain,
    /// It is a SCRAM verifier.
    Scram {
        /// Iterations.
        iterations: u32,
    },
}

impl Face {
    /// That of a secret.
    pub fn of(secret: &Secret) -> Self {
        match secret {
            Secret::Md5(_) => Self::Md5,
            Secret::Plain(_) => Self::Plain,
            Secret::Scram(verifier) => Self::Scram { iterations: verifier.iterations },
        }
    }
}

/// Where an unknown user was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// Among the users of the file.
    File,
    /// By `auth_query` as well; this is what it has found for the first user it knew.
    Query(Option<Face>),
}

/// The faces of all users of the file.
#[derive(Debug)]
pub struct Mocks {
    /// Sorted. Each as often as it occurs.
    faces: Box<[Face]>,
    /// Unknown users for whom keys were derived, as they are for a known one whose secret is the password itself: the first
    /// attempt takes longer than the second.
    derived: Box<[AtomicU64]>,
}

impl Default for Mocks {
    fn default() -> Self {
        Self::new(std::iter::empty())
    }
}

impl Mocks {
    /// Mocks for those who are none of the users with these secrets.
    pub fn new<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Self {
        let mut faces: Vec<Face> = secrets.map(Face::of).collect();
        faces.sort_unstable();
        let derived = (0..BITS / 64).map(|_| AtomicU64::new(0)).collect();
        Self { faces: faces.into(), derived }
    }

    /// The account with which a user's login goes on: the user's own, if there is one that suits the method, or one that is
    /// made up. `key` is a secret of this process: who does not know it cannot tell what was made up with it.
    pub fn account_for(
        &self,
        account: Option<Arc<Account>>,
        user: &str,
        method: Method,
        sought: Sought,
        key: &[u8; HASH],
        scram_iterations: u32,
    ) -> (Arc<Account>, Standing) {
        let standing = match account {
            Some(account) if account.suits(method) => return (account, Standing::Known),
            Some(_) => Standing::NoSecret,
            None => Standing::Unknown,
        };
        (Arc::new(self.account(user, method, sought, key, scram_iterations)), standing)
    }

    /// An account for an unknown user, which nothing fits.
    fn account(
        &self,
        user: &str,
        method: Method,
        sought: Sought,
        key: &[u8; HASH],
        scram_iterations: u32,
    ) -> Account {
        // A user's name holds no zero, so that this is not the hash that the salt is made of.
        let seed = hmac(key, &[b"\0mock", user.as_bytes()].concat());
        let word = |n: usize| u64::from_be_bytes(std::array::from_fn(|i| seed[8 * n + i]));
        let face = self.face(word(0), method, sought, scram_iterations);
        let verifier = |iterations| Verifier {
            iterations,
            salt: mock_salt(user, key).into(),
            stored_key: seed,
            server_key: seed,
        };
        let secret = match face {
            Face::Md5 => Secret::Md5(format!("md5{}", hexadecimal(&seed[..16])).into()),
            Face::Scram { iterations } => Secret::Scram(verifier(iterations)),
            Face::Plain => match Cleartext::new(hexadecimal(&seed)) {
                Some(password) => Secret::Plain(password),
                None => unreachable!("has 64 digits"),
            },
        };
        // What was looked up is not kept after a failure, so that keys are derived each time.
        let is_derived = method == Method::Scram
            && face == Face::Plain
            && sought == Sought::File
            && !self.is_new(word(1) % BITS);
        Account::mock(secret, is_derived.then(|| verifier(scram_iterations)))
    }

    fn face(&self, choice: u64, method: Method, sought: Sought, scram_iterations: u32) -> Face {
        if let Sought::Query(found) = sought {
            return match found.unwrap_or(Face::Scram { iterations: POSTGRESQL_ITERATIONS }) {
                Face::Md5 if method == Method::Scram => Face::Scram { iterations: scram_iterations },
                face => face,
            };
        }
        let able = match method {
            Method::Scram => &self.faces[self.faces.partition_point(|face| *face == Face::Md5)..],
            _ => &self.faces,
        };
        // As far along the list as the choice is along all numbers: one user more changes little.
        let at = (u128::from(choice) * able.len() as u128) >> 64;
        able.get(at as usize).copied().unwrap_or(match method {
            Method::Md5 => Face::Md5,
            _ => Face::Plain,
        })
    }

    /// Whether no unknown user with this number was tried before.
    fn is_new(&self, number: u64) -> bool {
        let bit = 1 << (number % 64);
        self.derived[(number / 64) as usize].fetch_or(bit, Relaxed) & bit == 0
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; HASH] = [1; HASH];

    fn faces(mocks: &Mocks, method: Method, sought: Sought) -> Vec<Face> {
        let secret = |n: u32| mocks.account(&format!("user{n}"), method, sought, &KEY, 7).secret.unwrap();
        (0..1000).map(|n| Face::of(&secret(n))).collect()
    }

    fn mocks(kinds: &[(&str, usize)]) -> Mocks {
        let secrets: Vec<Secret> =
            kinds.iter().flat_map(|(text, count)| vec![Secret::parse(text).unwrap(); *count]).collect();
        Mocks::new(secrets.iter())
    }

    fn scram(iterations: u32) -> String {
        postgres_protocol::password::scram_sha_256(b"x").replace("4096:", &format!("{iterations}:"))
    }

    #[test]
    fn unknown_users_have_the_kinds_that_known_ones_have() {
        let md5 = postgres_protocol::password::md5(b"x", "me");
        let all = |mocks: &Mocks, method, face| {
            assert!(faces(mocks, method, Sought::File).iter().all(|f| *f == face), "{method:?} {face:?}");
        };
        all(&mocks(&[(&scram(5000), 3)]), Method::Md5, Face::Scram { iterations: 5000 });
        all(&mocks(&[(&md5, 1)]), Method::Md5, Face::Md5);
        all(&mocks(&[]), Method::Md5, Face::Md5);
        all(&mocks(&[]), Method::Scram, Face::Plain);
        // Nobody who is known could use these for SCRAM.
        all(&mocks(&[(&md5, 5), (&scram(5000), 1)]), Method::Scram, Face::Scram { iterations: 5000 });

        let mixed = mocks(&[(&md5, 3), (&scram(5000), 1)]);
        let seen = faces(&mixed, Method::Md5, Sought::File);
        assert_eq!(seen, faces(&mixed, Method::Md5, Sought::File), "the same each time");
        let count = seen.iter().filter(|face| **face == Face::Md5).count();
        assert!((700..800).contains(&count), "{count} of 1000, not three quarters");
    }

    #[test]
    fn where_others_are_looked_up_unknown_users_look_like_those() {
        let md5 = postgres_protocol::password::md5(b"x", "me");
        let file = mocks(&[(&md5, 1)]);
        for (method, found, face) in [
            (Method::Md5, None, Face::Scram { iterations: 4096 }),
            (Method::Md5, Some(Face::Md5), Face::Md5),
            (Method::Scram, Some(Face::Md5), Face::Scram { iterations: 7 }),
            (Method::Scram, Some(Face::Scram { iterations: 10 }), Face::Scram { iterations: 10 }),
        ] {
            assert!(faces(&file, method, Sought::Query(found)).iter().all(|f| *f == face), "{face:?}");
        }
    }
}
