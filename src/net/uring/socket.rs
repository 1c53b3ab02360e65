//! A connected socket whose bytes move by the ring of the thread that serves it.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use tokio::task::coop;

use super::buffers::LEN;
use super::ring::{Key, PATIENCE, Received, Ring};

/// At most this much is left to the ring in one piece. What is larger pays for its own system call, and saves a copy.
const QUEUED: usize = 8 * 1024;

/// See the module's documentation. Belongs to a thread only while something is under way: see [`Self::rest`].
#[derive(Debug)]
pub struct Socket {
    fd: ManuallyDrop<OwnedFd>,
    /// Something is being received, or was.
    receive: Option<Key>,
    /// Something is being sent, or was.
    send: Option<Key>,
    /// There is more to read, and no need to wait for it.
    more: bool,
    /// The last that came would not have fitted the ring's buffers: it is enough to learn that there is something.
    bulk: bool,
    /// What came before anybody asked for it.
    early: Vec<u8>,
}

impl Socket {
    /// Leaves a connected socket to the ring of the calling thread. It must have one.
    pub fn new(fd: OwnedFd) -> Self {
        Self {
            fd: ManuallyDrop::new(fd),
            receive: None,
            send: None,
            more: false,
            bulk: false,
            early: Vec::new(),
        }
    }

    /// See [`Stream::poll_read`](crate::net::stream::Stream::poll_read).
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        // A transfer without a pause must not keep the thread, on which the ring waits as well.
        let turn = ready!(coop::poll_proceed(cx));
        let read = self.read(cx, buf);
        if read.is_ready() {
            turn.made_progress();
        }
        read
    }

    /// What came early first; then what the ring has received; then, as long as there is more, without the ring.
    #[inline]
    fn read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.early.is_empty() {
            return Poll::Ready(Ok(self.read_early(buf)));
        }
        if let Some(key) = self.receive {
            let received = ready!(Ring::with(|ring| ring.received(key, cx.waker(), buf)));
            self.receive = None;
            match received {
                Received::Bytes { len, surplus, more } => {
                    self.more = more;
                    self.early = surplus;
                    if !more || len == buf.len() {
                        return Poll::Ready(Ok(len));
                    }
                    // An error or the end will be met again by the next who reads.
                    let further = self.read_now(&mut buf[len..]).unwrap_or(0);
                    return Poll::Ready(Ok(len + further));
                }
                Received::Readable => self.more = true,
                Received::End => return Poll::Ready(Ok(0)),
                Received::Failed(error) => return Poll::Ready(Err(error)),
            }
        }
        if self.more {
            match self.read_now(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
        let fd = self.fd.as_raw_fd();
        self.receive = Some(Ring::with(|ring| {
            if self.bulk { ring.await_readable(fd, cx.waker()) } else { ring.receive(fd, cx.waker()) }
        }));
        Poll::Pending
    }

    /// See [`Stream::try_read`](crate::net::stream::Stream::try_read). Only for a socket at rest.
    pub fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.early.is_empty() { self.read_now(buf) } else { Ok(self.read_early(buf)) }
    }

    fn read_early(&mut self, buf: &mut [u8]) -> usize {
        let len = self.early.len().min(buf.len());
        buf[..len].copy_from_slice(&self.early[..len]);
        self.early.drain(..len);
        if self.early.is_empty() {
            self.early = Vec::new();
        }
        len
    }

    fn read_now(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let result = recv(self.fd.as_raw_fd(), buf, MsgFlags::MSG_DONTWAIT);
        self.more = result == Ok(buf.len());
        self.bulk = result.is_ok_and(|len| len > LEN);
        Ok(result?)
    }

    /// See [`Stream::poll_write`](crate::net::stream::Stream::poll_write). Bytes left to the ring count as written; an error
    /// they meet is that of the next write.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(key) = self.send {
            if Ring::with(|ring| ring.add(key, buf, QUEUED)) {
                return Poll::Ready(Ok(buf.len()));
            }
            Ring::with(|ring| ring.settle(key, 1));
            let sent = ready!(Ring::with(|ring| ring.sent(key, cx.waker())));
            self.send = None;
            sent?;
        }
        if buf.len() > QUEUED {
            match send(self.fd.as_raw_fd(), buf, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Err(nix::Error::EAGAIN) => {}
                result => return Poll::Ready(Ok(result?)),
            }
        }
        let len = buf.len().min(QUEUED);
        self.send = Some(Ring::with(|ring| ring.send(self.fd.as_raw_fd(), &buf[..len])));
        Poll::Ready(Ok(len))
    }

    /// Takes back from the ring whatever it still has of this, so that another thread may go on with it; `false` if bytes
    /// are still on their way out.
    #[inline]
    pub fn rest(&mut self) -> bool {
        if self.send.is_some_and(|key| Ring::with(|ring| ring.is_sent(key))) {
            self.send = None;
        }
        (self.receive.is_none() && self.send.is_none()) || self.stop()
    }

    #[cold]
    fn stop(&mut self) -> bool {
        if let Some(key) = self.send {
            if !Ring::with(|ring| ring.settle(key, PATIENCE)) {
                return false;
            }
            // How it ended is met again by whoever writes next.
            Ring::with(|ring| ring.is_sent(key));
            self.send = None;
        }
        if let Some(key) = self.receive {
            Ring::with(|ring| ring.cancel(key));
            if !Ring::with(|ring| ring.settle(key, PATIENCE)) {
                return false;
            }
            self.early = Ring::with(|ring| ring.take_early(key));
            self.receive = None;
        }
        true
    }

    /// Whether everything was read that had come when it was read last.
    pub fn is_dry(&self) -> bool {
        self.early.is_empty() && !self.more
    }

    /// Whether there is something that [`Self::rest`] has taken from the ring.
    pub fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    /// Takes that.
    pub fn take_early(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.early)
    }

    /// The socket itself. Fails if it is not at rest, or has [something](Self::has_early) that would be lost.
    pub fn into_fd(mut self) -> io::Result<OwnedFd> {
        if !self.rest() || self.has_early() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        // SAFETY: this is the last use of both.
        let fd = unsafe { ManuallyDrop::take(&mut self.fd) };
        std::mem::forget(self);
        Ok(fd)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: nothing uses it after this.
        let fd = unsafe { ManuallyDrop::take(&mut self.fd) };
        let keys = [self.receive, self.send];
        if !keys.iter().flatten().all(|key| Ring::owns(*key)) {
            tracing::error!("a socket has left its thread");
            // Its number must not be another one's as long as the other thread's ring may use it.
            let _ = shutdown(fd.as_raw_fd(), Shutdown::Both);
            std::mem::forget(fd);
        } else if keys.iter().any(Option::is_some) {
            // It must stay open until the ring has done with it: its number may be another socket's then.
            let fd = Rc::new(fd);
            for key in keys.into_iter().flatten() {
                Ring::with(|ring| ring.abandon(key, &fd));
            }
        }
    }
}
