//! The service manager: what it is told, and sockets that it has opened.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{
    Ends, PASSWORD, Pooler, Raw, USER, cluster, eventually, exe, free_port, run, unprivileged,
};

/// The program, as a service manager starts it: sockets at 3 and 4.
fn start(dir: &Path, sockets: Option<(OwnedFd, OwnedFd)>, arguments: &str) -> Child {
    let script = match sockets {
        Some(_) => "exec 3<&0 4<&1 0</dev/null 1>/dev/null; LISTEN_FDS=2 LISTEN_PID=$$ exec",
        None => "exec",
    };
    let (stdin, stdout) =
        sockets.map_or((Stdio::null(), Stdio::null()), |(a, b)| (Stdio::from(a), Stdio::from(b)));
    unprivileged("sh")
        .arg("-c")
        .arg(format!("{script} {} {arguments} pgweir.ini", exe().display()))
        .current_dir(dir)
        .env("NOTIFY_SOCKET", dir.join("notify"))
        .env("WATCHDOG_USEC", "1000000")
        .stdin(stdin)
        .stdout(stdout)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn prepare(settings: &str) -> (std::path::PathBuf, u16, UnixDatagram) {
    let (dir, port) = (Pooler::new_dir(), free_port());
    let databases = format!("app = host=127.0.0.1 port={}\n", cluster().primary);
    std::fs::write(dir.join("pgweir.ini"), Pooler::ini(&dir, port, &databases, settings)).unwrap();
    let notify = UnixDatagram::bind(dir.join("notify")).unwrap();
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(dir.join("notify"), everybody).unwrap();
    notify.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (dir, port, notify)
}

/// Waits for a message that begins like this, and returns it.
#[track_caller]
fn told(notify: &UnixDatagram, what: &str) -> String {
    loop {
        let mut buf = [0; 1000];
        let n = notify.recv(&mut buf).unwrap_or_else(|error| panic!("never told {what}: {error}"));
        let text = String::from_utf8_lossy(&buf[..n]).into_owned();
        if text.starts_with(what) {
            return text;
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

#[test]
fn it_is_told_what_happens() {
    let (dir, port, notify) = prepare("stats_period = 1\nlog_stats = 0");
    let mut child = start(&dir, None, "-q");
    told(&notify, "READY=1");
    told(&notify, "WATCHDOG=1");
    told(&notify, "WATCHDOG=1");
    assert!(told(&notify, "STATUS=").contains("xacts/s"));
    signal(&child, Signal::SIGHUP);
    assert!(told(&notify, "RELOADING=1").contains("MONOTONIC_USEC="));
    told(&notify, "READY=1");
    let mut successor = start(&dir, None, "-q -R");
    assert_eq!(told(&notify, "MAINPID=").trim(), format!("MAINPID={}", successor.id()));
    assert!(child.ended().success());
    run(async { assert_eq!(Raw::log_in(port, "app").await.value("SELECT 1").await, "1") });
    signal(&successor, Signal::SIGTERM);
    told(&notify, "STOPPING=1");
    assert!(successor.ended().success());
}

#[test]
fn its_sockets_are_used_and_handed_over() {
    let (dir, unused, notify) = prepare("");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let path = dir.join(format!(".s.PGSQL.{port}"));
    let unix = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mut child = start(&dir, Some((tcp.into(), unix.into())), "-q");
    told(&notify, "READY=1");
    assert!(std::net::TcpStream::connect(("127.0.0.1", unused)).is_err());
    std::os::unix::net::UnixStream::connect(&path).unwrap();
    run(async {
        let parameters = [("user", USER), ("database", "app")];
        let mut client = Raw::log_in_with(port, 3 << 16, &parameters, PASSWORD).await.unwrap();
        assert_eq!(client.value("SELECT 1").await, "1");
        // Whoever takes over finds the old process by the Unix socket.
        let ini = std::fs::read_to_string(dir.join("pgweir.ini")).unwrap();
        let ini = ini.replace(&format!("listen_port = {unused}"), &format!("listen_port = {port}"));
        std::fs::write(dir.join("pgweir.ini"), ini.replace("listen_addr = 127.0.0.1", "listen_addr ="))
            .unwrap();
        let successor = start(&dir, None, "-q -R");
        assert!(child.ended().success());
        assert_eq!(client.value("SELECT 2").await, "2");
        let mut other = Raw::log_in_with(port, 3 << 16, &parameters, PASSWORD).await.unwrap();
        assert_eq!(other.value("SELECT 3").await, "3");
        child = successor;
    });
    signal(&child, Signal::SIGQUIT);
    child.ended();
    assert!(path.exists(), "the file is the service manager's");
    let log = std::fs::read_to_string(dir.join("log")).unwrap();
    assert!(log.contains("sockets passed from service manager, listen_addr ignored"), "{log}");
}

#[test]
fn the_unix_socket_gets_its_group() {
    let user = crate::support::unprivileged_user();
    let pooler = Pooler::start(&format!("unix_socket_group = {}\nunix_socket_mode = 0770", user.gid));
    let file = std::fs::metadata(pooler.dir.join(format!(".s.PGSQL.{}", pooler.port))).unwrap();
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    assert_eq!((file.gid(), file.permissions().mode() & 0o777), (user.gid.as_raw(), 0o770));
    let (dir, _, _notify) = prepare("unix_socket_group = no_such_group");
    eventually("it gives up", || {
        let mut child = start(&dir, None, "-q");
        !child.ended().success()
    });
    assert!(std::fs::read_to_string(dir.join("log")).unwrap().contains("there is no group no_such_group"));
}
