//! The hosts of a database together: who is the primary, and which replica a read may go to.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::host::{Host, Report, Role};
use super::replicas::{self, Candidate, WARM};
use super::wal::History;
use crate::clock::{AtomicMicros, Micros};

/// What somebody needs a server for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Anything: the primary, if reads are split from writes; else any host.
    Write,
    /// Plain reads: the replica with this number.
    Read(usize),
}

/// How several hosts are used while reads are not split from writes (setting `load_balance_hosts`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Each new connection goes to the next host.
    RoundRobin,
    /// The same host for all connections, the next one only when it cannot be reached.
    Disable,
}

/// What a replica must be like that serves reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplicaRules {
    /// `max_replica_lag`: how far it may be behind. Zero: any time.
    pub lag: Duration,
    /// `max_replica_lag_bytes`. Zero: any number.
    pub lag_bytes: u64,
    /// `replica_warm_up`: how long it takes until one that has come back gets its full share.
    pub warm_up: Duration,
}

/// The hosts of a database.
#[derive(Debug)]
pub struct Cluster {
    /// In the order of the configuration.
    pub hosts: Vec<Host>,
    /// `read_write_split`.
    pub split: bool,
    balance: Balance,
    /// Round robin: counts connections and reads. Otherwise: the host in use.
    next: AtomicUsize,
    /// The newest timeline any primary was on; 0: none has said.
    timeline: AtomicU32,
    /// `system_identifier` of the primary; 0: not known.
    system: AtomicU64,
    /// When a host was last seen that has those databases.
    system_seen: AtomicMicros,
    written: Mutex<Written>,
    /// When a write was last acknowledged; kept for `read_consistency = database` only.
    last_write: AtomicMicros,
    /// Since when there is no primary; 0: there is one.
    primary_lost: AtomicMicros,
    /// The primary that was last told of, and when it was found to be lost.
    told: Mutex<(Option<usize>, Option<Micros>)>,
}

/// Another host takes writes than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrimaryChange {
    /// None does.
    Lost,
    /// This one does.
    Found {
        /// Its number.
        primary: usize,
        /// How long there was none; `None`: there has always been one, or never yet.
        without: Option<Duration>,
    },
}

/// After this time without any host of the known databases others may take their place.
const DATABASES_GONE: Duration = Duration::from_secs(10);

/// Where the primary was when.
#[derive(Debug, Default)]
struct Written {
    /// The host, its cluster of databases and its timeline.
    by: Option<(usize, u64, u32)>,
    history: History,
}

impl Cluster {
    /// Hosts of which nothing is known yet.
    pub fn new(hosts: Vec<Host>, split: bool, balance: Balance) -> Self {
        Self {
            hosts,
            split,
            balance,
            next: AtomicUsize::new(0),
            timeline: AtomicU32::new(0),
            system: AtomicU64::new(0),
            system_seen: AtomicMicros::default(),
            written: Mutex::default(),
            last_write: AtomicMicros::default(),
            primary_lost: AtomicMicros::default(),
            told: Mutex::default(),
        }
    }

    /// Hosts that have not been among those of `before`, which these ones replace, have to be warmed up.
    pub fn warm_up_new_ones(&self, before: &Self, now: Micros) {
        for host in &self.hosts {
            let same = before.hosts.iter().find(|h| h.name == host.name && h.port == host.port);
            host.set_returned(same.map_or(now, Host::returned));
        }
    }

    /// Takes note of what a host has said; says whether its role, its timeline or the primary is another than before.
    pub fn note(&self, index: usize, report: &Report) -> bool {
        let (host, primary) = (&self.hosts[index], self.primary());
        let mut changed = host.answered(report.role, report.answered);
        changed |= report.timeline.is_some_and(|timeline| timeline != host.timeline());
        host.set_position(report);
        match report.role {
            Role::Primary => self.note_primary(index, report),
            Role::Replica => self.note_replica(index, report),
            Role::Unknown => {}
        }
        if report.system == self.system() {
            self.system_seen.set(report.answered);
        }
        changed || self.primary() != primary
    }

    fn note_primary(&self, index: usize, report: &Report) {
        self.note_system(report);
        if self.is_foreign(index) {
            return;
        }
        let timeline = report.timeline.unwrap_or(0);
        if self.timeline.fetch_max(timeline, Relaxed) > timeline {
            // It has missed its replacement.
            return;
        }
        let mut written = self.written.lock();
        let by = Some((index, report.system, timeline));
        if written.by != by {
            *written = Written { by, history: History::default() };
        }
        if let Some(position) = report.position {
            written.history.note(report.asked, position);
            self.hosts.iter().for_each(|replica| replica.compare(report.asked, position));
        }
    }

    /// What cluster of databases a primary is of. If it is another one than so far, because it was made anew or by an upgrade,
    /// it counts when nobody has been there of the old one for a while: timelines begin anew.
    fn note_system(&self, report: &Report) {
        let known = self.system();
        if report.system == 0 || report.system == known {
            return;
        }
        if known != 0 {
            let is_of_known = |host: &Host| host.is_reachable() && host.system() == known;
            let gone = report.answered.since(self.system_seen.get());
            if gone < DATABASES_GONE || self.hosts.iter().any(is_of_known) {
                return;
            }
            self.timeline.store(0, Relaxed);
        }
        self.system.store(report.system, Relaxed);
        for n in 0..self.hosts.len() {
            self.hosts[n].compare_anew(self.is_foreign(n));
        }
    }

    /// `system_identifier` of the primary; 0: not known.
    fn system(&self) -> u64 {
        self.system.load(Relaxed)
    }

    /// Whether a host has other databases than the primary, and not an older or newer state of the same.
    fn is_foreign(&self, host: usize) -> bool {
        let (its, known) = (self.hosts[host].system(), self.system());
        its != 0 && known != 0 && its != known
    }

    fn note_replica(&self, index: usize, report: &Report) {
        let host = &self.hosts[index];
        if self.is_foreign(index) {
            return host.set_diverged();
        }
        let Some(position) = report.position else { return };
        let history = &self.written.lock().history;
        let behind = history.last().map_or(0, |last| last.0.saturating_sub(position.0));
        let moment = if self.may_follow_the_primary(report) { history.moment(position) } else { None };
        host.set_caught_up(moment, behind);
    }

    /// Positions on different timelines cannot be compared.
    fn may_follow_the_primary(&self, report: &Report) -> bool {
        match (report.timeline, self.timeline.load(Relaxed)) {
            (Some(its), newest) if newest > 0 => its == newest,
            _ => {
                self.hosts.iter().filter(|host| host.role() == Role::Primary && host.is_reachable()).count()
                    < 2
            }
        }
    }

    /// The newest timeline any primary was on; 0: none has said.
    pub fn timeline(&self) -> u32 {
        self.timeline.load(Relaxed)
    }

    /// Whether a host says it is a primary, but another one has been promoted since, or may have been.
    pub fn is_outdated(&self, host: usize) -> bool {
        self.hosts[host].role() == Role::Primary
            && (self.hosts[host].timeline() < self.timeline() || self.is_foreign(host))
    }

    /// Whether another host has taken its place, and it says nothing: nobody will be answered any more.
    pub fn is_lost(&self, index: usize) -> bool {
        let Some(host) = self.hosts.get(index) else { return false };
        let says_nothing = !host.is_reachable() && !host.is_closing();
        // One that has just come may not have told its timeline yet.
        let is_known = host.timeline() > 0 || self.is_foreign(index);
        says_nothing && is_known && self.is_outdated(index) && self.primary().is_some()
    }

    /// Why a host is not used, in a word and in a sentence; `None`: it is.
    pub fn obstacle(&self, index: usize) -> Option<(&'static str, String)> {
        let host = &self.hosts[index];
        if !host.is_reachable() {
            let why = host.last_error.lock().clone().unwrap_or_default();
            Some((if host.is_closing() { "closing" } else { "down" }, why))
        } else if self.is_outdated(index) && self.is_foreign(index) {
            Some((
                "outdated",
                "its databases are other ones than those of a host that is there, or was just now".to_owned(),
            ))
        } else if self.is_outdated(index) {
            Some(("outdated", format!("another host has been promoted to timeline {}", self.timeline())))
        } else if host.has_diverged() && self.is_foreign(index) {
            Some(("diverged", "it is a copy of other databases than the primary's".to_owned()))
        } else if host.has_diverged() {
            Some(("diverged", "it has replayed what the primary has never written".to_owned()))
        } else if host.role() == Role::Replica && host.weight() == 0 {
            Some(("up", "its weight is 0".to_owned()))
        } else {
            None
        }
    }

    /// The host that takes writes, as far as is known.
    pub fn primary(&self) -> Option<usize> {
        (0..self.hosts.len()).find(|&n| {
            let host = &self.hosts[n];
            host.role() == Role::Primary && host.is_reachable() && !self.is_outdated(n)
        })
    }

    /// What has changed since it was called last.
    pub fn note_primary_change(&self, now: Micros) -> Option<PrimaryChange> {
        let primary = self.primary();
        let mut told = self.told.lock();
        let (before, lost) = *told;
        if primary == before {
            return None;
        }
        *told = (primary, primary.is_none().then_some(now));
        Some(match primary {
            None => PrimaryChange::Lost,
            Some(primary) => PrimaryChange::Found { primary, without: lost.map(|lost| now.since(lost)) },
        })
    }

    /// For how long no primary has been seen, by whoever calls this now and then.
    pub fn without_primary(&self, now: Micros) -> Duration {
        if self.primary().is_some() {
            self.primary_lost.set(Micros(0));
            return Duration::ZERO;
        }
        if self.primary_lost.get().0 == 0 {
            self.primary_lost.set(now);
        }
        now.since(self.primary_lost.get())
    }

    /// Whether a read may be sent to a replica now.
    pub fn has_replica(&self) -> bool {
        self.split && self.hosts.iter().any(Host::is_usable_replica)
    }

    /// Whether a read may be sent to this host. A configuration with fewer hosts may have replaced the one it comes from.
    pub fn can_read_from(&self, host: usize) -> bool {
        self.hosts.get(host).is_some_and(Host::is_usable_replica)
    }

    /// A write was acknowledged at this moment.
    pub fn wrote(&self, now: Micros) {
        self.last_write.set_max(now);
    }

    /// When a write was last acknowledged, as told by [`Self::wrote`].
    pub fn last_write(&self) -> Micros {
        self.last_write.get()
    }

    /// The replica for a read that must not miss what was acknowledged up to `after` (0: nothing in particular).
    pub fn replica(&self, after: Micros, rules: &ReplicaRules, now: Micros) -> Option<usize> {
        let mut fitting = self.fitting_replicas(after, rules, now);
        let first = fitting.next()?;
        if first.warmth == WARM && fitting.next().is_none() {
            return Some(first.host);
        }
        // With nobody to hand reads over, there is nothing to warm up for.
        let all_warm = self.primary().is_none();
        let fitting = self.fitting_replicas(after, rules, now);
        let fitting = fitting.map(|c| Candidate { warmth: if all_warm { WARM } else { c.warmth }, ..c });
        let turn = self.next.fetch_add(1, Relaxed);
        replicas::choose(fitting, turn as u64)
    }

    fn fitting_replicas<'a>(
        &'a self,
        after: Micros,
        rules: &'a ReplicaRules,
        now: Micros,
    ) -> impl Iterator<Item = Candidate> + Clone + 'a {
        let fits = move |host: &Host| {
            let caught_up = host.caught_up();
            host.is_usable_replica()
                && (after == Micros(0) || caught_up > after)
                && (rules.lag.is_zero() || caught_up + rules.lag >= now)
                && (rules.lag_bytes == 0 || host.bytes_behind() <= rules.lag_bytes)
        };
        self.hosts.iter().enumerate().filter(move |(_, host)| fits(host)).map(move |(n, host)| Candidate {
            host: n,
            busy: host.busy.load(Relaxed) as u64,
            weight: host.weight().into(),
            warmth: host.warmth(rules.warm_up, now),
        })
    }

    /// Whether a host may serve this purpose, as far as is known.
    pub fn suits(&self, host: usize, purpose: Purpose) -> bool {
        !self.split
            || !self.hosts[host].is_closing()
                && match (self.hosts[host].role(), purpose) {
                    (Role::Unknown, _) => true,
                    (Role::Primary, Purpose::Write) => !self.is_outdated(host),
                    (Role::Replica, Purpose::Read(number)) => number == host,
                    _ => false,
                }
    }

    /// Whether connections for this purpose do not lead to this host: it cannot be read from, or another one takes writes.
    pub fn leads_elsewhere(&self, host: usize, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Read(number) => !self.can_read_from(number),
            Purpose::Write => self.primary().is_some_and(|primary| primary != host),
        }
    }

    /// Hosts for a new connection, the one to try first coming first.
    pub fn candidates(&self, purpose: Purpose) -> Vec<usize> {
        if let Purpose::Read(number) = purpose {
            return (0..self.hosts.len()).filter(|&n| n == number).collect();
        }
        let mut all: Vec<usize> = (0..self.hosts.len()).filter(|&n| self.suits(n, purpose)).collect();
        if self.split {
            // Known ones before unknown ones, reachable ones before others.
            all.sort_by_key(|&n| (self.hosts[n].role() == Role::Unknown, !self.hosts[n].is_reachable()));
            if all.is_empty() {
                // Nobody admits to be the primary: ask all of them.
                all = (0..self.hosts.len()).collect();
            }
        } else if !all.is_empty() {
            let next = match self.balance {
                Balance::RoundRobin => self.next.fetch_add(1, Relaxed),
                Balance::Disable => self.next.load(Relaxed),
            };
            let by = next % all.len();
            all.rotate_left(by);
        }
        all
    }

    /// A connection to this host was opened.
    pub fn connected(&self, host: usize) {
        if self.balance == Balance::Disable && !self.split {
            self.next.store(host, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
