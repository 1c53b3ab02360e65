//! `DEALLOCATE` of one statement by name, and of all.

use super::lexer::{Lexer, Token};

/// Whether a text may be one that [`deallocated`] or [`deallocates_all`] looks for. HOT: few begin like that.
#[inline]
pub fn may_deallocate(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    matches!(
        text,
        [b'd' | b'D', b'e' | b'E', b'a' | b'A', ..] | [b'd' | b'D', b'i' | b'I', ..] | [b'/' | b'-', ..]
    )
}

/// Whether a text begins with DEALLOCATE ALL or DISCARD ALL, after which a server has no prepared statements.
pub fn deallocates_all(text: &[u8]) -> bool {
    if !may_deallocate(text) {
        return false;
    }
    let mut lexer = Lexer::new(text);
    let mut is_next = |words: &[&str]| match lexer.next() {
        Ok(Some(Token::Word(word))) => words.iter().any(|is| word.eq_ignore_ascii_case(is.as_bytes())),
        _ => false,
    };
    is_next(&["deallocate", "discard"]) && (is_next(&["all"]) || is_next(&["all"]))
}

/// The statement that `DEALLOCATE [PREPARE] name` names, folded as PostgreSQL does. `None` if the text is not that, or is
/// more than that.
pub fn deallocated(text: &[u8]) -> Option<Vec<u8>> {
    let mut lexer = Lexer::new(text);
    let mut next = || lexer.next().ok().flatten();
    let Some(Token::Word(verb)) = next() else { return None };
    if !verb.eq_ignore_ascii_case(b"deallocate") {
        return None;
    }
    let mut name = next()?;
    let mut end = next();
    if matches!(name, Token::Word(word) if word.eq_ignore_ascii_case(b"prepare")) {
        // PREPARE may be the name itself.
        if let Some(token @ (Token::Word(_) | Token::Quoted(_))) = end {
            (name, end) = (token, next());
        }
    }
    if end == Some(Token::Other(b';')) {
        end = next();
    }
    match name {
        _ if end.is_some() => None,
        Token::Word(word) if word.eq_ignore_ascii_case(b"all") => None,
        Token::Word(word) => Some(word.to_ascii_lowercase()),
        Token::Quoted(name) => {
            // A quote in the name is written twice.
            let mut quotes = 0;
            let is_kept = |byte: &u8| {
                quotes += usize::from(*byte == b'"');
                *byte != b'"' || quotes % 2 == 1
            };
            Some(name.iter().copied().filter(is_kept).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_statement_by_name() {
        for (text, name) in [
            ("deallocate a1", "a1"),
            (" /* x */ DEALLOCATE PREPARE Ab ; -- y", "ab"),
            ("DEALLOCATE \"Pdo_1\"\"\"", "Pdo_1\""),
            ("deallocate prepare", "prepare"),
            ("deallocate \"all\"", "all"),
        ] {
            assert!(may_deallocate(text.as_bytes()), "{text}");
            assert_eq!(deallocated(text.as_bytes()).as_deref(), Some(name.as_bytes()), "{text}");
        }
        for text in
            ["", "deallocate", "deallocate all", "deallocate a; select 1", "dealloc a", "deallocate 'a'"]
        {
            assert_eq!(deallocated(text.as_bytes()), None, "{text}");
        }
        assert!(!may_deallocate(b"select 1") && !may_deallocate(b"delete from t"));
        for text in
            ["DISCARD ALL", "deallocate all; select 1", "/**/ DEALLOCATE PREPARE ALL", "discard  all ;"]
        {
            assert!(deallocates_all(text.as_bytes()), "{text}");
        }
        for text in ["DISCARD PLANS", "deallocate a", "discard", "select 1", "do $$ $$"] {
            assert!(!deallocates_all(text.as_bytes()), "{text}");
        }
    }
}
