//! Hosts behind Kubernetes Services, as CloudNativePG's `-rw` and `-ro`: a name that means another server after a failover, none
//! at all for a while, or several at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

use crate::failover::{check, under_load, wait_for_roles};
use crate::support::pair::Pair;
use crate::support::raw::{Raw, query};
use crate::support::{Pooler, eventually, free_port, run};

/// An address that leads to one of several servers: each new connection to the next one. Without any it refuses them; those that
/// there are stay.
struct Service {
    port: u16,
    endpoints: Arc<Mutex<Vec<u16>>>,
}

impl Service {
    fn start(endpoints: &[u16]) -> Self {
        let service = Self { port: free_port(), endpoints: Arc::new(Mutex::new(endpoints.to_vec())) };
        let (port, endpoints) = (service.port, Arc::downgrade(&service.endpoints));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (mut listener, mut turn) = (None, 0);
                // Until the test ends.
                while let Some(endpoints) = endpoints.upgrade() {
                    let endpoints = endpoints.lock().clone();
                    if endpoints.is_empty() {
                        listener = None;
                    } else if listener.is_none() {
                        listener = TcpListener::bind(("127.0.0.1", port)).await.ok();
                    }
                    let Some(listening) = &listener else {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        continue;
                    };
                    let accepted = tokio::time::timeout(Duration::from_millis(5), listening.accept());
                    if let Ok(Ok((client, _))) = accepted.await {
                        turn += 1;
                        tokio::spawn(forward(client, endpoints[turn % endpoints.len()]));
                    }
                }
            });
        });
        service
    }

    fn set(&self, endpoints: &[u16]) {
        *self.endpoints.lock() = endpoints.to_vec();
    }

    /// From now on, and as long as the listener lives, connections are accepted, and that is all.
    fn fall_silent(&self) -> std::net::TcpListener {
        self.set(&[]);
        let mut silent = None;
        eventually("the port is free", || {
            silent = std::net::TcpListener::bind(("127.0.0.1", self.port)).ok();
            silent.is_some()
        });
        silent.unwrap()
    }
}

async fn forward(mut client: TcpStream, to: u16) {
    if let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)).await {
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}

fn pooler(services: &[&Service], settings: &str) -> Pooler {
    let join =
        |what: &dyn Fn(&Service) -> String| services.iter().map(|s| what(s)).collect::<Vec<_>>().join(",");
    let (hosts, ports) = (join(&|_| "127.0.0.1".to_owned()), join(&|s| s.port.to_string()));
    let database = format!("app = host={hosts} port={ports} read_write_split=1\n");
    Pooler::with_databases(&database, &format!("default_pool_size = 8\nlog_connections = 0\n{settings}"))
}

#[test]
fn a_failover_behind_services_costs_only_what_was_under_way() {
    let pair = Pair::start("services");
    let (rw, ro) = (Service::start(&pair.ports[..1]), Service::start(&pair.ports[1..]));
    let pooler = pooler(&[&rw, &ro], "");
    let seen = under_load(&pair, &pooler, || {
        rw.set(&[]);
        pair.stop(0, "fast");
        std::thread::sleep(Duration::from_secs(1));
        pair.promote(1);
        ro.set(&[]);
        rw.set(&pair.ports[1..]);
    });
    check("-rw without endpoints for a second", &pair, &seen);
    let errors = seen.write_errors.lock();
    assert!(errors.len() <= 8, "{errors:?}");
    assert!(seen.read_errors.lock().is_empty());
}

/// Which servers answer when as many read at once as there may be connections.
fn replicas_used(pooler: &Pooler) -> HashSet<String> {
    let port = pooler.port;
    run(async move {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            tasks.spawn(async move {
                let mut raw = Raw::log_in(port, "app").await;
                raw.value("/* pgweir: replica */ SELECT current_setting('port'), pg_sleep(0.1)").await
            });
        }
        tasks.join_all().await.into_iter().collect()
    })
}

#[test]
fn several_servers_behind_one_name_are_not_taken_for_one() {
    let mut pair = Pair::start("several");
    pair.add_replica();
    let (rw, ro) = (Service::start(&pair.ports[..1]), Service::start(&pair.ports[1..]));
    // So that a client gets another connection each time.
    let once = pooler(&[&rw, &ro], "server_round_robin = 1");
    wait_for_roles(&once);
    let used = replicas_used(&once);
    assert_eq!(used.len(), 1, "only the one that is watched: {used:?}");
    let twice =
        pooler(&[&rw, &ro, &ro], "server_round_robin = 1\ntopology_check_period = 0.02\nreplica_warm_up = 0");
    wait_for_roles(&twice);
    eventually("each entry is for one of them", || replicas_used(&twice).len() == 2);
    // So they are again when one has been away.
    pair.stop(2, "fast");
    ro.set(&pair.ports[1..2]);
    eventually("both are for the same", || {
        let hosts = run(twice.console("SHOW HOSTS"));
        hosts.iter().filter(|host| host[3] == "replica" && host[4] == "up").count() == 2
    });
    pair.launch(2);
    ro.set(&pair.ports[1..]);
    eventually("there are two again", || replicas_used(&twice).len() == 2);

    // One of them has not seen a write, and nobody who has to see it reads there.
    pair.admin_app(0, "CREATE TABLE seen (n int); GRANT ALL ON seen TO PUBLIC; INSERT INTO seen VALUES (0)");
    pair.admin(2, "SELECT pg_wal_replay_pause()");
    for pooler in [&once, &twice] {
        run(pooler.console("RELOAD"));
        run(async {
            let mut raw = pooler.raw().await;
            for before in 0..10 {
                raw.rows("UPDATE seen SET n = n + 1").await;
                tokio::time::sleep(Duration::from_millis(120)).await;
                for _ in 0..5 {
                    let now: i32 = raw.value("SELECT n FROM seen").await.parse().unwrap();
                    assert!(now > before, "{now} after {before}");
                }
            }
        });
        pair.admin_app(0, "UPDATE seen SET n = 0");
    }
    pair.admin(2, "SELECT pg_wal_replay_resume()");
}

#[test]
fn a_server_that_a_name_means_no_more_is_replaced() {
    let mut pair = Pair::start("replaced");
    pair.add_replica();
    let (rw, ro) = (Service::start(&pair.ports[..1]), Service::start(&pair.ports[1..2]));
    let pooler = pooler(&[&rw, &ro], "");
    wait_for_roles(&pooler);
    assert_eq!(replicas_used(&pooler), HashSet::from([pair.ports[1].to_string()]));
    ro.set(&pair.ports[2..]);
    pair.kill(1);
    eventually("the other replica is read from", || {
        replicas_used(&pooler).contains(&pair.ports[2].to_string())
    });
    assert!(pooler.log().contains("is another server now"));
}

#[test]
fn a_server_that_has_left_its_service_is_given_up() {
    let mut pair = Pair::start("left");
    pair.add_replica();
    let (rw, ro) = (Service::start(&pair.ports[..1]), Service::start(&pair.ports[1..2]));
    let pooler = pooler(&[&rw, &ro], "");
    wait_for_roles(&pooler);
    assert_eq!(replicas_used(&pooler), HashSet::from([pair.ports[1].to_string()]));
    // It lives on, and so do the connections to it until something closes them.
    ro.set(&pair.ports[2..]);
    run(pooler.console("RECONNECT app"));
    eventually("the other replica is read from", || {
        replicas_used(&pooler) == HashSet::from([pair.ports[2].to_string()])
    });
}

/// A primary and a replica, the Services that lead to them, and a pooler that has time and knows who is what.
fn with_a_service_each(name: &str) -> (Pair, Service, Service, Pooler) {
    let pair = Pair::start(name);
    let (rw, ro) = (Service::start(&pair.ports[..1]), Service::start(&pair.ports[1..]));
    let pooler = pooler(&[&rw, &ro], "server_connect_timeout = 600");
    wait_for_roles(&pooler);
    (pair, rw, ro, pooler)
}

#[test]
fn nobody_waits_for_a_replica_that_says_nothing() {
    let (pair, _rw, ro, pooler) = with_a_service_each("silent");
    assert_eq!(replicas_used(&pooler), HashSet::from([pair.ports[1].to_string()]));
    let _listener = ro.fall_silent();
    pair.kill(1);
    assert_eq!(replicas_used(&pooler), HashSet::from([pair.ports[0].to_string()]));
}

#[test]
fn nobody_waits_for_a_primary_that_says_nothing_once_there_is_another() {
    let (pair, rw, _ro, pooler) = with_a_service_each("mute");
    let _listener = rw.fall_silent();
    pair.kill(0);
    eventually("it is missed", || pooler.log().contains("there is no primary"));
    run(async {
        let mut raw = pooler.raw().await;
        raw.send(&query("CREATE TABLE written (n int)")).await;
        while pooler.console("SHOW POOLS").await.iter().all(|pool| pool[3] == "0") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        pair.promote(1);
        raw.until_ready().await;
    });
    assert_eq!(pair.admin_app(1, "SELECT count(*) FROM written"), "0");
}

#[test]
fn databases_made_anew_are_used_although_their_timeline_is_older() {
    let (old, new) = (Pair::start("before"), Pair::start("after"));
    old.stop(0, "fast");
    old.promote(1);
    let (rw, ro) = (Service::start(&old.ports[1..]), Service::start(&[]));
    let pooler = pooler(&[&rw, &ro], "topology_check_period = 0.02\nreplica_warm_up = 0");
    run(async {
        let mut raw = pooler.raw().await;
        assert_eq!(
            raw.value("CREATE TABLE t (); SELECT current_setting('port')").await,
            old.ports[1].to_string()
        );
        eventually("the primary is known", || pooler.log().contains("is a primary, timeline 2"));
        rw.set(&[]);
        old.stop(1, "fast");
        rw.set(&new.ports[..1]);
        ro.set(&new.ports[1..]);
        let mut raw = pooler.raw().await;
        assert_eq!(
            raw.value("CREATE TABLE t (); SELECT current_setting('port')").await,
            new.ports[0].to_string()
        );
    });
    eventually("its replica is read from", || {
        replicas_used(&pooler) == HashSet::from([new.ports[1].to_string()])
    });
}
