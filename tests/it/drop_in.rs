//! What PgBouncer's users rely on without knowing: configurations with small mistakes in them, which work there and must work
//! here.

use std::collections::BTreeSet;

use crate::support::raw::{Raw, query};
use crate::support::{PASSWORD, Pooler, USER, cluster, run};

fn app(options: &str) -> String {
    format!("app = host=127.0.0.1 port={} {options}\n", cluster().primary)
}

async fn log_in(pooler: &Pooler, user: &str, password: &str) -> Raw {
    let parameters = [("user", user), ("database", "app")];
    Raw::log_in_with(pooler.port, 3 << 16, &parameters, password).await.unwrap()
}

#[test]
fn a_connect_query_that_fails_is_ignored() {
    for (sql, words) in [
        ("SELECT nonsense", "connect_query failed: ERROR"),
        ("SELECT 1; SET work_mem = ''77kB''; SELECT 1/0", "connect_query failed: ERROR"),
        ("BEGIN", "connect_query leaves a transaction open"),
        ("BEGIN; SELECT 1/0", "connect_query leaves a transaction open"),
        ("CREATE TEMP TABLE t (a int); COPY t FROM STDIN", "connect_query failed: ERROR"),
        ("COPY pg_class TO STDOUT", ""),
        ("DO ''BEGIN RAISE NOTICE $$hello$$; END''; SELECT * FROM generate_series(1, 100000)", ""),
    ] {
        let pooler = Pooler::with_databases(&app(&format!("connect_query='{sql}'")), "");
        run(async {
            let mut raw = pooler.raw().await;
            raw.send(&query("SELECT 1")).await;
            let messages = raw.until_ready().await;
            assert_eq!(messages.iter().map(|m| m.tag).collect::<String>(), "TDCZ", "{sql}");
            assert_eq!(messages[3].body, b"I", "{sql}");
        });
        let log = pooler.log();
        assert!(log.contains(words), "{sql}: {log}");
        assert_eq!(words.is_empty(), !log.contains("WARNING S-"), "{sql}: {log}");
    }
}

#[test]
fn blanks_separate_names() {
    let pooler = Pooler::start(&format!(
        "ignore_startup_parameters = options  my_setting\textra_float_digits,your_setting\n\
         admin_users = somebody {USER}\nstats_users = somebody,nobody other trusted\n"
    ));
    run(async {
        for name in ["my_setting", "extra_float_digits", "your_setting"] {
            let parameters = [("user", USER), ("database", "app"), (name, "1")];
            Raw::log_in_with(pooler.port, 3 << 16, &parameters, PASSWORD).await.unwrap();
        }
        let parameters = [("user", USER), ("database", "app"), ("my", "1")];
        assert!(Raw::log_in_with(pooler.port, 3 << 16, &parameters, PASSWORD).await.is_err());
        assert!(pooler.console("RELOAD").await.is_empty());
        let parameters = [("user", "other"), ("database", "pgbouncer")];
        let mut stats = Raw::log_in_with(pooler.port, 3 << 16, &parameters, "other").await.unwrap();
        assert!(!stats.rows("SHOW POOLS").await.is_empty());
        assert_eq!(stats.error("RELOAD").await.field('C'), "42501");
        let parameters = [("user", "md5user"), ("database", "pgbouncer")];
        assert!(Raw::log_in_with(pooler.port, 3 << 16, &parameters, "md5 secret").await.is_err());
    });
}

#[test]
fn a_line_of_auth_file_that_is_none_costs_no_other() {
    let pooler = Pooler::prepared(|dir| {
        let users = format!(
            "\u{feff}\"{USER}\" \"{PASSWORD}\"  \r\n# note\r\nmd5user md5\r\n\"other\" \"other\"\r\n"
        );
        std::fs::write(dir.join("userlist.txt"), users).unwrap();
        (app(""), String::new())
    });
    run(async {
        let warning = |line: &str| format!("userlist.txt:{line}: auth_file: expected");
        for line in ["2:1", "3:1"] {
            assert!(pooler.log().contains(&warning(line)), "{}", pooler.log());
        }
        assert!(!pooler.log().contains("note") && !pooler.log().contains("md5"), "a line may be a secret");
        assert_eq!(log_in(&pooler, USER, PASSWORD).await.value("SELECT 1").await, "1");
        assert_eq!(log_in(&pooler, "other", "other").await.value("SELECT 1").await, "1");
        // The same with RELOAD.
        let users = format!(
            "\"{USER}\" \"{PASSWORD}\"\n\n\"plainuser\" \"plain secret\"\n{}",
            "<<<<<<<\n".repeat(30)
        );
        std::fs::write(pooler.dir.join("userlist.txt"), users).unwrap();
        pooler.console("RELOAD").await;
        assert_eq!(log_in(&pooler, "plainuser", "plain secret").await.value("SELECT 1").await, "1");
        let parameters = [("user", "other"), ("database", "app")];
        assert!(Raw::log_in_with(pooler.port, 3 << 16, &parameters, "other").await.is_err());
        assert!(
            pooler.log().contains(&warning("4:1")) && pooler.log().contains("20 more lines are left out")
        );
        assert!(!pooler.log().contains(&warning("20:1")));
    });
}

#[test]
fn a_server_that_fails_its_check_makes_place_for_another() {
    let settings = "server_check_delay = 0\ndefault_pool_size = 2\n\
                    server_check_query = SELECT 1 / (current_setting('work_mem') <> '77kB')::int\n";
    let pooler = Pooler::start(settings);
    let failed = || pooler.log().matches("closing because: server_check_query failed").count();
    run(async {
        let mut raw = pooler.raw().await;
        // It does not follow the client, and stays behind.
        let spoil = "SET work_mem = '77kB'; SELECT pg_backend_pid()";
        let spoilt = raw.value(spoil).await;
        assert_ne!(raw.value("SELECT pg_backend_pid()").await, spoilt);
        assert_eq!(failed(), 1);
        // Another client, for which a parameter has to be set as well.
        let spoilt = raw.value(spoil).await;
        let parameters = [("user", USER), ("database", "app"), ("TimeZone", "Asia/Tokyo")];
        let mut other = Raw::log_in_with(pooler.port, 3 << 16, &parameters, PASSWORD).await.unwrap();
        assert_ne!(other.value("SELECT pg_backend_pid()").await, spoilt);
        assert_eq!(other.value("SHOW TimeZone").await, "Asia/Tokyo");
        assert_eq!(failed(), 2);
        // A parameter that no server takes is no failed check.
        raw.value("SELECT 1").await;
        let parameters = [("user", USER), ("database", "app"), ("TimeZone", "Nowhere")];
        if let Ok(mut wrong) = Raw::log_in_with(pooler.port, 3 << 16, &parameters, PASSWORD).await {
            assert!(wrong.error("SELECT 1").await.field('M').contains("invalid"));
        }
        assert_eq!(failed(), 2);
    });
}

#[test]
fn a_check_that_always_fails_closes_few_servers() {
    for (check, words) in
        [("SELECT nonsense", "server_check_query failed"), ("BEGIN", "leaves a transaction open")]
    {
        let pooler = Pooler::start(&format!(
            "server_check_delay = 0\nserver_check_query = {check}\ndefault_pool_size = 6"
        ));
        run(async {
            let mut clients = Vec::new();
            for _ in 0..6 {
                let mut raw = pooler.raw().await;
                raw.rows("BEGIN").await;
                clients.push(raw);
            }
            for raw in &mut clients {
                raw.rows("COMMIT").await;
            }
            let mut raw = pooler.raw().await;
            raw.send(&query("SELECT 1")).await;
            let messages = raw.until_ready().await;
            assert_eq!(messages.iter().map(|m| m.tag).collect::<String>(), "TDCZ", "{check}");
            assert_eq!(messages[3].body, b"I", "{check}");
            assert_eq!(pooler.log().matches(words).count(), 3, "{check}");
            for n in 0..10 {
                assert_eq!(raw.value(&format!("SELECT {n}")).await, n.to_string());
            }
        });
    }
}

#[test]
fn a_password_without_a_user_is_ignored() {
    let pooler = Pooler::with_databases(&app("password=\"wrong\""), "");
    assert_eq!(run(async { pooler.raw().await.value("SELECT current_user").await }), USER);
    let log = pooler.log();
    assert!(log.contains("pgweir.ini:2:1: database app: password has no effect without user"), "{log}");
    assert!(!log.contains("wrong"), "{log}");
}

#[test]
fn a_lifetime_of_zero_is_one_use() {
    let backends = |pooler: &Pooler| {
        run(async {
            let mut raw = pooler.raw().await;
            let mut backends = BTreeSet::new();
            for _ in 0..5 {
                let backend = raw.value("SELECT pg_backend_pid()").await;
                raw.rows("BEGIN").await;
                let within = raw.value("SELECT pg_backend_pid()").await;
                assert_eq!(raw.value("SELECT pg_backend_pid()").await, within);
                raw.rows("COMMIT").await;
                backends.extend([backend, within]);
            }
            backends.len()
        })
    };
    let pooler = Pooler::start("server_lifetime = 0\nserver_idle_timeout = 0\ndefault_pool_size = 2");
    assert_eq!(backends(&pooler), 10);
    assert_eq!(run(pooler.figure("SHOW POOLS", "app", "sv_idle")), 0);
    // With RELOAD, too.
    pooler.rewrite(&app(""), "");
    run(pooler.console("RELOAD"));
    assert_eq!(backends(&pooler), 1);
    pooler.rewrite(&app(""), "server_lifetime = 0");
    run(pooler.console("RELOAD"));
    crate::support::eventually("the one that was used goes", || {
        run(pooler.figure("SHOW POOLS", "app", "sv_idle")) == 0
    });
    assert_eq!(backends(&pooler), 10);
    // A session is one use.
    let pooler = Pooler::start("pool_mode = session\nserver_lifetime = 0\nserver_fast_close = 1");
    assert_eq!(backends(&pooler), 1);
    assert_eq!(backends(&pooler), 1);
    crate::support::eventually("both servers are closed", || {
        pooler.log().matches("closing because: server_lifetime").count() == 2
    });
    // In a database's line it says that this has none of its own.
    assert_eq!(backends(&Pooler::with_databases(&app("server_lifetime=0"), "")), 1);
    // What was opened and not used may wait.
    let user = format!("user={USER} password='{PASSWORD}' min_pool_size=2");
    let pooler = Pooler::with_databases(&app(&user), "server_lifetime = 0");
    crate::support::eventually("two of them", || run(pooler.figure("SHOW POOLS", "app", "sv_idle")) == 2);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let log = pooler.log();
    let closed = log.lines().filter(|line| line.contains(" S-") && line.contains("closing because"));
    assert_eq!(closed.count(), 0, "{log}");
}

#[test]
fn new_clients_get_new_defaults_after_reconnect() {
    let role = "drop_in_altered";
    let admin = |sql: &str| cluster().admin(cluster().primary, sql);
    admin(&format!("CREATE ROLE {role} LOGIN PASSWORD 'altered'"));
    admin(&format!("ALTER ROLE {role} SET timezone = 'Asia/Tokyo'"));
    let pooler = Pooler::prepared(|dir| {
        let users = format!("\"{USER}\" \"{PASSWORD}\"\n\"{role}\" \"altered\"\n");
        std::fs::write(dir.join("userlist.txt"), users).unwrap();
        (app(""), "default_pool_size = 2\n".into())
    });
    run(async {
        let mut old = log_in(&pooler, role, "altered").await;
        assert_eq!(old.parameter("TimeZone"), "Asia/Tokyo");
        assert_eq!(old.value("SHOW timezone").await, "Asia/Tokyo");
        for zone in ["Europe/Paris", "America/Lima"] {
            admin(&format!("ALTER ROLE {role} SET timezone = '{zone}'"));
            pooler.console("RECONNECT app").await;
            let mut new = log_in(&pooler, role, "altered").await;
            assert_eq!(new.parameter("TimeZone"), zone);
            assert_eq!(new.value("SHOW timezone").await, zone);
            // Who has been told something else keeps it, on the same server.
            assert_eq!(old.value("SHOW timezone").await, "Asia/Tokyo");
            assert_eq!(new.value("SHOW timezone").await, zone);
        }
        // A server that is opened meanwhile says what is the default now.
        admin(&format!("ALTER ROLE {role} SET timezone = 'Africa/Cairo'"));
        let mut others = [log_in(&pooler, role, "altered").await, log_in(&pooler, role, "altered").await];
        for other in &mut others {
            other.rows("BEGIN").await;
        }
        let mut new = log_in(&pooler, role, "altered").await;
        assert_eq!(new.parameter("TimeZone"), "Africa/Cairo");
        for other in &mut others {
            other.rows("COMMIT").await;
        }
        assert_eq!(new.value("SHOW timezone").await, "Africa/Cairo");
    });
    drop(pooler);
    admin(&format!("DROP ROLE {role}"));
}
