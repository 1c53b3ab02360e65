//! The authorities that the system trusts.

use std::path::Path;

/// Names the file before all others, as it does for OpenSSL and so for libpq.
const VARIABLE: &str = "SSL_CERT_FILE";
/// Where distributions have theirs: Debian and its kin, Red Hat's and its kin, SUSE, and those that follow OpenSSL.
const FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The file with the authorities of the system. It may not exist, which whoever reads it will say.
pub(super) fn authorities() -> String {
    choose(std::env::var(VARIABLE).ok(), |file| Path::new(file).exists())
}

fn choose(named: Option<String>, exists: impl Fn(&str) -> bool) -> String {
    let usual = || FILES.into_iter().find(|file| exists(file)).unwrap_or(FILES[0]).to_owned();
    named.filter(|file| !file.is_empty()).unwrap_or_else(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_comes_before_what_exists() {
        let red_hat = |file: &str| file.starts_with("/etc/pki");
        assert_eq!(choose(Some("/my/ca.pem".into()), red_hat), "/my/ca.pem");
        assert_eq!(choose(Some(String::new()), red_hat), FILES[1]);
        assert_eq!(choose(None, red_hat), FILES[1]);
        assert_eq!(choose(None, |_| true), FILES[0]);
        assert_eq!(choose(None, |_| false), FILES[0]);
    }
}
