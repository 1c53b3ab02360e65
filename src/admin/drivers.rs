//! What drivers say to any PostgreSQL before they come to the point. None of it means anything at the console, but a
//! driver that gets an error for an answer gives up.

use super::show::VERSION;
use super::table::{int, text};
use crate::wire::write::Column;

/// What a client is told of the "server" when it logs in.
pub(super) const PARAMETERS: &[(&str, &str)] = &[
    ("server_version", SERVER_VERSION),
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("TimeZone", "GMT"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "on"),
    ("integer_datetimes", "on"),
];

const SERVER_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "/pgweir");

/// A statement with one row of one value for an answer.
#[derive(Debug)]
pub(super) struct Constant {
    /// The statement in lower case, its words separated by one blank.
    statement: &'static str,
    /// The column.
    pub(super) column: Column,
    /// The value.
    pub(super) value: &'static str,
    /// What the answer ends with.
    pub(super) tag: &'static str,
}

const fn show(statement: &'static str, name: &'static str, value: &'static str) -> Constant {
    Constant { statement, column: text(name), value, tag: "SHOW" }
}

const fn select(statement: &'static str, column: Column, value: &'static str) -> Constant {
    Constant { statement, column, value, tag: "SELECT 1" }
}

/// The first five are PgBouncer's, in its words.
static CONSTANTS: &[Constant] = &[
    show("show client_encoding", "client_encoding", "UTF-8"),
    show("show default_transaction_isolation", "default_transaction_isolation", "read committed"),
    show("show standard_conforming_strings", "standard_conforming_strings", "on"),
    show("show datestyle", "datestyle", "ISO"),
    show("show timezone", "timezone", "GMT"),
    show("show time zone", "timezone", "GMT"),
    show("show server_version", "server_version", SERVER_VERSION),
    show("show server_encoding", "server_encoding", "UTF8"),
    show("show integer_datetimes", "integer_datetimes", "on"),
    show("show is_superuser", "is_superuser", "on"),
    show("show search_path", "search_path", ""),
    show("show max_identifier_length", "max_identifier_length", "63"),
    show("show transaction_isolation", "transaction_isolation", "read committed"),
    show("show transaction isolation level", "transaction_isolation", "read committed"),
    show("show transaction_read_only", "transaction_read_only", "off"),
    show("show default_transaction_read_only", "default_transaction_read_only", "off"),
    select("select 1", int("?column?"), "1"),
    select("select version()", text("version"), VERSION),
    select("select current_database()", text("current_database"), "pgbouncer"),
    select("select current_catalog", text("current_catalog"), "pgbouncer"),
    select("select current_schema()", text("current_schema"), "public"),
    select("select pg_catalog.pg_is_in_recovery()", text("pg_is_in_recovery"), "f"),
    select("select pg_advisory_unlock_all()", text("pg_advisory_unlock_all"), ""),
];

/// The statement that this is, written in lower case with one blank between words.
pub(super) fn constant(statement: &str) -> Option<&'static Constant> {
    CONSTANTS.iter().find(|constant| constant.statement == statement)
}

/// Parameters of a session that may be set to anything. The first five are PgBouncer's.
const SESSION_PARAMETERS: &[&str] = &[
    "client_encoding",
    "default_transaction_isolation",
    "standard_conforming_strings",
    "datestyle",
    "timezone",
    "bytea_output",
    "client_min_messages",
    "default_transaction_read_only",
    "escape_string_warning",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "jit",
    "lock_timeout",
    "search_path",
    "statement_timeout",
];

/// Whether this is a parameter of a session, in lower case.
pub(super) fn is_session_parameter(name: &str) -> bool {
    SESSION_PARAMETERS.contains(&name)
}

/// Statements with nothing to do: how they begin, and what answers them. A session at the console has nothing to be
/// reset.
const EMPTY_HANDED: &[(&str, &str)] = &[
    ("close all", "CLOSE CURSOR ALL"),
    ("deallocate all", "DEALLOCATE ALL"),
    ("deallocate prepare all", "DEALLOCATE ALL"),
    ("discard all", "DISCARD ALL"),
    ("discard plans", "DISCARD PLANS"),
    ("discard sequences", "DISCARD SEQUENCES"),
    ("discard temp", "DISCARD TEMP"),
    ("reset", "RESET"),
    ("set names", "SET"),
    ("set session authorization", "SET"),
    ("set session characteristics", "SET"),
    ("set time zone", "SET"),
    ("set transaction", "SET"),
    ("unlisten *", "UNLISTEN"),
];

/// What answers a statement with nothing to do.
pub(super) fn tag_of_nothing(statement: &str) -> Option<&'static str> {
    let is = |beginning: &str| {
        statement.strip_prefix(beginning).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    EMPTY_HANDED.iter().find(|(beginning, _)| is(beginning)).map(|(_, tag)| *tag)
}

/// Whether a transaction is open after this statement, and what answers it.
pub(super) fn transaction(first_word: &str) -> Option<(bool, &'static str)> {
    Some(match first_word {
        "begin" => (true, "BEGIN"),
        "start" => (true, "START TRANSACTION"),
        "commit" | "end" => (false, "COMMIT"),
        "rollback" | "abort" => (false, "ROLLBACK"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_words_are_recognised() {
        assert_eq!(tag_of_nothing("reset all"), Some("RESET"));
        assert_eq!(tag_of_nothing("discard all"), Some("DISCARD ALL"));
        assert_eq!(tag_of_nothing("resettle"), None);
        assert_eq!(tag_of_nothing("discard"), None);
        assert_eq!(constant("select 1").map(|c| c.value), Some("1"));
        assert!(constant("select 2").is_none());
    }

    #[test]
    fn statements_are_written_as_they_are_looked_for() {
        for constant in CONSTANTS {
            assert_eq!(constant.statement, constant.statement.to_ascii_lowercase());
        }
    }
}
