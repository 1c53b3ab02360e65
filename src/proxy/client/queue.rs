//! A client that waits for a server.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::super::client_handle::ClientState;
use super::super::give_back::give_back;
use super::super::grow;
use super::super::relay::{self, Scratch};
use super::super::server::Server;
use super::super::shared::Shutdown;
use super::Client;
use super::end::{End, Gone};
use super::phase::Phase;
use crate::clock::{self, Micros};
use crate::error::{Refusal, sqlstate};
use crate::pool::{Outcome, Waiter};
use crate::route::cluster::Purpose;

impl Client {
    /// Joins the queue, and has a connection opened if there may be more of them.
    pub(super) fn wait(&mut self, cx: &mut Context<'_>, purpose: Purpose, now: Micros) -> Result<(), End> {
        if self.shared.shutdown() == Some(Shutdown::WaitForServers) {
            return Err(Refusal::new(sqlstate::ADMIN_SHUTDOWN, "server shutting down").into());
        }
        let worker = self.load.worker;
        let waiter = self.waiter.get_or_insert_with(|| Arc::new(Waiter::new(worker)));
        if self.info.waiting_since.get() == Micros(0) {
            self.info.waiting_since.set(now);
            self.notified = false;
        }
        waiter.start(self.info.waiting_since.get(), cx.waker());
        self.pool.lane(purpose).wait(Arc::clone(waiter));
        self.phase = Phase::Waiting(purpose);
        self.info.set_state(ClientState::Waiting);
        self.set_deadline(now);
        grow::grow(&self.shared, &self.pool, purpose, self.load.worker, now);
        if let Purpose::Read(host) = purpose {
            // Whoever has just found out that it cannot be read from may have been too early to move this one.
            if !self.pool.database.hosts.load().can_read_from(host) {
                grow::leave_replica(&self.shared, &self.pool, host, self.load.worker);
            }
        }
        Ok(())
    }

    /// Takes the server that was granted, if one was.
    pub(super) fn waiting(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<Result<(), End>> {
        let Some(waiter) = &self.waiter else { return Poll::Ready(Err(End::Gone(Gone::Eof))) };
        let outcome = waiter.poll(cx);
        let server = match outcome {
            Poll::Ready(Outcome::Granted(server)) => server,
            Poll::Ready(Outcome::Refused(refusal)) => return Poll::Ready(Err(refusal.into())),
            Poll::Pending => {
                // A wait usually ends before the client says more. Only a socket event gets past this.
                let mut read = std::mem::take(&mut scratch.read);
                let gone = self.read_waiting(cx, &mut read);
                scratch.read = read;
                return gone.map(Err);
            }
        };
        let now = clock::now();
        let mut scrap = [0; 64];
        let mut server = server;
        let drained = server.drain_idle(now, &mut scrap);
        if let Some(reason) = drained.err().or_else(|| self.must_go(&server)) {
            // It let us in and went away at once, and so may the next one, without end.
            let refusal = (!server.used && reason.casts_doubt_on_host())
                .then(|| Refusal::new(sqlstate::CONNECTION_FAILURE, reason.words().to_owned()));
            server.close(reason);
            if let Some(refusal) = refusal {
                return Poll::Ready(Err(refusal.into()));
            }
            self.begin_anew();
            return Poll::Ready(Ok(()));
        }
        if server.purpose != Purpose::Write && !self.may_read_from_replica(&server) {
            self.return_unused(server);
            self.begin_anew();
            return Poll::Ready(Ok(()));
        }
        self.end_wait(now);
        self.link(server, now);
        // The deadline so far was that of the wait.
        self.set_deadline(now);
        let bytes = std::mem::take(&mut self.carry);
        Poll::Ready(self.send(cx, scratch, Cow::Owned(bytes)))
    }

    /// It has a server; says whether it has waited for it. The request begins now.
    pub(super) fn end_wait(&mut self, now: Micros) -> bool {
        let since = self.info.waiting_since.get();
        if since == Micros(0) {
            return false;
        }
        self.stats.wait_time.record(u64::try_from(now.since(since).as_micros()).unwrap_or(u64::MAX));
        self.info.waiting_since.set(Micros(0));
        self.request_started = now;
        true
    }

    /// Notices that a waiting client has gone; keeps what it pipelines meanwhile, up to a point.
    fn read_waiting(&mut self, cx: &mut Context<'_>, read: &mut [u8]) -> Poll<End> {
        while self.carry.len() < read.len() && !self.has_gone {
            match ready!(relay::receive(cx, &mut self.stream, read)) {
                Ok(Some(n)) => {
                    self.stats.received.add(n as u64);
                    self.carry.extend_from_slice(&read[..n]);
                }
                Ok(None) => return Poll::Ready(End::Gone(Gone::Eof)),
                Err(error) => return Poll::Ready(error.into()),
            }
        }
        Poll::Pending
    }

    /// The server or the replica that was chosen will not do any more, and nothing was sent: the request, which lies in
    /// `carry`, begins once more. If it was waiting, it still is.
    #[cold]
    pub(super) fn begin_anew(&mut self) {
        self.preparing = false;
        self.check.end();
        self.reading = None;
        self.attempt = None;
        self.phase = Phase::Idle;
        self.info.set_state(ClientState::Idle);
    }

    /// Leaves it without a server.
    pub(super) fn leave_queue(&self, purpose: Purpose) {
        let Some(waiter) = &self.waiter else { return };
        // Who waits for a replica may have been moved to the primary's queue.
        let lanes = [Some(purpose), (purpose != Purpose::Write).then_some(Purpose::Write)];
        for purpose in lanes.into_iter().flatten() {
            if let Some(server) = self.pool.lane(purpose).give_up(waiter) {
                self.return_unused(server);
            }
        }
    }

    /// Gives back a server that was granted and not used.
    pub(super) fn return_unused(&self, server: Box<Server>) {
        give_back(&self.shared, &self.pool, server, self.load.worker, false);
    }
}
