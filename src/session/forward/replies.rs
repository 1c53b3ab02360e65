//! The walk over what a server sends: what the client gets of it, and what it says about the two. HOT.

use super::{ClientSession, MAX_NAME, Rest, ServerFault, ServerSession};
use crate::session::command::{self, Ddl};
use crate::session::output::Output;
use crate::session::pipeline::{Pipeline, Undone, Verdict};
use crate::wire::backend::error_fields;
use crate::wire::frame::{FrameError, peek};
use crate::wire::write;

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
