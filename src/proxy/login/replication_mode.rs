//! Whether a client replicates, and what.

use crate::error::{Refusal, shown, sqlstate};
use crate::wire::startup::Session;

/// What a client wants to replicate (startup parameter `replication`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replication {
    /// It is an ordinary client.
    No,
    /// `database`: a database's changes.
    Logical,
    /// `true`: the whole cluster's log.
    Physical,
}

impl Replication {
    pub(super) fn of(session: &Session) -> Result<Self, Refusal> {
        let Some(value) = session.parameter("replication") else { return Ok(Self::No) };
        match value.to_ascii_lowercase().as_slice() {
            b"database" => Ok(Self::Logical),
            b"true" | b"on" | b"yes" | b"1" | b"t" | b"y" => Ok(Self::Physical),
            b"false" | b"off" | b"no" | b"0" | b"f" | b"n" => Ok(Self::No),
            _ => {
                let shown = shown(value);
                Err(Refusal::new(
                    sqlstate::INVALID_PARAMETER,
                    format!("invalid value for parameter \"replication\": \"{shown}\""),
                )
                .hint("Valid values are: \"false\", 0, \"true\", 1, \"database\"."))
            }
        }
    }

    /// As SHOW says it.
    pub(super) fn shown(self) -> &'static str {
        match self {
            Self::No => "none",
            Self::Logical => "logical",
            Self::Physical => "physical",
        }
    }

    /// As the log says it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Logical => "database",
            Self::Physical => "yes",
        }
    }
}
