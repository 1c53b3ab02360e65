//! What the console gets from a login. It lives in a room above this one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::net::stream::Stream;
use crate::pool::limits::Permit;
use crate::proxy::client_handle::ClientHandle;
use crate::proxy::shared::Shared;

/// Runs a console session.
pub type ServeConsole = fn(Arc<Shared>, ConsoleLogin) -> Pin<Box<dyn Future<Output = ()>>>;

/// Somebody who may use the console.
pub struct ConsoleLogin {
    /// The connection.
    pub stream: Stream,
    /// What it has sent ahead.
    pub received: Vec<u8>,
    /// What others may know of it.
    pub info: Arc<ClientHandle>,
    /// Otherwise it may only look.
    pub is_admin: bool,
    /// What the login still has to send.
    pub greeting: Vec<u8>,
    /// What it counts against.
    pub permits: [Permit; 2],
}
