//! Why a login comes to nothing.

use crate::error::{Refusal, sqlstate};

/// Why a login came to nothing.
pub(super) enum Failure {
    /// The other side is gone, or does not speak the protocol: it gets no answer.
    Silent(&'static str),
    /// It is told why.
    Refused(Refusal),
}

impl From<std::io::Error> for Failure {
    fn from(_: std::io::Error) -> Self {
        Self::Silent("client unexpected eof")
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What the client reads when the configuration does not fit; the log knows more.
pub(super) fn config_error(detail: &'static str) -> Refusal {
    Refusal::new(sqlstate::CONFIG_FILE_ERROR, "bouncer config error").detail(detail)
}

/// The database is not configured, nor is there a `*`.
pub(super) fn no_such_database(name: &str) -> Refusal {
    Refusal::new(sqlstate::UNKNOWN_DATABASE, format!("database \"{name}\" does not exist"))
        .detail(format!("no such database: {name}"))
        .hint("Look at [databases] in the pooler's configuration.")
        .log(format!("no such database: {name}"))
}
