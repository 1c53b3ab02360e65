//! Cancel requests for clients of other processes behind the same address.

use std::time::Duration;

use super::peers;
use super::server;
use super::shared::Shared;
use crate::net::connect::{self, Target};
use crate::wire::startup::CancelKey;
use crate::wire::write;

/// How long a peer may take to act on a request.
const DELIVERY: Duration = Duration::from_secs(10);

/// Passes a cancel request on that is for another process, and says how that ended, in PgBouncer's words. `None`: it is
/// for this one.
pub(super) async fn pass_on(shared: &Shared, key: &CancelKey) -> Option<&'static str> {
    let own = peers::own_id(&shared.config.load());
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
