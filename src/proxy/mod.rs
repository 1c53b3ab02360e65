//! The shell: sockets, tasks and time around the pure core.
//!
//! A connection's way: [`accept`] hands it to a worker; [`login`] asks who it is; then it is a [`client::Client`],
//! one task that drives the client's socket and the server's, with `relay` moving the bytes (HOT). Server
//! connections are opened by [`worker`]s on behalf of [`pools`] and live in [`server::Server`].

pub mod accept;
pub mod attention;
pub mod cancel;
mod cancel_peers;
pub mod catalog;
pub mod catalogs;
pub mod certificates;
pub mod client;
pub mod client_handle;
pub mod close;
pub mod close_servers;
pub mod credentials;
pub mod give_back;
pub mod grow;
pub mod handover;
mod hashing;
pub mod hosts;
pub mod janitor;
pub mod lease;
pub mod login;
pub mod lookups;
pub mod names;
pub mod newcomers;
pub mod pause;
pub mod peers;
pub mod pools;
pub mod registry;
mod relay;
pub mod reload;
pub mod server;
pub mod server_handle;
pub mod shared;
pub mod statistics;
pub mod takeover;
pub mod threads;
pub mod tls;
pub mod topology;
mod tunnel;
pub mod turns;
pub mod versioned;
pub mod worker;
