//! What a client has left in its session does not follow it to a replica, so it does not go there.

use crate::routing::{eventually_reads, is_read, is_read_with, pooler, pooler_with};
use crate::support::raw::{Raw, bind, execute, message, parse, query, sync};
use crate::support::{USER, cluster, run};

/// `SELECT set_config($1, $2, $3)` and its parameters.
fn set_config(name: &str, value: &str, is_local: &str) -> Vec<u8> {
    let mut body = b"\0\0\0\0\0\x03".to_vec();
    for text in [name, value, is_local] {
        body.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        body.extend(text.as_bytes());
    }
    body.extend([0, 0]);
    [parse("", "SELECT set_config($1, $2, $3)"), message(b'B', &body), execute(), sync()].concat()
}

async fn run_all(raw: &mut Raw, batches: &[Vec<u8>]) {
    for batch in batches {
        raw.send(batch).await;
        let messages = raw.until_ready().await;
        assert!(messages.iter().all(|m| m.tag != 'E'), "{messages:?}");
    }
}

fn extended(name: &str, sql: &str) -> Vec<u8> {
    [parse(name, sql), bind(name), execute(), sync()].concat()
}

#[test]
fn a_client_that_has_set_something_reads_from_the_primary() {
    let pooler = pooler_with("verbose = 1");
    let role = format!("SET ROLE {USER}");
    let authorization = format!("SET SESSION AUTHORIZATION {USER}");
    // What sets something, and what takes it back.
    let cases = [
        (vec![query("SET search_path = public, pg_catalog")], "RESET ALL"),
        (vec![query("SET statement_timeout = '1h'")], "RESET ALL"),
        (vec![query("SET app.tenant = '7'")], "DISCARD ALL"),
        (vec![query(&role)], "RESET ROLE"),
        (vec![query(&role)], "SET ROLE NONE"),
        (vec![query(&authorization)], "RESET SESSION AUTHORIZATION"),
        (vec![query("SELECT set_config('app.tenant', '7', false)")], "RESET ALL"),
        (vec![set_config("app.tenant", "7", "f")], "RESET ALL"),
        (vec![extended("", "SET app.tenant = '7'")], "RESET ALL"),
        (vec![extended("set", "SET app.tenant = '7'")], "RESET ALL"),
        (
            vec![
                [parse("later", "SET app.tenant = '7'"), sync()].concat(),
                [bind("later"), execute(), sync()].concat(),
            ],
            "RESET ALL",
        ),
        (vec![query("SELECT 1; SET app.tenant = '7'; SELECT 2")], "RESET ALL"),
        (vec![query("BEGIN"), query("SET app.tenant = '7'"), query("COMMIT")], "RESET ALL"),
        (vec![query("BEGIN"), extended("", "SET app.tenant = '7'"), query("COMMIT")], "RESET ALL"),
        (vec![query("DO $$BEGIN PERFORM set_config('app.tenant', '7', false); END$$")], "DISCARD ALL"),
        (vec![query("CREATE TEMP TABLE own_one (a int)")], "DISCARD TEMP"),
        (vec![query("SELECT 1 AS a INTO TEMP own_two")], "DISCARD ALL"),
    ];
    run(async {
        let mut other = pooler.raw().await;
        for (batches, back) in cases {
            let mut raw = pooler.raw().await;
            eventually_reads(&pooler, &mut raw, "SELECT 1").await;
            run_all(&mut raw, &batches).await;
            for read in
                [query("SELECT 1"), extended("", "TABLE routed"), query("BEGIN READ ONLY; SELECT 1; COMMIT")]
            {
                assert!(!is_read_with(&pooler, &mut raw, &read).await, "{batches:?}");
            }
            // What the client says itself still holds.
            assert!(is_read(&pooler, &mut raw, "/* pgweir: replica */ SELECT 1").await);
            // What takes it back may itself be taken back.
            if back != "DISCARD ALL" && back != "DISCARD TEMP" {
                run_all(&mut raw, &[query("BEGIN"), query(back), query("ROLLBACK")]).await;
                assert!(!is_read(&pooler, &mut raw, "SELECT 1").await, "{batches:?}");
            }
            run_all(&mut raw, &[query(back)]).await;
            // DO may have changed everything.
            eventually_reads(&pooler, &mut other, "SELECT 1").await;
            assert!(is_read(&pooler, &mut raw, "SELECT 1").await, "{batches:?} {back}");
        }
    });
    let log = pooler.log();
    assert!(log.contains("reads from the primary: its session keeps a setting"), "{log}");
    assert!(log.contains("may read from replicas again"));
}

#[test]
fn what_follows_a_client_or_ends_with_its_transaction_does_not_count() {
    let pooler = pooler();
    run(async {
        let mut raw = pooler.raw().await;
        for batches in [
            vec![query("SET application_name = 'x'")],
            vec![query("SET TIME ZONE 'UTC'"), query("SET DateStyle = 'ISO'"), query("SET NAMES 'UTF8'")],
            vec![query("SELECT set_config('TimeZone', 'UTC', false)")],
            vec![query("SET client_min_messages = warning")],
            vec![query("BEGIN"), query("SET LOCAL search_path = pg_catalog"), query("COMMIT")],
            vec![query("BEGIN"), query("SELECT set_config('app.tenant', '7', true)"), query("COMMIT")],
            vec![query("SET TRANSACTION READ ONLY")],
            vec![query("INSERT INTO routed VALUES (1)"), query("SELECT pg_advisory_xact_lock(1)")],
            vec![query("SET search_path TO DEFAULT"), query("RESET search_path"), query("RESET ALL")],
        ] {
            run_all(&mut raw, &batches).await;
            assert!(is_read(&pooler, &mut raw, "SELECT 1").await, "{batches:?}");
        }
    });
}

/// Functions, procedures and triggers are judged by their text.
#[test]
fn a_function_that_leaves_something_is_known() {
    let pooler = pooler_with("catalog_refresh_period = 1000");
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows(
            "CREATE FUNCTION login(text) RETURNS void LANGUAGE sql AS $$SELECT set_config('app.tenant', $1, false)$$;
             CREATE FUNCTION only_here(text) RETURNS void LANGUAGE sql AS $$SELECT set_config('app.tenant', $1, true)$$;
             CREATE FUNCTION collects() RETURNS void LANGUAGE plpgsql AS $$BEGIN CREATE TEMP TABLE collected (a int); END$$;
             CREATE PROCEDURE changes() LANGUAGE plpgsql AS $$BEGIN SET app.tenant = '7'; END$$;
             CREATE FUNCTION stable_login() RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN set_config('app.tenant', '7', false); END$$;
             CREATE FUNCTION on_insert() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM login('7'); PERFORM set_config('app.x', '7', false); RETURN new; END$$;
             CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM routed';
             CREATE TABLE watched (a int); CREATE TRIGGER watching BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION on_insert()",
        )
        .await;
        cluster().catch_up();
        for (sql, is_read_then) in [
            ("SELECT login('7')", false),
            ("SELECT collects()", false),
            ("CALL changes()", false),
            ("SELECT stable_login()", false),
            ("INSERT INTO watched VALUES (1)", false),
            ("SELECT only_here('7')", true),
            ("SELECT counted()", true),
        ] {
            let mut raw = pooler.raw().await;
            eventually_reads(&pooler, &mut raw, "SELECT 1").await;
            raw.rows(sql).await;
            assert_eq!(is_read(&pooler, &mut raw, "SELECT 1").await, is_read_then, "{sql}");
            raw.rows("DISCARD ALL").await;
        }
    });
}

/// The rows themselves: of the right schema, of the client's own temporary table.
#[test]
fn the_same_name_means_the_same_table() {
    let pooler = pooler_with("default_pool_size = 1");
    cluster().admin_in("app", cluster().primary, &format!("CREATE SCHEMA elsewhere AUTHORIZATION {USER}"));
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows("CREATE TABLE elsewhere.named AS SELECT 'elsewhere' AS place").await;
        raw.rows("CREATE TABLE public.named AS SELECT 'public' AS place").await;
        cluster().catch_up();
        for (before, place) in [
            ("SET search_path = elsewhere", "elsewhere"),
            ("SELECT set_config('search_path', 'elsewhere', false)", "elsewhere"),
            ("CREATE TEMP TABLE named AS SELECT 'own' AS place", "own"),
            ("SELECT 'own' AS place INTO TEMPORARY named", "own"),
        ] {
            eventually_reads(&pooler, &mut raw, "SELECT place FROM public.named").await;
            assert_eq!(raw.value("SELECT place FROM named").await, "public");
            raw.rows(before).await;
            for _ in 0..3 {
                assert_eq!(raw.value("SELECT place FROM named").await, place, "{before}");
            }
            raw.rows("DISCARD ALL").await;
        }
    });
}
