//! Named prepared statements in transaction mode: each client has its own names, whatever server it gets.

use crate::support::raw::{Raw, bind, close, describe, error, execute, parse, query, sync};
use crate::support::{Pooler, run};

#[test]
fn names_belong_to_clients() {
    let pooler = Pooler::start("default_pool_size = 2");
    run(async {
        let mut clients = Vec::new();
        for n in 0..8 {
            let mut raw = pooler.raw().await;
            let tags = raw
                .tags(&[parse("s", &format!("SELECT {n}, $1::text")), describe("s"), sync()].concat())
                .await;
            assert_eq!(tags, "1tTZ");
            clients.push(raw);
        }
        for round in 0..5 {
            for (n, raw) in clients.iter_mut().enumerate() {
                let bind = crate::support::raw::message(b'B', b"\0s\0\0\0\0\x01\0\0\0\x01x\0\0");
                raw.send(&[bind, execute(), sync()].concat()).await;
                let messages = raw.until_ready().await;
                assert_eq!(messages[1].values(), [n.to_string(), "x".into()], "round {round}");
            }
        }
        let parsed: i64 = pooler.figure("SHOW STATS", "app", "total_client_parse_count").await;
        assert_eq!(parsed, 8);
        assert!(pooler.figure("SHOW STATS", "app", "total_server_parse_count").await <= 16);
        assert_eq!(pooler.figure("SHOW STATS", "app", "total_bind_count").await, 40);
    });
}

#[test]
fn a_driver_prepares_and_executes() {
    let pooler = Pooler::start("default_pool_size = 2");
    run(async {
        let (a, b) = (pooler.connect("app").await, pooler.connect("app").await);
        let (in_a, in_b) =
            (a.prepare("SELECT $1::int + 1").await.unwrap(), b.prepare("SELECT $1::int + 2").await.unwrap());
        for n in 0..20 {
            assert_eq!(a.query_one(&in_a, &[&n]).await.unwrap().get::<_, i32>(0), n + 1);
            assert_eq!(b.query_one(&in_b, &[&n]).await.unwrap().get::<_, i32>(0), n + 2);
        }
    });
}

#[test]
fn the_least_recently_used_goes_first() {
    let pooler = Pooler::start("default_pool_size = 1\nmax_prepared_statements = 3");
    run(async {
        let mut raw = pooler.raw().await;
        for n in 0..10 {
            let name = format!("s{n}");
            assert_eq!(raw.tags(&[parse(&name, &format!("SELECT {n}")), sync()].concat()).await, "1Z");
        }
        for n in (0..10).rev() {
            raw.send(&[bind(&format!("s{n}")), execute(), sync()].concat()).await;
            assert_eq!(raw.until_ready().await[1].values(), [n.to_string()]);
        }
        let names = raw.rows("SELECT name FROM pg_prepared_statements").await;
        assert_eq!(names.len(), 3, "{names:?}");
    });
}

#[test]
fn names_are_used_once_and_given_back_by_close() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        assert_eq!(raw.tags(&[parse("s", "SELECT 1"), sync()].concat()).await, "1Z");
        assert_eq!(raw.tags(&[close("s"), parse("s", "SELECT 2"), sync()].concat()).await, "31Z");
        raw.send(&[bind("s"), execute(), sync()].concat()).await;
        assert_eq!(raw.until_ready().await[1].values(), ["2"]);
        raw.send(&[parse("s", "SELECT 3"), sync()].concat()).await;
        assert_eq!(error(&raw.until_ready().await).field('M'), "prepared statement 's' was already prepared");
        let mut raw = pooler.raw().await;
        raw.send(&[bind("unknown"), execute(), sync()].concat()).await;
        assert_eq!(error(&raw.until_ready().await).field('M'), "prepared statement did not exist: unknown");
    });
}

#[test]
fn a_statement_that_fails_to_prepare_can_be_prepared_again() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        assert_eq!(raw.tags(&[parse("s", "SELECT nonsense"), sync()].concat()).await, "EZ");
        assert_eq!(raw.tags(&[parse("s", "SELECT 1"), bind("s"), execute(), sync()].concat()).await, "12DCZ");
        // Skipped because of an error before it.
        assert_eq!(
            raw.tags(&[parse("", "SELECT 1/0 FROM nowhere"), parse("t", "SELECT 2"), sync()].concat()).await,
            "EZ"
        );
        assert_eq!(raw.tags(&[parse("t", "SELECT 2"), bind("t"), execute(), sync()].concat()).await, "12DCZ");
    });
}

#[test]
fn discard_and_deallocate_are_noticed() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        for command in ["DEALLOCATE ALL", "DISCARD ALL"] {
            let mut raw = pooler.raw().await;
            let mut other = pooler.raw().await;
            assert_eq!(raw.tags(&[parse("s", "SELECT 1"), sync()].concat()).await, "1Z");
            assert_eq!(other.tags(&[parse("s", "SELECT 2"), sync()].concat()).await, "1Z");
            raw.rows(command).await;
            assert_eq!(
                raw.tags(&[parse("s", "SELECT 3"), bind("s"), execute(), sync()].concat()).await,
                "12DCZ"
            );
            other.send(&[bind("s"), execute(), sync()].concat()).await;
            assert_eq!(other.until_ready().await[1].values(), ["2"]);
        }
    });
}

#[test]
fn the_unnamed_statement_is_never_another_clients() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let (mut a, mut b) = (pooler.raw().await, pooler.raw().await);
        // Parse in one transaction, Bind in the next, somebody else in between.
        assert_eq!(a.tags(&[parse("", "SELECT 'mine'"), sync()].concat()).await, "1Z");
        assert_eq!(b.tags(&[parse("", "SELECT 'theirs'"), sync()].concat()).await, "1Z");
        a.send(&[bind(""), execute(), sync()].concat()).await;
        assert_eq!(a.until_ready().await[1].values(), ["mine"]);
        let mut c = pooler.raw().await;
        c.send(&[bind(""), execute(), sync()].concat()).await;
        assert_eq!(error(&c.until_ready().await).field('C'), "26000");
    });
}

#[test]
fn statements_pass_through_untouched_when_turned_off() {
    let pooler = Pooler::start("max_prepared_statements = 0\ndefault_pool_size = 1");
    run(async {
        let mut raw = pooler.raw().await;
        assert_eq!(raw.tags(&[parse("s", "SELECT 1"), sync()].concat()).await, "1Z");
        assert_eq!(raw.value("SELECT name FROM pg_prepared_statements").await, "s");
        assert_eq!(pooler.figure("SHOW STATS", "app", "total_client_parse_count").await, 0);
    });
    let pooler = Pooler::start("pool_mode = session");
    run(async {
        let mut raw = pooler.raw().await;
        assert_eq!(raw.tags(&[parse("s", "SELECT 1"), sync()].concat()).await, "1Z");
        assert_eq!(raw.value("SELECT name FROM pg_prepared_statements").await, "s");
    });
}

#[test]
fn long_statements_and_names() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let mut raw: Raw = pooler.raw().await;
        let name = "n".repeat(5000);
        let sql = format!("SELECT '{}'", "x".repeat(200_000));
        assert_eq!(raw.tags(&[parse(&name, &sql), sync()].concat()).await, "1Z");
        raw.send(&[bind(&name), execute(), sync(), query("SELECT 'after'")].concat()).await;
        assert_eq!(raw.until_ready().await[1].values()[0].len(), 200_000);
        assert_eq!(raw.until_ready().await[1].values(), ["after"]);
    });
}
