//! What may not last for ever.

use std::time::{Duration, Instant};

use crate::support::raw::query;
use crate::support::{Pooler, Raw, eventually, run};

#[test]
fn each_timeout_ends_the_session_with_its_code() {
    for (setting, before, statement, code) in [
        ("query_timeout = 0.5", "", "SELECT pg_sleep(20)", "57014"),
        ("idle_transaction_timeout = 0.5", "BEGIN", "", "08P01"),
        ("transaction_timeout = 0.5", "BEGIN", "SELECT pg_sleep(20)", "08P01"),
        ("transaction_timeout = 0.5", "BEGIN", "", "08P01"),
        ("client_idle_timeout = 0.5", "", "", "57P05"),
    ] {
        let pooler = Pooler::start(setting);
        run(async {
            let mut raw = pooler.raw().await;
            if !before.is_empty() {
                raw.rows(before).await;
            } else if statement.is_empty() {
                raw.rows("SELECT 1").await;
            }
            let start = Instant::now();
            if !statement.is_empty() {
                raw.send(&query(statement)).await;
            }
            let error = raw.receive().await.unwrap();
            assert_eq!((error.tag, error.field('C').as_str()), ('E', code), "{setting}: {error:?}");
            assert!(
                start.elapsed() > Duration::from_millis(450) && start.elapsed() < Duration::from_secs(3),
                "{setting}"
            );
            assert_eq!(raw.receive().await, None);
            // The server was not given to anybody else in that state.
            assert_eq!(
                pooler.raw().await.value("SELECT pg_current_xact_id_if_assigned() IS NULL").await,
                "t"
            );
        });
    }
}

#[test]
fn a_clients_own_timeouts_hold_where_servers_have_another_user() {
    let databases =
        format!("app = host=127.0.0.1 port={} user=app pool_size=1\n", crate::support::cluster().primary);
    let settings =
        "[users]\nother = client_idle_timeout=0.5 query_wait_timeout=1\napp = client_idle_timeout=0.2\n";
    let pooler = Pooler::with_databases(&databases, settings);
    run(async {
        let parameters = [("user", "other"), ("database", "app")];
        let other = || Raw::log_in_with(pooler.port, 3 << 16, &parameters, "other");
        let mut idle = other().await.unwrap();
        let start = Instant::now();
        assert_eq!(idle.receive().await.unwrap().field('M'), "client_idle_timeout");
        assert!(start.elapsed() > Duration::from_millis(450));
        let mut waiting = other().await.unwrap();
        let mut holder = pooler.raw().await;
        holder.rows("BEGIN").await;
        assert_eq!(waiting.error("SELECT 1").await.field('M'), "query_wait_timeout");
    });
}

#[test]
fn a_changed_timeout_holds_for_those_who_are_here_already() {
    for mode in ["transaction", "session"] {
        let pooler = Pooler::start(&format!("pool_mode = {mode}"));
        run(async {
            let mut idle = pooler.raw().await;
            idle.rows("SELECT 1").await;
            let mut in_transaction = pooler.raw().await;
            in_transaction.rows("BEGIN").await;
            pooler.console("SET client_idle_timeout = 0.5").await;
            assert_eq!(idle.receive().await.unwrap().field('M'), "client_idle_timeout", "{mode}");
            pooler.console("SET idle_transaction_timeout = 0.5").await;
            assert_eq!(in_transaction.receive().await.unwrap().field('M'), "idle transaction timeout");
        });
    }
}

/// The user of the pool is another one, so that nothing of the pool has changed.
#[test]
fn a_clients_own_line_holds_for_it_when_it_is_here_already() {
    let databases = format!("app = host=127.0.0.1 port={} user=app\n", crate::support::cluster().primary);
    let pooler = Pooler::with_databases(&databases, "[users]\nother = client_idle_timeout=0\n");
    run(async {
        let parameters = [("user", "other"), ("database", "app")];
        let mut other = Raw::log_in_with(pooler.port, 3 << 16, &parameters, "other").await.unwrap();
        let mut same = pooler.raw().await;
        other.rows("SELECT 1").await;
        same.rows("SELECT 1").await;
        let ini = pooler.dir.join("pgweir.ini");
        let text = std::fs::read_to_string(&ini).unwrap();
        std::fs::write(&ini, text.replace("client_idle_timeout=0", "client_idle_timeout=0.5")).unwrap();
        pooler.console("RELOAD").await;
        assert_eq!(other.receive().await.unwrap().field('M'), "client_idle_timeout");
        assert_eq!(same.value("SELECT 1").await, "1");
    });
}

#[test]
fn activity_starts_the_clock_again() {
    let pooler = Pooler::start("client_idle_timeout = 1\nidle_transaction_timeout = 1\nquery_timeout = 1");
    run(async {
        let mut raw = pooler.raw().await;
        for statement in
            ["SELECT pg_sleep(0.6)", "BEGIN", "SELECT pg_sleep(0.6)", "SELECT pg_sleep(0.6)", "COMMIT"]
        {
            raw.rows(statement).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert_eq!(raw.value("SELECT 1").await, "1");
    });
}

#[test]
fn nobody_waits_longer_than_query_wait_timeout() {
    let pooler = Pooler::start("default_pool_size = 1\nquery_wait_timeout = 0.6");
    run(async {
        let mut holder = pooler.raw().await;
        holder.rows("BEGIN").await;
        let mut raw = pooler.raw().await;
        let error = raw.error("SELECT 1").await;
        assert_eq!((error.field('C').as_str(), error.field('M').as_str()), ("53300", "query_wait_timeout"));
        holder.rows("COMMIT").await;
        assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
    });
}

#[test]
fn a_server_that_is_not_there_is_tried_again_until_somebody_gives_up() {
    let port = crate::support::free_port();
    let databases = format!("app = host=127.0.0.1 port={port}\n");
    let pooler = Pooler::with_databases(&databases, "query_wait_timeout = 1");
    run(async {
        let start = Instant::now();
        let parameters = [("user", crate::support::USER), ("database", "app")];
        let refused = Raw::log_in_with(pooler.port, 3 << 16, &parameters, crate::support::PASSWORD).await;
        let error = refused.err().unwrap();
        assert_eq!((error.field('C').as_str(), error.field('M').as_str()), ("08001", "query_wait_timeout"));
        assert!(start.elapsed() > Duration::from_millis(900));
    });
    // A client that gives up while it waits does not hold a place.
    let impatient = run(async {
        let mut raw = Raw::connect(pooler.port).await;
        let parameters = [("user", crate::support::USER), ("database", "app")];
        raw.send(&crate::support::raw::startup(3 << 16, &parameters)).await;
        let _ = tokio::time::timeout(
            Duration::from_millis(300),
            raw.authenticate(crate::support::USER, crate::support::PASSWORD),
        )
        .await;
        pooler.figure("SHOW DATABASES", "app", "current_client_connections").await
    });
    assert_eq!(impatient, 1);
    eventually("its place is free", || {
        run(pooler.figure("SHOW DATABASES", "app", "current_client_connections")) == 0
    });
    eventually("attempts", || pooler.log().matches("connect failed").count() >= 3);
}

/// Who says nothing costs nothing, for a second: the kernel has not handed the connection over.
#[test]
fn connections_are_taken_when_something_has_come() {
    let pooler = Pooler::start("");
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", pooler.pid())).unwrap().count();
    run(async {
        let mut console = Raw::log_in(pooler.port, "pgbouncer").await;
        // Those who have only looked whether it listens are gone.
        std::thread::sleep(Duration::from_millis(100));
        let before = descriptors();
        let silent = Raw::connect(pooler.port).await;
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(descriptors(), before, "it is still the kernel's");
        eventually("it is taken all the same", || descriptors() > before);
        drop(silent);
        eventually("it is gone", || descriptors() == before);

        console.rows("SET tcp_defer_accept = 0").await;
        let mut taken_at_once = || {
            let before = descriptors();
            let start = Instant::now();
            let _silent = std::net::TcpStream::connect(("127.0.0.1", pooler.port)).unwrap();
            while descriptors() == before && start.elapsed() < Duration::from_millis(300) {
                std::thread::sleep(Duration::from_millis(10));
            }
            descriptors() > before
        };
        eventually("the setting has come through", &mut taken_at_once);
        console.rows("RELOAD").await;
        assert!(!taken_at_once(), "the file says nothing of it");
    });
}
