//! The proxy's side of a login to PostgreSQL.

use std::sync::Arc;

use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::md5;
use super::scram::client::{Answered, Client, Proof};
use super::scram::{self, ChannelBinding, MECHANISM, MECHANISM_PLUS, NONCE, ScramKeys};

/// What the proxy knows of the user it logs in as.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Credential {
    /// Nothing: good for `trust` only.
    #[default]
    None,
    /// The password.
    Password(Password),
    /// The md5 hash of password and user name.
    Md5(Box<str>),
    /// Keys revealed by the client's own SCRAM login.
    Keys(ScramKeys),
    /// A SCRAM verifier, which cannot log in anywhere, and no client has logged in yet.
    VerifierOnly,
}

/// A password, and the keys last derived from it, as each server connection of a user needs the same ones.
#[derive(Clone, Debug)]
pub struct Password {
    text: Zeroizing<String>,
    derived: Arc<Mutex<Option<(Challenge, ScramKeys)>>>,
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Salt and iterations.
type Challenge = (Vec<u8>, u32);

impl Password {
    /// A password.
    pub fn new(text: Zeroizing<String>) -> Self {
        Self { text, derived: Arc::default() }
    }

    /// The password itself.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The keys for a server's salt and iterations.
    fn keys(&self, salt: &[u8], iterations: u32) -> ScramKeys {
        let mut derived = self.derived.lock();
        if let Some(((known_salt, known_iterations), keys)) = &*derived {
            if *known_salt == salt && *known_iterations == iterations {
                return keys.clone();
            }
        }
        let salted = scram::salted_password(&self.text, salt, iterations);
        let keys =
            ScramKeys { client_key: scram::client_key(&salted), server_key: scram::server_key(&salted) };
        *derived = Some(((salt.to_vec(), iterations), keys.clone()));
        keys
    }
}

/// An authentication request from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum BackendAuth<'a> {
    /// AuthenticationOk.
    Ok,
    /// AuthenticationCleartextPassword.
    CleartextPassword,
    /// AuthenticationMD5Password.
    Md5Password([u8; 4]),
    /// AuthenticationSASL: the names of the mechanisms.
    Sasl(&'a [u8]),
    /// AuthenticationSASLContinue.
    SaslContinue(&'a [u8]),
    /// AuthenticationSASLFinal.
    SaslFinal(&'a [u8]),
}

/// Why a login cannot go on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerAuthError {
    /// What is stored for the user does not answer what the server asks.
    #[error("wrong password type: server asks for {asked}, but {stored} is known of user \"{user}\"")]
    WrongPasswordType {
        /// User.
        user: String,
        /// What the server wants.
        asked: &'static str,
        /// What there is.
        stored: &'static str,
    },
    /// A method this proxy does not have.
    #[error("server asks for an unsupported authentication method ({0})")]
    Unsupported(u32),
    /// The SCRAM conversation failed.
    #[error("SCRAM authentication to the server failed: {0}")]
    Scram(&'static str),
    /// A message that does not belong here.
    #[error("malformed or unexpected authentication request from server")]
    Unexpected,
}

impl<'a> BackendAuth<'a> {
    /// Reads an Authentication message's body.
    pub fn parse(body: &'a [u8]) -> Result<Self, ServerAuthError> {
        let (code, rest) = body.split_first_chunk::<4>().ok_or(ServerAuthError::Unexpected)?;
        Ok(match u32::from_be_bytes(*code) {
            0 => Self::Ok,
            3 => Self::CleartextPassword,
            5 => Self::Md5Password(rest.try_into().map_err(|_| ServerAuthError::Unexpected)?),
            10 => Self::Sasl(rest),
            11 => Self::SaslContinue(rest),
            12 => Self::SaslFinal(rest),
            other => return Err(ServerAuthError::Unsupported(other)),
        })
    }
}

/// A login under way.
#[derive(Debug)]
pub struct ServerAuth {
    user: String,
    credential: Credential,
    binding: ChannelBinding,
    nonce: [u8; NONCE],
    state: State,
}

#[derive(Debug)]
enum State {
    Start,
    Scram(Client),
    Answered(Answered),
    /// Everything was proved; AuthenticationOk is all that is missing.
    Proved,
    Done,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send a password message with this body.
    Send(Vec<u8>),
    /// Wait for the server's next message.
    Wait,
}

impl ServerAuth {
    /// A login about to start.
    pub fn new(user: &str, credential: Credential, binding: ChannelBinding, nonce: [u8; NONCE]) -> Self {
        Self { user: user.to_owned(), credential, binding, nonce, state: State::Start }
    }

    /// Whether the server has let us in.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Takes a request.
    pub fn handle(mut self, request: BackendAuth<'_>) -> Result<(Self, Step), ServerAuthError> {
        let state = std::mem::replace(&mut self.state, State::Proved);
        let step = match (state, request) {
            (State::Start | State::Proved, BackendAuth::Ok) => {
                self.state = State::Done;
                Step::Wait
            }
            (State::Start, BackendAuth::CleartextPassword) => match &self.credential {
                Credential::Password(password) => Step::Send([password.text.as_bytes(), b"\0"].concat()),
                _ => return Err(self.wrong_type("the password itself")),
            },
            (State::Start, BackendAuth::Md5Password(salt)) => {
                let stored = match &self.credential {
                    Credential::Password(password) => md5::stored(&password.text, &self.user),
                    Credential::Md5(hash) => hash.to_string(),
                    _ => return Err(self.wrong_type("an md5 password")),
                };
                Step::Send([md5::response(&stored, salt).as_bytes(), b"\0"].concat())
            }
            (State::Start, BackendAuth::Sasl(mechanisms)) => self.start_scram(mechanisms)?,
            (State::Scram(client), BackendAuth::SaslContinue(message)) => {
                let derived;
                let proof = match &self.credential {
                    Credential::Keys(keys) => Proof::Keys(keys),
                    Credential::Password(password) => {
                        derived = |salt: &[u8], iterations| password.keys(salt, iterations);
                        Proof::Derive(&derived)
                    }
                    _ => return Err(self.wrong_type("SCRAM")),
                };
                let (answered, text) = client.answer(message, &proof).map_err(ServerAuthError::Scram)?;
                self.state = State::Answered(answered);
                Step::Send(text.into_bytes())
            }
            (State::Answered(answered), BackendAuth::SaslFinal(message)) => {
                answered.verify(message).map_err(ServerAuthError::Scram)?;
                Step::Wait
            }
            _ => return Err(ServerAuthError::Unexpected),
        };
        Ok((self, step))
    }

    fn start_scram(&mut self, mechanisms: &[u8]) -> Result<Step, ServerAuthError> {
        if !matches!(self.credential, Credential::Password(_) | Credential::Keys(_)) {
            return Err(self.wrong_type("SCRAM"));
        }
        let offered = |name: &str| mechanisms.split(|&b| b == 0).any(|m| m == name.as_bytes());
        let plus = self.binding != ChannelBinding::None && offered(MECHANISM_PLUS);
        let mechanism = if plus { MECHANISM_PLUS } else { MECHANISM };
        if !offered(mechanism) {
            return Err(ServerAuthError::Scram("server offers no SASL mechanism known here"));
        }
        let binding = if plus { self.binding.clone() } else { ChannelBinding::None };
        let (client, first) = Client::new(&binding, self.nonce);
        self.state = State::Scram(client);
        let len = u32::try_from(first.len()).unwrap_or(0).to_be_bytes();
        Ok(Step::Send([mechanism.as_bytes(), b"\0", &len, first.as_bytes()].concat()))
    }

    fn wrong_type(&self, asked: &'static str) -> ServerAuthError {
        let stored = match self.credential {
            Credential::None => "nothing",
            Credential::Password(_) => "a password",
            Credential::Md5(_) => "only an md5 hash",
            Credential::Keys(_) => "only SCRAM keys",
            Credential::VerifierOnly => "only a SCRAM verifier",
        };
        ServerAuthError::WrongPasswordType { user: self.user.clone(), asked, stored }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::scram::server::Server;
    use crate::auth::secret::Verifier;

    fn login(credential: Credential) -> ServerAuth {
        ServerAuth::new("me", credential, ChannelBinding::None, [3; NONCE])
    }

    fn password(text: &str) -> Credential {
        Credential::Password(Password::new(Zeroizing::new(text.to_owned())))
    }

    #[test]
    fn simple_methods() {
        let (_, step) = login(password("secret")).handle(BackendAuth::CleartextPassword).unwrap();
        assert_eq!(step, Step::Send(b"secret\0".to_vec()));
        let expected = postgres_protocol::authentication::md5_hash(b"me", b"secret", [1, 2, 3, 4]);
        for credential in [password("secret"), Credential::Md5(md5::stored("secret", "me").into())] {
            let (_, step) = login(credential).handle(BackendAuth::Md5Password([1, 2, 3, 4])).unwrap();
            assert_eq!(step, Step::Send([expected.as_bytes(), b"\0"].concat()));
        }
        let (auth, _) = login(Credential::None).handle(BackendAuth::Ok).unwrap();
        assert!(auth.is_done());
    }

    #[test]
    fn scram_by_password_and_by_keys() {
        let verifier = Verifier::new("secret", b"salt", 50);
        let mut credential = password("secret");
        for _ in 0..2 {
            let (auth, step) =
                login(credential.clone()).handle(BackendAuth::Sasl(b"SCRAM-SHA-256\0\0")).unwrap();
            let Step::Send(first) = step else { panic!("nothing sent") };
            let server = Server::new(verifier.clone(), ChannelBinding::None, [4; NONCE]);
            let (server, challenge) = server.first(&first[18..], false).unwrap();
            let (auth, step) = auth.handle(BackendAuth::SaslContinue(challenge.as_bytes())).unwrap();
            let Step::Send(answer) = step else { panic!("nothing sent") };
            let (last, keys) = server.last(&answer).unwrap();
            let (auth, _) = auth.handle(BackendAuth::SaslFinal(last.as_bytes())).unwrap();
            assert!(auth.handle(BackendAuth::Ok).unwrap().0.is_done());
            credential = Credential::Keys(keys);
        }
    }

    #[test]
    fn what_cannot_be_answered_is_said() {
        let error =
            login(Credential::VerifierOnly).handle(BackendAuth::Sasl(b"SCRAM-SHA-256\0\0")).unwrap_err();
        assert!(error.to_string().contains("wrong password type"), "{error}");
        let error = login(Credential::Md5("md5".into())).handle(BackendAuth::CleartextPassword).unwrap_err();
        assert!(error.to_string().contains("wrong password type"), "{error}");
        assert_eq!(BackendAuth::parse(&[0, 0, 0, 7]), Err(ServerAuthError::Unsupported(7)));
        for body in [&b""[..], b"\0\0\0", b"\0\0\0\x05abc"] {
            assert!(BackendAuth::parse(body).is_err());
        }
    }

    #[test]
    fn a_server_must_prove_itself_too() {
        let (auth, _) = login(password("x")).handle(BackendAuth::Sasl(b"SCRAM-SHA-256\0\0")).unwrap();
        assert_eq!(auth.handle(BackendAuth::Ok).unwrap_err(), ServerAuthError::Unexpected);
    }
}
