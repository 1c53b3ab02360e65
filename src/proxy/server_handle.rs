//! What the rest of the program may know of a server connection while a client's task or a pool owns it: atomics and small
//! locks, read by SHOW, cancel requests and housekeeping.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::close::Retirement;
use crate::clock::{AtomicMicros, Micros};
use crate::net::connect::Target;
use crate::route::host::Instance;
use crate::wire::startup::CancelKey;

/// A server connection, from the moment it is opened.
#[derive(Debug)]
pub struct ServerHandle {
    /// Unique among all clients and servers, never used again.
    pub id: u64,
    /// Database as clients name it.
    pub database: Arc<str>,
    /// User it is logged in as.
    pub user: Arc<str>,
    /// Where it listens.
    pub target: Target,
    /// Index in the database's host list.
    pub host: usize,
    /// Which of the servers it leads to that the host's name may mean, if it says so. For databases with `read_write_split`.
    pub instance: OnceLock<Instance>,
    /// The server's end of the connection; not set for Unix sockets.
    pub remote: OnceLock<SocketAddr>,
    /// The pooler's end of the connection.
    pub local: OnceLock<SocketAddr>,
    /// When it was opened.
    pub connected: Micros,
    /// When it was last given to a client.
    pub requested: AtomicMicros,
    /// See [`ServerState`].
    pub state: AtomicU8,
    /// The client that has it, 0 if none.
    pub link: AtomicU64,
    /// Prepared statements it has.
    pub prepared: AtomicU32,
    /// What its client replicates, in SHOW's words; not set for others.
    pub replication: OnceLock<&'static str>,
    /// Version and cipher of its TLS; not set without.
    pub tls: OnceLock<Box<str>>,
    /// Why it is to be closed as soon as nobody uses it.
    pub close_needed: OnceLock<Retirement>,
    /// What cancels its query.
    pub key: OnceLock<CancelKey>,
    /// What the proxy asks it in front of its client's first batch.
    pub preamble: Preamble,
    /// How many cancel requests are on their way to it. While there are any, no other client gets it: they would hit the wrong
    /// query.
    pub cancels: Mutex<usize>,
    /// application_name as last reported by the server.
    pub application_name: Mutex<Box<str>>,
}

/// Queries of the proxy's own that a server is asked in front of its client's first batch: parameters to set, a check. A
/// cancel request would hit them, so it waits until they are answered.
#[derive(Debug, Default)]
pub struct Preamble {
    is_asked: AtomicBool,
    answered: Notify,
}

impl Preamble {
    /// The queries are about to be sent. Call this before the client is linked to the server.
    pub fn begin(&self) {
        self.is_asked.store(true, Release);
    }

    /// They are answered, or never will be.
    pub fn end(&self) {
        if self.is_asked.swap(false, Release) {
            self.answered.notify_waiters();
        }
    }

    /// Waits until none is under way.
    pub async fn ended(&self) {
        loop {
            // It counts from here on, not from the first poll: no end is missed.
            let answered = self.answered.notified();
            if !self.is_asked.load(Acquire) {
                return;
            }
            answered.await;
        }
    }
}

/// What a server is doing, as `SHOW SERVERS` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ServerState {
    /// Being logged in to.
    Login,
    /// Nobody has it.
    Idle,
    /// A client has it.
    Active,
    /// It is being reset or checked.
    Tested,
    /// Its client has left, a cancel request for it has not arrived yet.
    BeingCanceled,
}

impl ServerState {
    /// PgBouncer's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "new",
            Self::Idle => "idle",
            Self::Active => "active",
            Self::Tested => "tested",
            Self::BeingCanceled => "being_canceled",
        }
    }
}

/// As log lines name it.
impl fmt::Display for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S-{:#x}: {}/{}@{}", self.id, self.database, self.user, self.target)
    }
}

impl ServerHandle {
    /// What it is doing.
    pub fn state(&self) -> ServerState {
        match self.state.load(Relaxed) {
            0 => ServerState::Login,
            1 => ServerState::Idle,
            2 => ServerState::Active,
            3 => ServerState::Tested,
            _ => ServerState::BeingCanceled,
        }
    }

    /// Whether it is to be closed because it is no longer what the configuration asks for, and not for its age.
    pub fn is_obsolete(&self) -> bool {
        self.close_needed.get().is_some_and(|why| why.is_obsolete())
    }

    /// Notes what it is doing.
    #[inline]
    pub fn set_state(&self, state: ServerState) {
        self.state.store(state as u8, Relaxed);
    }
}
