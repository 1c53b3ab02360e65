//! The rules. HOT.

use super::catalog::Catalog;
use super::functions;
use super::hint::{self, Route};
use super::lexer::{Lexer, Token, Unterminated};

/// Where a statement may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// It writes, or may, or is not understood: primary.
    #[default]
    Write,
    /// It only reads.
    Read,
    /// It begins a transaction that can only read.
    ReadOnly,
    /// It belongs on a replica, for its client says so. It may write elsewhere.
    Hinted,
    /// It begins a transaction of the default kind: `default_transaction_read_only` says whether that can write.
    Begin,
}

/// Classifies the text of a simple query or a Parse message. Backslashes in `'…'` mean themselves
/// (`standard_conforming_strings`). `catalog`: what is in the database; as long as that is not known, no statement is a
/// read.
pub fn classify(text: &[u8], catalog: Option<&Catalog>) -> Class {
    let hint = hint::leading(text);
    if hint == Some(Route::Primary) {
        return Class::Write;
    }
    let catalog = catalog.filter(|catalog| !catalog.distrusts(text));
    let class = statements(&mut Lexer::new(text), catalog).unwrap_or_default();
    match (hint, class) {
        (Some(Route::Replica), Class::Begin | Class::ReadOnly | Class::Write) => Class::Hinted,
        _ => class,
    }
}

/// What a single statement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatementKind {
    Write,
    Read,
    Begin,
    BeginReadOnly,
    /// `SET TRANSACTION READ ONLY`
    SetReadOnly,
    /// `COMMIT`, `ROLLBACK`
    End,
}

/// Several statements are a read if each of them is; so is a whole transaction that can only read.
fn statements(lexer: &mut Lexer<'_>, catalog: Option<&Catalog>) -> Result<Class, Unterminated> {
    let mut class = Class::Read;
    let mut count = 0;
    while let Some(first) = lexer.next()? {
        if first == Token::Other(b';') {
            continue;
        }
        class = match (class, statement(first, lexer, catalog)?) {
            (Class::Read | Class::ReadOnly, StatementKind::Read) => class,
            (Class::Read, StatementKind::BeginReadOnly) if count == 0 => Class::ReadOnly,
            (Class::Read, StatementKind::Begin) if count == 0 => Class::Begin,
            (Class::Begin, StatementKind::SetReadOnly) => Class::ReadOnly,
            (Class::ReadOnly, StatementKind::End) => Class::Read,
            _ => return Ok(Class::Write),
        };
        count += 1;
    }
    Ok(class)
}

/// One statement, up to its semicolon.
fn statement<'a>(
    first: Token<'a>,
    lexer: &mut Lexer<'a>,
    catalog: Option<&Catalog>,
) -> Result<StatementKind, Unterminated> {
    let word = match first {
        // `(SELECT …) UNION (SELECT …)`
        Token::Other(b'(') => return body(first, lexer, catalog),
        Token::Word(word) => word,
        _ => return Ok(StatementKind::Write),
    };
    match word.len() {
        3 if is(word, b"set") => set_transaction(lexer),
        3 if is(word, b"end") => end(lexer),
        4 if is(word, b"with") => body(first, lexer, catalog),
        4 if is(word, b"copy") => copy(lexer, catalog),
        5 if is(word, b"table") => body(first, lexer, catalog),
        5 if is(word, b"begin") => begin(lexer),
        5 if is(word, b"start") => match lexer.next()? {
            Some(Token::Word(word)) if is(word, b"transaction") => begin(lexer),
            _ => Ok(StatementKind::Write),
        },
        6 if is(word, b"select") || is(word, b"values") => body(first, lexer, catalog),
        6 if is(word, b"commit") => end(lexer),
        7 if is(word, b"explain") => explain(lexer, catalog),
        8 if is(word, b"rollback") => end(lexer),
        _ => Ok(StatementKind::Write),
    }
}

/// `BEGIN` and what may follow it.
fn begin(lexer: &mut Lexer<'_>) -> Result<StatementKind, Unterminated> {
    Ok(match modes(lexer)? {
        Some(None) => StatementKind::Begin,
        Some(Some(true)) => StatementKind::BeginReadOnly,
        _ => StatementKind::Write,
    })
}

/// `SET TRANSACTION READ ONLY`, which means something behind `BEGIN`.
fn set_transaction(lexer: &mut Lexer<'_>) -> Result<StatementKind, Unterminated> {
    match lexer.next()? {
        Some(Token::Word(word)) if is(word, b"transaction") => {}
        _ => return Ok(StatementKind::Write),
    }
    Ok(if modes(lexer)? == Some(Some(true)) { StatementKind::SetReadOnly } else { StatementKind::Write })
}

/// Transaction modes up to the end of the statement: whether READ ONLY, if one of them says. `None`: not for a standby, which
/// refuses SERIALIZABLE, or not understood.
fn modes(lexer: &mut Lexer<'_>) -> Result<Option<Option<bool>>, Unterminated> {
    let (mut read_only, mut previous) = (None, &b""[..]);
    while let Some(token) = lexer.next()? {
        match token {
            Token::Other(b';') => break,
            Token::Other(b',') => {}
            Token::Word(word) if is(word, b"serializable") => return Ok(None),
            Token::Word(word) => {
                if is(previous, b"read") && (is(word, b"only") || is(word, b"write")) {
                    read_only = Some(is(word, b"only"));
                }
                previous = word;
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(read_only))
}

/// `COMMIT` and `ROLLBACK`, without a savepoint's name, AND CHAIN or PREPARED.
fn end(lexer: &mut Lexer<'_>) -> Result<StatementKind, Unterminated> {
    Ok(match lexer.next()? {
        None | Some(Token::Other(b';')) => StatementKind::End,
        Some(Token::Word(word)) if is(word, b"work") || is(word, b"transaction") => match lexer.next()? {
            None | Some(Token::Other(b';')) => StatementKind::End,
            _ => StatementKind::Write,
        },
        _ => StatementKind::Write,
    })
}

/// EXPLAIN of a read. Of a write it would not write, but ask for locks that a standby does not give.
fn explain<'a>(lexer: &mut Lexer<'a>, catalog: Option<&Catalog>) -> Result<StatementKind, Unterminated> {
    let mut first = lexer.next()?;
    if first == Some(Token::Other(b'(')) {
        let inside = lexer.clone().next()?;
        if matches!(inside, Some(Token::Word(word)) if !begins_query(word)) {
            while !matches!(first, None | Some(Token::Other(b')' | b';'))) {
                first = lexer.next()?;
            }
            first = lexer.next()?;
        }
    }
    while let Some(Token::Word(word)) = first {
        if !is(word, b"analyze") && !is(word, b"analyse") && !is(word, b"verbose") {
            break;
        }
        first = lexer.next()?;
    }
    match first {
        Some(Token::Word(word)) if begins_query(word) => body(Token::Word(word), lexer, catalog),
        Some(Token::Other(b'(')) => body(Token::Other(b'('), lexer, catalog),
        _ => Ok(StatementKind::Write),
    }
}

fn begins_query(word: &[u8]) -> bool {
    is(word, b"select") || is(word, b"with") || is(word, b"values") || is(word, b"table")
}

/// `COPY … TO STDOUT` reads. `COPY … TO 'file'` writes on the server's disk.
fn copy<'a>(lexer: &mut Lexer<'a>, catalog: Option<&Catalog>) -> Result<StatementKind, Unterminated> {
    let Some(catalog) = catalog else { return Ok(StatementKind::Write) };
    let mut scan = ClassScan::new(catalog);
    let (mut to, mut to_stdout, mut seen_to) = (false, false, false);
    while let Some(token) = lexer.next()? {
        match (scan.depth, token) {
            (0, Token::Other(b';')) => break,
            (0, Token::Word(word)) => {
                to_stdout |= to && is(word, b"stdout");
                to = is(word, b"to");
                seen_to |= to;
                if is(word, b"from") {
                    return Ok(StatementKind::Write);
                }
            }
            // `COPY t (a, b) TO`
            (0, Token::Other(b'(')) if !seen_to => scan.last = None,
            _ => {}
        }
        if !scan.token(token) {
            return Ok(StatementKind::Write);
        }
    }
    Ok(if to_stdout && scan.is_read() { StatementKind::Read } else { StatementKind::Write })
}

/// A statement that reads unless something in it writes.
fn body<'a>(
    first: Token<'a>,
    lexer: &mut Lexer<'a>,
    catalog: Option<&Catalog>,
) -> Result<StatementKind, Unterminated> {
    let Some(catalog) = catalog else { return Ok(StatementKind::Write) };
    let mut scan = ClassScan::new(catalog);
    scan.token(first);
    while let Some(token) = lexer.next()? {
        if token == Token::Other(b';') {
            break;
        }
        if !scan.token(token) {
            return Ok(StatementKind::Write);
        }
    }
    Ok(if scan.is_read() { StatementKind::Read } else { StatementKind::Write })
}

/// What the last tokens were, as far as the rules ask.
struct ClassScan<'a, 'c> {
    catalog: &'c Catalog,
    depth: usize,
    /// The token before the last one.
    before: Option<Token<'a>>,
    last: Option<Token<'a>>,
    /// What the last name is qualified by.
    schema: Option<Token<'a>>,
    /// One bit per open parenthesis, the innermost one last: it holds a subquery or a function's arguments, so that a
    /// name behind it is an alias.
    tables: u64,
    /// The same for the parenthesis closed last.
    closed_table: bool,
}

/// What stands before a `(`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// A function that a read may call.
    Function,
    /// No function.
    Syntax,
    /// A function that a read must not call, or nobody knows what.
    Unsafe,
}

impl<'a, 'c> ClassScan<'a, 'c> {
    fn new(catalog: &'c Catalog) -> Self {
        Self { catalog, depth: 0, before: None, last: None, schema: None, tables: 0, closed_table: false }
    }

    /// Takes a token; `false` if it makes the statement a write.
    #[inline]
    fn token(&mut self, token: Token<'a>) -> bool {
        if self.before == Some(Token::Other(b'.')) && token != Token::Other(b'(') && self.calls_attribute() {
            return false;
        }
        match token {
            Token::Word(word) => {
                if is_write_word(word, self.last) || self.catalog.forbids(word, false) {
                    return false;
                }
                if word.len() == 6 && self.last == Some(Token::Other(b'(')) && is(word, b"select") {
                    self.tables |= 1;
                }
                self.name();
            }
            Token::Quoted(name) => {
                // Which name is meant by U&"…" is not looked at.
                if name == b"U&" || is_temporary_schema(name) || self.catalog.forbids(name, true) {
                    return false;
                }
                self.name();
            }
            Token::Other(b'(') => {
                let before = self.before_parenthesis();
                if before == Before::Unsafe {
                    return false;
                }
                self.depth += 1;
                self.tables = self.tables << 1 | u64::from(before == Before::Function);
            }
            Token::Other(b')') => {
                self.depth = self.depth.saturating_sub(1);
                self.closed_table = self.tables & 1 == 1;
                self.tables >>= 1;
            }
            _ => {}
        }
        self.before = self.last;
        self.last = Some(token);
        true
    }

    /// Whether the last name, which stands behind a dot, calls a function that a read must not call: `(x).f`, `t.f`, `$1.f`.
    fn calls_attribute(&self) -> bool {
        match self.last {
            Some(Token::Word(name)) => self.catalog.calls_attribute(name, false),
            Some(Token::Quoted(name)) => self.catalog.calls_attribute(name, true),
            _ => false,
        }
    }

    /// Whether it is a read, at the end of a statement.
    fn is_read(&self) -> bool {
        self.depth == 0 && !(self.before == Some(Token::Other(b'.')) && self.calls_attribute())
    }

    #[inline]
    fn name(&mut self) {
        self.schema = if self.last == Some(Token::Other(b'.')) { self.before } else { None };
    }

    fn before_parenthesis(&mut self) -> Before {
        let (name, quoted) = match self.last {
            Some(Token::Word(name)) => (name, false),
            Some(Token::Quoted(name)) => (name, true),
            _ => return Before::Syntax,
        };
        match self.before {
            // `AS t(a, b)` and `WITH t(a, b)` name columns.
            Some(Token::Word(word)) if is(word, b"as") || is(word, b"with") || is(word, b"recursive") => {
                return Before::Syntax;
            }
            // `(VALUES (1)) t(a)` and `unnest(x) t(a)`: nothing but an alias can stand there.
            Some(Token::Other(b')')) if self.closed_table => return Before::Syntax,
            Some(Token::Other(b'(')) if !quoted && is(name, b"values") => self.tables |= 1,
            _ => {}
        }
        // A quoted name is taken exactly as it stands.
        let is_builtin = functions::is_safe(name) && !(quoted && name.iter().any(u8::is_ascii_uppercase));
        let is_safe = match self.schema {
            None if is_builtin => !self.catalog.shadows(name),
            None if !quoted && functions::is_syntax(name) => {
                return if self.catalog.shadows(name) { Before::Unsafe } else { Before::Syntax };
            }
            None => self.catalog.has_safe_function(None, name, quoted),
            Some(schema) if is_pg_catalog(schema) => is_builtin && !self.catalog.shadows_in_pg_catalog(name),
            Some(Token::Word(schema)) => self.catalog.has_safe_function(Some((schema, false)), name, quoted),
            Some(Token::Quoted(schema)) => self.catalog.has_safe_function(Some((schema, true)), name, quoted),
            Some(_) => false,
        };
        if is_safe { Before::Function } else { Before::Unsafe }
    }
}

fn is_pg_catalog(token: Token<'_>) -> bool {
    match token {
        Token::Word(word) => is(word, b"pg_catalog"),
        Token::Quoted(name) => name == b"pg_catalog",
        _ => false,
    }
}

/// Words that only stand in statements that write: data-modifying WITH, SELECT INTO, row locks. They are not reserved,
/// so a column of that name makes a read look like a write: the safe direction.
#[inline]
fn is_write_word(word: &[u8], last: Option<Token<'_>>) -> bool {
    match word.len() {
        2 => is(word, b"no") && follows_for(last),
        3 => is(word, b"key") && follows_for(last),
        4 => is(word, b"into"),
        5 => is(word, b"merge") || is(word, b"share") && follows_for(last),
        6 => is(word, b"insert") || is(word, b"update") || is(word, b"delete"),
        _ => is_temporary_schema(word),
    }
}

/// `pg_temp`, and `pg_temp_3`: what is in it only one server has.
#[inline]
pub(super) fn is_temporary_schema(name: &[u8]) -> bool {
    name.split_first_chunk::<7>().is_some_and(|(start, _)| is(start, b"pg_temp"))
}

fn follows_for(last: Option<Token<'_>>) -> bool {
    matches!(last, Some(Token::Word(word)) if is(word, b"for"))
}

/// Compares with a lower-case word.
#[inline]
pub(super) fn is(word: &[u8], lower: &[u8]) -> bool {
    // Most words differ in their first letter.
    word.len() == lower.len()
        && word.first().map(u8::to_ascii_lowercase) == lower.first().copied()
        && word.eq_ignore_ascii_case(lower)
}

#[cfg(test)]
mod tests;
