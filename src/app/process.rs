//! What the program asks of the operating system for itself.

use std::ffi::CString;
use std::path::PathBuf;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{self, User};

use super::fatal::Fatal;
use crate::config::{Config, Settings};

/// Becomes another user, if one is named. Running as root is refused: a pooler needs no right that a user has not.
pub(super) fn become_user(name: &str) -> Result<(), Fatal> {
    if name.is_empty() {
        return if unistd::geteuid().is_root() {
            Err("pgweir should not run as root; name a user with -u or the setting user".into())
        } else {
            Ok(())
        };
    }
    let found = User::from_name(name).map_err(|error| format!("user {name}: {error}"))?;
    let user = found.ok_or_else(|| format!("there is no user {name}"))?;
    if user.uid == unistd::geteuid() {
        return Ok(());
    }
    let failed = |error| format!("cannot become user {name}: {error}");
    let c_name = CString::new(name).map_err(|_| format!("there is no user {name}"))?;
    unistd::initgroups(&c_name, user.gid).map_err(failed)?;
    unistd::setgid(user.gid).map_err(failed)?;
    unistd::setuid(user.uid).map_err(failed)
}

/// A daemon without a log would be mute.
pub(super) fn check_daemon(config: &Config) -> Result<(), Fatal> {
    if config.settings.logfile.is_empty() && !config.settings.syslog {
        return Err("a daemon needs the setting logfile or syslog".into());
    }
    Ok(())
}

/// Goes on in the background; the shell that started us gets its prompt back.
pub(super) fn daemonize() -> Result<(), Fatal> {
    // The directory stays: relative paths in the configuration are meant from here.
    unistd::daemon(true, false).map_err(|error| format!("cannot go to the background: {error}"))?;
    crate::logging::set_stderr(false);
    Ok(())
}

/// The file that holds the process ID, removed when dropped.
pub(super) struct Pidfile(Option<PathBuf>);

impl Pidfile {
    /// A file whose process is alive is an error.
    pub(super) fn check(path: &str) -> Result<(), Fatal> {
        let path = PathBuf::from(path);
        let old = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<i32>().ok());
        if let Some(pid) = old.filter(|pid| *pid > 0 && *pid != unistd::getpid().as_raw()) {
            let alive = !matches!(
                nix::sys::signal::kill(unistd::Pid::from_raw(pid), None),
                Err(nix::errno::Errno::ESRCH)
            );
            if alive {
                return Err(format!(
                    "pidfile {} exists, another instance running? (process {pid})",
                    path.display()
                ));
            }
        }
        Ok(())
    }

    /// Writes it; an empty path means none.
    pub(super) fn write(path: &str) -> Result<Self, Fatal> {
        if path.is_empty() {
            return Ok(Self(None));
        }
        let path = PathBuf::from(path);
        std::fs::write(&path, format!("{}\n", std::process::id()))
            .map_err(|error| format!("cannot write pidfile {}: {error}", path.display()))?;
        Ok(Self(Some(path)))
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // A successor may have written its own.
            let pid = std::fs::read_to_string(path).unwrap_or_default();
            if pid.trim() == std::process::id().to_string() {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// Each client and each server needs a file descriptor: takes as many as the system allows, and says if those will not
/// do.
pub(super) fn raise_file_limit(settings: &Settings) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err() {
        tracing::warn!("cannot raise the limit of open files from {soft} to {hard}");
    }
    let needed = u64::from(settings.max_client_conn) + 100;
    if hard < needed {
        tracing::warn!(
            "max_client_conn = {} needs more than the {hard} open files allowed (ulimit -n)",
            settings.max_client_conn
        );
    }
}
