//! Clients share servers, and notice nothing of it.

use std::time::Duration;

use crate::support::raw::{Raw, bind, describe, execute, message, parse, query, sync};
use crate::support::{Pooler, USER, cluster, eventually, run};

#[test]
fn many_clients_share_few_servers() {
    let pooler = Pooler::start("default_pool_size = 2");
    run(async {
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(pooler.raw().await);
        }
        let mut backends = std::collections::BTreeSet::new();
        for _ in 0..3 {
            for client in &mut clients {
                backends.insert(client.value("SELECT pg_backend_pid()").await);
            }
        }
        assert!(backends.len() <= 2, "{backends:?}");
        assert_eq!(pooler.figure("SHOW POOLS", "app", "cl_active").await, 20);
        assert!(pooler.figure("SHOW POOLS", "app", "sv_idle").await <= 2);
    });
}

#[test]
fn a_transaction_keeps_its_server() {
    let pooler = Pooler::start("default_pool_size = 2");
    run(async {
        let (mut a, mut b) = (pooler.raw().await, pooler.raw().await);
        a.rows("BEGIN").await;
        let mine = a.value("SELECT pg_backend_pid()").await;
        for _ in 0..3 {
            assert_ne!(b.value("SELECT pg_backend_pid()").await, mine);
        }
        assert_eq!(a.value("SELECT pg_backend_pid()").await, mine);
        // A failed transaction as well, until it is over.
        a.error("SELECT 1/0").await;
        assert_eq!(a.error("SELECT 1").await.field('C'), "25P02");
        a.rows("ROLLBACK").await;
        assert_eq!(pooler.figure("SHOW POOLS", "app", "sv_active").await, 0);
    });
}

#[test]
fn session_mode_keeps_the_server_and_cleans_it() {
    let pooler = Pooler::start("pool_mode = session\ndefault_pool_size = 1");
    run(async {
        let mut a = pooler.raw().await;
        a.rows("CREATE TEMP TABLE t (a int); SET search_path = pg_temp; PREPARE p AS SELECT 1").await;
        let backend = a.value("SELECT pg_backend_pid()").await;
        assert_eq!(a.value("SELECT count(*) FROM t").await, "0");
        assert_eq!(a.value("EXECUTE p").await, "1");
        a.send(&message(b'X', b"")).await;
        let mut b = pooler.raw().await;
        assert_eq!(b.value("SELECT pg_backend_pid()").await, backend);
        assert_eq!(b.error("EXECUTE p").await.field('C'), "26000");
        assert_eq!(b.value("SHOW search_path").await, "\"$user\", public");
        assert_eq!(b.error("SELECT * FROM t").await.field('C'), "42P01");
    });
}

#[test]
fn statement_mode_refuses_transactions() {
    let pooler = Pooler::start("pool_mode = statement");
    run(async {
        let mut raw = pooler.raw().await;
        assert_eq!(raw.value("SELECT 1").await, "1");
        // Why comes in place of ReadyForQuery: who has read that sends the next statement, and reads no more.
        let blocks = [
            (query("BEGIN"), "CE"),
            (query("SELECT 1; BEGIN; SELECT 2"), "TDCCTDCE"),
            (query("BEGIN; SELECT 1/0"), "CEE"),
            ([parse("", "BEGIN"), bind(""), execute(), sync()].concat(), "12CE"),
            ([query("BEGIN"), query("SELECT 1"), query("COMMIT")].concat(), "CE"),
            (query("BEGIN; COMMIT; BEGIN READ ONLY"), "CCCE"),
        ];
        for (bytes, tags) in blocks {
            let mut raw = pooler.raw().await;
            raw.send(&bytes).await;
            let messages = raw.until_ready().await;
            assert_eq!(messages.iter().map(|m| m.tag).collect::<String>(), tags);
            let last = messages.last().unwrap();
            let words = "transaction blocks not allowed in statement pooling mode";
            assert_eq!((last.field('S').as_str(), last.field('M').as_str()), ("FATAL", words));
        }
        // What ends with its statement is none.
        raw.rows("CREATE TABLE IF NOT EXISTS by_statement (a int)").await;
        let copy =
            [query("COPY by_statement FROM STDIN"), message(b'd', b"1\n"), message(b'c', b"")].concat();
        assert_eq!(raw.tags(&copy).await, "GCZ");
        assert_eq!(raw.tags(&query("BEGIN; SELECT 1; COMMIT")).await, "CTDCCZ");
        assert_eq!(raw.value("SELECT count(*) FROM by_statement").await, "1");
        raw.rows("DROP TABLE by_statement").await;
    });
}

#[test]
fn parameters_follow_the_client() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let (mut a, mut b) = (pooler.raw().await, pooler.raw().await);
        for (name, value) in [
            ("TimeZone", "Asia/Ho_Chi_Minh"),
            ("DateStyle", "German, DMY"),
            ("application_name", "o'clock \\ é"),
            ("IntervalStyle", "iso_8601"),
            ("standard_conforming_strings", "off"),
            ("client_encoding", "UTF8"),
        ] {
            a.rows(&format!("SET {name} = '{}'", value.replace('\'', "''"))).await;
            let mine = a.value(&format!("SHOW {name}")).await;
            let theirs = b.value(&format!("SHOW {name}")).await;
            if name != "client_encoding" {
                assert_ne!(mine, theirs, "{name}");
            }
            assert_eq!(a.value(&format!("SHOW {name}")).await, mine, "{name}");
            assert_eq!(b.value(&format!("SHOW {name}")).await, theirs, "{name}");
        }
        // Back to the default in one client means nothing to the other.
        a.rows("RESET TimeZone").await;
        b.rows("SET TimeZone = 'CET'").await;
        assert_eq!(a.value("SHOW TimeZone").await, pooler.raw().await.value("SHOW TimeZone").await);
        assert_eq!(b.value("SHOW TimeZone").await, "CET");
    });
}

#[test]
fn queries_in_one_go_come_back_in_order() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        let all: Vec<u8> = (0..50).flat_map(|n| query(&format!("SELECT {n}"))).collect();
        raw.send(&all).await;
        for n in 0..50 {
            let messages = raw.until_ready().await;
            assert_eq!(messages[1].values(), [n.to_string()]);
        }
        // An error in the middle of a pipeline skips to the Sync, no further.
        let failing = [
            parse("", "SELECT 1/0"),
            bind(""),
            execute(),
            parse("", "SELECT 2"),
            bind(""),
            execute(),
            sync(),
        ];
        let good = [parse("", "SELECT 3"), bind(""), execute(), sync()];
        raw.send(&[failing.concat(), good.concat(), failing.concat(), good.concat()].concat()).await;
        for expected in ["1EZ", "12DCZ", "1EZ", "12DCZ"] {
            let messages = raw.until_ready().await;
            assert_eq!(messages.iter().map(|m| m.tag).collect::<String>(), expected);
        }
        assert_eq!(pooler.figure("SHOW POOLS", "app", "sv_active").await, 0);
    });
}

#[test]
fn every_byte_may_come_alone() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        let all = [
            query("SELECT 1, repeat('x', 100)"),
            parse("s", "SELECT 2"),
            describe("s"),
            bind("s"),
            execute(),
            sync(),
        ];
        for byte in all.concat() {
            raw.send(&[byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(raw.until_ready().await.iter().map(|m| m.tag).collect::<String>(), "TDCZ");
        assert_eq!(raw.until_ready().await.iter().map(|m| m.tag).collect::<String>(), "1tT2DCZ");
    });
}

#[test]
fn copy_goes_both_ways() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows("DROP TABLE IF EXISTS copied; CREATE TABLE copied (a int, b text)").await;
        raw.send(&query("COPY copied FROM STDIN")).await;
        assert_eq!(raw.receive().await.unwrap().tag, 'G');
        for n in 0..1000 {
            raw.send(&message(b'd', format!("{n}\t{}\n", "x".repeat(n)).as_bytes())).await;
        }
        assert_eq!(raw.tags(&message(b'c', b"")).await, "CZ");
        assert_eq!(raw.value("SELECT count(*) || ',' || sum(length(b)) FROM copied").await, "1000,499500");
        raw.send(&query("COPY copied TO STDOUT")).await;
        let messages = raw.until_ready().await;
        assert_eq!(messages.iter().filter(|m| m.tag == 'd').count(), 1000);
        // The client gives up; the server finds fault; both leave a usable connection.
        raw.send(&query("COPY copied FROM STDIN")).await;
        raw.receive().await;
        assert_eq!(raw.tags(&message(b'f', b"no\0")).await, "EZ");
        raw.send(&query("COPY copied FROM STDIN")).await;
        raw.receive().await;
        raw.send(
            &[message(b'd', b"not a number\tx\n"), message(b'd', b"1\ty\n"), message(b'c', b"")].concat(),
        )
        .await;
        assert_eq!(raw.until_ready().await.iter().map(|m| m.tag).collect::<String>(), "EZ");
        assert_eq!(raw.value("SELECT count(*) FROM copied").await, "1000");
        // libpq sends the Sync of the extended protocol right behind Execute, where COPY swallows it.
        raw.send(&[parse("", "COPY copied FROM STDIN"), bind(""), execute(), sync()].concat()).await;
        let mut tags = String::new();
        while !tags.ends_with('G') {
            tags.push(raw.receive().await.unwrap().tag);
        }
        assert_eq!(tags, "12G");
        assert_eq!(raw.tags(&[message(b'd', b"1\tz\n"), message(b'c', b""), sync()].concat()).await, "CZ");
        assert_eq!(raw.value("SELECT count(*) FROM copied").await, "1001");
        raw.rows("DROP TABLE copied").await;
        assert_eq!(pooler.figure("SHOW POOLS", "app", "sv_active").await, 0);
    });
}

#[test]
fn function_calls_and_large_objects() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        let oid: u32 = raw.value("SELECT 'int4abs(int4)'::regprocedure::oid").await.parse().unwrap();
        let mut body = oid.to_be_bytes().to_vec();
        body.extend([0, 1, 0, 1, 0, 1, 0, 0, 0, 4]);
        body.extend((-5i32).to_be_bytes());
        body.extend([0, 1]);
        raw.send(&message(b'F', &body)).await;
        let messages = raw.until_ready().await;
        assert_eq!(messages[0].tag, 'V');
        assert_eq!(messages[0].body, [0, 0, 0, 4, 0, 0, 0, 5]);
    });
}

#[test]
fn large_results_arrive_whole() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        raw.send(&query("SELECT repeat(chr(65 + n % 26), 100000) FROM generate_series(1, 300) n")).await;
        // A client that does not read for a while stops the server, not the pooler.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
        let rows: Vec<_> = raw.until_ready().await.into_iter().filter(|m| m.tag == 'D').collect();
        assert_eq!(rows.len(), 300);
        for (n, row) in rows.iter().enumerate() {
            let expected = char::from(b'A' + u8::try_from((n + 1) % 26).unwrap());
            let text = &row.values()[0];
            assert!(text.len() == 100_000 && text.chars().all(|c| c == expected));
        }
    });
}

#[test]
fn notices_and_empty_queries() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        assert_eq!(raw.tags(&query("")).await, "IZ");
        assert_eq!(raw.tags(&query("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")).await, "NCZ");
        assert_eq!(raw.tags(&[query("SELECT 1; SELECT 2; SELECT 1/0; SELECT 3")].concat()).await, "TDCTDCEZ");
    });
}

#[test]
fn the_queue_is_first_in_first_out_and_tells_those_who_wait() {
    let pooler = Pooler::start("default_pool_size = 1\nquery_wait_notify = 0.3\nworkers = 1");
    run(async {
        let mut holder = pooler.raw().await;
        holder.rows("BEGIN").await;
        let mut waiting = Vec::new();
        for n in 0..5 {
            let mut raw = pooler.raw().await;
            raw.send(&query(&format!("SELECT {n}, clock_timestamp()"))).await;
            waiting.push(raw);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let notice = waiting[0].receive().await.unwrap();
        assert_eq!(notice.tag, 'N');
        assert!(notice.field('M').contains("client being queued"), "{notice:?}");
        assert_eq!(pooler.figure("SHOW POOLS", "app", "cl_waiting").await, 5);
        assert!(pooler.figure("SHOW POOLS", "app", "maxwait_us").await > 0);
        holder.rows("COMMIT").await;
        let mut times = Vec::new();
        for raw in &mut waiting {
            let messages = raw.until_ready().await;
            times.push(messages.iter().find(|m| m.tag == 'D').unwrap().values()[1].clone());
        }
        assert!(times.is_sorted(), "{times:?}");
        assert_eq!(pooler.figure("SHOW POOLS", "app", "cl_waiting").await, 0);
    });
}

#[test]
fn what_held_for_the_wait_does_not_hold_for_the_query() {
    let pooler = Pooler::start("default_pool_size = 1\nquery_wait_notify = 1\nquery_wait_timeout = 1");
    run(async {
        let mut holder = pooler.raw().await;
        holder.rows("BEGIN").await;
        let mut waiting = pooler.raw().await;
        waiting.send(&query("SELECT pg_sleep(1.5), 'done'")).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        holder.rows("COMMIT").await;
        assert!(waiting.until_ready().await.iter().any(|m| m.tag == 'D'));
    });
}

#[test]
fn clients_of_a_forced_user_share_one_pool() {
    let databases = format!(
        "app = host=127.0.0.1 port={} user=app password='{}' pool_size=1 min_pool_size=1\n",
        cluster().primary,
        crate::support::PASSWORD
    );
    let pooler = Pooler::with_databases(&databases, "");
    // Before any client has come.
    eventually("one server", || run(pooler.figure("SHOW POOLS", "app", "sv_idle")) == 1);
    run(async {
        let parameters = [("user", "other"), ("database", "app")];
        let mut other = Raw::log_in_with(pooler.port, 3 << 16, &parameters, "other").await.unwrap();
        let backend = pooler.raw().await.value("SELECT pg_backend_pid()").await;
        assert_eq!(other.value("SELECT pg_backend_pid()").await, backend);
        assert_eq!(other.value("SELECT current_user").await, USER);
    });
}

#[test]
fn a_client_that_leaves_the_queue_leaves_no_trace() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let mut holder = pooler.raw().await;
        holder.rows("BEGIN").await;
        for _ in 0..5 {
            let mut raw = pooler.raw().await;
            raw.send(&query("SELECT 1")).await;
        }
        holder.rows("COMMIT").await;
        assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
        assert_eq!(pooler.figure("SHOW POOLS", "app", "cl_waiting").await, 0);
    });
}

#[test]
fn a_client_that_leaves_in_a_transaction_takes_its_server_along() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows("BEGIN").await;
        let backend = raw.value("SELECT pg_backend_pid()").await;
        drop(raw);
        assert_ne!(pooler.raw().await.value("SELECT pg_backend_pid()").await, backend);
    });
    assert!(pooler.log().contains("closing because: client unexpected eof"));
}

#[test]
fn the_reserve_is_tapped_when_somebody_waits_too_long() {
    let pooler = Pooler::start("default_pool_size = 1\nreserve_pool_size = 1\nreserve_pool_timeout = 0.5");
    run(async {
        let mut holder = pooler.raw().await;
        holder.rows("BEGIN").await;
        let start = std::time::Instant::now();
        assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
        assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
    });
    assert!(pooler.log().contains("taking connection from reserve_pool"));
}

#[test]
fn limits_of_databases_and_users_hold_across_pools() {
    let port = cluster().primary;
    let databases = format!(
        "app = host=127.0.0.1 port={port} max_db_connections=1\napp2 = host=127.0.0.1 port={port} dbname=app\n"
    );
    let pooler = Pooler::with_databases(&databases, "max_user_connections = 2\nquery_wait_timeout = 1");
    run(async {
        let (mut a, mut b) = (pooler.raw().await, Raw::log_in(pooler.port, "app2").await);
        a.rows("BEGIN").await;
        b.rows("BEGIN").await;
        let mut c = Raw::log_in(pooler.port, "app2").await;
        assert_eq!(c.error("SELECT 1").await.field('M'), "query_wait_timeout");
        let mut d = pooler.raw().await;
        assert_eq!(d.error("SELECT 1").await.field('C'), "53300");
        b.rows("COMMIT").await;
        assert_eq!(Raw::log_in(pooler.port, "app2").await.value("SELECT 1").await, "1");
    });
}

#[test]
fn min_pool_size_is_kept_open() {
    let pooler = Pooler::start("min_pool_size = 3");
    run(async {
        assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
    });
    eventually("three servers", || run(pooler.figure("SHOW POOLS", "app", "sv_idle")) >= 1);
    let client = run(pooler.raw());
    eventually("three servers", || run(pooler.figure("SHOW POOLS", "app", "sv_idle")) == 3);
    drop(client);
}

#[test]
fn a_server_that_dies_is_replaced() {
    let pooler = Pooler::start("default_pool_size = 2");
    run(async {
        let mut raw = pooler.raw().await;
        let backend = raw.value("SELECT pg_backend_pid()").await;
        cluster().admin(cluster().primary, &format!("SELECT pg_terminate_backend({backend}, 5000)"));
        // An idle one goes unnoticed.
        assert_ne!(raw.value("SELECT pg_backend_pid()").await, backend);
        // One in use takes its client along, which learns why from the server itself.
        raw.rows("BEGIN").await;
        let backend = raw.value("SELECT pg_backend_pid()").await;
        cluster().admin(cluster().primary, &format!("SELECT pg_terminate_backend({backend}, 5000)"));
        let error = raw.receive().await.unwrap();
        assert_eq!(error.field('C'), "57P01");
    });
}

#[test]
fn servers_are_checked_before_use_after_a_while() {
    let pooler =
        Pooler::start("server_check_delay = 0\nserver_check_query = SELECT 'checked'\ndefault_pool_size = 1");
    run(async {
        let mut raw = pooler.raw().await;
        for n in 0..3 {
            assert_eq!(raw.value(&format!("SELECT {n}")).await, n.to_string());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let seen = raw.value("SELECT 'mine'").await;
        assert_eq!(seen, "mine");
    });
}

#[test]
fn a_check_that_finds_a_server_dead_costs_the_client_nothing() {
    let pooler = Pooler::start(
        "server_check_delay = 0\nserver_check_query = SELECT pg_backend_pid()\ndefault_pool_size = 3",
    );
    run(async {
        let mut raw = pooler.raw().await;
        let backend = raw.value("SELECT pg_backend_pid()").await;
        // It will not notice before it is asked something.
        let pid = nix::unistd::Pid::from_raw(backend.parse().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        cluster().admin(cluster().primary, &format!("SELECT pg_terminate_backend({backend})"));
        raw.send(&query("SELECT pg_backend_pid()")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
        let messages = raw.until_ready().await;
        let row = messages.iter().find(|m| m.tag == 'D').unwrap();
        assert_ne!(row.values()[0], backend);
    });
}

#[test]
fn servers_grow_old_and_idle() {
    let pooler = Pooler::start("server_lifetime = 1");
    run(async {
        let mut raw = pooler.raw().await;
        let backend = raw.value("SELECT pg_backend_pid()").await;
        tokio::time::sleep(Duration::from_millis(1600)).await;
        assert_ne!(raw.value("SELECT pg_backend_pid()").await, backend);
    });
    assert!(pooler.log().contains("closing because: server_lifetime"));
    let pooler = Pooler::start("server_idle_timeout = 1");
    run(async { pooler.raw().await.value("SELECT 1").await });
    eventually("an idle server is closed", || pooler.log().contains("closing because: server_idle_timeout"));
}

#[test]
fn connect_query_and_parameters_of_a_database() {
    let databases = format!(
        "app = host=127.0.0.1 port={} connect_query='SET work_mem = ''77kB''' application_name='from the line' timezone=CET\n",
        cluster().primary
    );
    let pooler = Pooler::with_databases(&databases, "");
    run(async {
        let mut raw = pooler.raw().await;
        assert_eq!(raw.value("SHOW work_mem").await, "77kB");
        assert_eq!(raw.value("SHOW application_name").await, "from the line");
        assert_eq!(raw.parameter("TimeZone"), "CET");
    });
}

#[test]
fn the_star_stands_for_any_database() {
    let databases = format!("* = host=127.0.0.1 port={}\n", cluster().primary);
    let pooler = Pooler::with_databases(&databases, "");
    run(async {
        assert_eq!(
            Raw::log_in(pooler.port, "postgres").await.value("SELECT current_database()").await,
            "postgres"
        );
        let parameters = [("user", USER), ("database", "nothing")];
        let error = Raw::log_in_with(pooler.port, 3 << 16, &parameters, crate::support::PASSWORD)
            .await
            .err()
            .unwrap();
        assert_eq!(
            (error.field('C').as_str(), error.field('M').as_str()),
            ("3D000", "database \"nothing\" does not exist")
        );
    });
}

#[test]
fn what_a_client_may_not_send_ends_its_session_only() {
    let pooler = Pooler::start("");
    run(async {
        for bytes in
            [&b"Z\0\0\0\x05I"[..], b"Q\0\0\0\x03", b"Q\xff\xff\xff\xff", b"\0\0\0\0\x04", b"p\0\0\0\x04"]
        {
            let mut raw = pooler.raw().await;
            raw.send(bytes).await;
            let error = raw.receive().await.unwrap();
            assert_eq!((error.tag, error.field('C').as_str()), ('E', "08P01"), "{bytes:?}");
            assert_eq!(raw.receive().await, None);
        }
        assert_eq!(pooler.raw().await.value("SELECT 1").await, "1");
    });
}
