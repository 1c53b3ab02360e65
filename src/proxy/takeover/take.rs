//! The new process's side.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::super::handover::{Door, DoorKind, MovedClient, key_bytes};
use super::super::shared::{CONSOLE, Shared};
use super::arrive::move_in;
use super::message::{CANCEL, CLIENT, DOOR, GO, HELLO, OPTION, READY, REFUSED, VERSION};
use crate::net::descriptors::{Channel, Delivery};
use crate::net::received::Received;
use crate::net::stream::Stream;
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
                    welcome(&shared, delivery);
                }
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(error) => break Some(error),
            },
            Some(key) = cancels.recv() => {
                if let Err(error) = channel.send(CANCEL, &key_bytes(&key), &[]).await {
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

fn welcome(shared: &Arc<Shared>, delivery: Delivery) {
    match MovedClient::decode(&delivery.body, delivery.descriptors) {
        Some(client) => move_in(shared, Box::new(client)),
        None => tracing::error!("a client of the old process is lost: malformed message"),
    }
}
