//! Drivers people use, from other languages. `scripts/test` installs them; without them these tests say SKIPPED.

use std::process::{Command, Output};

use crate::support::{Ends, PASSWORD, Pooler, USER, cluster};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/drivers");

fn pooler() -> Pooler {
    Pooler::start(
        "default_pool_size = 5\nmax_client_conn = 500\nignore_startup_parameters = extra_float_digits",
    )
}

fn run(command: Command, port: u16) -> Output {
    run_in("app", command, port)
}

fn run_in(database: &str, mut command: Command, port: u16) -> Output {
    let database =
        [("PGHOST", "127.0.0.1"), ("PGUSER", USER), ("PGPASSWORD", PASSWORD), ("PGDATABASE", database)];
    command.envs(database).env("PGPORT", port.to_string()).ended()
}

fn check(output: &Output) {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{error}");
    println!("{out}");
}

#[test]
fn psycopg() {
    let Some(python) = std::env::var_os("PGWEIR_TEST_PYTHON") else {
        return println!("SKIPPED: no PGWEIR_TEST_PYTHON");
    };
    let mut command = Command::new(python);
    command.arg(format!("{FOLDER}/psycopg_checks.py"));
    check(&run(command, pooler().port));
}

#[test]
fn psycopg_at_the_console() {
    let Some(python) = std::env::var_os("PGWEIR_TEST_PYTHON") else {
        return println!("SKIPPED: no PGWEIR_TEST_PYTHON");
    };
    let mut command = Command::new(python);
    command.arg(format!("{FOLDER}/psycopg_console.py"));
    check(&run_in("pgbouncer", command, pooler().port));
}

/// A command that runs one of the scripts for node.
fn node(script: &str) -> Option<Command> {
    let modules = std::env::var_os("PGWEIR_TEST_NODE")?;
    let mut command = Command::new("node");
    // Modules are looked for beside the script.
    let copy = std::path::Path::new(&modules).join(script);
    std::fs::copy(format!("{FOLDER}/{script}"), &copy).unwrap();
    command.arg(copy);
    Some(command)
}

#[test]
fn node_postgres() {
    let Some(command) = node("node_checks.mjs") else { return println!("SKIPPED: no PGWEIR_TEST_NODE") };
    check(&run(command, pooler().port));
}

#[test]
fn node_postgres_at_the_console() {
    let Some(command) = node("node_console.mjs") else { return println!("SKIPPED: no PGWEIR_TEST_NODE") };
    check(&run_in("pgbouncer", command, pooler().port));
}

#[test]
fn pgbench_in_every_protocol() {
    let pooler = pooler();
    let pgbench = |arguments: &[&str]| {
        let mut command = cluster().program("pgbench");
        command.args(arguments);
        run(command, pooler.port)
    };
    check(&pgbench(&["-i", "-q", "-I", "dtGvp", "-s", "1"]));
    for mode in ["simple", "extended", "prepared"] {
        for extra in [&["-S", "-c", "20"][..], &["-c", "5"]] {
            let output = pgbench(&[&["-n", "-M", mode, "-t", "50"], extra].concat());
            check(&output);
            assert!(
                String::from_utf8_lossy(&output.stdout).contains("number of failed transactions: 0"),
                "{output:?}"
            );
        }
    }
    check(&pgbench(&["-n", "-S", "-C", "-c", "5", "-t", "20"]));
}
