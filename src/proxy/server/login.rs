//! How the proxy logs in to a server.

use std::net::SocketAddr;

use super::ask::{Budget, MAX_ANSWER, Wanted, ask};
use super::connect_error::ConnectError;
use super::connect_query;
use crate::auth::scram::ChannelBinding;
use crate::auth::server_login::{BackendAuth, ServerAuth, ServerAuthError, Step, Terms};
use crate::error::{Refusal, sqlstate};
use crate::net::received::Received;
use crate::net::stream::Stream;
use crate::net::tls::certificate;
use crate::proxy::hashing;
use crate::proxy::pools::Pool;
use crate::proxy::server_handle::ServerHandle;
use crate::proxy::shared::Shared;
use crate::session::forward;
use crate::session::parameters::Parameters;
use crate::wire::startup::{Parameter, SSL_REQUEST};
use crate::wire::{backend, write};

/// Logs in as the pool's user and prepares the connection for its clients. `own`: as for [`open`](super::open).
pub(super) async fn login(
    shared: &Shared,
    pool: &Pool,
    info: &ServerHandle,
    mut stream: Stream,
    own: &[Parameter],
) -> Result<(Stream, Parameters), ConnectError> {
    let binding = encrypt(shared, &mut stream, info).await?;
    let settings = pool.settings.load_full();
    let mut out = Vec::new();
    let startup = [("user", pool.user.name.to_string()), ("database", settings.dbname.clone())];
    let extra = settings.startup_parameters.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    let own_pairs = own.iter().map(|(n, v)| (&**n, &**v));
    write::startup(
        &mut out,
        startup.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).chain(extra).chain(own_pairs),
    );
    stream.write_all(&out).await?;

    let is_private = info.tls.get().is_some() || stays_here(&stream);
    let terms = Terms { require: settings.server_require_auth, is_private, binding };
    let mut auth = Some(ServerAuth::new(&startup[0].1, pool.credential(), terms, shared.entropy()));
    let mut parameters = Parameters::default();
    let (mut received, mut budget) = (Received::default(), Budget::new(MAX_ANSWER));
    let mut message = Vec::new();
    loop {
        // What does not belong here is refused before all of it has come.
        let tag = received.tag(&mut stream).await?;
        let is_in = auth.as_ref().is_some_and(ServerAuth::is_done);
        let belongs = match tag {
            b'R' | b'v' => !is_in,
            b'S' | b'K' | b'Z' => is_in,
            b'E' | b'N' => true,
            _ => false,
        };
        if !belongs {
            let message = format!("unexpected message {:?} during login", char::from(tag));
            return Err(ConnectError::Unreachable(message));
        }
        budget.next(&mut received, &mut stream, &mut message).await?;
        let body = message.as_slice();
        match tag {
            b'R' => {
                let request = BackendAuth::parse(body).map_err(|e| refused(&e))?;
                let Some(current) = auth.take() else {
                    return Err(ConnectError::Unreachable("unexpected authentication request".into()));
                };
                let (work, body) = (current.work(&request), body.to_vec());
                let handle = move || current.handle(BackendAuth::parse(&body)?);
                let (next, step) = hashing::work(work, handle).await.map_err(|e| refused(&e))?;
                auth = Some(next);
                if let Step::Send(response) = step {
                    out.clear();
                    write::password(&mut out, &response);
                    stream.write_all(&out).await?;
                }
            }
            b'S' => forward::login_parameter(&mut parameters, body)
                .map_err(|e| ConnectError::Unreachable(e.to_string()))?,
            b'K' => {
                if let Some(key) = backend::backend_key_data(body) {
                    let _ = info.key.set(key);
                }
            }
            b'Z' if received.is_empty() => break,
            b'Z' => {
                let message = "server sends more than the end of its login".to_owned();
                return Err(ConnectError::Unreachable(message));
            }
            b'E' => return Err(server_refusal(body)),
            _ => {}
        }
    }
    if !own.is_empty() {
        return Ok((stream, parameters));
    }
    if !settings.connect_query.is_empty() {
        connect_query::run(&mut stream, info, &settings.connect_query, &mut parameters).await?;
    }
    unreported_parameters(&mut stream, &settings.track_extra_parameters, &mut parameters).await;
    Ok((stream, parameters))
}

/// Asks a server for TLS, if that is wanted, and shakes hands if the server agrees.
pub(in crate::proxy) async fn encrypt(
    shared: &Shared,
    stream: &mut Stream,
    info: &ServerHandle,
) -> Result<ChannelBinding, ConnectError> {
    let (description, binding) = encrypt_to(shared, stream, &info.target.host).await?;
    if let Some(description) = description {
        let _ = info.tls.set(description.into());
    }
    Ok(binding)
}

/// The same, for a connection to this host. Says what was agreed upon, if the connection is encrypted now.
pub(in crate::proxy) async fn encrypt_to(
    shared: &Shared,
    stream: &mut Stream,
    host: &str,
) -> Result<(Option<String>, ChannelBinding), ConnectError> {
    let tls = shared.tls.servers.load_full().filter(|_| stream.tcp().is_some());
    let Some(tls) = tls else { return Ok((None, ChannelBinding::None)) };
    stream.write_all(&[8u32.to_be_bytes(), SSL_REQUEST.to_be_bytes()].concat()).await?;
    // One byte and no more: what came with it in plain text would be taken for part of the encrypted conversation.
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    match answer[0] {
        b'S' => {}
        b'N' if tls.required => return Err(ConnectError::Unreachable("server refused SSL".into())),
        b'N' => return Ok((None, ChannelBinding::None)),
        // What an error message says before TLS could come from anybody.
        _ => return Err(ConnectError::Unreachable("server does not answer the request for SSL".into())),
    }
    let description = stream
        .connect_tls(&tls, host)
        .await
        .map_err(|error| ConnectError::Unreachable(format!("TLS handshake error: {error}")))?;
    let hash = stream.peer_certificate().and_then(certificate::end_point_hash);
    Ok((Some(description), hash.map_or(ChannelBinding::None, ChannelBinding::ServerEndPoint)))
}

/// `track_extra_parameters`: what the server does not report has to be asked for, once.
async fn unreported_parameters(stream: &mut Stream, names: &[String], parameters: &mut Parameters) {
    let missing: Vec<_> = names.iter().filter(|name| parameters.get(name.as_bytes()).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    let values = missing
        .iter()
        .map(|name| format!("pg_catalog.current_setting('{}', true)", name.replace('\'', "''")));
    let mut message = Vec::new();
    let sql = format!("SELECT {}", values.collect::<Vec<_>>().join(", "));
    write::query(&mut message, sql.as_bytes());
    // A server that is another pooler's console, for one, knows no such function.
    let rows = ask(stream, message, Wanted::Row, |_, _| Ok(())).await.unwrap_or_default();
    for (name, value) in missing.into_iter().zip(rows.into_iter().flatten()) {
        if let Some(value) = value {
            parameters.set_unreported(name.as_bytes(), value.as_bytes());
        }
    }
}

/// Whether what we send does not leave the machine.
fn stays_here(stream: &Stream) -> bool {
    let is_loopback = |peer: SocketAddr| peer.ip().to_canonical().is_loopback();
    stream.tcp().is_none_or(|tcp| tcp.peer_addr().is_ok_and(is_loopback))
}

fn refused(error: &ServerAuthError) -> ConnectError {
    let refusal = Refusal::new(sqlstate::INVALID_PASSWORD, error.to_string());
    ConnectError::Refused(match error.hint() {
        Some(hint) => refusal.hint(hint),
        None => refusal,
    })
}

/// An ErrorResponse during login. "Not now" is worth another try; anything else the client should read.
fn server_refusal(body: &[u8]) -> ConnectError {
    let fields = backend::error_fields(body);
    tracing::warn!("server login failed: {}", fields.text());
    let message = String::from_utf8_lossy(fields.message).into_owned();
    match fields.sqlstate {
        b"57P03" => ConnectError::NotNow(message),
        b"57P01" | b"57P02" => ConnectError::Unreachable(message),
        b"53300" => ConnectError::Full(message),
        b"28P01" => ConnectError::Refused(Refusal::new(sqlstate::INVALID_PASSWORD, message)),
        b"28000" => ConnectError::Refused(Refusal::new(sqlstate::INVALID_AUTHORIZATION, message)),
        b"3D000" => ConnectError::Refused(Refusal::new(sqlstate::UNKNOWN_DATABASE, message)),
        b"42501" => ConnectError::Refused(Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, message)),
        _ => ConnectError::Refused(Refusal::new(sqlstate::CANNOT_CONNECT, message)),
    }
}
