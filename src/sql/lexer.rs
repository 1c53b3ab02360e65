//! Cuts a statement into tokens, as PostgreSQL's scanner does (`src/backend/parser/scan.l`), without making anything
//! of them. Comments and blanks are skipped. HOT.

/// A piece of a statement. Text is given as it stands, quotes included for none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword or an unquoted name, in the case it was written in.
    Word(&'a [u8]),
    /// A name in double quotes, without them; doubled quotes stay doubled.
    Quoted(&'a [u8]),
    /// A string, number or parameter.
    Constant,
    /// Any other character.
    Other(u8),
}

/// The text ends inside a comment, string or name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unterminated;

/// What a byte may be part of.
const WORD: u8 = 1;
const BLANK: u8 = 2;

/// One look-up per byte instead of a handful of comparisons.
static KINDS: [u8; 256] = kinds();

const fn kinds() -> [u8; 256] {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || b >= 0x80 {
            kinds[byte] = WORD;
        } else if matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c) {
            kinds[byte] = BLANK;
        }
        byte += 1;
    }
    kinds
}

/// An iterator over tokens.
#[derive(Clone)]
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The next token; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Token<'a>>, Unterminated> {
        self.skip_blanks()?;
        let Some(&byte) = self.text.get(self.at) else { return Ok(None) };
        let start = self.at;
        self.at += 1;
        Ok(Some(match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => return self.word(start).map(Some),
            b'0'..=b'9' => self.number(),
            b'.' if matches!(self.peek(0), Some(b'0'..=b'9')) => self.number(),
            b'\'' => self.string()?,
            b'"' => self.quoted()?,
            b'$' => self.dollar(start)?,
            other => Token::Other(other),
        }))
    }

    /// The next token if it is a word, else nothing.
    pub(super) fn next_word(&mut self) -> Result<&'a [u8], Unterminated> {
        Ok(match self.next()? {
            Some(Token::Word(word)) => word,
            _ => b"",
        })
    }

    /// What is still to come.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.text[self.at.min(self.text.len())..]
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn skip_blanks(&mut self) -> Result<(), Unterminated> {
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                _ if KINDS[usize::from(byte)] == BLANK => self.at += 1,
                b'-' if self.peek(1) == Some(b'-') => {
                    let rest = &self.text[self.at..];
                    self.at += rest.iter().position(|&b| b == b'\n' || b == b'\r').unwrap_or(rest.len());
                }
                b'/' if self.peek(1) == Some(b'*') => self.block_comment()?,
                _ => break,
            }
        }
        Ok(())
    }

    /// Comments nest.
    fn block_comment(&mut self) -> Result<(), Unterminated> {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                (Some(_), _) => self.at += 1,
                (None, _) => return Err(Unterminated),
            }
        }
    }

    fn word(&mut self, start: usize) -> Result<Token<'a>, Unterminated> {
        let rest = &self.text[self.at..];
        self.at += rest.iter().position(|&b| KINDS[usize::from(b)] != WORD).unwrap_or(rest.len());
        let word = &self.text[start..self.at];
        if word.len() > 1 {
            return Ok(Token::Word(word));
        }
        // A prefix makes what follows a string of another kind.
        match (self.peek(0), word) {
            (Some(b'\''), b"e" | b"E") => {
                self.at += 1;
                self.escaped_string()
            }
            (Some(b'\''), b"b" | b"B" | b"x" | b"X" | b"n" | b"N") => {
                self.at += 1;
                self.string()
            }
            (Some(b'&'), b"u" | b"U") if self.peek(1) == Some(b'\'') => {
                self.at += 2;
                self.string()
            }
            (Some(b'&'), b"u" | b"U") if self.peek(1) == Some(b'"') => {
                self.at += 2;
                // Escapes in it are not looked at, so it must not be taken for any known name.
                self.quoted().map(|_| Token::Quoted(b"U&"))
            }
            _ => Ok(Token::Word(word)),
        }
    }

    /// A number or what is left of it after its first digit. It ends before letters that do not belong to it, which older
    /// servers take for the next word: `LIMIT 1FOR UPDATE`. `0x1f` is a number and a word here, as it was to them.
    fn number(&mut self) -> Token<'a> {
        let is_digit = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_digit());
        loop {
            self.at += match self.peek(0) {
                Some(b'0'..=b'9' | b'.') => 1,
                Some(b'_') if is_digit(self.peek(1)) => 2,
                Some(b'e' | b'E') if is_digit(self.peek(1)) => 2,
                Some(b'e' | b'E') if matches!(self.peek(1), Some(b'+' | b'-')) && is_digit(self.peek(2)) => 3,
                _ => return Token::Constant,
            }
        }
    }

    fn string(&mut self) -> Result<Token<'a>, Unterminated> {
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            if byte == b'\'' {
                if self.peek(0) != Some(b'\'') {
                    return Ok(Token::Constant);
                }
                self.at += 1;
            }
        }
        Err(Unterminated)
    }

    /// `E'…'`. Strings that follow it continue it, backslashes included.
    fn escaped_string(&mut self) -> Result<Token<'a>, Unterminated> {
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'\'' => {
                    self.skip_blanks()?;
                    if self.peek(0) != Some(b'\'') {
                        return Ok(Token::Constant);
                    }
                    self.at += 1;
                }
                _ => {}
            }
        }
        Err(Unterminated)
    }

    fn quoted(&mut self) -> Result<Token<'a>, Unterminated> {
        let start = self.at;
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            if byte == b'"' {
                if self.peek(0) != Some(b'"') {
                    return Ok(Token::Quoted(&self.text[start..self.at - 1]));
                }
                self.at += 1;
            }
        }
        Err(Unterminated)
    }

    /// `$1`, `$$…$$` or `$tag$…$tag$`.
    fn dollar(&mut self, start: usize) -> Result<Token<'a>, Unterminated> {
        if matches!(self.peek(0), Some(b'0'..=b'9')) {
            // What comes behind a dot is an attribute of it.
            while matches!(self.peek(0), Some(b'0'..=b'9')) {
                self.at += 1;
            }
            return Ok(Token::Constant);
        }
        let rest = &self.text[self.at..];
        let is_tag = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80;
        let len = rest.iter().position(|b| !is_tag(b)).unwrap_or(rest.len());
        if rest.get(len) != Some(&b'$') {
            return Ok(Token::Other(b'$'));
        }
        let body = start + len + 2;
        let tag = &self.text[start..body];
        let end =
            self.text[body..].windows(tag.len()).position(|window| window == tag).ok_or(Unterminated)?;
        self.at = body + end + tag.len();
        Ok(Token::Constant)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(text: &str) -> Result<String, Unterminated> {
        let mut lexer = Lexer::new(text.as_bytes());
        let mut out = Vec::new();
        while let Some(token) = lexer.next()? {
            out.push(match token {
                Token::Word(word) => String::from_utf8_lossy(word).into_owned(),
                Token::Quoted(name) => format!("\"{}\"", String::from_utf8_lossy(name)),
                Token::Constant => "#".to_owned(),
                Token::Other(byte) => char::from(byte).to_string(),
            });
        }
        Ok(out.join(" "))
    }

    #[test]
    fn words_names_and_constants() {
        for (text, expected) in [
            ("select a.b, \"c\"\"d\" from t$1", "select a . b , \"c\"\"d\" from t$1"),
            ("'it''s' E'a\\'b' $1 1.5e-3 .5 0x1f 1_000", "# # # # # # x1f #"),
            ("$$ a ' $$ $x$ $$ ; $x$ $ a", "# # $ a"),
            ("$1.a $12.5e $1 . b ($1).c", "# . a # # e # . b ( # ) . c"),
            ("U&'x' u&\"y\" B'1' x'ff' N'z'", "# \"U&\" # # #"),
            ("a--b\nc/* d /* e */ f */g", "a c g"),
            ("été('x')", "été ( # )"),
            ("1;2", "# ; #"),
            ("1into 2.5for 1e5x $1a 1_0_b 1ea 1e+a 1..2", "# into # for # x # a # _b # ea # e + a #"),
            ("'a\\' b E'a\\' b' c", "# b # c"),
            ("E'a'\n'\\' b'\n-- '\n 'c\\' ' d", "# d"),
            ("E'a'\n'\\'', b('c') --'", "# , b ( # )"),
            ("E'a' 'b''c' d 'a'\n'\\' b", "# d # # b"),
        ] {
            assert_eq!(tokens(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_does_not_end_is_noticed() {
        for text in ["'a", "\"a", "$$a", "$a$ $b$", "/* /* */", "E'\\'"] {
            assert_eq!(tokens(text), Err(Unterminated), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_or_hangs(text: Vec<u8>) {
            let mut lexer = Lexer::new(&text);
            while let Ok(Some(_)) = lexer.next() {}
        }
    }
}
