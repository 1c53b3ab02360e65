//! Where clients connect.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::stream::Stream;

/// A listening socket. A Unix socket's file is removed when it is dropped.
#[derive(Debug)]
pub enum Listener {
    /// TCP, and its address.
    Tcp(TcpListener, SocketAddr),
    /// A Unix socket and the file it lives in.
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket, removed when dropped, unless a successor has put its own there.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: PathBuf) -> io::Result<Self> {
        let identity = identity(&path)?;
        Ok(Self { path, identity })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Where a client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Its address.
    Tcp(SocketAddr),
    /// The process at the other end of a Unix socket.
    Unix {
        /// Process, 0 if unknown.
        pid: i32,
        /// User it runs as.
        uid: u32,
    },
}

/// The addresses that `listen_addr` names.
pub async fn resolve(listen_addr: &str) -> io::Result<Vec<IpAddr>> {
    let mut all = Vec::new();
    for name in listen_addr.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if name == "*" {
            all.extend([IpAddr::from([0u8; 4]), IpAddr::from([0u8; 16])]);
        } else {
            let found = tokio::net::lookup_host((name, 0)).await;
            all.extend(found.map_err(|e| io::Error::new(e.kind(), format!("{name}: {e}")))?.map(|a| a.ip()));
        }
    }
    all.dedup();
    Ok(all)
}

/// Listens on a TCP address.
pub fn tcp(address: SocketAddr, backlog: u32, reuse_port: bool) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    let listener = TcpListener::from_std(socket.into())?;
    let address = listener.local_addr()?;
    Ok(Listener::Tcp(listener, address))
}

/// Listens on the Unix socket for `port` in a directory. A file left over from a process that is gone is
/// replaced; one that somebody listens on is an error, unless this process takes over from that one.
pub fn unix(directory: &Path, port: u16, mode: u32, takes_over: bool) -> io::Result<Listener> {
    let path = directory.join(format!(".s.PGSQL.{port}"));
    if path.exists() {
        if !takes_over && std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "unix socket is in use"));
        }
        std::fs::remove_file(&path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok(Listener::Unix(UnixListener::from_std(listener)?, SocketFile::new(path)?))
}

impl Listener {
    /// Accepts a connection, for the runtime of the calling thread.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Peer)>> {
        match self {
            Self::Tcp(listener, _) => {
                listener.poll_accept(cx).map_ok(|(stream, peer)| (Stream::Tcp(stream), Peer::Tcp(peer)))
            }
            Self::Unix(listener, _) => listener.poll_accept(cx).map(|accepted| {
                let (stream, _) = accepted?;
                let cred = stream.peer_cred()?;
                let peer = Peer::Unix { pid: cred.pid().unwrap_or(0), uid: cred.uid() };
                Ok((Stream::Unix(stream), peer))
            }),
        }
    }

    /// The TCP address it listens on.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(_, address) => Some(*address),
            Self::Unix(..) => None,
        }
    }
}

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
            Stream::Tls(_) | Stream::Closed => Err(io::ErrorKind::Unsupported.into()),
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
