//! Why server connections are closed, in the words of the log, and what follows from it.

use std::borrow::Cow;

use crate::session::forward::ServerFault;

/// Why a server connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// It broke: the server has crashed, or closed it without a word.
    Crashed,
    /// The server has said, owing nothing, that it ends the connection.
    Ended,
    /// It failed while the pooler used it, or while it was idle.
    Lost(String),
    /// The server has said what it must not say.
    Misbehaved(String),
    /// A query of the pooler's own has failed.
    QueryFailed(String),
    /// It was to be closed as soon as it was idle.
    Retired(Retirement),
    /// Its host is not good for it any more.
    HostChanged(HostChange),
    /// It leads to another of the servers that its host's name means than the one whose position is known.
    NotWatched,
    /// How many batches a failed COPY has ended is not known.
    CopyUncertain,
    /// It has failed before anything was answered, and its client's batch runs elsewhere.
    BatchRunsAgain,
    /// The kernel still has an operation under way for it.
    InFlight,
    /// Another pool, or a client of its own pool that keeps a connection for itself, needs its place.
    Evicted,
    /// PAUSE.
    Paused,
    /// `server_idle_timeout`.
    IdleTimeout,
    /// The pool is larger than `default_pool_size` and `reserve_pool_size` allow.
    TooMany,
    /// Another process serves the clients now.
    TakenOver,
    /// Its client's connection ends; why.
    ClientEnds(Cow<'static, str>),
}

/// Why a host is not good for a connection any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostChange {
    /// It has become primary or standby since.
    OtherRole,
    /// It lets no client in.
    Closes,
}

/// Why a connection is to be closed as soon as no client uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retirement {
    /// `server_lifetime`.
    Lifetime,
    /// What its database's line says of hosts or logins has changed.
    HostsChanged,
    /// RECONNECT, or its host's name means another address now.
    Obsolete,
    /// Its host's name leads to another server than the one that is watched.
    OtherServer,
    /// Its database is not configured any more.
    DatabaseRemoved,
}

impl Retirement {
    /// The words of the log.
    pub fn words(self) -> &'static str {
        match self {
            Self::Lifetime => "server_lifetime",
            Self::HostsChanged => "database configuration changed",
            Self::Obsolete => "obsolete connection",
            Self::OtherServer => "host is another server now",
            Self::DatabaseRemoved => "database removed",
        }
    }

    /// Whether the connection is not what the configuration asks for any more, and not just old.
    pub fn is_obsolete(self) -> bool {
        self != Self::Lifetime
    }
}

impl CloseReason {
    /// The words of the log.
    pub fn words(&self) -> &str {
        match self {
            Self::Crashed => "server conn crashed?",
            Self::Ended => "server ends the connection",
            Self::Lost(why) | Self::Misbehaved(why) | Self::QueryFailed(why) => why,
            Self::Retired(why) => why.words(),
            Self::HostChanged(HostChange::OtherRole) => "host has another role now",
            Self::HostChanged(HostChange::Closes) => "host takes no connections now",
            Self::NotWatched => "not the server that is watched",
            Self::CopyUncertain => "reply of a failed COPY is uncertain",
            Self::BatchRunsAgain => "its batch is run again",
            Self::InFlight => "something is on its way to it",
            Self::Evicted => "evicted",
            Self::Paused => "paused",
            Self::IdleTimeout => "server_idle_timeout",
            Self::TooMany => "too many servers in the pool",
            Self::TakenOver => "another process has taken over",
            Self::ClientEnds(why) => why,
        }
    }

    /// Whether its host may have gone, or changed its role: it should be asked now.
    pub fn casts_doubt_on_host(&self) -> bool {
        matches!(self, Self::Crashed | Self::Ended | Self::Lost(_))
    }
}

impl From<Retirement> for CloseReason {
    fn from(why: Retirement) -> Self {
        Self::Retired(why)
    }
}

impl From<&ServerFault> for CloseReason {
    fn from(fault: &ServerFault) -> Self {
        match fault {
            ServerFault::Leaving(_) => Self::Lost(fault.to_string()),
            other => Self::Misbehaved(other.to_string()),
        }
    }
}
