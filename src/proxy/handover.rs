//! What goes from one process to the one that takes over: listening sockets, and clients. With a client goes its socket, what it
//! has told at login, what it has prepared. In session pooling its server goes with it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::server::Server;
use crate::auth::scram::{HASH, ScramKeys};
use crate::auth::secret::Cleartext;
use crate::auth::server_login::{Credential, Password};
use crate::clock::Micros;
use crate::net::connect::Target;
use crate::net::detached::Detached;
use crate::session::parameters::Parameters;
use crate::sql::{Route, State};
use crate::wire::frame::cstr;
use crate::wire::startup::CancelKey;
use crate::wire::write;

/// The name of a prepared statement, and its text and types.
pub type NamedStatement = (Box<[u8]>, Box<[u8]>);

/// A listening socket that changes hands.
#[derive(Debug)]
pub struct Door {
    /// Who knocks there.
    pub kind: DoorKind,
    /// It.
    pub socket: OwnedFd,
}

/// What a listening socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoorKind {
    /// Clients, by TCP or a Unix socket.
    Clients,
    /// Clients as well; the service manager has opened it.
    Activated,
    /// HTTP.
    Http,
}

impl DoorKind {
    /// Its name in the conversation.
    pub(super) fn name(self) -> &'static [u8] {
        match self {
            Self::Clients => b"clients",
            Self::Activated => b"activated",
            Self::Http => b"http",
        }
    }

    /// The one of that name.
    pub(super) fn parse(name: &[u8]) -> Option<Self> {
        [Self::Clients, Self::Activated, Self::Http].into_iter().find(|kind| kind.name() == name)
    }
}

/// The way to the process that has taken over.
#[derive(Debug)]
pub struct Successor {
    clients: mpsc::UnboundedSender<Box<MovedClient>>,
    takes_no_more: AtomicBool,
}

impl Successor {
    /// A way there, and its other end.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Box<MovedClient>>) {
        let (clients, departures) = mpsc::unbounded_channel();
        (Self { clients, takes_no_more: AtomicBool::new(false) }, departures)
    }

    /// Whether it still takes clients.
    pub fn is_there(&self) -> bool {
        !self.takes_no_more.load(Relaxed)
    }

    /// It has gone. Clients that are on their way to it come back.
    pub(super) fn takes_no_more(&self) {
        self.takes_no_more.store(true, Relaxed);
    }

    /// Sends a client there.
    pub(super) fn send(&self, client: Box<MovedClient>) {
        let _ = self.clients.send(client);
    }
}

/// A client between two processes.
#[derive(Debug)]
pub struct MovedClient {
    /// The connection.
    pub socket: Detached,
    /// Database as the client named it.
    pub database: String,
    /// User it has logged in as.
    pub user: String,
    /// What it cancels its queries with.
    pub key: CancelKey,
    /// When it was accepted. The clock is the machine's.
    pub connected: Micros,
    /// Its application_name.
    pub application_name: String,
    /// Its parameters.
    pub parameters: Arc<Parameters>,
    /// They were not accepted by any server yet.
    pub untried_parameters: bool,
    /// What it has prepared, in order.
    pub statements: Vec<NamedStatement>,
    /// `pgweir.route` now and at login.
    pub routes: [Route; 2],
    /// What it has left in sessions of servers.
    pub kept: State,
    /// An unnamed statement that was prepared and not run yet.
    pub unnamed: Option<Box<[u8]>>,
    /// What it has sent and nobody has dealt with.
    pub received: Vec<u8>,
    /// What servers let its user in with.
    pub credential: Credential,
    /// The server it has for itself.
    pub server: Option<MovedServer>,
}

/// A server between two processes.
#[derive(Debug)]
pub struct MovedServer {
    /// The connection.
    pub socket: Detached,
    /// Where it listens.
    pub target: Target,
    /// What cancels its queries.
    pub key: Option<CancelKey>,
    /// When it was opened.
    pub connected: Micros,
    /// What it has reported.
    pub parameters: Arc<Parameters>,
}

impl MovedServer {
    /// Takes a settled server out of its pool.
    pub fn from(server: Server) -> io::Result<Self> {
        Ok(Self {
            socket: Detached::from(server.stream)?,
            target: server.info.target.clone(),
            key: server.info.key.get().cloned(),
            connected: server.info.connected,
            parameters: server.session.parameters,
        })
    }
}

impl MovedClient {
    /// Its connection, and its server's if it has one.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let server = self.server.as_ref().map(|server| server.socket.as_fd());
        [self.socket.as_fd()].into_iter().chain(server).collect()
    }

    /// Everything else, as fields: a name and a value each.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::new());
        field(&mut out, "database", self.database.as_bytes());
        field(&mut out, "user", self.user.as_bytes());
        field(&mut out, "key", &key_bytes(&self.key));
        field(&mut out, "connected", &self.connected.0.to_be_bytes());
        field(&mut out, "application_name", self.application_name.as_bytes());
        for (name, value) in self.parameters.iter() {
            pair(&mut out, "parameter", name, value);
        }
        if self.untried_parameters {
            field(&mut out, "untried_parameters", b"");
        }
        for (name, text_and_types) in &self.statements {
            pair(&mut out, "statement", name, text_and_types);
        }
        field(&mut out, "route", self.routes[0].name().as_bytes());
        field(&mut out, "initial_route", self.routes[1].name().as_bytes());
        field(&mut out, "kept", &[self.kept.byte()]);
        if let Some(unnamed) = &self.unnamed {
            field(&mut out, "unnamed", unnamed);
        }
        field(&mut out, "received", &self.received);
        match &self.credential {
            Credential::None | Credential::VerifierOnly => {}
            Credential::Password(password) => field(&mut out, "password", password.text().as_bytes()),
            Credential::Md5(hash) => field(&mut out, "md5", hash.as_bytes()),
            Credential::Keys(keys) => {
                field(&mut out, "scram_client_key", &keys.client_key);
                field(&mut out, "scram_server_key", &keys.server_key);
            }
        }
        if let Some(server) = &self.server {
            field(&mut out, "server_host", server.target.host.as_bytes());
            field(&mut out, "server_port", &server.target.port.to_be_bytes());
            field(&mut out, "server_connected", &server.connected.0.to_be_bytes());
            if let Some(key) = &server.key {
                field(&mut out, "server_key", &key_bytes(key));
            }
            for (name, value) in server.parameters.iter() {
                pair(&mut out, "server_parameter", name, value);
            }
        }
        out
    }

    /// Puts a client together again; `None` if something is missing or malformed.
    pub(super) fn decode(fields: &[u8], descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut descriptors = descriptors.into_iter();
        let mut sockets = || descriptors.next().map(Detached::from_descriptor);
        let mut client = Self {
            socket: sockets()?,
            database: String::new(),
            user: String::new(),
            key: CancelKey { pid: 0, secret: Box::default() },
            connected: Micros(0),
            application_name: String::new(),
            parameters: Arc::default(),
            untried_parameters: false,
            statements: Vec::new(),
            routes: Default::default(),
            kept: State::default(),
            unnamed: None,
            received: Vec::new(),
            credential: Credential::None,
            server: sockets().map(MovedServer::unknown),
        };
        let (mut client_key, mut server_key) = (None, None);
        let mut rest = fields;
        while !rest.is_empty() {
            let (name, value, after) = next_field(rest)?;
            rest = after;
            match name {
                b"database" => client.database = text(value)?,
                b"user" => client.user = text(value)?,
                b"key" => client.key = key(value)?,
                b"connected" => client.connected = micros(value)?,
                b"application_name" => client.application_name = text(value)?,
                b"parameter" => set_parameter(&mut client.parameters, value)?,
                b"untried_parameters" => client.untried_parameters = true,
                b"statement" => {
                    let (name, text_and_types) = cstr(value)?;
                    client.statements.push((name.into(), text_and_types.into()));
                }
                b"route" => client.routes[0] = Route::parse(value)?,
                b"initial_route" => client.routes[1] = Route::parse(value)?,
                b"kept" => client.kept = State::from_byte(*value.first()?),
                b"unnamed" => client.unnamed = Some(value.into()),
                b"received" => client.received = value.into(),
                b"password" => {
                    if let Some(password) = Cleartext::new(text(value)?) {
                        client.credential = Credential::Password(Password::new(password));
                    }
                }
                b"md5" => client.credential = Credential::Md5(text(value)?.into()),
                b"scram_client_key" => client_key = Some(<[u8; HASH]>::try_from(value).ok()?),
                b"scram_server_key" => server_key = Some(<[u8; HASH]>::try_from(value).ok()?),
                _ => client.server.as_mut().map_or(Some(()), |server| server.field(name, value))?,
            }
        }
        if let (Some(client_key), Some(server_key)) = (client_key, server_key) {
            client.credential = Credential::Keys(ScramKeys { client_key, server_key });
        }
        (!client.database.is_empty() && !client.key.secret.is_empty()).then_some(client)
    }
}

impl MovedServer {
    fn unknown(socket: Detached) -> Self {
        let target = Target { host: String::new(), port: 0 };
        Self { socket, target, key: None, connected: Micros(0), parameters: Arc::default() }
    }

    fn field(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        match name {
            b"server_host" => self.target.host = text(value)?,
            b"server_port" => self.target.port = u16::from_be_bytes(value.try_into().ok()?),
            b"server_connected" => self.connected = micros(value)?,
            b"server_key" => self.key = Some(key(value)?),
            b"server_parameter" => set_parameter(&mut self.parameters, value)?,
            _ => {}
        }
        Some(())
    }
}

/// A name, its NUL, a length, a value.
fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    write::cstr(out, name.as_bytes());
    out.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(value);
}

/// A field whose value is a name, its NUL and another value.
fn pair(out: &mut Vec<u8>, name: &str, key: &[u8], value: &[u8]) {
    field(out, name, &[key, b"\0", value].concat());
}

fn next_field(buf: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = cstr(buf)?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
    Some((name, value, rest))
}

fn text(value: &[u8]) -> Option<String> {
    String::from_utf8(value.to_vec()).ok()
}

fn micros(value: &[u8]) -> Option<Micros> {
    value.try_into().ok().map(|bytes| Micros(u64::from_be_bytes(bytes)))
}

pub(super) fn key_bytes(key: &CancelKey) -> Vec<u8> {
    [&key.pid.to_be_bytes()[..], &key.secret].concat()
}

pub(super) fn key(value: &[u8]) -> Option<CancelKey> {
    let (pid, secret) = value.split_first_chunk::<4>()?;
    Some(CancelKey { pid: u32::from_be_bytes(*pid), secret: secret.into() })
}

fn set_parameter(parameters: &mut Arc<Parameters>, value: &[u8]) -> Option<()> {
    let (name, value) = cstr(value)?;
    Arc::make_mut(parameters).set(name, value);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Left;

    fn parcel() -> MovedClient {
        let socket = || Detached::Unix(std::os::unix::net::UnixStream::pair().unwrap().0);
        let mut parameters = Parameters::default();
        parameters.set(b"TimeZone", b"Asia/Ho_Chi_Minh");
        parameters.set(b"application_name", b"");
        let parameters = Arc::new(parameters);
        let key = |pid| CancelKey { pid, secret: [7; 32].into() };
        MovedClient {
            socket: socket(),
            database: "app".into(),
            user: "me".into(),
            key: key(5),
            connected: Micros(77),
            application_name: "psql".into(),
            parameters: Arc::clone(&parameters),
            untried_parameters: true,
            statements: vec![(b"a".as_slice().into(), b"select 1\0\0\0".as_slice().into())],
            routes: [Route::Replica, Route::Primary],
            kept: Left::Role.into(),
            unnamed: Some(b"select 2\0\0\0".as_slice().into()),
            received: b"Q\0".to_vec(),
            credential: Credential::Keys(ScramKeys { client_key: [1; HASH], server_key: [2; HASH] }),
            server: Some(MovedServer {
                socket: socket(),
                target: Target { host: "db".into(), port: 5432 },
                key: Some(key(6)),
                connected: Micros(78),
                parameters,
            }),
        }
    }

    fn copies(client: &MovedClient) -> Vec<OwnedFd> {
        client.descriptors().iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect()
    }

    #[test]
    fn everything_arrives() {
        let sent = parcel();
        let mut bytes = sent.encode();
        field(&mut bytes, "of a later version", b"?");
        let got = MovedClient::decode(&bytes, copies(&sent)).unwrap();
        let without_sockets = |client: &MovedClient| {
            let text = format!("{client:?}");
            text.split("Detached").next().map(str::len)
        };
        assert!(without_sockets(&got).is_some());
        assert_eq!(
            (&got.database, &got.user, &got.application_name),
            (&sent.database, &sent.user, &sent.application_name)
        );
        assert_eq!((&got.key, got.connected, &got.parameters), (&sent.key, sent.connected, &sent.parameters));
        assert_eq!(
            (&got.statements, &got.routes, got.kept, &got.unnamed, &got.received),
            (&sent.statements, &sent.routes, sent.kept, &sent.unnamed, &sent.received)
        );
        assert!(got.untried_parameters && got.credential == sent.credential);
        let (got, sent) = (got.server.unwrap(), sent.server.unwrap());
        assert_eq!((&got.target, &got.key, got.connected), (&sent.target, &sent.key, sent.connected));
        assert_eq!(got.parameters, sent.parameters);
    }

    #[test]
    fn passwords_arrive() {
        for credential in [
            Credential::Password(Password::new(Cleartext::new("secret").unwrap())),
            Credential::Md5("md5x".into()),
            Credential::None,
        ] {
            let sent = MovedClient { credential: credential.clone(), server: None, ..parcel() };
            let got = MovedClient::decode(&sent.encode(), copies(&sent)).unwrap();
            assert!(got.credential == credential && got.server.is_none());
        }
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let sent = parcel();
        let bytes = sent.encode();
        for len in 0..bytes.len() {
            let got = MovedClient::decode(&bytes[..len], copies(&sent));
            assert!(got.is_none_or(|got| !got.database.is_empty()), "{len}");
        }
        assert!(MovedClient::decode(&bytes, Vec::new()).is_none());
    }
}
