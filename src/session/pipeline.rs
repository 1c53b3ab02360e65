//! Which replies a server still owes. HOT.
//!
//! Every message to a server that will be answered puts an entry on a queue; every answer takes one off. The
//! entry says whether the client gets that answer ([`Action`]). This is what keeps one client's rows from ever
//! reaching another: a server leaves its client only when [`Pipeline::is_settled`].
//!
//! Three rules of the protocol make it more than a counter:
//!
//! * After an error in the extended protocol the server ignores everything up to the next Sync.
//! * While a server reads COPY data it swallows Sync and Flush without an answer, up to CopyDone or CopyFail.
//!   libpq relies on that: it sends Sync right behind the Execute that starts a COPY.
//! * Outside COPY, stray CopyData, CopyDone and CopyFail are ignored: a client may still be sending them when it
//!   learns that the COPY failed.
//!
//! If a COPY fails, only the server knows whether it had swallowed such a Sync or will answer it. So a question of the
//! proxy's own goes right behind the Sync that ends the COPY ([`Expect::Mark`]): what comes before its answer belongs to the
//! client. Where that is not possible, because the client sent everything without waiting, the connection is not used again
//! ([`Pipeline::is_tainted`]).

use std::collections::VecDeque;
use std::num::NonZeroU64;

use super::numbers::{ChangeNumber, StatementId};
use crate::wire::tag::backend;

/// A message that will be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// ParseComplete.
    Parse,
    /// BindComplete.
    Bind,
    /// RowDescription or NoData.
    Describe,
    /// CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// CloseComplete.
    Close,
    /// ReadyForQuery.
    Sync,
    /// Anything up to ReadyForQuery.
    Query,
    /// FunctionCallResponse and ReadyForQuery.
    Call,
    /// Nothing: CopyDone or CopyFail, which end the time in which Sync is not answered.
    CopyEnd,
    /// CloseComplete, from which on it is clear how many ReadyForQuery a failed COPY has caused.
    Mark,
}

/// Who gets the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The client.
    Forward,
    /// Nobody: the proxy put the message in.
    Skip,
    /// The client, from the proxy: the message was not sent on, because the server need not see it.
    Fake,
    /// The client, in the proxy's words: the message was changed so that the server refuses it.
    Refuse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    expect: Expect,
    action: Action,
    note: Note,
    /// Parse, Bind, Describe: see [`Entry::statement`]. Others: see [`Entry::changes_before`].
    value: u64,
}

impl Entry {
    /// The prepared statement that it is about, if that is one of ours.
    fn statement(&self) -> Option<StatementId> {
        match self.expect {
            Expect::Parse | Expect::Bind | Expect::Describe => NonZeroU64::new(self.value).map(StatementId),
            _ => None,
        }
    }

    /// The last change before a command.
    fn changes_before(&self) -> ChangeNumber {
        ChangeNumber(self.value)
    }
}

/// What is special about a message that will be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Note {
    Nothing,
    /// It is the next of the [`Changes`].
    Change,
    /// Describe: its RowDescription or NoData is to be read.
    Columns,
    /// It runs DEALLOCATE ALL or DISCARD ALL.
    ForgetsAll,
    /// Bind: the client has been told the columns of the statement.
    KnowsColumns,
}

/// How far the server is with what it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Batch {
    /// It has answered everything, outside a transaction.
    Settled,
    /// Something was sent since the last ReadyForQuery, or that was inside a transaction.
    Open,
    /// The same, and after an error in the extended protocol the server ignores messages up to the next Sync.
    Failed,
}

/// The COPY from the client that the server is busy with. In the time between its CopyInResponse and the end of the data the
/// server swallows Sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copy {
    None,
    /// The server reads data, and the client has not said yet that they end.
    Open {
        swallowed_sync: bool,
    },
    /// The client has said that they end, the server has not said what came of them. `sent_ahead`: the client said so before
    /// it knew of the COPY, so nothing could be put behind it.
    Ended {
        swallowed_sync: bool,
        sent_ahead: bool,
    },
    /// It has failed, and may or may not have swallowed a Sync. The next ReadyForQuery or CloseComplete tells.
    InDoubt,
}

/// What the connection is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Good,
    /// Not for another client, however settled it looks.
    Tainted,
    /// The same: the server has said, when it owed nothing, that it ends the connection.
    Leaving,
}

/// Counts the changes that messages make to what client and server have prepared. All numbers only grow, also when a client
/// goes from one server to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The last one that was sent, or answered in the server's place.
    pub(super) made: ChangeNumber,
    /// The last one of which it is known whether it happened.
    pub(super) done: ChangeNumber,
    /// The last one that does not belong to the batch at hand.
    pub(super) before_batch: ChangeNumber,
    /// All up to this one are about to be forgotten: DEALLOCATE ALL or DISCARD ALL has been sent.
    forgetting: Option<ChangeNumber>,
}

impl Changes {
    /// Whether the server has yet to say if a change holds: it belongs to an earlier batch, or a command forgets it.
    pub(super) fn is_in_doubt(&self, change: ChangeNumber) -> bool {
        change > self.done && change <= self.before_batch
            || self.forgetting.is_some_and(|last| change <= last)
    }

    /// Whether a change belongs to the batch at hand.
    pub(super) fn is_in_batch(&self, change: ChangeNumber) -> bool {
        change > self.before_batch
    }
}

/// What to do with a frame from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client gets it.
    Forward,
    /// The client gets it, in other words.
    Refused,
    /// The client does not get it.
    Skip,
    /// The server refused something the proxy itself had asked for (a SET, a check query).
    SetupFailed,
    /// The server ends the connection, and owes nobody anything: this concerns only who keeps it for a whole session.
    Farewell,
}

/// The server said something that no message to it can have caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unexpected message {:?} from server", char::from(*.0))]
pub struct Unexpected(pub u8);

/// See the module's documentation.
#[derive(Debug)]
pub struct Pipeline {
    expected: VecDeque<Entry>,
    /// Status byte of the last ReadyForQuery.
    status: u8,
    batch: Batch,
    copy: Copy,
    health: Health,
    /// Rows may come in answer to a simple query: it has said which columns.
    described: bool,
    /// Entries that the client gets an answer to.
    for_client: usize,
    changes: Changes,
    /// What the last error has skipped.
    skipped: Skipped,
}

/// What is not going to happen because of an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Skipped {
    /// Changes up to this one are undone.
    pub(super) last_change: Option<ChangeNumber>,
    /// So many of a client's Describe messages will not be answered.
    pub(super) describes: usize,
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
            copy: Copy::None,
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
        let is_end = |entry: &Entry| matches!(entry.expect, Expect::Sync | Expect::Query | Expect::Call);
        let last = self.expected.range(..whole).rposition(is_end)?;
        // The end of COPY data belongs to the query before it, and is not answered.
        Some(self.expected.range(last + 1..).filter(|entry| entry.expect != Expect::CopyEnd).count())
    }

    /// Whether the server waits for COPY data.
    pub fn awaits_copy_data(&self) -> bool {
        matches!(self.copy, Copy::Open { .. })
    }

    /// Whether nothing but the proxy's own messages is under way.
    pub fn only_ours(&self) -> bool {
        self.for_client == 0
    }

    /// Whether the next answer is that to a query which the proxy has put in.
    pub fn next_is_ours(&self) -> bool {
        matches!(self.expected.front(), Some(Entry { expect: Expect::Query, action: Action::Skip, .. }))
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
    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The last change on either side: from now on numbers go on from there.
    pub(super) fn catch_up(&mut self, change: ChangeNumber) {
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
            (Expect::Sync, Copy::Open { .. }) => self.copy = Copy::Open { swallowed_sync: true },
            (Expect::CopyEnd, Copy::Open { swallowed_sync }) => {
                self.copy = Copy::Ended { swallowed_sync, sent_ahead: false };
            }
            (Expect::CopyEnd, _) if self.expected.is_empty() => {}
            (Expect::Sync, _) => self.push(expect, action, statement),
            _ if self.is_skipping() => {}
            _ => self.push(expect, action, statement),
        }
    }

    /// The same for a message that changes what is prepared, unless the server skips it. Returns the number of the change.
    pub(super) fn expect_change(
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
    pub(super) fn expect_columns(&mut self, action: Action, statement: StatementId) {
        self.expect_about(Expect::Describe, action, Some(statement));
        if let Some(entry) = self.expected.back_mut() {
            entry.note = Note::Columns;
        }
    }

    /// A Bind of a prepared statement goes to the server. `is_told`: the client knows its columns.
    #[inline]
    pub(super) fn expect_bind(&mut self, statement: StatementId, is_told: bool) {
        self.expect_about(Expect::Bind, Action::Forward, Some(statement));
        if let Some(entry) = self.expected.back_mut().filter(|_| is_told) {
            entry.note = Note::KnowsColumns;
        }
    }

    /// The message just sent runs DEALLOCATE ALL or DISCARD ALL.
    pub(super) fn expect_forgetting(&mut self) {
        if let Some(entry) = self.expected.back_mut() {
            entry.note = Note::ForgetsAll;
            self.changes.forgetting = Some(entry.changes_before());
        }
    }

    /// A message goes to the server that is sure to be refused.
    pub(super) fn expect_refusal(&mut self, expect: Expect) {
        self.expect(expect, Action::Refuse);
    }

    /// Whether the Sync just sent ends a COPY of which it may become doubtful how many Syncs are answered: the caller sends
    /// Close of a portal and Sync behind it.
    pub(super) fn mark_copy(&mut self) -> bool {
        match self.copy {
            Copy::Ended { swallowed_sync: true, sent_ahead: false } | Copy::InDoubt if !self.is_marked() => {}
            _ => return false,
        }
        self.push(Expect::Mark, Action::Skip, None);
        self.push(Expect::Sync, Action::Skip, None);
        true
    }

    /// Whether an [`Expect::Mark`] is under way.
    fn is_marked(&self) -> bool {
        self.expected.iter().any(|entry| entry.expect == Expect::Mark)
    }

    /// A message without an answer (Flush) goes to the server: the batch it belongs to is not over.
    #[inline]
    pub fn touch(&mut self) {
        if self.batch == Batch::Settled {
            self.batch = Batch::Open;
        }
    }

    fn push(&mut self, expect: Expect, action: Action, statement: Option<StatementId>) {
        let value = match expect {
            Expect::Query | Expect::Execute => self.changes.made.0,
            _ => statement.map_or(0, |id| id.0.get()),
        };
        if matches!(expect, Expect::Sync | Expect::Query | Expect::Call) {
            self.changes.before_batch = self.changes.made;
        }
        self.for_client += usize::from(action != Action::Skip);
        self.expected.push_back(Entry { expect, action, note: Note::Nothing, value });
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.expected.pop_front()?;
        self.for_client -= usize::from(entry.action != Action::Skip);
        self.changes.done.0 += u64::from(entry.note == Note::Change);
        if entry.note == Note::ForgetsAll && self.changes.forgetting == Some(entry.changes_before()) {
            self.changes.forgetting = None;
        }
        Some(entry)
    }

    /// A frame has come from the server. `body` is read only of ReadyForQuery, which must be complete.
    #[inline]
    pub fn on_backend(&mut self, tag: u8, body: &[u8]) -> Result<Verdict, Unexpected> {
        use Expect::{Call, Describe, Execute, Query};
        match tag {
            backend::DATA_ROW => match self.front() {
                Some(Execute) => Ok(self.verdict()),
                Some(Query) if self.described => Ok(self.verdict()),
                _ => Err(Unexpected(tag)),
            },
            backend::COPY_DATA | backend::COPY_DONE | backend::COPY_OUT_RESPONSE => {
                self.part_of(tag, &[Execute, Query])
            }
            backend::ROW_DESCRIPTION if self.front() == Some(Query) => {
                self.described = true;
                Ok(self.verdict())
            }
            backend::ROW_DESCRIPTION | backend::NO_DATA => self.take(Describe, tag),
            backend::PARAMETER_DESCRIPTION => self.part_of(tag, &[Describe]),
            backend::FUNCTION_CALL_RESPONSE => self.part_of(tag, &[Call]),
            backend::NOTICE_RESPONSE | backend::PARAMETER_STATUS => Ok(self.verdict()),
            backend::COMMAND_COMPLETE | backend::EMPTY_QUERY_RESPONSE | backend::PORTAL_SUSPENDED => {
                let verdict = self.part_of(tag, &[Execute, Query])?;
                self.described = false;
                self.end_copy();
                if self.front() == Some(Execute) {
                    self.pop();
                }
                Ok(verdict)
            }
            backend::READY_FOR_QUERY => self.on_ready(body),
            backend::PARSE_COMPLETE => self.take(Expect::Parse, tag),
            backend::BIND_COMPLETE => self.take(Expect::Bind, tag),
            backend::CLOSE_COMPLETE if self.front() == Some(Expect::Mark) => {
                self.copy = Copy::None;
                self.take(Expect::Mark, tag)
            }
            backend::CLOSE_COMPLETE => self.take(Expect::Close, tag),
            backend::ERROR_RESPONSE => self.on_error(),
            backend::COPY_IN_RESPONSE | backend::COPY_BOTH_RESPONSE => self.on_copy_in(tag),
            backend::NOTIFICATION_RESPONSE => Ok(Verdict::Forward),
            _ => Err(Unexpected(tag)),
        }
    }

    /// Whether [`Self::pop_fake`] has something to do. Asked behind every frame.
    #[inline]
    pub(super) fn may_owe_fake(&self) -> bool {
        let is_next = |entry: &Entry| entry.action == Action::Fake || entry.expect == Expect::CopyEnd;
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
    pub(super) fn take_skipped(&mut self) -> Skipped {
        std::mem::take(&mut self.skipped)
    }

    /// The next answer is to a Describe and is to be read: that of this statement, and who gets it.
    pub(super) fn learns(&self) -> Option<(StatementId, Action)> {
        let entry = self.expected.front().filter(|entry| entry.note == Note::Columns)?;
        Some((entry.statement()?, entry.action))
    }

    /// The next answer is to a message about this prepared statement, which the server has under a name of the proxy's, and
    /// whether that is a Bind of a client's that has been told its columns.
    pub(super) fn next_statement(&self) -> Option<(StatementId, bool)> {
        let entry = self.expected.front()?;
        Some((entry.statement()?, entry.note == Note::KnowsColumns))
    }

    /// Whether a simple query is being answered that stands for a client's DEALLOCATE.
    pub(super) fn deallocates_by_query(&self) -> bool {
        let entry = self.expected.front();
        entry.is_some_and(|entry| entry.expect == Expect::Query && entry.note == Note::Change)
    }

    /// The last change before the command that is being answered.
    pub(super) fn changes_before(&self) -> ChangeNumber {
        self.expected.front().map_or(self.changes.made, Entry::changes_before)
    }

    fn front(&self) -> Option<Expect> {
        self.expected.front().map(|entry| entry.expect)
    }

    fn verdict(&self) -> Verdict {
        match self.expected.front() {
            Some(Entry { action: Action::Skip, .. }) => Verdict::Skip,
            _ => Verdict::Forward,
        }
    }

    /// An answer of several messages, of which this is not the last one.
    fn part_of(&self, tag: u8, answers: &[Expect]) -> Result<Verdict, Unexpected> {
        match self.expected.front() {
            Some(entry) if answers.contains(&entry.expect) => Ok(self.verdict()),
            _ => Err(Unexpected(tag)),
        }
    }

    fn take(&mut self, expect: Expect, tag: u8) -> Result<Verdict, Unexpected> {
        self.drop_stale_copy_ends();
        let verdict = self.verdict();
        match self.expected.front() {
            Some(entry) if entry.expect == expect && entry.action != Action::Refuse => {
                self.pop();
                Ok(verdict)
            }
            _ => Err(Unexpected(tag)),
        }
    }

    fn on_ready(&mut self, body: &[u8]) -> Result<Verdict, Unexpected> {
        let Some(&status @ (b'I' | b'T' | b'E')) = body.first() else {
            return Err(Unexpected(backend::READY_FOR_QUERY));
        };
        self.drop_stale_copy_ends();
        let verdict = self.verdict();
        match self.front() {
            Some(Expect::Sync | Expect::Query | Expect::Call) => {
                self.pop();
            }
            // The answer to a Sync that a failed COPY has not swallowed. Who asks is the client.
            Some(Expect::Mark) if self.copy == Copy::InDoubt => {
                self.copy = Copy::None;
                self.status = status;
                return Ok(Verdict::Forward);
            }
            None if self.copy == Copy::InDoubt => self.copy = Copy::None,
            None if self.is_tainted() => {}
            _ => return Err(Unexpected(backend::READY_FOR_QUERY)),
        }
        self.drop_stale_copy_ends();
        self.end_copy();
        self.described = false;
        self.status = status;
        let is_settled = self.expected.is_empty() && status == b'I';
        self.batch = if is_settled { Batch::Settled } else { Batch::Open };
        Ok(verdict)
    }

    fn on_error(&mut self) -> Result<Verdict, Unexpected> {
        self.fail_copy();
        self.drop_stale_copy_ends();
        let Some(entry) = self.expected.front().copied() else {
            // The server says it unasked: it is about to close the connection.
            if self.batch == Batch::Settled {
                self.health = Health::Leaving;
                return Ok(Verdict::Farewell);
            }
            self.taint();
            return Ok(Verdict::Forward);
        };
        match entry.expect {
            _ if self.next_is_ours() => return Ok(Verdict::SetupFailed),
            Expect::Query => self.fail_query(),
            Expect::Call | Expect::Sync => {}
            Expect::Mark => {
                // What the COPY has swallowed will not be known.
                self.copy = Copy::None;
                self.taint();
                self.fail_batch();
                return Ok(Verdict::Skip);
            }
            _ => self.fail_batch(),
        }
        Ok(if entry.action == Action::Refuse { Verdict::Refused } else { Verdict::Forward })
    }

    fn fail_query(&mut self) {
        self.described = false;
        if let Some(entry) = self.expected.front_mut().filter(|entry| entry.note == Note::Change) {
            entry.note = Note::Nothing;
            self.changes.done.0 += 1;
            self.skipped.last_change = Some(self.changes.done);
        }
    }

    fn fail_batch(&mut self) {
        self.batch = Batch::Failed;
        while self.front().is_some_and(|expect| expect != Expect::Sync) {
            let Some(entry) = self.pop() else { break };
            if entry.note == Note::Change {
                self.skipped.last_change = Some(self.changes.done);
            }
            self.skipped.describes +=
                usize::from(entry.note == Note::Columns && entry.action != Action::Skip);
        }
    }

    fn on_copy_in(&mut self, tag: u8) -> Result<Verdict, Unexpected> {
        let is_copying = matches!(self.copy, Copy::Open { .. } | Copy::Ended { .. });
        if is_copying || !matches!(self.front(), Some(Expect::Execute | Expect::Query)) {
            return Err(Unexpected(tag));
        }
        self.copy = self.forget_what_the_copy_swallows();
        Ok(self.verdict())
    }

    /// Of what was sent behind the command, up to the end of the data, Sync is not answered.
    fn forget_what_the_copy_swallows(&mut self) -> Copy {
        let end = self.expected.iter().position(|entry| entry.expect == Expect::CopyEnd);
        let last = end.map_or(self.expected.len(), |end| end + 1);
        let mut sent = self.expected.drain(..last);
        let command = sent.next();
        let mut kept: Vec<_> = sent.collect();
        let sent = kept.len();
        kept.retain(|entry| !matches!(entry.expect, Expect::Sync | Expect::CopyEnd));
        self.for_client -= sent - kept.len();
        let swallowed_sync = sent - kept.len() > usize::from(end.is_some());
        kept.into_iter().rev().chain(command).for_each(|entry| self.expected.push_front(entry));
        match end {
            Some(_) => Copy::Ended { swallowed_sync, sent_ahead: true },
            None => Copy::Open { swallowed_sync },
        }
    }

    fn end_copy(&mut self) {
        if matches!(self.copy, Copy::Open { .. } | Copy::Ended { .. }) {
            self.copy = Copy::None;
        }
    }

    /// If it has swallowed a Sync only the server knows whether that was before or after the error.
    fn fail_copy(&mut self) {
        let (swallowed_sync, sent_ahead) = match self.copy {
            Copy::None | Copy::InDoubt => return,
            Copy::Open { swallowed_sync } => (swallowed_sync, false),
            Copy::Ended { swallowed_sync, sent_ahead } => (swallowed_sync, sent_ahead),
        };
        let can_be_marked = !sent_ahead && self.front() == Some(Expect::Execute);
        self.copy = if swallowed_sync && can_be_marked { Copy::InDoubt } else { Copy::None };
        if swallowed_sync && !can_be_marked {
            self.taint();
        }
    }

    fn taint(&mut self) {
        if self.health == Health::Good {
            self.health = Health::Tainted;
        }
    }

    fn drop_stale_copy_ends(&mut self) {
        while self.front() == Some(Expect::CopyEnd) {
            self.pop();
        }
    }
}

#[cfg(test)]
mod tests;
