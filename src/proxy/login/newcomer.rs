//! A connection on its way in, and what is found out about it step by step.

use std::net::SocketAddr;
use std::sync::Arc;

use super::replication_mode::Replication;
use crate::auth::exchange::{Account, Learned};
use crate::auth::scram::ChannelBinding;
use crate::clock::Micros;
use crate::metrics::stats::Stats;
use crate::net::listener::Peer;
use crate::net::received::Received;
use crate::net::stream::Stream;
use crate::pool::limits::Permit;
use crate::proxy::client_handle::ClientHandle;
use crate::proxy::newcomers::Place;
use crate::proxy::pools::Pool;
use crate::proxy::server::Server;
use crate::proxy::shared::Shared;
use crate::session::forward::ClientSession;
use crate::wire::startup::{CancelKey, Session};

/// A connection of which nothing is known yet.
pub(super) struct Newcomer {
    pub(super) shared: Arc<Shared>,
    pub(super) worker: usize,
    pub(super) stream: Stream,
    /// What it has sent ahead.
    pub(super) received: Received,
    pub(super) peer: Peer,
    pub(super) local: Option<SocketAddr>,
    pub(super) connected: Micros,
    pub(super) id: u64,
    /// Its place among those that have not logged in, until it has.
    pub(super) place: Option<Place>,
    /// What its TLS is, if it has one.
    pub(super) tls: Option<Encrypted>,
    /// It brings a cancel request.
    pub(super) cancel: Option<CancelKey>,
}

/// What is known of a client's TLS.
pub(super) struct Encrypted {
    /// Version and cipher.
    pub(super) description: String,
    pub(super) binding: ChannelBinding,
}

/// Somebody who has proved who they are.
pub(super) struct Identity {
    /// The user's name, if `auth_query` has given another one than the client.
    pub(super) user: Option<String>,
    /// What `auth_query` has found.
    pub(super) found: Option<Arc<Account>>,
    /// What the proof has revealed.
    pub(super) learned: Learned,
}

/// Somebody who has proved who they are (`identity`), or is the process's own user at the console.
pub(super) struct Identified {
    pub(super) session: Session,
    pub(super) replication: Replication,
    /// A process that wants to take over from this one.
    pub(super) takes_over: bool,
    pub(super) identity: Option<Identity>,
    /// What was not sent yet: the last words of the authentication.
    pub(super) out: Vec<u8>,
}

pub(super) enum Prepared {
    Successor,
    Client {
        info: Arc<ClientHandle>,
        pool: Arc<Pool>,
        session: ClientSession,
        untried_parameters: bool,
        permits: [Permit; 3],
    },
    Replication {
        info: Arc<ClientHandle>,
        server: Box<Server>,
        stats: Arc<Stats>,
        permits: [Permit; 3],
    },
    Console {
        info: Arc<ClientHandle>,
        is_admin: bool,
        greeting: Vec<u8>,
        permits: [Permit; 2],
    },
}
