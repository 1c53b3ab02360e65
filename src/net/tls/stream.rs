//! A TLS connection: rustls without buffers of its own, over the thread's.
//!
//! What has been read is decrypted where it lies and what is sent is encrypted into a buffer of the thread, so that an
//! idle connection holds neither. Only the beginning of a record whose end has not come, and what a socket did not take,
//! stay with the connection.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// Plaintext that is encrypted at once: four records.
const PLAIN: usize = 64 * 1024;
/// Room for as much ciphertext: header, tag and padding take at most 64 bytes per record of 16 KB, one more for a short one.
const SEALED: usize = PLAIN + 5 * 64;

thread_local! {
    static SEALED_IN: RefCell<Vec<u8>> = RefCell::new(vec![0; SEALED]);
    static SEALED_OUT: RefCell<Vec<u8>> = RefCell::new(vec![0; SEALED]);
}

/// See the module's documentation.
pub struct TlsStream {
    tcp: TcpStream,
    connection: Connection,
    /// Ciphertext: the beginning of a record.
    partial: Vec<u8>,
    /// Plaintext for which the reader's buffer was too small.
    surplus: Vec<u8>,
    /// Ciphertext that the socket did not take yet.
    unsent: Vec<u8>,
    /// Plaintext that lies in `unsent` and that [`Self::poll_write`] has not reported as written yet.
    accepted: usize,
    closed: bool,
}

enum Connection {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

impl TlsStream {
    /// The server's side of a handshake, of which `start` has been received already.
    pub async fn accept(tcp: TcpStream, config: Arc<ServerConfig>, start: &[u8]) -> io::Result<Self> {
        let connection = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        Self::handshake(tcp, Connection::Server(connection), start).await
    }

    /// The client's side.
    pub async fn connect(
        tcp: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let connection = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
        Self::handshake(tcp, Connection::Client(connection), &[]).await
    }

    async fn handshake(tcp: TcpStream, connection: Connection, start: &[u8]) -> io::Result<Self> {
        let mut stream = Self {
            tcp,
            connection,
            partial: start.to_vec(),
            surplus: Vec::new(),
            unsent: Vec::new(),
            accepted: 0,
            closed: false,
        };
        loop {
            let mut input = std::mem::take(&mut stream.partial);
            let opened = stream.open(&mut input, &mut []);
            if let Ok(opened) = &opened {
                input.drain(..opened.used);
            }
            stream.tcp.write_all(&std::mem::take(&mut stream.unsent)).await?;
            let opened = opened.map_err(invalid)?;
            stream.partial = input;
            if opened.is_established {
                return Ok(stream);
            }
            if stream.closed || stream.tcp.read_buf(&mut stream.partial).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// What was agreed upon.
    pub fn state(&self) -> &CommonState {
        match &self.connection {
            Connection::Server(connection) => connection,
            Connection::Client(connection) => connection,
        }
    }

    /// The certificate of the other side, if it has shown one.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.state().peer_certificates()?.first()
    }

    /// The connection beneath.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Reads decrypted bytes. 0: the other side has closed the connection.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.read_by(buf, |tcp, sealed| {
            let mut sealed = ReadBuf::new(sealed);
            ready!(Pin::new(tcp).poll_read(cx, &mut sealed))?;
            Poll::Ready(Ok(sealed.filled().len()))
        })
    }

    /// Reads what is there without waiting.
    pub fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.read_by(buf, |tcp, sealed| match tcp.try_read(sealed) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            result => Poll::Ready(result),
        });
        match read {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn read_by(
        &mut self,
        buf: &mut [u8],
        mut receive: impl FnMut(&mut TcpStream, &mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if !self.surplus.is_empty() {
            let n = self.surplus.len().min(buf.len());
            buf[..n].copy_from_slice(&self.surplus[..n]);
            self.surplus.drain(..n);
            if self.surplus.is_empty() {
                self.surplus = Vec::new();
            }
            return Poll::Ready(Ok(n));
        }
        if self.closed {
            return Poll::Ready(Ok(0));
        }
        SEALED_IN.with_borrow_mut(|sealed| {
            let mut have = self.partial.len();
            sealed[..have].copy_from_slice(&self.partial);
            self.partial = Vec::new();
            loop {
                let opened = self.open(&mut sealed[..have], buf);
                if !self.unsent.is_empty() {
                    // An alert, or an answer to a change of keys. The next write sends what cannot go now.
                    let sent = self.tcp.try_write(&self.unsent).unwrap_or(0);
                    self.unsent.drain(..sent);
                }
                let opened = opened.map_err(invalid)?;
                sealed.copy_within(opened.used..have, 0);
                have -= opened.used;
                if opened.filled == 0 && !self.closed {
                    match receive(&mut self.tcp, &mut sealed[have..])? {
                        Poll::Ready(0) => self.closed = true,
                        Poll::Ready(n) => {
                            have += n;
                            continue;
                        }
                        Poll::Pending => {
                            self.partial = sealed[..have].to_vec();
                            return Poll::Pending;
                        }
                    }
                }
                self.partial = sealed[..have].to_vec();
                return Poll::Ready(Ok(opened.filled));
            }
        })
    }

    /// Decrypts all whole records of `sealed` into `buf`, what does not fit into `surplus`.
    fn open(&mut self, sealed: &mut [u8], buf: &mut [u8]) -> Result<Opened, rustls::Error> {
        let mut sink = Sink { buf, filled: 0, surplus: &mut self.surplus };
        let mut used = 0;
        loop {
            let input = &mut sealed[used..];
            let (discard, next) = match &mut self.connection {
                Connection::Server(c) => advance(c.process_tls_records(input), &mut sink, &mut self.unsent),
                Connection::Client(c) => advance(c.process_tls_records(input), &mut sink, &mut self.unsent),
            };
            used += discard;
            let is_established = match next {
                Ok(Next::Again) => continue,
                Ok(Next::Input) => false,
                Ok(Next::Established) => true,
                Ok(Next::Closed) => {
                    self.closed = true;
                    true
                }
                Err(error) => {
                    self.alert();
                    return Err(error);
                }
            };
            return Ok(Opened { used, filled: sink.filled, is_established });
        }
    }

    /// After an error there may be an alert that says so to the other side.
    #[cold]
    fn alert(&mut self) {
        let mut sink = Sink { buf: &mut [], filled: 0, surplus: &mut Vec::new() };
        let _ = match &mut self.connection {
            Connection::Server(c) => advance(c.process_tls_records(&mut []), &mut sink, &mut self.unsent),
            Connection::Client(c) => advance(c.process_tls_records(&mut []), &mut sink, &mut self.unsent),
        };
    }

    /// Encrypts and writes bytes. As long as it is pending it must be called again with the same bytes, to which others
    /// may have been added: some of them may have been encrypted already.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_unsent(cx))?;
            if self.accepted > 0 {
                return Poll::Ready(Ok(std::mem::take(&mut self.accepted)));
            }
            if self.seal(&buf[..buf.len().min(PLAIN)], |tcp, sealed| Pin::new(tcp).poll_write(cx, sealed))? {
                return Poll::Ready(Ok(buf.len().min(PLAIN)));
            }
        }
    }

    /// Encrypts and writes; `false` if something is left to be sent before it is done.
    fn seal(
        &mut self,
        plain: &[u8],
        mut write: impl FnMut(&mut TcpStream, &[u8]) -> Poll<io::Result<usize>>,
    ) -> io::Result<bool> {
        SEALED_OUT.with_borrow_mut(|sealed| {
            let n = match &mut self.connection {
                Connection::Server(c) => {
                    seal(c.process_tls_records(&mut []), plain, sealed, &mut self.unsent)
                }
                Connection::Client(c) => {
                    seal(c.process_tls_records(&mut []), plain, sealed, &mut self.unsent)
                }
            }?;
            let Some(n) = n else { return Ok(false) };
            let mut sent = 0;
            while sent < n {
                match write(&mut self.tcp, &sealed[sent..n])? {
                    Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(more) => sent += more,
                    Poll::Pending => {
                        self.unsent = sealed[sent..n].to_vec();
                        self.accepted = plain.len();
                        return Ok(false);
                    }
                }
            }
            Ok(true)
        })
    }

    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let n = ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.unsent))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.drain(..n);
            if self.unsent.is_empty() {
                self.unsent = Vec::new();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for TlsStream {
    /// Says goodbye (close_notify), if that is possible at once: OpenSSL reports an end without it as an error.
    fn drop(&mut self) {
        if !self.unsent.is_empty() {
            return;
        }
        let mut goodbye = [0; 128];
        let n = match &mut self.connection {
            Connection::Server(c) => close_notify(c.process_tls_records(&mut []), &mut goodbye),
            Connection::Client(c) => close_notify(c.process_tls_records(&mut []), &mut goodbye),
        };
        let _ = self.tcp.try_write(&goodbye[..n]);
    }
}

fn close_notify<D>(status: UnbufferedStatus<'_, '_, D>, out: &mut [u8]) -> usize {
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.queue_close_notify(out).unwrap_or(0),
        _ => 0,
    }
}

/// What [`TlsStream::open`] has done.
struct Opened {
    used: usize,
    filled: usize,
    is_established: bool,
}

/// Where plaintext goes.
struct Sink<'a> {
    buf: &'a mut [u8],
    filled: usize,
    surplus: &'a mut Vec<u8>,
}

impl Sink<'_> {
    fn take(&mut self, plain: &[u8]) {
        let fits = plain.len().min(self.buf.len() - self.filled);
        self.buf[self.filled..self.filled + fits].copy_from_slice(&plain[..fits]);
        self.filled += fits;
        self.surplus.extend_from_slice(&plain[fits..]);
    }
}

enum Next {
    /// There may be more to do without more input.
    Again,
    /// The handshake goes on with more input.
    Input,
    /// The handshake is over; more input means data.
    Established,
    /// The other side sends nothing any more.
    Closed,
}

/// One step of rustls' state machine; says how much input it has used.
fn advance<D>(
    status: UnbufferedStatus<'_, '_, D>,
    sink: &mut Sink<'_>,
    out: &mut Vec<u8>,
) -> (usize, Result<Next, rustls::Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let next = match state {
        Err(error) => return (discard, Err(error)),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        sink.take(record.payload);
                    }
                    Err(error) => return (discard, Err(error)),
                }
            }
            Next::Again
        }
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let start = out.len();
            let mut room = 1024;
            loop {
                out.resize(start + room, 0);
                match data.encode(&mut out[start..]) {
                    Ok(n) => {
                        out.truncate(start + n);
                        break Next::Again;
                    }
                    Err(EncodeError::InsufficientSize(needed)) => room = needed.required_size,
                    Err(EncodeError::AlreadyEncoded) => {
                        out.truncate(start);
                        break Next::Again;
                    }
                }
            }
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Next::Again
        }
        Ok(ConnectionState::BlockedHandshake) => Next::Input,
        Ok(ConnectionState::WriteTraffic(_)) => Next::Established,
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Next::Closed,
        // Early data is turned off.
        Ok(_) => return (discard, Err(rustls::Error::General("unexpected state of TLS".into()))),
    };
    (discard, Ok(next))
}

/// Encrypts `plain` into `sealed` and says how long it is now. `None`: something of TLS' own, put into `queued`, must be
/// sent before.
fn seal<D>(
    status: UnbufferedStatus<'_, '_, D>,
    plain: &[u8],
    sealed: &mut [u8],
    queued: &mut Vec<u8>,
) -> io::Result<Option<usize>> {
    let failed = |error: EncryptError| io::Error::other(error.to_string());
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            traffic.encrypt(plain, sealed).map(Some).map_err(failed)
        }
        state => {
            let mut sink = Sink { buf: &mut [], filled: 0, surplus: &mut Vec::new() };
            match advance(UnbufferedStatus { discard: 0, state }, &mut sink, queued).1.map_err(invalid)? {
                Next::Again | Next::Established | Next::Closed => Ok(None),
                Next::Input => Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
