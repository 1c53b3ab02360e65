//! LDAP: what `auth_ldap_options` and the options of `ldap` in an HBA file say, and the messages of the conversation.
//!
//! There are two ways. Direct: prefix + user + suffix is the name that the password belongs to. With a search: somebody
//! (`ldapbinddn`, or nobody) looks for the one entry that the user's name fits, and the password belongs to that. The
//! conversation itself is `net::ldap`.
//!
//! Different from PgBouncer, which takes them without a word: a word without `=`, a quote that is not closed and a port
//! above 65535 are errors, since what comes behind them (`ldaptls` for example) would not count; empty values are
//! allowed. Servers are not looked up by DNS SRV records, and referrals are not followed.

pub mod filter;
pub mod message;
#[cfg(test)]
mod tests;
pub mod trust;

use std::fmt;

pub use message::Scope;
use zeroize::Zeroizing;

/// Where and how to ask a directory for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LdapOptions {
    /// Host names or addresses, to be tried in this order; never empty.
    pub servers: Vec<String>,
    /// Their port.
    pub port: u16,
    /// How the connection is protected.
    pub security: Security,
    /// How the user is found.
    pub lookup: Lookup,
}

/// How the connection to the directory is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    Plain,
    /// `ldaptls=1`: TLS is asked for on a plain connection.
    StartTls,
    /// `ldaps`: TLS from the first byte.
    Ldaps,
}

/// How a user's name becomes the name of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// By what is put around it.
    Direct {
        /// `ldapprefix`.
        prefix: String,
        /// `ldapsuffix`.
        suffix: String,
    },
    /// By a search.
    Search(Search),
}

/// A search for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// `ldapbasedn`: where to search.
    pub base: String,
    /// How deep.
    pub scope: Scope,
    /// `ldapbinddn`: as whom to search; empty is anonymous.
    pub bind_dn: String,
    /// `ldapbindpasswd`.
    pub bind_password: BindPassword,
    /// `ldapsearchfilter`, or what `ldapsearchattribute` comes to; `$username` stands for the user.
    filter: String,
}

impl Search {
    /// The filter for a user, encoded. `None` if the name contains what means something in a filter; PgBouncer refuses
    /// the same characters.
    pub fn filter(&self, user: &str) -> Option<Vec<u8>> {
        if user.contains(['*', '(', ')', '\\', '/']) {
            return None;
        }
        filter::encode(&self.filter.replace("$username", user)).ok()
    }
}

/// A password that is not shown and not left in memory.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct BindPassword(Zeroizing<String>);

impl BindPassword {
    /// The password itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BindPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What is wrong with the options. Never shows a value of `ldapbindpasswd`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Not `key=value`.
    #[error("expected key=value at byte {0} of the LDAP options")]
    Syntax(usize),
    /// A quote that is not closed.
    #[error("a quote is not closed in the LDAP options")]
    Unclosed,
    /// An unknown key. It is not shown: behind a comma it may be the rest of a password.
    #[error("unknown LDAP option at byte {0} (a value with a space or comma has to be in double quotes)")]
    UnknownKey(usize),
    /// A value that the key cannot have.
    #[error("invalid {key} value: \"{value}\"")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// A URL that is none.
    #[error("could not parse LDAP URL \"{0}\"")]
    Url(String),
    /// Neither way is complete.
    #[error(
        "authentication method \"ldap\" requires argument \"ldapbasedn\", \"ldapprefix\", or \"ldapsuffix\" to be set"
    )]
    NoLookup,
    /// Both ways are meant.
    #[error("cannot mix options for simple bind and search+bind modes")]
    Mixed,
    /// Two filters.
    #[error("cannot use ldapsearchattribute together with ldapsearchfilter")]
    TwoFilters,
    /// No server.
    #[error("ldapserver is not set (servers are not looked up by DNS SRV records)")]
    NoServer,
    /// TLS twice.
    #[error("cannot use ldaptls together with ldaps")]
    TlsTwice,
    /// A filter that is none.
    #[error("invalid LDAP search filter: {0}")]
    Filter(filter::FilterError),
}

/// The options as they are written.
#[derive(Default)]
struct Written {
    server: Option<String>,
    port: Option<u16>,
    ldaps: bool,
    tls: bool,
    prefix: Option<String>,
    suffix: Option<String>,
    base: Option<String>,
    scope: Option<Scope>,
    bind_dn: Option<String>,
    bind_password: Option<String>,
    attribute: Option<String>,
    filter: Option<String>,
}

impl LdapOptions {
    /// Reads options as they stand in `auth_ldap_options` or behind `ldap` in an HBA file: `key=value` with spaces or
    /// commas between them; keys and values may be in double quotes, where `""` stands for `"`. Of options given twice
    /// the last counts. A `#` where a key should be begins a comment.
    pub fn parse(text: &str) -> Result<Self, OptionsError> {
        let mut written = Written::default();
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ',');
            if rest.is_empty() || rest.starts_with('#') {
                return written.validate();
            }
            let at = text.len() - rest.len() + 1;
            let (key, after) = word(rest, |c| c == '=')?;
            let after = after.strip_prefix('=').ok_or(OptionsError::Syntax(at))?;
            let (value, after) = word(after, |c| c.is_ascii_whitespace() || c == ',')?;
            written.set(&key, value, at)?;
            rest = after;
        }
    }
}

/// Options as an error or SHOW may quote them: nothing from the first one on that is a secret or not known, for what looks
/// like an option may be the rest of a secret.
pub fn without_secrets(text: &str) -> String {
    const SHOWN: &[&str] = &[
        "ldapserver",
        "ldapport",
        "ldapscheme",
        "ldaptls",
        "ldapprefix",
        "ldapsuffix",
        "ldapbasedn",
        "ldapbinddn",
        "ldapsearchattribute",
        "ldapsearchfilter",
        "ldapurl",
        "map",
    ];
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ',');
        if rest.is_empty() {
            return text.to_owned();
        }
        let before = &text[..text.len() - rest.len()];
        let key = rest.split('=').next().unwrap_or_default();
        if key.len() == rest.len() || !key.bytes().all(|b| b.is_ascii_alphabetic()) {
            return format!("{before}***");
        }
        match word(&rest[key.len() + 1..], |c| c.is_ascii_whitespace() || c == ',') {
            Ok((_, after)) if SHOWN.contains(&key) => rest = after,
            _ => return format!("{before}{key}=***"),
        }
    }
}

/// A word in double quotes, or one up to where `is_end` is true, and what follows it.
fn word(text: &str, is_end: impl Fn(char) -> bool) -> Result<(String, &str), OptionsError> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let (word, rest) = text.split_at(text.find(is_end).unwrap_or(text.len()));
        return Ok((word.to_owned(), rest));
    };
    let mut value = String::new();
    loop {
        let (part, after) = rest.split_once('"').ok_or(OptionsError::Unclosed)?;
        value.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                value.push('"');
                rest = more;
            }
            None => return Ok((value, after)),
        }
    }
}

impl Written {
    fn set(&mut self, key: &str, value: String, at: usize) -> Result<(), OptionsError> {
        match key {
            "ldapserver" => self.server = Some(value),
            "ldapport" => match value.parse() {
                Ok(port) if port > 0 => self.port = Some(port),
                _ => return Err(OptionsError::Value { key: "ldapport", value }),
            },
            "ldapscheme" => match value.as_str() {
                "ldap" => self.ldaps = false,
                "ldaps" => self.ldaps = true,
                _ => return Err(OptionsError::Value { key: "ldapscheme", value }),
            },
            // PgBouncer takes anything but 1 as no; a "yes" must not mean that.
            "ldaptls" => match value.as_str() {
                "0" => self.tls = false,
                "1" => self.tls = true,
                _ => return Err(OptionsError::Value { key: "ldaptls", value }),
            },
            "ldapprefix" => self.prefix = Some(value),
            "ldapsuffix" => self.suffix = Some(value),
            "ldapbasedn" => self.base = Some(value),
            "ldapbinddn" => self.bind_dn = Some(value),
            "ldapbindpasswd" => self.bind_password = Some(value),
            "ldapsearchattribute" => self.attribute = Some(value),
            "ldapsearchfilter" => self.filter = Some(value),
            "ldapurl" => self.url(&value).ok_or(OptionsError::Url(value))?,
            _ => return Err(OptionsError::UnknownKey(at)),
        }
        Ok(())
    }

    /// `ldap[s]://host[:port]/basedn[?attribute[?scope[?filter]]]`, RFC 4516.
    fn url(&mut self, url: &str) -> Option<()> {
        let (scheme, rest) = url.split_once("://")?;
        self.ldaps = match scheme.to_ascii_lowercase().as_str() {
            "ldap" => false,
            "ldaps" => true,
            _ => return None,
        };
        let (host, rest) = rest.split_once('/').unwrap_or((rest, ""));
        // The colons of an IPv6 address stand in brackets.
        let after_brackets = host.rfind(']').map_or(0, |end| end + 1);
        let (host, port) = match host[after_brackets..].split_once(':') {
            Some((between, port)) => (&host[..after_brackets + between.len()], Some(port)),
            None => (host, None),
        };
        self.port = match port {
            Some(port) => Some(port.parse().ok().filter(|port| *port > 0)?),
            None => None,
        };
        if !host.is_empty() {
            self.server = Some(percent_decoded(host)?);
        }
        let mut parts = rest.split('?').map(percent_decoded);
        self.base = Some(parts.next()??);
        let mut part = || match parts.next() {
            Some(part) => part.map(|part| Some(part).filter(|part| !part.is_empty())),
            None => Some(None),
        };
        if let Some(attributes) = part()? {
            self.attribute = attributes.split(',').next().map(str::to_owned);
        }
        self.scope = match part()?.as_deref() {
            None | Some("base") => Some(Scope::Base),
            Some("one" | "onelevel") => Some(Scope::One),
            Some("sub" | "subtree") => Some(Scope::Sub),
            Some(_) => return None,
        };
        if let Some(filter) = part()? {
            self.filter = Some(filter);
        }
        Some(())
    }

    fn validate(self) -> Result<LdapOptions, OptionsError> {
        let lookup = if self.prefix.is_some() || self.suffix.is_some() {
            if self.base.is_some()
                || self.bind_dn.is_some()
                || self.bind_password.is_some()
                || self.attribute.is_some()
                || self.filter.is_some()
            {
                return Err(OptionsError::Mixed);
            }
            let (prefix, suffix) = (self.prefix.unwrap_or_default(), self.suffix.unwrap_or_default());
            Lookup::Direct { prefix, suffix }
        } else {
            let filter = match (self.filter, self.attribute) {
                (Some(_), Some(_)) => return Err(OptionsError::TwoFilters),
                (Some(filter), None) => filter,
                (None, attribute) => format!("({}=$username)", attribute.as_deref().unwrap_or("uid")),
            };
            filter::encode(&filter.replace("$username", "user")).map_err(OptionsError::Filter)?;
            Lookup::Search(Search {
                base: self.base.ok_or(OptionsError::NoLookup)?,
                scope: self.scope.unwrap_or(Scope::Sub),
                bind_dn: self.bind_dn.unwrap_or_default(),
                bind_password: BindPassword(Zeroizing::new(self.bind_password.unwrap_or_default())),
                filter,
            })
        };
        let security = match (self.ldaps, self.tls) {
            (false, false) => Security::Plain,
            (false, true) => Security::StartTls,
            (true, false) => Security::Ldaps,
            (true, true) => return Err(OptionsError::TlsTwice),
        };
        let servers: Vec<_> =
            self.server.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
        if servers.is_empty() {
            return Err(OptionsError::NoServer);
        }
        let port = self.port.unwrap_or(if self.ldaps { 636 } else { 389 });
        Ok(LdapOptions { servers, port, security, lookup })
    }
}

/// Puts bytes in place of their `%XX`. `None` if that is no text.
fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}
