//! Peers: other processes behind the same address. A cancel request comes over a connection of its own, which may reach
//! another process than the one whose client it is for; the key says which one, and the request is passed on. Keys and
//! the way they are passed on are PgBouncer's, so that both can be peers of each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::server;
use super::shared::Shared;
use crate::config::{Config, PeerConfig};
use crate::net::connect::{self, Target};
use crate::pool::gate::Gate;
use crate::wire::startup::CancelKey;
use crate::wire::write;

/// How long a peer may take to act on a request.
const DELIVERY: Duration = Duration::from_secs(10);

/// All peers by their `peer_id`.
pub type Peers = BTreeMap<u16, Arc<Peer>>;

/// Another process.
#[derive(Debug)]
pub struct Peer {
    /// Where it listens.
    pub target: Target,
    /// How many requests may be on their way to it.
    pub pool_size: usize,
    /// Requests for it.
    pub cancels: Gate,
}

impl Peer {
    fn new(config: &PeerConfig, default_pool_size: u32) -> Self {
        let host = config.host.clone().unwrap_or_default();
        let port = config.port.unwrap_or(PeerConfig::DEFAULT_PORT);
        let pool_size = config.pool_size.unwrap_or(default_pool_size) as usize;
        let cancels = Gate::default();
        cancels.entered.set_max(pool_size);
        Self { target: Target { host, port }, pool_size, cancels }
    }
}

/// The peers that the configuration names. Those that have not changed stay as they are, with what is on its way to them.
pub fn follow(shared: &Shared, config: &Config) {
    let before = shared.peers.load_full();
    let peer = |(id, peer): (&u16, &PeerConfig)| {
        let new = Peer::new(peer, config.settings.default_pool_size);
        let old = before.get(id).filter(|old| (&old.target, old.pool_size) == (&new.target, new.pool_size));
        (*id, old.map_or_else(|| Arc::new(new), Arc::clone))
    };
    shared.peers.store(Arc::new(config.peers.iter().map(peer).collect()));
}

/// The number of this process among its peers; 0 if it has none.
pub fn own_id(shared: &Shared) -> u16 {
    u16::try_from(shared.config.load().settings.peer_id).unwrap_or(0)
}

/// Passes a cancel request on that is for another process, and says how that ended, in PgBouncer's words. `None`: it is
/// for this one.
pub async fn pass_on(shared: &Shared, key: &CancelKey) -> Option<&'static str> {
    let own = own_id(shared);
    if own == 0 || key.peer() == own {
        return None;
    }
    let Some(key) = key.passed_on() else {
        return Some("failed to forward cancel request because its TTL was exhausted");
    };
    let Some(peer) = shared.peers.load().get(&key.peer()).cloned() else {
        return Some("could not find peer to forward request to");
    };
    tracing::debug!("forwarding cancellation request to peer {}", key.peer());
    let limit = shared.config.load().settings.cancel_wait_timeout;
    let limit = if limit.is_zero() { Duration::MAX } else { limit };
    let place = tokio::time::timeout(limit, peer.cancels.enter()).await;
    let Ok(_place) = place else { return Some("cancel_wait_timeout") };
    let delivered = tokio::time::timeout(DELIVERY, deliver(shared, &peer.target, &key)).await;
    Some(match delivered.unwrap_or_else(|elapsed| Err(elapsed.to_string())) {
        Ok(()) => "successfully sent cancel request",
        Err(error) => {
            tracing::warn!("peer {} ({}): cancel request failed: {error}", key.peer(), peer.target);
            "failed to send cancel request"
        }
    })
}

async fn deliver(shared: &Shared, target: &Target, key: &CancelKey) -> Result<(), String> {
    let mut stream = connect::connect(target, &shared.socket_options(), &shared.resolver)
        .await
        .map_err(|error| error.to_string())?;
    server::encrypt_to(shared, &mut stream, &target.host).await.map_err(|error| error.to_string())?;
    let mut message = Vec::new();
    write::cancel_request(&mut message, key);
    stream.write_all(&message).await.map_err(|error| error.to_string())?;
    // The peer closes the connection once it has dealt with the request.
    let mut rest = [0; 64];
    while stream.read(&mut rest).await.unwrap_or(0) > 0 {}
    Ok(())
}
