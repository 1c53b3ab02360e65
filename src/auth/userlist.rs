//! `userlist.txt`, PgBouncer's file of users and secrets: `"user" "secret"` on each line.

use super::secret::Secret;

/// Longest user name.
const MAX_NAME: usize = 128;

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct UserlistError {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1.
    pub column: usize,
    /// What was expected. Never shows a secret.
    pub message: &'static str,
}

/// Reads the file's text. Empty lines and those that begin with `;` are skipped, as is whatever follows the second
/// string of a line. Inside quotes `""` stands for `"`. The last line for a user counts.
pub fn parse(text: &str) -> Result<Vec<(String, Secret)>, UserlistError> {
    let mut users = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let start = line.trim_start();
        if start.is_empty() || start.starts_with(';') {
            continue;
        }
        let fail = |rest: &str, message| UserlistError {
            line: index + 1,
            column: line.len() - rest.len() + 1,
            message,
        };
        let (user, rest) =
            quoted(start).map_err(|rest| fail(rest, "expected a user name in double quotes"))?;
        if user.is_empty() || user.len() > MAX_NAME {
            return Err(fail(start, "user name is empty or too long"));
        }
        let rest = rest.trim_start();
        let (secret, _) = quoted(rest).map_err(|rest| fail(rest, "expected a password in double quotes"))?;
        users.push((user, Secret::parse(&secret)));
    }
    Ok(users)
}

/// A string in double quotes and what follows it; in case of an error, where that was found.
fn quoted(text: &str) -> Result<(String, &str), &str> {
    let mut value = String::new();
    let mut rest = text.strip_prefix('"').ok_or(text)?;
    loop {
        let end = rest.find('"').ok_or(text)?;
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                value.push('"');
                rest = after;
            }
            None => return Ok((value, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn users_and_secrets() {
        let long = "x".repeat(65530);
        let text = format!(
            "\"me\" \"se\"\"cret\" ignored\n\n ; comment\n\t\"a\"\"b\"\"\" \"\"\n\"long\" \"{long}\"\n"
        );
        let users = parse(&text).unwrap();
        let plain = |text: &str| Secret::parse(text);
        assert_eq!(users[0], ("me".into(), plain("se\"cret")));
        assert_eq!(users[1], ("a\"b\"".into(), plain("")));
        assert_eq!(users[2], ("long".into(), plain(&long)));
        assert_eq!(users.len(), 3);
    }

    #[test]
    fn errors_say_where() {
        let error = |text| parse(text).map(drop).unwrap_err();
        assert_eq!(
            error("\n  me secret").to_string(),
            "line 2, column 3: expected a user name in double quotes"
        );
        assert_eq!(error("\"me\" secret").column, 6);
        assert_eq!(error("\"me\" \"secret").column, 6);
        assert_eq!(error("\"\" \"x\"").line, 1);
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
