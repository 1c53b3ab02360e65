//! What the two processes say to each other.

/// In the startup packet: asks to take over.
pub const OPTION: &str = "_pq_.pgweir_takeover";

/// The newest version of the conversation. Fields that are not known are skipped, so that more of them need no new version.
pub(super) const VERSION: u32 = 1;

pub(super) const HELLO: u8 = b'H';
pub(super) const REFUSED: u8 = b'E';
pub(super) const DOOR: u8 = b'L';
pub(super) const READY: u8 = b'R';
pub(super) const GO: u8 = b'G';
pub(super) const CLIENT: u8 = b'C';
pub(super) const CANCEL: u8 = b'K';
