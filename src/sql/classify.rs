//! The rules. HOT.

use super::lexer::{Lexer, Token, Unterminated};
use super::{Dialect, functions};

/// Where a statement may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// It writes, or may, or is not understood: primary.
    #[default]
    Write,
    /// It only reads.
    Read,
    /// It begins a transaction that can only read.
    BeginReadOnly,
}

impl Class {
    /// Whether a standby can serve it.
    pub fn is_replica_safe(self) -> bool {
        self != Self::Write
    }
}

/// Classifies the text of a simple query or a Parse message.
pub fn classify(text: &[u8], dialect: Dialect) -> Class {
    statements(&mut Lexer::new(text, dialect)).unwrap_or_default()
}

/// Several statements are a read if each of them is.
fn statements(lexer: &mut Lexer<'_>) -> Result<Class, Unterminated> {
    let mut class = None;
    loop {
        let first = loop {
            match lexer.next()? {
                None => return Ok(class.unwrap_or(Class::Read)),
                Some(Token::Other(b';')) => {}
                Some(token) => break token,
            }
        };
        let next = statement(first, lexer)?;
        class = match (class, next) {
            (_, Class::Write) => return Ok(Class::Write),
            (None, next) => Some(next),
            (Some(Class::Read), Class::Read) => Some(Class::Read),
            // A transaction that begins here and goes on in the same query: it might end here as well, with anything
            // behind it.
            _ => return Ok(Class::Write),
        };
    }
}

/// One statement, up to its semicolon.
fn statement(first: Token<'_>, lexer: &mut Lexer<'_>) -> Result<Class, Unterminated> {
    let word = match first {
        // `(SELECT …) UNION (SELECT …)`
        Token::Other(b'(') => return body(first, lexer),
        Token::Word(word) => word,
        _ => return Ok(Class::Write),
    };
    match word.len() {
        3 if is(word, b"end") => Ok(Class::Write),
        4 if is(word, b"with") => body(first, lexer),
        4 if is(word, b"copy") => copy(lexer),
        5 if is(word, b"table") => body(first, lexer),
        5 if is(word, b"begin") => begin(lexer),
        5 if is(word, b"start") => match lexer.next()? {
            Some(Token::Word(word)) if is(word, b"transaction") => begin(lexer),
            _ => Ok(Class::Write),
        },
        6 if is(word, b"select") || is(word, b"values") => body(first, lexer),
        7 if is(word, b"explain") => body(first, lexer),
        _ => Ok(Class::Write),
    }
}

/// `BEGIN` and what may follow it. READ ONLY makes it a matter for a standby, unless it is SERIALIZABLE, which a
/// standby refuses.
fn begin(lexer: &mut Lexer<'_>) -> Result<Class, Unterminated> {
    let (mut read_only, mut serializable, mut previous) = (false, false, &b""[..]);
    while let Some(token) = lexer.next()? {
        match token {
            Token::Other(b';') => break,
            Token::Word(word) => {
                if is(previous, b"read") {
                    read_only = is(word, b"only") || !is(word, b"write") && read_only;
                }
                serializable |= is(word, b"serializable");
                previous = word;
            }
            Token::Other(b',') => {}
            _ => return Ok(Class::Write),
        }
    }
    Ok(if read_only && !serializable { Class::BeginReadOnly } else { Class::Write })
}

/// `COPY … TO STDOUT` reads. `COPY … TO 'file'` writes on the server's disk.
fn copy(lexer: &mut Lexer<'_>) -> Result<Class, Unterminated> {
    let mut scan = Scan::default();
    let (mut to, mut to_stdout) = (false, false);
    while let Some(token) = lexer.next()? {
        if token == Token::Other(b';') {
            break;
        }
        if let (0, Token::Word(word)) = (scan.depth, token) {
            to_stdout |= to && is(word, b"stdout");
            to = is(word, b"to");
            if is(word, b"from") {
                return Ok(Class::Write);
            }
        }
        if !scan.token(token) {
            return Ok(Class::Write);
        }
    }
    Ok(if to_stdout { Class::Read } else { Class::Write })
}

/// A statement that reads unless something in it writes.
fn body(first: Token<'_>, lexer: &mut Lexer<'_>) -> Result<Class, Unterminated> {
    let mut scan = Scan::default();
    scan.token(first);
    while let Some(token) = lexer.next()? {
        if token == Token::Other(b';') && scan.depth == 0 {
            break;
        }
        if !scan.token(token) {
            return Ok(Class::Write);
        }
    }
    Ok(Class::Read)
}

/// What the last tokens were, as far as the rules ask.
#[derive(Default)]
struct Scan<'a> {
    depth: usize,
    /// The token before the last one.
    before: Option<Token<'a>>,
    last: Option<Token<'a>>,
    /// The last name is qualified by a schema other than pg_catalog.
    foreign: bool,
}

impl<'a> Scan<'a> {
    /// Takes a token; `false` if it makes the statement a write.
    #[inline]
    fn token(&mut self, token: Token<'a>) -> bool {
        match token {
            Token::Word(word) if is_write_word(word, self.last) => return false,
            Token::Word(_) | Token::Quoted(_) => {
                self.foreign =
                    self.last == Some(Token::Other(b'.')) && !self.before.is_some_and(is_pg_catalog);
            }
            Token::Other(b'(') => {
                self.depth += 1;
                if !self.may_precede_parenthesis() {
                    return false;
                }
            }
            Token::Other(b')') => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.before = self.last;
        self.last = Some(token);
        true
    }

    /// Whether what stands before a `(` is harmless: no function, or one known to be safe.
    fn may_precede_parenthesis(&self) -> bool {
        let name = match self.last {
            Some(Token::Word(name) | Token::Quoted(name)) => name,
            _ => return true,
        };
        // `AS t(a, b)` and `WITH t(a, b)` name columns.
        if let Some(Token::Word(before)) = self.before {
            if is(before, b"as") || is(before, b"with") || is(before, b"recursive") {
                return true;
            }
        }
        if self.foreign {
            return false;
        }
        match self.last {
            Some(Token::Word(word)) => is_syntax(word) || functions::is_safe(word),
            // A quoted name is taken exactly as it stands.
            _ => !name.iter().any(u8::is_ascii_uppercase) && functions::is_safe(name),
        }
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
        _ => false,
    }
}

fn follows_for(last: Option<Token<'_>>) -> bool {
    matches!(last, Some(Token::Word(word)) if is(word, b"for"))
}

/// Words that are followed by `(` without being functions, and functions with a syntax of their own.
fn is_syntax(word: &[u8]) -> bool {
    const WORDS: &[&[u8]] = &[
        b"all",
        b"analyze",
        b"and",
        b"any",
        b"array",
        b"as",
        b"between",
        b"bernoulli",
        b"bit",
        b"by",
        b"case",
        b"cast",
        b"char",
        b"character",
        b"coalesce",
        b"costs",
        b"cross",
        b"cube",
        b"dec",
        b"decimal",
        b"distinct",
        b"else",
        b"except",
        b"exists",
        b"explain",
        b"extract",
        b"fetch",
        b"filter",
        b"float",
        b"from",
        b"full",
        b"greatest",
        b"group",
        b"grouping",
        b"having",
        b"ilike",
        b"in",
        b"inner",
        b"intersect",
        b"interval",
        b"is",
        b"join",
        b"lateral",
        b"least",
        b"left",
        b"like",
        b"limit",
        b"materialized",
        b"nchar",
        b"normalize",
        b"not",
        b"nullif",
        b"numeric",
        b"offset",
        b"on",
        b"operator",
        b"or",
        b"order",
        b"over",
        b"overlay",
        b"partition",
        b"position",
        b"precision",
        b"range",
        b"recursive",
        b"returning",
        b"right",
        b"rollup",
        b"row",
        b"rows",
        b"select",
        b"sets",
        b"similar",
        b"some",
        b"substring",
        b"symmetric",
        b"system",
        b"then",
        b"time",
        b"timestamp",
        b"treat",
        b"trim",
        b"union",
        b"using",
        b"values",
        b"varchar",
        b"varying",
        b"verbose",
        b"when",
        b"where",
        b"window",
        b"with",
        b"within",
        b"xmlconcat",
        b"xmlelement",
        b"xmlexists",
        b"xmlforest",
        b"xmlparse",
        b"xmlpi",
        b"xmlroot",
        b"xmlserialize",
        b"xmltable",
    ];
    WORDS.iter().any(|known| is(word, known))
}

/// Compares with a lower-case word.
#[inline]
fn is(word: &[u8], lower: &[u8]) -> bool {
    word.len() == lower.len() && word.eq_ignore_ascii_case(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: Class, statements: &[&str]) {
        for text in statements {
            assert_eq!(classify(text.as_bytes(), Dialect::default()), expected, "{text}");
        }
    }

    #[test]
    fn reads() {
        check(
            Class::Read,
            &[
                "select 1",
                "SELECT abalance FROM pgbench_accounts WHERE aid = $1;",
                " /* hint */ -- more\n select now(), random()",
                "select \"update\" from \"delete\" where a in (1, 2) and not (b or c)",
                "select 'insert into t', $$ delete $$, e'\\' update'",
                "with t(a, b) as (select 1, 2) select * from t",
                "with recursive t(n) as (values (1) union all select n + 1 from t) select count(*) from t",
                "values (1), (2)",
                "table t",
                "(select 1) union (select 2) order by 1",
                "explain (analyze, buffers) select * from t",
                "copy t to stdout",
                "copy (select * from t where a > lower('x')) to stdout with (format csv)",
                "select cast(a as numeric(10,2)), extract(year from d), coalesce(a, b) from t",
                "select pg_catalog.lower(x), count(*) filter (where y) over (partition by z) from t as u(x, y, z)",
                "select substring(a from 1 for 3) from t for_you",
                "select 1; select 2;",
                ";",
                "",
            ],
        );
    }

    #[test]
    fn writes_and_whatever_might_be() {
        check(
            Class::Write,
            &[
                "insert into t values (1) returning a",
                "update t set a = 1",
                "delete from t",
                "merge into t using s on a = b when matched then delete",
                "with x as (update t set a = 1 returning *) select * from x",
                "with x as (insert into t values (1) returning *) table x",
                "select * into t2 from t",
                "select * from t for update",
                "select * from t for share",
                "select * from t for no key update skip locked",
                "select * from t for key share",
                "select nextval('s')",
                "select NEXTVAL('s')",
                "select \"nextval\"('s')",
                "select pg_catalog.nextval('s')",
                "select nextval /* comment */ ('s')",
                "select distinct on (a) nextval('s') from t",
                "select public.f(1)",
                "select public.lower('x')",
                "select \"Lower\"('x')",
                "select U&\"nextval\"('s')",
                "select f(1) from t",
                "select pg_advisory_lock(1)",
                "select set_config('a', 'b', false)",
                "select txid_current()",
                "select pg_is_in_recovery()",
                "explain analyze update t set a = 1",
                "copy t from stdin",
                "copy t to '/tmp/x'",
                "copy t to program 'cat'",
                "copy (update t set a = 1 returning a) to stdout",
                "begin",
                "begin isolation level repeatable read",
                "begin read only, read write",
                "begin read only isolation level serializable",
                "begin read only; insert into t values (1)",
                "begin read only; select 1; commit; insert into t values (1)",
                "select 1; insert into t values (1)",
                "select 1; begin read only",
                "start something read only",
                "commit",
                "end",
                "set a = b",
                "show transaction_read_only",
                "lock t",
                "declare c cursor for select 1",
                "call p()",
                "do $$ begin end $$",
                "create table t (a int)",
                "refresh materialized view v",
                "vacuum",
                "discard all",
                "prepare x as select 1",
                "execute x",
                "listen x",
                "gibberish",
                "select 'unterminated",
                "'",
            ],
        );
    }

    #[test]
    fn transactions_that_can_only_read() {
        check(
            Class::BeginReadOnly,
            &[
                "begin read only",
                "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;",
                "start transaction read only",
                "begin work read write read only",
                "begin read only deferrable",
            ],
        );
    }
}
