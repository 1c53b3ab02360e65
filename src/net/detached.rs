//! A connection that no runtime knows: on its way to another thread, or from another process.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::listener::{Peer, is_unix};
use super::stream::Stream;

/// An accepted connection on its way to another thread, whose runtime will be another.
#[derive(Debug)]
pub enum Detached {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

impl Detached {
    /// Takes a connection from the runtime of the calling thread.
    pub fn from(stream: Stream) -> io::Result<Self> {
        match stream {
            Stream::Tcp(stream) => stream.into_std().map(Self::Tcp),
            Stream::Unix(stream) => stream.into_std().map(Self::Unix),
            Stream::Uring(socket) => socket.into_fd().map(Self::from_descriptor),
            Stream::Tls(_) | Stream::Mute(_) | Stream::Closed => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// One that another process had.
    pub fn from_descriptor(socket: OwnedFd) -> Self {
        if is_unix(&socket) { Self::Unix(socket.into()) } else { Self::Tcp(socket.into()) }
    }

    /// Where it comes from. `listen_port`: what to call the port of a Unix socket.
    pub fn peer(&self, listen_port: u16) -> io::Result<Peer> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map(Peer::Tcp),
            Self::Unix(stream) => {
                let cred = nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerCredentials)?;
                Ok(Peer::Unix { pid: cred.pid(), uid: cred.uid(), port: listen_port })
            }
        }
    }

    /// The other end, if it is TCP.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// This process's end, if it is TCP.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Makes it one of the calling thread's.
    pub fn adopt(self) -> io::Result<Stream> {
        match self {
            Self::Tcp(stream) => tokio::net::TcpStream::from_std(stream).map(Stream::Tcp),
            Self::Unix(stream) => tokio::net::UnixStream::from_std(stream).map(Stream::Unix),
        }
    }
}

impl From<Detached> for OwnedFd {
    fn from(socket: Detached) -> Self {
        match socket {
            Detached::Tcp(stream) => stream.into(),
            Detached::Unix(stream) => stream.into(),
        }
    }
}

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}
