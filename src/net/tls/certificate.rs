//! What the proxy reads in a certificate itself. rustls refuses X.509 version 1, which PostgreSQL's own recipe for
//! certificates produces, so nothing here depends on its parser.

use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Parses a certificate; `None` if it is none.
pub fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate)
}

/// The subject's common name. One with a NUL byte in it is nobody's.
pub(super) fn subject_common_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let name = certificate.subject().iter_common_name().last()?.as_str().ok()?;
    (!name.contains('\0')).then_some(name)
}

/// All names of the subject: the common name, and the DNS names among the alternative ones.
pub fn names(der: &CertificateDer<'_>) -> Vec<String> {
    let Some(certificate) = parse(der) else { return Vec::new() };
    let alternative = alternative_names(&certificate).into_iter().filter_map(|name| match name {
        GeneralName::DNSName(name) if !name.contains('*') => Some(*name),
        _ => None,
    });
    subject_common_name(&certificate).into_iter().chain(alternative).map(str::to_owned).collect()
}

/// The public key as it stands in the certificate.
pub(super) fn public_key(der: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    Some(parse(der)?.public_key().raw.to_vec().into())
}

/// Names in the extension `subjectAltName`.
pub(super) fn alternative_names<'a>(certificate: &'a X509Certificate<'_>) -> Vec<&'a GeneralName<'a>> {
    match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().collect(),
        _ => Vec::new(),
    }
}

/// The channel binding `tls-server-end-point` (RFC 5929, 4.1): the certificate's hash, by the algorithm of its
/// signature, but SHA-256 in place of MD5 and SHA-1. `None` where the RFC defines nothing, such as Ed25519.
pub fn end_point_hash(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let certificate = parse(der)?;
    match certificate.signature_algorithm.algorithm.to_id_string().as_str() {
        // md5WithRSA, sha1WithRSA, sha256WithRSA, ecdsa-with-SHA1, ecdsa-with-SHA256
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => Some(Sha256::digest(der).to_vec()),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(Sha384::digest(der).to_vec()),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(Sha512::digest(der).to_vec()),
        _ => None,
    }
}
