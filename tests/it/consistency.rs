//! A read never misses a write it must not miss, however far behind the replica is.
//!
//! Many clients write numbers and read them back while replay on the replica is paused, delayed and resumed at random, or the
//! replica is taken out of the configuration and put back, and another process takes over. With
//! `read_consistency = session` each client sees its own numbers, with `database` everybody's; with `eventual` they do not,
//! or this checks nothing. `PGWEIR_CHECK_SECONDS` makes it last longer than the few seconds of a normal run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::integrity::Dice;
use crate::support::pair::Pair;
use crate::support::raw::{Raw, bind, execute, parse, query, sync};
use crate::support::{Pooler, eventually, run, run_for};

const CLIENTS: usize = 48;
const SETTINGS: &str = "workers = 2\nlog_connections = 0\nlog_disconnections = 0";

#[derive(Default)]
struct Tally {
    reads: AtomicU64,
    stale: AtomicU64,
    writes: AtomicU64,
}

struct Checker {
    pooler: u16,
    me: usize,
    /// Numbers that were acknowledged, by client.
    written: Arc<Vec<AtomicU64>>,
    /// Reads what others have written.
    of_all: bool,
    tally: Arc<Tally>,
    dice: Dice,
}

impl Checker {
    /// Everybody writes at the beginning of a second and reads for the rest of it, so that replicas can catch up at all.
    async fn run(mut self, start: Instant, length: Duration) {
        let mut raw = Raw::log_in(self.pooler, "app").await;
        if !self.of_all {
            let prepare = format!("SELECT n FROM numbers WHERE id = {}", self.me);
            assert_eq!(raw.tags(&[parse("own", &prepare), sync()].concat()).await, "1Z");
        }
        let mut last_write = None;
        while start.elapsed() < length {
            let second = start.elapsed().as_secs();
            if last_write != Some(second) {
                last_write = Some(second);
                self.write(&mut raw).await;
            }
            self.read(&mut raw).await;
        }
    }

    async fn write(&mut self, raw: &mut Raw) {
        let n = self.written[self.me].load(SeqCst) + 1;
        let update = format!("UPDATE numbers SET n = {n} WHERE id = {}", self.me);
        let explicit = self.dice.roll(3) == 0;
        if explicit {
            raw.rows("BEGIN").await;
        }
        raw.rows(&update).await;
        if explicit {
            raw.rows("COMMIT").await;
        }
        self.written[self.me].store(n, SeqCst);
        self.tally.writes.fetch_add(1, SeqCst);
    }

    async fn read(&mut self, raw: &mut Raw) {
        let whose =
            if self.of_all { usize::try_from(self.dice.roll(CLIENTS as u64)).unwrap() } else { self.me };
        let at_least = self.written[whose].load(SeqCst);
        let select = format!("SELECT n FROM numbers WHERE id = {whose}");
        let bytes = match self.dice.roll(3) {
            0 => query(&select),
            1 if !self.of_all => [bind("own"), execute(), sync()].concat(),
            _ => [parse("", &select), bind(""), execute(), sync()].concat(),
        };
        raw.send(&bytes).await;
        let messages = raw.until_ready().await;
        let row = messages.iter().find(|m| m.tag == 'D').unwrap_or_else(|| panic!("{messages:?}"));
        let n: u64 = row.values()[0].parse().unwrap();
        self.tally.reads.fetch_add(1, SeqCst);
        if n < at_least {
            self.tally.stale.fetch_add(1, SeqCst);
        }
    }
}

/// What a run has found.
struct Found {
    reads: u64,
    stale: u64,
    writes: u64,
    /// Reads that a replica has served, in percent.
    share: u64,
}

/// Makes it hard, until the run has ended. Returns the pooler's successor, if there is one.
type Disturb = fn(&Pair, &Pooler, &AtomicBool) -> Option<Pooler>;

fn check(pair: &Pair, consistency: &str, seconds: u64, disturb: Disturb) -> Found {
    let database = pair.database(&format!("read_write_split=1 read_consistency={consistency}"));
    let pooler = Pooler::with_databases(&database, SETTINGS);
    run(async { pooler.raw().await.value("SELECT 1").await });
    eventually("the replica is in use", || {
        pooler.log().contains("is a replica") && pooler.log().contains("catalog read")
    });
    let written: Arc<Vec<AtomicU64>> = Arc::new((0..CLIENTS).map(|_| AtomicU64::new(0)).collect());
    pair.admin_app(
        0,
        &format!(
            "TRUNCATE numbers; INSERT INTO numbers SELECT g, 0 FROM generate_series(0, {}) g",
            CLIENTS - 1
        ),
    );
    pair.catch_up(1);
    let tally = Arc::new(Tally::default());
    let ended = AtomicBool::new(false);
    let mut successor = None;
    std::thread::scope(|scope| {
        let disturbing = scope.spawn(|| disturb(pair, &pooler, &ended));
        let start = Instant::now();
        run_for(Duration::from_secs(seconds + 30), async {
            let mut tasks = tokio::task::JoinSet::new();
            for me in 0..CLIENTS {
                let checker = Checker {
                    pooler: pooler.port,
                    me,
                    written: Arc::clone(&written),
                    of_all: consistency != "session",
                    tally: Arc::clone(&tally),
                    dice: Dice(0x9e37_79b9_7f4a_7c15 ^ (me as u64 + 1)),
                };
                tasks.spawn(checker.run(start, Duration::from_secs(seconds)));
            }
            while let Some(result) = tasks.join_next().await {
                result.unwrap();
            }
        });
        ended.store(true, SeqCst);
        successor = disturbing.join().unwrap();
    });
    let pooler = successor.as_ref().unwrap_or(&pooler);
    let hosts = run(pooler.console("SHOW HOSTS"));
    let reads = |role: &str| -> u64 {
        hosts.iter().filter(|host| host[3] == role).map(|host| host[6].parse::<u64>().unwrap()).sum()
    };
    let (on_replica, on_primary) = (reads("replica"), reads("primary"));
    let count = |counter: &AtomicU64| counter.load(SeqCst);
    let found = Found {
        reads: count(&tally.reads),
        stale: count(&tally.stale),
        writes: count(&tally.writes),
        share: on_replica * 100 / (on_replica + on_primary).max(1),
    };
    println!(
        "{consistency}: {} reads, {} of them stale, {} writes, {} % read from the replica, {seconds} s",
        found.reads, found.stale, found.writes, found.share
    );
    found
}

fn leave_alone(_: &Pair, _: &Pooler, _: &AtomicBool) -> Option<Pooler> {
    None
}

/// Pauses, delays and resumes replay at random.
fn hold_back(pair: &Pair, _: &Pooler, ended: &AtomicBool) -> Option<Pooler> {
    let mut dice = Dice(4711);
    let mut pause = |most: u64| std::thread::sleep(Duration::from_millis(50 + dice.roll(most)));
    while !ended.load(SeqCst) {
        pair.admin(1, "SELECT pg_wal_replay_pause()");
        pause(1500);
        pair.admin(1, "SELECT pg_wal_replay_resume()");
        pause(700);
        pair.set(1, "recovery_min_apply_delay = '400ms'");
        pause(1200);
        pair.set(1, "recovery_min_apply_delay = 0");
        pause(700);
    }
    pair.admin(1, "SELECT pg_wal_replay_resume()");
    None
}

/// Takes the replica out of the configuration and puts it back, and has another process take over, while replay lags.
fn change_hosts(pair: &Pair, pooler: &Pooler, ended: &AtomicBool) -> Option<Pooler> {
    let settings = "read_write_split=1 read_consistency=database";
    let alone = format!("app = host=127.0.0.1 port={} {settings}\n", pair.ports[0]);
    let reversed =
        format!("app = host=127.0.0.1,127.0.0.1 port={},{} {settings}\n", pair.ports[1], pair.ports[0]);
    pair.set(1, "recovery_min_apply_delay = '300ms'");
    let mut successor = None;
    for round in 0.. {
        for databases in [&alone, &reversed, &alone, &pair.database(settings)] {
            pooler.rewrite(databases, SETTINGS);
            run(pooler.console("RELOAD"));
            std::thread::sleep(Duration::from_millis(300));
            // Once it is read from again the next change is due.
            while *databases != alone && !reads_on_replica(pooler) && !ended.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        if round == 0 {
            successor = Some(pooler.successor());
        }
        if ended.load(SeqCst) {
            break;
        }
    }
    pair.set(1, "recovery_min_apply_delay = 0");
    successor
}

fn reads_on_replica(pooler: &Pooler) -> bool {
    run(pooler.console("SHOW HOSTS")).iter().any(|host| host[3] == "replica" && host[6] != "0")
}

#[test]
fn no_read_misses_what_it_must_not_miss() {
    let seconds = std::env::var("PGWEIR_CHECK_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(6);
    let pair = Pair::start("consistency");
    pair.admin_app(
        0,
        &format!(
            "CREATE TABLE numbers (id int PRIMARY KEY, n bigint); ALTER TABLE numbers OWNER TO {}",
            crate::support::USER
        ),
    );
    let eventual = check(&pair, "eventual", seconds.min(20), hold_back);
    assert!(eventual.stale > 0, "a checker that finds nothing where there is something");
    for consistency in ["session", "database"] {
        let found = check(&pair, consistency, seconds, hold_back);
        assert_eq!(found.stale, 0, "{consistency}");
        assert!(found.reads > 1000 && found.writes > CLIENTS as u64);
        let calm = check(&pair, consistency, seconds.min(20), leave_alone);
        assert_eq!(calm.stale, 0, "{consistency}");
        assert!(calm.share > 50, "{consistency}: only {} % were read from the replica", calm.share);
    }
    let found = check(&pair, "database", seconds, change_hosts);
    assert_eq!(found.stale, 0, "while hosts come and go");
    assert!(found.reads > 1000);
}

/// Back-to-back transactions are never older than what the replica is known to have.
#[test]
fn transactions_that_only_read_do_not_keep_a_client_on_the_primary() {
    let pair = Pair::start("reading");
    pair.admin_app(0, "CREATE TABLE numbers (n int); GRANT ALL ON numbers TO PUBLIC; CREATE FUNCTION add() RETURNS void LANGUAGE sql AS 'INSERT INTO numbers VALUES (0)'");
    pair.catch_up(1);
    let pooler = Pooler::with_databases(&pair.database("read_write_split=1"), "topology_check_period = 0.3");
    run(async { pooler.raw().await.value("SELECT 1").await });
    eventually("the replica is in use", || {
        pooler.log().contains("is a replica") && pooler.log().contains("catalog read")
    });
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows("INSERT INTO numbers VALUES (1)").await;
        let start = Instant::now();
        loop {
            raw.rows("BEGIN READ ONLY").await;
            assert_eq!(raw.value("SELECT count(*) FROM numbers").await, "1");
            raw.rows("COMMIT").await;
            if raw.value("SELECT inet_server_port()").await == pair.ports[1].to_string() {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(5), "it stays on the primary");
        }
        // But those that turn out to write do.
        raw.rows("INSERT INTO numbers VALUES (2)").await;
        raw.rows("BEGIN READ ONLY").await;
        raw.rows("SET TRANSACTION READ WRITE").await;
        raw.rows("INSERT INTO numbers VALUES (3)").await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        pair.admin(1, "SELECT pg_wal_replay_pause()");
        raw.rows("COMMIT").await;
        assert_eq!(raw.value("SELECT count(*) FROM numbers").await, "3");
        // And what comes behind their end may be anything.
        let query_by_query = [query("COMMIT"), query("SELECT add()")].concat();
        for (end, batches, count) in [(query("COMMIT; SELECT add()"), 1, "5"), (query_by_query, 2, "7")] {
            pair.admin(1, "SELECT pg_wal_replay_resume()");
            raw.rows("INSERT INTO numbers VALUES (4)").await;
            raw.rows("BEGIN READ ONLY").await;
            assert_eq!(raw.value("SELECT pg_is_in_recovery()").await, "f");
            tokio::time::sleep(Duration::from_millis(900)).await;
            pair.admin(1, "SELECT pg_wal_replay_pause()");
            raw.send(&end).await;
            for _ in 0..batches {
                raw.until_ready().await;
            }
            assert_eq!(raw.value("SELECT count(*) FROM numbers").await, count);
        }
        pair.admin(1, "SELECT pg_wal_replay_resume()");
    });
}
