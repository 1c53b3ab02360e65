//! The walk over what a client sends: which messages go on as they are, which are rewritten, and what must go first. HOT.

use std::sync::Arc;

use super::{ClientSession, MAX_NAME, Rest, ServerSession, Unnamed, client_fault};
use crate::error::{Refusal, sqlstate};
use crate::session::output::Output;
use crate::session::pipeline::{Action, Expect};
use crate::session::prepared::{Registry, Statement, server_name};
use crate::sql;
use crate::wire::frame::{Frame, FrameError, HEADER, peek};
use crate::wire::{frontend, write};

/// Shorter messages are passed on whole, so that a `SET` in them is seen.
const SHORT: usize = 128;
/// Longest Parse of a named statement, and longest Bind, which may become longer by its name; PostgreSQL's own limit for
/// a message (`MaxAllocSize`).
const MAX_MESSAGE: usize = 0x3fff_ffff;

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
        let pipeline = &walk.server.pipeline;
        if context.one_at_a_time && pipeline.ends_batch() && !pipeline.only_ours() {
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

fn wait_for_name<'a>(frame: &Frame<'_>, message: &'static str) -> Result<Step<'a>, Refusal> {
    if frame.is_complete() || frame.body.len() > MAX_NAME {
        return Err(client_fault(FrameError::Body(message)));
    }
    Ok(Step::Wait)
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
