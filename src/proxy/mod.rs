//! The shell: sockets, tasks and time around the pure core.
//!
//! A connection's way: [`accept`] hands it to a worker; [`login`] asks who it is; then it is a [`client::Client`],
//! one task that drives the client's socket and the server's, with `relay` moving the bytes (HOT). Server
//! connections are opened by [`worker`]s on behalf of [`pools`] and live in [`server::Server`].

pub mod accept;
pub mod cancel;
pub mod catalog;
pub mod client;
mod hashing;
pub mod hosts;
pub mod info;
pub mod janitor;
pub mod login;
pub mod lookups;
pub mod names;
pub mod newcomers;
pub mod pause;
pub mod peers;
pub mod pools;
mod relay;
pub mod server;
pub mod settings;
pub mod shared;
pub mod statistics;
pub mod takeover;
pub mod tls;
pub mod topology;
mod tunnel;
pub mod turns;
pub mod worker;
