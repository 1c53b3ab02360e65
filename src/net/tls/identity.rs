//! Our own certificate and its key, and the authorities we trust.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::certificate;
use super::error::TlsError;

/// A certificate chain with its private key.
pub(super) struct Identity {
    pub(super) key: Arc<CertifiedKey>,
    /// For SCRAM's channel binding.
    pub(super) end_point_hash: Option<Vec<u8>>,
}

impl Identity {
    pub(super) fn load(cert_file: &str, key_file: &str) -> Result<Self, TlsError> {
        let chain = certificates("certificate", cert_file)?;
        let key =
            PrivateKeyDer::from_pem_file(key_file).map_err(|error| load_error("key", key_file, &error))?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key)
            .map_err(|error| TlsError(format!("failed to load key file \"{key_file}\": {error}")))?;
        let own = key.public_key().map(|key| key.as_ref().to_vec());
        let certified = certificate::public_key(&chain[0]).map(|key| key.as_ref().to_vec());
        if own.is_some() && own != certified {
            return Err(TlsError(format!(
                "private/public key mismatch: \"{key_file}\" does not belong to \"{cert_file}\""
            )));
        }
        let end_point_hash = certificate::end_point_hash(&chain[0]);
        Ok(Self { key: Arc::new(CertifiedKey::new(chain, key)), end_point_hash })
    }
}

/// All certificates of a PEM file, of which there must be one.
pub(super) fn certificates(what: &str, file: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).and_then(|certificates| certificates.collect());
    let found = found.map_err(|error| load_error(what, file, &error))?;
    if found.is_empty() || found.iter().any(|der| certificate::parse(der).is_none()) {
        return Err(TlsError(format!("failed to load {what} file \"{file}\": no certificate in it")));
    }
    Ok(found)
}

/// All certificates in the files of a folder, of which there must be one. Other files may lie there too.
pub(super) fn certificates_in(folder: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error =
        |why: &dyn std::fmt::Display| TlsError(format!("failed to load CA folder \"{folder}\": {why}"));
    let entries = std::fs::read_dir(folder).map_err(|why| error(&why))?;
    let files = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file());
    let found: Vec<_> = files.filter_map(|file| certificates("CA", file.to_str()?).ok()).flatten().collect();
    if found.is_empty() { Err(error(&"no certificate in it")) } else { Ok(found) }
}

/// All revocation lists of a PEM file; none if no file is named.
pub(super) fn revocation_lists(file: &str) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    if file.is_empty() {
        return Ok(Vec::new());
    }
    let found: Result<Vec<_>, _> =
        CertificateRevocationListDer::pem_file_iter(file).and_then(|lists| lists.collect());
    match found {
        Ok(lists) if !lists.is_empty() => Ok(lists),
        Ok(_) => Err(TlsError(format!("failed to load CRL file \"{file}\": no revocation list in it"))),
        Err(error) => Err(load_error("CRL", file, &error)),
    }
}

fn load_error(what: &str, file: &str, error: &rustls::pki_types::pem::Error) -> TlsError {
    use rustls::pki_types::pem::Error;
    let why = match error {
        // The same words for a file that cannot be opened, whoever tries.
        Error::Io(error) => error.to_string(),
        Error::NoItemsFound if Path::new(file).exists() => format!("no {what} in it"),
        other => other.to_string(),
    };
    TlsError(format!("failed to load {what} file \"{file}\": {why}"))
}
