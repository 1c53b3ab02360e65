//! Sockets. Everything above speaks to a [`stream::Stream`] and does not know what carries it.

pub mod connect;
pub mod descriptors;
pub mod detached;
pub mod ldap;
pub mod listener;
pub mod pam;
pub mod received;
pub mod resolve;
pub mod stream;
pub mod tls;
pub mod uring;
