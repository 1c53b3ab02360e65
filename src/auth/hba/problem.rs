//! What is wrong with an HBA or ident file.

use std::fmt;

/// What is wrong with a line of an HBA or ident file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which line, counted from 1.
    pub line: usize,
    /// Where in the line, counted in bytes from 1.
    pub column: usize,
    /// What.
    pub message: String,
    /// A way out.
    pub hint: Option<&'static str>,
    /// The line itself, but for a password.
    pub excerpt: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)?;
        match self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}
