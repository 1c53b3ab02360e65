//! Configuration by environment variables, for containers without a file. The dialects of the usual PgBouncer
//! images are understood side by side; `docs/settings.md` lists the names.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::error::{ConfigError, Problem};
use super::model::DatabaseConfig;
use super::raw::{Item, Origin, Section};
use super::settings;
use crate::auth::secret::Secret;
use crate::auth::userlist;

/// What the environment says.
pub struct Found {
    /// Settings and databases.
    pub items: Vec<Item>,
    /// Users and secrets; `None`: no password is given, or an empty one, which is none.
    pub passwords: Vec<(String, Option<Secret>)>,
    /// Things that have no effect.
    pub warnings: Vec<Problem>,
    /// The variables that said all this.
    pub variables: Vec<String>,
}

/// Other names that images use for a setting.
const ALIASES: &[(&str, &str)] = &[
    ("PGBOUNCER_PORT", "listen_port"),
    ("PGBOUNCER_PORT_NUMBER", "listen_port"),
    ("PGBOUNCER_LISTEN_ADDRESS", "listen_addr"),
    ("PGBOUNCER_BIND_ADDRESS", "listen_addr"),
    ("PGBOUNCER_LOG_FILE", "logfile"),
    ("PGBOUNCER_SOCKET_DIR", "unix_socket_dir"),
    ("PGBOUNCER_SOCKET_MODE", "unix_socket_mode"),
    ("PGBOUNCER_SOCKET_GROUP", "unix_socket_group"),
];

/// What images use besides settings. Those that are not read below have nothing to do here: servers are waited for as
/// long as it takes, and there are no scripts to run and no user to become.
const NO_SETTINGS: &[&str] = &[
    "PGBOUNCER_DATABASE",
    "PGBOUNCER_USERLIST",
    "PGBOUNCER_CONNECT_QUERY",
    "PGBOUNCER_SET_DATABASE_USER",
    "PGBOUNCER_SET_DATABASE_PASSWORD",
    "PGBOUNCER_FAIL_ON_INVALID_DSN_FILE",
    "PGBOUNCER_INIT_MAX_RETRIES",
    "PGBOUNCER_INIT_SLEEP_TIME",
    "PGBOUNCER_FORCE_INITSCRIPTS",
    "PGBOUNCER_EXTRA_FLAGS",
    "PGBOUNCER_EXTRA_ARGS",
    "PGBOUNCER_DAEMON_USER",
    "PGBOUNCER_DAEMON_GROUP",
];

/// Variables that name servers by URL.
const SERVERS: &[&str] = &["DATABASE_URL", "DATABASE_URLS", "POSTGRES_URL"];

/// Variables that name one server, in families: host, port, user, password, database.
const FAMILIES: &[[&str; 5]] = &[
    [
        "POSTGRESQL_HOST",
        "POSTGRESQL_PORT",
        "POSTGRESQL_USERNAME",
        "POSTGRESQL_PASSWORD",
        "POSTGRESQL_DATABASE",
    ],
    ["DATABASES_HOST", "DATABASES_PORT", "DATABASES_USER", "DATABASES_PASSWORD", "DATABASES_DBNAME"],
    ["DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME"],
];

/// Settings a container has when nothing else is said.
const DEFAULTS: &[(&str, &str)] = &[
    ("listen_addr", "0.0.0.0"),
    ("auth_type", "scram-sha-256"),
    ("ignore_startup_parameters", "extra_float_digits"),
];

/// Reads the environment; `None` if nothing in it says where a server is.
pub fn read(variables: impl IntoIterator<Item = (String, String)>) -> Result<Option<Found>, ConfigError> {
    let variables = variables.into_iter().filter(|(name, value)| !is_service_link(name, value));
    let mut reader = Reader { variables: variables.collect(), ..Reader::default() };
    let given: Vec<String> = reader.variables.keys().cloned().collect();
    reader.follow_files()?;
    reader.servers()?;
    if reader.items.is_empty() {
        return Ok(None);
    }
    reader.userlist()?;
    reader.passwords_of("ADMIN_USERS", "ADMIN_PASSWORDS");
    reader.passwords_of("STATS_USERS", "STATS_PASSWORDS");
    reader.settings();
    if !reader.problems.is_empty() {
        return Err(ConfigError(reader.problems));
    }
    let read = reader.read.into_inner();
    let is_read =
        |name: &String| read.contains(name.strip_suffix("_FILE").unwrap_or(name)) || read.contains(name);
    let variables = given.into_iter().filter(is_read).collect();
    Ok(Some(Found { items: reader.items, passwords: reader.passwords, warnings: reader.warnings, variables }))
}

/// Those variables that mean to configure a pooler: settings with the prefix, and what says where servers are.
pub fn meant(variables: &[(String, String)]) -> Vec<String> {
    let is_server = |name: &str| {
        let families = FAMILIES.iter().any(|family| family[0] == name);
        families || SERVERS.contains(&name) || name.starts_with("PGBOUNCER_DSN_")
    };
    let is_meant = |name: &str, value: &str| {
        let name = name.strip_suffix("_FILE").filter(|_| setting_of(name).is_none()).unwrap_or(name);
        !is_service_link(name, value) && (setting_of(name).is_some() || is_server(name))
    };
    let meant = variables.iter().filter(|(name, value)| is_meant(name, value));
    meant.map(|(name, _)| name.clone()).collect()
}

#[derive(Default)]
struct Reader {
    variables: BTreeMap<String, String>,
    items: Vec<Item>,
    passwords: Vec<(String, Option<Secret>)>,
    warnings: Vec<Problem>,
    problems: Vec<Problem>,
    /// Names of the variables that something was made of.
    read: RefCell<BTreeSet<String>>,
}

impl Reader {
    /// `X_FILE` names a file that holds the value of `X`, unless it is a setting itself.
    fn follow_files(&mut self) -> Result<(), ConfigError> {
        let indirect: Vec<(String, String)> = self.variables.clone().into_iter().collect();
        for (name, path) in indirect {
            let Some(target) = name.strip_suffix("_FILE") else { continue };
            let is_value = setting_of(&name).is_some() || NO_SETTINGS.contains(&&*name);
            if is_value || path.is_empty() || !is_ours(target) {
                continue;
            }
            self.variables.remove(&name);
            let text = std::fs::read_to_string(&path).map_err(|error| {
                let message = format!("cannot read \"{path}\": {error}");
                ConfigError::one(Problem::at(&Origin::variable(&name), message))
            })?;
            self.variables.insert(target.to_owned(), text.trim_end_matches(['\r', '\n']).to_owned());
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())?;
        self.read.borrow_mut().insert(name.to_owned());
        Some(value)
    }

    fn is_yes(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| matches!(&*value.to_ascii_lowercase(), "yes" | "true" | "1"))
    }

    fn servers(&mut self) -> Result<(), ConfigError> {
        for name in SERVERS {
            let Some(urls) = self.get(name).map(str::to_owned) else { continue };
            // Several URLs are separated by commas, which a URL's host list has as well.
            for url in urls
                .split(",postgres")
                .enumerate()
                .map(|(n, u)| if n == 0 { u.into() } else { format!("postgres{u}") })
            {
                let parsed = Url::parse(&url).map_err(|message| {
                    let problem = Problem::at(&Origin::variable(name), message);
                    ConfigError::one(problem.hint("the form is postgres://user:password@host:port/database"))
                })?;
                self.server(name, parsed);
            }
        }
        for family in FAMILIES {
            if let Some(hosts) = self.get(family[0]).map(str::to_owned) {
                self.family(family, hosts);
            }
        }
        for number in 0.. {
            let name = format!("PGBOUNCER_DSN_{number}");
            let Some(dsn) = self.get(&name) else { break };
            let origin = Origin::variable(&name);
            let (key, value) = dsn.split_once('=').ok_or_else(|| {
                ConfigError::one(Problem::at(
                    &origin,
                    "expected a line as in [databases]: name=host=… port=…",
                ))
            })?;
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            self.items.push(Item::Entry { section: Section::Databases, key, value, origin });
        }
        if self.items.is_empty() && self.get("POSTGRESQL_PASSWORD").is_some() {
            self.family(&FAMILIES[0], "postgresql".to_owned());
        }
        Ok(())
    }

    /// A server from the variables of a family.
    fn family(&mut self, family: &[&str; 5], hosts: String) {
        let [host, port, user, password, database] = family;
        let text = |name: &str| self.get(name).map(str::to_owned);
        let parsed = Url {
            hosts,
            ports: text(port).or_else(|| text(&format!("{port}_NUMBER"))),
            // A password alone is the superuser's.
            user: text(user).or_else(|| text(password).map(|_| "postgres".to_owned())),
            password: text(password),
            database: text(database).or_else(|| text("PGBOUNCER_DATABASE")),
            parameters: Vec::new(),
        };
        self.server(host, parsed);
    }

    fn server(&mut self, variable: &str, url: Url) {
        let origin = Origin::variable(variable);
        // In pgbouncer/pgbouncer these variables are the keys of the one line, which is for whatever database clients ask for.
        let is_line = variable == "DATABASES_HOST";
        let own_name = url.database.clone().filter(|_| !is_line);
        let name = self.get("PGBOUNCER_DATABASE").map(str::to_owned).or(own_name).unwrap_or("*".into());
        let mut pairs = vec![("host".to_owned(), url.hosts, origin.clone())];
        let mut pair = |key: &str, value: Option<String>| {
            pairs.extend(value.map(|value| (key.to_owned(), value, origin.clone())));
        };
        pair("port", url.ports);
        pair("dbname", url.database.filter(|database| database != "*" && *database != name));
        for (variable, key) in [
            ("PGBOUNCER_CONNECT_QUERY", "connect_query"),
            ("CLIENT_ENCODING", "client_encoding"),
            ("TIMEZONE", "timezone"),
            ("DATABASES_POOL_SIZE", "pool_size"),
            ("POOL_SIZE", "pool_size"),
        ] {
            pair(key, self.get(variable).map(str::to_owned));
        }
        // With auth_type=any the line has to say who logs in to the server.
        let is_forced =
            is_line || self.value_of("auth_type").is_some_and(|value| value.eq_ignore_ascii_case("any"));
        if is_forced || self.is_yes("PGBOUNCER_SET_DATABASE_USER") {
            pair("user", url.user.clone());
        }
        if is_forced || self.is_yes("PGBOUNCER_SET_DATABASE_PASSWORD") {
            pair("password", url.password.clone());
        }
        // Who is named looks up those who are not, as in edoburu/pgbouncer, whose variables these are; bitnami/pgbouncer
        // and its relatives want to be told.
        let looks_up = matches!(variable, "DB_HOST" | "DATABASE_URL" | "DATABASE_URLS" | "POSTGRES_URL");
        if looks_up && self.get("PGBOUNCER_AUTH_USER").is_none() {
            pair("auth_user", url.user.clone());
        }
        for (key, value) in url.parameters {
            match &*key {
                "sslmode" => self.items.push(Item::Entry {
                    section: Section::Pgbouncer,
                    key: "server_tls_sslmode".into(),
                    value,
                    origin: origin.clone(),
                }),
                // Drivers and frameworks have keys of their own.
                key if !DatabaseConfig::KEYS.contains(&key) => {
                    let problem = Problem::at(&origin, format!("unknown key {key} in the URL has no effect"));
                    let near = settings::nearest(key, DatabaseConfig::KEYS.iter().copied());
                    self.warnings.push(match near {
                        Some(near) => problem.hint(format!("did you mean {near}?")),
                        None => problem,
                    });
                }
                _ => pair(&key, Some(value)),
            }
        }
        if let Some(user) = url.user {
            self.fill("admin_users", &user);
            if !looks_up && self.says("auth_query") {
                self.fill("auth_user", &user);
            }
            let secret = self.secret(variable, url.password.as_deref().unwrap_or_default());
            self.passwords.push((user, secret));
        }
        self.items.push(Item::Table { section: Section::Databases, key: name, pairs, origin });
    }

    /// The secret that a variable gives.
    fn secret(&mut self, variable: &str, text: &str) -> Option<Secret> {
        if let Err(error) = Secret::check(text) {
            self.problems.push(Problem::at(&Origin::variable(variable), error.to_string()));
        }
        Secret::parse(text)
    }

    /// Whether any variable gives this setting.
    fn says(&self, setting: &str) -> bool {
        self.value_of(setting).is_some()
    }

    /// What the variables give for a setting; the last one counts.
    fn value_of(&self, setting: &str) -> Option<&str> {
        let gives = |(name, value): &(&String, &String)| {
            !value.is_empty() && variable_of(name, value) == Some(setting)
        };
        self.variables.iter().rfind(gives).map(|(_, value)| value.trim())
    }

    /// Gives a setting that no variable gives.
    fn fill(&mut self, setting: &str, value: &str) {
        if !self.says(setting) {
            self.variables.insert(format!("PGBOUNCER_{}", setting.to_ascii_uppercase()), value.to_owned());
        }
    }

    /// More users, in the lines of a userlist; `\n` stands for the end of a line as well.
    fn userlist(&mut self) -> Result<(), ConfigError> {
        let name = "PGBOUNCER_USERLIST";
        let Some(text) = self.get(name) else { return Ok(()) };
        let (users, errors) = userlist::parse(&text.replace("\\n", "\n"));
        if let Some(error) = errors.first() {
            let problem = Problem::at(&Origin::variable(name), error.to_string());
            let hint = "each line is \"user\" \"password\", both in double quotes";
            return Err(ConfigError::one(problem.hint(hint)));
        }
        self.passwords.extend(users);
        Ok(())
    }

    /// A list of users, and one with as many passwords. Users who have one already keep it.
    fn passwords_of(&mut self, users: &str, variable: &str) {
        let (Some(users), Some(passwords)) = (self.get(users), self.get(variable)) else { return };
        let (users, passwords) = (users.split(','), passwords.split(','));
        if users.clone().count() != passwords.clone().count() {
            return;
        }
        let has_one =
            |user: &str| self.passwords.iter().any(|(known, secret)| known == user && secret.is_some());
        let new: Vec<(String, String)> = users
            .map(str::trim)
            .zip(passwords)
            .filter(|(user, _)| !has_one(user))
            .map(|(user, password)| (user.to_owned(), password.to_owned()))
            .collect();
        for (user, password) in new {
            let secret = self.secret(variable, &password);
            self.passwords.push((user, secret));
        }
    }

    fn settings(&mut self) {
        let entry = |key: &str, value: &str, variable: &str| Item::Entry {
            section: Section::Pgbouncer,
            key: key.to_owned(),
            value: value.to_owned(),
            origin: Origin::variable(variable),
        };
        let defaults = DEFAULTS.iter().map(|(key, value)| entry(key, value, "(default)"));
        let given = self.variables.iter().filter_map(|(name, value)| {
            let key = variable_of(name, value)?;
            self.read.borrow_mut().insert(name.clone());
            (!value.is_empty()).then(|| entry(key, value, name))
        });
        let unknown = self.variables.iter().filter_map(|(name, value)| {
            let key = name.strip_prefix("PGBOUNCER_")?.to_ascii_lowercase();
            // A misspelt setting must not be overlooked; what images themselves use must not be refused.
            let near = settings::nearest(&key, settings::TABLE.iter().map(|info| info.name)).is_some();
            let meant = setting_of(name).is_none() && !is_image_variable(name) && !value.is_empty();
            (meant && near).then(|| entry(&key, value, name))
        });
        let all: Vec<Item> = defaults.chain(given).chain(unknown).collect();
        // Explicit settings come first in the list only by name; what a URL said is overridden by them.
        self.items.extend(all);
    }
}

/// The setting that a variable with the prefix stands for.
pub fn setting_of(name: &str) -> Option<&'static str> {
    if let Some((_, setting)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
        return Some(setting);
    }
    let key = name.strip_prefix("PGBOUNCER_")?.to_ascii_lowercase();
    settings::info(&key).map(|info| info.name)
}

/// The setting that a variable gives, with the prefix or, as some images have them, without it.
fn variable_of(name: &str, value: &str) -> Option<&'static str> {
    setting_of(name).or_else(|| bare_setting_of(name, value))
}

/// `USER` belongs to the system, and programs of all kinds have a `VERBOSE`; here it is a number.
fn bare_setting_of(name: &str, value: &str) -> Option<&'static str> {
    let upper = name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    let foreign = match name {
        "USER" | "SYSLOG" => true,
        "VERBOSE" => value.parse::<u32>().is_err(),
        _ => !upper,
    };
    if foreign {
        return None;
    }
    if name == "SSL_MODE" {
        return Some("server_tls_sslmode");
    }
    settings::info(&name.to_ascii_lowercase()).map(|info| info.name)
}

fn is_image_variable(name: &str) -> bool {
    NO_SETTINGS.contains(&name) || name.starts_with("PGBOUNCER_DSN_")
}

/// Where a Service is called `pgbouncer` or `postgresql`, Kubernetes puts `PGBOUNCER_PORT=tcp://…` and the like into
/// every pod of the namespace. Nobody wrote them, and nothing in them says how to run.
fn is_service_link(name: &str, value: &str) -> bool {
    let link = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    link || name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT")
}

/// Whether a variable may be given by file.
fn is_ours(name: &str) -> bool {
    let families = FAMILIES.iter().flatten().any(|known| *known == name);
    families
        || setting_of(name).is_some()
        || is_image_variable(name)
        || SERVERS.contains(&name)
        || matches!(name, "ADMIN_PASSWORDS" | "STATS_PASSWORDS")
}

/// A connection URL as libpq reads it, but for passwords: they may hold `/`, `+` and `=` as they are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Url {
    hosts: String,
    ports: Option<String>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    parameters: Vec<(String, String)>,
}

impl Url {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let rest =
            ["postgres://", "postgresql://"].iter().find_map(|scheme| text.trim().strip_prefix(scheme));
        let rest = rest.ok_or("expected a URL that begins with postgres://")?;
        let (account, rest) =
            rest.rsplit_once('@').map_or((None, rest), |(account, rest)| (Some(account), rest));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
        let mut url = Self { database: Some(decode(database)).filter(|d| !d.is_empty()), ..Self::default() };
        if let Some(account) = account {
            let (user, password) = account.split_once(':').map_or((account, None), |(u, p)| (u, Some(p)));
            url.user = Some(decode(user));
            url.password = password.map(decode);
        }
        let mut ports = Vec::new();
        let mut names = Vec::new();
        for host in hosts.split(',') {
            let bracketed = host.starts_with('[');
            let end = if bracketed {
                host.find(']').ok_or("unclosed [ in host")? + 1
            } else {
                host.find(':').unwrap_or(host.len())
            };
            let (name, port) = host.split_at(end);
            names.push(decode(name.trim_start_matches('[').trim_end_matches(']')));
            ports.push(port.strip_prefix(':').filter(|p| !p.is_empty()).unwrap_or("5432").to_owned());
        }
        if names.iter().any(String::is_empty) {
            return Err("the URL names no host");
        }
        url.hosts = names.join(",");
        url.ports = Some(ports.join(","));
        for parameter in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            url.parameters.push((decode(key), decode(value)));
        }
        Ok(url)
    }
}

/// A connection URL as the pairs of a connect string.
pub fn url_pairs(text: &str) -> Result<Vec<(String, String)>, &'static str> {
    let url = Url::parse(text)?;
    let known =
        [("host", Some(url.hosts)), ("port", url.ports), ("user", url.user), ("dbname", url.database)];
    let known = known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Ok(known.chain(url.parameters).collect())
}

/// Replaces `%XX`; a `%` that is not followed by two hexadecimal digits stands for itself.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        let hex = hex.filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()));
        match hex.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::load_env;

    fn load(variables: &[(&str, &str)]) -> crate::config::Config {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        load_env(variables).unwrap().unwrap().config
    }

    #[test]
    fn a_url_is_enough() {
        let config = load(&[
            ("DATABASE_URL", "postgres://me:a/b+c=%41@db.example:5433/app"),
            ("HOME", "/root"),
            ("USER", "x"),
        ]);
        assert_eq!(config.databases["app"].hosts(), [("db.example".into(), 5433)]);
        assert_eq!(config.passwords, [("me".into(), Secret::parse("a/b+c=A"))]);
        assert_eq!(config.settings.admin_users, ["me"]);
        assert_eq!(config.settings.listen_addr, "0.0.0.0");
        assert_eq!(config.settings.user, "");
    }

    #[test]
    fn dialects() {
        let config = load(&[
            ("POSTGRESQL_HOST", "pg"),
            ("POSTGRESQL_USERNAME", "me"),
            ("POSTGRESQL_PASSWORD", "secret"),
            ("PGBOUNCER_DATABASE", "*"),
            ("PGBOUNCER_PORT", "7000"),
            ("PGBOUNCER_DEFAULT_POOL_SIZE", "30"),
            ("PGBOUNCER_AUTH_TYPE", "md5"),
        ]);
        assert_eq!(config.fallback.as_ref().unwrap().hosts(), [("pg".into(), 5432)]);
        assert_eq!((config.settings.listen_port, config.settings.default_pool_size), (7000, 30));
        assert_eq!(config.settings.auth_type.to_owned(), crate::config::AuthType::Md5);

        let config =
            load(&[("DB_HOST", "h"), ("DB_USER", "u"), ("DB_PASSWORD", "p"), ("POOL_MODE", "transaction")]);
        assert!(config.fallback.is_some());
        assert_eq!(config.settings.pool_mode, crate::config::PoolMode::Transaction);

        let config = load(&[("PGBOUNCER_DSN_0", "a=host=x port=1"), ("PGBOUNCER_DSN_1", "b=host=y")]);
        assert_eq!(config.databases.len(), 2);

        let url = "postgres://u:p@a:1,b:2/x,postgresql://v:q@[::1]/y?sslmode=prefer";
        let config = load(&[("DATABASE_URLS", url)]);
        assert_eq!(config.databases["x"].hosts(), [("a".into(), 1), ("b".into(), 2)]);
        assert_eq!(config.databases["y"].hosts(), [("::1".into(), 5432)]);
    }

    /// The names that the images' documentation has, but for those that tell of servers and files.
    #[test]
    fn every_name_of_every_image() {
        let edoburu = "LISTEN_ADDR LISTEN_PORT UNIX_SOCKET_DIR AUTH_FILE AUTH_HBA_FILE AUTH_TYPE AUTH_USER AUTH_QUERY \
            AUTH_DBNAME POOL_MODE MAX_CLIENT_CONN DEFAULT_POOL_SIZE MIN_POOL_SIZE RESERVE_POOL_SIZE \
            RESERVE_POOL_TIMEOUT MAX_DB_CONNECTIONS MAX_USER_CONNECTIONS SERVER_ROUND_ROBIN \
            IGNORE_STARTUP_PARAMETERS DISABLE_PQEXEC APPLICATION_NAME_ADD_HOST MAX_PREPARED_STATEMENTS \
            LOG_CONNECTIONS LOG_DISCONNECTIONS LOG_POOLER_ERRORS LOG_STATS STATS_PERIOD VERBOSE ADMIN_USERS STATS_USERS \
            LOGFILE SERVER_RESET_QUERY SERVER_RESET_QUERY_ALWAYS SERVER_CHECK_DELAY SERVER_CHECK_QUERY SERVER_LIFETIME \
            SERVER_IDLE_TIMEOUT SERVER_CONNECT_TIMEOUT SERVER_LOGIN_RETRY CLIENT_LOGIN_TIMEOUT AUTODB_IDLE_TIMEOUT \
            DNS_MAX_TTL DNS_NXDOMAIN_TTL CLIENT_TLS_SSLMODE CLIENT_TLS_KEY_FILE CLIENT_TLS_CERT_FILE CLIENT_TLS_CA_FILE \
            CLIENT_TLS_PROTOCOLS CLIENT_TLS_CIPHERS CLIENT_TLS_ECDHCURVE CLIENT_TLS_DHEPARAMS SERVER_TLS_SSLMODE \
            SERVER_TLS_CA_FILE SERVER_TLS_KEY_FILE SERVER_TLS_CERT_FILE SERVER_TLS_PROTOCOLS SERVER_TLS_CIPHERS \
            QUERY_TIMEOUT QUERY_WAIT_TIMEOUT CLIENT_IDLE_TIMEOUT IDLE_TRANSACTION_TIMEOUT PKT_BUF MAX_PACKET_SIZE \
            LISTEN_BACKLOG SBUF_LOOPCNT SUSPEND_TIMEOUT TCP_DEFER_ACCEPT TCP_KEEPALIVE TCP_KEEPCNT TCP_KEEPIDLE \
            TCP_KEEPINTVL TCP_USER_TIMEOUT";
        let bitnami = "PORT PORT_NUMBER LISTEN_ADDRESS BIND_ADDRESS AUTH_TYPE AUTH_USER AUTH_QUERY AUTH_HBA_FILE \
            AUTH_IDENT_FILE STATS_USERS POOL_MODE MAX_CLIENT_CONN MAX_DB_CONNECTIONS DEFAULT_POOL_SIZE MIN_POOL_SIZE \
            RESERVE_POOL_SIZE RESERVE_POOL_TIMEOUT QUERY_WAIT_TIMEOUT QUERY_TIMEOUT IDLE_TRANSACTION_TIMEOUT \
            CLIENT_IDLE_TIMEOUT CLIENT_LOGIN_TIMEOUT AUTODB_IDLE_TIMEOUT SERVER_IDLE_TIMEOUT SERVER_LIFETIME \
            SERVER_CONNECT_TIMEOUT SERVER_LOGIN_RETRY SERVER_RESET_QUERY SERVER_FAST_CLOSE SERVER_ROUND_ROBIN \
            IGNORE_STARTUP_PARAMETERS STATS_PERIOD MAX_PREPARED_STATEMENTS APPLICATION_NAME_ADD_HOST LOG_FILE \
            LOG_CONNECTIONS LOG_DISCONNECTIONS LOG_POOLER_ERRORS LOG_STATS CLIENT_TLS_SSLMODE CLIENT_TLS_CA_FILE \
            CLIENT_TLS_CERT_FILE CLIENT_TLS_KEY_FILE CLIENT_TLS_CIPHERS SERVER_TLS_SSLMODE SERVER_TLS_CA_FILE \
            SERVER_TLS_CERT_FILE SERVER_TLS_KEY_FILE SERVER_TLS_PROTOCOLS SERVER_TLS_CIPHERS SOCKET_DIR SOCKET_MODE \
            SOCKET_GROUP";
        let prefixed = bitnami.split_whitespace().map(|name| format!("PGBOUNCER_{name}"));
        for name in edoburu.split_whitespace().map(str::to_owned).chain(prefixed) {
            assert!(variable_of(&name, "1").is_some(), "{name}");
        }
        let quiet = NO_SETTINGS.iter().filter(|name| **name != "PGBOUNCER_USERLIST");
        let quiet: Vec<(&str, &str)> = quiet.map(|name| (*name, "x")).collect();
        let config =
            load(&[&[("DB_HOST", "h"), ("BITNAMI_DEBUG", "true"), ("VERBOSE", "true")], &*quiet].concat());
        assert_eq!(config.databases["x"].hosts(), [("h".into(), 5432)]);
    }

    #[test]
    fn a_prefix_is_enough() {
        let config = load(&[
            ("PGBOUNCER_DSN_0", "fhirdb=host=pg port=5432 pool_size=30"),
            ("PGBOUNCER_USERLIST", r#""me" "a/b+c="\n"you" "secret""#),
        ]);
        assert_eq!(config.databases["fhirdb"].pool_size, Some(30));
        let expected = [("me".into(), Secret::parse("a/b+c=")), ("you".into(), Secret::parse("secret"))];
        assert_eq!(config.passwords, expected);
    }

    #[test]
    fn what_images_assume() {
        let config = load(&[("POSTGRESQL_PASSWORD", "p"), ("POSTGRESQL_PORT_NUMBER", "5433")]);
        assert_eq!(config.fallback.as_ref().unwrap().hosts(), [("postgresql".into(), 5433)]);
        assert_eq!(config.passwords, [("postgres".into(), Secret::parse("p"))]);

        let account = [("DB_HOST", "h"), ("DB_USER", "me"), ("DB_PASSWORD", "p"), ("DB_NAME", "app")];
        let forced = [("PGBOUNCER_SET_DATABASE_USER", "yes"), ("PGBOUNCER_SET_DATABASE_PASSWORD", "yes")];
        let others =
            [("ADMIN_USERS", "root"), ("AUTH_QUERY", "SELECT"), ("POOL_SIZE", "7"), ("SSL_MODE", "prefer")];
        let config = load(&[&account[..], &forced, &others].concat());
        let database = &config.databases["app"];
        assert_eq!((database.user.as_deref(), database.password.as_deref()), (Some("me"), Some("p")));
        assert_eq!(database.pool_size, Some(7));
        assert_eq!(config.settings.admin_users, ["root"]);
        assert!(config.is_explicit("server_tls_sslmode"));
        assert_eq!(load(&account).databases["app"].user, None);
    }

    /// Each image has its own idea of who looks up users that nobody has named.
    #[test]
    fn who_looks_others_up() {
        let of = |variables: &[(&str, &str)]| {
            let config = load(variables);
            let line = config.databases.get("app").cloned().or(config.fallback.clone()).unwrap();
            (line.auth_user.unwrap_or_default(), config.settings.auth_user)
        };
        let expect = |line: &str, global: &str| (line.to_owned(), global.to_owned());
        // edoburu: the user of the server, in the database's line, which comes before AUTH_USER.
        let edoburu = [("DB_HOST", "h"), ("DB_USER", "me"), ("DB_PASSWORD", "p")];
        let url = [("DATABASE_URL", "postgres://me:p@h/app")];
        let query = ("AUTH_QUERY", "SELECT");
        for server in [&edoburu[..], &url] {
            assert_eq!(of(server), expect("me", ""));
            assert_eq!(of(&[server, &[query]].concat()), expect("me", ""));
            assert_eq!(of(&[server, &[("AUTH_USER", "lookup")]].concat()), expect("me", "lookup"));
            // Told with the prefix, which edoburu does not know.
            let told = [("PGBOUNCER_AUTH_USER", "lookup")];
            assert_eq!(of(&[server, &told].concat()), expect("", "lookup"));
        }
        assert_eq!(of(&edoburu[..1]), expect("", ""), "nobody is named");
        let urls = load(&[("DATABASE_URLS", "postgres://a:p@h/x,postgres://b:p@h/y"), query]);
        let users: Vec<_> = urls.databases.values().map(|line| line.auth_user.as_deref().unwrap()).collect();
        assert_eq!(users, ["a", "b"]);
        // bitnami: the one who is told to; that there is a query to be asked is enough.
        let bitnami = [("POSTGRESQL_HOST", "h"), ("POSTGRESQL_USERNAME", "me"), ("POSTGRESQL_PASSWORD", "p")];
        assert_eq!(of(&bitnami), expect("", ""));
        let told = [("PGBOUNCER_AUTH_USER", "lookup")];
        assert_eq!(of(&[&bitnami[..], &told].concat()), expect("", "lookup"));
        let asked = [("PGBOUNCER_AUTH_QUERY", "SELECT")];
        assert_eq!(of(&[&bitnami[..], &asked].concat()), expect("", "me"));
        assert_eq!(of(&[&bitnami[..], &asked, &told].concat()), expect("", "lookup"));
    }

    /// Frameworks add keys of their own to a URL, which says nothing of a pooler.
    #[test]
    fn a_url_may_have_keys_that_mean_nothing_here() {
        let url = "postgres://me:p@h/app?schema=public&pool_timeout=10&pool_sise=5&pgbouncer&pool_size=7";
        let loaded = load_env([("DATABASE_URL".to_owned(), url.to_owned())]).unwrap().unwrap();
        assert_eq!(loaded.config.databases["app"].pool_size, Some(7));
        let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
        let unknown = |key: &str| {
            format!("environment variable DATABASE_URL: unknown key {key} in the URL has no effect")
        };
        let starts = ["schema", "pool_timeout", "pool_sise", "pgbouncer"].map(unknown);
        assert!(
            warnings.iter().zip(&starts).all(|(warning, start)| warning.starts_with(start)),
            "{warnings:?}"
        );
        assert!(warnings.len() == 4 && warnings[2].contains("did you mean pool_size?"), "{warnings:?}");
    }

    /// pgbouncer/pgbouncer makes one line of these, for whatever clients ask for; its auth_type=any needs the user in it.
    #[test]
    fn databases_variables_are_the_keys_of_the_line() {
        let line = [
            ("DATABASES_HOST", "h"),
            ("DATABASES_USER", "me"),
            ("DATABASES_PASSWORD", "p"),
            ("DATABASES_DBNAME", "app"),
        ];
        for auth_type in ["any", "scram-sha-256"] {
            let config = load(&[&line[..], &[("PGBOUNCER_AUTH_TYPE", auth_type)]].concat());
            let found = config.fallback.as_ref().unwrap();
            let parts = (found.dbname.as_deref(), found.user.as_deref(), found.password.as_deref());
            assert_eq!(parts, (Some("app"), Some("me"), Some("p")));
            assert!(config.databases.is_empty());
        }
        // Where another image's variables meet auth_type=any there has to be a user as well.
        let config = load(&[("DATABASE_URL", "postgres://me:p@h/app"), ("AUTH_TYPE", "any")]);
        assert_eq!(config.databases["app"].user.as_deref(), Some("me"));
        let config = load(&[("DATABASE_URL", "postgres://me:p@h/app")]);
        assert_eq!(config.databases["app"].user, None);
    }

    #[test]
    fn the_variables_that_count_are_named() {
        let path = std::env::temp_dir().join(format!("pgweir-env-named-{}", std::process::id()));
        std::fs::write(&path, "secret").unwrap();
        let variables = [
            ("DB_HOST", "h"),
            ("DB_USER", "me"),
            ("DB_PASSWORD_FILE", path.to_str().unwrap()),
            ("DB_PORT", "tcp://10.0.0.7:5432"),
            ("POOL_MODE", "session"),
            ("PGBOUNCER_INIT_SLEEP_TIME", "1"),
            ("HOME", "/root"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let loaded = load_env(variables).unwrap().unwrap();
        assert_eq!(loaded.sources, ["environment variables DB_HOST, DB_PASSWORD_FILE, DB_USER, POOL_MODE"]);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn admins_and_watchers_have_passwords_of_their_own() {
        let server = [("DB_HOST", "h"), ("DB_USER", "me"), ("DB_PASSWORD", "p")];
        let more = [
            ("ADMIN_USERS", "root,me"),
            ("ADMIN_PASSWORDS", "r,other"),
            ("STATS_USERS", "one,two"),
            ("STATS_PASSWORDS", "just one"),
        ];
        let config = load(&[&server[..], &more].concat());
        // Where the numbers differ nobody knows which is whose, and a password once given stays.
        assert_eq!(
            config.passwords,
            [("me".into(), Secret::parse("p")), ("root".into(), Secret::parse("r"))]
        );
        assert_eq!(config.settings.stats_users, ["one", "two"]);
    }

    #[test]
    fn what_kubernetes_adds_is_not_meant() {
        let config = load(&[
            ("DB_HOST", "h"),
            ("DB_PORT", "tcp://10.0.0.7:5432"),
            ("PGBOUNCER_PORT", "tcp://10.0.0.8:6432"),
            ("PGBOUNCER_PORT_6432_TCP", "tcp://10.0.0.8:6432"),
            ("PGBOUNCER_PORT_6432_TCP_ADDR", "10.0.0.8"),
            ("PGBOUNCER_PORT_6432_TCP_PORT", "6432"),
            ("PGBOUNCER_PORT_6432_TCP_PROTO", "tcp"),
            ("PGBOUNCER_SERVICE_HOST", "10.0.0.8"),
            ("PGBOUNCER_SERVICE_PORT", "6432"),
            ("PGBOUNCER_SERVICE_PORT_POSTGRESQL", "6432"),
        ]);
        assert_eq!(config.fallback.unwrap().hosts(), [("h".into(), 5432)]);
        assert_eq!(config.settings.listen_port, 6432);
    }

    #[test]
    fn values_may_come_from_files() {
        let path = std::env::temp_dir().join(format!("pgweir-env-{}", std::process::id()));
        std::fs::write(&path, "secret\n").unwrap();
        let file = path.to_str().unwrap();
        let config = load(&[
            ("DB_HOST", "h"),
            ("DB_USER", "u"),
            ("DB_PASSWORD_FILE", file),
            ("PGBOUNCER_AUTH_FILE", "x"),
            ("PGBOUNCER_DSN_0_FILE", ""),
            ("PGBOUNCER_AUTH_QUERY_FILE", ""),
            ("PGBOUNCER_SERVER_TLS_CA_FILE", "ca"),
            ("PGBOUNCER_AUTH_USER_FILE", file),
        ]);
        assert_eq!(config.settings.auth_user, "secret");
        assert_eq!(config.passwords, [("u".into(), Secret::parse("secret"))]);
        assert_eq!(config.settings.auth_file, "x");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn nothing_to_go_on_and_mistakes() {
        let error = |name: &str, value: &str| {
            let variables = [("DB_HOST", "h"), (name, value)].map(|(k, v)| (k.to_owned(), v.to_owned()));
            load_env(variables).map(drop).unwrap_err().to_string()
        };
        assert!(load_env([("PGBOUNCER_POOL_MODE".to_owned(), "session".to_owned())]).unwrap().is_none());
        assert!(error("DATABASE_URL", "mysql://x").contains("environment variable DATABASE_URL"));
        assert!(error("PGBOUNCER_POOL_MODE", "x").contains("expected one of"));
        assert!(error("PGBOUNCER_MAX_CLIENT_CON", "5").contains("did you mean max_client_conn?"));
        assert!(error("PGBOUNCER_AUHT_FILE", "x").contains("did you mean auth_file?"));
        assert!(error("DB_PASSWORD_FILE", "/nonexistent").contains("cannot read"));
        let error = error("PGBOUNCER_USERLIST", "me secret");
        assert!(error.contains("line 1, column 1") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn a_password_that_is_empty_is_none() {
        for variables in [
            &[("DATABASE_URL", "postgres://me@h/app")][..],
            &[("DATABASE_URL", "postgres://me:@h/app")],
            &[("DB_HOST", "h"), ("DB_USER", "me"), ("DB_PASSWORD", "")],
            &[("PGBOUNCER_DSN_0", "app=host=h"), ("PGBOUNCER_USERLIST", r#""me" """#)],
            &[("PGBOUNCER_DSN_0", "app=host=h"), ("ADMIN_USERS", "me,you"), ("ADMIN_PASSWORDS", ",x")],
        ] {
            assert_eq!(load(variables).passwords[0], ("me".into(), None), "{variables:?}");
        }
        let given = [("ADMIN_USERS", "me"), ("ADMIN_PASSWORDS", "x")];
        let config = load(&[&[("DATABASE_URL", "postgres://me@h/app")], &given[..]].concat());
        assert_eq!(config.passwords.last(), Some(&("me".into(), Secret::parse("x"))));
    }

    #[test]
    fn a_secret_with_too_many_iterations_is_refused() {
        let verifier = postgres_protocol::password::scram_sha_256(b"x").replace("4096:", "20000000:");
        let variables = [("DB_HOST", "h"), ("DB_USER", "me"), ("DB_PASSWORD", &verifier)];
        let error = load_env(variables.map(|(k, v)| (k.to_owned(), v.to_owned()))).unwrap_err().to_string();
        assert!(error.contains("DB_HOST") && error.contains("has 20000000 iterations"), "{error}");
    }
}
