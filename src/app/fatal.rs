//! Why the program cannot start, or go on.

/// For the user to read.
pub(super) type Fatal = String;
