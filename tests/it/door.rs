//! What can be done to the pooler by those who have not proved who they are.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use crate::support::raw::{Message, Raw, startup};
use crate::support::{PASSWORD, Pooler, USER, cluster, eventually, run, run_for, unprivileged};

const V3_0: u32 = 3 << 16;

/// So many connections that have sent this and go no further.
fn silent(pooler: &Pooler, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = TcpStream::connect(("127.0.0.1", pooler.port)).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    (0..count).map(open).collect()
}

async fn login_clients(pooler: &Pooler) -> i64 {
    pooler.figure("SHOW LISTS", "login_clients", "items").await
}

#[test]
fn silent_connections_make_room_for_others() {
    let pooler = Pooler::start("max_client_conn = 5\nmax_login_clients = 20\ntcp_defer_accept = 0");
    let first = startup(V3_0, &[("user", USER), ("database", "app")]);
    let mut held = silent(&pooler, 30, b"");
    held.extend(silent(&pooler, 30, &first));
    run(async {
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(pooler.raw().await);
        }
        assert_eq!(clients[4].value("SELECT 1").await, "1");
        assert!(login_clients(&pooler).await <= 20);
        // Clients are not counted among those, and are not closed for them.
        held.extend(silent(&pooler, 100, &first));
        eventually("they come and go", || pooler.log().matches("silent before login").count() > 100);
        for client in &mut clients {
            assert_eq!(client.value("SELECT 1").await, "1");
        }
        // By the Unix socket it is possible at once.
        let parameters = format!(
            "host={} port={} user={USER} password='{PASSWORD}' dbname=pgbouncer",
            pooler.dir.display(),
            pooler.port
        );
        let (client, connection) = tokio_postgres::connect(&parameters, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        assert!(!client.simple_query("SHOW VERSION").await.unwrap().is_empty());
    });
}

#[test]
fn those_who_are_asked_to_leave_are_told_why() {
    let pooler =
        Pooler::start("max_login_clients = 1\nmax_login_clients_per_address = 1\ntcp_defer_accept = 0");
    run(async {
        // One has knocked, to see whether the pooler is up.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let mut raw = Raw::connect(pooler.port).await;
        raw.send(&startup(V3_0, &[("user", USER), ("database", "app")])).await;
        assert_eq!(raw.receive().await.unwrap().tag, 'R');
        // That one has been busy so far.
        let error = Raw::connect(pooler.port).await.receive().await.unwrap();
        assert_eq!(error.field('M'), "too many connections from this address that have not logged in");
        assert_eq!(error.field('C'), "53300");
        tokio::time::sleep(Duration::from_millis(1100)).await;
        pooler.raw().await;
        let error = raw.receive().await.unwrap();
        assert_eq!(error.field('M'), "too many connections that have not logged in");
        assert_eq!(error.field('C'), "53300");
        assert_eq!(raw.receive().await, None);
    });
}

#[test]
fn silent_connections_leave_files_for_others() {
    let pooler = Pooler::start("tcp_defer_accept = 0");
    let limit = ["--nofile=200:200", "--pid", &pooler.pid().to_string()].map(str::to_owned);
    assert!(unprivileged("prlimit").args(limit).status().unwrap().success());
    let _held = silent(&pooler, 400, b"");
    run(async {
        assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
        assert!(login_clients(&pooler).await <= 50);
    });
}

#[test]
fn a_crowd_that_comes_at_once_gets_in() {
    let pooler = Pooler::start("max_client_conn = 400\nmax_login_clients = 10");
    run_for(Duration::from_secs(60), async {
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let port = pooler.port;
            all.spawn(async move { Raw::log_in(port, "app").await });
        }
        let clients = all.join_all().await;
        assert_eq!(clients.len(), 300);
    });
    assert!(!pooler.log().contains("silent before login"), "{}", pooler.log());
}

fn lookups(lookup: &str, port: u16, settings: &str) -> Pooler {
    let password = format!("{lookup} secret");
    cluster().admin(
        port,
        &format!("DROP ROLE IF EXISTS {lookup}; CREATE ROLE {lookup} LOGIN SUPERUSER PASSWORD '{password}'"),
    );
    Pooler::prepared(|dir| {
        std::fs::write(
            dir.join("userlist.txt"),
            format!("\"{lookup}\" \"{password}\"\n\"{USER}\" \"{PASSWORD}\"\n"),
        )
        .unwrap();
        (format!("* = host=127.0.0.1 port={port}\n"), format!("auth_user = {lookup}\n{settings}"))
    })
}

async fn log_in(pooler: &Pooler, user: &str, database: &str, password: &str) -> Result<Raw, Message> {
    Raw::log_in_with(pooler.port, V3_0, &[("user", user), ("database", database)], password).await
}

async fn databases(pooler: &Pooler) -> Vec<String> {
    pooler.console("SHOW DATABASES").await.into_iter().map(|row| row[0].clone()).collect()
}

/// However many names somebody thinks of, nothing is made of them.
#[test]
fn names_cost_nothing_before_the_proof() {
    let pooler = lookups("lookup_names", cluster().primary, "");
    run(async {
        for n in 0..30 {
            let error =
                log_in(&pooler, &format!("nobody_{n}"), &format!("nothing_{n}"), "x").await.err().unwrap();
            assert_eq!(error.field('C'), "3D000", "{error:?}");
            let error = log_in(&pooler, &format!("nobody_{n}"), "app", "x").await.err().unwrap();
            assert_eq!(error.field('C'), "28P01", "{error:?}");
        }
        for name in ["x".repeat(64), "y".repeat(9000)] {
            let error = log_in(&pooler, USER, &name, PASSWORD).await.err().unwrap();
            assert_eq!((error.field('S').as_str(), error.field('C').as_str()), ("FATAL", "3D000"));
            assert_eq!(error.field('M'), format!("database \"{}…\" does not exist", &name[..63]));
            let error = log_in(&pooler, &name, "app", PASSWORD).await.err().unwrap();
            assert_eq!(error.field('C'), "28000");
            assert_eq!(error.field('M'), format!("role \"{}…\" does not exist", &name[..63]));
        }
        let mut known = databases(&pooler).await;
        known.sort();
        assert_eq!(known, ["app", "pgbouncer", "postgres"]);
        assert!(pooler.console("SHOW USERS").await.iter().all(|row| !row[0].starts_with("nobody")));
        // Somebody who knows a password gets in, and what was asked for is there.
        let mut raw = log_in(&pooler, "lookup_names", "app", "lookup_names secret").await.unwrap();
        assert_eq!(raw.value("SELECT current_database()").await, "app");
        cluster().admin(
            cluster().primary,
            "DROP ROLE IF EXISTS found_by_name; CREATE ROLE found_by_name LOGIN PASSWORD 'x'",
        );
        let mut raw = log_in(&pooler, "found_by_name", "template1", "x").await.unwrap();
        assert_eq!(raw.value("SELECT current_database()").await, "template1");
        // The server says it to those whom it knows.
        let error = log_in(&pooler, USER, "nothing_else", PASSWORD).await.err().unwrap();
        assert_eq!(error.field('C'), "3D000");
    });
    let log = pooler.log();
    assert!(log.lines().all(|line| line.len() < 600), "{log}");
    // One for each database that there is, and those of the clients that got in.
    assert!(log.matches("new connection to server").count() <= 6, "{log}");
}

#[test]
fn a_parameter_that_is_too_long_is_shortened_where_it_is_shown() {
    let pooler = Pooler::start("");
    run(async {
        for parameter in [("replication", &*"r".repeat(9000)), (&*"p".repeat(9000), "x")] {
            let parameters = [("user", USER), ("database", "app"), parameter];
            let error = Raw::log_in_with(pooler.port, V3_0, &parameters, PASSWORD).await.err().unwrap();
            assert!(error.body.len() < 500, "{error:?}");
        }
    });
    assert!(pooler.log().lines().all(|line| line.len() < 600), "{}", pooler.log());
}

/// Where the one who looks others up may not connect to `postgres`, one name after the other is tried, and forgotten.
#[test]
fn names_without_a_way_to_ask_for_databases() {
    let rules = "local all all trust\nhost postgres all 127.0.0.1/32 reject\nhost all all 127.0.0.1/32 scram-sha-256\n";
    let port = cluster().start_another("no-maintenance", "", rules);
    cluster().admin(port, "CREATE ROLE found LOGIN PASSWORD 'x'");
    cluster().admin(port, "CREATE DATABASE app");
    let pooler = lookups("lookup_elsewhere", port, "server_login_retry = 1");
    run(async {
        let mut raw = log_in(&pooler, "found", "app", "x").await.unwrap();
        assert_eq!(raw.value("SELECT current_database()").await, "app");
        for n in 0..5 {
            let error = log_in(&pooler, "found", &format!("nothing_{n}"), "x").await.err().unwrap();
            assert_eq!(error.field('C'), "3D000", "{error:?}");
        }
        let mut names = databases(&pooler).await;
        for _ in 0..100 {
            names = databases(&pooler).await;
            if !names.iter().any(|name| name.starts_with("nothing")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{names:?}");
    });
}
