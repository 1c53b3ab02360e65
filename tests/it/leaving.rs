//! Clients that leave before they have their answers: what they have sent whole is run to its end, as PostgreSQL does.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use crate::routing;
use crate::support::raw::{Raw, bind, execute, message, parse, query, startup, sync};
use crate::support::tls::TlsClient;
use crate::support::{Pooler, USER, cluster, eventually, run};

/// How many clients each way of leaving is tried with.
const CLIENTS: usize = 20;

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Terminate, in the same packet, and then it closes its socket.
    Goodbye,
    /// It closes its socket.
    Close,
    /// It closes its own side only, and waits for answers.
    HalfClose,
    /// It resets the connection.
    Reset,
}

const EXITS: [Exit; 4] = [Exit::Goodbye, Exit::Close, Exit::HalfClose, Exit::Reset];

/// An empty table of this name, which counts what has arrived.
fn table(name: &str) -> String {
    let port = cluster().primary;
    cluster().admin_in("app", port, &format!("DROP TABLE IF EXISTS {name}; CREATE TABLE {name} (a int)"));
    cluster().admin_in("app", port, &format!("GRANT ALL ON {name} TO PUBLIC"));
    name.to_owned()
}

fn count(table: &str) -> usize {
    let count = cluster().admin_in("app", cluster().primary, &format!("SELECT count(*) FROM {table}"));
    count.trim().parse().unwrap()
}

/// Sends bytes and leaves; the connection, if it still waits for answers.
async fn leave(mut raw: Raw, bytes: &[u8], exit: Exit) -> Option<Raw> {
    match exit {
        Exit::Goodbye => raw.send(&[bytes, &message(b'X', b"")].concat()).await,
        Exit::Close => raw.send(bytes).await,
        Exit::HalfClose => {
            raw.send(bytes).await;
            raw.stream.shutdown().await.unwrap();
            return Some(raw);
        }
        Exit::Reset => {
            raw.send(bytes).await;
            #[expect(deprecated, reason = "a linger of zero does not block")]
            raw.stream.set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
    None
}

/// All messages up to the end of the connection.
async fn rest(raw: &mut Raw) -> String {
    let mut tags = String::new();
    while let Some(message) = raw.receive().await {
        tags.push(message.tag);
    }
    tags
}

/// What a client does to insert one row into a table, in several ways; and the answers.
fn insertions(table: &str) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let insert = format!("INSERT INTO {table} VALUES (1)");
    let copy = format!("COPY {table} FROM STDIN");
    vec![
        ("simple", query(&insert), "CZ"),
        ("unnamed", [parse("", &insert), bind(""), execute(), sync()].concat(), "12CZ"),
        ("named", [parse("s", &insert), bind("s"), execute(), sync()].concat(), "12CZ"),
        ("behind another", [query("SELECT pg_sleep(0.02)"), query(&insert)].concat(), "TDCZCZ"),
        ("transaction", [query("BEGIN"), query(&insert), query("COMMIT")].concat(), "CZCZCZ"),
        ("copy", [query(&copy), message(b'd', b"1\n"), message(b'c', b"")].concat(), "GCZ"),
        ("slow", query(&format!("{insert}; SELECT pg_sleep(0.02)")), "CTDCZ"),
        (
            "before one without an end",
            [query(&insert), parse("", &insert), bind(""), execute()].concat(),
            "CZ",
        ),
        ("before half a one", [query(&insert), query(&insert)[..9].to_vec()].concat(), "CZ"),
        ("before half a long one", [&query(&insert), &b"Q\0\x01\0\0SELECT"[..]].concat(), "CZ"),
    ]
}

/// Each of many clients inserts a row and leaves, `is_warm`: with its second transaction.
async fn all_arrive(pooler: &Pooler, table: &str, is_warm: bool) {
    let mut expected = count(table);
    for (how, bytes, answers) in insertions(table) {
        for exit in EXITS {
            let mut waiting = Vec::new();
            for _ in 0..CLIENTS {
                let mut raw = pooler.raw().await;
                if is_warm {
                    raw.value("SELECT 1").await;
                }
                waiting.extend(leave(raw, &bytes, exit).await);
            }
            for raw in &mut waiting {
                assert_eq!(rest(raw).await, answers, "{how}");
            }
            expected += CLIENTS;
            eventually(&format!("{how}, {exit:?}"), || count(table) == expected);
        }
    }
    eventually("servers are given back", || run_apart(pooler, "sv_active") == 0);
}

/// A figure of the pool.
fn run_apart(pooler: &Pooler, column: &str) -> i64 {
    std::thread::scope(|scope| {
        let figure = || run(pooler.figure("SHOW POOLS", "app", column));
        scope.spawn(figure).join().unwrap()
    })
}

#[test]
fn what_was_sent_whole_arrives() {
    let table = table("left_whole");
    let pooler = Pooler::start("default_pool_size = 3");
    crate::support::run_for(Duration::from_secs(120), async {
        all_arrive(&pooler, &table, false).await;
        all_arrive(&pooler, &table, true).await;
    });
    assert_eq!(pooler.log().matches("server conn crashed").count(), 0);
}

#[test]
fn what_was_sent_whole_arrives_in_the_other_modes() {
    for mode in ["session", "statement"] {
        let table = table(&format!("left_{mode}"));
        let pooler = Pooler::start(&format!("pool_mode = {mode}\ndefault_pool_size = 3"));
        run(async {
            for exit in EXITS {
                let before = count(&table);
                for _ in 0..CLIENTS {
                    let insert = query(&format!("INSERT INTO {table} VALUES (1)"));
                    leave(pooler.raw().await, &insert, exit).await;
                }
                eventually(&format!("{mode}, {exit:?}"), || count(&table) == before + CLIENTS);
            }
        });
        let closed = pooler.log().lines().filter(|l| l.contains("S-") && l.contains("closing")).count();
        assert_eq!(closed, 0, "servers are used again: {}", pooler.log());
    }
}

#[test]
fn who_has_gone_keeps_the_place_in_the_queue() {
    let table = table("left_waiting");
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        for exit in EXITS {
            let before = count(&table);
            let mut holder = pooler.raw().await;
            holder.rows("BEGIN").await;
            let mut waiting = Vec::new();
            for (n, (_, bytes, _)) in insertions(&table).into_iter().cycle().take(CLIENTS).enumerate() {
                let raw = leave(pooler.raw().await, &bytes, exit).await;
                waiting.extend(raw.map(|raw| (raw, n % insertions(&table).len())));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(count(&table), before);
            holder.rows("COMMIT").await;
            for (raw, n) in &mut waiting {
                let (how, _, answers) = &insertions(&table)[*n];
                assert_eq!(rest(raw).await, *answers, "{how}");
            }
            eventually(&format!("{exit:?}"), || count(&table) == before + CLIENTS);
        }
    });
    eventually("nobody waits", || run(pooler.figure("SHOW POOLS", "app", "cl_waiting")) == 0);
    assert_eq!(pooler.log().matches("query_wait_timeout").count(), 0);
}

#[test]
fn who_has_gone_waits_no_longer_than_others() {
    let table = table("left_in_vain");
    let pooler = Pooler::start("default_pool_size = 1\nquery_wait_timeout = 1");
    run(async {
        let mut holder = pooler.raw().await;
        holder.rows("BEGIN").await;
        let insert = query(&format!("INSERT INTO {table} VALUES (1)"));
        leave(pooler.raw().await, &insert, Exit::Goodbye).await;
        // It may still take back what it has sent.
        let cancelled = pooler.raw().await;
        let key =
            [&[0, 0, 0, 16, 4, 210, 22, 46][..], &cancelled.key.0.to_be_bytes(), &cancelled.key.1].concat();
        leave(cancelled, &insert, Exit::Close).await;
        Raw::connect(pooler.port).await.send(&key).await;
        // Nothing whole, nothing to wait for.
        leave(pooler.raw().await, &insert[..12], Exit::Close).await;
        leave(pooler.raw().await, &[parse("", "SELECT 1"), bind("")].concat(), Exit::Close).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(pooler.figure("SHOW POOLS", "app", "cl_waiting").await, 1);
        eventually("the wait ends", || run_apart(&pooler, "cl_waiting") == 0);
        assert!(pooler.log().contains("query_wait_timeout"));
        holder.rows("COMMIT").await;
        assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
        assert_eq!(count(&table), 0);
    });
}

#[test]
fn what_was_not_sent_whole_or_not_committed_is_not_waited_for() {
    let table = table("left_open");
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let insert = format!("INSERT INTO {table} VALUES (1)");
        let copy = format!("COPY {table} FROM STDIN");
        let open = [
            [query("BEGIN"), query(&insert)].concat(),
            [parse("", &insert), bind(""), execute()].concat(),
            [parse("", &insert), bind(""), execute(), message(b'H', b"")].concat(),
            [query(&copy), message(b'd', b"1\n")].concat(),
            [&query(&copy), &message(b'd', b"1\n1\n")[..8]].concat(),
            [&b"Q\0\x01\0\0"[..], insert.as_bytes()].concat(),
        ];
        for bytes in open {
            for exit in EXITS {
                let start = Instant::now();
                drop(leave(pooler.raw().await, &bytes, exit).await);
                assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
                assert!(start.elapsed() < Duration::from_secs(5), "{bytes:?}, {exit:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(count(&table), 0);
        // A prepared statement in the middle of a transaction, and then its end.
        let mut raw = pooler.raw().await;
        raw.rows("BEGIN").await;
        raw.rows(&insert).await;
        leave(raw, &query("COMMIT"), Exit::Goodbye).await;
        eventually("the transaction is committed", || count(&table) == 1);
    });
}

#[test]
fn timeouts_hold_for_who_has_gone() {
    let pooler = Pooler::start("default_pool_size = 1\nquery_timeout = 1");
    run(async {
        for exit in [Exit::Goodbye, Exit::HalfClose] {
            let start = Instant::now();
            let left = leave(pooler.raw().await, &query("SELECT pg_sleep(20)"), exit).await;
            let answer = match left {
                Some(mut raw) => rest(&mut raw).await,
                None => "E".to_owned(),
            };
            assert_eq!(answer, "E");
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        }
    });
    assert_eq!(pooler.log().matches("closing because: query timeout").count(), 4, "{}", pooler.log());
}

#[test]
fn a_query_nobody_waits_for_does_not_keep_others_waiting() {
    let table = table("left_long");
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let long = format!("INSERT INTO {table} SELECT 1 FROM pg_sleep(14)");
        leave(pooler.raw().await, &query(&long), Exit::Goodbye).await;
        let start = Instant::now();
        assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
        assert!(start.elapsed() < Duration::from_secs(13), "{:?}", start.elapsed());
        assert_eq!(count(&table), 0);
        eventually("it runs to its end all the same", || count(&table) == 1);
    });
}

#[test]
fn who_takes_no_rows_is_not_sent_them_without_end() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let endless = query("SELECT repeat('x', 1000), generate_series(1, 1000000000)");
        for exit in [Exit::Goodbye, Exit::Close, Exit::Reset] {
            let start = Instant::now();
            leave(pooler.raw().await, &endless, exit).await;
            assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        }
    });
}

#[test]
fn half_closed_clients_get_all_they_have_asked_for() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let rows = query("SELECT repeat('x', 1000) FROM generate_series(1, 20000)");
        let mut raw = leave(pooler.raw().await, &rows, Exit::HalfClose).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let tags = rest(&mut raw).await;
        assert_eq!((tags.len(), &tags[..2], &tags[tags.len() - 2..]), (20_003, "TD", "CZ"));
    });
}

#[test]
fn by_tls_as_well() {
    let table = table("left_tls");
    let pooler = Pooler::prepared(|dir| {
        let issued = crate::support::tls::Authority::new("root").issue("localhost", &["localhost"]);
        issued.write(dir, "pooler");
        let (dir, port) = (dir.display(), cluster().primary);
        (
            format!("app = host=127.0.0.1 port={port}\n"),
            format!(
                "auth_type = trust\nclient_tls_sslmode = require\nclient_tls_cert_file = {dir}/pooler.crt\n\
                 client_tls_key_file = {dir}/pooler.key\ndefault_pool_size = 1"
            ),
        )
    });
    let insert = query(&format!("INSERT INTO {table} VALUES (1)"));
    for bytes in [[&insert[..], &message(b'X', b"")].concat(), insert.clone()] {
        let before = count(&table);
        for _ in 0..CLIENTS {
            TlsClient::connect(pooler.port).log_in().send(&bytes);
        }
        eventually("all of them", || count(&table) == before + CLIENTS);
    }
}

#[test]
fn with_a_split_as_well() {
    let table = table("left_split");
    let pooler = routing::pooler();
    let batches = [
        // The second batch is held back until the first one, which reads, is over.
        [query("SELECT 1"), query(&format!("INSERT INTO {table} VALUES (1)"))].concat(),
        // It is sent to a replica, fails there and writes on the primary.
        query("SELECT left_insert()"),
    ];
    let function = |name: &str, kind: &str, body: &str| {
        let options = format!("RETURNS void {kind} LANGUAGE plpgsql AS $$BEGIN {body}; END$$");
        let sql = format!("CREATE OR REPLACE FUNCTION {name}() {options}");
        cluster().admin_in("app", cluster().primary, &sql);
    };
    function("left_writes", "VOLATILE", &format!("INSERT INTO {table} VALUES (1)"));
    function("left_insert", "STABLE", "PERFORM left_writes()");
    cluster().catch_up();
    eventually("the function is known to read", || {
        run(async { pooler.raw().await.rows("SELECT left_insert()").await });
        pooler.log().contains("a read is run again on the primary")
    });
    run(async {
        for bytes in batches {
            for exit in EXITS {
                let before = count(&table);
                let mut waiting = Vec::new();
                for _ in 0..CLIENTS {
                    waiting.extend(leave(pooler.raw().await, &bytes, exit).await);
                }
                eventually(&format!("{exit:?}"), || count(&table) == before + CLIENTS);
            }
        }
    });
}

#[test]
fn with_the_login_as_well() {
    let table = table("left_at_login");
    let pooler = Pooler::start("auth_type = trust\ndefault_pool_size = 1");
    run(async {
        let insert = query(&format!("INSERT INTO {table} VALUES (1)"));
        let hello = startup(3 << 16, &[("user", USER), ("database", "app")]);
        for exit in [Exit::Goodbye, Exit::HalfClose] {
            for n in 1..=CLIENTS {
                let raw = leave(Raw::connect(pooler.port).await, &[&hello[..], &insert].concat(), exit).await;
                if let Some(mut raw) = raw {
                    assert!(rest(&mut raw).await.ends_with("ZCZ"), "{n}");
                }
            }
        }
        eventually("all of them", || count(&table) == 2 * CLIENTS);
    });
}
