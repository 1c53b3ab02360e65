//! The console: PgBouncer's columns and types, settings, and who may do what.

use crate::support::raw::{Raw, query};
use crate::support::{Ends, PASSWORD, Pooler, USER, cluster, eventually, run};

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
        assert_eq!((&*columns[12].0, &*columns[22].0), ("avg_server_assignment_count", "avg_bind_count"));
        let sums = raw.rows("SHOW TOTALS").await;
        assert!(sums.iter().any(|row| row[0] == "total_ps_bind_count"), "{sums:?}");
        let names: Vec<_> =
            raw.rows("SHOW DATABASES").await.into_iter().map(|mut row| row.remove(0)).collect();
        assert_eq!(names, ["app", "pgbouncer"]);
        let (columns, rows) = raw.table("SHOW FDS").await;
        assert_eq!((columns.len(), &columns[14], rows.len()), (15, &("scram_server_key".to_owned(), 17), 0));
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
        let mut help = raw.tags(&query("SHOW HELP")).await;
        assert_eq!(help, "NCZ");
        help = raw.tags(&query("SHOW")).await;
        assert_eq!(help, "NCZ");
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
        for command in [
            "PAUSE",
            "PAUSE app",
            "RESUME",
            "RELOAD",
            "SET max_client_conn = 1",
            "SET admin_users = other",
            "KILL",
            "KILL_CLIENT 1",
            "SHUTDOWN",
            "SUSPEND",
            "RECONNECT",
            "WAIT_CLOSE",
            "DISABLE app",
            "DISABLE",
            "ENABLE app",
            "SHOW FDS",
        ] {
            let error = stats.error(command).await;
            assert_eq!(
                (error.field('C').as_str(), error.field('M').as_str()),
                ("42501", "admin access needed"),
                "{command}"
            );
        }
        stats.rows("SET extra_float_digits = 3").await;
        stats.rows("SHOW CONFIG").await;
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
            .ended();
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
        for (command, detail) in [
            ("SET default_pool_size = x", "invalid value \"x\" for default_pool_size"),
            ("SET default_pool_size = DEFAULT", "invalid value \"DEFAULT\" for default_pool_size"),
            ("SET defualt_pool_size = 1", "unknown setting defualt_pool_size"),
            ("SET listen_port = 1", "listen_port cannot be changed while running"),
        ] {
            let error = console.error(command).await;
            assert_eq!(error.field('M'), "SET failed");
            assert!(error.field('D').starts_with(detail), "{error:?}");
        }
        for command in ["SELECT 2", "SET x", "SHOW x", "RELOAD x", "shutdown now"] {
            let message = format!("invalid command '{command}', use SHOW HELP;");
            assert_eq!(console.error(command).await.field('M'), message);
        }
        // PgBouncer's answer, in each way to write it.
        for command in
            ["SET pool_mode = session", "set pool_mode to 'session'", "SET \"pool_mode\"=\"session\";"]
        {
            console.send(&query(command)).await;
            assert_eq!(console.until_ready().await[0].text(), "SET pool_mode=session");
        }
        assert!(!pooler.log().contains("DEBUG"));
        console.rows("SET verbose = 2").await;
        console.rows("SHOW STATE").await;
        eventually("details are logged", || pooler.log().contains("DEBUG"));
        assert_eq!(
            console.error("SET defualt_pool_size = 1").await.field('H'),
            "Did you mean default_pool_size?"
        );
    });
}

#[test]
fn application_names_are_those_of_now() {
    let pooler = Pooler::start("");
    run(async {
        let name = async |show: &str, database: &str| {
            let rows = pooler.console(show).await;
            rows.into_iter().find(|row| row[2] == database).map(|row| row[18].clone())
        };
        let parameters = [("user", USER), ("database", "app"), ("application_name", "first")];
        let mut raw = Raw::log_in_with(pooler.port, 3 << 16, &parameters, PASSWORD).await.unwrap();
        assert_eq!(name("SHOW SERVERS", "app").await.unwrap(), "", "nobody has used it yet");
        raw.rows("SELECT 1").await;
        for expected in ["first", "second"] {
            assert_eq!(name("SHOW CLIENTS", "app").await.unwrap(), expected);
            assert_eq!(name("SHOW SERVERS", "app").await.unwrap(), expected);
            raw.rows("SET application_name = 'second'").await;
        }
        assert_eq!(name("SET application_name = 'mine'; SHOW CLIENTS", "pgbouncer").await.unwrap(), "mine");
    });
}
