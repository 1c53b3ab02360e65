//! How a client gets a server, gives it back, and loses it.

use std::sync::atomic::Ordering::{Relaxed, Release};
use std::task::Context;

use super::super::client_handle::ClientState;
use super::super::close::CloseReason;
use super::super::give_back::give_back;
use super::super::relay;
use super::super::server::Server;
use super::super::server_handle::ServerState;
use super::Client;
use super::attempt::Attempt;
use super::end::{End, Gone};
use super::phase::Phase;
use super::replica_read::only_reads;
use crate::clock::Micros;
use crate::config::PoolMode;
use crate::error::{Refusal, sqlstate};
use crate::route::cluster::Purpose;
use crate::session::forward::{self, ServerFault};

impl Client {
    /// Takes a server. Whatever it must be told before the client's first message waits in its `pending`.
    pub(super) fn link(&mut self, mut server: Box<Server>, now: Micros) {
        self.phase = Phase::Linked;
        self.is_second_run = false;
        self.info.set_state(ClientState::Active);
        server.info.set_state(ServerState::Active);
        server.info.requested.set(now);
        self.stats.assignments.add(1);
        let settings = &self.settings;
        server.session.attach(&self.session, settings.pool_mode == PoolMode::Session);
        server.session.refuse_blocks(settings.pool_mode == PoolMode::Statement);
        if let Some(query) = &settings.server_check_query {
            let is_due = server.used && now.since(server.idle_since) > settings.server_check_delay;
            if is_due && self.check.is_wanted() {
                server.session.ask(query.as_bytes(), &mut server.pending.bytes);
                self.preparing = true;
            }
        }
        let is_checked = self.preparing;
        server.begin_use(settings.server_lifetime);
        if !only_reads(self.access, server.purpose) {
            // More than one batch may be sent at once, and not all of them read.
            self.attempt.take_if(|attempt| !attempt.may_write());
        } else if server.purpose == Purpose::Write {
            self.attempt.as_mut().map(Attempt::is_on_primary);
        }
        let at = server.pending.bytes.len();
        if forward::align_parameters(&mut self.session, &mut server.session, &mut server.pending.bytes) {
            self.preparing |= self.untried_parameters;
            Self::log_parameters_set(&server, at);
        }
        self.untried_parameters = false;
        if is_checked {
            self.check.begin(server.session.pipeline.len());
        }
        if !server.session.pipeline.is_empty() {
            server.info.preamble.begin();
        }
        // From here on cancel requests find the server.
        server.info.link.store(self.info.id, Relaxed);
        self.info.link.store(server.info.id, Release);
        self.server = Some(server);
    }

    /// Gives the server back if nothing is owed on either side. **The one place where a server changes hands.**
    pub(super) fn release_if_settled(&mut self) {
        let Some(server) = &self.server else { return };
        if self.preparing || self.settings.pool_mode == PoolMode::Session {
            return;
        }
        let pipeline = &server.session.pipeline;
        let quiet = server.pending.is_empty() && server.carry.is_empty() && !self.session.is_mid_frame();
        if !quiet {
            return;
        }
        if pipeline.is_leaving() {
            self.unlink().close(CloseReason::Ended);
        } else if pipeline.is_spent() {
            self.unlink().close(CloseReason::CopyUncertain);
        } else if server.session.is_settled() {
            let server = self.unlink();
            self.give_back(server);
        }
    }

    pub(super) fn unlink(&mut self) -> Box<Server> {
        let Some(mut server) = self.server.take() else { unreachable!("called with a server") };
        server.session.detach(&mut self.session);
        self.info.link.store(0, Relaxed);
        server.info.link.store(0, Relaxed);
        server.info.prepared.store(server.session.statements.len() as u32, Relaxed);
        self.info.prepared.store(self.session.statements.len() as u32, Relaxed);
        self.info.set_state(ClientState::Idle);
        (self.hold, self.preparing) = (false, false);
        self.reading = None;
        server
    }

    pub(super) fn give_back(&self, mut server: Box<Server>) {
        server.idle_since = self.request_started;
        let reset = self.settings.pool_mode == PoolMode::Session || self.settings.server_reset_query_always;
        let reset = reset && !self.settings.server_reset_query.is_empty();
        give_back(&self.shared, &self.pool, server, self.load.worker, reset);
    }

    /// The connection to the server broke.
    pub(super) fn server_lost(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        // What the server said before it went, such as 57P01, is on its way to the client.
        let _ = relay::flush(cx, &mut self.stream, &mut self.pending);
        if let Some(server) = self.server.take() {
            server.session.lose(&mut self.session);
            self.info.link.store(0, Relaxed);
            if self.preparing && server.session.pipeline.only_ours() {
                server.close(CloseReason::Crashed);
                self.begin_anew();
                return Ok(());
            }
            let has_said_why = server.session.has_said_why();
            server.close(CloseReason::Crashed);
            if self.try_on_primary("its server has gone") {
                return Ok(());
            }
            if has_said_why {
                return Err(End::Gone(Gone::ServerCrashed));
            }
        }
        Err(Refusal::new(sqlstate::CONNECTION_FAILURE, "server conn crashed?").into())
    }

    pub(super) fn server_fault(&mut self, cx: &mut Context<'_>, fault: &ServerFault) -> Result<(), End> {
        if self.has_failed_check(fault) {
            return Ok(());
        }
        if let Some(server) = self.server.take() {
            server.session.lose(&mut self.session);
            self.info.link.store(0, Relaxed);
            let owed_nothing = server.session.is_settled() && self.settings.pool_mode != PoolMode::Session;
            server.close(fault);
            if owed_nothing && self.attempt.is_none() {
                // The client has all its answers.
                self.begin_anew();
                return Ok(());
            }
            if matches!(fault, ServerFault::Setup(_)) {
                // What another server has taken is not what this one takes.
                self.pool.trials.lock().clear();
            }
            if self.preparing && matches!(fault, ServerFault::Leaving(_)) {
                self.begin_anew();
                return Ok(());
            }
            let is_refused = matches!(fault, ServerFault::Transaction);
            if !is_refused && self.try_on_primary("its server is of no use") {
                return Ok(());
            }
        }
        let _ = relay::flush(cx, &mut self.stream, &mut self.pending);
        Err(match fault {
            ServerFault::Setup(why) => {
                Refusal::new(sqlstate::PROTOCOL_VIOLATION, "invalid server parameter").detail(why.clone())
            }
            ServerFault::Transaction => Refusal::protocol(fault.to_string()),
            other => Refusal::new(sqlstate::CONNECTION_FAILURE, format!("broken server message: {other}")),
        }
        .into())
    }
}
