//! A client that speaks raw protocol: it sends what no driver would, and shows every message it gets.

use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{PASSWORD, USER};

pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    /// What BackendKeyData said: process ID and secret.
    pub(crate) key: (u32, Vec<u8>),
    pub(crate) parameters: Vec<(String, String)>,
    /// The authentication requests of the login.
    pub(crate) asked: Vec<Vec<u8>>,
}

/// A message from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) tag: char,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// A field of an ErrorResponse or NoticeResponse.
    pub(crate) fn field(&self, field: char) -> String {
        let fields = self.body.split(|&b| b == 0);
        let found = fields.filter_map(|f| f.split_first()).find(|(tag, _)| char::from(**tag) == field);
        found.map(|(_, text)| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
    }

    /// The values of a DataRow.
    pub(crate) fn values(&self) -> Vec<String> {
        let mut rest = &self.body[2..];
        let mut values = Vec::new();
        while let Some((len, after)) = rest.split_first_chunk::<4>() {
            let len = usize::try_from(i32::from_be_bytes(*len)).unwrap_or(0);
            values.push(String::from_utf8_lossy(&after[..len]).into_owned());
            rest = &after[len..];
        }
        values
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end_matches('\0').to_owned()
    }
}

/// Builds messages.
pub(crate) fn build(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut buf = BytesMut::new();
    write(&mut buf);
    buf.to_vec()
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    build(|buf| frontend::query(sql, buf).unwrap())
}

pub(crate) fn parse(name: &str, sql: &str) -> Vec<u8> {
    build(|buf| frontend::parse(name, sql, [], buf).unwrap())
}

pub(crate) fn bind(statement: &str) -> Vec<u8> {
    message(b'B', &[b"\0", statement.as_bytes(), b"\0\0\0\0\0\0\0"].concat())
}

pub(crate) fn describe(statement: &str) -> Vec<u8> {
    build(|buf| frontend::describe(b'S', statement, buf).unwrap())
}

pub(crate) fn execute() -> Vec<u8> {
    build(|buf| frontend::execute("", 0, buf).unwrap())
}

pub(crate) fn close(statement: &str) -> Vec<u8> {
    build(|buf| frontend::close(b'S', statement, buf).unwrap())
}

pub(crate) fn sync() -> Vec<u8> {
    build(frontend::sync)
}

pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag][..], &len, body].concat()
}

pub(crate) fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    body.push(0);
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], &body].concat()
}

impl Raw {
    pub(crate) async fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, key: (0, Vec::new()), parameters: Vec::new(), asked: Vec::new() }
    }

    pub(crate) async fn log_in(port: u16, database: &str) -> Self {
        Self::log_in_with(port, 3 << 16, &[("user", USER), ("database", database)], PASSWORD).await.unwrap()
    }

    /// Logs in; the ErrorResponse if that fails.
    pub(crate) async fn log_in_with(
        port: u16,
        version: u32,
        parameters: &[(&str, &str)],
        password: &str,
    ) -> Result<Self, Message> {
        let mut raw = Self::connect(port).await;
        raw.send(&startup(version, parameters)).await;
        raw.authenticate(parameters[0].1, password).await?;
        Ok(raw)
    }

    pub(crate) async fn authenticate(&mut self, user: &str, password: &str) -> Result<(), Message> {
        let mut scram = None;
        loop {
            let message = self.receive().await.expect("closed during login");
            let body = &message.body;
            if message.tag == 'R' {
                self.asked.push(body.clone());
            }
            match message.tag {
                'R' => match body[3] {
                    0 | 12 => {}
                    3 => {
                        self.send(&build(|b| frontend::password_message(password.as_bytes(), b).unwrap()))
                            .await
                    }
                    5 => {
                        let salt = [body[4], body[5], body[6], body[7]];
                        let hash = postgres_protocol::authentication::md5_hash(
                            user.as_bytes(),
                            password.as_bytes(),
                            salt,
                        );
                        self.send(&build(|b| frontend::password_message(hash.as_bytes(), b).unwrap())).await;
                    }
                    10 => {
                        let exchange = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                        let first = build(|b| {
                            frontend::sasl_initial_response(SCRAM_SHA_256, exchange.message(), b).unwrap()
                        });
                        self.send(&first).await;
                        scram = Some(exchange);
                    }
                    11 => {
                        let exchange = scram.as_mut().unwrap();
                        exchange.update(&body[4..]).unwrap();
                        let last = build(|b| frontend::sasl_response(exchange.message(), b).unwrap());
                        self.send(&last).await;
                    }
                    other => panic!("authentication request {other}"),
                },
                'S' => {
                    let mut parts =
                        body.split(|&b| b == 0).map(|part| String::from_utf8_lossy(part).into_owned());
                    self.parameters.push((parts.next().unwrap(), parts.next().unwrap()));
                }
                'K' => {
                    self.key = (u32::from_be_bytes([body[0], body[1], body[2], body[3]]), body[4..].to_vec())
                }
                'Z' => return Ok(()),
                'E' => return Err(message),
                'N' | 'v' => {}
                other => panic!("{other} during login"),
            }
        }
    }

    pub(crate) fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next message; `None` if the connection was closed.
    pub(crate) async fn receive(&mut self) -> Option<Message> {
        let mut header = [0; 5];
        let read = tokio::time::timeout(Duration::from_secs(20), self.stream.read_exact(&mut header)).await;
        read.expect("no message for 20 s").ok()?;
        let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let mut body = vec![0; len - 4];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(Message { tag: header[0].into(), body })
    }

    /// Messages up to and including ReadyForQuery, or to the end of the connection.
    pub(crate) async fn until_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.receive().await {
            let ready = message.tag == 'Z';
            messages.push(message);
            if ready {
                break;
            }
        }
        messages
    }

    /// Sends bytes; the tags of what comes back up to ReadyForQuery.
    pub(crate) async fn tags(&mut self, bytes: &[u8]) -> String {
        self.send(bytes).await;
        self.until_ready().await.iter().map(|message| message.tag).collect()
    }

    /// Runs a simple query; its rows.
    pub(crate) async fn rows(&mut self, sql: &str) -> Vec<Vec<String>> {
        self.table(sql).await.1
    }

    /// … and its columns: name and type.
    pub(crate) async fn table(&mut self, sql: &str) -> (Vec<(String, u32)>, Vec<Vec<String>>) {
        self.send(&query(sql)).await;
        let messages = self.until_ready().await;
        assert!(messages.iter().all(|m| m.tag != 'E'), "{sql}: {}", error(&messages).field('M'));
        assert_eq!(messages.last().map(|m| m.tag), Some('Z'), "{sql}: the connection was closed");
        let columns = messages.iter().find(|m| m.tag == 'T').map(|m| columns(&m.body)).unwrap_or_default();
        (columns, messages.iter().filter(|m| m.tag == 'D').map(Message::values).collect())
    }

    /// The first value of the first row.
    pub(crate) async fn value(&mut self, sql: &str) -> String {
        self.rows(sql).await.into_iter().next().and_then(|row| row.into_iter().next()).unwrap_or_default()
    }

    /// The error a simple query ends with.
    pub(crate) async fn error(&mut self, sql: &str) -> Message {
        self.send(&query(sql)).await;
        error(&self.until_ready().await)
    }
}

/// The error among messages.
pub(crate) fn error(messages: &[Message]) -> Message {
    messages.iter().find(|m| m.tag == 'E').cloned().unwrap_or_else(|| panic!("no error in {messages:?}"))
}

fn columns(mut body: &[u8]) -> Vec<(String, u32)> {
    let mut columns = Vec::new();
    body = &body[2..];
    while let Some(end) = body.iter().position(|&b| b == 0) {
        let name = String::from_utf8_lossy(&body[..end]).into_owned();
        let rest = &body[end + 1..];
        columns.push((name, u32::from_be_bytes([rest[6], rest[7], rest[8], rest[9]])));
        body = &rest[18..];
    }
    columns
}
