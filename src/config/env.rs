//! Configuration by environment variables, for containers without a file. The dialects of the usual PgBouncer
//! images are understood side by side; `docs/settings.md` lists the names.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::error::{ConfigError, Problem};
use super::model::DatabaseConfig;
use super::raw::{Item, Origin, Section};
use super::settings;
use super::url::Url;
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
    let mut reader = EnvironmentReader { variables: variables.collect(), ..EnvironmentReader::default() };
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
struct EnvironmentReader {
    variables: BTreeMap<String, String>,
    items: Vec<Item>,
    passwords: Vec<(String, Option<Secret>)>,
    warnings: Vec<Problem>,
    problems: Vec<Problem>,
    /// Names of the variables that something was made of.
    read: RefCell<BTreeSet<String>>,
}

impl EnvironmentReader {
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

#[cfg(test)]
mod tests;
