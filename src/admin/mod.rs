//! The console: the database `pgbouncer`, where SHOW tells what is going on and a few commands change it.
//!
//! [`parse`] reads a command, [`show`] answers SHOW, [`command`] does the rest. Simple query protocol. [`http`] serves
//! the same figures to Prometheus, and probes to Kubernetes.

mod command;
pub mod http;
mod parse;
mod prometheus;
pub mod show;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::clock;
use crate::error::{Refusal, sqlstate};
use crate::net::listener::Peer;
use crate::net::stream::Stream;
use crate::proxy::info::{AtomicMicros, ClientInfo, ClientState};
use crate::proxy::shared::Shared;
use crate::wire::startup::CancelKey;
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

/// Somebody at the console.
pub struct Console {
    shared: Arc<Shared>,
    stream: Stream,
    info: Arc<ClientInfo>,
    /// Otherwise it may only look.
    is_admin: bool,
    greeting: Vec<u8>,
}

impl Console {
    /// A console session; `greeting` is what the login still has to send.
    #[expect(clippy::too_many_arguments, reason = "each is a different fact about one login")]
    pub fn new(
        shared: Arc<Shared>,
        worker: usize,
        stream: Stream,
        peer: Peer,
        local: Option<SocketAddr>,
        id: u64,
        user: String,
        is_admin: bool,
        greeting: Vec<u8>,
    ) -> Self {
        let pid = loop {
            let pid = u32::from_be_bytes(shared.entropy()) & 0x7fff_ffff;
            if !shared.clients.contains_key(&pid) {
                break pid;
            }
        };
        let info = Arc::new(ClientInfo {
            id,
            key: CancelKey { pid, secret: shared.entropy::<4>().into() },
            database: "pgbouncer".into(),
            user: user.into(),
            peer,
            local,
            connected: clock::now(),
            requested: AtomicMicros::default(),
            waiting_since: AtomicMicros::default(),
            state: AtomicU8::new(ClientState::Idle as u8),
            prepared: 0.into(),
            admin: true,
            link: 0.into(),
            application_name: parking_lot::Mutex::default(),
            attention: false.into(),
            cancelled: false.into(),
            kill: parking_lot::Mutex::new(None),
            deadline: AtomicMicros::default(),
            waker: OnceLock::new(),
        });
        shared.clients.insert(pid, Arc::clone(&info));
        let _ = worker;
        Self { shared, stream, info, is_admin, greeting }
    }

    /// Serves the session until it ends.
    pub async fn run(mut self) {
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
                    let refusal = Refusal::new(sqlstate::NOT_SUPPORTED, "the console speaks the simple query protocol only")
                        .hint("psql does; with JDBC use preferQueryMode=simple.");
                    write::error(&mut out, &refusal);
                    self.skip_to_sync(&mut message).await?;
                    write::ready_for_query(&mut out, b'I');
                }
                other => {
                    write::fatal(&mut out, &Refusal::protocol(format!("unexpected message {:?}", char::from(other))));
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
