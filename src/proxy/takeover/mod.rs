//! Online restart (`-R`): a new process takes over from the one that runs, without anybody noticing.
//!
//! The new process logs in to the console over the Unix socket, with a protocol option ([`OPTION`]) in its startup packet.
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

mod give;
mod parcel;
mod take;

use std::os::fd::OwnedFd;

pub use give::{Successor, send, serve};
pub use parcel::{MovedClient, MovedServer, NamedStatement};
pub use take::{Found, Predecessor, arrive, find};

/// In the startup packet: asks to take over.
pub const OPTION: &str = "_pq_.pgweir_takeover";

/// The newest version of the conversation. Fields that are not known are skipped, so that more of them need no new version.
const VERSION: u32 = 1;

const HELLO: u8 = b'H';
const REFUSED: u8 = b'E';
const DOOR: u8 = b'L';
const READY: u8 = b'R';
const GO: u8 = b'G';
const CLIENT: u8 = b'C';
const CANCEL: u8 = b'K';

/// A listening socket that changes hands.
#[derive(Debug)]
pub struct Door {
    /// Who knocks there.
    pub kind: DoorKind,
    /// It.
    pub socket: OwnedFd,
}

/// What a listening socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoorKind {
    /// Clients, by TCP or a Unix socket.
    Clients,
    /// Clients as well; the service manager has opened it.
    Activated,
    /// HTTP.
    Http,
}

impl DoorKind {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Clients => b"clients",
            Self::Activated => b"activated",
            Self::Http => b"http",
        }
    }

    fn parse(name: &[u8]) -> Option<Self> {
        [Self::Clients, Self::Activated, Self::Http].into_iter().find(|kind| kind.name() == name)
    }
}
