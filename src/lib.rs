//! pgweir, a connection-pooling PostgreSQL proxy.
//!
//! # Reading order
//!
//! Modules are rooms; imports run downwards only (`tests/architecture.rs` holds that).
//!
//! 1. [`wire`]: PostgreSQL's frames, startup packets and message builders. Pure.
//! 2. [`sql`]: is this statement a read or a write? Pure.
//! 3. [`auth`]: secrets, SCRAM, md5, userlist.txt. Pure.
//! 4. [`config`]: the settings table and the files that fill it. Pure but for reading files.
//! 5. [`session`]: what a client and its server agree on: expected replies, prepared statements, parameters. Pure.

pub mod auth;
pub mod clock;
pub mod config;
pub mod error;
pub mod session;
pub mod sql;
pub mod wire;
pub mod metrics;
pub mod pool;
