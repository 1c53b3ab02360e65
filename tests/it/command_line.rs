//! Options, signals, exit codes.

use std::process::{Command, Output};

use nix::sys::signal::Signal;

use crate::support::raw::message;
use crate::support::{Ends, Pooler, cluster, eventually, exe, free_port, run, unprivileged};

fn output(arguments: &[&str]) -> Output {
    unprivileged(exe().to_str().unwrap()).args(arguments).env_clear().ended()
}

/// What it says without arguments where there is nothing at the usual place. `None` where there is something and the tests
/// have no right to hide it.
fn without_usual_file() -> Option<Output> {
    let folder = "/etc/pgbouncer";
    if !std::path::Path::new(folder).join("pgbouncer.ini").exists() {
        return Some(output(&[]));
    }
    let hide = |program: Command| {
        let hidden = ["-m", "sh", "-c", "mount -t tmpfs none \"$0\" && exec \"$@\"", folder];
        let mut command = Command::new("unshare");
        command.args(hidden).arg(program.get_program()).args(program.get_args()).env_clear();
        command.ended()
    };
    let works = hide(Command::new("true")).status.success();
    works.then(|| hide(unprivileged(exe().to_str().unwrap())))
}

#[test]
fn version_and_help() {
    let version = output(&["-V"]);
    assert!(version.status.success());
    let pooler = Pooler::start("");
    let shown = run(pooler.console("SHOW VERSION"));
    assert_eq!(String::from_utf8_lossy(&version.stdout).lines().next(), Some(shown[0][0].as_str()));
    let help = output(&["--help"]);
    assert!(help.status.success());
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.lines().all(|line| line.len() <= 80), "fits a terminal");
    assert!(help.contains("-R, --reboot") && help.contains("DATABASE_URL"));
}

#[test]
fn mistakes_are_explained() {
    let check = |output: &Output, expected: &str| {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(expected), "{output:?}");
    };
    check(&output(&["--nonsense"]), "--nonsense");
    check(&output(&["/nonexistent.ini"]), "cannot read \"/nonexistent.ini\"");
    match without_usual_file() {
        Some(output) => check(&output, "no configuration: name a file"),
        None => println!("SKIPPED: /etc/pgbouncer cannot be hidden"),
    }
    let dir = Pooler::new_dir();
    let file = dir.join("bad.ini");
    std::fs::write(&file, "[databases]\na = host=b pasword=secret\n[pgbouncer]\nmax_client_con = 3\n")
        .unwrap();
    let output = output(&[file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("bad.ini:4:1: unknown setting max_client_con")
            && said.contains("did you mean max_client_conn?"),
        "{said}"
    );
    assert!(said.contains("did you mean password?"), "{said}");
}

#[test]
fn signals_end_it_in_their_own_way() {
    let mut pooler = Pooler::start("pidfile = pgweir.pid");
    let pidfile = pooler.dir.join("pgweir.pid");
    eventually("there is a pidfile", || {
        std::fs::read_to_string(&pidfile).is_ok_and(|pid| pid.trim() == pooler_pid(&pooler))
    });
    run(async {
        let mut raw = pooler.raw().await;
        pooler.signal(Signal::SIGTERM);
        eventually("it has noticed", || pooler.log().contains("waiting for all clients"));
        assert_eq!(raw.value("SELECT 1").await, "1");
        assert!(pooler.is_running());
        raw.send(&message(b'X', b"")).await;
    });
    assert!(pooler.wait().success());
    assert!(!pooler.dir.join("pgweir.pid").exists());

    let mut pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows("BEGIN").await;
        pooler.signal(Signal::SIGINT);
        eventually("it has noticed", || pooler.log().contains("waiting for all servers"));
        assert_eq!(raw.value("SELECT 1").await, "1");
        raw.rows("COMMIT").await;
    });
    assert!(pooler.wait().success());

    for (first, second) in [(Signal::SIGTERM, Signal::SIGTERM), (Signal::SIGINT, Signal::SIGINT)] {
        let mut pooler = Pooler::start("");
        run(async {
            let mut raw = pooler.raw().await;
            raw.rows("BEGIN").await;
            pooler.signal(first);
            eventually("it has noticed", || pooler.log().contains("shutting down"));
            pooler.signal(second);
            assert!(pooler.wait().success());
        });
    }
    let mut pooler = Pooler::start("");
    pooler.signal(Signal::SIGQUIT);
    assert!(pooler.wait().success());
}

/// Runs a statement with psql over the pooler's Unix socket, as the user the pooler runs as.
fn by_unix_socket(pooler: &Pooler, user: &str, database: &str, sql: &str) -> Output {
    let psql = cluster().program("psql");
    unprivileged(psql.get_program().to_str().unwrap())
        .args(["-XAtq", "-U", user, "-d", database, "-c", sql, "-p", &pooler.port.to_string(), "-h"])
        .arg(&pooler.dir)
        .ended()
}

#[test]
fn admins_come_in_by_the_unix_socket_until_the_end() {
    for (signal, ends) in [(Signal::SIGTERM, "client"), (Signal::SIGINT, "transaction")] {
        let mut pooler = Pooler::start("auth_type = trust");
        run(async {
            let mut raw = pooler.raw().await;
            raw.rows("BEGIN").await;
            pooler.signal(signal);
            eventually("TCP is refused", || {
                std::net::TcpStream::connect(("127.0.0.1", pooler.port)).is_err()
            });
            let refused = by_unix_socket(&pooler, "app", "app", "SELECT 1");
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success() && said.contains("pooler is shutting down"), "{said}");
            let shown = by_unix_socket(&pooler, "pgbouncer", "pgbouncer", "SHOW VERSION");
            assert!(String::from_utf8_lossy(&shown.stdout).contains("pgweir"), "{shown:?}");
            raw.rows("COMMIT").await;
            if ends == "client" {
                raw.send(&message(b'X', b"")).await;
            }
        });
        assert!(pooler.wait().success());
        assert!(!pooler.dir.join(format!(".s.PGSQL.{}", pooler.port)).exists());
    }
}

fn pooler_pid(pooler: &Pooler) -> String {
    // As root the process is a child of setpriv's exec: the same one.
    pooler.pid().to_string()
}

#[test]
fn usr1_pauses_and_usr2_resumes() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        pooler.signal(Signal::SIGUSR1);
        eventually("it pauses", || pooler.log().contains("SIGUSR1"));
        raw.send(&crate::support::raw::query("SELECT 1")).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert_eq!(pooler.figure("SHOW POOLS", "app", "cl_waiting").await, 1);
        pooler.signal(Signal::SIGUSR2);
        assert!(raw.until_ready().await.iter().any(|m| m.tag == 'D'));
    });
}

#[test]
fn a_daemon_leaves_the_shell_alone() {
    let dir = Pooler::new_dir();
    let port = free_port();
    let databases = format!("app = host=127.0.0.1 port={}\n", cluster().primary);
    std::fs::write(dir.join("pgweir.ini"), Pooler::ini(&dir, port, &databases, "pidfile = pgweir.pid"))
        .unwrap();
    let output = unprivileged(exe().to_str().unwrap()).args(["-d", "pgweir.ini"]).current_dir(&dir).ended();
    assert!(output.status.success(), "{output:?}");
    let mut pid = 0;
    eventually("it has written its pidfile", || {
        let text = std::fs::read_to_string(dir.join("pgweir.pid")).unwrap_or_default();
        pid = text.trim().parse().unwrap_or(0);
        pid > 0
    });
    eventually("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    // A second one with the same pidfile is refused.
    let second = unprivileged(exe().to_str().unwrap()).arg("pgweir.ini").current_dir(&dir).ended();
    assert!(String::from_utf8_lossy(&second.stderr).contains("another instance running?"), "{second:?}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGQUIT).unwrap();
    eventually("it is gone", || !dir.join("pgweir.pid").exists());
}

#[test]
fn root_is_refused() {
    if nix::unistd::geteuid().is_root() {
        let dir = Pooler::new_dir();
        std::fs::write(dir.join("pgweir.ini"), Pooler::ini(&dir, free_port(), "", "")).unwrap();
        let output = Command::new(exe()).arg(dir.join("pgweir.ini")).ended();
        assert!(String::from_utf8_lossy(&output.stderr).contains("should not run as root"));
    }
}

#[test]
fn the_healthcheck_tells() {
    let pooler = Pooler::start("");
    let file = pooler.dir.join("pgweir.ini");
    let file = file.to_str().unwrap().to_owned();
    assert!(output(&["healthcheck", &file]).status.success());
    drop(pooler);
    assert!(!output(&["healthcheck", &file]).status.success());
}
