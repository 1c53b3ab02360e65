//! The proxy's side of a login to PostgreSQL.

use std::sync::Arc;

use parking_lot::Mutex;

use super::md5;
use super::require::{RequireAuth, ServerMethod};
use super::scram::client::{Answered, Binding, Challenge, Client, Proof};
use super::scram::{self, ChannelBinding, MECHANISM, MECHANISM_PLUS, NONCE, ScramKeys};
use super::secret::Cleartext;

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
    text: Cleartext,
    derived: Arc<Mutex<Option<Derived>>>,
}

/// Keys, and what they were derived from besides the password.
#[derive(Debug)]
struct Derived {
    salt: Vec<u8>,
    iterations: u32,
    keys: ScramKeys,
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Password {
    /// A password.
    pub fn new(text: Cleartext) -> Self {
        Self { text, derived: Arc::default() }
    }

    /// The password itself.
    pub fn text(&self) -> &str {
        self.text.as_str()
    }

    /// The keys for a server's salt and iterations, if they are known.
    fn known_keys(&self, salt: &[u8], iterations: u32) -> Option<ScramKeys> {
        let derived = self.derived.lock();
        let fitting = derived.as_ref().filter(|known| known.salt == salt && known.iterations == iterations);
        fitting.map(|known| known.keys.clone())
    }

    /// The keys for a server's salt and iterations. Nobody has to wait while they are derived.
    fn keys(&self, salt: &[u8], iterations: u32) -> ScramKeys {
        self.known_keys(salt, iterations).unwrap_or_else(|| {
            let keys = scram::keys(self.text.as_str(), salt, iterations);
            *self.derived.lock() = Some(Derived { salt: salt.to_vec(), iterations, keys: keys.clone() });
            keys
        })
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
    /// There is no password, and the server asks for one.
    #[error("server asks for {asked}, but no password of user \"{user}\" is known")]
    NoPassword {
        /// User.
        user: String,
        /// What the server wants.
        asked: &'static str,
    },
    /// `server_require_auth` does not allow what the server does.
    #[error("authentication method requirement \"{required}\" failed: server {did}")]
    NotAllowed {
        /// The setting.
        required: RequireAuth,
        /// What the server did.
        did: &'static str,
    },
    /// Others could read the password.
    #[error("server requested a cleartext password over a connection that is not encrypted")]
    Exposed,
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

impl ServerAuthError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoPassword { .. } => Some(
                "Give it in the pooler's auth_file or as password= of the database. An empty password is none.",
            ),
            Self::Exposed => Some(
                "Encrypt the connection (server_tls_sslmode), let the server ask for scram-sha-256, or allow it with \
                 server_require_auth=password.",
            ),
            _ => None,
        }
    }
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

/// Under which conditions we prove who we are.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Setting `server_require_auth`.
    pub require: RequireAuth,
    /// Nobody else can read what we send: there is TLS, or it does not leave the machine.
    pub is_private: bool,
    /// What TLS offers.
    pub binding: ChannelBinding,
}

/// A login under way.
#[derive(Debug)]
pub struct ServerAuth {
    user: String,
    credential: Credential,
    terms: Terms,
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
    pub fn new(user: &str, credential: Credential, terms: Terms, nonce: [u8; NONCE]) -> Self {
        Self { user: user.to_owned(), credential, terms, nonce, state: State::Start }
    }

    /// Whether the server has let us in.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Iterations of PBKDF2 that the answer to a request will take.
    pub fn work(&self, request: &BackendAuth<'_>) -> u32 {
        let (Credential::Password(password), BackendAuth::SaslContinue(message)) =
            (&self.credential, request)
        else {
            return 0;
        };
        match Challenge::parse(message) {
            Ok(c) if password.known_keys(&c.salt, c.iterations).is_none() => c.iterations,
            _ => 0,
        }
    }

    /// Whether the server may ask for that, or let us in without asking.
    fn check(&self, request: &BackendAuth<'_>) -> Result<(), ServerAuthError> {
        let (method, did) = match (&self.state, request) {
            (State::Start, BackendAuth::Ok) => (ServerMethod::None, "did not ask for authentication"),
            (_, BackendAuth::CleartextPassword) => (ServerMethod::Password, "requested a cleartext password"),
            (_, BackendAuth::Md5Password(_)) => (ServerMethod::Md5, "requested a hashed password"),
            (_, BackendAuth::Sasl(_)) => (ServerMethod::ScramSha256, "requested SASL authentication"),
            _ => return Ok(()),
        };
        let Terms { require, is_private, .. } = self.terms;
        if !require.allows(method) {
            return Err(ServerAuthError::NotAllowed { required: require, did });
        }
        if method == ServerMethod::Password && !is_private && !require.allows_exposed_password() {
            return Err(ServerAuthError::Exposed);
        }
        Ok(())
    }

    /// Takes a request.
    pub fn handle(mut self, request: BackendAuth<'_>) -> Result<(Self, Step), ServerAuthError> {
        self.check(&request)?;
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
                    Credential::Password(password) => md5::stored(password.text(), &self.user),
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
        let binding = match &self.terms.binding {
            ChannelBinding::None => Binding::Unsupported,
            ChannelBinding::ServerEndPoint(hash) if offered(MECHANISM_PLUS) => Binding::ServerEndPoint(hash),
            ChannelBinding::ServerEndPoint(_) => Binding::NotOffered,
        };
        let plus = matches!(binding, Binding::ServerEndPoint(_));
        let mechanism = if plus { MECHANISM_PLUS } else { MECHANISM };
        if !offered(mechanism) {
            return Err(ServerAuthError::Scram("server offers no SASL mechanism known here"));
        }
        let (client, first) = Client::new(binding, self.nonce);
        self.state = State::Scram(client);
        let len = u32::try_from(first.len()).unwrap_or(0).to_be_bytes();
        Ok(Step::Send([mechanism.as_bytes(), b"\0", &len, first.as_bytes()].concat()))
    }

    fn wrong_type(&self, asked: &'static str) -> ServerAuthError {
        let stored = match self.credential {
            Credential::None => return ServerAuthError::NoPassword { user: self.user.clone(), asked },
            Credential::Password(_) => "a password",
            Credential::Md5(_) => "only an md5 hash",
            Credential::Keys(_) => "only SCRAM keys",
            Credential::VerifierOnly => "only a SCRAM verifier",
        };
        ServerAuthError::WrongPasswordType { user: self.user.clone(), asked, stored }
    }
}

#[cfg(test)]
mod tests;
