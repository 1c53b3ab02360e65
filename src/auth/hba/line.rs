//! A line of an HBA or ident file, word by word.

use super::problem::Problem;
use crate::auth::ldap;

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Without quotes: a keyword, or a value if no keyword is expected there.
    Word(String),
    /// In double quotes, which take away any special meaning. `""` stands for `"`.
    Quoted(String),
    Comma,
    /// A quote that is not closed.
    Unclosed,
    /// The line is over, or a comment begins.
    End,
}

/// What is wrong, and where in the line.
#[derive(Debug)]
pub(super) struct Complaint {
    /// Counted in bytes from 0.
    pub(super) at: usize,
    pub(super) message: String,
    pub(super) hint: Option<&'static str>,
}

impl Complaint {
    pub(super) fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    /// The problem that this makes for the administrator.
    pub(super) fn on_line(self, line: usize, text: &str) -> Problem {
        let Self { at, message, hint } = self;
        Problem { line, column: at + 1, message, hint, excerpt: text.to_owned() }
    }

    /// The same where the line may contain a password.
    pub(super) fn on_rule(self, line: usize, text: &str) -> Problem {
        self.on_line(line, &without_secrets(text))
    }
}

/// What a rule may show: its columns, and of its options what is known to be no secret.
fn without_secrets(text: &str) -> String {
    let (mut end, mut columns, mut most) = (0, 0, 0);
    for part in text.split_inclusive(is_space) {
        let word = part.trim();
        if !word.is_empty() {
            if columns == 0 {
                // With a slip of the pen in it, perhaps; anything else may be the rest of a secret.
                most = match word.trim_matches('"') {
                    "local" => 4,
                    word if word.starts_with("host") => 6,
                    _ => break,
                };
            }
            if columns == most || word.contains('=') || word.contains("passw") {
                break;
            }
            columns += 1;
            if columns > 3 && word == "ldap" {
                most = columns;
            }
        }
        end += part.len();
    }
    format!("{}{}", &text[..end], ldap::without_secrets(&text[end..]))
}

/// A word in a message: its key, if it has one.
pub(super) fn shown(word: &str) -> &str {
    word.split('=').next().unwrap_or_default()
}

/// Reads a line with one token of foresight.
pub(super) struct Line<'a> {
    text: &'a str,
    /// The token at hand.
    pub(super) token: Token,
    /// Where it begins.
    at: usize,
    /// What follows it.
    rest: &'a str,
}

impl<'a> Line<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut line = Self { text, token: Token::End, at: 0, rest: text };
        line.advance();
        line
    }

    /// Goes to the next token.
    pub(super) fn advance(&mut self) {
        self.rest = self.rest.trim_start_matches(is_space);
        self.at = self.text.len() - self.rest.len();
        self.token = self.next();
    }

    fn next(&mut self) -> Token {
        match self.rest.as_bytes().first() {
            None | Some(b'#') => Token::End,
            Some(b',') => {
                self.rest = &self.rest[1..];
                Token::Comma
            }
            Some(b'"') => match quoted(self.rest) {
                Some((value, rest)) => {
                    self.rest = rest;
                    Token::Quoted(value)
                }
                None => Token::Unclosed,
            },
            Some(_) => {
                let end = self.rest.find(|c| is_space(c) || ",#\"".contains(c)).unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at(end);
                self.rest = rest;
                Token::Word(word.to_owned())
            }
        }
    }

    /// Takes this keyword if it is the token at hand.
    pub(super) fn take(&mut self, keyword: &str) -> bool {
        let found = matches!(&self.token, Token::Word(word) if word == keyword);
        if found {
            self.advance();
        }
        found
    }

    /// Takes a comma if it is the token at hand.
    pub(super) fn take_comma(&mut self) -> bool {
        let found = self.token == Token::Comma;
        if found {
            self.advance();
        }
        found
    }

    /// Takes a word that is not in quotes.
    pub(super) fn word(&mut self, what: &str) -> Result<String, Complaint> {
        match &mut self.token {
            Token::Word(word) => {
                let word = std::mem::take(word);
                self.advance();
                Ok(word)
            }
            _ => Err(self.expected(what)),
        }
    }

    /// Takes a word, in quotes or not.
    pub(super) fn value(&mut self, what: &str) -> Result<String, Complaint> {
        match &mut self.token {
            Token::Word(value) | Token::Quoted(value) => {
                let value = std::mem::take(value);
                self.advance();
                Ok(value)
            }
            _ => Err(self.expected(what)),
        }
    }

    /// Everything behind the token at hand, as it stands there.
    pub(super) fn rest(&self) -> &'a str {
        self.rest
    }

    /// Whether nothing is left but a comment.
    pub(super) fn is_over(&self) -> bool {
        self.token == Token::End
    }

    /// The line must be over.
    pub(super) fn end(&self) -> Result<(), Complaint> {
        if self.is_over() {
            return Ok(());
        }
        Err(self.complaint("unsupported parameters"))
    }

    /// A complaint about the token at hand.
    pub(super) fn complaint(&self, message: impl Into<String>) -> Complaint {
        Complaint { at: self.at, message: message.into(), hint: None }
    }

    fn expected(&self, what: &str) -> Complaint {
        let found = match &self.token {
            Token::End => "the end of the line",
            Token::Comma => "a comma",
            Token::Unclosed => "a quote that is not closed",
            Token::Quoted(_) => "a word in quotes",
            Token::Word(_) => "a word",
        };
        self.complaint(format!("expected {what}, found {found}"))
    }
}

/// C's isspace().
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// The value in double quotes with which `text` begins, and what follows it; `None` if the quote is not closed.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text.strip_prefix('"')?;
    loop {
        let (part, after) = rest.split_once('"')?;
        value.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                value.push('"');
                rest = more;
            }
            None => return Some((value, after)),
        }
    }
}
