//! Somebody at the console: the connection, and the session that goes on over it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use super::access::{self, Role};
use super::command::{self, Answer};
use super::drivers;
use super::extended::{self, Prepared};
use super::parse::{self, Command};
use super::rows::Rows;
use super::table::{self, Formats};
use crate::clock::{self, Micros};
use crate::error::{Refusal, sqlstate};
use crate::net::stream::Stream;
use crate::pool::limits::Permit;
use crate::proxy::client_handle::{ClientHandle, ClientState};
use crate::proxy::login::ConsoleLogin;
use crate::proxy::shared::{Lifecycle, Shared};
use crate::wire::frame::{self, peek};
use crate::wire::write::Column;
use crate::wire::{frontend, write};

/// Longest message a console client may send; also how much it may send ahead.
const MAX_MESSAGE: usize = 64 * 1024;
/// How much is kept for the client before it is sent.
const MAX_OUT: usize = 16 * 1024;
/// Time after which others have their turn.
const TURN: Duration = Duration::from_millis(1);
/// How long a client may take to read why its session ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub(super) struct Console {
    shared: Arc<Shared>,
    stream: Stream,
    info: Arc<ClientHandle>,
    role: Role,
    /// Bytes from the client that were not dealt with yet.
    input: Vec<u8>,
    /// … and how many before them were.
    taken: usize,
    /// Bytes for the client.
    out: Vec<u8>,
    /// When others last had their turn.
    turn: Micros,
    /// A cancel request has come while the client was slow to take an answer.
    is_cancelled: bool,
    prepared: Prepared,
    in_transaction: bool,
    /// After an error in the extended protocol: nothing is heeded until Sync.
    skipping: bool,
    _permits: [Permit; 2],
}

/// Why a session ends.
enum End {
    /// The client has gone, in one way or another.
    Gone(&'static str),
    /// It is told why.
    Refused(Refusal),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Gone("client unexpected eof")
    }
}

impl Console {
    pub(super) fn new(shared: Arc<Shared>, login: ConsoleLogin) -> Self {
        let ConsoleLogin { stream, received, info, is_admin, greeting, permits } = login;
        Self {
            shared,
            stream,
            info,
            role: if is_admin { Role::Admin } else { Role::Stats },
            input: received,
            taken: 0,
            out: greeting,
            turn: Micros(0),
            is_cancelled: false,
            prepared: Prepared::default(),
            in_transaction: false,
            skipping: false,
            _permits: permits,
        }
    }

    /// Serves the client until it goes.
    pub(super) async fn run(mut self) {
        self.shared.console.logins.fetch_add(1, Relaxed);
        let Err(end) = self.serve().await;
        self.shared.clients.remove(&self.info.key.id());
        let reason = match &end {
            End::Gone(reason) => reason,
            End::Refused(refusal) => refusal.reason(),
        };
        self.shared.log_client_close(&self.info, reason);
        self.resume_if_last();
        if let End::Refused(refusal) = &end {
            write::fatal(&mut self.out, refusal);
            let _ = tokio::time::timeout(LAST_WORDS, self.stream.write_all(&self.out)).await;
        }
    }

    /// While everything is suspended nobody new comes in: without a console there would be nobody to say RESUME.
    fn resume_if_last(&self) {
        if self.shared.lifecycle() == Lifecycle::Suspended
            && !self.shared.clients.iter().any(|client| client.admin)
        {
            tracing::info!("admin disappeared when suspended, doing RESUME");
            self.shared.set_lifecycle(Lifecycle::Active);
        }
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        write::authentication(&mut self.out, 0, &[]);
        for (name, value) in drivers::PARAMETERS {
            write::parameter_status(&mut self.out, name.as_bytes(), value.as_bytes());
        }
        write::backend_key_data(&mut self.out, &self.info.key);
        self.ready_for_query();
        loop {
            while let Some((tag, body)) = self.next_message()? {
                self.message(tag, &body).await?;
                self.give_way().await?;
            }
            self.flush().await?;
            self.receive().await?;
            // What came while nothing was under way is too late.
            let _ = self.take_cancel();
        }
    }

    /// Waits until the client has taken what there is for it, if that has become much; and lets others have their turn.
    async fn give_way(&mut self) -> Result<(), End> {
        if self.out.len() >= MAX_OUT {
            self.flush().await?;
        }
        if clock::now().since(self.turn) >= TURN {
            tokio::task::yield_now().await;
            self.turn = clock::now();
        }
        Ok(())
    }

    /// Sends what there is for the client.
    async fn flush(&mut self) -> Result<(), End> {
        let mut sent = 0;
        let flushed = poll_fn(|cx| {
            self.is_cancelled |= self.was_cancelled(cx)?;
            while sent < self.out.len() {
                match self.stream.poll_write(cx, &self.out[sent..])? {
                    Poll::Ready(0) => {
                        return Poll::Ready(Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into()));
                    }
                    Poll::Ready(n) => sent += n,
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(Ok::<(), End>(()))
        })
        .await;
        self.out.drain(..sent);
        flushed
    }

    fn next_message(&mut self) -> Result<Option<(u8, Vec<u8>)>, End> {
        let broken = |error: frame::FrameError| End::Refused(Refusal::protocol(error.to_string()));
        // What was taken goes when it is more than what is left, so that each byte is moved once at most.
        if self.taken >= self.input.len() / 2 {
            self.input.drain(..self.taken);
            self.taken = 0;
        }
        let Some(frame) = peek(&self.input[self.taken..]).map_err(broken)? else { return Ok(None) };
        if frame.len > MAX_MESSAGE {
            return Err(broken(frame::FrameError::Length));
        }
        if !frame.is_complete() {
            return Ok(None);
        }
        self.taken += frame.len;
        Ok(Some((frame.tag, frame.body.to_vec())))
    }

    /// Waits for more of what the client says.
    async fn receive(&mut self) -> Result<(), End> {
        let had = self.input.len();
        poll_fn(|cx| {
            // Nothing is under way that could be cancelled.
            let _ = self.was_cancelled(cx)?;
            let end = self.poll_input(cx);
            // What came before the end counts; the end will be seen once more.
            if self.input.len() > had { Poll::Ready(Ok(())) } else { end.map(Err) }
        })
        .await
    }

    /// Takes what has come; ready when nothing more will.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mut buffer = [0; 4096];
        while self.input.len() - self.taken < MAX_MESSAGE {
            match self.stream.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(0)) => return Poll::Ready(End::Gone("client unexpected eof")),
                Poll::Ready(Ok(n)) => self.input.extend_from_slice(&buffer[..n]),
                Poll::Ready(Err(error)) => return Poll::Ready(error.into()),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    /// Whether a cancel request has come; the error if somebody wants the session closed.
    fn was_cancelled(&self, cx: &Context<'_>) -> Result<bool, End> {
        self.info.attention.begin(cx);
        if !self.info.attention.take() {
            return Ok(false);
        }
        match self.info.kill.lock().take() {
            Some(refusal) => Err(End::Refused(refusal)),
            None => Ok(self.info.cancelled.swap(false, Relaxed)),
        }
    }

    /// Whether a cancel request has come, for what is under way.
    fn take_cancel(&mut self) -> bool {
        std::mem::take(&mut self.is_cancelled) | self.info.cancelled.swap(false, Relaxed)
    }

    async fn message(&mut self, tag: u8, body: &[u8]) -> Result<(), End> {
        match tag {
            b'X' => return Err(End::Gone("client close request")),
            b'S' => {
                self.skipping = false;
                self.ready_for_query();
            }
            _ if self.skipping => {}
            b'Q' => self.simple_query(&String::from_utf8_lossy(frontend::text(body))).await?,
            b'P' | b'B' | b'D' | b'C' | b'E' => {
                let done = match tag {
                    b'P' => self.prepared.parse(body, &mut self.out),
                    b'B' => self.prepared.bind(body, &mut self.out),
                    b'D' => self.prepared.describe(body, &mut self.out),
                    b'C' => self.prepared.close(body, &mut self.out),
                    _ => self.execute_portal(body).await?,
                };
                if let Err(refusal) = done {
                    self.skipping = true;
                    self.error(&refusal);
                }
            }
            // Flush: everything is sent when there is nothing more to read. COPY data nobody has asked for.
            b'H' | b'd' | b'c' | b'f' => {}
            b'F' => {
                self.error(&Refusal::new(sqlstate::NOT_SUPPORTED, "the console has no functions to call"));
                self.ready_for_query();
            }
            other => {
                let message = format!("unsupported packet type for admin console: {:?}", char::from(other));
                return Err(End::Refused(Refusal::protocol(message)));
            }
        }
        Ok(())
    }

    async fn simple_query(&mut self, text: &str) -> Result<(), End> {
        let statements = parse::split(text);
        if statements.is_empty() {
            write::frame(&mut self.out, b'I', |_| {});
        }
        for statement in &statements {
            let done = match parse::parse(statement) {
                Ok(command) => self.run_one(&command).await?,
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = done {
                self.error(&refusal);
                break;
            }
            self.give_way().await?;
        }
        self.ready_for_query();
        Ok(())
    }

    /// Carries out one of the commands of a simple query and sends its answer.
    async fn run_one(&mut self, command: &Command) -> Result<Result<(), Refusal>, End> {
        let mut answer = match self.perform(command).await? {
            Ok(answer) => answer,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.notice(&answer);
        if let Some(columns) = command::columns(command) {
            let formats = Formats::default();
            table::describe(&mut self.out, &columns, &formats);
            if let Err(refusal) = self.rows(&columns, &formats, &mut answer.rows, usize::MAX).await? {
                return Ok(Err(refusal));
            }
        }
        write::command_complete(&mut self.out, &answer.tag);
        Ok(Ok(()))
    }

    /// Sends rows, as many as this, and no faster than the client takes them.
    async fn rows(
        &mut self,
        columns: &[Column],
        formats: &Formats,
        rows: &mut Rows,
        limit: usize,
    ) -> Result<Result<(), Refusal>, End> {
        for row in rows.take(limit) {
            table::row(&mut self.out, columns, formats, &row);
            self.give_way().await?;
            if self.take_cancel() {
                return Ok(Err(canceled()));
            }
        }
        Ok(Ok(()))
    }

    fn notice(&mut self, answer: &Answer) {
        if let Some((message, detail)) = answer.notice {
            write::notice_with_detail(&mut self.out, message, detail);
        }
    }

    /// Execute: runs a portal's command when it is executed first, and sends as many rows as are asked for.
    async fn execute_portal(&mut self, body: &[u8]) -> Result<Result<(), Refusal>, End> {
        let execute = match extended::execute(body) {
            Ok(execute) => execute,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (command, begun) = match self.prepared.portal(execute.portal) {
            Ok(portal) => (portal.command.clone(), portal.rest.is_some()),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Some(command) = command else {
            write::frame(&mut self.out, b'I', |_| {});
            return Ok(Ok(()));
        };
        let columns = command::columns(&command);
        if begun && columns.is_none() {
            return Ok(Err(Refusal::new(sqlstate::WRONG_STATE, "portal cannot be run a second time")));
        }
        if !begun {
            let answer = match self.perform(&command).await? {
                Ok(answer) => answer,
                Err(refusal) => return Ok(Err(refusal)),
            };
            self.notice(&answer);
            // DEALLOCATE and the like leave portals alone, so it is still there.
            if let Ok(portal) = self.prepared.portal(execute.portal) {
                portal.rest = Some((answer.rows, answer.tag.into_owned()));
            }
        }
        let Ok(portal) = self.prepared.portal(execute.portal) else { return Ok(Ok(())) };
        let Some((mut rows, tag)) = portal.rest.take() else { return Ok(Ok(())) };
        let formats = portal.formats.clone();
        let limit = if execute.max_rows == 0 { usize::MAX } else { execute.max_rows };
        let columns = columns.as_deref().unwrap_or_default();
        let sent = self.rows(columns, &formats, &mut rows, limit).await?;
        if sent.is_err() {
            return Ok(sent);
        }
        if rows.is_done() {
            write::command_complete(&mut self.out, &tag);
        } else {
            write::frame(&mut self.out, b's', |_| {});
        }
        if let Ok(portal) = self.prepared.portal(execute.portal) {
            portal.rest = Some((rows, tag));
        }
        Ok(Ok(()))
    }

    /// Carries out a command, if this client may. Meanwhile a cancel request or the client's end is noticed.
    async fn perform(&mut self, command: &Command) -> Result<Result<Answer, Refusal>, End> {
        if !access::may(self.role, access::kind(command)) {
            return Ok(Err(Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, "admin access needed")
                .detail("stats_users may only look; admin_users may do everything.")));
        }
        self.info.requested.set(clock::now());
        self.info.set_state(ClientState::Active);
        self.shared.console.queries.fetch_add(1, Relaxed);
        match command {
            // The value may be a secret.
            Command::Set(name, _) => tracing::debug!("{} console command: SET {name}", self.info),
            _ => tracing::debug!("{} console command: {command:?}", self.info),
        }
        match command {
            Command::Transaction(open, _) => self.in_transaction = *open,
            Command::Deallocate(name) => {
                if let Err(refusal) = self.prepared.deallocate(name) {
                    return Ok(Err(refusal));
                }
            }
            Command::Nothing("DEALLOCATE ALL" | "DISCARD ALL") => self.prepared.deallocate_all(),
            _ => {}
        }
        let work = command::execute(Arc::clone(&self.shared), Arc::clone(&self.info), command.clone());
        let mut work = pin!(work);
        let done = poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            if self.was_cancelled(cx)? {
                command::cancel(&self.shared, command);
                return Poll::Ready(Ok(Err(canceled())));
            }
            self.poll_input(cx).map(Err)
        })
        .await;
        self.info.set_state(ClientState::Idle);
        done
    }

    fn error(&mut self, refusal: &Refusal) {
        self.shared.log_pooler_error(&self.info, refusal);
        write::error(&mut self.out, refusal);
    }

    fn ready_for_query(&mut self) {
        if !self.in_transaction {
            self.prepared.close_portals();
        }
        write::ready_for_query(&mut self.out, if self.in_transaction { b'T' } else { b'I' });
    }
}

fn canceled() -> Refusal {
    Refusal::new(sqlstate::QUERY_CANCELED, "canceling statement due to user request")
}
