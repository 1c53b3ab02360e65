//! Is this statement a read? A lexer and a few rules over its tokens; no parser. HOT for simple queries.
//!
//! The rules are conservative by construction: whatever is not known to only read is a write, for a write on a
//! standby fails, while a read on the primary costs nothing but its work. `lexer` cuts the text, `classify` holds
//! the rules, `functions` the names of functions that are known to be safe.

mod classify;
mod functions;
mod lexer;

pub use classify::{Class, classify};

/// How the text is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// `standard_conforming_strings`: backslashes in `'…'` mean themselves.
    pub standard_conforming_strings: bool,
}

impl Default for Dialect {
    fn default() -> Self {
        Self { standard_conforming_strings: true }
    }
}
