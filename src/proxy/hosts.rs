//! The hosts of a database: watchers and logins report events here, and all tasks read one snapshot made of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::clock::{AtomicMicros, Micros};
use crate::route::cluster::Cluster;
use crate::route::observation::Observations;
use crate::route::topology::{Topology, decide};

/// The hosts of a database. See [`crate::route::topology`].
#[derive(Debug)]
pub struct Hosts {
    topology: ArcSwap<Topology>,
    /// That of the topology.
    revision: AtomicU64,
    /// Its lock is held while the topology is replaced.
    observations: Mutex<Observations>,
    /// Since when the housekeeping has seen no primary; 0: it has seen one.
    primary_missed: AtomicMicros,
    recheck: Notify,
    changes: watch::Sender<()>,
}

impl Hosts {
    /// Hosts of which nothing is known yet.
    pub fn new(cluster: Cluster, weights: Vec<u32>) -> Self {
        let observations = Observations::new(Arc::new(cluster), weights);
        Self {
            topology: ArcSwap::from_pointee(decide(&observations)),
            revision: AtomicU64::new(0),
            observations: Mutex::new(observations),
            primary_missed: AtomicMicros::default(),
            recheck: Notify::new(),
            changes: watch::Sender::default(),
        }
    }

    /// What is known now. HOT.
    #[inline]
    pub fn load(&self) -> Guard<Arc<Topology>> {
        self.topology.load()
    }

    /// What is known now, if these are still the hosts: a change of the configuration may have replaced them.
    pub fn load_of(&self, cluster: &Arc<Cluster>) -> Option<Guard<Arc<Topology>>> {
        Some(self.topology.load()).filter(|topology| Arc::ptr_eq(&topology.cluster, cluster))
    }

    /// What is known now, to keep for a while.
    pub fn load_full(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    /// The revision of what is known now. Something that was decided at this revision still holds. HOT.
    #[inline]
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Takes note of something that was seen of these hosts; `None`: they have been replaced.
    pub fn note<T>(&self, cluster: &Arc<Cluster>, event: impl FnOnce(&mut Observations) -> T) -> Option<T> {
        let mut observations = self.observations.lock();
        if !Arc::ptr_eq(&observations.cluster, cluster) {
            return None;
        }
        let news = event(&mut observations);
        self.publish(&observations);
        Some(news)
    }

    /// The configuration gives the hosts other shares of the reads.
    pub fn set_weights(&self, weights: Vec<u32>) {
        let mut observations = self.observations.lock();
        observations.weights = weights;
        self.publish(&observations);
    }

    /// The configuration names other hosts.
    pub fn replace(&self, cluster: Cluster, weights: Vec<u32>, now: Micros) {
        let mut observations = self.observations.lock();
        let mut new = Observations::new(Arc::new(cluster), weights);
        if observations.cluster.split {
            new.warm_up_new_ones(&observations, now);
        }
        *observations = new;
        self.primary_missed.set(Micros(0));
        self.publish(&observations);
    }

    fn publish(&self, observations: &Observations) {
        let topology = decide(observations).after(&self.topology.load());
        let revision = topology.revision;
        self.topology.store(Arc::new(topology));
        // After it, so that no one who knows the revision finds an older topology.
        self.revision.store(revision, Ordering::Release);
    }

    /// For how long the housekeeping, which calls this now and then, has seen no primary.
    pub fn without_primary(&self, now: Micros) -> Duration {
        if self.load().primary.is_some() {
            self.primary_missed.set(Micros(0));
            return Duration::ZERO;
        }
        if self.primary_missed.get() == Micros(0) {
            self.primary_missed.set(now);
        }
        now.since(self.primary_missed.get())
    }

    /// Something looks as if the hosts had changed their roles, or one had gone: those who watch them look again at once.
    pub fn recheck(&self) {
        self.recheck.notify_waiters();
    }

    /// Waits until that is wanted.
    pub async fn recheck_wanted(&self) {
        self.recheck.notified().await;
    }

    /// Tells [`Self::changes`] that a host has another role than before, or cannot be used any more, or can be again.
    pub fn topology_changed(&self) {
        self.changes.send_replace(());
    }

    /// Those changes, from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::route::cluster::Balance;
    use crate::route::host::{Host, Instance, Role};
    use crate::route::observation::Report;
    use crate::route::wal::Lsn;

    fn cluster(ports: &[u16]) -> Cluster {
        let hosts = ports.iter().map(|&port| Host::new("h".into(), port));
        Cluster::new(hosts.collect(), true, Balance::RoundRobin)
    }

    #[test]
    fn what_is_seen_of_replaced_hosts_is_not_taken_for_that_of_others() {
        let hosts = Hosts::new(cluster(&[1, 2]), vec![1, 1]);
        let old = Arc::clone(&hosts.load().cluster);
        let is_primary = |seen: &mut Observations| seen.logged_in(1, Role::Primary, Micros(5));
        assert_eq!(hosts.note(&old, is_primary), Some(true));
        assert_eq!((hosts.load().primary, hosts.revision()), (Some(1), 1));
        assert_eq!(hosts.note(&old, is_primary), Some(false));
        assert_eq!(hosts.revision(), 1);
        hosts.replace(cluster(&[1]), vec![1], Micros(9));
        assert_eq!((hosts.load().primary, hosts.revision()), (None, 2));
        assert_eq!(hosts.note(&old, is_primary), None);
        assert!(hosts.load_of(&old).is_none());
        hosts.set_weights(vec![7]);
        assert_eq!((hosts.load().hosts[0].weight, hosts.revision()), (7, 3));
    }

    #[test]
    fn how_long_there_is_no_primary_counts_from_the_first_look() {
        let hosts = Hosts::new(cluster(&[1]), vec![1]);
        let missed = |at: u64| hosts.without_primary(Micros(at)).as_micros();
        assert_eq!([missed(1000), missed(1500)], [0, 500]);
        let old = Arc::clone(&hosts.load().cluster);
        hosts.note(&old, |seen| seen.logged_in(0, Role::Primary, Micros(1600)));
        assert_eq!(missed(1700), 0);
        hosts.note(&old, |seen| seen.failed(0, "gone"));
        assert_eq!([missed(1800), missed(1900)], [0, 100]);
    }

    /// A name that leads to one of two servers, of which one has replayed nothing.
    #[test]
    fn readers_never_take_what_one_server_has_for_what_another_one_has() {
        let hosts = Hosts::new(cluster(&[1, 2]), vec![1, 1]);
        let own = Arc::clone(&hosts.load().cluster);
        let report = |role, at: u64, position: u64| Report {
            asked: Micros(at),
            answered: Micros(at),
            role,
            system: None,
            timeline: Some(1),
            position: Some(Lsn(position)),
        };
        let [current, stale] = [1, 2].map(Instance::new);
        let ended = AtomicBool::new(false);
        let (looks, caught_up) = (AtomicU64::new(0), AtomicU64::new(0));
        let look = || {
            while !ended.load(Ordering::Relaxed) {
                let revision = hosts.revision();
                let topology = hosts.load();
                assert!(topology.revision >= revision);
                let seen = &topology.hosts[1].seen;
                assert!(seen.instance == current || seen.caught_up.is_none(), "{seen:?}");
                caught_up.fetch_add(seen.caught_up.is_some().into(), Ordering::Relaxed);
                looks.fetch_add(1, Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| {
            let readers = [scope.spawn(look), scope.spawn(look)];
            // On a busy machine all looks may fall into one state of the writer.
            let is_seen = || caught_up.load(Ordering::Relaxed) > 0 && looks.load(Ordering::Relaxed) > 10_000;
            let is_over = || is_seen() || readers.iter().any(|reader| reader.is_finished());
            for round in (10..).step_by(10).take_while(|&round| round < 50_000 || !is_over()) {
                let primary = report(Role::Primary, round, 1000 + round);
                hosts.note(&own, |seen| seen.answered(0, &primary));
                for (instance, position) in [(current, 1000 + round), (stale, 1)] {
                    hosts.note(&own, |seen| seen.watch_instance(1, instance));
                    let replica = report(Role::Replica, round + 1, position);
                    hosts.note(&own, |seen| seen.answered(1, &replica));
                }
            }
            ended.store(true, Ordering::Relaxed);
        });
    }
}
