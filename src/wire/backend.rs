//! The backend messages that the proxy has to read.

use super::frame::cstr;
use super::startup::CancelKey;

/// The fields of an ErrorResponse or NoticeResponse that the log and the router look at. A hostile or broken
/// server may leave any of them out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// `V`, else `S`.
    pub severity: &'a [u8],
    /// `C`.
    pub sqlstate: &'a [u8],
    /// `M`.
    pub message: &'a [u8],
    /// `R`: the function of the server's that says it. In no language, unlike the message.
    pub routine: &'a [u8],
    /// `D`.
    pub detail: &'a [u8],
    /// `H`.
    pub hint: &'a [u8],
}

impl ErrorFields<'_> {
    /// `SEVERITY message`, as the log shows it.
    pub fn text(&self) -> String {
        format!("{} {}", String::from_utf8_lossy(self.severity), String::from_utf8_lossy(self.message))
    }
}

/// Reads an ErrorResponse or NoticeResponse body, or as much of it as there is.
pub fn error_fields(mut body: &[u8]) -> ErrorFields<'_> {
    let mut fields = ErrorFields::default();
    while let Some((&field, rest)) = body.split_first() {
        let Some((text, after)) = cstr(rest) else { break };
        match field {
            0 => break,
            b'V' => fields.severity = text,
            b'S' if fields.severity.is_empty() => fields.severity = text,
            b'C' => fields.sqlstate = text,
            b'M' => fields.message = text,
            b'R' => fields.routine = text,
            b'D' => fields.detail = text,
            b'H' => fields.hint = text,
            _ => {}
        }
        body = after;
    }
    fields
}

/// Reads a ParameterStatus body.
pub fn parameter_status(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = cstr(body)?;
    let (value, _) = cstr(rest)?;
    Some((name, value))
}

/// Reads a BackendKeyData body.
pub fn backend_key_data(body: &[u8]) -> Option<CancelKey> {
    let (pid, secret) = body.split_first_chunk::<4>()?;
    (4..=256)
        .contains(&secret.len())
        .then(|| CancelKey { pid: u32::from_be_bytes(*pid), secret: secret.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_fields_may_be_missing() {
        let fields = error_fields(b"SERREUR\0VERROR\0C42601\0Mbad\0\0");
        assert_eq!(fields.text(), "ERROR bad");
        assert_eq!(fields.sqlstate, b"42601");
        for body in [&b""[..], b"\0", b"M", b"Mx", b"C\0\0", b"\xff\xff"] {
            let _ = error_fields(body).text();
        }
    }

    #[test]
    fn key_data_has_bounds() {
        assert!(backend_key_data(b"\0\0\0\x01abcd").is_some());
        assert!(backend_key_data(b"\0\0\0\x01abc").is_none());
        assert!(backend_key_data(&[0; 300]).is_none());
    }
}
