//! The new process's side.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::super::client::{Client, LoggedIn};
use super::super::info::ClientInfo;
use super::super::server;
use super::super::settings;
use super::super::shared::{CONSOLE, Shared};
use super::super::worker::{self, Load};
use super::{
    CANCEL, CLIENT, DOOR, Door, DoorKind, GO, HELLO, MovedClient, OPTION, READY, REFUSED, VERSION, parcel,
};
use crate::config::PoolMode;
use crate::error::{Refusal, sqlstate};
use crate::net::descriptors::{Channel, Delivery};
use crate::net::received::Received;
use crate::net::stream::Stream;
use crate::session::forward::ClientSession;
use crate::wire::startup::CancelKey;
use crate::wire::{backend, write};

/// How long the old process may take to answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Longest message the console may answer with.
const MAX_MESSAGE: usize = 64 * 1024;

/// What was found behind the Unix socket.
#[derive(Debug)]
pub enum Found {
    /// Nobody.
    Nobody,
    /// A process that knows no more than to make room: it ends when its last client has left.
    MakesRoom,
    /// A process that hands over.
    HandsOver(Box<Predecessor>),
}

/// A process that hands over.
#[derive(Debug)]
pub struct Predecessor {
    channel: Channel,
    /// Its listening sockets.
    pub doors: Vec<Door>,
}

/// Asks the process behind the Unix socket to hand over, or else to make room. The error is for the user to read.
pub async fn find(path: &Path) -> Result<Found, String> {
    let found = tokio::time::timeout(LIMIT, negotiate(path)).await;
    found
        .unwrap_or_else(|elapsed| Err(elapsed.into()))
        .map_err(|error| format!("the running process does not make room: {error}"))
}

async fn negotiate(path: &Path) -> io::Result<Found> {
    let connect = || UnixStream::connect(path);
    let stream = match connect().await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(Found::Nobody);
        }
        Err(error) => return Err(error),
    };
    match Console::log_in(stream, &[(OPTION, "1")]).await {
        Ok(console) if console.knows_option => {
            let Stream::Unix(stream) = console.stream else { return Ok(Found::Nobody) };
            take_doors(Channel::new(stream)).await
        }
        Ok(console) => console.shut_down().await,
        // There are consoles that refuse what they do not know.
        Err(_) => Console::log_in(connect().await?, &[]).await?.shut_down().await,
    }
}

/// A session at the old process's console.
struct Console {
    stream: Stream,
    received: Received,
    knows_option: bool,
}

impl Console {
    async fn log_in(stream: UnixStream, options: &[(&str, &str)]) -> io::Result<Self> {
        let mut console =
            Self { stream: Stream::Unix(stream), received: Received::default(), knows_option: true };
        let mut out = Vec::new();
        let own = [("user", CONSOLE), ("database", CONSOLE)];
        let parameters = own.iter().chain(options).map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        write::startup(&mut out, parameters);
        console.stream.write_all(&out).await?;
        console.until_ready().await?;
        Ok(console)
    }

    async fn until_ready(&mut self) -> io::Result<()> {
        let mut body = Vec::new();
        loop {
            match self.received.frame(&mut self.stream, &mut body, MAX_MESSAGE).await? {
                b'Z' => return Ok(()),
                b'E' => return Err(io::Error::other(backend::error_fields(&body).text())),
                b'R' if body != [0; 4] => return Err(io::Error::other("it runs as another user")),
                // NegotiateProtocolVersion: there is nothing else in it that could be unknown.
                b'v' => self.knows_option = false,
                _ => {}
            }
        }
    }

    async fn shut_down(mut self) -> io::Result<Found> {
        let mut out = Vec::new();
        write::query(&mut out, b"SHUTDOWN WAIT_FOR_CLIENTS");
        self.stream.write_all(&out).await?;
        self.until_ready().await.map(|()| Found::MakesRoom)
    }
}

async fn take_doors(mut channel: Channel) -> io::Result<Found> {
    channel.send(HELLO, &VERSION.to_be_bytes(), &[]).await?;
    let mut doors = Vec::new();
    loop {
        let Some(delivery) = channel.receive().await? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        match delivery.tag {
            REFUSED => return Err(io::Error::other(String::from_utf8_lossy(&delivery.body))),
            DOOR => {
                let kind = DoorKind::parse(&delivery.body);
                let sockets = delivery.descriptors.into_iter();
                doors.extend(kind.into_iter().zip(sockets).map(|(kind, socket)| Door { kind, socket }));
            }
            READY => return Ok(Found::HandsOver(Box::new(Predecessor { channel, doors }))),
            _ => {}
        }
    }
}

impl Predecessor {
    /// Everything is open here: clients may come. They come until the old process has ended.
    pub async fn begin(self, shared: &Arc<Shared>) -> io::Result<()> {
        self.channel.send(GO, b"", &[]).await?;
        let (sender, cancels) = mpsc::unbounded_channel();
        let _ = shared.predecessor.set(sender);
        tokio::task::spawn_local(receive(Arc::clone(shared), self.channel, cancels));
        Ok(())
    }
}

async fn receive(shared: Arc<Shared>, mut channel: Channel, mut cancels: mpsc::UnboundedReceiver<CancelKey>) {
    let mut count = 0u64;
    let end = loop {
        tokio::select! {
            delivery = channel.receive() => match delivery {
                Ok(Some(delivery)) if delivery.tag == CLIENT => {
                    count += 1;
                    move_in(&shared, delivery);
                }
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(error) => break Some(error),
            },
            Some(key) = cancels.recv() => {
                if let Err(error) = channel.send(CANCEL, &parcel::key_bytes(&key), &[]).await {
                    break Some(error);
                }
            }
        }
    };
    match end {
        None => tracing::info!("the old process has ended, {count} clients have come from it"),
        Some(error) => tracing::warn!("the old process is lost after {count} clients: {error}"),
    }
}

fn move_in(shared: &Arc<Shared>, delivery: Delivery) {
    match MovedClient::decode(&delivery.body, delivery.descriptors) {
        Some(client) => worker::move_in(shared, Box::new(client)),
        None => tracing::error!("a client of the old process is lost: malformed message"),
    }
}

/// Serves a client that comes from another process, as if it had logged in here.
pub async fn arrive(shared: Arc<Shared>, load: Load, moved: Box<MovedClient>) {
    let MovedClient { socket, database, user, server, .. } = *moved;
    let local = socket.local_address();
    // It may have left on the way.
    let Ok(peer) = socket.peer(shared.config.load().settings.listen_port) else { return };
    let Ok(mut stream) = socket.adopt() else { return };
    let refuse = |why: &str| {
        let refusal = Refusal::new(sqlstate::ADMIN_SHUTDOWN, why.to_owned());
        let mut out = Vec::new();
        write::fatal(&mut out, &refusal);
        tracing::info!("{database}/{user}@{peer} closing because: {why}");
        out
    };
    let Some(found) = settings::database(&shared, &database) else {
        let _ = stream.write_all(&refuse("database removed")).await;
        return;
    };
    let user = settings::user(&shared, &user);
    let pool = settings::pool(&shared, &found, &user);
    settings::inherit_credential(&pool, moved.credential);
    let server = match server {
        Some(_) if settings::for_client(&shared, &pool, &user.name).pool_mode != PoolMode::Session => {
            // What the session has left in its server cannot follow it.
            let _ = stream.write_all(&refuse("pool_mode has changed")).await;
            return;
        }
        Some(server) => match server::move_in(&shared, &pool, server) {
            Ok(server) => Some(server),
            Err(_) => return,
        },
        None => None,
    };
    let [route, initial_route] = moved.routes;
    found.entered.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut session = ClientSession::new(moved.parameters, initial_route);
    session.route = route;
    session.kept.restore(moved.kept);
    for (name, text_and_types) in &moved.statements {
        let statement = shared.statements.intern(text_and_types);
        session.statements.insert(name, statement);
    }
    session.unnamed = moved.unnamed;
    let info = Arc::new(ClientInfo {
        local,
        connected: moved.connected,
        application_name: parking_lot::Mutex::new(moved.application_name.into()),
        prepared: u32::try_from(session.statements.len()).unwrap_or(u32::MAX).into(),
        ..ClientInfo::new(shared.next_id(), moved.key, Arc::clone(&found.name), Arc::clone(&user.name), peer)
    });
    shared.clients.insert(info.key.id(), Arc::clone(&info));
    let permits = [
        shared.client_limit.acquire_regardless(),
        found.clients.acquire_regardless(),
        user.clients.acquire_regardless(),
    ];
    let login = LoggedIn {
        stream,
        received: moved.received,
        info,
        pool,
        session,
        untried_parameters: moved.untried_parameters,
        permits,
    };
    let mut client = Client::new(shared, load, login);
    client.arrive(server);
    tokio::task::spawn_local(client);
}
