//! A host of a database: its name in the configuration, and what is counted there. What is known of it is an
//! [`Observation`](super::observation::Observation).

use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What a server says it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Not asked yet, or no answer.
    #[default]
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

/// One of the servers that a host's name may mean, as a Kubernetes Service does: what is known of one of them says nothing
/// of the others. It is the moment at which the server was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance(NonZeroU64);

impl Instance {
    /// From a number; `None` for 0, which stands for a server that does not say.
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }
}

/// `system_identifier`: which cluster of databases a server has, or has a copy of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemIdentifier(NonZeroU64);

impl SystemIdentifier {
    /// From a number; `None` for 0, which stands for a server that does not say.
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Host {
    /// Host name, address or socket directory.
    pub name: String,
    /// Port.
    pub port: u16,
    /// What is counted.
    pub counters: HostCounters,
    wrong_instance_seen: AtomicBool,
}

/// What changes with each transaction or connection. HOT.
#[derive(Debug, Default)]
pub struct HostCounters {
    /// Reads under way.
    pub busy: AtomicUsize,
    /// Transactions served for reading.
    pub reads: AtomicU64,
    /// Transactions served that may write.
    pub writes: AtomicU64,
    /// Connections to it.
    pub servers: AtomicUsize,
}

impl Host {
    /// A host with nothing counted yet.
    pub fn new(name: String, port: u16) -> Self {
        Self { name, port, counters: HostCounters::default(), wrong_instance_seen: AtomicBool::new(false) }
    }

    /// For the task that watches it: a connection has led to another server than the watched one.
    pub fn set_wrong_instance_seen(&self) {
        self.wrong_instance_seen.store(true, Relaxed);
    }

    /// Whether one has since this was last asked.
    pub fn take_wrong_instance_seen(&self) -> bool {
        self.wrong_instance_seen.swap(false, Relaxed)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}
