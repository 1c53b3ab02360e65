//! SHOW: PgBouncer's columns in PgBouncer's order and types, so that scripts and dashboards go on working.
//!
//! `VIEWS` lists what can be shown; what the rows are made of is in the files beside this one.

mod peers;
mod pools;
mod process;
mod sockets;
mod stats;

pub(super) use pools::{PoolLoad, ServerCounts, by_name};
pub use process::VERSION;
pub(super) use process::setting;

use std::sync::Arc;

use super::rows::Rows;
use super::table::{Row, bigint, bytea, int, text};
use crate::proxy::shared::Shared;
use crate::wire::write::Column;

/// What `SHOW HELP` says, in the form of PgBouncer's.
pub(super) const HELP: &str = "
\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|HOSTS|USERS|VERSION
\tSHOW PEERS|PEER_POOLS
\tSHOW FDS|SOCKETS|ACTIVE_SOCKETS|LISTS|MEM|STATE
\tSHOW DNS_HOSTS|DNS_ZONES
\tSHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS
\tSHOW key
\tSET key = arg
\tRELOAD
\tPAUSE [<db>]
\tRESUME [<db>]
\tDISABLE <db>
\tENABLE <db>
\tRECONNECT [<db>]
\tKILL [<db>]
\tKILL_CLIENT <client_id>
\tSUSPEND
\tSHUTDOWN
\tSHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS
\tWAIT_CLOSE [<db>]";

/// Something that can be shown.
#[derive(Debug)]
pub(super) struct View {
    /// The word behind SHOW.
    pub(super) name: &'static str,
    /// The columns.
    pub(super) columns: &'static [Column],
    rows: Make,
}

/// How rows are made.
#[derive(Clone, Copy, Debug)]
enum Make {
    /// All at once: there are few.
    All(fn(&Shared) -> Vec<Row>),
    /// One after the other.
    Each(fn(&Arc<Shared>) -> Rows),
}

use Make::{All, Each};

impl View {
    /// What there is to show at the moment.
    pub(super) fn rows(&self, shared: &Arc<Shared>) -> Rows {
        match self.rows {
            All(rows) => rows(shared).into(),
            Each(rows) => rows(shared),
        }
    }
}

/// Everything that can be shown, but for HELP and single settings.
pub(super) static VIEWS: &[View] = &[
    View { name: "active_sockets", columns: sockets::WITH_BUFFERS, rows: Each(sockets::active) },
    View { name: "clients", columns: sockets::COLUMNS, rows: Each(sockets::clients) },
    View { name: "config", columns: process::CONFIG, rows: All(process::config) },
    View { name: "databases", columns: pools::DATABASES, rows: Each(pools::databases) },
    View { name: "dns_hosts", columns: process::DNS_HOSTS, rows: All(process::dns_hosts) },
    View {
        name: "dns_zones",
        columns: &[text("zonename"), bigint("serial"), int("count")],
        rows: All(nothing),
    },
    View { name: "fds", columns: FDS, rows: All(nothing) },
    View { name: "hosts", columns: pools::HOSTS, rows: All(pools::hosts) },
    View { name: "lists", columns: &[text("list"), int("items")], rows: All(process::lists) },
    View { name: "mem", columns: process::MEM, rows: All(process::mem) },
    View { name: "peer_pools", columns: peers::PEER_POOLS, rows: All(peers::peer_pools) },
    View { name: "peers", columns: peers::PEERS, rows: All(peers::peers) },
    View { name: "pools", columns: pools::POOLS, rows: Each(pools::pools) },
    View { name: "servers", columns: sockets::COLUMNS, rows: Each(sockets::servers) },
    View { name: "sockets", columns: sockets::WITH_BUFFERS, rows: Each(sockets::all) },
    View { name: "state", columns: &[text("key"), text("value")], rows: All(process::state) },
    View { name: "stats", columns: stats::STATS, rows: All(stats::stats) },
    View { name: "stats_averages", columns: stats::AVERAGES, rows: All(stats::averages) },
    View { name: "stats_totals", columns: stats::TOTALS, rows: All(stats::totals) },
    View { name: "totals", columns: stats::SUMS, rows: All(stats::sums) },
    View { name: "users", columns: pools::USERS, rows: Each(pools::users) },
    View { name: "version", columns: &[text("version")], rows: All(process::version) },
];

/// PgBouncer hands its sockets over with these rows, and with them passwords; here nothing is ever handed over.
const FDS: &[Column] = &[
    int("fd"),
    text("task"),
    text("user"),
    text("database"),
    text("addr"),
    int("port"),
    bigint("cancel"),
    int("link"),
    text("client_encoding"),
    text("std_strings"),
    text("datestyle"),
    text("timezone"),
    text("password"),
    bytea("scram_client_key"),
    bytea("scram_server_key"),
];

/// The view of a name, which has to be in lower case.
pub(super) fn view(name: &str) -> Option<&'static View> {
    VIEWS.iter().find(|view| view.name == name)
}

/// There is no such thing here.
fn nothing(_: &Shared) -> Vec<Row> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Access, Config};

    #[test]
    fn rows_have_as_many_values_as_columns() {
        let shared = Arc::new(Shared::new(Config::default(), Access::default(), Vec::new()));
        for view in VIEWS {
            for row in view.rows(&shared) {
                assert_eq!(row.len(), view.columns.len(), "SHOW {}", view.name);
            }
        }
        assert!(VIEWS.is_sorted_by_key(|view| view.name));
        assert!(view("pools").is_some() && view("POOLS").is_none());
    }
}
