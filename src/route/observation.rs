//! What was seen of a database's hosts, event by event: the input of [`decide`](super::topology::decide). Pure.

use std::sync::Arc;
use std::time::Duration;

use super::cluster::Cluster;
use super::host::{Instance, Role, SystemIdentifier};
use super::wal::{History, Lsn};
use crate::clock::Micros;

/// After this time without any host of the known databases others may take their place.
const DATABASES_GONE: Duration = Duration::from_secs(10);

/// What a host has said of itself when it was asked.
#[derive(Clone, Debug)]
pub struct Report {
    /// When the question was sent.
    pub asked: Micros,
    /// When the answer had come.
    pub answered: Micros,
    /// Its role.
    pub role: Role,
    /// Which cluster of databases it is, or is a copy of; `None`: it does not say.
    pub system: Option<SystemIdentifier>,
    /// The timeline it writes, or receives; `None`: it does not say, or does not let everybody know.
    pub timeline: Option<u32>,
    /// Where it writes, or what it has replayed; `None`: it does not say.
    pub position: Option<Lsn>,
}

/// What was last seen of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What it said last.
    pub role: Role,
    /// The last attempt to reach it has succeeded.
    answers: bool,
    /// It lets nobody in, as a server does that shuts down when those have gone who are in.
    pub closing: bool,
    /// Why it cannot be reached.
    pub last_error: Option<Arc<str>>,
    /// Its timeline.
    pub timeline: Option<u32>,
    /// Which cluster of databases it is, or is a copy of.
    pub system: Option<SystemIdentifier>,
    /// Which of the servers that its name may mean is watched.
    pub instance: Option<Instance>,
    /// Where it writes (primary), or what it has replayed (replica).
    pub position: Option<Lsn>,
    /// When it said so.
    told: Micros,
    /// Up to this moment it has replayed everything that was acknowledged.
    pub caught_up: Option<Micros>,
    /// How far it was behind the primary when it was last asked, in bytes of WAL.
    pub bytes_behind: u64,
    /// It has replayed something that the primary does not have.
    pub diverged: bool,
    /// When it came, or came back, while reads were served without it. `None`: it has always been there.
    pub returned: Option<Micros>,
}

impl Default for Observation {
    /// A host of which nothing is known yet.
    fn default() -> Self {
        Self {
            role: Role::Unknown,
            answers: true,
            closing: false,
            last_error: None,
            timeline: None,
            system: None,
            instance: None,
            position: None,
            told: Micros(0),
            caught_up: None,
            bytes_behind: 0,
            diverged: false,
            returned: None,
        }
    }
}

impl Observation {
    /// Whether the last attempt to reach it succeeded, and it lets others in.
    pub fn is_reachable(&self) -> bool {
        self.answers && !self.closing
    }

    /// Notes its role; says whether it is another than before. What else was known of it holds no more then.
    fn answered(&mut self, role: Role, at: Micros) -> bool {
        let was_away = !std::mem::replace(&mut self.answers, true);
        if !self.closing {
            self.last_error = None;
        }
        let before = std::mem::replace(&mut self.role, role);
        let is_new = before != role;
        if was_away || is_new && before != Role::Unknown {
            self.returned = Some(at);
        }
        if is_new {
            (self.timeline, self.caught_up, self.diverged) = (None, None, false);
        }
        is_new
    }

    fn set_position(&mut self, report: &Report) {
        self.system = report.system;
        self.timeline = report.timeline.or(self.timeline);
        if let Some(position) = report.position {
            if Some(position) < self.position {
                self.caught_up = None;
            }
            (self.position, self.told) = (Some(position), report.answered);
        }
    }

    /// The primary was at a position after this host had told its own.
    fn compare(&mut self, asked: Micros, primary: Lsn) {
        if self.role == Role::Replica && self.told <= asked && self.position > Some(primary) {
            self.diverged = true;
        }
    }
}

/// What was seen of the hosts of a database.
#[derive(Debug)]
pub struct Observations {
    /// The hosts.
    pub cluster: Arc<Cluster>,
    /// What was seen of each of them.
    pub hosts: Vec<Observation>,
    /// The share of the reads of each of them, compared with other replicas (`weight`); 0: none.
    pub weights: Vec<u32>,
    /// The newest timeline any primary was on.
    pub timeline: Option<u32>,
    /// The databases of the primary.
    system: Option<SystemIdentifier>,
    /// When a host was last seen that has those databases.
    system_seen: Option<Micros>,
    written: Written,
}

/// Where the primary was when.
#[derive(Debug, Default)]
struct Written {
    /// The host, its cluster of databases and its timeline.
    by: Option<(usize, Option<SystemIdentifier>, Option<u32>)>,
    history: History,
}

impl Observations {
    /// Hosts of which nothing is known yet.
    pub fn new(cluster: Arc<Cluster>, weights: Vec<u32>) -> Self {
        Self {
            hosts: vec![Observation::default(); cluster.hosts.len()],
            cluster,
            weights,
            timeline: None,
            system: None,
            system_seen: None,
            written: Written::default(),
        }
    }

    /// Hosts that have not been among those of `before`, which these ones replace, have to be warmed up.
    pub fn warm_up_new_ones(&mut self, before: &Self, now: Micros) {
        for (host, seen) in self.cluster.hosts.iter().zip(&mut self.hosts) {
            let mut old = before.cluster.hosts.iter().zip(&before.hosts);
            let same = old.find(|(old, _)| old.name == host.name && old.port == host.port);
            seen.returned = same.map_or(Some(now), |(_, old)| old.returned);
        }
    }

    /// A login has told a host's role; says whether it is another than before.
    pub fn logged_in(&mut self, host: usize, role: Role, at: Micros) -> bool {
        self.hosts[host].answered(role, at)
    }

    /// A host cannot be reached; says whether that is news.
    pub fn failed(&mut self, host: usize, why: &str) -> bool {
        let host = &mut self.hosts[host];
        host.last_error = Some(why.into());
        // What comes back may be older than what has gone.
        host.caught_up = None;
        std::mem::replace(&mut host.answers, false)
    }

    /// A host has let somebody in, or refused to for now.
    pub fn set_closing(&mut self, host: usize, closing: bool) {
        self.hosts[host].closing = closing;
    }

    /// From now on this server of those that a host's name may mean is watched; gives the one before. What was known of that
    /// holds no more.
    pub fn watch_instance(&mut self, host: usize, instance: Option<Instance>) -> Option<Instance> {
        let host = &mut self.hosts[host];
        (host.caught_up, host.position, host.timeline, host.diverged) = (None, None, None, false);
        std::mem::replace(&mut host.instance, instance)
    }

    /// Takes note of what a host has said; says whether its role, its timeline or the primary is another than before.
    pub fn answered(&mut self, index: usize, report: &Report) -> bool {
        let primary = self.primary();
        let host = &mut self.hosts[index];
        let mut changed = host.answered(report.role, report.answered);
        changed |= report.timeline.is_some() && report.timeline != host.timeline;
        host.set_position(report);
        match report.role {
            Role::Primary => self.note_primary(index, report),
            Role::Replica => self.note_replica(index, report),
            Role::Unknown => {}
        }
        if report.system == self.system {
            self.system_seen = Some(report.answered);
        }
        changed || self.primary() != primary
    }

    fn note_primary(&mut self, index: usize, report: &Report) {
        self.note_system(report);
        if self.is_foreign(index) {
            return;
        }
        if self.timeline > report.timeline {
            // It has missed its replacement.
            return;
        }
        self.timeline = report.timeline;
        let by = Some((index, report.system, report.timeline));
        if self.written.by != by {
            self.written = Written { by, history: History::default() };
        }
        if let Some(position) = report.position {
            self.written.history.note(report.asked, position);
            self.hosts.iter_mut().for_each(|replica| replica.compare(report.asked, position));
        }
    }

    /// What cluster of databases a primary is of. If it is another one than so far, because it was made anew or by an upgrade,
    /// it counts when nobody has been there of the old one for a while: timelines begin anew.
    fn note_system(&mut self, report: &Report) {
        let known = self.system;
        if report.system.is_none() || report.system == known {
            return;
        }
        if known.is_some() {
            let is_there = self.hosts.iter().any(|host| host.is_reachable() && host.system == known);
            let was_there = self.system_seen.is_some_and(|seen| report.answered.since(seen) < DATABASES_GONE);
            if was_there || is_there {
                return;
            }
            self.timeline = None;
        }
        self.system = report.system;
        // Nothing that was found out by comparison holds.
        for n in 0..self.hosts.len() {
            let is_foreign = self.is_foreign(n);
            (self.hosts[n].caught_up, self.hosts[n].diverged) = (None, is_foreign);
        }
    }

    fn note_replica(&mut self, index: usize, report: &Report) {
        if self.is_foreign(index) {
            self.hosts[index].diverged = true;
            return;
        }
        let Some(position) = report.position else { return };
        let history = &self.written.history;
        let bytes_behind = history.last().map_or(0, |last| last.0.saturating_sub(position.0));
        let moment = if self.may_follow_the_primary(report) { history.moment(position) } else { None };
        let host = &mut self.hosts[index];
        host.caught_up = moment.or(host.caught_up);
        host.bytes_behind = bytes_behind;
    }

    /// Positions on different timelines cannot be compared.
    fn may_follow_the_primary(&self, report: &Report) -> bool {
        match (report.timeline, self.timeline) {
            (Some(its), Some(newest)) => its == newest,
            _ => {
                let primaries =
                    self.hosts.iter().filter(|host| host.role == Role::Primary && host.is_reachable());
                primaries.count() < 2
            }
        }
    }

    /// Whether a host has other databases than the primary, and not an older or newer state of the same.
    pub(super) fn is_foreign(&self, host: usize) -> bool {
        let its = self.hosts[host].system;
        its.is_some() && self.system.is_some() && its != self.system
    }

    /// Whether a host says it is a primary, but another one has been promoted since, or may have been.
    pub(super) fn is_outdated(&self, host: usize) -> bool {
        let seen = &self.hosts[host];
        seen.role == Role::Primary && (seen.timeline < self.timeline || self.is_foreign(host))
    }

    /// The host that takes writes, as far as is known.
    pub(super) fn primary(&self) -> Option<usize> {
        (0..self.hosts.len()).find(|&n| {
            let host = &self.hosts[n];
            host.role == Role::Primary && host.is_reachable() && !self.is_outdated(n)
        })
    }
}
