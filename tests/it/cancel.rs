//! A cancel request stops the query of its client, and never another one.

use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::support::raw::{Raw, error, query};
use crate::support::{PASSWORD, Pooler, USER, cluster, run};

/// Sends a cancel request and waits until it was dealt with.
pub(crate) async fn cancel(port: u16, key: &(u32, Vec<u8>)) {
    let mut raw = Raw::connect(port).await;
    let body = [&80_877_102u32.to_be_bytes()[..], &key.0.to_be_bytes(), &key.1].concat();
    raw.send(&[&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], &body].concat()).await;
    assert_eq!(raw.receive().await, None);
}

#[test]
fn a_request_stops_its_own_query() {
    let pooler = Pooler::start("default_pool_size = 2");
    run(async {
        for version in [3 << 16, 3 << 16 | 2] {
            let parameters = [("user", USER), ("database", "app")];
            let mut a = Raw::log_in_with(pooler.port, version, &parameters, PASSWORD).await.unwrap();
            let mut b = pooler.raw().await;
            a.send(&query("SELECT pg_sleep(20)")).await;
            b.send(&query("SELECT pg_sleep(0.7), 'undisturbed'")).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            cancel(pooler.port, &a.key).await;
            assert_eq!(error(&a.until_ready().await).field('C'), "57014");
            assert!(b.until_ready().await.iter().any(|m| m.tag == 'D' && m.values()[1] == "undisturbed"));
            assert_eq!(a.value("SELECT 1").await, "1");
        }
    });
}

#[test]
fn wrong_keys_and_idle_clients_have_no_effect() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let (mut a, idle) = (pooler.raw().await, pooler.raw().await);
        a.send(&query("SELECT pg_sleep(1), 'undisturbed'")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut wrong = a.key.clone();
        wrong.1[0] ^= 1;
        cancel(pooler.port, &wrong).await;
        cancel(pooler.port, &(a.key.0 ^ 1, a.key.1.clone())).await;
        // This client has no server: the one server is somebody else's.
        cancel(pooler.port, &idle.key).await;
        assert!(a.until_ready().await.iter().any(|m| m.tag == 'D' && m.values()[1] == "undisturbed"));
    });
}

#[test]
fn a_query_that_waits_is_cancelled_without_a_server() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let mut holder = pooler.raw().await;
        holder.rows("BEGIN").await;
        let mut waiting = pooler.raw().await;
        waiting.send(&query("SELECT 1")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        cancel(pooler.port, &waiting.key).await;
        let error = waiting.receive().await.unwrap();
        assert_eq!((error.tag, error.field('C').as_str()), ('E', "57014"));
        holder.rows("COMMIT").await;
        assert_eq!(pooler.figure("SHOW POOLS", "app", "sv_active").await, 0);
    });
}

#[test]
fn a_request_waits_while_the_server_answers_the_pooler() {
    let check = "server_check_query = select pg_sleep(0.6)\nserver_check_delay = 0";
    let pooler = Pooler::start(&format!("default_pool_size = 1\n{check}"));
    run(async {
        let mut raw = pooler.raw().await;
        let server = raw.value("SELECT pg_backend_pid()").await;
        raw.send(&query("SELECT pg_sleep(15)")).await;
        // The server is at the check now, which the request must not stop.
        tokio::time::sleep(Duration::from_millis(200)).await;
        cancel(pooler.port, &raw.key).await;
        assert_eq!(error(&raw.until_ready().await).field('C'), "57014");
        assert_eq!(raw.value("SELECT pg_backend_pid()").await, server, "it has failed no check");
    });
}

/// Passes the first connection on to the cluster, and keeps all others without a word.
async fn one_connection_only(listener: TcpListener) {
    let (mut client, _) = listener.accept().await.unwrap();
    let mut server = TcpStream::connect(("127.0.0.1", cluster().primary)).await.unwrap();
    let passing = tokio::io::copy_bidirectional(&mut client, &mut server);
    let mut kept = Vec::new();
    let keeping = async {
        while let Ok((ignored, _)) = listener.accept().await {
            kept.push(ignored);
        }
    };
    tokio::select! { _ = passing => {}, () = keeping => {} }
}

#[test]
fn requests_wait_for_each_other_but_not_for_ever() {
    run(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let databases = format!("app = host=127.0.0.1 port={}\n", listener.local_addr().unwrap().port());
        tokio::spawn(one_connection_only(listener));
        let settings = "default_pool_size = 1\ncancel_wait_timeout = 1";
        let pooler = tokio::task::spawn_blocking(move || Pooler::with_databases(&databases, settings));
        let pooler = pooler.await.unwrap();
        let mut raw = pooler.raw().await;
        raw.send(&query("SELECT pg_sleep(2.5), 'undisturbed'")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        // The first request has reached the server, which does not react.
        let (port, key) = (pooler.port, raw.key.clone());
        let first = tokio::spawn(async move { cancel(port, &key).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let key = raw.key.clone();
        let second = tokio::spawn(async move { cancel(port, &key).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(pooler.figure("SHOW POOLS", "app", "cl_active_cancel_req").await, 1);
        assert_eq!(pooler.figure("SHOW POOLS", "app", "cl_waiting_cancel_req").await, 1);
        second.await.unwrap();
        assert!(pooler.log().contains("app/(nouser)@127.0.0.1:"), "{}", pooler.log());
        assert!(pooler.log().contains("closing because: cancel_wait_timeout (age=1s)"), "{}", pooler.log());
        assert_eq!(pooler.figure("SHOW POOLS", "app", "cl_waiting_cancel_req").await, 0);
        assert!(raw.until_ready().await.iter().any(|m| m.tag == 'D' && m.values()[1] == "undisturbed"));
        first.abort();
    });
}
