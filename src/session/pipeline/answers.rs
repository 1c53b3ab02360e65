//! What an answer takes off the queue.

use super::entry::{Action, Expect, Note, Owed};
use super::queue::Pipeline;
use super::state::{Batch, CopyState, Health};
use crate::wire::tag::backend;

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

impl Pipeline {
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
                self.copy = CopyState::None;
                self.take(Expect::Mark, tag)
            }
            backend::CLOSE_COMPLETE => self.take(Expect::Close, tag),
            backend::ERROR_RESPONSE => self.on_error(),
            backend::COPY_IN_RESPONSE | backend::COPY_BOTH_RESPONSE => self.on_copy_in(tag),
            backend::NOTIFICATION_RESPONSE => Ok(Verdict::Forward),
            _ => Err(Unexpected(tag)),
        }
    }

    fn verdict(&self) -> Verdict {
        match self.expected.front() {
            Some(Owed { action: Action::Skip, .. }) => Verdict::Skip,
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
            Some(Expect::Mark) if self.copy == CopyState::InDoubt => {
                self.copy = CopyState::None;
                self.status = status;
                return Ok(Verdict::Forward);
            }
            None if self.copy == CopyState::InDoubt => self.copy = CopyState::None,
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
                self.copy = CopyState::None;
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
        let is_copying = matches!(self.copy, CopyState::Open { .. } | CopyState::Ended { .. });
        if is_copying || !matches!(self.front(), Some(Expect::Execute | Expect::Query)) {
            return Err(Unexpected(tag));
        }
        self.copy = self.forget_what_the_copy_swallows();
        Ok(self.verdict())
    }

    /// Of what was sent behind the command, up to the end of the data, Sync is not answered.
    fn forget_what_the_copy_swallows(&mut self) -> CopyState {
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
            Some(_) => CopyState::Ended { swallowed_sync, sent_ahead: true },
            None => CopyState::Open { swallowed_sync },
        }
    }

    fn end_copy(&mut self) {
        if matches!(self.copy, CopyState::Open { .. } | CopyState::Ended { .. }) {
            self.copy = CopyState::None;
        }
    }

    /// If it has swallowed a Sync only the server knows whether that was before or after the error.
    fn fail_copy(&mut self) {
        let (swallowed_sync, sent_ahead) = match self.copy {
            CopyState::None | CopyState::InDoubt => return,
            CopyState::Open { swallowed_sync } => (swallowed_sync, false),
            CopyState::Ended { swallowed_sync, sent_ahead } => (swallowed_sync, sent_ahead),
        };
        let can_be_marked = !sent_ahead && self.front() == Some(Expect::Execute);
        self.copy = if swallowed_sync && can_be_marked { CopyState::InDoubt } else { CopyState::None };
        if swallowed_sync && !can_be_marked {
            self.taint();
        }
    }

    fn taint(&mut self) {
        if self.health == Health::Good {
            self.health = Health::Tainted;
        }
    }
}
