//! From settings to what a handshake needs.

use std::sync::Arc;

use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ConfigBuilder, ServerConfig, SupportedProtocolVersion};
use tokio::net::TcpStream;

use super::error::TlsError;
use super::identity::{self, Identity};
use super::policy::{Policy, Wanted};
use super::stream::TlsStream;
use super::system;
use super::verify::{Authorities, ClientVerifier, ServerCheck, ServerVerifier};
use crate::auth::ldap::trust::{Require, Trust};
use crate::config::{Settings, TlsMode};

/// PostgreSQL's name in the ALPN registry.
const ALPN: &[u8] = b"postgresql";

/// TLS towards clients: `client_tls_*`.
pub struct ClientTls {
    config: Arc<ServerConfig>,
    end_point_hash: Option<Vec<u8>>,
    /// A client without TLS is turned away.
    pub required: bool,
    /// What is done otherwise than asked, for the log.
    pub notes: Vec<String>,
}

/// TLS towards servers: `server_tls_*`.
pub struct ServerTls {
    config: Arc<ClientConfig>,
    /// A server without TLS is not used.
    pub required: bool,
    /// What is done otherwise than asked, for the log.
    pub notes: Vec<String>,
}

impl ClientTls {
    /// Reads the files the settings name. `None` if TLS is turned off.
    pub fn new(s: &Settings) -> Result<Option<Self>, TlsError> {
        if s.client_tls_sslmode == TlsMode::Disable {
            return Ok(None);
        }
        if s.client_tls_key_file.is_empty() || s.client_tls_cert_file.is_empty() {
            let missing = "client_tls_key_file and client_tls_cert_file must be set";
            return Err(TlsError(format!("to allow TLS connections from clients, {missing}")));
        }
        let policy = Policy::new(Wanted {
            side: "client_tls",
            protocols: &s.client_tls_protocols,
            ciphers: &s.client_tls_ciphers,
            ciphers13: &s.client_tls13_ciphers,
            curve: &s.client_tls_ecdhcurve,
        })?;
        let provider = Arc::new(policy.provider);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&policy.versions)
            .map_err(|error| TlsError(format!("client_tls: {error}")))?;
        let mandatory = matches!(s.client_tls_sslmode, TlsMode::VerifyCa | TlsMode::VerifyFull);
        let builder = if mandatory || !s.client_tls_ca_file.is_empty() {
            let authorities = authorities(&s.client_tls_ca_file, &s.client_tls_crl_file)?;
            let verifier = ClientVerifier::new(authorities, &provider, mandatory)?;
            builder.with_client_cert_verifier(Arc::new(verifier))
        } else {
            builder.with_no_client_auth()
        };
        let identity = Identity::load(&s.client_tls_cert_file, &s.client_tls_key_file)?;
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // As PostgreSQL: sessions are not resumed, and tickets for that would only cost.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Some(Self {
            config: Arc::new(config),
            end_point_hash: identity.end_point_hash,
            required: mandatory || s.client_tls_sslmode == TlsMode::Require,
            notes: policy.notes,
        }))
    }

    /// Shakes hands with a client that has already sent `start`. `direct`: it began with TLS instead of asking for it,
    /// and must say by ALPN that it means PostgreSQL.
    pub async fn accept(&self, tcp: TcpStream, start: &[u8], direct: bool) -> Result<TlsStream, TlsError> {
        let stream = TlsStream::accept(tcp, Arc::clone(&self.config), start).await.map_err(handshake)?;
        if direct && stream.state().alpn_protocol() != Some(ALPN) {
            return Err(TlsError("direct TLS connection without ALPN protocol \"postgresql\"".into()));
        }
        Ok(stream)
    }

    /// For SCRAM's channel binding; `None` if there is none for this certificate.
    pub fn end_point_hash(&self) -> Option<&[u8]> {
        self.end_point_hash.as_deref()
    }
}

impl ServerTls {
    /// Reads the files the settings name. `None` if TLS is turned off.
    pub fn new(s: &Settings) -> Result<Option<Self>, TlsError> {
        if s.server_tls_sslmode == TlsMode::Disable {
            return Ok(None);
        }
        let policy = Policy::new(Wanted {
            side: "server_tls",
            protocols: &s.server_tls_protocols,
            ciphers: &s.server_tls_ciphers,
            ciphers13: &s.server_tls13_ciphers,
            curve: "",
        })?;
        let provider = Arc::new(policy.provider);
        let check = match s.server_tls_sslmode {
            TlsMode::VerifyCa | TlsMode::VerifyFull => {
                let authorities = authorities(&s.server_tls_ca_file, &s.server_tls_crl_file)?;
                ServerCheck::chain(authorities, &provider, s.server_tls_sslmode == TlsMode::VerifyFull)?
            }
            _ => ServerCheck::Nothing,
        };
        let builder = checking(provider, &policy.versions, check)?;
        let mut config = if s.server_tls_cert_file.is_empty() && s.server_tls_key_file.is_empty() {
            builder.with_no_client_auth()
        } else {
            let identity = Identity::load(&s.server_tls_cert_file, &s.server_tls_key_file)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key)))
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Some(Self {
            config: Arc::new(config),
            required: matches!(
                s.server_tls_sslmode,
                TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull
            ),
            notes: policy.notes,
        }))
    }

    /// TLS towards LDAP directories, which is what libldap's configuration says.
    pub fn for_directories(trust: &Trust) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let check = match trust.require {
            Require::Nothing => ServerCheck::Nothing,
            Require::Demand => ServerCheck::chain(directory_authorities(trust)?, &provider, true)?,
        };
        let mut config = checking(provider, rustls::DEFAULT_VERSIONS, check)?.with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), required: true, notes: Vec::new() })
    }

    /// Shakes hands with the server known as `host`, which has agreed to it.
    pub async fn connect(&self, tcp: TcpStream, host: &str) -> Result<TlsStream, TlsError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| TlsError(format!("\"{host}\" is not a host name TLS could ask for")))?;
        TlsStream::connect(tcp, Arc::clone(&self.config), name).await.map_err(handshake)
    }
}

/// The first steps towards a configuration.
fn checking(
    provider: Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    check: ServerCheck,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let algorithms = provider.signature_verification_algorithms;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| TlsError(format!("TLS towards servers: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier { check, algorithms })))
}

/// The authorities of file and folder together, the system's if neither is named.
fn directory_authorities(trust: &Trust) -> Result<Authorities, TlsError> {
    let mut found = match (&trust.ca_file, &trust.ca_folder) {
        (Some(file), _) => identity::certificates("CA", file)?,
        (None, Some(_)) => Vec::new(),
        (None, None) => identity::certificates("CA", &system::authorities())?,
    };
    if let Some(folder) = &trust.ca_folder {
        found.extend(identity::certificates_in(folder)?);
    }
    Ok(Authorities::new(found, Vec::new()))
}

fn authorities(ca_file: &str, crl_file: &str) -> Result<Authorities, TlsError> {
    let file = if ca_file.is_empty() { system::authorities() } else { ca_file.to_owned() };
    Ok(Authorities::new(identity::certificates("CA", &file)?, identity::revocation_lists(crl_file)?))
}

/// OpenSSL's words where log parsers look for them.
fn handshake(error: std::io::Error) -> TlsError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    TlsError(match inner {
        Some(rustls::Error::InvalidCertificate(why)) => {
            format!("handshake failed: certificate verify failed: {why}")
        }
        Some(other) => format!("handshake failed: {other}"),
        None => format!("handshake failed: {error}"),
    })
}
