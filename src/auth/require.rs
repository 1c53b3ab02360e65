//! `server_require_auth`: what a server may ask for when we log in, as libpq's `require_auth`.

use std::fmt;

/// A way to prove who one is, by libpq's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ServerMethod {
    /// The server lets us in without a proof.
    None = 1,
    /// The password itself.
    Password = 2,
    /// An md5 hash.
    Md5 = 4,
    /// SCRAM-SHA-256, with or without channel binding.
    ScramSha256 = 8,
    /// Kerberos, which we do not have.
    Gss = 16,
    /// Its relative on Windows, which we do not have.
    Sspi = 32,
}

const ALL: [(&str, ServerMethod); 6] = [
    ("password", ServerMethod::Password),
    ("md5", ServerMethod::Md5),
    ("gss", ServerMethod::Gss),
    ("sspi", ServerMethod::Sspi),
    ("scram-sha-256", ServerMethod::ScramSha256),
    ("none", ServerMethod::None),
];

/// The methods a server may ask for. The default allows all, but a password in clear text only where nobody else can read
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequireAuth {
    /// Those that are named.
    named: u8,
    /// They are those that are not allowed.
    negated: bool,
}

impl RequireAuth {
    /// Reads a list such as `scram-sha-256,md5` or `!password,!none`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut result = Self::default();
        if text.trim().is_empty() {
            return Ok(result);
        }
        for (n, word) in text.split(',').map(str::trim).enumerate() {
            let (negated, name) = word.strip_prefix('!').map_or((false, word), |name| (true, name));
            let Some((_, method)) = ALL.iter().find(|(known, _)| *known == name) else {
                let known = ALL.map(|(name, _)| name).join(", ");
                return Err(format!("expected a list of {known}, each with or without !, not \"{word}\""));
            };
            if n > 0 && negated != result.negated {
                return Err("expected ! in front of all methods or of none".into());
            }
            if result.named & *method as u8 > 0 {
                return Err(format!("{name} is named more than once"));
            }
            result = Self { named: result.named | *method as u8, negated };
        }
        Ok(result)
    }

    /// Whether a server may use this method.
    pub fn allows(self, method: ServerMethod) -> bool {
        self.named == 0 || (self.named & method as u8 > 0) != self.negated
    }

    /// Whether a server may ask for the password in clear text where others could read it: only if it is allowed by name.
    pub fn allows_exposed_password(self) -> bool {
        !self.negated && self.named & ServerMethod::Password as u8 > 0
    }
}

impl fmt::Display for RequireAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = ALL.iter().filter(|(_, method)| self.named & *method as u8 > 0);
        for (n, (name, _)) in named.enumerate() {
            write!(f, "{}{}{name}", if n > 0 { "," } else { "" }, if self.negated { "!" } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::ServerMethod::*;
    use super::*;

    #[test]
    fn lists_are_read_as_libpq_reads_them() {
        let parse = |text| RequireAuth::parse(text).unwrap();
        let allowed = |text| {
            let list = parse(text);
            [None, Password, Md5, ScramSha256].map(|method| u8::from(list.allows(method)))
        };
        assert_eq!(allowed(""), [1, 1, 1, 1]);
        assert_eq!(allowed("scram-sha-256"), [0, 0, 0, 1]);
        assert_eq!(allowed("none, scram-sha-256"), [1, 0, 0, 1]);
        assert_eq!(allowed("!password,!none"), [0, 0, 1, 1]);
        assert_eq!(allowed("gss,sspi"), [0, 0, 0, 0]);
        assert_eq!(parse("!none , !password").to_string(), "!password,!none");
        assert_eq!(parse("").to_string(), "");
        for text in ["scram", "password,", "!password,md5", "md5,!password", "md5,md5", "!", "SCRAM-SHA-256"]
        {
            assert!(RequireAuth::parse(text).is_err(), "{text}");
        }
        assert!(RequireAuth::parse("scram").unwrap_err().contains("scram-sha-256"));
    }

    #[test]
    fn only_its_name_allows_a_password_that_others_could_read() {
        for (text, allowed) in [("", false), ("!md5", false), ("md5", false), ("password,md5", true)] {
            assert_eq!(RequireAuth::parse(text).unwrap().allows_exposed_password(), allowed, "{text}");
        }
    }
}
