//! The walk over what a client sends: what it is given, what it does with a frame, and what comes of it.

use std::sync::Arc;

use super::client::ClientSession;
use super::server::ServerSession;
use crate::session::prepared::{Registry, Statement};

/// Flush.
pub(super) const FLUSH: &[u8] = b"H\0\0\0\x04";

/// What the walk from client to server needs to know.
pub struct Context<'a> {
    /// All prepared statements.
    pub registry: &'a Registry,
    /// Setting `max_prepared_statements`; 0: named statements are not looked at. Session pooling sets it to 0.
    pub max_prepared: usize,
    /// The server belongs to the client for good (session pooling): the unnamed statement cannot get lost.
    pub exclusive: bool,
    /// Only one batch may be under way at a time: the server is a standby, and the next batch may have to go
    /// elsewhere.
    pub one_at_a_time: bool,
    /// Setting `disable_pqexec`: simple queries are refused.
    pub refuse_simple: bool,
}

/// Why a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The buffer is used up, or ends in a frame that must be completed first.
    More,
    /// The next frame has to wait for what the server says next: see [`Context::one_at_a_time`], replies are owed in great
    /// number, or what the frame means depends on how an earlier batch ends.
    Hold,
    /// The client said goodbye.
    Terminate,
}

/// Result of a walk over a client's bytes.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// How many bytes were dealt with; the others must be shown again, together with what follows them.
    pub consumed: usize,
    /// Why it ended there.
    pub stop: Stop,
    /// Parse messages of named statements.
    pub client_parses: u32,
    /// … of them (or put in) sent to the server.
    pub server_parses: u32,
    /// Bind messages of named statements.
    pub binds: u32,
}

/// What to do with one frame from a client.
pub(super) enum Step<'a> {
    /// Send it on as it is.
    Keep,
    /// Send these messages, and then it as it is.
    KeepBehind(Vec<u8>),
    /// Send it on with another statement name.
    Rewrite { before: &'a [u8], statement: Arc<Statement>, after: &'a [u8] },
    /// The same with a name that is none of a statement's.
    Rename { before: &'a [u8], name: &'static [u8], after: &'a [u8] },
    /// Send a Parse of this statement in its place.
    Prepare(Arc<Statement>),
    /// Prepare this text twice under one name, which the server refuses as it would the client's.
    PrepareTwice(&'a [u8]),
    /// Send this in its place.
    Replace(Vec<u8>),
    /// Send nothing.
    Drop,
    /// Something must be sent before it; then look at it again.
    Inject(Inject),
    /// It must be complete first.
    Wait,
    /// The server must say more first.
    Hold,
    /// Goodbye.
    Terminate,
}

pub(super) enum Inject {
    /// Prepares a statement, and asks for its columns if the client has been told of some.
    Statement { statement: Arc<Statement>, ask_columns: bool },
    /// Prepares the unnamed statement.
    Unnamed(Box<[u8]>),
    /// Makes sure that there is no unnamed statement.
    NoUnnamed,
}

pub(super) struct Walk<'w> {
    pub(super) client: &'w mut ClientSession,
    pub(super) server: &'w mut ServerSession,
    pub(super) context: &'w Context<'w>,
    pub(super) sent: Sent,
}
