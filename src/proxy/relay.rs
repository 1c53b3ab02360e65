//! Moves bytes between a client and its server. HOT.
//!
//! Each function is called from the client task's `poll`, reads what is there, walks it and passes it on with one
//! write. Buffers belong to the thread and are taken for one `poll`: an idle client has none.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

use crate::net::stream::Stream;
use crate::sql::Memo;

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
    while sent < pending.len() {
        match stream.poll_write(cx, &pending[sent..])? {
            Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(n) => sent += n,
            Poll::Pending => {
                pending.drain(..sent);
                return Ok(false);
            }
        }
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
