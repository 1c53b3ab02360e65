//! What clients say about routing themselves: a leading comment, and the setting `pgweir.route`.
//!
//! ```sql
//! /* pgweir: replica */ SELECT …
//! SET pgweir.route = 'primary'
//! ```

use super::lexer::{Lexer, Token};

/// Name of the setting.
pub const SETTING: &[u8] = b"pgweir.route";

/// Where statements are to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// Where the rules say.
    #[default]
    Auto,
    /// On the primary.
    Primary,
    /// On a replica, whatever they are.
    Replica,
}

impl Route {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }

    /// Reads the value of the setting; case is ignored.
    pub fn parse(value: &[u8]) -> Option<Self> {
        [Self::Auto, Self::Primary, Self::Replica]
            .into_iter()
            .find(|route| value.eq_ignore_ascii_case(route.name().as_bytes()))
    }
}

/// The hint in the comments a statement begins with. HOT: most have none.
#[inline]
pub fn leading(text: &[u8]) -> Option<Route> {
    match text.trim_ascii_start() {
        text @ ([b'/', b'*', ..] | [b'-', b'-', ..]) => in_comments(text),
        _ => None,
    }
}

#[cold]
fn in_comments(mut text: &[u8]) -> Option<Route> {
    loop {
        text = text.trim_ascii_start();
        let (comment, after) = match text {
            [b'-', b'-', rest @ ..] => {
                rest.split_at(rest.iter().position(|&b| b == b'\n' || b == b'\r').unwrap_or(rest.len()))
            }
            [b'/', b'*', rest @ ..] => {
                let (comment, after) = rest.split_at(rest.windows(2).position(|end| end == b"*/")?);
                if comment.windows(2).any(|two| two == b"/*") {
                    // That is not its end.
                    return None;
                }
                (comment, after)
            }
            _ => return None,
        };
        let words = comment.trim_ascii().strip_prefix(b"pgweir:").map(<[u8]>::trim_ascii);
        if let Some(route) = words.and_then(Route::parse) {
            return Some(route);
        }
        text = after.strip_prefix(b"*/").unwrap_or(after);
    }
}

/// What a statement makes of the setting: `SET pgweir.route = …` and `RESET`. `Some(None)`: back to what the session
/// began with. The statement ends with the text, or with a NUL. HOT: few begin like that.
#[inline]
pub fn setting(text: &[u8]) -> Option<Option<Route>> {
    match text.trim_ascii_start() {
        text @ [b's' | b'S' | b'r' | b'R', b'e' | b'E', b't' | b'T' | b's' | b'S', ..] => {
            assignment(text.split(|&byte| byte == 0).next()?)
        }
        _ => None,
    }
}

#[cold]
fn assignment(text: &[u8]) -> Option<Option<Route>> {
    let mut lexer = Lexer::new(text);
    let mut next = || {
        let before = lexer.rest();
        let token = lexer.next().ok()??;
        let len = before.len() - lexer.rest().len();
        Some((token, before[..len].trim_ascii()))
    };
    let (_, verb) = next()?;
    let is_set = verb.eq_ignore_ascii_case(b"set");
    if !is_set && !verb.eq_ignore_ascii_case(b"reset") {
        return None;
    }
    let (_, mut word) = next()?;
    if is_set && word.eq_ignore_ascii_case(b"session") {
        word = next()?.1;
    }
    if !is_set && word.eq_ignore_ascii_case(b"all") {
        return Some(None);
    }
    let (dot, (_, name)) = (next()?.0, next()?);
    if !word.eq_ignore_ascii_case(b"pgweir")
        || dot != Token::Other(b'.')
        || !name.eq_ignore_ascii_case(b"route")
    {
        return None;
    }
    if !is_set {
        return Some(None);
    }
    let (equals, operator) = next()?;
    if equals != Token::Other(b'=') && !operator.eq_ignore_ascii_case(b"to") {
        return None;
    }
    let (_, value) = next()?;
    let value = value.strip_prefix(b"'").and_then(|v| v.strip_suffix(b"'")).unwrap_or(value);
    // DEFAULT, and whatever means nothing.
    Some(Route::parse(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_at_the_beginning() {
        for (text, expected) in [
            ("select 1", None),
            ("/* pgweir: replica */ select 1", Some(Route::Replica)),
            (" /*pgweir:PRIMARY*/select 1", Some(Route::Primary)),
            ("-- pgweir: auto\nselect 1", Some(Route::Auto)),
            ("/* controller='x' */\n/* pgweir: replica */ select 1", Some(Route::Replica)),
            ("select /* pgweir: replica */ 1", None),
            ("/* pgweir: elsewhere */ select 1", None),
            ("/* pgweir: replica", None),
            ("/* a /* b */ /* pgweir: replica */ */ delete from t", None),
            ("/* pgweir: replica */", Some(Route::Replica)),
            ("--", None),
        ] {
            assert_eq!(leading(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn the_setting() {
        for (text, expected) in [
            ("set pgweir.route = 'replica'", Some(Some(Route::Replica))),
            ("SET SESSION pgweir.route TO primary;", Some(Some(Route::Primary))),
            ("set pgweir . route = 'auto'", Some(Some(Route::Auto))),
            ("reset all\0'", Some(None)),
            ("set pgweir.route to default", Some(None)),
            ("set pgweir.route = 'nonsense'", Some(None)),
            ("reset pgweir.route", Some(None)),
            ("RESET ALL", Some(None)),
            ("set local pgweir.route = 'replica'", None),
            ("set pgweir.other = 'replica'", None),
            ("set work_mem = '1MB'", None),
            ("select 1", None),
            ("reset", None),
            ("set", None),
            ("set pgweir.route", None),
            ("set '", None),
        ] {
            assert_eq!(setting(text.as_bytes()), expected, "{text}");
        }
    }
}
