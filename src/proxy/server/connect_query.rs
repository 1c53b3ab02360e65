//! `connect_query`: what runs once on each connection, before any client has it.
//!
//! Whatever comes of it the connection is used, as in PgBouncer: an error is logged, rows and notices are of no interest.

use super::ask::{Budget, MAX_TABLE};
use super::connect_error::ConnectError;
use crate::net::received::Received;
use crate::net::stream::Stream;
use crate::proxy::server_handle::ServerHandle;
use crate::session::forward;
use crate::session::parameters::Parameters;
use crate::wire::{backend, write};

/// Runs it. Only a connection that breaks meanwhile, or says what makes no sense, is an error.
pub(super) async fn run(
    stream: &mut Stream,
    info: &ServerHandle,
    sql: &str,
    parameters: &mut Parameters,
) -> Result<(), ConnectError> {
    let mut message = Vec::new();
    write::query(&mut message, sql.as_bytes());
    stream.write_all(&message).await?;
    let (mut received, mut budget) = (Received::default(), Budget::new(MAX_TABLE));
    let mut is_rolled_back = false;
    loop {
        let tag = budget.next(&mut received, stream, &mut message).await?;
        let body = message.as_slice();
        match tag {
            b'E' => tracing::warn!("{info} connect_query failed: {}", backend::error_fields(body).text()),
            b'S' => forward::login_parameter(parameters, body)
                .map_err(|error| ConnectError::Unreachable(error.to_string()))?,
            // It asks for COPY data, of which there is none.
            b'G' => {
                message.clear();
                write::frame(&mut message, b'f', |body| {
                    body.extend_from_slice(b"no data for connect_query\0")
                });
                stream.write_all(&message).await?;
            }
            b'Z' if !received.is_empty() => {
                return Err(ConnectError::Unreachable("unexpected message after connect_query".into()));
            }
            b'Z' if body == b"I" => return Ok(()),
            b'Z' if !is_rolled_back => {
                tracing::warn!("{info} connect_query leaves a transaction open, which is rolled back");
                is_rolled_back = true;
                message.clear();
                write::query(&mut message, b"ROLLBACK");
                stream.write_all(&message).await?;
            }
            b'Z' => return Err(ConnectError::Unreachable("connect_query leaves a transaction open".into())),
            _ => {}
        }
    }
}
