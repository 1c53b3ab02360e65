//! Pools: one per (database, user), made when the first client asks for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;

use super::cancel;
use super::catalog::Catalogs;
use super::hosts::Hosts;
use super::info::ServerInfo;
use super::server::Server;
use super::shared::Shared;
use crate::auth::require::RequireAuth;
use crate::auth::server_login::Credential;
use crate::clock::{self, AtomicMicros, Micros};
use crate::config::{Consistency, DatabaseConfig, PoolMode};
use crate::error::Refusal;
use crate::metrics::stats::{Stats, Totals};
use crate::pool::limits::{Limit, Permit};
use crate::pool::{Lane, Place, Sizes};
use crate::route::cluster::{Cluster, Purpose, ReplicaRules};
use crate::session::forward::MaxPacket;
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
    pub hosts: Hosts,
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
            hosts: Hosts::new(cluster, weights),
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

/// Everything that governs a pool, worked out from the global settings, the database's and the user's.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "named as the settings are")]
pub struct PoolSettings {
    pub pool_mode: PoolMode,
    pub sizes: Sizes,
    pub min_pool_size: usize,
    pub max_prepared_statements: usize,
    /// `max_packet_size`.
    pub max_packet: MaxPacket,
    pub server_lifetime: Duration,
    pub server_idle_timeout: Duration,
    pub server_connect_timeout: Duration,
    pub server_login_retry: Duration,
    /// `None`: not checked.
    pub server_check_query: Option<String>,
    pub server_check_delay: Duration,
    pub server_require_auth: RequireAuth,
    pub server_reset_query: String,
    pub server_reset_query_always: bool,
    pub connect_query: String,
    pub read_write_split: bool,
    pub read_consistency: Consistency,
    pub replica_rules: ReplicaRules,
    pub disable_pqexec: bool,
    pub server_round_robin: bool,
    /// Any of the timeouts is set that make a client's deadline while it does not wait for a server.
    pub has_timeouts: bool,
    /// Counts the versions of this pool's settings.
    pub version: u64,
    pub query_timeout: Duration,
    pub query_wait_timeout: Duration,
    pub query_wait_notify: Duration,
    pub idle_transaction_timeout: Duration,
    pub transaction_timeout: Duration,
    pub client_idle_timeout: Duration,
    pub track_extra_parameters: Vec<String>,
    /// Database name on the server.
    pub dbname: String,
    /// Startup parameters fixed in the database's line: `client_encoding`, `timezone` and so on.
    pub startup_parameters: Vec<(String, String)>,
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
    pub settings: ArcSwap<PoolSettings>,
    /// Version of the settings: cheaper to compare than the settings themselves.
    pub settings_version: AtomicU64,
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
    pub cancels: cancel::Gate,
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

    /// Replaces what governs it. Clients follow when they ask for a server the next time.
    pub fn set_settings(&self, mut settings: PoolSettings) {
        settings.version = self.settings.load().version + 1;
        let version = settings.version;
        self.settings.store(Arc::new(settings));
        self.settings_version.store(version, Relaxed);
        self.follow_settings();
    }

    fn follow_settings(&self) {
        let settings = self.settings.load();
        self.cancels.under_way.set_max(settings.sizes.pool);
        self.lanes().for_each(|(_, lane)| lane.set_round_robin(settings.server_round_robin));
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

    /// Opens the connections that those who wait need and limits allow.
    pub fn grow(self: &Arc<Self>, shared: &Arc<Shared>, purpose: Purpose, worker: usize, now: Micros) {
        let sizes = self.settings.load().sizes;
        let lane = self.lane(purpose);
        while let Some(launch) = lane.launch(&sizes, now) {
            if launch == crate::pool::state::Launch::Reserve {
                tracing::info!(
                    "{}/{} taking connection from reserve_pool",
                    self.database.name,
                    self.user.name
                );
            }
            match self.slot(shared, purpose) {
                Ok(slot) => shared.workers[worker].connect(slot),
                Err(full) => {
                    lane.launch_denied();
                    // A limit that several pools share is reached: an idle server of one of them has to go.
                    if !shared.pools.evict_idle(self, full) {
                        break;
                    }
                }
            }
        }
    }

    /// Sends those who wait for a replica to the primary, which can serve reads, too: the replica may not come back.
    pub fn leave_replica(self: &Arc<Self>, shared: &Arc<Shared>, host: usize, worker: usize) {
        let primary = self.lane(Purpose::Write);
        if self.lane(Purpose::Read(host)).move_waiters_to(primary) > 0 {
            primary.serve_waiters(worker);
            self.grow(shared, Purpose::Write, worker, clock::now());
        }
    }

    /// Whether it is kept at `min_pool_size` even without clients: its database's line names the user.
    fn is_kept_open(&self) -> bool {
        self.settings.load().min_pool_size > 0 && self.database.config.load().user.is_some()
    }

    /// Opens connections until there are `min_pool_size`.
    pub fn warm(self: &Arc<Self>, shared: &Arc<Shared>, now: Micros) {
        let settings = self.settings.load();
        let most = if settings.sizes.pool == 0 { usize::MAX } else { settings.sizes.pool };
        let min = settings.min_pool_size.min(most);
        let lane = self.lane(Purpose::Write);
        let mut worker = 0;
        while lane.may_launch_spare(now) && lane.launch_spare(min, now) {
            let Ok(slot) = self.slot(shared, Purpose::Write) else {
                lane.launch_denied();
                break;
            };
            shared.workers[worker % shared.workers.len()].connect(slot);
            worker += 1;
        }
    }

    /// A place for a connection that one client keeps for itself, if there is one now; an idle server may have to go for
    /// it. It is counted as one being opened.
    pub fn claim(self: &Arc<Self>, shared: &Arc<Shared>, now: Micros) -> Option<Slot> {
        let lane = self.lane(Purpose::Write);
        let size = match self.settings.load().sizes.pool {
            0 => usize::MAX,
            size => size,
        };
        if !lane.launch_spare(size, now) {
            let mut found = false;
            let evicted = lane.take_idle(|_| !std::mem::replace(&mut found, true));
            evicted.into_iter().for_each(|server| server.close("evicted"));
            if !found || !lane.launch_spare(size, now) {
                return None;
            }
        }
        let slot = self.slot(shared, Purpose::Write);
        if let Err(full) = slot {
            lane.launch_denied();
            shared.pools.evict_idle(self, full);
        }
        slot.ok()
    }

    /// A place for a connection that exists already, however many there may be.
    pub fn slot_regardless(self: &Arc<Self>, shared: &Arc<Shared>) -> Slot {
        self.lane(Purpose::Write).count_opened();
        let permits = [self.database.servers.acquire_regardless(), self.user.servers.acquire_regardless()];
        self.slot_with(permits, shared, Purpose::Write)
    }

    fn slot(self: &Arc<Self>, shared: &Arc<Shared>, purpose: Purpose) -> Result<Slot, Full> {
        let permits = [
            self.database.servers.acquire().ok_or(Full::Database)?,
            self.user.servers.acquire().ok_or(Full::User)?,
        ];
        Ok(self.slot_with(permits, shared, purpose))
    }

    fn slot_with(self: &Arc<Self>, permits: [Permit; 2], shared: &Arc<Shared>, purpose: Purpose) -> Slot {
        Slot {
            occupied: None,
            _permits: permits,
            _place: Place::new(Arc::clone(self.lane(purpose))),
            pool: Arc::clone(self),
            purpose,
            _regrow: Regrow { shared: Arc::clone(shared), pool: Arc::clone(self), purpose },
        }
    }
}

/// A limit that several pools share and that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// `max_db_connections`.
    Database,
    /// `max_user_connections`.
    User,
}

/// A server connection's place: in its lane, and in whatever else counts connections. Dropping it gives all of
/// that back.
#[derive(Debug)]
pub struct Slot {
    occupied: Option<Occupied>,
    _permits: [Permit; 2],
    _place: Place<Box<Server>>,
    /// The pool.
    pub pool: Arc<Pool>,
    /// The lane.
    pub purpose: Purpose,
    // Fields are dropped in this order: when the last one goes, the place is free.
    _regrow: Regrow,
}

/// Lets somebody else use the place that has become free.
#[derive(Debug)]
struct Regrow {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    purpose: Purpose,
}

impl Drop for Regrow {
    fn drop(&mut self) {
        self.pool.grow(&self.shared, self.purpose, 0, clock::now());
    }
}

/// A connection that exists, and is counted at its host.
#[derive(Debug)]
struct Occupied {
    info: Arc<ServerInfo>,
    cluster: Arc<Cluster>,
    servers: Arc<dashmap::DashMap<u64, Arc<ServerInfo>>>,
}

impl Slot {
    /// The connection is there.
    pub fn occupied(mut self, shared: &Shared, info: Arc<ServerInfo>, cluster: Arc<Cluster>) -> Self {
        cluster.hosts[info.host].counters.servers.fetch_add(1, Relaxed);
        shared.servers.insert(info.id, Arc::clone(&info));
        self.occupied = Some(Occupied { info, cluster, servers: Arc::clone(&shared.servers) });
        self
    }

    /// The hosts as they were when the connection was opened, and which of them it is.
    pub fn host(&self) -> Option<(&Arc<Cluster>, usize)> {
        self.occupied.as_ref().map(|o| (&o.cluster, o.info.host))
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.cluster.hosts[self.info.host].counters.servers.fetch_sub(1, Relaxed);
        self.servers.remove(&self.info.id);
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
            settings: ArcSwap::from_pointee(settings),
            settings_version: AtomicU64::new(0),
            writers: Arc::new(Lane::new(workers)),
            readers: boxcar::Vec::new(),
            stats: (0..workers).map(|_| Arc::default()).collect(),
            clients: AtomicUsize::new(0),
            cancels: cancel::Gate::default(),
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

    /// Closes the server that has been idle for the longest time among the pools that count against the same limit;
    /// says whether there was one.
    fn evict_idle(&self, wanting: &Pool, full: Full) -> bool {
        let counts = |pool: &Arc<Pool>| match full {
            Full::Database => Arc::ptr_eq(&pool.database, &wanting.database),
            Full::User => Arc::ptr_eq(&pool.user, &wanting.user),
        };
        let pools: Vec<_> = self.all().into_iter().filter(counts).collect();
        let lanes = pools.iter().flat_map(|pool| pool.lanes()).map(|(_, lane)| lane);
        let longest = lanes.filter_map(|lane| Some((lane.least_idle_by(|server| server.idle_since)?, lane)));
        let Some((since, lane)) = longest.min_by_key(|(since, _)| *since) else { return false };
        let mut found = false;
        let is_it = |server: &mut Box<Server>| {
            let is_it = !found && server.idle_since == since;
            found |= is_it;
            is_it
        };
        lane.take_idle(is_it).into_iter().for_each(|server| server.close("evicted"));
        // Whoever took it meanwhile will give it back.
        found
    }
}
