//! A server connection's place: in its pool, and in whatever else counts connections.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use dashmap::DashMap;

use super::hosts::Hosts;
use super::server_handle::ServerHandle;
use crate::pool::Place;
use crate::pool::limits::Permit;
use crate::route::cluster::{Cluster, Purpose};

/// All server connections by their ID.
pub type Registry = DashMap<u64, Arc<ServerHandle>>;

/// What a connection is opened for: its pool, as far as the connection needs to know.
pub trait Owner: fmt::Debug + Send + Sync {
    /// A connection for this purpose has gone: another one may take its place.
    fn place_is_free(&self, purpose: Purpose);
    /// Something casts doubt on the hosts.
    fn recheck_hosts(&self);
}

/// See the module's documentation. Dropping it gives all of it back. `S`: what the pool's lanes hold.
#[derive(Debug)]
pub struct Lease<S> {
    connection: Option<Connection>,
    _permits: [Permit; 2],
    _place: Place<S>,
    // Fields are dropped in this order: when the last one goes, the place is free.
    owner: OwnerToTell,
}

#[derive(Debug)]
struct OwnerToTell {
    owner: Arc<dyn Owner>,
    purpose: Purpose,
}

impl Drop for OwnerToTell {
    fn drop(&mut self) {
        self.owner.place_is_free(self.purpose);
    }
}

/// A connection that exists, and is counted at its host.
#[derive(Debug)]
struct Connection {
    info: Arc<ServerHandle>,
    hosts: Arc<Hosts>,
    cluster: Arc<Cluster>,
    registry: Arc<Registry>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.cluster.hosts[self.info.host].counters.servers.fetch_sub(1, Relaxed);
        self.registry.remove(&self.info.id);
    }
}

impl<S> Lease<S> {
    /// A place for a connection that is about to be opened.
    pub fn new(owner: Arc<dyn Owner>, permits: [Permit; 2], place: Place<S>, purpose: Purpose) -> Self {
        let owner = OwnerToTell { owner, purpose };
        Self { connection: None, _permits: permits, _place: place, owner }
    }

    /// The connection is there.
    pub fn connected(
        mut self,
        registry: &Arc<Registry>,
        info: Arc<ServerHandle>,
        hosts: &Arc<Hosts>,
        cluster: Arc<Cluster>,
    ) -> Self {
        cluster.hosts[info.host].counters.servers.fetch_add(1, Relaxed);
        registry.insert(info.id, Arc::clone(&info));
        let (hosts, registry) = (Arc::clone(hosts), Arc::clone(registry));
        self.connection = Some(Connection { info, hosts, cluster, registry });
        self
    }

    /// What the connection is good for.
    pub fn purpose(&self) -> Purpose {
        self.owner.purpose
    }

    /// The hosts as they were when the connection was opened, and which of them it is.
    pub fn host(&self) -> Option<(&Arc<Cluster>, usize)> {
        self.connection.as_ref().map(|connection| (&connection.cluster, connection.info.host))
    }

    /// What is known of its database's hosts.
    pub fn hosts(&self) -> Option<&Hosts> {
        self.connection.as_ref().map(|connection| &*connection.hosts)
    }

    /// Has the hosts asked whether they still are what they were.
    pub fn recheck_hosts(&self) {
        self.owner.owner.recheck_hosts();
    }
}
