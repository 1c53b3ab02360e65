//! A client's first moments: what does it want, who is it, and may it?
//!
//! Nothing is allocated on the word of somebody unknown, everything before the end of authentication must be over
//! within `client_login_timeout`, and an unknown user or database makes no difference that could be seen before
//! the right password has been given.
//!
//! In the order in which it happens: `first_packets` (what for, and TLS), `claim` (as which user), `authenticate` (is it so),
//! `lookup` (`auth_query`), `welcome` (a place), `waiting` (for a server), `chosen` (parameters), `replication` (a server for
//! this client alone). `newcomer` is the connection and what has been found out of it, `failure` why it is turned away.

mod authenticate;
mod chosen;
mod claim;
mod console;
mod failure;
mod first_packets;
mod log;
mod lookup;
mod newcomer;
mod replication;
mod replication_mode;
mod waiting;
mod welcome;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

pub use self::console::{ConsoleLogin, ServeConsole};
use super::cancel;
use super::client::{Client, LoggedIn};
use super::newcomers::Place;
use super::shared::{CONSOLE, Shared};
use super::takeover;
use super::tunnel::{ReplicationLogin, Tunnel};
use super::worker::Load;
use crate::clock::{self};
use crate::error::{Refusal, sqlstate};
use crate::net::descriptors::Channel;
use crate::net::listener::Peer;
use crate::net::received::Received;
use crate::net::stream::Stream;
use crate::wire::startup::{PROTOCOL_3_0, PROTOCOL_3_2};
use crate::wire::write;
use claim::Claim;
use failure::Failure;
use newcomer::{Identified, Newcomer, Prepared};
use replication_mode::Replication;

/// In the log, for a connection that has not said what it wants.
const NO_DATABASE: &str = "(nodb)";
const NO_USER: &str = "(nouser)";

/// A connection that has just been accepted.
pub struct Arrival {
    /// Its number among all connections.
    pub id: u64,
    /// Where it comes from.
    pub peer: Peer,
    /// Where it connected to.
    pub local: Option<SocketAddr>,
    /// What it counts for at its worker.
    pub load: Load,
    /// Its place among those that have not logged in.
    pub place: Place,
    /// What serves it if it is for the console.
    pub serve_console: ServeConsole,
}

/// Serves an accepted connection until it is closed.
pub fn serve(shared: Arc<Shared>, arrival: Arrival, stream: Stream) -> impl Future<Output = ()> {
    let Arrival { id, peer, local, load, place, serve_console } = arrival;
    let mut newcomer = Newcomer {
        shared: Arc::clone(&shared),
        worker: load.worker,
        stream,
        received: Received::default(),
        peer,
        local,
        connected: clock::now(),
        id,
        place: Some(place),
        tls: None,
        cancel: None,
    };
    Connection::LoggingIn(Box::pin(async move {
        let prepared = newcomer.log_in().await?;
        Some(newcomer.enter(prepared).connection(shared, load, serve_console))
    }))
}

/// An accepted connection. Not an `async` block: what comes after the login would take more memory there, and has to be small
/// for clients.
#[expect(
    clippy::large_enum_variant,
    reason = "most connections are clients, and a box more would cost each of them"
)]
enum Connection {
    /// Has memory of its own: it needs much more than what comes after it. It is less than a kilobyte, up to which allocators
    /// are quick: what few logins need is boxed apart.
    LoggingIn(Pin<Box<dyn Future<Output = Option<Self>>>>),
    Client(Client),
    Other(Pin<Box<dyn Future<Output = ()>>>),
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let next = match &mut *self {
                Self::LoggingIn(login) => ready!(login.as_mut().poll(cx)),
                Self::Client(client) => return Pin::new(client).poll(cx),
                Self::Other(other) => return other.as_mut().poll(cx),
            };
            match next {
                Some(next) => *self = next,
                None => return Poll::Ready(()),
            }
        }
    }
}

/// What became of a newcomer.
enum Entry {
    Successor(Stream),
    Client(Box<LoggedIn>),
    Replication(Box<ReplicationLogin>),
    Console(Box<ConsoleLogin>),
}

impl Entry {
    fn connection(self, shared: Arc<Shared>, load: Load, serve_console: ServeConsole) -> Connection {
        match self {
            Self::Client(login) => Connection::Client(Client::new(shared, load, *login)),
            Self::Replication(login) => {
                let tunnel = Tunnel::new(shared, load, *login);
                Connection::Other(Box::pin(async { drop(tunnel.await) }))
            }
            Self::Successor(stream) => Connection::Other(Box::pin(async move {
                let load = load;
                if let Stream::Unix(stream) = stream {
                    takeover::serve(shared, load.worker, Channel::new(stream)).await;
                }
            })),
            Self::Console(console) => Connection::Other(Box::pin(async move {
                let _load = load;
                serve_console(shared, *console).await;
            })),
        }
    }
}

impl Newcomer {
    /// Everything up to ReadyForQuery. `None`: there is no session to go on with.
    async fn log_in(&mut self) -> Option<Prepared> {
        let mut claim = None;
        let failure = match self.attempt(&mut claim).await {
            Ok(Some(prepared)) => return Some(prepared),
            Ok(None) => None,
            Err(failure) => Some(Box::new(failure)),
        };
        match failure {
            None => self.pass_cancel_request_on().await,
            Some(failure) => Box::pin(self.turn_away(claim.as_ref(), *failure)).await,
        }
        None
    }

    async fn turn_away(&mut self, claim: Option<&Claim>, failure: Failure) {
        let reason = match &failure {
            Failure::Silent(reason) => reason,
            Failure::Refused(refusal) => refusal.reason(),
        };
        let (database, user) = claim.map_or((NO_DATABASE, NO_USER), |c| (&c.database, &c.user));
        self.log_turned_away(database, user, reason);
        self.log_close(database, user, reason);
        if let Failure::Refused(refusal) = &failure {
            let peer = self.peer;
            self.shared.log_pooler_error(format_args!("C-{:#x}: {database}/{user}@{peer}", self.id), refusal);
            let mut out = Vec::new();
            write::fatal(&mut out, refusal);
            let _ = tokio::time::timeout(Duration::from_secs(1), self.stream.write_all(&out)).await;
        }
    }

    fn log_close(&self, database: &str, user: &str, reason: &str) {
        if self.shared.config.load().settings.log_disconnections {
            let age = clock::now().since(self.connected).as_secs();
            let peer = self.peer;
            tracing::info!(
                "C-{:#x}: {database}/{user}@{peer} closing because: {reason} (age={age}s)",
                self.id
            );
        }
    }

    async fn pass_cancel_request_on(&self) {
        if let Some(key) = &self.cancel {
            let outcome = Box::pin(cancel::request(&self.shared, self.worker, key)).await;
            self.log_close(outcome.database.as_deref().unwrap_or(NO_DATABASE), NO_USER, outcome.reason);
        }
    }

    /// The login as far as it goes well. `None`: this is a cancel request.
    async fn attempt(&mut self, claim: &mut Option<Claim>) -> Result<Option<Prepared>, Failure> {
        let limit = self.shared.config.load().settings.client_login_timeout;
        let limit = if limit.is_zero() { Duration::from_secs(u32::MAX.into()) } else { limit };
        let timeout = || Refusal::protocol("client_login_timeout");
        let deadline = tokio::time::Instant::now() + limit;
        let Some(place) = self.place.take() else { unreachable!("has one from the beginning") };
        let identified = tokio::select! {
            biased;
            refusal = place.lost() => return Err(refusal.into()),
            identified = tokio::time::timeout_at(deadline, self.identify(&place, claim)) =>
                identified.map_err(|_| timeout())??,
        };
        drop(place);
        let (Some(mut identified), Some(claim)) = (identified, claim) else { return Ok(None) };
        // From here on the client waits for a server, for which `query_wait_timeout` is the limit.
        self.welcome(claim, &mut identified).await.map(Some)
    }

    /// Finds out who it is.
    async fn identify(
        &mut self,
        place: &Place,
        claim: &mut Option<Claim>,
    ) -> Result<Option<Identified>, Failure> {
        let Some(session) = self.startup(place).await? else { return Ok(None) };
        place.works();
        let config = self.shared.config.load_full();
        let claim = claim.insert(Claim::of(&session)?);
        claim.check_lengths(&config)?;
        let claim = &*claim;
        let mut out = Vec::new();
        let is_own_user = claim.database == CONSOLE && claim.user == CONSOLE && self.is_own_process();
        let known = |option: &[u8]| is_own_user && option == takeover::message::OPTION.as_bytes();
        let takes_over = session.options().any(known);
        let unknown: Vec<_> = session.options().filter(|option| !known(option)).collect();
        if session.protocol > PROTOCOL_3_2 || !unknown.is_empty() || session.protocol == PROTOCOL_3_0 + 1 {
            let newest = if session.protocol > PROTOCOL_3_2 {
                PROTOCOL_3_2
            } else {
                PROTOCOL_3_0.max(session.protocol & !1)
            };
            write::negotiate_protocol_version(&mut out, newest, &unknown);
        }
        let replication = Replication::of(&session)?;
        if config.settings.log_connections {
            let peer = self.peer;
            tracing::info!(
                "C-{:#x}: {}/{}@{peer} login attempt: db={} user={} tls={} replication={}",
                self.id,
                claim.database,
                claim.user,
                claim.database,
                claim.user,
                self.tls.as_ref().map_or("no", |tls| &tls.description),
                replication.name()
            );
        }
        // Who has been accepted here gets in, and goes to the process that has taken over as soon as that is done.
        let refuses = self.shared.is_shutting_down() && self.shared.successor().is_none();
        if refuses && claim.database != CONSOLE {
            return Err(Refusal::new(sqlstate::CANNOT_CONNECT_NOW, "pooler is shutting down").into());
        }
        let physical = replication == Replication::Physical;
        let identity = match is_own_user {
            true => None,
            false => Some(self.authenticate(&config, place, claim, physical, &mut out).await?),
        };
        Ok(Some(Identified { session, replication, takes_over, identity, out }))
    }

    /// The process at the other end of a Unix socket runs as the same user as this one: it may do as it likes.
    fn is_own_process(&self) -> bool {
        matches!(self.peer, Peer::Unix { uid, .. } if uid == nix::unistd::geteuid().as_raw())
    }

    fn enter(self, prepared: Prepared) -> Entry {
        match prepared {
            Prepared::Successor => Entry::Successor(self.stream),
            Prepared::Client { info, pool, session, untried_parameters, permits } => {
                Entry::Client(Box::new(LoggedIn {
                    stream: self.stream,
                    received: self.received.into_rest(),
                    info,
                    pool,
                    session,
                    untried_parameters,
                    permits,
                }))
            }
            Prepared::Replication { info, server, stats, permits } => {
                Entry::Replication(Box::new(ReplicationLogin {
                    stream: self.stream,
                    received: self.received.into_rest(),
                    info,
                    server,
                    stats,
                    permits,
                }))
            }
            Prepared::Console { info, is_admin, greeting, permits } => {
                Entry::Console(Box::new(ConsoleLogin {
                    stream: self.stream,
                    received: self.received.into_rest(),
                    info,
                    is_admin,
                    greeting,
                    permits,
                }))
            }
        }
    }
}
