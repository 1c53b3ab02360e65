//! The console's commands that change something.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::parse::{self, Command};
use crate::error::{Refusal, sqlstate};
use crate::proxy::info::ClientInfo;
use crate::proxy::pools::Database;
use crate::proxy::shared::{Lifecycle, Request, Shared, Shutdown};
use crate::proxy::{pause, settings};
use crate::wire::write;

/// How often a command that waits looks whether it is done.
const POLL: Duration = Duration::from_millis(20);

pub(super) async fn execute(
    shared: &Arc<Shared>,
    command: Command,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let tag = match command {
        Command::Show(_) => "SHOW",
        Command::Set(key, value) => {
            set(shared, &key, &value)?;
            "SET"
        }
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
        Command::Disable(name) => {
            database(shared, &name)?.disabled.store(true, Relaxed);
            "DISABLE"
        }
        Command::Enable(name) => {
            database(shared, &name)?.disabled.store(false, Relaxed);
            "ENABLE"
        }
        Command::Reconnect(name) => {
            reconnect(shared, name.as_deref())?;
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
            shutdown(shared, how);
            "SHUTDOWN"
        }
    };
    write::command_complete(out, tag);
    Ok(())
}

fn set(shared: &Arc<Shared>, key: &str, value: &str) -> Result<(), Refusal> {
    if parse::is_greeting(key) {
        return Ok(());
    }
    settings::change(shared, key, value)
}

async fn reload(shared: &Shared) -> Result<(), Refusal> {
    let (answer, done) = tokio::sync::oneshot::channel();
    let sent = shared.requests.get().is_some_and(|requests| requests.send(Request::Reload(answer)).is_ok());
    let failed = |why: String| {
        Refusal::new(sqlstate::CONFIG_FILE_ERROR, "RELOAD failed, see logs for additional details")
            .detail(why)
    };
    if !sent {
        return Err(failed("nobody reads the configuration".into()));
    }
    done.await.unwrap_or_else(|_| Err("the reload was given up".into())).map_err(failed)
}

/// The named database, or all of them.
fn databases(shared: &Shared, name: Option<&str>) -> Result<Vec<Arc<Database>>, Refusal> {
    match name {
        None => Ok(shared.pools.databases()),
        Some(name) => database(shared, name).map(|found| vec![found]),
    }
}

fn database(shared: &Shared, name: &str) -> Result<Arc<Database>, Refusal> {
    shared.pools.database(name).ok_or_else(|| Refusal::protocol(format!("no such database: {name}")))
}

/// PAUSE: no server is given out any more; done when all have been given back.
async fn pause(shared: &Arc<Shared>, name: Option<&str>) -> Result<(), Refusal> {
    let paused = databases(shared, name)?;
    if shared.is_shutting_down() {
        return Err(Refusal::protocol("pooler is shutting down"));
    }
    if name.is_none() {
        shared.set_lifecycle(Lifecycle::Paused);
    }
    pause::pause(shared, &paused);
    while pause::in_use(shared, &paused) {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn resume(shared: &Arc<Shared>, name: Option<&str>) -> Result<(), Refusal> {
    if shared.is_shutting_down() {
        return Err(Refusal::protocol("pooler is shutting down"));
    }
    let resumed = databases(shared, name)?;
    if name.is_none() {
        if shared.lifecycle() != Lifecycle::Paused && !resumed.iter().any(|d| d.paused.load(Relaxed)) {
            return Err(Refusal::protocol("pooler is not paused/suspended"));
        }
        shared.set_lifecycle(Lifecycle::Active);
    }
    pause::resume(shared, &resumed);
    Ok(())
}

/// RECONNECT: each server connection is closed as soon as nobody uses it.
fn reconnect(shared: &Arc<Shared>, name: Option<&str>) -> Result<(), Refusal> {
    for database in databases(shared, name)? {
        settings::close_servers(shared, &database.name, "obsolete connection");
    }
    Ok(())
}

/// KILL: clients and servers are closed at once.
async fn kill(shared: &Arc<Shared>, name: Option<&str>) -> Result<(), Refusal> {
    let killed = databases(shared, name)?;
    let is_meant =
        |client: &ClientInfo| !client.admin && killed.iter().any(|database| database.name == client.database);
    for client in shared.clients.iter().filter(|client| is_meant(client)) {
        client.kill(Refusal::new(sqlstate::ADMIN_SHUTDOWN, "admin forced disconnect"));
    }
    reconnect(shared, name)?;
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
    let waited_for = databases(shared, name)?;
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

fn shutdown(shared: &Shared, how: Shutdown) {
    if let Some(requests) = shared.requests.get() {
        let _ = requests.send(Request::Shutdown(how));
    }
}
