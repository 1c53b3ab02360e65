//! `pg_isready`: PostgreSQL's health check, for probes that call it. The image has no client programs; called by this
//! name, pgweir asks as the original does, prints its words and ends with its exit codes.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::ToSocketAddrs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::healthcheck::{Socket, reachable};
use crate::admin::show::VERSION;
use crate::clock;
use crate::config::{Settings, connstr, url};
use crate::error::sqlstate;
use crate::wire::{backend, frame, write};

const NAME: &str = "pg_isready";
/// The original's.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);
const DEFAULT_PORT: u16 = 5432;
/// Bytes to be read of an answer at most. What decides comes first.
const LONGEST_ANSWER: usize = 64 * 1024;
const HELP: &str = "\
pg_isready issues a connection check to a PostgreSQL database or a pooler.

Usage:
  pg_isready [OPTION]...

Options:
  -d, --dbname=DBNAME      database name
  -q, --quiet              run quietly
  -V, --version            output version information, then exit
  -?, --help               show this help, then exit

Connection options:
  -h, --host=HOSTNAME      database server host or socket directory
  -p, --port=PORT          database server port
  -t, --timeout=SECS       seconds to wait when attempting connection,
                           0 disables (default: 3)
  -U, --username=USERNAME  user name to connect as

Without a host, or with one of this machine and no port, the pooler is asked
that runs with the configuration of this machine.
";

/// What libpq's PQping tells; the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ping {
    Accepting = 0,
    Rejecting = 1,
    NoResponse = 2,
    NoAttempt = 3,
}

impl Ping {
    fn text(self) -> &'static str {
        match self {
            Self::Accepting => "accepting connections",
            Self::Rejecting => "rejecting connections",
            Self::NoResponse => "no response",
            Self::NoAttempt => "no attempt",
        }
    }
}

/// Is the program called by this name?
pub(super) fn is_name(called: Option<&OsString>) -> bool {
    called.is_some_and(|called| Path::new(called).file_name().is_some_and(|name| name == NAME))
}

/// Asks, tells and ends as `pg_isready` does. `pooler`: the settings of the one of this machine.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "what was asked for on the command line")]
pub(super) fn run(
    arguments: impl IntoIterator<Item = OsString>,
    pooler: impl FnOnce() -> Option<Settings>,
) -> ExitCode {
    let question = match Question::parse(arguments, |name| std::env::var(name).ok()) {
        Ok(Asked::Question(question)) => question,
        Ok(Asked::Help) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Asked::Version) => {
            println!("{NAME} ({VERSION})");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{NAME}: error: {error}\n{NAME}: hint: Try \"{NAME} --help\" for more information.");
            return ExitCode::from(Ping::NoAttempt as u8);
        }
    };
    let settings = if question.is_local() { pooler() } else { None };
    let (place, ping) = question.ask(settings.as_ref());
    if !question.quiet {
        println!("{place} - {}", ping.text());
    }
    ExitCode::from(ping as u8)
}

enum Asked {
    Question(Question),
    Help,
    Version,
}

/// The command line and the environment, as they are given.
#[derive(Debug, Default, PartialEq, Eq)]
struct Question {
    host: Option<String>,
    port: Option<String>,
    user: Option<String>,
    database: Option<String>,
    /// `None`: as long as it takes.
    timeout: Option<Duration>,
    quiet: bool,
}

impl Question {
    fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Asked, String> {
        use lexopt::Arg::{Long, Short};
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut question = Self {
            host: variable("PGHOSTADDR").or_else(|| variable("PGHOST")),
            port: variable("PGPORT"),
            user: variable("PGUSER"),
            database: variable("PGDATABASE"),
            timeout: Some(DEFAULT_TIMEOUT),
            quiet: false,
        };
        let mut connect = None;
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
            match argument {
                Short('h') | Long("host") => question.host = Some(value(&mut parser)?),
                Short('p') | Long("port") => question.port = Some(value(&mut parser)?),
                Short('U') | Long("username") => question.user = Some(value(&mut parser)?),
                Short('d') | Long("dbname") => connect = Some(value(&mut parser)?),
                Short('t') | Long("timeout") => question.timeout = seconds(&value(&mut parser)?)?,
                Short('q') | Long("quiet") => question.quiet = true,
                Short('V') | Long("version") => return Ok(Asked::Version),
                Short('?') | Long("help") => return Ok(Asked::Help),
                other => return Err(other.unexpected().to_string()),
            }
        }
        if let Some(connect) = connect {
            question.connect_string(&connect)?;
        }
        Ok(Asked::Question(question))
    }

    /// The name of a database, or a connect string or URL, which then counts.
    fn connect_string(&mut self, text: &str) -> Result<(), String> {
        let pairs = if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            url::url_pairs(text)?
        } else if text.contains('=') {
            connstr::parse(text).map_err(|(_, expected)| expected.to_owned())?
        } else {
            vec![("dbname".to_owned(), text.to_owned())]
        };
        for (key, value) in pairs {
            match &*key {
                "host" | "hostaddr" => self.host = Some(value),
                "port" => self.port = Some(value),
                "user" => self.user = Some(value),
                "dbname" => self.database = Some(value),
                _ => {}
            }
        }
        Ok(())
    }

    /// Is it about this machine, as far as one can tell?
    fn is_local(&self) -> bool {
        let host = self.host.as_deref().unwrap_or_default();
        matches!(host, "" | "localhost" | "127.0.0.1" | "::1") || host.starts_with('/')
    }

    /// One host after the other, as libpq does, until one answers.
    fn ask(&self, pooler: Option<&Settings>) -> (String, Ping) {
        let hosts = self.host.as_deref().filter(|host| !host.is_empty());
        let hosts = hosts.unwrap_or_else(|| pooler.map_or("localhost", reachable));
        let default_port = pooler.map_or(DEFAULT_PORT, |settings| settings.listen_port).to_string();
        let ports: Vec<&str> = self.port.as_deref().unwrap_or(&default_port).split(',').collect();
        let place = format!("{hosts}:{}", ports.join(","));
        if ports.len() > 1 && ports.len() != hosts.split(',').count() {
            return (place, Ping::NoAttempt);
        }
        let mut found = Ping::NoResponse;
        for (host, port) in hosts.split(',').zip(ports.iter().cycle()) {
            let port = if port.is_empty() { Ok(DEFAULT_PORT) } else { port.trim().parse() };
            found = port.map_or(Ping::NoResponse, |port| self.ping(host.trim(), port));
            if found == Ping::Accepting {
                break;
            }
        }
        (place, found)
    }

    fn ping(&self, host: &str, port: u16) -> Ping {
        if host.starts_with('/') {
            let answer = Socket::unix(host, port).and_then(|socket| self.converse(socket));
            return answer.unwrap_or(Ping::NoResponse);
        }
        let Ok(addresses) = (host, port).to_socket_addrs() else { return Ping::NoResponse };
        for address in addresses {
            let answer = Socket::tcp(&address, self.timeout).and_then(|socket| self.converse(socket));
            if let Ok(ping) = answer {
                return ping;
            }
        }
        Ping::NoResponse
    }

    /// Begins a session, for which nothing but the first answer is of interest.
    fn converse(&self, mut socket: Socket) -> io::Result<Ping> {
        let deadline = self.timeout.map(|timeout| clock::now() + timeout);
        let user = self.user.as_deref().unwrap_or("postgres");
        let parameters = [
            ("user", user),
            ("database", self.database.as_deref().unwrap_or(user)),
            ("application_name", NAME),
        ];
        let mut startup = Vec::new();
        write::startup(&mut startup, parameters.map(|(key, value)| (key.as_bytes(), value.as_bytes())));
        socket.write_all(&startup)?;
        let mut answer = Vec::new();
        let mut chunk = [0; 1024];
        while answer.len() < LONGEST_ANSWER {
            if let Some(ping) = judge(&answer) {
                return Ok(ping);
            }
            let left = deadline.map(|deadline| deadline.since(clock::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            socket.set_read_timeout(left)?;
            match socket.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => answer.extend(&chunk[..n]),
            }
        }
        Ok(Ping::NoResponse)
    }
}

/// A server that asks for a password is up, and so is one that refuses for any reason but that it is starting or
/// stopping. `None`: more has to be read.
fn judge(mut answer: &[u8]) -> Option<Ping> {
    loop {
        let Ok(found) = frame::peek(answer) else { return Some(Ping::NoResponse) };
        let frame = found?;
        match frame.tag {
            b'R' => return Some(Ping::Accepting),
            b'E' | b'N' | b'v' if !frame.is_complete() => return None,
            b'E' => {
                return Some(match backend::error_fields(frame.body).sqlstate {
                    code if code == sqlstate::CANNOT_CONNECT_NOW.as_bytes() => Ping::Rejecting,
                    code if code.len() == 5 => Ping::Accepting,
                    _ => Ping::NoResponse,
                });
            }
            b'N' | b'v' => answer = &answer[frame.len..],
            _ => return Some(Ping::NoResponse),
        }
    }
}

fn value(parser: &mut lexopt::Parser) -> Result<String, String> {
    let value = parser.value().map_err(|error| error.to_string())?;
    value.into_string().map_err(|_| "a value is not UTF-8".to_owned())
}

fn seconds(text: &str) -> Result<Option<Duration>, String> {
    let seconds: u32 = text.trim().parse().map_err(|_| format!("invalid timeout \"{text}\""))?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(line: &str, variables: &[(&str, &str)]) -> Result<Question, String> {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        match Question::parse(line.split(' ').filter(|word| !word.is_empty()).map(OsString::from), variable) {
            Ok(Asked::Question(question)) => Ok(question),
            Ok(_) => Err("no question".into()),
            Err(error) => Err(error),
        }
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_command_line_counts_before_the_environment() {
        let variables = [("PGHOST", "a"), ("PGPORT", "1"), ("PGUSER", "u"), ("PGDATABASE", "")];
        let expected = Question {
            host: some("a"),
            port: some("1"),
            user: some("u"),
            timeout: Some(DEFAULT_TIMEOUT),
            ..Question::default()
        };
        assert_eq!(question("", &variables), Ok(expected));
        let expected = Question {
            host: some("b"),
            port: some("2"),
            user: some("v"),
            database: some("d"),
            timeout: None,
            quiet: true,
        };
        for line in [
            "-q -h b -p2 -U v -d d -t 0",
            "--quiet --host=b --port 2 --username=v --dbname=d --timeout=0",
            "-q -t0 -d postgres://v:secret@b:2/d?sslmode=require",
            "-q -t0 -d host=b port=2 user=v dbname=d",
        ] {
            // The last one is one argument.
            let line = line.replace(" port=2 user=v dbname=d", "\u{a0}port=2\u{a0}user=v\u{a0}dbname=d");
            let words = line.split(' ').map(|word| OsString::from(word.replace('\u{a0}', " ")));
            let variable =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).into());
            let Ok(Asked::Question(found)) = Question::parse(words, variable) else { panic!("{line}") };
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn mistakes_make_no_attempt() {
        for line in ["-x", "name", "-h", "-t soon", "-d postgres://", "-d =x"] {
            assert!(question(line, &[]).is_err(), "{line}");
        }
        let (_, ping) = question("-h a,b,c -p 1,2", &[]).unwrap().ask(None);
        assert_eq!(ping, Ping::NoAttempt);
    }

    #[test]
    fn the_pooler_of_this_machine_is_asked_by_default() {
        let settings = Settings { listen_addr: "*".into(), listen_port: 1, ..Settings::default() };
        let place = |line: &str| question(line, &[]).unwrap().ask(Some(&settings)).0;
        assert_eq!(place(""), "127.0.0.1:1");
        assert_eq!(place("-h localhost"), "localhost:1");
        assert_eq!(place("-h /nowhere -p 2"), "/nowhere:2");
        assert_eq!(question("", &[]).unwrap().ask(None).0, "localhost:5432");
        assert!(question("-h localhost", &[]).unwrap().is_local());
        assert!(!question("-h db.example", &[]).unwrap().is_local());
    }

    #[test]
    fn answers() {
        let error = |code: &str| {
            let mut bytes = Vec::new();
            write::notice(&mut bytes, "just so");
            write::frame(&mut bytes, b'E', |body| {
                body.extend(b"SFATAL\0C");
                write::cstr(body, code.as_bytes());
                body.push(0);
            });
            bytes
        };
        let mut password = Vec::new();
        write::authentication(&mut password, 3, b"");
        for (bytes, expected) in [
            (password, Some(Ping::Accepting)),
            (error("28P01"), Some(Ping::Accepting)),
            (error("57P03"), Some(Ping::Rejecting)),
            (error("57P"), Some(Ping::NoResponse)),
            (error("57P03")[..20].to_vec(), None),
            (b"HTTP/1.1 400 Bad Request".to_vec(), Some(Ping::NoResponse)),
            (b"R\0\0\0\0".to_vec(), Some(Ping::NoResponse)),
            (b"".to_vec(), None),
        ] {
            assert_eq!(judge(&bytes), expected, "{bytes:?}");
        }
    }
}
