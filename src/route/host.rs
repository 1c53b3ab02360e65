//! A host of a database and what is known of it.

use std::fmt;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst,
};
use std::time::Duration;

use parking_lot::Mutex;

use super::replicas;
use super::wal::Lsn;
use crate::clock::{AtomicMicros, Micros};

/// What a server says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Not asked yet, or no answer.
    Unknown,
    /// Takes writes.
    Primary,
    /// In recovery (`in_hot_standby`).
    Replica,
}

impl Role {
    /// Its name in SHOW HOSTS and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// See the module's documentation. Written by whoever talks to the host, read by everybody.
#[derive(Debug)]
pub struct Host {
    /// Host name, address or socket directory.
    pub name: String,
    /// Port.
    pub port: u16,
    weight: AtomicU32,
    role: AtomicU8,
    reachable: AtomicBool,
    /// It lets nobody in, as a server does that shuts down when those have gone who are in.
    closing: AtomicBool,
    /// 0: not known.
    timeline: AtomicU32,
    /// `system_identifier`; 0: not known.
    system: AtomicU64,
    /// Which of the servers that its name may mean is watched; 0: not known.
    instance: AtomicU64,
    /// A connection has led to another one than that.
    elsewhere: AtomicBool,
    /// Where it writes (primary), or what it has replayed (replica).
    position: AtomicU64,
    /// When it said so.
    told: AtomicMicros,
    /// Up to this moment it has replayed everything that was acknowledged. 0: not known.
    caught_up: AtomicMicros,
    /// How far it was behind the primary, in bytes of WAL.
    behind: AtomicU64,
    /// It has replayed something that the primary does not have.
    diverged: AtomicBool,
    /// When it came, or came back, while reads were served without it. 0: it has always been there.
    returned: AtomicMicros,
    /// Reads under way.
    pub busy: AtomicUsize,
    /// Transactions served for reading.
    pub reads: AtomicU64,
    /// Transactions served that may write.
    pub writes: AtomicU64,
    /// Connections to it.
    pub servers: AtomicUsize,
    /// Why it cannot be reached.
    pub last_error: Mutex<Option<String>>,
}

/// What a host has said of itself when it was asked.
#[derive(Clone, Debug)]
pub struct Report {
    /// When the question was sent.
    pub asked: Micros,
    /// When the answer had come.
    pub answered: Micros,
    /// Its role.
    pub role: Role,
    /// Which cluster of databases it is, or is a copy of (`system_identifier`); 0: it does not say.
    pub system: u64,
    /// The timeline it writes, or receives; `None`: it does not say, or does not let everybody know.
    pub timeline: Option<u32>,
    /// Where it writes, or what it has replayed; `None`: it does not say.
    pub position: Option<Lsn>,
}

impl Host {
    /// A host of which nothing is known yet.
    pub fn new(name: String, port: u16, weight: u32) -> Self {
        Self {
            name,
            port,
            weight: AtomicU32::new(weight),
            role: AtomicU8::new(Role::Unknown as u8),
            reachable: AtomicBool::new(true),
            closing: AtomicBool::new(false),
            timeline: AtomicU32::new(0),
            system: AtomicU64::new(0),
            instance: AtomicU64::new(0),
            elsewhere: AtomicBool::new(false),
            position: AtomicU64::new(0),
            told: AtomicMicros::default(),
            caught_up: AtomicMicros::default(),
            behind: AtomicU64::new(0),
            diverged: AtomicBool::new(false),
            returned: AtomicMicros::default(),
            busy: AtomicUsize::new(0),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            servers: AtomicUsize::new(0),
            last_error: Mutex::new(None),
        }
    }

    /// What it said last.
    pub fn role(&self) -> Role {
        match self.role.load(Relaxed) {
            1 => Role::Primary,
            2 => Role::Replica,
            _ => Role::Unknown,
        }
    }

    /// Whether the last attempt to reach it succeeded.
    pub fn is_reachable(&self) -> bool {
        self.reachable.load(Relaxed) && !self.is_closing()
    }

    /// Whether it lets nobody in, even if those who are in can go on.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// It has let somebody in, or refused to for now.
    pub fn set_closing(&self, closing: bool) {
        self.closing.store(closing, Relaxed);
    }

    /// Whether reads can go to it, if it has come far enough.
    pub fn is_usable_replica(&self) -> bool {
        self.weight() > 0
            && self.role() == Role::Replica
            && self.is_reachable()
            && !self.diverged.load(Relaxed)
    }

    /// Its share of the reads, compared with other replicas (`weight`); 0: none.
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Changes its share.
    pub fn set_weight(&self, weight: u32) {
        self.weight.store(weight, Relaxed);
    }

    /// How much of its weight counts, in thousandths: one that has come back is warmed up.
    pub fn warmth(&self, warm_up: Duration, now: Micros) -> u64 {
        match self.returned.get() {
            Micros(0) => replicas::WARM,
            returned => replicas::warmth(now.since(returned), warm_up),
        }
    }

    /// Its weight as far as it counts.
    pub fn weight_now(&self, warm_up: Duration, now: Micros) -> f64 {
        f64::from(self.weight()) * self.warmth(warm_up, now) as f64 / replicas::WARM as f64
    }

    /// Since when it has to be warmed up; 0: it is warm.
    pub(super) fn returned(&self) -> Micros {
        self.returned.get()
    }

    /// It has to be warmed up from this moment on.
    pub(super) fn set_returned(&self, at: Micros) {
        self.returned.set(at);
    }

    /// Its timeline, 0 if that is not known.
    pub fn timeline(&self) -> u32 {
        self.timeline.load(Relaxed)
    }

    /// Which cluster of databases it is, or is a copy of; 0: not known.
    pub fn system(&self) -> u64 {
        self.system.load(Relaxed)
    }

    /// Which server is watched; 0: not known. A name may mean several, as a Kubernetes Service does, and what is known of
    /// one of them says nothing of the others.
    pub fn instance(&self) -> u64 {
        self.instance.load(Relaxed)
    }

    /// From now on this server is watched; gives the one before. What was known of that holds no more.
    pub fn set_instance(&self, instance: u64) -> u64 {
        // In this order: whoever sees the new one must not see what the old one has replayed.
        self.caught_up.set(Micros(0));
        self.position.store(0, Relaxed);
        self.timeline.store(0, Relaxed);
        self.diverged.store(false, Relaxed);
        self.instance.swap(instance, SeqCst)
    }

    /// A connection has led to another server than the one that is watched.
    pub fn set_elsewhere(&self) {
        self.elsewhere.store(true, Relaxed);
    }

    /// Whether one has since this was last asked.
    pub fn take_elsewhere(&self) -> bool {
        self.elsewhere.swap(false, Relaxed)
    }

    /// Where it writes, or what it has replayed.
    pub fn position(&self) -> Lsn {
        Lsn(self.position.load(Relaxed))
    }

    /// Up to this moment it has replayed everything that was acknowledged; 0: not known.
    pub fn caught_up(&self) -> Micros {
        self.caught_up.get()
    }

    /// How long ago that moment was, for a replica of which it is known.
    pub fn lag(&self, now: Micros) -> Option<Duration> {
        let caught_up = self.caught_up();
        (self.role() == Role::Replica && caught_up.0 > 0).then(|| now.since(caught_up))
    }

    /// How far it was behind the primary when it was last asked, in bytes of WAL.
    pub fn bytes_behind(&self) -> u64 {
        self.behind.load(Relaxed)
    }

    /// Whether it has replayed something that the primary does not have.
    pub fn has_diverged(&self) -> bool {
        self.diverged.load(Relaxed)
    }

    /// Notes its role; says whether it is another than before. What else was known of it holds no more then.
    pub fn answered(&self, role: Role, now: Micros) -> bool {
        let was_away = !self.reachable.swap(true, Relaxed);
        if !self.is_closing() {
            *self.last_error.lock() = None;
        }
        let before = self.role.swap(role as u8, Relaxed);
        let is_new = before != role as u8;
        if was_away || is_new && before != Role::Unknown as u8 {
            self.returned.set(now);
        }
        if is_new {
            self.timeline.store(0, Relaxed);
            self.caught_up.set(Micros(0));
            self.diverged.store(false, Relaxed);
        }
        is_new
    }

    /// Notes that it cannot be reached; says whether that is news.
    pub fn failed(&self, error: String) -> bool {
        *self.last_error.lock() = Some(error);
        // What comes back may be older than what has gone.
        self.caught_up.set(Micros(0));
        self.reachable.swap(false, Relaxed)
    }

    pub(super) fn set_position(&self, report: &Report) {
        self.system.store(report.system, Relaxed);
        if let Some(timeline) = report.timeline {
            self.timeline.store(timeline, Relaxed);
        }
        if let Some(position) = report.position {
            if position < self.position() {
                self.caught_up.set(Micros(0));
            }
            self.position.store(position.0, Relaxed);
            self.told.set(report.answered);
        }
    }

    /// The primary was at a position after this host had told its own.
    pub(super) fn compare(&self, asked: Micros, primary: Lsn) {
        if self.role() == Role::Replica && self.told.get() <= asked && self.position() > primary {
            self.set_diverged();
        }
    }

    /// The primary has other databases than before: nothing that was found out by comparison holds.
    pub(super) fn compare_anew(&self, is_foreign: bool) {
        self.caught_up.set(Micros(0));
        self.diverged.store(is_foreign, Relaxed);
    }

    pub(super) fn set_diverged(&self) {
        self.diverged.store(true, Relaxed);
    }

    pub(super) fn set_caught_up(&self, moment: Option<Micros>, behind: u64) {
        if let Some(moment) = moment {
            self.caught_up.set(moment);
        }
        self.behind.store(behind, Relaxed);
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}
