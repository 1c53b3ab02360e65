//! Asks the hosts of a database what they are and how far they have come. Only for databases whose reads are split from
//! writes.
//!
//! One connection per host, kept open, logged in as one of the database's pools logs in, and one query each
//! `topology_check_period`, or at once if a connection has met with something that looks as if the roles had changed
//! ([`Database::recheck_hosts`]). A server connection to a host whose role has changed is closed when its client has finished
//! with it.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
use tokio::task::{JoinHandle, JoinSet};

use super::catalog;
use super::close::{CloseReason, HostChange, Retirement};
use super::grow;
use super::pools::{Database, Pool};
use super::server::{OTHERS, Probe, Wanted};
use super::shared::Shared;
use crate::clock;
use crate::route::cluster::{Cluster, Purpose};
use crate::route::host::{Instance, Role, SystemIdentifier};
use crate::route::observation::{Observations, Report};
use crate::route::primary::{LoggedPrimary, PrimaryChange};
use crate::route::topology::{HostState, Topology};
use crate::route::wal::Lsn;

/// How often new databases are looked for.
const ROUND: Duration = Duration::from_millis(200);
/// Shortest and longest time between attempts to reach a host that cannot be reached.
const RETRY: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];
/// How many questions are asked on one connection. A server that is to shut down, but waits for those who are in, only says
/// so to somebody new; and it does not wait for us.
const QUESTIONS: u32 = 100;
/// Longest time an answer may take.
const LIMIT: Duration = Duration::from_secs(1);

/// The role; what a primary writes next or a replica has replayed; the timeline, which a primary gives in hexadecimal and a
/// replica only tells members of `pg_read_all_stats`.
const QUERY: &str = "SELECT r, CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END, \
                     CASE WHEN r THEN (SELECT received_tli::text FROM pg_stat_wal_receiver) \
                     ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END \
                     FROM (SELECT pg_is_in_recovery() AS r) AS role";
/// The same where the other functions are missing: there are servers that only look like PostgreSQL.
const ROLE_QUERY: &str = "SELECT pg_is_in_recovery(), NULL, NULL";
const SETUP: &str = "SET search_path = pg_catalog";
const SEGMENT_QUERY: &str = "SELECT pg_size_bytes(current_setting('wal_segment_size'))";
const SYSTEM_QUERY: &str = "SELECT system_identifier FROM pg_control_system()";

/// Runs until the task is dropped.
pub async fn run(shared: Arc<Shared>) {
    let mut watched: HashMap<Arc<str>, JoinHandle<()>> = HashMap::new();
    loop {
        watched.retain(|_, task| !task.is_finished());
        for pool in shared.pools.all() {
            let name = &pool.database.name;
            if pool.settings.load().read_write_split
                && pool.last_welcome().is_some()
                && !watched.contains_key(name)
            {
                let task = tokio::task::spawn_local(watch(Arc::clone(&shared), Arc::clone(&pool)));
                watched.insert(Arc::clone(name), task);
            }
        }
        tokio::time::sleep(ROUND).await;
    }
}

/// Watches a database's hosts for as long as they are the same ones.
async fn watch(shared: Arc<Shared>, pool: Arc<Pool>) {
    let cluster = pool.database.cluster();
    // Dropped with this one.
    let mut tasks = JoinSet::new();
    tasks.spawn_local(catalog::watch(Arc::clone(&shared), Arc::clone(&pool)));
    let logged_primary = Rc::default();
    for index in 0..cluster.hosts.len() {
        let (shared, pool, cluster) = (Arc::clone(&shared), Arc::clone(&pool), Arc::clone(&cluster));
        let watcher = Watcher {
            last_logged: LoggedState::Nothing,
            shared,
            pool,
            cluster,
            index,
            probe: None,
            logged_primary: Rc::clone(&logged_primary),
        };
        tasks.spawn_local(watcher.run());
    }
    while Arc::ptr_eq(&cluster, &pool.database.cluster())
        && shared.pools.database(&pool.database.name).is_some()
    {
        tokio::time::sleep(ROUND).await;
    }
}

/// Watches one host.
struct Watcher {
    last_logged: LoggedState,
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    cluster: Arc<Cluster>,
    index: usize,
    probe: Option<Connected>,
    /// Shared by the tasks that watch the hosts of one database.
    logged_primary: Rc<Cell<LoggedPrimary>>,
}

/// What the log says of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoggedState {
    Nothing,
    Up,
    Closing,
    Down,
}

struct Connected {
    probe: Probe,
    /// Which of the servers it leads to that the host's name may mean.
    instance: Option<Instance>,
    asked: u32,
    query: &'static str,
    /// `wal_segment_size`, in bytes.
    segment_size: u64,
    /// `None`: it does not say.
    system: Option<SystemIdentifier>,
}

impl Watcher {
    /// Runs until the hosts are replaced.
    async fn run(mut self) {
        let mut failures = 0;
        while let Some(topology) = self.topology() {
            // Taken out, so that a connection whose answer was not awaited is closed.
            let mut probe = self.probe.take().filter(|_| !topology.hosts[self.index].seen.closing);
            drop(topology);
            let has_moved = self.cluster.hosts[self.index].take_wrong_instance_seen();
            if let Some(old) = probe.take_if(|probe| has_moved || probe.asked >= QUESTIONS) {
                probe = self.renew(old, has_moved).await;
            }
            let is_open = probe.is_some();
            let mut asked = tokio::time::timeout(LIMIT, self.ask(probe)).await;
            if is_open && matches!(asked, Ok(Err(_))) {
                // Perhaps somebody has ended just this connection.
                asked = tokio::time::timeout(LIMIT, self.ask(None)).await;
            }
            match asked.unwrap_or_else(|_| Err("no answer in time".into())) {
                Ok(report) => {
                    failures = 0;
                    self.note(&report);
                }
                Err(error) => {
                    failures += 1;
                    self.note_failure(&error);
                }
            }
            let period = self.shared.config.load().settings.topology_check_period;
            let pause = match failures {
                // The next primary may be any of them, at any moment.
                0 if self.topology().is_some_and(|topology| topology.primary.is_none()) => {
                    period.min(RETRY[0])
                }
                0 => period,
                n => RETRY[0].saturating_mul(1 << (n - 1).min(10)).min(RETRY[1]),
            };
            let _ = tokio::time::timeout(pause, self.pool.database.hosts.recheck_wanted()).await;
        }
    }

    /// What is known now; `None`: the hosts have been replaced.
    fn topology(&self) -> Option<Guard<Arc<Topology>>> {
        self.pool.database.hosts.load_of(&self.cluster)
    }

    fn is_closing(&self) -> bool {
        self.topology().is_some_and(|topology| topology.hosts[self.index].seen.closing)
    }

    /// Takes note of something that was seen of the host.
    fn seen<T: Default>(&self, event: impl FnOnce(&mut Observations, usize) -> T) -> T {
        let hosts = &self.pool.database.hosts;
        hosts.note(&self.cluster, |observations| event(observations, self.index)).unwrap_or_default()
    }

    async fn ask(&mut self, probe: Option<Connected>) -> Result<Report, String> {
        let mut connected = match probe {
            Some(connected) => connected,
            None => self.connect_to_any().await?,
        };
        self.watch_instance(connected.instance);
        let asked = clock::now();
        connected.asked += 1;
        let rows = connected.probe.run(connected.query, Wanted::Row).await?;
        let answered = clock::now();
        let row = rows.first().map(Vec::as_slice).unwrap_or_default();
        let [Some(role), position, timeline] = row else { return Err(format!("unexpected answer {rows:?}")) };
        let role = if role == "t" { Role::Replica } else { Role::Primary };
        let radix = if role == Role::Primary { 16 } else { 10 };
        let report = Report {
            asked,
            answered,
            role,
            system: connected.system,
            timeline: timeline
                .as_ref()
                .and_then(|text| u32::from_str_radix(text, radix).ok())
                .filter(|&n| n > 0),
            position: position.as_deref().and_then(Lsn::parse).map(|lsn| {
                if role == Role::Primary { lsn.end_of_record(connected.segment_size) } else { lsn }
            }),
        };
        self.probe = Some(connected);
        Ok(report)
    }

    /// From now on a connection to this server is used.
    fn watch_instance(&self, instance: Option<Instance>) {
        let watched = self.topology().and_then(|topology| topology.hosts[self.index].seen.instance);
        if watched == instance {
            return;
        }
        let Some(before) = self.seen(|seen, host| seen.watch_instance(host, instance)) else { return };
        tracing::info!("{} has been restarted, or is another server now", self.cluster.hosts[self.index]);
        // What leads to the other one is watched by nobody, even if that still is what it was.
        let servers = self.shared.servers.iter();
        for server in servers.filter(|s| s.database == self.pool.database.name && s.host == self.index) {
            if server.instance.get() == Some(&before) {
                let _ = server.close_needed.set(Retirement::OtherServer);
            }
        }
        follow_roles(&self.shared, &self.pool.database);
    }

    /// The same connection once more, and new: to the same one of the servers that the name may mean. If that cannot be
    /// had, the old one will do, unless the host lets nobody in, or connections lead elsewhere (`has_moved`).
    async fn renew(&self, old: Connected, has_moved: bool) -> Option<Connected> {
        // Two entries that have come to watch the same server part again.
        let is_double = self.is_watched_elsewhere(old.instance);
        let connect = async {
            for _ in 0..OTHERS {
                let new = self.connect().await?;
                let is_right = match is_double {
                    true => !self.is_watched_elsewhere(new.instance),
                    false => new.instance == old.instance,
                };
                if is_right {
                    return Ok(Some(new));
                }
            }
            Ok::<_, String>(None)
        };
        let new =
            tokio::time::timeout(LIMIT, connect).await.unwrap_or_else(|_| Err("no answer in time".into()));
        if has_moved && new.is_err() {
            // Still to be found out.
            self.cluster.hosts[self.index].set_wrong_instance_seen();
        }
        let is_gone = has_moved && matches!(new, Ok(None)) || self.is_closing();
        new.unwrap_or_default().or((!is_gone).then_some(Connected { asked: 0, ..old }))
    }

    /// Where a host is listed several times, each entry is to stand for another one of the servers that its name means.
    async fn connect_to_any(&self) -> Result<Connected, String> {
        let mut connected = self.connect().await?;
        for _ in 0..OTHERS {
            if !self.is_watched_elsewhere(connected.instance) {
                break;
            }
            connected = self.connect().await?;
        }
        Ok(connected)
    }

    fn is_watched_elsewhere(&self, instance: Option<Instance>) -> bool {
        let Some(topology) = self.topology() else { return false };
        let own = &self.cluster.hosts[self.index];
        let mut all = self.cluster.hosts.iter().zip(&topology.hosts).enumerate();
        all.any(|(n, (host, HostState { seen, .. }))| {
            let is_double = n != self.index && host.name == own.name && host.port == own.port;
            is_double && seen.is_reachable() && seen.instance == instance
        })
    }

    async fn connect(&self) -> Result<Connected, String> {
        let opened = Probe::open(&self.shared, &self.pool, &self.cluster, self.index).await;
        let mut probe = opened.map_err(|error| error.to_string())?;
        probe.run(SETUP, Wanted::Nothing).await?;
        let instance = probe.instance().await;
        let segment_size = probe.number(SEGMENT_QUERY).await;
        let system = SystemIdentifier::new(probe.number(SYSTEM_QUERY).await);
        let query = match probe.run(QUERY, Wanted::Row).await {
            Ok(_) => QUERY,
            Err(error) => {
                probe.run(ROLE_QUERY, Wanted::Row).await?;
                tracing::warn!(
                    "{} does not say how far it has come, so that only read_consistency=eventual can use replicas: {error}",
                    self.cluster.hosts[self.index]
                );
                ROLE_QUERY
            }
        };
        Ok(Connected { probe, instance, asked: 0, query, segment_size, system })
    }

    fn note_failure(&mut self, error: &str) {
        let host = &self.cluster.hosts[self.index];
        // A connection that was being opened when it went may have let it look well again.
        let is_news = self.seen(|seen, host| seen.failed(host, error));
        let state = if self.is_closing() { LoggedState::Closing } else { LoggedState::Down };
        if std::mem::replace(&mut self.last_logged, state) != state {
            match state {
                LoggedState::Closing => tracing::warn!("{host} takes no connections now: {error}"),
                _ => tracing::warn!("{host} is not reachable: {error}"),
            }
            self.tell_where_writes_go();
        } else if !is_news {
            return;
        }
        follow_roles(&self.shared, &self.pool.database);
    }

    fn note(&mut self, report: &Report) {
        let host = &self.cluster.hosts[self.index];
        let was_up = std::mem::replace(&mut self.last_logged, LoggedState::Up) == LoggedState::Up;
        // A login may have failed to reach it meanwhile.
        let (was_reachable, has_changed) = self.seen(|seen, host| {
            let was_reachable = seen.hosts[host].is_reachable();
            (was_reachable, seen.answered(host, report))
        });
        if has_changed || !was_up {
            let timeline = report.timeline.map_or(String::new(), |timeline| format!(", timeline {timeline}"));
            let is_outdated = self.topology().is_some_and(|topology| topology.hosts[self.index].is_outdated);
            let outdated = if is_outdated { ", which another one has replaced" } else { "" };
            tracing::info!("{host} is a {}{timeline}{outdated}", report.role.name());
        } else if was_reachable {
            return;
        }
        self.tell_where_writes_go();
        follow_roles(&self.shared, &self.pool.database);
    }

    /// For the log: what a failover means for clients.
    fn tell_where_writes_go(&self) {
        let Some(topology) = self.topology() else { return };
        let name = &self.pool.database.name;
        let host = |n: usize| &self.cluster.hosts[n];
        let mut logged = self.logged_primary.get();
        let change = logged.change(topology.primary, clock::now());
        self.logged_primary.set(logged);
        match change {
            None => {}
            Some(PrimaryChange::Lost) => {
                let limit = self.shared.config.load().settings.failover_hold_timeout.as_secs_f64();
                tracing::warn!(
                    "{name}: there is no primary; who needs one waits (failover_hold_timeout={limit})"
                );
            }
            Some(PrimaryChange::Found { primary, without: None }) => {
                tracing::info!("{name}: writes go to {}", host(primary));
            }
            Some(PrimaryChange::Found { primary, without: Some(time) }) => {
                let seconds = time.as_secs_f64();
                tracing::info!(
                    "{name}: writes go to {} after {seconds:.3} s without a primary",
                    host(primary)
                );
            }
        }
    }
}

/// Closes idle servers that no longer are what they are for. Those who wait for one that can be had now try at once, those who
/// wait for a replica that cannot go to the primary, and those whose primary has been replaced and is silent hear of it.
fn follow_roles(shared: &Arc<Shared>, database: &Arc<Database>) {
    let (now, topology) = (clock::now(), database.hosts.load_full());
    database.hosts.topology_changed();
    let is_lost = |host: usize| topology.hosts.get(host).is_some_and(|host| host.is_lost);
    shared.wake_those_with(|server| {
        server.database == database.name && !server.is_obsolete() && is_lost(server.host)
    });
    for pool in shared.pools.all().into_iter().filter(|pool| Arc::ptr_eq(&pool.database, database)) {
        for (purpose, lane) in pool.lanes() {
            let idle = lane.take_idle(|server| server.must_go().is_some());
            for server in idle {
                let reason = server.must_go().unwrap_or(CloseReason::HostChanged(HostChange::OtherRole));
                server.close(reason);
            }
            match purpose {
                Purpose::Read(host) if !topology.can_read_from(host) => {
                    grow::leave_replica(shared, &pool, host, 0)
                }
                Purpose::Write if topology.primary.is_none() => {}
                _ => {
                    lane.retry_now();
                    grow::grow(shared, &pool, purpose, 0, now);
                }
            }
        }
    }
}
