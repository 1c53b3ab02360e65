//! TLS as it is configured now, for the connections to come; those that are open keep what they have.
//!
//! Files are looked at on RELOAD and every few seconds, because certificates are renewed by whoever writes the files,
//! Kubernetes for one, and nobody tells the pooler.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::config::Settings;
use crate::net::tls::{ClientTls, ServerTls, TlsError};

/// See the module's documentation.
#[derive(Default)]
pub struct Tls {
    /// Towards clients; `None`: TLS is turned off.
    pub clients: ArcSwapOption<ClientTls>,
    /// Towards servers.
    pub servers: ArcSwapOption<ServerTls>,
    in_force: Mutex<Seen>,
    /// What [`Tls::refresh`] has seen last, whether it could be used or not.
    tried: Mutex<Seen>,
}

/// Settings and contents of files.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    clients: [u8; 32],
    servers: [u8; 32],
}

impl Seen {
    fn new(s: &Settings) -> Self {
        let texts = |side: &str| {
            let names = ["sslmode", "protocols", "ciphers", "13_ciphers", "ecdhcurve"];
            names.map(|name| {
                let separator = if name.starts_with('1') { "" } else { "_" };
                s.show(&format!("{side}_tls{separator}{name}")).unwrap_or_default()
            })
        };
        let hash = |side: &str| {
            let mut hash = Sha256::new();
            texts(side).iter().for_each(|text| hash.update([text.as_bytes(), b"\0"].concat()));
            for kind in ["ca", "cert", "crl", "key"] {
                let file = s.show(&format!("{side}_tls_{kind}_file")).unwrap_or_default();
                hash.update([file.as_bytes(), b"\0"].concat());
                hash.update(std::fs::read(&file).unwrap_or_default());
            }
            hash.finalize().into()
        };
        Self { clients: hash("client"), servers: hash("server") }
    }
}

impl Tls {
    /// Puts settings in force. Says whether connections to servers are to be made in another way from now on; if the
    /// settings cannot be used, everything stays as it was.
    pub fn refresh(&self, s: &Settings) -> Result<bool, TlsError> {
        let now = Seen::new(s);
        *self.tried.lock() = now;
        let before = *self.in_force.lock();
        if now == before {
            return Ok(false);
        }
        let clients = ClientTls::new(s)?;
        let servers = ServerTls::new(s)?;
        let notes =
            clients.iter().flat_map(|tls| &tls.notes).chain(servers.iter().flat_map(|tls| &tls.notes));
        notes.for_each(|note| tracing::warn!("{note}"));
        let was_off = self.servers.load().is_none();
        let changed = now.servers != before.servers && !(was_off && servers.is_none());
        self.clients.store(clients.map(Arc::new));
        self.servers.store(servers.map(Arc::new));
        *self.in_force.lock() = now;
        Ok(changed)
    }

    /// Whether there is something that [`Self::refresh`] has not seen yet.
    pub(super) fn has_news(&self, s: &Settings) -> bool {
        Seen::new(s) != *self.tried.lock()
    }
}
