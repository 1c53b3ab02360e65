//! `userlist.txt`, PgBouncer's file of users and secrets: `"user" "secret"` on each line.

use std::borrow::Cow;

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
    pub message: Cow<'static, str>,
}

/// What a file says: users and their secrets, and the lines that say nothing.
pub type Userlist = (Vec<(String, Option<Secret>)>, Vec<UserlistError>);

/// Reads the file's text. Empty lines and those that begin with `;` are skipped, as are byte order marks and whatever follows
/// the second string of a line. Inside quotes `""` stands for `"`. The last line for a user counts. What is no such line is
/// left out, the others count. A secret that is empty is none: that user exists, but no password is right.
pub fn parse(text: &str) -> Userlist {
    let (mut users, mut errors) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let start = line.trim_start_matches('\u{feff}').trim_start();
        if start.is_empty() || start.starts_with(';') {
            continue;
        }
        match parse_line(start) {
            Ok((user, secret)) => users.push((user, secret)),
            Err((rest, message)) => {
                let column = line.len() - rest.len() + 1;
                errors.push(UserlistError { line: index + 1, column, message });
            }
        }
    }
    (users, errors)
}

/// Where a line is wrong, and in what way.
type LineError<'a> = (&'a str, Cow<'static, str>);

/// User and secret of a line.
fn parse_line(line: &str) -> Result<(String, Option<Secret>), LineError<'_>> {
    let (user, rest) = quoted(line).map_err(|rest| (rest, "expected a user name in double quotes".into()))?;
    if user.is_empty() || user.len() > MAX_NAME {
        return Err((line, "user name is empty or too long".into()));
    }
    let rest = rest.trim_start();
    let (secret, _) = quoted(rest).map_err(|rest| (rest, "expected a password in double quotes".into()))?;
    Secret::check(&secret).map_err(|error| (rest, error.to_string().into()))?;
    Ok((user, Secret::parse(&secret)))
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
        let (users, errors) = parse(&text);
        assert!(errors.is_empty());
        let plain = |text: &str| Secret::parse(text);
        assert_eq!(users[0], ("me".into(), plain("se\"cret")));
        assert_eq!(users[1], ("a\"b\"".into(), plain("")));
        assert_eq!(users[2], ("long".into(), plain(&long)));
        assert_eq!(users.len(), 3);
    }

    #[test]
    fn an_empty_secret_is_none() {
        let (users, _) = parse("\"me\" \"secret\"\n\"me\" \"\"\n");
        assert_eq!(users[1], ("me".into(), None));
    }

    #[test]
    fn errors_say_where() {
        let error = |text| parse(text).1.remove(0);
        assert_eq!(
            error("\n  me secret").to_string(),
            "line 2, column 3: expected a user name in double quotes"
        );
        assert_eq!(error("\"me\" secret").column, 6);
        assert_eq!(error("\"me\" \"secret").column, 6);
        assert_eq!(error("\"\" \"x\"").line, 1);
        let verifier = postgres_protocol::password::scram_sha_256(b"secret").replace("4096:", "20000000:");
        assert_eq!(
            error(&format!("\"you\" \"x\"\n\"me\" \"{verifier}\"")).to_string(),
            "line 2, column 6: the SCRAM secret has 20000000 iterations, but at most 1000000 are done"
        );
    }

    #[test]
    fn lines_that_are_none_take_no_others_along() {
        let long = "x".repeat(129);
        let text = format!(
            "\u{feff}\"a\" \"1\"\r\n# note\r\n\"b\" \"2\" \t\r\n\u{feff};\n\"c\" 3\n\"d\"\n\"{long}\" \"5\"\n  \"e\"\"6\"\n\"f\" \"7\"\r"
        );
        let (users, errors) = parse(&text);
        let names: Vec<_> = users.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "f"]);
        assert_eq!(users[1].1, Secret::parse("2"));
        let places: Vec<_> = errors.iter().map(|error| (error.line, error.column)).collect();
        assert_eq!(places, [(2, 1), (5, 5), (6, 4), (7, 1), (8, 9)]);
        for nothing in ["", "\n", "\u{feff}", "\u{feff}\r\n", "; \"a\" \"b\""] {
            assert_eq!(parse(nothing), (vec![], vec![]), "{nothing:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
