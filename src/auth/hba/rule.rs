//! A rule: a line of an HBA file.

use core::net::IpAddr;
use std::collections::HashSet;
use std::sync::Arc;

use super::ident::IdentMap;
use crate::auth::ldap::LdapOptions;

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
    pub(super) kind: Kind,
    pub(super) databases: Names,
    pub(super) users: Names,
    pub(super) address: Address,
    /// How the client has to prove who it is.
    pub method: Method,
    /// The map named by `map=`; only `cert` and `peer` use it.
    pub map: Option<Arc<IdentMap>>,
}

impl Rule {
    pub(super) fn matches(&self, connection: &Connection<'_>) -> bool {
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
pub(super) enum Kind {
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
    /// By a password that an LDAP server checks. `None`: the options were bad, which [`Rules::parse`](super::Rules::parse) has
    /// reported; every login that this rule matches is refused.
    Ldap(Option<Arc<LdapOptions>>),
}

/// What stands in the columns DATABASE and USER. PgBouncer knows the same words in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) all: bool,
    pub(super) same_user: bool,
    pub(super) replication: bool,
    pub(super) names: HashSet<String>,
}

impl Names {
    /// Whether `name` is meant; `other` is the user if `name` is a database, or the other way round.
    fn contain(&self, name: &str, other: &str) -> bool {
        self.all || (self.same_user && name == other) || self.names.contains(name)
    }
}

/// What stands in the column ADDRESS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Address {
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
pub(super) fn masked(address: IpAddr, mask: IpAddr) -> Option<IpAddr> {
    match (address, mask) {
        (IpAddr::V4(address), IpAddr::V4(mask)) => Some((address & mask).into()),
        (IpAddr::V6(address), IpAddr::V6(mask)) => Some((address & mask).into()),
        _ => None,
    }
}
