//! Asks a directory whether a user's password is right.
//!
//! Which certificates of directories are good is what libldap's configuration says at that moment: the system's
//! `ldap.conf`, over it the file that `LDAPCONF` names, over that the variables `LDAPTLS_REQCERT`, `LDAPTLS_CACERT` and
//! `LDAPTLS_CACERTDIR`. Different from libldap: the files of a user (`ldaprc`) are not read, and of a certificate with
//! names in `subjectAltName` the common name does not count.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::stream::Stream;
use super::tls::{ServerTls, TlsError};
use crate::auth::ldap::message::{self, Outcome, Reply};
use crate::auth::ldap::trust::Trust;
use crate::auth::ldap::{LdapOptions, Lookup, Search, Security};

/// Where the system has its configuration of libldap: Debian's place, and that of others.
const LDAP_CONF: [&str; 2] = ["/etc/ldap/ldap.conf", "/etc/openldap/ldap.conf"];

/// For connecting to one server, as with PgBouncer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For everything that follows.
const CONVERSATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a user was not let in. For the log: to the client all of them are the same.
#[derive(Debug, thiserror::Error)]
pub enum LdapError {
    /// No password; a directory would take that for an anonymous login, which succeeds.
    #[error("empty password for LDAP authentication")]
    EmptyPassword,
    /// A character that means something in a filter.
    #[error("invalid character in user name for LDAP authentication")]
    InvalidUser,
    /// A file of libldap's configuration cannot be used, or the handshake has failed.
    #[error("could not start LDAP TLS session with \"{server}\": {error}")]
    Tls {
        /// The server.
        server: String,
        /// Why not.
        error: TlsError,
    },
    /// The directory does not want TLS.
    #[error("could not start LDAP TLS session: {0}")]
    TlsRefused(Outcome),
    /// No server could be reached.
    #[error("could not connect to LDAP server \"{server}\": {error}")]
    Unreachable {
        /// The last that was tried.
        server: String,
        /// Why not.
        error: io::Error,
    },
    /// The directory went away, or what it sent is no LDAP.
    #[error("LDAP server broke off: {0}")]
    Broken(#[from] io::Error),
    /// The directory ended the connection, and says why.
    #[error("LDAP server closed the connection: {0}")]
    Closed(Outcome),
    /// `ldapbinddn` was refused.
    #[error("could not perform initial LDAP bind for ldapbinddn \"{dn}\": {outcome}")]
    SearcherRefused {
        /// `ldapbinddn`.
        dn: String,
        /// What the directory says.
        outcome: Outcome,
    },
    /// The search failed.
    #[error("could not search LDAP below \"{base}\": {outcome}")]
    SearchFailed {
        /// `ldapbasedn`.
        base: String,
        /// What the directory says.
        outcome: Outcome,
    },
    /// No entry for the user.
    #[error("LDAP user \"{0}\" does not exist")]
    UnknownUser(String),
    /// Several entries for the user.
    #[error("LDAP user \"{0}\" is not unique")]
    AmbiguousUser(String),
    /// The user was refused, as a rule for a wrong password.
    #[error("LDAP login failed for user {dn}: {outcome}")]
    Refused {
        /// The entry.
        dn: String,
        /// What the directory says.
        outcome: Outcome,
    },
}

/// Whether the directory knows this user by this password. Takes some seconds at most to connect, and half a minute in
/// all if the directory is slow; may be dropped at any time.
pub async fn authenticate(options: &LdapOptions, user: &str, password: &str) -> Result<(), LdapError> {
    if password.is_empty() {
        return Err(LdapError::EmptyPassword);
    }
    // Files are read: not on the thread that others wait for.
    let tls = match options.security {
        Security::Plain => None,
        _ => Some(tokio::task::spawn_blocking(|| ServerTls::for_directories(&trust()))),
    };
    let (tcp, server) = connect(options).await?;
    let tls = match tls {
        None => None,
        Some(tls) => Some(
            tls.await
                .map_err(io::Error::other)?
                .map_err(|error| LdapError::Tls { server: server.to_owned(), error })?,
        ),
    };
    let conversation = async {
        let mut conversation = Conversation { stream: Stream::Tcp(tcp), last_id: 0 };
        if let Some(tls) = tls {
            conversation.encrypt(&tls, server, options.security).await?;
        }
        conversation.run(&options.lookup, user, password).await
    };
    match timeout(CONVERSATION_TIMEOUT, conversation).await {
        Ok(result) => result,
        Err(_) => Err(LdapError::Broken(io::ErrorKind::TimedOut.into())),
    }
}

/// libldap's configuration, as it is now.
fn trust() -> Trust {
    let mut trust = Trust::default();
    if std::env::var_os("LDAPNOINIT").is_some() {
        return trust;
    }
    let system = LDAP_CONF.iter().find_map(|file| std::fs::read_to_string(file).ok());
    let named = std::env::var_os("LDAPCONF").and_then(|file| std::fs::read_to_string(file).ok());
    for conf in [system, named].into_iter().flatten() {
        trust.read(&conf);
    }
    for option in Trust::OPTIONS {
        if let Ok(value) = std::env::var(format!("LDAP{option}")) {
            trust.set(option, &value);
        }
    }
    trust
}

/// Connects to the first server that can be reached, and says which that is.
async fn connect(options: &LdapOptions) -> Result<(TcpStream, &str), LdapError> {
    let mut last = (String::new(), io::Error::from(io::ErrorKind::NotFound));
    for server in &options.servers {
        let host = server.trim_start_matches('[').trim_end_matches(']');
        let error = match timeout(CONNECT_TIMEOUT, TcpStream::connect((host, options.port))).await {
            Ok(Ok(stream)) => return Ok((stream, host)),
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        last = (format!("{server}:{}", options.port), error);
    }
    Err(LdapError::Unreachable { server: last.0, error: last.1 })
}

struct Conversation {
    stream: Stream,
    /// ID of the last request. A conversation has four at most, and a reply to each before the next.
    last_id: u8,
}

impl Conversation {
    /// Goes over to TLS.
    async fn encrypt(&mut self, tls: &ServerTls, server: &str, security: Security) -> Result<(), LdapError> {
        if security == Security::StartTls {
            let request = message::start_tls(self.next_id());
            self.stream.write_all(&request).await?;
            match self.reply().await? {
                Reply::Extended(outcome) if outcome.code == Outcome::SUCCESS => {}
                Reply::Extended(outcome) => return Err(LdapError::TlsRefused(outcome)),
                _ => return Err(unexpected()),
            }
        }
        match self.stream.connect_tls(tls, server).await {
            Ok(_) => Ok(()),
            Err(error) => Err(LdapError::Tls { server: server.to_owned(), error }),
        }
    }

    async fn run(mut self, lookup: &Lookup, user: &str, password: &str) -> Result<(), LdapError> {
        let dn = match lookup {
            Lookup::Direct { prefix, suffix } => format!("{prefix}{user}{suffix}"),
            Lookup::Search(search) => self.find(search, user).await?,
        };
        // A directory may take a bind without a name for an anonymous one, whatever the password.
        if dn.is_empty() {
            return Err(LdapError::UnknownUser(user.to_owned()));
        }
        let outcome = self.bind(&dn, password).await?;
        let goodbye = message::unbind(self.next_id());
        let _ = self.stream.write_all(&goodbye).await;
        match outcome.code {
            Outcome::SUCCESS => Ok(()),
            _ => Err(LdapError::Refused { dn, outcome }),
        }
    }

    /// The name of the user's entry.
    async fn find(&mut self, search: &Search, user: &str) -> Result<String, LdapError> {
        let filter = search.filter(user).ok_or(LdapError::InvalidUser)?;
        let outcome = self.bind(&search.bind_dn, search.bind_password.reveal()).await?;
        if outcome.code != Outcome::SUCCESS {
            return Err(LdapError::SearcherRefused { dn: search.bind_dn.clone(), outcome });
        }
        let request = message::search(self.next_id(), &search.base, search.scope, &filter);
        self.stream.write_all(&request).await?;
        let mut found = None;
        loop {
            match self.reply().await? {
                Reply::Entry { .. } if found.is_some() => {
                    return Err(LdapError::AmbiguousUser(user.to_owned()));
                }
                Reply::Entry { dn } => found = Some(dn),
                Reply::Reference => {}
                Reply::Searched(outcome) if outcome.code == Outcome::SUCCESS => {
                    return found.ok_or_else(|| LdapError::UnknownUser(user.to_owned()));
                }
                Reply::Searched(outcome) => {
                    return Err(LdapError::SearchFailed { base: search.base.clone(), outcome });
                }
                _ => return Err(unexpected()),
            }
        }
    }

    async fn bind(&mut self, dn: &str, password: &str) -> Result<Outcome, LdapError> {
        let request = zeroize::Zeroizing::new(message::bind(self.next_id(), dn, password));
        self.stream.write_all(&request).await?;
        match self.reply().await? {
            Reply::Bound(outcome) => Ok(outcome),
            _ => Err(unexpected()),
        }
    }

    fn next_id(&mut self) -> u8 {
        self.last_id += 1;
        self.last_id
    }

    /// The next reply to the last request.
    async fn reply(&mut self) -> Result<Reply, LdapError> {
        let mut bytes = Vec::new();
        let len = loop {
            // The header first, byte by byte: nothing of the next reply may be taken.
            match message::len(&bytes).map_err(|_| unexpected())? {
                Some(len) => break len,
                None => {
                    let mut byte = [0];
                    self.stream.read_exact(&mut byte).await?;
                    bytes.extend(byte);
                }
            }
        };
        let header = bytes.len();
        bytes.resize(len.max(header), 0);
        self.stream.read_exact(&mut bytes[header..]).await?;
        match message::decode(&bytes).map_err(|_| unexpected())? {
            // What nobody asked for is the directory's goodbye.
            (0, Reply::Extended(outcome)) => Err(LdapError::Closed(outcome)),
            (id, reply) if id == u32::from(self.last_id) => Ok(reply),
            _ => Err(unexpected()),
        }
    }
}

fn unexpected() -> LdapError {
    LdapError::Broken(io::Error::new(io::ErrorKind::InvalidData, "unexpected message"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A reply: ID, tag and content.
    fn reply(id: u8, tag: u8, content: &[u8]) -> Vec<u8> {
        let len = content.len() as u8;
        [&[0x30, len + 5, 2, 1, id, tag, len], content].concat()
    }

    fn outcome(id: u8, tag: u8, code: u8) -> Vec<u8> {
        reply(id, tag, &[0x0a, 1, code, 4, 0, 4, 0])
    }

    fn entry(dn: &str) -> Vec<u8> {
        reply(2, 0x64, &[&[4, dn.len() as u8], dn.as_bytes(), &[0x30, 0]].concat())
    }

    /// Logs in to a directory that answers each request with the next of these replies and then goes away: the result,
    /// and what it was asked.
    async fn login(options: &str, replies: &[Vec<u8>]) -> (Result<(), LdapError>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let options = format!("ldapserver=127.0.0.1 ldapport={port} {options}");
        let options = LdapOptions::parse(&options).unwrap();
        let directory = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut asked, mut buf) = (Vec::new(), [0; 1024]);
            for reply in replies {
                let n = stream.read(&mut buf).await.unwrap();
                asked.extend(&buf[..n]);
                stream.write_all(reply).await.unwrap();
            }
            asked
        };
        tokio::join!(authenticate(&options, "joe", "pw"), directory)
    }

    const DIRECT: &str = "ldapprefix=uid= ldapsuffix=\",dc=x\"";
    const SEARCH: &str = "ldapbasedn=\"dc=x\"";

    #[tokio::test]
    async fn direct() {
        let (result, asked) = login(DIRECT, &[outcome(1, 0x61, 0)]).await;
        result.unwrap();
        assert_eq!(asked, message::bind(1, "uid=joe,dc=x", "pw"));
        let (result, _) = login(DIRECT, &[outcome(1, 0x61, 49)]).await;
        assert_eq!(
            result.unwrap_err().to_string(),
            "LDAP login failed for user uid=joe,dc=x: Invalid credentials (49)"
        );
    }

    #[tokio::test]
    async fn search_and_bind() {
        let found = [entry("cn=J,dc=x"), reply(2, 0x73, &[4, 1, b'l']), outcome(2, 0x65, 0)].concat();
        let (result, asked) = login(SEARCH, &[outcome(1, 0x61, 0), found.clone(), outcome(3, 0x61, 0)]).await;
        result.unwrap();
        let filter = crate::auth::ldap::filter::encode("(uid=joe)").unwrap();
        let expected = [
            message::bind(1, "", ""),
            message::search(2, "dc=x", crate::auth::ldap::Scope::Sub, &filter),
            message::bind(3, "cn=J,dc=x", "pw"),
        ];
        assert_eq!(asked, expected.concat());

        let (result, _) = login(SEARCH, &[outcome(1, 0x61, 0), found, outcome(3, 0x61, 49)]).await;
        assert!(matches!(result, Err(LdapError::Refused { .. })), "{result:?}");
        for (answer, message) in [
            (outcome(2, 0x65, 0), "LDAP user \"joe\" does not exist"),
            ([entry("a=1"), entry("a=2"), outcome(2, 0x65, 0)].concat(), "LDAP user \"joe\" is not unique"),
            (
                [entry("a=1"), outcome(2, 0x65, 4)].concat(),
                "could not search LDAP below \"dc=x\": Size limit exceeded (4)",
            ),
            (outcome(2, 0x65, 32), "could not search LDAP below \"dc=x\": No such object (32)"),
            ([entry(""), outcome(2, 0x65, 0)].concat(), "LDAP user \"joe\" does not exist"),
            (outcome(0, 0x78, 52), "LDAP server closed the connection: Server is unavailable (52)"),
            (outcome(1, 0x65, 0), "LDAP server broke off: unexpected message"),
            (outcome(2, 0x61, 0), "LDAP server broke off: unexpected message"),
        ] {
            let (result, _) = login(SEARCH, &[outcome(1, 0x61, 0), answer]).await;
            assert_eq!(result.unwrap_err().to_string(), message);
        }
        let (result, _) = login(SEARCH, &[outcome(1, 0x61, 48)]).await;
        assert!(matches!(result, Err(LdapError::SearcherRefused { .. })), "{result:?}");
    }

    #[tokio::test]
    async fn a_directory_that_speaks_something_else_or_goes_away() {
        for reply in [&b"HTTP/1.1 400 Bad Request"[..], b"\x30\x84\xff\xff\xff\xff", b"\x30", b""] {
            let (result, _) = login(DIRECT, &[reply.to_vec()]).await;
            assert!(matches!(result, Err(LdapError::Broken(_))), "{result:?}");
        }
    }

    #[tokio::test]
    async fn what_is_not_even_asked() {
        let try_login = async |options: &str, user: &str, password: &str| {
            authenticate(&LdapOptions::parse(options).unwrap(), user, password).await.unwrap_err()
        };
        let nowhere = "ldapserver=\"127.0.0.1 127.0.0.2\" ldapport=1 ldapprefix=a";
        assert!(matches!(try_login(nowhere, "joe", "").await, LdapError::EmptyPassword));
        let error = try_login(nowhere, "joe", "pw").await.to_string();
        assert!(error.starts_with("could not connect to LDAP server \"127.0.0.2:1\": "), "{error}");
    }

    #[tokio::test]
    async fn a_password_is_never_sent_without_the_tls_that_was_asked_for() {
        let options = format!("{DIRECT} ldaptls=1");
        for (reply, message) in [
            (outcome(1, 0x78, 2), "could not start LDAP TLS session: Protocol error (2)"),
            (outcome(1, 0x61, 0), "LDAP server broke off: unexpected message"),
            // What follows in plain text is taken for the handshake, and is none.
            (
                [outcome(1, 0x78, 0), outcome(2, 0x61, 0)].concat(),
                "could not start LDAP TLS session with \"127.0.0.1\": handshake failed: ",
            ),
        ] {
            let (result, asked) = login(&options, &[reply]).await;
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
            assert_eq!(asked, message::start_tls(1));
        }
        let (result, asked) = login(&format!("{DIRECT} ldapscheme=ldaps"), &[outcome(1, 0x61, 0)]).await;
        assert!(matches!(result, Err(LdapError::Tls { .. })), "{result:?}");
        assert_eq!(asked[0], 0x16, "a ClientHello");
    }

    #[tokio::test]
    async fn a_directory_that_never_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options =
            format!("ldapserver=127.0.0.1 ldapport={} {DIRECT}", listener.local_addr().unwrap().port());
        let options = LdapOptions::parse(&options).unwrap();
        let directory = async {
            let stream = listener.accept().await.unwrap();
            tokio::time::pause();
            stream
        };
        let (result, _stream) = tokio::join!(authenticate(&options, "joe", "pw"), directory);
        assert!(matches!(result, Err(LdapError::Broken(error)) if error.kind() == io::ErrorKind::TimedOut));
    }
}
