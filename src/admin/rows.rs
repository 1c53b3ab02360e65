//! Rows of an answer: made one after the other as they are sent, for there may be as many as there are clients.

use std::fmt;
use std::iter::Peekable;

use super::table::Row;

/// What is left of an answer's rows.
pub(super) struct Rows(Peekable<Box<dyn Iterator<Item = Row>>>);

impl Rows {
    /// Rows that are made when they are asked for.
    pub(super) fn new(rows: impl Iterator<Item = Row> + 'static) -> Self {
        let rows: Box<dyn Iterator<Item = Row>> = Box::new(rows);
        Self(rows.peekable())
    }

    /// Whether there are no more.
    pub(super) fn is_done(&mut self) -> bool {
        self.0.peek().is_none()
    }
}

impl From<Vec<Row>> for Rows {
    fn from(rows: Vec<Row>) -> Self {
        Self::new(rows.into_iter())
    }
}

impl Default for Rows {
    fn default() -> Self {
        Self::new(std::iter::empty())
    }
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        self.0.next()
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rows")
    }
}
