//! Online restart (`-R`): a new process takes over from the one that runs, without anybody noticing.
//!
//! The new process logs in to the console over the Unix socket, with a protocol option ([`message::OPTION`]) in its startup packet.
//! Whoever does not know the option says so and goes on as usual (that is what the protocol asks for): such a process is
//! told to SHUTDOWN WAIT_FOR_CLIENTS, and the new one binds its sockets anew. Whoever knows it hands over, to a process of
//! its own user only:
//!
//! ```text
//! new                                  old
//! HELLO version                   ▶
//!                                 ◀    HELLO version: the newest that both speak; or REFUSED
//!                                 ◀    DOOR … with a listening socket each, and READY
//! (opens the doors)
//! GO                              ▶    stops accepting
//!                                 ◀    CLIENT … with its socket, and its server's in session pooling
//! CANCEL for a client not here    ▶
//!                                      (ends when nobody is left)
//! ```
//!
//! Up to GO the old process serves as if nothing were the matter, and goes on doing so if the new one fails. After GO each
//! client goes as soon as nothing of it is under way. Clients with TLS stay until they leave, since the keys of their
//! connections cannot be had; so do replication and the console.

mod arrive;
mod give;
pub mod message;
mod take;

pub use give::serve;
pub use take::{Found, Predecessor, find};
