//! Reading a connection message by message, for the time of a login and the proxy's own queries: as much as is there is
//! read at once, and what belongs to later messages waits here.

use std::io;

use super::stream::Stream;
use crate::wire::frame;

/// How much is read at once.
const CHUNK: usize = 1024;

/// Bytes that have been received and not been asked for yet.
#[derive(Debug, Default)]
pub struct Received {
    bytes: Vec<u8>,
    /// How many of them have been taken already.
    taken: usize,
}

impl Received {
    /// Waits until `len` bytes have come and takes them.
    pub async fn exact(&mut self, stream: &mut Stream, len: usize) -> io::Result<&[u8]> {
        self.wait_for(stream, len).await?;
        self.taken += len;
        Ok(&self.bytes[self.taken - len..self.taken])
    }

    /// Waits for the next frame to begin; its tag. What does not belong here can then be refused before all of it has come.
    pub async fn tag(&mut self, stream: &mut Stream) -> io::Result<u8> {
        self.wait_for(stream, 1).await?;
        Ok(self.bytes[self.taken])
    }

    /// Waits for one whole frame, which must not be longer than `max`, and takes it: its tag, and its body in `body`.
    pub async fn frame(&mut self, stream: &mut Stream, body: &mut Vec<u8>, max: usize) -> io::Result<u8> {
        self.wait_for(stream, frame::HEADER).await?;
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "invalid message length");
        let frame = frame::peek(&self.bytes[self.taken..]).map_err(|_| invalid())?.ok_or_else(invalid)?;
        let (tag, len) = (frame.tag, frame.len);
        if len > max {
            return Err(invalid());
        }
        self.wait_for(stream, len).await?;
        body.clear();
        body.extend_from_slice(&self.bytes[self.taken + frame::HEADER..self.taken + len]);
        self.taken += len;
        Ok(tag)
    }

    /// Whether nothing has come that was not asked for.
    pub fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// What has come and was not asked for.
    pub fn into_rest(mut self) -> Vec<u8> {
        if self.is_empty() {
            // A client that has said nothing more keeps no memory for it.
            return Vec::new();
        }
        self.bytes.drain(..self.taken);
        self.bytes
    }

    /// Memory follows what has arrived, not what was announced.
    async fn wait_for(&mut self, stream: &mut Stream, len: usize) -> io::Result<()> {
        // What was taken goes when it is more than what is left, so that each byte is moved once at most.
        if self.taken > self.bytes.len() / 2 || self.is_empty() {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        while self.bytes.len() - self.taken < len {
            let had = self.bytes.len();
            self.bytes.resize(had + CHUNK, 0);
            let n = stream.read(&mut self.bytes[had..]).await;
            self.bytes.truncate(had + *n.as_ref().unwrap_or(&0));
            if n? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_for_a_client_that_has_sent_nothing_ahead() {
        let received = |taken| Received { bytes: b"startup, query".to_vec(), taken };
        assert_eq!(received(9).into_rest(), b"query");
        assert_eq!(received(14).into_rest().capacity(), 0);
    }
}
