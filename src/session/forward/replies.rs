//! The walk over what a server sends: what the client gets of it, and what it says about the two. HOT.

use super::client::ClientSession;
use super::frames::{MAX_NAME, Rest};
use super::server::{MAX_ANSWER, ServerFault, ServerSession};
use crate::error::Refusal;
use crate::session::columns::{Fingerprint, fingerprint};
use crate::session::command::{self, Ddl};
use crate::session::numbers::{ChangeNumber, StatementId};
use crate::session::output::Output;
use crate::session::pipeline::{Action, Pipeline, Verdict};
use crate::session::prepared::{Columns, ServerCopy};
use crate::wire::backend::{ErrorFields, error_fields};
use crate::wire::frame::{Frame, FrameError, peek};
use crate::wire::tag::backend as tag;
use crate::wire::write;

/// How much of an ErrorResponse longer than [`MAX_NAME`] is looked at: severity and code stand in front.
const LONG_ERROR: usize = 1024;

/// Result of a walk over a server's bytes.
#[derive(Debug, Default)]
pub struct Received {
    /// How many bytes were dealt with.
    pub consumed: usize,
    /// ReadyForQuery messages the client got.
    pub queries: u32,
    /// … of them outside a transaction.
    pub transactions: u32,
    /// The server has answered the proxy's own queries that went in front of the client's first batch.
    pub preamble_ended: bool,
    /// The server has reported a parameter.
    pub reported: bool,
    /// The client gets an error.
    pub failed: bool,
    /// … in the proxy's words.
    pub refused: Option<Refusal>,
    /// An error says that the server does not have a prepared statement as it should: it will be prepared again.
    pub lost_statement: bool,
    /// The server has said that it ends the connection.
    pub is_last: bool,
    /// A transaction that has changed the catalog has ended.
    pub ddl: Ddl,
    /// A command has ended that writes, or may let later ones write, or is not part of the client's first transaction on this
    /// server, if that began as a read-only one.
    pub may_have_written: bool,
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
    if server.has_ended {
        // A long last word may still be on its way.
        return Ok(Received { consumed: buf.len(), is_last: server.rest.left == 0, ..received });
    }
    if at > 0 && server.rest.left == 0 {
        fake_replies(server, client, out);
    }
    while at < buf.len() {
        let Some(frame) = peek(&buf[at..])? else { break };
        if frame.len > client.max_packet.0 {
            return Err(ServerFault::TooLong(frame.len));
        }
        if !frame.is_complete() && must_be_whole(&frame, &server.pipeline)? {
            break;
        }
        let learns = if matches!(frame.tag, tag::ROW_DESCRIPTION | tag::NO_DATA) {
            server.pipeline.learns()
        } else {
            None
        };
        let statement =
            if frame.tag == tag::ERROR_RESPONSE { server.pipeline.next_statement() } else { None };
        let changes = server.pipeline.changes_before();
        let unnamed_is_answered = server.pipeline.changes().done >= server.unnamed.change;
        let verdict = server.pipeline.on_backend(frame.tag, frame.body)?;
        let mut keep = match verdict {
            Verdict::Forward => true,
            Verdict::Farewell => server.exclusive,
            Verdict::Refused | Verdict::Skip | Verdict::SetupFailed => false,
        };
        if frame.tag == tag::COMMAND_COMPLETE
            && frame.body == b"PREPARE\0"
            && server.pipeline.deallocates_by_query()
        {
            keep = false;
        }
        match frame.tag {
            tag::DATA_ROW | tag::COPY_DATA => {}
            tag::READY_FOR_QUERY => {
                commit(server, client);
                server.dropped = 0;
                if keep {
                    received.queries += 1;
                    if frame.body == b"I" {
                        received.transactions += 1;
                        received.ddl = received.ddl.max(std::mem::take(&mut server.ddl));
                        server.past_first = true;
                    } else if server.by_statement {
                        // The client reads why in place of this: having read it, it would send the next statement.
                        return Err(ServerFault::Transaction);
                    }
                } else {
                    received.preamble_ended = !server.pipeline.next_is_ours();
                }
            }
            tag::PARSE_COMPLETE | tag::CLOSE_COMPLETE => commit(server, client),
            tag::PARAMETER_STATUS => {
                server.report(frame.body)?;
                received.reported = true;
            }
            tag::COMMAND_COMPLETE => {
                if keep {
                    server.ddl = server.ddl.max(command::ddl(frame.body));
                    received.may_have_written |= server.past_first || !command::reads(frame.body);
                    server.past_first |= command::may_end_transaction(frame.body);
                }
                forget_statements(frame.body, changes, server, client);
            }
            tag::FUNCTION_CALL_RESPONSE => received.may_have_written = true,
            tag::ROW_DESCRIPTION | tag::NO_DATA => {
                if let Some((id, asked_by)) = learns {
                    learn_columns(&frame, id, asked_by, server, client);
                }
            }
            tag::ERROR_RESPONSE if verdict == Verdict::SetupFailed => {
                let fields = error_fields(judged_part(&frame));
                let text = fields.text();
                return Err(if is_fatal(&fields) {
                    ServerFault::Leaving(text)
                } else {
                    ServerFault::Setup(text)
                });
            }
            tag::ERROR_RESPONSE => {
                let fields = error_fields(judged_part(&frame));
                undo_statements(server, client, unnamed_is_answered);
                if let Some((id, is_told)) = statement {
                    received.lost_statement |= heal(id, is_told, &fields, server);
                }
                if verdict == Verdict::Refused {
                    let refused = client.statements.any().and_then(|known| known.refused.take());
                    received.refused = refused.and_then(|refused| refused.refusal(fields.sqlstate));
                    match &received.refused {
                        Some(refusal) => write::error(out.insert(), refusal),
                        None => keep = true,
                    }
                    received.failed = true;
                }
                if is_fatal(&fields) {
                    server.has_ended = true;
                    keep &= !fields.message.is_empty();
                    server.has_said_why |= keep;
                }
                received.failed |= keep;
            }
            _ => {}
        }
        if keep {
            out.keep(at, at + frame.available());
        } else {
            server.dropped = if frame.tag == tag::READY_FOR_QUERY { 0 } else { server.dropped + frame.len };
            if server.dropped > MAX_ANSWER {
                return Err(ServerFault::TooMuch);
            }
        }
        at += frame.available();
        server.rest = Rest { left: frame.len - frame.available(), keep };
        if server.rest.left == 0 {
            if server.has_ended {
                // It has said FATAL; what follows is the answer to nothing.
                received.is_last = true;
                at = buf.len();
                break;
            }
            fake_replies(server, client, out);
        }
    }
    received.consumed = at;
    Ok(received)
}

/// Whether an incomplete frame has to be read whole.
fn must_be_whole(frame: &Frame<'_>, pipeline: &Pipeline) -> Result<bool, FrameError> {
    match frame.tag {
        tag::READY_FOR_QUERY | tag::PARAMETER_STATUS | tag::COMMAND_COMPLETE if frame.len > MAX_NAME => {
            Err(FrameError::Length)
        }
        tag::READY_FOR_QUERY | tag::PARAMETER_STATUS | tag::COMMAND_COMPLETE => Ok(true),
        tag::ROW_DESCRIPTION => Ok(frame.len <= MAX_NAME && pipeline.learns().is_some()),
        tag::ERROR_RESPONSE => Ok(frame.len <= MAX_NAME || frame.body.len() < LONG_ERROR),
        _ => Ok(false),
    }
}

/// Puts in the replies that the proxy owes the client now that it has sent something on, unless a frame to the
/// client is under way.
pub fn fake_replies_due(server: &mut ServerSession, client: &mut ClientSession, out: &mut Output<'_>) {
    if server.rest.left == 0 {
        fake_replies(server, client, out);
    }
}

#[inline]
fn fake_replies(server: &mut ServerSession, client: &mut ClientSession, out: &mut Output<'_>) {
    if server.pipeline.may_owe_fake() {
        write_fakes(server, client, out);
    }
}

fn write_fakes(server: &mut ServerSession, client: &mut ClientSession, out: &mut Output<'_>) {
    while let Some(tag) = server.pipeline.pop_fake() {
        commit(server, client);
        write::frame(out.insert(), tag, |_| {});
    }
}

/// What was prepared or closed is so from now on.
#[inline]
fn commit(server: &mut ServerSession, client: &mut ClientSession) {
    let done = server.pipeline.changes().done;
    server.statements.copies_mut().commit(done);
    if let Some(known) = client.statements.any() {
        known.names.commit(done);
    }
}

fn is_fatal(error: &ErrorFields<'_>) -> bool {
    matches!(error.severity, b"FATAL" | b"PANIC")
}

/// The part of an ErrorResponse that is looked at: of a long one the beginning, however much of it has come.
fn judged_part<'a>(error: &Frame<'a>) -> &'a [u8] {
    if error.len > MAX_NAME { &error.body[..LONG_ERROR.min(error.body.len())] } else { error.body }
}

fn forget_statements(
    command: &[u8],
    changes: ChangeNumber,
    server: &mut ServerSession,
    client: &mut ClientSession,
) {
    if command::forgets_statements(command) {
        // What was prepared behind the command stays.
        server.statements.copies_mut().forget(changes);
        if let Some(known) = client.statements.any() {
            known.are_forgotten |= known.names.forget(changes);
        }
    }
    if command == b"DISCARD ALL\0" {
        client.reset_route();
    }
}

#[cold]
fn undo_statements(server: &mut ServerSession, client: &mut ClientSession, unnamed_is_answered: bool) {
    let skipped = server.pipeline.take_skipped();
    if let Some(last) = skipped.last_change {
        if let Some(unnamed) = server.unnamed.undo(unnamed_is_answered, last) {
            client.unnamed = Some(unnamed);
        }
        server.statements.copies_mut().undo(last);
    }
    if let Some(known) = client.statements.any() {
        if let Some(last) = skipped.last_change {
            known.names.undo(last);
        }
        let skipped = skipped.describes.min(known.describing.len());
        known.describing.drain(..skipped);
    }
}

/// The server has told the columns of a statement.
fn learn_columns(
    frame: &Frame<'_>,
    id: StatementId,
    asked_by: Action,
    server: &mut ServerSession,
    client: &mut ClientSession,
) {
    let told = match frame.tag {
        tag::ROW_DESCRIPTION if frame.is_complete() => fingerprint(frame.body),
        tag::ROW_DESCRIPTION => Fingerprint::LONG,
        _ => Fingerprint::NO_DATA,
    };
    if let Some((copy, _)) = server.statements.copies_mut().get_mut(&id) {
        copy.columns = Columns::Known(told);
    }
    if asked_by == Action::Skip {
        return;
    }
    let Some(known) = client.statements.any() else { return };
    if let Some((name, id)) = known.describing.pop_front() {
        let named = known.names.get_mut(&*name);
        if let Some((named, _)) = named.filter(|(named, _)| named.statement.id == id) {
            named.told = Some(told);
        }
    }
}

/// The server's word counts: a statement that it does not have, or has although it should not, or whose plan may not change
/// its result, is prepared anew before it is used again. Returns whether the batch may run again unseen: a client that was told
/// the columns (`is_told`) has to read that they have changed.
#[cold]
fn heal(id: StatementId, is_told: bool, error: &ErrorFields<'_>, server: &mut ServerSession) -> bool {
    const NO_STATEMENT: &[u8] = b"26000";
    const EXISTS: &[u8] = b"42P05";
    /// "cached plan must not change result type", which is not all that has this code.
    const CHANGED: &[u8] = b"0A000";
    let is_changed = error.sqlstate == CHANGED && error.routine == b"RevalidateCachedQuery";
    let copies = server.statements.copies_mut();
    match error.sqlstate {
        NO_STATEMENT => copies.set(id, None, None),
        EXISTS => copies.set(id, Some(ServerCopy { stale: true, ..ServerCopy::default() }), None),
        CHANGED if is_changed => {
            if let Some((copy, _)) = copies.get_mut(&id) {
                copy.stale = true;
            }
        }
        _ => return false,
    }
    !(is_told && is_changed)
}
