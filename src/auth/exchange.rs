//! The conversation in which a client proves who it is, as seen by the proxy. States are consumed by value; at its
//! end stands an [`Authenticated`], which nothing outside this module can make.
//!
//! Unknown users and wrong passwords take the same steps and the same work as right ones, up to the last one.

use std::sync::OnceLock;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::md5;
use super::scram::server::{Challenged, Server};
use super::scram::{self, ChannelBinding, MECHANISM, MECHANISM_PLUS, NONCE, ScramKeys};
use super::secret::{Secret, Verifier};

/// A user's secret, and what SCRAM needs of it, worked out once: deriving that takes thousands of hashes.
#[derive(Debug)]
pub struct Account {
    /// As stored.
    pub secret: Secret,
    derived: OnceLock<Verifier>,
}

impl Account {
    /// An account with this secret.
    pub fn new(secret: Secret) -> Self {
        Self { secret, derived: OnceLock::new() }
    }

    /// What SCRAM needs; `None` if the secret is an md5 hash. A plain password gets a salt that depends on user and
    /// process, as unknown users do.
    fn verifier(&self, user: &str, mock_key: &[u8; 32], iterations: u32) -> Option<Verifier> {
        match &self.secret {
            Secret::Scram(verifier) => Some(verifier.clone()),
            Secret::Plain(password) => {
                let derive =
                    || Verifier::new(password, &scram::server::mock_salt(user, mock_key), iterations);
                Some(self.derived.get_or_init(derive).clone())
            }
            Secret::Md5(_) | Secret::Unusable => None,
        }
    }
}

/// How clients have to prove who they are (setting `auth_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Not at all, and any name will do.
    Any,
    /// Not at all, but the name must be known.
    Trust,
    /// By sending the password.
    Plain,
    /// By an md5 hash; by SCRAM if the stored secret is a SCRAM verifier.
    Md5,
    /// By SCRAM-SHA-256.
    Scram,
}

/// What a conversation starts from.
#[derive(Debug)]
pub struct Begin<'a> {
    /// How.
    pub method: Method,
    /// Who the client says it is.
    pub user: &'a str,
    /// What is known of that user; `None` if nothing is.
    pub account: Option<&'a Account>,
    /// Random bytes.
    pub entropy: [u8; NONCE],
    /// Secret of this process.
    pub mock_key: &'a [u8; 32],
    /// Setting `scram_iterations`.
    pub scram_iterations: u32,
    /// What TLS offers.
    pub binding: ChannelBinding,
}

/// A message to the client (PostgreSQL documentation, `Authentication…` in 53.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthRequest {
    /// AuthenticationCleartextPassword.
    CleartextPassword,
    /// AuthenticationMD5Password with its salt.
    Md5Password([u8; 4]),
    /// AuthenticationSASL; with or without channel binding among the mechanisms.
    Sasl {
        /// Offer SCRAM-SHA-256-PLUS.
        plus: bool,
    },
    /// AuthenticationSASLContinue.
    SaslContinue(String),
    /// AuthenticationSASLFinal.
    SaslFinal(String),
}

impl AuthRequest {
    /// The code and what follows it.
    pub fn encode(&self) -> (u32, Vec<u8>) {
        match self {
            Self::CleartextPassword => (3, Vec::new()),
            Self::Md5Password(salt) => (5, salt.to_vec()),
            Self::Sasl { plus } => {
                let plus = if *plus { format!("{MECHANISM_PLUS}\0") } else { String::new() };
                (10, format!("{plus}{MECHANISM}\0\0").into_bytes())
            }
            Self::SaslContinue(text) => (11, text.clone().into_bytes()),
            Self::SaslFinal(text) => (12, text.clone().into_bytes()),
        }
    }
}

/// Proof that a client is who it says. Made by [`Exchange`] only.
#[derive(Debug)]
pub struct Authenticated {
    /// What was learned on the way, with which servers may be logged in to.
    pub learned: Learned,
}

/// What a login has revealed.
#[derive(Debug)]
pub enum Learned {
    /// Nothing.
    Nothing,
    /// The password.
    Password(Zeroizing<String>),
    /// The keys of SCRAM.
    Keys(ScramKeys),
}

/// Why a client was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the client is told.
    pub kind: FailureKind,
    /// What the log is told, never the client.
    pub log_detail: &'static str,
}

/// What a client is told when it is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// "password authentication failed".
    Password,
    /// "SASL authentication failed".
    Sasl,
    /// "\"trust\" authentication failed".
    Trust,
}

/// What comes next.
#[derive(Debug)]
pub enum Progress {
    /// Another message to the client, and its answer.
    Continue(Exchange, AuthRequest),
    /// The client is who it says; a last message may have to be sent.
    Accepted(Authenticated, Option<AuthRequest>),
    /// It is not.
    Rejected(Failure),
}

/// A conversation under way.
#[derive(Debug)]
pub struct Exchange(State);

#[derive(Debug)]
enum State {
    /// The answer was known from the start.
    Decided(bool),
    Plain {
        secret: Option<Secret>,
        user: String,
    },
    Md5 {
        stored: Option<String>,
        salt: [u8; 4],
    },
    Sasl {
        server: Server,
        plus_offered: bool,
    },
    Proof(Challenged),
}

impl Exchange {
    /// Starts a conversation; gives the first message to the client. Without one there is nothing to wait for.
    pub fn begin(begin: Begin<'_>) -> (Self, Option<AuthRequest>) {
        let secret = begin.account.map(|account| &account.secret);
        match begin.method {
            Method::Any => (Self(State::Decided(true)), None),
            Method::Trust => (Self(State::Decided(secret.is_some())), None),
            Method::Plain => {
                let state = State::Plain { secret: secret.cloned(), user: begin.user.to_owned() };
                (Self(state), Some(AuthRequest::CleartextPassword))
            }
            Method::Md5 if !matches!(secret, Some(Secret::Scram(_))) => {
                let stored = secret.and_then(|secret| match secret {
                    Secret::Md5(hash) => Some(hash.to_string()),
                    Secret::Plain(password) => Some(md5::stored(password, begin.user)),
                    Secret::Scram(_) | Secret::Unusable => None,
                });
                let salt = [begin.entropy[0], begin.entropy[1], begin.entropy[2], begin.entropy[3]];
                (Self(State::Md5 { stored, salt }), Some(AuthRequest::Md5Password(salt)))
            }
            Method::Md5 | Method::Scram => {
                let plus_offered = begin.binding != ChannelBinding::None;
                let iterations = begin.scram_iterations;
                let verifier = begin.account.and_then(|a| a.verifier(begin.user, begin.mock_key, iterations));
                let server = match verifier {
                    Some(verifier) => Server::new(verifier, begin.binding, begin.entropy),
                    None => {
                        Server::mock(begin.user, begin.mock_key, iterations, begin.binding, begin.entropy)
                    }
                };
                (Self(State::Sasl { server, plus_offered }), Some(AuthRequest::Sasl { plus: plus_offered }))
            }
        }
    }

    /// Takes the body of the client's password message, empty where none was asked for.
    pub fn handle(self, body: &[u8]) -> Progress {
        match self.0 {
            State::Decided(true) => accept(Learned::Nothing),
            State::Decided(false) => reject(FailureKind::Trust, "no such user"),
            State::Plain { secret, user } => match password(body) {
                Some(sent) => check_plain(secret.as_ref(), &user, sent),
                None => reject(FailureKind::Password, "malformed password message"),
            },
            State::Md5 { stored, salt } => {
                // An unknown user costs the same hash and the same comparison.
                let hash = stored.as_deref().unwrap_or("md500000000000000000000000000000000");
                let right = password(body).is_some_and(|sent| md5::verify(hash, salt, sent.as_bytes()));
                if right && stored.is_some() {
                    accept(Learned::Nothing)
                } else {
                    reject(
                        FailureKind::Password,
                        if stored.is_some() { "wrong password" } else { "no such user" },
                    )
                }
            }
            State::Sasl { server, plus_offered } => sasl_first(server, plus_offered, body),
            State::Proof(challenged) => match challenged.last(body) {
                Ok((last, keys)) => Progress::Accepted(
                    Authenticated { learned: Learned::Keys(keys) },
                    Some(AuthRequest::SaslFinal(last)),
                ),
                Err(reason) => reject(FailureKind::Sasl, reason),
            },
        }
    }
}

/// SASLInitialResponse: the mechanism's name, the length of the rest, the rest.
fn sasl_first(server: Server, plus_offered: bool, body: &[u8]) -> Progress {
    let malformed = || reject(FailureKind::Sasl, "malformed SASL message");
    let Some(end) = body.iter().position(|&b| b == 0) else { return malformed() };
    let (mechanism, rest) = (&body[..end], &body[end + 1..]);
    let Some((len, message)) = rest.split_first_chunk::<4>() else { return malformed() };
    if u32::from_be_bytes(*len) as usize != message.len() {
        return malformed();
    }
    let plus = mechanism == MECHANISM_PLUS.as_bytes() && plus_offered;
    if !plus && mechanism != MECHANISM.as_bytes() {
        return reject(FailureKind::Sasl, "client chose a SASL mechanism that was not offered");
    }
    match server.first(message, plus) {
        Ok((challenged, text)) => {
            Progress::Continue(Exchange(State::Proof(challenged)), AuthRequest::SaslContinue(text))
        }
        Err(reason) => reject(FailureKind::Sasl, reason),
    }
}

/// The password in a password message's body, which holds one string and nothing behind it.
pub fn password(body: &[u8]) -> Option<&str> {
    let (0, text) = body.split_last()? else { return None };
    if text.contains(&0) { None } else { std::str::from_utf8(text).ok() }
}

fn check_plain(secret: Option<&Secret>, user: &str, sent: &str) -> Progress {
    let right = match secret {
        Some(Secret::Plain(password)) => {
            !sent.is_empty() && bool::from(password.as_bytes().ct_eq(sent.as_bytes()))
        }
        Some(Secret::Md5(hash)) => bool::from(hash.as_bytes().ct_eq(md5::stored(sent, user).as_bytes())),
        Some(Secret::Scram(verifier)) => {
            Verifier::new(sent, &verifier.salt, verifier.iterations) == *verifier
        }
        Some(Secret::Unusable) | None => false,
    };
    if right {
        accept(Learned::Password(Zeroizing::new(sent.to_owned())))
    } else {
        reject(FailureKind::Password, if secret.is_some() { "wrong password" } else { "no such user" })
    }
}

fn accept(learned: Learned) -> Progress {
    Progress::Accepted(Authenticated { learned }, None)
}

fn reject(kind: FailureKind, log_detail: &'static str) -> Progress {
    Progress::Rejected(Failure { kind, log_detail })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::scram::client::{Client, Proof};

    fn begin(method: Method, account: Option<&Account>) -> (Exchange, Option<AuthRequest>) {
        Exchange::begin(Begin {
            method,
            user: "me",
            account,
            entropy: [7; NONCE],
            mock_key: &[1; 32],
            scram_iterations: 10,
            binding: ChannelBinding::None,
        })
    }

    fn account(text: &str) -> Account {
        Account::new(Secret::parse(text))
    }

    /// Answers whatever is asked with this password; says whether that is right.
    fn log_in(method: Method, account: Option<&Account>, password: &str) -> Result<Learned, Failure> {
        let (mut exchange, mut request) = begin(method, account);
        let mut scram = None;
        let mut body = Vec::new();
        loop {
            match request {
                None => {}
                Some(AuthRequest::CleartextPassword) => body = [password.as_bytes(), b"\0"].concat(),
                Some(AuthRequest::Md5Password(salt)) => {
                    body = postgres_protocol::authentication::md5_hash(b"me", password.as_bytes(), salt)
                        .into_bytes();
                    body.push(0);
                }
                Some(AuthRequest::Sasl { plus }) => {
                    assert!(!plus);
                    let (client, first) = Client::new(&ChannelBinding::None, [9; NONCE]);
                    scram = Some(client);
                    body = [b"SCRAM-SHA-256\0", &(first.len() as u32).to_be_bytes()[..], first.as_bytes()]
                        .concat();
                }
                Some(AuthRequest::SaslContinue(ref text)) => {
                    let client = scram.take().unwrap();
                    body = client.answer(text.as_bytes(), &Proof::Password(password)).unwrap().1.into_bytes();
                }
                Some(AuthRequest::SaslFinal(_)) => unreachable!(),
            }
            match exchange.handle(&body) {
                Progress::Continue(next, more) => (exchange, request) = (next, Some(more)),
                Progress::Accepted(authenticated, _) => return Ok(authenticated.learned),
                Progress::Rejected(failure) => return Err(failure),
            }
        }
    }

    #[test]
    fn each_method_takes_each_secret_it_can() {
        let md5 = md5::stored("secret", "me");
        let scram = postgres_protocol::password::scram_sha_256(b"secret");
        for (method, secret, possible) in [
            (Method::Plain, "secret", true),
            (Method::Plain, &*md5, true),
            (Method::Plain, &*scram, true),
            (Method::Md5, "secret", true),
            (Method::Md5, &*md5, true),
            (Method::Md5, &*scram, true),
            (Method::Scram, "secret", true),
            (Method::Scram, &*md5, false),
            (Method::Scram, &*scram, true),
        ] {
            let account = account(secret);
            assert_eq!(
                log_in(method, Some(&account), "secret").is_ok(),
                possible,
                "{method:?} {:?}",
                account.secret
            );
            assert!(log_in(method, Some(&account), "Secret").is_err(), "{method:?} {:?}", account.secret);
            assert!(log_in(method, Some(&account), "").is_err());
        }
    }

    /// PostgreSQL prepares the password here as well (`scram_verify_plain_password`).
    #[test]
    fn a_verifier_takes_what_saslprep_makes_the_same_password() {
        let scram = postgres_protocol::password::scram_sha_256(b"secret");
        for (secret, possible) in [(&*scram, true), ("secret", false), (&*md5::stored("secret", "me"), false)]
        {
            let result = log_in(Method::Plain, Some(&account(secret)), "\u{fe0a}secret");
            assert_eq!(result.is_ok(), possible, "{secret}");
        }
    }

    #[test]
    fn unknown_users_fail_at_the_end_only() {
        for (method, kind) in [
            (Method::Plain, FailureKind::Password),
            (Method::Md5, FailureKind::Password),
            (Method::Scram, FailureKind::Sasl),
        ] {
            let failure = log_in(method, None, "").unwrap_err();
            assert_eq!(failure.kind, kind);
        }
        assert_eq!(log_in(Method::Trust, None, "").unwrap_err().kind, FailureKind::Trust);
        assert!(log_in(Method::Any, None, "").is_ok());
        assert!(log_in(Method::Trust, Some(&account("")), "").is_ok());
    }

    #[test]
    fn an_empty_secret_lets_nobody_in_by_password() {
        assert!(log_in(Method::Plain, Some(&account("")), "").is_err());
    }

    #[test]
    fn malformed_messages_are_refused() {
        for method in [Method::Plain, Method::Md5, Method::Scram] {
            for body in [
                &b""[..],
                b"\0\0",
                b"x",
                b"SCRAM-SHA-256\0",
                b"SCRAM-SHA-256\0\0\0\0\x09n,,",
                b"X\0\0\0\0\0",
                b"\xff\0",
            ] {
                let exchange = begin(method, Some(&account("secret"))).0;
                assert!(matches!(exchange.handle(body), Progress::Rejected(_)), "{method:?} {body:?}");
            }
        }
    }

    #[test]
    fn sasl_keys_are_learned() {
        let account = account("secret");
        let Ok(Learned::Keys(keys)) = log_in(Method::Scram, Some(&account), "secret") else {
            panic!("no keys")
        };
        assert_eq!(scram::stored_key(&keys.client_key), account.derived.get().unwrap().stored_key);
    }
}
