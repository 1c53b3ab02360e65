//! What a statement leaves in its session: settings that no server reports, a role, temporary objects. It does not follow
//! the client to another server, so a client that has left something reads from the primary. HOT where reads are split
//! from writes, for statements that are no reads.
//!
//! As in `classify`, tokens are looked at and nothing is parsed. A statement that leaves nothing may be taken for one that
//! does: its client's reads are done by the primary, which costs nothing but their work.

use super::catalog::Catalog;
use super::classify::{is, is_temporary_schema};
use super::functions;
use super::lexer::{Lexer, Token, Unterminated};
use super::state::{Effect, Left, State};

/// What the text of a simple query or a Parse message does to the state of its session. `catalog`: what was last known to be
/// in the database; without one every function that is not PostgreSQL's may leave something. `is_followed`: whether a
/// setting follows the client. `Err`: the text ends in the middle of something, with what was found so far; a text that leaves
/// nothing in any case may end so, too.
pub fn effect(
    text: &[u8],
    catalog: Option<&Catalog>,
    is_followed: &dyn Fn(&[u8]) -> bool,
) -> Result<Effect, Effect> {
    if catalog.is_some_and(Catalog::leaves_nothing) && is_plain(text) {
        return Ok(Effect::default());
    }
    let mut scan = EffectScan { lexer: Lexer::new(text), catalog, is_followed, effect: Effect::default() };
    let result = scan.statements();
    let effect = scan.effect;
    result.map(|()| effect).map_err(|Unterminated| Effect { takes_back: State::default(), ..effect })
}

/// Whether a text begins with a statement that reads or writes rows. If it is long then most likely for its data, and not because
/// it has many statements.
pub fn is_about_rows(text: &[u8]) -> bool {
    match Lexer::new(text).next() {
        Ok(Some(Token::Word(word))) => is(word, b"copy") || works_on_rows(word),
        _ => false,
    }
}

fn works_on_rows(word: &[u8]) -> bool {
    const WORDS: &[&[u8]] =
        &[b"insert", b"update", b"delete", b"merge", b"select", b"with", b"values", b"explain"];
    WORDS.iter().any(|known| is(word, known))
}

/// Whether a text is a single statement that works on rows or begins or ends a transaction, and nothing in it looks like what
/// leaves something where no function of the database does. Most texts are told without cutting them into tokens.
fn is_plain(text: &[u8]) -> bool {
    let first = match Lexer::new(text).next() {
        Ok(Some(Token::Word(word))) => word,
        _ => return false,
    };
    let is_transaction =
        is(first, b"begin") || is(first, b"commit") || is(first, b"rollback") || is(first, b"end");
    if !works_on_rows(first) && !is_transaction {
        return false;
    }
    let at = |at: usize| text.get(at).map_or(0, |byte| byte | 0x20);
    text.iter().enumerate().all(|(n, byte)| match byte {
        // temp and pg_temp; set_config, set_limit and setseed. With the bit that makes letters lower case `_` is 0x7f.
        b't' | b'T' => {
            let is_temp = at(n + 1) == b'e' && at(n + 2) == b'm' && at(n + 3) == b'p';
            let ends_set = n >= 2 && at(n - 1) == b'e' && at(n - 2) == b's';
            !(is_temp || ends_set && matches!(at(n + 1), 0x7f | b's'))
        }
        b'&' => n == 0 || at(n - 1) != b'u',
        b';' => text[n + 1..].trim_ascii().is_empty(),
        _ => true,
    })
}

/// Settings that change nothing of what a read returns, nor whether it ends.
fn is_harmless(name: &[u8]) -> bool {
    const NAMES: &[&[u8]] = &[
        b"application_name",
        b"check_function_bodies",
        b"client_min_messages",
        b"commit_delay",
        b"commit_siblings",
        b"idle_in_transaction_session_timeout",
        b"idle_session_timeout",
        b"jit",
        b"log_duration",
        b"log_min_duration_statement",
        b"log_min_messages",
        b"log_statement",
        b"pgweir.route",
        b"synchronous_commit",
    ];
    NAMES.iter().any(|known| is(name, known))
}

/// How many tokens of the arguments of set_config are looked at.
const MOST_AHEAD: usize = 100;

struct EffectScan<'a, 'c> {
    lexer: Lexer<'a>,
    catalog: Option<&'c Catalog>,
    is_followed: &'c dyn Fn(&[u8]) -> bool,
    effect: Effect,
}

impl<'a> EffectScan<'a, '_> {
    fn statements(&mut self) -> Result<(), Unterminated> {
        let mut count = 0;
        while let Some((first, _)) = self.next()? {
            if first == Token::Other(b';') {
                continue;
            }
            count += 1;
            self.statement(first)?;
        }
        if count > 1 {
            self.effect.takes_back = State::default();
        }
        Ok(())
    }

    /// The next token, and its text.
    fn next(&mut self) -> Result<Option<(Token<'a>, &'a [u8])>, Unterminated> {
        let before = self.lexer.rest();
        let token = self.lexer.next()?;
        let len = before.len() - self.lexer.rest().len();
        Ok(token.map(|token| (token, before[..len].trim_ascii())))
    }

    /// The next token of this statement.
    fn within(&mut self) -> Result<Option<(Token<'a>, &'a [u8])>, Unterminated> {
        if self.lexer.clone().next()? == Some(Token::Other(b';')) {
            return Ok(None);
        }
        self.next()
    }

    /// The next token if it is a word.
    fn word(&mut self) -> Result<&'a [u8], Unterminated> {
        Ok(match self.lexer.clone().next()? {
            Some(Token::Word(word)) => {
                self.lexer.next()?;
                word
            }
            _ => b"",
        })
    }

    fn leaves(&mut self, left: Left) {
        self.effect.leaves |= left.into();
    }

    /// Up to the semicolon.
    fn skip(&mut self) -> Result<(), Unterminated> {
        while !matches!(self.lexer.next()?, None | Some(Token::Other(b';'))) {}
        Ok(())
    }

    /// One statement, up to its semicolon.
    fn statement(&mut self, first: Token<'a>) -> Result<(), Unterminated> {
        let Token::Word(word) = first else { return self.rest(first, false) };
        match word.len() {
            2 if is(word, b"do") => self.leaves(Left::Something),
            3 if is(word, b"set") => self.set()?,
            4 if is(word, b"load") => self.leaves(Left::Something),
            5 if is(word, b"reset") => self.reset()?,
            6 if is(word, b"create") => return self.create(first),
            7 if is(word, b"discard") => self.discard()?,
            _ => return self.rest(first, !is(word, b"insert") && !is(word, b"merge")),
        }
        self.skip()
    }

    fn set(&mut self) -> Result<(), Unterminated> {
        let mut word = self.word()?;
        if is(word, b"local") || is(word, b"transaction") || is(word, b"constraints") {
            return Ok(());
        }
        if is(word, b"session") {
            word = self.word()?;
            if is(word, b"characteristics") {
                return self.characteristics();
            }
            if is(word, b"session") {
                word = self.word()?;
            }
            if is(word, b"authorization") {
                return self.value(b"session_authorization");
            }
        }
        if word.is_empty() {
            // In double quotes.
            let name = match self.within()? {
                Some((Token::Quoted(name), _)) => name,
                _ => b"",
            };
            return self.value(name);
        }
        if is(word, b"time") && is(self.lexer.clone().next_word()?, b"zone") {
            return Ok(());
        }
        // SET NAMES is client_encoding, and SET SCHEMA is search_path.
        match word.len() {
            5 if is(word, b"names") => Ok(()),
            6 if is(word, b"schema") => self.value(b"search_path"),
            _ => self.value(word),
        }
    }

    /// What comes behind the first part of a setting's name.
    fn value(&mut self, name: &[u8]) -> Result<(), Unterminated> {
        let mut value = self.within()?;
        let is_whole = value.is_none_or(|(token, _)| token != Token::Other(b'.'));
        if !is_whole {
            let Some((_, rest)) = self.within()? else { return Ok(()) };
            if !(is(name, b"pgweir") && is(rest, b"route")) {
                let value = self.within()?;
                self.assigned(&[name, b".", rest].concat(), value)?;
            }
            return Ok(());
        }
        if is(name, b"session_authorization") || is(name, b"role") {
            while value.is_some_and(|(token, text)| token == Token::Other(b'=') || is(text, b"to")) {
                value = self.within()?;
            }
            let (_, text) = value.unwrap_or((Token::Constant, b""));
            let is_none = is(text, b"none") || is(text, b"default");
            self.identity(is(name, b"role"), is_none);
            return Ok(());
        }
        self.assigned(name, value)
    }

    /// A setting and what follows its name.
    fn assigned(&mut self, name: &[u8], operator: Option<(Token<'a>, &'a [u8])>) -> Result<(), Unterminated> {
        let value = match operator {
            Some((token, text)) if token == Token::Other(b'=') || is(text, b"to") => self.within()?,
            other => other,
        };
        let to_default = value.is_some_and(|(_, text)| is(text, b"default"));
        if !to_default {
            self.changed(name);
        }
        Ok(())
    }

    /// A setting has another value.
    fn changed(&mut self, name: &[u8]) {
        if is(name, b"role") || is(name, b"session_authorization") {
            self.identity(is(name, b"role"), false);
        } else if !is_harmless(name) && !(self.is_followed)(name) {
            self.leaves(Left::Setting);
        }
    }

    /// SET ROLE or SET SESSION AUTHORIZATION; the latter ends the former.
    fn identity(&mut self, is_role: bool, is_none: bool) {
        let left = if is_role { Left::Role } else { Left::Authorization };
        if is_none {
            self.effect.takes_back |= left.into();
            self.effect.takes_back |= Left::Role.into();
        } else {
            self.leaves(left);
        }
    }

    /// `SET SESSION CHARACTERISTICS AS TRANSACTION`: READ COMMITTED is what single reads have anyway.
    fn characteristics(&mut self) -> Result<(), Unterminated> {
        loop {
            match self.lexer.clone().next()? {
                Some(Token::Word(word)) => {
                    if is(word, b"only") {
                        self.changed(b"default_transaction_read_only");
                    } else if is(word, b"repeatable") || is(word, b"serializable") {
                        self.changed(b"default_transaction_isolation");
                    }
                }
                Some(Token::Other(b',')) => {}
                _ => return Ok(()),
            }
            self.lexer.next()?;
        }
    }

    fn reset(&mut self) -> Result<(), Unterminated> {
        let word = self.word()?;
        if is(word, b"all") {
            self.effect.takes_back |= Left::Setting.into();
        } else if is(word, b"role") {
            self.identity(true, true);
        } else if is(word, b"session") || is(word, b"session_authorization") {
            self.identity(false, true);
        }
        Ok(())
    }

    fn discard(&mut self) -> Result<(), Unterminated> {
        let word = self.word()?;
        if is(word, b"all") {
            self.effect.takes_back = State::ALL;
        } else if is(word, b"temp") || is(word, b"temporary") {
            self.effect.takes_back |= Left::Temporary.into();
        }
        Ok(())
    }

    fn create(&mut self, first: Token<'a>) -> Result<(), Unterminated> {
        loop {
            let word = self.lexer.clone().next_word()?;
            if is(word, b"temp") || is(word, b"temporary") {
                self.leaves(Left::Temporary);
            } else if ![&b"or"[..], b"replace", b"local", b"global"].iter().any(|known| is(word, known)) {
                return self.rest(first, false);
            }
            self.lexer.next()?;
        }
    }

    /// A statement that has no rules of its own: which functions it calls, and what it makes.
    fn rest(&mut self, first: Token<'a>, has_into: bool) -> Result<(), Unterminated> {
        let calls = self.catalog.is_none()
            && match first {
                Token::Word(word) => works_on_rows(word) || is(word, b"call"),
                _ => true,
            };
        let (mut before, mut last) = (None, Some(first));
        // The name of what is written to has begun: `INSERT INTO a.b (c)`.
        let mut is_target = false;
        self.name(first)?;
        while let Some(token) = self.lexer.next()? {
            match token {
                Token::Other(b';') => break,
                Token::Word(word) => {
                    let follows_into = matches!(last, Some(Token::Word(last)) if is(last, b"into"));
                    if has_into && follows_into && (is(word, b"temp") || is(word, b"temporary")) {
                        self.leaves(Left::Temporary);
                    }
                    is_target = is_target && last == Some(Token::Other(b'.')) || follows_into;
                    self.name(token)?;
                }
                Token::Quoted(_) => {
                    is_target = is_target && last == Some(Token::Other(b'.'))
                        || matches!(last, Some(Token::Word(last)) if is(last, b"into"));
                    self.name(token)?;
                }
                Token::Other(b'(') if calls && !is_target && may_be_own_function(before, last) => {
                    self.leaves(Left::Something);
                }
                _ => {}
            }
            (before, last) = (last, Some(token));
        }
        Ok(())
    }

    fn name(&mut self, token: Token<'a>) -> Result<(), Unterminated> {
        let (name, quoted) = match token {
            Token::Word(word) => (word, false),
            Token::Quoted(name) => (name, true),
            _ => return Ok(()),
        };
        match name.len() {
            // Which name is meant by U&"…" is not looked at.
            2 if quoted && name == b"U&" => self.leaves(Left::Something),
            10 if is(name, b"set_config") => return self.set_config(),
            // Of an extension, pg_trgm; and what makes random() repeat itself.
            9 if is(name, b"set_limit") => self.leaves(Left::Setting),
            7 if is(name, b"setseed") => self.leaves(Left::Setting),
            _ => {}
        }
        if is_temporary_schema(name) {
            self.leaves(Left::Temporary);
        }
        if self.catalog.is_some_and(|catalog| catalog.leaves_something(name, quoted)) {
            self.leaves(Left::Something);
        }
        Ok(())
    }

    /// `set_config(name, value, is_local)`. What is set for a transaction ends with it. What has too many arguments to see that
    /// leaves a setting.
    fn set_config(&mut self) -> Result<(), Unterminated> {
        let mut ahead = EffectScan {
            lexer: self.lexer.clone(),
            catalog: None,
            is_followed: self.is_followed,
            effect: Effect::default(),
        };
        if ahead.lexer.next()? != Some(Token::Other(b'(')) {
            return Ok(());
        }
        let (mut depth, mut arguments, mut of_first, mut first) = (1, 1, 0, &b""[..]);
        let mut last_two: [(Token<'_>, &[u8]); 2] = [(Token::Constant, b""); 2];
        for _ in 0..MOST_AHEAD {
            let Some((token, text)) = ahead.next()? else { break };
            match token {
                Token::Other(b'(') => depth += 1,
                Token::Other(b')') => depth -= 1,
                Token::Other(b',') if depth == 1 => arguments += 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if arguments == 1 {
                of_first += 1;
                first = text;
            }
            last_two = [last_two[1], (token, text)];
        }
        let [(comma, _), (_, last)] = last_two;
        if depth == 0 && arguments == 3 && comma == Token::Other(b',') && is(last, b"true") {
            return Ok(());
        }
        let name = first.strip_prefix(b"'").and_then(|name| name.strip_suffix(b"'"));
        match name {
            Some(name) if of_first == 1 => self.changed(name),
            _ => self.leaves(Left::Setting),
        }
        Ok(())
    }
}

/// Whether a `(` behind these two may be that of a call of a function that is not PostgreSQL's own. For as long as nothing is
/// known of the database.
fn may_be_own_function(before: Option<Token<'_>>, last: Option<Token<'_>>) -> bool {
    /// What has a `(` behind it in statements that write, besides what [`functions::is_syntax`] knows.
    const SYNTAX: &[&[u8]] = &[b"conflict", b"insert", b"set", b"do", b"default", b"options"];
    /// PostgreSQL's own functions that are not for replicas. None leaves something but those that [`EffectScan::name`] knows.
    const OWN: &[&[u8]] = &[
        b"currval",
        b"current_setting",
        b"lastval",
        b"nextval",
        b"set_config",
        b"set_limit",
        b"setseed",
        b"setval",
        b"version",
        b"has_sequence_privilege",
    ];
    let name = match last {
        Some(Token::Word(name) | Token::Quoted(name)) => name,
        _ => return false,
    };
    let is_alias = match before {
        Some(Token::Other(b')')) => true,
        Some(Token::Word(word)) => {
            is(word, b"as") || is(word, b"with") || is(word, b"recursive") || is(word, b"execute")
        }
        _ => false,
    };
    let starts = |with: &[u8]| name.len() > with.len() && is(&name[..with.len()], with);
    let is_known = functions::is_safe(name)
        || functions::is_syntax(name)
        || SYNTAX.iter().chain(OWN).any(|known| is(name, known))
        || starts(b"pg_")
        || starts(b"txid_")
        || starts(b"lo_");
    !is_alias && !is_known
}

#[cfg(test)]
mod tests;
