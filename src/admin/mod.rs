//! The console: the database `pgbouncer`, where SHOW tells what is going on and a few commands change it.
//!
//! `console` talks with the client, in the simple and the extended protocol (`extended`); `parse` reads a command,
//! `access` says who may use it, [`show`] answers SHOW, `command` does the rest, and `drivers` knows what drivers say
//! before they come to the point. [`http`] serves the same figures to Prometheus, and probes to Kubernetes.

mod access;
mod command;
mod console;
mod drivers;
mod extended;
pub mod http;
mod parse;
mod prometheus;
mod rows;
pub mod show;
mod table;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::error::Refusal;
use crate::proxy::login::ConsoleLogin;
use crate::proxy::shared::Shared;

/// Reads a query string as the console does, without running anything: how many commands it holds.
pub fn check(text: &str) -> Result<usize, Refusal> {
    let statements = parse::split(text);
    statements.iter().try_for_each(|statement| parse::parse(statement).map(drop))?;
    Ok(statements.len())
}

/// Serves a console session until it ends.
pub fn serve(shared: Arc<Shared>, login: ConsoleLogin) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(console::Console::new(shared, login).run())
}
