//! A message that will be answered.

use std::num::NonZeroU64;

use crate::session::numbers::{ChangeNumber, StatementId};

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
pub(super) struct Owed {
    pub(super) expect: Expect,
    pub(super) action: Action,
    pub(super) note: Note,
    /// Parse, Bind, Describe: see [`Owed::statement`]. Others: see [`Owed::changes_before`].
    pub(super) value: u64,
}

impl Owed {
    /// The prepared statement that it is about, if that is one of ours.
    pub(super) fn statement(&self) -> Option<StatementId> {
        match self.expect {
            Expect::Parse | Expect::Bind | Expect::Describe => NonZeroU64::new(self.value).map(StatementId),
            _ => None,
        }
    }

    /// The last change before a command.
    pub(super) fn changes_before(&self) -> ChangeNumber {
        ChangeNumber(self.value)
    }
}

/// What is special about a message that will be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
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
