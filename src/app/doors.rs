//! Where clients and scrapers come in: sockets opened here, inherited from the service manager, or taken over.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::fatal::Fatal;
use crate::admin::http;
use crate::config::{Config, Settings};
use crate::net::connect::SocketOptions;
use crate::net::listener::{self, Listener, SocketFile};
use crate::proxy::accept;
use crate::proxy::handover::{Door, DoorKind};
use crate::proxy::shared::Shared;

/// How often an address that the process before still has is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// All of them.
#[derive(Default)]
pub(super) struct Doors {
    clients: Vec<(DoorKind, Listener)>,
    http: Option<tokio::net::TcpListener>,
    /// The sockets once more, for a process that takes over.
    copies: Vec<Door>,
    /// Those of Unix sockets that go when the sockets do.
    files: Vec<SocketFile>,
    /// One that belongs to the old process until this one serves.
    inherited_file: Option<PathBuf>,
    tcp: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
}

/// The file of the Unix socket, or its name in the abstract namespace; `None` if there is to be none.
pub(super) fn socket_path(settings: &Settings) -> Option<PathBuf> {
    let name = format!(".s.PGSQL.{}", settings.listen_port);
    (!settings.unix_socket_dir.is_empty()).then(|| Path::new(&settings.unix_socket_dir).join(name))
}

/// Whether that socket has a name only and no file.
pub(super) fn is_abstract(settings: &Settings) -> bool {
    settings.unix_socket_dir.starts_with('@')
}

impl Doors {
    /// Opens them, as far as they are not among the `inherited` ones. The process that makes room for this one may need a
    /// moment (`takes_over`).
    pub(super) async fn open(
        config: &Config,
        mut inherited: Vec<Door>,
        takes_over: bool,
    ) -> Result<Self, Fatal> {
        let mut doors = Self::default();
        let mut attempts = if takes_over { 100 } else { 1 };
        if inherited.iter().any(|door| door.kind == DoorKind::Activated) {
            doors.use_activated(config, &mut inherited)?;
        }
        while let Err(error) = doors.open_missing(config, &mut inherited, takes_over).await {
            attempts -= 1;
            if attempts == 0 {
                return Err(error);
            }
            tokio::time::sleep(RETRY).await;
        }
        Ok(doors)
    }

    /// What the service manager has opened is instead of what the settings say, as in PgBouncer.
    fn use_activated(&mut self, config: &Config, inherited: &mut Vec<Door>) -> Result<(), Fatal> {
        for setting in ["listen_addr", "unix_socket_dir"] {
            if config.is_explicit(setting) {
                tracing::warn!("sockets passed from service manager, {setting} ignored");
            }
        }
        let (activated, others) =
            std::mem::take(inherited).into_iter().partition(|door| door.kind == DoorKind::Activated);
        *inherited = others;
        let activated: Vec<Door> = activated;
        for door in activated {
            let failed = |error| format!("cannot use a socket passed from the service manager: {error}");
            let name = listener::name(&door.socket).map_err(failed)?;
            let listener = Listener::inherited(door.socket, config.settings.listen_port).map_err(failed)?;
            self.add(DoorKind::Activated, listener)?;
            tracing::info!("socket passed from service manager ({name})");
        }
        Ok(())
    }

    /// Opens what is not open yet.
    async fn open_missing(
        &mut self,
        config: &Config,
        inherited: &mut Vec<Door>,
        takes_over: bool,
    ) -> Result<(), Fatal> {
        if self.clients.is_empty() {
            self.open_tcp(config, inherited).await?;
        }
        let is_activated = self.copies.iter().any(|door| door.kind == DoorKind::Activated);
        let is_open = self.clients.iter().any(|(_, listener)| listener.tcp_address().is_none());
        if !is_activated && !is_open {
            self.open_unix(config, inherited, takes_over)?;
        }
        if self.clients.is_empty() {
            return Err("nowhere to listen on: set listen_addr or unix_socket_dir".into());
        }
        if self.http.is_none() {
            self.open_http(config, inherited).await?;
        }
        Ok(())
    }

    async fn open_tcp(&mut self, config: &Config, inherited: &mut Vec<Door>) -> Result<(), Fatal> {
        let s = &config.settings;
        let addresses =
            listener::resolve(&s.listen_addr).await.map_err(|error| format!("listen_addr: {error}"))?;
        let mut open = Vec::new();
        for ip in addresses {
            let address: SocketAddr = (ip, s.listen_port).into();
            let listener = match take(inherited, DoorKind::Clients, &address.to_string()) {
                Some(socket) => Listener::inherited(socket, s.listen_port),
                None => {
                    let options = SocketOptions::of(s);
                    listener::tcp(address, s.listen_backlog, s.so_reuseport, &options)
                }
            };
            match listener {
                Ok(listener) => open.push(listener),
                // `*` where there is no IPv6.
                Err(error) if ip.is_ipv6() && s.listen_addr.contains('*') => {
                    tracing::warn!("cannot listen on {address}: {error}");
                    continue;
                }
                Err(error) => return Err(format!("cannot listen on {address}: {error}")),
            }
            tracing::info!("listening on {address}");
        }
        open.into_iter().try_for_each(|listener| self.add(DoorKind::Clients, listener))
    }

    fn open_unix(
        &mut self,
        config: &Config,
        inherited: &mut Vec<Door>,
        takes_over: bool,
    ) -> Result<(), Fatal> {
        let s = &config.settings;
        let Some(path) = socket_path(s) else { return Ok(()) };
        let opened = match take(inherited, DoorKind::Clients, &path.display().to_string()) {
            Some(socket) => {
                self.inherited_file = Some(path.clone());
                Listener::inherited(socket, s.listen_port)
            }
            None if is_abstract(s) => {
                listener::abstract_unix(path.display().to_string().trim_start_matches('@'), s.listen_port)
            }
            None => {
                listener::unix(&path, s.listen_port, s.unix_socket_mode.0, &s.unix_socket_group, takes_over)
                    .map(|(listener, file)| {
                        self.files.push(file);
                        listener
                    })
            }
        };
        match opened {
            Ok(listener) => {
                tracing::info!("listening on unix:{}", path.display());
                self.add(DoorKind::Clients, listener)
            }
            Err(error) => {
                let message = format!("cannot listen on a unix socket in {}: {error}", s.unix_socket_dir);
                if config.is_explicit("unix_socket_dir") || self.clients.is_empty() {
                    return Err(message);
                }
                tracing::warn!("{message}");
                Ok(())
            }
        }
    }

    /// The default port may be taken by another pooler on the same machine: that is worth a warning. One that was asked
    /// for must be had.
    async fn open_http(&mut self, config: &Config, inherited: &mut Vec<Door>) -> Result<(), Fatal> {
        let s = &config.settings;
        if s.http_port == 0 {
            return Ok(());
        }
        let name = format!("{}:{}", s.http_listen_addr, s.http_port);
        let opened = match take(inherited, DoorKind::Http, &name) {
            Some(socket) => listener::inherited_tcp(socket),
            None => http::bind(&s.http_listen_addr, s.http_port).await,
        };
        match opened {
            Ok(listener) => {
                tracing::info!("serving /metrics on {name}");
                self.copies.push(copy(DoorKind::Http, &listener)?);
                self.http = Some(listener);
            }
            Err(error) => {
                let message = format!("cannot serve /metrics on {name}: {error}");
                if config.is_explicit("http_port") || config.is_explicit("http_listen_addr") {
                    return Err(message);
                }
                tracing::warn!("{message} (http_port = 0 turns it off)");
            }
        }
        Ok(())
    }

    fn add(&mut self, kind: DoorKind, listener: Listener) -> Result<(), Fatal> {
        self.copies.push(copy(kind, &listener)?);
        self.clients.push((kind, listener));
        Ok(())
    }

    /// Lets everybody in.
    pub(super) fn serve(&mut self, shared: &Arc<Shared>) {
        self.files.extend(self.inherited_file.take().and_then(|path| SocketFile::new(path).ok()));
        for (kind, listener) in self.clients.drain(..) {
            let tasks = if listener.tcp_address().is_some() { &mut self.tcp } else { &mut self.others };
            // Clients may have been waiting at a socket of the service manager's for longer than this process is there.
            let is_heir = kind != DoorKind::Activated;
            tasks.push(tokio::task::spawn_local(accept::run(
                Arc::clone(shared),
                listener,
                is_heir,
                crate::admin::serve,
            )));
        }
        if let Some(listener) = self.http.take() {
            self.others.push(tokio::task::spawn_local(http::run(Arc::clone(shared), listener)));
        }
    }

    /// Puts in force what the listening sockets have to know of the settings. `tcp_defer_accept`: clients speak first, so
    /// there is nothing to do for one that has said nothing.
    pub(super) fn follow(&self, settings: &Settings) {
        let options = SocketOptions::of(settings);
        let is_meant = |door: &&Door| door.kind != DoorKind::Http && !listener::is_unix(&door.socket);
        for door in self.copies.iter().filter(is_meant) {
            if let Err(error) = listener::defer_accept(&door.socket, settings.tcp_defer_accept > 0) {
                tracing::warn!("cannot set TCP_DEFER_ACCEPT: {error}");
            }
            if let Err(error) = options.hand_down(&door.socket) {
                tracing::warn!("cannot set the options of a listening socket: {error}");
            }
        }
    }

    /// Refuses new clients by TCP from now on, so that another process gets them. Admins still come in by the Unix socket,
    /// scrapers by HTTP.
    pub(super) fn close_tcp(&mut self) {
        self.tcp.drain(..).for_each(|task| task.abort());
        self.copies.retain(|door| listener::is_unix(&door.socket) || door.kind == DoorKind::Http);
    }

    /// Copies of the sockets, for another process.
    pub(super) fn copies(&self) -> Vec<Door> {
        self.copies.iter().filter_map(|door| copy(door.kind, &door.socket).ok()).collect()
    }

    /// Another process has the sockets now, and their files.
    pub(super) fn leave(&mut self) {
        self.files.drain(..).for_each(SocketFile::leave);
        self.close();
    }

    /// Closes all of them, and removes the files of Unix sockets.
    pub(super) fn close(&mut self) {
        self.tcp.drain(..).chain(self.others.drain(..)).for_each(|task| task.abort());
        self.copies.clear();
        self.files.clear();
    }
}

fn copy(kind: DoorKind, socket: &impl AsFd) -> Result<Door, Fatal> {
    let socket = socket.as_fd().try_clone_to_owned().map_err(|error| format!("cannot listen: {error}"))?;
    Ok(Door { kind, socket })
}

/// The inherited socket with this name, if there is one.
fn take(inherited: &mut Vec<Door>, kind: DoorKind, name: &str) -> Option<OwnedFd> {
    let is_it = |door: &Door| door.kind == kind && listener::name(&door.socket).is_ok_and(|n| n == name);
    let at = inherited.iter().position(is_it)?;
    Some(inherited.remove(at).socket)
}
