//! Walks the bytes that one side sent and decides what the other side gets. HOT.
//!
//! Frames are looked at where they lie. Most are kept as they are, and neighbours go out as one piece
//! ([`Output`](super::output::Output)); only messages that name a prepared statement are rewritten. A frame whose body is still on its
//! way is passed on as far as it is there, so the size of a message never matters, except for the few that must be
//! read whole.

mod client;
mod deallocate;
mod frames;
mod kept;
mod named;
mod replies;
mod requests;
mod server;
mod unnamed;
mod walk;
mod watch;

pub use self::client::{ClientSession, Idle, MaxPacket};
pub use self::frames::batch_len;
pub use self::kept::Kept;
pub use self::replies::{Received, fake_replies_due, server_to_client};
pub use self::requests::client_to_server;
pub use self::server::{ServerFault, ServerSession, align_parameters, login_parameter};
pub use self::walk::{Context, Sent, Stop};
pub use self::watch::Judge;

#[cfg(test)]
mod tests;
