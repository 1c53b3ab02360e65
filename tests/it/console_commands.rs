//! The console's commands that stop, close or hold things.

use std::time::Duration;

use crate::cancel::cancel;
use crate::support::raw::{Raw, error, message, query};
use crate::support::{PASSWORD, Pooler, USER, eventually, run};

#[test]
fn pause_and_resume() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows("BEGIN").await;
        let mut console = Raw::log_in(pooler.port, "pgbouncer").await;
        console.send(&query("PAUSE")).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        // It waits for the transaction.
        assert_eq!(pooler.figure("SHOW POOLS", "app", "sv_active").await, 1);
        raw.rows("COMMIT").await;
        assert_eq!(console.until_ready().await[0].tag, 'C');
        assert_eq!(pooler.console("SHOW SERVERS").await.len(), 0);
        assert_eq!(pooler.console("SHOW STATE").await[1], ["paused", "yes"]);
        raw.send(&query("SELECT 'at last'")).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(pooler.figure("SHOW POOLS", "app", "cl_waiting").await, 1);
        console.rows("RESUME").await;
        assert!(raw.until_ready().await.iter().any(|m| m.tag == 'D'));
        assert_eq!(console.error("RESUME").await.field('M'), "pooler is not paused/suspended");
        console.rows("PAUSE app").await;
        assert_eq!(pooler.figure("SHOW DATABASES", "app", "paused").await, 1);
        // The pause of everything and that of one database do not know of each other.
        console.rows("PAUSE").await;
        assert_eq!(console.error("PAUSE").await.field('M'), "already suspended/paused");
        console.rows("RESUME").await;
        assert_eq!(pooler.figure("SHOW DATABASES", "app", "paused").await, 1);
        console.rows("RESUME app").await;
        assert_eq!(console.error("RESUME app").await.field('M'), "database app is not paused");
        for command in ["PAUSE", "KILL", "RECONNECT", "DISABLE", "ENABLE"] {
            let message = format!("cannot {} admin db: pgbouncer", command.to_ascii_lowercase());
            assert_eq!(console.error(&format!("{command} pgbouncer")).await.field('M'), message);
        }
        assert_eq!(console.error("PAUSE nothing").await.field('M'), "no such database: nothing");
        assert_eq!(raw.value("SELECT 1").await, "1");
    });
}

#[test]
fn disable_reconnect_kill() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        let backend = raw.value("SELECT pg_backend_pid()").await;
        pooler.console("DISABLE app").await;
        let parameters = [("user", USER), ("database", "app")];
        let error = Raw::log_in_with(pooler.port, 3 << 16, &parameters, PASSWORD).await.err().unwrap();
        assert!(error.field('M').contains("is disabled"), "{error:?}");
        assert_eq!(raw.value("SELECT 1").await, "1");
        pooler.console("ENABLE app").await;
        pooler.console("RECONNECT").await;
        assert_ne!(raw.value("SELECT pg_backend_pid()").await, backend);
        let id = pooler
            .console("SHOW CLIENTS")
            .await
            .iter()
            .find(|row| row[2] == "app")
            .unwrap()
            .last()
            .unwrap()
            .clone();
        pooler.console(&format!("KILL_CLIENT {id}")).await;
        assert_eq!(raw.receive().await.unwrap().field('C'), "57P01");
        let mut raw = pooler.raw().await;
        raw.rows("BEGIN").await;
        pooler.console("KILL app").await;
        assert_eq!(raw.receive().await.unwrap().field('C'), "57P01");
        assert_eq!(raw.receive().await, None);
        // Whoever comes next waits for RESUME.
        let mut raw = pooler.raw().await;
        raw.send(&query("SELECT 1")).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(pooler.figure("SHOW POOLS", "app", "cl_waiting").await, 1);
        pooler.console("RESUME app").await;
        assert_eq!(raw.until_ready().await.len(), 4);
        pooler.console("RECONNECT app").await;
        // Somebody at the console may be sent away, too.
        let mut other = Raw::log_in(pooler.port, "pgbouncer").await;
        let id = other
            .rows("SHOW CLIENTS")
            .await
            .into_iter()
            .filter(|row| row[2] == "pgbouncer")
            .map(|row| row[20].clone());
        let id = id.max_by_key(|id| id.len()).unwrap();
        let ids: Vec<_> =
            pooler.console("SHOW CLIENTS").await.into_iter().filter(|row| row[2] == "pgbouncer").collect();
        assert!(ids.iter().any(|row| row[20] == id));
        pooler.console(&format!("KILL_CLIENT {id}")).await;
        assert_eq!(other.receive().await.unwrap().field('C'), "57P01");
        assert_eq!(other.receive().await, None);
    });
    eventually("no server is left", || run(pooler.console("SHOW SERVERS")).is_empty());
}

#[test]
fn shutdown_waits_as_it_is_told() {
    let mut pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows("BEGIN").await;
        let mut console = Raw::log_in(pooler.port, "pgbouncer").await;
        console.rows("SHUTDOWN WAIT_FOR_CLIENTS").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(tokio::net::TcpStream::connect(("127.0.0.1", pooler.port)).await.is_err());
        assert_eq!(raw.value("SELECT 1").await, "1");
        raw.rows("COMMIT").await;
        raw.send(&message(b'X', b"")).await;
    });
    assert!(pooler.wait().success());

    // At once: the answer is that the connection ends.
    let mut pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows("BEGIN").await;
        let mut console = Raw::log_in(pooler.port, "pgbouncer").await;
        console.send(&query("SHUTDOWN")).await;
        assert_eq!(console.receive().await, None);
        assert_eq!(raw.receive().await, None);
    });
    assert!(pooler.wait().success());

    let mut pooler = Pooler::start("");
    run(async {
        let (mut a, b) = (pooler.raw().await, pooler.raw().await);
        a.rows("BEGIN").await;
        Raw::log_in(pooler.port, "pgbouncer").await.rows("SHUTDOWN WAIT_FOR_SERVERS").await;
        assert_eq!(a.value("SELECT 1").await, "1");
        a.rows("COMMIT").await;
        drop(b);
    });
    assert!(pooler.wait().success());
}

#[test]
fn a_cancelled_pause_is_none() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows("BEGIN").await;
        for pause in ["PAUSE", "PAUSE app"] {
            let mut console = Raw::log_in(pooler.port, "pgbouncer").await;
            console.send(&query(pause)).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            cancel(pooler.port, &console.key).await;
            assert_eq!(error(&console.until_ready().await).field('C'), "57014");
            assert_eq!(pooler.console("SHOW STATE").await[0], ["active", "yes"]);
            assert_eq!(pooler.figure("SHOW DATABASES", "app", "paused").await, 0);
        }
        assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
    });
}

#[test]
fn suspend_holds_everything_until_resume() {
    let pooler = Pooler::start("suspend_timeout = 1");
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows("BEGIN").await;
        raw.rows("CREATE TEMP TABLE kept (a int)").await;
        let mut idle = pooler.raw().await;
        let mut console = Raw::log_in(pooler.port, "pgbouncer").await;
        console.rows("SUSPEND").await;
        assert_eq!(console.rows("SHOW STATE").await[2], ["suspended", "yes"]);
        assert_eq!(console.error("SUSPEND").await.field('M'), "already suspended/paused");
        raw.send(&query("SELECT count(*) FROM kept")).await;
        idle.send(&query("SELECT 'idle'")).await;
        let newcomer = pooler.raw();
        tokio::pin!(newcomer);
        let waited = tokio::time::timeout(Duration::from_millis(500), &mut newcomer).await;
        assert!(waited.is_err(), "new clients wait");
        let mut byte = [0];
        assert!(raw.stream.try_read(&mut byte).is_err() && idle.stream.try_read(&mut byte).is_err());
        console.rows("RESUME").await;
        assert_eq!(raw.until_ready().await.len(), 4);
        assert_eq!(idle.until_ready().await.len(), 4);
        assert_eq!(newcomer.await.value("SELECT 1").await, "1");

        // When nobody is left to say RESUME everything goes on by itself.
        console.rows("SUSPEND").await;
        drop(console);
        assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
        assert!(pooler.log().contains("admin disappeared when suspended, doing RESUME"));

        // Who does not take what the server has sent cannot be suspended.
        raw.rows("ROLLBACK").await;
        raw.send(&query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)")).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut console = Raw::log_in(pooler.port, "pgbouncer").await;
        console.rows("SUSPEND").await;
        assert!(pooler.log().contains("closing because: suspend_timeout"), "{}", pooler.log());
        console.rows("RESUME").await;
        assert_eq!(idle.value("SELECT 1").await, "1");
    });
}
