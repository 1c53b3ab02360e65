//! A client's first moments: what does it want, who is it, and may it?
//!
//! Nothing is allocated on the word of somebody unknown, everything before the end of authentication must be over
//! within `client_login_timeout`, and an unknown user or database makes no difference that could be seen before
//! the right password has been given.

mod authenticate;
mod lookup;
mod replication;

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::client::{Client, LoggedIn};
use super::info::{AtomicMicros, ClientInfo};
use super::pools::{Pool, User};
use super::server::Server;
use super::shared::{CONSOLE, PeerName, Shared};
use super::takeover;
use super::tunnel::{ReplicationLogin, Tunnel};
use super::worker::Load;
use super::{cancel, peers, settings};
use crate::auth::scram::ChannelBinding;
use crate::clock::{self, Micros};
use crate::config::AuthType;
use crate::error::{Refusal, sqlstate};
use crate::net::descriptors::Channel;
use crate::net::listener::Peer;
use crate::net::received::Received;
use crate::net::stream::Stream;
use crate::net::tls::ClientTls;
use crate::pool::limits::Permit;
use crate::pool::{Outcome, Waiter};
use crate::route::cluster::Purpose;
use crate::session::forward::ClientSession;
use crate::session::parameters::Parameters;
use crate::session::startup::Requested;
use crate::wire::startup::{self, CancelKey, PROTOCOL_3_0, PROTOCOL_3_2, Session, Startup};
use crate::wire::write;
use authenticate::Identity;
use replication::Replication;

/// First byte of a TLS ClientHello (content type "handshake"); no startup packet is long enough to begin with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// In the log, for a connection that has not said what it wants.
const NO_DATABASE: &str = "(nodb)";
const NO_USER: &str = "(nouser)";

/// A connection that has just been accepted.
pub struct Arrival {
    /// Where it comes from.
    pub peer: Peer,
    /// Where it connected to.
    pub local: Option<SocketAddr>,
    /// What it counts for at its worker.
    pub load: Load,
}

/// Serves an accepted connection until it is closed.
pub async fn serve(shared: Arc<Shared>, arrival: Arrival, stream: Stream) {
    let Arrival { peer, local, load } = arrival;
    if let Stream::Tcp(tcp) = &stream {
        let _ = shared.socket_options().apply(tcp);
    }
    let (id, worker) = (shared.next_id(), load.worker);
    let newcomer = Newcomer {
        shared: Arc::clone(&shared),
        worker,
        stream,
        received: Received::default(),
        peer,
        local,
        connected: clock::now(),
        id,
        tls: None,
        cancel: None,
    };
    match newcomer.log_in().await {
        // A task of its own: the login needs much more memory than what comes after it.
        Some(Entry::Client(login)) => drop(tokio::task::spawn_local(Client::new(shared, load, *login))),
        Some(Entry::Successor(Stream::Unix(stream))) => {
            takeover::serve(shared, worker, Channel::new(stream)).await;
        }
        Some(Entry::Successor(_)) => {}
        Some(Entry::Replication(login)) => {
            drop(tokio::task::spawn_local(Tunnel::new(shared, load, *login)));
        }
        Some(Entry::Console(console)) => {
            if let Some(serve) = shared.serve_console.get() {
                serve(shared.clone(), *console).await;
            }
        }
        None => {}
    }
}

/// Somebody who may use the console.
pub struct ConsoleLogin {
    /// The connection.
    pub stream: Stream,
    /// What it has sent ahead.
    pub received: Vec<u8>,
    /// What others may know of it.
    pub info: Arc<ClientInfo>,
    /// Otherwise it may only look.
    pub is_admin: bool,
    /// What the login still has to send.
    pub greeting: Vec<u8>,
    /// What it counts against.
    pub permits: [Permit; 2],
}

/// What became of a newcomer.
enum Entry {
    Successor(Stream),
    Client(Box<LoggedIn>),
    Replication(Box<ReplicationLogin>),
    Console(Box<ConsoleLogin>),
}

/// A connection of which nothing is known yet.
struct Newcomer {
    shared: Arc<Shared>,
    worker: usize,
    stream: Stream,
    /// What it has sent ahead.
    received: Received,
    peer: Peer,
    local: Option<SocketAddr>,
    connected: Micros,
    id: u64,
    /// What its TLS is, if it has one.
    tls: Option<Encrypted>,
    /// It brings a cancel request.
    cancel: Option<CancelKey>,
}

/// What is known of a client's TLS.
struct Encrypted {
    /// Version and cipher.
    description: String,
    binding: ChannelBinding,
}

/// Why a login came to nothing.
enum Failure {
    /// The other side is gone, or does not speak the protocol: it gets no answer.
    Silent(&'static str),
    /// It is told why.
    Refused(Refusal),
}

impl From<std::io::Error> for Failure {
    fn from(_: std::io::Error) -> Self {
        Self::Silent("client unexpected eof")
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Who the client says it is.
struct Claim {
    user: String,
    database: String,
}

impl Newcomer {
    async fn log_in(mut self) -> Option<Entry> {
        let mut claim = None;
        let result = self.attempt(&mut claim).await;
        match result {
            Ok(Some(entry)) => return Some(self.enter(entry)),
            Ok(None) => self.pass_cancel_request_on().await,
            Err(failure) => self.turn_away(claim.as_ref(), failure).await,
        }
        None
    }

    async fn turn_away(&mut self, claim: Option<&Claim>, failure: Failure) {
        let reason = match &failure {
            Failure::Silent(reason) => reason,
            Failure::Refused(refusal) => refusal.reason(),
        };
        let (database, user) = claim.map_or((NO_DATABASE, NO_USER), |c| (&c.database, &c.user));
        self.log_close(database, user, reason);
        if let Failure::Refused(refusal) = &failure {
            let peer = PeerName(self.peer, self.local);
            let who = format_args!("C-{:#x}: {database}/{user}@{peer}", self.id);
            self.shared.log_pooler_error(who, refusal);
            let mut out = Vec::new();
            write::fatal(&mut out, refusal);
            let _ = tokio::time::timeout(Duration::from_secs(1), self.stream.write_all(&out)).await;
        }
    }

    fn log_close(&self, database: &str, user: &str, reason: &str) {
        if self.shared.config.load().settings.log_disconnections {
            let age = clock::now().since(self.connected).as_secs();
            let peer = PeerName(self.peer, self.local);
            tracing::info!(
                "C-{:#x}: {database}/{user}@{peer} closing because: {reason} (age={age}s)",
                self.id
            );
        }
    }

    async fn pass_cancel_request_on(&self) {
        if let Some(key) = &self.cancel {
            let outcome = cancel::request(&self.shared, self.worker, key).await;
            self.log_close(outcome.database.as_deref().unwrap_or(NO_DATABASE), NO_USER, outcome.reason);
        }
    }

    /// Everything up to ReadyForQuery. `None`: there is no session to go on with (a cancel request).
    async fn attempt(&mut self, claim: &mut Option<Claim>) -> Result<Option<Prepared>, Failure> {
        let limit = self.shared.config.load().settings.client_login_timeout;
        let limit = if limit.is_zero() { Duration::from_secs(u32::MAX.into()) } else { limit };
        let timeout = || Refusal::protocol("client_login_timeout");
        let deadline = tokio::time::Instant::now() + limit;
        let identified =
            tokio::time::timeout_at(deadline, self.identify(claim)).await.map_err(|_| timeout())??;
        let Some(identified) = identified else { return Ok(None) };
        // From here on the client waits for a server, for which `query_wait_timeout` is the limit.
        self.welcome(identified).await.map(Some)
    }

    /// Finds out who it is.
    async fn identify(&mut self, claim: &mut Option<Claim>) -> Result<Option<Identified>, Failure> {
        let Some(session) = self.startup().await? else { return Ok(None) };
        let (user, database) = names(&session)?;
        let claim = &*claim.insert(Claim { user, database });
        let mut out = Vec::new();
        let is_own_user = claim.database == CONSOLE && claim.user == CONSOLE && self.is_own_process();
        let known = |option: &[u8]| is_own_user && option == takeover::OPTION.as_bytes();
        let takes_over = session.options.iter().any(|option| known(option));
        let unknown: Vec<_> = session.options.iter().filter(|option| !known(option)).cloned().collect();
        if session.protocol > PROTOCOL_3_2 || !unknown.is_empty() || session.protocol == PROTOCOL_3_0 + 1 {
            let newest = if session.protocol > PROTOCOL_3_2 {
                PROTOCOL_3_2
            } else {
                PROTOCOL_3_0.max(session.protocol & !1)
            };
            write::negotiate_protocol_version(&mut out, newest, &unknown);
        }
        let replication = Replication::of(&session)?;
        if self.shared.config.load().settings.log_connections {
            let peer = PeerName(self.peer, self.local);
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
            false => Some(self.authenticate(claim, physical, &mut out).await?),
        };
        let user = identity.as_ref().map_or(&claim.user, |identity| &identity.user).clone();
        let database = claim.database.clone();
        Ok(Some(Identified { session, replication, takes_over, identity, out, database, user }))
    }

    /// The StartupMessage; `None` if the connection was for something else.
    async fn startup(&mut self) -> Result<Option<Session>, Failure> {
        // Each kind of encryption may be asked for once.
        let (mut ssl, mut gss) = (false, false);
        loop {
            let mut word = [0; 4];
            self.received.exact(&mut self.stream, &mut word).await?;
            if word[0] == TLS_HANDSHAKE && self.tls.is_none() && !ssl && !gss {
                // A TLS ClientHello in place of a startup packet: direct TLS.
                let Some(tls) = self.offered_tls() else { return Err(Failure::Silent("bad startup packet")) };
                let rest = std::mem::take(&mut self.received).into_rest();
                self.encrypt(&tls, &[&word[..], &rest].concat(), true).await?;
                ssl = true;
                continue;
            }
            let len = startup::body_length(word).map_err(|_| Failure::Silent("bad startup packet"))?;
            let mut body = vec![0; len];
            self.received.exact(&mut self.stream, &mut body).await?;
            match startup::parse(&body) {
                Ok(Startup::Ssl) if !ssl => {
                    ssl = true;
                    if let Some(tls) = self.offered_tls() {
                        if !self.received.is_empty() {
                            // Somebody may have put that in front of the encrypted conversation.
                            return Err(Failure::Silent("received unencrypted data after SSL request"));
                        }
                        self.stream.write_all(b"S").await?;
                        self.encrypt(&tls, &[], false).await?;
                        continue;
                    }
                }
                Ok(Startup::GssEnc) if !gss => gss = true,
                Ok(Startup::Ssl | Startup::GssEnc) => {
                    return Err(Failure::Silent("encryption asked for twice"));
                }
                Ok(Startup::Cancel(key)) => {
                    self.cancel = Some(key);
                    return Ok(None);
                }
                Ok(Startup::Session(session)) => {
                    if self.tls.is_none() && self.offered_tls().is_some_and(|tls| tls.required) {
                        return Err(Refusal::new(sqlstate::INVALID_AUTHORIZATION, "SSL required")
                            .hint(
                                "The pooler's client_tls_sslmode asks for it: connect with sslmode=require.",
                            )
                            .into());
                    }
                    return Ok(Some(session));
                }
                Err(error @ startup::StartupError::Version(_)) => {
                    return Err(Refusal::new(sqlstate::NOT_SUPPORTED, error.to_string()).into());
                }
                Err(_) => return Err(Failure::Silent("bad startup packet")),
            }
            self.stream.write_all(b"N").await?;
        }
    }

    /// TLS as this client may have it: over TCP, if it is turned on.
    fn offered_tls(&self) -> Option<Arc<ClientTls>> {
        self.stream.tcp().and_then(|_| self.shared.tls.clients.load_full())
    }

    /// Shakes hands; nothing that came before in plain text counts any more.
    async fn encrypt(&mut self, tls: &ClientTls, start: &[u8], direct: bool) -> Result<(), Failure> {
        match self.stream.accept_tls(tls, start, direct).await {
            Ok(description) => {
                let hash = tls.end_point_hash();
                let binding =
                    hash.map_or(ChannelBinding::None, |h| ChannelBinding::ServerEndPoint(h.to_vec()));
                self.tls = Some(Encrypted { description, binding });
                Ok(())
            }
            Err(error) => {
                tracing::warn!(
                    "C-{:#x}: (nodb)/(nouser)@{} TLS handshake error: {error}",
                    self.id,
                    PeerName(self.peer, self.local)
                );
                Err(Failure::Silent("TLS handshake failed"))
            }
        }
    }

    /// The process at the other end of a Unix socket runs as the same user as this one: it may do as it likes.
    fn is_own_process(&self) -> bool {
        matches!(self.peer, Peer::Unix { uid, .. } if uid == nix::unistd::geteuid().as_raw())
    }

    /// The client is who it says. Gives it a place, once a server has told what it is like.
    async fn welcome(&mut self, mut identified: Identified) -> Result<Prepared, Failure> {
        if identified.takes_over {
            return self.hand_over(identified).await;
        }
        if identified.database == CONSOLE {
            return self.console(identified);
        }
        let shared = Arc::clone(&self.shared);
        let database = settings::database(&shared, &identified.database)
            .ok_or_else(|| no_such_database(&identified.database))?;
        if database.disabled.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Refusal::protocol(format!("database \"{}\" is disabled", database.name)).into());
        }
        let user = settings::user(&shared, &identified.user);
        let full = |what: &'static str| Refusal::new(sqlstate::TOO_MANY_CONNECTIONS, what);
        let permits = [
            shared
                .client_limit
                .acquire()
                .ok_or_else(|| full("no more connections allowed (max_client_conn)"))?,
            database
                .clients
                .acquire()
                .ok_or_else(|| full("client connections exceeded (max_db_client_connections)"))?,
            user.clients
                .acquire()
                .ok_or_else(|| full("client connections exceeded (max_user_client_connections)"))?,
        ];
        let pool = settings::pool(&shared, &database, &user);
        if let Some(identity) = identified.identity.take() {
            let found = identity.found.as_ref().map(|account| &account.secret);
            settings::learn_credential(&pool, found, identity.learned);
        }
        if identified.replication != Replication::No {
            let server = self.own_server(&pool, &identified.session).await?;
            let parameters = Arc::clone(&server.session.parameters);
            let application_name =
                identified.session.parameter("application_name").unwrap_or_default().to_vec();
            let info =
                self.announce(&identified, &database.name, &user, &parameters, &application_name).await?;
            let shown = identified.replication.shown();
            let _ = (info.replication.set(shown), server.info.replication.set(shown));
            return Ok(Prepared::Replication { info, server, permits });
        }
        let config = shared.config.load_full();
        let mut requested = Requested::new(&identified.session, &config.settings.ignore_startup_parameters)?;
        if config.settings.application_name_add_host {
            requested.add_host(&PeerName(self.peer, self.local).to_string());
        }
        let reported = self.reported_parameters(&pool, &user).await?;
        let own = requested.apply(&reported)?;
        let untried_parameters = own.is_some();
        let parameters = own.map_or(reported, Arc::new);
        let application_name = requested.get(b"application_name").unwrap_or_default();
        let info = self.announce(&identified, &database.name, &user, &parameters, application_name).await?;
        pool.stats[self.worker].logins.add(1);
        shared.workers[self.worker].watch(&info);
        Ok(Prepared::Client {
            info,
            pool,
            session: ClientSession::new(parameters),
            untried_parameters,
            permits,
        })
    }

    /// Puts the client on the list and tells it that it is in.
    async fn announce(
        &mut self,
        identified: &Identified,
        database: &Arc<str>,
        user: &User,
        parameters: &Parameters,
        application_name: &[u8],
    ) -> Result<Arc<ClientInfo>, Failure> {
        let mut out = identified.out.clone();
        write::authentication(&mut out, 0, &[]);
        parameters.iter().for_each(|(name, value)| write::parameter_status(&mut out, name, value));
        let info = self.register(database, user, identified.session.protocol, application_name, false);
        write::backend_key_data(&mut out, &info.key);
        let config = self.shared.config.load_full();
        if !config.settings.login_notify_message.is_empty() {
            write::notice(&mut out, &config.settings.login_notify_message);
        }
        write::ready_for_query(&mut out, b'I');
        match self.stream.write_all(&out).await {
            Ok(()) => Ok(info),
            Err(error) => {
                self.shared.clients.remove(&info.key.id());
                Err(error.into())
            }
        }
    }

    /// What the pool's servers report; if none was reached yet, waits for one as for a query.
    async fn reported_parameters(
        &mut self,
        pool: &Arc<Pool>,
        user: &User,
    ) -> Result<Arc<Parameters>, Failure> {
        if let Some(welcome) = pool.welcome() {
            return Ok(welcome);
        }
        let server = self.wait_for_server(pool, &user.name).await?;
        let parameters = Arc::clone(&server.session.parameters);
        super::worker::give_back(&self.shared, pool, server, self.worker, false);
        Ok(parameters)
    }

    /// Waits for a server of a pool, in its queue, as a query would.
    async fn wait_for_server(&mut self, pool: &Arc<Pool>, user: &str) -> Result<Box<Server>, Failure> {
        let settings = settings::for_client(&self.shared, pool, user);
        let now = clock::now();
        if let Some((refusal, at)) = &*pool.login_error.lock() {
            if now.since(*at) < settings.server_login_retry {
                return Err(super::worker::login_failing(refusal).into());
            }
        }
        let queued = Queued {
            shared: Arc::clone(&self.shared),
            pool: Arc::clone(pool),
            waiter: Arc::new(Waiter::new(self.worker)),
        };
        if let Some(server) = pool.lane(Purpose::Write).checkout(self.worker) {
            return Ok(server);
        }
        let mut started = false;
        let wait = std::future::poll_fn(|cx| {
            if !started {
                started = true;
                queued.waiter.start(now, cx.waker());
                pool.lane(Purpose::Write).wait(Arc::clone(&queued.waiter));
                pool.grow(&self.shared, Purpose::Write, self.worker, now);
            }
            match queued.waiter.poll(cx) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                // Nobody holds a place for a client that has given up.
                Poll::Pending => self.stream.poll_closed(cx).map(|()| None),
            }
        });
        let limits = [
            (settings.query_wait_timeout, sqlstate::CANNOT_CONNECT, "query_wait_timeout"),
            (settings.query_timeout, sqlstate::QUERY_CANCELED, "query_timeout"),
        ];
        let first =
            limits.into_iter().filter(|(limit, ..)| !limit.is_zero()).min_by_key(|(limit, ..)| *limit);
        let (limit, code, words) = first.unwrap_or((Duration::MAX, sqlstate::CANNOT_CONNECT, ""));
        match tokio::time::timeout(limit, wait).await {
            Ok(Some(Outcome::Granted(server))) => Ok(server),
            Ok(Some(Outcome::Refused(refusal))) => Err(refusal.into()),
            Ok(None) => Err(Failure::Silent("client unexpected eof")),
            Err(_) => Err(Refusal::new(code, words)
                .detail("No connection to the server could be had in time.")
                .into()),
        }
    }

    /// Puts the client on the list under a key that no other has.
    fn register(
        &self,
        database: &Arc<str>,
        user: &User,
        protocol: u32,
        application_name: &[u8],
        admin: bool,
    ) -> Arc<ClientInfo> {
        let shared = &self.shared;
        let secret = || -> Box<[u8]> {
            if protocol >= PROTOCOL_3_2 {
                shared.entropy::<32>().into()
            } else {
                shared.entropy::<4>().into()
            }
        };
        loop {
            let key = CancelKey::new(shared.entropy(), secret(), peers::own_id(shared));
            let dashmap::Entry::Vacant(vacant) = shared.clients.entry(key.id()) else { continue };
            let (database, user) = (Arc::clone(database), Arc::clone(&user.name));
            let info = Arc::new(ClientInfo {
                local: self.local,
                tls: self.tls.as_ref().map_or("", |tls| &tls.description).into(),
                connected: self.connected,
                requested: AtomicMicros::new(self.connected),
                admin,
                application_name: parking_lot::Mutex::new(String::from_utf8_lossy(application_name).into()),
                ..ClientInfo::new(self.id, key, database, user, self.peer)
            });
            vacant.insert(Arc::clone(&info));
            return info;
        }
    }

    /// The new process is in; what comes next is not the protocol of clients any more.
    async fn hand_over(&mut self, identified: Identified) -> Result<Prepared, Failure> {
        let mut out = identified.out;
        write::authentication(&mut out, 0, &[]);
        write::ready_for_query(&mut out, b'I');
        self.stream.write_all(&out).await?;
        Ok(Prepared::Successor)
    }

    fn console(&self, identified: Identified) -> Result<Prepared, Failure> {
        let config = self.shared.config.load();
        let is_admin = identified.identity.is_none()
            || config.settings.auth_type == AuthType::Any
            || settings::is_admin(&config, &identified.user);
        if !is_admin && !settings::is_stats_user(&config, &identified.user) {
            return Err(Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, "not allowed")
                .detail("The console is for admin_users and stats_users.")
                .into());
        }
        // Admins come in however full it is.
        let (limits, user) = (&self.shared.console.clients, settings::user(&self.shared, &identified.user));
        let full = |what: &'static str| Refusal::new(sqlstate::TOO_MANY_CONNECTIONS, what);
        let permits = if is_admin {
            [limits.acquire_regardless(), user.clients.acquire_regardless()]
        } else {
            [
                limits
                    .acquire()
                    .ok_or_else(|| full("client connections exceeded (max_db_client_connections)"))?,
                user.clients
                    .acquire()
                    .ok_or_else(|| full("client connections exceeded (max_user_client_connections)"))?,
            ]
        };
        let application_name = identified.session.parameter("application_name").unwrap_or_default();
        let info = self.register(&CONSOLE.into(), &user, PROTOCOL_3_0, application_name, true);
        Ok(Prepared::Console { info, is_admin, greeting: identified.out, permits })
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
            Prepared::Replication { info, server, permits } => {
                Entry::Replication(Box::new(ReplicationLogin {
                    stream: self.stream,
                    received: self.received.into_rest(),
                    info,
                    server,
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

/// A place in a pool's queue; whoever gives up waiting gives up the place, and what was granted meanwhile.
struct Queued {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    waiter: Arc<Waiter<Box<Server>>>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        if let Some(server) = self.pool.lane(Purpose::Write).give_up(&self.waiter) {
            super::worker::give_back(&self.shared, &self.pool, server, self.waiter.worker, false);
        }
    }
}

/// Somebody who has proved who they are (`identity`), or is the process's own user at the console.
struct Identified {
    session: Session,
    replication: Replication,
    /// A process that wants to take over from this one.
    takes_over: bool,
    identity: Option<Identity>,
    /// The user's name, as proved.
    user: String,
    database: String,
    /// What was not sent yet: the last words of the authentication.
    out: Vec<u8>,
}

enum Prepared {
    Successor,
    Client {
        info: Arc<ClientInfo>,
        pool: Arc<Pool>,
        session: ClientSession,
        untried_parameters: bool,
        permits: [Permit; 3],
    },
    Replication {
        info: Arc<ClientInfo>,
        server: Box<Server>,
        permits: [Permit; 3],
    },
    Console {
        info: Arc<ClientInfo>,
        is_admin: bool,
        greeting: Vec<u8>,
        permits: [Permit; 2],
    },
}

/// User and database of a StartupMessage; the database is the user's name unless given.
fn names(session: &Session) -> Result<(String, String), Failure> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let user = session.parameter("user").map(text).filter(|user| !user.is_empty());
    let user = user.ok_or_else(|| {
        Refusal::new(sqlstate::INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet")
    })?;
    let database =
        session.parameter("database").map(text).filter(|d| !d.is_empty()).unwrap_or_else(|| user.clone());
    Ok((user, database))
}

fn no_such_database(name: &str) -> Refusal {
    Refusal::new(sqlstate::UNKNOWN_DATABASE, format!("database \"{name}\" does not exist"))
        .detail(format!("no such database: {name}"))
        .hint("Look at [databases] in the pooler's configuration.")
        .log(format!("no such database: {name}"))
}
