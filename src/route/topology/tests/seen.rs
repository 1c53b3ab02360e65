//! What was seen of a database's hosts, in a line per event.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::super::{HostState, Obstacle, Topology, decide};
use super::ANY;
use crate::clock::Micros;
use crate::route::cluster::{Balance, Cluster};
use crate::route::host::{Host, Role, SystemIdentifier};
use crate::route::observation::{Observations, Report};
use crate::route::wal::Lsn;

/// What was seen of three hosts, `a`, `b` and `c`.
pub(super) struct Seen(Observations);

impl Deref for Seen {
    type Target = Observations;
    fn deref(&self) -> &Observations {
        &self.0
    }
}

impl DerefMut for Seen {
    fn deref_mut(&mut self) -> &mut Observations {
        &mut self.0
    }
}

impl Seen {
    pub(super) fn of(names: &[&str], split: bool, balance: Balance) -> Self {
        let hosts = names.iter().map(|name| Host::new((*name).to_owned(), 1)).collect();
        Self(Observations::new(Arc::new(Cluster::new(hosts, split, balance)), vec![1; names.len()]))
    }

    pub(super) fn nothing() -> Self {
        Self::of(&["a", "b", "c"], true, Balance::RoundRobin)
    }

    /// A host answers a question that was sent at `asked`, a microsecond later.
    fn report(&mut self, host: usize, role: Role, timeline: Option<u32>, asked: u64, position: u64) -> bool {
        self.report_of(host, role, 0, timeline, asked, position)
    }

    pub(super) fn report_of(
        &mut self,
        host: usize,
        role: Role,
        system: u64,
        timeline: Option<u32>,
        asked: u64,
        position: u64,
    ) -> bool {
        let report = Report {
            asked: Micros(asked),
            answered: Micros(asked + 1),
            role,
            system: SystemIdentifier::new(system),
            timeline,
            position: Some(Lsn(position)),
        };
        self.answered(host, &report)
    }

    pub(super) fn primary(&mut self, host: usize, timeline: u32, asked: u64, position: u64) {
        self.report(host, Role::Primary, Some(timeline), asked, position);
    }

    pub(super) fn replica(&mut self, host: usize, timeline: Option<u32>, asked: u64, position: u64) {
        self.report(host, Role::Replica, timeline, asked, position);
    }

    pub(super) fn gone(&mut self, host: usize) -> bool {
        self.failed(host, "gone")
    }

    pub(super) fn decided(&self) -> Topology {
        decide(&self.0)
    }

    pub(super) fn reads_after(&self, write: u64) -> Option<usize> {
        self.decided().replica(Micros(write), &ANY, Micros(10_000))
    }

    /// Role and state of each host, and whether it is lost.
    pub(super) fn states(&self) -> String {
        let state = |host: &HostState| {
            let state = host.obstacle.as_ref().map_or("up", Obstacle::state);
            format!("{} {state}{}", host.seen.role.name(), if host.is_lost { " lost" } else { "" })
        };
        self.decided().hosts.iter().map(state).collect::<Vec<_>>().join(", ")
    }
}
