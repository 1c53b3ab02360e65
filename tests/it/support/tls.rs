//! Certificates, a PostgreSQL that insists on TLS, and clients that speak it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SerialNumber,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use super::raw::{Message, query, startup};
use super::{Ends, PASSWORD, USER, cluster};

/// Somebody who issues certificates.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) der: Vec<u8>,
    pub(crate) key: String,
    serial: SerialNumber,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn issue(&self, common_name: &str, names: &[&str]) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = params(common_name, names);
        let serial = SerialNumber::from_slice(&key.public_key_raw()[1..9]);
        params.serial_number = Some(serial.clone());
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued {
            certificate: certificate.pem(),
            der: certificate.der().to_vec(),
            key: key.serialize_pem(),
            serial,
        }
    }

    /// A list with this one certificate on it.
    pub(crate) fn revoke(&self, issued: &Issued) -> String {
        let revoked = rcgen::RevokedCertParams {
            serial_number: issued.serial.clone(),
            revocation_time: rcgen::date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2024, 1, 1),
            next_update: rcgen::date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn params(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

impl Issued {
    /// Writes `NAME.crt` and `NAME.key`, where the pooler can read them, and gives the files' names.
    pub(crate) fn write(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        std::fs::write(&certificate, &self.certificate).unwrap();
        std::fs::write(&key, &self.key).unwrap();
        (certificate, key)
    }
}

/// Gives a file to its owner alone, as PostgreSQL and libpq demand for keys.
pub(crate) fn make_private(file: &Path) {
    std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// A PostgreSQL that takes nobody without TLS.
pub(crate) struct TlsServer {
    pub(crate) port: u16,
    /// Has issued the server's certificate, in whose name is `localhost`, and takes those of `certuser` for good ones.
    pub(crate) authority: Authority,
    pub(crate) certificate: Issued,
}

/// The one of this run.
pub(crate) fn tls_server() -> &'static TlsServer {
    static SERVER: OnceLock<TlsServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        let cluster = cluster();
        let authority = Authority::new("Authority of the servers");
        let certificate = authority.issue("a server", &["localhost"]);
        cluster.write("server.crt", &certificate.certificate);
        cluster.write("server.key", &certificate.key);
        make_private(&cluster.dir.join("server.key"));
        cluster.write("root.crt", &authority.pem());
        let dir = cluster.dir.display();
        let port = cluster.start_another(
            "encrypted",
            &format!(
                "ssl = on\nssl_cert_file = '{dir}/server.crt'\nssl_key_file = '{dir}/server.key'\nssl_ca_file = '{dir}/root.crt'\n"
            ),
            "hostssl all certuser 127.0.0.1/32 cert\nhostssl all all 127.0.0.1/32 scram-sha-256\nlocal all all trust\n",
        );
        cluster.admin(port, &format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'"));
        cluster.admin(port, "CREATE ROLE certuser LOGIN");
        cluster.admin(port, &format!("CREATE DATABASE app OWNER {USER}"));
        TlsServer { port, authority, certificate }
    })
}

/// Runs SQL with psql, as the user of all tests unless `conninfo` says otherwise. What it prints, or its complaint.
pub(crate) fn psql(conninfo: &str, sql: &str) -> Result<String, String> {
    let output = cluster()
        .program("psql")
        .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, "-d"])
        .arg(format!("host=127.0.0.1 user={USER} dbname=app {conninfo}"))
        .env("PGPASSWORD", PASSWORD)
        .env("PGCONNECT_TIMEOUT", "20")
        .stdin(Stdio::null())
        .ended();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// A TLS connection without a driver around it. It does not look at the certificate.
pub(crate) struct TlsClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl TlsClient {
    /// Asks for TLS as libpq does.
    pub(crate) fn connect(port: u16) -> Self {
        let mut tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
        tcp.write_all(&[8u32.to_be_bytes(), 80_877_103u32.to_be_bytes()].concat()).unwrap();
        let mut answer = [0];
        tcp.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"S");
        Self::handshake(tcp, &[]).unwrap()
    }

    /// Begins with TLS at once.
    pub(crate) fn connect_directly(port: u16, alpn: &[&[u8]]) -> io::Result<Self> {
        Self::handshake(TcpStream::connect(("127.0.0.1", port)).unwrap(), alpn)
    }

    fn handshake(tcp: TcpStream, alpn: &[&[u8]]) -> io::Result<Self> {
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anything))
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut tcp = tcp;
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp)?;
        }
        Ok(Self { stream: StreamOwned::new(connection, tcp) })
    }

    /// Logs in as `trusted`, who needs no password.
    pub(crate) fn log_in(mut self) -> Self {
        self.send(&startup(3 << 16, &[("user", "trusted"), ("database", "app")]));
        let last = self.until_ready();
        assert_eq!(last.last().map(|m| m.tag), Some('Z'), "{last:?}");
        self
    }

    pub(crate) fn value(&mut self, sql: &str) -> String {
        self.send(&query(sql));
        let messages = self.until_ready();
        messages.iter().find(|m| m.tag == 'D').map(|m| m.values().remove(0)).unwrap_or_default()
    }

    /// The certificate that the other side has shown.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        self.stream.conn.peer_certificates().unwrap()[0].to_vec()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next message; `None` if the connection was closed.
    pub(crate) fn receive(&mut self) -> Option<Message> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header).ok()?;
        let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let mut body = vec![0; len - 4];
        self.stream.read_exact(&mut body).ok()?;
        Some(Message { tag: header[0].into(), body })
    }

    fn until_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.receive() {
            let is_last = message.tag == 'Z';
            messages.push(message);
            if is_last {
                break;
            }
        }
        messages
    }
}

/// Takes every certificate.
#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
