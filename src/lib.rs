//! pgweir, a connection-pooling PostgreSQL proxy.
//!
//! # Reading order
//!
//! Modules are rooms; imports run downwards only (`tests/architecture.rs` holds that).
//!
//! 1. [`wire`] - PostgreSQL's frames, startup packets and message builders. Pure.
//! 2. [`sql`] - is this statement a read or a write? Pure.
//! 3. [`auth`] - secrets, SCRAM, md5, userlist.txt. Pure.
//! 4. [`config`] - the settings table and the files that fill it. Pure but for reading files.
//! 5. [`session`] - what a client and its server agree on: expected replies, prepared statements, parameters. Pure.
//! 6. [`pool`] - idle servers, the queue, limits.
//! 7. [`metrics`] - the counters, and what Prometheus makes of them.
//! 8. [`net`] - sockets.
//! 9. [`route`] - the hosts of a database and what may go where.
//! 10. [`proxy`] - the shell around all that: tasks, workers, logins, the relay.
//! 11. [`admin`] - the console and the HTTP listener.
//! 12. [`app`] - start, signals, reload, shutdown; [`cli`] and [`logging`] serve it.
//!
//! [`clock`] and [`error`] are used everywhere.

pub mod admin;
pub mod app;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod pool;
pub mod proxy;
pub mod route;
pub mod session;
pub mod sql;
pub mod wire;
