//! Does a certificate belong to the host that was asked for? libpq's rules for `sslmode=verify-full`: the names in
//! `subjectAltName`; the common name only if there are none of them.

use std::net::IpAddr;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::certificate::{alternative_names, subject_common_name};

/// Whether `host`, a name or an address, is among the certificate's names.
pub(super) fn belongs_to(certificate: &X509Certificate<'_>, host: &str) -> bool {
    let address: Option<IpAddr> = host.parse().ok();
    let mut has_names = false;
    for name in alternative_names(certificate) {
        match name {
            GeneralName::DNSName(pattern) => {
                has_names = true;
                if address.is_none() && matches(pattern, host) {
                    return true;
                }
            }
            GeneralName::IPAddress(bytes) => {
                has_names = true;
                if address.is_some_and(|address| same_address(address, bytes)) {
                    return true;
                }
            }
            _ => {}
        }
    }
    !has_names && subject_common_name(certificate).is_some_and(|pattern| matches(pattern, host))
}

fn same_address(address: IpAddr, bytes: &[u8]) -> bool {
    match address {
        IpAddr::V4(address) => address.octets() == *bytes,
        IpAddr::V6(address) => address.octets() == *bytes,
    }
}

/// A wildcard stands for exactly one label, the first one.
fn matches(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.trim_end_matches('.'), host.trim_end_matches('.'));
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(host),
        Some(domain) => host.split_once('.').is_some_and(|(label, rest)| {
            !label.is_empty() && domain.contains('.') && rest.eq_ignore_ascii_case(domain)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_one_label() {
        for (pattern, host, fits) in [
            ("db.example.org", "DB.example.org", true),
            ("db.example.org", "db.example.org.", true),
            ("*.example.org", "db.example.org", true),
            ("*.example.org", "a.db.example.org", false),
            ("*.example.org", "example.org", false),
            ("*.org", "example.org", false),
            ("*", "example", false),
            ("d*.example.org", "db.example.org", false),
            ("", "", true),
            ("*.example.org", ".example.org", false),
        ] {
            assert_eq!(matches(pattern, host), fits, "{pattern} {host}");
        }
    }
}
