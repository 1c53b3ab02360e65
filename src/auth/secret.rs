//! A user's secret as `userlist.txt` and `pg_authid` store it.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use super::scram::{self, HASH};

/// A stored secret. Its `Debug` output tells the kind only.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The password itself.
    Plain(Zeroizing<String>),
    /// `md5` and 32 hexadecimal digits: the hash of password and user name.
    Md5(Box<str>),
    /// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
    Scram(Verifier),
    /// There is none: the user exists, but no password is right.
    Unusable,
}

/// What a server has to know for SCRAM: it can check a password with this, but not log in elsewhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// Iterations of PBKDF2.
    pub iterations: u32,
    /// Salt.
    pub salt: Box<[u8]>,
    /// Hash of the ClientKey.
    pub stored_key: [u8; HASH],
    /// Key of the server's signature.
    pub server_key: [u8; HASH],
}

impl Secret {
    /// Reads a stored secret. Whatever is neither an md5 hash nor a SCRAM verifier is a password, as in PostgreSQL.
    pub fn parse(text: &str) -> Self {
        if let Some(verifier) = Verifier::parse(text) {
            return Self::Scram(verifier);
        }
        let is_md5 =
            text.len() == 35 && text.starts_with("md5") && text[3..].bytes().all(|b| b.is_ascii_hexdigit());
        if is_md5 {
            Self::Md5(text.to_ascii_lowercase().into())
        } else {
            Self::Plain(Zeroizing::new(text.to_owned()))
        }
    }
}

impl Verifier {
    /// Makes a verifier for a password.
    pub fn new(password: &str, salt: &[u8], iterations: u32) -> Self {
        let salted = scram::salted_password(password, salt, iterations);
        let (stored_key, server_key) =
            (scram::stored_key(&scram::client_key(&salted)), scram::server_key(&salted));
        Self { iterations, salt: salt.into(), stored_key, server_key }
    }

    fn parse(text: &str) -> Option<Self> {
        let (parameters, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let decode = |text: &str| BASE64_STANDARD.decode(text).ok();
        Some(Self {
            iterations: iterations.parse().ok().filter(|&n| n > 0)?,
            salt: decode(salt)?.into(),
            stored_key: decode(stored_key)?.try_into().ok()?,
            server_key: decode(server_key)?.try_into().ok()?,
        })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain(..)",
            Self::Md5(_) => "Md5(..)",
            Self::Scram(_) => "Scram(..)",
            Self::Unusable => "Unusable",
        })
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier {{ iterations: {}, .. }}", self.iterations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        let scram = postgres_protocol::password::scram_sha_256(b"secret");
        assert!(
            matches!(Secret::parse(&scram), Secret::Scram(v) if v == Verifier::new("secret", &v.salt, v.iterations))
        );
        assert!(matches!(Secret::parse(&postgres_protocol::password::md5(b"secret", "me")), Secret::Md5(_)));
        for plain in
            ["", "md5", "secret", "md5zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "SCRAM-SHA-256$1:x$y", &scram[..60]]
        {
            assert!(matches!(Secret::parse(plain), Secret::Plain(_)), "{plain}");
        }
        assert_eq!(format!("{:?}", Secret::parse("secret")), "Plain(..)");
    }
}
