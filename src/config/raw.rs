//! Keys and values as they stand in a source, each with its origin.

use std::path::Path;
use std::sync::Arc;

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// File, or `environment`.
    pub file: Arc<str>,
    /// Counted from 1; 0 if lines mean nothing here.
    pub line: usize,
    /// Counted from 1.
    pub column: usize,
    /// The line itself, secrets masked.
    pub excerpt: Arc<str>,
}

impl Origin {
    /// A place in a file; `text` must be fit to be shown.
    pub fn new(file: &Path, line: usize, column: usize, text: &str) -> Self {
        Self { file: file.display().to_string().into(), line, column, excerpt: text.into() }
    }

    /// A variable of the environment.
    pub fn variable(name: &str) -> Self {
        Self { file: "environment".into(), line: 0, column: 0, excerpt: name.into() }
    }
}

/// A section of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Global settings.
    Pgbouncer,
    /// Databases.
    Databases,
    /// Users.
    Users,
    /// Peers.
    Peers,
}

impl Section {
    /// A section by its name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "pgbouncer" | "pgweir" => Self::Pgbouncer,
            "databases" => Self::Databases,
            "users" => Self::Users,
            "peers" => Self::Peers,
            _ => return None,
        })
    }
}

/// One thing a source says.
#[derive(Clone, Debug)]
pub enum Item {
    /// A key and its value.
    Entry {
        /// Where it belongs.
        section: Section,
        /// Name of the setting, database, user or peer.
        key: String,
        /// Text of the value.
        value: String,
        /// Where the key stands.
        origin: Origin,
    },
    /// The same, when the value has parts of its own: a database as a TOML table.
    Table {
        /// Where it belongs.
        section: Section,
        /// Name of the database, user or peer.
        key: String,
        /// Its keys and values.
        pairs: Vec<(String, String, Origin)>,
        /// Where the name stands.
        origin: Origin,
    },
    /// A `[pgbouncer]` header: all global settings go back to their defaults.
    Reset,
    /// The header of another section.
    Header(Section),
}

impl Item {
    /// Where it stands, if it says something.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Entry { origin, .. } | Self::Table { origin, .. } => Some(origin),
            Self::Reset | Self::Header(_) => None,
        }
    }
}
