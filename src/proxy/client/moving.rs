//! A client on its way to another process, and on its arrival there.

use std::sync::atomic::Ordering::Relaxed;

use super::super::client_handle::ClientState;
use super::super::handover::{MovedClient, MovedServer};
use super::super::server::Server;
use super::super::server_handle::ServerState;
use super::Client;
use super::phase::Phase;
use crate::auth::server_login::Credential;
use crate::clock;
use crate::config::PoolMode;
use crate::net::detached::Detached;
use crate::net::stream::Stream;

impl Client {
    /// Whether it can go to a process that has taken over: nothing of it is under way. A session's server goes with it.
    pub(super) fn can_move(&mut self) -> bool {
        self.shared.successor().is_some()
            && self.is_at_rest()
            && self.leave_runtime()
            && self.server.as_ref().is_none_or(|server| self.let_go_of(server))
    }

    /// What comes from now on is for the other process. What has just come from the server is still for this one.
    fn leave_runtime(&mut self) -> bool {
        let server_rests =
            self.server.as_mut().is_none_or(|server| server.stream.rest() && !server.stream.has_early());
        server_rests && self.stream.rest()
    }

    fn is_at_rest(&self) -> bool {
        let is_quiet = self.pending.is_empty() && !self.session.is_mid_frame() && self.stream.is_plain();
        is_quiet
            && match (self.phase, &self.server) {
                (Phase::Idle, None) => true,
                (Phase::Linked, Some(server)) => {
                    let pipeline = &server.session.pipeline;
                    let is_settled = server.session.is_settled() && !pipeline.is_tainted();
                    let nothing_waits = server.pending.is_empty() && server.carry.is_empty();
                    self.settings.pool_mode == PoolMode::Session
                        && is_settled
                        && nothing_waits
                        && !self.hold
                        && !self.preparing
                        && server.stream.is_plain()
                }
                _ => false,
            }
    }

    /// No cancel request finds the server any more; `false` if one is on its way to it.
    fn let_go_of(&self, server: &Server) -> bool {
        self.info.link.store(0, Relaxed);
        let is_free = *server.info.cancels.lock() == 0;
        if !is_free {
            self.info.link.store(server.info.id, Relaxed);
        }
        is_free
    }

    /// Sends it to the process that has taken over.
    pub(super) fn move_out(&mut self) {
        match self.pack() {
            Ok(client) => {
                tracing::debug!("{} goes to the new process", self.info);
                if let Some(successor) = self.shared.successor.get() {
                    successor.send(Box::new(client));
                }
            }
            Err(error) => {
                self.shared.clients.remove(&self.info.key.id());
                self.shared.log_client_close(&self.info, &error.to_string());
            }
        }
    }

    fn pack(&mut self) -> std::io::Result<MovedClient> {
        let server = self.server.take().map(|server| MovedServer::from(*server)).transpose()?;
        self.stream.take_early(&mut self.carry);
        let statements = self.session.statements.in_order();
        let has_own_user = self.pool.database.config.load().user.is_some();
        Ok(MovedClient {
            socket: Detached::from(std::mem::replace(&mut self.stream, Stream::Closed))?,
            database: self.info.database.to_string(),
            user: self.info.user.to_string(),
            key: self.info.key.clone(),
            connected: self.info.connected,
            application_name: self.info.application_name.lock().to_string(),
            parameters: self.session.parameters.clone(),
            untried_parameters: self.untried_parameters,
            statements: statements.map(|(name, s)| (name.into(), s.text_and_types.clone())).collect(),
            routes: [self.session.route, self.session.initial_route],
            kept: self.session.kept.state(),
            unnamed: self.session.unnamed.take(),
            received: std::mem::take(&mut self.carry),
            credential: if has_own_user { Credential::None } else { self.pool.credential() },
            server,
        })
    }

    /// Comes from another process, with the server it has had there.
    pub fn arrive(&mut self, server: Option<Box<Server>>) {
        // It may have written a moment ago.
        self.last_write = clock::now();
        let Some(server) = server else { return };
        self.phase = Phase::Linked;
        self.info.set_state(ClientState::Active);
        self.info.link.store(server.info.id, Relaxed);
        server.info.link.store(self.info.id, Relaxed);
        server.info.set_state(ServerState::Active);
        let mut server = server;
        server.session.attach(&self.session, self.settings.pool_mode == PoolMode::Session);
        self.server = Some(server);
    }
}
