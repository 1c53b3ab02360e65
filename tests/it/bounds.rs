//! Nothing that one side sends takes memory, or the time of others, without bounds.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::hostile::{check_alive, log_in_to_hostile, pooler_before, read_message, server, welcome};
use crate::support::raw::{Raw, bind, close, describe, execute, message, parse, query, sync};
use crate::support::{PASSWORD, Pooler, USER, run, run_for};

const V3_0: u32 = 3 << 16;
/// What a server may have got rid of when it has said a megabyte too much: the kernel's buffers hold the rest.
const ACCEPTED: usize = 24 << 20;

/// Goes on talking until the connection is closed; tells how much of it was taken.
fn talk(stream: &mut TcpStream, told: &mpsc::Sender<usize>, mut word: impl FnMut(usize) -> Vec<u8>) {
    let _ = stream.set_write_timeout(Some(Duration::from_secs(10)));
    let mut taken = 0;
    for n in 0.. {
        let words: Vec<u8> = (0..64).flat_map(|m| word(64 * n + m)).collect();
        match stream.write_all(&words) {
            Ok(()) if taken <= ACCEPTED => taken += words.len(),
            Ok(()) => break,
            // Nobody listens, but the connection is kept.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => taken = usize::MAX,
            Err(_) => {}
        }
        if taken == usize::MAX || stream.take_error().ok().flatten().is_some() || is_closed(stream) {
            break;
        }
    }
    let _ = told.send(taken);
}

fn is_closed(stream: &TcpStream) -> bool {
    let _ = stream.set_nonblocking(true);
    let peeked = stream.peek(&mut [0]);
    let _ = stream.set_nonblocking(false);
    match peeked {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

fn parameter(n: usize) -> Vec<u8> {
    message(b'S', format!("parameter_{n}\0{}\0", "x".repeat(1000)).as_bytes())
}

fn notice(_: usize) -> Vec<u8> {
    message(b'N', format!("SNOTICE\0M{}\0\0", "x".repeat(1000)).as_bytes())
}

fn row(_: usize) -> Vec<u8> {
    message(b'D', &[&b"\0\x02\0\0\0\x04user\0\0\x03\xe8"[..], &[b'x'; 1000]].concat())
}

fn end() -> Vec<u8> {
    [message(b'C', b"SELECT 0\0"), message(b'Z', b"I")].concat()
}

#[track_caller]
fn check_bounded(told: &mpsc::Receiver<usize>, what: &str) {
    let taken = told.recv_timeout(Duration::from_secs(20)).expect(what);
    assert!(taken < ACCEPTED, "{what}: {taken} bytes");
}

#[test]
fn a_login_that_does_not_end() {
    for word in [parameter, notice] {
        let (tell, told) = mpsc::channel();
        let port = server(move |stream| {
            stream.write_all(&message(b'R', &[0; 4]))?;
            talk(stream, &tell, word);
            Ok(())
        });
        let pooler = pooler_before(port, "");
        run(async {
            assert!(log_in_to_hostile(&pooler).await.is_err());
            check_bounded(&told, "login");
            check_alive(&pooler).await;
        });
        assert!(pooler.log().contains("server "), "{}", pooler.log());
    }
}

#[test]
fn parameters_without_an_end() {
    let (tell, told) = mpsc::channel();
    let port = server(move |stream| {
        stream.write_all(&welcome())?;
        read_message(stream)?;
        talk(stream, &tell, parameter);
        Ok(())
    });
    let pooler = pooler_before(port, "");
    run(async {
        let mut raw = log_in_to_hostile(&pooler).await.unwrap();
        raw.send(&query("SELECT 1")).await;
        let messages = raw.until_ready().await;
        assert_eq!(messages.last().unwrap().field('C'), "08006");
        assert!(messages.len() <= 300, "{}", messages.len());
        check_bounded(&told, "parameters");
        check_alive(&pooler).await;
    });
    assert!(
        pooler.log().contains("closing because: server reports more than 256 parameters"),
        "{}",
        pooler.log()
    );
}

#[test]
fn a_check_that_does_not_end() {
    for word in [row, notice] {
        let (tell, told) = mpsc::channel();
        let port = server(move |stream| {
            stream.write_all(&welcome())?;
            read_message(stream)?;
            stream.write_all(&end())?;
            assert_eq!(read_message(stream)?, b"SELECT 7\0");
            stream.write_all(&message(b'T', b"\0\0"))?;
            talk(stream, &tell, word);
            Ok(())
        });
        let pooler = pooler_before(port, "server_check_query = SELECT 7\nserver_check_delay = 0");
        run(async {
            let mut raw = log_in_to_hostile(&pooler).await.unwrap();
            raw.rows("SELECT 1").await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            raw.send(&query("SELECT 1")).await;
            assert!(raw.until_ready().await.iter().all(|m| m.tag != 'D'));
            check_bounded(&told, "check");
            check_alive(&pooler).await;
        });
        assert!(
            pooler.log().contains("closing because: server answers a query of the pooler with more than")
        );
    }
}

#[test]
fn a_reset_that_does_not_end() {
    let (tell, told) = mpsc::channel();
    let port = server(move |stream| {
        stream.write_all(&welcome())?;
        read_message(stream)?;
        stream.write_all(&end())?;
        assert_eq!(read_message(stream)?, b"DISCARD ALL\0");
        talk(stream, &tell, notice);
        Ok(())
    });
    let pooler = pooler_before(port, "server_reset_query_always = 1");
    run(async {
        log_in_to_hostile(&pooler).await.unwrap().rows("SELECT 1").await;
        check_bounded(&told, "reset");
        check_alive(&pooler).await;
    });
    assert!(
        pooler.log().contains("server_reset_query failed: server says more than 1048576 bytes"),
        "{}",
        pooler.log()
    );
}

#[test]
fn a_server_that_talks_while_idle() {
    let (tell, told) = mpsc::channel();
    let connections = Arc::new(AtomicUsize::new(0));
    let port = server(move |stream| {
        stream.write_all(&welcome())?;
        read_message(stream)?;
        stream.write_all(&end())?;
        if connections.fetch_add(1, Relaxed) == 0 {
            talk(stream, &tell, notice);
        }
        Ok(())
    });
    let pooler = pooler_before(port, "query_wait_timeout = 10");
    run(async {
        let mut raw = log_in_to_hostile(&pooler).await.unwrap();
        raw.rows("SELECT 1").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        raw.rows("SELECT 1").await;
        check_bounded(&told, "idle");
    });
    assert!(pooler.log().contains("closing because: server says too much while idle"), "{}", pooler.log());
}

#[test]
fn a_look_up_that_does_not_end() {
    let (tell, told) = mpsc::channel();
    let port = server(move |stream| {
        stream.write_all(&welcome())?;
        for _ in 0..4 {
            read_message(stream)?;
        }
        talk(stream, &tell, row);
        Ok(())
    });
    let pooler = pooler_before(port, &format!("auth_user = {USER}"));
    run(async {
        let parameters = [("user", "somebody"), ("database", "hostile")];
        assert!(Raw::log_in_with(pooler.port, V3_0, &parameters, "x").await.is_err());
        check_bounded(&told, "auth_query");
        check_alive(&pooler).await;
    });
    assert!(
        pooler.log().contains("error in auth_query: server answers with more than 1 row"),
        "{}",
        pooler.log()
    );
}

#[test]
fn two_users_of_one_name_are_none() {
    let settings = |rows: &str| {
        format!(
            "auth_user = {USER}\nauth_query = SELECT u, 'secret' FROM (VALUES {rows}) AS r (u) WHERE $1 = u"
        )
    };
    for (rows, is_let_in) in [("('double')", true), ("('double'), ('double')", false)] {
        let pooler = Pooler::start(&settings(rows));
        run(async {
            let parameters = [("user", "double"), ("database", "app")];
            let login = Raw::log_in_with(pooler.port, V3_0, &parameters, "secret").await;
            // Who is let in finds no server: PostgreSQL does not know the user.
            let error = login.err().unwrap();
            assert_eq!(error.field('D').contains("auth_query"), !is_let_in, "{error:?}");
            check_alive(&pooler).await;
        });
    }
}

/// Each message that a client may begin with, and where to cut it.
fn first_messages() -> Vec<Vec<u8>> {
    let call = [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..]].concat();
    vec![
        query("SELECT 1"),
        parse("", "SELECT 1"),
        parse("named", "SELECT 1"),
        bind("named"),
        describe("named"),
        execute(),
        close("named"),
        message(b'F', &call),
        query(&format!("SELECT '{}'", "x".repeat(60_000))),
    ]
}

#[test]
fn half_a_message_takes_no_server() {
    let pooler = Pooler::start("default_pool_size = 2\nquery_wait_timeout = 5");
    run(async {
        let mut clients = Vec::new();
        for first in first_messages() {
            for cut in [1, 5, 6, 8, first.len() / 2, first.len() - 1] {
                let mut raw = pooler.raw().await;
                // Behind a transaction that is over; and in its packet.
                if cut % 2 == 0 {
                    raw.send(&[query("SELECT 2"), first[..cut].to_vec()].concat()).await;
                    assert_eq!(raw.until_ready().await.len(), 4);
                } else {
                    raw.send(&first[..cut]).await;
                }
                clients.push((raw, first[cut..].to_vec()));
                if clients.len() > 40 {
                    clients.remove(0);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        for _ in 0..3 {
            check_alive(&pooler).await;
        }
        assert_eq!(pooler.figure("SHOW POOLS", "app", "sv_active").await, 0);
        // The last ones asked for 60,000 bytes. What they wait for comes when the rest does.
        for (mut raw, rest) in clients.split_off(clients.len() - 6) {
            raw.send(&rest).await;
            let messages = raw.until_ready().await;
            assert_eq!(messages[1].values()[0].len(), 60_000);
        }
    });
}

#[test]
fn a_message_that_comes_byte_by_byte() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let mut raw = pooler.raw().await;
        let all = [parse("s", "SELECT 1"), bind("s"), execute(), sync(), query("SELECT 2")].concat();
        for byte in &all {
            raw.send(&[*byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(raw.until_ready().await.len(), 5);
        assert_eq!(raw.until_ready().await[1].values(), ["2"]);
    });
}

#[test]
fn messages_longer_than_max_packet_size() {
    let pooler = Pooler::start("max_packet_size = 20000");
    run(async {
        let sql = |n: usize| format!("SELECT length('{}')", "x".repeat(n));
        let mut raw = pooler.raw().await;
        assert_eq!(raw.value(&sql(19_900)).await, "19900");
        // In a transaction and outside; of a simple query and of others.
        for begin in [true, false] {
            for long in [query(&sql(20_000)), parse("a", &sql(20_000)), parse("", &sql(20_000))] {
                let mut raw = pooler.raw().await;
                if begin {
                    raw.rows("BEGIN").await;
                }
                // Its beginning is enough.
                raw.send(&long[..100]).await;
                let error = raw.receive().await.unwrap();
                assert_eq!((error.field('S').as_str(), error.field('C').as_str()), ("FATAL", "08P01"));
                assert!(error.field('M').contains("max_packet_size (20000)"), "{error:?}");
                assert!(error.field('H').contains("max_packet_size"), "{error:?}");
                assert_eq!(raw.receive().await, None);
            }
        }
        // From a server: rows.
        raw.send(&query("SELECT repeat('x', 20000)")).await;
        let messages = raw.until_ready().await;
        assert!(messages.iter().all(|m| m.tag != 'D'));
        let error = messages.last().unwrap();
        assert_eq!(error.field('C'), "08006");
        assert!(error.field('M').contains("longer than max_packet_size"), "{error:?}");
        // It can be changed.
        let mut other = pooler.raw().await;
        pooler.console("SET max_packet_size = 2147483647").await;
        assert_eq!(other.value(&sql(30_000)).await, "30000");
        let parameters = [("user", USER), ("database", "app")];
        assert!(Raw::log_in_with(pooler.port, V3_0, &parameters, PASSWORD).await.is_ok());
    });
    assert!(pooler.log().contains("bad packet header"), "{}", pooler.log());
}

/// The most memory the process has had so far, in kB.
fn peak(pooler: &Pooler) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pooler.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_packet_full_of_commands_for_the_console() {
    let pooler = Pooler::start("max_client_conn = 300\ndefault_pool_size = 1");
    run_for(Duration::from_secs(60), async {
        let mut clients = Vec::new();
        for _ in 0..60 {
            clients.push(pooler.raw().await);
        }
        let parameters = [("user", "other"), ("database", "pgbouncer")];
        let show = "show clients;";
        let simple = query(&show.repeat(60_000 / show.len()));
        let again = [bind(""), execute()].concat();
        let extended = [parse("", "show clients"), again.repeat(60_000 / again.len()), sync()].concat();
        for (all, results) in [(simple, 60_000 / show.len()), (extended, 60_000 / again.len())] {
            let mut stats = Raw::log_in_with(pooler.port, V3_0, &parameters, "other").await.unwrap();
            let before = peak(&pooler);
            stats.send(&all).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            // It does not read yet, and others are served.
            check_alive(&pooler).await;
            let messages = stats.until_ready().await;
            assert_eq!(messages.iter().filter(|m| m.tag == 'C').count(), results);
            assert!(messages.iter().filter(|m| m.tag == 'D').count() >= 60 * results);
            let taken = peak(&pooler) - before;
            assert!(taken < 16_000, "{taken} kB");
            // Somebody else may end it.
            stats.send(&all).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            let cancel =
                [&[0, 0, 0, 16, 4, 210, 22, 46][..], &stats.key.0.to_be_bytes(), &stats.key.1].concat();
            Raw::connect(pooler.port).await.send(&cancel).await;
            let messages = stats.until_ready().await;
            let error = messages.iter().find(|m| m.tag == 'E').map(|m| m.field('C'));
            assert_eq!(error.as_deref(), Some("57014"));
            assert!(messages.iter().filter(|m| m.tag == 'C').count() < results);
        }
    });
}

/// What has to be read whole is held twice at most: as it comes, and as what all who prepare it share.
#[test]
fn a_long_statement_is_held_once() {
    const LEN: usize = 32 << 20;
    let pooler = Pooler::start("default_pool_size = 1");
    run_for(Duration::from_secs(60), async {
        let mut raw = pooler.raw().await;
        raw.rows("SELECT 1").await;
        let before = peak(&pooler);
        let long = parse("long", &format!("SELECT length('{}')", "x".repeat(LEN)));
        let all = [long.clone(), bind("long"), execute(), sync()].concat();
        raw.send(&all).await;
        let messages = raw.until_ready().await;
        let row = messages.iter().find(|m| m.tag == 'D').unwrap_or_else(|| panic!("{messages:?}"));
        assert_eq!(row.values()[0], LEN.to_string());
        let taken = (peak(&pooler) - before) * 1024;
        assert!(taken < 5 * LEN / 2, "{taken} bytes");
        // Another client that prepares the same.
        let mut other = pooler.raw().await;
        other.send(&all).await;
        assert_eq!(other.until_ready().await.iter().map(|m| m.tag).collect::<String>(), "12DCZ");
        let taken = (peak(&pooler) - before) * 1024;
        assert!(taken < 5 * LEN / 2, "{taken} bytes");
        // It takes no server until all of it is there.
        let mut half = pooler.raw().await;
        half.send(&long[..LEN / 2]).await;
        check_alive(&pooler).await;
    });
}
