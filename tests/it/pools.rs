//! Pools as a whole: when they come and go, what they are limited to, and the hosts they lead to.

use std::time::Duration;

use crate::support::{Pooler, cluster, eventually, run};

/// A line of `[databases]` for the primary.
fn on_primary(name: &str, more: &str) -> String {
    format!("{name} = host=127.0.0.1 port={} {more}\n", cluster().primary)
}

/// Whether SHOW has a row that begins with `key`.
async fn shows(pooler: &Pooler, show: &str, key: &str) -> bool {
    pooler.console(show).await.iter().any(|row| row[0] == key)
}

#[test]
fn what_nobody_uses_is_forgotten() {
    let databases = on_primary("*", "") + &on_primary("kept", "dbname=app user=app min_pool_size=1");
    let settings = "pool_idle_timeout = 0.5\nautodb_idle_timeout = 2\nserver_idle_timeout = 0.3";
    let pooler = Pooler::with_databases(&databases, settings);
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows("SELECT 1").await;
        assert!(pooler.log().contains("registered new auto-database: app"));
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(shows(&pooler, "SHOW POOLS", "app").await, "it has a client");
        assert_eq!(raw.value("SELECT 1").await, "1");
        drop(raw);
    });
    eventually("the pool is forgotten", || !run(shows(&pooler, "SHOW POOLS", "app")));
    let line = "cleaning up idle pool for user app on db app because: pool idle timeout (age= ";
    assert!(pooler.log().contains(line));
    assert!(run(shows(&pooler, "SHOW DATABASES", "app")));
    eventually("the database is forgotten", || !run(shows(&pooler, "SHOW DATABASES", "app")));
    assert!(run(shows(&pooler, "SHOW POOLS", "kept")), "it is kept open");
    run(async { assert_eq!(pooler.raw().await.value("SELECT 1").await, "1") });
    assert_eq!(pooler.log().matches("registered new auto-database: app").count(), 2);
}
