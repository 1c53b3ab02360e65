//! Who the client says it is, before anything has been proved.

use std::borrow::Cow;

use super::failure::Failure;
use crate::config::Config;
use crate::error::{Refusal, sqlstate};
use crate::wire::startup::Session;

/// Longest name that PostgreSQL can have given to anything, in bytes.
const MAX_NAME: usize = 63;
/// Longest user name that no server gets to see, as in PgBouncer.
const MAX_OWN_NAME: usize = 127;

/// Names from a StartupMessage.
pub(super) struct Claim {
    pub(super) user: String,
    /// The user's name unless given.
    pub(super) database: String,
    /// The names are longer than they may be, and cut: by how many bytes they were given.
    user_len: usize,
    database_len: usize,
}

impl Claim {
    /// Names longer than any that could be meant are cut, so that the log and what the client reads stay short.
    pub(super) fn of(session: &Session) -> Result<Self, Failure> {
        let given = |name: &str| session.parameter(name).filter(|name| !name.is_empty());
        let user = given("user").ok_or_else(|| {
            Refusal::new(
                sqlstate::INVALID_AUTHORIZATION,
                "no PostgreSQL user name specified in startup packet",
            )
        })?;
        let database = given("database").unwrap_or(user);
        let text =
            |name: &[u8], max: usize| cut(&String::from_utf8_lossy(name), name.len(), max).into_owned();
        Ok(Self {
            user: text(user, MAX_OWN_NAME),
            database: text(database, MAX_OWN_NAME),
            user_len: user.len(),
            database_len: database.len(),
        })
    }

    /// Refuses what no server can know, before anything is looked up or made for it. Names that the configuration gives may
    /// be longer, and so may those of users where its database's line says as whom servers are used.
    pub(super) fn check_lengths(&mut self, config: &Config) -> Result<(), Failure> {
        let line = config.database(&self.database);
        let max_user = match line {
            Some((line, _)) if line.user.is_some() => MAX_OWN_NAME,
            _ => MAX_NAME,
        };
        let is_listed = self.database_len <= MAX_OWN_NAME && line.is_some_and(|(_, is_auto)| !is_auto);
        let too_long = |len: usize| format!("Names have {MAX_NAME} bytes at most, this one has {len}.");
        if self.user_len > max_user {
            self.user = cut(&self.user, self.user_len, MAX_NAME).into_owned();
            self.database = cut(&self.database, self.database_len, MAX_NAME).into_owned();
            let message = format!("role \"{}\" does not exist", self.user);
            return Err(Refusal::new(sqlstate::INVALID_AUTHORIZATION, message)
                .detail(too_long(self.user_len))
                .log("user name is too long")
                .into());
        }
        if self.database_len > MAX_NAME && !is_listed {
            self.database = cut(&self.database, self.database_len, MAX_NAME).into_owned();
            let message = format!("database \"{}\" does not exist", self.database);
            return Err(Refusal::new(sqlstate::UNKNOWN_DATABASE, message)
                .detail(too_long(self.database_len))
                .log("database name is too long")
                .into());
        }
        Ok(())
    }
}

/// The first `max` bytes of a name that had `len` bytes.
fn cut(name: &str, len: usize, max: usize) -> Cow<'_, str> {
    if len <= max {
        return name.into();
    }
    let end = (0..=max.min(name.len())).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    format!("{}…", name[..end].trim_end_matches('…')).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DatabaseConfig;
    use crate::wire::startup::{self, Startup};
    use crate::wire::write;

    fn check(user: &str, database: &str) -> Result<(String, String), String> {
        let mut packet = Vec::new();
        let parameters = [("user", user), ("database", database)];
        write::startup(&mut packet, parameters.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
        let Ok(Startup::Session(session)) = startup::parse(&packet[4..]) else { panic!("no session") };
        let mut config = Config { fallback: Some(DatabaseConfig::default()), ..Config::default() };
        let forced = DatabaseConfig { user: Some("me".into()), ..DatabaseConfig::default() };
        config.databases.insert("forced".into(), forced);
        config.databases.insert("d".repeat(100), DatabaseConfig::default());
        let refused = |failure| match failure {
            Failure::Refused(refusal) => refusal.message.into_owned(),
            Failure::Silent(why) => why.to_owned(),
        };
        let mut claim = Claim::of(&session).map_err(refused)?;
        claim.check_lengths(&config).map_err(refused)?;
        Ok((claim.user, claim.database))
    }

    #[test]
    fn names_that_no_server_can_know_are_refused_and_cut() {
        let long = |c: &str, n: usize| c.repeat(n);
        assert_eq!(check(&long("u", 63), ""), Ok((long("u", 63), long("u", 63))));
        let role = format!("role \"{}…\" does not exist", long("u", 63));
        for n in [64, 127, 128, 9000] {
            assert_eq!(check(&long("u", n), "app"), Err(role.clone()), "{n}");
        }
        assert_eq!(
            check(&long("é", 4000), "app"),
            Err(format!("role \"{}…\" does not exist", long("é", 31)))
        );
        let database = format!("database \"{}…\" does not exist", long("x", 63));
        for n in [64, 127, 128, 9000] {
            assert_eq!(check("me", &long("x", n)), Err(database.clone()), "{n}");
        }
        assert_eq!(check("", "app"), Err("no PostgreSQL user name specified in startup packet".into()));
    }

    #[test]
    fn names_of_the_configuration_may_be_longer() {
        let long = "d".repeat(100);
        assert_eq!(check("me", &long), Ok(("me".into(), long.clone())));
        assert_eq!(check(&long, "forced"), Ok((long.clone(), "forced".into())));
        assert!(check(&"d".repeat(128), "forced").is_err());
        assert!(check(&long, "app").is_err());
    }
}
