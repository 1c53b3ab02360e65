//! Who may come in: `auth_query`, the rules of `auth_hba_file`, and PAM.

use crate::support::raw::{Message, Raw};
use crate::support::tls::{Authority, psql};
use crate::support::{PASSWORD, Pooler, USER, cluster, run};

/// Password of the roles that these tests make.
const SECRET: &str = "known to PostgreSQL alone";

/// Makes a role, once.
fn role(name: &str, attributes: &str) {
    cluster().admin(
        cluster().primary,
        &format!("DROP ROLE IF EXISTS {name}; CREATE ROLE {name} LOGIN {attributes}"),
    );
}

/// A pooler whose userlist knows but the one who looks others up: each test has its own.
fn pooler(lookup: &str, settings: &str) -> Pooler {
    role(lookup, &format!("SUPERUSER PASSWORD '{lookup} secret'"));
    Pooler::prepared(|dir| {
        std::fs::write(dir.join("userlist.txt"), format!("\"{lookup}\" \"{lookup} secret\"\n")).unwrap();
        let port = cluster().primary;
        let databases = format!(
            "app = host=127.0.0.1 port={port}\nelsewhere = host=127.0.0.1 port={port} dbname=postgres\n\
             asking = host=127.0.0.1 port={port} dbname=app auth_dbname=elsewhere\n\
             astray = host=127.0.0.1 port={port} dbname=app auth_dbname=nowhere\n"
        );
        (databases, format!("auth_user = {lookup}\n{settings}"))
    })
}

/// Logs in: who the server says the client is, or the error.
fn log_in(pooler: &Pooler, database: &str, user: &str, password: &str) -> Result<String, Message> {
    log_in_with(pooler, &[("user", user), ("database", database)], password)
}

fn log_in_with(pooler: &Pooler, parameters: &[(&str, &str)], password: &str) -> Result<String, Message> {
    run(async {
        let mut raw = Raw::log_in_with(pooler.port, 3 << 16, parameters, password).await?;
        Ok(raw.value("SELECT current_user").await)
    })
}

#[test]
fn users_are_looked_up() {
    let pooler = pooler("lookup_users", "");
    role("found", &format!("PASSWORD '{SECRET}'"));
    assert_eq!(log_in(&pooler, "app", "found", SECRET).unwrap(), "found");
    assert_eq!(log_in(&pooler, "app", "found", "wrong").unwrap_err().field('C'), "28P01");
    // A role without a password has none that could be right.
    role("without", "");
    for password in ["", "without", SECRET] {
        assert_eq!(
            log_in(&pooler, "app", "without", password).unwrap_err().field('C'),
            "28P01",
            "{password}"
        );
    }
}

/// CVE-2015-6817: somebody unknown became the one who looks others up.
#[test]
fn an_unknown_user_is_nobody() {
    for auth_type in ["scram-sha-256", "md5", "plain", "trust"] {
        let lookup = format!("lookup_nobody_{}", &auth_type[..2]);
        let pooler = pooler(&lookup, &format!("auth_type = {auth_type}"));
        for user in ["not_there", " ", "' OR true --", &format!("{lookup} ")] {
            for password in [&format!("{lookup} secret"), "", SECRET] {
                let error = log_in(&pooler, "app", user, password).unwrap_err();
                assert!(error.field('C').starts_with("28"), "{auth_type} {user}: {error:?}");
            }
        }
    }
}

/// CVE-2025-2291: `VALID UNTIL` was not looked at.
#[test]
fn an_expired_role_is_refused_even_if_it_is_remembered() {
    let pooler = pooler(
        "lookup_expired",
        "auth_query_ttl = 600\nauth_query = SELECT rolname, rolpassword, extract(epoch FROM rolvaliduntil - now()) FROM pg_authid WHERE rolname = $1",
    );
    role("expired", &format!("PASSWORD '{SECRET}' VALID UNTIL '2001-01-01'"));
    assert_eq!(log_in(&pooler, "app", "expired", SECRET).unwrap_err().field('C'), "28P01");
    let soon = cluster().admin(cluster().primary, "SELECT now() + interval '2 seconds'");
    role("expiring", &format!("PASSWORD '{SECRET}' VALID UNTIL '{soon}'"));
    assert_eq!(log_in(&pooler, "app", "expiring", SECRET).unwrap(), "expiring");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_eq!(log_in(&pooler, "app", "expiring", SECRET).unwrap_err().field('C'), "28P01");

    // The query that is there unless another is given.
    let pooler = self::pooler("lookup_expired_default", "");
    assert_eq!(log_in(&pooler, "app", "expired", SECRET).unwrap_err().field('C'), "28P01");
    role("valid", &format!("PASSWORD '{SECRET}' VALID UNTIL '2090-01-01'"));
    assert_eq!(log_in(&pooler, "app", "valid", SECRET).unwrap(), "valid");
}

/// CVE-2025-12819: what a client asks for before it has proved who it is had an effect on the lookup.
#[test]
fn a_clients_parameters_do_not_reach_the_lookup() {
    cluster().admin_in(
        "app",
        cluster().primary,
        "CREATE SCHEMA evil; CREATE TABLE evil.pg_authid (rolname text, rolpassword text, rolcanlogin bool, rolvaliduntil timestamptz);
         INSERT INTO evil.pg_authid VALUES ('postgres', 'chosen by the attacker', true, NULL);
         GRANT USAGE ON SCHEMA evil TO PUBLIC; GRANT ALL ON evil.pg_authid TO PUBLIC",
    );
    let lookup =
        "SET search_path = evil, pg_catalog; SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'";
    assert_eq!(
        cluster().admin_in("app", cluster().primary, lookup),
        "chosen by the attacker",
        "the trap works"
    );
    role("honest", &format!("PASSWORD '{SECRET}'"));
    let pooler = pooler(
        "lookup_parameters",
        "track_extra_parameters = search_path\nignore_startup_parameters = options\ndefault_pool_size = 1",
    );
    let path = "evil, pg_catalog";
    for _ in 0..3 {
        for asked in [("options", "-csearch_path=evil,pg_catalog"), ("search_path", path)] {
            let parameters = [("user", "postgres"), ("database", "app"), asked];
            let error = log_in_with(&pooler, &parameters, "chosen by the attacker").unwrap_err();
            assert_eq!(error.field('C'), "28P01", "{error:?}");
        }
        // One who is let in, and leaves the setting behind.
        let parameters = [("user", "honest"), ("database", "app"), ("search_path", path)];
        assert_eq!(log_in_with(&pooler, &parameters, SECRET).unwrap(), "honest");
        let parameters = [("user", "lookup_parameters"), ("database", "app"), ("search_path", path)];
        let secret = "lookup_parameters secret";
        assert_eq!(log_in_with(&pooler, &parameters, secret).unwrap(), "lookup_parameters");
    }
}

#[test]
fn a_lookup_that_cannot_work_lets_nobody_in() {
    role("present", &format!("PASSWORD '{SECRET}'"));
    for (query, logged) in [
        ("SELECT nonsense FROM nowhere WHERE x = $1", "error in auth_query"),
        ("SELECT rolname FROM pg_authid WHERE rolname = $1", "expected 2 columns from auth_query, not 1"),
        ("SELECT NULL::text, rolpassword FROM pg_authid WHERE rolname = $1", "null user name"),
        ("SELECT 1", "error in auth_query"),
        ("COPY pg_authid TO STDOUT", "error in auth_query"),
        ("BEGIN", "error in auth_query"),
    ] {
        let pooler = pooler("lookup_broken", &format!("auth_query = {query}"));
        let error = log_in(&pooler, "app", "present", SECRET).unwrap_err();
        assert_eq!(error.field('M'), "bouncer config error", "{query}");
        assert!(pooler.log().contains(logged), "{query}: {}", pooler.log());
    }
}

#[test]
fn the_lookup_may_be_in_another_database() {
    let pooler = pooler("lookup_elsewhere", "");
    role("present_elsewhere", &format!("PASSWORD '{SECRET}'"));
    assert_eq!(log_in(&pooler, "asking", "present_elsewhere", SECRET).unwrap(), "present_elsewhere");
    let log = pooler.log();
    let connected = |database: &str| {
        log.lines().any(|line| {
            line.contains(&format!(": {database}/lookup_elsewhere@"))
                && line.contains("new connection to server")
        })
    };
    assert!(connected("elsewhere") && !connected("asking"), "{log}");
    let error = log_in(&pooler, "astray", "present_elsewhere", SECRET).unwrap_err();
    assert_eq!(error.field('M'), "bouncer config error");
    assert!(pooler.log().contains("authentication database \"nowhere\" is not configured"));
}

/// A pooler with these rules and this map of names.
fn with_rules(rules: &str, ident: &str) -> Pooler {
    let authority = Authority::new("Authority of the poolers");
    Pooler::prepared(|dir| {
        authority.issue("pooler", &["localhost"]).write(dir, "pooler");
        std::fs::write(dir.join("hba"), rules).unwrap();
        std::fs::write(dir.join("ident"), ident).unwrap();
        let dir = dir.display();
        let settings = format!(
            "auth_type = hba\nauth_hba_file = {dir}/hba\nauth_ident_file = {dir}/ident\nclient_tls_sslmode = allow\n\
             client_tls_cert_file = {dir}/pooler.crt\nclient_tls_key_file = {dir}/pooler.key"
        );
        (format!("app = host=127.0.0.1 port={}\n", cluster().primary), settings)
    })
}

#[test]
fn the_first_rule_that_fits_decides() {
    let pooler = with_rules(
        "host all other 127.0.0.1/32 reject\nhost app trusted 127.0.0.1/32 trust\nhost app md5user 127.0.0.1/32 md5\n\
         host app plainuser 127.0.0.1/32 password\nhost app app 10.0.0.0/8 trust\nhost app app 127.0.0.0/8 scram-sha-256\n\
         host app other 127.0.0.1/32 trust\n",
        "",
    );
    for (user, password) in
        [("trusted", "anything"), ("md5user", "md5 secret"), ("plainuser", "plain secret"), (USER, PASSWORD)]
    {
        assert_eq!(log_in(&pooler, "app", user, password).unwrap(), user);
        if user != "trusted" {
            assert_eq!(log_in(&pooler, "app", user, "wrong").unwrap_err().field('C'), "28P01");
        }
    }
    for (database, user, message) in [
        ("app", "other", "pg_hba.conf rejects connection for user \"other\", database \"app\""),
        ("other", "trusted", "no pg_hba.conf entry for user \"trusted\", database \"other\""),
        ("app", "nobody_known", "no pg_hba.conf entry for user \"nobody_known\", database \"app\""),
    ] {
        let error = log_in(&pooler, database, user, "other").unwrap_err();
        assert_eq!((error.field('C').as_str(), error.field('M').as_str()), ("28000", message));
    }
}

#[test]
fn rules_tell_encrypted_connections_from_others() {
    let pooler = with_rules(
        &format!("hostssl app trusted 127.0.0.1/32 trust\nhostnossl app {USER} 127.0.0.1/32 scram-sha-256\n"),
        "",
    );
    let ask = |user: &str, mode: &str| {
        psql(&format!("port={} user={user} sslmode={mode}", pooler.port), "SELECT current_user")
    };
    assert_eq!(ask("trusted", "require").unwrap(), "trusted");
    assert_eq!(ask(USER, "disable").unwrap(), USER);
    for (user, mode) in [("trusted", "disable"), (USER, "require")] {
        let error = ask(user, mode).unwrap_err();
        assert!(error.contains("no pg_hba.conf entry"), "{user} {mode}: {error}");
    }
}

#[test]
fn the_operating_systems_user_is_somebody() {
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    let pooler = with_rules(
        "local app trusted peer map=m\nlocal app other peer map=n\nlocal app app peer\n",
        &format!("m {me} trusted\nn {me}x other\n"),
    );
    let ask = |user: &str| {
        let conninfo = format!("host={} port={} user={user}", pooler.dir.display(), pooler.port);
        psql(&conninfo, "SELECT current_user")
    };
    assert_eq!(ask("trusted").unwrap(), "trusted");
    for user in ["other", USER] {
        let error = ask(user).unwrap_err();
        assert!(error.contains("unix socket login rejected"), "{user}: {error}");
    }
    // By TCP nobody is anybody.
    assert!(log_in(&pooler, "app", "trusted", "").is_err());
}

#[test]
fn what_pam_does_not_accept_is_refused() {
    let pooler = Pooler::start("auth_type = pam");
    for (user, password) in [(USER, "no"), ("nobody_known", "no"), (USER, "")] {
        assert_eq!(log_in(&pooler, "app", user, password).unwrap_err().field('C'), "28P01", "{user}");
    }
    assert!(pooler.log().contains("PAM authentication failed"), "{}", pooler.log());
}

/// With modules that know one user by his password; what he has proved it with logs in to the server as well.
#[test]
fn who_pam_accepts_is_let_in() {
    if pgweir::net::pam::available().is_err() || !std::path::Path::new("/etc/pam.d").exists() {
        return println!("SKIPPED: there is no libpam");
    }
    let pooler = Pooler::mounting("pam.d", "/etc/pam.d", |dir| {
        let check = dir.join("check");
        let said = r#""$PAM_USER/$PAM_RHOST/$PAM_SERVICE/$(tr -d '\000')""#;
        std::fs::write(&check, format!("test {said} = \"{USER}/127.0.0.1/pgbouncer/{PASSWORD}\"")).unwrap();
        std::fs::create_dir(dir.join("pam.d")).unwrap();
        let rules = format!(
            "auth required pam_exec.so quiet expose_authtok /bin/sh {}\naccount required pam_permit.so\n",
            check.display()
        );
        std::fs::write(dir.join("pam.d/pgbouncer"), rules).unwrap();
        (
            format!("app = host=127.0.0.1 port={}\n", cluster().primary),
            "auth_type = pam\nauth_file =\n".into(),
        )
    });
    let Some(pooler) = pooler else { return println!("SKIPPED: /etc/pam.d cannot be another folder") };
    let accepted = log_in(&pooler, "app", USER, PASSWORD);
    assert_eq!(accepted.unwrap_or_else(|error| panic!("{}: {}", error.field('M'), pooler.log())), USER);
    let error = log_in(&pooler, "app", USER, "something else").unwrap_err();
    assert_eq!(error.field('C'), "28P01");
    let error = log_in(&pooler, "app", "other", PASSWORD).unwrap_err();
    assert_eq!(error.field('C'), "28P01");
}
