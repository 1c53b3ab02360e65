//! `pgweir healthcheck`: for containers that have no shell and no client programs.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fatal::Fatal;
use crate::cli::{self, Command};
use crate::config::{Config, Settings};

const LIMIT: Duration = Duration::from_secs(2);

/// Succeeds if the pooler that runs with this configuration serves: by `/readyz` where there is an HTTP listener, else
/// by asking whether it speaks TLS, which every PostgreSQL server answers.
pub(super) fn run(config: &Config) -> Result<(), Fatal> {
    let s = &config.settings;
    if s.http_port != 0 {
        let question = b"GET /readyz HTTP/1.1\r\nHost: pgweir\r\n\r\n";
        let answer = ask(dialled(&s.http_listen_addr), s.http_port, question, 12)?;
        return if answer == b"HTTP/1.1 200" { Ok(()) } else { Err("not ready".into()) };
    }
    let answer = ask(reachable(s), s.listen_port, &[0, 0, 0, 8, 4, 210, 22, 47], 1)?;
    if matches!(answer.as_slice(), b"N" | b"S") { Ok(()) } else { Err("no answer".into()) }
}

/// The file that the pooler of this container runs with: there it is process 1, and its command line names the file.
pub(super) fn file_of_process_1() -> Option<PathBuf> {
    file_in(&std::fs::read("/proc/1/cmdline").ok()?)
}

fn file_in(command_line: &[u8]) -> Option<PathBuf> {
    let mut words = command_line.split(|&b| b == 0).map(|word| OsString::from_vec(word.to_vec()));
    let program = words.next()?;
    let name = Path::new(&program).file_name()?;
    if name != "pgweir" && name != "pgbouncer" {
        return None;
    }
    match cli::parse(words.filter(|word| !word.is_empty())) {
        Ok(Command::Run(options)) => options.file,
        _ => None,
    }
}

/// Where clients of this machine reach the pooler: a host, or the directory of its Unix socket.
pub(super) fn reachable(s: &Settings) -> &str {
    if s.listen_addr.is_empty() && !s.unix_socket_dir.is_empty() {
        &s.unix_socket_dir
    } else {
        dialled(&s.listen_addr)
    }
}

fn dialled(listen_addr: &str) -> &str {
    match listen_addr.split(',').next().unwrap_or_default().trim() {
        "" | "*" | "0.0.0.0" | "::" => "127.0.0.1",
        host => host,
    }
}

fn ask(host: &str, port: u16, question: &[u8], answer: usize) -> Result<Vec<u8>, Fatal> {
    let failed = |error: io::Error| format!("{host}:{port}: {error}");
    let mut socket = if host.starts_with('/') {
        Socket::unix(host, port).map_err(failed)?
    } else {
        let address = (host, port)
            .to_socket_addrs()
            .map_err(failed)?
            .next()
            .ok_or_else(|| format!("{host}: no address"))?;
        Socket::tcp(&address, Some(LIMIT)).map_err(failed)?
    };
    socket.set_read_timeout(Some(LIMIT)).map_err(failed)?;
    socket.write_all(question).map_err(failed)?;
    let mut bytes = vec![0; answer];
    socket.read_exact(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// A connection to a server or pooler, of either kind.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(super) fn tcp(address: &SocketAddr, limit: Option<Duration>) -> io::Result<Self> {
        Ok(Self::Tcp(match limit {
            Some(limit) => TcpStream::connect_timeout(address, limit)?,
            None => TcpStream::connect(address)?,
        }))
    }

    /// By PostgreSQL's name of the socket in this directory.
    pub(super) fn unix(directory: &str, port: u16) -> io::Result<Self> {
        UnixStream::connect(Path::new(directory).join(format!(".s.PGSQL.{port}"))).map(Self::Unix)
    }

    pub(super) fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(limit),
            Self::Unix(stream) => stream.set_read_timeout(limit),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_that_of_the_pooler() {
        for (command_line, expected) in [
            (&b"/usr/bin/pgweir\0/etc/x.toml\0"[..], Some("/etc/x.toml")),
            (b"pgbouncer\0-q\0-u\0me\0x.ini\0", Some("x.ini")),
            (b"/usr/bin/pgweir\0", None),
            (b"/usr/bin/pgweir\0healthcheck\0x.ini\0", None),
            (b"/sbin/init\0x.ini\0", None),
            (b"", None),
        ] {
            assert_eq!(file_in(command_line), expected.map(PathBuf::from), "{command_line:?}");
        }
    }

    #[test]
    fn a_pooler_without_tcp_is_reached_by_its_socket() {
        let mut s = Settings { unix_socket_dir: "/run/pgbouncer".into(), ..Settings::default() };
        assert_eq!(reachable(&s), "/run/pgbouncer");
        s.listen_addr = "0.0.0.0,::".into();
        assert_eq!(reachable(&s), "127.0.0.1");
        s.listen_addr = "10.0.0.1".into();
        assert_eq!(reachable(&s), "10.0.0.1");
    }
}
