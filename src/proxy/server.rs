//! A server connection: what it carries while it moves between pool and clients.

mod ask;
mod connect_error;
mod connect_query;
mod login;
mod open;
mod probe;
mod reach;
mod trial;

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub use self::ask::{Row, Rows, Wanted};
pub use self::connect_error::ConnectError;
pub(super) use self::login::{encrypt, encrypt_to};
pub use self::open::{OTHERS, move_in, open};
pub use self::probe::Probe;
use super::close::{CloseReason, HostChange, Retirement};
use super::lease::Lease;
use super::relay::Pending;
use super::server_handle::ServerHandle;
use crate::clock::{self, Micros};
use crate::net::stream::Stream;
use crate::route::cluster::{Cluster, Purpose};
use crate::session::forward::ServerSession;
use crate::session::parameters::Parameters;
use crate::wire::write;

/// How much a server may have said while no client had it: it may have reported settings that have changed, or sent notices.
const MAX_IDLE: usize = 64 * 1024;
/// As long as a busy runtime takes to learn of an event.
const MOMENT: Duration = Duration::from_millis(1);

/// A logged-in server connection.
#[derive(Debug)]
pub struct Server {
    /// The socket.
    pub stream: Stream,
    /// Replies owed, prepared statements, parameters.
    pub session: ServerSession,
    /// What the socket did not take yet.
    pub pending: Pending,
    /// The beginning of a frame whose end has not come.
    pub carry: Vec<u8>,
    /// What others may know of it.
    pub info: Arc<ServerHandle>,
    /// What it is good for.
    pub purpose: Purpose,
    /// A client has had it: what was just opened need not be checked.
    pub used: bool,
    /// When it was last given back.
    pub idle_since: Micros,
    /// Its place in the pool.
    pub lease: Lease<Box<Self>>,
    /// What was last found out of its host.
    verdict: Cell<Verdict>,
}

/// What a connection's host is good for, at a revision of what is known of the database's hosts.
#[derive(Clone, Copy, Debug, Default)]
struct Verdict {
    /// `None`: never worked out.
    revision: Option<u64>,
    must_go: Option<HostChange>,
    is_unwatched: bool,
}

impl Server {
    /// A connection that is in order and at rest.
    fn new(
        stream: Stream,
        parameters: Parameters,
        lease: Lease<Box<Self>>,
        info: Arc<ServerHandle>,
    ) -> Box<Self> {
        let mut server = Box::new(Self {
            stream,
            session: ServerSession::new(parameters),
            pending: Pending::default(),
            carry: Vec::new(),
            purpose: lease.purpose(),
            used: false,
            idle_since: clock::now(),
            lease,
            info,
            verdict: Cell::default(),
        });
        server.stream.use_uring();
        server.note_application_name();
        server
    }

    /// Why it must not be used again; `None`: it may.
    #[inline]
    pub fn must_go(&self) -> Option<CloseReason> {
        if let Some(&why) = self.info.close_needed.get() {
            return Some(why.into());
        }
        self.verdict().must_go.map(CloseReason::HostChanged)
    }

    /// What its host is good for, worked out anew when that may have changed. HOT: for one load of an atomic.
    #[inline]
    fn verdict(&self) -> Verdict {
        let Some((cluster, host)) = self.lease.host().filter(|(cluster, _)| cluster.split) else {
            return Verdict::default();
        };
        let revision = self.lease.hosts().map(|hosts| hosts.revision());
        let known = self.verdict.get();
        if known.revision == revision { known } else { self.judge(cluster, host) }
    }

    #[cold]
    fn judge(&self, cluster: &Arc<Cluster>, host: usize) -> Verdict {
        // Connections to hosts that have been replaced are marked to be closed.
        let Some(topology) = self.lease.hosts().and_then(|hosts| hosts.load_of(cluster)) else {
            return Verdict::default();
        };
        let state = &topology.hosts[host];
        let must_go = if topology.suits(host, self.purpose) {
            None
        } else if state.seen.closing {
            Some(HostChange::Closes)
        } else {
            Some(HostChange::OtherRole)
        };
        let is_unwatched =
            self.purpose != Purpose::Write && state.is_other(self.info.instance.get().copied());
        let verdict = Verdict { revision: Some(topology.revision), must_go, is_unwatched };
        self.verdict.set(verdict);
        verdict
    }

    /// Whether nothing will come from it any more, for its host is silent and another one has taken its place.
    pub fn is_lost(&self) -> bool {
        let of_split = self.lease.host().filter(|(cluster, _)| cluster.split);
        of_split.is_some_and(|(cluster, host)| {
            let topology = self.lease.hosts().and_then(|hosts| hosts.load_of(cluster));
            topology.is_some_and(|topology| topology.hosts[host].is_lost)
        })
    }

    /// Whether it leads to another server than the one of which it is known what it has replayed.
    #[inline]
    pub fn is_unwatched(&self) -> bool {
        self.purpose != Purpose::Write && self.verdict().is_unwatched
    }

    /// Somebody gets it who sends it queries. If the lifetime of servers is zero, nobody will after that.
    #[inline]
    pub fn begin_use(&mut self, server_lifetime: Duration) {
        self.used = true;
        if server_lifetime.is_zero() {
            let _ = self.info.close_needed.set(Retirement::Lifetime);
        }
    }

    /// Closes the connection and logs why. If that casts doubt on its host, the host is asked.
    pub fn close(self: Box<Self>, reason: impl Into<CloseReason>) {
        let reason = reason.into();
        self.info.preamble.end();
        self.log_close(reason.words());
        if reason.casts_doubt_on_host() {
            self.lease.recheck_hosts();
        }
    }

    /// Logs why it is being closed.
    fn log_close(&self, reason: &str) {
        let age = clock::now().since(self.info.connected).as_secs();
        tracing::info!("{} closing because: {reason} (age={age}s)", self.info);
    }

    /// For SHOW: the application_name it has reported last.
    pub fn note_application_name(&self) {
        let name = self.session.parameters.get(b"application_name").unwrap_or_default();
        *self.info.application_name.lock() = String::from_utf8_lossy(name).into();
    }

    /// Takes what the server has said while nobody had it; `Err` says why it must be closed. Costs no system call if nothing
    /// came, or if it was given back a moment ago: from then on, it might as well say it to the next client.
    pub fn drain_idle(&mut self, now: Micros, buf: &mut [u8]) -> Result<(), CloseReason> {
        if now.since(self.idle_since) < MOMENT && self.stream.must_be_asked() {
            return Ok(());
        }
        let mut said = 0;
        loop {
            match self.stream.try_read(buf) {
                Ok(0) => return Err(CloseReason::Crashed),
                Ok(_) if said > MAX_IDLE => {
                    return Err(CloseReason::Lost("server says too much while idle".into()));
                }
                Ok(n) => {
                    said += n;
                    self.carry.extend_from_slice(&buf[..n]);
                    let used = self.session.on_idle_bytes(&self.carry);
                    let used = used.map_err(|fault| CloseReason::Lost(fault.to_string()))?;
                    self.carry.drain(..used);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(CloseReason::Lost(e.to_string())),
            }
        }
        if self.carry.is_empty() {
            Ok(())
        } else {
            Err(CloseReason::Lost("incomplete message while idle".into()))
        }
    }

    /// Runs a query of the proxy's own on a settled server.
    pub async fn run(&mut self, sql: &str) -> Result<(), String> {
        let mut message = Vec::new();
        write::query(&mut message, sql.as_bytes());
        self.ask(message, Wanted::Nothing).await.map(drop)
    }

    /// Looks something up, by a query with one parameter, in the extended protocol: the row found, in text form.
    pub async fn look_up(&mut self, sql: &str, parameter: &str) -> Result<Option<Row>, String> {
        let mut message = Vec::new();
        write::query_with_parameter(&mut message, sql.as_bytes(), parameter.as_bytes());
        Ok(self.ask(message, Wanted::Row).await?.pop())
    }

    async fn ask(&mut self, message: Vec<u8>, wanted: Wanted) -> Result<Rows, String> {
        let session = &mut self.session;
        ask::ask(&mut self.stream, message, wanted, |tag, body| {
            session.note(tag, body).map_err(|e| e.to_string())
        })
        .await
    }
}
