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
//! If a COPY fails, nobody but the server knows whether it had swallowed such a Sync or will answer it. Then the
//! connection is not used again ([`Pipeline::is_tainted`]).

use std::collections::VecDeque;

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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    expect: Expect,
    action: Action,
    /// The prepared statement of a Parse or Close, 0 if it is none of ours.
    statement: u64,
}

/// A prepared statement that is not what it was expected to be, because an error came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undone {
    /// The client's Parse did not happen. `on_server`: it had been sent there.
    ClientParse {
        /// The statement.
        id: u64,
        /// Whether the server was to prepare it.
        on_server: bool,
    },
    /// A Parse put in by the proxy did not happen.
    ServerParse(u64),
    /// A Close put in by the proxy did not happen: the server still has the statement.
    ServerClose(u64),
}

/// What to do with a frame from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client gets it.
    Forward,
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
    settled: bool,
    /// An extended-protocol error: the server ignores messages until Sync.
    failed: bool,
    /// The server reads COPY data.
    in_copy: bool,
    /// … and the client has not said yet that they end.
    copy_open: bool,
    /// … and has swallowed a Sync meanwhile.
    swallowed_sync: bool,
    tainted: bool,
    leaving: bool,
    undone: Vec<Undone>,
}

impl Default for Pipeline {
    fn default() -> Self {
        Self {
            expected: VecDeque::new(),
            status: b'I',
            settled: true,
            failed: false,
            in_copy: false,
            copy_open: false,
            swallowed_sync: false,
            tainted: false,
            leaving: false,
            undone: Vec::new(),
        }
    }
}

impl Pipeline {
    /// Whether the server owes nothing, is outside a transaction and has seen the end of every batch: only then
    /// may another client have it.
    pub fn is_settled(&self) -> bool {
        self.settled && !self.tainted
    }

    /// Whether the connection must be closed instead of being used again, however settled it looks.
    pub fn is_tainted(&self) -> bool {
        self.tainted
    }

    /// Whether a tainted connection can be closed without loss: the last batch has ended as well. What comes behind an
    /// error is ignored up to the end of its batch, which no other server would do.
    pub fn is_spent(&self) -> bool {
        self.tainted && self.settled
    }

    /// Whether the server has said, when it owed nothing, that it ends the connection.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Whether no answer is outstanding.
    pub fn is_empty(&self) -> bool {
        self.expected.is_empty()
    }

    /// Whether nothing but the proxy's own messages is under way.
    pub fn only_ours(&self) -> bool {
        self.expected.iter().all(|entry| entry.action == Action::Skip)
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
        self.failed && self.expected.is_empty()
    }

    /// A message goes to the server, or is answered in its place. `statement` is 0 if none of ours is concerned.
    #[inline]
    pub fn expect(&mut self, expect: Expect, action: Action, statement: u64) {
        self.settled = false;
        match expect {
            Expect::Sync if self.copy_open => self.swallowed_sync = true,
            Expect::CopyEnd if self.copy_open => self.copy_open = false,
            Expect::CopyEnd if self.expected.is_empty() => {}
            Expect::Sync => self.push(expect, action, statement),
            _ if self.is_skipping() => {}
            _ => self.push(expect, action, statement),
        }
    }

    /// A message without an answer (Flush) goes to the server: the batch it belongs to is not over.
    pub fn touch(&mut self) {
        self.settled = false;
    }

    fn push(&mut self, expect: Expect, action: Action, statement: u64) {
        self.expected.push_back(Entry { expect, action, statement });
    }

    /// A frame has come from the server. `body` is read only of ReadyForQuery, which must be complete.
    #[inline]
    pub fn on_backend(&mut self, tag: u8, body: &[u8]) -> Result<Verdict, Unexpected> {
        match tag {
            b'D' | b'd' | b'T' | b't' | b'n' | b'N' | b'S' | b'H' | b'c' | b'V' => {
                let verdict = self.verdict();
                if matches!(tag, b'T' | b'n') && self.front() == Some(Expect::Describe) {
                    self.expected.pop_front();
                }
                Ok(verdict)
            }
            b'C' | b'I' | b's' => {
                let verdict = self.verdict();
                self.end_copy();
                if self.front() == Some(Expect::Execute) {
                    self.expected.pop_front();
                }
                Ok(verdict)
            }
            b'Z' => self.on_ready(body),
            b'1' => self.take(Expect::Parse, tag),
            b'2' => self.take(Expect::Bind, tag),
            b'3' => self.take(Expect::Close, tag),
            b'E' => self.on_error(),
            b'G' | b'W' => self.on_copy_in(tag),
            b'A' => Ok(Verdict::Forward),
            _ => Err(Unexpected(tag)),
        }
    }

    /// The next answer that the proxy gives in the server's place, if it is due: the tag of the message to send.
    pub fn pop_fake(&mut self) -> Option<u8> {
        self.drop_stale_copy_ends();
        let entry = *self.expected.front()?;
        if entry.action != Action::Fake {
            return None;
        }
        self.expected.pop_front();
        Some(if entry.expect == Expect::Parse { b'1' } else { b'3' })
    }

    /// Statements to be corrected after an error, the last one first; empty except right after one.
    pub fn take_undone(&mut self) -> impl Iterator<Item = Undone> + '_ {
        self.undone.drain(..).rev()
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

    fn take(&mut self, expect: Expect, tag: u8) -> Result<Verdict, Unexpected> {
        self.drop_stale_copy_ends();
        let verdict = self.verdict();
        match self.expected.pop_front() {
            Some(entry) if entry.expect == expect => Ok(verdict),
            _ => Err(Unexpected(tag)),
        }
    }

    fn on_ready(&mut self, body: &[u8]) -> Result<Verdict, Unexpected> {
        let Some(&status @ (b'I' | b'T' | b'E')) = body.first() else { return Err(Unexpected(b'Z')) };
        self.drop_stale_copy_ends();
        let verdict = self.verdict();
        match self.front() {
            Some(Expect::Sync | Expect::Query | Expect::Call) => {
                self.expected.pop_front();
            }
            // The answer to a Sync of which we could not know whether a failed COPY had swallowed it.
            None if self.tainted => {}
            _ => return Err(Unexpected(b'Z')),
        }
        self.drop_stale_copy_ends();
        self.end_copy();
        self.failed = false;
        self.status = status;
        self.settled = self.expected.is_empty() && status == b'I';
        Ok(verdict)
    }

    fn on_error(&mut self) -> Result<Verdict, Unexpected> {
        self.tainted |= self.in_copy && self.swallowed_sync;
        self.end_copy();
        self.drop_stale_copy_ends();
        match self.expected.front() {
            // Nobody asked: the server is about to close the connection.
            None => {
                self.tainted = true;
                if self.settled {
                    self.leaving = true;
                    return Ok(Verdict::Farewell);
                }
            }
            Some(_) if self.next_is_ours() => return Ok(Verdict::SetupFailed),
            Some(Entry { expect: Expect::Query | Expect::Call | Expect::Sync, .. }) => {}
            Some(_) => self.fail_batch(),
        }
        Ok(Verdict::Forward)
    }

    fn fail_batch(&mut self) {
        self.failed = true;
        while let Some(entry) = self.expected.front().copied() {
            if entry.expect == Expect::Sync {
                break;
            }
            self.expected.pop_front();
            let id = entry.statement;
            match (entry.expect, entry.action) {
                _ if id == 0 => {}
                (Expect::Parse, Action::Skip) => self.undone.push(Undone::ServerParse(id)),
                (Expect::Parse, action) => {
                    self.undone.push(Undone::ClientParse { id, on_server: action == Action::Forward });
                }
                (Expect::Close, Action::Skip) => self.undone.push(Undone::ServerClose(id)),
                _ => {}
            }
        }
    }

    fn on_copy_in(&mut self, tag: u8) -> Result<Verdict, Unexpected> {
        if !matches!(self.front(), Some(Expect::Execute | Expect::Query)) {
            return Err(Unexpected(tag));
        }
        self.in_copy = true;
        self.copy_open = true;
        let mut at = 1;
        while let Some(entry) = self.expected.get(at) {
            match entry.expect {
                Expect::Sync => {
                    self.swallowed_sync = true;
                    self.expected.remove(at);
                }
                Expect::CopyEnd => {
                    self.copy_open = false;
                    self.expected.remove(at);
                    break;
                }
                _ => at += 1,
            }
        }
        Ok(self.verdict())
    }

    fn end_copy(&mut self) {
        if self.in_copy {
            self.in_copy = false;
            self.copy_open = false;
            self.swallowed_sync = false;
        }
    }

    fn drop_stale_copy_ends(&mut self) {
        while self.front() == Some(Expect::CopyEnd) {
            self.expected.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
