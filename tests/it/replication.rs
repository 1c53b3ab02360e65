//! Replication through the pooler: PostgreSQL's own programs do it.

use std::process::{Child, Stdio};

use crate::support::raw::Raw;
use crate::support::tls::psql;
use crate::support::{Ends, PASSWORD, Pooler, USER, cluster, eventually, run};

const REPLICATOR: &str = "user=replicator password=replicator";

fn pooler(settings: &str) -> Pooler {
    Pooler::prepared(|dir| {
        let users = format!("\"{USER}\" \"{PASSWORD}\"\n\"replicator\" \"replicator\"\n");
        std::fs::write(dir.join("userlist.txt"), users).unwrap();
        (format!("* = host=127.0.0.1 port={}\n", cluster().primary), settings.to_owned())
    })
}

/// Follows the changes of the database `app`.
struct Follower(Child);

impl Follower {
    fn start(pooler: &Pooler, slot: &str) -> Self {
        let conninfo = format!("host=127.0.0.1 port={} {REPLICATOR} dbname=app", pooler.port);
        let recvlogical = |arguments: &[&str]| {
            let mut command = cluster().program("pg_recvlogical");
            command.args(["-d", &conninfo, "--slot", slot]).args(arguments).stdin(Stdio::null());
            command
        };
        let created = recvlogical(&["--create-slot", "-P", "test_decoding"]).ended();
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
        let file = pooler.dir.join("changes");
        let follower = recvlogical(&["--start", "--no-loop", "-F", "1", "-f", file.to_str().unwrap()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(follower)
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn drop_slot(slot: &str) {
    let inactive = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}' AND active");
    eventually("nobody uses the slot", || cluster().admin(cluster().primary, &inactive) == "0");
    cluster().admin(cluster().primary, &format!("SELECT pg_drop_replication_slot('{slot}')"));
}

#[test]
fn both_kinds_reach_the_server() {
    let pooler = pooler("");
    let system = cluster().admin(cluster().primary, "SELECT system_identifier FROM pg_control_system()");
    for (kind, database) in [("database", "app"), ("true", "")] {
        let conninfo = format!("port={} {REPLICATOR} replication={kind}", pooler.port);
        let answer = psql(&conninfo, "IDENTIFY_SYSTEM").unwrap();
        let fields: Vec<_> = answer.split('|').collect();
        assert_eq!((fields[0], fields[3]), (&*system, database), "{answer}");
    }
    // Whoever may not replicate is told so by the server.
    let error = psql(&format!("port={} replication=true", pooler.port), "IDENTIFY_SYSTEM").unwrap_err();
    assert!(error.contains("must be superuser or replication role"), "{error}");
}

#[test]
fn a_base_backup_passes_through_small_buffers() {
    let pooler = pooler("tcp_socket_buffer = 4096");
    let backup = pooler.dir.join("backup");
    let conninfo = format!("host=127.0.0.1 port={} {REPLICATOR}", pooler.port);
    let taken = cluster()
        .program("pg_basebackup")
        .args(["-X", "stream", "-c", "fast", "--no-sync", "-d", &conninfo, "-D", backup.to_str().unwrap()])
        .ended();
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    let verified = cluster().program("pg_verifybackup").arg(&backup).ended();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

#[test]
fn changes_are_followed_count_in_the_pool_and_end_with_kill() {
    let pooler = pooler("default_pool_size = 1\nquery_wait_timeout = 1");
    let mut follower = Follower::start(&pooler, "followed");
    run(async {
        let servers = || async { pooler.figure("SHOW POOLS", "app", "sv_active").await };
        let start = std::time::Instant::now();
        while servers().await != 1 {
            assert!(start.elapsed().as_secs() < 10, "the connection counts in its pool");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    cluster().admin_in(
        "app",
        cluster().primary,
        "CREATE TABLE followed (t text); INSERT INTO followed VALUES ('a change')",
    );
    let changes = || std::fs::read_to_string(pooler.dir.join("changes")).unwrap_or_default();
    eventually("the change arrives", || {
        changes().contains("table public.followed: INSERT: t[text]:'a change'")
    });

    // The pool has one place, which is taken.
    let error = psql(&format!("port={} {REPLICATOR} replication=database", pooler.port), "IDENTIFY_SYSTEM")
        .unwrap_err();
    assert!(error.contains("query_wait_timeout"), "{error}");

    run(async { pooler.console("KILL app").await });
    eventually("KILL ends it", || follower.has_ended());
    drop_slot("followed");
}

#[test]
fn a_replication_connection_is_nobody_elses() {
    let pooler = pooler("");
    let conninfo = format!("port={} {REPLICATOR} replication=database", pooler.port);
    psql(&conninfo, "IDENTIFY_SYSTEM").unwrap();
    run(async {
        let parameters = [("user", "replicator"), ("database", "app")];
        let mut raw = Raw::log_in_with(pooler.port, 3 << 16, &parameters, "replicator").await.unwrap();
        // On a connection for replication this would be a syntax error, or a walsender's answer.
        assert_eq!(raw.error("IDENTIFY_SYSTEM").await.field('C'), "42601");
        let me = "SELECT backend_type FROM pg_stat_activity WHERE pid = pg_backend_pid()";
        assert_eq!(raw.value(me).await, "client backend");
    });
}

/// Another PostgreSQL that subscribes by way of the pooler: its workers log in as they please, several at a time, and come
/// back when they are thrown out.
#[test]
fn a_subscription_copies_follows_and_recovers() {
    let pooler = pooler("");
    let publisher = |sql: &str| cluster().admin_in("app", cluster().primary, sql);
    publisher(
        "CREATE TABLE published (id int PRIMARY KEY, t text); INSERT INTO published SELECT n, repeat('x', 1000) FROM \
         generate_series(1, 2000) n; CREATE PUBLICATION everything FOR TABLE published",
    );
    publisher("GRANT SELECT ON published TO replicator");
    let conf = "wal_level = logical\nwal_retrieve_retry_interval = 200ms\n";
    let port = cluster().start_another("subscriber", conf, "local all all trust\n");
    let subscriber = |sql: &str| cluster().admin(port, sql);
    subscriber("CREATE TABLE published (id int PRIMARY KEY, t text)");
    let conninfo = format!("host=127.0.0.1 port={} {REPLICATOR} dbname=app", pooler.port);
    subscriber(&format!("CREATE SUBSCRIPTION subscribed CONNECTION '{conninfo}' PUBLICATION everything"));

    let sum = "SELECT count(*) || '/' || coalesce(sum(length(t)), 0) FROM published";
    let arrives = |what: &str| eventually(what, || subscriber(sum) == publisher(sum));
    arrives("the copy");
    assert_eq!(subscriber(sum), "2000/2000000");
    publisher(
        "DELETE FROM published WHERE id <= 10; UPDATE published SET t = 'changed' WHERE id = 11; \
         INSERT INTO published VALUES (5000, repeat('y', 3000000))",
    );
    arrives("what changes");
    let kinds = run(pooler.console("SHOW CLIENTS"));
    assert!(kinds.iter().any(|row| (&*row[1], &*row[3]) == ("replicator", "logical")), "{kinds:?}");

    run(async {
        pooler.console("KILL app").await;
        pooler.console("RESUME app").await;
    });
    publisher("INSERT INTO published VALUES (6000, 'after it was thrown out')");
    arrives("what comes after KILL");

    // Another table is another copy, by a worker of its own.
    for side in [&publisher as &dyn Fn(&str) -> String, &subscriber] {
        side("CREATE TABLE published_later (n int)");
    }
    publisher("INSERT INTO published_later SELECT generate_series(1, 100)");
    publisher("GRANT SELECT ON published_later TO replicator");
    publisher("ALTER PUBLICATION everything ADD TABLE published_later");
    subscriber("ALTER SUBSCRIPTION subscribed REFRESH PUBLICATION");
    eventually("the other table", || subscriber("SELECT count(*) FROM published_later") == "100");

    // Its slot is dropped through the pooler as well.
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'subscribed%'";
    assert_eq!(publisher(slots), "1");
    subscriber("DROP SUBSCRIPTION subscribed");
    assert_eq!(publisher(slots), "0");
}
