//! md5 authentication: weak, and still in use.

use std::fmt::Write;

use ::md5::{Digest, Md5};
use subtle::ConstantTimeEq;

/// The stored form: `md5` and the hash of password and user name in hexadecimal.
pub fn stored(password: &str, user: &str) -> String {
    hash(password.as_bytes(), user.as_bytes())
}

/// What is sent: the stored form, hashed once more with the salt of this conversation.
pub fn response(stored: &str, salt: [u8; 4]) -> String {
    hash(stored.strip_prefix("md5").unwrap_or(stored).as_bytes(), &salt)
}

/// Checks what a client has sent, in the same time whether right or wrong.
pub fn verify(stored: &str, salt: [u8; 4], sent: &[u8]) -> bool {
    response(stored, salt).as_bytes().ct_eq(sent).into()
}

fn hash(a: &[u8], b: &[u8]) -> String {
    let mut text = String::from("md5");
    for byte in Md5::new().chain_update(a).chain_update(b).finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_second_opinion() {
        let theirs = postgres_protocol::authentication::md5_hash(b"me", b"secret", [1, 2, 3, 4]);
        let ours = stored("secret", "me");
        assert_eq!(ours, postgres_protocol::password::md5(b"secret", "me"));
        assert!(verify(&ours, [1, 2, 3, 4], theirs.as_bytes()));
        assert!(!verify(&ours, [1, 2, 3, 5], theirs.as_bytes()));
        assert!(!verify(&ours, [1, 2, 3, 4], b""));
    }
}
