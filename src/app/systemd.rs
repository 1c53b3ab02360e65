//! What the service manager is told, if there is one that listens (`Type=notify` or `notify-reload`).

use std::sync::Arc;

use sd_notify::NotifyState;

use crate::proxy::shared::Shared;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("cannot notify the service manager: {error}");
    }
}

/// The program serves; also the end of a reload.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read again.
pub(super) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// The end has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Another process is the service from now on. Nobody has told it of a watchdog, so there is none any more.
pub(super) fn handed_over(pid: i32) {
    let Ok(pid) = u32::try_from(pid) else { return };
    tell(&[NotifyState::MainPid(pid)]);
    if sd_notify::watchdog_enabled().is_some() {
        tell(&[NotifyState::WatchdogUsec(0)]);
    }
}

/// Says twice in each `WatchdogSec` that the program is alive, if it is asked to.
pub(super) async fn watchdog(shared: Arc<Shared>) {
    let Some(period) = sd_notify::watchdog_enabled().filter(|period| !period.is_zero()) else { return };
    while shared.successor().is_none() {
        tell(&[NotifyState::Watchdog]);
        tokio::time::sleep(period / 2).await;
    }
}
