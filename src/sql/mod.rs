//! Is this statement a read? A lexer and a few rules over its tokens; no parser. HOT for simple queries.
//!
//! The rules are conservative by construction: whatever is not known to only read is a write, for a write on a
//! standby fails, while a read on the primary costs nothing but its work. `lexer` cuts the text, `classify` holds
//! the rules, `effect` those for what a statement leaves in its session (`state`), `functions` the names of PostgreSQL's functions that
//! are known to be safe, `catalog` what the database has of its own, `hint` what clients say themselves, `memo` what was
//! found out before. `deallocate` is apart: it finds the one command that is translated.

mod catalog;
mod classify;
mod deallocate;
mod effect;
mod functions;
mod hint;
mod lexer;
mod memo;
mod state;

pub use catalog::{Catalog, QUERY as CATALOG_QUERY, Row};
pub use classify::{Class, classify};
pub use deallocate::{deallocated, deallocates_all, may_deallocate};
pub use effect::{effect, is_about_rows};
pub use hint::{Route, SETTING, leading as hint, setting};
pub use memo::Memo;
pub use state::{Effect, Left, State};
