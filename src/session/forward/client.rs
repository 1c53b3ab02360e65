//! A client's side of the conversation, and what it may say without a server.

use std::sync::Arc;

use super::frames::{Rest, client_fault, is_enough, is_named_parse, is_too_long};
use super::kept::Kept;
use crate::error::Refusal;
use crate::session::numbers::ChangeNumber;
use crate::session::parameters::Parameters;
use crate::session::prepared::ClientStatements;
use crate::sql::Route;
use crate::wire::frame::{Frame, FrameError, peek};
use crate::wire::tag::frontend;

/// A client's side of the conversation.
#[derive(Debug, Default)]
pub struct ClientSession {
    /// Parameters as the client believes them to be.
    pub parameters: Arc<Parameters>,
    /// Named prepared statements.
    pub statements: ClientStatements,
    /// Where it wants its statements to run: `SET pgweir.route`.
    pub route: Route,
    /// The same at login.
    pub initial_route: Route,
    /// What it has left in sessions of servers, and what does not follow it from one to another.
    pub kept: Kept,
    /// An unnamed statement that was prepared in an earlier transaction and not run yet.
    pub unnamed: Option<Box<[u8]>>,
    /// The last change to what it has prepared.
    pub(super) last_change: ChangeNumber,
    /// The longest message that the client or its server may send.
    pub max_packet: MaxPacket,
    /// The part of a frame that is still to come.
    pub(super) rest: Rest,
}

/// Setting `max_packet_size`. Its default is the protocol's own limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPacket(pub usize);

impl Default for MaxPacket {
    fn default() -> Self {
        Self(i32::MAX as usize + 1)
    }
}

impl MaxPacket {
    /// The setting's default means no limit, as the protocol has that one itself.
    pub fn of(setting: u32) -> Self {
        if setting >= i32::MAX as u32 { Self::default() } else { Self(setting as usize) }
    }

    /// Refuses a client's message that is too long, as soon as its length is known.
    #[inline]
    pub(super) fn admit(self, frame: &Frame<'_>) -> Result<(), Refusal> {
        if frame.len > self.0 { Err(self.refusal(frame)) } else { Ok(()) }
    }

    #[cold]
    fn refusal(self, frame: &Frame<'_>) -> Refusal {
        let (len, tag) = (frame.len, char::from(frame.tag));
        Refusal::protocol(format!("message of {len} bytes is longer than max_packet_size ({})", self.0))
            .hint("Send less at once, or have the setting max_packet_size raised.")
            .log(format!("bad packet header: '{tag}' of {len} bytes, max_packet_size is {}", self.0))
    }
}

impl ClientSession {
    /// A session that starts with these parameters.
    pub fn new(parameters: Arc<Parameters>, route: Route) -> Self {
        Self { parameters, route, initial_route: route, ..Self::default() }
    }

    /// The number of the last change to what it has prepared. Later ones have higher numbers. For clients without a server.
    pub fn last_change(&self) -> ChangeNumber {
        self.last_change
    }

    /// What it does is what it has chosen at login (RESET).
    pub(super) fn reset_route(&mut self) {
        self.route = self.initial_route;
    }

    /// Takes note of a `SET pgweir.route`. The server gets it as well, to which it means nothing.
    #[inline]
    pub(super) fn heed(&mut self, setting: Option<Option<Route>>) {
        if let Some(route) = setting {
            self.route = route.unwrap_or(self.initial_route);
        }
    }

    /// Whether the client is in the middle of a frame.
    pub fn is_mid_frame(&self) -> bool {
        self.rest.left > 0
    }

    /// Drops what a client without a server sends that asks for nothing: late COPY data, Flush. Says how many
    /// bytes to drop and what comes then; `None` if that cannot be seen yet, or could not be sent on yet: a server is not kept
    /// waiting for the other half of a message. `reads_statements`: named ones are read whole.
    pub fn skip_idle(
        &mut self,
        buf: &[u8],
        reads_statements: bool,
    ) -> Result<(usize, Option<Idle>), Refusal> {
        let mut at = self.rest.left.min(buf.len());
        self.rest.left -= at;
        while let Some(frame) = peek(&buf[at..]).map_err(client_fault)? {
            self.max_packet.admit(&frame)?;
            match frame.tag {
                frontend::COPY_DATA | frontend::COPY_DONE | frontend::COPY_FAIL | frontend::FLUSH => {
                    at += frame.available();
                    self.rest = Rest { left: frame.len - frame.available(), keep: false };
                }
                frontend::TERMINATE => return Ok((at, Some(Idle::Terminate))),
                frontend::QUERY
                | frontend::PARSE
                | frontend::BIND
                | frontend::DESCRIBE
                | frontend::EXECUTE
                | frontend::CLOSE
                | frontend::SYNC
                | frontend::FUNCTION_CALL => {
                    if frame.is_complete() {
                        return Ok((at, Some(Idle::Request)));
                    }
                    let is_named = reads_statements && is_named_parse(&frame);
                    if is_too_long(&frame, is_named) {
                        return Err(client_fault(FrameError::Length));
                    }
                    let can_go = is_enough(&frame) && !is_named;
                    return Ok((at, can_go.then_some(Idle::Request)));
                }
                other => return Err(client_fault(FrameError::Tag(other))),
            }
        }
        Ok((at, None))
    }
}

/// What comes first from a client that has no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Something that needs a server.
    Request,
    /// Goodbye.
    Terminate,
}
