//! What the rest of the program may know of a client while its task owns it: atomics and small locks, written by the task, read
//! by SHOW, KILL, cancel requests and the tick.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::attention::Attention;
use crate::clock::{self, AtomicMicros, Micros};
use crate::net::listener::Peer;
use crate::wire::startup::CancelKey;

/// A client, from login to goodbye.
#[derive(Debug)]
pub struct ClientHandle {
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
    /// ID of the server it has, 0 if none. A client clears this before it takes the lock on [`ServerHandle::cancels`](super::server_handle::ServerHandle::cancels) to
    /// give the server back: whoever holds that lock and still reads the ID here knows that the server is the client's.
    pub link: AtomicU64,
    /// Its application_name at login.
    pub application_name: Mutex<Box<str>>,
    /// Makes the task look at `kill`, `cancelled` and its deadlines.
    pub attention: Attention,
    /// A cancel request came while it was waiting.
    pub cancelled: AtomicBool,
    /// During SUSPEND: everything read from it and its server has been sent on.
    pub suspended: AtomicBool,
    /// Somebody wants it closed: why.
    pub kill: Mutex<Option<crate::error::Refusal>>,
    /// The task wants attention when this is over; 0: never.
    pub deadline: AtomicMicros,
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

impl ClientHandle {
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
            attention: Attention::default(),
            cancelled: false.into(),
            suspended: false.into(),
            kill: Mutex::new(None),
            deadline: AtomicMicros::default(),
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
        self.attention.call();
    }

    /// Closes the client at its next opportunity.
    pub fn kill(&self, reason: crate::error::Refusal) {
        self.kill.lock().get_or_insert(reason);
        self.wake();
    }
}

/// As log lines name it.
impl fmt::Display for ClientHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "C-{:#x}: {}/{}@{}", self.id, self.database, self.user, self.peer)
    }
}
