//! Which certificates are good, with real ones.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, SigningKey, date_time_ymd,
};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, Error};

use super::identity::Identity;
use super::verify::{Authorities, ClientVerifier, ServerCheck, ServerVerifier};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn params(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(SerialNumber::from(4711));
    params
}

fn authority(name: &str) -> Issuer {
    let mut params = params(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(issuer: &Issuer, params: &CertificateParams) -> CertificateDer<'static> {
    params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
}

/// A list with the serial number that all certificates here have.
fn revocation_list(issuer: &Issuer) -> CertificateRevocationListDer<'static> {
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from(4711),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2090, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(issuer).unwrap().der().clone()
}

/// The same certificate as X.509 version 1: without the version's number and without extensions, signed anew.
fn version_1(certificate: &CertificateDer<'_>, key: &KeyPair) -> CertificateDer<'static> {
    let (_, all, _) = element(certificate);
    let (_, signed, after) = element(all);
    let (signed_len, algorithm_len) = (all.len() - after.len(), after.len() - element(after).2.len());
    let algorithm = &all[signed_len..signed_len + algorithm_len];
    let (mut rest, mut content) = (signed, Vec::new());
    while !rest.is_empty() {
        let (tag, _, after) = element(rest);
        if tag != 0xa0 && tag != 0xa3 {
            content.extend_from_slice(&rest[..rest.len() - after.len()]);
        }
        rest = after;
    }
    let signed = encode(0x30, &content);
    let signature = [&[0][..], &key.sign(&signed).unwrap()].concat();
    encode(0x30, &[&signed, algorithm, &encode(3, &signature)].concat()).into()
}

/// Tag and content of the first element, and what follows it.
fn element(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (start, len) = match der[1] {
        0x81 => (3, usize::from(der[2])),
        0x82 => (4, usize::from(der[2]) << 8 | usize::from(der[3])),
        len => (2, usize::from(len)),
    };
    (der[0], &der[start..start + len], &der[start + len..])
}

fn encode(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x82], &len[..], content].concat()
}

fn date(year: i32) -> UnixTime {
    let seconds = u64::try_from(date_time_ymd(year, 1, 1).unix_timestamp()).unwrap();
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

fn authorities(
    trusted: &[&CertificateDer<'static>],
    lists: &[CertificateRevocationListDer<'static>],
) -> Authorities {
    Authorities::new(trusted.iter().map(|&der| der.clone()).collect(), lists.to_vec())
}

/// Checks a server's certificate in the year 2030, as `verify-full` does.
fn check(authorities: Authorities, certificate: &CertificateDer<'_>, host: &str) -> Result<(), Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let check = ServerCheck::chain(authorities, &provider, true).unwrap();
    let host = ServerName::try_from(host.to_owned()).unwrap();
    ServerVerifier { check, algorithms }
        .verify_server_cert(certificate, &[], &host, &[], date(2030))
        .map(drop)
}

fn refused(why: CertificateError) -> Result<(), Error> {
    Err(Error::InvalidCertificate(why))
}

#[test]
fn names() {
    let root = authority("root");
    let check = |common_name, names: &[&str], host| {
        check(authorities(&[root.der()], &[]), &issue(&root, &params(common_name, names)), host).is_ok()
    };
    for (common_name, names, host, fits) in [
        ("x", &["db.example.org"][..], "db.example.org", true),
        ("x", &["db.example.org"], "DB.example.org", true),
        ("x", &["db.example.org"], "other.example.org", false),
        ("x", &["*.example.org"], "db.example.org", true),
        ("x", &["*.example.org"], "a.db.example.org", false),
        ("x", &["a.example.org", "b.example.org"], "b.example.org", true),
        // The common name counts only if there is nothing else.
        ("db.example.org", &[], "db.example.org", true),
        ("db.example.org", &["other.example.org"], "db.example.org", false),
        ("x", &["192.0.2.1"], "192.0.2.1", true),
        ("x", &["192.0.2.1"], "192.0.2.2", false),
        ("x", &["2001:db8::1"], "2001:db8::1", true),
        ("x", &["db.example.org"], "192.0.2.1", false),
        ("192.0.2.1", &["192.0.2.2"], "192.0.2.1", false),
    ] {
        assert_eq!(check(common_name, names, host), fits, "{common_name} {names:?} {host}");
    }
}

#[test]
fn dates_and_authorities() {
    let root = authority("root");
    let trusted = || authorities(&[root.der()], &[]);
    let mut expired = params("db", &["db"]);
    expired.not_after = date_time_ymd(2029, 1, 1);
    assert!(matches!(
        check(trusted(), &issue(&root, &expired), "db"),
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { .. } | CertificateError::Expired))
    ));
    let mut early = params("db", &["db"]);
    early.not_before = date_time_ymd(2031, 1, 1);
    assert!(check(trusted(), &issue(&root, &early), "db").is_err());
    // An authority that only calls itself by the same name.
    assert!(check(trusted(), &issue(&authority("root"), &params("db", &["db"])), "db").is_err());
    // A certificate that is none.
    assert!(check(trusted(), &CertificateDer::from(&b"nonsense"[..]), "db").is_err());
    // Without extensions there would be nothing to forbid it: an ordinary certificate is no authority.
    let key = KeyPair::generate().unwrap();
    let leaf = CertifiedIssuer::signed_by(params("leaf", &["leaf"]), key, &root).unwrap();
    assert!(check(trusted(), &issue(&leaf, &params("db", &["db"])), "db").is_err());
}

#[test]
fn revoked() {
    let (root, other) = (authority("root"), authority("other"));
    let certificate = issue(&root, &params("db", &["db"]));
    let with = |lists: &[CertificateRevocationListDer<'static>]| {
        check(authorities(&[root.der()], lists), &certificate, "db")
    };
    assert_eq!(with(&[revocation_list(&root)]), refused(CertificateError::Revoked));
    // The same number of another authority's.
    assert_eq!(with(&[revocation_list(&other)]), Ok(()));
}

#[test]
fn version_1_as_postgresqls_documentation_makes_it() {
    let (root, other) = (authority("root"), authority("root"));
    let mut expired = params("db", &[]);
    expired.not_after = date_time_ymd(2029, 1, 1);
    let leaf = |params: &CertificateParams, issuer: &Issuer| version_1(&issue(issuer, params), issuer.key());
    let good = leaf(&params("db", &[]), &root);
    assert_eq!(super::certificate::parse(&good).unwrap().version().0, 0);
    let trusted = || authorities(&[root.der()], &[]);
    assert_eq!(check(trusted(), &good, "db"), Ok(()));
    assert_eq!(check(trusted(), &good, "elsewhere"), refused(CertificateError::NotValidForName));
    assert_eq!(
        check(trusted(), &leaf(&params("db", &[]), &other), "db"),
        refused(CertificateError::UnknownIssuer)
    );
    assert_eq!(check(trusted(), &leaf(&expired, &root), "db"), refused(CertificateError::Expired));
    let lists = [revocation_list(&root)];
    assert_eq!(check(authorities(&[root.der()], &lists), &good, "db"), refused(CertificateError::Revoked));
    // A byte of what is signed is another.
    let mut forged = good.to_vec();
    let at = forged.windows(2).rposition(|two| two == b"db").unwrap();
    forged[at] = b'x';
    assert_eq!(check(trusted(), &forged.into(), "xb"), refused(CertificateError::UnknownIssuer));
}

#[test]
fn self_signed_ones_are_good_if_they_are_trusted_themselves() {
    // As `openssl req -x509` makes them: with CA:TRUE.
    let own = authority("db");
    assert_eq!(check(authorities(&[own.der()], &[]), own.der(), "db"), Ok(()));
    assert!(check(authorities(&[own.der()], &[]), own.der(), "elsewhere").is_err());
    let other = authority("db");
    assert!(check(authorities(&[other.der()], &[]), own.der(), "db").is_err());
    let mut expired = params("db", &[]);
    expired.not_after = date_time_ymd(2029, 1, 1);
    expired.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let expired = CertifiedIssuer::self_signed(expired, KeyPair::generate().unwrap()).unwrap();
    assert_eq!(
        check(authorities(&[expired.der()], &[]), expired.der(), "db"),
        refused(CertificateError::Expired)
    );
    let lists = [revocation_list(&own)];
    assert_eq!(check(authorities(&[own.der()], &lists), own.der(), "db"), refused(CertificateError::Revoked));
}

#[test]
fn clients() {
    let root = authority("root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = |mandatory, lists: &[CertificateRevocationListDer<'static>]| {
        ClientVerifier::new(authorities(&[root.der()], lists), &provider, mandatory).unwrap()
    };
    assert!(verifier(true, &[]).client_auth_mandatory() && !verifier(false, &[]).client_auth_mandatory());
    let good = issue(&root, &params("joe", &[]));
    let check = |certificate: &CertificateDer<'_>, lists: &[CertificateRevocationListDer<'static>]| {
        verifier(false, lists).verify_client_cert(certificate, &[], date(2030)).is_ok()
    };
    assert!(check(&good, &[]));
    assert!(check(&version_1(&good, root.key()), &[]));
    let list = [revocation_list(&root)];
    assert!(!check(&good, &list));
    assert!(!check(&version_1(&good, root.key()), &list));
    let stranger = authority("root");
    assert!(!check(&issue(&stranger, &params("joe", &[])), &[]));
    assert!(!check(&version_1(&good, stranger.key()), &[]));
}

#[test]
fn a_key_must_belong_to_its_certificate() {
    let dir = std::env::temp_dir().join(format!("pgweir-identity-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let write = |name: &str, text: &str| -> PathBuf {
        let file = dir.join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let key = KeyPair::generate().unwrap();
    let certificate = write("crt", &params("db", &[]).self_signed(&key).unwrap().pem());
    let own = write("key", &key.serialize_pem());
    let other = write("other", &KeyPair::generate().unwrap().serialize_pem());
    let nonsense = write("nonsense", "nonsense");
    let load = |certificate: &PathBuf, key: &PathBuf| {
        Identity::load(certificate.to_str().unwrap(), key.to_str().unwrap())
            .map(drop)
            .map_err(|error| error.0)
    };
    assert_eq!(load(&certificate, &own), Ok(()));
    for (certificate, key, message) in [
        (&certificate, &other, "private/public key mismatch"),
        (&certificate, &nonsense, "failed to load key file"),
        (&nonsense, &own, "failed to load certificate file"),
        (&own, &own, "failed to load certificate file"),
        (&certificate, &dir.join("nothing"), "failed to load key file"),
    ] {
        let error = load(certificate, key).unwrap_err();
        assert!(error.starts_with(message), "{error}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
