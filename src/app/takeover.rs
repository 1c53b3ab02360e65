//! `-R`: takes over from the process that runs with the same configuration. That one is told to let no new clients in
//! and to end when its last client has left; new clients come here. Nobody is disconnected.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::Fatal;
use crate::config::Settings;
use crate::proxy::shared::CONSOLE;
use crate::wire::{backend, frame, write};

const LIMIT: Duration = Duration::from_secs(5);
/// Longest message the console may answer with.
const MAX_MESSAGE: usize = 64 * 1024;

/// Asks the running process to make room, by its console on the Unix socket. Says whether there was one.
pub(super) fn ask_for_room(settings: &Settings) -> Result<bool, Fatal> {
    if settings.unix_socket_dir.is_empty() {
        return Err("online restart (-R) needs the setting unix_socket_dir".into());
    }
    let path = format!("{}/.s.PGSQL.{}", settings.unix_socket_dir, settings.listen_port);
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(false);
        }
        Err(error) => return Err(format!("{path}: {error}")),
    };
    command(stream).map_err(|error| format!("the running process does not make room: {error}"))?;
    Ok(true)
}

fn command(mut stream: UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut out = Vec::new();
    let name = CONSOLE.as_bytes();
    write::startup(&mut out, [(&b"user"[..], name), (&b"database"[..], name)]);
    stream.write_all(&out)?;
    until_ready(&mut stream)?;
    out.clear();
    write::query(&mut out, b"SHUTDOWN WAIT_FOR_CLIENTS");
    stream.write_all(&out)?;
    until_ready(&mut stream)
}

fn until_ready(stream: &mut UnixStream) -> io::Result<()> {
    loop {
        let mut header = [0; frame::HEADER];
        stream.read_exact(&mut header)?;
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidData);
        let len = frame::peek(&header).map_err(invalid)?.map_or(0, |frame| frame.len);
        if !(frame::HEADER..=MAX_MESSAGE).contains(&len) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; len - frame::HEADER];
        stream.read_exact(&mut body)?;
        match header[0] {
            b'Z' => return Ok(()),
            b'E' => return Err(io::Error::other(backend::error_fields(&body).text())),
            b'R' if body != [0; 4] => return Err(io::Error::other("it runs as another user")),
            _ => {}
        }
    }
}
