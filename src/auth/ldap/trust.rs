//! Which directories' certificates to trust: what libldap's configuration says (ldap.conf(5)), since that is where
//! administrators have written it down.

/// Options of TLS from `ldap.conf` and from the environment; what is said later counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// `TLS_REQCERT`.
    pub require: Require,
    /// `TLS_CACERT`: a file with authorities.
    pub ca_file: Option<String>,
    /// `TLS_CACERTDIR`: a folder with such files.
    pub ca_folder: Option<String>,
}

/// What a directory's certificate must prove. libldap's `try` means `Demand` here: a server always shows a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Require {
    /// Nothing (`never`, `allow`).
    Nothing,
    /// It comes from an authority and belongs to the host that was asked for (`try`, `demand`, `hard`).
    #[default]
    Demand,
}

impl Trust {
    /// Names of the options. Before each of them stands `LDAP` in the environment.
    pub const OPTIONS: [&str; 3] = ["TLS_REQCERT", "TLS_CACERT", "TLS_CACERTDIR"];

    /// Reads an `ldap.conf`: lines with the name of an option, spaces and its value. What is not about this is passed
    /// over, as libldap does with what it does not know.
    pub fn read(&mut self, conf: &str) {
        for line in conf.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, value)) = line.trim().split_once(|c: char| c.is_ascii_whitespace()) {
                self.set(name, value.trim_start());
            }
        }
    }

    /// Sets one option. A value that `TLS_REQCERT` cannot have changes nothing.
    pub fn set(&mut self, name: &str, value: &str) {
        match name.to_ascii_uppercase().as_str() {
            "TLS_CACERT" => self.ca_file = Some(value.to_owned()),
            "TLS_CACERTDIR" => self.ca_folder = Some(value.to_owned()),
            "TLS_REQCERT" => match value.to_ascii_lowercase().as_str() {
                "never" | "allow" => self.require = Require::Nothing,
                "try" | "demand" | "hard" | "on" | "yes" | "true" => self.require = Require::Demand,
                _ => {}
            },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(conf: &str) -> Trust {
        let mut trust = Trust::default();
        trust.read(conf);
        trust
    }

    #[test]
    fn what_ldap_conf_says() {
        let trust =
            read("# comment\nBASE dc=x\n\ntls_cacert\t /etc/my ca.pem \nTLS_CACERTDIR /certs\nTLS_REQCERT\n");
        assert_eq!(trust.ca_file.as_deref(), Some("/etc/my ca.pem"));
        assert_eq!(trust.ca_folder.as_deref(), Some("/certs"));
        assert_eq!(trust.require, Require::Demand);
        assert_eq!(read("TLS_CACERT a\nTLS_CACERT b").ca_file.as_deref(), Some("b"));
        assert_eq!(read("#TLS_REQCERT never"), Trust::default());
        assert_eq!(read(""), Trust::default());
    }

    #[test]
    fn only_two_words_turn_checks_off() {
        for (value, require) in [
            ("never", Require::Nothing),
            ("Allow", Require::Nothing),
            ("try", Require::Demand),
            ("demand", Require::Demand),
            ("HARD", Require::Demand),
            ("nevermore", Require::Demand),
            ("no", Require::Demand),
        ] {
            assert_eq!(read(&format!("  TLS_REQCERT   {value}  ")).require, require, "{value}");
        }
        assert_eq!(read("TLS_REQCERT never\nTLS_REQCERT nonsense").require, Require::Nothing);
        assert_eq!(read("TLS_REQCERT never\nTLS_REQCERT hard").require, Require::Demand);
    }
}
