use super::*;
use crate::config::load::load_env;

fn load(variables: &[(&str, &str)]) -> crate::config::Config {
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    load_env(variables).unwrap().unwrap().config
}

#[test]
fn a_url_is_enough() {
    let config = load(&[
        ("DATABASE_URL", "postgres://me:a/b+c=%41@db.example:5433/app"),
        ("HOME", "/root"),
        ("USER", "x"),
    ]);
    assert_eq!(config.databases["app"].hosts(), [("db.example".into(), 5433)]);
    assert_eq!(config.passwords, [("me".into(), Secret::parse("a/b+c=A"))]);
    assert_eq!(config.settings.admin_users, ["me"]);
    assert_eq!(config.settings.listen_addr, "0.0.0.0");
    assert_eq!(config.settings.user, "");
}

#[test]
fn dialects() {
    let config = load(&[
        ("POSTGRESQL_HOST", "pg"),
        ("POSTGRESQL_USERNAME", "me"),
        ("POSTGRESQL_PASSWORD", "secret"),
        ("PGBOUNCER_DATABASE", "*"),
        ("PGBOUNCER_PORT", "7000"),
        ("PGBOUNCER_DEFAULT_POOL_SIZE", "30"),
        ("PGBOUNCER_AUTH_TYPE", "md5"),
    ]);
    assert_eq!(config.fallback.as_ref().unwrap().hosts(), [("pg".into(), 5432)]);
    assert_eq!((config.settings.listen_port, config.settings.default_pool_size), (7000, 30));
    assert_eq!(config.settings.auth_type.to_owned(), crate::config::AuthType::Md5);

    let config =
        load(&[("DB_HOST", "h"), ("DB_USER", "u"), ("DB_PASSWORD", "p"), ("POOL_MODE", "transaction")]);
    assert!(config.fallback.is_some());
    assert_eq!(config.settings.pool_mode, crate::config::PoolMode::Transaction);

    let config = load(&[("PGBOUNCER_DSN_0", "a=host=x port=1"), ("PGBOUNCER_DSN_1", "b=host=y")]);
    assert_eq!(config.databases.len(), 2);

    let url = "postgres://u:p@a:1,b:2/x,postgresql://v:q@[::1]/y?sslmode=prefer";
    let config = load(&[("DATABASE_URLS", url)]);
    assert_eq!(config.databases["x"].hosts(), [("a".into(), 1), ("b".into(), 2)]);
    assert_eq!(config.databases["y"].hosts(), [("::1".into(), 5432)]);
}

/// The names that the images' documentation has, but for those that tell of servers and files.
#[test]
fn every_name_of_every_image() {
    let edoburu = "LISTEN_ADDR LISTEN_PORT UNIX_SOCKET_DIR AUTH_FILE AUTH_HBA_FILE AUTH_TYPE AUTH_USER AUTH_QUERY \
        AUTH_DBNAME POOL_MODE MAX_CLIENT_CONN DEFAULT_POOL_SIZE MIN_POOL_SIZE RESERVE_POOL_SIZE \
        RESERVE_POOL_TIMEOUT MAX_DB_CONNECTIONS MAX_USER_CONNECTIONS SERVER_ROUND_ROBIN \
        IGNORE_STARTUP_PARAMETERS DISABLE_PQEXEC APPLICATION_NAME_ADD_HOST MAX_PREPARED_STATEMENTS \
        LOG_CONNECTIONS LOG_DISCONNECTIONS LOG_POOLER_ERRORS LOG_STATS STATS_PERIOD VERBOSE ADMIN_USERS STATS_USERS \
        LOGFILE SERVER_RESET_QUERY SERVER_RESET_QUERY_ALWAYS SERVER_CHECK_DELAY SERVER_CHECK_QUERY SERVER_LIFETIME \
        SERVER_IDLE_TIMEOUT SERVER_CONNECT_TIMEOUT SERVER_LOGIN_RETRY CLIENT_LOGIN_TIMEOUT AUTODB_IDLE_TIMEOUT \
        DNS_MAX_TTL DNS_NXDOMAIN_TTL CLIENT_TLS_SSLMODE CLIENT_TLS_KEY_FILE CLIENT_TLS_CERT_FILE CLIENT_TLS_CA_FILE \
        CLIENT_TLS_PROTOCOLS CLIENT_TLS_CIPHERS CLIENT_TLS_ECDHCURVE CLIENT_TLS_DHEPARAMS SERVER_TLS_SSLMODE \
        SERVER_TLS_CA_FILE SERVER_TLS_KEY_FILE SERVER_TLS_CERT_FILE SERVER_TLS_PROTOCOLS SERVER_TLS_CIPHERS \
        QUERY_TIMEOUT QUERY_WAIT_TIMEOUT CLIENT_IDLE_TIMEOUT IDLE_TRANSACTION_TIMEOUT PKT_BUF MAX_PACKET_SIZE \
        LISTEN_BACKLOG SBUF_LOOPCNT SUSPEND_TIMEOUT TCP_DEFER_ACCEPT TCP_KEEPALIVE TCP_KEEPCNT TCP_KEEPIDLE \
        TCP_KEEPINTVL TCP_USER_TIMEOUT";
    let bitnami = "PORT PORT_NUMBER LISTEN_ADDRESS BIND_ADDRESS AUTH_TYPE AUTH_USER AUTH_QUERY AUTH_HBA_FILE \
        AUTH_IDENT_FILE STATS_USERS POOL_MODE MAX_CLIENT_CONN MAX_DB_CONNECTIONS DEFAULT_POOL_SIZE MIN_POOL_SIZE \
        RESERVE_POOL_SIZE RESERVE_POOL_TIMEOUT QUERY_WAIT_TIMEOUT QUERY_TIMEOUT IDLE_TRANSACTION_TIMEOUT \
        CLIENT_IDLE_TIMEOUT CLIENT_LOGIN_TIMEOUT AUTODB_IDLE_TIMEOUT SERVER_IDLE_TIMEOUT SERVER_LIFETIME \
        SERVER_CONNECT_TIMEOUT SERVER_LOGIN_RETRY SERVER_RESET_QUERY SERVER_FAST_CLOSE SERVER_ROUND_ROBIN \
        IGNORE_STARTUP_PARAMETERS STATS_PERIOD MAX_PREPARED_STATEMENTS APPLICATION_NAME_ADD_HOST LOG_FILE \
        LOG_CONNECTIONS LOG_DISCONNECTIONS LOG_POOLER_ERRORS LOG_STATS CLIENT_TLS_SSLMODE CLIENT_TLS_CA_FILE \
        CLIENT_TLS_CERT_FILE CLIENT_TLS_KEY_FILE CLIENT_TLS_CIPHERS SERVER_TLS_SSLMODE SERVER_TLS_CA_FILE \
        SERVER_TLS_CERT_FILE SERVER_TLS_KEY_FILE SERVER_TLS_PROTOCOLS SERVER_TLS_CIPHERS SOCKET_DIR SOCKET_MODE \
        SOCKET_GROUP";
    let prefixed = bitnami.split_whitespace().map(|name| format!("PGBOUNCER_{name}"));
    for name in edoburu.split_whitespace().map(str::to_owned).chain(prefixed) {
        assert!(variable_of(&name, "1").is_some(), "{name}");
    }
    let quiet = NO_SETTINGS.iter().filter(|name| **name != "PGBOUNCER_USERLIST");
    let quiet: Vec<(&str, &str)> = quiet.map(|name| (*name, "x")).collect();
    let config =
        load(&[&[("DB_HOST", "h"), ("BITNAMI_DEBUG", "true"), ("VERBOSE", "true")], &*quiet].concat());
    assert_eq!(config.databases["x"].hosts(), [("h".into(), 5432)]);
}

#[test]
fn a_prefix_is_enough() {
    let config = load(&[
        ("PGBOUNCER_DSN_0", "fhirdb=host=pg port=5432 pool_size=30"),
        ("PGBOUNCER_USERLIST", r#""me" "a/b+c="\n"you" "secret""#),
    ]);
    assert_eq!(config.databases["fhirdb"].pool_size, Some(30));
    let expected = [("me".into(), Secret::parse("a/b+c=")), ("you".into(), Secret::parse("secret"))];
    assert_eq!(config.passwords, expected);
}

#[test]
fn what_images_assume() {
    let config = load(&[("POSTGRESQL_PASSWORD", "p"), ("POSTGRESQL_PORT_NUMBER", "5433")]);
    assert_eq!(config.fallback.as_ref().unwrap().hosts(), [("postgresql".into(), 5433)]);
    assert_eq!(config.passwords, [("postgres".into(), Secret::parse("p"))]);

    let account = [("DB_HOST", "h"), ("DB_USER", "me"), ("DB_PASSWORD", "p"), ("DB_NAME", "app")];
    let forced = [("PGBOUNCER_SET_DATABASE_USER", "yes"), ("PGBOUNCER_SET_DATABASE_PASSWORD", "yes")];
    let others =
        [("ADMIN_USERS", "root"), ("AUTH_QUERY", "SELECT"), ("POOL_SIZE", "7"), ("SSL_MODE", "prefer")];
    let config = load(&[&account[..], &forced, &others].concat());
    let database = &config.databases["app"];
    assert_eq!((database.user.as_deref(), database.password.as_deref()), (Some("me"), Some("p")));
    assert_eq!(database.pool_size, Some(7));
    assert_eq!(config.settings.admin_users, ["root"]);
    assert!(config.is_explicit("server_tls_sslmode"));
    assert_eq!(load(&account).databases["app"].user, None);
}

/// Each image has its own rule for `auth_user`, which looks up the users that its variables do not name.
#[test]
fn who_looks_others_up() {
    let of = |variables: &[(&str, &str)]| {
        let config = load(variables);
        let line = config.databases.get("app").cloned().or(config.fallback.clone()).unwrap();
        (line.auth_user.unwrap_or_default(), config.settings.auth_user)
    };
    let expect = |line: &str, global: &str| (line.to_owned(), global.to_owned());
    // edoburu: the user of the server, in the database's line, which comes before AUTH_USER.
    let edoburu = [("DB_HOST", "h"), ("DB_USER", "me"), ("DB_PASSWORD", "p")];
    let url = [("DATABASE_URL", "postgres://me:p@h/app")];
    let query = ("AUTH_QUERY", "SELECT");
    for server in [&edoburu[..], &url] {
        assert_eq!(of(server), expect("me", ""));
        assert_eq!(of(&[server, &[query]].concat()), expect("me", ""));
        assert_eq!(of(&[server, &[("AUTH_USER", "lookup")]].concat()), expect("me", "lookup"));
        // Told with the prefix, which edoburu does not know.
        let told = [("PGBOUNCER_AUTH_USER", "lookup")];
        assert_eq!(of(&[server, &told].concat()), expect("", "lookup"));
    }
    assert_eq!(of(&edoburu[..1]), expect("", ""), "no variable names a user");
    let urls = load(&[("DATABASE_URLS", "postgres://a:p@h/x,postgres://b:p@h/y"), query]);
    let users: Vec<_> = urls.databases.values().map(|line| line.auth_user.as_deref().unwrap()).collect();
    assert_eq!(users, ["a", "b"]);
    // bitnami: the one who is told to; that there is a query to be asked is enough.
    let bitnami = [("POSTGRESQL_HOST", "h"), ("POSTGRESQL_USERNAME", "me"), ("POSTGRESQL_PASSWORD", "p")];
    assert_eq!(of(&bitnami), expect("", ""));
    let told = [("PGBOUNCER_AUTH_USER", "lookup")];
    assert_eq!(of(&[&bitnami[..], &told].concat()), expect("", "lookup"));
    let asked = [("PGBOUNCER_AUTH_QUERY", "SELECT")];
    assert_eq!(of(&[&bitnami[..], &asked].concat()), expect("", "me"));
    assert_eq!(of(&[&bitnami[..], &asked, &told].concat()), expect("", "lookup"));
}

/// Frameworks add keys of their own to a URL, which says nothing of a pooler.
#[test]
fn a_url_may_have_keys_that_mean_nothing_here() {
    let url = "postgres://me:p@h/app?schema=public&pool_timeout=10&pool_sise=5&pgbouncer&pool_size=7";
    let loaded = load_env([("DATABASE_URL".to_owned(), url.to_owned())]).unwrap().unwrap();
    assert_eq!(loaded.config.databases["app"].pool_size, Some(7));
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    let unknown =
        |key: &str| format!("environment variable DATABASE_URL: unknown key {key} in the URL has no effect");
    let starts = ["schema", "pool_timeout", "pool_sise", "pgbouncer"].map(unknown);
    assert!(warnings.iter().zip(&starts).all(|(warning, start)| warning.starts_with(start)), "{warnings:?}");
    assert!(warnings.len() == 4 && warnings[2].contains("did you mean pool_size?"), "{warnings:?}");
}

/// pgbouncer/pgbouncer makes one line of these, for whatever clients ask for; its auth_type=any needs the user in it.
#[test]
fn databases_variables_are_the_keys_of_the_line() {
    let line = [
        ("DATABASES_HOST", "h"),
        ("DATABASES_USER", "me"),
        ("DATABASES_PASSWORD", "p"),
        ("DATABASES_DBNAME", "app"),
    ];
    for auth_type in ["any", "scram-sha-256"] {
        let config = load(&[&line[..], &[("PGBOUNCER_AUTH_TYPE", auth_type)]].concat());
        let found = config.fallback.as_ref().unwrap();
        let parts = (found.dbname.as_deref(), found.user.as_deref(), found.password.as_deref());
        assert_eq!(parts, (Some("app"), Some("me"), Some("p")));
        assert!(config.databases.is_empty());
    }
    // Where another image's variables meet auth_type=any there has to be a user as well.
    let config = load(&[("DATABASE_URL", "postgres://me:p@h/app"), ("AUTH_TYPE", "any")]);
    assert_eq!(config.databases["app"].user.as_deref(), Some("me"));
    let config = load(&[("DATABASE_URL", "postgres://me:p@h/app")]);
    assert_eq!(config.databases["app"].user, None);
}

#[test]
fn the_variables_that_count_are_named() {
    let path = std::env::temp_dir().join(format!("pgweir-env-named-{}", std::process::id()));
    std::fs::write(&path, "secret").unwrap();
    let variables = [
        ("DB_HOST", "h"),
        ("DB_USER", "me"),
        ("DB_PASSWORD_FILE", path.to_str().unwrap()),
        ("DB_PORT", "tcp://10.0.0.7:5432"),
        ("POOL_MODE", "session"),
        ("PGBOUNCER_INIT_SLEEP_TIME", "1"),
        ("HOME", "/root"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let loaded = load_env(variables).unwrap().unwrap();
    assert_eq!(loaded.sources, ["environment variables DB_HOST, DB_PASSWORD_FILE, DB_USER, POOL_MODE"]);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn admins_and_watchers_have_passwords_of_their_own() {
    let server = [("DB_HOST", "h"), ("DB_USER", "me"), ("DB_PASSWORD", "p")];
    let more = [
        ("ADMIN_USERS", "root,me"),
        ("ADMIN_PASSWORDS", "r,other"),
        ("STATS_USERS", "one,two"),
        ("STATS_PASSWORDS", "just one"),
    ];
    let config = load(&[&server[..], &more].concat());
    // With fewer passwords than users no password is assigned, and one that was given before stays.
    assert_eq!(config.passwords, [("me".into(), Secret::parse("p")), ("root".into(), Secret::parse("r"))]);
    assert_eq!(config.settings.stats_users, ["one", "two"]);
}

#[test]
fn what_kubernetes_adds_is_not_meant() {
    let config = load(&[
        ("DB_HOST", "h"),
        ("DB_PORT", "tcp://10.0.0.7:5432"),
        ("PGBOUNCER_PORT", "tcp://10.0.0.8:6432"),
        ("PGBOUNCER_PORT_6432_TCP", "tcp://10.0.0.8:6432"),
        ("PGBOUNCER_PORT_6432_TCP_ADDR", "10.0.0.8"),
        ("PGBOUNCER_PORT_6432_TCP_PORT", "6432"),
        ("PGBOUNCER_PORT_6432_TCP_PROTO", "tcp"),
        ("PGBOUNCER_SERVICE_HOST", "10.0.0.8"),
        ("PGBOUNCER_SERVICE_PORT", "6432"),
        ("PGBOUNCER_SERVICE_PORT_POSTGRESQL", "6432"),
    ]);
    assert_eq!(config.fallback.unwrap().hosts(), [("h".into(), 5432)]);
    assert_eq!(config.settings.listen_port, 6432);
}

#[test]
fn values_may_come_from_files() {
    let path = std::env::temp_dir().join(format!("pgweir-env-{}", std::process::id()));
    std::fs::write(&path, "secret\n").unwrap();
    let file = path.to_str().unwrap();
    let config = load(&[
        ("DB_HOST", "h"),
        ("DB_USER", "u"),
        ("DB_PASSWORD_FILE", file),
        ("PGBOUNCER_AUTH_FILE", "x"),
        ("PGBOUNCER_DSN_0_FILE", ""),
        ("PGBOUNCER_AUTH_QUERY_FILE", ""),
        ("PGBOUNCER_SERVER_TLS_CA_FILE", "ca"),
        ("PGBOUNCER_AUTH_USER_FILE", file),
    ]);
    assert_eq!(config.settings.auth_user, "secret");
    assert_eq!(config.passwords, [("u".into(), Secret::parse("secret"))]);
    assert_eq!(config.settings.auth_file, "x");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn nothing_to_go_on_and_mistakes() {
    let error = |name: &str, value: &str| {
        let variables = [("DB_HOST", "h"), (name, value)].map(|(k, v)| (k.to_owned(), v.to_owned()));
        load_env(variables).map(drop).unwrap_err().to_string()
    };
    assert!(load_env([("PGBOUNCER_POOL_MODE".to_owned(), "session".to_owned())]).unwrap().is_none());
    assert!(error("DATABASE_URL", "mysql://x").contains("environment variable DATABASE_URL"));
    assert!(error("PGBOUNCER_POOL_MODE", "x").contains("expected one of"));
    assert!(error("PGBOUNCER_MAX_CLIENT_CON", "5").contains("did you mean max_client_conn?"));
    assert!(error("PGBOUNCER_AUHT_FILE", "x").contains("did you mean auth_file?"));
    assert!(error("DB_PASSWORD_FILE", "/nonexistent").contains("cannot read"));
    let error = error("PGBOUNCER_USERLIST", "me secret");
    assert!(error.contains("line 1, column 1") && !error.contains("secret"), "{error}");
}

#[test]
fn a_password_that_is_empty_is_none() {
    for variables in [
        &[("DATABASE_URL", "postgres://me@h/app")][..],
        &[("DATABASE_URL", "postgres://me:@h/app")],
        &[("DB_HOST", "h"), ("DB_USER", "me"), ("DB_PASSWORD", "")],
        &[("PGBOUNCER_DSN_0", "app=host=h"), ("PGBOUNCER_USERLIST", r#""me" """#)],
        &[("PGBOUNCER_DSN_0", "app=host=h"), ("ADMIN_USERS", "me,you"), ("ADMIN_PASSWORDS", ",x")],
    ] {
        assert_eq!(load(variables).passwords[0], ("me".into(), None), "{variables:?}");
    }
    let given = [("ADMIN_USERS", "me"), ("ADMIN_PASSWORDS", "x")];
    let config = load(&[&[("DATABASE_URL", "postgres://me@h/app")], &given[..]].concat());
    assert_eq!(config.passwords.last(), Some(&("me".into(), Secret::parse("x"))));
}

#[test]
fn a_secret_with_too_many_iterations_is_refused() {
    let verifier = postgres_protocol::password::scram_sha_256(b"x").replace("4096:", "20000000:");
    let variables = [("DB_HOST", "h"), ("DB_USER", "me"), ("DB_PASSWORD", &verifier)];
    let error = load_env(variables.map(|(k, v)| (k.to_owned(), v.to_owned()))).unwrap_err().to_string();
    assert!(error.contains("DB_HOST") && error.contains("has 20000000 iterations"), "{error}");
}
