//! Whether a server takes the value of a parameter that a client has chosen.

use super::Server;
use super::ask::{Budget, MAX_ANSWER};
use crate::error::{Refusal, sqlstate};
use crate::net::received::Received;
use crate::session::parameters::Parameters;
use crate::session::trials::Outcome;
use crate::wire::backend;

impl Server {
    /// Gives the parameter this value on a settled server, where it had that of `from`. A server that says no is as it was
    /// before. The error: it has gone, or makes no sense.
    pub async fn try_parameter(
        &mut self,
        from: &Parameters,
        name: &[u8],
        value: &[u8],
    ) -> Result<Outcome, String> {
        let mut message = Vec::new();
        from.write_trial(name, value, &mut message);
        self.stream.write_all(&message).await.map_err(|e| e.to_string())?;
        let (mut received, mut budget) = (Received::default(), Budget::new(MAX_ANSWER));
        let mut refused = None;
        loop {
            let tag = budget.next(&mut received, &mut self.stream, &mut message).await;
            let body = message.as_slice();
            match tag.map_err(|e| e.to_string())? {
                b'S' => self.session.report(body).map_err(|e| e.to_string())?,
                b'E' => {
                    let fields = backend::error_fields(body);
                    if fields.severity != b"ERROR" {
                        return Err(fields.text());
                    }
                    refused = Some(refusal(&fields));
                }
                b'Z' if body == b"I" && received.is_empty() => {
                    if let Some(refusal) = refused {
                        return Ok(Outcome::Refused(refusal));
                    }
                    self.session.note_set(name, value);
                    return Ok(Outcome::Taken);
                }
                b'C' | b'T' | b'D' | b'N' | b'A' => {}
                other => return Err(format!("unexpected message {:?} from server", char::from(other))),
            }
        }
    }
}

/// What the server has said, for the client.
fn refusal(fields: &backend::ErrorFields<'_>) -> Refusal {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let known = [
        sqlstate::INVALID_PARAMETER,
        sqlstate::NOT_SUPPORTED,
        sqlstate::INSUFFICIENT_PRIVILEGE,
        sqlstate::UNDEFINED_OBJECT,
        sqlstate::INVALID_CHARACTERS,
    ];
    let code = known.into_iter().find(|code| code.as_bytes() == fields.sqlstate);
    let mut refusal = Refusal::new(code.unwrap_or(sqlstate::INVALID_PARAMETER), text(fields.message));
    if !fields.detail.is_empty() {
        refusal = refusal.detail(text(fields.detail));
    }
    if !fields.hint.is_empty() {
        refusal = refusal.hint(text(fields.hint));
    }
    refusal.log(crate::error::shown(fields.message).into_owned())
}
