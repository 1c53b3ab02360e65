//! Protocol versions, ciphers and curves: OpenSSL's names for what rustls has, and what becomes of the others.

use std::fmt::Write as _;

use rustls::crypto::ring::{cipher_suite as suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{
    CipherSuite, CommonState, NamedGroup, ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion,
};

use super::error::TlsError;

/// TLS 1.3 suites have the same name everywhere.
static TLS13: [(&str, SupportedCipherSuite); 3] = [
    ("TLS_AES_256_GCM_SHA384", suite::TLS13_AES_256_GCM_SHA384),
    ("TLS_AES_128_GCM_SHA256", suite::TLS13_AES_128_GCM_SHA256),
    ("TLS_CHACHA20_POLY1305_SHA256", suite::TLS13_CHACHA20_POLY1305_SHA256),
];

/// TLS 1.2 suites by OpenSSL's names.
static TLS12: [(&str, SupportedCipherSuite); 6] = [
    ("ECDHE-ECDSA-AES256-GCM-SHA384", suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES256-GCM-SHA384", suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-AES128-GCM-SHA256", suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Curves by OpenSSL's and by the standards' names.
static CURVES: [(&str, &dyn SupportedKxGroup); 7] = [
    ("X25519", kx_group::X25519),
    ("prime256v1", kx_group::SECP256R1),
    ("secp256r1", kx_group::SECP256R1),
    ("P-256", kx_group::SECP256R1),
    ("secp384r1", kx_group::SECP384R1),
    ("P-384", kx_group::SECP384R1),
    ("P384", kx_group::SECP384R1),
];

/// What the settings of one side allow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// `client_tls` or `server_tls`, for messages.
    pub(super) side: &'static str,
    /// `*_tls_protocols`.
    pub(super) protocols: &'a str,
    /// `*_tls_ciphers`, for TLS 1.2.
    pub(super) ciphers: &'a str,
    /// `*_tls13_ciphers`.
    pub(super) ciphers13: &'a str,
    /// `client_tls_ecdhcurve`.
    pub(super) curve: &'a str,
}

/// Cryptography and versions to use.
pub(super) struct Policy {
    pub(super) provider: CryptoProvider,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    /// What is done otherwise than asked, for the log.
    pub(super) notes: Vec<String>,
}

impl Policy {
    pub(super) fn new(wanted: Wanted<'_>) -> Result<Self, TlsError> {
        let mut notes = Vec::new();
        let versions = versions(wanted, &mut notes)?;
        let mut provider = rustls::crypto::ring::default_provider();
        let mut suites = ciphers13(wanted.ciphers13)?;
        suites.extend(ciphers12(wanted, &mut notes)?);
        provider.cipher_suites = suites;
        if let Some(curve) = curve(wanted)? {
            provider.kx_groups = vec![curve];
        }
        Ok(Self { provider, versions, notes })
    }
}

fn versions(
    wanted: Wanted<'_>,
    notes: &mut Vec<String>,
) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    // TLS 1.0 and 1.1, 1.2, 1.3
    const ALL: [bool; 3] = [true; 3];
    let mut chosen = [false; 3];
    for word in wanted.protocols.split([',', ':']).map(str::trim) {
        let (negated, name) = word.strip_prefix('!').map_or((false, word), |name| (true, name));
        if negated && chosen == [false; 3] {
            chosen = ALL;
        }
        let named = match name.to_ascii_lowercase().as_str() {
            "all" | "legacy" | "tlsv1" => ALL,
            "secure" | "default" => [false, true, true],
            "tlsv1.0" | "tlsv1.1" => [true, false, false],
            "tlsv1.2" => [false, true, false],
            "tlsv1.3" => [false, false, true],
            _ => return Err(TlsError(format!("invalid {}_protocols: {}", wanted.side, wanted.protocols))),
        };
        for (chosen, named) in chosen.iter_mut().zip(named) {
            *chosen = if negated { *chosen && !named } else { *chosen || named };
        }
    }
    let [old, tls12, tls13] = chosen;
    let mut versions = Vec::new();
    if tls13 {
        versions.push(&rustls::version::TLS13);
    }
    if tls12 || (old && !tls13) {
        versions.push(&rustls::version::TLS12);
    }
    if old && !tls12 {
        notes.push(format!(
            "{}_protocols: TLS 1.0 and 1.1 are not supported, the oldest version is {}",
            wanted.side,
            if tls13 { "TLS 1.3" } else { "TLS 1.2" }
        ));
    }
    if versions.is_empty() {
        return Err(TlsError(format!("{}_protocols allows no version", wanted.side)));
    }
    Ok(versions)
}

fn ciphers13(names: &str) -> Result<Vec<SupportedCipherSuite>, TlsError> {
    if names.is_empty() {
        return Ok(TLS13.iter().map(|(_, suite)| *suite).collect());
    }
    names.split(':').map(|name| find(&TLS13, name)).collect::<Option<Vec<_>>>().ok_or_else(|| {
        TlsError(format!(
            "failed to set the TLSv1.3 cipher suites: \"{names}\" must be one or more, separated by colons, of {}",
            TLS13.map(|(name, _)| name).join(", ")
        ))
    })
}

/// Whole groups of ciphers mean all that there are: each of them belongs to OpenSSL's HIGH.
fn ciphers12(wanted: Wanted<'_>, notes: &mut Vec<String>) -> Result<Vec<SupportedCipherSuite>, TlsError> {
    let mut chosen: Vec<SupportedCipherSuite> = Vec::new();
    let mut unknown = Vec::new();
    for word in wanted.ciphers.split([':', ',', ' ']).filter(|word| !word.is_empty()) {
        let unwanted = word.strip_prefix(['!', '-']);
        match (word.to_ascii_lowercase().as_str(), find(&TLS12, unwanted.unwrap_or(word))) {
            ("default" | "secure" | "normal" | "fast" | "all" | "compat" | "high", _) => {
                chosen = TLS12.iter().map(|(_, suite)| *suite).collect();
            }
            (_, Some(suite)) if unwanted.is_some() => chosen.retain(|other| *other != suite),
            (_, Some(suite)) if !chosen.contains(&suite) => chosen.push(suite),
            (_, Some(_)) => {}
            // What is excluded and not there anyway needs no word.
            (_, None) if unwanted.is_some() || word.starts_with(['+', '@']) => {}
            (_, None) => unknown.push(word),
        }
    }
    if !unknown.is_empty() {
        let names: Vec<_> =
            TLS12.iter().filter(|(_, suite)| chosen.contains(suite)).map(|(n, _)| *n).collect();
        notes.push(format!(
            "{}_ciphers: not known here: {}; in use: {}",
            wanted.side,
            unknown.join(" "),
            names.join(" ")
        ));
    }
    if chosen.is_empty() && !wanted.ciphers.is_empty() {
        return Err(TlsError(format!("no ciphers for '{}' ({}_ciphers)", wanted.ciphers, wanted.side)));
    }
    Ok(chosen)
}

fn curve(wanted: Wanted<'_>) -> Result<Option<&'static dyn SupportedKxGroup>, TlsError> {
    let name = wanted.curve;
    if name.is_empty() || name.eq_ignore_ascii_case("auto") || name.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    match find(&CURVES, name) {
        Some(group) => Ok(Some(group)),
        None => Err(TlsError(format!("invalid ecdhe curve '{name}' (X25519, prime256v1 or secp384r1)"))),
    }
}

fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

/// Version, cipher and key exchange in the words of PgBouncer's log, such as
/// `TLSv1.3/TLS_AES_256_GCM_SHA384/ECDH=X25519`.
pub fn describe(connection: &CommonState) -> String {
    let mut text = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3/".to_owned(),
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2/".to_owned(),
        _ => "-/".to_owned(),
    };
    let cipher = connection.negotiated_cipher_suite().map(|suite| suite.suite());
    text.push_str(cipher.and_then(openssl_name).unwrap_or("-"));
    let curve = match connection.negotiated_key_exchange_group().map(|group| group.name()) {
        Some(NamedGroup::X25519) => "X25519",
        Some(NamedGroup::secp256r1) => "prime256v1",
        Some(NamedGroup::secp384r1) => "secp384r1",
        _ => return text,
    };
    let _ = write!(text, "/ECDH={curve}");
    text
}

fn openssl_name(cipher: CipherSuite) -> Option<&'static str> {
    TLS13.iter().chain(&TLS12).find(|(_, suite)| suite.suite() == cipher).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(protocols: &str, ciphers: &str, ciphers13: &str, curve: &str) -> Result<Policy, TlsError> {
        Policy::new(Wanted { side: "client_tls", protocols, ciphers, ciphers13, curve })
    }

    #[test]
    fn protocols() {
        for (text, tls12, tls13, noted) in [
            ("secure", true, true, false),
            ("all", true, true, false),
            ("tlsv1.3", false, true, false),
            ("tlsv1.2", true, false, false),
            ("tlsv1.2:tlsv1.3", true, true, false),
            ("tlsv1.0, tlsv1.1", true, false, true),
            ("tlsv1.1,tlsv1.3", false, true, true),
            ("!tlsv1.3", true, false, false),
            ("all,!tlsv1.2,!tlsv1.0", false, true, false),
        ] {
            let policy = policy(text, "default", "", "auto").unwrap();
            let has = |version| policy.versions.iter().any(|v| v.version == version);
            assert_eq!(has(ProtocolVersion::TLSv1_2), tls12, "{text}");
            assert_eq!(has(ProtocolVersion::TLSv1_3), tls13, "{text}");
            assert_eq!(!policy.notes.is_empty(), noted, "{text}");
        }
        for text in ["", "ssl3", "tlsv1.2,", "!all"] {
            assert!(policy(text, "default", "", "auto").is_err(), "{text}");
        }
    }

    #[test]
    fn ciphers() {
        let names = |text| {
            let policy = policy("secure", text, "", "auto")?;
            let all = policy.provider.cipher_suites.iter().map(|s| openssl_name(s.suite()).unwrap());
            Ok::<_, TlsError>((all.filter(|n| !n.starts_with("TLS_")).count(), policy.notes.len()))
        };
        assert_eq!(names("default").unwrap(), (6, 0));
        assert_eq!(names("HIGH:!aNULL:!MD5:@STRENGTH").unwrap(), (6, 0));
        assert_eq!(names("HIGH:!ECDHE-RSA-CHACHA20-POLY1305").unwrap(), (5, 0));
        assert_eq!(names("ecdhe-rsa-aes128-gcm-sha256").unwrap(), (1, 0));
        assert_eq!(names("ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-SHA").unwrap(), (1, 1));
        assert!(names("DHE-RSA-AES256-SHA").is_err());
        let one = policy("secure", "default", "TLS_CHACHA20_POLY1305_SHA256", "auto").unwrap();
        assert_eq!(one.provider.cipher_suites.len(), 7);
        assert!(policy("secure", "default", "unknown", "auto").is_err());
    }

    #[test]
    fn curves() {
        assert_eq!(policy("secure", "default", "", "secp384r1").unwrap().provider.kx_groups.len(), 1);
        assert_eq!(policy("secure", "default", "", "auto").unwrap().provider.kx_groups.len(), 3);
        assert!(policy("secure", "default", "", "brainpool").is_err());
    }
}
