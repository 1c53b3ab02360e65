//! The walk over what a client sends: which messages go on as they are, which are rewritten, and what must go first. HOT.

use super::client::ClientSession;
use super::deallocate::EMPTY;
use super::frames::{MAX_MESSAGE, MAX_NAME, Rest, client_fault, is_enough, is_named_parse, is_too_long};
use super::server::ServerSession;
use super::walk::{Context, FLUSH, Inject, Sent, Step, Stop, Walk};
use crate::error::Refusal;
use crate::session::output::Output;
use crate::session::pipeline::{Action, Expect};
use crate::session::prepared::Deallocates;
use crate::sql;
use crate::wire::frame::{Frame, FrameError, peek};
use crate::wire::tag::frontend as tag;
use crate::wire::{frontend, write};

/// Name of a statement that is prepared in order to fail.
const DUPLICATE: &[u8] = b"PGWEIR_duplicate";
/// Close of a portal that does not exist, and Sync.
const COPY_MARK: &[u8] = b"C\0\0\0\x0cPPGWEIR\0S\0\0\0\x04";
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

    /// A message that no server understands gets the server's error, and the batch ends with it.
    #[cold]
    fn malformed<'a>(&mut self, expect: Expect) -> Step<'a> {
        self.server.pipeline.expect(expect, Action::Forward);
        Step::Keep
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

    /// Sends messages of our own before the frame at hand.
    fn inject(&mut self, inject: Inject, out: &mut Output<'_>) {
        match inject {
            Inject::Unnamed(parse) => {
                write::parse(out.insert(), b"", &parse);
                self.expect_unnamed_of_ours(Some(&parse));
            }
            Inject::NoUnnamed => {
                write::close_statement(out.insert(), b"");
                self.expect_unnamed_of_ours(None);
            }
            Inject::Statement { statement, ask_columns } => self.prepare(&statement, ask_columns, out),
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
