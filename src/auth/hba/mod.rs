//! Host-based access rules: who may come from where, and how they prove who they are. The file of `auth_hba_file`, a
//! subset of PostgreSQL's `pg_hba.conf` as PgBouncer reads it.
//!
//! ```text
//! local                   DATABASE  USER           METHOD  [OPTIONS]
//! host|hostssl|hostnossl  DATABASE  USER  ADDRESS  METHOD  [OPTIONS]
//! ```
//!
//! [`Rules::parse`] reads the text, [`Rules::find`] gives the first rule that matches a connection. [`ident`] reads the
//! file of `auth_ident_file`, whose maps a rule may name.
//!
//! A name file (`@file`) may have several names on a line, empty lines and comments, as with PostgreSQL; PgBouncer takes
//! the first of several names without a comma and refuses the rest.

pub mod ident;
mod line;
mod parse;
#[cfg(test)]
mod tests;

use core::net::IpAddr;
use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use self::ident::{IdentMap, IdentMaps};
use super::ldap::LdapOptions;

/// The rules of a file, in its order.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Reads a file's text. A bad line is left out and reported, the others count, as with PgBouncer; only a line whose
    /// options for LDAP are bad stays and refuses whom it matches, as it does there.
    ///
    /// `path` is where the text comes from: `@file` is relative to its folder. `read` reads such a file.
    pub fn parse(text: &str, path: &Path, maps: &IdentMaps, read: ReadFile<'_>) -> (Self, Vec<Problem>) {
        let (rules, problems) = parse::rules(text, path, maps, read);
        (Self(rules), problems)
    }

    /// The first rule that matches. Without one the connection has to be refused.
    pub fn find(&self, connection: &Connection<'_>) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.matches(connection))
    }

    /// Whether there is no rule at all, so that nobody gets in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rules, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }
}

/// Reads a file to its text; the error is the system's message.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> Result<String, String>;

/// What a rule is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Where the client is; `None` if it came by a Unix socket.
    pub address: Option<IpAddr>,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Whether it asks for physical replication (`replication=true`, not `replication=database`).
    pub physical_replication: bool,
    /// The database it asks for.
    pub database: &'a str,
    /// The user it says it is.
    pub user: &'a str,
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which line, counted from 1.
    pub line: usize,
    kind: Kind,
    databases: Names,
    users: Names,
    address: Address,
    /// How the client has to prove who it is.
    pub method: Method,
    /// The map named by `map=`; only `cert` and `peer` use it.
    pub map: Option<Arc<IdentMap>>,
}

impl Rule {
    fn matches(&self, connection: &Connection<'_>) -> bool {
        let Connection { database, user, .. } = connection;
        let from_there = match (connection.address, self.kind) {
            (None, Kind::Local) => true,
            (None, _) | (Some(_), Kind::Local) => false,
            (Some(_), Kind::HostSsl) if !connection.tls => false,
            (Some(_), Kind::HostNoSsl) if connection.tls => false,
            (Some(address), _) => self.address.contains(address),
        };
        // As with PostgreSQL "all" does not cover physical replication, which has no database.
        let to_there = match connection.physical_replication {
            true => self.databases.replication,
            false => self.databases.contain(database, user),
        };
        from_there && to_there && self.users.contain(user, database)
    }
}

/// What kind of connection a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
}

/// How a client has to prove who it is. `pam` exists only as `auth_type`, as with PgBouncer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// Not at all.
    Trust,
    /// It cannot.
    Reject,
    /// By a hashed password, or by SCRAM if that is how the password is stored.
    Md5,
    /// By its password in plain text.
    Password,
    /// By its operating system user.
    Peer,
    /// By a TLS certificate.
    Cert,
    /// By SCRAM.
    ScramSha256,
    /// By a password that a directory checks. `None`: the options were bad, which [`Rules::parse`] has reported; nobody
    /// gets in.
    Ldap(Option<Arc<LdapOptions>>),
}

/// What stands in the columns DATABASE and USER. PgBouncer knows the same words in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    all: bool,
    same_user: bool,
    replication: bool,
    names: HashSet<String>,
}

impl Names {
    /// Whether `name` is meant; `other` is the user if `name` is a database, or the other way round.
    fn contain(&self, name: &str, other: &str) -> bool {
        self.all || (self.same_user && name == other) || self.names.contains(name)
    }
}

/// What stands in the column ADDRESS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Address {
    All,
    Network { network: IpAddr, mask: IpAddr },
}

impl Address {
    fn contains(self, address: IpAddr) -> bool {
        match self {
            Self::All => true,
            Self::Network { network, mask } => masked(address, mask) == Some(network),
        }
    }
}

/// The part of an address that the mask covers; `None` if they are of different families.
fn masked(address: IpAddr, mask: IpAddr) -> Option<IpAddr> {
    match (address, mask) {
        (IpAddr::V4(address), IpAddr::V4(mask)) => Some((address & mask).into()),
        (IpAddr::V6(address), IpAddr::V6(mask)) => Some((address & mask).into()),
        _ => None,
    }
}

/// What is wrong with a line of an HBA or ident file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which line, counted from 1.
    pub line: usize,
    /// Where in the line, counted in bytes from 1.
    pub column: usize,
    /// What.
    pub message: String,
    /// A way out.
    pub hint: Option<&'static str>,
    /// The line itself, but for a password.
    pub excerpt: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)?;
        match self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}
