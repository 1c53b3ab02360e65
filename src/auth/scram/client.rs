//! The client's side of SCRAM: the proxy logs in to a server.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use subtle::ConstantTimeEq;

use super::{
    ChannelBinding, HASH, MAX_MESSAGE, NONCE, ScramKeys, attribute, client_key, hmac, is_printable,
    salted_password, server_key, stored_key, xor,
};

/// Most iterations done on a server's word: about a second of work. PostgreSQL's default is 4096.
const MAX_ITERATIONS: u32 = 5_000_000;

/// What the client proves that it knows.
pub enum Proof<'a> {
    /// A password.
    Password(&'a str),
    /// A password, behind a function that knows the keys for this salt and these iterations, or derives them.
    Derive(&'a dyn Fn(&[u8], u32) -> ScramKeys),
    /// Keys gained from the user's own login; good if the server stores the same salt and iterations.
    Keys(&'a ScramKeys),
}

/// Waits for the server's first message.
#[derive(Debug)]
pub struct Client {
    header: String,
    binding: Vec<u8>,
    nonce: String,
}

/// Waits for the server's signature.
#[derive(Debug)]
pub struct Answered {
    signature: [u8; HASH],
}

impl Client {
    /// Starts a login; gives `client-first-message`.
    pub fn new(binding: &ChannelBinding, nonce: [u8; NONCE]) -> (Self, String) {
        let (header, binding) = match binding {
            ChannelBinding::None => ("n,,", Vec::new()),
            ChannelBinding::ServerEndPoint(hash) => ("p=tls-server-end-point,,", hash.clone()),
        };
        let nonce = BASE64_STANDARD.encode(nonce);
        let first = format!("{header}n=,r={nonce}");
        (Self { header: header.into(), binding, nonce }, first)
    }

    /// Takes `server-first-message`; gives `client-final-message`.
    pub fn answer(self, message: &[u8], proof: &Proof<'_>) -> Result<(Answered, String), &'static str> {
        if message.len() > MAX_MESSAGE {
            return Err("SCRAM message from server too long");
        }
        let message = std::str::from_utf8(message).map_err(|_| "SCRAM message from server is not UTF-8")?;
        let mut parts = message.split(',');
        let malformed = "malformed SCRAM message from server";
        let nonce = attribute(parts.next(), "r").ok_or(malformed)?;
        let salt = attribute(parts.next(), "s")
            .and_then(|salt| BASE64_STANDARD.decode(salt).ok())
            .ok_or(malformed)?;
        let iterations: u32 = attribute(parts.next(), "i").and_then(|i| i.parse().ok()).ok_or(malformed)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() || !is_printable(nonce) {
            return Err("server's SCRAM nonce does not continue ours");
        }
        if iterations == 0 || iterations > MAX_ITERATIONS {
            return Err("server asks for an unreasonable number of SCRAM iterations");
        }
        let keys = match proof {
            Proof::Keys(keys) => (*keys).clone(),
            Proof::Derive(derive) => derive(&salt, iterations),
            Proof::Password(password) => {
                let salted = salted_password(password, &salt, iterations);
                ScramKeys { client_key: client_key(&salted), server_key: server_key(&salted) }
            }
        };
        let binding = BASE64_STANDARD.encode([self.header.as_bytes(), &self.binding].concat());
        let without_proof = format!("c={binding},r={nonce}");
        let transcript = format!("n=,r={},{message},{without_proof}", self.nonce);
        let mut proof = hmac(&stored_key(&keys.client_key), transcript.as_bytes());
        xor(&mut proof, &keys.client_key);
        let last = format!("{without_proof},p={}", BASE64_STANDARD.encode(proof));
        Ok((Answered { signature: hmac(&keys.server_key, transcript.as_bytes()) }, last))
    }
}

impl Answered {
    /// Takes `server-final-message`: does the server know the password, too?
    pub fn verify(&self, message: &[u8]) -> Result<(), &'static str> {
        let message = std::str::from_utf8(message).ok().and_then(|m| m.split(',').next());
        let signature = attribute(message, "v").and_then(|v| BASE64_STANDARD.decode(v).ok());
        match signature {
            Some(theirs) if bool::from(theirs.as_slice().ct_eq(&self.signature)) => Ok(()),
            Some(_) => Err("server's SCRAM signature is wrong: it does not know the password"),
            None => Err("malformed SCRAM message from server"),
        }
    }
}
