//! Asks the hosts of a database what they are. Only for databases whose reads are split from writes.
//!
//! One connection per host, kept open, logged in as one of the database's pools logs in; `pg_is_in_recovery()` each
//! `topology_check_period`. A server connection to a host whose role has changed is closed when its client has
//! finished with it.

use std::collections::HashMap;
use std::sync::Arc;

use super::pools::Pool;
use super::server;
use super::shared::Shared;
use crate::route::cluster::{Cluster, Role};

/// Runs until the task is dropped.
pub async fn run(shared: Arc<Shared>) {
    let mut watched: HashMap<Arc<str>, tokio::task::JoinHandle<()>> = HashMap::new();
    loop {
        watched.retain(|_, task| !task.is_finished());
        for pool in shared.pools.all() {
            let name = &pool.database.name;
            if pool.settings.load().read_write_split
                && pool.welcome().is_some()
                && !watched.contains_key(name)
            {
                tokio::task::spawn_local(super::catalog::watch(Arc::clone(&shared), Arc::clone(&pool)));
                let task = tokio::task::spawn_local(watch(Arc::clone(&shared), Arc::clone(&pool)));
                watched.insert(Arc::clone(name), task);
            }
        }
        tokio::time::sleep(shared.config.load().settings.topology_check_period).await;
    }
}

/// Watches a database's hosts for as long as they are the same ones.
async fn watch(shared: Arc<Shared>, pool: Arc<Pool>) {
    let cluster = pool.database.cluster();
    let mut connections: Vec<Option<server::Probe>> = cluster.hosts.iter().map(|_| None).collect();
    while Arc::ptr_eq(&cluster, &pool.database.cluster())
        && shared.pools.database(&pool.database.name).is_some()
    {
        let limit = shared.config.load().settings.topology_check_period;
        for (index, connection) in connections.iter_mut().enumerate() {
            let asked = tokio::time::timeout(limit, ask(&shared, &pool, index, connection)).await;
            let asked = asked.unwrap_or_else(|_| Err("no answer in time".into()));
            if asked.is_err() {
                *connection = None;
            }
            note(&cluster, index, asked);
        }
        tokio::time::sleep(limit).await;
    }
}

async fn ask(
    shared: &Shared,
    pool: &Pool,
    host: usize,
    connection: &mut Option<server::Probe>,
) -> Result<Role, String> {
    if connection.is_none() {
        *connection = Some(server::Probe::open(shared, pool, host).await.map_err(|e| e.to_string())?);
    }
    let Some(probe) = connection else { return Err("not connected".into()) };
    let rows = probe.run("SELECT pg_catalog.pg_is_in_recovery()").await?;
    match rows.first().and_then(|row| row.first()).and_then(Option::as_deref) {
        Some("t") => Ok(Role::Replica),
        Some("f") => Ok(Role::Primary),
        other => Err(format!("unexpected answer {other:?}")),
    }
}

fn note(cluster: &Cluster, index: usize, asked: Result<Role, String>) {
    let host = &cluster.hosts[index];
    match asked {
        Ok(role) => {
            let was_reachable = host.is_reachable();
            if host.answered(role) || !was_reachable {
                tracing::info!("{}:{} is a {}", host.name, host.port, role.name());
            }
        }
        Err(error) => {
            if host.failed(error.clone()) {
                tracing::warn!("{}:{} is not reachable: {error}", host.name, host.port);
            }
        }
    }
}
