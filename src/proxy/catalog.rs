//! Keeps what is known of a database's functions and relations ([`sql::Catalog`]) up to date. Only for databases whose
//! reads are split from writes.
//!
//! It is read from the primary at the first login, every `catalog_refresh_period`, and when a client has changed it. While
//! it is not known, every statement counts as a write.

use std::sync::Arc;
use std::time::Duration;

use super::catalogs::Catalogs;
use super::pools::Pool;
use super::server::{Probe, Wanted};
use super::shared::Shared;
use crate::route::cluster::Cluster;
use crate::sql::{self, Catalog, Row};

/// Longest time that reading the catalog may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Shortest time between two reads.
const GAP: Duration = Duration::from_millis(50);
/// Time to the next attempt after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// Keeps the catalog of a pool's database for as long as its hosts are the same ones.
pub async fn watch(shared: Arc<Shared>, pool: Arc<Pool>) {
    let cluster = pool.database.cluster();
    let catalogs = &pool.database.catalogs;
    let mut reader = Reader { shared: &shared, pool: &pool, cluster: &cluster, failure: None };
    while Arc::ptr_eq(&cluster, &pool.database.cluster())
        && shared.pools.database(&pool.database.name).is_some()
    {
        let changes = catalogs.changes();
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
