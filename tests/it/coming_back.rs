//! One host that is gone for a while: clients that wait go on as soon as it is back.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::support::raw::{Raw, message, query, startup};
use crate::support::{Pooler, USER, cluster, eventually, free_port, run};

#[test]
fn a_host_is_tried_often_while_a_client_waits() {
    let port = free_port();
    let server = TcpListener::bind(("127.0.0.1", port)).unwrap();
    server.set_nonblocking(true).unwrap();
    let pooler =
        Pooler::with_databases(&format!("app = host=127.0.0.1 port={port}\n"), "auth_type = trust\n");
    run(async {
        let mut raw = Raw::connect(pooler.port).await;
        raw.send(&startup(3 << 16, &[("user", USER), ("database", "app")])).await;
        let start = Instant::now();
        let mut attempts = Vec::new();
        while start.elapsed() < Duration::from_secs(5) {
            // Each finds that it is closed at once.
            if server.accept().is_ok() {
                attempts.push(start.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let gaps = attempts.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.max().unwrap() < Duration::from_millis(1200), "{attempts:?}");
        assert!(attempts.len() < 30, "and not too often: {attempts:?}");
    });
}

/// The time for which a failed look-up is remembered is left as it is: 15 s.
#[test]
fn a_name_that_is_not_found_is_looked_up_again_while_a_client_waits() {
    let known = "127.0.0.1 db.test\n";
    let pooler = Pooler::mounting("names", "/etc/hosts", |dir| {
        std::fs::write(dir.join("names"), known).unwrap();
        (format!("app = host=db.test port={}\n", cluster().primary), "dns_max_ttl = 0.1\n".to_owned())
    });
    let Some(pooler) = pooler else { return println!("SKIPPED: /etc/hosts cannot be another file") };
    run(async {
        let mut raw = pooler.raw().await;
        assert_eq!(raw.value("SELECT 1").await, "1");
        std::fs::write(pooler.dir.join("names"), "").unwrap();
        pooler.console("RECONNECT").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        raw.send(&query("SELECT 'back'")).await;
        let failures = || pooler.log().matches("closing because: server DNS lookup failed").count();
        eventually("it has failed several times", || failures() > 3);
        std::fs::write(pooler.dir.join("names"), known).unwrap();
        let back =
            tokio::time::timeout(Duration::from_secs(5), raw.until_ready()).await.expect("it comes back");
        assert_eq!(back[1].values(), ["back"]);
        raw.send(&message(b'X', b"")).await;
    });
}
