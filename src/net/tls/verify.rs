//! Is the other side's certificate to be trusted? OpenSSL's answer, as far as PostgreSQL's users rely on it.
//!
//! webpki does the work where it can. It refuses certificates that are in wide use with PostgreSQL: those of X.509
//! version 1, and self-signed ones that stand in the file of authorities themselves. For these two, this module looks at
//! the signature and the dates itself.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;

use super::certificate;
use super::error::TlsError;
use super::names;

/// Authorities and what they have revoked.
pub(super) struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    store: Arc<RootCertStore>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
}

impl Authorities {
    pub(super) fn new(
        certificates: Vec<CertificateDer<'static>>,
        revoked: Vec<CertificateRevocationListDer<'static>>,
    ) -> Self {
        let mut store = RootCertStore::empty();
        // One that webpki cannot use may still serve the checks of this module.
        store.add_parsable_certificates(certificates.iter().cloned());
        Self { certificates, store: Arc::new(store), revoked }
    }

    /// What webpki has refused may still be good.
    fn second_look(&self, leaf: &CertificateDer<'_>, now: UnixTime, refusal: Error) -> Result<(), Error> {
        let Some(certificate) = certificate::parse(leaf) else { return Err(refusal) };
        let is_authority = self.certificates.iter().any(|authority| authority == leaf);
        if !is_authority && certificate.version().0 != 0 {
            return Err(refusal);
        }
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let Ok(now) = ASN1Time::from_timestamp(now) else { return Err(refusal) };
        if now < certificate.validity().not_before {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > certificate.validity().not_after {
            return Err(CertificateError::Expired.into());
        }
        if is_authority || self.is_signed_by_an_authority(&certificate) {
            return self.check_revocation(&certificate);
        }
        Err(CertificateError::UnknownIssuer.into())
    }

    fn is_signed_by_an_authority(&self, certificate: &X509Certificate<'_>) -> bool {
        self.certificates.iter().filter_map(certificate::parse).any(|authority| {
            authority.subject().as_raw() == certificate.issuer().as_raw()
                && certificate.verify_signature(Some(authority.public_key())).is_ok()
        })
    }

    fn check_revocation(&self, certificate: &X509Certificate<'_>) -> Result<(), Error> {
        for list in &self.revoked {
            let Ok((_, list)) = CertificateRevocationList::from_der(list) else { continue };
            let concerns = list.issuer().as_raw() == certificate.issuer().as_raw();
            if concerns
                && list.iter_revoked_certificates().any(|r| r.raw_serial() == certificate.raw_serial())
            {
                return Err(CertificateError::Revoked.into());
            }
        }
        Ok(())
    }
}

/// How much a server's certificate must prove (`server_tls_sslmode`).
pub(super) enum ServerCheck {
    /// Nothing: the connection is encrypted, and that is all.
    Nothing,
    /// It comes from an authority; with `true` it also belongs to the host that was asked for.
    Chain(Authorities, Arc<WebPkiServerVerifier>, bool),
}

impl ServerCheck {
    pub(super) fn chain(
        authorities: Authorities,
        provider: &Arc<CryptoProvider>,
        host: bool,
    ) -> Result<Self, TlsError> {
        let webpki =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&authorities.store), Arc::clone(provider))
                .with_crls(authorities.revoked.iter().cloned())
                .allow_unknown_revocation_status()
                .only_check_end_entity_revocation()
                .build()
                .map_err(|error| TlsError(format!("authorities for servers: {error}")))?;
        Ok(Self::Chain(authorities, webpki, host))
    }
}

/// Checks servers.
pub(super) struct ServerVerifier {
    pub(super) check: ServerCheck,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerVerifier")
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ServerCheck::Chain(authorities, webpki, host) = &self.check else {
            return Ok(ServerCertVerified::assertion());
        };
        match webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last, and by libpq's rules, not by webpki's.
            Ok(_)
            | Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {}
            Err(refusal) => authorities.second_look(end_entity, now, refusal)?,
        }
        let wanted = server_name.to_str();
        if !host || certificate::parse(end_entity).is_some_and(|c| names::belongs_to(&c, &wanted)) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Checks the certificates of clients, which need not have one unless `mandatory`.
pub(super) struct ClientVerifier {
    authorities: Authorities,
    webpki: Arc<dyn ClientCertVerifier>,
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientVerifier {
    pub(super) fn new(
        authorities: Authorities,
        provider: &Arc<CryptoProvider>,
        mandatory: bool,
    ) -> Result<Self, TlsError> {
        let webpki =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&authorities.store), Arc::clone(provider))
                .with_crls(authorities.revoked.iter().cloned())
                .allow_unknown_revocation_status()
                .only_check_end_entity_revocation()
                .build()
                .map_err(|error| TlsError(format!("client_tls_ca_file: {error}")))?;
        let algorithms = provider.signature_verification_algorithms;
        Ok(Self { authorities, webpki, mandatory, algorithms })
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientVerifier")
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Err(refusal) = self.webpki.verify_client_cert(end_entity, intermediates, now) {
            self.authorities.second_look(end_entity, now, refusal)?;
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The other side has the key of its certificate. Works on the bare key, because rustls' own function reads the
/// certificate again and refuses version 1.
fn verify_tls13(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let key = certificate::public_key(cert).ok_or(CertificateError::BadEncoding)?;
    rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, dss, algorithms)
}

fn verify_tls12(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let certificate = certificate::parse(cert).ok_or(CertificateError::BadEncoding)?;
    let key = &certificate.public_key().subject_public_key.data;
    let candidates = algorithms.mapping.iter().find(|(scheme, _)| *scheme == dss.scheme).map(|(_, all)| *all);
    // In TLS 1.2 a scheme does not say which curve; the right one is that under which the signature holds.
    let is_valid = candidates
        .unwrap_or_default()
        .iter()
        .any(|algorithm| algorithm.verify_signature(key, message, dss.signature()).is_ok());
    if is_valid {
        Ok(HandshakeSignatureValid::assertion())
    } else {
        Err(CertificateError::BadSignature.into())
    }
}
