//! The server's side of SCRAM: a client proves that it knows a password.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use subtle::ConstantTimeEq;

use super::{
    ChannelBinding, HASH, MAX_MESSAGE, NONCE, ScramKeys, attribute, hmac, is_printable, stored_key, xor,
};
use crate::auth::secret::Verifier;

/// Why an exchange failed; for the log only.
pub type Reason = &'static str;

/// Waits for the client's first message.
#[derive(Debug)]
pub struct Server {
    verifier: Verifier,
    binding: ChannelBinding,
    nonce: [u8; NONCE],
}

/// Waits for the client's proof.
#[derive(Debug)]
pub struct Challenged {
    verifier: Verifier,
    nonce: String,
    binding: String,
    /// `client-first-bare,server-first,`.
    transcript: String,
}

impl Server {
    /// A server that knows the user's verifier.
    pub fn new(verifier: Verifier, binding: ChannelBinding, nonce: [u8; NONCE]) -> Self {
        Self { verifier, binding, nonce }
    }

    /// Takes `client-first-message`; gives `server-first-message`. `plus`: the client chose the mechanism with
    /// channel binding.
    pub fn first(self, message: &[u8], plus: bool) -> Result<(Challenged, String), Reason> {
        if message.len() > MAX_MESSAGE {
            return Err("SCRAM message too long");
        }
        let message = std::str::from_utf8(message).map_err(|_| "SCRAM message is not UTF-8")?;
        let (header, bare) = split_header(message).ok_or("malformed SCRAM message")?;
        let binding = self.binding_of(header, plus)?;
        let mut parts = bare.split(',');
        let user = parts.next();
        // The user name is that of the StartupMessage; libpq leaves it empty here.
        attribute(user, "n").ok_or("malformed SCRAM message: user name expected")?;
        let client_nonce =
            attribute(parts.next(), "r").filter(|n| is_printable(n)).ok_or("bad SCRAM nonce")?;
        let nonce = format!("{client_nonce}{}", BASE64_STANDARD.encode(self.nonce));
        let salt = BASE64_STANDARD.encode(&self.verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", self.verifier.iterations);
        let transcript = format!("{bare},{server_first},");
        Ok((Challenged { verifier: self.verifier, nonce, binding, transcript }, server_first))
    }

    /// Checks the channel-binding flag; gives the value that `c=` must have in the client's last message.
    fn binding_of(&self, header: &str, plus: bool) -> Result<String, Reason> {
        let flag = header.split(',').next().unwrap_or_default();
        match (&self.binding, flag) {
            (_, "n") if !plus => Ok(BASE64_STANDARD.encode(header)),
            (ChannelBinding::None, "y") if !plus => Ok(BASE64_STANDARD.encode(header)),
            (_, "y") => Err("client believes that channel binding is not offered: downgrade?"),
            (ChannelBinding::ServerEndPoint(hash), "p=tls-server-end-point") if plus => {
                Ok(BASE64_STANDARD.encode([header.as_bytes(), hash].concat()))
            }
            _ => Err("channel binding does not fit the SASL mechanism"),
        }
    }
}

/// The salt shown for a user of whom none is stored: the same whenever it is asked for.
pub fn mock_salt(user: &str, mock_key: &[u8; 32]) -> Vec<u8> {
    hmac(mock_key, user.as_bytes())[..16].to_vec()
}

/// Splits a message behind the gs2 header: the flag, an authorization identity (unsupported, so empty), a comma.
fn split_header(message: &str) -> Option<(&str, &str)> {
    let flag_end = message.find(',')?;
    let rest = message[flag_end + 1..].strip_prefix(',')?;
    Some((&message[..flag_end + 2], rest))
}

impl Challenged {
    /// Takes `client-final-message`; gives `server-final-message` and the user's keys.
    pub fn last(self, message: &[u8]) -> Result<(String, ScramKeys), Reason> {
        if message.len() > MAX_MESSAGE {
            return Err("SCRAM message too long");
        }
        let message = std::str::from_utf8(message).map_err(|_| "SCRAM message is not UTF-8")?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or("malformed SCRAM message: no proof")?;
        let mut parts = without_proof.split(',');
        if attribute(parts.next(), "c") != Some(&self.binding) {
            return Err("SCRAM channel binding check failed");
        }
        if attribute(parts.next(), "r") != Some(&self.nonce) {
            return Err("SCRAM nonce does not match");
        }
        let proof = BASE64_STANDARD.decode(proof).ok().and_then(|p| <[u8; HASH]>::try_from(p).ok());
        let mut client_key = proof.ok_or("malformed SCRAM proof")?;
        let transcript = format!("{}{without_proof}", self.transcript);
        xor(&mut client_key, &hmac(&self.verifier.stored_key, transcript.as_bytes()));
        let right = stored_key(&client_key).ct_eq(&self.verifier.stored_key);
        let signature = hmac(&self.verifier.server_key, transcript.as_bytes());
        if !bool::from(right) {
            return Err("wrong password");
        }
        let last = format!("v={}", BASE64_STANDARD.encode(signature));
        Ok((last, ScramKeys { client_key, server_key: self.verifier.server_key }))
    }
}
