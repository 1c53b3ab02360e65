//! Where clients connect.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use nix::libc;
use nix::sys::socket::setsockopt;
use nix::unistd::Gid;
use nix::{setsockopt_impl, sockopt_impl};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::connect::SocketOptions;
use super::stream::Stream;

sockopt_impl!(
    /// Seconds for which the kernel keeps a connection to itself on which nothing has come yet.
    DeferAccept,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_DEFER_ACCEPT,
    libc::c_int
);

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP, and its address.
    Tcp(TcpListener, SocketAddr),
    /// A Unix socket, and the port in its name.
    Unix(UnixListener, u16),
}

/// The file of a Unix socket, removed when dropped, unless a successor has put its own there.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// The file with this path.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        let identity = identity(&path)?;
        Ok(Self { path, identity })
    }

    /// Leaves it to another process.
    pub fn leave(mut self) {
        self.path.clear();
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
        /// `listen_port`, which is part of the socket's name.
        port: u16,
    },
}

/// As log lines name it.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { pid: 0, port, .. } => write!(f, "unix:{port}"),
            Self::Unix { pid, port, .. } => write!(f, "unix({pid}):{port}"),
        }
    }
}

impl Peer {
    /// As `application_name_add_host` writes it: a process ID means something on its own host only.
    pub fn with_host(&self) -> String {
        match self {
            Self::Unix { pid: pid @ 1.., port, .. } => {
                let host = nix::unistd::gethostname().unwrap_or_default();
                format!("unix({pid}@{}):{port}", host.to_string_lossy())
            }
            _ => self.to_string(),
        }
    }
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

/// Listens on a TCP address. Connections get `options` from the listening socket ([`SocketOptions::hand_down`]).
pub fn tcp(
    address: SocketAddr,
    backlog: u32,
    reuse_port: bool,
    options: &SocketOptions,
) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    options.hand_down(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    let listener = TcpListener::from_std(socket.into())?;
    let address = listener.local_addr()?;
    Ok(Listener::Tcp(listener, address))
}

/// Listens on the Unix socket with this name in the abstract namespace, where there are no files and no permissions.
/// `listen_port`: the port in its name.
pub fn abstract_unix(name: &str, listen_port: u16) -> io::Result<Listener> {
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    let listener = std::os::unix::net::UnixListener::bind_addr(&address)?;
    listener.set_nonblocking(true)?;
    Ok(Listener::Unix(UnixListener::from_std(listener)?, listen_port))
}

/// Listens on the Unix socket with this path. A file left over from a process that is gone is replaced; one that somebody
/// listens on is an error, unless this process takes over from that one. `group`: a name or a number; empty leaves it.
/// `listen_port`: the port in its name.
pub fn unix(
    path: &Path,
    listen_port: u16,
    mode: u32,
    group: &str,
    takes_over: bool,
) -> io::Result<(Listener, SocketFile)> {
    if path.exists() {
        if !takes_over && std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "unix socket is in use"));
        }
        std::fs::remove_file(path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    let file = SocketFile::new(path.to_owned())?;
    if !group.is_empty() {
        nix::unistd::chown(path, None, Some(group_id(group)?))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok((Listener::Unix(UnixListener::from_std(listener)?, listen_port), file))
}

fn group_id(group: &str) -> io::Result<Gid> {
    if let Ok(number) = group.parse() {
        return Ok(Gid::from_raw(number));
    }
    let found = nix::unistd::Group::from_name(group)?.map(|group| group.gid);
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no group {group}")))
}

/// What a listening socket listens on: an address and port, or a path, or `@` and an abstract name.
pub fn name(socket: &OwnedFd) -> io::Result<String> {
    let address = SockRef::from(socket).local_addr()?;
    let abstract_name =
        address.as_abstract_namespace().map(|name| format!("@{}", String::from_utf8_lossy(name)));
    let path = address.as_pathname().map(|path| path.display().to_string()).or(abstract_name);
    let other = || address.as_socket().map_or_else(|| "unnamed".to_owned(), |address| address.to_string());
    Ok(path.unwrap_or_else(other))
}

/// Whether a socket is a Unix socket.
pub fn is_unix(socket: &OwnedFd) -> bool {
    SockRef::from(socket).domain().is_ok_and(|domain| domain == Domain::UNIX)
}

/// Has a listening TCP socket give out connections on which something has come; after a second others as well.
pub fn defer_accept(socket: &OwnedFd, on: bool) -> io::Result<()> {
    Ok(setsockopt(socket, DeferAccept, &on.into())?)
}

/// A listening TCP socket that another process has opened.
pub fn inherited_tcp(socket: OwnedFd) -> io::Result<TcpListener> {
    let socket = std::net::TcpListener::from(socket);
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

impl Listener {
    /// Accepts a connection, for the runtime of the calling thread.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Peer)>> {
        match self {
            Self::Tcp(listener, _) => {
                listener.poll_accept(cx).map_ok(|(stream, peer)| (Stream::Tcp(stream), Peer::Tcp(peer)))
            }
            Self::Unix(listener, port) => listener.poll_accept(cx).map(|accepted| {
                let (stream, _) = accepted?;
                let cred = stream.peer_cred()?;
                let peer = Peer::Unix { pid: cred.pid().unwrap_or(0), uid: cred.uid(), port: *port };
                Ok((Stream::Unix(stream), peer))
            }),
        }
    }

    /// One that another process has opened. `listen_port` as for [`unix`].
    pub fn inherited(socket: OwnedFd, listen_port: u16) -> io::Result<Self> {
        if is_unix(&socket) {
            let socket = std::os::unix::net::UnixListener::from(socket);
            socket.set_nonblocking(true)?;
            return Ok(Self::Unix(UnixListener::from_std(socket)?, listen_port));
        }
        let listener = inherited_tcp(socket)?;
        let address = listener.local_addr()?;
        Ok(Self::Tcp(listener, address))
    }

    /// The TCP address it listens on.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(_, address) => Some(*address),
            Self::Unix(..) => None,
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener, _) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_named_as_in_pgbouncers_log() {
        let unix = |pid| Peer::Unix { pid, uid: 0, port: 6432 };
        assert_eq!(Peer::Tcp(([127, 0, 0, 1], 5).into()).to_string(), "127.0.0.1:5");
        assert_eq!(Peer::Tcp("[::1]:5".parse().unwrap()).with_host(), "[::1]:5");
        assert_eq!(unix(7).to_string(), "unix(7):6432");
        assert_eq!(unix(0).with_host(), "unix:6432");
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(unix(7).with_host(), format!("unix(7@{}):6432", host.trim()));
    }

    /// The name is what libpq and PgBouncer make of it: as long as it is, without a NUL byte at its end.
    #[tokio::test]
    async fn abstract_sockets_have_libpqs_names() {
        let (dir, port) = (format!("@pgweir-test-{}", std::process::id()), 6432);
        let name = format!("{}/.s.PGSQL.{port}", &dir[1..]);
        let listener = abstract_unix(&name, port).unwrap();
        let socket = listener.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(super::name(&socket).unwrap(), format!("{dir}/.s.PGSQL.{port}"));
        assert_eq!(abstract_unix(&name, port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let table = std::fs::read_to_string("/proc/net/unix").unwrap();
        assert!(table.lines().any(|line| line.ends_with(&format!(" {dir}/.s.PGSQL.{port}"))), "{table}");
        let target = crate::net::connect::Target { host: dir, port };
        let resolver = crate::net::resolve::Resolver::default();
        let options = SocketOptions::default();
        let connected = crate::net::connect::connect(&target, &options, &resolver);
        let (connected, accepted) =
            tokio::join!(connected, std::future::poll_fn(|cx| listener.poll_accept(cx)));
        assert!(connected.is_ok() && matches!(accepted.unwrap().1, Peer::Unix { port: 6432, .. }));
    }

    #[tokio::test]
    async fn connections_have_the_options_of_their_listening_socket() {
        let options = |keepalive| SocketOptions { keepalive, ..SocketOptions::default() };
        let listener = tcp(([127, 0, 0, 1], 0).into(), 8, false, &options(true)).unwrap();
        for keepalive in [true, false] {
            options(keepalive).hand_down(&listener).unwrap();
            let address = listener.tcp_address().unwrap();
            let _client = tokio::net::TcpStream::connect(address).await.unwrap();
            let (stream, _) = std::future::poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
            let socket = SockRef::from(stream.tcp().unwrap());
            assert!(socket.tcp_nodelay().unwrap());
            assert_eq!(socket.keepalive().unwrap(), keepalive);
        }
    }
}
