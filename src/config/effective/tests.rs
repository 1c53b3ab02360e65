use std::path::Path;

use super::super::value::Value;
use super::super::{build::build, ini};
use super::*;

/// A configuration with one database and one user's line, each without a key unless given.
fn config(global: &str, database: &str, user: &str) -> Config {
    let text = format!("[databases]\napp = {database}\n[users]\nme = {user}\n[pgbouncer]\n{global}\n");
    let items = ini::parse(&text, Path::new("x.ini")).unwrap();
    build(items).unwrap_or_else(|error| panic!("{error}\n{text}")).config
}

fn pool(config: &Config, user: &str) -> PoolSettings {
    PoolSettings::of(config, "app", &config.databases["app"], user)
}

fn timeouts(config: &Config, pool_user: &str, client: &str) -> Timeouts {
    Timeouts::of(config, &config.databases["app"], pool_user, client)
}

/// What is in force under the setting's name when the global setting alone is given, then the database's line as well, then the
/// user's, too.
#[test]
fn the_user_goes_before_the_database_and_that_before_the_rest() {
    type Shown = fn(&PoolSettings) -> String;
    let cases: [(&str, &str, &str, Shown, [&str; 3]); 14] = [
        (
            "pool_mode = transaction",
            "pool_mode=statement",
            "pool_mode=session",
            |p| p.pool_mode.show(),
            ["transaction", "statement", "session"],
        ),
        ("default_pool_size = 1", "pool_size=2", "pool_size=3", |p| p.pool_size.to_string(), ["1", "2", "3"]),
        ("default_pool_size = 1", "pool_size=0", "", |p| p.pool_size.to_string(), ["1", "0", "0"]),
        (
            "reserve_pool_size = 1",
            "reserve_pool_size=2",
            "reserve_pool_size=3",
            |p| p.reserve_pool_size.to_string(),
            ["1", "2", "3"],
        ),
        ("min_pool_size = 1", "min_pool_size=2", "", |p| p.min_pool_size.to_string(), ["1", "2", "2"]),
        ("server_lifetime = 1", "server_lifetime=2", "", |p| p.server_lifetime.show(), ["1", "2", "2"]),
        // As in PgBouncer: the database has none of its own then.
        ("server_lifetime = 1", "server_lifetime=0", "", |p| p.server_lifetime.show(), ["1", "1", "1"]),
        ("server_lifetime = 0", "server_lifetime=2", "", |p| p.server_lifetime.show(), ["0", "2", "2"]),
        (
            "server_require_auth = md5",
            "server_require_auth=scram-sha-256",
            "",
            |p| p.server_require_auth.to_string(),
            ["md5", "scram-sha-256", "scram-sha-256"],
        ),
        (
            "read_write_split = 1",
            "read_write_split=0",
            "",
            |p| p.read_write_split.to_string(),
            ["true", "false", "false"],
        ),
        (
            "read_consistency = eventual",
            "read_consistency=database",
            "",
            |p| p.read_consistency.show(),
            ["eventual", "database", "database"],
        ),
        ("max_replica_lag = 1", "max_replica_lag=2", "", |p| p.max_replica_lag.show(), ["1", "2", "2"]),
        (
            "max_replica_lag_bytes = 1",
            "max_replica_lag_bytes=2",
            "",
            |p| p.max_replica_lag_bytes.to_string(),
            ["1", "2", "2"],
        ),
        ("replica_warm_up = 1", "replica_warm_up=2", "", |p| p.replica_warm_up.show(), ["1", "2", "2"]),
    ];
    for (global, database, user, shown, expected) in cases {
        let all = [("", ""), (database, ""), (database, user)];
        let found = all.map(|(database, user)| shown(&pool(&config(global, database, user), "me")));
        assert_eq!(found, expected, "{global}; {database}; {user}");
        // Another user's line is nothing to this one.
        assert_eq!(shown(&pool(&config(global, "", user), "other")), expected[0], "{global}; {user}");
        // The user's line goes before the global setting without the database's help.
        if !user.is_empty() {
            assert_eq!(shown(&pool(&config(global, "", user), "me")), expected[2], "{global}; {user}");
        }
    }
}

#[test]
fn a_reserve_without_a_timeout_is_none() {
    for (timeout, reserve) in [("0", 0), ("0.001", 7), ("5", 7)] {
        for (global, database, user) in [("7", "", ""), ("1", "7", ""), ("1", "2", "7")] {
            let line = |size: &str| match size {
                "" => String::new(),
                size => format!("reserve_pool_size={size}"),
            };
            let global = format!("reserve_pool_size = {global}\nreserve_pool_timeout = {timeout}");
            let settings = pool(&config(&global, &line(database), &line(user)), "me");
            assert_eq!(settings.reserve_pool_size, reserve, "{timeout}");
            assert_eq!(settings.reserve_pool_timeout.show(), timeout);
        }
    }
}

#[test]
fn the_check_of_servers_can_be_any_query_an_empty_one_or_none() {
    for (text, query) in [
        ("", Some("")),
        ("server_check_query = <empty>", Some("")),
        ("server_check_query =", None),
        ("server_check_query = SELECT 1", Some("SELECT 1")),
    ] {
        assert_eq!(pool(&config(text, "", ""), "me").server_check_query.as_deref(), query, "{text}");
    }
}

#[test]
fn only_the_global_settings_say_this() {
    let text = "max_prepared_statements = 5\nserver_idle_timeout = 1\nserver_connect_timeout = 2\n\
                server_login_retry = 3\nserver_check_delay = 4\nserver_reset_query = ROLLBACK\n\
                server_reset_query_always = 1\nserver_round_robin = 1\ndisable_pqexec = 1\n\
                track_extra_parameters = a, b";
    let seconds = Duration::from_secs;
    let found = pool(&config(text, "", ""), "me");
    let expected = PoolSettings {
        max_prepared_statements: 5,
        server_idle_timeout: seconds(1),
        server_connect_timeout: seconds(2),
        server_login_retry: seconds(3),
        server_check_delay: seconds(4),
        server_reset_query: "ROLLBACK".into(),
        server_reset_query_always: true,
        server_round_robin: true,
        disable_pqexec: true,
        track_extra_parameters: vec!["a".into(), "b".into()],
        ..pool(&Config { settings: Settings::default(), ..config("", "", "") }, "me")
    };
    assert_eq!(found, expected);
}

#[test]
fn only_the_databases_line_says_this() {
    let own = pool(&config("", "", ""), "me");
    assert_eq!((&*own.dbname, &*own.connect_query), ("app", ""));
    assert_eq!(own.startup_parameters, []);
    let line = "dbname=other connect_query='SELECT 1' client_encoding=LATIN1 datestyle=German timezone=UTC \
                application_name=me";
    let own = pool(&config("application_name_add_host = 1", line, ""), "me");
    assert_eq!((&*own.dbname, &*own.connect_query), ("other", "SELECT 1"));
    let parameters = [
        ("client_encoding", "LATIN1"),
        ("datestyle", "German"),
        ("timezone", "UTC"),
        ("application_name", "me"),
    ];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(own.startup_parameters, parameters);
    // Only what the line names is fixed.
    let own = pool(&config("", "timezone=UTC", ""), "me");
    assert_eq!(own.startup_parameters, [("timezone".to_owned(), "UTC".to_owned())]);
}

#[test]
fn a_database_without_a_line_of_its_own_has_that_of_the_star() {
    let text = "[databases]\n* = pool_size=2 pool_mode=statement\n[pgbouncer]\ndefault_pool_size = 1\n";
    let config = build(ini::parse(text, Path::new("x.ini")).unwrap()).unwrap().config;
    let (line, auto) = config.database("any").unwrap();
    let settings = PoolSettings::of(&config, "any", line, "me");
    assert!(auto);
    assert_eq!((settings.pool_size, settings.pool_mode, &*settings.dbname), (2, PoolMode::Statement, "any"));
}

#[test]
fn a_databases_limits() {
    let global = "max_db_connections = 1\nmax_db_client_connections = 2\ndefault_pool_size = 3\n\
                  min_pool_size = 4\nreserve_pool_size = 5\nreserve_pool_timeout = 0\n\
                  pool_mode = statement\nserver_lifetime = 6\nread_write_split = 1\nreplica_warm_up = 7";
    let own = "max_db_connections=11 max_db_client_connections=12 pool_size=13 min_pool_size=14 \
               reserve_pool_size=15 pool_mode=transaction server_lifetime=16 read_write_split=0 \
               replica_warm_up=17";
    let seconds = Duration::from_secs;
    let expected = |plus: u32, pool_mode: PoolMode| DatabaseSettings {
        pool_mode,
        max_db_connections: 1 + plus,
        max_db_client_connections: 2 + plus,
        pool_size: 3 + plus,
        min_pool_size: 4 + plus,
        // As it is configured, for SHOW DATABASES: that there is no timeout is the pool's matter.
        reserve_pool_size: 5 + plus,
        server_lifetime: seconds((6 + plus).into()),
        read_write_split: plus == 0,
        replica_warm_up: seconds((7 + plus).into()),
    };
    let found = |line: &str| {
        let config = config(global, line, "pool_size=99 reserve_pool_size=99 pool_mode=session");
        DatabaseSettings::of(&config.settings, &config.databases["app"])
    };
    assert_eq!(found(""), expected(0, PoolMode::Statement));
    assert_eq!(found(own), expected(10, PoolMode::Transaction));
}

#[test]
fn a_users_limits() {
    let global = "max_user_connections = 1\nmax_user_client_connections = 2";
    for (line, user, expected) in [
        ("", "me", (1, 2)),
        ("max_user_connections=3", "me", (3, 2)),
        ("max_user_client_connections=4", "me", (1, 4)),
        ("max_user_connections=0 max_user_client_connections=0", "me", (0, 0)),
        ("max_user_connections=3 max_user_client_connections=4", "other", (1, 2)),
    ] {
        let limits = UserLimits::of(&config(global, "", line), user);
        assert_eq!((limits.max_user_connections, limits.max_user_client_connections), expected, "{line}");
    }
}

/// Each timeout: the key, whether a database's line may have it, and whether a client has its own where the database's line
/// names the user for servers.
type Timeout = fn(&Timeouts) -> Duration;
const TIMEOUTS: [(&str, Timeout, bool, bool); 5] = [
    ("query_timeout", |t| t.query_timeout, false, false),
    ("query_wait_timeout", |t| t.query_wait_timeout, true, true),
    ("idle_transaction_timeout", |t| t.idle_transaction_timeout, false, false),
    ("transaction_timeout", |t| t.transaction_timeout, false, false),
    ("client_idle_timeout", |t| t.client_idle_timeout, false, true),
];

#[test]
fn timeouts_of_a_client_whose_servers_have_its_own_user() {
    let seconds = Duration::from_secs;
    for (key, timeout, of_database, _) in TIMEOUTS {
        let (global, line) = (format!("{key} = 1"), |n: u32| format!("{key}={n}"));
        let found =
            |database: &str, user: &str| timeout(&timeouts(&config(&global, database, user), "me", "me"));
        assert_eq!(found("", ""), seconds(1), "{key}");
        assert_eq!(found("", &line(3)), seconds(3), "{key}");
        assert_eq!(found("", &line(0)), seconds(0), "{key}: the user's own may be none");
        if of_database {
            assert_eq!(found(&line(2), ""), seconds(2), "{key}");
            assert_eq!(found(&line(2), &line(3)), seconds(3), "{key}");
            assert_eq!(found(&line(0), ""), seconds(0), "{key}");
        }
    }
    assert_eq!(timeouts(&config("query_wait_notify = 4", "", ""), "me", "me").query_wait_notify, seconds(4));
}

/// The database's line names the user for servers: what a client may do with a server is up to that user, how long it may be
/// without one is up to the client's.
#[test]
fn timeouts_of_a_client_whose_servers_have_another_user() {
    for (key, timeout, of_database, of_client) in TIMEOUTS {
        let (global, line) = (format!("{key} = 1"), format!("{key}=3"));
        let config = config(&global, "", &line);
        let (owner, guest) = (timeouts(&config, "app", "me"), timeouts(&config, "me", "guest"));
        let seconds = |own: bool| Duration::from_secs(if own { 3 } else { 1 });
        assert_eq!(timeout(&owner), seconds(of_client), "{key} of a client with a line of its own");
        assert_eq!(timeout(&guest), seconds(!of_client), "{key} of a client without one");
        if of_database {
            let config = self::config(&global, &format!("{key}=2"), &line);
            assert_eq!(timeout(&timeouts(&config, "app", "me")), Duration::from_secs(3), "{key}");
            assert_eq!(timeout(&timeouts(&config, "me", "guest")), Duration::from_secs(2), "{key}");
        }
    }
}

#[test]
fn outside_the_queue_there_is_a_deadline_only_if_a_timeout_is_set_for_it() {
    assert!(!timeouts(&config("", "", ""), "me", "me").apply_outside_queue());
    assert!(!Timeouts::default().apply_outside_queue());
    for (key, ..) in TIMEOUTS {
        let holds =
            |global: &str, user: &str| timeouts(&config(global, "", user), "me", "me").apply_outside_queue();
        let ends_more_than_waiting = key != "query_wait_timeout";
        let set = format!("{key} = 0.5");
        assert_eq!(holds(&set, ""), ends_more_than_waiting, "{key}");
        assert_eq!(holds("", &format!("{key}=0.5")), ends_more_than_waiting, "{key}");
        assert!(!holds(&set, &format!("{key}=0")), "{key}");
    }
    assert!(!timeouts(&config("query_wait_notify = 1", "", ""), "me", "me").apply_outside_queue());
    // One of the pool's user counts for its clients, one of theirs for themselves.
    let own = config("", "", "client_idle_timeout=1");
    assert!(timeouts(&own, "app", "me").apply_outside_queue());
    assert!(!timeouts(&own, "me", "guest").apply_outside_queue());
    let of_pool = config("", "", "query_timeout=1");
    assert!(timeouts(&of_pool, "me", "guest").apply_outside_queue());
    assert!(!timeouts(&of_pool, "app", "me").apply_outside_queue());
}

#[test]
fn the_same_configuration_gives_the_same_settings() {
    let text = ("default_pool_size = 3", "timezone=UTC pool_mode=statement", "pool_size=4 query_timeout=1");
    let (a, b) = (config(text.0, text.1, text.2), config(text.0, text.1, text.2));
    assert_eq!(pool(&a, "me"), pool(&b, "me"));
    assert_eq!(timeouts(&a, "me", "me"), timeouts(&b, "me", "me"));
    let other = config(text.0, text.1, "pool_size=5 query_timeout=1");
    assert_ne!(pool(&a, "me"), pool(&other, "me"));
    assert_eq!(timeouts(&a, "me", "me"), timeouts(&other, "me", "me"));
    // A timeout of clients is no setting of the pool.
    let other = config(text.0, text.1, "pool_size=4 query_timeout=2");
    assert_eq!(pool(&a, "me"), pool(&other, "me"));
    assert_ne!(timeouts(&a, "me", "me"), timeouts(&other, "me", "me"));
}

#[test]
fn who_may_do_what_at_the_console() {
    let settings = config("admin_users = root, op\nstats_users = op look", "", "").settings;
    for (user, admin, stats) in
        [("root", true, false), ("op", true, true), ("look", false, true), ("me", false, false)]
    {
        assert_eq!((settings.is_admin(user), settings.is_stats_user(user)), (admin, stats), "{user}");
    }
}
