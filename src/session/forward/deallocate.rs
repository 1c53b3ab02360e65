//! Commands that deallocate prepared statements: `DEALLOCATE name` of one that the client has prepared by the protocol,
//! `DEALLOCATE ALL` and `DISCARD ALL`.
//!
//! What a client calls `name` has another name on its server, where it stays for the client that prepares it next. So the server
//! is given a statement of nobody's to deallocate, which leads to the same answer, or to the same error in a failed transaction.

use std::sync::Arc;

use super::walk::{Step, Walk};
use crate::session::numbers::ChangeNumber;
use crate::session::pipeline::{Action, Expect};
use crate::session::prepared::Deallocates;
use crate::sql;
use crate::wire::frame::Frame;
use crate::wire::{frontend, write};

/// Name of the statement that is deallocated in place of a client's.
const DEALLOCATED: &str = "PGWEIR_deallocated";
/// The Parse that stands for the client's, without its name.
const DEALLOCATE: &[u8] = b"DEALLOCATE \"PGWEIR_deallocated\"\0\0\0";
/// Nothing to run, no parameters: it can be prepared in a failed transaction, too.
pub(super) const EMPTY: &[u8] = b"\0\0\0";

/// A simple query that prepares and deallocates a statement of nobody's. The answer to PREPARE is not for the client. A request
/// to cancel it may leave the statement there, so `number` makes its name unique on the server.
fn simple_query(number: ChangeNumber) -> Vec<u8> {
    let mut message = Vec::new();
    let name = format!("\"{DEALLOCATED}_{number}\"");
    write::query(&mut message, format!("PREPARE {name} AS SELECT; DEALLOCATE {name}").as_bytes());
    message
}

fn unnamed_parse() -> Vec<u8> {
    let mut message = Vec::new();
    write::parse(&mut message, b"", DEALLOCATE);
    message
}

/// What goes in front of an Execute of that.
fn preparation() -> Vec<u8> {
    let mut messages = Vec::new();
    write::close_statement(&mut messages, DEALLOCATED.as_bytes());
    write::parse(&mut messages, DEALLOCATED.as_bytes(), EMPTY);
    messages
}

impl<'a> Walk<'_> {
    /// A simple query.
    #[inline]
    pub(super) fn simple_query_deallocates(&mut self, frame: &Frame<'_>) -> Option<Step<'a>> {
        if self.client.statements.is_empty() || !sql::may_deallocate(frame.body) {
            return None;
        }
        let name = match self.named_in(frame, frame.body)? {
            Ok(name) => name,
            Err(step) => return Some(step),
        };
        self.forget_unnamed();
        let change = self.server.pipeline.expect_change(Expect::Query, Action::Forward, None);
        self.client.statements.known().set(&name, None, Some(change));
        Some(Step::Replace(simple_query(change)))
    }

    /// Parse of the unnamed statement. Its name goes when it is run.
    #[inline]
    pub(super) fn parse_deallocates(&mut self, frame: &Frame<'_>, text: &[u8]) -> Option<Step<'a>> {
        if !sql::may_deallocate(text) {
            if let Some(known) = self.client.statements.any() {
                known.unnamed = Deallocates::Nothing;
            }
            return None;
        }
        if sql::deallocates_all(frontend::text(text)) {
            self.client.statements.known().unnamed = Deallocates::All;
            return None;
        }
        self.client.statements.any()?.unnamed = Deallocates::Nothing;
        let name = match self.named_in(frame, text)? {
            Ok(name) => name,
            Err(step) => return Some(step),
        };
        self.client.statements.known().unnamed = Deallocates::One(name);
        self.expect_unnamed(Some(DEALLOCATE));
        Some(Step::Replace(unnamed_parse()))
    }

    /// Execute of a portal that may deallocate.
    #[cold]
    pub(super) fn execute_deallocating(&mut self) -> Step<'a> {
        let known = self.client.statements.known();
        let pipeline = &mut self.server.pipeline;
        match known.portal.clone() {
            _ if pipeline.is_skipping() => pipeline.expect(Expect::Execute, Action::Forward),
            Deallocates::Nothing => pipeline.expect(Expect::Execute, Action::Forward),
            Deallocates::All => {
                pipeline.expect(Expect::Execute, Action::Forward);
                pipeline.expect_forgetting();
            }
            Deallocates::One(name) => {
                if known.in_doubt(&name, pipeline.changes()) {
                    return Step::Hold;
                }
                if known.names.get(&name).is_some() {
                    pipeline.expect(Expect::Close, Action::Skip);
                    pipeline.expect(Expect::Parse, Action::Skip);
                    let change = pipeline.expect_change(Expect::Execute, Action::Forward, None);
                    known.set(&name, None, Some(change));
                    return Step::KeepBehind(preparation());
                }
                pipeline.expect(Expect::Execute, Action::Forward);
            }
        }
        Step::Keep
    }

    /// The simple query just sent.
    #[cold]
    pub(super) fn simple_query_may_forget(&mut self, text: &[u8]) {
        if sql::deallocates_all(frontend::text(text)) {
            self.server.pipeline.expect_forgetting();
        }
    }

    /// The client's statement that a text deallocates, or what has to be done first.
    #[cold]
    fn named_in(&mut self, frame: &Frame<'_>, text: &[u8]) -> Option<Result<Arc<[u8]>, Step<'a>>> {
        if !frame.is_complete() || self.context.max_prepared == 0 || self.server.pipeline.is_skipping() {
            return None;
        }
        let name = sql::deallocated(frontend::text(text))?;
        let known = self.client.statements.any()?;
        if known.in_doubt(&name, self.server.pipeline.changes()) {
            return Some(Err(Step::Hold));
        }
        known.names.get(&*name).map(|named| Ok(Arc::clone(&named.name)))
    }
}
