//! Pools: one per (database, user), made when the first client asks for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;

use super::catalogs::Catalogs;
use super::hosts::Hosts;
use super::server::Server;
use super::versioned::Versioned;
use crate::auth::server_login::Credential;
use crate::clock::{self, AtomicMicros, Micros};
use crate::config::{Config, DatabaseConfig, PoolSettings, Timeouts};
use crate::error::Refusal;
use crate::metrics::stats::{Stats, Totals};
use crate::pool::gate::Gate;
use crate::pool::limits::Limit;
use crate::pool::{Lane, Sizes};
use crate::route::cluster::{Cluster, Purpose};
use crate::session::parameters::Parameters;
use crate::session::trials::Trials;

/// A database as clients name it, and what its pools share.
#[derive(Debug)]
pub struct Database {
    /// The name clients use.
    pub name: Arc<str>,
    /// Its line in the configuration.
    pub config: ArcSwap<DatabaseConfig>,
    /// Its hosts, and what is known of them.
    pub hosts: Arc<Hosts>,
    /// What is known of its functions and relations.
    pub catalogs: Catalogs,
    /// `max_db_connections`.
    pub servers: Arc<Limit>,
    /// `max_db_client_connections`.
    pub clients: Arc<Limit>,
    /// PAUSE or KILL of this database.
    pub paused: AtomicBool,
    /// DISABLE: no new clients.
    pub disabled: AtomicBool,
    /// Only `*` covers it: it is forgotten when nobody has used it for `autodb_idle_timeout`.
    pub auto: AtomicBool,
    /// Somebody has proved who they are, and was let in. Until then it is but a name.
    pub entered: AtomicBool,
    /// When the housekeeping last saw it in use.
    last_used: AtomicMicros,
}

impl Database {
    /// A database with nothing connected to it yet.
    pub fn new(name: &str, config: DatabaseConfig, cluster: Cluster, auto: bool) -> Self {
        // What was written before this process, or these hosts, must not be missed.
        cluster.wrote(clock::now());
        let weights = config.weights();
        Self {
            name: name.into(),
            config: ArcSwap::from_pointee(config),
            hosts: Arc::new(Hosts::new(cluster, weights)),
            catalogs: Catalogs::default(),
            servers: Arc::default(),
            clients: Arc::default(),
            paused: AtomicBool::new(false),
            disabled: AtomicBool::new(false),
            auto: AtomicBool::new(auto),
            entered: AtomicBool::new(false),
            last_used: AtomicMicros::new(clock::now()),
        }
    }

    /// Its hosts.
    pub fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.hosts.load().cluster)
    }

    /// Something looks as if its hosts had changed their roles, or one had gone.
    #[cold]
    pub fn recheck_hosts(&self) {
        self.hosts.recheck();
    }

    /// Replaces its hosts after a change of the configuration.
    pub fn set_cluster(&self, cluster: Cluster, weights: Vec<u32>) {
        let now = clock::now();
        cluster.wrote(now);
        self.hosts.replace(cluster, weights, now);
        self.catalogs.forget();
    }
}

/// A user and what counts against it in all its pools.
#[derive(Debug)]
pub struct User {
    /// Name.
    pub name: Arc<str>,
    /// `max_user_connections`.
    pub servers: Arc<Limit>,
    /// `max_user_client_connections`.
    pub clients: Arc<Limit>,
}

/// What a server has said when it was opened.
#[derive(Debug)]
struct Welcome {
    parameters: Arc<Parameters>,
    generation: u64,
}

/// Server connections for one database and user, and the clients that use them.
#[derive(Debug)]
pub struct Pool {
    /// The database.
    pub database: Arc<Database>,
    /// The user it logs in to servers as: the one clients logged in as, or the one in the database's line.
    pub user: Arc<User>,
    /// What governs it; replaced with [`Pool::set_settings`].
    pub settings: Versioned<PoolSettings>,
    /// Servers that may write; without a split, all.
    writers: Arc<Lane<Box<Server>>>,
    /// Servers that only read: a lane for each host, as far as they were needed.
    readers: boxcar::Vec<Arc<Lane<Box<Server>>>>,
    /// One set per worker.
    pub stats: Box<[Arc<Stats>]>,
    /// Clients logged in to it.
    pub clients: AtomicUsize,
    credential: Mutex<Credential>,
    /// Cancel requests for its clients.
    pub cancels: Gate,
    /// Why the server refused the last login, and until when nobody tries again.
    pub login_error: Mutex<Option<(Refusal, Micros)>>,
    /// What servers said at the last login.
    welcome: ArcSwapOption<Welcome>,
    /// Counts how often all of its servers have become obsolete.
    generation: AtomicU64,
    /// When the housekeeping last saw it in use.
    last_used: AtomicMicros,
    /// Values that clients have chosen for parameters.
    pub trials: Mutex<Trials>,
}

impl Pool {
    /// The servers for a purpose.
    pub fn lane(&self, purpose: Purpose) -> &Arc<Lane<Box<Server>>> {
        match purpose {
            Purpose::Write => &self.writers,
            Purpose::Read(host) => self.readers.get(host).unwrap_or_else(|| self.make_reader(host)),
        }
    }

    #[cold]
    fn make_reader(&self, host: usize) -> &Arc<Lane<Box<Server>>> {
        loop {
            if let Some(lane) = self.readers.get(host) {
                return lane;
            }
            self.readers.push(Arc::new(self.writers.another()));
        }
    }

    /// All lanes there are.
    pub fn lanes(&self) -> impl Iterator<Item = (Purpose, &Arc<Lane<Box<Server>>>)> {
        let readers = self.readers.iter().map(|(host, lane)| (Purpose::Read(host), lane));
        std::iter::once((Purpose::Write, &self.writers)).chain(readers)
    }

    /// Replaces what governs it, if that is anything else than before. Clients follow when they ask for a server the next time.
    pub fn set_settings(&self, settings: PoolSettings) {
        if self.settings.replace(settings) {
            self.follow_settings();
        }
    }

    fn follow_settings(&self) {
        let settings = self.settings.load();
        self.cancels.entered.set_max(settings.pool_size);
        self.lanes().for_each(|(_, lane)| lane.set_round_robin(settings.server_round_robin));
    }

    /// How many connections it may have.
    pub fn sizes(&self) -> Sizes {
        let settings = self.settings.load();
        Sizes {
            pool: settings.pool_size,
            reserve: settings.reserve_pool_size,
            reserve_timeout: settings.reserve_pool_timeout,
        }
    }

    /// The timeouts of its clients that have logged in as this user.
    pub fn timeouts(&self, config: &Config, user: &str) -> Timeouts {
        Timeouts::of(config, &self.database.config.load(), &self.user.name, user)
    }

    /// What it logs in with.
    pub fn credential(&self) -> Credential {
        self.credential.lock().clone()
    }

    /// A client has logged in with this: servers may accept it, too.
    pub fn set_credential(&self, credential: Credential) {
        *self.credential.lock() = credential;
    }

    /// What a new client is told of the server's parameters; `None` as long as no server was reached, or none since all of them
    /// became obsolete: defaults may be others by now.
    pub fn welcome(&self) -> Option<Arc<Parameters>> {
        let welcome = self.welcome.load();
        let current = welcome.as_ref().filter(|welcome| welcome.generation == self.generation());
        current.map(|welcome| Arc::clone(&welcome.parameters))
    }

    /// What the server said that was reached last, if any was, whether or not it still holds.
    pub fn last_welcome(&self) -> Option<Arc<Parameters>> {
        self.welcome.load().as_ref().map(|welcome| Arc::clone(&welcome.parameters))
    }

    /// A server was reached and said this; `generation` is what it was before.
    pub fn set_welcome(&self, parameters: &Arc<Parameters>, generation: u64) {
        let welcome = Welcome { parameters: Arc::clone(parameters), generation };
        let before = self.welcome.swap(Some(Arc::new(welcome)));
        if before.is_none_or(|before| *before.parameters != **parameters) {
            self.trials.lock().clear();
        }
    }

    /// Whether its server has refused a login a moment ago, and is not tried again yet (`server_login_retry`).
    pub fn is_refused(&self, now: Micros) -> bool {
        let retry = self.settings.load().server_login_retry;
        self.login_error.lock().as_ref().is_some_and(|(_, at)| now.since(*at) < retry)
    }

    /// Counts how often all of its servers have become obsolete.
    pub fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    /// All servers opened so far are obsolete, and so is what they have said.
    pub fn begin_generation(&self) {
        self.generation.fetch_add(1, SeqCst);
    }

    /// Sum of all workers' counters.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.stats.iter().for_each(|stats| totals.add(stats));
        totals
    }

    /// Whether it is kept at `min_pool_size` even without clients: its database's line names the user.
    fn is_kept_open(&self) -> bool {
        self.settings.load().min_pool_size > 0 && self.database.config.load().user.is_some()
    }
}

/// Clients, logins and servers hold their pool; new ones get it from the map, under its lock.
fn is_used(pool: &Arc<Pool>) -> bool {
    Arc::strong_count(pool) > 1
}

/// All databases, users and pools.
#[derive(Debug, Default)]
pub struct Pools {
    inner: Mutex<Inner>,
    /// PAUSE of everything, which [`Database::paused`] knows nothing of.
    all_paused: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    databases: HashMap<Arc<str>, Arc<Database>>,
    users: HashMap<Arc<str>, Arc<User>>,
    pools: HashMap<(Arc<str>, Arc<str>), Arc<Pool>>,
    /// Those for `auth_query`, which clients never get.
    auth_pools: HashMap<(Arc<str>, Arc<str>), Arc<Pool>>,
}

impl Pools {
    /// PAUSE and RESUME of everything. Lanes are told by the caller.
    pub fn set_all_paused(&self, paused: bool) {
        self.all_paused.store(paused, Relaxed);
    }

    /// Whether no servers of this database are given out.
    pub fn is_paused(&self, database: &Database) -> bool {
        self.all_paused.load(Relaxed) || database.paused.load(Relaxed)
    }

    /// A database by the name clients use.
    pub fn database(&self, name: &str) -> Option<Arc<Database>> {
        self.inner.lock().databases.get(name).cloned()
    }

    /// All databases, by name.
    pub fn databases(&self) -> Vec<Arc<Database>> {
        let mut all: Vec<_> = self.inner.lock().databases.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Adds a database, unless another thread has just added one of that name; returns the one that is there.
    pub fn add_database(&self, database: Database) -> Arc<Database> {
        let mut inner = self.inner.lock();
        let name = Arc::clone(&database.name);
        Arc::clone(inner.databases.entry(name).or_insert_with(|| Arc::new(database)))
    }

    /// Removes a database and its pools, which are returned: their clients and servers have to be closed.
    pub fn remove_database(&self, name: &str) -> Vec<Arc<Pool>> {
        let mut inner = self.inner.lock();
        inner.databases.remove(name);
        let mut gone = Vec::new();
        let Inner { pools, auth_pools, .. } = &mut *inner;
        for pools in [pools, auth_pools] {
            gone.extend(pools.values().filter(|pool| &*pool.database.name == name).cloned());
            pools.retain(|(database, _), _| &**database != name);
        }
        gone
    }

    /// A user; it is made if this is the first time it is heard of.
    pub fn user(&self, name: &str) -> Arc<User> {
        let mut inner = self.inner.lock();
        if let Some(user) = inner.users.get(name) {
            return Arc::clone(user);
        }
        let user = Arc::new(User { name: name.into(), servers: Arc::default(), clients: Arc::default() });
        inner.users.insert(Arc::clone(&user.name), Arc::clone(&user));
        user
    }

    /// Forgets users whom nothing is counted against: clients and servers, pools and whoever is about to make one.
    pub fn forget_idle_users(&self) {
        let is_idle = |user: &Arc<User>| {
            Arc::strong_count(user) == 1 && user.servers.current() == 0 && user.clients.current() == 0
        };
        self.inner.lock().users.retain(|_, user| !is_idle(user));
    }

    /// All users, by name.
    pub fn users(&self) -> Vec<Arc<User>> {
        let mut all: Vec<_> = self.inner.lock().users.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The pool of a database and a user for servers, if there is one.
    pub fn find(&self, database: &Arc<str>, user: &Arc<str>) -> Option<Arc<Pool>> {
        self.inner.lock().pools.get(&(Arc::clone(database), Arc::clone(user))).cloned()
    }

    /// The pool of a database and user; `make` tells what governs it if there is none yet.
    pub fn pool(
        &self,
        workers: usize,
        database: &Arc<Database>,
        user: &Arc<User>,
        make: impl FnOnce() -> (PoolSettings, Credential),
    ) -> Arc<Pool> {
        let paused = self.is_paused(database);
        Self::find_or_make(&mut self.inner.lock().pools, workers, database, user, paused, make)
    }

    /// The same for the lookups of `auth_query`.
    pub fn auth_pool(
        &self,
        workers: usize,
        database: &Arc<Database>,
        user: &Arc<User>,
        make: impl FnOnce() -> (PoolSettings, Credential),
    ) -> Arc<Pool> {
        let paused = self.is_paused(database);
        Self::find_or_make(&mut self.inner.lock().auth_pools, workers, database, user, paused, make)
    }

    fn find_or_make(
        pools: &mut HashMap<(Arc<str>, Arc<str>), Arc<Pool>>,
        workers: usize,
        database: &Arc<Database>,
        user: &Arc<User>,
        paused: bool,
        make: impl FnOnce() -> (PoolSettings, Credential),
    ) -> Arc<Pool> {
        let key = (Arc::clone(&database.name), Arc::clone(&user.name));
        if let Some(pool) = pools.get(&key) {
            return Arc::clone(pool);
        }
        let (settings, credential) = make();
        let pool = Arc::new(Pool {
            database: Arc::clone(database),
            user: Arc::clone(user),
            settings: Versioned::new(settings),
            writers: Arc::new(Lane::new(workers)),
            readers: boxcar::Vec::new(),
            stats: (0..workers).map(|_| Arc::default()).collect(),
            clients: AtomicUsize::new(0),
            cancels: Gate::default(),
            credential: Mutex::new(credential),
            login_error: Mutex::new(None),
            welcome: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            trials: Mutex::default(),
            last_used: AtomicMicros::new(clock::now()),
        });
        pool.follow_settings();
        pool.writers.set_paused(paused);
        pools.insert(key, Arc::clone(&pool));
        pool
    }

    /// All pools, by database and user.
    pub fn all(&self) -> Vec<Arc<Pool>> {
        let inner = self.inner.lock();
        let mut all: Vec<_> = inner.pools.values().chain(inner.auth_pools.values()).cloned().collect();
        drop(inner);
        all.sort_by(|a, b| (&a.database.name, &a.user.name).cmp(&(&b.database.name, &b.user.name)));
        all
    }

    /// Forgets pools that nobody has used for `timeout` (zero: none), and returns them with the time since then.
    pub fn forget_idle_pools(&self, timeout: Duration, now: Micros) -> Vec<(Arc<Pool>, Duration)> {
        let mut forgotten = Vec::new();
        let Inner { pools, auth_pools, .. } = &mut *self.inner.lock();
        for pools in [pools, auth_pools] {
            pools.retain(|_, pool| {
                if timeout.is_zero() || is_used(pool) || pool.is_kept_open() {
                    pool.last_used.set(now);
                    return true;
                }
                let idle = now.since(pool.last_used.get());
                if idle > timeout {
                    forgotten.push((Arc::clone(pool), idle));
                }
                idle <= timeout
            });
        }
        forgotten
    }

    /// Forgets automatic databases that nobody has used for `timeout` (zero: none), with their pools; at once those that are
    /// but names.
    pub fn forget_idle_databases(&self, timeout: Duration, now: Micros) -> Vec<Arc<Database>> {
        let mut forgotten = Vec::new();
        let Inner { databases, pools, auth_pools, .. } = &mut *self.inner.lock();
        databases.retain(|_, database| {
            let all = || pools.values().chain(auth_pools.values());
            let its_pools = || all().filter(|pool| Arc::ptr_eq(&pool.database, database));
            let is_used = its_pools().any(is_used) || Arc::strong_count(database) > 1 + its_pools().count();
            let is_marked = database.paused.load(Relaxed) || database.disabled.load(Relaxed);
            let may_go = database.auto.load(Relaxed) && !is_marked;
            let is_name = !database.entered.load(Relaxed);
            if timeout.is_zero() && !is_name || is_used || !may_go {
                database.last_used.set(now);
                return true;
            }
            let is_over = is_name || now.since(database.last_used.get()) > timeout;
            if is_over {
                forgotten.push(Arc::clone(database));
            }
            !is_over
        });
        for pools in [pools, auth_pools] {
            pools.retain(|_, pool| !forgotten.iter().any(|database| Arc::ptr_eq(database, &pool.database)));
        }
        forgotten
    }
}
