//! A read that goes to a replica.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::super::server::Server;
use crate::clock::Micros;
use crate::route::cluster::{Cluster, Purpose};
use crate::route::router::Access;
use crate::route::topology::Topology;

/// Whether a transaction cannot write where it runs.
pub(super) fn only_reads(access: Access, purpose: Purpose) -> bool {
    access == Access::Read || purpose != Purpose::Write
}

/// A read under way, or waiting for a server, counted at its replica.
pub(super) struct ReplicaRead {
    cluster: Arc<Cluster>,
    host: usize,
    /// The revision of what was known when it was chosen.
    revision: u64,
    /// It must not miss what was acknowledged up to this moment; 0: nothing in particular.
    after: Micros,
    /// Only the server that is watched will do.
    needs_watched: bool,
}

impl ReplicaRead {
    pub(super) fn new(topology: &Topology, host: usize, after: Micros, needs_watched: bool) -> Self {
        let cluster = Arc::clone(&topology.cluster);
        cluster.hosts[host].counters.busy.fetch_add(1, Relaxed);
        Self { cluster, host, revision: topology.revision, after, needs_watched }
    }

    /// Whether this server leads to the replica, which is still known to have all that must not be missed.
    pub(super) fn holds(&self, server: &Server) -> bool {
        let is_same = |(cluster, host): (&Arc<Cluster>, usize)| {
            Arc::ptr_eq(cluster, &self.cluster) && host == self.host
        };
        server.lease.host().is_some_and(is_same)
            && (server.lease.hosts().is_some_and(|hosts| hosts.revision() == self.revision)
                || self.still_holds(server))
    }

    /// The same by what is known now: in one look at it, for what a replica has depends on which server is watched.
    #[cold]
    fn still_holds(&self, server: &Server) -> bool {
        let topology = server.lease.hosts().and_then(|hosts| hosts.load_of(&self.cluster));
        let Some(topology) = topology else { return false };
        let replica = &topology.hosts[self.host];
        !replica.seen.diverged
            && replica.has(self.after)
            && !(self.needs_watched && replica.is_other(server.info.instance.get().copied()))
    }
}

impl Drop for ReplicaRead {
    fn drop(&mut self) {
        self.cluster.hosts[self.host].counters.busy.fetch_sub(1, Relaxed);
    }
}
