//! Reads console commands. Keywords and names are taken without regard to case, as PgBouncer does.

use crate::error::{Refusal, sqlstate};
use crate::proxy::shared::Shutdown;

/// A command of the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Show(String),
    /// `SET key = value`.
    Set(String, String),
    Reload,
    Pause(Option<String>),
    Resume(Option<String>),
    Disable(String),
    Enable(String),
    Reconnect(Option<String>),
    Kill(Option<String>),
    KillClient(String),
    WaitClose(Option<String>),
    Shutdown(Shutdown),
}

impl Command {
    /// Whether stats_users may use it. Whatever is not named here they may not.
    pub(super) fn is_harmless(&self) -> bool {
        match self {
            Self::Show(_) => true,
            // What drivers send as a greeting.
            Self::Set(key, _) => is_greeting(key),
            _ => false,
        }
    }
}

/// Settings of a session that drivers set on every connection; they mean nothing at the console.
pub(super) fn is_greeting(key: &str) -> bool {
    matches!(
        key,
        "extra_float_digits" | "client_encoding" | "application_name" | "datestyle" | "client_min_messages"
    )
}

/// Splits a query string at semicolons; empty statements are dropped.
pub(super) fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), _) if q == c => quote = None,
            (None, ';') => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// Reads one command.
pub(super) fn parse(text: &str) -> Result<Command, Refusal> {
    let invalid = || {
        Refusal::new(sqlstate::SYNTAX_ERROR, format!("invalid command '{text}', use SHOW HELP;"))
            .hint("The console knows SHOW, SET and a few commands; it does not run SQL.")
    };
    let words = words(text).ok_or_else(invalid)?;
    let (keyword, arguments) = words.split_first().ok_or_else(invalid)?;
    let at_most_one = || match arguments {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        _ => Err(invalid()),
    };
    let one = || at_most_one()?.ok_or_else(invalid);
    Ok(match keyword.to_ascii_lowercase().as_str() {
        "show" => Command::Show(arguments.join(" ").to_ascii_lowercase()),
        "set" => set(arguments).ok_or_else(invalid)?,
        "reload" if arguments.is_empty() => Command::Reload,
        "pause" => Command::Pause(at_most_one()?),
        "resume" => Command::Resume(at_most_one()?),
        "disable" => Command::Disable(one()?),
        "enable" => Command::Enable(one()?),
        "reconnect" => Command::Reconnect(at_most_one()?),
        "kill" => Command::Kill(at_most_one()?),
        "kill_client" => Command::KillClient(one()?),
        "wait_close" => Command::WaitClose(at_most_one()?),
        "shutdown" => {
            Command::Shutdown(match at_most_one()?.map(|how| how.to_ascii_lowercase()).as_deref() {
                None => Shutdown::Immediate,
                Some("wait_for_servers") => Shutdown::WaitForServers,
                Some("wait_for_clients") => Shutdown::WaitForClients,
                Some(_) => return Err(invalid()),
            })
        }
        _ => return Err(invalid()),
    })
}

fn set(arguments: &[String]) -> Option<Command> {
    match arguments {
        [key, to, value @ ..] if to == "=" || to.eq_ignore_ascii_case("to") => {
            Some(Command::Set(key.to_ascii_lowercase(), value.join(" ")))
        }
        _ => None,
    }
}

/// Words, `=` and quoted strings; `None` if a quote is not closed.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        match c {
            c if c.is_whitespace() => {
                chars.next();
            }
            '=' => {
                chars.next();
                words.push("=".into());
            }
            '\'' | '"' => {
                chars.next();
                let mut word = String::new();
                loop {
                    match chars.next()? {
                        q if q == c && chars.peek() == Some(&c) => word.push(chars.next()?),
                        q if q == c => break,
                        other => word.push(other),
                    }
                }
                words.push(word);
            }
            _ => {
                let mut word = String::new();
                while let Some(&c) = chars.peek() {
                    if c.is_whitespace() || c == '=' {
                        break;
                    }
                    word.push(c);
                    chars.next();
                }
                words.push(word);
            }
        }
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        assert_eq!(parse("Show Stats_Totals"), Ok(Command::Show("stats_totals".into())));
        assert_eq!(
            parse("SET default_pool_size=7"),
            Ok(Command::Set("default_pool_size".into(), "7".into()))
        );
        assert_eq!(parse("set x = 'it''s; me'"), Ok(Command::Set("x".into(), "it's; me".into())));
        assert_eq!(parse("set x = ''"), Ok(Command::Set("x".into(), String::new())));
        assert_eq!(parse("PAUSE \"My Db\""), Ok(Command::Pause(Some("My Db".into()))));
        assert_eq!(parse("kill"), Ok(Command::Kill(None)));
        assert_eq!(parse("shutdown WAIT_FOR_CLIENTS"), Ok(Command::Shutdown(Shutdown::WaitForClients)));
        for wrong in
            ["select 1", "set x", "set x 1", "pause a b", "shutdown now", "enable", "reload x", "set x = 'y"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn several_statements() {
        assert_eq!(split(" show a ; set x = 'a;b';; "), ["show a", "set x = 'a;b'"]);
        assert!(split(" ; ").is_empty());
    }

    #[test]
    fn only_looking_is_harmless() {
        let harmless = ["show users", "set extra_float_digits = 3"];
        let not = [
            "set max_client_conn = 1",
            "reload",
            "pause",
            "resume",
            "disable a",
            "enable a",
            "reconnect",
            "kill",
            "kill_client 1",
            "wait_close",
            "shutdown",
        ];
        for (commands, expected) in [(&harmless[..], true), (&not[..], false)] {
            for command in commands {
                assert_eq!(parse(command).unwrap().is_harmless(), expected, "{command}");
            }
        }
    }
}
