//! Carries commands out.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::drivers;
use super::parse::Command;
use super::rows::Rows;
use super::show;
use super::table::{Row, cell, text};
use crate::clock;
use crate::error::{Refusal, sqlstate};
use crate::proxy::client_handle::ClientHandle;
use crate::proxy::close::Retirement;
use crate::proxy::pools::Database;
use crate::proxy::shared::{CONSOLE, Lifecycle, Request, Shared, Shutdown};
use crate::proxy::{close_servers, pause, registry, reload};
use crate::wire::write::Column;

/// How often a command that waits looks whether it is done.
const POLL: Duration = Duration::from_millis(20);

/// What a command answers. The rows have the columns that [`columns`] says.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Message and detail.
    pub(super) notice: Option<(&'static str, Option<&'static str>)>,
    pub(super) rows: Rows,
    /// What ends it.
    pub(super) tag: Cow<'static, str>,
}

impl Answer {
    /// Nothing but the end.
    pub(super) fn tag(tag: impl Into<Cow<'static, str>>) -> Self {
        Self { tag: tag.into(), ..Self::default() }
    }

    fn rows(rows: impl Into<Rows>, tag: &'static str) -> Self {
        Self { notice: None, rows: rows.into(), tag: tag.into() }
    }

    fn notice(message: &'static str, detail: Option<&'static str>, tag: &'static str) -> Self {
        Self { notice: Some((message, detail)), rows: Rows::default(), tag: tag.into() }
    }
}

/// The columns of a command's rows; `None` if it answers none.
pub(super) fn columns(command: &Command) -> Option<Cow<'static, [Column]>> {
    match command {
        Command::Show(view) => Some(view.columns.into()),
        Command::Setting(info) => Some(vec![text(info.name)].into()),
        Command::ApplicationName => Some(vec![text("application_name")].into()),
        Command::Constant(constant) => Some(vec![constant.column].into()),
        _ => None,
    }
}

/// Carries out a command that does not concern the session alone.
pub(super) async fn execute(
    shared: Arc<Shared>,
    client: Arc<ClientHandle>,
    command: Command,
) -> Result<Answer, Refusal> {
    let shared = &shared;
    let tag = match command {
        Command::Help => return Ok(Answer::notice("Console usage", Some(show::HELP), "SHOW")),
        Command::Show(view) => return Ok(Answer::rows(view.rows(shared), "SHOW")),
        Command::Setting(info) => {
            return Ok(Answer::rows(vec![Row::from([show::setting(shared, info)])], "SHOW"));
        }
        Command::ApplicationName => {
            let name = cell(&*client.application_name.lock());
            return Ok(Answer::rows(vec![vec![name]], "SHOW"));
        }
        Command::Constant(constant) => {
            return Ok(Answer::rows(vec![vec![cell(constant.value)]], constant.tag));
        }
        Command::SetSession(key, value) => return Ok(set_session(&client, &key, value)),
        Command::Set(key, value) => {
            let in_force = set(shared, &key, &value)?;
            let notice = (!in_force && key.contains("_tls")).then_some((TLS_UNCHANGED, None));
            return Ok(Answer { notice, ..Answer::tag(format!("SET {key}={value}")) });
        }
        Command::Transaction(_, tag) | Command::Nothing(tag) => tag,
        Command::Deallocate(_) => "DEALLOCATE",
        Command::Reload => {
            reload(shared).await?;
            "RELOAD"
        }
        Command::Pause(name) => {
            pause(shared, name.as_deref()).await?;
            "PAUSE"
        }
        Command::Resume(name) => {
            resume(shared, name.as_deref())?;
            "RESUME"
        }
        Command::Suspend => {
            suspend(shared).await?;
            "SUSPEND"
        }
        Command::Disable(name) => {
            let name = required(name)?;
            log("DISABLE", Some(&name));
            known_or_automatic(shared, &name, "disable")?.disabled.store(true, Relaxed);
            "DISABLE"
        }
        Command::Enable(name) => {
            let name = required(name)?;
            log("ENABLE", Some(&name));
            refuse_console(&name, "cannot enable")?;
            known(shared, &name)?.disabled.store(false, Relaxed);
            "ENABLE"
        }
        Command::Reconnect(name) => {
            log("RECONNECT", name.as_deref());
            for database in databases(shared, name.as_deref(), "reconnect")? {
                close_servers::renew_servers(shared, &database.name, Retirement::Obsolete);
            }
            "RECONNECT"
        }
        Command::Kill(name) => {
            kill(shared, name.as_deref()).await?;
            "KILL"
        }
        Command::KillClient(id) => {
            kill_client(shared, &id)?;
            "KILL_CLIENT"
        }
        Command::WaitClose(name) => {
            wait_close(shared, name.as_deref()).await?;
            "WAIT_CLOSE"
        }
        Command::Shutdown(how) => {
            shutdown(shared, how).await;
            "SHUTDOWN"
        }
    };
    Ok(Answer::tag(tag))
}

/// Takes back what a command has begun, because its client wants it cancelled.
pub(super) fn cancel(shared: &Arc<Shared>, command: &Command) {
    match command {
        Command::Pause(name) => drop(resume(shared, name.as_deref())),
        Command::Suspend => drop(resume(shared, None)),
        _ => {}
    }
}

/// As PgBouncer logs commands.
fn log(command: &str, database: Option<&str>) {
    match database {
        None => tracing::info!("{command} command issued"),
        Some(name) => tracing::info!("{command} '{name}' command issued"),
    }
}

fn set_session(client: &ClientHandle, key: &str, value: String) -> Answer {
    if key == "application_name" {
        *client.application_name.lock() = value.into();
        return Answer::tag("SET");
    }
    debug_assert!(drivers::is_session_parameter(key));
    Answer::notice("SET ignored", None, "SET")
}

/// In PgBouncer's words.
const TLS_UNCHANGED: &str = "TLS settings could not be applied, still using old configuration";

/// Says whether all of it is in force. PgBouncer says no more of an error than that it failed; the reason is in the detail here.
fn set(shared: &Arc<Shared>, key: &str, value: &str) -> Result<bool, Refusal> {
    let failed = |why: Refusal| {
        let failed = Refusal::new(why.sqlstate, "SET failed").detail(why.message);
        Refusal { hint: why.hint, ..failed }
    };
    let in_force = reload::change(shared, key, value).map_err(failed)?;
    request(shared, Request::Follow);
    Ok(in_force)
}

/// Asks the main task for something; says whether it is there to listen.
fn request(shared: &Shared, request: Request) -> bool {
    shared.requests.get().is_some_and(|requests| requests.send(request).is_ok())
}

async fn reload(shared: &Shared) -> Result<(), Refusal> {
    log("RELOAD", None);
    let (answer, done) = tokio::sync::oneshot::channel();
    let failed = |why: String| {
        Refusal::new(sqlstate::CONFIG_FILE_ERROR, "RELOAD failed, see logs for additional details")
            .detail(why)
    };
    if !request(shared, Request::Reload(answer)) {
        return Err(failed("nobody reads the configuration".into()));
    }
    done.await.unwrap_or_else(|_| Err("the reload was given up".into())).map_err(failed)
}

/// The named database, or all of them.
fn databases(shared: &Shared, name: Option<&str>, verb: &str) -> Result<Vec<Arc<Database>>, Refusal> {
    match name {
        None => Ok(shared.pools.databases()),
        Some(name) => known_or_automatic(shared, name, verb).map(|found| vec![found]),
    }
}

/// A database that is known, or that `*` stands for.
fn known_or_automatic(shared: &Shared, name: &str, verb: &str) -> Result<Arc<Database>, Refusal> {
    refuse_console(name, &format!("cannot {verb}"))?;
    registry::database(shared, name).ok_or_else(|| no_such_database(name))
}

fn required(name: Option<String>) -> Result<String, Refusal> {
    name.ok_or_else(|| Refusal::protocol("a database is required"))
}

fn known(shared: &Shared, name: &str) -> Result<Arc<Database>, Refusal> {
    shared.pools.database(name).ok_or_else(|| no_such_database(name))
}

fn no_such_database(name: &str) -> Refusal {
    Refusal::protocol(format!("no such database: {name}"))
}

fn refuse_console(name: &str, cannot: &str) -> Result<(), Refusal> {
    if name == CONSOLE {
        return Err(Refusal::protocol(format!("{cannot} admin db: {name}")));
    }
    Ok(())
}

fn refuse_if_paused(shared: &Shared) -> Result<(), Refusal> {
    if matches!(shared.lifecycle(), Lifecycle::Paused | Lifecycle::Suspended) {
        return Err(Refusal::protocol("already suspended/paused"));
    }
    Ok(())
}

/// PAUSE: no server is given out any more; done when all have been given back.
async fn pause(shared: &Arc<Shared>, name: Option<&str>) -> Result<(), Refusal> {
    refuse_if_paused(shared)?;
    log("PAUSE", name);
    let paused = databases(shared, name, "pause")?;
    match name {
        Some(_) => paused.iter().for_each(|database| pause::pause(shared, database)),
        None => {
            shared.set_lifecycle(Lifecycle::Paused);
            pause::pause_all(shared);
        }
    }
    loop {
        if paused.iter().any(|database| !shared.pools.is_paused(database)) {
            return Err(Refusal::new(sqlstate::QUERY_CANCELED, "resumed before all servers were given back"));
        }
        if !paused.iter().any(|database| pause::has_servers(shared, database)) {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// RESUME: of one database, or of whatever is not running. While a shutdown waits for clients those that are paused have to
/// go on, or they would never leave; one that waits for servers has paused everything itself.
fn resume(shared: &Arc<Shared>, name: Option<&str>) -> Result<(), Refusal> {
    log("RESUME", name);
    if let Some(name) = name {
        let database = if name == CONSOLE { None } else { Some(known(shared, name)?) };
        return match database.filter(|database| database.paused.load(Relaxed)) {
            Some(database) => {
                pause::resume(shared, &database);
                Ok(())
            }
            None => Err(Refusal::protocol(format!("database {name} is not paused"))),
        };
    }
    if shared.shutdown() == Some(Shutdown::WaitForServers) {
        return Err(Refusal::protocol("pooler is shutting down"));
    }
    if matches!(shared.lifecycle(), Lifecycle::Paused | Lifecycle::Suspended) {
        shared.set_lifecycle(Lifecycle::Active);
        pause::resume_all(shared);
        return Ok(());
    }
    // After KILL or PAUSE of single databases: PgBouncer insists on their names.
    let paused = shared.pools.databases().into_iter().filter(|database| database.paused.load(Relaxed));
    let resumed = paused.map(|database| pause::resume(shared, &database)).count();
    if resumed == 0 {
        let is_ending = shared.shutdown().is_some();
        let words = if is_ending { "pooler is shutting down" } else { "pooler is not paused/suspended" };
        return Err(Refusal::protocol(words));
    }
    Ok(())
}

/// SUSPEND: nothing is read from clients and servers any more; done when all that was read has been sent on.
async fn suspend(shared: &Arc<Shared>) -> Result<(), Refusal> {
    refuse_if_paused(shared)?;
    if shared.pools.databases().iter().any(|database| database.paused.load(Relaxed)) {
        return Err(Refusal::protocol("cannot suspend with paused databases"));
    }
    log("SUSPEND", None);
    shared.set_lifecycle(Lifecycle::Suspended);
    let limit = shared.config.load().settings.suspend_timeout;
    let begun = clock::now();
    let mut killed = false;
    while shared.lifecycle() == Lifecycle::Suspended {
        let busy = shared.clients.iter().filter(|client| !client.admin && !client.suspended.load(Relaxed));
        let busy: Vec<_> = busy.map(|client| Arc::clone(client.value())).collect();
        if busy.is_empty() {
            return Ok(());
        }
        if !killed && !limit.is_zero() && clock::now().since(begun) >= limit {
            killed = true;
            busy.iter().for_each(|client| client.kill(Refusal::protocol("suspend_timeout")));
        }
        tokio::time::sleep(POLL).await;
    }
    Err(Refusal::new(sqlstate::QUERY_CANCELED, "resumed before everything was suspended"))
}

/// KILL: clients and servers are closed at once, and whoever comes next waits for RESUME.
async fn kill(shared: &Arc<Shared>, name: Option<&str>) -> Result<(), Refusal> {
    refuse_if_paused(shared)?;
    log("KILL", name);
    let killed = databases(shared, name, "kill")?;
    let is_killed = |name: &str| killed.iter().any(|database| &*database.name == name);
    killed.iter().for_each(|database| pause::pause(shared, database));
    let reason = Refusal::new(sqlstate::ADMIN_SHUTDOWN, "database removed")
        .detail("An administrator has used KILL at the pooler's console.");
    let is_meant = |client: &ClientHandle| !client.admin && is_killed(&client.database);
    for client in shared.clients.iter().filter(|client| is_meant(client)) {
        client.kill(reason.clone());
    }
    for pool in shared.pools.all().into_iter().filter(|pool| is_killed(&pool.database.name)) {
        pool.lanes().for_each(|(_, lane)| _ = lane.refuse_all(&reason));
    }
    killed.iter().for_each(|database| {
        close_servers::close_servers(shared, &database.name, Retirement::DatabaseRemoved)
    });
    // They go by themselves, at once; whoever looks after this command must not see them any more.
    for _ in 0..50 {
        if !shared.clients.iter().any(|client| is_meant(&client)) {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn kill_client(shared: &Shared, id: &str) -> Result<(), Refusal> {
    let id: u64 = id.parse().map_err(|_| Refusal::protocol("invalid client pointer supplied"))?;
    let client = shared.clients.iter().find(|client| client.id == id).map(|found| Arc::clone(found.value()));
    let client = client.ok_or_else(|| Refusal::protocol("client not found"))?;
    client.kill(Refusal::new(sqlstate::ADMIN_SHUTDOWN, "admin forced disconnect"));
    Ok(())
}

/// WAIT_CLOSE: done when the servers that RECONNECT or RELOAD wanted closed are gone.
async fn wait_close(shared: &Shared, name: Option<&str>) -> Result<(), Refusal> {
    log("WAIT_CLOSE", name);
    let waited_for = databases(shared, name, "wait in")?;
    let closing = || {
        shared.servers.iter().any(|server| {
            server.close_needed.get().is_some()
                && waited_for.iter().any(|database| database.name == server.database)
        })
    };
    while closing() {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// As in PgBouncer there is no answer but the end of the connection, unless the end of the process has to wait.
async fn shutdown(shared: &Shared, how: Shutdown) {
    request(shared, Request::Shutdown(how));
    if how == Shutdown::Immediate {
        std::future::pending().await
    }
}
