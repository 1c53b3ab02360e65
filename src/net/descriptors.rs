//! Descriptors that come from another process: over a Unix socket, together with frames that say what they are, or from
//! the service manager that has started this one.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::wire::frame::{HEADER, peek};

/// Most descriptors one frame may have.
const MAX_DESCRIPTORS: usize = 4;
/// How much is read at once.
const READ: usize = 16 * 1024;

/// A Unix socket that carries frames, each of them with some descriptors.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
    bytes: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

/// A frame that has arrived.
#[derive(Debug)]
pub struct Delivery {
    /// What it is.
    pub tag: u8,
    /// What it says.
    pub body: Vec<u8>,
    /// What came with it.
    pub descriptors: Vec<OwnedFd>,
}

impl Channel {
    /// A channel over a connection that nothing of a frame has been read from yet.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, bytes: Vec::new(), descriptors: VecDeque::new() }
    }

    /// The process and the user at the other end.
    pub fn peer(&self) -> io::Result<tokio::net::unix::UCred> {
        self.stream.peer_cred()
    }

    /// Sends a frame and copies of descriptors. The receiver learns from the first byte of the body how many.
    pub async fn send(&self, tag: u8, body: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let count = u8::try_from(descriptors.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let len = u32::try_from(body.len() + 5).map_err(|_| io::ErrorKind::InvalidInput)?;
        let frame = [&[tag][..], &len.to_be_bytes(), &[count], body].concat();
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let mut sent = 0;
        while sent < frame.len() {
            let rights = [ControlMessage::ScmRights(&raw)];
            // They travel with the first byte.
            let rights = if sent == 0 && !raw.is_empty() { &rights[..] } else { &[] };
            let write = || {
                let part = [IoSlice::new(&frame[sent..])];
                let n = sendmsg::<()>(
                    self.stream.as_raw_fd(),
                    &part,
                    rights,
                    MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
                    None,
                );
                n.map_err(io::Error::from)
            };
            sent += self.stream.async_io(Interest::WRITABLE, write).await?;
        }
        Ok(())
    }

    /// The next frame; `None` if the other side has closed the connection. Nothing is lost if this is given up while it
    /// waits.
    pub async fn receive(&mut self) -> io::Result<Option<Delivery>> {
        loop {
            if let Some(delivery) = self.take()? {
                return Ok(Some(delivery));
            }
            let mut buf = [0; READ];
            let (stream, descriptors) = (&self.stream, &mut self.descriptors);
            let n = stream.async_io(Interest::READABLE, || read(stream, &mut buf, descriptors)).await?;
            if n == 0 {
                return if self.bytes.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
            self.bytes.extend_from_slice(&buf[..n]);
        }
    }

    /// The first frame of what has been read, if it is complete.
    fn take(&mut self) -> io::Result<Option<Delivery>> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let frame = peek(&self.bytes).map_err(|_| invalid())?.filter(|frame| frame.is_complete());
        let Some(frame) = frame else { return Ok(None) };
        let (&count, body) = frame.body.split_first().ok_or_else(invalid)?;
        let count = usize::from(count);
        if count > self.descriptors.len() {
            return Err(invalid());
        }
        let (tag, len, body) = (frame.tag, frame.len, body.to_vec());
        let descriptors = self.descriptors.drain(..count).collect();
        self.bytes.drain(..len.max(HEADER));
        Ok(Some(Delivery { tag, body, descriptors }))
    }
}

fn read(stream: &UnixStream, buf: &mut [u8], descriptors: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut space = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut part = [IoSliceMut::new(buf)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<()>(stream.as_raw_fd(), &mut part, Some(&mut space), flags)?;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            descriptors.extend(raw.into_iter().map(own));
        }
    }
    if received.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::other("descriptors were lost: too many open files?"));
    }
    Ok(received.bytes)
}

/// Listening sockets that the service manager has opened for this process (`LISTEN_FDS`). To be called once.
pub fn from_service_manager() -> io::Result<Vec<OwnedFd>> {
    Ok(sd_notify::listen_fds()?.map(own).collect())
}

/// Both callers have just been given the descriptor, and nobody else in this process knows of it.
#[expect(unsafe_code, reason = "system calls hand out descriptors as numbers")]
fn own(raw: RawFd) -> OwnedFd {
    // SAFETY: the descriptor is open, and this process has no other owner of it: the kernel has made it for the message
    // just received, or the service manager has opened it before the program was started.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[tokio::test]
    async fn descriptors_arrive_with_their_frames() {
        let (a, b) = UnixStream::pair().unwrap();
        let (a, mut b) = (Channel::new(a), Channel::new(b));
        let pairs: Vec<_> = (0..3).map(|_| std::os::unix::net::UnixStream::pair().unwrap()).collect();
        let long = vec![7; 3 * READ];
        tokio::join!(
            async {
                a.send(b'x', b"no descriptor", &[]).await.unwrap();
                a.send(b'y', &long, &[pairs[0].0.as_fd()]).await.unwrap();
                a.send(b'z', b"", &[pairs[1].0.as_fd(), pairs[2].0.as_fd()]).await.unwrap();
            },
            async {
                let first = b.receive().await.unwrap().unwrap();
                assert_eq!(
                    (first.tag, &*first.body, first.descriptors.len()),
                    (b'x', &b"no descriptor"[..], 0)
                );
                let second = b.receive().await.unwrap().unwrap();
                assert_eq!((second.tag, second.body == long, second.descriptors.len()), (b'y', true, 1));
                let third = b.receive().await.unwrap().unwrap();
                assert_eq!((third.tag, third.body.len(), third.descriptors.len()), (b'z', 0, 2));
                let received = second.descriptors.into_iter().chain(third.descriptors);
                for (n, (descriptor, (_, other))) in (0u8..).zip(received.zip(&pairs)) {
                    std::os::unix::net::UnixStream::from(descriptor).write_all(&[n]).unwrap();
                    let mut byte = [9];
                    (&*other).read_exact(&mut byte).unwrap();
                    assert_eq!(byte, [n]);
                }
            }
        );
        drop(a);
        assert!(b.receive().await.unwrap().is_none());
    }
}
