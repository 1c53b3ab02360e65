//! Connections that have not logged in: how many there may be, and which of them has to go.
//!
//! Anybody can open them, so they are counted apart from clients and never take the place of one. When there are as many
//! as there may be, a new one gets the place of the one that came first among those that are silent. Where none has been
//! silent for long, as when thousands of clients come back at once, new ones wait in the kernel's queue. Those of Unix
//! sockets are counted for themselves, so that whoever is on the machine gets in whatever comes from the network.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use nix::sys::resource::{Resource, getrlimit};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::{self, AtomicMicros, Micros};
use crate::config::Config;
use crate::error::{Refusal, sqlstate};
use crate::net::listener::Peer;

/// How long a connection may be silent before it can lose its place: clients far away need as long for an answer.
const SILENCE: Duration = Duration::from_secs(1);
/// The same for one that waits for us, or for whoever we have asked about it.
const WORK: Duration = Duration::from_secs(10);
/// How often a connection that has no place yet looks for one.
const RETRY: Duration = Duration::from_millis(10);

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Newcomers {
    tcp: Arc<Mutex<Queue>>,
    unix: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    /// By their IDs, which is the order in which they have come.
    all: BTreeMap<u64, Arc<Newcomer>>,
    of_address: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Newcomer {
    address: Option<IpAddr>,
    /// It has been expected to say something, or been worked for, since then.
    since: AtomicMicros,
    is_silent: AtomicBool,
    dismissed: Notify,
}

/// How many there may be; 0: any number.
#[derive(Clone, Copy, Debug)]
struct Limits {
    total: usize,
    of_address: usize,
}

/// What becomes of a connection.
#[derive(Debug)]
enum Admission {
    Admitted(Place),
    /// All places are taken by connections that are busy.
    Later,
    /// There are too many of its address, and all of them are busy.
    Refused,
}

impl Newcomers {
    fn admit(&self, id: u64, peer: &Peer, limits: Limits, now: Micros) -> Admission {
        let (queue, address) = match peer {
            Peer::Tcp(address) => (&self.tcp, Some(address.ip().to_canonical())),
            Peer::Unix { .. } => (&self.unix, None),
        };
        let mut inner = queue.lock();
        if limits.of_address > 0 && address.is_some() && inner.count(address) >= limits.of_address {
            // Its place is free then, however many there are in all.
            if !inner.dismiss(now, |newcomer| newcomer.address == address) {
                return Admission::Refused;
            }
        } else if limits.total > 0 && inner.all.len() >= limits.total && !inner.dismiss(now, |_| true) {
            return Admission::Later;
        }
        let newcomer = Arc::new(Newcomer {
            address,
            since: AtomicMicros::new(now),
            is_silent: AtomicBool::new(true),
            dismissed: Notify::new(),
        });
        inner.all.insert(id, Arc::clone(&newcomer));
        if let Some(address) = address {
            *inner.of_address.entry(address).or_default() += 1;
        }
        drop(inner);
        Admission::Admitted(Place { queue: Arc::clone(queue), id, newcomer })
    }
}

impl Queue {
    fn count(&self, address: Option<IpAddr>) -> usize {
        address.and_then(|address| self.of_address.get(&address)).copied().unwrap_or(0)
    }

    /// Takes the place of the first one that can lose it; says whether there was one.
    fn dismiss(&mut self, now: Micros, is_meant: impl Fn(&Newcomer) -> bool) -> bool {
        let found = self.all.iter().find(|(_, newcomer)| is_meant(newcomer) && newcomer.can_go(now));
        let Some((&id, newcomer)) = found else { return false };
        newcomer.dismissed.notify_one();
        self.remove(id);
        true
    }

    fn remove(&mut self, id: u64) {
        let Some(address) = self.all.remove(&id).and_then(|newcomer| newcomer.address) else { return };
        if let Some(count) = self.of_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.of_address.remove(&address);
            }
        }
    }
}

impl Newcomer {
    fn can_go(&self, now: Micros) -> bool {
        let limit = if self.is_silent.load(Relaxed) { SILENCE } else { WORK };
        now.since(self.since.get()) >= limit
    }
}

/// A connection's place among those that have not logged in, until dropped.
#[derive(Debug)]
pub struct Place {
    queue: Arc<Mutex<Queue>>,
    id: u64,
    newcomer: Arc<Newcomer>,
}

impl Place {
    /// The other side is expected to say something.
    pub fn listens(&self) {
        self.set(true);
    }

    /// The other side has said something, and waits.
    pub fn works(&self) {
        self.set(false);
    }

    fn set(&self, is_silent: bool) {
        self.newcomer.since.set(clock::now());
        self.newcomer.is_silent.store(is_silent, Relaxed);
    }

    /// Waits until the place is another's.
    pub fn lost(&self) -> impl Future<Output = Refusal> + use<> {
        let newcomer = Arc::clone(&self.newcomer);
        async move {
            newcomer.dismissed.notified().await;
            Refusal::new(sqlstate::TOO_MANY_CONNECTIONS, "too many connections that have not logged in")
                .detail("This one has been silent for too long while others were waiting.")
                .log("silent before login while others wait (max_login_clients)")
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.lock().remove(self.id);
    }
}

/// Waits for a place for a connection that has just been accepted. `None`: it gets none, for there are too many of its
/// address.
pub async fn admit(newcomers: &Newcomers, config: &ArcSwap<Config>, id: u64, peer: &Peer) -> Option<Place> {
    loop {
        let settings = &config.load().settings;
        let limits = Limits {
            total: at_most_a_quarter_of_the_files(settings.max_login_clients as usize),
            of_address: settings.max_login_clients_per_address as usize,
        };
        match newcomers.admit(id, peer, limits, clock::now()) {
            Admission::Admitted(place) => return Some(place),
            Admission::Refused => return None,
            Admission::Later => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Where the process may open few files, those who have not logged in must leave some for clients and servers.
fn at_most_a_quarter_of_the_files(limit: usize) -> usize {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let quarter = usize::try_from(files / 4).unwrap_or(usize::MAX).max(1);
    if limit == 0 { 0 } else { limit.min(quarter) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer::Tcp((address.parse::<IpAddr>().unwrap(), 1).into())
    }

    const UNIX: Peer = Peer::Unix { pid: 1, uid: 1, port: 1 };

    fn second(n: u64) -> Micros {
        Micros(0) + Duration::from_secs(n)
    }

    fn place(admission: Admission) -> Option<Place> {
        match admission {
            Admission::Admitted(place) => Some(place),
            Admission::Later | Admission::Refused => None,
        }
    }

    fn is_lost(place: &Place) -> bool {
        !place.queue.lock().all.contains_key(&place.id)
    }

    #[test]
    fn the_first_of_the_silent_ones_makes_room() {
        let newcomers = Newcomers::default();
        let limits = Limits { total: 3, of_address: 0 };
        let admit = |id, at| newcomers.admit(id, &peer("10.0.0.1"), limits, second(at));
        let places: Vec<_> = (0..3).map(|id| place(admit(id, 10)).unwrap()).collect();
        // It waits for us.
        places[0].newcomer.is_silent.store(false, Relaxed);
        assert!(matches!(admit(3, 10), Admission::Later), "nobody has been silent for long");
        assert!(place(newcomers.admit(4, &UNIX, limits, second(10))).is_some(), "counted for themselves");
        let fourth = place(admit(5, 11)).unwrap();
        assert_eq!(places.iter().map(is_lost).collect::<Vec<_>>(), [false, true, false]);
        drop(places);
        assert!(!is_lost(&fourth));
        assert_eq!(newcomers.tcp.lock().all.len(), 1, "each is counted until it is gone");
        drop(fourth);
        assert!(newcomers.tcp.lock().of_address.is_empty());
    }

    #[test]
    fn work_does_not_keep_a_place_for_ever() {
        let newcomers = Newcomers::default();
        let limits = Limits { total: 1, of_address: 0 };
        let first = place(newcomers.admit(1, &UNIX, limits, second(10))).unwrap();
        first.newcomer.is_silent.store(false, Relaxed);
        assert!(place(newcomers.admit(2, &UNIX, limits, second(19))).is_none());
        assert!(place(newcomers.admit(3, &UNIX, limits, second(20))).is_some());
    }

    #[test]
    fn an_address_has_its_own_limit() {
        let newcomers = Newcomers::default();
        let limits = Limits { total: 3, of_address: 2 };
        let admit = |id, address: &str, at| newcomers.admit(id, &peer(address), limits, second(at));
        let first = place(admit(1, "10.0.0.1", 10)).unwrap();
        let second = place(admit(2, "::ffff:10.0.0.1", 10)).unwrap();
        assert!(matches!(admit(3, "10.0.0.1", 10), Admission::Refused), "the same address");
        let other = place(admit(4, "10.0.0.2", 10)).unwrap();
        assert!(place(admit(5, "10.0.0.1", 11)).is_some());
        assert_eq!([&first, &second, &other].map(is_lost), [true, false, false]);
    }

    #[test]
    fn zero_means_any_number() {
        let newcomers = Newcomers::default();
        let limits = Limits { total: 0, of_address: 0 };
        let all: Vec<_> = (0..5000).map(|id| newcomers.admit(id, &UNIX, limits, second(1))).collect();
        assert!(all.into_iter().all(|admission| place(admission).is_some()));
        assert_eq!(at_most_a_quarter_of_the_files(0), 0);
    }
}
