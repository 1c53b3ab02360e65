//! The conversation in which a client proves who it is, as seen by the proxy. States are consumed by value; at its
//! end stands an [`Authenticated`], which nothing outside this module can make.
//!
//! Unknown users and wrong passwords take the same steps and the same work as right ones, up to the last one.

use std::sync::{Arc, OnceLock};

use subtle::ConstantTimeEq;

use super::md5;
use super::scram::server::{Challenged, Server};
use super::scram::{self, ChannelBinding, MECHANISM, MECHANISM_PLUS, NONCE, ScramKeys};
use super::secret::{Cleartext, Secret, Verifier};

/// A user's secret, and what SCRAM needs of it, worked out once: deriving that takes thousands of hashes.
#[derive(Debug)]
pub struct Account {
    /// As stored; `None`: the user exists, but no password is right.
    pub secret: Option<Secret>,
    derived: OnceLock<Verifier>,
    /// The secret is a verifier of the empty password.
    is_of_empty: OnceLock<bool>,
}

impl Account {
    /// The account of a user of a file. An md5 hash of the empty password is no secret, either.
    pub fn new(user: &str, secret: Option<Secret>) -> Self {
        let is_of_empty = |hash: &str| hash == md5::stored("", user);
        let secret = secret.filter(|secret| !matches!(secret, Secret::Md5(hash) if is_of_empty(hash)));
        Self { secret, derived: OnceLock::new(), is_of_empty: OnceLock::new() }
    }

    /// The account of a user that a server has told us of. PostgreSQL stores no verifier of the empty password, so that it
    /// need not be looked for at each login.
    pub fn looked_up(user: &str, secret: Option<Secret>) -> Self {
        Self { is_of_empty: false.into(), ..Self::new(user, secret) }
    }

    /// One that belongs to no user, with keys as if they had been derived before.
    pub fn mock(secret: Secret, derived: Option<Verifier>) -> Self {
        let derived = derived.map_or_else(OnceLock::new, OnceLock::from);
        Self { secret: Some(secret), derived, is_of_empty: false.into() }
    }

    /// Whether the user could prove anything by this method.
    pub fn suits(&self, method: Method) -> bool {
        match (method, &self.secret) {
            (Method::Any | Method::Trust, _) => true,
            (_, None) | (Method::Scram, Some(Secret::Md5(_))) => false,
            (Method::Plain | Method::Md5 | Method::Scram, Some(_)) => true,
        }
    }

    /// What SCRAM needs of a plain password. It gets a salt that depends on user and process, as unknown users do.
    fn derived(&self, password: &Cleartext, user: &str, mock_key: &[u8; 32], iterations: u32) -> Verifier {
        let derive =
            || Verifier::new(password.as_str(), &scram::server::mock_salt(user, mock_key), iterations);
        self.derived.get_or_init(derive).clone()
    }

    /// Whether the empty password fits, which is none.
    fn is_of_empty(&self) -> bool {
        *self.is_of_empty.get_or_init(|| match &self.secret {
            Some(Secret::Scram(verifier)) => {
                Verifier::new("", &verifier.salt, verifier.iterations) == *verifier
            }
            _ => false,
        })
    }
}

/// What is known of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The account is the user's.
    Known,
    /// The user exists, but has no secret that suits the method; the account is made up.
    NoSecret,
    /// There is no such user; the account is made up.
    Unknown,
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
pub struct Begin {
    /// How.
    pub method: Method,
    /// Who the client says it is.
    pub user: String,
    /// The user's account, or one [made up](super::mock).
    pub account: Arc<Account>,
    /// Which of the two.
    pub standing: Standing,
    /// Random bytes.
    pub entropy: [u8; NONCE],
    /// Secret of this process.
    pub mock_key: [u8; 32],
    /// Setting `scram_iterations`.
    pub scram_iterations: u32,
    /// What TLS offers.
    pub binding: ChannelBinding,
}

impl Begin {
    /// Iterations of PBKDF2 that the start will take.
    pub fn work(&self) -> u32 {
        match (self.method, &self.account.secret) {
            (Method::Scram, Some(Secret::Plain(_))) if self.account.derived.get().is_none() => {
                self.scram_iterations
            }
            _ => 0,
        }
    }
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
    Password(Cleartext),
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
        who: Who,
        user: String,
    },
    Md5 {
        who: Who,
        stored: String,
        salt: [u8; 4],
    },
    Sasl {
        who: Who,
        server: Server,
        plus_offered: bool,
    },
    Proof(Who, Challenged),
}

/// Whose secret it is about.
#[derive(Debug)]
struct Who {
    account: Arc<Account>,
    standing: Standing,
}

impl Who {
    /// The end of a conversation, in which everything was right or not. An account that is made up is never right.
    fn conclude(
        &self,
        right: Result<Learned, &'static str>,
        kind: FailureKind,
        last: Option<AuthRequest>,
    ) -> Progress {
        match (self.standing, right) {
            (Standing::Known, Ok(learned)) => Progress::Accepted(Authenticated { learned }, last),
            (Standing::Known, Err(reason)) => reject(kind, reason),
            (Standing::NoSecret, _) => reject(kind, "user has no password that suits the method"),
            (Standing::Unknown, _) => reject(kind, NO_SUCH_USER),
        }
    }
}

/// What the log is told of a user that is not known.
pub const NO_SUCH_USER: &str = "no such user";

impl Exchange {
    /// Starts a conversation; gives the first message to the client. Without one there is nothing to wait for.
    pub fn begin(begin: Begin) -> (Self, Option<AuthRequest>) {
        let Begin { method, user, account, standing, entropy, mock_key, scram_iterations, binding } = begin;
        let who = Who { account: Arc::clone(&account), standing };
        let state = match (method, &account.secret) {
            (Method::Any, _) => return (Self(State::Decided(true)), None),
            (Method::Trust, _) => return (Self(State::Decided(standing != Standing::Unknown)), None),
            (_, None) => return (Self(State::Decided(false)), None),
            (Method::Plain, Some(_)) => {
                return (Self(State::Plain { who, user }), Some(AuthRequest::CleartextPassword));
            }
            (Method::Md5, Some(Secret::Md5(hash))) => md5_state(who, hash.to_string(), entropy),
            (Method::Md5, Some(Secret::Plain(password))) => {
                md5_state(who, md5::stored(password.as_str(), &user), entropy)
            }
            (Method::Md5 | Method::Scram, Some(secret)) => {
                let verifier = match secret {
                    Secret::Scram(verifier) => verifier.clone(),
                    Secret::Plain(password) => account.derived(password, &user, &mock_key, scram_iterations),
                    Secret::Md5(_) => return (Self(State::Decided(false)), None),
                };
                let plus_offered = binding != ChannelBinding::None;
                let server = Server::new(verifier, binding, entropy);
                State::Sasl { who, server, plus_offered }
            }
        };
        let request = match &state {
            State::Md5 { salt, .. } => AuthRequest::Md5Password(*salt),
            _ => AuthRequest::Sasl { plus: matches!(state, State::Sasl { plus_offered: true, .. }) },
        };
        (Self(state), Some(request))
    }

    /// Iterations of PBKDF2 that the next answer will take.
    pub fn work(&self) -> u32 {
        match &self.0 {
            State::Plain { who, .. } => match &who.account.secret {
                Some(Secret::Scram(verifier)) => verifier.iterations,
                _ => 0,
            },
            State::Proof(who, _) => match &who.account.secret {
                Some(Secret::Scram(verifier)) if who.account.is_of_empty.get().is_none() => {
                    verifier.iterations
                }
                _ => 0,
            },
            _ => 0,
        }
    }

    /// Takes the body of the client's password message, empty where none was asked for.
    pub fn handle(self, body: &[u8]) -> Progress {
        match self.0 {
            State::Decided(true) => Progress::Accepted(Authenticated { learned: Learned::Nothing }, None),
            State::Decided(false) => reject(FailureKind::Trust, NO_SUCH_USER),
            State::Plain { who, user } => {
                let right = match password(body) {
                    Some(sent) => check_plain(&who.account, &user, sent),
                    None => Err("malformed password message"),
                };
                who.conclude(right.map(Learned::Password), FailureKind::Password, None)
            }
            State::Md5 { who, stored, salt } => {
                let right = password(body).is_some_and(|sent| md5::verify(&stored, salt, sent.as_bytes()));
                let right = if right { Ok(Learned::Nothing) } else { Err("wrong password") };
                who.conclude(right, FailureKind::Password, None)
            }
            State::Sasl { who, server, plus_offered } => sasl_first(who, server, plus_offered, body),
            State::Proof(who, challenged) => {
                let (right, last) = match challenged.last(body) {
                    Ok(_) if who.account.is_of_empty() => (Err("password is empty"), None),
                    Ok((last, keys)) => (Ok(Learned::Keys(keys)), Some(AuthRequest::SaslFinal(last))),
                    Err(reason) => (Err(reason), None),
                };
                who.conclude(right, FailureKind::Sasl, last)
            }
        }
    }
}

fn md5_state(who: Who, stored: String, entropy: [u8; NONCE]) -> State {
    State::Md5 { who, stored, salt: [entropy[0], entropy[1], entropy[2], entropy[3]] }
}

/// SASLInitialResponse: the mechanism's name, the length of the rest, the rest.
fn sasl_first(who: Who, server: Server, plus_offered: bool, body: &[u8]) -> Progress {
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
            Progress::Continue(Exchange(State::Proof(who, challenged)), AuthRequest::SaslContinue(text))
        }
        Err(reason) => reject(FailureKind::Sasl, reason),
    }
}

/// The password in a password message's body, which holds one string and nothing behind it.
pub fn password(body: &[u8]) -> Option<&str> {
    let (0, text) = body.split_last()? else { return None };
    if text.contains(&0) { None } else { std::str::from_utf8(text).ok() }
}

fn check_plain(account: &Account, user: &str, sent: &str) -> Result<Cleartext, &'static str> {
    let sent = Cleartext::new(sent).ok_or("password is empty")?;
    let right = match &account.secret {
        Some(Secret::Plain(password)) => bool::from(password.as_bytes().ct_eq(sent.as_bytes())),
        Some(Secret::Md5(hash)) => {
            bool::from(hash.as_bytes().ct_eq(md5::stored(sent.as_str(), user).as_bytes()))
        }
        Some(Secret::Scram(verifier)) => {
            Verifier::new(sent.as_str(), &verifier.salt, verifier.iterations) == *verifier
        }
        None => false,
    };
    if right { Ok(sent) } else { Err("wrong password") }
}

fn reject(kind: FailureKind, log_detail: &'static str) -> Progress {
    Progress::Rejected(Failure { kind, log_detail })
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
