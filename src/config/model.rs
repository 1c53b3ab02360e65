//! The configuration in force: settings, databases, users, made of whatever a source says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{ConfigError, Problem};
use super::raw::{Item, Origin, Section};
use super::settings::{self, Settings, Status};
use super::value::{AuthType, Consistency, LoadBalance, PoolMode, TlsMode, Value};
use super::{connstr, env, ini, mask, toml};
use crate::auth::require::RequireAuth;
use crate::auth::secret::{Cleartext, Secret};

/// A validated configuration.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Global settings.
    pub settings: Settings,
    /// Names of the settings that the source gives.
    pub explicit: BTreeSet<String>,
    /// `[databases]` by name.
    pub databases: BTreeMap<String, DatabaseConfig>,
    /// `*` in `[databases]`: stands for any name not listed.
    pub fallback: Option<DatabaseConfig>,
    /// `[users]` by name.
    pub users: BTreeMap<String, UserConfig>,
    /// `[peers]` by their `peer_id`.
    pub peers: BTreeMap<u16, PeerConfig>,
    /// Users and secrets that the environment gives, besides those in `auth_file`; `None`: it gives no password.
    pub passwords: Vec<(String, Option<Secret>)>,
    /// Where all this comes from.
    pub source: Source,
}

/// Where a configuration comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Variables of the environment.
    #[default]
    Environment,
    /// A file.
    File(PathBuf),
}

/// A configuration that can be used, and what its author should know about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Things accepted, but without the effect they seem to promise.
    pub warnings: Vec<Problem>,
    /// What made it, for people: files, or variables of the environment.
    pub sources: Vec<String>,
}

macro_rules! options {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name { $($(#[$field_meta])* pub $field: Option<$kind>,)* }

        impl $name {
            /// Names of all keys.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($field)),*];

            /// Sets a key; the error says what was expected. `None`: there is no such key.
            fn set(&mut self, key: &str, text: &str) -> Option<Result<(), String>> {
                match key {
                    $(stringify!($field) => Some(<$kind as Value>::parse(text).map(|value| self.$field = Some(value))),)*
                    _ => None,
                }
            }
        }
    };
}

options! {
    /// A line of `[databases]`. Keys that are not given are `None`: the global setting holds.
    DatabaseConfig {
        /// Hosts, in order.
        host: Vec<String>,
        /// Their ports: one for all, or one for each.
        port: Vec<u16>,
        /// Their shares of the reads: one for all, or one for each; 0: none.
        weight: Vec<u32>,
        /// Name on the server.
        dbname: String,
        /// User for all server connections of this database.
        user: String,
        /// … and its password.
        password: String,
        /// Overrides the global setting, as do the next two.
        auth_user: String,
        /// …
        auth_dbname: String,
        /// …
        auth_query: String,
        /// Startup parameter for servers.
        client_encoding: String,
        /// Startup parameter for servers.
        datestyle: String,
        /// Startup parameter for servers.
        timezone: String,
        /// Startup parameter for servers.
        application_name: String,
        /// Overrides `default_pool_size`.
        pool_size: u32,
        /// Overrides the global setting, as all that follow.
        min_pool_size: u32,
        /// …
        reserve_pool_size: u32,
        /// …
        max_db_connections: u32,
        /// …
        max_db_client_connections: u32,
        /// …
        server_lifetime: Duration,
        /// …
        query_wait_timeout: Duration,
        /// …
        pool_mode: PoolMode,
        /// What servers may ask for when we log in.
        server_require_auth: RequireAuth,
        /// How several hosts are used.
        load_balance_hosts: LoadBalance,
        /// Run on each new server connection.
        connect_query: String,
        /// Send reads to replicas.
        read_write_split: bool,
        /// What reads on replicas must not miss.
        read_consistency: Consistency,
        /// How far behind a replica may be that serves reads.
        max_replica_lag: Duration,
        /// …
        max_replica_lag_bytes: u64,
        /// How long a replica that has come back is warmed up.
        replica_warm_up: Duration,
    }
}

options! {
    /// A line of `[users]`.
    UserConfig {
        /// Overrides the database's, as `reserve_pool_size` does.
        pool_size: u32,
        /// …
        reserve_pool_size: u32,
        /// …
        pool_mode: PoolMode,
        /// Server connections of this user.
        max_user_connections: u32,
        /// Clients of this user.
        max_user_client_connections: u32,
        /// Overrides the global setting, as all that follow.
        query_timeout: Duration,
        /// …
        query_wait_timeout: Duration,
        /// …
        idle_transaction_timeout: Duration,
        /// …
        transaction_timeout: Duration,
        /// …
        client_idle_timeout: Duration,
    }
}

options! {
    /// A line of `[peers]`: another process that may get the cancel requests for this one's clients.
    PeerConfig {
        /// Where it listens: a name, an address or the directory of a Unix socket.
        host: String,
        /// 6432 unless given.
        port: u16,
        /// How many cancel requests may be on their way to it; `default_pool_size` unless given.
        pool_size: u32,
    }
}

impl PeerConfig {
    /// PgBouncer's port.
    pub const DEFAULT_PORT: u16 = 6432;
}

impl DatabaseConfig {
    /// Its own `server_lifetime`; as in PgBouncer 0 means that it has none.
    pub fn server_lifetime(&self) -> Option<Duration> {
        self.server_lifetime.filter(|lifetime| !lifetime.is_zero())
    }

    /// Hosts and their ports. Without a host the name of the only one is empty: it is the setting `unix_socket_dir`.
    pub fn hosts(&self) -> Vec<(String, u16)> {
        let none = [String::new()];
        let hosts = self.host.as_deref().filter(|hosts| !hosts.is_empty()).unwrap_or(&none);
        let ports = self.port.as_deref().unwrap_or(&[5432]);
        let port = |n: usize| ports.get(n).or(ports.first()).copied().unwrap_or(5432);
        hosts.iter().enumerate().map(|(n, host)| (host.clone(), port(n))).collect()
    }

    /// The password for all server connections of this database. An empty one is none.
    pub fn server_password(&self) -> Option<Cleartext> {
        self.password.as_deref().and_then(Cleartext::new)
    }

    /// The hosts' shares of the reads, compared with each other.
    pub fn weights(&self) -> Vec<u32> {
        let weights = self.weight.as_deref().unwrap_or(&[1]);
        let weight = |n: usize| weights.get(n).or(weights.first()).copied().unwrap_or(1);
        (0..self.hosts().len()).map(weight).collect()
    }
}

impl Config {
    /// Whether the source gives this setting.
    pub fn is_explicit(&self, name: &str) -> bool {
        self.explicit.contains(name)
    }

    /// The database a name stands for, and whether only `*` does.
    pub fn database(&self, name: &str) -> Option<(&DatabaseConfig, bool)> {
        self.databases
            .get(name)
            .map(|found| (found, false))
            .or(self.fallback.as_ref().map(|found| (found, true)))
    }
}

/// Reads a file: TOML if its name ends in `.toml`, else `pgbouncer.ini`.
pub fn load_file(path: &Path) -> Result<Loaded, ConfigError> {
    let items = items(path)?;
    let has_settings = items.iter().any(|item| matches!(item, Item::Reset));
    let mut loaded = of_file(items, path)?;
    if !has_settings {
        let message =
            format!("{} has no [pgbouncer] section: all settings have their defaults", path.display());
        loaded.warnings.push(Problem::general(message));
    }
    Ok(loaded)
}

/// Reads a file again that has been read before. One that is just being written may be empty, or end too early: without a
/// `[pgbouncer]` section, or `[databases]` where there were some, it is an error.
pub fn load_file_again(path: &Path, current: &Config) -> Result<Loaded, ConfigError> {
    let items = items(path)?;
    let has_settings = items.iter().any(|item| matches!(item, Item::Reset));
    let is_databases = |item: &Item| match item {
        Item::Header(section) => *section == Section::Databases,
        _ => false,
    };
    let had_databases = !current.databases.is_empty() || current.fallback.is_some();
    let missing = if !has_settings {
        "[pgbouncer]"
    } else if had_databases && !items.iter().any(is_databases) {
        "[databases]"
    } else {
        return of_file(items, path);
    };
    let problem = Problem::general(format!("{} has no {missing} section", path.display()));
    Err(ConfigError::one(
        problem.hint("it may not be finished: nothing has changed; an empty section is allowed"),
    ))
}

fn items(path: &Path) -> Result<Vec<Item>, ConfigError> {
    let is_toml = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"));
    if is_toml { toml::read(path) } else { ini::read(path) }
}

fn of_file(items: Vec<Item>, path: &Path) -> Result<Loaded, ConfigError> {
    let mut loaded = build(items)?;
    loaded.config.source = Source::File(path.to_owned());
    // Those that it includes follow.
    let name = path.display().to_string();
    loaded.sources.retain(|source| *source != name);
    loaded.sources.insert(0, name);
    loaded.config.settings.conffile = path.display().to_string();
    Ok(loaded)
}

/// Reads the environment; `None` if nothing in it says where a server is.
pub fn load_env(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Option<Loaded>, ConfigError> {
    let Some(found) = env::read(variables)? else { return Ok(None) };
    let mut loaded = build(found.items)?;
    loaded.config.passwords = found.passwords;
    loaded.warnings.extend(found.warnings);
    loaded.sources = vec![format!("environment variables {}", found.variables.join(", "))];
    Ok(Some(loaded))
}

/// Makes a configuration of what a source says. All problems are reported, not only the first.
pub fn build(items: Vec<Item>) -> Result<Loaded, ConfigError> {
    let mut builder = Builder::default();
    let mut sources = Vec::new();
    for item in items {
        let file = item.origin().map(|origin| &*origin.file);
        if let Some(file) = file.filter(|file| !sources.iter().any(|known| known == file)) {
            sources.push(file.to_owned());
        }
        builder.item(item);
    }
    builder.check();
    if builder.problems.is_empty() {
        Ok(Loaded { config: builder.config, warnings: builder.warnings, sources })
    } else {
        Err(ConfigError(builder.problems))
    }
}

#[derive(Default)]
struct Builder {
    config: Config,
    origins: BTreeMap<String, Origin>,
    warnings: Vec<Problem>,
    problems: Vec<Problem>,
    /// What comes next may be part of a secret.
    hides: bool,
}

impl Builder {
    fn item(&mut self, item: Item) {
        match item {
            Item::Reset => {
                self.config.settings = Settings::default();
                self.config.explicit.clear();
                self.origins.clear();
            }
            Item::Header(_) => {}
            Item::Entry { section: Section::Pgbouncer, key, value, origin } => {
                self.setting(key, &value, &origin)
            }
            Item::Entry { section, key, value, origin } => match connstr::parse(&value) {
                Ok(pairs) => {
                    let pairs = pairs.into_iter().map(|(k, v)| (k, v, origin.clone())).collect();
                    self.entity(section, key, pairs, &origin);
                }
                Err((at, expected)) => {
                    let message = format!("{key}: {expected} at byte {} of the value", at + 1);
                    let hint = "a value with blanks in it has to be in single quotes";
                    self.problems.push(Problem::at(&origin, message).hint(hint));
                }
            },
            Item::Table { section: Section::Pgbouncer, key, origin, .. } => {
                self.problems.push(Problem::at(&origin, format!("{key}: expected a value, not a table")));
            }
            Item::Table { section, key, pairs, origin } => self.entity(section, key, pairs, &origin),
        }
    }

    fn setting(&mut self, key: String, value: &str, origin: &Origin) {
        match self.config.settings.set(&key, value) {
            None => self.unknown(
                &format!("unknown setting {key}"),
                &key,
                settings::TABLE.iter().map(|i| i.name),
                origin,
            ),
            Some(Err(expected)) => {
                // A connect string is in the wrong section.
                let shown = if value.contains('=') { "***" } else { value };
                self.problems
                    .push(Problem::at(origin, format!("invalid value \"{shown}\" for {key}: {expected}")));
            }
            Some(Ok(())) => {
                self.config.explicit.insert(key.clone());
                self.origins.insert(key, origin.clone());
            }
        }
    }

    fn unknown(
        &mut self,
        message: &str,
        key: &str,
        known: impl Iterator<Item = &'static str>,
        origin: &Origin,
    ) {
        let problem = Problem::at(origin, message);
        self.problems.push(match settings::nearest(key, known) {
            Some(near) => problem.hint(format!("did you mean {near}?")),
            None => problem,
        });
    }

    fn entity(
        &mut self,
        section: Section,
        name: String,
        pairs: Vec<(String, String, Origin)>,
        origin: &Origin,
    ) {
        self.hides = false;
        match section {
            Section::Databases => self.database(name, pairs, origin),
            Section::Users => {
                let mut user = UserConfig::default();
                for (key, value, origin) in pairs {
                    let set = user.set(&key, &value);
                    self.outcome(set, &format!("user {name}"), &key, &value, UserConfig::KEYS, &origin);
                }
                self.config.users.insert(name, user);
            }
            Section::Peers => self.peer(&name, pairs, origin),
            Section::Pgbouncer => {}
        }
    }

    fn database(&mut self, name: String, pairs: Vec<(String, String, Origin)>, origin: &Origin) {
        let mut database = DatabaseConfig::default();
        let mut secret = origin.clone();
        for (key, value, origin) in pairs {
            if key == "password" {
                secret = origin.clone();
            }
            let key = if key == "reserve_pool" { "reserve_pool_size".to_owned() } else { key };
            let set = database.set(&key, &value);
            self.outcome(set, &format!("database {name}"), &key, &value, DatabaseConfig::KEYS, &origin);
        }
        if database.user.is_none() && database.password.take().is_some() {
            let problem =
                Problem::at(&secret, format!("database {name}: password has no effect without user"));
            let hint = "servers are logged in to as the client's own user, with the secret that auth_file or auth_query has";
            self.warnings.push(problem.hint(hint));
        }
        let hosts = database.hosts().len();
        let ports = ("ports", database.port.as_ref().map_or(1, Vec::len));
        let weights = ("weights", database.weight.as_ref().map_or(1, Vec::len));
        for (what, count) in [ports, weights] {
            if count != 1 && count != hosts {
                let problem = format!("database {name} has {hosts} hosts but {count} {what}");
                self.problems.push(Problem::at(origin, problem));
            }
        }
        if name == "pgbouncer" {
            self.problems.push(Problem::at(origin, "database name \"pgbouncer\" is reserved"));
        } else if name == "*" {
            self.config.fallback = Some(database);
        } else {
            self.config.databases.insert(name, database);
        }
    }

    fn peer(&mut self, name: &str, pairs: Vec<(String, String, Origin)>, origin: &Origin) {
        let mut peer = PeerConfig::default();
        for (key, value, origin) in pairs {
            let set = peer.set(&key, &value);
            self.outcome(set, &format!("peer {name}"), &key, &value, PeerConfig::KEYS, &origin);
        }
        let Ok(id @ 1..) = name.parse::<u16>() else {
            let message = format!("peer {name}: the ID of a peer is a number from 1 to {}", u16::MAX);
            return self.problems.push(Problem::at(origin, message));
        };
        if peer.host.as_deref().unwrap_or_default().is_empty() {
            self.problems.push(Problem::at(origin, format!("peer {name} has no host")));
        }
        self.config.peers.insert(id, peer);
    }

    fn outcome(
        &mut self,
        set: Option<Result<(), String>>,
        of: &str,
        key: &str,
        value: &str,
        known: &'static [&'static str],
        origin: &Origin,
    ) {
        let hid = self.hides;
        self.hides |= !mask::has_nothing_to_hide(key);
        match set {
            // It may be the rest of a password.
            None if hid => {
                let problem =
                    Problem::at(origin, format!("{of}: unknown key behind a password, not shown here"));
                self.problems.push(problem.hint("a value with blanks in it has to be in single quotes"));
            }
            None => self.unknown(&format!("{of}: unknown key {key}"), key, known.iter().copied(), origin),
            Some(Err(expected)) => {
                // What a URL says may be in the wrong place.
                let shown = if self.hides || origin.line == 0 { "***" } else { value };
                let problem =
                    Problem::at(origin, format!("{of}: invalid value \"{shown}\" for {key}: {expected}"));
                self.problems.push(problem);
            }
            Some(Ok(())) => {}
        }
    }

    /// What can be said only when everything is known.
    fn check(&mut self) {
        let settings = &self.config.settings;
        let mut refuse = |key: &str, message: &str, hint: &str| {
            let problem = match self.origins.get(key) {
                Some(origin) => Problem::at(origin, message),
                None => Problem::general(message),
            };
            self.problems.push(problem.hint(hint.to_owned()));
        };
        if settings.auth_type == AuthType::Cert && settings.client_tls_sslmode != TlsMode::VerifyFull {
            let hint =
                "auth_type=cert takes the user's name from a client certificate that has been verified";
            refuse("auth_type", "auth_type=cert requires client_tls_sslmode=verify-full", hint);
        }
        if settings.auth_dbname == "pgbouncer" {
            let message = "cannot use the reserved \"pgbouncer\" database as an auth_dbname";
            refuse("auth_dbname", message, "name a database in which auth_query can run");
        }
        if settings.peer_id > u16::MAX.into() {
            let hint = "the cancel keys of clients carry it, and have 16 bits for it";
            refuse("peer_id", &format!("peer_id must not be more than {}", u16::MAX), hint);
        }
        let without_effect = |(name, origin): (&String, &Origin)| {
            let row = settings::info(name)?;
            let instead = match row.status {
                Status::Works => return None,
                Status::Accepted(instead) => format!("{name} has no effect: {instead}"),
            };
            let is_default = settings.show(name).as_deref() == Some(row.default);
            (!is_default).then(|| Problem::at(origin, instead))
        };
        let warnings = self.origins.iter().filter_map(without_effect);
        self.warnings.extend(warnings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Loaded, ConfigError> {
        build(ini::parse(text, Path::new("x.ini"))?)
    }

    #[test]
    fn everything_is_found_in_its_place() {
        let text = "[databases]\na = host=h1,h2 port=1,2 pool_size=7 read_write_split=1\nb=\n* = host=/run port=3\n\
                    [users]\nme = pool_mode=session\n[peers]\n2 = host=/run port=7001\n[pgbouncer]\nlisten_port = 7000\n";
        let config = load(text).unwrap().config;
        assert_eq!(config.databases["a"].hosts(), [("h1".into(), 1), ("h2".into(), 2)]);
        assert_eq!(config.databases["b"].hosts(), [("".into(), 5432)]);
        assert_eq!(config.database("zzz").unwrap().0.hosts(), [("/run".into(), 3)]);
        assert!(config.database("zzz").unwrap().1);
        assert_eq!(config.users["me"].pool_mode, Some(PoolMode::Session));
        assert_eq!((config.peers[&2].host.as_deref(), config.peers[&2].port), (Some("/run"), Some(7001)));
        assert_eq!(config.settings.listen_port, 7000);
        assert!(config.is_explicit("listen_port") && !config.is_explicit("http_port"));
    }

    #[test]
    fn a_second_header_starts_anew() {
        let config =
            load("[pgbouncer]\nlisten_port = 7000\n[pgbouncer]\nmax_client_conn = 5").unwrap().config;
        assert_eq!((config.settings.listen_port, config.settings.max_client_conn), (6432, 5));
        assert!(!config.is_explicit("listen_port"));
    }

    #[test]
    fn all_problems_are_reported_with_place_and_hint() {
        let text = "[pgbouncer]\nmax_client_con = 5\nlisten_port = x\n[databases]\na = hots=b\nb = host=a port=1,2 weight=1,2\n\
                    c = host\npgbouncer = host=x\n[users]\nu = pool_mode=what\n[peers]\nx = host=y\n1 = port=5\n";
        let error = load(text).unwrap_err();
        let all = error.to_string();
        assert_eq!(error.0.len(), 10, "{all}");
        for expected in [
            "x.ini:2:1: unknown setting max_client_con\n  | max_client_con = ***\n  | ^\n  = hint: did you mean max_client_conn?",
            "x.ini:3:1: invalid value \"x\" for listen_port: expected",
            "x.ini:5:1: database a: unknown key hots",
            "did you mean host?",
            "1 hosts but 2 ports",
            "1 hosts but 2 weights",
            "x.ini:7:1: c: expected key=value at byte 1 of the value",
            "is reserved",
            "user u: invalid value \"what\" for pool_mode: expected one of session",
            "peer x: the ID of a peer is a number from 1 to 65535",
            "peer 1 has no host",
        ] {
            assert!(all.contains(expected), "{expected}\n---\n{all}");
        }
    }

    #[test]
    fn nothing_of_a_secret_is_shown() {
        for text in [
            "[databases]\na = host=b pasword=geheim",
            "[databases]\na = host=b pasword=geheim port=x",
            "[databases]\na = host=b password=ge geheim",
            "[databases]\na = host=b password=ge geheim=1",
            "[databases]\na = host=b password=ge heim port=geheim",
            "[databases]\na = host=b password=ge port=geheim",
            "[databases]\na = host=b password='geheim port=1",
            "[databases]\na = geheim",
            "[databases]\na host=b password=geheim",
            "[databases]\nlisten_port = password=geheim x",
            "[users]\nu = pasword=geheim",
            "[peers]\n1 = host=x pasword=geheim",
            "[pgbouncer]\nlisten_port = host=b password=geheim",
            "[pgbouncer]\nauth_ldap_optoins = ldapbindpasswd=geheim",
            "[pgbouncer]\npasword = geheim",
            "[databases]\na = host=b \\\ngeheim",
            "a = host=b password=geheim",
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(!error.contains("geheim"), "{text}\n---\n{error}");
        }
        for text in [
            "[databases.a]\nhost = \"b\"\npasword = \"geheim\"",
            "[databases]\na = \"host=b pasword=geheim\"",
            "[databases]\na = \"host=b password=geheim",
            "[databases]\na = { host = \"b\", password = \"geheim\", prot = 1 }",
            "[databases.a]\npassword = 'geheim",
            "[databases.a]\npassword = geheim",
            "[databases.a]\npassword = \"x\" geheim",
        ] {
            let error = toml::parse(text, Path::new("x")).and_then(build).map(drop).unwrap_err().to_string();
            assert!(!error.contains("geheim"), "{text}\n---\n{error}");
        }
        for url in ["postgres://me:geheim", "postgres://me@h/db?port=geheim", "postgres://me:geheim@h:x/db"] {
            let error =
                load_env([("DATABASE_URL".to_owned(), url.to_owned())]).map(drop).unwrap_err().to_string();
            assert!(!error.contains("geheim"), "{url}\n---\n{error}");
        }
    }

    #[test]
    fn what_is_not_there_is_refused_or_said() {
        assert!(load("[pgbouncer]\nauth_type = cert").unwrap_err().to_string().contains("verify-full"));
        assert!(load("[pgbouncer]\nauth_dbname = pgbouncer").unwrap_err().to_string().contains("reserved"));
        let loaded = load("[pgbouncer]\nserver_tls_sslmode = prefer\nresolv_conf = x").unwrap();
        let warnings: Vec<String> = loaded.warnings.iter().map(|w| w.message.clone()).collect();
        assert_eq!(
            warnings,
            [
                "resolv_conf has no effect: the system's resolver looks names up, with /etc/resolv.conf and /etc/hosts"
            ]
        );
    }
}
