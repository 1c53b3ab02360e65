//! What all tasks of the program share.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use std::collections::{BTreeMap, HashMap};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::client_handle::ClientHandle;
use super::handover::{Door, Successor};
use super::lease::Registry as Servers;
use super::lookups::Lookups;
use super::newcomers::Newcomers;
use super::peers::Peers;
use super::pools::{Pool, Pools};
use super::server::Server;
use super::server_handle::{Preamble, ServerHandle};
use super::tls::Tls;
use super::worker::Worker;
use crate::clock;
use crate::config::{Access, Config};
use crate::error::Refusal;
use crate::metrics::averages::Averages;
use crate::metrics::stats::Totals;
use crate::net::connect::{SocketOptions, Target};
use crate::net::resolve::Resolver;
use crate::pool::limits::Limit;
use crate::session::prepared::Registry;
use crate::wire::startup::CancelKey;

/// See the module's documentation.
pub struct Shared {
    /// The configuration in force.
    pub config: ArcSwap<Config>,
    /// Who may come in.
    pub access: ArcSwap<Access>,
    /// Databases, users, pools.
    pub pools: Pools,
    /// Clients by their cancel key ([`CancelKey::id`]).
    pub clients: DashMap<u64, Arc<ClientHandle>>,
    /// Other processes that share the clients' address with this one.
    pub peers: ArcSwap<Peers>,
    /// Servers by their ID.
    pub servers: Arc<Servers>,
    /// Servers that no client has and that a cancel request is on its way to, by their ID.
    pub parked: Mutex<HashMap<u64, Parked>>,
    /// Connections that have not logged in.
    pub newcomers: Newcomers,
    /// What `auth_query` has found lately.
    pub lookups: Lookups,
    /// TLS towards clients and servers.
    pub tls: Tls,
    /// `max_client_conn`.
    pub client_limit: Arc<Limit>,
    /// Host names of servers.
    pub resolver: Resolver,
    /// Prepared statements.
    pub statements: Registry,
    /// For SHOW STATS and the log.
    pub averages: Mutex<Averages>,
    /// What the console has counted for itself.
    pub console: ConsoleStats,
    /// Worker threads.
    pub workers: Vec<Worker>,
    /// Key of mock authentication: unknown users get the same salt each time they are tried.
    pub mock_key: [u8; 32],
    /// What the process as a whole is doing.
    lifecycle: AtomicU8,
    /// What its end waits for, if that has begun: a [`Shutdown`]; 0: it has not.
    shutdown: AtomicU8,
    /// Wakes whoever waits for the process to end or the lifecycle to change.
    pub changed: tokio::sync::Notify,
    /// Asks the main task for something that needs files or sockets: RELOAD, SHUTDOWN.
    pub requests: OnceLock<tokio::sync::mpsc::UnboundedSender<Request>>,
    last_id: AtomicU64,
    /// A process is taking over from this one, or has done so.
    pub is_being_taken_over: AtomicBool,
    /// The process that has taken over from this one.
    pub successor: OnceLock<Successor>,
    /// Tells the process this one has taken over from of cancel requests, which may be for clients it still has.
    pub predecessor: OnceLock<tokio::sync::mpsc::UnboundedSender<CancelKey>>,
}

/// A server that is given back as soon as no cancel request is on its way to it any more.
#[derive(Debug)]
pub struct Parked {
    /// It.
    pub server: Box<Server>,
    /// Where it belongs.
    pub pool: Arc<Pool>,
    /// It has to be reset first.
    pub reset: bool,
}

/// Name of the console's database.
pub const CONSOLE: &str = "pgbouncer";

/// Logins and commands at the console.
#[derive(Debug, Default)]
pub struct ConsoleStats {
    /// Logins.
    pub logins: AtomicU64,
    /// Queries; each is a transaction as well.
    pub queries: AtomicU64,
    /// Sessions.
    pub clients: Arc<Limit>,
}

/// Something for the main task.
#[derive(Debug)]
pub enum Request {
    /// Read the configuration again; answer with the error's text if that fails.
    Reload(tokio::sync::oneshot::Sender<Result<(), String>>),
    /// A setting has changed that may be one of the log or of the listening sockets.
    Follow,
    /// SHUTDOWN.
    Shutdown(Shutdown),
    /// Copies of the listening sockets, for a process that wants to take over.
    Doors(tokio::sync::oneshot::Sender<Vec<Door>>),
    /// The process with this ID has taken over.
    HandedOver(i32),
}

/// How the process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Shutdown {
    /// At once.
    Immediate = 1,
    /// No new clients; ends when the last one has gone (SIGTERM).
    WaitForClients,
    /// No new clients, and everything is paused; ends when all servers have been given back (SIGINT).
    WaitForServers,
}

/// What the process as a whole is doing. A shutdown that waits is another matter: what was paused stays so, and can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Lifecycle {
    /// Serving.
    Active,
    /// PAUSE of everything.
    Paused,
    /// SUSPEND: nothing is read from anybody but the console.
    Suspended,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// The state of a program about to start.
    pub fn new(config: Config, access: Access, workers: Vec<Worker>) -> Self {
        let mut mock_key = [0; 32];
        fill_random(&mut mock_key);
        let max_clients = config.settings.max_client_conn as usize;
        Self {
            config: ArcSwap::from_pointee(config),
            access: ArcSwap::from_pointee(access),
            pools: Pools::default(),
            clients: DashMap::new(),
            peers: ArcSwap::default(),
            servers: Arc::default(),
            parked: Mutex::default(),
            newcomers: Newcomers::default(),
            lookups: Lookups::default(),
            tls: Tls::default(),
            client_limit: Arc::new(Limit::new(max_clients)),
            resolver: Resolver::default(),
            statements: Registry::default(),
            averages: Mutex::new(Averages::new(clock::now())),
            console: ConsoleStats::default(),
            workers,
            mock_key,
            lifecycle: AtomicU8::new(Lifecycle::Active as u8),
            shutdown: AtomicU8::new(0),
            changed: tokio::sync::Notify::new(),
            requests: OnceLock::new(),
            last_id: AtomicU64::new(0),
            is_being_taken_over: AtomicBool::new(false),
            successor: OnceLock::new(),
            predecessor: OnceLock::new(),
        }
    }

    /// Wakes clients whose server is such a one, so that they look at it.
    pub fn wake_those_with(&self, is_such: impl Fn(&ServerHandle) -> bool) {
        let is_meant = |id: u64| self.servers.get(&id).is_some_and(|server| is_such(&server));
        for client in self.clients.iter().filter(|client| is_meant(client.link.load(Relaxed))) {
            client.wake();
        }
    }

    /// What the process is doing.
    pub fn lifecycle(&self) -> Lifecycle {
        match self.lifecycle.load(Relaxed) {
            0 => Lifecycle::Active,
            1 => Lifecycle::Paused,
            _ => Lifecycle::Suspended,
        }
    }

    /// Changes what the process is doing.
    pub fn set_lifecycle(&self, lifecycle: Lifecycle) {
        let before = self.lifecycle.swap(lifecycle as u8, Relaxed);
        if (before == Lifecycle::Suspended as u8) != (lifecycle == Lifecycle::Suspended) {
            for client in &self.clients {
                client.suspended.store(false, Relaxed);
                client.wake();
            }
        }
        self.changed.notify_waiters();
    }

    /// Returns when nothing is suspended.
    pub async fn while_suspended(&self) {
        loop {
            let changed = self.changed.notified();
            if self.lifecycle() != Lifecycle::Suspended {
                return;
            }
            changed.await;
        }
    }

    /// The process that has taken over from this one, if it takes clients.
    pub fn successor(&self) -> Option<&Successor> {
        self.successor.get().filter(|successor| successor.is_there())
    }

    /// Whether no new clients are taken any more.
    pub fn is_shutting_down(&self) -> bool {
        self.shutdown().is_some()
    }

    /// How the process is about to end.
    pub fn shutdown(&self) -> Option<Shutdown> {
        match self.shutdown.load(Relaxed) {
            0 => None,
            1 => Some(Shutdown::Immediate),
            2 => Some(Shutdown::WaitForClients),
            _ => Some(Shutdown::WaitForServers),
        }
    }

    /// The end begins. Clients that are suspended could not leave, so they go on; what is paused stays so.
    pub fn set_shutdown(&self, how: Shutdown) {
        self.shutdown.store(how as u8, Relaxed);
        if how == Shutdown::WaitForServers {
            self.set_lifecycle(Lifecycle::Paused);
        } else if self.lifecycle() == Lifecycle::Suspended {
            self.set_lifecycle(Lifecycle::Active);
        }
        self.changed.notify_waiters();
    }

    /// An ID for a client or server.
    pub fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Relaxed) + 1
    }

    /// Random bytes for nonces, salts and keys.
    pub fn entropy<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        fill_random(&mut bytes);
        bytes
    }

    /// Sums per database, the console's own included.
    pub fn database_totals(&self) -> BTreeMap<Arc<str>, Totals> {
        let mut all: BTreeMap<Arc<str>, Totals> = BTreeMap::new();
        for pool in self.pools.all() {
            all.entry(Arc::clone(&pool.database.name)).or_default().merge(&pool.totals());
        }
        all.insert(CONSOLE.into(), self.console_totals());
        all
    }

    /// What the console has counted.
    pub fn console_totals(&self) -> Totals {
        let queries = self.console.queries.load(Relaxed);
        Totals {
            logins: self.console.logins.load(Relaxed),
            queries,
            transactions: queries,
            ..Totals::default()
        }
    }

    /// The settings for TCP connections.
    pub fn socket_options(&self) -> SocketOptions {
        SocketOptions::of(&self.config.load().settings)
    }

    /// What others may know of a server connection about to be opened.
    pub fn server_info(&self, pool: &Pool, target: Target, host: usize) -> ServerHandle {
        ServerHandle {
            id: self.next_id(),
            database: Arc::clone(&pool.database.name),
            user: Arc::clone(&pool.user.name),
            target,
            host,
            instance: OnceLock::new(),
            remote: OnceLock::new(),
            local: OnceLock::new(),
            connected: clock::now(),
            requested: clock::AtomicMicros::new(clock::now()),
            state: AtomicU8::new(0),
            link: AtomicU64::new(0),
            prepared: 0.into(),
            close_needed: OnceLock::new(),
            replication: OnceLock::new(),
            tls: OnceLock::new(),
            key: OnceLock::new(),
            preamble: Preamble::default(),
            cancels: Mutex::default(),
            application_name: Mutex::default(),
        }
    }

    /// Logs that a client is being closed.
    pub fn log_client_close(&self, client: &ClientHandle, reason: &str) {
        if self.config.load().settings.log_disconnections {
            let age = clock::now().since(client.connected).as_secs();
            tracing::info!("{client} closing because: {reason} (age={age}s)");
        }
    }

    /// Logs an error that a client is about to be told.
    pub fn log_pooler_error(&self, client: impl std::fmt::Display, refusal: &Refusal) {
        if self.config.load().settings.log_pooler_errors {
            tracing::warn!("{client} pooler error: {}", refusal.reason());
        }
    }
}

/// Fills a buffer with random bytes. A login needs a few of them several times, so the thread fetches some in advance, each
/// of which is used once; `bytes` are 512 at most. Without them no secret is safe, so there is nothing to go on with.
fn fill_random(bytes: &mut [u8]) {
    thread_local! {
        static FETCHED: RefCell<(Zeroizing<[u8; 512]>, usize)> = RefCell::new((Zeroizing::new([0; 512]), 0));
    }
    FETCHED.with_borrow_mut(|(fetched, left)| {
        if *left < bytes.len() {
            if let Err(error) = getrandom::fill(&mut **fetched) {
                tracing::error!(fatal = true, "no random numbers: {error}");
                std::process::abort();
            }
            *left = fetched.len();
        }
        let taken = &mut fetched[*left - bytes.len()..*left];
        bytes.copy_from_slice(taken);
        taken.fill(0);
        *left -= bytes.len();
    });
}
