//! Why a server connection could not be opened.

use std::io;

use crate::error::Refusal;
use crate::route::host::Role;

/// Why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server cannot be reached, or is not ready: worth another try.
    #[error("{0}")]
    Unreachable(String),
    /// It lets nobody in for now: it starts up or shuts down.
    #[error("{0}")]
    NotNow(String),
    /// It has as many connections as it can have: worth another try.
    #[error("{0}")]
    Full(String),
    /// The server refused the login.
    #[error("{0}")]
    Refused(Refusal),
    /// It is not what was looked for: a standby where the primary was wanted, or the other way round.
    #[error("is a {}", .0.name())]
    WrongRole(Role),
    /// The name means several servers, and this is not the one of which it is known what it has replayed.
    #[error("is another server than the one that is watched")]
    OtherServer,
    /// While it said nothing, another host took its place.
    #[error("is not used any more")]
    Moved,
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error.to_string())
    }
}
