//! Connect strings, as the values of `[databases]`, `[users]` and `[peers]` are written: `key=value` pairs, a value
//! in single quotes if it contains blanks, `''` for a quote inside.

/// Splits a connect string. The error gives the byte where something else was expected, and what.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, (usize, &'static str)> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let at = |rest: &str| text.len() - rest.len();
        let equals = rest.find('=').ok_or((at(rest), "expected key=value"))?;
        let key = rest[..equals].trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err((at(rest), "expected key=value"));
        }
        let (value, after) =
            value(rest[equals + 1..].trim_start()).ok_or((at(rest) + equals, "expected a value"))?;
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

fn value(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('\'') else {
        let end = text.find(' ').unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    loop {
        let end = rest.find('\'')?;
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('\'') {
            Some(after) => {
                value.push('\'');
                rest = after;
            }
            None => return Some((value, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs() {
        let got = parse("host=a,b   port = 5432 connect_query='set a=''b''; x' password=p+/=").unwrap();
        let expected =
            [("host", "a,b"), ("port", "5432"), ("connect_query", "set a='b'; x"), ("password", "p+/=")];
        assert_eq!(got, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(parse("  "), Ok(vec![]));
    }

    #[test]
    fn errors() {
        for text in ["host", "host=", "host=a =b", "a b=c", "x='y", "a=b c"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("host=a port").unwrap_err().0, 7);
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
