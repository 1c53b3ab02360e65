//! What goes wrong with TLS.

/// The settings cannot be used, or a handshake has failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub(super) String);

impl TlsError {
    pub(crate) fn not_tcp() -> Self {
        Self("TLS needs a TCP connection".into())
    }
}
