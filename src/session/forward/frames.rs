//! What both walks need to know of a frame: how much of it has to be there, and what is still to come.

use crate::error::Refusal;
use crate::session::output::Output;
use crate::wire::frame::{Frame, FrameError, peek};
use crate::wire::tag::frontend;

/// Longest part of a message that is read whole to find a name in it, and longest unnamed statement that can be
/// prepared again on another server. A client's message of up to this length goes on whole.
pub(super) const MAX_NAME: usize = 64 * 1024;
/// Longest Parse of a named statement, and longest Bind, which may become longer by its name; PostgreSQL's own limit for
/// a message (`MaxAllocSize`).
pub(super) const MAX_MESSAGE: usize = 0x3fff_ffff;
/// Bytes of the current frame that have not arrived yet, and whether they go on or are dropped.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    pub(super) left: usize,
    pub(super) keep: bool,
}

impl Rest {
    /// Deals with what has come of the rest of a frame; says how much that was.
    #[inline]
    pub(super) fn pass(&mut self, buf: &[u8], out: &mut Output<'_>) -> usize {
        let n = self.left.min(buf.len());
        if n > 0 {
            self.left -= n;
            if self.keep {
                out.keep(0, n);
            }
        }
        n
    }
}

/// Whether a client's message can be sent on. A short one goes whole: half of it would take a server, and keep it for as long
/// as the other half is missing. Of a long one there has to be as much as may hold its names.
#[inline]
pub(super) fn is_enough(frame: &Frame<'_>) -> bool {
    frame.is_complete() || frame.body.len() > MAX_NAME
}

/// Whether a message that is to be changed is longer than PostgreSQL takes. Others it may refuse itself.
pub(super) fn is_too_long(frame: &Frame<'_>, is_named_parse: bool) -> bool {
    frame.len > MAX_MESSAGE && (is_named_parse || frame.tag == frontend::BIND)
}

/// Whether it prepares a named statement.
pub(super) fn is_named_parse(frame: &Frame<'_>) -> bool {
    frame.tag == frontend::PARSE && frame.body.first().is_some_and(|&first| first != 0)
}

/// Length of the first batch in `buf`: a simple query or call, or everything up to Sync. `None` if it is not complete.
pub fn batch_len(buf: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let frame = peek(&buf[at..]).ok()??;
        at += frame.len;
        if at > buf.len() {
            return None;
        }
        if matches!(frame.tag, frontend::QUERY | frontend::SYNC | frontend::FUNCTION_CALL) {
            return Some(at);
        }
    }
}

pub(super) fn client_fault(fault: FrameError) -> Refusal {
    Refusal::protocol(fault.to_string())
}
