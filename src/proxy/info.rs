//! What the rest of the program may know of a connection while its task owns it: atomics and small locks, written
//! by the task, read by SHOW, KILL, cancel requests and the tick.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::server::Server;
use crate::clock::{self, AtomicMicros, Micros};
use crate::net::connect::Target;
use crate::net::listener::Peer;
use crate::route::host::Instance;
use crate::wire::startup::CancelKey;

/// A client, from login to goodbye.
#[derive(Debug)]
pub struct ClientInfo {
    /// Unique among all clients and servers, never used again.
    pub id: u64,
    /// What the client was told to cancel its queries with.
    pub key: CancelKey,
    /// Database as the client named it.
    pub database: Arc<str>,
    /// User name.
    pub user: Arc<str>,
    /// Where it comes from.
    pub peer: Peer,
    /// Where it connected to.
    pub local: Option<SocketAddr>,
    /// What it replicates, in SHOW's words; not set for others.
    pub replication: OnceLock<&'static str>,
    /// Version and cipher of its TLS, empty without.
    pub tls: Box<str>,
    /// When it was accepted.
    pub connected: Micros,
    /// When its last request began.
    pub requested: AtomicMicros,
    /// When it began to wait for a server, 0 if it does not.
    pub waiting_since: AtomicMicros,
    /// See [`ClientState`].
    pub state: AtomicU8,
    /// Named prepared statements it has.
    pub prepared: AtomicU32,
    /// It is at the console.
    pub admin: bool,
    /// ID of the server it has, 0 if none. A client clears this before it takes the lock on [`ServerInfo::cancels`] to
    /// give the server back: whoever holds that lock and still reads the ID here knows that the server is the client's.
    pub link: AtomicU64,
    /// Its application_name at login.
    pub application_name: Mutex<Box<str>>,
    /// The task has to look at `kill` or at its deadlines.
    pub attention: AtomicBool,
    /// A cancel request came while it was waiting.
    pub cancelled: AtomicBool,
    /// During SUSPEND: everything read from it and its server has been sent on.
    pub suspended: AtomicBool,
    /// Somebody wants it closed: why.
    pub kill: Mutex<Option<crate::error::Refusal>>,
    /// The task wants attention when this is over; 0: never.
    pub deadline: AtomicMicros,
    /// Wakes the task.
    pub waker: OnceLock<Waker>,
}

/// What a client is doing, as `SHOW CLIENTS` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ClientState {
    /// No request under way.
    Idle,
    /// Waits for a server.
    Waiting,
    /// Has a server.
    Active,
}

impl ClientInfo {
    /// A client that has just been let in.
    pub fn new(id: u64, key: CancelKey, database: Arc<str>, user: Arc<str>, peer: Peer) -> Self {
        let now = clock::now();
        Self {
            id,
            key,
            database,
            user,
            peer,
            local: None,
            replication: OnceLock::new(),
            tls: Box::default(),
            connected: now,
            requested: AtomicMicros::new(now),
            waiting_since: AtomicMicros::default(),
            state: AtomicU8::new(ClientState::Idle as u8),
            prepared: 0.into(),
            admin: false,
            link: 0.into(),
            application_name: Mutex::default(),
            attention: false.into(),
            cancelled: false.into(),
            suspended: false.into(),
            kill: Mutex::new(None),
            deadline: AtomicMicros::default(),
            waker: OnceLock::new(),
        }
    }

    /// What it is doing.
    pub fn state(&self) -> ClientState {
        match self.state.load(Relaxed) {
            0 => ClientState::Idle,
            1 => ClientState::Waiting,
            _ => ClientState::Active,
        }
    }

    /// Notes what it is doing.
    #[inline]
    pub fn set_state(&self, state: ClientState) {
        self.state.store(state as u8, Relaxed);
    }

    /// Makes the task look at what has changed.
    pub fn wake(&self) {
        self.attention.store(true, Relaxed);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Closes the client at its next opportunity.
    pub fn kill(&self, reason: crate::error::Refusal) {
        self.kill.lock().get_or_insert(reason);
        self.wake();
    }
}

/// As log lines name it.
impl fmt::Display for ClientInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "C-{:#x}: {}/{}@{}", self.id, self.database, self.user, self.peer)
    }
}

/// Why a server that has lived for `server_lifetime` is closed.
pub const SERVER_LIFETIME: &str = "server_lifetime";

/// A server connection, from the moment it is opened.
#[derive(Debug)]
pub struct ServerInfo {
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
    pub close_needed: OnceLock<&'static str>,
    /// What cancels its query.
    pub key: OnceLock<CancelKey>,
    /// What the proxy asks it in front of its client's first batch.
    pub preamble: Preamble,
    /// Cancel requests under way.
    pub cancels: Mutex<Cancels>,
    /// application_name as last reported by the server.
    pub application_name: Mutex<Box<str>>,
}

/// Cancel requests on their way to a server. While there are any, nobody else gets it: they would hit the wrong
/// query.
#[derive(Debug, Default)]
pub struct Cancels {
    /// How many.
    pub in_flight: usize,
    /// The server, if its client has finished with it meanwhile, and whether it has to be reset.
    pub parked: Option<(Box<Server>, bool)>,
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
impl fmt::Display for ServerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S-{:#x}: {}/{}@{}", self.id, self.database, self.user, self.target)
    }
}

impl ServerInfo {
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
        self.close_needed.get().is_some_and(|&reason| reason != SERVER_LIFETIME)
    }

    /// Notes what it is doing.
    #[inline]
    pub fn set_state(&self, state: ServerState) {
        self.state.store(state as u8, Relaxed);
    }
}
