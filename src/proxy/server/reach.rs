//! The first steps to a server, which all connections to one take.

use std::io;
use std::sync::Arc;

use super::connect_error::ConnectError;
use crate::net::connect;
use crate::net::stream::Stream;
use crate::proxy::pools::Pool;
use crate::proxy::server_handle::ServerHandle;
use crate::proxy::shared::Shared;
use crate::route::cluster::Cluster;

/// Takes note of whether a host lets anybody in.
pub(super) fn note_access<T>(
    pool: &Pool,
    cluster: &Arc<Cluster>,
    host: usize,
    opened: &Result<T, ConnectError>,
) {
    let closing = match opened {
        Ok(_) | Err(ConnectError::Unreachable(_)) => false,
        Err(ConnectError::NotNow(_)) => true,
        Err(_) => return,
    };
    pool.database.hosts.note(cluster, |seen| seen.set_closing(host, closing));
}

/// Connects within `server_connect_timeout`: a host that does not answer at all is told from one that answers and then
/// does not let us in.
pub(super) async fn reach(shared: &Shared, pool: &Pool, info: &ServerHandle) -> io::Result<Stream> {
    let options = shared.socket_options();
    let attempt = connect::connect(&info.target, &options, &shared.resolver);
    let limit = pool.settings.load().server_connect_timeout;
    let stream = if limit.is_zero() {
        attempt.await?
    } else {
        tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?
    };
    if let Some(tcp) = stream.tcp() {
        if let Ok(remote) = tcp.peer_addr() {
            let _ = info.remote.set(remote);
        }
        if let Ok(local) = tcp.local_addr() {
            let _ = info.local.set(local);
        }
    }
    Ok(stream)
}
