//! The console: PgBouncer's columns, types and commands.

use crate::support::raw::{Raw, message, query};
use crate::support::{PASSWORD, Pooler, USER, cluster, eventually, run};

const TEXT: u32 = 25;
const INT: u32 = 23;
const NUMERIC: u32 = 1700;

#[test]
fn show_has_pgbouncers_columns_and_types() {
    let pooler = Pooler::start("");
    run(async {
        pooler.raw().await.value("SELECT 1").await;
        let mut raw = Raw::log_in(pooler.port, "pgbouncer").await;
        for (show, columns) in [
            ("VERSION", vec![("version", TEXT)]),
            ("STATE", vec![("key", TEXT), ("value", TEXT)]),
            ("LISTS", vec![("list", TEXT), ("items", INT)]),
            ("CONFIG", vec![("key", TEXT), ("value", TEXT), ("default", TEXT), ("changeable", TEXT)]),
            (
                "POOLS",
                vec![
                    ("database", TEXT),
                    ("user", TEXT),
                    ("cl_active", INT),
                    ("cl_waiting", INT),
                    ("cl_active_cancel_req", INT),
                    ("cl_waiting_cancel_req", INT),
                    ("sv_active", INT),
                    ("sv_active_cancel", INT),
                    ("sv_being_canceled", INT),
                    ("sv_idle", INT),
                    ("sv_used", INT),
                    ("sv_tested", INT),
                    ("sv_login", INT),
                    ("maxwait", INT),
                    ("maxwait_us", INT),
                    ("pool_mode", TEXT),
                    ("load_balance_hosts", TEXT),
                ],
            ),
            (
                "DATABASES",
                vec![
                    ("name", TEXT),
                    ("host", TEXT),
                    ("port", INT),
                    ("database", TEXT),
                    ("force_user", TEXT),
                    ("pool_size", INT),
                    ("min_pool_size", INT),
                    ("reserve_pool_size", INT),
                    ("server_lifetime", INT),
                    ("pool_mode", TEXT),
                    ("load_balance_hosts", TEXT),
                    ("max_connections", INT),
                    ("current_connections", INT),
                    ("max_client_connections", INT),
                    ("current_client_connections", INT),
                    ("paused", INT),
                    ("disabled", INT),
                ],
            ),
            (
                "USERS",
                vec![
                    ("name", TEXT),
                    ("pool_size", TEXT),
                    ("reserve_pool_size", TEXT),
                    ("pool_mode", TEXT),
                    ("max_user_connections", INT),
                    ("current_connections", INT),
                    ("max_user_client_connections", INT),
                    ("current_client_connections", INT),
                ],
            ),
        ] {
            let (got, rows) = raw.table(&format!("SHOW {show}")).await;
            let expected: Vec<_> = columns.into_iter().map(|(name, oid)| (name.to_owned(), oid)).collect();
            assert_eq!(got, expected, "SHOW {show}");
            assert!(!rows.is_empty(), "SHOW {show}");
        }
        for show in ["CLIENTS", "SERVERS"] {
            let (columns, rows) = raw.table(&format!("SHOW {show}")).await;
            let names: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(
                names.join(" "),
                "type user database replication state addr port local_addr local_port connect_time request_time wait wait_us \
                 close_needed ptr link remote_pid tls application_name prepared_statements id"
            );
            assert!(!rows.is_empty());
        }
        let (columns, _) = raw.table("SHOW STATS").await;
        assert_eq!(columns.len(), 25);
        assert!(columns[1..].iter().all(|(_, oid)| *oid == NUMERIC));
        assert_eq!(columns[1].0, "total_server_assignment_count");
        for show in [
            "STATS_TOTALS",
            "STATS_AVERAGES",
            "TOTALS",
            "SOCKETS",
            "ACTIVE_SOCKETS",
            "MEM",
            "HOSTS",
            "PEERS",
            "DNS_HOSTS",
        ] {
            assert!(!raw.table(&format!("show {show};")).await.0.is_empty(), "{show}");
        }
        assert_eq!(raw.tags(&query("SHOW HELP")).await, "NCZ");
        assert_eq!(raw.value("SHOW default_pool_size").await, "20");
    });
}

#[test]
fn counters_count() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        for sql in ["SELECT 1", "BEGIN", "SELECT 2", "COMMIT", ""] {
            raw.rows(sql).await;
        }
        for (column, expected) in
            [("total_query_count", 5), ("total_xact_count", 3), ("total_client_login_count", 1)]
        {
            assert_eq!(pooler.figure("SHOW STATS", "app", column).await, expected, "{column}");
        }
        assert!(pooler.figure("SHOW STATS", "app", "total_received").await > 50);
        assert!(pooler.figure("SHOW STATS", "pgbouncer", "total_query_count").await >= 5);
    });
}

#[test]
fn only_admins_change_anything() {
    let pooler = Pooler::start("");
    run(async {
        let parameters = [("user", "other"), ("database", "pgbouncer")];
        let mut stats = Raw::log_in_with(pooler.port, 3 << 16, &parameters, "other").await.unwrap();
        stats.rows("SHOW POOLS").await;
        for command in
            ["PAUSE", "RELOAD", "SET max_client_conn = 1", "KILL", "SHUTDOWN", "RECONNECT", "DISABLE app"]
        {
            assert_eq!(stats.error(command).await.field('C'), "42501", "{command}");
        }
        let parameters = [("user", "plainuser"), ("database", "pgbouncer")];
        let error = Raw::log_in_with(pooler.port, 3 << 16, &parameters, "plain secret").await.err().unwrap();
        assert_eq!(error.field('C'), "42501");
        // Whoever runs the process needs no password on the Unix socket.
        let socket = cluster()
            .program("psql")
            .args([
                "-XAt",
                "-h",
                pooler.dir.to_str().unwrap(),
                "-p",
                &pooler.port.to_string(),
                "-U",
                "pgbouncer",
                "-c",
                "SHOW VERSION",
            ])
            .arg("pgbouncer")
            .output()
            .unwrap();
        let own = nix::unistd::geteuid() == crate::support::unprivileged_user().uid
            || !nix::unistd::geteuid().is_root();
        assert_eq!(socket.status.success(), own, "{socket:?}");
    });
}

#[test]
fn set_takes_effect_at_once() {
    let pooler = Pooler::start("default_pool_size = 1\nquery_wait_timeout = 1");
    run(async {
        let (mut a, mut b) = (pooler.raw().await, pooler.raw().await);
        a.rows("BEGIN").await;
        pooler.console("SET default_pool_size = 2").await;
        assert_eq!(b.value("SELECT 1").await, "1");
        let mut console = Raw::log_in(pooler.port, "pgbouncer").await;
        for (command, message) in [
            ("SET default_pool_size = x", "invalid value \"x\" for default_pool_size"),
            ("SET defualt_pool_size = 1", "unknown setting defualt_pool_size"),
            ("SET listen_port = 1", "listen_port cannot be changed while running"),
            ("SELECT 1", "invalid command 'SELECT 1'"),
        ] {
            let error = console.error(command).await;
            assert!(error.field('M').starts_with(message), "{error:?}");
        }
        assert_eq!(
            console.error("SET defualt_pool_size = 1").await.field('H'),
            "Did you mean default_pool_size?"
        );
        // What drivers say first.
        console.rows("SET extra_float_digits = 3").await;
    });
}

#[test]
fn pause_and_resume() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows("BEGIN").await;
        let mut console = Raw::log_in(pooler.port, "pgbouncer").await;
        console.send(&query("PAUSE")).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        // It waits for the transaction.
        assert_eq!(pooler.figure("SHOW POOLS", "app", "sv_active").await, 1);
        raw.rows("COMMIT").await;
        assert_eq!(console.until_ready().await[0].tag, 'C');
        assert_eq!(pooler.console("SHOW SERVERS").await.len(), 0);
        assert_eq!(pooler.console("SHOW STATE").await[1], ["paused", "yes"]);
        raw.send(&query("SELECT 'at last'")).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert_eq!(pooler.figure("SHOW POOLS", "app", "cl_waiting").await, 1);
        console.rows("RESUME").await;
        assert!(raw.until_ready().await.iter().any(|m| m.tag == 'D'));
        assert_eq!(console.error("RESUME").await.field('M'), "pooler is not paused/suspended");
        console.rows("PAUSE app").await;
        console.rows("RESUME app").await;
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
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert!(tokio::net::TcpStream::connect(("127.0.0.1", pooler.port)).await.is_err());
        assert_eq!(raw.value("SELECT 1").await, "1");
        raw.rows("COMMIT").await;
        raw.send(&message(b'X', b"")).await;
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
