//! What a server says of a command that has ended (CommandComplete), as far as it matters where later ones may run. Pure.

/// How a command changes a database's catalog, as far as routing is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ddl {
    /// Not at all.
    #[default]
    None,
    /// It may add what a standby does not have.
    Adds,
    /// What was a read may not be one any more.
    Changes,
}

/// What a command has changed. HOT: most are told by their first letters.
#[inline]
pub fn ddl(command: &[u8]) -> Ddl {
    match command {
        [b'A' | b'I', b'L' | b'M', ..]
        | [b'C', b'A' | b'R', ..]
        | [b'C', _, _, _, _, _, b' ', ..]
        | [b'D', b'O' | b'R', ..] => ddl_command(command),
        _ => Ddl::None,
    }
}

/// Whether a command reads by its CommandComplete, if its transaction is read-only. HOT.
#[inline]
pub fn reads(command: &[u8]) -> bool {
    match command {
        [b'S', b'E', b'L', ..] => true,
        _ => reading_command(command),
    }
}

/// Whether a command has removed all prepared statements.
#[inline]
pub fn forgets_statements(command: &[u8]) -> bool {
    matches!(command, b"DEALLOCATE ALL\0" | b"DISCARD ALL\0")
}

/// Whether a transaction may have ended with this command: what comes behind it is not part of a read-only one.
#[inline]
pub fn may_end_transaction(command: &[u8]) -> bool {
    matches!(command, [b'C' | b'R' | b'P', b'O' | b'R', ..])
}

fn reading_command(command: &[u8]) -> bool {
    const READING: &[&[u8]] = &[
        b"BEGIN\0",
        b"START TRANSACTION\0",
        b"COMMIT\0",
        b"ROLLBACK\0",
        b"SAVEPOINT\0",
        b"RELEASE\0",
        b"SHOW\0",
        b"DECLARE CURSOR\0",
        b"CLOSE CURSOR\0",
        b"CLOSE CURSOR ALL\0",
    ];
    READING.contains(&command) || command.starts_with(b"FETCH ") || command.starts_with(b"MOVE ")
}

#[cold]
fn ddl_command(command: &[u8]) -> Ddl {
    let command = command.strip_suffix(b"\0").unwrap_or(command);
    let begins = |with: &[&[u8]]| with.iter().any(|with| command.starts_with(with));
    if begins(&[b"CREATE TABLE", b"CREATE SEQUENCE", b"CALL"]) {
        Ddl::Adds
    } else if begins(&[b"CREATE INDEX", b"DROP INDEX", b"DROP TABLE", b"DROP SEQUENCE"]) {
        Ddl::None
    } else if begins(&[b"ALTER ", b"CREATE ", b"DROP ", b"IMPORT ", b"COMMIT PREPARED"]) || command == b"DO" {
        Ddl::Changes
    } else {
        Ddl::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_change_the_catalog() {
        for (command, expected) in [
            ("CREATE FUNCTION", Ddl::Changes),
            ("CREATE VIEW", Ddl::Changes),
            ("ALTER TABLE", Ddl::Changes),
            ("DROP OPERATOR", Ddl::Changes),
            ("IMPORT FOREIGN SCHEMA", Ddl::Changes),
            ("COMMIT PREPARED", Ddl::Changes),
            ("DO", Ddl::Changes),
            ("CREATE TABLE", Ddl::Adds),
            ("CALL", Ddl::Adds),
            ("DROP TABLE", Ddl::None),
            ("CREATE INDEX", Ddl::None),
            ("INSERT 0 1", Ddl::None),
            ("COMMIT", Ddl::None),
            ("DELETE 1", Ddl::None),
            ("ANALYZE", Ddl::None),
            ("SELECT 1", Ddl::None),
            ("", Ddl::None),
        ] {
            assert_eq!(ddl(format!("{command}\0").as_bytes()), expected, "{command}");
        }
    }

    #[test]
    fn commands_that_may_end_a_transaction() {
        for (command, expected) in [
            ("COMMIT", true),
            ("ROLLBACK", true),
            ("PREPARE TRANSACTION", true),
            ("SELECT 1", false),
            ("BEGIN", false),
        ] {
            assert_eq!(may_end_transaction(format!("{command}\0").as_bytes()), expected, "{command}");
        }
    }

    #[test]
    fn commands_that_only_read() {
        for command in
            ["SELECT 5", "BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK", "FETCH 3", "MOVE 3", "SHOW"]
        {
            assert!(reads(format!("{command}\0").as_bytes()), "{command}");
        }
        for command in [
            "INSERT 0 1",
            "SET",
            "RESET",
            "DO",
            "CALL",
            "PREPARE TRANSACTION",
            "COMMIT PREPARED",
            "COPY 1",
            "",
        ] {
            assert!(!reads(format!("{command}\0").as_bytes()), "{command}");
        }
    }
}
