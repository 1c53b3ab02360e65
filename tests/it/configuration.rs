//! Files, the environment, RELOAD.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use pgweir::config::load;

use crate::support::raw::Raw;
use crate::support::{
    PASSWORD, Pooler, Running, USER, cluster, eventually, exe, free_port, run, unprivileged,
};

#[test]
fn every_sample_is_valid() {
    let mut files = Vec::new();
    for folder in ["config", "docker", "k8s"] {
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
    }
    let samples = files.iter().filter(|path| path.extension().is_some_and(|e| e == "ini" || e == "toml"));
    let mut count = 0;
    for path in samples {
        let loaded = load::load_file(path).unwrap_or_else(|error| panic!("{error}"));
        assert!(loaded.warnings.is_empty(), "{}: {:?}", path.display(), loaded.warnings);
        assert!(!loaded.config.databases.is_empty() || loaded.config.fallback.is_some());
        count += 1;
    }
    assert!(count >= 9, "{files:?}");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// The compose file that starts from variables alone.
#[test]
fn the_sample_environment_is_valid() {
    let text = include_str!("../../docker/fhir/compose.yaml");
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("PGBOUNCER_")?.split_once(": "));
    let unquoted = |value: &str| match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].split(quote).next().unwrap().to_owned(),
        _ => value.to_owned(),
    };
    let variables = lines.map(|(name, value)| (format!("PGBOUNCER_{name}"), unquoted(value)));
    let loaded = load::load_env(variables).unwrap().unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let fhirdb = &loaded.config.databases["fhirdb"];
    assert_eq!(fhirdb.hosts().len(), 2);
    assert_eq!(fhirdb.read_write_split, Some(true));
    assert_eq!(loaded.config.settings.default_pool_size, 30);
    assert_eq!(loaded.config.passwords.len(), 1);
}

#[test]
fn toml_serves_as_well() {
    let dir = Pooler::new_dir();
    let port = free_port();
    let text = format!(
        "[pgbouncer]\nlisten_addr = \"127.0.0.1\"\nlisten_port = {port}\nunix_socket_dir = \"\"\nhttp_port = 0\n\
         auth_type = \"scram-sha-256\"\nauth_file = \"{}/userlist.txt\"\npool_mode = \"transaction\"\n\
         [databases.app]\nhost = \"127.0.0.1\"\nport = {}\n",
        dir.display(),
        cluster().primary
    );
    std::fs::write(dir.join("pgweir.toml"), text).unwrap();
    let program = unprivileged(exe().to_str().unwrap()).arg("-q").arg(dir.join("pgweir.toml")).spawn();
    let _running = Running(program.unwrap());
    eventually("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    run(async { assert_eq!(Raw::log_in(port, "app").await.value("SELECT 1").await, "1") });
}

/// The pooler with these variables and no others: what there is in the environment of the tests, or in /etc, has no part in it.
fn from_environment(port: u16, variables: &[(&str, &str)]) -> Running {
    let mut program = unprivileged(exe().to_str().unwrap());
    program.env_clear().envs(variables.iter().copied()).arg("-q").current_dir(Pooler::new_dir());
    let running = Running(program.spawn().unwrap());
    eventually("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    running
}

#[test]
fn the_environment_is_enough() {
    let port = free_port();
    let password = PASSWORD.replace(' ', "%20");
    let _running = from_environment(
        port,
        &[
            ("DATABASE_URL", &format!("postgres://{USER}:{password}@127.0.0.1:{}/app", cluster().primary)),
            ("PGBOUNCER_LISTEN_PORT", &port.to_string()),
            ("PGBOUNCER_POOL_MODE", "transaction"),
            ("PGBOUNCER_UNIX_SOCKET_DIR", cluster().dir.to_str().unwrap()),
            ("PGBOUNCER_HTTP_PORT", "0"),
        ],
    );
    run(async {
        assert_eq!(Raw::log_in(port, "app").await.value("SELECT current_database()").await, "app");
        Raw::log_in(port, "pgbouncer").await.rows("SHOW POOLS").await;
    });
}

/// As in edoburu/pgbouncer: whoever the database lets in comes in, because the one user who is named may look.
#[test]
fn who_is_named_in_the_environment_looks_others_up() {
    let port = free_port();
    let _running = from_environment(
        port,
        &[
            ("DB_HOST", "127.0.0.1"),
            ("DB_PORT", &cluster().primary.to_string()),
            ("DB_USER", "postgres"),
            ("DB_PASSWORD", "postgres"),
            ("LISTEN_PORT", &port.to_string()),
            ("UNIX_SOCKET_DIR", cluster().dir.to_str().unwrap()),
            ("PGBOUNCER_HTTP_PORT", "0"),
        ],
    );
    run(async {
        assert_eq!(Raw::log_in(port, "app").await.value("SELECT current_user").await, USER);
        let parameters = [("user", "other"), ("database", "app")];
        let refused = Raw::log_in_with(port, 3 << 16, &parameters, "not other").await;
        assert_eq!(refused.err().unwrap().field('C'), "28P01");
    });
}

#[test]
fn variables_with_the_prefix_are_enough() {
    let port = free_port();
    let _running = from_environment(
        port,
        &[
            ("PGBOUNCER_DSN_0", &format!("app=host=127.0.0.1 port={} dbname=app", cluster().primary)),
            ("PGBOUNCER_USERLIST", &format!("\"{USER}\" \"{PASSWORD}\"\\n\"other\" \"other\"")),
            ("PGBOUNCER_PORT", &port.to_string()),
            ("PGBOUNCER_SERVICE_PORT", "6432"),
            ("PGBOUNCER_SOCKET_DIR", cluster().dir.to_str().unwrap()),
            ("PGBOUNCER_HTTP_PORT", "0"),
        ],
    );
    run(async { assert_eq!(Raw::log_in(port, "app").await.value("SELECT 1").await, "1") });
}

/// As Kubernetes mounts Secrets: a file per user, behind links that change all at once.
#[test]
fn a_folder_of_users() {
    let dir = Pooler::new_dir();
    let users = dir.join("userlist.txt");
    std::fs::remove_file(&users).unwrap();
    let put = |version: &str, password: &str| {
        std::fs::create_dir_all(dir.join(version)).unwrap();
        std::fs::write(dir.join(version).join(USER), password).unwrap();
        let _ = std::fs::remove_file(&users);
        std::os::unix::fs::symlink(version, &users).unwrap();
    };
    put("..1", PASSWORD);
    let port = free_port();
    let databases =
        format!("app = host=127.0.0.1 port={} user={USER} password='{PASSWORD}'\n", cluster().primary);
    std::fs::write(dir.join("pgweir.ini"), Pooler::ini(&dir, port, &databases, "")).unwrap();
    let pooler = Pooler::launch(port, dir.clone());
    run(async {
        assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
        put("..2", "rotated");
        pooler.signal(Signal::SIGHUP);
        eventually("the new password", || pooler.log().contains("re-reading config"));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let parameters = [("user", USER), ("database", "app")];
        let mut raw = Raw::log_in_with(pooler.port, 3 << 16, &parameters, "rotated").await.unwrap();
        assert_eq!(raw.value("SELECT 1").await, "1");
        assert!(Raw::log_in_with(pooler.port, 3 << 16, &parameters, PASSWORD).await.is_err());
    });
}

#[test]
fn reload_changes_what_it_can() {
    let pooler = Pooler::start("");
    let port = cluster().primary;
    run(async {
        let mut raw = pooler.raw().await;
        let backend = raw.value("SELECT pg_backend_pid()").await;
        let databases =
            format!("app = host=127.0.0.1 port={port}\nnew = host=127.0.0.1 port={port} dbname=app\n");
        pooler.rewrite(&databases, "default_pool_size = 7");
        pooler.signal(Signal::SIGHUP);
        eventually("the new database", || pooler.log().contains("re-reading config"));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(Raw::log_in(pooler.port, "new").await.value("SELECT 1").await, "1");
        assert_eq!(pooler.console("SHOW default_pool_size").await, [["7"]]);
        // What did not change was left alone.
        assert_eq!(raw.value("SELECT pg_backend_pid()").await, backend);
        // Other parameters make servers obsolete.
        pooler.rewrite(&format!("app = host=127.0.0.1 port={port} timezone=CET\n"), "");
        pooler.console("RELOAD").await;
        assert_ne!(raw.value("SELECT pg_backend_pid()").await, backend);
        let parameters = [("user", USER), ("database", "new")];
        assert!(Raw::log_in_with(pooler.port, 3 << 16, &parameters, PASSWORD).await.is_err());
        // A mistake changes nothing and is told.
        pooler.rewrite("app = hots=127.0.0.1\n", "");
        let error = Raw::log_in(pooler.port, "pgbouncer").await.error("RELOAD").await;
        assert_eq!(error.field('C'), "F0000");
        assert!(error.field('D').contains("pgweir.ini:2:1: database app: unknown key hots"), "{error:?}");
        assert_eq!(raw.value("SELECT 1").await, "1");
    });
}

#[test]
fn a_database_that_is_gone_takes_its_clients_along() {
    let port = cluster().primary;
    let both = format!("app = host=127.0.0.1 port={port}\nold = host=127.0.0.1 port={port} dbname=app\n");
    let pooler = Pooler::with_databases(&both, "");
    run(async {
        let mut old = Raw::log_in(pooler.port, "old").await;
        assert_eq!(old.value("SELECT 1").await, "1");
        let mut stays = pooler.raw().await;
        pooler.rewrite(&format!("app = host=127.0.0.1 port={port}\n"), "");
        pooler.console("RELOAD").await;
        assert_eq!(old.receive().await.unwrap().field('C'), "57P01");
        assert_eq!(stays.value("SELECT 1").await, "1");
    });
}

/// This test is the syslogd, where there is none and it may be one; elsewhere it has nothing to look at.
#[test]
fn syslog_gets_the_lines_while_it_is_asked_for() {
    struct Remove;
    impl Drop for Remove {
        fn drop(&mut self) {
            let _ = std::fs::remove_file("/dev/log");
        }
    }
    let syslogd = match UnixDatagram::bind("/dev/log") {
        Ok(socket) => socket,
        Err(error) => return println!("SKIPPED: cannot listen at /dev/log: {error}"),
    };
    let _remove = Remove;
    std::fs::set_permissions("/dev/log", std::fs::Permissions::from_mode(0o666)).unwrap();
    syslogd.set_nonblocking(true).unwrap();
    let heard = || {
        let mut buf = [0; 4096];
        std::iter::from_fn(|| {
            syslogd.recv(&mut buf).ok().map(|n| String::from_utf8_lossy(&buf[..n]).into_owned())
        })
        .collect::<Vec<_>>()
    };
    let pooler = Pooler::start("syslog = 1\nsyslog_facility = local3\nsyslog_ident = nx-pgbouncer\n");
    let says = |lines: &[String], text: &str| {
        let end = format!(" nx-pgbouncer[{}]: {text}", pooler.pid());
        lines.iter().any(|line| line.starts_with("<158>") && line.contains(&end))
    };
    let mut lines = Vec::new();
    eventually("it is up", || {
        lines.extend(heard());
        says(&lines, "process up")
    });
    let databases = format!("app = host=127.0.0.1 port={}\n", cluster().primary);
    pooler.rewrite(&databases, "syslog_facility = local3\nsyslog_ident = nx-pgbouncer\n");
    run(async {
        pooler.console("RELOAD").await;
        heard();
        pooler.raw().await.value("SELECT 1").await;
        assert!(pooler.log().contains("login attempt: db=app"));
        assert_eq!(heard(), [""; 0]);
        pooler.console("SET syslog = 1").await;
        pooler.raw().await;
    });
    eventually("it is on again", || {
        lines = heard();
        says(&lines, "C-") && lines.iter().any(|line| line.contains("login attempt: db=app"))
    });
}

#[test]
fn the_log_moves_to_another_file_while_running() {
    let pooler = Pooler::start("");
    let databases = format!("app = host=127.0.0.1 port={}\n", cluster().primary);
    pooler.rewrite(&databases, "logfile = elsewhere");
    run(async {
        pooler.console("RELOAD").await;
        pooler.raw().await;
    });
    let elsewhere = std::fs::read_to_string(pooler.dir.join("elsewhere")).unwrap();
    assert!(elsewhere.contains("login attempt: db=app") && !pooler.log().contains("login attempt: db=app"));
    // Where it cannot be it stays where it is.
    pooler.rewrite(&databases, "logfile = nowhere/log");
    run(async {
        pooler.console("RELOAD").await;
    });
    let elsewhere = std::fs::read_to_string(pooler.dir.join("elsewhere")).unwrap();
    assert!(elsewhere.contains("cannot open logfile nowhere/log"), "{elsewhere}");
}
