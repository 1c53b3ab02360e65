//! The frontend messages that the proxy has to read: those that name a prepared statement.

use std::ffi::CStr;

use super::frame::{FrameError, cstr};

/// Parse: the statement's name, and the rest (query text, NUL, parameter types) as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    /// Name; empty for the unnamed statement.
    pub name: &'a [u8],
    /// Query text, its NUL, the number of parameter types and the types.
    pub text_and_types: &'a [u8],
    text: &'a [u8],
}

/// Bind, Describe, Close or Execute: which part names the statement.
#[derive(Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// What stands before the statement's name.
    pub before: &'a [u8],
    /// Name; empty for the unnamed statement.
    pub name: &'a [u8],
    /// What stands after the name's NUL, as far as the buffer holds it.
    pub after: &'a [u8],
}

/// The name at the start of a Parse body.
pub fn parse_name(body: &[u8]) -> Option<&[u8]> {
    cstr(body).map(|(name, _)| name)
}

/// Reads a whole Parse body.
pub fn parse(body: &[u8]) -> Result<Parse<'_>, FrameError> {
    let (name, text_and_types) = cstr(body).ok_or(FrameError::Body("Parse"))?;
    let text = CStr::from_bytes_until_nul(text_and_types).map_err(|_| FrameError::Body("Parse"))?.to_bytes();
    let types = &text_and_types[text.len() + 1..];
    let (count, oids) = types.split_first_chunk::<2>().ok_or(FrameError::Body("Parse"))?;
    if oids.len() != 4 * usize::from(u16::from_be_bytes(*count)) {
        return Err(FrameError::Body("Parse"));
    }
    Ok(Parse { name, text_and_types, text })
}

impl<'a> Parse<'a> {
    /// The query text.
    pub fn text(&self) -> &'a [u8] {
        self.text
    }
}

/// The query text at the start of a Parse's rest or of a Query's body.
pub fn text(text_and_more: &[u8]) -> &[u8] {
    // Many bytes at a time, which `position` does not do.
    CStr::from_bytes_until_nul(text_and_more).map_or(text_and_more, CStr::to_bytes)
}

/// Reads the names at the start of a Bind body: portal, then statement. `None` if the buffer ends before them.
pub fn bind(body: &[u8]) -> Option<Named<'_>> {
    let (portal, rest) = cstr(body)?;
    let (name, after) = cstr(rest)?;
    Some(Named { before: &body[..portal.len() + 1], name, after })
}

/// Reads a whole Describe or Close body: the kind (`S` or `P`) stands before the name.
pub fn target(body: &[u8]) -> Result<Named<'_>, FrameError> {
    let malformed = FrameError::Body("Describe or Close");
    let (before, rest) = body.split_at_checked(1).ok_or(malformed)?;
    match cstr(rest) {
        Some((name, [])) if matches!(before, b"S" | b"P") => Ok(Named { before, name, after: &[] }),
        _ => Err(malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found() {
        let got = parse(b"s1\0select 1\0\0\x01\0\0\0\x17").unwrap();
        assert_eq!((got.name, got.text()), (&b"s1"[..], &b"select 1"[..]));
        let got = bind(b"p\0s1\0\0\0").unwrap();
        assert_eq!((got.before, got.name, got.after), (&b"p\0"[..], &b"s1"[..], &b"\0\0"[..]));
        assert_eq!(target(b"Ss1\0").unwrap().name, b"s1");
    }

    #[test]
    fn malformed_bodies_are_refused() {
        for body in
            [&b""[..], b"s1", b"s1\0sel", b"s1\0sel\0", b"s1\0sel\0\0", b"s1\0sel\0\0\x01\0", b"\0\0\0\0x"]
        {
            assert!(parse(body).is_err(), "{body:?}");
        }
        for body in [&b""[..], b"S", b"Sx", b"Xx\0", b"Sx\0y"] {
            assert!(target(body).is_err(), "{body:?}");
        }
        assert_eq!(bind(b"p\0s1"), None);
    }
}
