//! `pgweir healthcheck`: for containers that have no shell and no client programs.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::Fatal;
use crate::config::Config;

const LIMIT: Duration = Duration::from_secs(2);

/// Succeeds if the pooler that runs with this configuration serves: by `/readyz` where there is an HTTP listener, else
/// by asking as `pg_isready` does.
pub(super) fn run(config: &Config) -> Result<(), Fatal> {
    let s = &config.settings;
    if s.http_port != 0 {
        let answer =
            ask(&s.http_listen_addr, s.http_port, b"GET /readyz HTTP/1.1\r\nHost: pgweir\r\n\r\n", 12)?;
        return if answer == b"HTTP/1.1 200" { Ok(()) } else { Err("not ready".into()) };
    }
    // SSLRequest: every PostgreSQL server answers with one byte.
    let answer = ask(&s.listen_addr, s.listen_port, &[0, 0, 0, 8, 4, 210, 22, 47], 1)?;
    if matches!(answer.as_slice(), b"N" | b"S") { Ok(()) } else { Err("no answer".into()) }
}

fn ask(listen_addr: &str, port: u16, question: &[u8], answer: usize) -> Result<Vec<u8>, Fatal> {
    let host = match listen_addr.split(',').next().unwrap_or_default().trim() {
        "" | "*" | "0.0.0.0" | "::" => "127.0.0.1",
        host => host,
    };
    let failed = |error: std::io::Error| format!("{host}:{port}: {error}");
    let address = (host, port)
        .to_socket_addrs()
        .map_err(failed)?
        .next()
        .ok_or_else(|| format!("{host}: no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).map_err(failed)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(failed)?;
    stream.write_all(question).map_err(failed)?;
    let mut bytes = vec![0; answer];
    stream.read_exact(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
