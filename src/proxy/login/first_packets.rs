//! The first packets: what the connection is for, and TLS around it.

use std::sync::Arc;

use super::failure::Failure;
use super::newcomer::{Encrypted, Newcomer};
use crate::auth::scram::ChannelBinding;
use crate::error::{Refusal, sqlstate};
use crate::net::tls::ClientTls;
use crate::proxy::newcomers::Place;
use crate::wire::startup::{self, Session, Startup};

/// First byte of a TLS ClientHello (content type "handshake"); no startup packet is long enough to begin with it.
const TLS_HANDSHAKE: u8 = 0x16;

impl Newcomer {
    /// The StartupMessage; `None` if the connection was for something else.
    pub(super) async fn startup(&mut self, place: &Place) -> Result<Option<Session>, Failure> {
        // Each kind of encryption may be asked for once.
        let (mut ssl, mut gss) = (false, false);
        loop {
            place.listens();
            let mut word = [0; 4];
            word.copy_from_slice(self.received.exact(&mut self.stream, 4).await?);
            if word[0] == TLS_HANDSHAKE && self.tls.is_none() && !ssl && !gss {
                // A TLS ClientHello in place of a startup packet: direct TLS.
                let Some(tls) = self.offered_tls() else { return Err(Failure::Silent("bad startup packet")) };
                let rest = std::mem::take(&mut self.received).into_rest();
                Box::pin(self.encrypt(&tls, &[&word[..], &rest].concat(), true)).await?;
                ssl = true;
                continue;
            }
            let len = startup::body_length(word).map_err(|_| Failure::Silent("bad startup packet"))?;
            match startup::parse(self.received.exact(&mut self.stream, len).await?) {
                Ok(Startup::Ssl) if !ssl => {
                    ssl = true;
                    if let Some(tls) = self.offered_tls() {
                        if !self.received.is_empty() {
                            // Somebody may have put that in front of the encrypted conversation.
                            return Err(Failure::Silent("received unencrypted data after SSL request"));
                        }
                        self.stream.write_all(b"S").await?;
                        Box::pin(self.encrypt(&tls, &[], false)).await?;
                        continue;
                    }
                }
                Ok(Startup::GssEnc) if !gss => gss = true,
                Ok(Startup::Ssl | Startup::GssEnc) => {
                    return Err(Failure::Silent("encryption asked for twice"));
                }
                Ok(Startup::Cancel(key)) => {
                    self.cancel = Some(key);
                    return Ok(None);
                }
                Ok(Startup::Session(session)) => {
                    if self.tls.is_none() && self.offered_tls().is_some_and(|tls| tls.required) {
                        return Err(Refusal::new(sqlstate::INVALID_AUTHORIZATION, "SSL required")
                            .hint(
                                "The pooler's client_tls_sslmode asks for it: connect with sslmode=require.",
                            )
                            .into());
                    }
                    return Ok(Some(session));
                }
                Err(error @ startup::StartupError::Version(_)) => {
                    return Err(Refusal::new(sqlstate::NOT_SUPPORTED, error.to_string()).into());
                }
                Err(_) => return Err(Failure::Silent("bad startup packet")),
            }
            self.stream.write_all(b"N").await?;
        }
    }

    /// TLS as this client may have it: over TCP, if it is turned on.
    fn offered_tls(&self) -> Option<Arc<ClientTls>> {
        self.stream.tcp().and_then(|_| self.shared.tls.clients.load_full())
    }

    /// Shakes hands; nothing that came before in plain text counts any more.
    async fn encrypt(&mut self, tls: &ClientTls, start: &[u8], direct: bool) -> Result<(), Failure> {
        match self.stream.accept_tls(tls, start, direct).await {
            Ok(description) => {
                let hash = tls.end_point_hash();
                let binding =
                    hash.map_or(ChannelBinding::None, |h| ChannelBinding::ServerEndPoint(h.to_vec()));
                self.tls = Some(Encrypted { description, binding });
                Ok(())
            }
            Err(error) => {
                tracing::warn!(
                    "C-{:#x}: (nodb)/(nouser)@{} TLS handshake error: {error}",
                    self.id,
                    self.peer
                );
                Err(Failure::Silent("TLS handshake failed"))
            }
        }
    }
}
