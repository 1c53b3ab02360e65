//! Clusters, poolers and clients for the tests.

mod cluster;
pub(crate) mod ending;
pub(crate) mod pair;
mod pooler;
pub(crate) mod raw;
pub(crate) mod tls;

use std::future::Future;
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub(crate) use cluster::cluster;
pub(crate) use ending::{Ends, Running};
pub(crate) use pooler::{Pooler, exe};
pub(crate) use raw::Raw;

/// User and password of all tests; owner of the database `app`.
pub(crate) const USER: &str = "app";
pub(crate) const PASSWORD: &str = "app secret";

/// A port nobody listens on. Below the range that the kernel hands out by itself, so that it stays free.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = u16::try_from(std::process::id() % 100).unwrap() * 90;
    loop {
        let port = 20_000 + offset + NEXT.fetch_add(1, Ordering::Relaxed) % 3000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A command run as a user without privileges: PostgreSQL refuses to run as root, and so does the pooler.
pub(crate) fn unprivileged(program: &str) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let user = unprivileged_user();
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        &user.uid.to_string(),
        "--regid",
        &user.gid.to_string(),
        "--clear-groups",
        "--",
        program,
    ]);
    command
}

pub(crate) fn unprivileged_user() -> nix::unistd::User {
    let named = |name| nix::unistd::User::from_name(name).ok().flatten();
    named("postgres").or_else(|| named("nobody")).expect("a user without privileges")
}

/// Runs something asynchronous to its end, half a minute at most.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    run_for(Duration::from_secs(30), future)
}

/// Runs something asynchronous to its end, which comes within this time.
pub(crate) fn run_for<T>(limit: Duration, future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(limit, future).await.expect("hangs") })
}

/// Waits until `condition` holds, twenty seconds at most.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
