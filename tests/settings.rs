//! Every setting of PgBouncer 1.25 is known here, and docs/settings.md says what it does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;

use pgweir::config::model::{DatabaseConfig, PeerConfig, UserConfig};
use pgweir::config::settings::TABLE;

/// The names in a section of the list, which has the form of an ini file.
fn pgbouncer(section: &str) -> BTreeSet<&'static str> {
    let list = include_str!("pgbouncer-1.25-settings.txt");
    let (_, rest) = list.split_once(&format!("[{section}]\n")).unwrap();
    rest.lines().take_while(|line| !line.is_empty()).collect()
}

#[test]
fn nothing_that_pgbouncer_can_be_told_is_missing() {
    let settings: Vec<_> = TABLE.iter().map(|info| info.name).collect();
    for (section, known, at_least) in [
        ("pgbouncer", &settings[..], 99),
        ("databases", DatabaseConfig::KEYS, 20),
        ("users", UserConfig::KEYS, 9),
        ("peers", PeerConfig::KEYS, 3),
    ] {
        let expected = pgbouncer(section);
        assert!(expected.len() >= at_least, "{section} is cut short");
        for name in expected {
            assert!(known.contains(&name), "{name} of [{section}]");
        }
    }
}

/// Each has one row, which says what it means and what does not work.
#[test]
fn the_documentation_lists_all_of_them_and_marks_those_of_our_own() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md")).unwrap();
    let rows: Vec<Vec<&str>> = document
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), TABLE.len());
    let theirs = pgbouncer("pgbouncer");
    for row in rows {
        let name = row[0].split('`').nth(1).unwrap();
        assert!(row.len() >= 5 && row.last().unwrap().ends_with(['.', '*']), "{row:?}");
        let is_marked = row[0].ends_with("**own**") || row[0].ends_with("**newer**");
        assert_eq!(theirs.contains(name), !is_marked, "{name}");
    }
    for (section, keys) in
        [("databases", DatabaseConfig::KEYS), ("users", UserConfig::KEYS), ("peers", PeerConfig::KEYS)]
    {
        let (_, list) = document.split_once(&format!("## Keys of `[{section}]`")).unwrap();
        let list = list.trim_start().lines().next().unwrap();
        assert!(keys.iter().all(|key| list.contains(&format!("`{key}`"))), "{list}");
    }
}
