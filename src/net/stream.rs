//! A connection, whatever carries it.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::tls::stream::TlsStream;
use super::tls::{self, ClientTls, ServerTls, TlsError};
use super::uring;

/// What carries a connection.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// Either of these, by io_uring.
    Uring(uring::Socket),
    /// TLS over TCP.
    Tls(Box<TlsStream>),
    /// Any of these that cannot be written to any more.
    Mute(Box<Mute>),
    /// Nothing any more: a TLS handshake has failed.
    Closed,
}

/// A connection whose other side takes nothing any more. What it has sent before can still be read; what is written to it is
/// lost.
#[derive(Debug)]
pub struct Mute {
    stream: Stream,
    /// How much may still be written: the other side is not waited for without end.
    left: usize,
}

/// How much may be written to a connection that takes nothing any more.
const MOST_LOST: usize = 1 << 20;

impl Stream {
    /// Reads what is there. 0 bytes: the other side has closed the connection.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        ready!(match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, &mut buf),
            Self::Uring(socket) => return socket.poll_read(cx, buf.initialize_unfilled()),
            Self::Tls(stream) => return stream.poll_read(cx, buf.initialize_unfilled()),
            Self::Mute(mute) => return mute.stream.poll_read(cx, buf.initialize_unfilled()),
            Self::Closed => return Poll::Ready(Ok(0)),
        })?;
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Ready when the other side has closed the connection; takes nothing of what it may have sent. TCP only, and only
    /// as long as nothing was sent.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let stream = match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.tcp(),
            Self::Unix(_) | Self::Uring(_) | Self::Mute(_) | Self::Closed => return Poll::Pending,
        };
        match stream.poll_peek(cx, &mut ReadBuf::new(&mut [0])) {
            Poll::Ready(Ok(n)) if n > 0 => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Writes as much as the socket takes. As long as it is pending it must be called again with the same bytes, to
    /// which others may have been added: TLS may have encrypted some of them already.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Uring(socket) => socket.poll_write(cx, buf),
            Self::Tls(stream) => stream.poll_write(cx, buf),
            Self::Mute(mute) => Poll::Ready(mute.lose(buf.len())),
            Self::Closed => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// It cannot be written to any more. Only the first time: `false` if that was known.
    pub fn mute(&mut self) -> bool {
        let is_new = !matches!(self, Self::Mute(_));
        if is_new {
            let stream = std::mem::replace(self, Self::Closed);
            *self = Self::Mute(Box::new(Mute { stream, left: MOST_LOST }));
        }
        is_new
    }

    /// The TCP connection, if that and nothing else is what carries this.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Tls(stream) => Some(stream.tcp()),
            Self::Unix(_) | Self::Uring(_) | Self::Mute(_) | Self::Closed => None,
        }
    }

    /// Whether all there is to know of the connection is in the socket itself: another process could go on with it.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Unix(_) | Self::Uring(_))
    }

    /// From now on it is for io_uring, if that can be: if the calling thread has a ring, and this is no TLS connection.
    #[inline]
    pub fn use_uring(&mut self) {
        if matches!(self, Self::Tcp(_) | Self::Unix(_)) && uring::is_here() {
            *self = match std::mem::replace(self, Self::Closed).into_descriptor() {
                Ok(socket) => Self::Uring(uring::Socket::new(socket)),
                Err(_) => Self::Closed,
            };
        }
    }

    /// Takes it from the runtime of the calling thread.
    fn into_descriptor(self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(Into::into),
            Self::Unix(stream) => stream.into_std().map(Into::into),
            Self::Uring(_) | Self::Tls(_) | Self::Mute(_) | Self::Closed => {
                Err(io::ErrorKind::Unsupported.into())
            }
        }
    }

    /// Nothing of it is under way in the calling thread any more: another one, or another process, may go on with it. `false`
    /// if that cannot be.
    #[inline]
    pub fn rest(&mut self) -> bool {
        match self {
            Self::Uring(socket) => socket.rest(),
            Self::Mute(mute) => mute.stream.rest(),
            _ => true,
        }
    }

    /// Shakes hands with a client that wants TLS and has sent `start` already. Says what was agreed upon, in the log's
    /// words.
    pub async fn accept_tls(
        &mut self,
        tls: &ClientTls,
        start: &[u8],
        direct: bool,
    ) -> Result<String, TlsError> {
        let stream = tls.accept(self.take_tcp()?, start, direct).await?;
        Ok(self.become_tls(stream))
    }

    /// Shakes hands with the server `host`, which has agreed to TLS.
    pub async fn connect_tls(&mut self, tls: &ServerTls, host: &str) -> Result<String, TlsError> {
        let stream = tls.connect(self.take_tcp()?, host).await?;
        Ok(self.become_tls(stream))
    }

    fn take_tcp(&mut self) -> Result<TcpStream, TlsError> {
        match std::mem::replace(self, Self::Closed) {
            Self::Tcp(stream) => Ok(stream),
            _ => Err(TlsError::not_tcp()),
        }
    }

    fn become_tls(&mut self, stream: TlsStream) -> String {
        let description = tls::describe(stream.state());
        *self = Self::Tls(Box::new(stream));
        description
    }

    /// The certificate of the other side, if it has shown one.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Tls(stream) => stream.peer_certificate(),
            _ => None,
        }
    }

    /// Whether it was read dry, and it takes a system call to see whether something has come since.
    #[inline]
    pub fn must_be_asked(&self) -> bool {
        matches!(self, Self::Uring(socket) if socket.is_dry())
    }

    /// Whether something has come that only this process can know of, at rest.
    pub fn has_early(&self) -> bool {
        matches!(self, Self::Uring(socket) if socket.has_early())
    }

    /// Takes that.
    pub fn take_early(&mut self, to: &mut Vec<u8>) {
        if let Self::Uring(socket) = self {
            to.append(&mut socket.take_early());
        }
    }

    /// Reads what is there without waiting. Costs no system call unless the runtime has seen an event, or it
    /// [must be asked](Self::must_be_asked).
    pub fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buf),
            Self::Unix(stream) => stream.try_read(buf),
            Self::Uring(socket) => socket.try_read(buf),
            Self::Tls(stream) => stream.try_read(buf),
            Self::Mute(mute) => mute.stream.try_read(buf),
            Self::Closed => Ok(0),
        }
    }

    /// Reads what is there, at least one byte unless the other side has closed the connection.
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// Fills the buffer.
    pub async fn read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.read(&mut buf[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => filled += n,
            }
        }
        Ok(())
    }

    /// Writes everything.
    pub async fn write_all(&mut self, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            let n = std::future::poll_fn(|cx| self.poll_write(cx, buf)).await?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            buf = &buf[n..];
        }
        Ok(())
    }
}

impl Mute {
    fn lose(&mut self, len: usize) -> io::Result<usize> {
        self.left = self.left.checked_sub(len).ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn what_is_written_to_a_mute_connection_is_lost_up_to_a_limit() {
        let mut stream = Stream::Closed;
        assert!(stream.mute());
        assert!(!stream.mute());
        let cx = &mut Context::from_waker(Waker::noop());
        let mut lost = 0;
        while let Poll::Ready(Ok(n)) = stream.poll_write(cx, &[0; 1000]) {
            lost += n;
        }
        assert!(lost <= MOST_LOST && lost > MOST_LOST - 1000, "{lost}");
        assert!(matches!(stream.poll_read(cx, &mut [0]), Poll::Ready(Ok(0))));
    }
}
