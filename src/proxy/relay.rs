//! Moves bytes between a client and its server. HOT.
//!
//! Each function is called from the client task's `poll`, reads what is there, walks it and passes it on with one
//! write. Buffers belong to the thread and are taken for one `poll`: an idle client has none.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, ready};

use crate::net::stream::Stream;
use crate::session::output::{Output, Text};
use crate::sql::Memo;
use crate::wire::frame::peek;

/// Size of the read buffer. Larger ones do not fit the processor's caches, smaller ones cost system calls on large
/// results.
const READ: usize = 64 * 1024;
/// Spare vectors of at most this capacity are kept for reuse, and at most this many of them.
const SPARE_CAPACITY: usize = 8 * 1024;
const SPARES: usize = 256;

/// The thread's buffers.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// What has been read.
    pub(super) read: Box<[u8]>,
    /// What is written instead, when something had to be changed.
    pub(super) rewrite: Vec<u8>,
    /// What has been found out of statements.
    pub(super) memo: Memo,
    spare: Vec<Vec<u8>>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

impl Scratch {
    /// Takes the thread's buffers for the duration of `f`.
    #[inline]
    pub(super) fn with<R>(f: impl FnOnce(&mut Self) -> R) -> R {
        SCRATCH.with_borrow_mut(|scratch| {
            if scratch.read.is_empty() {
                scratch.read = vec![0; READ].into_boxed_slice();
            }
            let result = f(scratch);
            if scratch.rewrite.capacity() > 4 * READ {
                scratch.rewrite = Vec::new();
            }
            result
        })
    }

    /// A vector with these bytes, from the spare ones if there is any.
    pub(super) fn vector(&mut self, bytes: &[u8]) -> Vec<u8> {
        if bytes.is_empty() {
            return Vec::new();
        }
        let mut vector = self.spare.pop().unwrap_or_default();
        vector.extend_from_slice(bytes);
        vector
    }

    /// These bytes without those in front.
    pub(super) fn without<'a>(&mut self, bytes: Cow<'a, [u8]>, skipped: usize) -> Cow<'a, [u8]> {
        match bytes {
            Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[skipped..]),
            owned => Cow::Owned(self.rest(owned, skipped)),
        }
    }

    /// What of these bytes has not been dealt with. If that is all of them they stay where they are: a long message that
    /// has to come whole would otherwise be copied with each piece of it.
    pub(super) fn rest(&mut self, bytes: Cow<'_, [u8]>, consumed: usize) -> Vec<u8> {
        match bytes {
            Cow::Owned(all) if consumed == 0 => all,
            Cow::Owned(all) => {
                let rest = self.vector(&all[consumed..]);
                self.recycle(all);
                rest
            }
            Cow::Borrowed(bytes) => self.vector(&bytes[consumed..]),
        }
    }

    /// Takes back a vector nobody needs.
    pub(super) fn recycle(&mut self, mut vector: Vec<u8>) {
        if (1..=SPARE_CAPACITY).contains(&vector.capacity()) && self.spare.len() < SPARES {
            vector.clear();
            self.spare.push(vector);
        }
    }
}

/// What was left over of what has come earlier, and what has come now.
#[inline]
pub(super) fn join<'a>(carry: &mut Vec<u8>, bytes: &'a [u8]) -> Cow<'a, [u8]> {
    if carry.is_empty() {
        return Cow::Borrowed(bytes);
    }
    let mut all = std::mem::take(carry);
    make_room(&mut all, bytes.len());
    all.extend_from_slice(bytes);
    Cow::Owned(all)
}

/// Makes room for `more` bytes of the message that `carry` begins with. Memory follows what has arrived, not what was
/// announced, and is not more than that.
fn make_room(carry: &mut Vec<u8>, more: usize) {
    let needed = carry.len() + more;
    if needed > carry.capacity() {
        let announced = peek(carry).ok().flatten().map_or(0, |frame| frame.len);
        let room = announced.clamp(needed, needed.max(2 * carry.len()));
        carry.reserve_exact(room - carry.len());
    }
}

/// Sends bytes, or as much of them as the socket takes; the rest goes to `pending`, in front of which nothing may
/// be sent.
#[inline]
pub(super) fn send(
    cx: &mut Context<'_>,
    stream: &mut Stream,
    pending: &mut Vec<u8>,
    bytes: &[u8],
) -> io::Result<()> {
    if !pending.is_empty() {
        pending.extend_from_slice(bytes);
        return flush(cx, stream, pending).map(drop);
    }
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.poll_write(cx, &bytes[sent..])? {
            Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(n) => sent += n,
            Poll::Pending => {
                pending.extend_from_slice(&bytes[sent..]);
                break;
            }
        }
    }
    Ok(())
}

/// Sends what is pending; says whether all of it went out. The task is woken when the socket takes more.
pub(super) fn flush(cx: &mut Context<'_>, stream: &mut Stream, pending: &mut Vec<u8>) -> io::Result<bool> {
    let mut sent = 0;
    if !write_all(cx, stream, pending, &mut sent)? {
        pending.drain(..sent);
        return Ok(false);
    }
    *pending = Vec::new();
    Ok(true)
}

/// [`send`] to a client. One that takes nothing any more is dealt with when what it has sent before has been read, since that
/// counts; an error means that too much was lost meanwhile.
#[inline]
pub(super) fn tell(
    cx: &mut Context<'_>,
    client: &mut Stream,
    pending: &mut Vec<u8>,
    bytes: &[u8],
) -> io::Result<()> {
    send(cx, client, pending, bytes).or_else(|error| mute(client, pending, error))
}

/// [`flush`] to a client, as [`tell`] is [`send`].
#[inline]
pub(super) fn flush_client(
    cx: &mut Context<'_>,
    client: &mut Stream,
    pending: &mut Vec<u8>,
) -> io::Result<bool> {
    flush(cx, client, pending).or_else(|error| mute(client, pending, error).map(|()| true))
}

#[cold]
fn mute(client: &mut Stream, pending: &mut Vec<u8>, error: io::Error) -> io::Result<()> {
    *pending = Vec::new();
    if client.mute() { Ok(()) } else { Err(error) }
}

/// What a server's socket did not take yet, in front of which nothing may be sent.
#[derive(Debug, Default)]
pub struct Pending {
    /// Bytes; long statements belong between them.
    pub bytes: Vec<u8>,
    /// How many of them were sent.
    sent: usize,
    texts: VecDeque<Text>,
    /// How much was sent of the first of them.
    text_sent: usize,
}

impl Pending {
    /// Whether everything was sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Sends this, or as much of it as the socket takes.
    #[inline]
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        out: &Output<'_>,
    ) -> io::Result<()> {
        if self.is_empty() && out.texts().is_empty() {
            return send(cx, stream, &mut self.bytes, out.bytes());
        }
        self.bytes.drain(..self.sent);
        self.texts.iter_mut().for_each(|text| text.at -= self.sent);
        self.sent = 0;
        let before = self.bytes.len();
        self.bytes.extend_from_slice(out.bytes());
        self.texts.extend(out.texts().iter().map(|text| Text { at: before + text.at, ..text.clone() }));
        self.flush(cx, stream).map(drop)
    }

    /// Sends what is pending; says whether all of it went out. The task is woken when the socket takes more.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> io::Result<bool> {
        loop {
            let end = self.texts.front().map_or(self.bytes.len(), |text| text.at);
            if !write_all(cx, stream, &self.bytes[..end], &mut self.sent)? {
                return Ok(false);
            }
            let Some(text) = self.texts.front() else { break };
            if !write_all(cx, stream, &text.statement.text_and_types, &mut self.text_sent)? {
                return Ok(false);
            }
            self.texts.pop_front();
            self.text_sent = 0;
        }
        *self = Self::default();
        Ok(true)
    }
}

/// Sends the rest of these bytes; says whether the socket took all of it.
fn write_all(cx: &mut Context<'_>, stream: &mut Stream, bytes: &[u8], sent: &mut usize) -> io::Result<bool> {
    while *sent < bytes.len() {
        match stream.poll_write(cx, &bytes[*sent..])? {
            Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(n) => *sent += n,
            Poll::Pending => return Ok(false),
        }
    }
    Ok(true)
}

/// Reads what is there; `None` when the other side has closed the connection.
#[inline]
pub(super) fn receive(
    cx: &mut Context<'_>,
    stream: &mut Stream,
    buf: &mut [u8],
) -> Poll<io::Result<Option<usize>>> {
    let n = ready!(stream.poll_read(cx, buf))?;
    Poll::Ready(Ok((n > 0).then_some(n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message that comes in pieces of one byte is not copied with each of them, and takes the memory it needs.
    #[test]
    fn what_has_come_stays_where_it_is() {
        let message = [&b"Q\0\x01\0\0"[..], &vec![b'x'; 65_532]].concat();
        let (mut scratch, mut carry, mut moves) = (Scratch::default(), Vec::new(), 0);
        for byte in &message {
            let before = carry.capacity();
            let bytes = join(&mut carry, std::slice::from_ref(byte));
            let bytes = scratch.without(bytes, 0);
            carry = scratch.rest(bytes, 0);
            moves += usize::from(carry.capacity() != before);
        }
        assert_eq!(carry, message);
        assert!(moves <= 17, "{moves}");
        assert_eq!(carry.capacity(), message.len());
    }

    #[test]
    fn memory_follows_what_has_arrived() {
        let mut carry = b"P\x7f\xff\xff\xff".to_vec();
        for n in 1..100 {
            carry = join(&mut carry, &[b'x'; 1000]).into_owned();
            assert!(carry.capacity() <= 2 * 1000 * n + 5, "{n}: {}", carry.capacity());
        }
    }
}
