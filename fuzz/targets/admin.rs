//! What people type: statements, and commands of the console.

use pgweir::admin;
use pgweir::sql::{Catalog, Class, Left, State, classify, effect};

use super::bytes::{Bytes, texts};

/// Is this statement a read?
pub(super) fn sql(input: &[u8]) {
    let catalog = Catalog::default();
    let class = |parts: &[&[u8]]| classify(&parts.concat(), Some(&catalog));
    let alone = class(&[input]);
    assert_eq!(class(&[b"/* pgweir: primary */", input]), Class::Write);
    // What comes first may be a hint.
    if !contains(input, b"pgweir") {
        assert_eq!(alone, class(&[b" /* /* */ ' */-- '\n\t;", input]));
        assert_eq!(alone, class(&[input, b"\n;"]));
        // In one query string with a write nothing is a read, unless that write is inside parentheses that do not end.
        assert_eq!(class(&[b"delete from t;", input]), Class::Write);
        if !input.contains(&b'(') {
            assert_eq!(class(&[input, b"\n;delete from t"]), Class::Write);
        }
        // A function nobody knows makes a write of anything.
        if alone == Class::Read && !input.contains(&b'$') {
            assert_eq!(class(&[b"select nobody_knows(1) from (", input, b"\n) x"]), Class::Write);
        }
        // Without a catalog nothing is known.
        assert_ne!(classify(&[b"select 1;", input].concat(), None), Class::Read);
    }
}

/// What does it leave in its session?
pub(super) fn session_state(input: &[u8]) {
    let catalog = Catalog::default();
    let known = [Some(&catalog), None];
    for catalog in known {
        let effect = |parts: &[&[u8]]| effect(&parts.concat(), catalog, &|_| true);
        // A text that ends in the middle of something cannot end with a semicolon, either. Whether it does is not looked at
        // if it leaves nothing in any case.
        assert!(effect(&[input]).is_ok() || effect(&[input, b"\n;"]).is_err());
        // Whatever comes before or behind it, SET ROLE is seen, and what takes something back is the only statement.
        for parts in [[input, b"\n;set role x"], [b"set role x;", input]] {
            if let Ok(effect) = effect(&parts) {
                assert!(State::from(Left::Role).without(effect.leaves).is_empty());
            }
        }
        if let Ok(effect) = effect(&[input, b"\n;discard all;select 1"]) {
            assert!(effect.takes_back.is_empty());
        }
    }
}

fn contains(input: &[u8], part: &[u8]) -> bool {
    input.windows(part.len()).any(|window| window == part)
}

pub(super) fn session_state_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "set session search_path to a, \"b\"; set local role x; reset all",
        "set session characteristics as transaction isolation level serializable, read only",
        "select set_config('a.b', coalesce($1, 'c'), true), pg_temp.f() into temp t from u",
        "set session authorization default",
        "create or replace local temporary view v as select 1",
        "insert into a.b (c) values (f(1)) on conflict (c) do update set (c) = (2)",
        "discard all",
    ])
}

pub(super) fn sql_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "select a.b, \"c\"\"d\", count(*) from t where x = $1 and y = 'it''s' -- comment\n",
        "with x as (select 1) select * from x union (values (1), (2)) order by 1 limit 1e-3",
        "begin transaction isolation level repeatable read, read only",
        "start transaction read only; select 1; commit",
        "copy (select 1) to stdout with (format csv)",
        "explain (analyze, costs off) select pg_catalog.lower(E'a\\'b') /* x /* y */ z */",
        "select $tag$ ' $tag$, U&'x', u&\"y\", B'1', x'ff', N'z' for update",
        "select nextval('s'); table t; ((select 1))",
    ])
}

/// Commands of the console.
pub(super) fn console(input: &[u8]) {
    let text = Bytes(input).text();
    let Ok(commands) = admin::check(&text) else { return };
    assert!(commands <= text.len());
    let more = admin::check(&format!("/* ; */ SHOW POOLS -- ;\n;{text}\n;;show stats"));
    assert_eq!(more.ok(), Some(commands + 2));
}

pub(super) fn console_seeds() -> Vec<Vec<u8>> {
    texts(&[
        " show a ; set x = 'a;b';; ",
        "SET SESSION timezone TO 'it''s'; begin; select 1; commit",
        "/* from a tool */ kill \"My Db\" -- all of them\n; pause; resume; show default_pool_size",
        "shutdown wait_for_clients; deallocate prepare x; kill_client $1",
    ])
}
