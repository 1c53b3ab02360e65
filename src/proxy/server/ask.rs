//! Queries of the proxy's own, on a connection that nobody else has. What a server says to them is bounded: it may be broken,
//! or not be what it is taken for.

use std::io;
use std::mem::size_of;

use crate::net::received::Received;
use crate::net::stream::Stream;
use crate::wire::backend;
use crate::wire::frame::HEADER;

/// A row of an answer, in text form; `None`: NULL.
pub type Row = Vec<Option<String>>;
/// The rows of an answer.
pub type Rows = Vec<Row>;

/// Longest message taken from a server during login or in answer to a query of our own.
const MAX_MESSAGE: usize = 1 << 20;
/// How much a server may say during login, or in answer to a query that asks for a row at most.
pub(super) const MAX_ANSWER: usize = 1 << 20;
/// The same where many rows are wanted, and how many that may be.
pub(super) const MAX_TABLE: usize = 128 << 20;
const MAX_ROWS: usize = 1 << 20;

/// What is wanted of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// That there is one. Rows are not kept.
    Nothing,
    /// One row; a second one is an error.
    Row,
    /// A table.
    Rows,
}

impl Wanted {
    /// Most bytes of the whole answer, and most rows of it that are kept.
    fn limits(self) -> (usize, usize) {
        match self {
            Self::Nothing => (MAX_ANSWER, 0),
            Self::Row => (MAX_ANSWER, 1),
            Self::Rows => (MAX_TABLE, MAX_ROWS),
        }
    }
}

/// What a server may still say.
pub(super) struct Budget {
    bytes: usize,
    left: usize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, left: bytes }
    }

    /// Takes the next message, if the server has not said too much by then.
    pub(super) async fn next(
        &mut self,
        received: &mut Received,
        stream: &mut Stream,
        body: &mut Vec<u8>,
    ) -> io::Result<u8> {
        let tag = received.frame(stream, body, MAX_MESSAGE.min(self.bytes)).await?;
        self.spend(body.len() + HEADER)?;
        Ok(tag)
    }

    fn spend(&mut self, bytes: usize) -> io::Result<()> {
        let too_much = || io::Error::other(format!("server says more than {} bytes", self.bytes));
        self.left = self.left.checked_sub(bytes).ok_or_else(too_much)?;
        Ok(())
    }
}

/// Sends a request and collects its rows. `note` gets each ParameterStatus and CommandComplete.
pub(super) async fn ask(
    stream: &mut Stream,
    mut message: Vec<u8>,
    wanted: Wanted,
    mut note: impl FnMut(u8, &[u8]) -> Result<(), String>,
) -> Result<Rows, String> {
    stream.write_all(&message).await.map_err(|e| e.to_string())?;
    let (bytes, most) = wanted.limits();
    let (mut received, mut budget) = (Received::default(), Budget::new(bytes));
    let mut rows = Vec::new();
    let mut failure = None;
    loop {
        let tag = budget.next(&mut received, stream, &mut message).await.map_err(|e| e.to_string())?;
        let body = message.as_slice();
        match tag {
            b'D' if wanted == Wanted::Nothing => {}
            b'D' if rows.len() == most => {
                let plural = if most == 1 { "" } else { "s" };
                return Err(format!("server answers with more than {most} row{plural}"));
            }
            b'D' => {
                let row = row(body).ok_or("malformed DataRow")?;
                // In memory a value takes more than on the wire.
                budget
                    .spend(size_of::<Row>() + row.len() * size_of::<Option<String>>())
                    .map_err(|e| e.to_string())?;
                rows.push(row);
            }
            b'E' => failure = Some(backend::error_fields(body).text()),
            b'S' | b'C' => note(tag, body)?,
            b'Z' if body == b"I" && received.is_empty() => break,
            b'Z' => return Err("query left a transaction open, or more to say".into()),
            b'G' => return Err("query asks for COPY data".into()),
            _ => {}
        }
    }
    failure.map_or(Ok(rows), Err)
}

fn row(body: &[u8]) -> Option<Row> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut values = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (len, after) = rest.split_first_chunk::<4>()?;
        match usize::try_from(i32::from_be_bytes(*len)) {
            Err(_) => {
                values.push(None);
                rest = after;
            }
            Ok(len) => {
                let (value, after) = after.split_at_checked(len)?;
                values.push(Some(String::from_utf8_lossy(value).into_owned()));
                rest = after;
            }
        }
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// What is said to a question by a server that says this, and then ends or goes on for ever.
    fn said(wanted: Wanted, words: Vec<u8>, times: usize) -> Result<usize, String> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0]).unwrap();
            for _ in 0..times {
                if stream.write_all(&words).is_err() {
                    return;
                }
            }
            let _ = stream.write_all(b"Z\0\0\0\x05I");
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(async {
            let mut stream = Stream::Tcp(tokio::net::TcpStream::connect(address).await.unwrap());
            ask(&mut stream, b"?".to_vec(), wanted, |_, _| Ok(())).await
        });
        server.join().unwrap();
        answer.map(|rows| rows.len())
    }

    #[test]
    fn answers_are_bounded() {
        let row = |values: u16| {
            let mut body = values.to_be_bytes().to_vec();
            body.extend((0..values).flat_map(|_| [0xff; 4]));
            [&b"D"[..], &(4 + body.len() as u32).to_be_bytes(), &body].concat()
        };
        let notice = [&b"N\0\0\x04\0"[..], &[0; 1020]].concat();
        assert_eq!(said(Wanted::Nothing, row(3), 1000), Ok(0));
        assert_eq!(said(Wanted::Row, row(3), 1), Ok(1));
        assert_eq!(said(Wanted::Row, row(3), 2), Err("server answers with more than 1 row".into()));
        assert_eq!(said(Wanted::Rows, row(3), 50_000), Ok(50_000));
        for (wanted, words, limit) in [
            (Wanted::Nothing, notice.clone(), MAX_ANSWER),
            (Wanted::Row, notice.clone(), MAX_ANSWER),
            (Wanted::Rows, notice, MAX_TABLE),
            // On the wire a NULL has four bytes.
            (Wanted::Rows, row(1000), MAX_TABLE),
        ] {
            let expected = format!("server says more than {limit} bytes");
            assert_eq!(said(wanted, words, usize::MAX), Err(expected));
        }
    }
}
