//! Named prepared statements: a client's names are those of its own, a server's those of the proxy's.

use std::sync::Arc;

use super::server::ServerSession;
use super::walk::{FLUSH, Inject, Step, Walk};
use crate::session::output::Output;
use crate::session::pipeline::{Action, Expect};
use crate::session::prepared::{ClientNames, Columns, Deallocates, ServerCopy, Statement, server_name};
use crate::session::refused::{Refused, RefusedFor};
use crate::wire::{frontend, write};

/// Name of a statement that no server has.
const MISSING: &[u8] = b"PGWEIR_missing";

impl Walk<'_> {
    pub(super) fn parse_named<'a>(&mut self, parse: &frontend::Parse<'a>) -> Step<'a> {
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
            copies.set(statement.id, Some(ServerCopy::default()), Some(change));
            change
        };
        self.sent.client_parses += 1;
        known.set(name, Some(statement), Some(change));
        step
    }

    /// What a portal returns is what its statement returns.
    #[inline]
    pub(super) fn describe_portal(&mut self, portal: &[u8]) {
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
    pub(super) fn close_named<'a>(&mut self, name: &[u8]) -> Step<'a> {
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
    pub(super) fn named<'a>(&mut self, named: frontend::Named<'a>, expect: Expect) -> Step<'a> {
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
    pub(super) fn refuse<'a>(
        &mut self,
        why: RefusedFor,
        named: frontend::Named<'a>,
        expect: Expect,
    ) -> Step<'a> {
        let known = self.client.statements.known();
        let are_forgotten = known.are_forgotten && known.names.is_empty();
        let why = if why == RefusedFor::Missing && are_forgotten { RefusedFor::Forgotten } else { why };
        known.refused = Some(Refused::new(why, named.name));
        self.server.pipeline.expect_refusal(expect);
        Step::Rename { before: named.before, name: MISSING, after: named.after }
    }

    pub(super) fn prepare(&mut self, statement: &Arc<Statement>, ask_columns: bool, out: &mut Output<'_>) {
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
        copies.set(statement.id, Some(ServerCopy { columns, stale: false }), Some(change));
        if ask_columns {
            write::describe_statement(out.insert(), &statement.name);
            pipeline.expect_columns(Action::Skip, statement.id);
            out.insert().extend_from_slice(FLUSH);
        }
    }
}
