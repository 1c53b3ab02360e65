//! Several processes behind one address: a cancel request finds its client wherever it comes in.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::support::raw::{Raw, error, query};
use crate::support::{PASSWORD, Pooler, USER, cluster, eventually, free_port, run};

/// Sends a cancel request to this very process, and waits until it has been dealt with.
fn cancel(pooler: &Pooler, key: &(u32, Vec<u8>)) {
    let mut stream = UnixStream::connect(pooler.dir.join(format!(".s.PGSQL.{}", pooler.port))).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let body = [&80_877_102u32.to_be_bytes()[..], &key.0.to_be_bytes(), &key.1].concat();
    let len = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    stream.write_all(&[&len[..], &body].concat()).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

fn peer_of(key: &(u32, Vec<u8>)) -> u16 {
    u16::from_le_bytes([key.0.to_be_bytes()[1], key.0.to_be_bytes()[2]])
}

/// Processes with one port; `peers` says what each has in `[peers]`, given the folders of all.
fn start(count: usize, peers: impl Fn(usize, &[std::path::PathBuf], u16) -> String) -> Vec<Pooler> {
    let port = free_port();
    let dirs: Vec<_> = (0..count).map(|_| Pooler::new_dir()).collect();
    let databases = format!("app = host=127.0.0.1 port={}\n", cluster().primary);
    let pooler = |(n, dir): (usize, &std::path::PathBuf)| {
        let settings =
            format!("so_reuseport = 1\npeer_id = {}\nverbose = 1\n[peers]\n{}", n + 1, peers(n, &dirs, port));
        std::fs::write(dir.join("pgweir.ini"), Pooler::ini(dir, port, &databases, &settings)).unwrap();
        let pooler = Pooler::launch(port, dir.clone());
        eventually("it is up", || pooler.log().contains("process up"));
        pooler
    };
    dirs.iter().enumerate().map(pooler).collect()
}

#[test]
fn a_request_finds_its_client_from_any_peer() {
    let poolers = start(2, |n, dirs, port| {
        let other = 1 - n;
        format!("{} = host={} port={port} pool_size=3\n", other + 1, dirs[other].display())
    });
    run(async {
        for version in [3 << 16, 3 << 16 | 2] {
            for at_its_own in [true, false] {
                let parameters = [("user", USER), ("database", "app")];
                let mut client =
                    Raw::log_in_with(poolers[0].port, version, &parameters, PASSWORD).await.unwrap();
                let own = peer_of(&client.key);
                assert!([1, 2].contains(&own), "{:?}", client.key);
                client.send(&query("SELECT pg_sleep(20)")).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
                let receiver = if at_its_own { own } else { 3 - own };
                cancel(&poolers[usize::from(receiver - 1)], &client.key);
                assert_eq!(error(&client.until_ready().await).field('C'), "57014");
            }
        }
    });
    let passed_on: usize =
        poolers.iter().map(|pooler| pooler.log().matches("forwarding cancellation request").count()).sum();
    assert_eq!(passed_on, 2);
}

#[test]
fn the_console_shows_peers() {
    let poolers = start(1, |_, dirs, port| {
        format!("7 = host={}\n3 = host=h port={port} pool_size=2\n", dirs[0].display())
    });
    run(async {
        let (dir, port) = (poolers[0].dir.display().to_string(), poolers[0].port.to_string());
        let rows = poolers[0].console("SHOW PEERS").await;
        assert_eq!(rows, [["3", "h", &port, "2"], ["7", &dir, "6432", "20"]]);
        assert_eq!(
            poolers[0].console("SHOW PEER_POOLS").await,
            [["3", "0", "0", "0", "0"], ["7", "0", "0", "0", "0"]]
        );
    });
}

#[test]
fn requests_do_not_go_round_for_ever() {
    // The peer with number 2 is this process, which is number 1.
    let poolers = start(1, |_, dirs, port| format!("2 = host={} port={port}\n", dirs[0].display()));
    let lost = (u32::from_be_bytes([0, 2, 0, 0]), vec![1, 2, 3, 0xff]);
    cancel(&poolers[0], &lost);
    assert_eq!(poolers[0].log().matches("forwarding cancellation request to peer 2").count(), 3);
    // Nobody has number 9.
    cancel(&poolers[0], &(u32::from_be_bytes([0, 9, 0, 0]), vec![1, 2, 3, 0xff]));
}
