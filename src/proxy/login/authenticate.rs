//! Who is it? The rule that applies to a client, and what it has to prove.

use std::io;
use std::sync::Arc;

use super::claim::Claim;
use super::failure::{Failure, config_error};
use super::lookup;
use super::newcomer::{Identity, Newcomer};
use crate::auth::exchange::{self, AuthRequest, Begin, Exchange, Learned, Method, Progress};
use crate::auth::hba::{self, ident::IdentMap};
use crate::auth::ldap::LdapOptions;
use crate::auth::mock::Sought;
use crate::auth::scram::ChannelBinding;
use crate::auth::secret::Cleartext;
use crate::config::{AuthType, Config};
use crate::error::{Refusal, sqlstate};
use crate::net::listener::Peer;
use crate::net::tls::certificate;
use crate::net::{ldap, pam};
use crate::proxy::hashing;
use crate::proxy::newcomers::Place;
use crate::proxy::shared::CONSOLE;
use crate::wire::write;

/// Longest password or SASL message.
const MAX_PASSWORD: usize = 70_000;

/// What has to be proved, and how.
enum Proof {
    /// Something in a conversation.
    Exchange(Method),
    /// A certificate with the user's name.
    Certificate(Option<Arc<IdentMap>>),
    /// The operating system's user.
    Peer(Option<Arc<IdentMap>>),
    /// A password that a directory knows.
    Ldap(Arc<LdapOptions>),
    /// A password that PAM accepts.
    Pam,
}

impl Newcomer {
    /// Has the client prove that it is who it claims to be. What there is to send at last is left in `out`.
    pub(super) async fn authenticate(
        &mut self,
        config: &Config,
        place: &Place,
        claim: &Claim,
        physical_replication: bool,
        out: &mut Vec<u8>,
    ) -> Result<Identity, Failure> {
        let proof = self.proof(config, claim, physical_replication)?;
        if let Proof::Ldap(_) | Proof::Pam = proof {
            let learned = Box::pin(self.authenticate_elsewhere(place, claim, &proof, out)).await?;
            return Ok(Identity { user: None, found: None, learned });
        }
        let access = self.shared.access.load_full();
        let mut account = access.accounts.get(&*claim.user).cloned();
        let looks_up = lookup::is_configured(config, claim);
        let (mut other_name, mut found, mut remembered) = (None, None, None);
        if account.is_none() && looks_up && !matches!(proof, Proof::Exchange(Method::Any)) {
            if let Some((looked_up, key)) = Box::pin(self.look_up(config, claim)).await? {
                other_name = Some(looked_up.user);
                account = Some(looked_up.account);
                found.clone_from(&account);
                remembered = Some(key);
            }
        }
        let user = other_name.as_deref().unwrap_or(&claim.user);
        let is_known = account.is_some();
        if !is_known && !matches!(proof, Proof::Exchange(Method::Any)) {
            self.log_unknown_user(config, claim);
        }
        let learned = match proof {
            Proof::Exchange(method) => {
                let sought = match looks_up {
                    true => Sought::Query(self.shared.lookups.face()),
                    false => Sought::File,
                };
                let (mock_key, scram_iterations) = (self.shared.mock_key, config.settings.scram_iterations.0);
                let (account, standing) =
                    access.mocks.account_for(account, user, method, sought, &mock_key, scram_iterations);
                let begin = Begin {
                    method,
                    user: user.to_owned(),
                    account,
                    standing,
                    entropy: self.shared.entropy(),
                    mock_key,
                    scram_iterations,
                    binding: self.tls.as_ref().map_or(ChannelBinding::None, |tls| tls.binding.clone()),
                };
                let proved = Box::pin(self.converse(place, claim, begin, looks_up, out)).await;
                if let (Err(Failure::Refused(_)), Some(key)) = (&proved, &remembered) {
                    // The password may have changed since it was looked up: the next attempt shall know.
                    self.shared.lookups.forget(key);
                }
                proved?
            }
            Proof::Certificate(map) => {
                self.check_certificate(claim, user, map.as_deref(), is_known)?;
                Learned::Nothing
            }
            Proof::Peer(map) => {
                self.check_peer(claim, user, map.as_deref(), is_known)?;
                Learned::Nothing
            }
            Proof::Ldap(_) | Proof::Pam => unreachable!("have been dealt with"),
        };
        Ok(Identity { user: other_name, found, learned })
    }

    fn proof(&self, config: &Config, claim: &Claim, physical_replication: bool) -> Result<Proof, Failure> {
        let access = self.shared.access.load();
        Ok(match config.settings.auth_type {
            AuthType::Any => {
                let forced = config.database(&claim.database).is_some_and(|(d, _)| d.user.is_some());
                if !forced && claim.database != CONSOLE {
                    self.log_error(claim, "auth_type=any requires forced user");
                    return Err(config_error("With auth_type=any each database must name its user.").into());
                }
                Proof::Exchange(Method::Any)
            }
            AuthType::Trust => Proof::Exchange(Method::Trust),
            AuthType::Plain => Proof::Exchange(Method::Plain),
            AuthType::Md5 => Proof::Exchange(Method::Md5),
            AuthType::ScramSha256 => Proof::Exchange(Method::Scram),
            AuthType::Cert => Proof::Certificate(None),
            AuthType::Pam => Proof::Pam,
            AuthType::Ldap => match &access.ldap {
                Some(options) => Proof::Ldap(Arc::clone(options)),
                None => return Err(config_error("auth_type=ldap needs auth_ldap_options.").into()),
            },
            AuthType::Hba => {
                let connection = hba::Connection {
                    address: match self.peer {
                        Peer::Tcp(address) => Some(address.ip().to_canonical()),
                        Peer::Unix { .. } => None,
                    },
                    tls: self.tls.is_some(),
                    physical_replication,
                    database: &claim.database,
                    user: &claim.user,
                };
                let rule = access.rules.find(&connection).ok_or_else(|| rejected_by_hba(claim, None))?;
                match &rule.method {
                    hba::Method::Trust => Proof::Exchange(Method::Trust),
                    hba::Method::Md5 => Proof::Exchange(Method::Md5),
                    hba::Method::Password => Proof::Exchange(Method::Plain),
                    hba::Method::ScramSha256 => Proof::Exchange(Method::Scram),
                    hba::Method::Peer => Proof::Peer(rule.map.clone()),
                    hba::Method::Cert => Proof::Certificate(rule.map.clone()),
                    hba::Method::Ldap(Some(options)) => Proof::Ldap(Arc::clone(options)),
                    hba::Method::Reject | hba::Method::Ldap(None) => {
                        return Err(rejected_by_hba(claim, Some(rule.line)).into());
                    }
                }
            }
        })
    }

    /// Passwords and SCRAM. `looks_up`: `auth_query` may know the user.
    async fn converse(
        &mut self,
        place: &Place,
        claim: &Claim,
        begin: Begin,
        looks_up: bool,
        out: &mut Vec<u8>,
    ) -> Result<Learned, Failure> {
        let (mut exchange, mut request) = hashing::work(begin.work(), || Exchange::begin(begin)).await;
        let mut message = Vec::new();
        loop {
            if let Some(request) = &request {
                write_request(out, request);
                self.read_answer(place, out, &mut message).await?;
            }
            let answer = std::mem::take(&mut message);
            match hashing::work(exchange.work(), move || exchange.handle(&answer)).await {
                Progress::Continue(next, more) => (exchange, request) = (next, Some(more)),
                Progress::Accepted(authenticated, last) => {
                    if let Some(last) = last {
                        write_request(out, &last);
                    }
                    return Ok(authenticated.learned);
                }
                Progress::Rejected(failure) => {
                    self.log_rejected(claim, &failure);
                    let has_database = self.shared.config.load().database(&claim.database).is_some();
                    return Err(rejected(&claim.user, failure, looks_up, has_database).into());
                }
            }
        }
    }

    /// Sends what there is to send and reads the client's answer.
    async fn read_answer(
        &mut self,
        place: &Place,
        out: &mut Vec<u8>,
        message: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        place.listens();
        self.stream.write_all(out).await?;
        out.clear();
        // Judged by its first byte: another startup packet, for one, would be taken for a long message not yet complete.
        let tag = self.received.tag(&mut self.stream).await?;
        if tag != b'p' {
            let message = format!("expected password response, got message type {tag}");
            return Err(Refusal::protocol(message).into());
        }
        let read = self.received.frame(&mut self.stream, message, MAX_PASSWORD).await;
        place.works();
        match read {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(Refusal::protocol(error.to_string()).into())
            }
            read => Ok(read.map(drop)?),
        }
    }

    /// Asks for the password and has somebody else check it.
    async fn authenticate_elsewhere(
        &mut self,
        place: &Place,
        claim: &Claim,
        proof: &Proof,
        out: &mut Vec<u8>,
    ) -> Result<Learned, Failure> {
        write_request(out, &AuthRequest::CleartextPassword);
        let mut message = Vec::new();
        self.read_answer(place, out, &mut message).await?;
        // An empty password would be an anonymous login to a directory, which proves nothing.
        let Some(password) = exchange::password(&message).and_then(Cleartext::new) else {
            let failure = exchange::Failure {
                kind: exchange::FailureKind::Password,
                log_detail: "password is empty or malformed",
            };
            return Err(rejected(&claim.user, failure, false, true).into());
        };
        let (checked, words) = match proof {
            Proof::Ldap(options) => {
                let checked = ldap::authenticate(options, &claim.user, password.as_str()).await;
                (checked.map_err(|error| error.to_string()), "LDAP authentication failed")
            }
            _ => {
                let host = match self.peer {
                    Peer::Tcp(address) => address.ip().to_string(),
                    Peer::Unix { .. } => "localhost".to_owned(),
                };
                let checked = pam::authenticate(&claim.user, password.as_str(), &host).await;
                (checked.map_err(|error| error.to_string()), "PAM authentication failed")
            }
        };
        match checked {
            Ok(()) => Ok(Learned::Password(password)),
            Err(error) => {
                self.log_warning(claim, &error);
                let message = format!("password authentication failed for user \"{}\"", claim.user);
                Err(Refusal::new(sqlstate::INVALID_PASSWORD, message).detail(words).log(words).into())
            }
        }
    }

    fn check_certificate(
        &self,
        claim: &Claim,
        user: &str,
        map: Option<&IdentMap>,
        is_known: bool,
    ) -> Result<(), Failure> {
        let refuse = |why: &str| {
            self.log_error(claim, why);
            Refusal::new(sqlstate::INVALID_AUTHORIZATION, "certificate authentication failed").into()
        };
        if self.tls.is_none() {
            return Err(refuse("TLS connection required"));
        }
        let Some(der) = self.stream.peer_certificate() else {
            return Err(refuse("TLS client certificate required"));
        };
        let names = certificate::names(der);
        match map {
            _ if !is_known => Err(refuse("no such user")),
            Some(map) if map.allows(user, |name| names.iter().any(|n| n == name)) => Ok(()),
            Some(map) => Err(refuse(&format!("ident map: {} does not have a match", map.name))),
            None if names.iter().any(|name| name == user) => Ok(()),
            None => Err(refuse("TLS certificate name mismatch")),
        }
    }

    fn check_peer(
        &self,
        claim: &Claim,
        user: &str,
        map: Option<&IdentMap>,
        is_known: bool,
    ) -> Result<(), Failure> {
        let refuse = |why: &str| {
            self.log_error(claim, why);
            Refusal::new(sqlstate::INVALID_AUTHORIZATION, "unix socket login rejected").into()
        };
        let Peer::Unix { uid, .. } = self.peer else { return Err(refuse("not a Unix socket")) };
        let is_peer = |name: &str| matches!(nix::unistd::User::from_name(name), Ok(Some(system_user)) if system_user.uid.as_raw() == uid);
        match map {
            _ if !is_known => Err(refuse("no such user")),
            Some(map) if map.allows(user, is_peer) => Ok(()),
            Some(map) => Err(refuse(&format!("ident map {} cannot be matched", map.name))),
            None if is_peer(user) => Ok(()),
            None => Err(refuse("the process at the other end runs as another user")),
        }
    }

    pub(super) fn log_error(&self, claim: &Claim, text: &str) {
        tracing::error!("C-{:#x}: {}/{}@{} {text}", self.id, claim.database, claim.user, self.peer);
    }

    pub(super) fn log_warning(&self, claim: &Claim, text: &str) {
        tracing::warn!("C-{:#x}: {}/{}@{} {text}", self.id, claim.database, claim.user, self.peer);
    }
}

fn write_request(out: &mut Vec<u8>, request: &AuthRequest) {
    let (code, body) = request.encode();
    write::authentication(out, code, &body);
}

fn rejected_by_hba(claim: &Claim, line: Option<usize>) -> Refusal {
    let Claim { user, database, .. } = claim;
    match line {
        Some(line) => {
            let message =
                format!("pg_hba.conf rejects connection for user \"{user}\", database \"{database}\"");
            Refusal::new(sqlstate::INVALID_AUTHORIZATION, message)
                .detail("login rejected")
                .log(format!("login rejected (line {line} of auth_hba_file)"))
        }
        None => {
            let message = format!("no pg_hba.conf entry for user \"{user}\", database \"{database}\"");
            Refusal::new(sqlstate::INVALID_AUTHORIZATION, message)
                .detail("no authentication method is found")
                .log("no authentication method is found")
        }
    }
}

/// PostgreSQL's words for the client to read, PgBouncer's in the detail and in the log. Where users are looked up the detail
/// is the same for those who are found and those who are not.
fn rejected(user: &str, failure: exchange::Failure, looks_up: bool, has_database: bool) -> Refusal {
    let is_not_found = looks_up && has_database && failure.log_detail == exchange::NO_SUCH_USER;
    let words = match failure.kind {
        exchange::FailureKind::Password => "password authentication failed",
        exchange::FailureKind::Sasl => "SASL authentication failed",
        exchange::FailureKind::Trust => "\"trust\" authentication failed",
    };
    let refusal = match failure.kind {
        exchange::FailureKind::Trust => {
            let detail = if is_not_found { exchange::NO_SUCH_USER } else { words };
            let message = format!("role \"{user}\" does not exist");
            Refusal::new(sqlstate::INVALID_AUTHORIZATION, message).detail(detail)
        }
        kind => {
            let message = format!("password authentication failed for user \"{user}\"");
            let refusal = Refusal::new(sqlstate::INVALID_PASSWORD, message);
            match kind {
                _ if looks_up => refusal.detail("no such user, or the password is wrong"),
                exchange::FailureKind::Sasl => refusal.detail(words),
                _ => refusal,
            }
        }
    };
    refusal.log(match is_not_found {
        true => exchange::NO_SUCH_USER,
        // There was nowhere to look; which method was shown means nothing then.
        false if looks_up && !has_database => "password authentication failed",
        false => words,
    })
}
