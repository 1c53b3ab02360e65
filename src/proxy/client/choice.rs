//! Which server a transaction may run on, and whether one is at hand. HOT.

use super::super::close::CloseReason;
use super::super::relay::Scratch;
use super::super::server::Server;
use super::Client;
use super::replica_read::ReplicaRead;
use crate::clock::Micros;
use crate::config::{Consistency, PoolMode};
use crate::route::cluster::{Purpose, ReplicaRules};
use crate::route::router::{self, Access};

impl Client {
    /// Where the next transaction may run.
    #[inline]
    pub(super) fn purpose(&mut self, scratch: &mut Scratch, bytes: &[u8], now: Micros) -> Purpose {
        self.access = Access::Write;
        self.may_have_written = false;
        if !self.settings.read_write_split || self.settings.pool_mode == PoolMode::Session {
            return Purpose::Write;
        }
        let replica = self.route(scratch, bytes, now);
        if self.is_second_run {
            self.reading = None;
            // It may be what was called a read and is none: the standby has refused it, or would have.
            self.access = Access::Write;
            return Purpose::Write;
        }
        if self.access == Access::Read || replica.is_some() {
            self.keep(scratch, bytes);
        }
        replica.unwrap_or(Purpose::Write)
    }

    /// The replica for the next transaction, if that is for one, and one has all that the client must not miss.
    fn route(&mut self, scratch: &mut Scratch, bytes: &[u8], now: Micros) -> Option<Purpose> {
        let topology = self.pool.database.hosts.load();
        if !topology.has_replica {
            return None;
        }
        let catalog = self.pool.database.catalogs.load();
        let known = catalog.as_ref().map_or((None, 0), |known| (Some(&known.catalog), known.generation));
        self.access = router::access(bytes, &mut self.session, known, &mut scratch.memo);
        if matches!(self.access, Access::Write | Access::ReadOnly) {
            return None;
        }
        if !self.session.kept.state().is_empty() && !router::wants_replica(bytes, &self.session) {
            return None;
        }
        let after = match self.settings.read_consistency {
            Consistency::Eventual => Micros(0),
            Consistency::Session => self.last_write,
            Consistency::Database => topology.cluster.last_write(),
        };
        let rules = ReplicaRules {
            lag: self.settings.max_replica_lag,
            lag_bytes: self.settings.max_replica_lag_bytes,
            warm_up: self.settings.replica_warm_up,
        };
        let host = topology.replica(after, &rules, now)?;
        let needs_watched = self.settings.read_consistency != Consistency::Eventual;
        self.reading = Some(ReplicaRead::new(&topology, host, after, needs_watched));
        Some(Purpose::Read(host))
    }

    /// An idle server that is in order.
    pub(super) fn checkout(&self, purpose: Purpose, now: Micros) -> Option<Box<Server>> {
        let mut scrap = [0; 64];
        loop {
            let mut server = self.pool.lane(purpose).checkout(self.load.worker)?;
            if let Err(reason) = server.drain_idle(now, &mut scrap) {
                server.close(reason);
            } else if let Some(reason) = self.must_go(&server) {
                server.close(reason);
            } else {
                return Some(server);
            }
        }
    }

    /// Why a server must not be used for this client's transaction; `None`: it may.
    #[inline]
    pub(super) fn must_go(&self, server: &Server) -> Option<CloseReason> {
        let needs_watched = self.settings.read_consistency != Consistency::Eventual;
        let unwatched = needs_watched && server.is_unwatched();
        server.must_go().or(unwatched.then_some(CloseReason::NotWatched))
    }

    /// Whether the replica that was chosen is still known to have all that must not be missed. Its name may have come to mean
    /// another server.
    #[inline]
    pub(super) fn may_read_from_replica(&self, server: &Server) -> bool {
        self.reading.as_ref().is_none_or(|reading| reading.holds(server))
    }
}
