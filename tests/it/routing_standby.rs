//! What a standby cannot do, or must not: nothing that works on PostgreSQL fails, locks nothing, or gives other columns.

use crate::failover::wait_for_roles;
use crate::routing::{eventually_reads, is_read, is_read_with, pooler, pooler_with};
use crate::support::pair::Pair;
use crate::support::raw::{bind, describe, error, execute, message, parse, query, sync};
use crate::support::{Pooler, USER, cluster, run};

fn retries(pooler: &Pooler) -> usize {
    pooler.log().matches("a read is run again on the primary").count()
}

/// A client that was told two columns must not be given three.
#[test]
fn a_plan_that_must_not_change_its_result_is_not_run_elsewhere() {
    let pooler = pooler_with("catalog_refresh_period = 1000");
    let admin = |sql: &str| cluster().admin_in("app", cluster().primary, sql);
    admin(&format!(
        "CREATE TABLE changing AS SELECT 77 AS a, 'x' AS b; ALTER TABLE changing OWNER TO {USER}"
    ));
    cluster().catch_up();
    run(async {
        let mut raw = pooler.raw().await;
        let prepare = [parse("two", "SELECT * FROM changing"), describe("two"), sync()].concat();
        assert_eq!(raw.tags(&prepare).await, "1tTZ");
        let run_two = [bind("two"), execute(), sync()].concat();
        assert!(is_read_with(&pooler, &mut raw, &run_two).await);
        admin("ALTER TABLE changing ALTER a TYPE float8, ADD COLUMN c int");
        cluster().catch_up();
        raw.send(&run_two).await;
        let messages = raw.until_ready().await;
        let tags: String = messages.iter().map(|m| m.tag).collect();
        assert_eq!((tags.as_str(), error(&messages).field('C').as_str()), ("EZ", "0A000"));
        assert_eq!(retries(&pooler), 0);
    });
}

/// Other errors are results as well: they do not cost a second run, and not the primary's work.
#[test]
fn an_error_that_any_server_says_is_the_result() {
    let pooler = pooler();
    run(async {
        let mut raw = pooler.raw().await;
        for (sql, sqlstate) in [
            ("SELECT 1 / 0", "22012"),
            ("SELECT 'x'::int", "22P02"),
            ("SELECT count(*) FROM generate_series(1, 3) g WHERE 1 / (g - 2) > 0", "22012"),
            ("SELECT to_timestamp('x', 'YYYY')", "22007"),
        ] {
            assert_eq!(raw.error(sql).await.field('C'), sqlstate, "{sql}");
        }
    });
    assert_eq!(retries(&pooler), 0);
}

/// What only a standby has a reason to say is not passed on, and what is run again because of it may have been a write.
#[test]
fn what_only_a_standby_says_is_not_passed_on() {
    let pair = Pair::start("only-standby");
    let admin = |sql: &str| pair.admin_app(0, sql);
    admin(
        "CREATE TABLE noted (n int); CREATE TABLE closed AS SELECT 3 AS n; CREATE TYPE mood AS ENUM ('sad');
         CREATE FUNCTION note() RETURNS int LANGUAGE sql VOLATILE SECURITY DEFINER AS 'INSERT INTO noted VALUES (1) RETURNING n';
         CREATE FUNCTION says_it_is_stable() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN note(); END';
         CREATE FUNCTION where_it_writes() RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN pg_current_wal_lsn() > ''0/0''; END';
         GRANT SELECT ON noted TO PUBLIC",
    );
    pair.catch_up(1);
    // What is changed from now on no catalog knows.
    let pooler = |consistency: &str| {
        let database = pair.database(&format!("read_write_split=1 read_consistency={consistency}"));
        let pooler = Pooler::with_databases(&database, "catalog_refresh_period = 1000");
        wait_for_roles(&pooler);
        pooler
    };
    let (eventual, session) = (pooler("eventual"), pooler("session"));
    admin("CREATE UNLOGGED TABLE loose AS SELECT 2 AS n; GRANT SELECT ON loose TO PUBLIC");
    pair.catch_up(1);
    pair.admin(1, "SELECT pg_wal_replay_pause()");
    admin("GRANT SELECT ON closed TO PUBLIC");
    admin("ALTER TYPE mood ADD VALUE 'happy'");
    admin("CREATE TABLE fresh AS SELECT 4 AS n; GRANT SELECT ON fresh TO PUBLIC");
    admin("ALTER TABLE noted ADD COLUMN later int");
    for (sql, value) in [
        ("SELECT n FROM loose", "2"),
        ("SELECT n FROM closed", "3"),
        ("SELECT n FROM fresh", "4"),
        ("SELECT count(later) FROM noted", "0"),
        ("SELECT 'happy'::mood", "happy"),
        ("SELECT where_it_writes()", "true"),
    ] {
        let before = retries(&eventual);
        assert_eq!(run(async { eventual.raw().await.value(sql).await }), value, "{sql}");
        assert_eq!(retries(&eventual), before + 1, "{sql}");
    }
    run(async {
        let mut raw = eventual.raw().await;
        // The error leaves a failed transaction on the replica.
        assert_eq!(raw.value("BEGIN READ ONLY; SELECT n FROM fresh; COMMIT").await, "4");
        assert!(eventual.log().contains("closing because: its batch is run again"), "{}", eventual.log());
        // What the primary says is final, whatever it is.
        let before = retries(&eventual);
        assert_eq!(raw.error("SELECT n FROM missing").await.field('C'), "42P01");
        assert_eq!(retries(&eventual), before + 1);
        for (sql, sqlstate) in
            [("SELECT count(DISTINCT n) OVER () FROM noted", "0A000"), ("SELECT n FROM missing", "42P01")]
        {
            raw.send(&[parse("wrong", sql), sync()].concat()).await;
            assert_eq!(error(&raw.until_ready().await).field('C'), sqlstate, "{sql}");
        }
        assert!(!eventual.log().contains("a batch is run again"));
    });
    // The replica has not seen what was written in the end.
    run(async {
        let mut raw = session.raw().await;
        assert_eq!(raw.value("SELECT count(n) FROM noted").await, "0");
        assert_eq!(retries(&session), 0);
        assert_eq!(raw.value("SELECT says_it_is_stable()").await, "1");
        assert_eq!(retries(&session), 1);
        assert_eq!(raw.value("SELECT count(n) FROM noted").await, "1");
        assert_eq!(retries(&session), 1);
    });
    pair.admin(1, "SELECT pg_wal_replay_resume()");
}

/// `(x).f` calls f.
#[test]
fn a_lock_that_looks_like_a_column_is_taken_on_the_primary() {
    let pooler = pooler();
    let locks = |which: u16| {
        let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid IN (4712, 4713, 4714)";
        cluster().admin_in("app", which, sql)
    };
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows("SELECT (4712::bigint).pg_advisory_lock").await;
        raw.rows("SELECT n.pg_advisory_lock FROM generate_series(4713::bigint, 4713) n").await;
        let parse = parse("", "SELECT ($1::bigint).pg_advisory_lock");
        let bind = message(b'B', b"\0\0\0\0\0\x01\0\0\0\x044714\0\0");
        assert_eq!(raw.tags(&[parse, bind, execute(), sync()].concat()).await, "12DCZ");
        assert_eq!((locks(cluster().primary), locks(cluster().replica)), ("3".into(), "0".into()));
        raw.rows("SELECT pg_advisory_unlock_all()").await;
    });
}

/// The rest of a transaction may be something that a replica refuses, or that means nothing there.
#[test]
fn in_a_read_only_transaction_everything_works_that_works_on_the_primary() {
    let pooler = pooler();
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows("CREATE UNLOGGED TABLE only_read AS SELECT 5 AS n").await;
        raw.rows("CREATE TEMP TABLE own_temp AS SELECT 6 AS n").await;
        cluster().catch_up();
        let try_lock = "SELECT pg_try_advisory_xact_lock(4715)";
        // BEGIN alone, with the first statement, and both by the extended protocol.
        let extended = |sql: &str| [parse("", sql), bind(""), execute()].concat();
        for begin in [
            query("BEGIN READ ONLY"),
            query("START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"),
            query("BEGIN; SET TRANSACTION READ ONLY; TABLE routed"),
            [extended("BEGIN READ ONLY"), extended("SELECT 1"), sync()].concat(),
        ] {
            raw.send(&begin).await;
            raw.until_ready().await;
            raw.rows("SELECT pg_advisory_xact_lock(4715)").await;
            assert_eq!(cluster().admin_in("app", cluster().primary, try_lock), "f");
            for (sql, value) in [
                ("SELECT n FROM only_read", "5"),
                ("SELECT n FROM own_temp", "6"),
                ("SELECT txid_current() > 0", "t"),
                ("SELECT pg_current_wal_lsn() > '0/0'", "t"),
                ("LISTEN something", ""),
                ("NOTIFY something", ""),
                ("LOCK TABLE routed IN SHARE MODE", ""),
                ("DECLARE held CURSOR WITH HOLD FOR SELECT 7", ""),
                ("COMMIT", ""),
                ("FETCH ALL FROM held", "7"),
                ("CLOSE held", ""),
                ("UNLISTEN *", ""),
            ] {
                assert_eq!(raw.value(sql).await, value, "{sql}");
            }
        }
        raw.rows("DISCARD ALL").await;
        raw.rows("DROP TABLE only_read").await;
        // A whole transaction at once is known to the end.
        eventually_reads(&pooler, &mut raw, "BEGIN READ ONLY; TABLE routed; COMMIT").await;
        let locks = "BEGIN READ ONLY; SELECT pg_advisory_xact_lock(4715); COMMIT";
        assert!(!is_read(&pooler, &mut raw, locks).await);
    });
}

/// Everybody's first test of a split.
#[test]
fn where_a_read_goes_can_be_asked() {
    let pooler = pooler();
    run(async {
        let mut raw = pooler.raw().await;
        let ask = "SELECT inet_server_addr(), inet_server_port()";
        assert_eq!(raw.rows(ask).await, [["127.0.0.1".to_owned(), cluster().replica.to_string()]]);
        let ask = format!("/* pgweir: primary */ {ask}");
        assert_eq!(raw.rows(&ask).await, [["127.0.0.1".to_owned(), cluster().primary.to_string()]]);
    });
}
