//! The command line: PgBouncer's options.

use std::ffi::OsString;
use std::path::PathBuf;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the pooler.
    Run(Options),
    /// Ask a running pooler whether it serves; the file tells where it listens.
    Healthcheck(Option<PathBuf>),
    /// Show the version.
    Version,
    /// Show the usage.
    Help,
}

/// Options of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-d`: run in the background.
    pub daemon: bool,
    /// `-q`: nothing on standard error.
    pub quiet: bool,
    /// `-v`, each adds to it.
    pub verbose: u32,
    /// `-R`: take over from a running process.
    pub reboot: bool,
    /// `-u`: user to become.
    pub user: Option<String>,
    /// The configuration; without it the environment, or else the file at the usual place.
    pub file: Option<PathBuf>,
}

/// The usage.
pub const HELP: &str = "\
pgweir is a connection pooler for PostgreSQL.

Usage:
  pgweir [OPTION]... [CONFIG_FILE]
  pgweir healthcheck [CONFIG_FILE]

CONFIG_FILE is a pgbouncer.ini, or the same settings as a .toml file. Without
it the environment is read: a server from DATABASE_URL
(postgres://user:password@host:port/database), settings from
PGBOUNCER_<SETTING>. If it names no server /etc/pgbouncer/pgbouncer.ini is
read.

Options:
  -d, --daemon         run in background (as a daemon)
  -q, --quiet          run quietly
  -R, --reboot         take over from the process that is running
  -u, --user=USERNAME  assume identity of USERNAME
  -v, --verbose        increase verbosity
  -V, --version        show version, then exit
  -h, --help           show this help, then exit

Signals:
  TERM  no new clients, end when the last one has left; a second one: at once
  INT   no new queries, end when no server is in use; a second one: at once
  QUIT  end at once
  HUP   read the configuration again
  USR1  pause; USR2 resume
";

/// Reads the command line, the program's name not included.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, lexopt::Error> {
    use lexopt::Arg::{Long, Short, Value};
    let mut options = Options::default();
    let mut healthcheck = false;
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('d') | Long("daemon") => options.daemon = true,
            Short('q') | Long("quiet") => options.quiet = true,
            Short('R') | Long("reboot") => options.reboot = true,
            Short('v') | Long("verbose") => options.verbose += 1,
            Short('u') | Long("user") => options.user = Some(parser.value()?.to_string_lossy().into_owned()),
            Short('V') | Long("version") => return Ok(Command::Version),
            Short('h') | Long("help") => return Ok(Command::Help),
            Value(word) if word == "healthcheck" && !healthcheck && options == Options::default() => {
                healthcheck = true
            }
            Value(file) if options.file.is_none() => options.file = Some(file.into()),
            other => return Err(other.unexpected()),
        }
    }
    Ok(if healthcheck { Command::Healthcheck(options.file) } else { Command::Run(options) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|e| e.to_string())
    }

    #[test]
    fn pgbouncers_options() {
        let expected = Options {
            daemon: true,
            quiet: true,
            verbose: 2,
            reboot: true,
            user: Some("me".into()),
            file: Some("x.ini".into()),
        };
        assert_eq!(run("-dqvvR -u me x.ini"), Ok(Command::Run(expected.clone())));
        assert_eq!(run("--daemon --quiet --verbose -v --reboot --user=me x.ini"), Ok(Command::Run(expected)));
        assert_eq!(run("-V x.ini"), Ok(Command::Version));
        assert_eq!(run("--help"), Ok(Command::Help));
        assert_eq!(run(""), Ok(Command::Run(Options::default())));
        assert_eq!(run("healthcheck x.ini"), Ok(Command::Healthcheck(Some("x.ini".into()))));
    }

    #[test]
    fn mistakes() {
        for line in ["-x", "--nonsense", "a.ini b.ini", "-u"] {
            assert!(run(line).is_err(), "{line}");
        }
    }
}
