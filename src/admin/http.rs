//! The HTTP listener: `/metrics` for Prometheus, `/livez` and `/readyz` for probes.
//!
//! There is no queue: each connection is looked at as it comes. There are `MOST` of them at most, and one that has asked
//! for nothing yet makes room for the next, so that probes are answered whatever else is connected. A page is made and sent
//! in pieces, between which the thread does its other work.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::prometheus::{self, Sink};
use crate::proxy::shared::Shared;

/// Connections at the same time.
const MOST: usize = 64;
/// Longest request line, and request line and headers.
const MAX_LINE: usize = 1024;
const MAX_REQUEST: usize = 8 * 1024;
/// How long a request may take, a piece of the answer, and all of it.
const LIMITS: Limits = Limits {
    request: Duration::from_secs(5),
    piece: Duration::from_secs(5),
    answer: Duration::from_secs(30),
};

#[derive(Clone, Copy)]
struct Limits {
    request: Duration,
    piece: Duration,
    answer: Duration,
}

/// Listens.
pub async fn bind(address: &str, port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((address.trim_start_matches('[').trim_end_matches(']'), port)).await
}

/// Serves until the task is dropped.
pub async fn run(shared: Arc<Shared>, listener: TcpListener) {
    let connections = Rc::new(Connections::default());
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if connections.all.borrow().len() == MOST {
                    connections.close_oldest();
                }
                connections.serve(&shared, stream, peer);
                // It is asked what it wants before the next one may take its place.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                tracing::warn!("http: accept failed: {error}");
                let is_full = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
                if is_full && connections.close_oldest() {
                    // Its descriptor is free when its task has gone.
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Those that are served, the oldest first.
#[derive(Default)]
struct Connections {
    all: RefCell<VecDeque<Connection>>,
    last: Cell<u64>,
}

struct Connection {
    number: u64,
    task: AbortHandle,
    /// It has asked for something.
    is_answered: Rc<Cell<bool>>,
}

impl Connections {
    /// Closes the oldest one, if there is one: one that has not asked for anything yet, if there is one of those.
    fn close_oldest(&self) -> bool {
        let mut all = self.all.borrow_mut();
        let silent = all.iter().position(|connection| !connection.is_answered.get());
        let Some(connection) = all.remove(silent.unwrap_or(0)) else { return false };
        tracing::debug!("http: too many connections, closing the oldest");
        connection.task.abort();
        true
    }

    fn serve(self: &Rc<Self>, shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
        let number = self.last.get() + 1;
        self.last.set(number);
        let is_answered = Rc::new(Cell::new(false));
        let (shared, all, seen) = (Arc::clone(shared), Rc::clone(self), Rc::clone(&is_answered));
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = serve(&shared, stream, &seen, LIMITS).await {
                tracing::debug!("http: {peer}: {error}");
            }
            all.all.borrow_mut().retain(|connection| connection.number != number);
        });
        let task = task.abort_handle();
        self.all.borrow_mut().push_back(Connection { number, task, is_answered });
    }
}

async fn serve(
    shared: &Shared,
    mut stream: TcpStream,
    is_answered: &Cell<bool>,
    limits: Limits,
) -> io::Result<()> {
    let request = tokio::time::timeout(limits.request, read(&stream)).await??;
    is_answered.set(true);
    tokio::time::timeout(limits.answer, answer(shared, &mut stream, &request, limits.piece)).await??;
    Ok(())
}

/// A request as far as it matters, and how much of it has come.
#[derive(Debug, Default)]
struct Request {
    line: Vec<u8>,
    len: usize,
    /// Ends of lines without anything in between.
    ends: u8,
    has_line: bool,
    is_too_long: bool,
}

impl Request {
    /// Takes what has come; says whether that is all of it, or more than there may be.
    fn take(&mut self, bytes: &[u8]) -> bool {
        for &byte in bytes {
            self.len += 1;
            match byte {
                b'\n' => {
                    self.has_line |= !self.line.is_empty();
                    self.ends += 1;
                }
                b'\r' => {}
                _ => {
                    self.ends = 0;
                    if !self.has_line {
                        self.line.push(byte);
                    }
                }
            }
            self.is_too_long = self.len > MAX_REQUEST || self.line.len() > MAX_LINE;
            if self.ends == 2 || self.is_too_long {
                return true;
            }
        }
        false
    }
}

async fn read(stream: &TcpStream) -> io::Result<Request> {
    let mut request = Request::default();
    loop {
        stream.readable().await?;
        // Only for the moment: a connection that waits has no buffer.
        let mut bytes = [0; 1024];
        match stream.try_read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) if request.take(&bytes[..n]) => return Ok(request),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn answer<S: AsyncWrite + Unpin>(
    shared: &Shared,
    stream: &mut S,
    request: &Request,
    limit: Duration,
) -> io::Result<()> {
    let line = String::from_utf8_lossy(&request.line);
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let has_body = method != "HEAD";
    let (status, text) = match (method, path) {
        _ if request.is_too_long => ("431 Request Header Fields Too Large", "the request is too long\n"),
        ("GET" | "HEAD", "/metrics") => {
            // Its length is not known before its end: 1.1 says how long each piece is, 1.0 closes behind the last.
            let is_chunked = words.next() != Some("HTTP/1.0");
            let mut body = Body { stream, is_chunked, limit };
            let framing = if is_chunked { "Transfer-Encoding: chunked" } else { "Pragma: no-cache" };
            body.write(head("200 OK", framing).as_bytes()).await?;
            if has_body {
                prometheus::render(shared, &mut body).await?;
                body.end().await?;
            }
            return stream.shutdown().await;
        }
        ("GET" | "HEAD", "/livez") => ("200 OK", "ok\n"),
        ("GET" | "HEAD", "/readyz") if shared.is_shutting_down() => {
            ("503 Service Unavailable", "shutting down\n")
        }
        ("GET" | "HEAD", "/readyz") => ("200 OK", "ok\n"),
        ("GET" | "HEAD", _) => ("404 Not Found", "there are /metrics, /livez and /readyz\n"),
        _ => ("405 Method Not Allowed", "GET only\n"),
    };
    let head = head(status, &format!("Content-Length: {}", text.len()));
    let all = if has_body { head + text } else { head };
    stream.write_all(all.as_bytes()).await?;
    stream.shutdown().await
}

fn head(status: &str, framing: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n{framing}\r\nConnection: close\r\n\r\n"
    )
}

/// The body of an answer whose length is not known.
struct Body<'a, S> {
    stream: &'a mut S,
    is_chunked: bool,
    limit: Duration,
}

impl<S: AsyncWrite + Unpin> Body<'_, S> {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        tokio::time::timeout(self.limit, self.stream.write_all(bytes)).await?
    }

    async fn end(&mut self) -> io::Result<()> {
        if self.is_chunked { self.write(b"0\r\n\r\n").await } else { Ok(()) }
    }
}

impl<S: AsyncWrite + Unpin> Sink for Body<'_, S> {
    async fn take(&mut self, piece: &str) -> io::Result<()> {
        if self.is_chunked {
            self.write(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await
        } else {
            self.write(piece.as_bytes()).await
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::super::prometheus::tests::with_pools;
    use super::*;

    fn request(text: &str) -> Request {
        let mut request = Request::default();
        assert!(request.take(text.as_bytes()), "{text:?}");
        request
    }

    /// Those that are being answered stay as long as there are others to close.
    #[tokio::test(flavor = "local")]
    async fn silent_connections_make_room_first() {
        let connections = Connections::default();
        let mut tasks = Vec::new();
        for (number, is_answered) in [true, false, true, false].into_iter().enumerate() {
            let task = tokio::task::spawn_local(std::future::pending::<()>());
            let is_answered = Rc::new(Cell::new(is_answered));
            let number = number as u64;
            connections.all.borrow_mut().push_back(Connection {
                number,
                task: task.abort_handle(),
                is_answered,
            });
            tasks.push(task);
        }
        let left = || connections.all.borrow().iter().map(|connection| connection.number).collect::<Vec<_>>();
        for expected in [&[0, 2, 3][..], &[0, 2], &[2], &[]] {
            assert!(connections.close_oldest());
            assert_eq!(left(), expected);
        }
        assert!(!connections.close_oldest());
        for task in tasks {
            assert!(task.await.unwrap_err().is_cancelled());
        }
    }

    #[test]
    fn a_request_is_complete_in_whatever_pieces_it_comes() {
        for text in ["GET /x HTTP/1.1\r\nHost: x\r\n\r\n", "\r\nGET /x HTTP/1.1\nA: b\n\n"] {
            let mut request = Request::default();
            let ends: Vec<bool> = text.bytes().map(|byte| request.take(&[byte])).collect();
            assert_eq!(ends.iter().position(|end| *end), Some(text.len() - 1), "{text:?}");
            assert_eq!((&*request.line, request.is_too_long), (&b"GET /x HTTP/1.1"[..], false));
        }
        for endless in ["x".repeat(MAX_LINE + 1), format!("GET / HTTP/1.1\n{}", "x: y\n".repeat(2000))] {
            let request = request(&endless);
            assert!(
                request.is_too_long && request.len <= MAX_REQUEST + 1 && request.line.len() <= MAX_LINE + 1
            );
        }
    }

    /// What is sent until the other side has had enough.
    async fn sent(shared: &Shared, text: &str) -> String {
        let (mut here, mut there) = tokio::io::duplex(1 << 20);
        answer(shared, &mut here, &request(text), Duration::from_secs(5)).await.unwrap();
        drop(here);
        let mut text = String::new();
        there.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn the_end_of_a_page_can_be_told() {
        let shared = with_pools(3);
        let page = sent(&shared, "GET /metrics HTTP/1.0\n\n").await;
        assert!(!page.contains("chunked") && page.ends_with('\n'));
        let chunked = sent(&shared, "GET /metrics HTTP/1.1\n\n").await;
        let (head, mut rest) = chunked.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("Transfer-Encoding: chunked"));
        let mut body = String::new();
        loop {
            let (len, after) = rest.split_once("\r\n").unwrap();
            let len = usize::from_str_radix(len, 16).unwrap();
            body += &after[..len];
            rest = after[len..].strip_prefix("\r\n").unwrap();
            if len == 0 {
                break;
            }
        }
        assert_eq!((rest, &*body), ("", page.split_once("\r\n\r\n").unwrap().1));
        assert!(sent(&shared, "HEAD /metrics HTTP/1.1\n\n").await.ends_with("\r\n\r\n"));
        assert!(sent(&shared, &"x".repeat(2 * MAX_LINE)).await.starts_with("HTTP/1.1 431 "));
    }

    /// Who asks and does not read costs a piece, and that not for long.
    #[tokio::test]
    async fn a_slow_reader_is_given_up() {
        let shared = with_pools(200);
        let (mut here, mut there) = tokio::io::duplex(1000);
        let limit = Duration::from_millis(50);
        let error =
            answer(&shared, &mut here, &request("GET /metrics HTTP/1.1\n\n"), limit).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(here);
        let mut taken = Vec::new();
        there.read_to_end(&mut taken).await.unwrap();
        assert_eq!(taken.len(), 1000);
    }
}
