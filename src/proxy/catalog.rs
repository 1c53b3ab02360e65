//! Keeps what is known of a database's functions and relations ([`sql::Catalog`]) up to date. Only for databases whose
//! reads are split from writes.
//!
//! It is read from the primary at the first login, every `catalog_refresh_period`, and when a client has changed it. While
//! it is not known, every statement counts as a write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::pools::Pool;
use super::server::{Probe, Wanted};
use super::shared::Shared;
use crate::route::cluster::Cluster;
use crate::session::command::Ddl;
use crate::sql::{self, Catalog, Row};

/// Longest time that reading the catalog may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Shortest time between two reads.
const GAP: Duration = Duration::from_millis(50);
/// Time after which something new is looked for. It waits for more: applications make temporary tables all the time.
const ADDED: Duration = Duration::from_secs(2);
/// Time to the next attempt after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// The catalog of a database, as far as it is known.
#[derive(Debug, Default)]
pub struct Catalogs {
    current: ArcSwapOption<Numbered>,
    /// The latest one, which may not hold any more.
    last: ArcSwapOption<Numbered>,
    /// Counts the changes that were seen. A catalog whose reading began before the last one is worthless.
    changes: AtomicU64,
    /// Held for a moment by whoever changes any of the two.
    changing: Mutex<()>,
    wanted: Notify,
}

/// A catalog and its number, which no other catalog of this process has.
#[derive(Debug)]
pub struct Numbered {
    /// What is known.
    pub catalog: Catalog,
    /// Its number; not 0.
    pub generation: u32,
}

impl Catalogs {
    /// What is known now. HOT.
    #[inline]
    pub fn load(&self) -> Guard<Option<Arc<Numbered>>> {
        self.current.load()
    }

    /// What was known last. HOT.
    #[inline]
    pub fn last(&self) -> Guard<Option<Arc<Numbered>>> {
        self.last.load()
    }

    /// A client has changed the catalog, and its transaction has ended.
    #[cold]
    pub fn changed(&self, ddl: Ddl) {
        if ddl == Ddl::Changes {
            self.forget();
        } else {
            self.wanted.notify_one();
        }
    }

    /// Nothing is known any more, until the catalog has been read again.
    pub fn forget(&self) {
        let _changing = self.changing.lock();
        self.changes.fetch_add(1, Relaxed);
        self.current.store(None);
        self.wanted.notify_one();
    }

    /// Waits until the catalog has to be read again.
    async fn outdated(&self, changes: u64, period: Duration) {
        let mut until = Instant::now() + period;
        while self.changes.load(Relaxed) == changes
            && tokio::time::timeout_at(until, self.wanted.notified()).await.is_ok()
        {
            until = until.min(Instant::now() + ADDED);
        }
    }

    /// Takes a catalog whose reading began when there were so many changes; says whether it is in force and new.
    fn set(&self, catalog: Catalog, changes: u64) -> bool {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let _changing = self.changing.lock();
        let known = self.current.load();
        if self.changes.load(Relaxed) != changes
            || known.as_ref().is_some_and(|known| known.catalog == catalog)
        {
            return false;
        }
        let generation = LAST.fetch_add(1, Relaxed).wrapping_add(1).max(1);
        let known = Arc::new(Numbered { catalog, generation });
        self.last.store(Some(Arc::clone(&known)));
        self.current.store(Some(known));
        true
    }
}

/// Keeps the catalog of a pool's database for as long as its hosts are the same ones.
pub async fn watch(shared: Arc<Shared>, pool: Arc<Pool>) {
    let cluster = pool.database.cluster();
    let catalogs = &pool.database.catalogs;
    let mut reader = Reader { shared: &shared, pool: &pool, cluster: &cluster, failure: None };
    while Arc::ptr_eq(&cluster, &pool.database.cluster())
        && shared.pools.database(&pool.database.name).is_some()
    {
        let changes = catalogs.changes.load(Relaxed);
        match reader.read().await {
            Ok(Some(catalog)) => {
                reader.failure = None;
                adopt(&pool.database.name, catalogs, catalog, changes);
                tokio::time::sleep(GAP).await;
                let period = shared.config.load().settings.catalog_refresh_period;
                catalogs.outdated(changes, period).await;
            }
            Ok(None) => tokio::time::sleep(RETRY).await,
            Err(error) => {
                reader.failed(error);
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn adopt(database: &str, catalogs: &Catalogs, catalog: Catalog, changes: u64) {
    if !catalogs.set(catalog, changes) {
        return;
    }
    if let Some(known) = &*catalogs.load() {
        match known.catalog.opaque() {
            None => tracing::info!(
                "{database}: catalog read, {} names are not for replicas",
                known.catalog.unfit_names()
            ),
            Some(why) => tracing::warn!("{database}: nothing is read from replicas: {why}"),
        }
    }
}

/// Reads the catalog, each time over a new connection: one that is kept would have a shutdown wait for us.
struct Reader<'a> {
    shared: &'a Shared,
    pool: &'a Pool,
    cluster: &'a Arc<Cluster>,
    /// What was logged last.
    failure: Option<String>,
}

impl Reader<'_> {
    /// `None`: no primary is known.
    async fn read(&mut self) -> Result<Option<Catalog>, String> {
        let topology = self.pool.database.hosts.load_of(self.cluster);
        let Some(host) = topology.and_then(|topology| topology.primary) else { return Ok(None) };
        let rows = tokio::time::timeout(LIMIT, self.rows(host)).await;
        Catalog::read(&rows.map_err(|_| "no answer in time".to_owned())??).map(Some)
    }

    async fn rows(&self, host: usize) -> Result<Vec<Row>, String> {
        let probe = Probe::open(self.shared, self.pool, self.cluster, host).await;
        let mut probe = probe.map_err(|error| error.to_string())?;
        probe.run("SET search_path = pg_catalog", Wanted::Nothing).await?;
        probe.run(sql::CATALOG_QUERY, Wanted::Rows).await
    }

    fn failed(&mut self, error: String) {
        if self.failure.as_ref() != Some(&error) {
            tracing::warn!("{}: cannot read the catalog: {error}", self.pool.database.name);
            self.failure = Some(error);
        }
    }
}
