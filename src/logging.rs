//! The log: one line per event in PgBouncer's format, `2026-01-31 12:00:00.000 UTC [1234] LOG …`, or a JSON object; and
//! the same to syslog.
//!
//! Each line goes out with one `write`, at once: who reads the log must not see an answer before the line that
//! explains it.

mod syslog;

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use parking_lot::Mutex;
use syslog::{Severity, Syslog};
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::clock;
use crate::config::Settings;
use crate::config::value::LogFormat;

static LOG: Log = Log {
    verbosity: AtomicU32::new(0),
    json: AtomicBool::new(false),
    stderr: AtomicBool::new(true),
    file: Mutex::new(None),
    syslog: Mutex::new(None),
};

struct Log {
    verbosity: AtomicU32,
    json: AtomicBool,
    stderr: AtomicBool,
    file: Mutex<Option<(PathBuf, File)>>,
    syslog: Mutex<Option<Syslog>>,
}

/// Starts logging, to standard error.
pub fn start() {
    // Fails only if it has been done before.
    let _ = tracing::subscriber::set_global_default(PgbouncerLines);
}

/// How much is logged: 0 is PgBouncer's LOG and above, 1 DEBUG, 2 and more NOISE.
pub fn set_verbosity(verbosity: u32) {
    if LOG.verbosity.swap(verbosity, Relaxed) != verbosity {
        tracing::callsite::rebuild_interest_cache();
    }
}

/// Whether lines go to standard error.
pub fn set_stderr(on: bool) {
    LOG.stderr.store(on, Relaxed);
}

/// The form of lines.
pub fn set_format(format: LogFormat) {
    LOG.json.store(format == LogFormat::Json, Relaxed);
}

/// Logs to a file; an empty path ends that. Opens it anew if it is the same one: it may have been moved away.
pub fn set_file(path: &str) -> std::io::Result<()> {
    let opened = if path.is_empty() {
        None
    } else {
        let path = PathBuf::from(path);
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        Some((path, file))
    };
    *LOG.file.lock() = opened;
    Ok(())
}

/// Logs to syslog, or no longer, as `syslog`, `syslog_facility` and `syslog_ident` say.
pub fn set_syslog(settings: &Settings) {
    let (facility, ident) = (&settings.syslog_facility, &settings.syslog_ident);
    *LOG.syslog.lock() = settings.syslog.then(|| Syslog::new(syslog::SOCKET, facility, ident));
}

struct PgbouncerLines;

impl PgbouncerLines {
    fn limit() -> Level {
        match LOG.verbosity.load(Relaxed) {
            0 => Level::INFO,
            1 => Level::DEBUG,
            _ => Level::TRACE,
        }
    }
}

impl Subscriber for PgbouncerLines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries that log have nothing to say to operators.
        *metadata.level() <= Self::limit() && metadata.target().starts_with("pgweir")
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(Self::limit().into())
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message::default();
        event.record(&mut message);
        // What is logged only on request is not for syslog, as in PgBouncer.
        let (level, severity) = match *event.metadata().level() {
            Level::ERROR if message.fatal => ("FATAL", Some(Severity::Critical)),
            Level::ERROR => ("ERROR", Some(Severity::Error)),
            Level::WARN => ("WARNING", Some(Severity::Warning)),
            Level::INFO => ("LOG", Some(Severity::Informational)),
            Level::DEBUG => ("DEBUG", None),
            Level::TRACE => ("NOISE", None),
        };
        emit(level, &message.text);
        if let Some(severity) = severity {
            emit_to_syslog(severity, &message.text);
        }
    }

    // There are no spans.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Message {
    text: String,
    fatal: bool,
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.text, "{value:?}");
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fatal |= field.name() == "fatal" && value;
    }
}

fn emit(level: &str, text: &str) {
    let time = clock::local_time_millis();
    let pid = std::process::id();
    let mut line = String::with_capacity(text.len() + 64);
    if LOG.json.load(Relaxed) {
        let _ = write!(line, "{{\"time\":\"{time}\",\"pid\":{pid},\"level\":\"{level}\",\"message\":\"");
        escape_json(&mut line, text);
        line.push_str("\"}\n");
    } else {
        let _ = write!(line, "{time} [{pid}] {level} ");
        escape_lines(&mut line, text);
        line.push('\n');
    }
    if let Some((_, file)) = &mut *LOG.file.lock() {
        let _ = file.write_all(line.as_bytes());
    }
    if LOG.stderr.load(Relaxed) {
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

fn emit_to_syslog(severity: Severity, text: &str) {
    if let Some(syslog) = &mut *LOG.syslog.lock() {
        let mut line = String::with_capacity(text.len());
        escape_lines(&mut line, text);
        syslog.send(severity, &line);
    }
}

/// What clients send must not look like lines of ours.
fn escape_lines(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\n\t"),
            c if c.is_control() && c != '\t' => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            other => out.push(other),
        }
    }
}

fn escape_json(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_forge_a_line() {
        let mut line = String::new();
        escape_lines(&mut line, "a\r\nb\u{1b}[1m\tc");
        assert_eq!(line, "a\\x0d\n\tb\\x1b[1m\tc");
        let mut json = String::new();
        escape_json(&mut json, "\"\\\n\u{1}é");
        assert_eq!(json, "\\\"\\\\\\n\\u0001é");
    }
}
