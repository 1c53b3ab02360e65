//! Online restart: a successor gets clients and sockets, and nobody notices.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::support::raw::{Raw, bind, error, execute, message, parse, query, startup, sync};
use crate::support::{
    Ends, PASSWORD, Pooler, Running, USER, cluster, eventually, exe, free_port, run, unprivileged,
};

async fn cancel(port: u16, key: &(u32, Vec<u8>)) {
    let mut raw = Raw::connect(port).await;
    let body = [&80_877_102u32.to_be_bytes()[..], &key.0.to_be_bytes(), &key.1].concat();
    raw.send(&[&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], &body].concat()).await;
    assert_eq!(raw.receive().await, None);
}

#[test]
fn idle_clients_go_over_with_all_they_have() {
    let mut old = Pooler::start("pidfile = pgweir.pid");
    run(async {
        let mut client = old.raw().await;
        client.rows("SET TimeZone = 'Asia/Ho_Chi_Minh'").await;
        client.rows("SET application_name = 'traveller'").await;
        assert_eq!(client.tags(&[parse("a", "SELECT 41 + 1"), sync()].concat()).await, "1Z");
        // The beginning of a message; the rest will come to the successor.
        let whole = query("SHOW TimeZone");
        client.send(&whole[..3]).await;
        let mut idle = old.raw().await;
        let new = old.successor();
        assert!(old.wait().success());
        client.send(&whole[3..]).await;
        assert!(
            client.until_ready().await.iter().any(|m| m.tag == 'D' && m.values()[0] == "Asia/Ho_Chi_Minh")
        );
        assert_eq!(client.value("SHOW application_name").await, "traveller");
        client.send(&[bind("a"), execute(), sync()].concat()).await;
        assert!(client.until_ready().await.iter().any(|m| m.tag == 'D' && m.values()[0] == "42"));
        let clients = new.console("SHOW CLIENTS").await;
        assert!(clients.iter().any(|row| row.iter().any(|value| value == "traveller")), "{clients:?}");
        // Its key is the same.
        client.send(&query("SELECT pg_sleep(20)")).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        cancel(new.port, &client.key).await;
        assert_eq!(error(&client.until_ready().await).field('C'), "57014");
        assert_eq!(idle.value("SELECT 7").await, "7");
        let pidfile = std::fs::read_to_string(new.dir.join("pgweir.pid")).unwrap();
        assert_eq!(pidfile.trim(), new.pid().to_string());
    });
}

#[test]
fn what_is_under_way_ends_where_it_began() {
    let mut old = Pooler::start("");
    run(async {
        let (mut busy, mut open) = (old.raw().await, old.raw().await);
        let mut cancelled = old.raw().await;
        open.rows("BEGIN").await;
        busy.send(&query("SELECT pg_sleep(1), 'done'")).await;
        cancelled.send(&query("SELECT pg_sleep(20)")).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let new = old.successor();
        // The request comes to the new process, the client is still with the old one.
        cancel(new.port, &cancelled.key).await;
        assert_eq!(error(&cancelled.until_ready().await).field('C'), "57014");
        assert!(busy.until_ready().await.iter().any(|m| m.tag == 'D' && m.values()[1] == "done"));
        assert_eq!(open.value("SELECT 1").await, "1");
        assert!(old.is_running());
        open.rows("COMMIT").await;
        assert!(old.wait().success());
        for client in [&mut busy, &mut open, &mut cancelled] {
            assert_eq!(client.value("SELECT 2").await, "2");
        }
        assert_eq!(new.raw().await.value("SELECT 3").await, "3");
    });
}

#[test]
fn sessions_go_over_with_their_servers() {
    let mut old = Pooler::start("pool_mode = session");
    run(async {
        let mut client = old.raw().await;
        client.rows("CREATE TEMP TABLE mine AS SELECT 5 AS n").await;
        assert_eq!(client.tags(&[parse("a", "SELECT n + 1 FROM mine"), sync()].concat()).await, "1Z");
        let backend = client.value("SELECT pg_backend_pid()").await;
        let new = old.successor();
        assert!(old.wait().success());
        assert_eq!(client.value("SELECT n FROM mine").await, "5");
        client.send(&[bind("a"), execute(), sync()].concat()).await;
        assert!(client.until_ready().await.iter().any(|m| m.tag == 'D' && m.values()[0] == "6"));
        assert_eq!(client.value("SELECT pg_backend_pid()").await, backend);
        client.send(&query("SELECT pg_sleep(20)")).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        cancel(new.port, &client.key).await;
        assert_eq!(error(&client.until_ready().await).field('C'), "57014");
        assert_eq!(new.figure("SHOW POOLS", "app", "sv_active").await, 1);
        // What it leaves behind is a server like any other.
        client.send(&message(b'X', b"")).await;
        while new.figure("SHOW POOLS", "app", "sv_idle").await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut next = new.raw().await;
        assert_eq!(next.value("SELECT pg_backend_pid()").await, backend);
        assert_eq!(next.error("SELECT * FROM mine").await.field('C'), "42P01");
        drop(next);
        assert_eq!(new.figure("SHOW DATABASES", "app", "current_connections").await, 1);
    });
}

#[test]
fn keys_that_clients_have_shown_go_over() {
    let verifier =
        cluster().admin(cluster().primary, "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'");
    let mut old = Pooler::start("server_lifetime = 1");
    std::fs::write(old.dir.join("userlist.txt"), format!("\"{USER}\" \"{verifier}\"\n")).unwrap();
    run(async {
        old.console("RELOAD").await;
        let mut client = old.raw().await;
        assert_eq!(client.value("SELECT 1").await, "1");
        let new = old.successor();
        assert!(old.wait().success());
        // No client has logged in to the new process: it has the keys from the old one.
        assert_eq!(client.value("SELECT 2").await, "2");
        drop(new);
    });
}

#[test]
fn a_busy_pooler_is_replaced_again_and_again() {
    let mut current = Pooler::start("default_pool_size = 5\nworkers = 2\nmax_client_conn = 1000");
    let port = current.port;
    let (over, queries, logins) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let work = async || {
        let mut client = Raw::log_in(port, "app").await;
        while !over.load(Relaxed) {
            let n = queries.fetch_add(1, Relaxed).to_string();
            assert_eq!(client.value(&format!("SELECT {n}")).await, n);
        }
    };
    let come_and_go = async || {
        while !over.load(Relaxed) {
            assert_eq!(Raw::log_in(port, "app").await.value("SELECT 1").await, "1");
            logins.fetch_add(1, Relaxed);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| run(work()));
        }
        for _ in 0..3 {
            scope.spawn(|| run(come_and_go()));
        }
        scope.spawn(|| {
            for _ in 0..4 {
                std::thread::sleep(Duration::from_millis(500));
                let next = current.successor();
                assert!(current.wait().success());
                current = next;
            }
            over.store(true, Relaxed);
        });
    });
    assert!(queries.load(Relaxed) > 200 && logins.load(Relaxed) > 20, "{queries:?} {logins:?}");
}

#[test]
fn clients_with_tls_stay_until_they_leave() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (dir, port) = (Pooler::new_dir(), free_port());
    std::fs::write(dir.join("cert.pem"), certificate.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), certificate.signing_key.serialize_pem()).unwrap();
    let databases = format!("app = host=127.0.0.1 port={}\n", cluster().primary);
    let tls = "client_tls_sslmode = prefer\nclient_tls_cert_file = cert.pem\nclient_tls_key_file = key.pem";
    std::fs::write(dir.join("pgweir.ini"), Pooler::ini(&dir, port, &databases, tls)).unwrap();
    let mut old = Pooler::launch(port, dir);
    let url = format!("host=127.0.0.1 port={} user={USER} dbname=app sslmode=require", old.port);
    // Its answers are waited for as long as it runs.
    let mut psql = std::process::Command::new("timeout")
        .arg("60")
        .arg(cluster().program("psql").get_program())
        .args([&url, "-AtqX", "-v", "ON_ERROR_STOP=1"])
        .env("PGPASSWORD", PASSWORD)
        .env("HOME", &old.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ask = |sql: &str| {
        psql.stdin.as_mut().unwrap().write_all(sql.as_bytes()).unwrap();
        let mut answer = [0; 2];
        psql.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
        char::from(answer[0])
    };
    assert_eq!(ask("SELECT 1;\n"), '1');
    let new = old.successor();
    run(async { assert_eq!(new.raw().await.value("SELECT 2").await, "2") });
    assert_eq!(ask("SELECT 3;\n"), '3');
    assert!(old.is_running());
    drop(psql.stdin.take());
    assert!(psql.ended().success() && old.wait().success());
}

#[test]
fn only_the_own_user_may_take_over() {
    let mut pooler = Pooler::start("");
    run(async {
        // By TCP nobody knows who that is: the option is unknown, and the console a console.
        let option = [("user", USER), ("database", "pgbouncer"), ("_pq_.pgweir_takeover", "1")];
        let mut raw = Raw::connect(pooler.port).await;
        raw.send(&startup(3 << 16, &option)).await;
        let first = raw.receive().await.unwrap();
        assert_eq!(first.tag, 'v');
        assert!(String::from_utf8_lossy(&first.body).contains("_pq_.pgweir_takeover"));
        raw.authenticate(USER, PASSWORD).await.unwrap();
        assert!(!raw.rows("SHOW VERSION").await.is_empty());
        // Whoever asks and then leaves has changed nothing.
        let option = [("user", "pgbouncer"), ("database", "pgbouncer"), ("_pq_.pgweir_takeover", "1")];
        let path = pooler.dir.join(format!(".s.PGSQL.{}", pooler.port));
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(&startup(3 << 16, &option)).unwrap();
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
        drop(stream);
        assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
    });
    assert!(pooler.is_running());
}

fn refused_successor(pooler: &Pooler) -> String {
    let output =
        unprivileged(exe().to_str().unwrap()).args(["-R", "pgweir.ini"]).current_dir(&pooler.dir).ended();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_successor_that_fails_leaves_everything_as_it_was() {
    let mut pooler = Pooler::start("pidfile = pgweir.pid");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let http = format!("pidfile = pgweir.pid\nhttp_port = {}", taken.local_addr().unwrap().port());
    pooler.rewrite(&format!("app = host=127.0.0.1 port={}\n", cluster().primary), &http);
    run(async {
        let mut client = pooler.raw().await;
        let said = refused_successor(&pooler);
        assert!(said.contains("cannot serve /metrics"), "{said}");
        assert_eq!(client.value("SELECT 1").await, "1");
        assert_eq!(pooler.raw().await.value("SELECT 2").await, "2");
        assert!(!pooler.console("SHOW VERSION").await.is_empty());
    });
    assert!(pooler.is_running());
    let pidfile = std::fs::read_to_string(pooler.dir.join("pgweir.pid")).unwrap();
    assert_eq!(pidfile.trim(), pooler.pid().to_string());
    drop(taken);
    let new = pooler.successor();
    assert!(pooler.wait().success());
    run(async { assert_eq!(new.raw().await.value("SELECT 3").await, "3") });
}

#[test]
fn a_paused_pooler_is_not_replaced() {
    let mut pooler = Pooler::start("pidfile = pgweir.pid");
    run(async {
        for (command, why) in [("PAUSE", "it is paused"), ("PAUSE app", "a database is paused")] {
            pooler.console(command).await;
            let said = refused_successor(&pooler);
            assert!(said.contains(why), "{said}");
            pooler.console(&command.replace("PAUSE", "RESUME")).await;
        }
        assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
    });
    assert!(pooler.is_running());
    let pidfile = std::fs::read_to_string(pooler.dir.join("pgweir.pid")).unwrap();
    assert_eq!(pidfile.trim(), pooler.pid().to_string());
}

/// A process that has never heard of handing over: it says so, and makes room.
#[test]
fn others_make_room() {
    let dir = Pooler::new_dir();
    let port = free_port();
    let databases = format!("app = host=127.0.0.1 port={}\n", cluster().primary);
    std::fs::write(dir.join("pgweir.ini"), Pooler::ini(&dir, port, &databases, "")).unwrap();
    let path = dir.join(format!(".s.PGSQL.{port}"));
    let unix = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let tcp = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let old = std::thread::spawn(move || {
        let (mut stream, _) = unix.accept().unwrap();
        let mut buf = [0; 1000];
        assert!(stream.read(&mut buf).unwrap() > 8);
        let unknown = [&[0, 3, 0, 0, 0, 0, 0, 1][..], b"_pq_.pgweir_takeover\0"].concat();
        let ready = message(b'Z', b"I");
        let answer = [message(b'v', &unknown), message(b'R', &[0; 4]), ready.clone()].concat();
        stream.write_all(&answer).unwrap();
        let n = stream.read(&mut buf).unwrap();
        assert_eq!(buf[..n], *query("SHUTDOWN WAIT_FOR_CLIENTS"));
        stream.write_all(&[message(b'C', b"SHUTDOWN\0"), ready].concat()).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        drop(tcp);
    });
    let program =
        unprivileged(exe().to_str().unwrap()).args(["-q", "-R", "pgweir.ini"]).current_dir(&dir).spawn();
    let _running = Running(program.unwrap());
    eventually("it has asked", || old.is_finished());
    old.join().unwrap();
    eventually("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    run(async { assert_eq!(Raw::log_in(port, "app").await.value("SELECT 1").await, "1") });
}
