//! TLS towards clients and servers, with rustls: certificates, ciphers and checks as `client_tls_*` and `server_tls_*` name
//! them.
//!
//! [`ClientTls`] and [`ServerTls`] are made from the settings once and shared; a reload makes new ones, and connections
//! keep what they were opened with. [`stream::TlsStream`] moves the bytes.

pub mod certificate;
mod error;
mod identity;
mod names;
mod policy;
mod setup;
pub mod stream;
mod system;
mod verify;

pub use error::TlsError;
pub use policy::describe;
pub use setup::{ClientTls, ServerTls};

#[cfg(test)]
mod tests;
