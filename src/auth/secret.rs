//! A user's secret as `userlist.txt` and `pg_authid` store it.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use super::scram::{self, HASH, MAX_ITERATIONS};

/// A password as it is typed. It is never empty: an empty password is none, whoever stores it, sends it or asks for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Cleartext(Zeroizing<String>);

impl Cleartext {
    /// A password; `None` if it is empty.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = Zeroizing::new(text.into());
        (!text.is_empty()).then_some(Self(text))
    }

    /// The password itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// A stored secret. Its `Debug` output tells the kind only.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The password itself.
    Plain(Cleartext),
    /// `md5` and 32 hexadecimal digits: the hash of password and user name.
    Md5(Box<str>),
    /// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
    Scram(Verifier),
}

/// A stored secret that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the SCRAM secret has {0} iterations, but at most {MAX_ITERATIONS} are done")]
pub struct TooManyIterations(u64);

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
    /// `None`: there is none that could be right, as the text is empty or [`Self::check`] refuses it.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((iterations, verifier)) = Verifier::parse(text) {
            return (iterations <= MAX_ITERATIONS.into()).then_some(Self::Scram(verifier));
        }
        let is_md5 =
            text.len() == 35 && text.starts_with("md5") && text[3..].bytes().all(|b| b.is_ascii_hexdigit());
        if is_md5 {
            Some(Self::Md5(text.to_ascii_lowercase().into()))
        } else {
            Cleartext::new(text).map(Self::Plain)
        }
    }

    /// What is wrong with a stored secret; the error is for whoever has stored it.
    pub fn check(text: &str) -> Result<(), TooManyIterations> {
        match Verifier::parse(text) {
            Some((iterations, _)) if iterations > MAX_ITERATIONS.into() => Err(TooManyIterations(iterations)),
            _ => Ok(()),
        }
    }
}

impl Verifier {
    /// Makes a verifier for a password.
    pub fn new(password: &str, salt: &[u8], iterations: u32) -> Self {
        let scram::ScramKeys { client_key, server_key } = scram::keys(password, salt, iterations);
        Self { iterations, salt: salt.into(), stored_key: scram::stored_key(&client_key), server_key }
    }

    /// A verifier and how many iterations it really has, which may be more than are ever done.
    fn parse(text: &str) -> Option<(u64, Self)> {
        let (parameters, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let decode = |text: &str| BASE64_STANDARD.decode(text).ok();
        let iterations: u64 = iterations.parse().ok().filter(|&n| n > 0)?;
        let verifier = Self {
            iterations: iterations.try_into().unwrap_or(u32::MAX),
            salt: decode(salt)?.into(),
            stored_key: decode(stored_key)?.try_into().ok()?,
            server_key: decode(server_key)?.try_into().ok()?,
        };
        Some((iterations, verifier))
    }
}

impl fmt::Debug for Cleartext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cleartext(..)")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain(..)",
            Self::Md5(_) => "Md5(..)",
            Self::Scram(_) => "Scram(..)",
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
            matches!(Secret::parse(&scram), Some(Secret::Scram(v)) if v == Verifier::new("secret", &v.salt, v.iterations))
        );
        assert!(matches!(
            Secret::parse(&postgres_protocol::password::md5(b"secret", "me")),
            Some(Secret::Md5(_))
        ));
        for plain in
            ["md5", "secret", "md5zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "SCRAM-SHA-256$1:x$y", &scram[..60]]
        {
            assert!(matches!(Secret::parse(plain), Some(Secret::Plain(_))), "{plain}");
        }
        assert_eq!(format!("{:?}", Secret::parse("secret")), "Some(Plain(..))");
    }

    #[test]
    fn what_is_empty_is_no_secret() {
        assert_eq!(Secret::parse(""), None);
        assert_eq!(Cleartext::new(""), None);
    }

    #[test]
    fn a_verifier_has_no_more_iterations_than_are_ever_done() {
        let scram = postgres_protocol::password::scram_sha_256(b"secret");
        let with = |iterations: &str| scram.replace("4096:", &format!("{iterations}:"));
        assert!(Secret::check(&with("1000000")).is_ok() && Secret::parse(&with("1000000")).is_some());
        for iterations in ["1000001", "20000000", "5000000000"] {
            let error = Secret::check(&with(iterations)).unwrap_err().to_string();
            assert!(error.contains(iterations) && error.contains("at most 1000000"), "{error}");
            assert_eq!(Secret::parse(&with(iterations)), None);
        }
        assert!(Secret::check("").is_ok() && Secret::check("SCRAM-SHA-256$9999999:x$y").is_ok());
    }
}
