//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as PostgreSQL speaks it, both sides.
//!
//! Own code, because the proxy needs what libraries do not give: verifiers as they are stored, and the ClientKey
//! that a successful login reveals, with which the proxy can log in to the server as that user without ever
//! having seen the password.

pub mod client;
pub mod server;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Length of a SHA-256 hash.
pub const HASH: usize = 32;
/// Random bytes of a nonce, before encoding; PostgreSQL's own number.
pub const NONCE: usize = 18;
/// The mechanism's name.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// The same with channel binding.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// Longest message of the conversation.
const MAX_MESSAGE: usize = 4096;
/// Most iterations of PBKDF2 that are ever done: half a second of work. The server and the stored secret ask for them, and
/// neither shall decide how long we work. PostgreSQL's default is 4096.
pub const MAX_ITERATIONS: u32 = 1_000_000;

/// What ties the conversation to the TLS connection it runs in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    /// There is no TLS.
    #[default]
    None,
    /// `tls-server-end-point` (RFC 5929): the hash of the server's certificate.
    ServerEndPoint(Vec<u8>),
}

/// The keys of a user, as good as the password towards servers that store the same salt and iterations.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// ClientKey: proves that the client knows the password.
    pub client_key: [u8; HASH],
    /// ServerKey: proves that the server does.
    pub server_key: [u8; HASH],
}

impl std::fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScramKeys(..)")
    }
}

type HmacSha256 = Hmac<Sha256>;

fn keyed(key: &[u8]) -> HmacSha256 {
    match HmacSha256::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes keys of any length"),
    }
}

pub(super) fn hmac(key: &[u8], message: &[u8]) -> [u8; HASH] {
    keyed(key).chain_update(message).finalize().into_bytes().into()
}

/// SaltedPassword: PBKDF2 with one block, the password prepared by SASLprep, or taken as it is where that fails or leaves
/// nothing, as PostgreSQL does: a password of soft hyphens must not be the empty one.
pub fn salted_password(password: &str, salt: &[u8], iterations: u32) -> [u8; HASH] {
    #[cfg(test)]
    tests::DONE.with(|done| done.set(done.get() + u64::from(iterations)));
    let prepared = stringprep::saslprep(password).ok().filter(|prepared| !prepared.is_empty());
    let mac = keyed(prepared.as_deref().unwrap_or(password).as_bytes());
    let mut block: [u8; HASH] =
        mac.clone().chain_update(salt).chain_update([0, 0, 0, 1]).finalize().into_bytes().into();
    let mut sum = block;
    for _ in 1..iterations {
        block = mac.clone().chain_update(block).finalize().into_bytes().into();
        xor(&mut sum, &block);
    }
    sum
}

/// The keys that a password gives.
pub fn keys(password: &str, salt: &[u8], iterations: u32) -> ScramKeys {
    let salted = salted_password(password, salt, iterations);
    ScramKeys { client_key: client_key(&salted), server_key: server_key(&salted) }
}

/// ClientKey of a SaltedPassword.
pub fn client_key(salted: &[u8; HASH]) -> [u8; HASH] {
    hmac(salted, b"Client Key")
}

/// ServerKey of a SaltedPassword.
pub fn server_key(salted: &[u8; HASH]) -> [u8; HASH] {
    hmac(salted, b"Server Key")
}

/// StoredKey of a ClientKey.
pub fn stored_key(client_key: &[u8; HASH]) -> [u8; HASH] {
    Sha256::digest(client_key).into()
}

fn xor(a: &mut [u8; HASH], b: &[u8; HASH]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a ^= b);
}

/// The value of an attribute such as `r=…`.
fn attribute<'a>(part: Option<&'a str>, name: &str) -> Option<&'a str> {
    part?.strip_prefix(name)?.strip_prefix('=')
}

/// A nonce or proof is printable ASCII without commas.
fn is_printable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b',')
}

#[cfg(test)]
pub(in crate::auth) mod tests;
