//! Replication connections, logical and physical: each client has a server connection of its own, opened with what the
//! client asked for and closed when it leaves. Bytes pass through unread.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use super::client_handle::{ClientHandle, ClientState};
use super::close::CloseReason;
use super::relay::{self, Scratch};
use super::server::Server;
use super::server_handle::ServerState;
use super::shared::{Lifecycle, Shared};
use super::worker::Load;
use crate::error::Refusal;
use crate::metrics::stats::Stats;
use crate::net::stream::Stream;
use crate::pool::limits::Permit;
use crate::wire::write;

/// A client and its server.
pub(super) struct Tunnel {
    shared: Arc<Shared>,
    _load: Load,
    stats: Arc<Stats>,
    stream: Stream,
    info: Arc<ClientHandle>,
    /// Gone once the tunnel has ended.
    server: Option<Box<Server>>,
    /// Bytes for the client that its socket did not take yet.
    pending: Vec<u8>,
    _permits: [Permit; 3],
}

/// What a replication login has found out.
pub(super) struct ReplicationLogin {
    pub(super) stream: Stream,
    /// What the client has sent ahead.
    pub(super) received: Vec<u8>,
    pub(super) info: Arc<ClientHandle>,
    pub(super) server: Box<Server>,
    pub(super) stats: Arc<Stats>,
    pub(super) permits: [Permit; 3],
}

/// Why a tunnel ends.
enum End {
    Client(&'static str),
    Server,
    Killed(Refusal),
}

impl Tunnel {
    pub(super) fn new(shared: Arc<Shared>, load: Load, login: ReplicationLogin) -> Self {
        let ReplicationLogin { stream, received, info, mut server, stats, permits } = login;
        server.pending.bytes = received;
        info.link.store(server.info.id, Relaxed);
        info.set_state(ClientState::Active);
        server.info.link.store(info.id, Relaxed);
        server.info.set_state(ServerState::Active);
        Self {
            shared,
            _load: load,
            stats,
            stream,
            info,
            server: Some(server),
            pending: Vec::new(),
            _permits: permits,
        }
    }

    /// Moves bytes both ways until one side is gone.
    fn exchange(&mut self, cx: &mut Context<'_>, read: &mut [u8]) -> Poll<End> {
        let Some(server) = &mut self.server else { return Poll::Ready(End::Server) };
        if self.info.attention.take() {
            if let Some(refusal) = self.info.kill.lock().take() {
                return Poll::Ready(End::Killed(refusal));
            }
            if self.shared.lifecycle() == Lifecycle::Suspended {
                // What has been read is sent on, and nothing more is read; whether a connection is broken is found out
                // after RESUME.
                let mut sent = relay::flush(cx, &mut self.stream, &mut self.pending).unwrap_or(true);
                sent &= relay::flush(cx, &mut server.stream, &mut server.pending.bytes).unwrap_or(true);
                self.info.suspended.store(sent, Relaxed);
                self.info.attention.call_again();
                return Poll::Pending;
            }
        }
        loop {
            let mut progress = false;
            if relay::flush(cx, &mut self.stream, &mut self.pending).is_err() {
                return Poll::Ready(End::Client("client unexpected eof"));
            }
            if relay::flush(cx, &mut server.stream, &mut server.pending.bytes).is_err() {
                return Poll::Ready(End::Server);
            }
            if self.pending.is_empty() {
                match relay::receive(cx, &mut server.stream, read) {
                    Poll::Ready(Ok(Some(n))) => {
                        progress = true;
                        self.stats.sent.add(n as u64);
                        if relay::send(cx, &mut self.stream, &mut self.pending, &read[..n]).is_err() {
                            return Poll::Ready(End::Client("client unexpected eof"));
                        }
                    }
                    Poll::Ready(_) => return Poll::Ready(End::Server),
                    Poll::Pending => {}
                }
            }
            if server.pending.is_empty() {
                match relay::receive(cx, &mut self.stream, read) {
                    Poll::Ready(Ok(Some(n))) => {
                        progress = true;
                        self.stats.received.add(n as u64);
                        if relay::send(cx, &mut server.stream, &mut server.pending.bytes, &read[..n]).is_err()
                        {
                            return Poll::Ready(End::Server);
                        }
                    }
                    Poll::Ready(_) => return Poll::Ready(End::Client("client close request")),
                    Poll::Pending => {}
                }
            }
            if !progress {
                return Poll::Pending;
            }
        }
    }

    fn finish(&mut self, end: End) {
        let reason = match &end {
            End::Client(reason) => reason,
            End::Server => "server conn crashed?",
            End::Killed(refusal) => refusal.reason(),
        };
        self.info.link.store(0, Relaxed);
        if let Some(server) = self.server.take() {
            server.close(match end {
                End::Server => CloseReason::Crashed,
                _ => CloseReason::ClientEnds("client disconnected".into()),
            });
        }
        self.shared.log_client_close(&self.info, reason);
        self.shared.clients.remove(&self.info.key.id());
        if let End::Killed(refusal) = &end {
            write::fatal(&mut self.pending, refusal);
        }
    }
}

impl Future for Tunnel {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.info.attention.begin(cx);
        if this.server.is_some() {
            let end = ready!(Scratch::with(|scratch| {
                let mut read = std::mem::take(&mut scratch.read);
                let end = this.exchange(cx, &mut read);
                scratch.read = read;
                end
            }));
            this.finish(end);
        }
        // What was said last is still on its way to the client.
        if relay::flush(cx, &mut this.stream, &mut this.pending)? {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}
