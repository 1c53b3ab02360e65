//! PostgreSQL's wire protocol, as far as a proxy has to know it.
//!
//! Nothing here decodes a message in order to forward it: [`frame`] looks at the five header bytes where they
//! lie. [`startup`] parses what a client says first, [`frontend`] and [`backend`] the few messages that must be
//! read or changed, [`mod@write`] builds the messages the proxy itself sends. [`tag`] names
//! the messages of each direction.
//!
//! Source: PostgreSQL documentation, chapter "Frontend/Backend Protocol", sections 53.2 (flow) and 53.7 (formats).

pub mod backend;
pub mod frame;
pub mod frontend;
#[cfg(test)]
pub(crate) mod samples;
pub mod startup;
pub mod tag;
pub mod write;
