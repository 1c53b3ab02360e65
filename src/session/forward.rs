//! Walks the bytes that one side sent and decides what the other side gets. HOT.
//!
//! Frames are looked at where they lie. Most are kept as they are, and neighbours go out as one piece
//! ([`Output`]); only messages that name a prepared statement are rewritten. A frame whose body is still on its
//! way is passed on as far as it is there, so the size of a message never matters, except for the few that must be
//! read whole.

use std::sync::Arc;

use super::command::{self, Ddl};
use super::output::Output;
use super::parameters::{self, Parameters};
use super::pipeline::{Action, Expect, Pipeline, Undone, Unexpected, Verdict};
use super::prepared::{ClientStatements, Registry, ServerStatements, Statement, server_name};
use crate::error::{Refusal, sqlstate};
use crate::sql::{self, Route};
use crate::wire::backend::error_fields;
use crate::wire::frame::{Frame, FrameError, HEADER, peek};
use crate::wire::{frontend, write};

/// Longest part of a message that is read whole to find a name in it, and longest unnamed statement that can be
/// prepared again on another server.
const MAX_NAME: usize = 64 * 1024;
/// Shorter messages are passed on whole, so that a `SET` in them is seen.
const SHORT: usize = 128;
/// Longest Parse of a named statement, and longest Bind, which may become longer by its name; PostgreSQL's own limit for
/// a message (`MaxAllocSize`).
const MAX_MESSAGE: usize = 0x3fff_ffff;

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
    /// An unnamed statement that was prepared in an earlier transaction and not run yet.
    pub unnamed: Option<Box<[u8]>>,
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
    /// Its client has been told that it ends the connection, and why.
    has_said_why: bool,
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
    /// The next frame has to wait until the server has answered ([`Context::one_at_a_time`]).
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

/// Result of a walk over a server's bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Received {
    /// How many bytes were dealt with.
    pub consumed: usize,
    /// ReadyForQuery messages the client got.
    pub queries: u32,
    /// … of them outside a transaction.
    pub transactions: u32,
    /// The server has reported a parameter.
    pub reported: bool,
    /// The client gets an error.
    pub failed: bool,
    /// A transaction that has changed the catalog has ended.
    pub ddl: Ddl,
    /// A command has ended that writes, or may let later ones write, or is not part of the client's first transaction on this
    /// server, if that began as a read-only one.
    pub may_have_written: bool,
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
    /// It refused something the proxy itself had asked for: parameters or a check query.
    #[error("{0}")]
    Setup(String),
    /// It goes away, and has not seen anything of the client's.
    #[error("{0}")]
    Leaving(String),
}

impl ClientSession {
    /// A session that starts with these parameters.
    pub fn new(parameters: Arc<Parameters>, route: Route) -> Self {
        Self {
            parameters,
            statements: ClientStatements::default(),
            route,
            initial_route: route,
            unnamed: None,
            rest: Rest::default(),
        }
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
    /// bytes to drop and what comes then; `None` if that cannot be seen yet.
    pub fn skip_idle(&mut self, buf: &[u8]) -> Result<(usize, Option<Idle>), Refusal> {
        let mut at = self.rest.left.min(buf.len());
        self.rest.left -= at;
        while let Some(frame) = peek(&buf[at..]).map_err(client_fault)? {
            match frame.tag {
                b'd' | b'c' | b'f' | b'H' => {
                    at += frame.available();
                    self.rest = Rest { left: frame.len - frame.available(), keep: false };
                }
                b'X' => return Ok((at, Some(Idle::Terminate))),
                b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'S' | b'F' => {
                    return Ok((at, Some(Idle::Request)));
                }
                other => return Err(client_fault(FrameError::Tag(other))),
            }
        }
        Ok((at, None))
    }
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
        if matches!(frame.tag, b'Q' | b'S' | b'F') {
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

    /// A client gets this server. Its unnamed statement, if there is one, belongs to somebody else.
    /// `exclusive`: for as long as it wants.
    pub fn attach(&mut self, exclusive: bool) {
        self.unnamed.valid = false;
        self.past_first = false;
        self.exclusive = exclusive;
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
    }

    /// Puts a query of the proxy's own in; nobody will see its answer.
    pub fn ask(&mut self, sql: &[u8], out: &mut Vec<u8>) {
        write::query(out, sql);
        self.pipeline.expect(Expect::Query, Action::Skip, 0);
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
                b'S' if frame.is_complete() => self.report(frame.body)?,
                b'N' | b'A' if frame.is_complete() => {}
                other => return Err(Unexpected(other).into()),
            }
            at += frame.len;
        }
        Ok(at)
    }

    /// Takes a ParameterStatus.
    pub fn report(&mut self, body: &[u8]) -> Result<(), FrameError> {
        let (name, value) =
            crate::wire::backend::parameter_status(body).ok_or(FrameError::Body("ParameterStatus"))?;
        if self.parameters.get(name) != Some(value) {
            Arc::make_mut(&mut self.parameters).set(name, value);
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
        server.pipeline.expect(Expect::Query, Action::Skip, 0);
    }
    differs
}

/// Walks bytes from a client to its server.
pub fn client_to_server(
    buf: &[u8],
    client: &mut ClientSession,
    server: &mut ServerSession,
    context: &Context<'_>,
    out: &mut Output<'_>,
) -> Result<Sent, Refusal> {
    let sent = Sent { consumed: 0, stop: Stop::More, client_parses: 0, server_parses: 0, binds: 0 };
    let mut walk = Walk { client, server, context, sent };
    let mut at = walk.client.rest.pass(buf, out);
    while at < buf.len() {
        let Some(frame) = peek(&buf[at..]).map_err(client_fault)? else { break };
        if context.one_at_a_time && !walk.server.pipeline.is_empty() && walk.server.pipeline.ends_batch() {
            walk.sent.stop = Stop::Hold;
            break;
        }
        match walk.frame(&frame)? {
            Step::Keep => {
                out.keep(at, at + frame.available());
                walk.client.rest = Rest { left: frame.len - frame.available(), keep: true };
            }
            Step::Rewrite { before, statement, after } => {
                let name = &*statement.name;
                let insert = out.insert();
                let body = before.len() + name.len() + 1 + after.len() + (frame.len - frame.available());
                insert.push(frame.tag);
                insert.extend_from_slice(&(body as u32 + 4).to_be_bytes());
                insert.extend_from_slice(before);
                insert.extend_from_slice(name);
                insert.push(0);
                insert.extend_from_slice(after);
                walk.client.rest = Rest { left: frame.len - frame.available(), keep: true };
            }
            Step::Prepare(statement) => {
                write::parse(out.insert(), &statement.name, &statement.text_and_types)
            }
            Step::Drop => {
                walk.client.rest = Rest { left: frame.len - frame.available(), keep: false };
            }
            Step::Inject(inject) => {
                walk.inject(inject, out.insert());
                continue;
            }
            Step::Wait => break,
            Step::Terminate => {
                walk.sent.stop = Stop::Terminate;
                at += frame.available();
                break;
            }
        }
        at += frame.available();
    }
    walk.sent.consumed = at;
    Ok(walk.sent)
}

/// What to do with one frame from a client.
enum Step<'a> {
    /// Send it on as it is.
    Keep,
    /// Send it on with another statement name.
    Rewrite { before: &'a [u8], statement: Arc<Statement>, after: &'a [u8] },
    /// Send a Parse of this statement in its place.
    Prepare(Arc<Statement>),
    /// Send nothing.
    Drop,
    /// Something must be sent before it; then look at it again.
    Inject(Inject),
    /// It must be complete first.
    Wait,
    /// Goodbye.
    Terminate,
}

enum Inject {
    Statement(Arc<Statement>),
    Unnamed(Box<[u8]>),
}

struct Walk<'w> {
    client: &'w mut ClientSession,
    server: &'w mut ServerSession,
    context: &'w Context<'w>,
    sent: Sent,
}

impl Walk<'_> {
    #[inline]
    fn frame<'a>(&mut self, frame: &Frame<'a>) -> Result<Step<'a>, Refusal> {
        let expect = match frame.tag {
            b'Q' => {
                if self.context.refuse_simple {
                    return Err(Refusal::protocol("PQexec disallowed")
                        .hint("The setting disable_pqexec allows the extended query protocol only."));
                }
                if !frame.is_complete() && frame.len <= SHORT {
                    return Ok(Step::Wait);
                }
                self.client.heed(sql::setting(frame.body));
                self.forget_unnamed();
                Expect::Query
            }
            b'S' => {
                self.server.unnamed.in_batch = false;
                Expect::Sync
            }
            b'E' => Expect::Execute,
            b'P' => return self.parse(frame),
            b'B' => return self.bind(frame),
            b'D' | b'C' => return self.describe_or_close(frame),
            b'F' => Expect::Call,
            b'c' | b'f' => Expect::CopyEnd,
            b'd' => return Ok(Step::Keep),
            b'H' => {
                self.server.pipeline.touch();
                return Ok(Step::Keep);
            }
            b'X' => return Ok(Step::Terminate),
            other => return Err(client_fault(FrameError::Tag(other))),
        };
        self.server.pipeline.expect(expect, Action::Forward, 0);
        Ok(Step::Keep)
    }

    fn parse<'a>(&mut self, frame: &Frame<'a>) -> Result<Step<'a>, Refusal> {
        if frame.body.is_empty() && frame.len > HEADER {
            return Ok(Step::Wait);
        }
        if frame.body.first() == Some(&0) {
            let wait_for = if self.context.exclusive { SHORT } else { MAX_NAME };
            if !frame.is_complete() && frame.len <= wait_for {
                return Ok(Step::Wait);
            }
            self.client.heed(sql::setting(&frame.body[1..]));
            return Ok(self.parse_unnamed(frame));
        }
        if self.context.max_prepared == 0 {
            self.server.pipeline.expect(Expect::Parse, Action::Forward, 0);
            return Ok(Step::Keep);
        }
        if !frame.is_complete() {
            return if frame.len > MAX_MESSAGE {
                Err(client_fault(FrameError::Length))
            } else {
                Ok(Step::Wait)
            };
        }
        let parse = frontend::parse(frame.body).map_err(client_fault)?;
        if self.server.pipeline.is_skipping() {
            return Ok(Step::Drop);
        }
        if self.client.statements.get(parse.name).is_some() {
            return Err(already_prepared(parse.name));
        }
        let statement = self.context.registry.intern(parse.text_and_types);
        self.sent.client_parses += 1;
        self.client.statements.insert(parse.name, Arc::clone(&statement));
        if self.server.statements.touch(statement.id) {
            self.server.pipeline.expect(Expect::Parse, Action::Fake, statement.id);
            return Ok(Step::Drop);
        }
        if self.server.statements.len() >= self.context.max_prepared {
            // Room has to be made first; the frame is looked at again after that.
            self.client.statements.remove(parse.name);
            self.sent.client_parses -= 1;
            return Ok(Step::Inject(Inject::Statement(statement)));
        }
        self.sent.server_parses += 1;
        self.server.statements.insert(statement.id);
        self.server.pipeline.expect(Expect::Parse, Action::Forward, statement.id);
        Ok(Step::Prepare(statement))
    }

    fn parse_unnamed<'a>(&mut self, frame: &Frame<'_>) -> Step<'a> {
        self.server.pipeline.expect(Expect::Parse, Action::Forward, 0);
        if !self.context.exclusive && !self.server.pipeline.is_skipping() {
            self.client.unnamed = None;
            let unnamed = &mut self.server.unnamed;
            (unnamed.valid, unnamed.bound) = (true, false);
            (unnamed.in_batch, unnamed.doubtful) = (true, false);
            unnamed.text.clear();
            if frame.is_complete() && frame.len <= MAX_NAME {
                unnamed.text.extend_from_slice(&frame.body[1..]);
            }
        }
        Step::Keep
    }

    fn bind<'a>(&mut self, frame: &Frame<'a>) -> Result<Step<'a>, Refusal> {
        if frame.len > MAX_MESSAGE {
            return Err(client_fault(FrameError::Length));
        }
        let Some(named) = frontend::bind(frame.body) else {
            return wait_for_name(frame, "Bind");
        };
        if named.name.is_empty() {
            if let Some(inject) = self.unnamed_statement()? {
                return Ok(inject);
            }
            self.server.unnamed.bound = true;
        }
        self.named(named, Expect::Bind)
    }

    fn describe_or_close<'a>(&mut self, frame: &Frame<'a>) -> Result<Step<'a>, Refusal> {
        if !frame.is_complete() {
            return wait_for_name(frame, "Describe or Close");
        }
        let named = frontend::target(frame.body).map_err(client_fault)?;
        let expect = if frame.tag == b'D' { Expect::Describe } else { Expect::Close };
        if named.before == b"P" {
            self.server.pipeline.expect(expect, Action::Forward, 0);
            return Ok(Step::Keep);
        }
        if expect == Expect::Describe && named.name.is_empty() {
            if let Some(inject) = self.unnamed_statement()? {
                return Ok(inject);
            }
        }
        if expect == Expect::Close && named.name.is_empty() {
            self.forget_unnamed();
        }
        if expect == Expect::Close && !named.name.is_empty() && self.context.max_prepared > 0 {
            // The server keeps the statement for whoever prepares it next.
            self.client.statements.remove(named.name);
            self.server.pipeline.expect(Expect::Close, Action::Fake, 0);
            return Ok(Step::Drop);
        }
        self.named(named, expect)
    }

    /// A message that names a statement, which the server may not have yet.
    fn named<'a>(&mut self, named: frontend::Named<'a>, expect: Expect) -> Result<Step<'a>, Refusal> {
        if named.name.is_empty() || self.context.max_prepared == 0 {
            self.server.pipeline.expect(expect, Action::Forward, 0);
            return Ok(Step::Keep);
        }
        if self.server.pipeline.is_skipping() {
            // The name may have been forgotten with the batch that failed.
            return Ok(Step::Drop);
        }
        let statement =
            Arc::clone(self.client.statements.get(named.name).ok_or_else(|| not_prepared(named.name))?);
        if !self.server.statements.touch(statement.id) {
            return Ok(Step::Inject(Inject::Statement(statement)));
        }
        if expect == Expect::Bind {
            self.sent.binds += 1;
            self.client.heed(statement.setting);
        }
        self.server.pipeline.expect(expect, Action::Forward, 0);
        Ok(Step::Rewrite { before: named.before, statement, after: named.after })
    }

    /// The unnamed statement is about to be used: is it this client's?
    fn unnamed_statement<'a>(&mut self) -> Result<Option<Step<'a>>, Refusal> {
        if self.context.exclusive || self.server.pipeline.is_skipping() {
            return Ok(None);
        }
        let unnamed = &self.server.unnamed;
        let again = if !unnamed.valid {
            self.client.unnamed.take()
        } else if unnamed.in_batch || self.server.pipeline.is_empty() && !unnamed.doubtful {
            return Ok(None);
        } else {
            // If its batch has failed, or will, the server still has somebody else's.
            (!unnamed.text.is_empty()).then(|| unnamed.text.as_slice().into())
        };
        match again {
            Some(parse) => Ok(Some(Step::Inject(Inject::Unnamed(parse)))),
            None => Err(Refusal::new(sqlstate::UNKNOWN_STATEMENT, "unnamed prepared statement does not exist")
                .hint("In transaction pooling, send Parse and Bind of an unnamed statement in one transaction, or give it a name.")),
        }
    }

    /// A simple query or a Close ends the unnamed statement, wherever it was.
    #[inline]
    fn forget_unnamed(&mut self) {
        if !self.server.pipeline.is_skipping() {
            self.server.unnamed.valid = false;
            self.client.unnamed = None;
        }
    }

    /// Sends messages of our own before the frame at hand.
    fn inject(&mut self, inject: Inject, out: &mut Vec<u8>) {
        match inject {
            Inject::Unnamed(parse) => {
                write::parse(out, b"", &parse);
                self.server.pipeline.expect(Expect::Parse, Action::Skip, 0);
                self.server.unnamed = Unnamed {
                    valid: true,
                    bound: false,
                    in_batch: true,
                    doubtful: false,
                    text: parse.into_vec(),
                };
            }
            Inject::Statement(statement) => {
                while let Some(evicted) = self.server.statements.evict(self.context.max_prepared.max(1)) {
                    write::close_statement(out, &server_name(evicted));
                    self.server.pipeline.expect(Expect::Close, Action::Skip, evicted);
                }
                write::parse(out, &statement.name, &statement.text_and_types);
                self.sent.server_parses += 1;
                self.server.statements.insert(statement.id);
                self.server.pipeline.expect(Expect::Parse, Action::Skip, statement.id);
            }
        }
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

fn wait_for_name<'a>(frame: &Frame<'_>, message: &'static str) -> Result<Step<'a>, Refusal> {
    if frame.is_complete() || frame.body.len() > MAX_NAME {
        return Err(client_fault(FrameError::Body(message)));
    }
    Ok(Step::Wait)
}

fn client_fault(fault: FrameError) -> Refusal {
    Refusal::protocol(fault.to_string())
}

fn already_prepared(name: &[u8]) -> Refusal {
    let name = String::from_utf8_lossy(name);
    Refusal::new(sqlstate::DUPLICATE_STATEMENT, format!("prepared statement '{name}' was already prepared"))
}

fn not_prepared(name: &[u8]) -> Refusal {
    let name = String::from_utf8_lossy(name);
    Refusal::protocol(format!("prepared statement did not exist: {name}"))
        .hint("It was never prepared by this client, or DEALLOCATE ALL or DISCARD ALL has removed it.")
}

/// Walks bytes from a server to its client.
pub fn server_to_client(
    buf: &[u8],
    server: &mut ServerSession,
    client: &mut ClientSession,
    out: &mut Output<'_>,
) -> Result<Received, ServerFault> {
    let mut received = Received::default();
    let mut at = server.rest.pass(buf, out);
    if at > 0 && server.rest.left == 0 {
        fake_replies(&mut server.pipeline, out);
    }
    while at < buf.len() {
        let Some(frame) = peek(&buf[at..])? else { break };
        // An error that answers the proxy's own query is not passed on, but understood.
        let is_read_whole = is_read_whole(frame.tag) || frame.tag == b'E' && server.pipeline.next_is_ours();
        if !frame.is_complete() && is_read_whole {
            if frame.len > MAX_NAME {
                return Err(FrameError::Length.into());
            }
            break;
        }
        let verdict = server.pipeline.on_backend(frame.tag, frame.body)?;
        let keep = verdict == Verdict::Forward || verdict == Verdict::Farewell && server.exclusive;
        match frame.tag {
            b'D' | b'd' => {}
            b'Z' if keep => {
                received.queries += 1;
                if frame.body == b"I" {
                    received.transactions += 1;
                    received.ddl = received.ddl.max(std::mem::take(&mut server.ddl));
                    server.past_first = true;
                }
            }
            b'S' => {
                server.report(frame.body)?;
                received.reported = true;
            }
            b'C' if keep => {
                server.ddl = server.ddl.max(command::ddl(frame.body));
                received.may_have_written |= server.past_first || !command::reads(frame.body);
                server.past_first |= command::may_end_transaction(frame.body);
                forget_statements(frame.body, server, client);
            }
            b'C' => forget_statements(frame.body, server, client),
            b'V' => received.may_have_written = true,
            b'E' if verdict == Verdict::SetupFailed => {
                let text = error_fields(frame.body).text();
                return Err(if is_fatal(frame.body) {
                    ServerFault::Leaving(text)
                } else {
                    ServerFault::Setup(text)
                });
            }
            b'E' => {
                undo_statements(server, client);
                received.failed |= keep;
                server.has_said_why |= keep && is_fatal(frame.body);
            }
            _ => {}
        }
        if keep {
            out.keep(at, at + frame.available());
        }
        at += frame.available();
        server.rest = Rest { left: frame.len - frame.available(), keep };
        if server.rest.left == 0 {
            fake_replies(&mut server.pipeline, out);
        }
    }
    received.consumed = at;
    Ok(received)
}

/// Puts in the replies that the proxy owes the client now that it has sent something on, unless a frame to the
/// client is under way.
pub fn fake_replies_due(server: &mut ServerSession, out: &mut Output<'_>) {
    if server.rest.left == 0 {
        fake_replies(&mut server.pipeline, out);
    }
}

#[inline]
fn fake_replies(pipeline: &mut Pipeline, out: &mut Output<'_>) {
    while let Some(tag) = pipeline.pop_fake() {
        write::frame(out.insert(), tag, |_| {});
    }
}

fn is_fatal(error: &[u8]) -> bool {
    matches!(error_fields(error).severity, b"FATAL" | b"PANIC")
}

fn is_read_whole(tag: u8) -> bool {
    matches!(tag, b'Z' | b'S' | b'C')
}

fn forget_statements(command: &[u8], server: &mut ServerSession, client: &mut ClientSession) {
    if matches!(command, b"DEALLOCATE ALL\0" | b"DISCARD ALL\0") {
        server.statements.clear();
        client.statements.clear();
    }
    if command == b"DISCARD ALL\0" {
        client.reset_route();
    }
}

#[cold]
fn undo_statements(server: &mut ServerSession, client: &mut ClientSession) {
    server.unnamed.doubtful = true;
    for undone in server.pipeline.take_undone() {
        match undone {
            Undone::ClientParse { id, on_server } => {
                client.statements.forget_latest(id);
                if on_server {
                    server.statements.remove(id);
                }
            }
            Undone::ServerParse(id) => server.statements.remove(id),
            Undone::ServerClose(id) => server.statements.insert(id),
        }
    }
}

/// Reads one ParameterStatus of a login.
pub fn login_parameter(parameters: &mut Parameters, body: &[u8]) -> Result<(), FrameError> {
    parameters::report(parameters, body).map(drop)
}

#[cfg(test)]
mod tests;
