//! The queue of answers that a server owes, and what is asked of it.

use std::collections::VecDeque;

use super::changes::{Changes, Skipped};
use super::entry::{Action, Expect, Note, Owed};
use super::state::{Batch, CopyState, Health};
use crate::session::numbers::{ChangeNumber, StatementId};
use crate::wire::tag::backend;

/// See the module's documentation.
#[derive(Debug)]
pub struct Pipeline {
    pub(super) expected: VecDeque<Owed>,
    /// Status byte of the last ReadyForQuery.
    pub(super) status: u8,
    pub(super) batch: Batch,
    pub(super) copy: CopyState,
    pub(super) health: Health,
    /// Rows may come in answer to a simple query: it has said which columns.
    pub(super) described: bool,
    /// Entries that the client gets an answer to.
    pub(super) for_client: usize,
    pub(super) changes: Changes,
    /// What the last error has skipped.
    pub(super) skipped: Skipped,
}

/// Replies owed at which no more is sent: a client that does not stop asking is not read from. What the server owes then is
/// more than fits its buffer (`PQ_SEND_BUFFER_SIZE`), so some of it comes.
const FULL: usize = 4096;

impl Default for Pipeline {
    fn default() -> Self {
        Self {
            expected: VecDeque::new(),
            status: b'I',
            batch: Batch::Settled,
            copy: CopyState::None,
            health: Health::Good,
            described: false,
            for_client: 0,
            changes: Changes::default(),
            skipped: Skipped::default(),
        }
    }
}

impl Pipeline {
    /// Whether the server owes nothing, is outside a transaction and has seen the end of every batch: only then
    /// may another client have it.
    pub fn is_settled(&self) -> bool {
        self.batch == Batch::Settled && self.health == Health::Good
    }

    /// Whether the connection must be closed instead of being used again, however settled it looks.
    pub fn is_tainted(&self) -> bool {
        self.health != Health::Good
    }

    /// Whether a tainted connection can be closed without loss: the last batch has ended as well. What comes behind an
    /// error is ignored up to the end of its batch, which no other server would do.
    pub fn is_spent(&self) -> bool {
        self.is_tainted() && self.batch == Batch::Settled
    }

    /// Whether the server has said, when it owed nothing, that it ends the connection.
    pub fn is_leaving(&self) -> bool {
        self.health == Health::Leaving
    }

    /// Whether no answer is outstanding.
    pub fn is_empty(&self) -> bool {
        self.expected.is_empty()
    }

    /// How many answers are owed.
    pub fn len(&self) -> usize {
        self.expected.len()
    }

    /// How many answers come behind the last batch that was sent whole, its ReadyForQuery included; `None`: there is no such
    /// batch. `is_cut`: the last message was not sent whole.
    pub fn behind_last_batch(&self, is_cut: bool) -> Option<usize> {
        let whole = self.expected.len() - usize::from(is_cut && !self.expected.is_empty());
        let is_end = |entry: &Owed| matches!(entry.expect, Expect::Sync | Expect::Query | Expect::Call);
        let last = self.expected.range(..whole).rposition(is_end)?;
        // The end of COPY data belongs to the query before it, and is not answered.
        Some(self.expected.range(last + 1..).filter(|entry| entry.expect != Expect::CopyEnd).count())
    }

    /// Whether the server waits for COPY data.
    pub fn awaits_copy_data(&self) -> bool {
        matches!(self.copy, CopyState::Open { .. })
    }

    /// Whether nothing but the proxy's own messages is under way.
    pub fn only_ours(&self) -> bool {
        self.for_client == 0
    }

    /// Whether the next answer is that to a query which the proxy has put in.
    pub fn next_is_ours(&self) -> bool {
        matches!(self.expected.front(), Some(Owed { expect: Expect::Query, action: Action::Skip, .. }))
    }

    /// Whether the last message sent closes a batch: what comes next could as well go to another server.
    pub fn ends_batch(&self) -> bool {
        self.expected
            .back()
            .is_some_and(|last| matches!(last.expect, Expect::Sync | Expect::Query | Expect::Call))
    }

    /// Status byte of the last ReadyForQuery: `I`, `T` or `E`.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// Whether the server ignores what it gets until the next Sync.
    pub fn is_skipping(&self) -> bool {
        self.batch == Batch::Failed && self.expected.is_empty()
    }

    /// Whether so much is owed that nothing more may be sent for now.
    pub fn is_full(&self) -> bool {
        self.expected.len() >= FULL
    }

    /// Whether the next message has to wait for an error that the server is about to send.
    #[inline]
    pub fn is_refusing(&self) -> bool {
        // Nothing is sent behind such a message.
        self.expected.back().is_some_and(|last| last.action == Action::Refuse)
    }

    /// What prepared statements have come to.
    pub(in crate::session) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The last change on either side: from now on numbers go on from there.
    pub(in crate::session) fn catch_up(&mut self, change: ChangeNumber) {
        let last = self.changes.made.max(change);
        self.changes = Changes { made: last, done: last, before_batch: last, forgetting: None };
    }

    /// A message goes to the server, or is answered in its place.
    #[inline]
    pub fn expect(&mut self, expect: Expect, action: Action) {
        self.expect_about(expect, action, None);
    }

    /// The same for a message that may be about a prepared statement of ours.
    #[inline]
    fn expect_about(&mut self, expect: Expect, action: Action, statement: Option<StatementId>) {
        self.touch();
        match (expect, self.copy) {
            (Expect::Sync, CopyState::Open { .. }) => self.copy = CopyState::Open { swallowed_sync: true },
            (Expect::CopyEnd, CopyState::Open { swallowed_sync }) => {
                self.copy = CopyState::Ended { swallowed_sync, sent_ahead: false };
            }
            (Expect::CopyEnd, _) if self.expected.is_empty() => {}
            (Expect::Sync, _) => self.push(expect, action, statement),
            _ if self.is_skipping() => {}
            _ => self.push(expect, action, statement),
        }
    }

    /// The same for a message that changes what is prepared, unless the server skips it. Returns the number of the change.
    pub(in crate::session) fn expect_change(
        &mut self,
        expect: Expect,
        action: Action,
        statement: Option<StatementId>,
    ) -> ChangeNumber {
        self.expect_about(expect, action, statement);
        self.changes.made.0 += 1;
        if let Some(entry) = self.expected.back_mut() {
            entry.note = Note::Change;
        }
        if matches!(expect, Expect::Query) {
            self.changes.before_batch = self.changes.made;
        }
        self.changes.made
    }

    /// The same for a Describe whose answer is to be read.
    pub(in crate::session) fn expect_columns(&mut self, action: Action, statement: StatementId) {
        self.expect_about(Expect::Describe, action, Some(statement));
        if let Some(entry) = self.expected.back_mut() {
            entry.note = Note::Columns;
        }
    }

    /// A Bind of a prepared statement goes to the server. `is_told`: the client knows its columns.
    #[inline]
    pub(in crate::session) fn expect_bind(&mut self, statement: StatementId, is_told: bool) {
        self.expect_about(Expect::Bind, Action::Forward, Some(statement));
        if let Some(entry) = self.expected.back_mut().filter(|_| is_told) {
            entry.note = Note::KnowsColumns;
        }
    }

    /// The message just sent runs DEALLOCATE ALL or DISCARD ALL.
    pub(in crate::session) fn expect_forgetting(&mut self) {
        if let Some(entry) = self.expected.back_mut() {
            entry.note = Note::ForgetsAll;
            self.changes.forgetting = Some(entry.changes_before());
        }
    }

    /// A message goes to the server that is sure to be refused.
    pub(in crate::session) fn expect_refusal(&mut self, expect: Expect) {
        self.expect(expect, Action::Refuse);
    }

    /// Whether the Sync just sent ends a COPY of which it may become doubtful how many Syncs are answered: the caller sends
    /// Close of a portal and Sync behind it.
    pub(in crate::session) fn mark_copy(&mut self) -> bool {
        match self.copy {
            CopyState::Ended { swallowed_sync: true, sent_ahead: false } | CopyState::InDoubt
                if !self.is_marked() => {}
            _ => return false,
        }
        self.push(Expect::Mark, Action::Skip, None);
        self.push(Expect::Sync, Action::Skip, None);
        true
    }

    /// Whether an [`Expect::Mark`] is under way.
    pub(super) fn is_marked(&self) -> bool {
        self.expected.iter().any(|entry| entry.expect == Expect::Mark)
    }

    /// A message without an answer (Flush) goes to the server: the batch it belongs to is not over.
    #[inline]
    pub fn touch(&mut self) {
        if self.batch == Batch::Settled {
            self.batch = Batch::Open;
        }
    }

    pub(super) fn push(&mut self, expect: Expect, action: Action, statement: Option<StatementId>) {
        let value = match expect {
            Expect::Query | Expect::Execute => self.changes.made.0,
            _ => statement.map_or(0, |id| id.0.get()),
        };
        if matches!(expect, Expect::Sync | Expect::Query | Expect::Call) {
            self.changes.before_batch = self.changes.made;
        }
        self.for_client += usize::from(action != Action::Skip);
        self.expected.push_back(Owed { expect, action, note: Note::Nothing, value });
    }

    pub(super) fn pop(&mut self) -> Option<Owed> {
        let entry = self.expected.pop_front()?;
        self.for_client -= usize::from(entry.action != Action::Skip);
        self.changes.done.0 += u64::from(entry.note == Note::Change);
        if entry.note == Note::ForgetsAll && self.changes.forgetting == Some(entry.changes_before()) {
            self.changes.forgetting = None;
        }
        Some(entry)
    }

    /// Whether [`Self::pop_fake`] has something to do. Asked behind every frame.
    #[inline]
    pub(in crate::session) fn may_owe_fake(&self) -> bool {
        let is_next = |entry: &Owed| entry.action == Action::Fake || entry.expect == Expect::CopyEnd;
        self.expected.front().is_some_and(is_next)
    }

    /// The next answer that the proxy gives in the server's place, if it is due: the tag of the message to send.
    pub fn pop_fake(&mut self) -> Option<u8> {
        self.drop_stale_copy_ends();
        if self.expected.front()?.action != Action::Fake {
            return None;
        }
        let entry = self.pop()?;
        Some(if entry.expect == Expect::Parse { backend::PARSE_COMPLETE } else { backend::CLOSE_COMPLETE })
    }

    /// What the last error has skipped; nothing except right after one.
    pub(in crate::session) fn take_skipped(&mut self) -> Skipped {
        std::mem::take(&mut self.skipped)
    }

    /// The next answer is to a Describe and is to be read: that of this statement, and who gets it.
    pub(in crate::session) fn learns(&self) -> Option<(StatementId, Action)> {
        let entry = self.expected.front().filter(|entry| entry.note == Note::Columns)?;
        Some((entry.statement()?, entry.action))
    }

    /// The next answer is to a message about this prepared statement, which the server has under a name of the proxy's, and
    /// whether that is a Bind of a client's that has been told its columns.
    pub(in crate::session) fn next_statement(&self) -> Option<(StatementId, bool)> {
        let entry = self.expected.front()?;
        Some((entry.statement()?, entry.note == Note::KnowsColumns))
    }

    /// Whether a simple query is being answered that stands for a client's DEALLOCATE.
    pub(in crate::session) fn deallocates_by_query(&self) -> bool {
        let entry = self.expected.front();
        entry.is_some_and(|entry| entry.expect == Expect::Query && entry.note == Note::Change)
    }

    /// The last change before the command that is being answered.
    pub(in crate::session) fn changes_before(&self) -> ChangeNumber {
        self.expected.front().map_or(self.changes.made, Owed::changes_before)
    }

    pub(super) fn front(&self) -> Option<Expect> {
        self.expected.front().map(|entry| entry.expect)
    }

    pub(super) fn drop_stale_copy_ends(&mut self) {
        while self.front() == Some(Expect::CopyEnd) {
            self.pop();
        }
    }
}
