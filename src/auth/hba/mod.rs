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
mod problem;
mod rule;
#[cfg(test)]
mod tests;

use std::path::Path;

use self::ident::IdentMaps;
pub use self::parse::ReadFile;
pub use self::problem::Problem;
pub use self::rule::{Connection, Method, Rule};

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
