//! A server connection: how it is opened, and what it carries while it moves between pool and clients.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::watch;

use super::info::{ServerInfo, ServerState};
use super::pools::{Pool, Slot};
use super::settings;
use super::shared::Shared;
use super::takeover::MovedServer;
use crate::auth::scram::ChannelBinding;
use crate::auth::server_login::{BackendAuth, ServerAuth, ServerAuthError, Step};
use crate::clock::{self, Micros};
use crate::config::Consistency;
use crate::error::{Refusal, sqlstate};
use crate::net::connect::{self, Target};
use crate::net::listener::Peer;
use crate::net::received::Received;
use crate::net::stream::Stream;
use crate::net::tls::certificate;
use crate::route::cluster::{Cluster, Purpose};
use crate::route::host::{Host, Role};
use crate::session::forward::{self, ServerSession};
use crate::session::parameters::Parameters;
use crate::wire::startup::{Parameter, SSL_REQUEST};
use crate::wire::{backend, write};

/// Longest message taken from a server during login or in answer to a query of our own.
const MAX_MESSAGE: usize = 1 << 20;
/// How often another of the servers is met that a name means before we give up, for now.
pub(super) const OTHERS: usize = 8;
/// The server did not let us in within `server_connect_timeout`.
const LOGIN_TIMEOUT: &str = "connect timeout";

/// A logged-in server connection.
#[derive(Debug)]
pub struct Server {
    /// The socket.
    pub stream: Stream,
    /// Replies owed, prepared statements, parameters.
    pub session: ServerSession,
    /// Bytes the socket did not take yet.
    pub pending: Vec<u8>,
    /// The beginning of a frame whose end has not come.
    pub carry: Vec<u8>,
    /// What others may know of it.
    pub info: Arc<ServerInfo>,
    /// What it is good for.
    pub purpose: Purpose,
    /// A client has had it: what was just opened need not be checked.
    pub used: bool,
    /// When it was last given back.
    pub idle_since: Micros,
    /// Its place in the pool.
    pub slot: Slot,
}

/// Why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server cannot be reached, or is not ready: worth another try.
    #[error("{0}")]
    Unreachable(String),
    /// It lets nobody in for now: it starts up or shuts down.
    #[error("{0}")]
    NotNow(String),
    /// It has as many connections as it can have: worth another try.
    #[error("{0}")]
    Full(String),
    /// The server refused the login.
    #[error("{0}")]
    Refused(Refusal),
    /// It is not what was looked for: a standby where the primary was wanted, or the other way round.
    #[error("is a {}", .0.name())]
    WrongRole(Role),
    /// The name means several servers, and this is not the one of which it is known what it has replayed.
    #[error("is another server than the one that is watched")]
    OtherServer,
    /// While it said nothing, another host took its place.
    #[error("is not used any more")]
    Moved,
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error.to_string())
    }
}

impl Server {
    /// The pool it belongs to.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.slot.pool
    }

    /// A connection that is in order and at rest.
    fn new(stream: Stream, parameters: Parameters, slot: Slot, info: Arc<ServerInfo>) -> Box<Self> {
        let server = Box::new(Self {
            stream,
            session: ServerSession::new(parameters),
            pending: Vec::new(),
            carry: Vec::new(),
            purpose: slot.purpose,
            used: false,
            idle_since: clock::now(),
            slot,
            info,
        });
        server.note_application_name();
        server
    }

    /// Why it must not be used again; `None`: it may.
    #[inline]
    pub fn must_go(&self) -> Option<&'static str> {
        if let Some(&reason) = self.info.close_needed.get() {
            return Some(reason);
        }
        let (cluster, host) = self.slot.host()?;
        if cluster.suits(host, self.purpose) {
            None
        } else if cluster.hosts[host].is_closing() {
            Some("host takes no connections now")
        } else {
            Some("host has another role now")
        }
    }

    /// Whether nothing will come from it any more, for its host is silent and another one has taken its place.
    pub fn is_lost(&self) -> bool {
        self.slot.host().is_some_and(|(cluster, host)| cluster.is_lost(host))
    }

    /// Whether it leads to another server than the one of which it is known what it has replayed.
    #[inline]
    pub fn is_unwatched(&self) -> bool {
        let watched = self.slot.host().map_or(0, |(cluster, host)| cluster.hosts[host].instance());
        self.purpose != Purpose::Write && watched != 0 && self.info.instance.load(Relaxed) != watched
    }

    /// Closes the connection and logs why.
    pub fn close(self: Box<Self>, reason: &str) {
        self.log_close(reason);
    }

    /// Logs why it is being closed.
    pub fn log_close(&self, reason: &str) {
        let age = clock::now().since(self.info.connected).as_secs();
        tracing::info!("{} closing because: {reason} (age={age}s)", self.info);
    }

    /// For SHOW: the application_name it has reported last.
    pub fn note_application_name(&self) {
        let name = self.session.parameters.get(b"application_name").unwrap_or_default();
        *self.info.application_name.lock() = String::from_utf8_lossy(name).into();
    }

    /// Takes what the server has said while nobody had it; `Err` says why it must be closed. Costs no system
    /// call if nothing came.
    pub fn drain_idle(&mut self, buf: &mut [u8]) -> Result<(), String> {
        loop {
            match self.stream.try_read(buf) {
                Ok(0) => return Err("server conn crashed?".into()),
                Ok(n) => {
                    self.carry.extend_from_slice(&buf[..n]);
                    let used = self.session.on_idle_bytes(&self.carry).map_err(|fault| fault.to_string())?;
                    self.carry.drain(..used);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e.to_string()),
            }
        }
        if self.carry.is_empty() { Ok(()) } else { Err("incomplete message while idle".into()) }
    }

    /// Runs a query of the proxy's own on a settled server and returns the rows, in text form.
    pub async fn run(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
        let mut message = Vec::new();
        write::query(&mut message, sql.as_bytes());
        self.ask(message).await
    }

    /// The same with one parameter, by the extended protocol.
    pub async fn run_with(&mut self, sql: &str, parameter: &str) -> Result<Vec<Vec<Option<String>>>, String> {
        let mut message = Vec::new();
        write::query_with_parameter(&mut message, sql.as_bytes(), parameter.as_bytes());
        self.ask(message).await
    }

    async fn ask(&mut self, message: Vec<u8>) -> Result<Vec<Vec<Option<String>>>, String> {
        let session = &mut self.session;
        ask(&mut self.stream, message, |body| session.report(body).map_err(|e| e.to_string())).await
    }
}

/// A connection that belongs to no pool: it only asks a host what it is.
#[derive(Debug)]
pub struct Probe {
    stream: Stream,
}

impl Probe {
    /// Connects to one of the hosts of a pool's database, as the pool would.
    pub async fn open(
        shared: &Shared,
        pool: &Pool,
        cluster: &Cluster,
        host: usize,
    ) -> Result<Self, ConnectError> {
        let target = Target { host: cluster.hosts[host].name.clone(), port: cluster.hosts[host].port };
        let info = shared.server_info(pool, target, host);
        let stream = reach(shared, pool, &info).await?;
        let opened = login(shared, pool, &info, stream, &[]).await;
        note_access(&cluster.hosts[host], &opened);
        opened.map(|(stream, _)| Self { stream })
    }

    /// Runs a query and returns the rows, in text form.
    pub async fn run(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
        let mut message = Vec::new();
        write::query(&mut message, sql.as_bytes());
        ask(&mut self.stream, message, |_| Ok(())).await
    }

    /// Runs a query whose answer is a number; 0: there is none.
    pub async fn number(&mut self, sql: &str) -> u64 {
        number(self.run(sql).await)
    }

    /// Which server it leads to; 0: it does not say.
    pub async fn instance(&mut self) -> u64 {
        instance(&mut self.stream).await
    }
}

/// Tells the servers apart that a name may mean: by when they were started, to the microsecond.
async fn instance(stream: &mut Stream) -> u64 {
    let sql =
        b"SELECT (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8";
    let mut message = Vec::new();
    write::query(&mut message, sql);
    number(ask(stream, message, |_| Ok(())).await)
}

/// The first value; 0: there is none, or it is no number.
fn number(answer: Result<Vec<Vec<Option<String>>>, String>) -> u64 {
    let text = answer.unwrap_or_default().into_iter().flatten().next().flatten();
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Sends a request and collects its rows.
async fn ask(
    stream: &mut Stream,
    mut message: Vec<u8>,
    mut report: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<Vec<Vec<Option<String>>>, String> {
    stream.write_all(&message).await.map_err(|e| e.to_string())?;
    let mut received = Received::default();
    let mut rows = Vec::new();
    let mut failure = None;
    loop {
        let tag = received.frame(stream, &mut message, MAX_MESSAGE).await.map_err(|e| e.to_string())?;
        let body = message.as_slice();
        match tag {
            b'D' => rows.push(row(body).ok_or("malformed DataRow")?),
            b'E' => failure = Some(backend::error_fields(body).text()),
            b'S' => report(body)?,
            b'Z' if body == b"I" && received.is_empty() => break,
            b'Z' => return Err("query left a transaction open, or more to say".into()),
            b'G' => return Err("query asks for COPY data".into()),
            _ => {}
        }
    }
    failure.map_or(Ok(rows), Err)
}

impl std::fmt::Display for ServerInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S-{:#x}: {}/{}@{}", self.id, self.database, self.user, self.target)
    }
}

fn row(body: &[u8]) -> Option<Vec<Option<String>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut values = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (len, after) = rest.split_first_chunk::<4>()?;
        match usize::try_from(i32::from_be_bytes(*len)) {
            Err(_) => {
                values.push(None);
                rest = after;
            }
            Ok(len) => {
                let (value, after) = after.split_at_checked(len)?;
                values.push(Some(String::from_utf8_lossy(value).into_owned()));
                rest = after;
            }
        }
    }
    Some(values)
}

/// Opens a connection to one of the pool's hosts, trying them in the order the cluster proposes. `own`: startup parameters
/// of the one client that will have it; none for connections that clients share.
pub async fn open(
    shared: &Shared,
    slot: Slot,
    own: &[Parameter],
) -> Result<Box<Server>, (ConnectError, Slot)> {
    let cluster = slot.pool.database.cluster();
    let mut failure = ConnectError::Unreachable("no host serves this purpose".into());
    let mut others = 0;
    let mut moves = slot.pool.database.moves();
    let mut candidates: VecDeque<usize> = cluster.candidates(slot.purpose).into();
    while let Some(host) = candidates.pop_front() {
        let target = Target { host: cluster.hosts[host].name.clone(), port: cluster.hosts[host].port };
        let info = Arc::new(shared.server_info(&slot.pool, target, host));
        let opened = tokio::select! {
            opened = open_at(shared, &slot, &cluster, &info, own) => opened,
            () = moved(&cluster, &mut moves, host, slot.purpose) => Err(ConnectError::Moved),
        };
        match opened {
            Ok((stream, parameters)) => {
                info.set_state(ServerState::Idle);
                cluster.connected(host);
                if !Arc::ptr_eq(&cluster, &slot.pool.database.cluster()) {
                    let _ = info.close_needed.set(settings::HOSTS_CHANGED);
                }
                let slot = slot.occupied(shared, Arc::clone(&info), cluster);
                return Ok(Server::new(stream, parameters, slot, info));
            }
            Err(error) => {
                match error {
                    ConnectError::Moved if slot.purpose == Purpose::Write => {
                        candidates = cluster.candidates(slot.purpose).into();
                    }
                    ConnectError::OtherServer if others < OTHERS => {
                        others += 1;
                        candidates.push_front(host);
                    }
                    ConnectError::OtherServer => {
                        cluster.hosts[host].set_elsewhere();
                        slot.pool.database.suspect();
                    }
                    _ => {}
                }
                note_failure(&slot.pool, &cluster.hosts[host], &info, &error, own);
                failure = error;
            }
        }
    }
    Err((failure, slot))
}

/// Waits until a host's role has changed so that connections for this purpose lead elsewhere.
async fn moved(cluster: &Cluster, moves: &mut watch::Receiver<()>, host: usize, purpose: Purpose) {
    while moves.changed().await.is_ok() {
        if cluster.leads_elsewhere(host, purpose) {
            return;
        }
    }
    std::future::pending().await
}

/// Opens a connection to this host within `server_connect_timeout`.
async fn open_at(
    shared: &Shared,
    slot: &Slot,
    cluster: &Cluster,
    info: &ServerInfo,
    own: &[Parameter],
) -> Result<(Stream, Parameters), ConnectError> {
    let settings = slot.pool.settings.load_full();
    let host = &cluster.hosts[info.host];
    let attempt = async {
        let stream = reach(shared, &slot.pool, info).await?;
        match info.local.get() {
            Some(local) => tracing::info!("{info} new connection to server (from {local})"),
            None => tracing::info!("{info} new connection to server"),
        }
        let (mut stream, parameters) = login(shared, &slot.pool, info, stream, own).await?;
        if cluster.split {
            info.instance.store(instance(&mut stream).await, Relaxed);
        }
        Ok((stream, parameters))
    };
    let limit = settings.server_connect_timeout;
    let opened = if limit.is_zero() {
        attempt.await
    } else {
        let attempt = tokio::time::timeout(limit, attempt).await;
        attempt.unwrap_or_else(|_| Err(ConnectError::Unreachable(LOGIN_TIMEOUT.into())))
    };
    note_access(host, &opened);
    let opened = opened?;
    let role = note_role(cluster, info.host, &opened.1);
    if !cluster.suits(info.host, slot.purpose) {
        return Err(ConnectError::WrongRole(role));
    }
    if host.instance() != 0 && host.instance() != info.instance.load(Relaxed) {
        if slot.purpose == Purpose::Write {
            // The name may have come to mean another primary: whoever watches it has to look again.
            host.set_elsewhere();
            slot.pool.database.suspect();
        } else if settings.read_consistency != Consistency::Eventual {
            return Err(ConnectError::OtherServer);
        }
    }
    Ok(opened)
}

/// Logs why a connection could not be opened, and what that says of the host.
fn note_failure(pool: &Pool, host: &Host, info: &ServerInfo, error: &ConnectError, own: &[Parameter]) {
    if let ConnectError::Unreachable(why) | ConnectError::NotNow(why) = error {
        host.failed(why.clone());
        pool.database.suspect();
    }
    let reason = match error {
        ConnectError::Unreachable(why) if why.starts_with("server DNS lookup failed") => why,
        ConnectError::Unreachable(why) if why == LOGIN_TIMEOUT => why,
        ConnectError::Unreachable(_) | ConnectError::NotNow(_) | ConnectError::Full(_) => "connect failed",
        // A client's own connection may lack a right that those of others do not need.
        ConnectError::Refused(_) if !own.is_empty() => "login failed",
        ConnectError::Refused(refusal) => refusal.reason(),
        ConnectError::WrongRole(_) => "wrong role",
        ConnectError::OtherServer => "not the server that is watched",
        ConnectError::Moved => "host has another role now",
    };
    if !matches!(error, ConnectError::OtherServer) {
        tracing::warn!("{info} {error}");
    }
    tracing::info!(
        "{info} closing because: {reason} (age={}s)",
        clock::now().since(info.connected).as_secs()
    );
}

/// Makes a connection that another process has opened one of this pool's.
pub fn move_in(shared: &Arc<Shared>, pool: &Arc<Pool>, moved: MovedServer) -> io::Result<Box<Server>> {
    let cluster = pool.database.cluster();
    let host = cluster.hosts.iter().position(|h| h.name == moved.target.host && h.port == moved.target.port);
    let (local, peer) = (moved.socket.local_address(), moved.socket.peer());
    let stream = moved.socket.adopt()?;
    let info = shared.server_info(pool, moved.target, host.unwrap_or(0));
    let info = Arc::new(ServerInfo { connected: moved.connected, ..info });
    if let Some(local) = local {
        let _ = info.local.set(local);
    }
    if let Ok(Peer::Tcp(remote)) = peer {
        let _ = info.remote.set(remote);
    }
    if let Some(key) = moved.key {
        let _ = info.key.set(key);
    }
    if host.is_none() {
        let _ = info.close_needed.set(settings::HOSTS_CHANGED);
    }
    let parameters = Arc::unwrap_or_clone(moved.parameters);
    let slot = pool.slot_regardless(shared).occupied(shared, Arc::clone(&info), cluster);
    let mut server = Server::new(stream, parameters, slot, info);
    server.used = true;
    Ok(server)
}

/// PostgreSQL 14 and later say in the login itself whether they are a standby.
fn note_role(cluster: &Cluster, host: usize, parameters: &Parameters) -> Role {
    let role = match parameters.in_hot_standby() {
        Some(true) => Role::Replica,
        Some(false) => Role::Primary,
        None => Role::Unknown,
    };
    if cluster.hosts[host].answered(role, clock::now()) && cluster.split {
        let host = &cluster.hosts[host];
        tracing::info!("{}:{} is a {}", host.name, host.port, role.name());
    }
    role
}

/// Takes note of whether a host lets anybody in.
fn note_access<T>(host: &Host, opened: &Result<T, ConnectError>) {
    match opened {
        Ok(_) => host.set_closing(false),
        Err(ConnectError::NotNow(_)) => host.set_closing(true),
        Err(ConnectError::Unreachable(_)) => host.set_closing(false),
        Err(_) => {}
    }
}

/// Connects within `server_connect_timeout`: a host that does not answer at all is told from one that answers and then
/// does not let us in.
async fn reach(shared: &Shared, pool: &Pool, info: &ServerInfo) -> io::Result<Stream> {
    let options = shared.socket_options();
    let attempt = connect::connect(&info.target, &options, &shared.resolver);
    let limit = pool.settings.load().server_connect_timeout;
    let stream = if limit.is_zero() {
        attempt.await?
    } else {
        tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?
    };
    if let Some(tcp) = stream.tcp() {
        if let Ok(remote) = tcp.peer_addr() {
            let _ = info.remote.set(remote);
        }
        if let Ok(local) = tcp.local_addr() {
            let _ = info.local.set(local);
        }
    }
    Ok(stream)
}

async fn login(
    shared: &Shared,
    pool: &Pool,
    info: &ServerInfo,
    mut stream: Stream,
    own: &[Parameter],
) -> Result<(Stream, Parameters), ConnectError> {
    let binding = encrypt(shared, &mut stream, info).await?;
    let settings = pool.settings.load_full();
    let mut out = Vec::new();
    let startup = [("user", pool.user.name.to_string()), ("database", settings.dbname.clone())];
    let extra = settings.startup_parameters.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    let own_pairs = own.iter().map(|(n, v)| (&**n, &**v));
    write::startup(
        &mut out,
        startup.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).chain(extra).chain(own_pairs),
    );
    stream.write_all(&out).await?;

    let mut auth = Some(ServerAuth::new(&startup[0].1, pool.credential(), binding, shared.entropy()));
    let mut parameters = Parameters::default();
    let mut received = Received::default();
    let mut message = Vec::new();
    loop {
        let tag = received.frame(&mut stream, &mut message, MAX_MESSAGE).await?;
        let body = message.as_slice();
        match tag {
            b'R' => {
                let request = BackendAuth::parse(body).map_err(|e| refused(&e))?;
                let Some(current) = auth.take() else {
                    return Err(ConnectError::Unreachable("unexpected authentication request".into()));
                };
                let (next, step) = current.handle(request).map_err(|e| refused(&e))?;
                auth = Some(next);
                if let Step::Send(response) = step {
                    out.clear();
                    write::password(&mut out, &response);
                    stream.write_all(&out).await?;
                }
            }
            b'S' => forward::login_parameter(&mut parameters, body)
                .map_err(|e| ConnectError::Unreachable(e.to_string()))?,
            b'K' => {
                if let Some(key) = backend::backend_key_data(body) {
                    let _ = info.key.set(key);
                }
            }
            b'Z' if auth.as_ref().is_some_and(ServerAuth::is_done) && received.is_empty() => break,
            b'E' => return Err(server_refusal(body)),
            b'N' | b'v' => {}
            other => {
                return Err(ConnectError::Unreachable(format!(
                    "unexpected message {:?} during login",
                    char::from(other)
                )));
            }
        }
    }
    if !own.is_empty() {
        return Ok((stream, parameters));
    }
    connect_query(&mut stream, &settings.connect_query, &mut parameters).await?;
    unreported_parameters(&mut stream, &settings.track_extra_parameters, &mut parameters).await;
    Ok((stream, parameters))
}

/// Asks a server for TLS, if that is wanted, and shakes hands if the server agrees.
pub(super) async fn encrypt(
    shared: &Shared,
    stream: &mut Stream,
    info: &ServerInfo,
) -> Result<ChannelBinding, ConnectError> {
    let (description, binding) = encrypt_to(shared, stream, &info.target.host).await?;
    if let Some(description) = description {
        let _ = info.tls.set(description.into());
    }
    Ok(binding)
}

/// The same, for a connection to this host. Says what was agreed upon, if the connection is encrypted now.
pub(super) async fn encrypt_to(
    shared: &Shared,
    stream: &mut Stream,
    host: &str,
) -> Result<(Option<String>, ChannelBinding), ConnectError> {
    let tls = shared.tls.servers.load_full().filter(|_| stream.tcp().is_some());
    let Some(tls) = tls else { return Ok((None, ChannelBinding::None)) };
    stream.write_all(&[8u32.to_be_bytes(), SSL_REQUEST.to_be_bytes()].concat()).await?;
    // One byte and no more: what came with it in plain text would be taken for part of the encrypted conversation.
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    match answer[0] {
        b'S' => {}
        b'N' if tls.required => return Err(ConnectError::Unreachable("server refused SSL".into())),
        b'N' => return Ok((None, ChannelBinding::None)),
        // What an error message says before TLS could come from anybody.
        _ => return Err(ConnectError::Unreachable("server does not answer the request for SSL".into())),
    }
    let description = stream
        .connect_tls(&tls, host)
        .await
        .map_err(|error| ConnectError::Unreachable(format!("TLS handshake error: {error}")))?;
    let hash = stream.peer_certificate().and_then(certificate::end_point_hash);
    Ok((Some(description), hash.map_or(ChannelBinding::None, ChannelBinding::ServerEndPoint)))
}

/// `connect_query`: runs once, before any client has the connection.
async fn connect_query(
    stream: &mut Stream,
    sql: &str,
    parameters: &mut Parameters,
) -> Result<(), ConnectError> {
    if sql.is_empty() {
        return Ok(());
    }
    let mut message = Vec::new();
    write::query(&mut message, sql.as_bytes());
    let report = |body: &[u8]| forward::login_parameter(parameters, body).map_err(|e| e.to_string());
    ask(stream, message, report).await.map(drop).map_err(|error| {
        ConnectError::Refused(Refusal::new(
            sqlstate::CANNOT_CONNECT,
            format!("connect_query failed: {error}"),
        ))
    })
}

/// `track_extra_parameters`: what the server does not report has to be asked for, once.
async fn unreported_parameters(stream: &mut Stream, names: &[String], parameters: &mut Parameters) {
    let missing: Vec<_> = names.iter().filter(|name| parameters.get(name.as_bytes()).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    let values = missing
        .iter()
        .map(|name| format!("pg_catalog.current_setting('{}', true)", name.replace('\'', "''")));
    let mut message = Vec::new();
    let sql = format!("SELECT {}", values.collect::<Vec<_>>().join(", "));
    write::query(&mut message, sql.as_bytes());
    // A server that is another pooler's console, for one, knows no such function.
    let rows = ask(stream, message, |_| Ok(())).await.unwrap_or_default();
    for (name, value) in missing.into_iter().zip(rows.into_iter().flatten()) {
        if let Some(value) = value {
            parameters.set_unreported(name.as_bytes(), value.as_bytes());
        }
    }
}

fn refused(error: &ServerAuthError) -> ConnectError {
    ConnectError::Refused(Refusal::new(sqlstate::INVALID_PASSWORD, error.to_string()))
}

/// An ErrorResponse during login. "Not now" is worth another try; anything else the client should read.
fn server_refusal(body: &[u8]) -> ConnectError {
    let fields = backend::error_fields(body);
    tracing::warn!("server login failed: {}", fields.text());
    let message = String::from_utf8_lossy(fields.message).into_owned();
    match fields.sqlstate {
        b"57P03" => ConnectError::NotNow(message),
        b"57P01" | b"57P02" => ConnectError::Unreachable(message),
        b"53300" => ConnectError::Full(message),
        b"28P01" => ConnectError::Refused(Refusal::new(sqlstate::INVALID_PASSWORD, message)),
        b"28000" => ConnectError::Refused(Refusal::new(sqlstate::INVALID_AUTHORIZATION, message)),
        b"3D000" => ConnectError::Refused(Refusal::new(sqlstate::UNKNOWN_DATABASE, message)),
        b"42501" => ConnectError::Refused(Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, message)),
        _ => ConnectError::Refused(Refusal::new(sqlstate::CANNOT_CONNECT, message)),
    }
}
