//! Frames: one tag byte, a 32-bit length that counts itself, a body. Read in place, never copied.

/// Bytes before a frame's body: tag and length.
pub const HEADER: usize = 5;

/// A frame whose header is in the buffer; its body may not be, or only in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The message type.
    pub tag: u8,
    /// Length of the whole frame, header included, as declared.
    pub len: usize,
    /// As much of the body as the buffer holds.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// Is the whole frame in the buffer?
    pub fn is_complete(&self) -> bool {
        self.body.len() + HEADER == self.len
    }

    /// Bytes of this frame that the buffer holds.
    pub fn available(&self) -> usize {
        self.body.len() + HEADER
    }
}

/// The stream of frames is broken: whatever follows cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is less than the four bytes it counts itself, or negative.
    #[error("invalid message length")]
    Length,
    /// A tag that no message of this direction has.
    #[error("unknown message type {0:#04x}")]
    Tag(u8),
    /// A message body that does not have the form its type asks for.
    #[error("malformed {0} message")]
    Body(&'static str),
}

/// The frame at the start of `buf`; `None` if not even its header is there.
#[inline]
pub fn peek(buf: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((header, rest)) = buf.split_first_chunk::<HEADER>() else { return Ok(None) };
    let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
    if !(4..=i32::MAX as u32).contains(&len) {
        return Err(FrameError::Length);
    }
    let len = len as usize + 1;
    let body = &rest[..rest.len().min(len - HEADER)];
    Ok(Some(Frame { tag: header[0], len, body }))
}

/// Splits a NUL-terminated string off the front of `buf`. The NUL itself is dropped.
pub fn cstr(buf: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = buf.iter().position(|&b| b == 0)?;
    Some((&buf[..end], &buf[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_enough_to_see_a_frame() {
        assert_eq!(peek(b"Q\0\0\0"), Ok(None));
        let frame = peek(b"Q\0\0\0\x09sel").unwrap().unwrap();
        assert_eq!((frame.tag, frame.len, frame.body), (b'Q', 10, &b"sel"[..]));
        assert!(!frame.is_complete());
        let frame = peek(b"S\0\0\0\x04Q").unwrap().unwrap();
        assert!(frame.is_complete());
        assert_eq!(frame.available(), 5);
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for len in [[0, 0, 0, 0], [0, 0, 0, 3], [0xff; 4], [0x80, 0, 0, 0]] {
            let frame = [b'Q', len[0], len[1], len[2], len[3], 0];
            assert_eq!(peek(&frame), Err(FrameError::Length));
        }
        assert!(peek(&[b'd', 0x7f, 0xff, 0xff, 0xff]).unwrap().is_some());
    }

    #[test]
    fn strings_end_at_their_nul() {
        assert_eq!(cstr(b"ab\0c"), Some((&b"ab"[..], &b"c"[..])));
        assert_eq!(cstr(b"\0"), Some((&b""[..], &b""[..])));
        assert_eq!(cstr(b"ab"), None);
    }
}
