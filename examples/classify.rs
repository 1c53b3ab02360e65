//! Says of each statement on standard input where it may run, one line each: `replica`, `primary`, or `begin` for the
//! beginning of a transaction that may be read-only. Statements end with a NUL, and may be written one after the other: each is answered at
//! once. One that begins with `catalog:` brings the rows of `src/sql/catalog.sql`, fields ended by tabs, rows by line feeds,
//! `\\N` for NULL; before that the database is one without anything of its own.
//!
//!     printf 'SELECT 1\0DELETE FROM t\0' | cargo run --example classify

use std::io::{BufRead, Write};

use pgweir::sql::{Catalog, Class, Row, classify};

fn main() -> std::io::Result<()> {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut catalog = Catalog::default();
    let mut text = Vec::new();
    while input.read_until(0, &mut text)? > 0 {
        let statement = text.strip_suffix(b"\0").unwrap_or(&text);
        if let Some(rows) = statement.strip_prefix(b"catalog:") {
            catalog =
                Catalog::read(&rows_of(&String::from_utf8_lossy(rows))).map_err(std::io::Error::other)?;
        } else {
            let verdict = match classify(statement, Some(&catalog)) {
                Class::Read | Class::Hinted => "replica",
                Class::Write => "primary",
                Class::ReadOnly | Class::Begin => "begin",
            };
            writeln!(output, "{verdict}")?;
            output.flush()?;
        }
        text.clear();
    }
    Ok(())
}

fn rows_of(text: &str) -> Vec<Row> {
    let field = |field: &str| (field != "\\N").then(|| field.to_owned());
    text.lines().map(|line| line.split('\t').map(field).collect()).collect()
}
