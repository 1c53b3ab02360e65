//! Walks the bytes that one side sent and decides what the other side gets: `requests` those of a client, `replies` those
//! of a server. HOT.
//!
//! Frames are looked at where they lie. Most are kept as they are, and neighbours go out as one piece
//! ([`Output`]); only messages that name a prepared statement are rewritten. A frame whose body is still on its
//! way is passed on as far as it is there, so the size of a message never matters, except for the few that must be
//! read whole.

mod deallocate;
mod kept;
mod replies;
mod requests;

use std::sync::Arc;

pub use self::kept::{Judge, Kept};
pub use self::replies::{Received, fake_replies_due, server_to_client};
pub use self::requests::{Context, Sent, Stop, client_to_server};

use super::command::{self, Ddl};
use super::numbers::ChangeNumber;
use super::output::Output;
use super::parameters::{self, Parameters, ReportError};
use super::pipeline::{Action, Expect, Pipeline, Unexpected};
use super::prepared::{ClientStatements, ServerStatements};
use crate::error::Refusal;
use crate::sql::Route;
use crate::wire::frame::{Frame, FrameError, peek};
use crate::wire::tag::{backend, frontend};
use crate::wire::write;

/// Longest part of a message that is read whole to find a name in it, and longest unnamed statement that can be
/// prepared again on another server. A client's message of up to this length goes on whole.
const MAX_NAME: usize = 64 * 1024;
/// Longest Parse of a named statement, and longest Bind, which may become longer by its name; PostgreSQL's own limit for
/// a message (`MaxAllocSize`).
const MAX_MESSAGE: usize = 0x3fff_ffff;
/// How much a server may say to messages of the proxy's own, up to a ReadyForQuery.
const MAX_ANSWER: usize = 1024 * 1024;

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
    last_change: ChangeNumber,
    /// The longest message that the client or its server may send.
    pub max_packet: MaxPacket,
    /// The part of a frame that is still to come.
    rest: Rest,
}

/// A server's side of the conversation. It moves with the server connection.
#[derive(Debug, Default)]
pub struct ServerSession {
    /// Parameters as last reported.
    pub parameters: Arc<Parameters>,
    /// Prepared statements.
    pub statements: ServerStatements,
    /// Replies owed.
    pub pipeline: Pipeline,
    unnamed: Unnamed,
    rest: Rest,
    /// What the transaction has changed in the database's catalog.
    ddl: Ddl,
    /// Its client's first transaction may be over: what it does now may be part of another one.
    past_first: bool,
    /// One client has it for a whole session.
    exclusive: bool,
    /// A client has it for one statement: there are no transaction blocks.
    by_statement: bool,
    /// It has said FATAL: it ends the connection.
    has_ended: bool,
    /// … and its client has been told why.
    has_said_why: bool,
    /// Bytes of its answer that nobody gets, since the last ReadyForQuery.
    dropped: usize,
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
    fn admit(self, frame: &Frame<'_>) -> Result<(), Refusal> {
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

/// Bytes of the current frame that have not arrived yet, and whether they go on or are dropped.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    left: usize,
    keep: bool,
}

/// The unnamed statement of a server while a client has it.
#[derive(Debug, Default)]
struct Unnamed {
    /// The client itself has prepared it; without that it may be another client's.
    valid: bool,
    /// It has been bound since.
    bound: bool,
    /// Its Parse belongs to the batch at hand: if that was skipped after an error, so is what uses it.
    in_batch: bool,
    /// An error has come since: it may not have been prepared.
    doubtful: bool,
    /// Its Parse, while that may be needed on another server. Kept for its capacity.
    text: Vec<u8>,
}

/// The server sent something that cannot be; it must be closed.
#[derive(Debug, thiserror::Error)]
pub enum ServerFault {
    /// A broken frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message out of order.
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
    /// More parameters than can be kept.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A message longer than `max_packet_size`.
    #[error("message of {0} bytes from server is longer than max_packet_size")]
    TooLong(usize),
    /// An answer without an end to a question of the proxy's own.
    #[error("server answers a query of the pooler with more than {MAX_ANSWER} bytes")]
    TooMuch,
    /// It refused something the proxy itself had asked for: parameters or a check query.
    #[error("{0}")]
    Setup(String),
    /// It goes away, and has not seen anything of the client's.
    #[error("{0}")]
    Leaving(String),
    /// Its client has begun a transaction block, and the pool mode is `statement`.
    #[error("transaction blocks not allowed in statement pooling mode")]
    Transaction,
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
    fn reset_route(&mut self) {
        self.route = self.initial_route;
    }

    /// Takes note of a `SET pgweir.route`. The server gets it as well, to which it means nothing.
    #[inline]
    fn heed(&mut self, setting: Option<Option<Route>>) {
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
                | frontend::FUNCTION_CALL
                    if !frame.is_complete() =>
                {
                    let is_named = reads_statements && is_named_parse(&frame);
                    if is_too_long(&frame, is_named) {
                        return Err(client_fault(FrameError::Length));
                    }
                    let can_go = is_enough(&frame) && !is_named;
                    return Ok((at, can_go.then_some(Idle::Request)));
                }
                frontend::QUERY
                | frontend::PARSE
                | frontend::BIND
                | frontend::DESCRIBE
                | frontend::EXECUTE
                | frontend::CLOSE
                | frontend::SYNC
                | frontend::FUNCTION_CALL => {
                    return Ok((at, Some(Idle::Request)));
                }
                other => return Err(client_fault(FrameError::Tag(other))),
            }
        }
        Ok((at, None))
    }
}

/// Whether a client's message can be sent on. A short one goes whole: half of it would take a server, and keep it for as long
/// as the other half is missing. Of a long one there has to be as much as may hold its names.
#[inline]
fn is_enough(frame: &Frame<'_>) -> bool {
    frame.is_complete() || frame.body.len() > MAX_NAME
}

/// Whether a message that is to be changed is longer than PostgreSQL takes. Others it may refuse itself.
fn is_too_long(frame: &Frame<'_>, is_named_parse: bool) -> bool {
    frame.len > MAX_MESSAGE && (is_named_parse || frame.tag == frontend::BIND)
}

/// Whether it prepares a named statement.
fn is_named_parse(frame: &Frame<'_>) -> bool {
    frame.tag == frontend::PARSE && frame.body.first().is_some_and(|&first| first != 0)
}

/// Length of the first batch in `buf`: a simple query or call, or everything up to Sync. `None` if it is not complete.
pub fn batch_len(buf: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let frame = peek(&buf[at..]).ok()??;
        at += frame.len;
        if at > buf.len() {
            return None;
        }
        if matches!(frame.tag, frontend::QUERY | frontend::SYNC | frontend::FUNCTION_CALL) {
            return Some(at);
        }
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

impl ServerSession {
    /// A server that has just let us in and reported these parameters.
    pub fn new(parameters: Parameters) -> Self {
        Self { parameters: Arc::new(parameters), ..Self::default() }
    }

    /// Whether another client may have this server: nothing is owed and no frame is under way.
    pub fn is_settled(&self) -> bool {
        self.pipeline.is_settled() && self.rest.left == 0
    }

    /// A client gets this server. Its unnamed statement, if there is one, belongs to another client.
    /// `exclusive`: for as long as it wants.
    pub fn attach(&mut self, client: &ClientSession, exclusive: bool) {
        self.pipeline.catch_up(client.last_change);
        self.unnamed.valid = false;
        self.past_first = false;
        self.exclusive = exclusive;
    }

    /// Whether the client that has this server may not begin transaction blocks (`pool_mode = statement`).
    pub fn refuse_blocks(&mut self, refuse: bool) {
        self.by_statement = refuse;
    }

    /// Whether its client has been told that it ends the connection, and why.
    pub fn has_said_why(&self) -> bool {
        self.has_said_why
    }

    /// A client leaves this settled server: it takes along what the server knows of it.
    pub fn detach(&mut self, client: &mut ClientSession) {
        if !Arc::ptr_eq(&client.parameters, &self.parameters) {
            client.parameters = Arc::clone(&self.parameters);
        }
        if self.unnamed.valid && !self.unnamed.bound && !self.unnamed.text.is_empty() {
            client.unnamed = Some(self.unnamed.text.as_slice().into());
        }
        self.unnamed.valid = false;
        client.last_change = self.pipeline.changes().made;
        if let Some(known) = client.statements.any() {
            known.bound = None;
        }
    }

    /// The server is lost: what it was told and has not answered has not happened.
    pub fn lose(&self, client: &mut ClientSession) {
        client.last_change = self.pipeline.changes().made;
        if let Some(known) = client.statements.any() {
            known.lose_server();
        }
    }

    /// Puts a query of the proxy's own in; nobody will see its answer.
    pub fn ask(&mut self, sql: &[u8], out: &mut Vec<u8>) {
        write::query(out, sql);
        self.pipeline.expect(Expect::Query, Action::Skip);
    }

    /// Takes what a server says while no client has it. `Err` if it must be closed: it is going away, or says
    /// what nobody asked for.
    pub fn on_idle_bytes(&mut self, buf: &[u8]) -> Result<usize, ServerFault> {
        let mut at = 0;
        while let Some(frame) = peek(&buf[at..])? {
            if !frame.is_complete() && frame.len <= MAX_NAME {
                break;
            }
            match frame.tag {
                backend::PARAMETER_STATUS if frame.is_complete() => self.report(frame.body)?,
                backend::NOTICE_RESPONSE | backend::NOTIFICATION_RESPONSE if frame.is_complete() => {}
                other => return Err(Unexpected(other).into()),
            }
            at += frame.len;
        }
        Ok(at)
    }

    /// Takes the ParameterStatus and CommandComplete messages of an answer that no client gets.
    pub fn note(&mut self, tag: u8, body: &[u8]) -> Result<(), ReportError> {
        match tag {
            backend::PARAMETER_STATUS => return self.report(body),
            backend::COMMAND_COMPLETE if command::forgets_statements(body) => {
                self.statements.copies_mut().forget(self.pipeline.changes().made);
            }
            _ => {}
        }
        Ok(())
    }

    /// The server has taken a value that the proxy itself has set, and may not say so.
    pub fn note_set(&mut self, name: &[u8], value: &[u8]) {
        Arc::make_mut(&mut self.parameters).note_set(name, value);
    }

    /// Takes a ParameterStatus.
    pub fn report(&mut self, body: &[u8]) -> Result<(), ReportError> {
        let (name, value) =
            crate::wire::backend::parameter_status(body).ok_or(FrameError::Body("ParameterStatus"))?;
        if self.parameters.get(name) != Some(value) {
            parameters::report(Arc::make_mut(&mut self.parameters), body)?;
        }
        Ok(())
    }
}

/// Makes a server's parameters equal to a client's: appends a query to `out` if they differ, whose answers the
/// client will not see. Equal parameters become one shared value, so that the next comparison is one of pointers.
pub fn align_parameters(client: &mut ClientSession, server: &mut ServerSession, out: &mut Vec<u8>) -> bool {
    if Arc::ptr_eq(&client.parameters, &server.parameters) {
        return false;
    }
    if *client.parameters == *server.parameters {
        if Arc::as_ptr(&client.parameters) < Arc::as_ptr(&server.parameters) {
            server.parameters = Arc::clone(&client.parameters);
        } else {
            client.parameters = Arc::clone(&server.parameters);
        }
        return false;
    }
    let differs = client.parameters.write_difference(&mut server.parameters, out);
    if differs {
        server.pipeline.expect(Expect::Query, Action::Skip);
    }
    differs
}

impl Unnamed {
    /// It has just been prepared for the client.
    fn in_batch(text: Vec<u8>) -> Self {
        Self { valid: true, bound: false, in_batch: true, doubtful: false, text }
    }
}

impl Rest {
    /// Deals with what has come of the rest of a frame; says how much that was.
    #[inline]
    fn pass(&mut self, buf: &[u8], out: &mut Output<'_>) -> usize {
        let n = self.left.min(buf.len());
        if n > 0 {
            self.left -= n;
            if self.keep {
                out.keep(0, n);
            }
        }
        n
    }
}

fn client_fault(fault: FrameError) -> Refusal {
    Refusal::protocol(fault.to_string())
}

/// Reads one ParameterStatus of a login.
pub fn login_parameter(parameters: &mut Parameters, body: &[u8]) -> Result<(), ReportError> {
    parameters::report(parameters, body).map(drop)
}

#[cfg(test)]
mod tests;
