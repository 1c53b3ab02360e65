//! The table of verdicts: each statement of `tests/data/routing.tsv` is judged by what a real database says of itself, and
//! those for replicas are run on one. Made into `docs/routing.md`.

use std::fmt::Write;

use pgweir::sql::{self, Catalog, Class};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::support::{cluster, run};

const TABLE: &str = include_str!("../data/routing.tsv");
const FIXTURE: &str = include_str!("../data/routing.sql");
/// What comes before it in the document is written by hand.
const MARK: &str = "<!-- From here on made from tests/data/routing.tsv. -->\n";

struct Line {
    for_replica: bool,
    sql: String,
    reason: &'static str,
}

/// Headings and what comes under each.
fn sections() -> Vec<(&'static str, Vec<Line>)> {
    let mut sections: Vec<(&str, Vec<Line>)> = Vec::new();
    for line in TABLE.lines() {
        if let Some(heading) = line.strip_prefix("# ") {
            sections.push((heading, Vec::new()));
            continue;
        }
        let mut fields = line.split('\t');
        let mut next = || fields.next().unwrap_or_else(|| panic!("{line}: a field is missing"));
        let (verdict, sql, reason) = (next(), next().replace("\\n", "\n"), next());
        assert!(matches!(verdict, "replica" | "primary"), "{line}");
        let (_, lines) = sections.last_mut().unwrap();
        lines.push(Line { for_replica: verdict == "replica", sql, reason });
    }
    sections
}

async fn connect() -> tokio_postgres::Client {
    let cluster = cluster();
    let parameters =
        format!("host={} port={} user=postgres dbname=judged", cluster.dir.display(), cluster.primary);
    let (client, connection) = tokio_postgres::connect(&parameters, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// What the database says of itself.
async fn catalog(client: &tokio_postgres::Client) -> Catalog {
    client.batch_execute("SET search_path = pg_catalog").await.unwrap();
    let messages = client.simple_query(sql::CATALOG_QUERY).await.unwrap();
    let rows: Vec<sql::Row> = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|n| row.get(n).map(str::to_owned)).collect())
            }
            _ => None,
        })
        .collect();
    client.batch_execute("RESET search_path").await.unwrap();
    Catalog::read(&rows).unwrap()
}

#[test]
fn every_statement_goes_where_the_table_says() {
    cluster().admin(cluster().primary, "CREATE DATABASE judged");
    run(async {
        let primary = connect().await;
        primary.batch_execute(FIXTURE).await.unwrap();
        let catalog = catalog(&primary).await;
        assert_eq!(catalog.opaque(), None);
        cluster().catch_up();
        let mut wrong = Vec::new();
        let mut count = 0;
        for line in sections().iter().flat_map(|(_, lines)| lines) {
            count += 1;
            let class = sql::classify(line.sql.as_bytes(), Some(&catalog));
            if matches!(class, Class::Read | Class::Hinted) != line.for_replica {
                wrong.push(format!("{}: {class:?}", line.sql));
            }
            // It must work there.
            if line.for_replica {
                cluster().admin_in("judged", cluster().replica, &line.sql);
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(count >= 200, "{count}");
    });
}

/// `UPDATE_DOCS=1 cargo test` writes the file.
#[test]
fn the_documentation_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/routing.md");
    let current = std::fs::read_to_string(path).unwrap();
    let (guide, _) = current.split_once(MARK).unwrap();
    let mut text = format!("{guide}{MARK}");
    for (heading, lines) in sections() {
        let _ = write!(text, "\n### {heading}\n\n| Statement | Goes to | Why |\n|---|---|---|\n");
        for line in lines {
            let to = if line.for_replica { "a replica" } else { "the primary" };
            let sql = match line.sql.replace('\n', " ⏎ ").replace('|', "\\|") {
                sql if sql.is_empty() => "*(nothing)*".to_owned(),
                sql => format!("`{sql}`"),
            };
            let _ = writeln!(text, "| {sql} | {to} | {} |", line.reason);
        }
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert!(std::fs::read_to_string(path).unwrap() == text, "run UPDATE_DOCS=1 cargo test");
}
