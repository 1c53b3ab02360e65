//! A client that has a server: bytes go both ways until nothing is owed. HOT.

use std::borrow::Cow;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use super::super::close::CloseReason;
use super::super::relay::{self, Scratch};
use super::attempt::{Attempt, Verdict};
use super::end::{End, Gone};
use super::phase::Phase;
use super::replica_read::only_reads;
use super::{Client, max_prepared};
use crate::clock::{self, Micros};
use crate::config::{Consistency, PoolMode};
use crate::route::router::Access;
use crate::session::command::Ddl;
use crate::session::forward::{self, Context as Walk, Stop};
use crate::session::output::Output;

impl Client {
    pub(super) fn linked(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<Result<(), End>> {
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
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        bytes: Cow<'_, [u8]>,
    ) -> Result<(), End> {
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

    pub(super) fn on_server_bytes(
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
        // Statistics are updated before the answer is sent, so that a client with its answer finds it in SHOW STATS.
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
}
