//! A client after login: one task, one state machine, two sockets. HOT.
//!
//! ```text
//! Idle ──request──▶ Waiting ──server granted──▶ Linked ──settled──▶ Idle
//!      └────────────server at hand─────────────▶   └──gone──▶ Leaving
//! ```
//!
//! The task never blocks and never waits for anything but its sockets, its place in the queue, and the tick, which wakes
//! it when a deadline has passed or somebody wants it closed. Here are Idle and what goes both ways while Linked; `choice` says
//! which server it may be, `queue` is Waiting, `link` begins and ends Linked, `leaving` is what a client leaves to be done.

mod check;
mod choice;
mod deadlines;
mod kept;
mod leaving;
mod link;
mod moving;
mod parameters;
mod queue;
mod retry;

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use super::client_handle::ClientHandle;
use super::close::CloseReason;
use super::pools::Pool;
use super::relay::{self, Scratch};
use super::server::Server;
use super::shared::Shared;
use super::versioned::LastSeen;
use super::worker::Load;
use crate::clock::{self, Micros};
use crate::config::{Consistency, PoolMode, PoolSettings, Timeouts};
use crate::error::Refusal;
use crate::metrics::stats::Stats;
use crate::net::stream::Stream;
use crate::pool::Waiter;
use crate::pool::limits::Permit;
use crate::route::cluster::Purpose;
use crate::route::router::Access;
use crate::session::command::Ddl;
use crate::session::forward::{self, ClientSession, Context as Walk, Idle, MaxPacket, Stop};
use crate::session::output::Output;
use crate::wire::write;
use check::Check;
use choice::{ReplicaRead, only_reads};
use leaving::Departure;
use retry::{Attempt, Verdict};

/// A logged-in client.
pub struct Client {
    shared: Arc<Shared>,
    load: Load,
    stream: Stream,
    info: Arc<ClientHandle>,
    pool: Arc<Pool>,
    stats: Arc<Stats>,
    settings: LastSeen<PoolSettings>,
    timeouts: Timeouts,
    session: ClientSession,
    phase: Phase,
    /// Bytes for the client that its socket did not take yet.
    pending: Vec<u8>,
    /// Bytes from the client that were not dealt with yet.
    carry: Vec<u8>,
    server: Option<Box<Server>>,
    waiter: Option<Arc<Waiter<Box<Server>>>>,
    /// The parameters were not accepted by any server yet.
    untried_parameters: bool,
    /// The server has been asked something of ours first: nothing of the client's has been sent to it yet.
    preparing: bool,
    /// … to find out whether it is in order.
    check: Check,
    /// Nothing is sent to the server until it has answered everything so far.
    hold: bool,
    notified: bool,
    request_started: Micros,
    transaction_started: Micros,
    /// What the transaction under way does, as far as was seen when it began.
    access: Access,
    /// When a write of its own was last acknowledged. Kept only if reads are split from writes.
    last_write: Micros,
    /// The transaction may have written, by what the server has said of its commands.
    may_have_written: bool,
    /// The replica it is reading from counts it.
    reading: Option<ReplicaRead>,
    /// The read under way, as long as it can be run again.
    attempt: Option<Attempt>,
    /// The batch that begins was run before: now it runs on the primary, and what comes of it is final.
    is_second_run: bool,
    /// It has gone while it was waiting: it is not read from until it has a server.
    has_gone: bool,
    _permits: [Permit; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Waiting(Purpose),
    Linked,
    Leaving(Departure),
}

/// Why the task ends.
enum End {
    /// One side has closed the connection.
    Gone(Gone),
    /// It goes to the process that has taken over from this one.
    Moved,
    /// It is told why. Boxed, because results travel up the stack on every transaction and this one never.
    Refused(Box<Refusal>),
}

/// Who has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    /// The client has sent Terminate.
    Goodbye,
    /// The client's connection has ended without.
    Eof,
    /// The server, which has told the client why.
    ServerCrashed,
}

impl Gone {
    /// PgBouncer's words for the log.
    fn words(self) -> &'static str {
        match self {
            Self::Goodbye => "client close request",
            Self::Eof => "client unexpected eof",
            Self::ServerCrashed => CloseReason::Crashed.words(),
        }
    }
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Gone(Gone::Eof)
    }
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

/// What login has found out.
pub struct LoggedIn {
    /// The connection.
    pub stream: Stream,
    /// What it has sent ahead.
    pub received: Vec<u8>,
    /// What others may know of it.
    pub info: Arc<ClientHandle>,
    /// Its pool.
    pub pool: Arc<Pool>,
    /// Its parameters.
    pub session: ClientSession,
    /// It has chosen some of them itself.
    pub untried_parameters: bool,
    /// What it counts against.
    pub permits: [Permit; 3],
}

impl Client {
    /// The task of a client, to be run on the worker whose runtime has its socket.
    pub fn new(shared: Arc<Shared>, load: Load, login: LoggedIn) -> Self {
        let stats = Arc::clone(&login.pool.stats[load.worker]);
        let config = shared.config.load();
        let timeouts = login.pool.timeouts(&config, &login.info.user);
        let mut session = login.session;
        session.max_packet = MaxPacket::of(config.settings.max_packet_size);
        drop(config);
        login.pool.clients.fetch_add(1, Relaxed);
        Self {
            shared,
            load,
            stream: login.stream,
            info: login.info,
            settings: LastSeen::new(&login.pool.settings),
            pool: login.pool,
            stats,
            timeouts,
            session,
            phase: Phase::Idle,
            pending: Vec::new(),
            carry: login.received,
            server: None,
            waiter: None,
            untried_parameters: login.untried_parameters,
            preparing: false,
            check: Check::default(),
            hold: false,
            notified: false,
            request_started: Micros(0),
            transaction_started: Micros(0),
            access: Access::Write,
            last_write: Micros(0),
            may_have_written: false,
            reading: None,
            attempt: None,
            is_second_run: false,
            has_gone: false,
            _permits: login.permits,
        }
    }
}

impl Future for Client {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let end = ready!(Scratch::with(|scratch| this.drive(cx, scratch)));
        this.finish(cx, end);
        Poll::Ready(())
    }
}

impl Client {
    fn drive(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<End> {
        if self.info.attention.begin(cx) {
            self.set_deadline(clock::now());
        }
        loop {
            if self.info.attention.take() {
                if let Err(end) = ready!(self.attend(cx)) {
                    if let Some(end) = self.depart(end) {
                        return Poll::Ready(end);
                    }
                }
            }
            let phase = match self.phase {
                Phase::Idle => self.idle(cx, scratch),
                Phase::Waiting(_) => self.waiting(cx, scratch),
                Phase::Linked => self.linked(cx, scratch),
                Phase::Leaving(departure) => self.leaving(cx, scratch, departure),
            };
            match phase {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(end)) => {
                    if let Some(end) = self.depart(end) {
                        return Poll::Ready(end);
                    }
                }
            }
        }
    }

    // === Idle ===

    fn idle(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<Result<(), End>> {
        if !self.pending.is_empty() && !relay::flush_client(cx, &mut self.stream, &mut self.pending)? {
            return Poll::Pending;
        }
        if !self.carry.is_empty() {
            let bytes = std::mem::take(&mut self.carry);
            if self.begin(cx, scratch, Cow::Owned(bytes))? {
                return Poll::Ready(Ok(()));
            }
        }
        let mut read = std::mem::take(&mut scratch.read);
        let result = self.read_idle(cx, scratch, &mut read);
        scratch.read = read;
        result
    }

    fn read_idle(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        read: &mut [u8],
    ) -> Poll<Result<(), End>> {
        loop {
            let Some(n) = ready!(relay::receive(cx, &mut self.stream, read))? else {
                return Poll::Ready(Err(End::Gone(Gone::Goodbye)));
            };
            self.stats.received.add(n as u64);
            let bytes = relay::join(&mut self.carry, &read[..n]);
            if self.begin(cx, scratch, bytes)? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Looks at bytes from a client that has no server; says whether they make it leave the idle phase.
    fn begin(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        bytes: Cow<'_, [u8]>,
    ) -> Result<bool, End> {
        let (skipped, next) = self.session.skip_idle(&bytes, max_prepared(&self.settings) > 0)?;
        let bytes = scratch.without(bytes, skipped);
        match next {
            None => {
                self.carry = scratch.rest(bytes, 0);
                return Ok(false);
            }
            Some(Idle::Terminate) => return Err(End::Gone(Gone::Goodbye)),
            Some(Idle::Request) => {}
        }
        if self.request_started != Micros(0) {
            // Not worth it for one that logs in for a single query.
            self.stream.use_uring();
        }
        let now = clock::now();
        if self.info.waiting_since.get() == Micros(0) {
            self.request_started = now;
            self.info.requested.set(now);
        }
        self.transaction_started = now;
        self.settings.refresh(&self.pool.settings);
        let mut purpose = self.purpose(scratch, &bytes, now);
        self.keep_with_statements(scratch, &bytes);
        let server = self.checkout(purpose, now);
        if server.is_none() && purpose != Purpose::Write && self.pool.lane(purpose).is_failing(now) {
            // No connection to that replica can be had for now.
            self.reading = None;
            purpose = Purpose::Write;
        }
        match server {
            Some(server) if !self.may_read_from_replica(&server) => {
                self.return_unused(server);
                self.begin_anew();
                self.carry = scratch.rest(bytes, 0);
            }
            Some(server) => {
                let has_waited = self.end_wait(now);
                self.link(server, now);
                if has_waited {
                    // The deadline so far was that of the wait.
                    self.set_deadline(now);
                }
                self.send(cx, scratch, bytes)?;
            }
            None => {
                self.carry = scratch.rest(bytes, 0);
                self.wait(cx, purpose, now)?;
            }
        }
        Ok(true)
    }

    // === Linked ===

    fn linked(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<Result<(), End>> {
        let mut read = std::mem::take(&mut scratch.read);
        let result = self.exchange(cx, scratch, &mut read);
        scratch.read = read;
        result
    }

    /// Moves bytes both ways until neither side has any or the server is given back.
    fn exchange(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        read: &mut [u8],
    ) -> Poll<Result<(), End>> {
        loop {
            let Some(server) = &mut self.server else { return Poll::Ready(Ok(())) };
            if !server.pending.is_empty() && server.pending.flush(cx, &mut server.stream).is_err() {
                return Poll::Ready(self.server_lost(cx));
            }
            if !self.pending.is_empty() {
                relay::flush_client(cx, &mut self.stream, &mut self.pending)?;
            }
            let mut progress = false;
            if self.pending.is_empty() {
                match relay::receive(cx, &mut server.stream, read) {
                    Poll::Ready(Ok(Some(n))) => {
                        progress = true;
                        self.on_server_bytes(cx, scratch, &read[..n])?;
                    }
                    Poll::Ready(_) => return Poll::Ready(self.server_lost(cx)),
                    Poll::Pending => {}
                }
            }
            let Some(server) = &mut self.server else {
                self.phase = Phase::Idle;
                self.set_deadline(self.request_started);
                return Poll::Ready(Ok(()));
            };
            let waits = self.hold || self.preparing;
            let is_answered = server.session.pipeline.is_empty();
            // What is held back may depend on anything that the server says.
            if waits && (is_answered || progress && !self.preparing) {
                if self.preparing && !self.is_prepared() {
                    return Poll::Ready(Ok(()));
                }
                (self.hold, self.preparing) = (false, false);
                progress = true;
                let bytes = std::mem::take(&mut self.carry);
                self.send(cx, scratch, Cow::Owned(bytes))?;
            } else if !waits && server.pending.is_empty() && self.pending.len() < read.len() {
                match relay::receive(cx, &mut self.stream, read) {
                    Poll::Ready(Ok(Some(n))) => {
                        progress = true;
                        self.stats.received.add(n as u64);
                        self.on_client_bytes(cx, scratch, &read[..n])?;
                    }
                    Poll::Ready(Ok(None)) => return Poll::Ready(Err(End::Gone(Gone::Eof))),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => {}
                }
            }
            if !progress {
                return Poll::Pending;
            }
        }
    }

    fn on_client_bytes(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        bytes: &[u8],
    ) -> Result<(), End> {
        if let Some(server) = &self.server {
            if server.session.pipeline.is_empty() {
                let now = clock::now();
                self.request_started = now;
                self.info.requested.set(now);
            }
        }
        let bytes = relay::join(&mut self.carry, bytes);
        self.send(cx, scratch, bytes)
    }

    /// Passes a client's bytes on; what cannot go yet stays in `carry`.
    fn send(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch, bytes: Cow<'_, [u8]>) -> Result<(), End> {
        let Some(server) = &mut self.server else { return Ok(()) };
        if self.preparing {
            self.carry = scratch.rest(bytes, 0);
            return self.flush_server(cx);
        }
        let session_pooling = self.settings.pool_mode == PoolMode::Session;
        let max_prepared = max_prepared(&self.settings);
        let only_reads = only_reads(self.access, server.purpose);
        let shown = if self.settings.read_write_split && !session_pooling && self.access != Access::Read {
            self.watch(scratch, &bytes, only_reads)
        } else {
            bytes.len()
        };
        let Some(server) = &mut self.server else { return Ok(()) };
        let walk = Walk {
            registry: &self.shared.statements,
            max_prepared,
            exclusive: session_pooling,
            one_at_a_time: only_reads || self.attempt.is_some(),
            refuse_simple: self.settings.disable_pqexec,
        };
        let part = &bytes[..shown];
        let mut out = Output::new(part, &mut scratch.rewrite);
        let sent = forward::client_to_server(part, &mut self.session, &mut server.session, &walk, &mut out)?;
        let broken = server.pending.send(cx, &mut server.stream, &out).is_err();
        let mut fakes = Output::new(&[], &mut scratch.rewrite);
        forward::fake_replies_due(&mut server.session, &mut self.session, &mut fakes);
        let mut told = Ok(());
        if !fakes.is_empty() {
            match &mut self.attempt {
                Some(attempt) => attempt.hold(fakes.bytes()),
                None => told = relay::tell(cx, &mut self.stream, &mut self.pending, fakes.bytes()),
            }
        }
        self.carry = scratch.rest(bytes, sent.consumed);
        self.count(&sent);
        self.hold = sent.stop == Stop::Hold;
        if self.timeouts.apply_outside_queue() {
            self.set_deadline(self.request_started);
        }
        if sent.stop == Stop::Terminate {
            return Err(End::Gone(Gone::Goodbye));
        }
        told?;
        if broken { self.server_lost(cx) } else { Ok(()) }
    }

    fn flush_server(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let Some(server) = &mut self.server else { return Ok(()) };
        let flushed = server.pending.flush(cx, &mut server.stream);
        if flushed.is_err() { self.server_lost(cx) } else { Ok(()) }
    }

    #[inline]
    fn count(&self, sent: &forward::Sent) {
        if sent.client_parses + sent.server_parses + sent.binds > 0 {
            self.stats.client_parses.add(sent.client_parses.into());
            self.stats.server_parses.add(sent.server_parses.into());
            self.stats.binds.add(sent.binds.into());
        }
    }

    fn on_server_bytes(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        bytes: &[u8],
    ) -> Result<(), End> {
        let Some(server) = &mut self.server else { return Ok(()) };
        self.stats.sent.add(bytes.len() as u64);
        let bytes = relay::join(&mut server.carry, bytes);
        let mut out = Output::new(&bytes, &mut scratch.rewrite);
        let walked = forward::server_to_client(&bytes, &mut server.session, &mut self.session, &mut out);
        let received = match walked {
            Ok(received) => received,
            Err(fault) => {
                if self.attempt.is_none() {
                    relay::tell(cx, &mut self.stream, &mut self.pending, out.bytes())?;
                }
                return self.server_fault(cx, &fault);
            }
        };
        if received.preamble_ended {
            server.info.preamble.end();
        }
        let verdict = self.attempt.as_mut().map_or(Verdict::Deliver, |attempt| {
            attempt.judge(out.bytes(), received.failed, received.lost_statement)
        });
        self.may_have_written |= received.may_have_written;
        if self.session.kept.is_changing() && (received.failed || received.queries > 0) {
            self.settle_kept(&received);
        }
        // First the books, then the answer: whoever has the answer must find it in the books.
        if received.queries > 0 {
            self.account(&received);
        } else if self.settings.read_consistency == Consistency::Database {
            // The client may read of a success before the transaction's last message.
            self.note_write(clock::now());
        }
        if received.ddl != Ddl::None {
            self.pool.database.catalogs.changed(received.ddl);
        }
        if received.reported {
            self.note_application_name();
        }
        if let Some(refusal) = &received.refused {
            self.shared.log_pooler_error(&self.info, refusal);
        }
        if received.consumed == bytes.len() {
            self.release_if_settled();
        }
        let mut told = Ok(());
        match verdict {
            Verdict::Deliver => {
                let attempt = self.attempt.take();
                let held = attempt.as_ref().map_or(&[][..], Attempt::held);
                let bytes = if held.is_empty() { out.bytes() } else { held };
                told = relay::tell(cx, &mut self.stream, &mut self.pending, bytes);
                attempt.into_iter().for_each(|attempt| attempt.recycle(scratch));
            }
            Verdict::Hold => {}
            Verdict::Drop => {
                if let Some(server) = &self.server {
                    if server.session.pipeline.is_empty() && received.queries > 0 {
                        // It has left a transaction open, of which the client has seen nothing.
                        self.unlink().close(CloseReason::BatchRunsAgain);
                    }
                }
                if self.server.is_none() {
                    self.run_again();
                }
            }
        }
        if received.is_last && self.server.is_some() {
            return self.server_lost(cx);
        }
        if let Some(server) = &mut self.server {
            server.carry = scratch.rest(bytes, received.consumed);
        }
        Ok(told?)
    }

    /// Counts what has ended, with one look at the clock.
    fn account(&mut self, received: &forward::Received) {
        let Some(server) = &self.server else { return };
        let only_reads = only_reads(self.access, server.purpose);
        let now = clock::now();
        self.stats.queries.add(received.queries.into());
        self.stats.query_time.add(now - self.request_started);
        self.request_started = now;
        if received.transactions > 0 {
            self.stats.transactions.add(received.transactions.into());
            self.stats.transaction_time.record(now - self.transaction_started);
            self.transaction_started = now;
            if let Some((cluster, host)) = server.lease.host() {
                let host = &cluster.hosts[host].counters;
                let counter = if only_reads { &host.reads } else { &host.writes };
                counter.fetch_add(received.transactions.into(), Relaxed);
            }
        }
        self.note_write(now);
        self.set_deadline(now);
    }

    /// Whoever has the answer must not read from a replica that has not replayed what it tells of.
    #[inline]
    fn note_write(&mut self, now: Micros) {
        let Some(server) = &self.server else { return };
        if !self.settings.read_write_split || only_reads(self.access, server.purpose) {
            return;
        }
        if self.access == Access::ReadOnly && !self.may_have_written {
            return;
        }
        self.last_write = now;
        if self.settings.read_consistency == Consistency::Database {
            self.pool.database.hosts.load().cluster.wrote(now);
        }
    }

    /// For SHOW: what the server reports is the client's as well.
    #[cold]
    fn note_application_name(&self) {
        if let Some(server) = &self.server {
            server.note_application_name();
            self.info.application_name.lock().clone_from(&server.info.application_name.lock());
        }
    }

    // === The end ===

    fn finish(&mut self, cx: &mut Context<'_>, end: End) {
        let (reason, refusal) = match &end {
            End::Moved => return self.move_out(),
            End::Gone(gone) => (gone.words(), None),
            End::Refused(refusal) => (refusal.reason(), Some(refusal)),
        };
        if let Phase::Waiting(purpose) = self.phase {
            self.leave_queue(purpose);
        }
        if self.server.is_some() {
            let quiet = self.carry.is_empty() && !self.session.is_mid_frame();
            let server = self.unlink();
            if server.session.is_settled() && server.pending.is_empty() && server.carry.is_empty() && quiet {
                self.give_back(server);
            } else {
                server.close(CloseReason::ClientEnds(reason.to_owned().into()));
            }
        }
        self.shared.log_client_close(&self.info, reason);
        self.shared.clients.remove(&self.info.key.id());
        if let Some(refusal) = refusal {
            self.shared.log_pooler_error(&self.info, refusal);
            write::fatal(&mut self.pending, refusal);
        }
        let _ = relay::flush(cx, &mut self.stream, &mut self.pending);
    }
}

/// How many named statements a server keeps; 0: they are passed through.
#[inline]
fn max_prepared(settings: &PoolSettings) -> usize {
    if settings.pool_mode == PoolMode::Session { 0 } else { settings.max_prepared_statements }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.pool.clients.fetch_sub(1, Relaxed);
    }
}
