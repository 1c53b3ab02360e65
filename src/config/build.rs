//! Makes a configuration of what a source says, and checks it.

use std::collections::BTreeMap;

use super::error::{ConfigError, Problem};
use super::model::{Config, DatabaseConfig, Loaded, PeerConfig, UserConfig};
use super::raw::{Item, Origin, Section};
use super::settings::{self, Settings, Status};
use super::value::{AuthType, TlsMode};
use super::{connstr, mask};

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
