//! The hosts of a database as they are configured, and what is counted of them together. What is known of them is a
//! [`Topology`](super::topology::Topology).

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::host::Host;
use crate::clock::{AtomicMicros, Micros};

/// What somebody needs a server for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Anything: the primary, if reads are split from writes; else any host.
    Write,
    /// Plain reads: the replica with this number.
    Read(usize),
}

/// How several hosts are used while reads are not split from writes (setting `load_balance_hosts`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Each new connection goes to the next host.
    RoundRobin,
    /// The same host for all connections, the next one only when it cannot be reached.
    Disable,
}

/// What a replica must be like that serves reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplicaRules {
    /// `max_replica_lag`: how far it may be behind. Zero: any time.
    pub lag: Duration,
    /// `max_replica_lag_bytes`. Zero: any number.
    pub lag_bytes: u64,
    /// `replica_warm_up`: how long it takes until one that has come back gets its full share.
    pub warm_up: Duration,
}

/// The hosts of a database. A change of the configuration that names other hosts makes another one.
#[derive(Debug)]
pub struct Cluster {
    /// In the order of the configuration.
    pub hosts: Vec<Host>,
    /// `read_write_split`.
    pub split: bool,
    balance: Balance,
    /// Round robin: counts connections and reads. Otherwise: the host in use.
    next: AtomicUsize,
    /// When a write was last acknowledged; kept for `read_consistency = database` only.
    last_write: AtomicMicros,
}

impl Cluster {
    /// Hosts with nothing counted yet.
    pub fn new(hosts: Vec<Host>, split: bool, balance: Balance) -> Self {
        Self { hosts, split, balance, next: AtomicUsize::new(0), last_write: AtomicMicros::default() }
    }

    /// A write was acknowledged at this moment. HOT.
    pub fn wrote(&self, now: Micros) {
        self.last_write.set_max(now);
    }

    /// When a write was last acknowledged, as told by [`Self::wrote`]. HOT.
    pub fn last_write(&self) -> Micros {
        self.last_write.get()
    }

    /// A connection to this host was opened.
    pub fn connected(&self, host: usize) {
        if self.balance == Balance::Disable && !self.split {
            self.next.store(host, Relaxed);
        }
    }

    /// A number that is another one at each call. HOT.
    pub(super) fn turn(&self) -> usize {
        self.next.fetch_add(1, Relaxed)
    }

    /// All hosts, the one to try first coming first, where reads are not split from writes.
    pub(super) fn in_turn(&self) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.hosts.len()).collect();
        if !all.is_empty() {
            let next = match self.balance {
                Balance::RoundRobin => self.turn(),
                Balance::Disable => self.next.load(Relaxed),
            };
            let by = next % all.len();
            all.rotate_left(by);
        }
        all
    }
}
