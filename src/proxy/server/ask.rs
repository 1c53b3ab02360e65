//! Queries of the proxy's own, on a connection that nobody else has.

use crate::net::received::Received;
use crate::net::stream::Stream;
use crate::wire::backend;

/// The rows of an answer, in text form; `None`: NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// Longest message taken from a server during login or in answer to a query of our own.
pub(super) const MAX_MESSAGE: usize = 1 << 20;

/// Sends a request and collects its rows. `note` gets each ParameterStatus and CommandComplete.
pub(super) async fn ask(
    stream: &mut Stream,
    mut message: Vec<u8>,
    mut note: impl FnMut(u8, &[u8]) -> Result<(), String>,
) -> Result<Rows, String> {
    stream.write_all(&message).await.map_err(|e| e.to_string())?;
    let mut received = Received::default();
    let mut rows = Vec::new();
    let mut failure = None;
    loop {
        let tag = received.frame(stream, &mut message, MAX_MESSAGE).await.map_err(|e| e.to_string())?;
        let body = message.as_slice();
        match tag {
            b'D' => rows.push(row(body).ok_or("malformed DataRow")?),
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

fn row(body: &[u8]) -> Option<Vec<Option<String>>> {
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
