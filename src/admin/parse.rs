//! Reads console commands. Keywords and names of settings are taken without regard to case, as PgBouncer does.

use super::drivers::{self, Constant};
use super::show::{self, View};
use crate::config::settings::{self, SettingInfo};
use crate::error::{Refusal, sqlstate};
use crate::proxy::shared::Shutdown;

/// A command of the console.
#[derive(Clone, Debug)]
pub(super) enum Command {
    Help,
    Show(&'static View),
    /// SHOW of a single setting.
    Setting(&'static SettingInfo),
    /// SHOW application_name: the client's own.
    ApplicationName,
    /// Something that always has the same answer.
    Constant(&'static Constant),
    /// SET of a setting.
    Set(String, String),
    /// SET of a parameter of the session.
    SetSession(String, String),
    /// BEGIN, COMMIT and the like: whether a transaction is open afterwards, and what answers it.
    Transaction(bool, &'static str),
    /// DEALLOCATE of one prepared statement.
    Deallocate(String),
    /// A statement that asks for nothing; this answers it.
    Nothing(&'static str),
    Reload,
    Pause(Option<String>),
    Resume(Option<String>),
    Suspend,
    Disable(Option<String>),
    Enable(Option<String>),
    Reconnect(Option<String>),
    Kill(Option<String>),
    KillClient(String),
    WaitClose(Option<String>),
    Shutdown(Shutdown),
}

/// One of the statements of a query string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement<'a> {
    text: &'a str,
    /// Words, quoted texts without their quotes, and `=`; `None` if a quote or comment is not closed.
    words: Option<Vec<String>>,
    has_parameters: bool,
}

/// Splits a query string at semicolons; empty statements are dropped.
pub(super) fn split(text: &str) -> Vec<Statement<'_>> {
    let mut scanner = Scanner { text, at: 0 };
    let mut statements = Vec::new();
    while scanner.at < text.len() {
        let statement = scanner.statement();
        if statement.words.as_ref().is_none_or(|words| !words.is_empty()) {
            statements.push(statement);
        }
    }
    statements
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

enum Token {
    Word(String),
    Quoted(String),
    Semicolon,
    Unterminated,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn statement(&mut self) -> Statement<'a> {
        let start = self.at;
        let (mut words, mut has_parameters) = (Vec::new(), false);
        let mut end = self.text.len();
        loop {
            let before = self.at;
            match self.token() {
                None => break,
                Some(Token::Semicolon) => {
                    end = before;
                    break;
                }
                Some(Token::Quoted(word)) => words.push(word),
                Some(Token::Word(word)) => {
                    has_parameters |=
                        word.strip_prefix('$').is_some_and(|number| number.parse::<u16>().is_ok());
                    words.push(word);
                }
                Some(Token::Unterminated) => {
                    self.at = self.text.len();
                    return Statement { text: self.text[start..].trim(), words: None, has_parameters };
                }
            }
        }
        let text = self.text[start..end].trim();
        Statement { text, words: Some(words), has_parameters }
    }

    fn token(&mut self) -> Option<Token> {
        if !self.skip_blanks() {
            return Some(Token::Unterminated);
        }
        let first = self.rest().chars().next()?;
        self.at += first.len_utf8();
        Some(match first {
            ';' => Token::Semicolon,
            '=' => Token::Word("=".into()),
            '\'' | '"' => self.quoted(first),
            _ => {
                let start = self.at - first.len_utf8();
                let ends = |(n, c): (usize, char)| {
                    c.is_whitespace()
                        || matches!(c, '=' | ';' | '\'' | '"')
                        || self.rest()[n..].starts_with("--")
                        || self.rest()[n..].starts_with("/*")
                };
                let len = self.rest().char_indices().find(|found| ends(*found)).map(|(n, _)| n);
                self.at += len.unwrap_or(self.rest().len());
                Token::Word(self.text[start..self.at].to_owned())
            }
        })
    }

    /// The text after an opening quote, doubled quotes in it made single.
    fn quoted(&mut self, quote: char) -> Token {
        let mut word = String::new();
        loop {
            let rest = self.rest();
            let Some(end) = rest.find(quote) else { return Token::Unterminated };
            word.push_str(&rest[..end]);
            self.at += end + 1;
            if !self.rest().starts_with(quote) {
                return Token::Quoted(word);
            }
            word.push(quote);
            self.at += 1;
        }
    }

    /// Skips blanks and comments; `false` if a comment does not end.
    fn skip_blanks(&mut self) -> bool {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("--") {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if trimmed.starts_with("/*") {
                let Some(end) = trimmed.find("*/") else { return false };
                self.at += end + 2;
            } else {
                return true;
            }
        }
    }
}

/// Reads one command.
pub(super) fn parse(statement: &Statement<'_>) -> Result<Command, Refusal> {
    if statement.has_parameters {
        return Err(Refusal::new(sqlstate::NOT_SUPPORTED, "commands of the console take no parameters")
            .hint("Write the value into the command itself."));
    }
    let invalid = || {
        Refusal::new(sqlstate::SYNTAX_ERROR, format!("invalid command '{}', use SHOW HELP;", statement.text))
            .hint("The console knows SHOW, SET and a few commands; it does not run SQL.")
    };
    let words = statement.words.as_ref().ok_or_else(invalid)?;
    let (keyword, arguments) = words.split_first().ok_or_else(invalid)?;
    let keyword = keyword.to_ascii_lowercase();
    let whole = words.join(" ").to_ascii_lowercase();
    if let Some(constant) = drivers::constant(&whole) {
        return Ok(Command::Constant(constant));
    }
    if let Some(tag) = drivers::tag_of_nothing(&whole) {
        return Ok(Command::Nothing(tag));
    }
    if let Some((open, tag)) = drivers::transaction(&keyword) {
        return Ok(Command::Transaction(open, tag));
    }
    let database = |arguments: &[String]| match arguments {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        _ => Err(invalid()),
    };
    Ok(match keyword.as_str() {
        "show" | "select" => show(arguments).ok_or_else(invalid)?,
        "set" => set(arguments).ok_or_else(invalid)?,
        "deallocate" => match arguments {
            [name] => Command::Deallocate(name.clone()),
            [prepare, name] if prepare.eq_ignore_ascii_case("prepare") => Command::Deallocate(name.clone()),
            _ => return Err(invalid()),
        },
        "reload" if arguments.is_empty() => Command::Reload,
        "suspend" if arguments.is_empty() => Command::Suspend,
        "pause" => Command::Pause(database(arguments)?),
        "resume" => Command::Resume(database(arguments)?),
        "disable" => Command::Disable(database(arguments)?),
        "enable" => Command::Enable(database(arguments)?),
        "reconnect" => Command::Reconnect(database(arguments)?),
        "kill" => Command::Kill(database(arguments)?),
        "kill_client" => Command::KillClient(database(arguments)?.unwrap_or_default()),
        "wait_close" => Command::WaitClose(database(arguments)?),
        "shutdown" => {
            Command::Shutdown(match database(arguments)?.map(|how| how.to_ascii_lowercase()).as_deref() {
                None => Shutdown::Immediate,
                Some("wait_for_servers") => Shutdown::WaitForServers,
                Some("wait_for_clients") => Shutdown::WaitForClients,
                Some(_) => return Err(invalid()),
            })
        }
        _ => return Err(invalid()),
    })
}

fn show(arguments: &[String]) -> Option<Command> {
    let name = match arguments {
        [] => return Some(Command::Help),
        [one] => one.to_ascii_lowercase(),
        _ => return None,
    };
    match name.as_str() {
        "help" => Some(Command::Help),
        "application_name" => Some(Command::ApplicationName),
        name => show::view(name).map(Command::Show).or_else(|| settings::info(name).map(Command::Setting)),
    }
}

/// `key = value` or `key TO value`, for which SESSION or LOCAL may stand.
fn set(arguments: &[String]) -> Option<Command> {
    match arguments {
        [scope, rest @ ..]
            if rest.len() > 2
                && (scope.eq_ignore_ascii_case("session") || scope.eq_ignore_ascii_case("local")) =>
        {
            set(rest)
        }
        [key, to, value @ ..] if !value.is_empty() && (to == "=" || to.eq_ignore_ascii_case("to")) => {
            let (key, value) = (key.to_ascii_lowercase(), value.join(" "));
            Some(if key == "application_name" || drivers::is_session_parameter(&key) {
                Command::SetSession(key, value)
            } else {
                Command::Set(key, value)
            })
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Reads a text that is one command.
    pub(in crate::admin) fn one(text: &str) -> Result<Command, Refusal> {
        match &split(text)[..] {
            [statement] => parse(statement),
            other => panic!("{} statements in {text}", other.len()),
        }
    }

    fn read(text: &str) -> String {
        format!("{:?}", one(text).unwrap())
    }

    #[test]
    fn commands_are_read() {
        assert!(read("Show Stats_Totals").contains("stats_totals"));
        assert!(matches!(one("select \"pools\";"), Ok(Command::Show(view)) if view.name == "pools"));
        assert!(matches!(one("SHOW default_pool_size"), Ok(Command::Setting(_))));
        for (text, debug) in [
            ("SET default_pool_size=7", r#"Set("default_pool_size", "7")"#),
            ("set \"Verbose\" TO \"1\"", r#"Set("verbose", "1")"#),
            ("set x = 'it''s; me'", r#"Set("x", "it's; me")"#),
            ("set x = ''", r#"Set("x", "")"#),
            ("set x = DEFAULT", r#"Set("x", "DEFAULT")"#),
            ("set session timezone to utc", r#"SetSession("timezone", "utc")"#),
            ("SET application_name = 'a'", r#"SetSession("application_name", "a")"#),
            ("PAUSE \"My Db\"", r#"Pause(Some("My Db"))"#),
            ("/* from a tool */ kill -- all of them", "Kill(None)"),
            ("shutdown WAIT_FOR_CLIENTS", "Shutdown(WaitForClients)"),
            ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", r#"Nothing("SET")"#),
            ("begin read only", r#"Transaction(true, "BEGIN")"#),
            ("ROLLBACK", r#"Transaction(false, "ROLLBACK")"#),
            ("DEALLOCATE PREPARE _pg3_0", r#"Deallocate("_pg3_0")"#),
            ("deallocate all", r#"Nothing("DEALLOCATE ALL")"#),
            ("kill_client", r#"KillClient("")"#),
        ] {
            assert_eq!(read(text), debug, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for wrong in [
            "select 2",
            "show nothing",
            "set x",
            "set x 1",
            "set x =",
            "pause a b",
            "shutdown now",
            "reload x",
            "suspend x",
            "set x = 'y",
            "/* show pools",
            "'",
        ] {
            let refusal = one(wrong).unwrap_err();
            assert_eq!(refusal.message, format!("invalid command '{wrong}', use SHOW HELP;"));
        }
        assert_eq!(one("kill_client $1").unwrap_err().sqlstate, sqlstate::NOT_SUPPORTED);
        assert!(one("set x = '$1'").is_ok());
    }

    #[test]
    fn several_statements() {
        let texts = |text| split(text).iter().map(|statement| statement.text).collect::<Vec<_>>();
        assert_eq!(texts(" show a ; set x = 'a;b';; "), ["show a", "set x = 'a;b'"]);
        assert_eq!(texts(" ; -- nothing ; at all"), [""; 0]);
        assert_eq!(texts("show a -- b\n; show \"c;d\""), ["show a", "show \"c;d\""]);
        assert_eq!(texts("é=é;ü"), ["é=é", "ü"]);
    }
}
