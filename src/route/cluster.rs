//! The hosts of a database and what is known of them.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

/// What a server says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Not asked yet, or no answer.
    Unknown,
    /// Takes writes.
    Primary,
    /// In recovery (`in_hot_standby`).
    Replica,
}

impl Role {
    /// Its name in SHOW HOSTS and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// What somebody needs a server for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Anything: the primary, if reads are split from writes; else any host.
    Write,
    /// Plain reads: a replica.
    Read,
}

/// How several hosts are used while reads are not split from writes (setting `load_balance_hosts`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Each new connection goes to the next host.
    RoundRobin,
    /// The same host for all connections, the next one only when it cannot be reached.
    Disable,
}

/// The hosts of a database.
#[derive(Debug)]
pub struct Cluster {
    /// In the order of the configuration.
    pub hosts: Vec<Host>,
    /// `read_write_split`.
    pub split: bool,
    balance: Balance,
    /// Round robin: counts connections. Otherwise: the host in use.
    next: AtomicUsize,
}

/// One of them.
#[derive(Debug)]
pub struct Host {
    /// Host name, address or socket directory.
    pub name: String,
    /// Port.
    pub port: u16,
    role: AtomicU8,
    reachable: AtomicBool,
    /// Transactions served for reading.
    pub reads: AtomicU64,
    /// Transactions served that may write.
    pub writes: AtomicU64,
    /// Connections to it.
    pub servers: AtomicUsize,
    /// Why it cannot be reached.
    pub last_error: Mutex<Option<String>>,
}

impl Host {
    /// What it said last.
    pub fn role(&self) -> Role {
        match self.role.load(Relaxed) {
            1 => Role::Primary,
            2 => Role::Replica,
            _ => Role::Unknown,
        }
    }

    /// Whether the last attempt to reach it succeeded.
    pub fn is_reachable(&self) -> bool {
        self.reachable.load(Relaxed)
    }

    /// Notes an answer; says whether the role is another than before.
    pub fn answered(&self, role: Role) -> bool {
        self.reachable.store(true, Relaxed);
        *self.last_error.lock() = None;
        self.role.swap(role as u8, Relaxed) != role as u8
    }

    /// Notes that it cannot be reached; says whether that is news.
    pub fn failed(&self, error: String) -> bool {
        *self.last_error.lock() = Some(error);
        self.reachable.swap(false, Relaxed)
    }
}

impl Cluster {
    /// Hosts of which nothing is known yet.
    pub fn new(hosts: Vec<(String, u16)>, split: bool, balance: Balance) -> Self {
        let host = |(name, port)| Host {
            name,
            port,
            role: AtomicU8::new(Role::Unknown as u8),
            reachable: AtomicBool::new(true),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            servers: AtomicUsize::new(0),
            last_error: Mutex::new(None),
        };
        Self { hosts: hosts.into_iter().map(host).collect(), split, balance, next: AtomicUsize::new(0) }
    }

    /// Whether a read may be sent to a replica now.
    pub fn has_replica(&self) -> bool {
        self.split && self.hosts.iter().any(|h| h.is_reachable() && h.role() == Role::Replica)
    }

    /// Whether a host may serve this purpose, as far as is known.
    pub fn suits(&self, host: usize, purpose: Purpose) -> bool {
        !self.split
            || match self.hosts[host].role() {
                Role::Unknown => true,
                Role::Primary => purpose == Purpose::Write,
                Role::Replica => purpose == Purpose::Read,
            }
    }

    /// Hosts for a new connection, the one to try first coming first.
    pub fn candidates(&self, purpose: Purpose) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.hosts.len()).filter(|&n| self.suits(n, purpose)).collect();
        if self.split {
            // Known ones before unknown ones, reachable ones before others, then whoever has fewest connections.
            all.sort_by_key(|&n| {
                let host = &self.hosts[n];
                (host.role() == Role::Unknown, !host.is_reachable(), host.servers.load(Relaxed))
            });
            if all.is_empty() && purpose == Purpose::Write {
                // Nobody admits to be the primary: ask all of them.
                all = (0..self.hosts.len()).collect();
            }
        } else if !all.is_empty() {
            let next = match self.balance {
                Balance::RoundRobin => self.next.fetch_add(1, Relaxed),
                Balance::Disable => self.next.load(Relaxed),
            };
            let by = next % all.len();
            all.rotate_left(by);
        }
        all
    }

    /// A connection to this host was opened.
    pub fn connected(&self, host: usize) {
        if self.balance == Balance::Disable {
            self.next.store(host, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(split: bool, balance: Balance) -> Cluster {
        Cluster::new(vec![("a".into(), 1), ("b".into(), 2), ("c".into(), 3)], split, balance)
    }

    #[test]
    fn without_a_split_hosts_take_turns_or_do_not() {
        let hosts = cluster(false, Balance::RoundRobin);
        assert_eq!(hosts.candidates(Purpose::Write), [0, 1, 2]);
        assert_eq!(hosts.candidates(Purpose::Write), [1, 2, 0]);
        hosts.connected(2);
        assert_eq!(hosts.candidates(Purpose::Write), [2, 0, 1]);
        let hosts = cluster(false, Balance::Disable);
        assert_eq!(hosts.candidates(Purpose::Write), [0, 1, 2]);
        assert_eq!(hosts.candidates(Purpose::Write), [0, 1, 2]);
        hosts.connected(1);
        assert_eq!(hosts.candidates(Purpose::Write), [1, 2, 0]);
        assert!(!hosts.has_replica());
    }

    #[test]
    fn roles_decide_and_not_the_order() {
        let hosts = cluster(true, Balance::RoundRobin);
        assert!(!hosts.has_replica());
        assert!(hosts.hosts[0].answered(Role::Replica));
        assert!(hosts.hosts[1].answered(Role::Primary));
        assert!(!hosts.hosts[1].answered(Role::Primary));
        assert_eq!(hosts.candidates(Purpose::Write), [1, 2]);
        assert_eq!(hosts.candidates(Purpose::Read), [0, 2]);
        assert!(hosts.has_replica());
        assert!(hosts.hosts[0].failed("gone".into()));
        assert!(!hosts.hosts[0].failed("gone".into()));
        assert!(!hosts.has_replica());
        hosts.hosts[1].answered(Role::Replica);
        hosts.hosts[2].answered(Role::Replica);
        assert_eq!(hosts.candidates(Purpose::Write), [0, 1, 2]);
    }
}
