//! SHOW of peers.

use super::super::table::{Row, cell, int, text};
use crate::proxy::shared::Shared;
use crate::wire::write::Column;

/// Columns of SHOW PEERS.
pub(super) const PEERS: &[Column] = &[int("peer_id"), text("host"), int("port"), int("pool_size")];

/// By their ID.
pub(super) fn peers(shared: &Shared) -> Vec<Row> {
    let peers = shared.peers.load();
    let all = peers.iter().map(|(id, peer)| (id, &peer.target, peer.pool_size));
    all.map(|(id, at, size)| vec![cell(id), cell(&at.host), cell(at.port), cell(size)]).collect()
}

/// Columns of SHOW PEER_POOLS.
pub(super) const PEER_POOLS: &[Column] = &[
    int("peer_id"),
    int("cl_active_cancel_req"),
    int("cl_waiting_cancel_req"),
    int("sv_active_cancel"),
    int("sv_login"),
];

/// By their ID. Each request under way has a connection of its own.
pub(super) fn peer_pools(shared: &Shared) -> Vec<Row> {
    let peers = shared.peers.load();
    let pools = peers.iter().map(|(id, peer)| (id, peer.cancels.entered.current(), peer.cancels.waiting()));
    pools
        .map(|(id, active, waiting)| vec![cell(id), cell(active), cell(waiting), cell(active), cell(0)])
        .collect()
}
