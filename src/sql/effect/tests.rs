use super::*;

fn effect_of(text: &str, catalog: Option<&Catalog>) -> Effect {
    let is_followed = |name: &[u8]| name.eq_ignore_ascii_case(b"TimeZone") || name == b"DateStyle";
    effect(text.as_bytes(), catalog, &is_followed).unwrap_or_else(|so_far| so_far)
}

/// One of a few functions that leave something, `tenant`, and of those that do not, `harmless`.
fn catalog() -> Catalog {
    let row = |fields: [&str; 8]| fields.map(|f| (f != "-").then(|| f.to_owned())).to_vec();
    let rows = [
        row(["object", "f", "20000", "public", "tenant", "f", "leaves", "-"]),
        row(["object", "f", "20001", "public", "harmless", "f", "-", "-"]),
        row(["object", "r", "20002", "public", "triggered", "t", "leaves", "-"]),
    ];
    Catalog::read(&rows).unwrap()
}

fn leaves(expected: Option<Left>, texts: &[&str]) {
    let catalog = catalog();
    for text in texts {
        let effect = effect_of(text, Some(&catalog));
        let expected = expected.map_or(State::default(), State::from);
        assert_eq!(effect.leaves, expected, "{text}: {}", effect.leaves);
        // Where no function leaves anything most texts are told at a glance.
        if !["tenant(", "(\"tenant", "(1).tenant", "triggered"]
            .iter()
            .any(|own| text.to_lowercase().contains(own))
        {
            let at_a_glance = effect_of(text, Some(&Catalog::default()));
            assert_eq!(at_a_glance, effect, "{text}");
        }
    }
}

#[test]
fn settings_that_do_not_follow() {
    leaves(
        Some(Left::Setting),
        &[
            "set search_path = app",
            "SET SESSION search_path TO app, public;",
            "set \"search_path\" = app",
            "set schema 'app'",
            "set statement_timeout = 5",
            "set app.tenant = '7'",
            "set App . Tenant to '7'",
            "set xml option document",
            "set session characteristics as transaction isolation level serializable, read write",
            "set session characteristics as transaction read only",
            "select set_config(set_config(set_config(set_config('a.b', 'c', true), 'c', true), 'c', true), 'c', false)",
            "select 1; set work_mem = '1MB'",
            "begin; set work_mem = '1MB'; commit",
            "reset all; set work_mem = '1MB'",
            "select set_config('app.tenant', '7', false)",
            "select pg_catalog.set_config($1, $2, $3)",
            "select \"set_config\"('app.tenant', f(true), 'f')",
            "select SET_CONFIG /* */ ('app.' || 'tenant', '7', false), true",
            "select * from t where set_config('a.b', 'c', is_local => false) = ''",
            "insert into t values (set_config('a.b', (select max(c) from u), false))",
            "explain analyze select set_config('a.b', 'c', false)",
            "prepare p as select set_config('a.b', 'c', false)",
            "select setseed(0.5)",
            "select set_limit(0.5)",
        ],
    );
    leaves(
        None,
        &[
            "set local search_path = app",
            "set transaction isolation level serializable",
            "set constraints all deferred",
            "set TimeZone = 'UTC'",
            "set timezone to default",
            "set time zone 'UTC'",
            "set time zone interval '+00:00' hour to minute",
            "set names 'utf8'",
            "SET datestyle TO DEFAULT",
            "set client_min_messages to warning",
            "set pgweir.route = 'replica'",
            "set search_path to default",
            "set session characteristics as transaction isolation level read committed",
            "select set_config('timezone', 'UTC', false)",
            "select set_config('jit', 'off', false)",
            "select set_config('app.tenant', $1, true)",
            "select set_config('app.tenant', coalesce($1, 'a'), TRUE), 2",
            "reset search_path",
            "update t set search_path = 'x'",
            "insert into t (a, b) values (1, f(2)) on conflict (a) do update set b = 1",
            "select 'set search_path = app', $$ set_config('a.b', 'c', false) $$ for update",
            "select \"Set_Config\"",
            "",
        ],
    );
}

#[test]
fn roles() {
    leaves(
        Some(Left::Role),
        &["set role app", "set session role app", "set role to 'app'", "SET ROLE = app"],
    );
    leaves(Some(Left::Role), &["select set_config('role', 'app', false)"]);
    leaves(
        Some(Left::Authorization),
        &[
            "set session authorization app",
            "set session session authorization 'app'",
            "set session_authorization = app",
        ],
    );
    leaves(None, &["set local role app", "set local session authorization app", "set role none"]);
}

#[test]
fn temporary_objects() {
    leaves(
        Some(Left::Temporary),
        &[
            "create temp table t (a int)",
            "CREATE LOCAL TEMPORARY TABLE t AS SELECT 1",
            "create global temp table t (a int)",
            "create or replace temp view v as select 1",
            "create temporary sequence s",
            "select 1 as a into temp t",
            "with x as (select 1) select * into temporary table t from x",
            "create table pg_temp.t (a int)",
            "create function pg_temp.f() returns int language sql as 'select 1'",
            "insert into \"pg_temp\".t values (1)",
            "select 1; create temp table t (a int)",
        ],
    );
    leaves(
        None,
        &[
            "create table temp (a int)",
            "insert into temp values (1)",
            "insert into temporary select 1",
            "create table t (temp int)",
            "update temp set temp = 1",
            "select temp into t from u",
            "select 'create temp table t (a int)' for update",
        ],
    );
}

#[test]
fn what_nobody_can_see() {
    leaves(
        Some(Left::Something),
        &[
            "do $$begin perform set_config('a.b', 'c', false); end$$",
            "load 'age'",
            "select tenant(1)",
            "call public.Tenant(1)",
            "select (1).tenant",
            "insert into t values (\"tenant\"(1))",
            "insert into triggered values (1)",
            "select U&\"set\\005fconfig\"('a.b', 'c', false)",
        ],
    );
    leaves(None, &["select harmless(1)", "call harmless(1)", "select unknown(1)", "notify a", "commit"]);
}

/// As long as nothing is known of a database, none of its functions is.
#[test]
fn without_a_catalog_no_function_is_known() {
    for text in [
        "select tenant(1)",
        "call app.tenant()",
        "insert into t (a) values (tenant(1))",
        "update t set a = app.\"tenant\"(1)",
        "with x (a) as (select 1) select tenant(a) from x",
        "(select tenant(1))",
    ] {
        assert_eq!(effect_of(text, None).leaves, Left::Something.into(), "{text}");
    }
    for text in [
        "insert into app.\"Some table\" (a, b) values (lower('a'), nextval('s')) on conflict (a) do update set (a, b) = (1, 2)",
        "insert into t as x (a) select max(a) from (values (1)) v (a) returning (a)",
        "update t set a = cast(b as numeric(10, 2)) where c in (1, 2) and exists (select pg_advisory_lock(1))",
        "merge into t using u on (t.a = u.a) when not matched then insert (a) values (u.a)",
        "delete from t using lateral (select count(*)) x (n) where a = any (array[1])",
        "create table t (a numeric(10, 2) check (a > own(1)))",
        "alter table t add column a app.type(3)",
        "copy t (a, b) from stdin",
        "execute p (1)",
        "select set_config('timezone', 'UTC', false)",
    ] {
        assert_eq!(effect_of(text, None), Effect::default(), "{text}");
    }
}

#[test]
fn what_is_taken_back() {
    let all = |lefts: &[Left]| {
        let mut state = State::default();
        lefts.iter().for_each(|left| state |= (*left).into());
        state
    };
    let none = State::default();
    for (text, expected) in [
        ("discard all", State::ALL),
        ("DISCARD ALL;", State::ALL),
        ("discard temp", all(&[Left::Temporary])),
        ("discard temporary", all(&[Left::Temporary])),
        ("discard plans", none),
        ("reset all", all(&[Left::Setting])),
        ("reset role", all(&[Left::Role])),
        ("set role none", all(&[Left::Role])),
        ("set role to default", all(&[Left::Role])),
        ("reset session authorization", all(&[Left::Role, Left::Authorization])),
        ("set session authorization default", all(&[Left::Role, Left::Authorization])),
        ("reset search_path", none),
        // Others may undo it.
        ("begin; reset all", none),
        ("reset all; select 1", none),
        ("discard all '", none),
    ] {
        assert_eq!(effect_of(text, None).takes_back, expected, "{text}");
    }
}

#[test]
fn what_a_long_text_is_about() {
    for text in ["insert into t values (1)", " -- x\nSELECT 1", "copy t from stdin"] {
        assert!(is_about_rows(text.as_bytes()), "{text}");
    }
    for text in ["set a = b", "begin; insert", "create table t", "(select 1)", "'", ""] {
        assert!(!is_about_rows(text.as_bytes()), "{text}");
    }
}

/// What is in the parentheses of set_config is looked at again for what is in it, but not without end.
#[test]
fn the_work_is_linear() {
    let text = format!("select {}{} for update", "set_config(".repeat(9), ",'b',true)".repeat(9));
    assert!(effect_of(&text, None).leaves.is_empty());
    let text = format!("select set_config({},'b',true)", vec!["'a'"; MOST_AHEAD].join("||"));
    assert_eq!(effect_of(&text, None).leaves, Left::Setting.into());
}

#[test]
fn most_texts_are_told_at_a_glance() {
    for text in [
        "UPDATE pgbench_tellers SET tbalance = tbalance + 1 WHERE tid = 2;",
        "insert into t (a) values ($1) on conflict do update set a = excluded.a returning id ; ",
        "with x as (select 1) select * from x for update",
        "BEGIN READ ONLY",
        "commit",
    ] {
        assert!(is_plain(text.as_bytes()), "{text}");
    }
    for text in [
        "delete from t; set role x",
        "SELECT SET_CONFIG('a.b', 'c', false)",
        "select pg_TEMP.f()",
        "do $$$$",
        "select U&\"x\"",
    ] {
        assert!(!is_plain(text.as_bytes()), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics_or_hangs(text: Vec<u8>) {
        let _ = effect(&text, None, &|_| false);
        let _ = is_plain(&text);
    }
}
