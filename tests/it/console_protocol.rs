//! The console in the extended protocol, and what drivers say before they come to the point.

use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use tokio_postgres::SimpleQueryMessage;

use crate::support::raw::{Raw, build, error, query};
use crate::support::{Pooler, run};

fn parse(name: &str, text: &str) -> Vec<u8> {
    build(|buf| frontend::parse(name, text, [], buf).unwrap())
}

fn bind(portal: &str, name: &str, formats: &[i16]) -> Vec<u8> {
    let bound = |buf: &mut _| {
        let nothing = |(), _: &mut _| Ok(IsNull::Yes);
        frontend::bind(portal, name, [], [], nothing, formats.iter().copied(), buf).map_err(|_| ()).unwrap();
    };
    build(bound)
}

fn describe(kind: u8, name: &str) -> Vec<u8> {
    build(|buf| frontend::describe(kind, name, buf).unwrap())
}

fn execute(portal: &str, max_rows: i32) -> Vec<u8> {
    build(|buf| frontend::execute(portal, max_rows, buf).unwrap())
}

fn close(kind: u8, name: &str) -> Vec<u8> {
    build(|buf| frontend::close(kind, name, buf).unwrap())
}

fn sync() -> Vec<u8> {
    build(frontend::sync)
}

#[test]
fn statements_and_portals() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = Raw::log_in(pooler.port, "pgbouncer").await;
        // As JDBC does it: unnamed, everything in one go.
        let all = [parse("", "SHOW STATE"), bind("", "", &[]), describe(b'P', ""), execute("", 0), sync()];
        assert_eq!(raw.tags(&all.concat()).await, "12TDDDCZ");
        // As libpq does it: a named statement, described before it is bound.
        let named = [parse("s", "SHOW LISTS"), describe(b'S', "s"), sync()];
        assert_eq!(raw.tags(&named.concat()).await, "1tTZ");
        for _ in 0..2 {
            let again = [bind("", "s", &[1]), execute("", 0), sync()];
            raw.send(&again.concat()).await;
            let messages = raw.until_ready().await;
            assert_eq!(messages[1].values()[..2], ["databases", "\0\0\0\u{2}"], "in binary form");
        }
        // Commands without rows, the empty query, HELP.
        for (text, tags) in
            [("RELOAD", "12nCZ"), ("", "12nIZ"), ("SHOW HELP", "12nNCZ"), ("SELECT 1", "12TDCZ")]
        {
            let all = [parse("", text), bind("", "", &[]), describe(b'P', ""), execute("", 0), sync()];
            assert_eq!(raw.tags(&all.concat()).await, tags, "{text}");
        }
        // A few rows at a time, as long as the transaction lasts.
        raw.rows("BEGIN").await;
        let some = [bind("p", "s", &[]), execute("p", 5), execute("p", 5), sync()];
        assert_eq!(raw.tags(&some.concat()).await, "2DDDDDsDDDDDsZ");
        assert_eq!(raw.tags(&[execute("p", 0), execute("p", 0), sync()].concat()).await, "DDDDCCZ");
        raw.rows("COMMIT").await;
        assert_eq!(raw.tags(&[execute("p", 0), sync()].concat()).await, "EZ");
        // Flush brings answers without Sync.
        raw.send(&[parse("f", "SHOW POOLS"), build(frontend::flush)].concat()).await;
        assert_eq!(raw.receive().await.unwrap().tag, '1');
        assert_eq!(raw.tags(&[close(b'S', "f"), close(b'P', "f"), sync()].concat()).await, "33Z");
    });
}

#[test]
fn after_an_error_nothing_happens_until_sync() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = Raw::log_in(pooler.port, "pgbouncer").await;
        let go = |name: &str| [bind("", name, &[]), execute("", 0), sync()].concat();
        for (bytes, code) in [
            ([parse("", "nonsense"), go("")].concat(), "42601"),
            ([parse("", "PAUSE; RESUME"), go("")].concat(), "42601"),
            ([parse("", "KILL_CLIENT $1"), go("")].concat(), "0A000"),
            (go("unknown"), "26000"),
            ([describe(b'P', "unknown"), sync()].concat(), "34000"),
            ([parse("", "RESUME app"), go("")].concat(), "08P01"),
            ([parse("", "DEALLOCATE unknown"), go("")].concat(), "26000"),
            (
                [parse("", "RELOAD"), bind("", "", &[]), execute("", 0), execute("", 0), sync()].concat(),
                "55000",
            ),
            ([b"B\0\0\0\x06\0\0".to_vec(), sync()].concat(), "08P01"),
            ([b"P\0\0\0\x06\0x".to_vec(), sync()].concat(), "08P01"),
            ([b"E\0\0\0\x05x".to_vec(), sync()].concat(), "08P01"),
        ] {
            raw.send(&bytes).await;
            let messages = raw.until_ready().await;
            assert_eq!(error(&messages).field('C'), code);
            assert_eq!(messages[messages.len() - 2].tag, 'E', "{messages:?}");
        }
        // A function call has no Sync.
        assert_eq!(raw.tags(b"F\0\0\0\x0e\0\0\0\x01\0\0\0\0\0\0").await, "EZ");
        assert_eq!(raw.value("SHOW VERSION").await, concat!("pgweir ", env!("CARGO_PKG_VERSION")));
        raw.send(b"?\0\0\0\x04").await;
        assert_eq!(raw.receive().await.unwrap().field('S'), "FATAL");
        assert_eq!(raw.receive().await, None);
    });
}

#[test]
fn roles_hold_in_the_extended_protocol() {
    let pooler = Pooler::start("");
    run(async {
        let parameters = [("user", "other"), ("database", "pgbouncer")];
        let mut stats = Raw::log_in_with(pooler.port, 3 << 16, &parameters, "other").await.unwrap();
        for (text, tags) in [
            ("PAUSE", "12EZ"),
            ("SHOW FDS", "12EZ"),
            ("SET max_client_conn = 1", "12EZ"),
            ("SHOW VERSION", "12DCZ"),
        ] {
            let all = [parse("", text), bind("", "", &[]), execute("", 0), sync()];
            assert_eq!(stats.tags(&all.concat()).await, tags, "{text}");
        }
        assert_eq!(stats.rows("SHOW STATE").await[0], ["active", "yes"]);
    });
}

#[test]
fn tokio_postgres() {
    let pooler = Pooler::start("");
    run(async {
        pooler.raw().await.rows("SELECT 1").await;
        let client = pooler.connect("pgbouncer").await;
        let databases = client.query("SHOW DATABASES", &[]).await.unwrap();
        assert_eq!(databases[0].get::<_, &str>("name"), "app");
        assert_eq!(databases[0].get::<_, i32>("pool_size"), 20);
        assert_eq!(databases[0].get::<_, Option<&str>>("force_user"), None);
        let statement = client.prepare("SHOW LISTS").await.unwrap();
        assert_eq!((statement.params().len(), statement.columns()[1].type_().name()), (0, "int4"));
        assert_eq!(client.query(&statement, &[]).await.unwrap().len(), 14);
        assert_eq!(client.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
        client.execute("PAUSE app", &[]).await.unwrap();
        client.execute("RESUME app", &[]).await.unwrap();
        let error = client.execute("RESUME app", &[]).await.unwrap_err();
        assert_eq!(error.as_db_error().unwrap().message(), "database app is not paused");
        let error = client.query("KILL_CLIENT $1", &[&1i32]).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "0A000");
        let messages = client.simple_query("SHOW VERSION; SHOW STATE;").await.unwrap();
        assert_eq!(messages.iter().filter(|m| matches!(m, SimpleQueryMessage::Row(_))).count(), 4);
    });
}

#[test]
fn greetings_of_drivers_are_answered() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = Raw::log_in(pooler.port, "pgbouncer").await;
        for greeting in [
            "SET extra_float_digits = 3",
            "SET application_name = 'a driver'",
            "SET client_encoding TO 'UTF8'",
            "SET DateStyle=ISO; SET IntervalStyle TO iso_8601",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SET TIME ZONE 'UTC'",
            "DISCARD ALL",
            "DEALLOCATE ALL",
            "RESET ALL",
            "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;",
        ] {
            raw.rows(greeting).await;
        }
        for (question, answer) in [
            ("SHOW server_version", concat!(env!("CARGO_PKG_VERSION"), "/pgweir")),
            ("SHOW standard_conforming_strings", "on"),
            ("show client_encoding", "UTF-8"),
            ("SHOW DateStyle", "ISO"),
            ("SHOW TimeZone", "GMT"),
            ("SHOW default_transaction_isolation", "read committed"),
            ("SHOW TRANSACTION ISOLATION LEVEL", "read committed"),
            ("SHOW transaction_read_only", "off"),
            ("SHOW application_name", "a driver"),
            ("SELECT 1", "1"),
            ("/* ping */ select version();", concat!("pgweir ", env!("CARGO_PKG_VERSION"))),
            ("SELECT state", "active"),
        ] {
            assert_eq!(raw.value(question).await, answer, "{question}");
        }
        for (statement, status) in [
            ("BEGIN", "T"),
            ("SHOW VERSION", "T"),
            ("COMMIT", "I"),
            ("start transaction", "T"),
            ("ROLLBACK", "I"),
            (";", "I"),
        ] {
            raw.send(&query(statement)).await;
            assert_eq!(raw.until_ready().await.last().unwrap().text(), status, "{statement}");
        }
    });
}
