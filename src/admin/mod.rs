//! The console: the database `pgbouncer`, where SHOW tells what is going on and a few commands change it.
//!
//! `parse` reads a command, [`show`] answers SHOW, `command` does the rest. Simple query protocol. [`http`] serves
//! the same figures to Prometheus, and probes to Kubernetes.

mod command;
pub mod http;
mod parse;
mod prometheus;
pub mod show;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::clock;
use crate::error::{Refusal, sqlstate};
use crate::net::stream::Stream;
use crate::pool::limits::Permit;
use crate::proxy::info::{ClientInfo, ClientState};
use crate::proxy::login::ConsoleLogin;
use crate::proxy::shared::Shared;
use crate::wire::{frame, frontend, write};
use parse::Command;

/// Longest message a console client may send.
const MAX_MESSAGE: usize = 64 * 1024;
/// What a client is told of the "server": drivers look at some of these.
const PARAMETERS: &[(&str, &str)] = &[
    ("server_version", concat!(env!("CARGO_PKG_VERSION"), "/pgweir")),
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("TimeZone", "GMT"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "on"),
    ("integer_datetimes", "on"),
];

/// Serves a console session until it ends.
pub fn serve(shared: Arc<Shared>, login: ConsoleLogin) -> Pin<Box<dyn Future<Output = ()>>> {
    let ConsoleLogin { stream, info, is_admin, greeting, permits } = login;
    Box::pin(Console { shared, stream, info, is_admin, greeting, _permits: permits }.run())
}

/// Somebody at the console.
struct Console {
    shared: Arc<Shared>,
    stream: Stream,
    info: Arc<ClientInfo>,
    /// Otherwise it may only look.
    is_admin: bool,
    greeting: Vec<u8>,
    _permits: [Permit; 2],
}

impl Console {
    async fn run(mut self) {
        self.shared.console.logins.fetch_add(1, Relaxed);
        let reason = match self.serve().await {
            Ok(()) => "client close request",
            Err(_) => "client unexpected eof",
        };
        self.shared.clients.remove(&self.info.key.pid);
        self.shared.log_client_close(&self.info, reason);
    }

    async fn serve(&mut self) -> std::io::Result<()> {
        let mut out = std::mem::take(&mut self.greeting);
        write::authentication(&mut out, 0, &[]);
        for (name, value) in PARAMETERS {
            write::parameter_status(&mut out, name.as_bytes(), value.as_bytes());
        }
        write::backend_key_data(&mut out, &self.info.key);
        write::ready_for_query(&mut out, b'I');
        self.stream.write_all(&out).await?;
        let mut message = Vec::new();
        loop {
            self.stream.read_frame(&mut message, MAX_MESSAGE).await?;
            let body = &message[frame::HEADER..];
            out.clear();
            match message[0] {
                b'Q' => {
                    self.info.requested.set(clock::now());
                    self.info.set_state(ClientState::Active);
                    self.shared.console.queries.fetch_add(1, Relaxed);
                    let text = String::from_utf8_lossy(frontend::text(body)).into_owned();
                    self.query(&text, &mut out).await;
                    self.info.set_state(ClientState::Idle);
                }
                b'X' => return Ok(()),
                b'S' => write::ready_for_query(&mut out, b'I'),
                b'P' | b'B' | b'D' | b'E' | b'C' | b'H' => {
                    let refusal = Refusal::new(
                        sqlstate::NOT_SUPPORTED,
                        "the console speaks the simple query protocol only",
                    )
                    .hint("psql does; with JDBC use preferQueryMode=simple.");
                    write::error(&mut out, &refusal);
                    self.skip_to_sync(&mut message).await?;
                    write::ready_for_query(&mut out, b'I');
                }
                other => {
                    write::fatal(
                        &mut out,
                        &Refusal::protocol(format!("unexpected message {:?}", char::from(other))),
                    );
                    return self.stream.write_all(&out).await;
                }
            }
            self.stream.write_all(&out).await?;
        }
    }

    async fn skip_to_sync(&mut self, message: &mut Vec<u8>) -> std::io::Result<()> {
        while message[0] != b'S' {
            self.stream.read_frame(message, MAX_MESSAGE).await?;
        }
        Ok(())
    }

    async fn query(&self, text: &str, out: &mut Vec<u8>) {
        let statements: Vec<&str> = parse::split(text);
        if statements.is_empty() {
            write::frame(out, b'I', |_| {});
        }
        for statement in statements {
            tracing::debug!("{} console command: {statement}", self.info);
            let result = match parse::parse(statement) {
                Ok(command) => self.execute(command, out).await,
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = result {
                write::error(out, &refusal);
                break;
            }
        }
        write::ready_for_query(out, b'I');
    }

    async fn execute(&self, command: Command, out: &mut Vec<u8>) -> Result<(), Refusal> {
        if !self.is_admin && !command.is_harmless() {
            return Err(Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, "admin access needed")
                .detail("stats_users may only look; admin_users may do everything."));
        }
        match command {
            Command::Show(what) => show::answer(&self.shared, &what, out),
            other => command::execute(&self.shared, other, out).await,
        }
    }
}
