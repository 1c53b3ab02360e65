//! What one client or server may cost the others: memory, places, time. Nothing of it may end the process, keep others from
//! being served, or leave a server behind that nobody gives back.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::hostile::{check_alive, log_in_to_hostile, pooler_before, read_message, server, welcome};
use crate::support::raw::{Raw, error, message, parse, query, startup, sync};
use crate::support::{PASSWORD, Pooler, USER, eventually, run};

const V3_0: u32 = 3 << 16;
const GIGABYTE: u32 = 1 << 30;

/// Memory of the pooler that is not on disk, in MB.
fn memory(pooler: &Pooler) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pooler.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
}

/// Nobody waits, nothing is in use.
async fn check_at_rest(pooler: &Pooler, database: &str) {
    let start = Instant::now();
    loop {
        let mut busy = 0;
        for column in
            ["cl_active", "cl_waiting", "sv_active", "sv_active_cancel", "sv_being_canceled", "sv_login"]
        {
            busy += pooler.figure("SHOW POOLS", database, column).await;
        }
        if busy == 0 {
            return;
        }
        let pools = pooler.console("SHOW POOLS").await;
        assert!(start.elapsed() < Duration::from_secs(10), "{pools:?}\n{}", pooler.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sends until that takes longer than a moment; how many bytes went out.
async fn stuff(raw: &mut Raw, bytes: &[u8], most: usize) -> usize {
    let mut sent = 0;
    while sent < most {
        match tokio::time::timeout(Duration::from_millis(700), raw.stream.write(bytes)).await {
            Ok(Ok(n)) => sent += n,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    sent
}

#[test]
fn memory_follows_what_has_come_not_what_was_announced() {
    let pooler = Pooler::start("");
    run(async {
        check_alive(&pooler).await;
        let before = memory(&pooler);
        let mut open = Vec::new();
        for (tag, start) in [(b'P', &b"name\0select"[..]), (b'B', b"\0name"), (b'D', b"Sname"), (b'C', b"S")]
        {
            for _ in 0..5 {
                let mut raw = pooler.raw().await;
                raw.send(&[&[tag][..], &(GIGABYTE - 1).to_be_bytes(), start].concat()).await;
                open.push(raw);
            }
        }
        // Somebody who has not logged in.
        for _ in 0..20 {
            let mut raw = Raw::connect(pooler.port).await;
            raw.send(&startup(V3_0, &[("user", USER), ("database", "app")])).await;
            assert_eq!(raw.receive().await.unwrap().tag, 'R');
            raw.send(&[&b"p"[..], &GIGABYTE.to_be_bytes(), b"SCRAM-SHA-256\0"].concat()).await;
            open.push(raw);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(memory(&pooler) < before + 20, "{before} MB, then {} MB", memory(&pooler));
        drop(open);
        check_alive(&pooler).await;
        check_at_rest(&pooler, "app").await;
    });
}

/// A long message that has to come whole costs time once, not with every piece of it.
#[test]
fn a_long_statement_keeps_nobody_waiting() {
    let pooler = Pooler::start("workers = 1");
    run(async {
        let (mut long, mut other) = (pooler.raw().await, pooler.raw().await);
        let text = format!("SELECT 1 -- {}", "x".repeat(48 << 20));
        let statement = parse("long", &text);
        let slowest = async {
            let mut slowest = Duration::ZERO;
            for _ in 0..200 {
                let start = Instant::now();
                assert_eq!(other.value("SELECT 1").await, "1");
                slowest = slowest.max(start.elapsed());
            }
            slowest
        };
        let send = async {
            long.send(&statement).await;
            long.tags(&sync()).await
        };
        let (tags, slowest) = tokio::join!(send, slowest);
        assert_eq!(tags, "1Z");
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    });
}

#[test]
fn a_client_that_does_not_read_costs_a_buffer_and_its_server() {
    let pooler = Pooler::start("default_pool_size = 1\nquery_timeout = 2");
    run(async {
        check_alive(&pooler).await;
        let before = memory(&pooler);
        let mut deaf = pooler.raw().await;
        deaf.send(&query("SELECT repeat('x', 10000) FROM generate_series(1, 50000)")).await;
        // There is one server. It is free again when the time for a query is over.
        let mut other = pooler.raw().await;
        let start = Instant::now();
        let mut answer = other.tags(&query("SELECT 1")).await;
        while !answer.contains('D') {
            // Its own time was over as well.
            assert!(start.elapsed() < Duration::from_secs(10));
            other = pooler.raw().await;
            answer = other.tags(&query("SELECT 1")).await;
        }
        assert!(memory(&pooler) < before + 20, "{before} MB, then {} MB", memory(&pooler));
        drop((deaf, other));
        check_at_rest(&pooler, "app").await;
    });
}

/// Messages that the pooler answers itself: without a limit its memory would take all the answers nobody reads.
#[test]
fn a_client_that_asks_without_end_and_does_not_read_is_not_read_either() {
    let pooler = Pooler::start("");
    run(async {
        let mut deaf = pooler.raw().await;
        assert_eq!(deaf.tags(&[parse("a", "SELECT 1"), sync()].concat()).await, "1Z");
        let before = memory(&pooler);
        let closes = message(b'C', b"Sa\0").repeat(8000);
        let sent = stuff(&mut deaf, &closes, 300 << 20).await;
        let after = memory(&pooler);
        assert!(after < before + 20, "{before} MB, then {after} MB, after {} MB", sent >> 20);
        assert!(sent < 100 << 20, "{} MB were taken", sent >> 20);
        check_alive(&pooler).await;
        drop(deaf);
        // The same with queries: here it is the server that stops.
        let mut deaf = pooler.raw().await;
        stuff(&mut deaf, &query("SELECT repeat('x', 1000)").repeat(1000), 100 << 20).await;
        let after = memory(&pooler);
        assert!(after < before + 60, "{before} MB, then {after} MB");
        drop(deaf);
        check_at_rest(&pooler, "app").await;
    });
}

#[test]
fn thousands_who_say_nothing() {
    let mut limits = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    limits.0 = limits.1.min(20_000);
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, limits.0, limits.1).unwrap();
    let pooler = Pooler::start("client_login_timeout = 3\nlisten_backlog = 1000\nmax_login_clients = 0");
    run(async {
        check_alive(&pooler).await;
        let before = memory(&pooler);
        let mut silent = Vec::new();
        for n in 0..2000 {
            let mut raw = Raw::connect(pooler.port).await;
            match n % 4 {
                0 => {}
                1 => raw.send(&[0, 0, 0]).await,
                2 => raw.send(&startup(V3_0, &[("user", USER), ("database", "app")])[..20]).await,
                _ => raw.send(&startup(V3_0, &[("user", USER), ("database", "app")])).await,
            }
            silent.push(raw);
        }
        check_alive(&pooler).await;
        assert!(memory(&pooler) < before + 60, "{before} MB, then {} MB", memory(&pooler));
        // One after the other they are turned away.
        for mut raw in silent {
            let mut last = None;
            while let Some(message) = raw.receive().await {
                last = Some(message);
            }
            assert_eq!(last.unwrap().field('M'), "client_login_timeout");
        }
        check_alive(&pooler).await;
        check_at_rest(&pooler, "app").await;
    });
}

#[test]
fn frames_of_a_hostile_client() {
    let pooler = Pooler::start("default_pool_size = 2");
    run(async {
        let frames: [&[u8]; 7] = [
            b"Q\0\0\0\0",
            b"Q\0\0\0\x03",
            b"Q\xff\xff\xff\xff",
            b"P\x80\0\0\0",
            b"~\0\0\0\x04",
            b"\0\0\0\0\x04",
            b"p\0\0\0\x05x",
        ];
        for frame in frames {
            // Alone, in a transaction, and behind a query that is still running.
            for before in [&[][..], &query("BEGIN"), &query("SELECT pg_sleep(0.1)")] {
                let mut raw = pooler.raw().await;
                raw.send(&[before, frame].concat()).await;
                let mut messages = Vec::new();
                while let Some(message) = raw.receive().await {
                    messages.push(message);
                }
                let refusal = error(&messages);
                assert_eq!(
                    (refusal.field('S'), refusal.field('C')),
                    ("FATAL".into(), "08P01".into()),
                    "{frame:?}"
                );
            }
        }
        // A query without its end is PostgreSQL's to refuse.
        let mut raw = pooler.raw().await;
        raw.send(&message(b'Q', b"")).await;
        assert_eq!(error(&raw.until_ready().await).field('C'), "08P01");
        drop(raw);
        check_alive(&pooler).await;
        check_at_rest(&pooler, "app").await;
    });
}

#[test]
fn passwords_and_keys_of_the_wrong_size() {
    let pooler = Pooler::start("");
    run(async {
        let long = "x".repeat(70 << 10);
        let user = [("user", "plainuser"), ("database", "app")];
        assert_eq!(
            Raw::log_in_with(pooler.port, V3_0, &user, &long).await.err().unwrap().field('C'),
            "28P01"
        );
        for length in [0, 1, 70 << 10] {
            let mut raw = Raw::connect(pooler.port).await;
            raw.send(&startup(V3_0, &user)).await;
            assert_eq!(raw.receive().await.unwrap().tag, 'R');
            let _ = raw.stream.write_all(&message(b'p', &vec![b'x'; length])).await;
            assert!(raw.receive().await.is_none_or(|message| message.tag == 'E'), "{length}");
        }

        let mut busy = pooler.raw().await;
        busy.send(&query("SELECT pg_sleep(1), 'undisturbed'")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (pid, secret) = busy.key.clone();
        for key in [&[][..], &secret[..3], &[&secret[..], &[0]].concat(), &[7; 256], &[7; 257], &[7; 9000]] {
            let mut raw = Raw::connect(pooler.port).await;
            let body = [&80_877_102u32.to_be_bytes()[..], &pid.to_be_bytes(), key].concat();
            raw.send(&[&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], &body].concat()).await;
            assert_eq!(raw.receive().await, None);
        }
        assert!(busy.until_ready().await.iter().any(|m| m.tag == 'D' && m.values()[1] == "undisturbed"));
        drop(busy);
        check_at_rest(&pooler, "app").await;
    });
}

/// A server that begins an answer and stops, or announces more than there can be.
#[test]
fn answers_that_do_not_come() {
    let beginnings: [&[u8]; 5] = [
        b"",
        b"T\0\0\0\x06\0\0D\0\0",
        b"T\0\0\0\x06\0\0D\x7f\xff\xff\xff\0\x01",
        b"C\0\0\0\x20SELECT",
        b"T\0\0\0\x06\0\0D\0\0\0\xffx",
    ];
    for beginning in beginnings {
        let port = server(move |stream| {
            stream.write_all(&welcome())?;
            read_message(stream)?;
            stream.write_all(beginning)?;
            // Until the pooler has had enough.
            stream.read_exact(&mut [0; 64])
        });
        let pooler = pooler_before(port, "query_timeout = 0.5");
        run(async {
            let mut raw = log_in_to_hostile(&pooler).await.unwrap();
            raw.send(&query("SELECT 1")).await;
            let mut all = Vec::new();
            raw.stream.read_to_end(&mut all).await.unwrap();
            let text = String::from_utf8_lossy(&all);
            assert!(text.contains("query timeout"), "{beginning:?}: {text:?}");
            assert!(memory(&pooler) < 100);
            check_alive(&pooler).await;
            check_at_rest(&pooler, "hostile").await;
        });
    }
}

/// A server that is stopped says so, even if it has just answered and owes nothing. Who has its answer must not take that for the
/// answer to what it asks next.
#[test]
fn a_farewell_is_not_an_answer() {
    let farewell = message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0");
    let port = server(move |stream| {
        stream.write_all(&welcome())?;
        read_message(stream)?;
        let answer = [message(b'C', b"SELECT 0\0"), message(b'Z', b"I")].concat();
        stream.write_all(&[answer, farewell.clone()].concat())
    });
    let pooler = pooler_before(port, "");
    run(async {
        let mut raw = log_in_to_hostile(&pooler).await.unwrap();
        for _ in 0..3 {
            raw.send(&query("SELECT 1")).await;
            assert_eq!(raw.until_ready().await.iter().map(|m| m.tag).collect::<String>(), "CZ");
        }
        drop(raw);
        check_at_rest(&pooler, "hostile").await;
    });
    assert!(pooler.log().contains("closing because: server ends the connection"));
    // Who keeps the server for a session loses it with all that the session was, and learns why.
    let pooler = pooler_before(port, "pool_mode = session");
    run(async {
        let mut raw = log_in_to_hostile(&pooler).await.unwrap();
        raw.send(&query("SELECT 1")).await;
        let mut all = Vec::new();
        raw.stream.read_to_end(&mut all).await.unwrap();
        let text = String::from_utf8_lossy(&all);
        assert_eq!((text.matches("57P01").count(), text.matches("FATAL").count()), (1, 2), "{text:?}");
    });
}

/// What a server says unasked is for nobody: neither for the client that has just had its answer nor for the next one.
#[test]
fn answers_to_nothing() {
    let row = message(b'D', b"\0\x01\0\0\0\x06stolen");
    let unasked = [
        row.clone(),
        message(b'Z', b"I"),
        [message(b'T', b"\0\0"), row, message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat(),
        message(b'G', b"\0\0\0"),
        message(b'1', b""),
        message(b'R', &[0; 4]),
        b"!!! garbage".to_vec(),
        vec![0; 100],
    ];
    for unasked in unasked {
        for together in [true, false] {
            let more = unasked.clone();
            let port = server(move |stream| {
                stream.write_all(&welcome())?;
                read_message(stream)?;
                let answer = [message(b'C', b"SELECT 0\0"), message(b'Z', b"I")].concat();
                if together {
                    stream.write_all(&[answer, more.clone()].concat())?;
                } else {
                    stream.write_all(&answer)?;
                    std::thread::sleep(Duration::from_millis(50));
                    stream.write_all(&more)?;
                }
                let _ = stream.read(&mut [0; 64]);
                Ok(())
            });
            let pooler = pooler_before(port, "");
            run(async {
                let (mut first, mut second) =
                    (log_in_to_hostile(&pooler).await.unwrap(), log_in_to_hostile(&pooler).await.unwrap());
                for raw in [&mut first, &mut second] {
                    raw.send(&query("SELECT 1")).await;
                    let messages = raw.until_ready().await;
                    assert!(messages.iter().all(|m| m.tag != 'D'), "{unasked:?}: {messages:?}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                check_alive(&pooler).await;
                drop((first, second));
                check_at_rest(&pooler, "hostile").await;
            });
        }
    }
}

/// CVE-2024-10977: what somebody says before TLS, or before the server has shown who it is, is not shown to anybody.
#[test]
fn errors_before_the_server_has_shown_who_it_is() {
    for (answer, mode) in [
        (message(b'E', b"SFATAL\0C28000\0Mtype your password at evil.example\0\0"), "prefer"),
        (message(b'E', b"SFATAL\0C28000\0Mtype your password at evil.example\0\0"), "require"),
        ([&b"S"[..], &welcome()].concat(), "require"),
        (b"N".to_vec(), "require"),
        (b"X".to_vec(), "prefer"),
    ] {
        let port = server(move |stream| {
            stream.write_all(&answer)?;
            let _ = stream.read(&mut [0; 64]);
            Ok(())
        });
        let pooler = pooler_before(port, &format!("server_tls_sslmode = {mode}"));
        run(async {
            let error = log_in_to_hostile(&pooler).await.err().unwrap();
            let text = String::from_utf8_lossy(&error.body);
            assert!(!text.contains("evil"), "{text}");
            check_at_rest(&pooler, "hostile").await;
        });
    }
}

/// AuthenticationOk in the middle of SCRAM: the server has not shown that it knows the password.
#[test]
fn a_server_that_skips_its_proof() {
    for rounds in [1, 2] {
        let port = server(move |stream| {
            stream.write_all(&message(b'R', &[&10u32.to_be_bytes()[..], b"SCRAM-SHA-256\0\0"].concat()))?;
            let first = read_message(stream)?;
            if rounds == 2 {
                let text = String::from_utf8_lossy(&first).into_owned();
                let nonce = text.split("r=").last().unwrap_or_default();
                let challenge = format!("r={nonce}more,s=QUJD,i=4096");
                stream
                    .write_all(&message(b'R', &[&11u32.to_be_bytes()[..], challenge.as_bytes()].concat()))?;
                read_message(stream)?;
            }
            stream.write_all(&welcome())
        });
        let pooler = pooler_before(port, "");
        run(async {
            assert!(log_in_to_hostile(&pooler).await.is_err());
            check_alive(&pooler).await;
        });
    }
}

#[test]
fn clients_that_vanish_in_the_middle_leave_nothing_behind() {
    let pooler = Pooler::start("default_pool_size = 5\nmax_client_conn = 100");
    run(async {
        let beginnings = [
            query("BEGIN; SELECT 1"),
            query("SELECT pg_sleep(0.2)"),
            query("SELECT repeat('x', 1000000)"),
            query("COPY pg_catalog.pg_class FROM STDIN"),
            [parse("a", "SELECT 1"), message(b'H', b"")].concat(),
            query("SELECT 1")[..6].to_vec(),
            message(b'd', &[7; 100])[..50].to_vec(),
        ];
        for beginning in beginnings.iter().cycle().take(35) {
            let mut raw = pooler.raw().await;
            raw.send(beginning).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
            drop(raw);
        }
        check_at_rest(&pooler, "app").await;
        check_alive(&pooler).await;
        assert!(
            Raw::log_in_with(pooler.port, V3_0, &[("user", USER), ("database", "app")], PASSWORD)
                .await
                .is_ok()
        );
    });
    eventually("the log shows every one of them", || {
        pooler.log().matches("closing because: client").count() >= 35
    });
}
