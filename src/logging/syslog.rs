//! Lines to the local syslog, in the form in which syslog(3) sends them: `<PRI>Mmm dd hh:mm:ss ident[pid]: text`.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use crate::clock;

/// Where syslogd listens.
pub(super) const SOCKET: &str = "/dev/log";

/// Longest text: what rsyslog takes by default. The rest of a longer one is left out.
const LONGEST: usize = 8 << 10;

/// The facilities PgBouncer knows, with their numbers (RFC 3164, 4.1.1).
const FACILITIES: &[(&str, u8)] = &[
    ("auth", 4),
    ("authpriv", 10),
    ("daemon", DAEMON),
    ("user", 1),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

/// The facility if another one is unknown.
const DAEMON: u8 = 3;

/// How bad it is that there is something to say (RFC 3164).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Severity {
    Critical = 2,
    Error = 3,
    Warning = 4,
    Informational = 6,
}

/// syslogd, as far as it can be reached.
#[derive(Debug)]
pub(super) struct Syslog {
    path: PathBuf,
    facility: u8,
    ident: String,
    socket: Option<UnixDatagram>,
}

impl Syslog {
    /// Lines for the syslogd that listens at `path`, from the settings `syslog_facility` and `syslog_ident`.
    pub(super) fn new(path: &str, facility: &str, ident: &str) -> Self {
        let known = FACILITIES.iter().find(|(name, _)| *name == facility);
        let facility = known.map_or(DAEMON, |(_, number)| *number);
        Self { path: path.into(), facility, ident: ident.to_owned(), socket: None }
    }

    /// Sends a line. Without a syslogd, or if it does not keep up, the line is lost: nobody waits for it.
    pub(super) fn send(&mut self, severity: Severity, text: &str) {
        let priority = self.facility << 3 | severity as u8;
        let (time, pid) = (clock::local_time_syslog(), std::process::id());
        let mut end = text.len().min(LONGEST);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let line = format!("<{priority}>{time} {}[{pid}]: {}", self.ident, &text[..end]);
        if self.try_send(&line).is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
            // syslogd has been restarted: it listens at another socket with the same path.
            self.socket = None;
            let _ = self.try_send(&line);
        }
    }

    fn try_send(&mut self, line: &str) -> io::Result<()> {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => none.insert(connect(&self.path)?),
        };
        socket.send(line.as_bytes()).map(drop)
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A syslogd.
    fn listen(path: &str) -> UnixDatagram {
        let _ = std::fs::remove_file(path);
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut buf = vec![0; 2 * LONGEST];
        let n = socket.recv(&mut buf).unwrap();
        String::from_utf8(buf[..n].to_vec()).unwrap()
    }

    fn path(name: &str) -> String {
        let name = format!("pgweir-syslog-{}-{name}", std::process::id());
        std::env::temp_dir().join(name).display().to_string()
    }

    #[test]
    fn lines_have_the_form_of_syslog_3() {
        let path = path("form");
        let daemon = listen(&path);
        for (facility, severity, priority) in [
            ("daemon", Severity::Informational, 30),
            ("auth", Severity::Critical, 34),
            ("authpriv", Severity::Error, 83),
            ("user", Severity::Warning, 12),
            ("local0", Severity::Informational, 134),
            ("local7", Severity::Informational, 190),
            // As in PgBouncer: these are none.
            ("LOCAL0", Severity::Informational, 30),
            ("mail", Severity::Informational, 30),
        ] {
            Syslog::new(&path, facility, "pooler").send(severity, "process up");
            let line = received(&daemon);
            let rest = line.strip_prefix(&format!("<{priority}>")).unwrap_or_else(|| panic!("{line}"));
            // "Jan  5 12:00:00 "
            let (time, rest) = rest.split_at(16);
            let is_like = |c: char, like: char| match like {
                'a' => c.is_ascii_alphabetic(),
                ' ' => c == ' ' || c.is_ascii_digit(),
                '0' => c.is_ascii_digit(),
                _ => c == like,
            };
            assert!(time.chars().zip("aaa  0 00:00:00 ".chars()).all(|(c, like)| is_like(c, like)), "{time}");
            assert_eq!(rest, format!("pooler[{}]: process up", std::process::id()));
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_syslogd_that_comes_late_or_is_restarted_gets_what_is_said_from_then_on() {
        let path = path("restart");
        let mut syslog = Syslog::new(&path, "daemon", "pooler");
        syslog.send(Severity::Informational, "nobody hears this");
        let first = listen(&path);
        syslog.send(Severity::Informational, "one");
        assert!(received(&first).ends_with(": one"));
        drop(first);
        syslog.send(Severity::Informational, "nobody hears this either");
        let second = listen(&path);
        syslog.send(Severity::Informational, "two");
        assert!(received(&second).ends_with(": two"));
        // Between two lines.
        drop(second);
        let third = listen(&path);
        syslog.send(Severity::Informational, "three");
        assert!(received(&third).ends_with(": three"));
        std::fs::remove_file(path).unwrap();
    }

    /// Its queue is a few lines long.
    #[test]
    fn a_syslogd_that_does_not_read_holds_nobody_up() {
        let path = path("slow");
        let daemon = listen(&path);
        let mut syslog = Syslog::new(&path, "daemon", "pooler");
        for _ in 0..10_000 {
            syslog.send(Severity::Error, "again");
        }
        let mut heard = 0;
        while daemon.recv(&mut [0; 100]).is_ok() {
            heard += 1;
        }
        assert!((1..10_000).contains(&heard), "{heard}");
        syslog.send(Severity::Error, "it reads again");
        assert!(received(&daemon).ends_with(": it reads again"));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let path = path("long");
        let daemon = listen(&path);
        let text = format!("a{}", "é".repeat(LONGEST));
        Syslog::new(&path, "daemon", "pooler").send(Severity::Error, &text);
        let line = received(&daemon);
        let (_, heard) = line.split_once("]: ").unwrap();
        assert_eq!(heard.len(), LONGEST - 1);
        assert!(text.starts_with(heard));
        std::fs::remove_file(path).unwrap();
    }
}
