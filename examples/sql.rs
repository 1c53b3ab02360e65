//! What pgweir makes of a statement when `read_write_split` is on: where it may run, and what it leaves in its session, after
//! which its client reads from the primary. `classify.rs` does the first for scripts, with the catalog of a real database.
//!
//!     cargo run --example sql
//!     cargo run --example sql -- "SELECT now()" "SELECT nextval('s')"

use std::io::{self, Write};

use pgweir::sql::{self, Catalog, Class};

const STATEMENTS: [&str; 10] = [
    "SELECT abalance FROM pgbench_accounts WHERE aid = 1",
    "SELECT count(*) FROM t; SELECT now()",
    // What locks, calls an unknown function or hides a write is no read.
    "SELECT * FROM t FOR UPDATE",
    "SELECT my_function()",
    "WITH gone AS (DELETE FROM t RETURNING *) SELECT count(*) FROM gone",
    // Its client knows better.
    "/* pgweir: replica */ SELECT my_function()",
    "BEGIN READ ONLY",
    "SET search_path = tenant_7",
    "SET TimeZone = 'UTC'",
    "CREATE TEMPORARY TABLE t (a int)",
];

fn main() -> io::Result<()> {
    let mut given: Vec<String> = std::env::args().skip(1).collect();
    if given.is_empty() {
        given = STATEMENTS.map(str::to_owned).into();
    }
    // A database without functions, operators and views of its own. Without a catalog nothing is a read.
    let catalog = Catalog::default();
    let mut out = io::stdout().lock();
    for statement in given {
        let place = match sql::classify(statement.as_bytes(), Some(&catalog)) {
            Class::Read => "a replica",
            Class::Hinted => "a replica, as it says",
            Class::Write => "the primary",
            Class::ReadOnly => "a replica, if it is a whole transaction of one batch",
            Class::Begin => "a replica, if transactions are read-only by default",
        };
        // A setting that servers report goes with the client.
        let follows = |name: &[u8]| name.eq_ignore_ascii_case(b"TimeZone");
        let (Ok(effect) | Err(effect)) = sql::effect(statement.as_bytes(), Some(&catalog), &follows);
        let leaves = effect.leaves;
        let leaves = if leaves.is_empty() { "nothing".to_owned() } else { leaves.to_string() };
        writeln!(out, "{statement}\n  runs on {place}; leaves {leaves}")?;
    }
    Ok(())
}
