//! The HTTP listener: `/metrics`, `/livez`, `/readyz`. Answers GET and HEAD, one request per connection; whatever else
//! HTTP can do is not needed by Prometheus or Kubernetes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::prometheus;
use crate::proxy::shared::Shared;

/// Longest request line and headers.
const MAX_REQUEST: usize = 8 * 1024;
/// How long a request and its answer may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Requests served at the same time; others wait in the kernel's queue.
const CONCURRENT: usize = 16;

/// Listens.
pub async fn bind(address: &str, port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((address.trim_start_matches('[').trim_end_matches(']'), port)).await
}

/// Serves until the task is dropped.
pub async fn run(shared: Arc<Shared>, listener: TcpListener) {
    let permits = Arc::new(tokio::sync::Semaphore::new(CONCURRENT));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let shared = Arc::clone(&shared);
                tokio::task::spawn_local(async move {
                    let served = tokio::time::timeout(LIMIT, serve(&shared, stream)).await;
                    if !matches!(served, Ok(Ok(()))) {
                        log_failure(peer, served);
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!("http: accept failed: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn log_failure(peer: SocketAddr, served: Result<io::Result<()>, tokio::time::error::Elapsed>) {
    match served {
        Ok(Err(error)) => tracing::debug!("http: {peer}: {error}"),
        Err(_) => tracing::debug!("http: {peer}: timeout"),
        Ok(Ok(())) => {}
    }
}

async fn serve(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    let mut request = Vec::new();
    let mut buf = [0; 1024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let n = stream.read(&mut buf).await?;
        if n == 0 || request.len() + n > MAX_REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        request.extend_from_slice(&buf[..n]);
    }
    let line = request.split(|&b| b == b'\r').next().unwrap_or_default();
    let answer = answer(shared, &String::from_utf8_lossy(line));
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn answer(shared: &Shared, line: &str) -> String {
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (status, body) = match (method, path) {
        ("GET" | "HEAD", "/metrics") => ("200 OK", prometheus::render(shared)),
        ("GET" | "HEAD", "/livez") => ("200 OK", "ok\n".to_owned()),
        ("GET" | "HEAD", "/readyz") if shared.is_shutting_down() => {
            ("503 Service Unavailable", "shutting down\n".to_owned())
        }
        ("GET" | "HEAD", "/readyz") => ("200 OK", "ok\n".to_owned()),
        ("GET" | "HEAD", _) => ("404 Not Found", "there are /metrics, /livez and /readyz\n".to_owned()),
        _ => ("405 Method Not Allowed", "GET only\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if method == "HEAD" { head } else { head + &body }
}
