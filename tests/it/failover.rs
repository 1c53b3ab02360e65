//! The primary changes while clients work: what they see of it, and that nothing is lost or done twice.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::support::pair::Pair;
use crate::support::raw::{Raw, bind, describe, execute, parse, query, sync};
use crate::support::{Pooler, eventually, run};

const WRITERS: u64 = 16;
const READERS: usize = 16;

/// What clients have seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Numbers whose INSERT was acknowledged.
    acknowledged: Mutex<Vec<u64>>,
    /// Errors of writers and of readers, by SQLSTATE and text.
    pub(crate) write_errors: Mutex<Vec<String>>,
    pub(crate) read_errors: Mutex<Vec<String>>,
    reads: AtomicU64,
    /// When writes were acknowledged, in milliseconds since the beginning.
    last_write: AtomicU64,
    first_write_after: AtomicU64,
    promoted: AtomicU64,
    ended: AtomicBool,
}

impl Seen {
    fn wrote(&self, n: u64, at: Duration) {
        let at = u64::try_from(at.as_millis()).unwrap();
        self.acknowledged.lock().push(n);
        let promoted = self.promoted.load(SeqCst);
        if promoted == 0 {
            self.last_write.fetch_max(at, SeqCst);
        } else if self.first_write_after.load(SeqCst) == 0 {
            self.first_write_after.store(at, SeqCst);
        }
    }
}

async fn write(port: u16, me: u64, seen: Arc<Seen>, start: Instant) {
    let mut raw = Raw::log_in(port, "app").await;
    let mut n = me;
    while !seen.ended.load(SeqCst) {
        n += WRITERS;
        raw.send(&query(&format!("INSERT INTO numbers VALUES ({n})"))).await;
        let messages = raw.until_ready().await;
        if messages.last().is_some_and(|m| m.tag == 'Z') && !messages.iter().any(|m| m.tag == 'E') {
            seen.wrote(n, start.elapsed());
        } else {
            let error = messages.iter().find(|m| m.tag == 'E');
            let error = error.map_or("closed".to_owned(), |m| format!("{} {}", m.field('C'), m.field('M')));
            seen.write_errors.lock().push(error);
            if messages.last().is_none_or(|m| m.tag != 'Z') {
                raw = Raw::log_in(port, "app").await;
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn read(port: u16, seen: Arc<Seen>) {
    let mut raw = Raw::log_in(port, "app").await;
    while !seen.ended.load(SeqCst) {
        raw.send(&query("SELECT count(*) FROM numbers, generate_series(1, 10)")).await;
        let messages = raw.until_ready().await;
        if let Some(error) = messages.iter().find(|m| m.tag == 'E') {
            seen.read_errors.lock().push(format!("{} {}", error.field('C'), error.field('M')));
            if messages.last().is_none_or(|m| m.tag != 'Z') {
                raw = Raw::log_in(port, "app").await;
            }
        } else {
            seen.reads.fetch_add(1, SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until it is known which host is what and what a read is.
pub(crate) fn wait_for_roles(pooler: &Pooler) {
    run(async { pooler.raw().await.value("SELECT 1").await });
    eventually("both roles are known", || {
        let log = pooler.log();
        log.contains("is a replica") && log.contains("is a primary") && log.contains("catalog read")
    });
}

/// Has clients work while `change` makes the second server the primary; it returns when that takes writes.
pub(crate) fn under_load(pair: &Pair, pooler: &Pooler, change: impl FnOnce() + Send) -> Arc<Seen> {
    pair.admin_app(
        0,
        &format!("CREATE TABLE numbers (n bigint); ALTER TABLE numbers OWNER TO {}", crate::support::USER),
    );
    pair.catch_up(1);
    wait_for_roles(pooler);
    let seen = Arc::new(Seen::default());
    let start = Instant::now();
    std::thread::scope(|scope| {
        let of_thread = Arc::clone(&seen);
        scope.spawn(move || {
            std::thread::sleep(Duration::from_secs(1));
            change();
            let at = u64::try_from(start.elapsed().as_millis()).unwrap();
            of_thread.promoted.store(at, SeqCst);
            std::thread::sleep(Duration::from_secs(2));
            of_thread.ended.store(true, SeqCst);
        });
        run(async {
            let mut tasks = tokio::task::JoinSet::new();
            for me in 0..WRITERS {
                tasks.spawn(write(pooler.port, me, Arc::clone(&seen), start));
            }
            for _ in 0..READERS {
                tasks.spawn(read(pooler.port, Arc::clone(&seen)));
            }
            while let Some(result) = tasks.join_next().await {
                result.unwrap();
            }
        });
    });
    seen
}

/// Nothing acknowledged is lost, nothing was done twice; says what was seen.
pub(crate) fn check(what: &str, pair: &Pair, seen: &Seen) {
    let rows = pair.admin_app(1, "SELECT n FROM numbers");
    let rows: Vec<u64> = rows.lines().map(|n| n.parse().unwrap()).collect();
    let unique: HashSet<u64> = rows.iter().copied().collect();
    assert_eq!(rows.len(), unique.len(), "something was done twice");
    let acknowledged = seen.acknowledged.lock();
    let lost: Vec<_> = acknowledged.iter().filter(|n| !unique.contains(n)).collect();
    let (promoted, first) = (seen.promoted.load(SeqCst), seen.first_write_after.load(SeqCst));
    println!(
        "{what}: {} writes, {} lost, {} reads; write errors {:?}, read errors {:?}; last write at {} ms, new primary at \
         {promoted} ms, first write at {first} ms",
        acknowledged.len(),
        lost.len(),
        seen.reads.load(SeqCst),
        seen.write_errors.lock(),
        seen.read_errors.lock(),
        seen.last_write.load(SeqCst),
    );
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(seen.read_errors.lock().is_empty());
    assert!(first > 0, "nobody has written since");
}

fn pooler(pair: &Pair, settings: &str) -> Pooler {
    let database = pair.database("read_write_split=1");
    Pooler::with_databases(
        &database,
        &format!("default_pool_size = 8\nworkers = 2\nlog_connections = 0\n{settings}"),
    )
}

#[test]
fn with_pause_and_resume_a_switchover_costs_no_error() {
    let pair = Pair::start("paused");
    let pooler = pooler(&pair, "");
    let seen = under_load(&pair, &pooler, || {
        run(pooler.console("PAUSE app"));
        pair.stop(0, "fast");
        pair.promote(1);
        run(pooler.console("RESUME app"));
    });
    check("PAUSE, stop, promote, RESUME", &pair, &seen);
    assert!(seen.write_errors.lock().is_empty());
}

#[test]
fn a_shutdown_that_is_announced_costs_no_error() {
    let pair = Pair::start("announced");
    let pooler = pooler(&pair, "topology_check_period = 0.01");
    let seen = under_load(&pair, &pooler, || {
        // It waits until everybody has gone, and nobody new gets in.
        pair.stop(0, "smart");
        pair.promote(1);
    });
    check("stop -m smart, promote", &pair, &seen);
    assert!(seen.write_errors.lock().is_empty());
    assert!(pooler.log().contains("takes no connections now"));
}

#[test]
fn a_switchover_costs_only_what_was_under_way() {
    let pair = Pair::start("stopped");
    let pooler = pooler(&pair, "");
    let seen = under_load(&pair, &pooler, || {
        pair.stop(0, "fast");
        pair.promote(1);
    });
    check("stop, promote", &pair, &seen);
    // The log tells it in order.
    let log = pooler.log();
    let story = [
        format!("app: writes go to 127.0.0.1:{}", pair.ports[0]),
        "app: there is no primary; who needs one waits".to_owned(),
        format!("127.0.0.1:{} is a primary, timeline 2", pair.ports[1]),
        format!("app: writes go to 127.0.0.1:{} after ", pair.ports[1]),
    ];
    let places: Vec<_> = story.iter().map(|line| log.find(line)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{story:?} at {places:?}\n{log}");
    let errors = seen.write_errors.lock();
    assert!(errors.len() <= 8, "{errors:?}");
    assert!(errors.iter().all(|e| e.starts_with("57P01") || e.starts_with("08006")), "{errors:?}");
    drop(errors);
    // The old one comes back as a replica and is read from again.
    pair.follow(0);
    eventually("the old primary serves reads", || {
        run(async {
            let mut raw = pooler.raw().await;
            for _ in 0..20 {
                raw.value("SELECT count(*) FROM numbers").await;
            }
            pooler.console("SHOW HOSTS").await
        })
        .iter()
        .any(|host| {
            host[2] == pair.ports[0].to_string()
                && host[3] == "replica"
                && host[6].parse::<u64>().unwrap() > 0
        })
    });
}

#[test]
fn a_primary_that_dies_takes_only_what_was_under_way() {
    let pair = Pair::start("killed");
    // What was acknowledged is on the replica, too.
    pair.set(0, "synchronous_standby_names = '*'");
    let pooler = pooler(&pair, "");
    let seen = under_load(&pair, &pooler, || {
        pair.kill(0);
        pair.promote(1);
    });
    check("kill -9, promote", &pair, &seen);
    assert!(seen.write_errors.lock().len() <= 8);
}

#[test]
fn a_replica_that_dies_costs_nothing() {
    let pair = Pair::start("replica");
    let pooler = pooler(&pair, "");
    let seen = under_load(&pair, &pooler, || pair.kill(1));
    assert!(seen.write_errors.lock().is_empty(), "{:?}", seen.write_errors.lock());
    assert!(seen.read_errors.lock().is_empty(), "{:?}", seen.read_errors.lock());
}

/// Who ends a connection says nothing about the server.
#[test]
fn the_loss_of_the_watching_connection_is_not_the_loss_of_its_host() {
    let pair = Pair::start("watched");
    let pooler = pooler(&pair, "topology_check_period = 0.1");
    wait_for_roles(&pooler);
    for which in [0, 1, 0, 1] {
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE query LIKE '%pg_last_wal_replay_lsn%' AND pid <> pg_backend_pid()";
        assert_eq!(pair.admin(which, end), "1");
        std::thread::sleep(Duration::from_millis(300));
    }
    let log = pooler.log();
    assert!(!log.contains("is not reachable") && !log.contains("there is no primary"), "{log}");
}

#[test]
fn the_older_of_two_primaries_gets_nothing() {
    let pair = Pair::start("split");
    let pooler = pooler(&pair, "");
    let seen = under_load(&pair, &pooler, || {
        // Nobody tells the old one.
        pair.promote(1);
        std::thread::sleep(Duration::from_millis(500));
    });
    assert!(seen.read_errors.lock().is_empty(), "{:?}", seen.read_errors.lock());
    let of_old = |sql: &str| pair.admin_app(0, sql);
    let before = of_old("SELECT count(*) FROM numbers");
    run(async {
        let mut raw = pooler.raw().await;
        for n in 0..20 {
            raw.rows(&format!("INSERT INTO numbers VALUES ({})", 1_000_000 + n)).await;
        }
    });
    assert_eq!(of_old("SELECT count(*) FROM numbers"), before);
    assert!(run(pooler.console("SHOW HOSTS")).iter().any(|host| host[4] == "outdated"));
}

#[test]
fn whoever_needs_a_primary_is_held_for_a_time_and_then_told() {
    let pair = Pair::start("held");
    let pooler = pooler(&pair, "failover_hold_timeout = 1.5");
    wait_for_roles(&pooler);
    pair.stop(0, "fast");
    run(async {
        let mut raw = pooler.raw().await;
        let start = Instant::now();
        raw.send(&query("CREATE TABLE never (n int)")).await;
        let messages = raw.until_ready().await;
        let error = messages.iter().find(|m| m.tag == 'E').unwrap();
        assert_eq!(
            (error.field('C'), error.field('M')),
            ("57P03".into(), "no primary server can be reached".into())
        );
        assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
        // Reads go on.
        assert_eq!(pooler.raw().await.value("SELECT 2").await, "2");
    });
}

#[test]
fn a_read_that_a_standby_cannot_run_runs_on_the_primary() {
    let pair = Pair::start("conflict");
    let pooler = pooler(&pair, "read_consistency = eventual");
    wait_for_roles(&pooler);
    let is_retried = || pooler.log().matches("a read is run again on the primary").count();
    // A table that the standby has not heard of.
    pair.admin(1, "SELECT pg_wal_replay_pause()");
    pair.admin_app(0, "CREATE TABLE fresh AS SELECT 7 AS n; GRANT SELECT ON fresh TO PUBLIC");
    run(pooler.console("RELOAD"));
    eventually("the catalog knows it", || {
        assert_eq!(run(async { pooler.raw().await.value("SELECT n FROM fresh").await }), "7");
        is_retried() > 0
    });
    pair.admin(1, "SELECT pg_wal_replay_resume()");
    // The end of a server in the middle of a read, by both protocols.
    let before = is_retried();
    let long = "SELECT count(*) FROM generate_series(1, 5000000)";
    for request in [query(long), [parse("a", long), bind("a"), describe("a"), execute(), sync()].concat()] {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE state = 'active' AND query \
                           LIKE '%5000000%' AND pid <> pg_backend_pid()";
                eventually("it is read", || pair.admin(1, end) == "1");
            });
            run(async {
                let mut raw = pooler.raw().await;
                raw.send(&request).await;
                let messages = raw.until_ready().await;
                assert_eq!(
                    messages.iter().find(|m| m.tag == 'D').unwrap().values(),
                    ["5000000"],
                    "{messages:?}"
                );
                assert_eq!(messages.iter().filter(|m| m.tag == '1').count(), usize::from(request[0] == b'P'));
            });
        });
    }
    assert_eq!(is_retried(), before + 2);
}

/// How many of the next reads a replica serves.
fn reads_on_replica(pooler: &Pooler, of: usize) -> u64 {
    let count = || -> u64 {
        let hosts = run(pooler.console("SHOW HOSTS"));
        hosts.iter().filter(|host| host[3] == "replica").map(|host| host[6].parse::<u64>().unwrap()).sum()
    };
    let before = count();
    run(async {
        let mut raw = pooler.raw().await;
        for _ in 0..of {
            raw.value("SELECT 1").await;
        }
    });
    count() - before
}

#[test]
fn a_replica_that_comes_back_is_warmed_up() {
    let pair = Pair::start("warmed");
    let pooler = pooler(&pair, "replica_warm_up = 3600\nread_consistency = eventual");
    wait_for_roles(&pooler);
    assert_eq!(reads_on_replica(&pooler, 100), 100, "it has always been there");
    pair.stop(1, "fast");
    assert_eq!(reads_on_replica(&pooler, 100), 0);
    pair.launch(1);
    eventually("it is seen", || {
        run(pooler.console("SHOW HOSTS")).iter().any(|host| host[3] == "replica" && host[4] == "up")
    });
    let reads = reads_on_replica(&pooler, 100);
    assert!((5..=15).contains(&reads), "{reads} of 100");
    assert!(run(pooler.console("SHOW HOSTS")).iter().any(|host| host[13].starts_with("0.1")));
    run(pooler.console("SET replica_warm_up = 0"));
    eventually("it has its full share", || reads_on_replica(&pooler, 100) == 100);
    // A weight of 0 keeps reads away, and the connections that there are.
    let ini = std::fs::read_to_string(pooler.dir.join("pgweir.ini")).unwrap();
    std::fs::write(
        pooler.dir.join("pgweir.ini"),
        ini.replace("read_write_split=1", "read_write_split=1 weight=1,0"),
    )
    .unwrap();
    run(pooler.console("RELOAD"));
    assert_eq!(reads_on_replica(&pooler, 20), 0);
    assert!(!pooler.log().contains("database configuration changed"));
}

#[test]
fn nobody_waits_for_the_answer_of_a_primary_that_has_been_replaced() {
    let pair = Pair::start("frozen");
    let pooler = Pooler::with_databases(&pair.database("read_write_split=1"), "server_connect_timeout = 600");
    wait_for_roles(&pooler);
    run(async {
        let mut raw = pooler.raw().await;
        let mut idle = pooler.raw().await;
        idle.rows("/* pgweir: primary */ SELECT 1").await;
        raw.send(&query("/* pgweir: primary */ SELECT pg_sleep(0.2), pg_sleep(1000)")).await;
        eventually("it is under way", || {
            pair.admin(0, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1"
        });
        let _frozen = pair.freeze(0);
        pair.promote(1);
        let messages = raw.until_ready().await;
        assert_eq!(messages.last().map(|m| (m.tag, m.field('C'))), Some(('E', "08006".to_owned())));
        assert_eq!(idle.value("SELECT pg_is_in_recovery()").await, "f");
        assert_eq!(idle.value("CREATE TABLE written AS SELECT 1; SELECT count(*) FROM written").await, "1");
    });
}
