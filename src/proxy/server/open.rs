//! How a server connection is opened: to which host, and what that says of the host.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use tokio::sync::watch;

use super::Server;
use super::connect_error::ConnectError;
use super::login::login;
use super::probe::instance;
use super::reach::{note_access, reach};
use crate::clock;
use crate::config::Consistency;
use crate::net::connect::Target;
use crate::net::stream::Stream;
use crate::proxy::close::Retirement;
use crate::proxy::handover::MovedServer;
use crate::proxy::hosts::Hosts;
use crate::proxy::lease::Lease;
use crate::proxy::pools::Pool;
use crate::proxy::server_handle::{ServerHandle, ServerState};
use crate::proxy::shared::Shared;
use crate::route::cluster::{Cluster, Purpose};
use crate::route::host::Role;
use crate::session::parameters::Parameters;
use crate::wire::startup::Parameter;

/// How often another of the servers is met that a name means before we give up, for now.
pub const OTHERS: usize = 8;
/// The server did not let us in within `server_connect_timeout`.
const LOGIN_TIMEOUT: &str = "connect timeout";

/// Opens a connection to one of the pool's hosts, trying them in the order the cluster proposes. `own`: startup parameters
/// of the one client that will have it; none for connections that clients share.
pub async fn open(
    shared: &Shared,
    pool: &Pool,
    lease: Lease<Box<Server>>,
    own: &[Parameter],
) -> Result<Box<Server>, (ConnectError, Lease<Box<Server>>)> {
    let database = &pool.database;
    // First, so that no change is missed.
    let mut changes = database.hosts.changes();
    let topology = database.hosts.load_full();
    let cluster = Arc::clone(&topology.cluster);
    let (purpose, generation) = (lease.purpose(), pool.generation());
    let mut failure = ConnectError::Unreachable("no host serves this purpose".into());
    let mut others = 0;
    let mut candidates: VecDeque<usize> = topology.candidates(purpose).into();
    while let Some(host) = candidates.pop_front() {
        let target = Target { host: cluster.hosts[host].name.clone(), port: cluster.hosts[host].port };
        let info = Arc::new(shared.server_info(pool, target, host));
        let opened = tokio::select! {
            opened = open_at(shared, pool, purpose, &cluster, &info, own) => opened,
            () = moved(&database.hosts, &cluster, &mut changes, host, purpose) => Err(ConnectError::Moved),
        };
        match opened {
            Ok((stream, parameters)) => {
                info.set_state(ServerState::Idle);
                cluster.connected(host);
                if database.hosts.load_of(&cluster).is_none() {
                    let _ = info.close_needed.set(Retirement::HostsChanged);
                }
                let lease =
                    lease.connected(&shared.servers, Arc::clone(&info), &pool.database.hosts, cluster);
                if pool.generation() != generation {
                    let _ = info.close_needed.set(Retirement::Obsolete);
                }
                return Ok(Server::new(stream, parameters, lease, info));
            }
            Err(error) => {
                match error {
                    ConnectError::Moved if purpose == Purpose::Write => {
                        let topology = database.hosts.load_of(&cluster);
                        candidates = topology.map_or_else(VecDeque::new, |t| t.candidates(purpose).into());
                    }
                    ConnectError::OtherServer if others < OTHERS => {
                        others += 1;
                        candidates.push_front(host);
                    }
                    ConnectError::OtherServer => {
                        cluster.hosts[host].set_wrong_instance_seen();
                        database.recheck_hosts();
                    }
                    _ => {}
                }
                note_failure(pool, &cluster, &info, &error, own);
                failure = error;
            }
        }
    }
    Err((failure, lease))
}

/// Waits until a host's role has changed so that connections for this purpose lead elsewhere.
async fn moved(
    hosts: &Hosts,
    cluster: &Arc<Cluster>,
    changes: &mut watch::Receiver<()>,
    host: usize,
    purpose: Purpose,
) {
    while changes.changed().await.is_ok() {
        if hosts.load_of(cluster).is_some_and(|topology| topology.leads_elsewhere(host, purpose)) {
            return;
        }
    }
    std::future::pending().await
}

/// Opens a connection to this host within `server_connect_timeout`.
async fn open_at(
    shared: &Shared,
    pool: &Pool,
    purpose: Purpose,
    cluster: &Arc<Cluster>,
    info: &ServerHandle,
    own: &[Parameter],
) -> Result<(Stream, Parameters), ConnectError> {
    let settings = pool.settings.load_full();
    let attempt = async {
        let stream = reach(shared, pool, info).await?;
        match info.local.get() {
            Some(local) => tracing::info!("{info} new connection to server (from {local})"),
            None => tracing::info!("{info} new connection to server"),
        }
        let (mut stream, parameters) = login(shared, pool, info, stream, own).await?;
        if cluster.split {
            if let Some(instance) = instance(&mut stream).await {
                let _ = info.instance.set(instance);
            }
        }
        Ok((stream, parameters))
    };
    let limit = settings.server_connect_timeout;
    let opened = if limit.is_zero() {
        attempt.await
    } else {
        let attempt = tokio::time::timeout(limit, attempt).await;
        attempt.unwrap_or_else(|_| Err(ConnectError::Unreachable(LOGIN_TIMEOUT.into())))
    };
    note_access(pool, cluster, info.host, &opened);
    let opened = opened?;
    let role = note_role(pool, cluster, info.host, &opened.1);
    // A connection to hosts that have been replaced is closed as soon as it is there.
    let Some(topology) = pool.database.hosts.load_of(cluster) else { return Ok(opened) };
    if !topology.suits(info.host, purpose) {
        return Err(ConnectError::WrongRole(role));
    }
    if topology.hosts[info.host].is_other(info.instance.get().copied()) {
        if purpose == Purpose::Write {
            // The name may have come to mean another primary: the task that watches it has to look again.
            cluster.hosts[info.host].set_wrong_instance_seen();
            pool.database.recheck_hosts();
        } else if settings.read_consistency != Consistency::Eventual {
            return Err(ConnectError::OtherServer);
        }
    }
    Ok(opened)
}

/// Logs why a connection could not be opened, and what that says of the host.
fn note_failure(
    pool: &Pool,
    cluster: &Arc<Cluster>,
    info: &ServerHandle,
    error: &ConnectError,
    own: &[Parameter],
) {
    if let ConnectError::Unreachable(why) | ConnectError::NotNow(why) = error {
        pool.database.hosts.note(cluster, |seen| seen.failed(info.host, why));
        pool.database.recheck_hosts();
    }
    let reason = match error {
        ConnectError::Unreachable(why) if why.starts_with("server DNS lookup failed") => why,
        ConnectError::Unreachable(why) if why == LOGIN_TIMEOUT => why,
        ConnectError::Unreachable(_) | ConnectError::NotNow(_) | ConnectError::Full(_) => "connect failed",
        // A client's own connection may lack a right that those of others do not need.
        ConnectError::Refused(_) if !own.is_empty() => "login failed",
        ConnectError::Refused(refusal) => refusal.reason(),
        ConnectError::WrongRole(_) => "wrong role",
        ConnectError::OtherServer => "not the server that is watched",
        ConnectError::Moved => "host has another role now",
    };
    if !matches!(error, ConnectError::OtherServer) {
        tracing::warn!("{info} {error}");
    }
    tracing::info!(
        "{info} closing because: {reason} (age={}s)",
        clock::now().since(info.connected).as_secs()
    );
}

/// Makes a connection that another process has opened one of this pool's.
pub fn move_in(
    shared: &Shared,
    pool: &Pool,
    lease: Lease<Box<Server>>,
    moved: MovedServer,
) -> io::Result<Box<Server>> {
    let cluster = pool.database.cluster();
    let host = cluster.hosts.iter().position(|h| h.name == moved.target.host && h.port == moved.target.port);
    let (local, remote) = (moved.socket.local_address(), moved.socket.peer_address());
    let stream = moved.socket.adopt()?;
    let info = shared.server_info(pool, moved.target, host.unwrap_or(0));
    let info = Arc::new(ServerHandle { connected: moved.connected, ..info });
    if let Some(local) = local {
        let _ = info.local.set(local);
    }
    if let Some(remote) = remote {
        let _ = info.remote.set(remote);
    }
    if let Some(key) = moved.key {
        let _ = info.key.set(key);
    }
    if host.is_none() {
        let _ = info.close_needed.set(Retirement::HostsChanged);
    }
    let parameters = Arc::unwrap_or_clone(moved.parameters);
    let lease = lease.connected(&shared.servers, Arc::clone(&info), &pool.database.hosts, cluster);
    let mut server = Server::new(stream, parameters, lease, info);
    server.used = true;
    Ok(server)
}

/// PostgreSQL 14 and later say in the login itself whether they are a standby.
fn note_role(pool: &Pool, cluster: &Arc<Cluster>, host: usize, parameters: &Parameters) -> Role {
    let role = match parameters.in_hot_standby() {
        Some(true) => Role::Replica,
        Some(false) => Role::Primary,
        None => Role::Unknown,
    };
    let is_new = pool.database.hosts.note(cluster, |seen| seen.logged_in(host, role, clock::now()));
    if is_new == Some(true) && cluster.split {
        tracing::info!("{} is a {}", cluster.hosts[host], role.name());
    }
    role
}
