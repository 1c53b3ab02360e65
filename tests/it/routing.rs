//! Reads go to the replica, everything else to the primary, whatever order they are listed in.

use std::time::Duration;

use crate::support::raw::{Raw, bind, error, execute, parse, query, sync};
use crate::support::{PASSWORD, Pooler, USER, cluster, eventually, run};

/// The replica comes first: roles are asked, not assumed.
pub(crate) fn pooler() -> Pooler {
    pooler_with("")
}

pub(crate) fn pooler_with(settings: &str) -> Pooler {
    let (primary, replica) = (cluster().primary, cluster().replica);
    let databases = format!("app = host=127.0.0.1,127.0.0.1 port={replica},{primary} read_write_split=1\n");
    let pooler = Pooler::with_databases(&databases, &format!("read_consistency = eventual\n{settings}"));
    // Once: IF NOT EXISTS does not keep two that come at the same time apart.
    static TABLE: std::sync::Once = std::sync::Once::new();
    TABLE.call_once(|| {
        run(async { pooler.raw().await.rows("CREATE TABLE routed (a int)").await });
    });
    // The hosts are watched from the first login on.
    run(async { pooler.raw().await.value("SELECT 1").await });
    cluster().catch_up();
    eventually("both roles are known", || {
        let hosts = run(pooler.console("SHOW HOSTS"));
        hosts.iter().any(|h| h[3] == "replica") && hosts.iter().any(|h| h[3] == "primary")
    });
    // Reads go to replicas when it is known what is a read.
    run(async {
        let mut raw = pooler.raw().await;
        eventually_reads(&pooler, &mut raw, "SELECT 1").await;
    });
    pooler
}

/// Whether a statement is served by the replica.
pub(crate) async fn is_read(pooler: &Pooler, raw: &mut Raw, sql: &str) -> bool {
    is_read_with(pooler, raw, &query(sql)).await
}

pub(crate) async fn is_read_with(pooler: &Pooler, raw: &mut Raw, bytes: &[u8]) -> bool {
    let before = counts(pooler).await;
    raw.send(bytes).await;
    let messages = raw.until_ready().await;
    assert!(messages.iter().all(|m| m.tag != 'E'), "{}", error(&messages).field('M'));
    let after = counts(pooler).await;
    assert_eq!(after.0 + after.1, before.0 + before.1 + 1, "one transaction");
    after.0 > before.0
}

/// Waits until a statement is served by the replica.
pub(crate) async fn eventually_reads(pooler: &Pooler, raw: &mut Raw, sql: &str) {
    let start = std::time::Instant::now();
    while !is_read(pooler, raw, sql).await {
        assert!(start.elapsed() < Duration::from_secs(10), "{sql} never goes to the replica");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn counts(pooler: &Pooler) -> (i64, i64) {
    let hosts = pooler.console("SHOW HOSTS").await;
    let sum = |role: &str, column: usize| {
        hosts.iter().filter(|h| h[3] == role).map(|h| h[column].parse::<i64>().unwrap()).sum()
    };
    assert_eq!(sum("replica", 7), 0, "no write is ever counted on a replica: {hosts:?}");
    (sum("replica", 6), sum("primary", 6) + sum("primary", 7))
}

#[test]
fn statements_go_where_they_belong() {
    let pooler = pooler();
    run(async {
        let mut raw = pooler.raw().await;
        for (sql, is_read) in [
            ("SELECT 1", true),
            ("SELECT count(*) FROM routed", true),
            ("TABLE routed", true),
            ("COPY routed TO STDOUT", true),
            ("EXPLAIN SELECT * FROM routed", true),
            ("WITH r AS (SELECT 1) SELECT * FROM r", true),
            ("INSERT INTO routed VALUES (1)", false),
            ("WITH w AS (INSERT INTO routed VALUES (1) RETURNING a) SELECT * FROM w", false),
            ("SELECT * FROM routed FOR UPDATE", false),
            ("SELECT pg_advisory_xact_lock(1)", false),
            ("SELECT txid_current()", false),
            ("SELECT pg_is_in_recovery()", false),
            ("SHOW transaction_read_only", false),
            ("SET work_mem = '1MB'", false),
            ("SELECT 1; INSERT INTO routed VALUES (2)", false),
            ("gibberish", false),
        ] {
            let before = counts(&pooler).await;
            raw.send(&query(sql)).await;
            raw.until_ready().await;
            let after = counts(&pooler).await;
            let expected = if is_read { (before.0 + 1, before.1) } else { (before.0, before.1 + 1) };
            assert_eq!(after, expected, "{sql}");
        }
    });
}

/// What a connection has to be told first does not make its client wait, and lose it to others.
#[test]
fn clients_with_different_parameters_share_a_replica() {
    let pooler = pooler_with("default_pool_size = 1\nserver_reset_query_always = 1");
    let before = run(counts(&pooler));
    run(async {
        let mut tasks = tokio::task::JoinSet::new();
        for name in ["one", "two", "three"] {
            let parameters = [("user", USER), ("database", "app"), ("application_name", name)];
            let mut raw = Raw::log_in_with(pooler.port, 3 << 16, &parameters, PASSWORD).await.unwrap();
            tasks.spawn(async move {
                for _ in 0..100 {
                    assert_eq!(raw.value("SELECT 1").await, "1");
                }
            });
        }
        while let Some(result) = tasks.join_next().await {
            result.unwrap();
        }
    });
    let after = run(counts(&pooler));
    assert_eq!((after.0 - before.0, after.1 - before.1), (300, 0));
}

#[test]
fn transactions_stay_where_they_began() {
    let pooler = pooler();
    run(async {
        let mut raw = pooler.raw().await;
        let port = "SELECT pg_is_in_recovery()";
        raw.rows("/* pgweir: replica */ BEGIN READ ONLY").await;
        assert_eq!(raw.value(port).await, "t");
        assert_eq!(raw.error("INSERT INTO routed VALUES (1)").await.field('C'), "25006");
        raw.rows("ROLLBACK").await;
        for begin in
            ["BEGIN", "BEGIN READ ONLY", "BEGIN READ WRITE", "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY"]
        {
            raw.rows(begin).await;
            assert_eq!(raw.value(port).await, "f", "{begin}");
            raw.rows("COMMIT").await;
        }
    });
}

#[test]
fn the_extended_protocol_and_prepared_statements_are_routed_too() {
    let pooler = pooler();
    run(async {
        let mut raw = pooler.raw().await;
        assert_eq!(raw.tags(&[parse("r", "SELECT count(*) FROM routed"), sync()].concat()).await, "1Z");
        assert_eq!(raw.tags(&[parse("w", "INSERT INTO routed VALUES (7)"), sync()].concat()).await, "1Z");
        for _ in 0..5 {
            let before = counts(&pooler).await;
            assert_eq!(raw.tags(&[bind("r"), execute(), sync()].concat()).await, "2DCZ");
            assert_eq!(raw.tags(&[bind("w"), execute(), sync()].concat()).await, "2CZ");
            let after = counts(&pooler).await;
            assert_eq!(after, (before.0 + 1, before.1 + 1));
        }
        // Both in one batch: where the write belongs.
        let before = counts(&pooler).await;
        assert_eq!(raw.tags(&[bind("r"), execute(), bind("w"), execute(), sync()].concat()).await, "2DC2CZ");
        // A pipeline of batches, alternating.
        let batch = [bind("r"), execute(), sync(), bind("w"), execute(), sync()].concat();
        raw.send(&batch.repeat(10)).await;
        for n in 0..20 {
            let tags: String = raw.until_ready().await.iter().map(|m| m.tag).collect();
            assert_eq!(tags, if n % 2 == 0 { "2DCZ" } else { "2CZ" });
        }
        let after = counts(&pooler).await;
        assert!(after.1 >= before.1 + 11, "{before:?} {after:?}");
        // The unnamed statement, parsed in a batch of its own.
        assert_eq!(raw.tags(&[parse("", "INSERT INTO routed VALUES (8)"), sync()].concat()).await, "1Z");
        assert_eq!(raw.tags(&[bind(""), execute(), sync()].concat()).await, "2CZ");
    });
}

#[test]
fn several_hosts_without_the_setting_are_what_they_are_in_pgbouncer() {
    let (primary, replica) = (cluster().primary, cluster().replica);
    let databases = format!("app = host=127.0.0.1,127.0.0.1 port={primary},{replica} pool_size=2\n");
    let pooler = Pooler::with_databases(&databases, "");
    run(async {
        let (mut a, mut b) = (pooler.raw().await, pooler.raw().await);
        a.rows("BEGIN").await;
        b.rows("BEGIN").await;
        let ports =
            [a.value("SELECT pg_is_in_recovery()").await, b.value("SELECT pg_is_in_recovery()").await];
        assert_ne!(ports[0], ports[1], "round-robin");
    });
}

#[test]
fn without_a_usable_replica_the_primary_reads() {
    let dead = crate::support::free_port();
    let databases =
        format!("app = host=127.0.0.1,127.0.0.1 port={dead},{} read_write_split=1\n", cluster().primary);
    let pooler = Pooler::with_databases(&databases, "");
    run(async {
        let mut raw = Raw::log_in(pooler.port, "app").await;
        for _ in 0..5 {
            assert_eq!(raw.value("SELECT 1").await, "1");
        }
    });
}

#[test]
fn functions_and_views_are_known_and_their_changes_noticed() {
    // Only what passes through the pooler can be noticed in this time.
    let pooler = pooler_with("catalog_refresh_period = 1000");
    run(async {
        let (mut raw, mut other) = (pooler.raw().await, pooler.raw().await);
        raw.rows(
            "CREATE FUNCTION price(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1';
             CREATE FUNCTION noted(int) RETURNS int LANGUAGE sql VOLATILE SECURITY DEFINER AS 'SELECT $1';
             CREATE VIEW prices AS SELECT price(1);
             CREATE VIEW notes AS SELECT noted(1)",
        )
        .await;
        cluster().catch_up();
        eventually_reads(&pooler, &mut raw, "SELECT price(1)").await;
        assert!(is_read(&pooler, &mut raw, "SELECT * FROM prices").await);
        assert!(!is_read(&pooler, &mut raw, "SELECT noted(1)").await);
        assert!(!is_read(&pooler, &mut raw, "SELECT * FROM notes").await);
        assert_eq!(raw.tags(&[parse("p", "SELECT * FROM prices"), sync()].concat()).await, "1Z");
        let run_p = [bind("p"), execute(), sync()].concat();
        assert!(is_read_with(&pooler, &mut raw, &run_p).await);

        // In a transaction, it is another function only when that is committed.
        let redefine =
            "CREATE OR REPLACE FUNCTION price(int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT $1 + 1'";
        other.rows("BEGIN").await;
        other.rows(redefine).await;
        assert!(is_read(&pooler, &mut raw, "SELECT price(1)").await);
        other.rows("ROLLBACK").await;
        eventually_reads(&pooler, &mut raw, "SELECT * FROM prices").await;
        other.rows(redefine).await;
        // At once, and after the catalog has been read again.
        for _ in 0..2 {
            assert!(!is_read(&pooler, &mut raw, "SELECT price(1)").await);
            assert!(!is_read(&pooler, &mut raw, "SELECT * FROM prices").await);
            assert!(!is_read_with(&pooler, &mut raw, &run_p).await);
            eventually_reads(&pooler, &mut raw, "SELECT 1").await;
        }
    });
}

#[test]
fn changes_that_do_not_pass_through_are_noticed_in_time() {
    let pooler = pooler_with("catalog_refresh_period = 0.3");
    let primary = cluster().primary;
    cluster().admin_in(
        "app",
        primary,
        "CREATE FUNCTION elsewhere() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'; CREATE VIEW seen_elsewhere AS SELECT elsewhere();
         GRANT SELECT ON seen_elsewhere TO PUBLIC",
    );
    cluster().catch_up();
    run(async {
        let mut raw = pooler.raw().await;
        eventually_reads(&pooler, &mut raw, "SELECT elsewhere()").await;
        assert!(is_read(&pooler, &mut raw, "SELECT * FROM seen_elsewhere").await);
        cluster().admin_in("app", primary, "ALTER FUNCTION elsewhere() VOLATILE");
        let start = std::time::Instant::now();
        while is_read(&pooler, &mut raw, "SELECT * FROM seen_elsewhere").await {
            assert!(start.elapsed() < Duration::from_secs(5), "never noticed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!is_read(&pooler, &mut raw, "SELECT elsewhere()").await);
        assert!(is_read(&pooler, &mut raw, "SELECT 1").await);
    });
}
