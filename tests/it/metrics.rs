//! The HTTP listener.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::ending::ended;
use crate::support::raw::query;
use crate::support::{Ends, Pooler, free_port, run};

fn get(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains("Transfer-Encoding: chunked") => {
            format!("{head}\r\n\r\n{}", joined(body))
        }
        _ => answer,
    }
}

/// A body that has come in pieces.
fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((len, rest)) = chunks.split_once("\r\n") {
        let (piece, after) = rest.split_at(usize::from_str_radix(len, 16).unwrap());
        body += piece;
        chunks = after.strip_prefix("\r\n").unwrap();
    }
    body
}

#[test]
fn the_page_has_the_exporters_names_and_is_sound() {
    let http = free_port();
    let pooler = Pooler::start(&format!("http_port = {http}\ndefault_pool_size = 1"));
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows("BEGIN").await;
        let mut waiting = pooler.raw().await;
        waiting.send(&query("SELECT 1")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let page = get(http, "GET /metrics");
        assert!(
            page.contains("\npgbouncer_pools_client_waiting_connections{database=\"app\",user=\"app\"} 1\n"),
            "{page}"
        );
        raw.rows("COMMIT").await;
        waiting.until_ready().await;
    });
    let page = get(http, "GET /metrics");
    for sample in [
        "pgbouncer_up 1",
        "pgbouncer_stats_queries_pooled_total{database=\"app\"} 3",
        "pgbouncer_stats_sql_transactions_pooled_total{database=\"app\"} 2",
        "pgbouncer_pools_server_idle_connections{database=\"app\",user=\"app\"} 1",
        "pgweir_client_wait_seconds_count{database=\"app\",user=\"app\"} 1",
        "pgweir_transaction_seconds_count{database=\"app\",user=\"app\"} 2",
        "pgbouncer_config_max_client_connections 100",
    ] {
        assert!(page.contains(&format!("\n{sample}\n")), "{sample}\n{page}");
    }
    let figure = |name: &str| {
        let line = page.lines().find(|line| line.starts_with(&format!("{name}{{worker=\"0\"}} ")));
        line.unwrap_or_else(|| panic!("{name}: {page}")).split(' ').nth(1).unwrap().parse::<f64>().unwrap()
    };
    assert!(figure("pgweir_worker_turn_seconds_count") > 3.0);
    assert!(figure("pgweir_worker_slow_turns_total") >= 0.0);
    // The page is made in the course of one.
    assert!(figure("pgweir_worker_busy_seconds") > 0.0);
    let body = page.split("\r\n\r\n").nth(1).unwrap();
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    match promtool {
        Ok(mut promtool) => {
            promtool.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
            let output = ended(promtool).unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && said.is_empty(), "{said}");
        }
        Err(error) => println!("SKIPPED: promtool: {error}"),
    }
}

#[test]
fn probes_and_mistakes() {
    let http = free_port();
    let pooler = Pooler::start(&format!("http_port = {http}"));
    assert!(get(http, "GET /livez").starts_with("HTTP/1.1 200 "));
    assert!(get(http, "GET /readyz?x").starts_with("HTTP/1.1 200 "));
    assert!(get(http, "HEAD /readyz").ends_with("\r\n\r\n"));
    assert!(get(http, "GET /nothing").starts_with("HTTP/1.1 404 "));
    assert!(get(http, "POST /metrics").starts_with("HTTP/1.1 405 "));
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows("BEGIN").await;
        let _ = pooler.console("SHUTDOWN WAIT_FOR_CLIENTS").await;
    });
    drop(TcpStream::connect(("127.0.0.1", http)));
}

/// 300 connections that say nothing, half of a request, or ask for the page and do not take it: probes are answered, and
/// so are scrapers and clients.
#[test]
fn probes_are_answered_whatever_else_is_connected() {
    let http = free_port();
    let pooler = Pooler::start(&format!("http_port = {http}"));
    let mut others = Vec::new();
    for number in 0..300 {
        let mut stream = TcpStream::connect(("127.0.0.1", http)).unwrap();
        let said = ["", "GET /livez HTTP/1.1\r\nHo", "GET /metrics HTTP/1.1\r\n\r\n"][number % 3];
        stream.write_all(said.as_bytes()).unwrap();
        others.push(stream);
        if number % 20 == 0 {
            let asked = Instant::now();
            assert!(get(http, "GET /livez").starts_with("HTTP/1.1 200 "));
            assert!(get(http, "GET /readyz").starts_with("HTTP/1.1 200 "));
            println!("{number} connections: {:?} for two answers", asked.elapsed());
            // Far more than it takes, far less than a silent connection is waited for.
            assert!(asked.elapsed() < Duration::from_secs(2));
        }
    }
    assert!(get(http, "GET /metrics").contains("\npgbouncer_up 1\n"));
    run(async { assert_eq!(pooler.raw().await.value("SELECT 1").await, "1") });
    // Those for which there was no room are closed, the oldest first; the youngest are still waited for.
    let mut byte = [0];
    others[0].set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(matches!(others[0].read(&mut byte), Ok(0) | Err(_)));
    let youngest = &mut others[298];
    youngest.write_all(b"st: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    youngest.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_port_that_was_asked_for_must_be_had() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = Pooler::new_dir();
    let settings = format!("http_port = {}", taken.local_addr().unwrap().port());
    std::fs::write(dir.join("pgweir.ini"), Pooler::ini(&dir, free_port(), "", &settings)).unwrap();
    let output = crate::support::unprivileged(crate::support::exe().to_str().unwrap())
        .arg(dir.join("pgweir.ini"))
        .ended();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot serve /metrics"), "{output:?}");
}
