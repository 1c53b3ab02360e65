//! Somebody who has proved who they are gets a place: among the clients of a pool, at the console, or on a server of
//! their own.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::claim::Claim;
use super::failure::{Failure, no_such_database};
use super::newcomer::{Identified, Newcomer, Prepared};
use super::replication_mode::Replication;
use crate::clock::AtomicMicros;
use crate::config::AuthType;
use crate::error::{Refusal, sqlstate};
use crate::proxy::client_handle::ClientHandle;
use crate::proxy::pools::User;
use crate::proxy::shared::CONSOLE;
use crate::proxy::{credentials, peers, registry};
use crate::session::forward::ClientSession;
use crate::session::parameters::Parameters;
use crate::session::startup::Requested;
use crate::wire::startup::{CancelKey, PROTOCOL_3_0, PROTOCOL_3_2};
use crate::wire::write;

impl Newcomer {
    /// The client is who it says. Gives it a place, once a server has told what it is like.
    pub(super) async fn welcome(
        &mut self,
        claim: &Claim,
        identified: &mut Identified,
    ) -> Result<Prepared, Failure> {
        if identified.takes_over {
            return Box::pin(self.hand_over(identified)).await;
        }
        let proved = identified.identity.as_ref().and_then(|identity| identity.user.as_deref());
        let name = proved.unwrap_or(&claim.user);
        if claim.database == CONSOLE {
            return self.console(name, identified);
        }
        let shared = Arc::clone(&self.shared);
        let database =
            registry::database(&shared, &claim.database).ok_or_else(|| no_such_database(&claim.database))?;
        database.entered.store(true, Relaxed);
        if database.disabled.load(Relaxed) {
            return Err(Refusal::protocol(format!("database \"{}\" is disabled", database.name)).into());
        }
        let user = registry::user(&shared, name);
        let full = |what: &'static str| Refusal::new(sqlstate::TOO_MANY_CONNECTIONS, what);
        let permits = [
            shared
                .client_limit
                .acquire()
                .ok_or_else(|| full("no more connections allowed (max_client_conn)"))?,
            database
                .clients
                .acquire()
                .ok_or_else(|| full("client connections exceeded (max_db_client_connections)"))?,
            user.clients
                .acquire()
                .ok_or_else(|| full("client connections exceeded (max_user_client_connections)"))?,
        ];
        let pool = registry::pool(&shared, &database, &user);
        if let Some(identity) = identified.identity.take() {
            credentials::learn(&pool, identity.found.as_deref(), identity.learned);
        }
        if identified.replication != Replication::No {
            let server = Box::pin(self.own_server(&pool, &identified.session)).await?;
            let parameters = Arc::clone(&server.session.parameters);
            let application_name =
                identified.session.parameter("application_name").unwrap_or_default().to_vec();
            let info =
                self.announce(identified, &database.name, &user, &parameters, &application_name).await?;
            let shown = identified.replication.shown();
            let _ = (info.replication.set(shown), server.info.replication.set(shown));
            let stats = Arc::clone(&pool.stats[self.worker]);
            return Ok(Prepared::Replication { info, server, stats, permits });
        }
        let config = shared.config.load_full();
        let mut requested = Requested::new(&identified.session, &config.settings.ignore_startup_parameters)?;
        if config.settings.application_name_add_host {
            requested.add_host(&self.peer.with_host());
        }
        let reported = self.reported_parameters(&pool, &user).await?;
        let own = requested.apply(&reported)?;
        let untried_parameters = own.is_some();
        let parameters = match own {
            Some(own) => self.try_chosen(&pool, &user, &reported, own).await?,
            None => reported,
        };
        let application_name = requested.get(b"application_name").unwrap_or_default();
        let info = self.announce(identified, &database.name, &user, &parameters, application_name).await?;
        pool.stats[self.worker].logins.add(1);
        Ok(Prepared::Client {
            info,
            pool,
            session: ClientSession::new(parameters, requested.route),
            untried_parameters,
            permits,
        })
    }

    /// Puts the client on the list and tells it that it is in.
    async fn announce(
        &mut self,
        identified: &Identified,
        database: &Arc<str>,
        user: &User,
        parameters: &Parameters,
        application_name: &[u8],
    ) -> Result<Arc<ClientHandle>, Failure> {
        let mut out = Vec::with_capacity(identified.out.len() + parameters.messages().len() + 64);
        out.extend_from_slice(&identified.out);
        write::authentication(&mut out, 0, &[]);
        out.extend_from_slice(parameters.messages());
        let info = self.register(database, user, identified.session.protocol, application_name, false);
        write::backend_key_data(&mut out, &info.key);
        let config = self.shared.config.load_full();
        if !config.settings.login_notify_message.is_empty() {
            write::notice(&mut out, &config.settings.login_notify_message);
        }
        write::ready_for_query(&mut out, b'I');
        match self.stream.write_all(&out).await {
            Ok(()) => Ok(info),
            Err(error) => {
                self.shared.clients.remove(&info.key.id());
                Err(error.into())
            }
        }
    }

    /// Puts the client on the list under a key that no other has.
    fn register(
        &self,
        database: &Arc<str>,
        user: &User,
        protocol: u32,
        application_name: &[u8],
        admin: bool,
    ) -> Arc<ClientHandle> {
        let shared = &self.shared;
        let secret = || -> Box<[u8]> {
            if protocol >= PROTOCOL_3_2 {
                shared.entropy::<32>().into()
            } else {
                shared.entropy::<4>().into()
            }
        };
        loop {
            let key = CancelKey::new(shared.entropy(), secret(), peers::own_id(&shared.config.load()));
            let dashmap::Entry::Vacant(vacant) = shared.clients.entry(key.id()) else { continue };
            let (database, user) = (Arc::clone(database), Arc::clone(&user.name));
            let info = Arc::new(ClientHandle {
                local: self.local,
                tls: self.tls.as_ref().map_or("", |tls| &tls.description).into(),
                connected: self.connected,
                requested: AtomicMicros::new(self.connected),
                admin,
                application_name: parking_lot::Mutex::new(String::from_utf8_lossy(application_name).into()),
                ..ClientHandle::new(self.id, key, database, user, self.peer)
            });
            vacant.insert(Arc::clone(&info));
            return info;
        }
    }

    /// The new process is in; what comes next is not the protocol of clients any more.
    async fn hand_over(&mut self, identified: &mut Identified) -> Result<Prepared, Failure> {
        let out = &mut identified.out;
        write::authentication(out, 0, &[]);
        write::ready_for_query(out, b'I');
        self.stream.write_all(out).await?;
        Ok(Prepared::Successor)
    }

    fn console(&self, user: &str, identified: &Identified) -> Result<Prepared, Failure> {
        let config = self.shared.config.load();
        let is_admin = identified.identity.is_none()
            || config.settings.auth_type == AuthType::Any
            || config.settings.is_admin(user);
        if !is_admin && !config.settings.is_stats_user(user) {
            return Err(Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, "not allowed")
                .detail("The console is for admin_users and stats_users.")
                .into());
        }
        // Admins come in however full it is.
        let (limits, user) = (&self.shared.console.clients, registry::user(&self.shared, user));
        let full = |what: &'static str| Refusal::new(sqlstate::TOO_MANY_CONNECTIONS, what);
        let permits = if is_admin {
            [limits.acquire_regardless(), user.clients.acquire_regardless()]
        } else {
            [
                limits
                    .acquire()
                    .ok_or_else(|| full("client connections exceeded (max_db_client_connections)"))?,
                user.clients
                    .acquire()
                    .ok_or_else(|| full("client connections exceeded (max_user_client_connections)"))?,
            ]
        };
        let application_name = identified.session.parameter("application_name").unwrap_or_default();
        let info = self.register(&CONSOLE.into(), &user, PROTOCOL_3_0, application_name, true);
        Ok(Prepared::Console { info, is_admin, greeting: identified.out.clone(), permits })
    }
}
