//! The states that the conversation with a server may be in, each besides the others.

/// How far the server is with what it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Batch {
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
pub(super) enum CopyState {
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
pub(super) enum Health {
    Good,
    /// Not for another client, however settled it looks.
    Tainted,
    /// The same: the server has said, when it owed nothing, that it ends the connection.
    Leaving,
}
