//! Who is the primary, which replica has come how far, which host may be used for what: decided from what was seen. Pure.
//!
//! ```text
//! logins, the watching tasks ──events──▶ Observations ──decide──▶ Topology ◀──load── clients, SHOW, the housekeeping
//! ```
//!
//! * [`Observations`] are what was seen, host by host, and of the primary's past. Each event is one method. Their one owner
//!   (`proxy::hosts`) has a lock, for logins come from all workers.
//! * [`decide`] makes of them a [`Topology`], which never changes. Readers load the latest one and find in it a primary,
//!   roles, instances and moments that belong together; no order of writes to separate atomics has to be kept.
//! * It takes no `now`: what depends on the time (how far a replica is behind, how warm it is) is kept as moments, and those
//!   who read compare them with the time that they have anyway. So it need not be made anew because time passes.
//! * Moments are in it, too, though each answer of a replica moves its own: a new one per answer is tens per second for a
//!   database, and costs a microsecond, but a moment apart from the instance that it belongs to would have to be ordered
//!   with it.
//! * Most of these changes make nothing wrong that was decided before: a replica only gets further. [`Topology::revision`]
//!   counts the others. What was decided at a revision holds as long as that is the latest, and to look at that is one load
//!   of a plain atomic: what a server may be used for is worked out once per revision and server, not per transaction.
//! * What changes with each transaction (reads under way, totals, the last write) is counted in atomics of the
//!   [`Cluster`] and its hosts, beside all this.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::cluster::{Cluster, Purpose, ReplicaRules};
use super::host::{Instance, Role};
use super::observation::{Observation, Observations};
use super::replicas::{self, Candidate, WARM};
use crate::clock::Micros;

/// What is known of a database's hosts, and what follows from it.
#[derive(Clone, Debug)]
pub struct Topology {
    /// The hosts.
    pub cluster: Arc<Cluster>,
    /// Counts the changes that may have made wrong what was decided before.
    pub revision: u64,
    /// The host that takes writes, as far as is known.
    pub primary: Option<usize>,
    /// The newest timeline any primary was on.
    pub timeline: Option<u32>,
    /// What is known of each host.
    pub hosts: Vec<HostState>,
    /// Whether a read may be sent to a replica now.
    pub has_replica: bool,
}

/// What is known of a host, and what it may be used for.
#[derive(Clone, Debug)]
pub struct HostState {
    /// What was seen of it.
    pub seen: Observation,
    /// Its share of the reads, compared with other replicas (`weight`); 0: none.
    pub weight: u32,
    /// It says it is a primary, but another one has been promoted since, or may have been.
    pub is_outdated: bool,
    /// Another host has taken its place, and it says nothing: none of its connections will be answered any more.
    pub is_lost: bool,
    /// Reads can go to it, if it has come far enough.
    pub serves_reads: bool,
    /// Why it is not used; `None`: it is.
    pub obstacle: Option<Obstacle>,
}

/// Why a host is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It lets nobody in for now.
    Closing(Arc<str>),
    /// It cannot be reached.
    Down(Arc<str>),
    /// It is a primary of other databases.
    OtherDatabases,
    /// Another host has been promoted, to this timeline.
    Outdated(u32),
    /// It is a replica of other databases.
    CopyOfOtherDatabases,
    /// It is a replica of another past.
    Diverged,
    /// The configuration says so.
    NoWeight,
}

impl Obstacle {
    /// The host's state in a word, as SHOW HOSTS has it.
    pub fn state(&self) -> &'static str {
        match self {
            Self::Closing(_) => "closing",
            Self::Down(_) => "down",
            Self::OtherDatabases | Self::Outdated(_) => "outdated",
            Self::CopyOfOtherDatabases | Self::Diverged => "diverged",
            Self::NoWeight => "up",
        }
    }

    /// Why, in a sentence.
    pub fn why(&self) -> String {
        match self {
            Self::Closing(why) | Self::Down(why) => why.to_string(),
            Self::OtherDatabases => {
                "its databases are other ones than those of a host that is there, or was just now".to_owned()
            }
            Self::Outdated(timeline) => format!("another host has been promoted to timeline {timeline}"),
            Self::CopyOfOtherDatabases => "it is a copy of other databases than the primary's".to_owned(),
            Self::Diverged => "it has replayed what the primary has never written".to_owned(),
            Self::NoWeight => "its weight is 0".to_owned(),
        }
    }
}

/// What follows from what was seen.
pub fn decide(seen: &Observations) -> Topology {
    let primary = seen.primary();
    let hosts: Vec<_> = (0..seen.hosts.len()).map(|n| decide_host(seen, n, primary.is_some())).collect();
    Topology {
        cluster: Arc::clone(&seen.cluster),
        revision: 0,
        primary,
        timeline: seen.timeline,
        has_replica: seen.cluster.split && hosts.iter().any(|host| host.serves_reads),
        hosts,
    }
}

fn decide_host(all: &Observations, index: usize, has_primary: bool) -> HostState {
    let (seen, weight) = (all.hosts[index].clone(), all.weights[index]);
    let (is_outdated, is_foreign) = (all.is_outdated(index), all.is_foreign(index));
    let is_reachable = seen.is_reachable();
    // One that has just come may not have told its timeline yet.
    let is_known = seen.timeline.is_some() || is_foreign;
    let why = || seen.last_error.clone().unwrap_or_default();
    let obstacle = match seen.role {
        _ if seen.closing => Some(Obstacle::Closing(why())),
        _ if !is_reachable => Some(Obstacle::Down(why())),
        _ if is_outdated && is_foreign => Some(Obstacle::OtherDatabases),
        _ if is_outdated => Some(Obstacle::Outdated(all.timeline.unwrap_or(0))),
        _ if seen.diverged && is_foreign => Some(Obstacle::CopyOfOtherDatabases),
        _ if seen.diverged => Some(Obstacle::Diverged),
        Role::Replica if weight == 0 => Some(Obstacle::NoWeight),
        _ => None,
    };
    HostState {
        is_outdated,
        is_lost: !is_reachable && !seen.closing && is_known && is_outdated && has_primary,
        serves_reads: weight > 0 && seen.role == Role::Replica && is_reachable && !seen.diverged,
        obstacle,
        weight,
        seen,
    }
}

impl HostState {
    /// How much of its weight counts, in thousandths: one that has come back is warmed up.
    pub fn warmth(&self, warm_up: Duration, now: Micros) -> u64 {
        self.seen.returned.map_or(WARM, |returned| replicas::warmth(now.since(returned), warm_up))
    }

    /// Its weight as far as it counts.
    pub fn weight_now(&self, warm_up: Duration, now: Micros) -> f64 {
        f64::from(self.weight) * self.warmth(warm_up, now) as f64 / WARM as f64
    }

    /// How long ago the moment was up to which it has all that was acknowledged, for a replica of which it is known.
    pub fn lag(&self, now: Micros) -> Option<Duration> {
        self.seen.caught_up.filter(|_| self.seen.role == Role::Replica).map(|moment| now.since(moment))
    }

    /// Whether it has replayed all that was acknowledged up to `after` (0: nothing in particular).
    pub fn has(&self, after: Micros) -> bool {
        after == Micros(0) || self.seen.caught_up > Some(after)
    }

    /// Whether a connection that leads to this server does not lead to the one that is watched.
    pub fn is_other(&self, instance: Option<Instance>) -> bool {
        self.seen.instance.is_some() && self.seen.instance != instance
    }

    /// Whether something that was decided before may be wrong now: anything has changed but how far it has come.
    fn contradicts(&self, before: &Self) -> bool {
        let facts = |host: &Self| {
            let seen = &host.seen;
            let state =
                (host.is_outdated, host.is_lost, host.serves_reads, seen.is_reachable(), seen.closing);
            (state, host.weight, seen.role, seen.instance, seen.timeline, seen.diverged, seen.returned)
        };
        facts(self) != facts(before) || self.seen.caught_up < before.seen.caught_up
    }
}

impl Topology {
    /// Gives it its revision: it takes the place of the one before.
    #[must_use]
    pub fn after(self, before: &Self) -> Self {
        let contradicts = !Arc::ptr_eq(&self.cluster, &before.cluster)
            || self.hosts.iter().zip(&before.hosts).any(|(now, then)| now.contradicts(then));
        Self { revision: before.revision + u64::from(contradicts), ..self }
    }

    /// Whether a read may be sent to this host. A configuration with fewer hosts may have replaced the one it comes from.
    pub fn can_read_from(&self, host: usize) -> bool {
        self.hosts.get(host).is_some_and(|host| host.serves_reads)
    }

    /// The replica for a read that must not miss what was acknowledged up to `after` (0: nothing in particular). HOT.
    pub fn replica(&self, after: Micros, rules: &ReplicaRules, now: Micros) -> Option<usize> {
        let mut fitting = self.fitting_replicas(after, rules, now);
        let first = fitting.next()?;
        if first.warmth == WARM && fitting.next().is_none() {
            return Some(first.host);
        }
        // With nobody to hand reads over, there is nothing to warm up for.
        let all_warm = self.primary.is_none();
        let fitting = self.fitting_replicas(after, rules, now);
        let fitting = fitting.map(|c| Candidate { warmth: if all_warm { WARM } else { c.warmth }, ..c });
        replicas::choose(fitting, self.cluster.turn() as u64)
    }

    fn fitting_replicas<'a>(
        &'a self,
        after: Micros,
        rules: &'a ReplicaRules,
        now: Micros,
    ) -> impl Iterator<Item = Candidate> + Clone + 'a {
        let fits = move |host: &HostState| {
            host.serves_reads
                && host.has(after)
                && (rules.lag.is_zero()
                    || host.seen.caught_up.is_some_and(|moment| moment + rules.lag >= now))
                && (rules.lag_bytes == 0 || host.seen.bytes_behind <= rules.lag_bytes)
        };
        let all = self.hosts.iter().zip(&self.cluster.hosts).enumerate();
        all.filter(move |(_, (state, _))| fits(state)).map(move |(n, (state, host))| Candidate {
            host: n,
            busy: host.counters.busy.load(Relaxed) as u64,
            weight: state.weight.into(),
            warmth: state.warmth(rules.warm_up, now),
        })
    }

    /// Whether a host may serve this purpose, as far as is known.
    pub fn suits(&self, host: usize, purpose: Purpose) -> bool {
        let state = &self.hosts[host];
        !self.cluster.split
            || !state.seen.closing
                && match (state.seen.role, purpose) {
                    (Role::Unknown, _) => true,
                    (Role::Primary, Purpose::Write) => !state.is_outdated,
                    (Role::Replica, Purpose::Read(number)) => number == host,
                    _ => false,
                }
    }

    /// Whether connections for this purpose do not lead to this host: it cannot be read from, or another one takes writes.
    pub fn leads_elsewhere(&self, host: usize, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Read(number) => !self.can_read_from(number),
            Purpose::Write => self.primary.is_some_and(|primary| primary != host),
        }
    }

    /// Hosts for a new connection, the one to try first coming first.
    pub fn candidates(&self, purpose: Purpose) -> Vec<usize> {
        let all = 0..self.hosts.len();
        if let Purpose::Read(number) = purpose {
            return all.filter(|&n| n == number).collect();
        }
        if !self.cluster.split {
            return self.cluster.in_turn();
        }
        let mut fitting: Vec<usize> = all.clone().filter(|&n| self.suits(n, purpose)).collect();
        // Known ones before unknown ones, reachable ones before others.
        fitting.sort_by_key(|&n| {
            let seen = &self.hosts[n].seen;
            (seen.role == Role::Unknown, !seen.is_reachable())
        });
        // If no host says that it is the primary, all of them are asked.
        if fitting.is_empty() { all.collect() } else { fitting }
    }
}

#[cfg(test)]
mod tests;
