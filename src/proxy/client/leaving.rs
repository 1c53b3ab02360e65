//! A client that leaves before it has its answers. What it has sent whole is run to its end, as PostgreSQL does, which learns that
//! a client has gone when it comes to read from it.
//!
//! While it waits for a server it goes on waiting. While it has one it is not read from any more: its server is, until the last
//! batch that was sent whole has ended. What is answered goes to the client as long as that takes it, for it may have closed its
//! own side only.

use std::task::{Context, Poll};
use std::time::Duration;

use super::super::relay::{self, Scratch};
use super::Client;
use super::end::{End, Gone};
use super::phase::{Departure, Phase};
use crate::clock;
use crate::session::forward;

/// How long a server is waited for that says nothing. Then its connection is closed: it still runs to the end what it is at, but
/// its place goes to others, who would otherwise wait for queries that nobody waits for.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

const TERMINATE: &[u8] = b"X\0\0\0\x04";

impl Client {
    /// The task would end here. `None`: it does not, for the client has left something to be done.
    #[cold]
    pub(super) fn depart(&mut self, end: End) -> Option<End> {
        let End::Gone(gone) = end else { return Some(end) };
        match self.phase {
            // What it has sent of a batch without an end would be rolled back.
            Phase::Waiting(_) if !self.has_gone && forward::batch_len(&self.carry).is_some() => {
                self.has_gone = true;
                None
            }
            Phase::Linked => {
                let departure = self.departure(gone);
                if let Some(departure) = departure {
                    self.phase = Phase::Leaving(departure);
                    // It may have to run on another server, and must still be over then.
                    self.carry = if departure.has_said_goodbye { TERMINATE.to_vec() } else { Vec::new() };
                    self.set_deadline(clock::now());
                }
                departure.is_none().then_some(end)
            }
            _ => Some(end),
        }
    }

    fn departure(&self, gone: Gone) -> Option<Departure> {
        let pipeline = &self.server.as_ref()?.session.pipeline;
        let unfinished = pipeline.behind_last_batch(self.session.is_mid_frame())?;
        Some(Departure {
            has_said_goodbye: gone == Gone::Goodbye,
            unfinished: u32::try_from(unfinished).unwrap_or(u32::MAX),
        })
    }

    /// Its server is read from until it has answered.
    pub(super) fn leaving(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        departure: Departure,
    ) -> Poll<Result<(), End>> {
        let mut read = std::mem::take(&mut scratch.read);
        let result = self.see_through(cx, scratch, &mut read, departure);
        scratch.read = read;
        result
    }

    fn see_through(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        read: &mut [u8],
        departure: Departure,
    ) -> Poll<Result<(), End>> {
        while matches!(self.phase, Phase::Leaving(_)) {
            if let Some(server) = &mut self.server {
                if server.pending.flush(cx, &mut server.stream).is_err() {
                    return Poll::Ready(self.server_lost(cx));
                }
            }
            if !relay::flush_client(cx, &mut self.stream, &mut self.pending)? {
                return Poll::Pending;
            }
            let unfinished = departure.unfinished as usize;
            let server = self.server.as_mut().filter(|server| {
                let pipeline = &server.session.pipeline;
                pipeline.len() > unfinished && !pipeline.awaits_copy_data()
            });
            let Some(server) = server else {
                self.carry = Vec::new();
                return Poll::Ready(Err(departure.end()));
            };
            match relay::receive(cx, &mut server.stream, read) {
                Poll::Ready(Ok(Some(n))) => {
                    self.on_server_bytes(cx, scratch, &read[..n])?;
                    self.set_deadline(clock::now());
                }
                Poll::Ready(_) => return Poll::Ready(self.server_lost(cx)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}
