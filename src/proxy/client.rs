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

mod attempt;
mod check;
mod checking;
mod choice;
mod deadlines;
mod end;
mod exchange;
mod kept;
mod leaving;
mod link;
mod moving;
mod parameters;
mod phase;
mod queue;
mod replica_read;
mod retry;

use std::borrow::Cow;
use std::future::Future;
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
use crate::config::{PoolMode, PoolSettings, Timeouts};
use crate::metrics::stats::Stats;
use crate::net::stream::Stream;
use crate::pool::Waiter;
use crate::pool::limits::Permit;
use crate::route::cluster::Purpose;
use crate::route::router::Access;
use crate::session::forward::{ClientSession, Idle, MaxPacket};
use crate::wire::write;
use attempt::Attempt;
use check::Check;
use end::{End, Gone};
use phase::Phase;
use replica_read::ReplicaRead;

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
