//! `-R`: takes over from the process that runs with the same configuration.

use super::doors;
use super::fatal::Fatal;
use crate::config::Settings;
use crate::proxy::takeover::{self, Found};

/// Finds it, if it runs, by the Unix socket.
pub(super) async fn find(settings: &Settings) -> Result<Found, Fatal> {
    let path = doors::socket_path(settings)
        .ok_or_else(|| "online restart (-R) needs the setting unix_socket_dir".to_owned())?;
    if doors::is_abstract(settings) {
        // It would have to be given up by the old process before this one could have it.
        return Err("cannot reboot with abstract Unix socket".into());
    }
    let found = takeover::find(&path).await?;
    match &found {
        Found::Nobody => tracing::info!("no process to take over from at {}", path.display()),
        Found::MakesRoom => tracing::info!("the old process makes room"),
        Found::HandsOver(_) => tracing::info!("the old process hands over"),
    }
    Ok(found)
}
