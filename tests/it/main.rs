//! Tests of the whole program: the real binary in front of a real PostgreSQL primary and its streaming replica, seen by
//! real drivers and by a client that speaks raw protocol where a driver would be too polite.
//!
//! All tests of a run share one cluster; each starts poolers of its own. [`support`] has what they need.

mod cancel;
mod command_line;
mod configuration;
mod console;
mod integrity;
mod login;
mod metrics;
mod pooling;
mod prepared;
mod routing;
mod support;
mod timeouts;
