//! The settings: the one table from which everything else follows.

use std::time::Duration;

use super::value::{
    AuthType, Consistency, FileMode, Iterations, LogFormat, Milliseconds, PoolMode, TlsMode, Value,
};
use crate::auth::require::RequireAuth;

/// When a changed setting takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// By RELOAD or SET.
    Reload,
    /// By a restart.
    Restart,
}

/// What a setting does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// What PgBouncer's documentation says.
    Works,
    /// It is accepted; this is what happens instead.
    Accepted(&'static str),
}

/// A row of the table.
#[derive(Debug)]
pub struct SettingInfo {
    /// Name in the `[pgbouncer]` section.
    pub name: &'static str,
    /// Kind of value.
    pub kind: &'static str,
    /// Default, as it would be written.
    pub default: &'static str,
    /// When a change takes effect.
    pub change: Change,
    /// What it does here.
    pub status: Status,
    /// One sentence.
    pub doc: &'static str,
}

macro_rules! settings {
    ($($name:ident: $kind:ty = $default:literal, $change:ident, $status:expr, $doc:literal;)*) => {
        /// The values of all settings.
        #[derive(Clone, Debug)]
        pub struct Settings { $(#[doc = $doc] pub $name: $kind,)* }

        /// All settings, in alphabetical order.
        pub static TABLE: &[SettingInfo] = &[$(SettingInfo {
            name: stringify!($name),
            kind: <$kind as Value>::KIND,
            default: $default,
            change: Change::$change,
            status: $status,
            doc: $doc,
        },)*];

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: match <$kind as Value>::parse($default) {
                    Ok(value) => value,
                    Err(_) => unreachable!("defaults are valid: a test reads each of them"),
                },)* }
            }
        }

        impl Settings {
            /// Changes a setting; the error says what was expected. `None`: there is no such setting.
            pub fn set(&mut self, name: &str, text: &str) -> Option<Result<(), String>> {
                match name {
                    $(stringify!($name) => Some(<$kind as Value>::parse(text).map(|value| self.$name = value)),)*
                    _ => None,
                }
            }

            /// A setting's value as text.
            pub fn show(&self, name: &str) -> Option<String> {
                match name {
                    $(stringify!($name) => Some(self.$name.show()),)*
                    _ => None,
                }
            }
        }
    };
}

use Status::{Accepted, Works};

settings! {
    admin_users: Vec<String> = "", Reload, Works, "Users who may do everything at the console, separated by commas or blanks.";
    application_name_add_host: bool = "0", Reload, Works, "Add the client's address to application_name.";
    auth_dbname: String = "", Reload, Works, "Database in which auth_query runs.";
    auth_file: String = "", Reload, Works, "File of users and secrets, or a folder with one file per user: its name the user, its text the secret. A line that is none is left out, with a warning.";
    auth_hba_file: String = "", Reload, Works, "File of rules for auth_type=hba.";
    auth_ident_file: String = "", Reload, Works, "File of user name maps.";
    auth_ldap_options: String = "", Reload, Works, "Options for auth_type=ldap.";
    auth_query: String = "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END FROM pg_authid WHERE rolname=$1 AND rolcanlogin", Reload, Works, "Query that looks up a user's secret.";
    auth_query_ttl: Duration = "0", Reload, Works, "Seconds for which the result of auth_query is remembered; 0: each login asks. Users that are not found are remembered for half a second in any case. A third column of the query may tell for how many seconds the role is still valid.";
    auth_type: AuthType = "md5", Reload, Works, "How clients prove who they are.";
    auth_user: String = "", Reload, Works, "User who runs auth_query.";
    autodb_idle_timeout: Duration = "3600", Reload, Works, "Seconds after which an unused automatic database is forgotten.";
    cancel_wait_timeout: Duration = "10", Reload, Works, "Seconds a cancel request may wait for a connection.";
    catalog_refresh_period: Duration = "60", Reload, Works, "Seconds between looks at a database's functions and views, with read_write_split. Changes made through this pooler are noticed at once.";
    client_idle_timeout: Duration = "0", Reload, Works, "Seconds a client may be idle; 0 means forever.";
    client_login_timeout: Duration = "60", Reload, Works, "Seconds a client may take to log in.";
    client_tls13_ciphers: String = "", Reload, Works, "TLS 1.3 cipher suites towards clients.";
    client_tls_ca_file: String = "", Reload, Works, "Authorities for client certificates; empty for the system's.";
    client_tls_cert_file: String = "", Reload, Works, "Certificate shown to clients.";
    client_tls_ciphers: String = "default", Reload, Works, "TLS 1.2 ciphers towards clients.";
    client_tls_crl_file: String = "", Reload, Works, "Revoked client certificates.";
    client_tls_dheparams: String = "auto", Reload, Accepted("DHE is not offered; ECDHE is"), "DHE key exchange parameters.";
    client_tls_ecdhcurve: String = "auto", Reload, Works, "Elliptic curve for ECDH.";
    client_tls_key_file: String = "", Reload, Works, "Key of the certificate shown to clients.";
    client_tls_protocols: String = "secure", Reload, Works, "TLS versions towards clients.";
    client_tls_sslmode: TlsMode = "disable", Reload, Works, "TLS towards clients.";
    conffile: String = "", Reload, Accepted("shows the file the configuration was read from"), "The configuration file.";
    default_pool_size: u32 = "20", Reload, Works, "Server connections per pool; 0 means any number.";
    disable_pqexec: bool = "0", Restart, Works, "Refuse the simple query protocol.";
    dns_max_ttl: Duration = "15", Reload, Works, "Seconds a name look-up is cached.";
    dns_nxdomain_ttl: Duration = "15", Reload, Works, "Seconds a failed name look-up is cached; 0.4 at most where a connection is to be opened.";
    dns_zone_check_period: Duration = "0", Reload, Works, "Seconds after which the names of servers in use are looked up again although nobody connects, where PgBouncer asks for the serials of their zones; 0: never.";
    failover_hold_timeout: Duration = "60", Reload, Works, "Seconds for which clients that need the primary are held while there is none, with read_write_split; then they are refused. 0 means forever.";
    http_listen_addr: String = "127.0.0.1", Restart, Works, "Address of the HTTP listener for metrics and probes.";
    http_port: u16 = "9127", Restart, Works, "Port of the HTTP listener; 0 turns it off.";
    idle_transaction_timeout: Duration = "0", Reload, Works, "Seconds a transaction may be idle; 0 means forever.";
    ignore_startup_parameters: Vec<String> = "", Reload, Works, "Startup parameters that are accepted and ignored, separated by commas or blanks.";
    io_uring: bool = "1", Restart, Works, "Move the clients' and servers' bytes by io_uring where the kernel permits it (Linux 6.1, and no seccomp filter against it, as containers have by default); otherwise, and for TLS connections, by epoll.";
    job_name: String = "pgbouncer", Restart, Accepted("only shown"), "Name of a Windows service.";
    listen_addr: String = "", Restart, Works, "Addresses to listen on, comma-separated; * means all, empty means Unix sockets only.";
    listen_backlog: u32 = "128", Restart, Works, "Length of the kernel's queue of new connections.";
    listen_port: u16 = "6432", Restart, Works, "Port to listen on.";
    log_connections: bool = "1", Reload, Works, "Log logins.";
    log_disconnections: bool = "1", Reload, Works, "Log disconnections and why.";
    log_format: LogFormat = "pgbouncer", Restart, Works, "Form of log lines.";
    log_pooler_errors: bool = "1", Reload, Works, "Log errors sent to clients.";
    log_stats: bool = "1", Reload, Works, "Log statistics each stats_period.";
    logfile: String = "", Reload, Works, "File to log to, besides standard error.";
    login_notify_message: String = "", Reload, Works, "Notice sent to clients after login.";
    max_client_conn: u32 = "100", Reload, Works, "Clients that may be connected.";
    max_db_client_connections: u32 = "0", Reload, Works, "Clients per database; 0 means any number.";
    max_db_connections: u32 = "0", Reload, Works, "Server connections per database; 0 means any number.";
    max_login_clients: u32 = "1000", Reload, Works, "Connections that have not logged in yet, those of Unix sockets counted for themselves; 0 means any number. When there are as many, the first one that has been silent for a second makes room for a new one. At most a quarter of the files the process may open.";
    max_login_clients_per_address: u32 = "0", Reload, Works, "The same for one address; 0 means any number. A TCP balancer gives all clients one address.";
    max_packet_size: u32 = "2147483647", Reload, Works, "Longest message in bytes, its header included, that a client or a server may send: a query, or a row of a result.";
    max_prepared_statements: u32 = "200", Reload, Works, "Named prepared statements per server connection in transaction and statement mode; 0 passes them through.";
    max_replica_lag: Duration = "0", Reload, Works, "Seconds a replica may be behind the primary and still serve reads; 0 means any time. It is known as exactly as topology_check_period allows.";
    max_replica_lag_bytes: u64 = "0", Reload, Works, "Bytes of WAL a replica may be behind the primary and still serve reads; 0 means any number.";
    max_user_client_connections: u32 = "0", Reload, Works, "Clients per user; 0 means any number.";
    max_user_connections: u32 = "0", Reload, Works, "Server connections per user; 0 means any number.";
    min_pool_size: u32 = "0", Reload, Works, "Server connections kept open per pool in use.";
    peer_id: u32 = "0", Reload, Works, "Number of this process among its peers, 1 to 65535; 0 means it has none.";
    pidfile: String = "", Restart, Works, "File that holds the process ID.";
    pkt_buf: u32 = "4096", Restart, Accepted("buffers belong to threads and have 64 KB"), "Buffer size.";
    pool_idle_timeout: Duration = "0", Reload, Works, "Seconds after which an unused pool is forgotten; 0 means never.";
    pool_mode: PoolMode = "session", Reload, Works, "When a server connection is given back.";
    query_timeout: Duration = "0", Reload, Works, "Seconds a query may take; 0 means any time.";
    query_wait_notify: Duration = "5", Reload, Works, "Seconds after which a waiting client is told so; 0 means never.";
    query_wait_timeout: Duration = "120", Reload, Works, "Seconds a client may wait for a server; 0 means forever.";
    read_consistency: Consistency = "session", Reload, Works, "What a read on a replica must not miss: nothing in particular, the client's own writes, or all writes made through this pooler.";
    read_write_split: bool = "0", Reload, Works, "Send reads to replicas, for databases with several hosts.";
    replica_warm_up: Duration = "10", Reload, Works, "Seconds in which a replica that has come back, or is new, grows into its share of the reads; 0 means at once.";
    reserve_pool_size: u32 = "0", Reload, Works, "Additional server connections for clients that wait too long.";
    reserve_pool_timeout: Duration = "5", Reload, Works, "Seconds of waiting after which the reserve is used.";
    resolv_conf: String = "", Restart, Accepted("the system's resolver looks names up, with /etc/resolv.conf and /etc/hosts"), "File with the resolver's configuration.";
    sbuf_loopcnt: u32 = "5", Reload, Accepted("connections are served fairly in another way"), "Rounds per connection before others get their turn.";
    scram_iterations: Iterations = "4096", Reload, Works, "Iterations for SCRAM verifiers made from plain secrets, at most 1000000. No stored verifier and no server may ask for more.";
    server_check_delay: Duration = "30", Reload, Works, "Seconds of idleness after which a server is checked before use.";
    server_check_query: String = "<empty>", Reload, Works, "Query that checks a server; `<empty>` sends an empty one, an empty value turns checks off. A server that fails is closed and another one tried; after three the next one is used unchecked.";
    server_connect_timeout: Duration = "15", Reload, Works, "Seconds that connecting and logging in to a server may take.";
    server_fast_close: bool = "0", Reload, Works, "On RECONNECT, close servers of session pools as soon as they are outside a transaction.";
    server_idle_timeout: Duration = "600", Reload, Works, "Seconds a server connection may be idle; 0 means forever.";
    server_lifetime: Duration = "3600", Reload, Works, "Seconds after which a server connection is closed; 0: after it was used once.";
    server_login_retry: Duration = "15", Reload, Works, "Seconds between attempts after a server has refused a login; unreachable ones are tried sooner, every 0.5 s while clients wait.";
    server_require_auth: RequireAuth = "", Reload, Works, "Methods a server may use when we log in, as libpq's require_auth: a list of `password`, `md5`, `scram-sha-256`, `none` (the server asks for nothing), `gss` and `sspi`, or the same with `!` in front of each for those it may not use. Empty: all, `none` among them, but the password itself only by TLS, a Unix socket or a loopback address; a list with `password` in it allows that anywhere.";
    server_reset_query: String = "DISCARD ALL", Reload, Works, "Query that cleans a server when a session client leaves.";
    server_reset_query_always: bool = "0", Reload, Works, "Run server_reset_query in all pool modes.";
    server_round_robin: bool = "0", Reload, Works, "Use idle servers in turn instead of the last one used.";
    server_tls13_ciphers: String = "", Reload, Works, "TLS 1.3 cipher suites towards servers.";
    server_tls_ca_file: String = "", Reload, Works, "Authorities for server certificates; empty for the system's (`SSL_CERT_FILE`).";
    server_tls_cert_file: String = "", Reload, Works, "Certificate shown to servers.";
    server_tls_ciphers: String = "default", Reload, Works, "TLS 1.2 ciphers towards servers.";
    server_tls_crl_file: String = "", Reload, Works, "Revoked server certificates.";
    server_tls_key_file: String = "", Reload, Works, "Key of the certificate shown to servers.";
    server_tls_protocols: String = "secure", Reload, Works, "TLS versions towards servers.";
    server_tls_sslmode: TlsMode = "prefer", Reload, Works, "TLS towards servers.";
    service_name: String = "", Restart, Accepted("only shown"), "The same as job_name.";
    so_reuseport: bool = "0", Restart, Works, "Let several processes listen on the same port.";
    stats_period: u32 = "60", Reload, Works, "Seconds over which averages are taken.";
    stats_users: Vec<String> = "", Reload, Works, "Users who may look around at the console, separated by commas or blanks.";
    suspend_timeout: Duration = "10", Reload, Works, "Seconds SUSPEND may take before it closes the clients it cannot suspend; 0 means any time.";
    syslog: bool = "0", Reload, Works, "Log to the local syslog, too.";
    syslog_facility: String = "daemon", Reload, Works, "Facility for syslog: auth, authpriv, daemon, user, or local0 to local7.";
    syslog_ident: String = "pgbouncer", Reload, Works, "Name for syslog.";
    tcp_defer_accept: u32 = "1", Reload, Works, "The kernel keeps new connections to itself until something has come, a second at most; 0: it hands them over at once.";
    tcp_keepalive: bool = "1", Reload, Works, "Use TCP keepalive.";
    tcp_keepcnt: u32 = "0", Reload, Works, "Keepalive probes before a connection is given up; 0 means the system's default.";
    tcp_keepidle: Duration = "0", Reload, Works, "Seconds of silence before keepalive probes; 0 means the system's default.";
    tcp_keepintvl: Duration = "0", Reload, Works, "Seconds between keepalive probes; 0 means the system's default.";
    tcp_socket_buffer: u32 = "0", Reload, Works, "Bytes of socket buffers; 0 means the system's default.";
    tcp_user_timeout: Milliseconds = "0", Reload, Works, "Milliseconds sent data may remain unacknowledged; 0 means the system's default.";
    topology_check_period: Duration = "0.1", Reload, Works, "Seconds between questions to each host what it is and how far it has come, with read_write_split.";
    track_extra_parameters: Vec<String> = "IntervalStyle", Restart, Works, "Parameters that follow the client although servers do not report them; those that are reported always do.";
    transaction_timeout: Duration = "0", Reload, Works, "Seconds a transaction may take; 0 means any time.";
    unix_socket_dir: String = "/tmp", Restart, Works, "Directory of the Unix socket, or @ and a name in the abstract namespace; empty for none. Servers without host= are there, too.";
    unix_socket_group: String = "", Restart, Works, "Group of the Unix socket.";
    unix_socket_mode: FileMode = "0777", Restart, Works, "Permissions of the Unix socket.";
    user: String = "", Restart, Works, "User to become after start-up.";
    verbose: u32 = "0", Reload, Works, "How much is logged; the flag -v adds to it.";
    workers: u32 = "0", Restart, Works, "Threads that serve clients; 0 means one per CPU the process may use.";
}

/// The row of a setting.
pub fn info(name: &str) -> Option<&'static SettingInfo> {
    TABLE.iter().find(|info| info.name == name)
}

/// The known name nearest to a misspelt one, if any is near.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.len() / 3).clamp(2, 4);
    known.map(|k| (distance(name, k), k)).min().filter(|(d, _)| *d <= limit).map(|(_, k)| k)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        let mut settings = Settings::default();
        for info in TABLE {
            assert_eq!(settings.set(info.name, info.default), Some(Ok(())), "{}", info.name);
            assert!(settings.show(info.name).is_some());
        }
        assert!(TABLE.is_sorted_by_key(|info| info.name));
        assert_eq!(settings.set("nothing", "1"), None);
        assert_eq!(settings.default_pool_size, 20);
        assert_eq!(settings.show("unix_socket_mode").unwrap(), "0777");
    }

    #[test]
    fn misspelt_names_are_recognised() {
        let names = || TABLE.iter().map(|info| info.name);
        assert_eq!(nearest("defualt_pool_size", names()), Some("default_pool_size"));
        assert_eq!(nearest("max_client_con", names()), Some("max_client_conn"));
        assert_eq!(nearest("entirely_different_thing", names()), None);
    }
}
