//! Numbers that say what they count.

use std::num::NonZeroU64;

/// The number of a prepared statement, unique in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(pub(super) NonZeroU64);

impl StatementId {
    /// The ID of the statement before which there were so many.
    pub(super) fn after(others: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(others))
    }
}

impl std::fmt::Display for StatementId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A change to what client and server have prepared. They are numbered from 1 on; the default, 0, is the time before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangeNumber(pub(super) u64);

impl std::fmt::Display for ChangeNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl ChangeNumber {
    /// The last change there may be.
    pub(super) const MAX: Self = Self(u64::MAX);
}
