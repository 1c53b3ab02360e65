//! The walk over what a client sends: which messages go on as they are, which are rewritten, and what must go first. HOT.

use std::sync::Arc;

use super::deallocate::EMPTY;
use super::{
    ClientSession, MAX_MESSAGE, MAX_NAME, Rest, ServerSession, Unnamed, client_fault, is_enough,
    is_named_parse, is_too_long,
};
use crate::error::Refusal;
use crate::session::output::Output;
use crate::session::pipeline::{Action, Expect};
use crate::session::prepared::{ClientNames, Columns, Copy, Deallocates, Registry, Statement, server_name};
use crate::session::refused::{Refused, RefusedFor};
use crate::sql;
use crate::wire::frame::{Frame, FrameError, peek};
use crate::wire::tag::frontend as tag;
use crate::wire::{frontend, write};

/// Names of statements that are none of a client's. No server has the first one.
const MISSING: &[u8] = b"PGWEIR_missing";
const DUPLICATE: &[u8] = b"PGWEIR_duplicate";
/// Close of a portal that does not exist, and Sync.
const COPY_MARK: &[u8] = b"C\0\0\0\x0cPPGWEIR\0S\0\0\0\x04";
const FLUSH: &[u8] = b"H\0\0\0\x04";

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
        walk.client.max_packet.admit(&frame)?;
        if walk.must_hold(out) {
            walk.sent.stop = Stop::Hold;
            break;
        }
        match walk.frame(&frame)? {
            Step::Keep => {
                out.keep(at, at + frame.available());
                walk.client.rest = Rest { left: frame.len - frame.available(), keep: true };
                if frame.tag == tag::SYNC && walk.server.pipeline.mark_copy() {
                    out.insert().extend_from_slice(COPY_MARK);
                }
            }
            Step::Rename { before, name, after } => {
                write_renamed(&frame, before, name, after, out.insert());
                walk.client.rest = Rest { left: frame.len - frame.available(), keep: true };
            }
            Step::Rewrite { before, statement, after } => {
                write_renamed(&frame, before, &statement.name, after, out.insert());
                walk.client.rest = Rest { left: frame.len - frame.available(), keep: true };
            }
            Step::Prepare(statement) => out.parse(&statement),
            Step::PrepareTwice(text_and_types) => {
                let out = out.insert();
                write::close_statement(out, DUPLICATE);
                write::parse(out, DUPLICATE, text_and_types);
                write::parse(out, DUPLICATE, EMPTY);
            }
            Step::KeepBehind(messages) => {
                out.insert().extend_from_slice(&messages);
                out.keep(at, at + frame.available());
                walk.client.rest = Rest { left: frame.len - frame.available(), keep: true };
            }
            Step::Replace(message) => out.insert().extend_from_slice(&message),
            Step::Drop => {
                walk.client.rest = Rest { left: frame.len - frame.available(), keep: false };
            }
            Step::Inject(inject) => {
                walk.inject(inject, out);
                continue;
            }
            Step::Wait => break,
            Step::Hold => {
                if !walk.server.pipeline.ends_batch() {
                    out.insert().extend_from_slice(FLUSH);
                }
                walk.sent.stop = Stop::Hold;
                break;
            }
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

/// A message that names a statement, with another name.
fn write_renamed(frame: &Frame<'_>, before: &[u8], name: &[u8], after: &[u8], out: &mut Vec<u8>) {
    let body = before.len() + name.len() + 1 + after.len() + (frame.len - frame.available());
    out.push(frame.tag);
    out.extend_from_slice(&(body as u32 + 4).to_be_bytes());
    out.extend_from_slice(before);
    out.extend_from_slice(name);
    out.push(0);
    out.extend_from_slice(after);
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
    sent: Sent,
}

impl Walk<'_> {
    /// Whether no frame may be sent for now, whatever it is.
    #[inline]
    fn must_hold(&mut self, out: &mut Output<'_>) -> bool {
        let pipeline = &self.server.pipeline;
        if pipeline.is_full() {
            if !pipeline.ends_batch() {
                // The server may keep what it owes until it is asked for it.
                out.insert().extend_from_slice(FLUSH);
            }
            return true;
        }
        pipeline.is_refusing() || self.context.one_at_a_time && pipeline.ends_batch() && !pipeline.only_ours()
    }

    #[inline]
    fn frame<'a>(&mut self, frame: &Frame<'a>) -> Result<Step<'a>, Refusal> {
        if !is_enough(frame) && is_kept_whole(frame.tag) {
            let is_named = self.context.max_prepared > 0 && is_named_parse(frame);
            return if is_too_long(frame, is_named) {
                Err(client_fault(FrameError::Length))
            } else {
                Ok(Step::Wait)
            };
        }
        let expect = match frame.tag {
            tag::QUERY => {
                if self.context.refuse_simple {
                    return Err(Refusal::protocol("PQexec disallowed")
                        .hint("The setting disable_pqexec allows the extended query protocol only."));
                }
                if let Some(step) = self.simple_query_deallocates(frame) {
                    return Ok(step);
                }
                self.client.heed(sql::setting(frame.body));
                self.forget_unnamed();
                self.server.pipeline.expect(Expect::Query, Action::Forward);
                if sql::may_deallocate(frame.body) && !self.server.pipeline.is_skipping() {
                    self.simple_query_may_forget(frame.body);
                }
                return Ok(Step::Keep);
            }
            tag::SYNC => {
                self.server.unnamed.in_batch = false;
                Expect::Sync
            }
            tag::EXECUTE => {
                if self.client.statements.any().is_some_and(|known| known.portal != Deallocates::Nothing) {
                    return Ok(self.execute_deallocating());
                }
                Expect::Execute
            }
            tag::PARSE => return self.parse(frame),
            tag::BIND => return self.bind(frame),
            tag::DESCRIBE | tag::CLOSE => return self.describe_or_close(frame),
            tag::FUNCTION_CALL => Expect::Call,
            tag::COPY_DONE | tag::COPY_FAIL => Expect::CopyEnd,
            tag::COPY_DATA => return Ok(Step::Keep),
            tag::FLUSH => {
                self.server.pipeline.touch();
                return Ok(Step::Keep);
            }
            tag::TERMINATE => return Ok(Step::Terminate),
            other => return Err(client_fault(FrameError::Tag(other))),
        };
        self.server.pipeline.expect(expect, Action::Forward);
        Ok(Step::Keep)
    }

    fn parse<'a>(&mut self, frame: &Frame<'a>) -> Result<Step<'a>, Refusal> {
        if frame.body.first() == Some(&0) {
            let text = &frame.body[1..];
            if let Some(step) = self.parse_deallocates(frame, text) {
                return Ok(step);
            }
            self.client.heed(sql::setting(text));
            self.expect_unnamed((frame.is_complete() && frame.len <= MAX_NAME).then_some(text));
            return Ok(Step::Keep);
        }
        if self.context.max_prepared == 0 {
            self.server.pipeline.expect(Expect::Parse, Action::Forward);
            return Ok(Step::Keep);
        }
        if !frame.is_complete() {
            return if frame.len > MAX_MESSAGE {
                Err(client_fault(FrameError::Length))
            } else {
                Ok(Step::Wait)
            };
        }
        if self.server.pipeline.is_skipping() {
            return Ok(Step::Drop);
        }
        let Ok(parse) = frontend::parse(frame.body) else { return Ok(self.malformed(Expect::Parse)) };
        Ok(self.parse_named(&parse))
    }

    fn parse_named<'a>(&mut self, parse: &frontend::Parse<'a>) -> Step<'a> {
        let name = parse.name;
        let pipeline = &mut self.server.pipeline;
        let changes = *pipeline.changes();
        let known = self.client.statements.known();
        let names = &mut known.names;
        match names.get_mut(name).map(|(_, change)| change) {
            Some(change) if changes.is_in_doubt(change) => return Step::Hold,
            Some(_) => {
                pipeline.expect(Expect::Close, Action::Skip);
                pipeline.expect(Expect::Parse, Action::Skip);
                pipeline.expect_refusal(Expect::Parse);
                known.refused = Some(Refused::new(RefusedFor::Duplicate, name));
                return Step::PrepareTwice(parse.text_and_types);
            }
            None if names.removed_by(name).is_some_and(|change| changes.is_in_doubt(change)) => {
                return Step::Hold;
            }
            None => {}
        }
        let statement = self.context.registry.intern(parse.text_and_types);
        let copies = self.server.statements.copies_mut();
        let step = match copies.touch(&statement.id).map(|(copy, change)| (copy.stale, change)) {
            Some((_, change)) if changes.is_in_doubt(change) => return Step::Hold,
            // The server has it already.
            Some((false, _)) => Step::Drop,
            None if copies.removed_by(&statement.id).is_some_and(|change| changes.is_in_doubt(change)) => {
                return Step::Hold;
            }
            None if copies.len() < self.context.max_prepared => Step::Prepare(Arc::clone(&statement)),
            // It has to go first, or another one has to make room.
            _ => return Step::Inject(Inject::Statement { statement, ask_columns: false }),
        };
        let change = if matches!(step, Step::Drop) {
            pipeline.expect_change(Expect::Parse, Action::Fake, None)
        } else {
            self.sent.server_parses += 1;
            let change = pipeline.expect_change(Expect::Parse, Action::Forward, Some(statement.id));
            copies.set(statement.id, Some(Copy::default()), Some(change));
            change
        };
        self.sent.client_parses += 1;
        known.set(name, Some(statement), Some(change));
        step
    }

    /// A message that no server understands gets the server's error, and the batch ends with it.
    #[cold]
    fn malformed<'a>(&mut self, expect: Expect) -> Step<'a> {
        self.server.pipeline.expect(expect, Action::Forward);
        Step::Keep
    }

    /// A Parse of the unnamed statement goes to the server. `text`: what follows its name, if it is to be kept for another
    /// server.
    pub(super) fn expect_unnamed(&mut self, text: Option<&[u8]>) {
        self.server.pipeline.expect(Expect::Parse, Action::Forward);
        if !self.context.exclusive && !self.server.pipeline.is_skipping() {
            self.client.unnamed = None;
            let unnamed = &mut self.server.unnamed;
            (unnamed.valid, unnamed.bound) = (true, false);
            (unnamed.in_batch, unnamed.doubtful) = (true, false);
            unnamed.text.clear();
            unnamed.text.extend_from_slice(text.unwrap_or_default());
        }
    }

    fn bind<'a>(&mut self, frame: &Frame<'a>) -> Result<Step<'a>, Refusal> {
        if frame.len > MAX_MESSAGE {
            return Err(client_fault(FrameError::Length));
        }
        let Some(named) = frontend::bind(frame.body) else {
            return self.nameless(frame, Expect::Bind);
        };
        if named.name.is_empty() {
            if let Some(inject) = self.unnamed_statement() {
                return Ok(inject);
            }
            self.server.unnamed.bound = true;
        }
        Ok(self.named(named, Expect::Bind))
    }

    fn describe_or_close<'a>(&mut self, frame: &Frame<'a>) -> Result<Step<'a>, Refusal> {
        let expect = if frame.tag == tag::DESCRIBE { Expect::Describe } else { Expect::Close };
        if !frame.is_complete() {
            return self.nameless(frame, expect);
        }
        let Ok(named) = frontend::target(frame.body) else { return Ok(self.malformed(expect)) };
        if named.before == b"P" {
            if expect == Expect::Describe {
                self.describe_portal(named.name);
            } else {
                self.server.pipeline.expect(expect, Action::Forward);
            }
            return Ok(Step::Keep);
        }
        if named.name.is_empty() {
            if expect == Expect::Close {
                self.forget_unnamed();
            } else if let Some(inject) = self.unnamed_statement() {
                return Ok(inject);
            }
        }
        if expect == Expect::Close && !named.name.is_empty() && self.context.max_prepared > 0 {
            return Ok(self.close_named(named.name));
        }
        Ok(self.named(named, expect))
    }

    /// What a portal returns is what its statement returns.
    #[inline]
    fn describe_portal(&mut self, portal: &[u8]) {
        let pipeline = &mut self.server.pipeline;
        if let Some(ClientNames { bound: Some((name, id)), describing, .. }) = self.client.statements.any() {
            if portal.is_empty() && !pipeline.is_skipping() {
                describing.push_back((Arc::clone(name), *id));
                return pipeline.expect_columns(Action::Forward, *id);
            }
        }
        pipeline.expect(Expect::Describe, Action::Forward);
    }

    /// The server keeps the statement for the client that prepares it next.
    fn close_named<'a>(&mut self, name: &[u8]) -> Step<'a> {
        let pipeline = &mut self.server.pipeline;
        if pipeline.is_skipping() {
            return Step::Drop;
        }
        let known = self.client.statements.known();
        if known.in_doubt(name, pipeline.changes()) {
            return Step::Hold;
        }
        if known.names.get(name).is_some() {
            let change = pipeline.expect_change(Expect::Close, Action::Fake, None);
            known.set(name, None, Some(change));
        } else {
            pipeline.expect(Expect::Close, Action::Fake);
        }
        Step::Drop
    }

    /// A message that names a statement, which the server may not have yet.
    fn named<'a>(&mut self, named: frontend::Named<'a>, expect: Expect) -> Step<'a> {
        let pipeline = &mut self.server.pipeline;
        if named.name.is_empty() || self.context.max_prepared == 0 {
            if let Some(known) = self.client.statements.any().filter(|_| expect == Expect::Bind) {
                known.bound = None;
                known.portal = known.unnamed.clone();
            }
            pipeline.expect(expect, Action::Forward);
            return Step::Keep;
        }
        if pipeline.is_skipping() {
            // The name may have been forgotten with the batch that failed.
            return Step::Drop;
        }
        let changes = *pipeline.changes();
        let ClientNames { names, bound, describing, portal, .. } = self.client.statements.known();
        let Some((known, change)) = names.get_mut(named.name) else {
            let in_doubt = names.removed_by(named.name).is_some_and(|change| changes.is_in_doubt(change));
            return if in_doubt { Step::Hold } else { self.refuse(RefusedFor::Missing, named, expect) };
        };
        if changes.is_in_doubt(change) {
            return Step::Hold;
        }
        let statement = Arc::clone(&known.statement);
        // What it was told when it asked for the columns has to hold when it binds.
        let told = known.told.filter(|_| expect == Expect::Bind);
        let copies = self.server.statements.copies_mut();
        match copies.touch(&statement.id).map(|(copy, change)| (*copy, change)) {
            Some((_, change)) if changes.is_in_doubt(change) => return Step::Hold,
            Some((copy, _))
                if !copy.stale && told.is_none_or(|told| copy.columns == Columns::Known(told)) => {}
            Some((copy, change)) if told.is_some() && !copy.stale && changes.is_in_batch(change) => {
                match copy.columns {
                    Columns::Asked => return Step::Hold,
                    Columns::Known(_) => return self.refuse(RefusedFor::OtherColumns, named, expect),
                    Columns::Unknown => {}
                }
                return Step::Inject(Inject::Statement { statement, ask_columns: true });
            }
            None if copies.removed_by(&statement.id).is_some_and(|change| changes.is_in_doubt(change)) => {
                return Step::Hold;
            }
            _ => return Step::Inject(Inject::Statement { statement, ask_columns: told.is_some() }),
        }
        if expect == Expect::Bind {
            self.sent.binds += 1;
            let to_learn = told.is_none() && named.before == b"\0";
            *bound = to_learn.then(|| (Arc::clone(&known.name), statement.id));
            *portal = if statement.deallocates_all { Deallocates::All } else { Deallocates::Nothing };
            self.client.heed(statement.setting);
            pipeline.expect_bind(statement.id, told.is_some());
        } else {
            describing.push_back((Arc::clone(&known.name), statement.id));
            pipeline.expect_columns(Action::Forward, statement.id);
        }
        Step::Rewrite { before: named.before, statement, after: named.after }
    }

    /// The server is made to refuse the message: so the batch, and the transaction with it, fails as it would have failed
    /// there.
    #[cold]
    fn refuse<'a>(&mut self, why: RefusedFor, named: frontend::Named<'a>, expect: Expect) -> Step<'a> {
        let known = self.client.statements.known();
        let are_forgotten = known.are_forgotten && known.names.is_empty();
        let why = if why == RefusedFor::Missing && are_forgotten { RefusedFor::Forgotten } else { why };
        known.refused = Some(Refused::new(why, named.name));
        self.server.pipeline.expect_refusal(expect);
        Step::Rename { before: named.before, name: MISSING, after: named.after }
    }

    /// The unnamed statement is about to be used: is it this client's?
    fn unnamed_statement<'a>(&mut self) -> Option<Step<'a>> {
        if self.context.exclusive || self.server.pipeline.is_skipping() {
            return None;
        }
        let unnamed = &self.server.unnamed;
        let again = if !unnamed.valid {
            self.client.unnamed.take()
        } else if unnamed.in_batch || self.server.pipeline.is_empty() && !unnamed.doubtful {
            return None;
        } else {
            // If its batch has failed, or will, the server still has somebody else's.
            (!unnamed.text.is_empty()).then(|| unnamed.text.as_slice().into())
        };
        Some(Step::Inject(again.map_or(Inject::NoUnnamed, Inject::Unnamed)))
    }

    /// A simple query or a Close ends the unnamed statement, wherever it was.
    #[inline]
    pub(super) fn forget_unnamed(&mut self) {
        if !self.server.pipeline.is_skipping() {
            self.server.unnamed.valid = false;
            self.client.unnamed = None;
        }
    }

    /// Sends messages of our own before the frame at hand.
    fn inject(&mut self, inject: Inject, out: &mut Output<'_>) {
        match inject {
            Inject::Unnamed(parse) => {
                write::parse(out.insert(), b"", &parse);
                self.server.pipeline.expect(Expect::Parse, Action::Skip);
                self.server.unnamed = Unnamed::in_batch(parse.into_vec());
            }
            Inject::NoUnnamed => {
                write::close_statement(out.insert(), b"");
                self.server.pipeline.expect(Expect::Close, Action::Skip);
                self.server.unnamed = Unnamed::in_batch(Vec::new());
            }
            Inject::Statement { statement, ask_columns } => self.prepare(&statement, ask_columns, out),
        }
    }

    fn prepare(&mut self, statement: &Arc<Statement>, ask_columns: bool, out: &mut Output<'_>) {
        let ServerSession { pipeline, statements, .. } = &mut *self.server;
        let copies = statements.copies_mut();
        if copies.get(&statement.id).is_some() {
            write::close_statement(out.insert(), &statement.name);
            let change = pipeline.expect_change(Expect::Close, Action::Skip, None);
            copies.set(statement.id, None, Some(change));
        }
        while copies.len() >= self.context.max_prepared.max(1) {
            let change = pipeline.expect_change(Expect::Close, Action::Skip, None);
            let Some(evicted) = copies.remove_oldest(change) else { break };
            write::close_statement(out.insert(), &server_name(evicted));
        }
        out.parse(statement);
        self.sent.server_parses += 1;
        let change = pipeline.expect_change(Expect::Parse, Action::Skip, Some(statement.id));
        let columns = if ask_columns { Columns::Asked } else { Columns::Unknown };
        copies.set(statement.id, Some(Copy { columns, stale: false }), Some(change));
        if ask_columns {
            write::describe_statement(out.insert(), &statement.name);
            pipeline.expect_columns(Action::Skip, statement.id);
            out.insert().extend_from_slice(FLUSH);
        }
    }

    /// There is no name in it, or too long a one.
    fn nameless<'a>(&mut self, frame: &Frame<'_>, expect: Expect) -> Result<Step<'a>, Refusal> {
        if frame.is_complete() { Ok(self.malformed(expect)) } else { Err(client_fault(FrameError::Length)) }
    }
}

/// COPY data goes on as it comes, and what cannot be is refused at once.
fn is_kept_whole(tag: u8) -> bool {
    matches!(
        tag,
        tag::QUERY
            | tag::SYNC
            | tag::EXECUTE
            | tag::PARSE
            | tag::BIND
            | tag::DESCRIBE
            | tag::CLOSE
            | tag::FUNCTION_CALL
            | tag::COPY_DONE
            | tag::COPY_FAIL
            | tag::FLUSH
    )
}
