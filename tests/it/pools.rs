//! Pools as a whole: when they come and go, what they are limited to, and the hosts they lead to.

use std::time::Duration;

use crate::support::raw::query;
use crate::support::{Ends, PASSWORD, Pooler, Raw, USER, cluster, eventually, run};

/// A line of `[databases]` for the primary.
fn on_primary(name: &str, more: &str) -> String {
    format!("{name} = host=127.0.0.1 port={} {more}\n", cluster().primary)
}

/// Whether SHOW has a row that begins with `key`.
async fn shows(pooler: &Pooler, show: &str, key: &str) -> bool {
    pooler.console(show).await.iter().any(|row| row[0] == key)
}

#[test]
fn what_nobody_uses_is_forgotten() {
    let databases = on_primary("*", "") + &on_primary("kept", "dbname=app user=app min_pool_size=1");
    let settings = "pool_idle_timeout = 0.5\nautodb_idle_timeout = 2\nserver_idle_timeout = 0.3";
    let pooler = Pooler::with_databases(&databases, settings);
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows("SELECT 1").await;
        assert!(pooler.log().contains("registered new auto-database: app"));
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(shows(&pooler, "SHOW POOLS", "app").await, "it has a client");
        assert_eq!(raw.value("SELECT 1").await, "1");
        drop(raw);
    });
    eventually("the pool is forgotten", || !run(shows(&pooler, "SHOW POOLS", "app")));
    let line = "cleaning up idle pool for user app on db app because: pool idle timeout (age= ";
    assert!(pooler.log().contains(line));
    assert!(run(shows(&pooler, "SHOW DATABASES", "app")));
    eventually("the database is forgotten", || !run(shows(&pooler, "SHOW DATABASES", "app")));
    assert!(run(shows(&pooler, "SHOW POOLS", "kept")), "it is kept open");
    run(async { assert_eq!(pooler.raw().await.value("SELECT 1").await, "1") });
    assert_eq!(pooler.log().matches("registered new auto-database: app").count(), 2);
}

#[test]
fn clients_are_greeted_and_marked_and_errors_to_them_logged() {
    let settings = "login_notify_message = You are pooled\napplication_name_add_host = 1\ndisable_pqexec = 1";
    let pooler = Pooler::start(settings);
    run(async {
        let notices = pooler.dir.join("notices");
        let psql = cluster().program("psql");
        let status = std::process::Command::new(psql.get_program())
            .args(["-X", "-h", "127.0.0.1", "-p", &pooler.port.to_string(), "-U", USER, "-d", "app"])
            .args(["-c", "SELECT 1"])
            .env("PGPASSWORD", PASSWORD)
            .env("PGAPPNAME", "marked")
            .stdout(std::process::Stdio::null())
            .stderr(std::fs::File::create(&notices).unwrap())
            .spawn()
            .unwrap()
            .ended();
        assert!(!status.success());
        let said = std::fs::read_to_string(notices).unwrap();
        assert!(said.starts_with("NOTICE:  You are pooled\n"), "{said}");
        assert!(said.contains("PQexec disallowed"), "{said}");
        assert!(pooler.log().contains("pooler error: PQexec disallowed"));
        let client = pooler.connect("app").await;
        let name: String = client.query_one("SHOW application_name", &[]).await.unwrap().get(0);
        assert!(name.starts_with("app - 127.0.0.1:"), "{name}");
    });
    let pooler = Pooler::start("log_pooler_errors = 0\ndisable_pqexec = 1");
    run(async {
        let mut raw = pooler.raw().await;
        let error = raw.error("SELECT 1").await;
        assert_eq!((error.field('C').as_str(), error.field('M').as_str()), ("08P01", "PQexec disallowed"));
    });
    assert!(!pooler.log().contains("pooler error"));
}

#[test]
fn a_session_does_not_keep_an_obsolete_server_if_that_is_not_wanted() {
    let pooler = Pooler::start("pool_mode = session\nserver_fast_close = 1");
    run(async {
        let mut idle = pooler.raw().await;
        idle.rows("SELECT 1").await;
        let mut busy = pooler.raw().await;
        busy.rows("BEGIN").await;
        pooler.console("RECONNECT app").await;
        let error = idle.receive().await.unwrap();
        assert_eq!(error.field('M'), "database configuration changed");
        assert_eq!(idle.receive().await, None);
        assert_eq!(busy.value("SELECT 1").await, "1", "its transaction goes on");
        busy.send(&query("COMMIT")).await;
        busy.until_ready().await;
        assert_eq!(busy.receive().await.unwrap().field('M'), "database configuration changed");
    });
}

#[test]
fn the_log_tells_how_parameters_follow_a_client() {
    let pooler = Pooler::start("verbose = 1");
    run(async {
        let parameters = [("user", USER), ("database", "app"), ("DateStyle", "ISO")];
        let mut raw = Raw::log_in_with(pooler.port, 3 << 16, &parameters, PASSWORD).await.unwrap();
        assert_eq!(raw.value("SELECT 1").await, "1");
        assert_eq!(raw.value("SELECT 2").await, "2");
    });
    let log = pooler.log();
    let once = |what| assert_eq!(log.matches(what).count(), 1, "{what}: {log}");
    once("varcache_apply: SET DateStyle='ISO';");
    once("varcache_set_canonical: setting DateStyle to its canonical version ISO -> ISO, MDY");
}

#[test]
fn a_host_is_kept_until_it_cannot_be_reached() {
    let line = |mode| {
        let hosts = "host=unknown.invalid,127.0.0.1 dbname=app";
        format!("{mode} = {hosts} port={} load_balance_hosts={mode}\n", cluster().primary)
    };
    let pooler = Pooler::with_databases(&(line("disable") + &line("round-robin")), "");
    for (mode, failures) in [("disable", 1), ("round-robin", 2)] {
        let before = pooler.log().matches("closing because: server DNS lookup failed").count();
        run(async {
            let mut clients = Vec::new();
            for _ in 0..4 {
                let mut raw = Raw::log_in(pooler.port, mode).await;
                raw.rows("BEGIN").await;
                clients.push(raw);
            }
        });
        let after = pooler.log().matches("closing because: server DNS lookup failed").count();
        assert_eq!(after - before, failures, "{mode}");
    }
}

#[test]
fn one_refused_login_is_enough_for_all_who_wait() {
    let pooler = Pooler::with_databases(&on_primary("app", "user=app password=wrong"), "");
    run(async {
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..5 {
            let port = pooler.port;
            waiting.spawn(async move {
                let parameters = [("user", USER), ("database", "app")];
                Raw::log_in_with(port, 3 << 16, &parameters, PASSWORD).await.err().unwrap().field('M')
            });
        }
        for message in waiting.join_all().await {
            assert!(message.contains("password authentication failed for user \"app\""), "{message}");
        }
    });
    let log = pooler.log();
    assert_eq!(log.matches("server login failed: FATAL password authentication failed").count(), 1, "{log}");
    let server = log.lines().find(|line| line.contains(" S-") && line.contains("closing because")).unwrap();
    assert!(server.contains("closing because: password authentication failed for user \"app\" (age="));
}

#[test]
fn who_waits_for_a_login_waits_no_longer_than_a_query_may_take() {
    // It accepts connections and says nothing.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let databases = format!("app = host=127.0.0.1 port={}\n", silent.local_addr().unwrap().port());
    let pooler = Pooler::with_databases(&databases, "query_timeout = 1\nserver_connect_timeout = 0.5");
    run(async {
        let parameters = [("user", USER), ("database", "app")];
        let error = Raw::log_in_with(pooler.port, 3 << 16, &parameters, PASSWORD).await.err().unwrap();
        assert_eq!((error.field('C').as_str(), error.field('M').as_str()), ("57014", "query_timeout"));
    });
    assert!(pooler.log().contains("closing because: connect timeout (age="), "{}", pooler.log());
}

#[test]
fn the_server_that_was_idle_longest_makes_room() {
    let databases = on_primary("app", "max_db_connections=2") + &on_primary("app2", "dbname=app");
    let pooler = Pooler::with_databases(&databases, "max_user_connections = 2");
    let log_in = async |user, password, database| {
        let parameters = [("user", user), ("database", database)];
        Raw::log_in_with(pooler.port, 3 << 16, &parameters, password).await.unwrap()
    };
    run(async {
        // Two users have an idle server each in one database, which a third user needs.
        log_in(USER, PASSWORD, "app2").await.rows("SELECT 1").await;
        log_in("other", "other", "app").await.rows("SELECT 1").await;
        log_in(USER, PASSWORD, "app").await.rows("SELECT 1").await;
        let mut trusted = log_in("md5user", "md5 secret", "app").await;
        assert_eq!(trusted.value("SELECT current_user").await, "md5user");
    });
    let log = pooler.log();
    let evicted: Vec<&str> = log.lines().filter(|line| line.contains("closing because: evicted")).collect();
    assert_eq!(evicted.len(), 1, "{log}");
    assert!(evicted[0].contains("app/other@"), "{log}");
}

#[test]
fn a_pool_made_smaller_lets_servers_go() {
    let pooler = Pooler::start("");
    run(async {
        let mut clients = [pooler.raw().await, pooler.raw().await, pooler.raw().await];
        for client in &mut clients {
            client.rows("BEGIN").await;
        }
        for client in &mut clients {
            client.rows("COMMIT").await;
        }
        assert_eq!(pooler.figure("SHOW POOLS", "app", "sv_idle").await, 3);
        pooler.console("SET default_pool_size = 1").await;
    });
    eventually("one server", || run(pooler.figure("SHOW POOLS", "app", "sv_idle")) == 1);
    assert_eq!(pooler.log().matches("closing because: too many servers in the pool").count(), 2);
}

#[test]
fn servers_take_turns_if_they_are_to() {
    let pooler = Pooler::start("workers = 1\nserver_round_robin = 1");
    run(async {
        let mut clients = [pooler.raw().await, pooler.raw().await];
        for statement in ["BEGIN", "COMMIT"] {
            for client in &mut clients {
                client.rows(statement).await;
            }
        }
        let mut backends = Vec::new();
        for _ in 0..4 {
            backends.push(clients[0].value("SELECT pg_backend_pid()").await);
        }
        assert!(backends[0] != backends[1] && backends[..2] == backends[2..], "{backends:?}");
    });
}
