//! Host names of servers that come to mean other addresses, as when a service moves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::close::Retirement;
use super::shared::Shared;
use crate::clock;

/// How often `dns_zone_check_period` is looked at: it may have been changed.
const TICK: Duration = Duration::from_millis(100);

/// Looks names up again each `dns_zone_check_period`, so that a change is seen although nobody connects. Runs until the
/// task is dropped.
pub async fn run(shared: Arc<Shared>) {
    let mut last = clock::now();
    loop {
        tokio::time::sleep(TICK).await;
        let period = shared.config.load().settings.dns_zone_check_period;
        if period.is_zero() || clock::now().since(last) < period {
            continue;
        }
        for name in names_in_use(&shared) {
            shared.resolver.look_again(&name).await;
        }
        last = clock::now();
    }
}

/// Those that have led to a connection.
fn names_in_use(shared: &Shared) -> BTreeSet<String> {
    let servers = shared.servers.iter().filter(|server| server.remote.get().is_some());
    let hosts = servers.map(|server| server.target.host.clone());
    hosts.filter(|host| !is_address(host)).collect()
}

fn is_address(host: &str) -> bool {
    host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok()
}

/// Has connections closed, as soon as nobody uses them, whose address is no longer one of their host's.
pub fn leave_old_addresses(shared: &Shared) {
    for server in shared.servers.iter() {
        let has_lost =
            |address: &std::net::SocketAddr| shared.resolver.has_lost(&server.target.host, address.ip());
        if server.remote.get().is_some_and(has_lost) {
            let _ = server.close_needed.set(Retirement::Obsolete);
        }
    }
}
