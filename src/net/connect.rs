//! Connections to servers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::resolve::Resolver;
use super::stream::Stream;
use crate::config::Settings;

/// Socket settings, from `tcp_keepalive` and its siblings.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketOptions {
    /// `tcp_keepalive`.
    pub keepalive: bool,
    /// `tcp_keepidle`; zero leaves the system's default, as for the next three.
    pub keepidle: Duration,
    /// `tcp_keepintvl`.
    pub keepintvl: Duration,
    /// `tcp_keepcnt`.
    pub keepcnt: u32,
    /// `tcp_user_timeout`.
    pub user_timeout: Duration,
    /// `tcp_socket_buffer`, in bytes.
    pub buffer: usize,
}

impl SocketOptions {
    /// The options that these settings ask for.
    pub fn of(s: &Settings) -> Self {
        Self {
            keepalive: s.tcp_keepalive,
            keepidle: s.tcp_keepidle,
            keepintvl: s.tcp_keepintvl,
            keepcnt: s.tcp_keepcnt,
            user_timeout: s.tcp_user_timeout.0,
            buffer: s.tcp_socket_buffer as usize,
        }
    }

    /// Applies the settings to a TCP connection. Small messages go out at once (TCP_NODELAY).
    pub fn apply(&self, stream: &TcpStream) -> io::Result<()> {
        self.hand_down(stream)?;
        self.apply_to_heir(stream)
    }

    /// Applies to a listening socket what can be taken back there: the kernel hands it down to connections that come in
    /// later, for which it costs no system call any more.
    pub fn hand_down(&self, socket: &impl AsFd) -> io::Result<()> {
        let socket = SockRef::from(socket);
        socket.set_tcp_nodelay(true)?;
        socket.set_keepalive(self.keepalive)
    }

    /// Applies the others to a connection that has those from its listening socket. By default there are none.
    pub fn apply_to_heir(&self, stream: &TcpStream) -> io::Result<()> {
        let socket = SockRef::from(stream);
        let mut keepalive = TcpKeepalive::new();
        if !self.keepidle.is_zero() {
            keepalive = keepalive.with_time(self.keepidle);
        }
        if !self.keepintvl.is_zero() {
            keepalive = keepalive.with_interval(self.keepintvl);
        }
        if self.keepcnt > 0 {
            keepalive = keepalive.with_retries(self.keepcnt);
        }
        let has_times = !self.keepidle.is_zero() || !self.keepintvl.is_zero() || self.keepcnt > 0;
        if self.keepalive && has_times {
            socket.set_tcp_keepalive(&keepalive)?;
        }
        if !self.user_timeout.is_zero() {
            socket.set_tcp_user_timeout(Some(self.user_timeout))?;
        }
        if self.buffer > 0 {
            socket.set_send_buffer_size(self.buffer)?;
            socket.set_recv_buffer_size(self.buffer)?;
        }
        Ok(())
    }
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// A host name, an address, or the directory of a Unix socket (it starts with `/`, or with `@` in the
    /// abstract namespace).
    pub host: String,
    /// Port, also part of a Unix socket's name.
    pub port: u16,
}

impl Target {
    /// Whether this is a Unix socket.
    pub fn is_unix(&self) -> bool {
        self.host.starts_with(['/', '@'])
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_unix() {
            write!(f, "unix:{}", self.port)
        } else if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Connects to a server; tries all addresses of a host name, beginning with another one each time.
pub async fn connect(target: &Target, options: &SocketOptions, resolver: &Resolver) -> io::Result<Stream> {
    if target.host.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "unix socket dir not configured"));
    }
    if target.is_unix() {
        return unix(target).await.map(Stream::Unix);
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "server DNS lookup failed");
    let addresses = resolver.addresses(&target.host, target.port).await.map_err(|error| {
        io::Error::new(io::ErrorKind::NotFound, format!("server DNS lookup failed: {error}"))
    })?;
    for address in addresses {
        match connect_tcp(address, options).await {
            Ok(stream) => return Ok(Stream::Tcp(stream)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Connects to where a connection to this target has led before: a name may have several addresses, or other ones by now.
/// `address`: that connection's other end, if it is TCP.
pub async fn connect_again(
    target: &Target,
    address: Option<SocketAddr>,
    options: &SocketOptions,
    resolver: &Resolver,
) -> io::Result<Stream> {
    match address {
        Some(address) => connect_tcp(address, options).await.map(Stream::Tcp),
        None => connect(target, options, resolver).await,
    }
}

/// Sizes of buffers are set first: they decide about the window that is offered to the other side.
async fn connect_tcp(address: SocketAddr, options: &SocketOptions) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(size) = u32::try_from(options.buffer).ok().filter(|size| *size > 0) {
        socket.set_send_buffer_size(size)?;
        socket.set_recv_buffer_size(size)?;
    }
    let stream = socket.connect(address).await?;
    options.apply(&stream)?;
    Ok(stream)
}

async fn unix(target: &Target) -> io::Result<UnixStream> {
    let path = format!("{}/.s.PGSQL.{}", target.host, target.port);
    match path.strip_prefix('@') {
        None => UnixStream::connect(path).await,
        Some(name) => {
            // The kernel knows an abstract socket by a name that starts with a NUL byte.
            UnixStream::connect(format!("\0{name}")).await
        }
    }
}
