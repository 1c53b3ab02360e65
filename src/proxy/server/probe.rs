//! A connection that only asks what a host is.

use std::sync::Arc;

use super::ask::{Rows, Wanted, ask};
use super::connect_error::ConnectError;
use super::login::login;
use super::reach::{note_access, reach};
use crate::net::connect::Target;
use crate::net::stream::Stream;
use crate::proxy::pools::Pool;
use crate::proxy::shared::Shared;
use crate::route::cluster::Cluster;
use crate::route::host::Instance;
use crate::wire::write;

/// A connection that belongs to no pool: it only asks a host what it is.
#[derive(Debug)]
pub struct Probe {
    stream: Stream,
}

impl Probe {
    /// Connects to one of the hosts of a pool's database, as the pool would.
    pub async fn open(
        shared: &Shared,
        pool: &Pool,
        cluster: &Arc<Cluster>,
        host: usize,
    ) -> Result<Self, ConnectError> {
        let target = Target { host: cluster.hosts[host].name.clone(), port: cluster.hosts[host].port };
        let info = shared.server_info(pool, target, host);
        let stream = reach(shared, pool, &info).await?;
        let opened = login(shared, pool, &info, stream, &[]).await;
        note_access(pool, cluster, host, &opened);
        opened.map(|(stream, _)| Self { stream })
    }

    /// Runs a query and returns the rows, in text form.
    pub async fn run(&mut self, sql: &str, wanted: Wanted) -> Result<Rows, String> {
        let mut message = Vec::new();
        write::query(&mut message, sql.as_bytes());
        ask(&mut self.stream, message, wanted, |_, _| Ok(())).await
    }

    /// Runs a query whose answer is a number; 0: there is none.
    pub async fn number(&mut self, sql: &str) -> u64 {
        number(self.run(sql, Wanted::Row).await)
    }

    /// Which server it leads to; `None`: it does not say.
    pub async fn instance(&mut self) -> Option<Instance> {
        instance(&mut self.stream).await
    }
}

/// Tells the servers apart that a name may mean: by when they were started, to the microsecond.
pub(super) async fn instance(stream: &mut Stream) -> Option<Instance> {
    let sql =
        b"SELECT (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8";
    let mut message = Vec::new();
    write::query(&mut message, sql);
    Instance::new(number(ask(stream, message, Wanted::Row, |_, _| Ok(())).await))
}

/// The first value; 0: there is none, or it is no number.
fn number(answer: Result<Rows, String>) -> u64 {
    let text = answer.unwrap_or_default().into_iter().flatten().next().flatten();
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}
