//! Kinds of values and how PgBouncer writes them.

use std::time::Duration;

use crate::auth::require::RequireAuth;
use crate::auth::scram::MAX_ITERATIONS;

/// A kind of setting: how its text is read and shown.
pub trait Value: Sized {
    /// Name in the documentation.
    const KIND: &'static str;
    /// Reads the text; the error says what was expected.
    fn parse(text: &str) -> Result<Self, String>;
    /// The text that SHOW CONFIG gives.
    fn show(&self) -> String;
}

impl Value for String {
    const KIND: &'static str = "text";
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

/// Comma-separated.
impl Value for Vec<String> {
    const KIND: &'static str = "list";
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
    }
    fn show(&self) -> String {
        self.join(", ")
    }
}

/// Whether a list names this. Blanks separate names as commas do, as far as they are not part of the name.
pub fn names(list: &[String], name: &str) -> bool {
    list.iter().any(|part| part == name || part.split_whitespace().any(|word| word == name))
}

/// Ports, comma-separated: one for all hosts, or one for each.
impl Value for Vec<u16> {
    const KIND: &'static str = "ports";
    fn parse(text: &str) -> Result<Self, String> {
        each(text)
    }
    fn show(&self) -> String {
        joined(self)
    }
}

/// Weights, comma-separated: one for all hosts, or one for each.
impl Value for Vec<u32> {
    const KIND: &'static str = "weights";
    fn parse(text: &str) -> Result<Self, String> {
        each(text)
    }
    fn show(&self) -> String {
        joined(self)
    }
}

fn each<T: Value>(text: &str) -> Result<Vec<T>, String> {
    text.split(',').map(|part| T::parse(part.trim())).collect()
}

fn joined<T: Value>(all: &[T]) -> String {
    all.iter().map(T::show).collect::<Vec<_>>().join(",")
}

/// 0 or 1; any other number means 1, as in C.
impl Value for bool {
    const KIND: &'static str = "boolean";
    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "yes" | "true" | "on" => Ok(true),
            "no" | "false" | "off" => Ok(false),
            _ => integer(text).map(|n| n != 0).map_err(|_| "expected 0 or 1".to_owned()),
        }
    }
    fn show(&self) -> String {
        u8::from(*self).to_string()
    }
}

impl Value for u32 {
    const KIND: &'static str = "integer";
    fn parse(text: &str) -> Result<Self, String> {
        Self::try_from(integer(text)?).map_err(|_| "expected a number that is not negative".to_owned())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u64 {
    const KIND: &'static str = "integer";
    fn parse(text: &str) -> Result<Self, String> {
        Self::try_from(integer(text)?).map_err(|_| "expected a number that is not negative".to_owned())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u16 {
    const KIND: &'static str = "port";
    fn parse(text: &str) -> Result<Self, String> {
        Self::try_from(integer(text)?).map_err(|_| "expected a port number from 0 to 65535".to_owned())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// Decimal seconds without a unit.
impl Value for Duration {
    const KIND: &'static str = "seconds";
    fn parse(text: &str) -> Result<Self, String> {
        let seconds: f64 =
            text.parse().map_err(|_| "expected seconds, a number without a unit".to_owned())?;
        Self::try_from_secs_f64(seconds).map_err(|_| "expected seconds, not negative".to_owned())
    }
    fn show(&self) -> String {
        if self.subsec_micros() == 0 { self.as_secs().to_string() } else { self.as_secs_f64().to_string() }
    }
}

/// A duration written in milliseconds (`tcp_user_timeout`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Milliseconds(pub Duration);

impl Value for Milliseconds {
    const KIND: &'static str = "milliseconds";
    fn parse(text: &str) -> Result<Self, String> {
        u32::parse(text).map(|n| Self(Duration::from_millis(n.into())))
    }
    fn show(&self) -> String {
        self.0.as_millis().to_string()
    }
}

impl Value for RequireAuth {
    const KIND: &'static str = "list of methods";
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// Iterations of PBKDF2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iterations(pub u32);

impl Value for Iterations {
    const KIND: &'static str = "integer";
    fn parse(text: &str) -> Result<Self, String> {
        match u32::parse(text)? {
            n @ 1..=MAX_ITERATIONS => Ok(Self(n)),
            _ => Err(format!("expected a number from 1 to {MAX_ITERATIONS}")),
        }
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// File permissions, written in octal with a leading zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl Value for FileMode {
    const KIND: &'static str = "file mode";
    fn parse(text: &str) -> Result<Self, String> {
        u32::parse(text).map(Self)
    }
    fn show(&self) -> String {
        format!("0{:03o}", self.0)
    }
}

/// A whole number as C's strtol reads it with base 0: `0x10` is 16, `010` is 8.
pub fn integer(text: &str) -> Result<i64, String> {
    let expected = || "expected a whole number".to_owned();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) || digits.is_empty() {
        return Err(expected());
    }
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let number = match (hex, digits) {
        (Some(hex), _) => i64::from_str_radix(hex, 16),
        (None, octal) if octal.len() > 1 && octal.starts_with('0') => i64::from_str_radix(octal, 8),
        (None, decimal) => decimal.parse(),
    };
    number.map(|n| if negative { -n } else { n }).map_err(|_| expected())
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant,)* }

        impl Value for $name {
            const KIND: &'static str = concat!($("`", $word, "` "),*);
            fn parse(text: &str) -> Result<Self, String> {
                $(if text.eq_ignore_ascii_case($word) { return Ok(Self::$variant); })*
                Err(format!("expected one of {}", [$($word),*].join(", ")))
            }
            fn show(&self) -> String {
                match self { $(Self::$variant => $word,)* }.to_owned()
            }
        }
    };
}

words! {
    /// `pool_mode`: when a server is given back.
    PoolMode {
        /// When the client disconnects.
        Session = "session",
        /// When its transaction has ended.
        Transaction = "transaction",
        /// When its statement has ended; transactions of several statements are refused.
        Statement = "statement",
    }
}

words! {
    /// `read_consistency`: what a read on a replica must not miss.
    Consistency {
        /// Nothing in particular.
        Eventual = "eventual",
        /// The client's own writes.
        Session = "session",
        /// All writes made through this process.
        Database = "database",
    }
}

words! {
    /// `auth_type`: how clients prove who they are.
    AuthType {
        /// Not at all; any name will do.
        Any = "any",
        /// Not at all.
        Trust = "trust",
        /// By sending the password.
        Plain = "plain",
        /// By an md5 hash, or by SCRAM for users with a SCRAM secret.
        Md5 = "md5",
        /// By a TLS certificate.
        Cert = "cert",
        /// As auth_hba_file says.
        Hba = "hba",
        /// By LDAP.
        Ldap = "ldap",
        /// By PAM.
        Pam = "pam",
        /// By SCRAM-SHA-256.
        ScramSha256 = "scram-sha-256",
    }
}

words! {
    /// `client_tls_sslmode`, `server_tls_sslmode`.
    TlsMode {
        /// No TLS.
        Disable = "disable",
        /// TLS if the other side insists.
        Allow = "allow",
        /// TLS if the other side can.
        Prefer = "prefer",
        /// TLS.
        Require = "require",
        /// TLS with a certificate of a known authority.
        VerifyCa = "verify-ca",
        /// … that names the host.
        VerifyFull = "verify-full",
    }
}

words! {
    /// `load_balance_hosts`: how several hosts of a database are used.
    LoadBalance {
        /// New connections take turns.
        RoundRobin = "round-robin",
        /// The first that can be reached.
        Disable = "disable",
    }
}

words! {
    /// `log_format`.
    LogFormat {
        /// PgBouncer's lines.
        Pgbouncer = "pgbouncer",
        /// One JSON object per line.
        Json = "json",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_strtol_reads_them() {
        for (text, number) in [("10", 10), ("010", 8), ("0x10", 16), ("-1", -1), ("+7", 7), ("0", 0)] {
            assert_eq!(integer(text), Ok(number));
        }
        for text in ["", "x", "1x", "08", "0x", "1.5", "- 1", "99999999999999999999"] {
            assert!(integer(text).is_err(), "{text}");
        }
        assert!(u32::parse("-1").is_err() && u16::parse("65536").is_err());
    }

    #[test]
    fn blanks_separate_names_as_commas_do() {
        let list = <Vec<String> as Value>::parse(" one two\tthree,four , five six ").unwrap();
        for name in ["one", "two", "three", "four", "five", "six", "five six"] {
            assert!(names(&list, name), "{name}");
        }
        for name in ["", " ", "on", "wo", "one,two", "four,", "six seven"] {
            assert!(!names(&list, name), "{name}");
        }
    }

    #[test]
    fn times_are_seconds() {
        assert_eq!(Duration::parse("1.5").unwrap(), Duration::from_millis(1500));
        assert_eq!(Duration::parse("0").unwrap().show(), "0");
        assert_eq!(Duration::parse("0.25").unwrap().show(), "0.25");
        for text in ["", "-1", "1s", "NaN", "inf", "1e300"] {
            assert!(Duration::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn iterations_have_a_limit() {
        assert_eq!(Iterations::parse("1000000"), Ok(Iterations(1_000_000)));
        for text in ["0", "1000001", "x"] {
            assert!(Iterations::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn words_and_lists() {
        assert_eq!(PoolMode::parse("TRANSACTION"), Ok(PoolMode::Transaction));
        assert!(PoolMode::parse("pool").unwrap_err().contains("session, transaction, statement"));
        assert_eq!(Vec::<String>::parse(" a, b ,,c").unwrap(), ["a", "b", "c"]);
        assert_eq!(FileMode::parse("0777").unwrap(), FileMode(0o777));
        for (mode, shown) in [(0o770, "0770"), (0o7, "0007"), (0, "0000"), (0o2770, "02770")] {
            assert_eq!(FileMode(mode).show(), shown);
            assert_eq!(FileMode::parse(shown), Ok(FileMode(mode)));
        }
        assert!(bool::parse("1").unwrap() && bool::parse("on").unwrap() && !bool::parse("0").unwrap());
    }
}
