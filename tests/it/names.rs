//! Host names of servers: what is remembered of them, and what happens when they come to mean another address.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::cancel::cancel;
use crate::support::raw::{error, query};
use crate::support::{PASSWORD, Pooler, Raw, USER, cluster, eventually, run};

/// A PostgreSQL at two addresses.
fn server() -> u16 {
    static PORT: OnceLock<u16> = OnceLock::new();
    *PORT.get_or_init(|| {
        let hba = "local all all trust\nhost all all 127.0.0.0/8 trust\n";
        let port =
            cluster().start_another("two-addresses", "listen_addresses = '127.0.0.2,127.0.0.3'\n", hba);
        cluster().admin(port, &format!("CREATE ROLE {USER} LOGIN"));
        port
    })
}

/// A pooler that knows this server by a name.
fn pooler(settings: &str) -> Option<Pooler> {
    let pooler = Pooler::mounting("names", "/etc/hosts", |dir| {
        std::fs::write(dir.join("names"), "127.0.0.2 db.test\n").unwrap();
        (format!("app = host=db.test port={} dbname=postgres\n", server()), settings.to_owned())
    });
    if pooler.is_none() {
        println!("SKIPPED: /etc/hosts cannot be another file");
    }
    pooler
}

fn moves(pooler: &Pooler) {
    std::fs::write(pooler.dir.join("names"), "127.0.0.3 db.test\n").unwrap();
}

const ADDRESS: &str = "SELECT host(inet_server_addr())";

#[test]
fn connections_to_an_address_that_a_name_has_no_more_are_given_up() {
    let Some(pooler) = pooler("dns_max_ttl = 0.1\n") else { return };
    run(async {
        let mut clients = [pooler.raw().await, pooler.raw().await, pooler.raw().await];
        for client in &mut clients[..2] {
            client.rows("BEGIN").await;
            assert_eq!(client.value(ADDRESS).await, "127.0.0.2");
        }
        clients[1].rows("COMMIT").await;
        let [one, two, three] = &mut clients;
        moves(&pooler);
        tokio::time::sleep(Duration::from_millis(200)).await;
        two.rows("BEGIN").await;
        assert_eq!(two.value(ADDRESS).await, "127.0.0.2", "an idle connection needs no look-up");
        assert_eq!(three.value(ADDRESS).await, "127.0.0.3", "a new one does");
        let servers = pooler.console("SHOW SERVERS").await;
        let addresses: Vec<_> = servers.iter().map(|row| row[5].as_str()).collect();
        assert_eq!(addresses, ["127.0.0.2", "127.0.0.2", "127.0.0.3"], "{servers:?}");
        eventually("both are noticed", || pooler_marks(&pooler) == 2);
        // Transactions are not disturbed.
        for client in [one, two] {
            assert_eq!(client.value(ADDRESS).await, "127.0.0.2");
            client.rows("COMMIT").await;
            assert_eq!(client.value(ADDRESS).await, "127.0.0.3");
        }
    });
    assert_eq!(pooler.log().matches("closing because: obsolete connection").count(), 2);
}

/// Servers that are to be closed, asked of a thread with a runtime of its own.
fn pooler_marks(pooler: &Pooler) -> usize {
    std::thread::scope(|scope| {
        let rows = scope.spawn(|| run(pooler.console("SHOW SERVERS"))).join().unwrap();
        rows.iter().filter(|row| row[13] == "1").count()
    })
}

#[test]
fn a_change_is_noticed_although_nobody_connects() {
    let settings = "dns_max_ttl = 3600\ndns_zone_check_period = 0.2\nmin_pool_size = 1\n";
    let Some(pooler) = pooler(settings) else { return };
    run(async {
        let mut client = pooler.raw().await;
        assert_eq!(client.value(ADDRESS).await, "127.0.0.2");
        moves(&pooler);
        let start = Instant::now();
        while client.value(ADDRESS).await == "127.0.0.2" {
            assert!(start.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    // A name that cannot be found is no reason to give up what works.
    std::fs::write(pooler.dir.join("names"), "").unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    run(async { assert_eq!(pooler.raw().await.value(ADDRESS).await, "127.0.0.3") });
    assert_eq!(pooler.log().matches("closing because: obsolete connection").count(), 1);
}

#[test]
fn a_cancel_request_goes_where_its_query_runs() {
    let Some(pooler) = pooler("dns_max_ttl = 0.1\n") else { return };
    run(async {
        let mut client = pooler.raw().await;
        assert_eq!(client.value(ADDRESS).await, "127.0.0.2");
        // Nobody is there.
        std::fs::write(pooler.dir.join("names"), "127.0.0.4 db.test\n").unwrap();
        client.send(&query("SELECT pg_sleep(20)")).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        cancel(pooler.port, &client.key).await;
        assert_eq!(error(&client.until_ready().await).field('C'), "57014");
    });
}

#[test]
fn names_of_hosts_are_remembered() {
    let line = |name, host| format!("{name} = host={host} port={} dbname=app\n", cluster().primary);
    let databases = line("app", "localhost") + &line("unknown", "unknown.invalid");
    let pooler = Pooler::with_databases(&databases, "query_wait_timeout = 0.5\nresolv_conf = /nonexistent");
    run(async {
        pooler.raw().await.rows("SELECT 1").await;
        let parameters = [("user", USER), ("database", "unknown")];
        assert!(Raw::log_in_with(pooler.port, 3 << 16, &parameters, PASSWORD).await.is_err());
        let known = pooler.console("SHOW DNS_HOSTS").await;
        assert_eq!(known.len(), 2, "{known:?}");
        assert!(known[0][0] == "localhost" && known[0][2].contains("127.0.0.1:0"), "{known:?}");
        assert!(known[1][0] == "unknown.invalid" && known[1][2].is_empty(), "{known:?}");
    });
    assert!(pooler.log().contains("resolv_conf has no effect: the system's resolver looks names up"));
    assert!(pooler.log().contains("closing because: server DNS lookup failed"));
}
