//! Peers: other processes behind the same address. A cancel request comes over a connection of its own, which may reach
//! another process than the one whose client it is for; the key says which one, and the request is passed on. Keys and
//! the way they are passed on are PgBouncer's, so that both can be peers of each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::{Config, PeerConfig};
use crate::net::connect::Target;
use crate::pool::gate::Gate;

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
pub fn follow(peers: &ArcSwap<Peers>, config: &Config) {
    let before = peers.load_full();
    let peer = |(id, peer): (&u16, &PeerConfig)| {
        let new = Peer::new(peer, config.settings.default_pool_size);
        let old = before.get(id).filter(|old| (&old.target, old.pool_size) == (&new.target, new.pool_size));
        (*id, old.map_or_else(|| Arc::new(new), Arc::clone))
    };
    peers.store(Arc::new(config.peers.iter().map(peer).collect()));
}

/// The number of this process among its peers; 0 if it has none.
pub fn own_id(config: &Config) -> u16 {
    u16::try_from(config.settings.peer_id).unwrap_or(0)
}
