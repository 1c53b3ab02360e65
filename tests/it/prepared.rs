//! Named prepared statements in transaction mode: each client has its own names, whatever server it gets, and what it does
//! has for nobody else any consequences.

use crate::support::raw::{Message, Raw, bind, close, describe, error, execute, message, parse, query, sync};
use crate::support::{Pooler, run};

#[test]
fn names_belong_to_clients() {
    let pooler = Pooler::start("default_pool_size = 2");
    run(async {
        let mut clients = Vec::new();
        for n in 0..8 {
            let mut raw = pooler.raw().await;
            let tags = raw
                .tags(&[parse("s", &format!("SELECT {n}, $1::text")), describe("s"), sync()].concat())
                .await;
            assert_eq!(tags, "1tTZ");
            clients.push(raw);
        }
        for round in 0..5 {
            for (n, raw) in clients.iter_mut().enumerate() {
                let bind = message(b'B', b"\0s\0\0\0\0\x01\0\0\0\x01x\0\0");
                raw.send(&[bind, execute(), sync()].concat()).await;
                let messages = raw.until_ready().await;
                assert_eq!(messages[1].values(), [n.to_string(), "x".into()], "round {round}");
            }
        }
        let parsed: i64 = pooler.figure("SHOW STATS", "app", "total_client_parse_count").await;
        assert_eq!(parsed, 8);
        assert!(pooler.figure("SHOW STATS", "app", "total_server_parse_count").await <= 16);
        assert_eq!(pooler.figure("SHOW STATS", "app", "total_bind_count").await, 40);
    });
}

#[test]
fn a_driver_prepares_and_executes() {
    let pooler = Pooler::start("default_pool_size = 2");
    run(async {
        let (a, b) = (pooler.connect("app").await, pooler.connect("app").await);
        let (in_a, in_b) =
            (a.prepare("SELECT $1::int + 1").await.unwrap(), b.prepare("SELECT $1::int + 2").await.unwrap());
        for n in 0..20 {
            assert_eq!(a.query_one(&in_a, &[&n]).await.unwrap().get::<_, i32>(0), n + 1);
            assert_eq!(b.query_one(&in_b, &[&n]).await.unwrap().get::<_, i32>(0), n + 2);
        }
    });
}

#[test]
fn the_least_recently_used_goes_first() {
    let pooler = Pooler::start("default_pool_size = 1\nmax_prepared_statements = 3");
    run(async {
        let mut raw = pooler.raw().await;
        for n in 0..10 {
            let name = format!("s{n}");
            assert_eq!(raw.tags(&[parse(&name, &format!("SELECT {n}")), sync()].concat()).await, "1Z");
        }
        for n in (0..10).rev() {
            raw.send(&[bind(&format!("s{n}")), execute(), sync()].concat()).await;
            assert_eq!(raw.until_ready().await[1].values(), [n.to_string()]);
        }
        let names = raw.rows("SELECT name FROM pg_prepared_statements").await;
        assert_eq!(names.len(), 3, "{names:?}");
    });
}

#[test]
fn names_are_used_once_and_given_back_by_close() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        assert_eq!(raw.tags(&[parse("s", "SELECT 1"), sync()].concat()).await, "1Z");
        assert_eq!(raw.tags(&[close("s"), parse("s", "SELECT 2"), sync()].concat()).await, "31Z");
        raw.send(&[bind("s"), execute(), sync()].concat()).await;
        assert_eq!(raw.until_ready().await[1].values(), ["2"]);
        assert_eq!(
            refused(&mut raw, &[parse("s", "SELECT 3"), sync()].concat()).await,
            "42P05 prepared statement \"s\" already exists"
        );
        assert_eq!(
            refused(&mut raw, &[parse("s", "SELECT nonsense"), sync()].concat()).await,
            "42703 column \"nonsense\" does not exist"
        );
    });
}

#[test]
fn a_statement_that_fails_to_prepare_can_be_prepared_again() {
    let pooler = Pooler::start("");
    run(async {
        let mut raw = pooler.raw().await;
        assert_eq!(raw.tags(&[parse("s", "SELECT nonsense"), sync()].concat()).await, "EZ");
        assert_eq!(raw.tags(&[parse("s", "SELECT 1"), bind("s"), execute(), sync()].concat()).await, "12DCZ");
        // Skipped because of an error before it.
        assert_eq!(
            raw.tags(&[parse("", "SELECT 1/0 FROM nowhere"), parse("t", "SELECT 2"), sync()].concat()).await,
            "EZ"
        );
        assert_eq!(raw.tags(&[parse("t", "SELECT 2"), bind("t"), execute(), sync()].concat()).await, "12DCZ");
    });
}

#[test]
fn discard_and_deallocate_are_noticed() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        for command in ["DEALLOCATE ALL", "DISCARD ALL"] {
            let mut raw = pooler.raw().await;
            let mut other = pooler.raw().await;
            assert_eq!(raw.tags(&[parse("s", "SELECT 1"), sync()].concat()).await, "1Z");
            assert_eq!(other.tags(&[parse("s", "SELECT 2"), sync()].concat()).await, "1Z");
            raw.rows(command).await;
            assert_eq!(
                raw.tags(&[parse("s", "SELECT 3"), bind("s"), execute(), sync()].concat()).await,
                "12DCZ"
            );
            other.send(&[bind("s"), execute(), sync()].concat()).await;
            assert_eq!(other.until_ready().await[1].values(), ["2"]);
        }
    });
}

#[test]
fn the_unnamed_statement_is_never_another_clients() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let (mut a, mut b) = (pooler.raw().await, pooler.raw().await);
        // Parse in one transaction, Bind in the next, somebody else in between.
        assert_eq!(a.tags(&[parse("", "SELECT 'mine'"), sync()].concat()).await, "1Z");
        assert_eq!(b.tags(&[parse("", "SELECT 'theirs'"), sync()].concat()).await, "1Z");
        a.send(&[bind(""), execute(), sync()].concat()).await;
        assert_eq!(a.until_ready().await[1].values(), ["mine"]);
        let mut c = pooler.raw().await;
        c.send(&[bind(""), execute(), sync()].concat()).await;
        assert_eq!(error(&c.until_ready().await).field('C'), "26000");
    });
}

#[test]
fn statements_pass_through_untouched_when_turned_off() {
    let pooler = Pooler::start("max_prepared_statements = 0\ndefault_pool_size = 1");
    run(async {
        let mut raw = pooler.raw().await;
        assert_eq!(raw.tags(&[parse("s", "SELECT 1"), sync()].concat()).await, "1Z");
        assert_eq!(raw.value("SELECT name FROM pg_prepared_statements").await, "s");
        assert_eq!(pooler.figure("SHOW STATS", "app", "total_client_parse_count").await, 0);
    });
    let pooler = Pooler::start("pool_mode = session");
    run(async {
        let mut raw = pooler.raw().await;
        assert_eq!(raw.tags(&[parse("s", "SELECT 1"), sync()].concat()).await, "1Z");
        assert_eq!(raw.value("SELECT name FROM pg_prepared_statements").await, "s");
    });
}

#[test]
fn long_statements_and_names() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let mut raw: Raw = pooler.raw().await;
        let name = "n".repeat(5000);
        let sql = format!("SELECT '{}'", "x".repeat(200_000));
        assert_eq!(raw.tags(&[parse(&name, &sql), sync()].concat()).await, "1Z");
        raw.send(&[bind(&name), execute(), sync(), query("SELECT 'after'")].concat()).await;
        assert_eq!(raw.until_ready().await[1].values()[0].len(), 200_000);
        assert_eq!(raw.until_ready().await[1].values(), ["after"]);
    });
}

/// The one error that comes back for these messages, up to ReadyForQuery: code and message.
async fn refused(raw: &mut Raw, bytes: &[u8]) -> String {
    raw.send(bytes).await;
    let messages = raw.until_ready().await;
    let tags: String = messages.iter().map(|m| m.tag).collect();
    let error = error(&messages);
    assert!(tags.ends_with("EZ"), "{tags}: {}", error.field('M'));
    assert_eq!(error.field('V'), "ERROR");
    format!("{} {}", error.field('C'), error.field('M'))
}

/// PostgreSQL's answers, the connection and the failed transaction stay.
#[test]
fn names_that_are_wrong_are_errors_as_in_postgresql() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let mut raw = pooler.raw().await;
        assert_eq!(raw.tags(&[parse("s", "SELECT 1"), sync()].concat()).await, "1Z");
        let wrong = [
            (
                [bind("unknown"), execute(), sync()].concat(),
                "26000 prepared statement \"unknown\" does not exist",
            ),
            ([describe("unknown"), sync()].concat(), "26000 prepared statement \"unknown\" does not exist"),
            ([parse("s", "SELECT 2"), sync()].concat(), "42P05 prepared statement \"s\" already exists"),
            (
                [close(""), bind(""), execute(), sync()].concat(),
                "26000 unnamed prepared statement does not exist",
            ),
            ([message(b'D', b"Xs\0"), sync()].concat(), "08P01 invalid DESCRIBE message subtype 88"),
            ([message(b'C', b"Xs\0"), sync()].concat(), "08P01 invalid CLOSE message subtype 88"),
            ([message(b'D', b"Ss\0x"), sync()].concat(), "08P01 invalid message format"),
            ([message(b'C', b"Ss"), sync()].concat(), "08P01 invalid string in message"),
            ([message(b'B', b"\0s"), sync()].concat(), "08P01 invalid string in message"),
            ([message(b'B', b""), sync()].concat(), "08P01 invalid string in message"),
            ([message(b'P', b"t\0select"), sync()].concat(), "08P01 invalid string in message"),
            (
                [message(b'P', b"t\0select\0\0\x01"), sync()].concat(),
                "08P01 insufficient data left in message",
            ),
        ];
        for (bytes, expected) in &wrong {
            assert_eq!(refused(&mut raw, bytes).await, *expected, "alone");
            // What comes in front of it in the batch, and in the transaction, is undone.
            raw.rows("BEGIN").await;
            assert_eq!(refused(&mut raw, bytes).await, *expected, "in a transaction");
            assert_eq!(raw.error("SELECT 1").await.field('C'), "25P02");
            raw.rows("ROLLBACK").await;
            let all = [&bind("s")[..], &execute(), bytes, &bind("s"), &execute(), &sync()].concat();
            raw.send(&all).await;
            let (first, second) = (raw.until_ready().await, raw.until_ready().await);
            let tags = |messages: &[Message]| messages.iter().map(|m| m.tag).collect::<String>();
            assert!(tags(&first).ends_with("DCEZ") || tags(&first).ends_with("DC3EZ"), "{}", tags(&first));
            assert_eq!(tags(&second), "2DCZ", "{expected}");
        }
    });
}

/// A client forgets its own statements in every way there is, and goes on in the same packet.
#[test]
fn no_client_breaks_a_statement_for_the_others() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let (mut a, mut b) = (pooler.raw().await, pooler.raw().await);
        let use_it = |text: &str| [parse("s", text), bind("s"), execute(), close("s"), sync()].concat();
        for command in ["DEALLOCATE ALL", "DISCARD ALL"] {
            for text in ["SELECT 71", "SELECT 72"] {
                a.send(&[query(command), use_it(text)].concat()).await;
                a.until_ready().await;
                let tags: String = a.until_ready().await.iter().map(|m| m.tag).collect();
                assert_eq!(tags, "12DC3Z", "{command}");
                assert_eq!(b.tags(&use_it(text)).await, "12DC3Z", "{command}");
                // By the extended protocol, in the batch itself.
                let deallocate = [parse("", command), bind(""), execute()].concat();
                if command != "DISCARD ALL" {
                    assert_eq!(a.tags(&[deallocate, use_it(text)].concat()).await, "12C12DC3Z", "{command}");
                }
                assert_eq!(b.tags(&use_it(text)).await, "12DC3Z", "{command}");
            }
        }
    });
}

/// Names change when the server answers.
#[test]
fn names_follow_what_the_server_has_done() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let mut raw = pooler.raw().await;
        let ok = [bind("s"), execute(), sync()].concat();
        let fail = [parse("", "SELECT 1/0"), bind(""), execute()].concat();
        // DISCARD ALL and Parse in one packet.
        raw.send(&[query("DISCARD ALL"), parse("s", "SELECT 1"), sync()].concat()).await;
        raw.until_ready().await;
        raw.until_ready().await;
        assert_eq!(raw.tags(&ok).await, "2DCZ");
        // A Close that is skipped.
        raw.send(&[&fail[..], &close("s"), &sync()].concat()).await;
        raw.until_ready().await;
        assert_eq!(raw.tags(&ok).await, "2DCZ");
        // The same without waiting for the error.
        raw.send(&[&fail[..], &close("s"), &sync(), &ok].concat()).await;
        raw.until_ready().await;
        assert_eq!(raw.until_ready().await.len(), 4);
        // A Parse that fails, and one of the same name in the next batch.
        assert_eq!(raw.tags(&[close("s"), sync()].concat()).await, "3Z");
        raw.send(&[&parse("s", "SELECT x"), &sync(), &parse("s", "SELECT 1"), &sync(), &ok[..]].concat())
            .await;
        raw.until_ready().await;
        raw.until_ready().await;
        assert_eq!(raw.until_ready().await.len(), 4);
        // A skipped Parse, and then one of the same text.
        raw.send(
            &[
                &fail[..],
                &parse("a", "SELECT 22"),
                &sync(),
                &parse("b", "SELECT 22"),
                &bind("b"),
                &execute(),
                &sync(),
            ]
            .concat(),
        )
        .await;
        raw.until_ready().await;
        let tags: String = raw.until_ready().await.iter().map(|m| m.tag).collect();
        assert_eq!(tags, "12DCZ");
        assert_eq!(
            refused(&mut raw, &[bind("a"), execute(), sync()].concat()).await,
            "26000 prepared statement \"a\" does not exist"
        );
    });
}

#[test]
fn a_statement_is_deallocated_by_name() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let (mut raw, mut other) = (pooler.raw().await, pooler.raw().await);
        for (name, command) in [
            ("pdo_stmt_1", "DEALLOCATE pdo_stmt_1"),
            ("a1", "/* rails */ deallocate prepare A1;"),
            ("_pg3_0", "DEALLOCATE \"_pg3_0\""),
        ] {
            let prepare = [parse(name, "SELECT 5"), sync()].concat();
            let gone = format!("26000 prepared statement \"{name}\" does not exist");
            assert_eq!(raw.tags(&prepare).await, "1Z");
            assert_eq!(raw.tags(&query(command)).await, "CZ");
            assert_eq!(refused(&mut raw, &[bind(name), execute(), sync()].concat()).await, gone);
            // In a transaction, which goes on; by the extended protocol.
            raw.rows("BEGIN").await;
            assert_eq!(raw.tags(&prepare).await, "1Z");
            let extended = [parse("", command), bind(""), execute(), sync()].concat();
            assert_eq!(raw.tags(&extended).await, "12CZ");
            raw.rows("COMMIT").await;
            assert_eq!(refused(&mut raw, &[describe(name), sync()].concat()).await, gone);
            // In a failed one it fails, and the statement stays.
            assert_eq!(raw.tags(&prepare).await, "1Z");
            raw.rows("BEGIN").await;
            raw.error("SELECT 1/0").await;
            assert_eq!(raw.error(command).await.field('C'), "25P02");
            raw.rows("ROLLBACK").await;
            assert_eq!(raw.tags(&[bind(name), execute(), close(name), sync()].concat()).await, "2DC3Z");
            assert_eq!(raw.error(command).await.field('C'), "26000");
            assert_eq!(
                other
                    .tags(&[parse(name, "SELECT 5"), bind(name), execute(), close(name), sync()].concat())
                    .await,
                "12DC3Z"
            );
        }
        raw.rows("PREPARE by_sql AS SELECT 6").await;
        raw.rows("DEALLOCATE by_sql").await;
        assert_eq!(raw.value("SELECT count(*) FROM pg_prepared_statements WHERE from_sql").await, "0");
        // A simple query that ends a batch is answered even if the server skips to the next Sync.
        assert_eq!(raw.tags(&[parse("s", "SELECT 5"), sync()].concat()).await, "1Z");
        let failed = [parse("", "SELECT 1/0"), bind(""), execute(), sync(), query("DEALLOCATE s")].concat();
        assert_eq!(raw.tags(&failed).await, "1EZ");
        assert_eq!(raw.tags(b"").await, "CZ");
    });
}

#[test]
fn a_deallocate_may_be_run_in_a_later_transaction_on_another_server() {
    let pooler = Pooler::start("default_pool_size = 2");
    run(async {
        let (mut raw, mut other) = (pooler.raw().await, pooler.raw().await);
        let prepare = [parse("a", "SELECT 5"), parse("", "DEALLOCATE a"), sync()].concat();
        assert_eq!(raw.tags(&prepare).await, "11Z");
        // It was not run yet.
        assert_eq!(raw.tags(&[describe("a"), sync()].concat()).await, "tTZ");
        other.rows("BEGIN").await;
        assert_eq!(raw.tags(&[bind(""), execute(), sync()].concat()).await, "2CZ");
        other.rows("COMMIT").await;
        assert_eq!(
            refused(&mut raw, &[bind("a"), execute(), sync()].concat()).await,
            "26000 prepared statement \"a\" does not exist"
        );
    });
}

#[test]
fn a_reset_query_forgets_only_what_it_deallocates() {
    for reset in ["RESET ALL", "SELECT 1", "DEALLOCATE ALL", "DISCARD ALL", "SELECT 1; DISCARD PLANS"] {
        let pooler = Pooler::start(&format!(
            "default_pool_size = 1\nserver_reset_query = {reset}\nserver_reset_query_always = 1"
        ));
        run(async {
            let (mut a, mut b) = (pooler.raw().await, pooler.raw().await);
            assert_eq!(a.tags(&[parse("s", "SELECT 1"), sync()].concat()).await, "1Z");
            for _ in 0..3 {
                assert_eq!(a.tags(&[bind("s"), execute(), sync()].concat()).await, "2DCZ", "{reset}");
                let all = [parse("s", "SELECT 1"), bind("s"), execute(), close("s"), sync()].concat();
                assert_eq!(b.tags(&all).await, "12DC3Z", "{reset}");
            }
        });
    }
}

/// What a client has been told of a result holds for what it gets, whatever server it is on.
#[test]
fn a_result_never_has_other_columns_than_the_client_was_told() {
    let pooler = Pooler::start("default_pool_size = 2");
    run(async {
        let mut admin = pooler.raw().await;
        let (mut a, mut b) = (pooler.raw().await, pooler.raw().await);
        admin.rows("DROP TABLE IF EXISTS told; CREATE TABLE told (a int, b int)").await;
        admin.rows("INSERT INTO told VALUES (77, 1)").await;
        let prepare = [parse("s", "SELECT * FROM told"), describe("s"), sync()].concat();
        assert_eq!(a.tags(&prepare).await, "1tTZ");
        assert_eq!(a.tags(&[bind("s"), execute(), sync()].concat()).await, "2DCZ");
        // The first server is taken; the other one has never heard of the statement.
        b.rows("BEGIN").await;
        assert_eq!(a.tags(&[bind("s"), execute(), sync()].concat()).await, "2DCZ");
        b.rows("COMMIT").await;
        admin.rows("ALTER TABLE told ALTER a TYPE float8, ADD COLUMN c int").await;
        pooler.console("RECONNECT").await;
        let changed = "0A000 cached plan must not change result type";
        for _ in 0..3 {
            assert_eq!(refused(&mut a, &[bind("s"), execute(), sync()].concat()).await, changed);
        }
        // It asks again.
        assert_eq!(a.tags(&[close("s"), sync(),].concat()).await, "3Z");
        assert_eq!(a.tags(&prepare).await, "1tTZ");
        for _ in 0..3 {
            assert_eq!(a.tags(&[bind("s"), execute(), sync()].concat()).await, "2DCZ");
        }
        // The same if it learns of the columns with each result.
        let portal = message(b'D', b"P\0");
        let run_portal = [&bind("p")[..], &portal, &execute(), &sync()].concat();
        assert_eq!(b.tags(&[parse("p", "SELECT * FROM told"), sync()].concat()).await, "1Z");
        assert_eq!(b.tags(&run_portal).await, "2TDCZ");
        admin.rows("ALTER TABLE told DROP COLUMN c").await;
        pooler.console("RECONNECT").await;
        assert_eq!(refused(&mut b, &run_portal).await, changed);
        admin.rows("DROP TABLE told").await;
    });
}

#[test]
fn a_failed_copy_by_the_extended_protocol_keeps_its_server() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let mut raw = pooler.raw().await;
        raw.rows("DROP TABLE IF EXISTS copied; CREATE TABLE copied (a int)").await;
        let pid = raw.value("SELECT pg_backend_pid()").await;
        let copy = [parse("", "COPY copied FROM STDIN"), bind(""), execute(), sync()].concat();
        let data = |rows: &[u8]| message(b'd', rows);
        let fail = message(b'f', b"no\0");
        for end in [
            [data(b"x\n"), message(b'c', b""), sync()].concat(),
            [data(b"1\n"), fail.clone(), sync()].concat(),
            [fail, sync()].concat(),
            [data(b"2\n"), message(b'c', b""), sync()].concat(),
        ] {
            raw.send(&copy).await;
            for expected in ['1', '2', 'G'] {
                assert_eq!(raw.receive().await.unwrap().tag, expected);
            }
            let fails = !end.starts_with(&data(b"2\n"));
            assert_eq!(raw.tags(&end).await, if fails { "EZ" } else { "CZ" });
            assert_eq!(raw.value("SELECT pg_backend_pid()").await, pid);
        }
        // It fails before the server has looked at the Sync behind Execute.
        raw.rows(
            "CREATE OR REPLACE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ begin raise 'no'; end $$;
             CREATE TRIGGER no BEFORE INSERT ON copied EXECUTE FUNCTION no()",
        )
        .await;
        raw.send(&copy).await;
        let tags: String = raw.until_ready().await.iter().map(|m| m.tag).collect();
        assert_eq!(tags, "12GEZ");
        assert_eq!(raw.value("SELECT pg_backend_pid()").await, pid);
        raw.rows("DROP TABLE copied; DROP FUNCTION no").await;
    });
}

/// The server's word counts: what it has lost, or cannot go on with, is prepared again and the client sees nothing of it.
#[test]
fn a_lost_statement_is_prepared_again_unseen() {
    let pooler = Pooler::start("default_pool_size = 1");
    run(async {
        let (mut a, mut b) = (pooler.raw().await, pooler.raw().await);
        a.rows("DROP TABLE IF EXISTS lost; CREATE TABLE lost (a int)").await;
        let prepare = [parse("s", "INSERT INTO lost VALUES (1)"), sync()].concat();
        let use_it = [bind("s"), execute(), sync()].concat();
        assert_eq!(a.tags(&prepare).await, "1Z");
        for hidden in ["DO $$ begin execute 'deallocate all'; end $$", "SELECT 1; DEALLOCATE ALL"] {
            b.send(&query(hidden)).await;
            b.until_ready().await;
            assert_eq!(a.tags(&use_it).await, "2CZ", "{hidden}");
            b.send(&query(hidden)).await;
            b.until_ready().await;
            let all = [parse("t", "INSERT INTO lost VALUES (1)"), bind("t"), execute(), sync()].concat();
            assert_eq!(b.tags(&all).await, "12CZ", "{hidden}");
            assert_eq!(b.tags(&[close("t"), sync()].concat()).await, "3Z", "{hidden}");
        }
        // In a transaction the client has to begin again, and can.
        a.rows("BEGIN").await;
        a.rows("DO $$ begin execute 'deallocate all'; end $$").await;
        assert!(refused(&mut a, &use_it).await.starts_with("26000"));
        a.rows("ROLLBACK").await;
        assert_eq!(a.tags(&use_it).await, "2CZ");
        assert_eq!(a.value("SELECT count(*) FROM lost").await, "5", "nothing has run twice");
        // The client has given a name before that the batch gives once more.
        assert_eq!(a.tags(&[parse("given", "SELECT 1"), sync()].concat()).await, "1Z");
        a.rows("DO $$ begin execute 'deallocate all'; end $$").await;
        let again = [bind("s"), execute(), parse("given", "SELECT 2"), sync()].concat();
        assert!(refused(&mut a, &again).await.starts_with("42P05"));
        a.rows("DROP TABLE lost").await;
    });
}

#[test]
fn a_plan_that_must_change_its_result_is_made_anew() {
    let pooler = Pooler::start("default_pool_size = 2");
    run(async {
        let (mut a, mut b) = (pooler.raw().await, pooler.raw().await);
        a.rows("DROP TABLE IF EXISTS replanned; CREATE TABLE replanned (a int)").await;
        let text = "SELECT * FROM replanned";
        let all = |name: &str| {
            [parse(name, text), describe(name), bind(name), execute(), close(name), sync()].concat()
        };
        // Both servers have it.
        a.rows("BEGIN").await;
        assert_eq!(b.tags(&all("s")).await, "1tT2C3Z");
        assert_eq!(a.tags(&all("s")).await, "1tT2C3Z");
        a.rows("COMMIT").await;
        assert_eq!(b.tags(&[parse("old", text), describe("old"), sync()].concat()).await, "1tTZ");
        a.rows("ALTER TABLE replanned ADD COLUMN b int").await;
        for _ in 0..4 {
            let mut new = pooler.raw().await;
            assert_eq!(new.tags(&all("s")).await, "1tT2C3Z", "a new client");
            assert_eq!(a.tags(&all("s")).await, "1tT2C3Z", "one that prepares it again");
            new.rows("BEGIN").await;
            assert_eq!(a.tags(&all("s")).await, "1tT2C3Z", "on the other server");
            assert_eq!(
                refused(&mut b, &[bind("old"), execute(), sync()].concat()).await,
                "0A000 cached plan must not change result type"
            );
            new.rows("ROLLBACK").await;
        }
        assert_eq!(
            b.tags(&[close("old"), parse("old", text), bind("old"), execute(), sync()].concat()).await,
            "312CZ"
        );
        a.rows("DROP TABLE replanned").await;
    });
}
