//! The client's side of SCRAM: the proxy logs in to a server.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use subtle::ConstantTimeEq;

use super::{
    HASH, MAX_ITERATIONS, MAX_MESSAGE, NONCE, ScramKeys, attribute, hmac, is_printable, keys, stored_key, xor,
};

/// What the login says of the TLS connection it runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding<'a> {
    /// There is no TLS, or nothing that could be bound to (`n`).
    Unsupported,
    /// There is TLS, but the server does not offer channel binding (`y`): a server that did offer it will know that
    /// somebody between us has taken the offer away.
    NotOffered,
    /// `tls-server-end-point` (RFC 5929): the hash of the server's certificate.
    ServerEndPoint(&'a [u8]),
}

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
    pub fn new(binding: Binding<'_>, nonce: [u8; NONCE]) -> (Self, String) {
        let (header, binding) = match binding {
            Binding::Unsupported => ("n,,", Vec::new()),
            Binding::NotOffered => ("y,,", Vec::new()),
            Binding::ServerEndPoint(hash) => ("p=tls-server-end-point,,", hash.to_vec()),
        };
        let nonce = BASE64_STANDARD.encode(nonce);
        let first = format!("{header}n=,r={nonce}");
        (Self { header: header.into(), binding, nonce }, first)
    }

    /// Takes `server-first-message`; gives `client-final-message`.
    pub fn answer(self, message: &[u8], proof: &Proof<'_>) -> Result<(Answered, String), &'static str> {
        let Challenge { nonce, salt, iterations } = Challenge::parse(message)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() || !is_printable(nonce) {
            return Err("server's SCRAM nonce does not continue ours");
        }
        let keys = match proof {
            Proof::Keys(keys) => (*keys).clone(),
            Proof::Derive(derive) => derive(&salt, iterations),
            Proof::Password(password) => keys(password, &salt, iterations),
        };
        let message = String::from_utf8_lossy(message);
        let binding = BASE64_STANDARD.encode([self.header.as_bytes(), &self.binding].concat());
        let without_proof = format!("c={binding},r={nonce}");
        let transcript = format!("n=,r={},{message},{without_proof}", self.nonce);
        let mut proof = hmac(&stored_key(&keys.client_key), transcript.as_bytes());
        xor(&mut proof, &keys.client_key);
        let last = format!("{without_proof},p={}", BASE64_STANDARD.encode(proof));
        Ok((Answered { signature: hmac(&keys.server_key, transcript.as_bytes()) }, last))
    }
}

/// `server-first-message`.
pub struct Challenge<'a> {
    nonce: &'a str,
    /// Salt.
    pub salt: Vec<u8>,
    /// Iterations, not more than [`MAX_ITERATIONS`].
    pub iterations: u32,
}

impl<'a> Challenge<'a> {
    /// Takes the message apart.
    pub fn parse(message: &'a [u8]) -> Result<Self, &'static str> {
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
        let iterations = attribute(parts.next(), "i").and_then(|i| i.parse().ok()).ok_or(malformed)?;
        match iterations {
            1..=MAX_ITERATIONS => Ok(Self { nonce, salt, iterations }),
            _ => Err("server asks for an unreasonable number of SCRAM iterations: at most 1000000 are done"),
        }
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
