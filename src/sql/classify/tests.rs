use super::*;

fn check(expected: Class, statements: &[&str]) {
    for text in statements {
        assert_eq!(classify(text.as_bytes(), Some(&Catalog::default())), expected, "{text}");
    }
}

#[test]
fn reads() {
    check(
        Class::Read,
        &[
            "select 1",
            "SELECT abalance FROM pgbench_accounts WHERE aid = $1;",
            " /* hint */ -- more\n select now(), random()",
            "select \"update\" from \"delete\" where a in (1, 2) and not (b or c)",
            "select 'insert into t', $$ delete $$, e'\\' update'",
            "with t(a, b) as (select 1, 2) select * from t",
            "with recursive t(n) as (values (1) union all select n + 1 from t) select count(*) from t",
            "values (1), (2)",
            "table t",
            "(select 1) union (select 2) order by 1",
            "explain (analyze, buffers) select * from t",
            "copy t to stdout",
            "copy (select * from t where a > lower('x')) to stdout with (format csv)",
            "select cast(a as numeric(10,2)), extract(year from d), coalesce(a, b) from t",
            "select pg_catalog.lower(x), count(*) filter (where y) over (partition by z) from t as u(x, y, z)",
            "select substring(a from 1 for 3) from t for_you",
            "select 1; select 2;",
            "select * from (values (1, 2)) t(a, b), unnest(x) u(c), (select 1) \"v\"(d)",
            ";",
            "",
        ],
    );
}

#[test]
fn writes_and_whatever_might_be() {
    check(
        Class::Write,
        &[
            "insert into t values (1) returning a",
            "update t set a = 1",
            "delete from t",
            "merge into t using s on a = b when matched then delete",
            "with x as (update t set a = 1 returning *) select * from x",
            "with x as (insert into t values (1) returning *) table x",
            "select * into t2 from t",
            "select * from t for update",
            "select * from t for share",
            "select * from t for no key update skip locked",
            "select * from t for key share",
            "select * from t limit 1for share",
            "select 1into t2",
            "select e'a'\n'\\'', nextval('s') --'",
            "select nextval('s')",
            "select NEXTVAL('s')",
            "select \"nextval\"('s')",
            "select pg_catalog.nextval('s')",
            "select nextval /* comment */ ('s')",
            "select distinct on (a) nextval('s') from t",
            "select distinct on (values) nextval('s') from t",
            "select distinct on ((select 1)) nextval('s') from t",
            "select a operator(pg_catalog.+) nextval('s')",
            "select count(*), nextval('s')",
            "select (lower('a')) || nextval('s')",
            "select public.f(1)",
            "select public.lower('x')",
            "select \"Lower\"('x')",
            "select U&\"nextval\"('s')",
            "select f(1) from t",
            "select pg_advisory_lock(1)",
            "select set_config('a', 'b', false)",
            "select txid_current()",
            "select pg_is_in_recovery()",
            "explain analyze update t set a = 1",
            "copy t from stdin",
            "copy t to '/tmp/x'",
            "copy t to program 'cat'",
            "copy (update t set a = 1 returning a) to stdout",
            "begin read only, read write",
            "begin; select 1",
            "begin read only; select 1; commit and chain",
            "begin read only; rollback to savepoint a",
            "select 1; commit",
            "set transaction read only",
            "begin; set transaction read write",
            "explain analyze create table t as select 1",
            "explain execute x",
            "explain (analyze) declare c cursor for select 1",
            "explain",
            "select (1; drop table t)",
            "select (1",
            "begin read only isolation level serializable",
            "begin read only; insert into t values (1)",
            "begin read only; select 1; commit; insert into t values (1)",
            "select 1; insert into t values (1)",
            "select 1; begin read only",
            "start something read only",
            "commit",
            "end",
            "set a = b",
            "show transaction_read_only",
            "lock t",
            "declare c cursor for select 1",
            "call p()",
            "do $$ begin end $$",
            "create table t (a int)",
            "refresh materialized view v",
            "vacuum",
            "discard all",
            "prepare x as select 1",
            "execute x",
            "listen x",
            "gibberish",
            "select 'unterminated",
            "'",
        ],
    );
}

#[test]
fn transactions_that_can_only_read() {
    check(
        Class::ReadOnly,
        &[
            "begin read only",
            "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;",
            "start transaction read only",
            "begin work read write read only",
            "begin read only deferrable",
            "begin; set transaction isolation level repeatable read, read only",
            "begin read only; select 1",
        ],
    );
    check(
        Class::Read,
        &["begin read only; select 1; commit", "begin; set transaction read only; select 1; end;"],
    );
    check(Class::Begin, &["begin", "BEGIN ISOLATION LEVEL REPEATABLE READ;", "start transaction"]);
}

#[test]
fn without_a_catalog_nothing_is_a_read() {
    let class = |text: &str| classify(text.as_bytes(), None);
    for text in [
        "select 1",
        "table t",
        "explain select 1",
        "copy t to stdout",
        "/* pgweir: primary */ begin read only",
    ] {
        assert_eq!(class(text), Class::Write, "{text}");
    }
    assert_eq!(class("begin read only"), Class::ReadOnly);
    assert_eq!(class("begin"), Class::Begin);
    assert_eq!(class("/* pgweir: replica */ select f()"), Class::Hinted);
}

#[test]
fn hints_have_the_last_word() {
    check(
        Class::Hinted,
        &[
            "/* pgweir: replica */ select nextval('s')",
            "--pgweir:replica\nfetch all from c",
            "/* pgweir: replica */ begin",
        ],
    );
    check(Class::Write, &["/* pgweir: primary */ select 1", "/* pgweir: auto */ select nextval('s')"]);
}

/// What the catalog forbids is found wherever a name may stand.
#[test]
fn the_catalog_is_asked_about_every_name() {
    let row = |fields: [&str; 8]| fields.map(|f| (f != "-").then(|| f.to_owned())).to_vec();
    let rows = [
        row(["object", "r", "20000", "public", "bad", "f", "-", "-"]),
        row(["object", "f", "20001", "public", "ok", "t", "-", "-"]),
        row(["object", "f", "20002", "public", "wrong", "f", "attribute", "-"]),
        row(["object", "f", "1574", "pg_catalog", "nextval", "f", "attribute", "-"]),
        row(["object", "o", "20003", "public", "<%>", "t", "-", "-"]),
        row(["use", "o", "20003", "-", "-", "-", "f", "20002"]),
        row(["object", "f", "20004", "public", "cube", "f", "-", "-"]),
    ];
    let catalog = Catalog::read(&rows).unwrap();
    let class = |text: &str| classify(text.as_bytes(), Some(&catalog));
    for text in [
        "select * from bad",
        "select * from public.Bad",
        "table \"bad\"",
        "select * from a, b join bad on true",
        "copy bad to stdout",
        "copy bad (a, b) to stdout",
        "explain select * from bad",
        "select x::bad",
        "select * from U&\"\\0062ad\"",
        "select t.wrong from t",
        "select (t).wrong from t",
        "select ((t)).wrong, 1 from t",
        "select public.t.wrong",
        "select t /* a */ . /* b */ \"wrong\" from t",
        "select ('s'::regclass).nextval",
        "select (s).NextVal from s",
        "select $1.nextval",
        "select (array[$1])[1].nextval",
        "select f[1].nextval from t",
        "explain select (s).nextval",
        "copy (select t.nextval from t) to stdout",
        "select 1 from t order by t.nextval",
        "select 1; select t.nextval; select 1",
        "select pg_temp.x",
        "select * from pg_temp.t",
        "table \"pg_temp_3\".t",
        "select wrong(t) from t",
        "select public.wrong(t) from t",
        "select other.ok(1)",
        "select pg_catalog.ok(1)",
        "select a <%> b from t",
        "select a operator(public.<%>) b from t",
        "select cube(1)",
    ] {
        assert_eq!(class(text), Class::Write, "{text}");
    }
    for text in [
        "select 'bad'",
        "select * from badly",
        "select * from \"BAD\"",
        "select wrong, nextval from t",
        "select t.id, (t).owner, $1.amount from t",
        "select t.\"NextVal\" from t",
        "select ok(1), public.ok(2), \"public\".\"ok\"(3), OK(4)",
        "copy t (a, b) to stdout",
        "copy (select ok(1)) to stdout",
    ] {
        assert_eq!(class(text), Class::Read, "{text}");
    }
}
