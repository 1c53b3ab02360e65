use super::*;
use crate::config::PoolMode;

fn load(text: &str) -> Result<Loaded, ConfigError> {
    build(ini::parse(text, Path::new("x.ini"))?)
}

#[test]
fn everything_is_found_in_its_place() {
    let text = "[databases]\na = host=h1,h2 port=1,2 pool_size=7 read_write_split=1\nb=\n* = host=/run port=3\n\
                [users]\nme = pool_mode=session\n[peers]\n2 = host=/run port=7001\n[pgbouncer]\nlisten_port = 7000\n";
    let config = load(text).unwrap().config;
    assert_eq!(config.databases["a"].hosts(), [("h1".into(), 1), ("h2".into(), 2)]);
    assert_eq!(config.databases["b"].hosts(), [("".into(), 5432)]);
    assert_eq!(config.database("zzz").unwrap().0.hosts(), [("/run".into(), 3)]);
    assert!(config.database("zzz").unwrap().1);
    assert_eq!(config.users["me"].pool_mode, Some(PoolMode::Session));
    assert_eq!((config.peers[&2].host.as_deref(), config.peers[&2].port), (Some("/run"), Some(7001)));
    assert_eq!(config.settings.listen_port, 7000);
    assert!(config.is_explicit("listen_port") && !config.is_explicit("http_port"));
}

#[test]
fn a_second_header_starts_anew() {
    let config = load("[pgbouncer]\nlisten_port = 7000\n[pgbouncer]\nmax_client_conn = 5").unwrap().config;
    assert_eq!((config.settings.listen_port, config.settings.max_client_conn), (6432, 5));
    assert!(!config.is_explicit("listen_port"));
}

#[test]
fn all_problems_are_reported_with_place_and_hint() {
    let text = "[pgbouncer]\nmax_client_con = 5\nlisten_port = x\n[databases]\na = hots=b\nb = host=a port=1,2 weight=1,2\n\
                c = host\npgbouncer = host=x\n[users]\nu = pool_mode=what\n[peers]\nx = host=y\n1 = port=5\n";
    let error = load(text).unwrap_err();
    let all = error.to_string();
    assert_eq!(error.0.len(), 10, "{all}");
    for expected in [
        "x.ini:2:1: unknown setting max_client_con\n  | max_client_con = ***\n  | ^\n  = hint: did you mean max_client_conn?",
        "x.ini:3:1: invalid value \"x\" for listen_port: expected",
        "x.ini:5:1: database a: unknown key hots",
        "did you mean host?",
        "1 hosts but 2 ports",
        "1 hosts but 2 weights",
        "x.ini:7:1: c: expected key=value at byte 1 of the value",
        "is reserved",
        "user u: invalid value \"what\" for pool_mode: expected one of session",
        "peer x: the ID of a peer is a number from 1 to 65535",
        "peer 1 has no host",
    ] {
        assert!(all.contains(expected), "{expected}\n---\n{all}");
    }
}

#[test]
fn nothing_of_a_secret_is_shown() {
    for text in [
        "[databases]\na = host=b pasword=geheim",
        "[databases]\na = host=b pasword=geheim port=x",
        "[databases]\na = host=b password=ge geheim",
        "[databases]\na = host=b password=ge geheim=1",
        "[databases]\na = host=b password=ge heim port=geheim",
        "[databases]\na = host=b password=ge port=geheim",
        "[databases]\na = host=b password='geheim port=1",
        "[databases]\na = geheim",
        "[databases]\na host=b password=geheim",
        "[databases]\nlisten_port = password=geheim x",
        "[users]\nu = pasword=geheim",
        "[peers]\n1 = host=x pasword=geheim",
        "[pgbouncer]\nlisten_port = host=b password=geheim",
        "[pgbouncer]\nauth_ldap_optoins = ldapbindpasswd=geheim",
        "[pgbouncer]\npasword = geheim",
        "[databases]\na = host=b \\\ngeheim",
        "a = host=b password=geheim",
    ] {
        let error = load(text).unwrap_err().to_string();
        assert!(!error.contains("geheim"), "{text}\n---\n{error}");
    }
    for text in [
        "[databases.a]\nhost = \"b\"\npasword = \"geheim\"",
        "[databases]\na = \"host=b pasword=geheim\"",
        "[databases]\na = \"host=b password=geheim",
        "[databases]\na = { host = \"b\", password = \"geheim\", prot = 1 }",
        "[databases.a]\npassword = 'geheim",
        "[databases.a]\npassword = geheim",
        "[databases.a]\npassword = \"x\" geheim",
    ] {
        let error = toml::parse(text, Path::new("x")).and_then(build).map(drop).unwrap_err().to_string();
        assert!(!error.contains("geheim"), "{text}\n---\n{error}");
    }
    for url in ["postgres://me:geheim", "postgres://me@h/db?port=geheim", "postgres://me:geheim@h:x/db"] {
        let error =
            load_env([("DATABASE_URL".to_owned(), url.to_owned())]).map(drop).unwrap_err().to_string();
        assert!(!error.contains("geheim"), "{url}\n---\n{error}");
    }
}

#[test]
fn what_is_not_there_is_refused_or_said() {
    assert!(load("[pgbouncer]\nauth_type = cert").unwrap_err().to_string().contains("verify-full"));
    assert!(load("[pgbouncer]\nauth_dbname = pgbouncer").unwrap_err().to_string().contains("reserved"));
    let loaded = load("[pgbouncer]\nserver_tls_sslmode = prefer\nresolv_conf = x").unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(|w| w.message.clone()).collect();
    assert_eq!(
        warnings,
        [
            "resolv_conf has no effect: the system's resolver looks names up, with /etc/resolv.conf and /etc/hosts"
        ]
    );
}
