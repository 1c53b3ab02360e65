//! What clients say themselves about where their statements are to run.

use crate::routing::{counts, is_read, is_read_with, pooler};
use crate::support::raw::{Raw, bind, execute, parse, query, sync};
use crate::support::{PASSWORD, USER, run};

const ON_REPLICA: &str = "SELECT pg_is_in_recovery()";

#[test]
fn a_leading_comment() {
    let pooler = pooler();
    run(async {
        let mut raw = pooler.raw().await;
        assert!(!is_read(&pooler, &mut raw, ON_REPLICA).await);
        assert_eq!(raw.value(&format!("/* pgweir: replica */ {ON_REPLICA}")).await, "t");
        assert_eq!(raw.value(&format!("/* pgweir: primary */ {ON_REPLICA}")).await, "f");
        assert!(!is_read(&pooler, &mut raw, "/* pgweir: primary */ SELECT 1").await);
        raw.rows("/* pgweir: replica */ BEGIN").await;
        assert_eq!(raw.value(ON_REPLICA).await, "t");
        raw.rows("COMMIT").await;
        // In prepared statements.
        let sql = format!("/* pgweir: replica */ {ON_REPLICA}");
        assert_eq!(raw.tags(&[parse("hinted", &sql), sync()].concat()).await, "1Z");
        assert!(is_read_with(&pooler, &mut raw, &[bind("hinted"), execute(), sync()].concat()).await);
    });
}

#[test]
fn the_setting_follows_the_client_and_nobody_else() {
    let pooler = pooler();
    run(async {
        let (mut raw, mut other) = (pooler.raw().await, pooler.raw().await);
        raw.rows("SET pgweir.route = 'replica'").await;
        assert_eq!(raw.value(ON_REPLICA).await, "t");
        assert_eq!(other.value(ON_REPLICA).await, "f");
        assert_eq!(raw.error("INSERT INTO routed VALUES (1)").await.field('C'), "25006");
        raw.rows("BEGIN").await;
        assert_eq!(raw.value(ON_REPLICA).await, "t");
        // Within a transaction: from the next one on.
        raw.rows("SET pgweir.route TO 'primary'").await;
        raw.rows("COMMIT").await;
        assert!(!is_read(&pooler, &mut raw, "SELECT 1").await);
        assert!(is_read(&pooler, &mut other, "SELECT 1").await);
        raw.rows("RESET pgweir.route").await;
        assert!(is_read(&pooler, &mut raw, "SELECT 1").await);
        // Prepared, and run again and again.
        for (name, route) in [("to_replica", "replica"), ("to_primary", "primary")] {
            let sql = format!("SET pgweir.route = '{route}'");
            assert_eq!(raw.tags(&[parse(name, &sql), sync()].concat()).await, "1Z");
        }
        for _ in 0..3 {
            raw.tags(&[bind("to_replica"), execute(), sync()].concat()).await;
            assert_eq!(raw.value(ON_REPLICA).await, "t");
            raw.tags(&[bind("to_primary"), execute(), sync()].concat()).await;
            assert_eq!(raw.value(ON_REPLICA).await, "f");
        }
        raw.tags(&[parse("", "SET pgweir.route = 'replica'"), bind(""), execute(), sync()].concat()).await;
        assert_eq!(raw.value(ON_REPLICA).await, "t");
        // In pieces.
        for byte in query("SET pgweir.route = 'primary'") {
            raw.send(&[byte]).await;
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        raw.until_ready().await;
        assert_eq!(raw.value(ON_REPLICA).await, "f");
        assert!(!is_read(&pooler, &mut raw, "SELECT 1").await);
        raw.rows("DISCARD ALL").await;
        assert!(is_read(&pooler, &mut raw, "SELECT 1").await);
    });
}

#[test]
fn a_startup_option() {
    let pooler = pooler();
    run(async {
        let log_in = |name: &'static str, value: &'static str| {
            let port = pooler.port;
            async move {
                Raw::log_in_with(
                    port,
                    3 << 16,
                    &[("user", USER), ("database", "app"), (name, value)],
                    PASSWORD,
                )
                .await
            }
        };
        for (name, value) in [("options", "-c pgweir.route=replica"), ("pgweir.route", "Replica")] {
            let mut raw = log_in(name, value).await.unwrap();
            assert_eq!(raw.value(ON_REPLICA).await, "t");
            raw.rows("SET pgweir.route = 'primary'").await;
            assert_eq!(raw.value(ON_REPLICA).await, "f");
            // Back to what it began with.
            raw.rows("RESET ALL").await;
            assert_eq!(raw.value(ON_REPLICA).await, "t");
        }
        let refused = log_in("options", "-c pgweir.route=nowhere").await.err().unwrap();
        assert_eq!(refused.field('C'), "22023");
        assert!(refused.field('M').contains("nowhere"));
    });
}

#[test]
fn transactions_that_are_read_only_by_default() {
    let pooler = pooler();
    run(async {
        let mut raw = pooler.raw().await;
        // They do not go to a replica by themselves, and neither does the setting keep other reads from it.
        raw.rows("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY").await;
        raw.rows("BEGIN").await;
        assert_eq!(raw.value(ON_REPLICA).await, "f");
        raw.rows("COMMIT").await;
        assert!(is_read(&pooler, &mut raw, "SELECT 1").await);
        raw.rows("/* pgweir: replica */ BEGIN").await;
        assert_eq!(raw.value(ON_REPLICA).await, "t");
        raw.rows("COMMIT").await;
        raw.rows("BEGIN READ WRITE").await;
        assert_eq!(raw.value(ON_REPLICA).await, "f");
        raw.rows("COMMIT").await;
        raw.rows("SET default_transaction_read_only = off").await;
        raw.rows("BEGIN").await;
        assert_eq!(raw.value(ON_REPLICA).await, "f");
        raw.rows("COMMIT").await;
        // As pgjdbc does it on a connection that is read-only: BEGIN and the first statement in one batch.
        let batch = [
            parse("", "/* pgweir: replica */ BEGIN READ ONLY"),
            bind(""),
            execute(),
            parse("", "SELECT count(*) FROM routed"),
            bind(""),
            execute(),
            sync(),
        ]
        .concat();
        let before = counts(&pooler).await;
        assert_eq!(raw.tags(&batch).await, "12C12DCZ");
        assert_eq!(raw.value(ON_REPLICA).await, "t");
        raw.rows("COMMIT").await;
        assert_eq!(counts(&pooler).await, (before.0 + 1, before.1));
        // All of a transaction in one query.
        assert!(is_read(&pooler, &mut raw, "BEGIN; SET TRANSACTION READ ONLY; TABLE routed; COMMIT").await);
    });
}
