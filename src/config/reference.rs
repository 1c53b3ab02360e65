//! Writes the reference documentation from the table of settings.

use std::fmt::Write;

use super::model::{DatabaseConfig, PeerConfig, UserConfig};
use super::settings::{Change, Status, TABLE};

/// `docs/settings.md`.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Settings\n\nMade from the table in `src/config/settings.rs`; a test keeps it current. Names, defaults and \
         meanings are PgBouncer 1.25's, but for those marked **own** and, of a PgBouncer to come, **newer**.\n\n| Setting | Kind | Default | Change | Meaning |\n\
         |---|---|---|---|---|\n",
    );
    for info in TABLE {
        let change = match info.change {
            Change::Reload => "RELOAD, SET",
            Change::Restart => "restart",
        };
        let note = match info.status {
            Status::Works => String::new(),
            Status::Accepted(instead) => format!(" *Accepted: {instead}.*"),
        };
        let mark = match info.name {
            name if OWN.contains(&name) => " **own**",
            name if NEWER.contains(&name) => " **newer**",
            _ => "",
        };
        let default = if info.default.is_empty() { String::new() } else { format!("`{}`", info.default) };
        let _ = writeln!(
            out,
            "| `{}`{mark} | {} | {default} | {change} | {}{note} |",
            info.name,
            info.kind.trim(),
            info.doc
        );
    }
    let _ = writeln!(out, "\n## Keys of `[databases]`\n\n{}", list(DatabaseConfig::KEYS));
    let _ = writeln!(out, "\n## Keys of `[users]`\n\n{}", list(UserConfig::KEYS));
    let _ = writeln!(out, "\n## Keys of `[peers]`\n\n{}", list(PeerConfig::KEYS));
    out.push_str(ENVIRONMENT);
    out
}

/// Settings PgBouncer does not have.
const OWN: &[&str] = &[
    "auth_query_ttl",
    "catalog_refresh_period",
    "client_tls_crl_file",
    "failover_hold_timeout",
    "http_listen_addr",
    "http_port",
    "io_uring",
    "log_format",
    "max_login_clients",
    "max_login_clients_per_address",
    "max_replica_lag",
    "max_replica_lag_bytes",
    "read_consistency",
    "read_write_split",
    "replica_warm_up",
    "server_require_auth",
    "server_tls_crl_file",
    "topology_check_period",
    "workers",
];

/// Settings of the PgBouncer that will follow 1.25.
const NEWER: &[&str] = &["login_notify_message", "pool_idle_timeout"];

const ENVIRONMENT: &str = "
## Environment

Read when no file is named on the command line. If it names no server `/etc/pgbouncer/pgbouncer.ini` is read where that exists,
and its settings do not count. One line of the log says what the configuration was made of; what was found besides is named in a
warning.

* The server: `DATABASE_URL` (or `DATABASE_URLS`, `POSTGRES_URL`); or `DB_HOST`, `DB_PORT`, `DB_USER`, `DB_PASSWORD`, `DB_NAME`;
  or `POSTGRESQL_HOST`, `POSTGRESQL_PORT`, `POSTGRESQL_USERNAME`, `POSTGRESQL_PASSWORD`, `POSTGRESQL_DATABASE`; or
  `DATABASES_HOST`, `DATABASES_PORT`, `DATABASES_USER`, `DATABASES_PASSWORD`, `DATABASES_DBNAME`, which make the line of `*`, user
  and password included, as in pgbouncer/pgbouncer; or lines of `[databases]` in `PGBOUNCER_DSN_0`, `PGBOUNCER_DSN_1`, …
* Keys of `[databases]` may stand behind the `?` of a URL, and `sslmode`; what else stands there has no effect but a warning.
* With `auth_type=any` the server's user and password are in the database's line.
* More users: lines of a userlist in `PGBOUNCER_USERLIST`; `ADMIN_USERS` and `ADMIN_PASSWORDS`, `STATS_USERS` and
  `STATS_PASSWORDS`, lists of the same length.
* All others are looked up in the database (`auth_query`): as the user of `DB_USER` or the URL, whom `AUTH_USER` does not
  replace, as in edoburu/pgbouncer; with the other names for the server only as `PGBOUNCER_AUTH_USER`, as in
  bitnami/pgbouncer, or if `PGBOUNCER_AUTH_QUERY` is set. `PGBOUNCER_AUTH_USER` comes before all of that.
* Settings: `PGBOUNCER_<SETTING>`, or the setting's name in capitals. For the server above: `POOL_SIZE`, `CLIENT_ENCODING`,
  `TIMEZONE`, `PGBOUNCER_CONNECT_QUERY`, `PGBOUNCER_SET_DATABASE_USER=yes`, `PGBOUNCER_SET_DATABASE_PASSWORD=yes`.
* Any of these with `_FILE` behind it names a file that holds the value.
* Defaults that differ: `listen_addr=0.0.0.0`, `auth_type=scram-sha-256`, `ignore_startup_parameters=extra_float_digits`, and the
  server's user is in `admin_users`. The port is 6432 also where an image had 5432 (`LISTEN_PORT=5432`).
* What Kubernetes adds for Services (`PGBOUNCER_PORT=tcp://…`) is not read.

## Health checks

`/livez` and `/readyz` by HTTP; `pgweir healthcheck [FILE]`, which asks `/readyz`; and `pg_isready`, a link to the program that
answers as PostgreSQL's own does (`-h`, `-p`, `-U`, `-d`, `-t`, `-q`; exit codes 0 accepting, 1 rejecting, 2 no response, 3 no
attempt). Where a host of this machine or none is named, and no port, both ask the pooler that runs with the configuration
found here: FILE, else the file that process 1 names, else the usual file or the environment. The image has no shell: write
`[\"CMD\", \"pg_isready\"]`, not `CMD-SHELL`.
";

fn list(keys: &[&str]) -> String {
    keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE_DOCS=1 cargo test` writes the file.
    #[test]
    fn the_documentation_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");
        let expected = markdown();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &expected).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), expected, "run UPDATE_DOCS=1 cargo test");
    }
}
