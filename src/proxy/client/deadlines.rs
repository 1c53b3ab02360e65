//! What a client may not do for ever, and what others want of it: the tick and cancel requests wake the task, which then
//! looks here.

use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use super::super::close::Retirement;
use super::super::relay;
use super::super::shared::Lifecycle;
use super::Client;
use super::end::End;
use super::leaving::PATIENCE;
use super::phase::Phase;
use crate::clock::{self, Micros};
use crate::config::PoolMode;
use crate::error::{Refusal, sqlstate};
use crate::session::forward::{self, MaxPacket};
use crate::wire::write;

impl Client {
    /// Works out when the tick has to wake the task.
    #[inline]
    pub(super) fn set_deadline(&self, now: Micros) {
        let deadline = self.next_deadline(now);
        if self.info.deadline.get() != deadline {
            self.info.deadline.set(deadline);
        }
    }

    fn next_deadline(&self, now: Micros) -> Micros {
        let timeouts = &self.timeouts;
        if !timeouts.apply_outside_queue() && !matches!(self.phase, Phase::Waiting(_) | Phase::Leaving(_)) {
            return Micros(0);
        }
        let first = |limits: &[(Micros, Duration)]| {
            let due = limits.iter().filter(|(_, limit)| !limit.is_zero()).map(|(from, limit)| *from + *limit);
            due.min().unwrap_or(Micros(0))
        };
        match self.phase {
            Phase::Idle => first(&[(now, timeouts.client_idle_timeout)]),
            Phase::Waiting(_) => {
                let since = self.info.waiting_since.get();
                let notify = if self.notified { Duration::ZERO } else { timeouts.query_wait_notify };
                first(&[
                    (since, timeouts.query_wait_timeout),
                    (since, notify),
                    (self.request_started, timeouts.query_timeout),
                ])
            }
            Phase::Linked if self.is_between_statements() => {
                let transaction = (self.transaction_started, timeouts.transaction_timeout);
                let idle = (now, timeouts.idle_transaction_timeout);
                if self.settings.pool_mode == PoolMode::Session && self.is_outside_transaction() {
                    first(&[(now, timeouts.client_idle_timeout)])
                } else {
                    first(&[idle, transaction])
                }
            }
            Phase::Linked => first(&[
                (self.request_started, timeouts.query_timeout),
                (self.transaction_started, timeouts.transaction_timeout),
            ]),
            Phase::Leaving(_) => first(&[
                (now, PATIENCE),
                (self.request_started, timeouts.query_timeout),
                (self.transaction_started, timeouts.transaction_timeout),
            ]),
        }
    }

    fn is_between_statements(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.session.pipeline.is_empty())
    }

    fn is_outside_transaction(&self) -> bool {
        self.server.as_ref().is_none_or(|server| server.session.is_settled())
    }

    /// The tick or somebody else wants something. Pending: there is nothing to do but to wait.
    #[cold]
    pub(super) fn attend(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if let Some(reason) = self.info.kill.lock().take() {
            return Poll::Ready(Err(reason.into()));
        }
        if self.shared.lifecycle() == Lifecycle::Suspended {
            return self.hold_still(cx);
        }
        if self.can_move() {
            return Poll::Ready(Err(End::Moved));
        }
        if self.shared.successor().is_some() {
            // What is under way may end before the task is woken the next time.
            self.info.attention.call_again();
        }
        Poll::Ready(self.look_at_limits(cx))
    }

    /// SUSPEND: what has been read is sent on, and nothing more is read. Whatever wakes the task ends here again.
    fn hold_still(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        self.info.attention.call_again();
        let mut sent = relay::flush_client(cx, &mut self.stream, &mut self.pending)?;
        if let Some(server) = &mut self.server {
            // Whether the connection is broken is found out after RESUME.
            sent &= server.pending.flush(cx, &mut server.stream).unwrap_or(true);
        }
        self.info.suspended.store(sent, Relaxed);
        Poll::Pending
    }

    fn look_at_limits(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if self.info.cancelled.swap(false, Relaxed) {
            self.stop_waiting(cx)?;
        }
        self.close_obsolete()?;
        if self.server.as_ref().is_some_and(|server| server.is_lost()) {
            return self.server_lost(cx);
        }
        self.follow_settings();
        let deadline = self.info.deadline.get();
        let now = clock::now();
        if deadline.0 == 0 || now < deadline {
            return Ok(());
        }
        let over = |from: Micros, limit: Duration| !limit.is_zero() && now >= from + limit;
        let timeouts = &self.timeouts;
        match self.phase {
            Phase::Idle if !timeouts.client_idle_timeout.is_zero() => Err(idle_timeout().into()),
            Phase::Idle => {
                self.set_deadline(now);
                Ok(())
            }
            Phase::Waiting(_) if over(self.info.waiting_since.get(), timeouts.query_wait_timeout) => {
                Err(Refusal::new(sqlstate::TOO_MANY_CONNECTIONS, "query_wait_timeout")
                    .detail("All server connections of the pool were in use for too long.")
                    .hint("Look at SHOW POOLS: raise default_pool_size, or find out what holds the connections.")
                    .into())
            }
            Phase::Waiting(_) if over(self.request_started, timeouts.query_timeout) => {
                Err(Refusal::new(sqlstate::QUERY_CANCELED, "query_timeout").into())
            }
            Phase::Waiting(_) => {
                self.notified = true;
                let mut notice = Vec::new();
                write::notice(&mut notice, "No server connection available in postgres backend, client being queued");
                relay::tell(cx, &mut self.stream, &mut self.pending, &notice)?;
                self.set_deadline(now);
                Ok(())
            }
            Phase::Linked | Phase::Leaving(_)
                if over(self.transaction_started, timeouts.transaction_timeout) =>
            {
                Err(Refusal::protocol("transaction timeout").into())
            }
            Phase::Linked if self.is_between_statements() => {
                if self.settings.pool_mode == PoolMode::Session && self.is_outside_transaction() {
                    Err(idle_timeout().into())
                } else {
                    Err(Refusal::protocol("idle transaction timeout").into())
                }
            }
            Phase::Linked | Phase::Leaving(_) if over(self.request_started, timeouts.query_timeout) => {
                Err(Refusal::new(sqlstate::QUERY_CANCELED, "query timeout").into())
            }
            Phase::Leaving(departure) => Err(departure.end()),
            Phase::Linked => {
                self.set_deadline(now);
                Ok(())
            }
        }
    }

    /// The configuration may have changed: timeouts and `max_packet_size` hold at once, everything else from the next transaction
    /// on.
    fn follow_settings(&mut self) {
        let config = self.shared.config.load();
        self.session.max_packet = MaxPacket::of(config.settings.max_packet_size);
        let timeouts = self.pool.timeouts(&config, &self.info.user);
        if timeouts != self.timeouts {
            self.timeouts = timeouts;
            self.set_deadline(self.request_started.max(self.info.connected));
        }
    }

    /// `server_fast_close`: a session does not keep an obsolete server beyond its transaction.
    fn close_obsolete(&mut self) -> Result<(), End> {
        let Some(server) = &self.server else { return Ok(()) };
        let is_obsolete = server.info.is_obsolete() && server.pending.is_empty();
        if !is_obsolete
            || !self.is_outside_transaction()
            || !self.shared.config.load().settings.server_fast_close
        {
            return Ok(());
        }
        self.unlink().close(Retirement::HostsChanged);
        Err(Refusal::new(sqlstate::ADMIN_SHUTDOWN, Retirement::HostsChanged.words()).into())
    }

    /// A cancel request came while the client was in the queue: its request ends there. Anything it has sent behind
    /// that request is dealt with as usual.
    fn stop_waiting(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let Phase::Waiting(purpose) = self.phase else { return Ok(()) };
        // A request that is not complete yet is none that could be cancelled.
        let Some(end) = forward::batch_len(&self.carry) else { return Ok(()) };
        self.leave_queue(purpose);
        // Somebody may be about to grant it something.
        self.waiter = None;
        self.begin_anew();
        self.is_second_run = false;
        self.info.waiting_since.set(Micros(0));
        self.set_deadline(clock::now());
        self.carry.drain(..end);
        let mut answer = Vec::new();
        write::error(
            &mut answer,
            &Refusal::new(sqlstate::QUERY_CANCELED, "canceling statement due to user request"),
        );
        write::ready_for_query(&mut answer, b'I');
        relay::tell(cx, &mut self.stream, &mut self.pending, &answer)?;
        Ok(())
    }
}

fn idle_timeout() -> Refusal {
    Refusal::new(sqlstate::IDLE_SESSION, "client_idle_timeout")
}
