//! Builders for the messages the proxy itself sends. Cold path: they append to a `Vec`.

use super::startup::CancelKey;
use super::tag::{backend, frontend};
use crate::error::Refusal;

/// Appends one frame; `body` writes what follows the header.
pub fn frame(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    counted(out, body);
}

/// Appends a 32-bit length that counts itself, and what `body` writes.
fn counted(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([0; 4]);
    body(out);
    let len = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

/// Appends a string and its NUL. A NUL inside the string would end it early and shift all that follows, so the
/// string is cut there.
pub fn cstr(out: &mut Vec<u8>, text: &[u8]) {
    let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
    out.extend(&text[..end]);
    out.push(0);
}

/// StartupMessage of protocol 3.0.
pub fn startup<'a>(out: &mut Vec<u8>, parameters: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) {
    counted(out, |out| {
        out.extend(super::startup::PROTOCOL_3_0.to_be_bytes());
        for (name, value) in parameters {
            cstr(out, name);
            cstr(out, value);
        }
        out.push(0);
    });
}

/// CancelRequest.
pub fn cancel_request(out: &mut Vec<u8>, key: &CancelKey) {
    counted(out, |out| {
        out.extend((1234u32 << 16 | 5678).to_be_bytes());
        out.extend(key.pid.to_be_bytes());
        out.extend(&*key.secret);
    });
}

/// Simple query.
pub fn query(out: &mut Vec<u8>, sql: &[u8]) {
    frame(out, frontend::QUERY, |out| cstr(out, sql));
}

/// A query with one parameter, in text form, by the extended protocol: Parse, Bind, Execute, Sync.
pub fn query_with_parameter(out: &mut Vec<u8>, sql: &[u8], parameter: &[u8]) {
    frame(out, frontend::PARSE, |out| {
        cstr(out, b"");
        cstr(out, sql);
        out.extend([0; 2]);
    });
    frame(out, frontend::BIND, |out| {
        // Unnamed portal and statement, no formats, one parameter, no formats for results.
        out.extend([0, 0, 0, 0, 0, 1]);
        out.extend((parameter.len() as u32).to_be_bytes());
        out.extend_from_slice(parameter);
        out.extend([0; 2]);
    });
    frame(out, frontend::EXECUTE, |out| out.extend([0; 5]));
    frame(out, frontend::SYNC, |_| {});
}

/// Parse from a statement's text and parameter types as they stood in the client's own Parse.
pub fn parse(out: &mut Vec<u8>, name: &[u8], text_and_types: &[u8]) {
    frame(out, frontend::PARSE, |out| {
        cstr(out, name);
        out.extend_from_slice(text_and_types);
    });
}

/// The beginning of a Parse whose text and types, of this length, come behind it.
pub fn parse_without_text(out: &mut Vec<u8>, name: &[u8], len: usize) {
    out.push(frontend::PARSE);
    out.extend(u32::try_from(4 + name.len() + 1 + len).unwrap_or(u32::MAX).to_be_bytes());
    cstr(out, name);
}

/// Close of a prepared statement.
pub fn close_statement(out: &mut Vec<u8>, name: &[u8]) {
    frame(out, frontend::CLOSE, |out| {
        out.push(b'S');
        cstr(out, name);
    });
}

/// Describe of a prepared statement.
pub fn describe_statement(out: &mut Vec<u8>, name: &[u8]) {
    frame(out, frontend::DESCRIBE, |out| {
        out.push(b'S');
        cstr(out, name);
    });
}

/// A password or SASL response (`p`).
pub fn password(out: &mut Vec<u8>, body: &[u8]) {
    frame(out, frontend::PASSWORD, |out| out.extend(body));
}

/// An authentication request (`R`).
pub fn authentication(out: &mut Vec<u8>, code: u32, body: &[u8]) {
    frame(out, backend::AUTHENTICATION, |out| {
        out.extend(code.to_be_bytes());
        out.extend(body);
    });
}

/// ParameterStatus.
pub fn parameter_status(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    frame(out, backend::PARAMETER_STATUS, |out| {
        cstr(out, name);
        cstr(out, value);
    });
}

/// BackendKeyData.
pub fn backend_key_data(out: &mut Vec<u8>, key: &CancelKey) {
    frame(out, backend::BACKEND_KEY_DATA, |out| {
        out.extend(key.pid.to_be_bytes());
        out.extend(&*key.secret);
    });
}

/// NegotiateProtocolVersion: the newest minor version spoken here and the options not known.
pub fn negotiate_protocol_version(out: &mut Vec<u8>, newest: u32, options: &[&[u8]]) {
    frame(out, backend::NEGOTIATE_PROTOCOL_VERSION, |out| {
        out.extend(newest.to_be_bytes());
        out.extend(u32::try_from(options.len()).unwrap_or(0).to_be_bytes());
        for option in options {
            cstr(out, option);
        }
    });
}

/// ReadyForQuery.
pub fn ready_for_query(out: &mut Vec<u8>, status: u8) {
    frame(out, backend::READY_FOR_QUERY, |out| out.push(status));
}

/// ErrorResponse with severity FATAL: the connection is closed after it.
pub fn fatal(out: &mut Vec<u8>, refusal: &Refusal) {
    error_response(out, "FATAL", refusal);
}

/// ErrorResponse with severity ERROR: the connection goes on.
pub fn error(out: &mut Vec<u8>, refusal: &Refusal) {
    error_response(out, "ERROR", refusal);
}

fn error_response(out: &mut Vec<u8>, severity: &str, refusal: &Refusal) {
    frame(out, backend::ERROR_RESPONSE, |out| {
        fields(out, severity, refusal.sqlstate, &refusal.message);
        for (field, text) in [(b'D', &refusal.detail), (b'H', &refusal.hint)] {
            if let Some(text) = text {
                out.push(field);
                cstr(out, text.as_bytes());
            }
        }
        out.push(0);
    });
}

/// NoticeResponse of severity NOTICE.
pub fn notice(out: &mut Vec<u8>, message: &str) {
    notice_with_detail(out, message, None);
}

/// … with field `D`.
pub fn notice_with_detail(out: &mut Vec<u8>, message: &str, detail: Option<&str>) {
    frame(out, backend::NOTICE_RESPONSE, |out| {
        fields(out, "NOTICE", "00000", message);
        if let Some(detail) = detail {
            out.push(b'D');
            cstr(out, detail.as_bytes());
        }
        out.push(0);
    });
}

fn fields(out: &mut Vec<u8>, severity: &str, sqlstate: &str, message: &str) {
    for (field, text) in [(b'S', severity), (b'V', severity), (b'C', sqlstate), (b'M', message)] {
        out.push(field);
        cstr(out, text.as_bytes());
    }
}

/// CommandComplete.
pub fn command_complete(out: &mut Vec<u8>, command: &str) {
    frame(out, backend::COMMAND_COMPLETE, |out| cstr(out, command.as_bytes()));
}

/// A column of a RowDescription: its name and its type's OID and size (`pg_type`).
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Name shown as the heading.
    pub name: &'static str,
    /// Type's OID.
    pub oid: u32,
    /// Type's length, -1 when it varies.
    pub size: i16,
}

/// ParameterDescription of a statement without parameters.
pub fn no_parameters(out: &mut Vec<u8>) {
    frame(out, backend::PARAMETER_DESCRIPTION, |out| out.extend([0; 2]));
}

/// RowDescription; columns whose values come in binary form are marked so.
pub fn row_description(out: &mut Vec<u8>, columns: &[Column], is_binary: impl Fn(usize) -> bool) {
    frame(out, backend::ROW_DESCRIPTION, |out| {
        out.extend(u16::try_from(columns.len()).unwrap_or(0).to_be_bytes());
        for (n, column) in columns.iter().enumerate() {
            cstr(out, column.name.as_bytes());
            out.extend([0; 6]);
            out.extend(column.oid.to_be_bytes());
            out.extend(column.size.to_be_bytes());
            out.extend((-1i32).to_be_bytes());
            out.extend(u16::from(is_binary(n)).to_be_bytes());
        }
    });
}

/// DataRow; `None` is NULL.
pub fn data_row(out: &mut Vec<u8>, values: &[Option<impl AsRef<[u8]>>]) {
    frame(out, backend::DATA_ROW, |out| {
        out.extend(u16::try_from(values.len()).unwrap_or(0).to_be_bytes());
        for value in values {
            match value {
                None => out.extend((-1i32).to_be_bytes()),
                Some(value) => {
                    let value = value.as_ref();
                    out.extend(u32::try_from(value.len()).unwrap_or(0).to_be_bytes());
                    out.extend(value);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::peek;

    #[test]
    fn frames_have_their_length() {
        let mut out = Vec::new();
        ready_for_query(&mut out, b'I');
        assert_eq!(out, b"Z\0\0\0\x05I");
        out.clear();
        query(&mut out, b"select\0 1");
        assert_eq!(out, b"Q\0\0\0\x0bselect\0");
    }

    #[test]
    fn errors_carry_all_fields() {
        let mut out = Vec::new();
        fatal(&mut out, &Refusal::new("08P01", "m").detail("d").hint("h"));
        let frame = peek(&out).unwrap().unwrap();
        assert!(frame.is_complete());
        assert_eq!(frame.body, b"SFATAL\0VFATAL\0C08P01\0Mm\0Dd\0Hh\0\0");
    }

    #[test]
    fn a_second_opinion_reads_our_messages() {
        use postgres_protocol::message::backend::Message;
        let mut out = Vec::new();
        let columns = [Column { name: "a", oid: 25, size: -1 }, Column { name: "b", oid: 20, size: 8 }];
        row_description(&mut out, &columns, |_| false);
        data_row(&mut out, &[Some("x"), None]);
        command_complete(&mut out, "SHOW");
        parameter_status(&mut out, b"TimeZone", b"UTC");
        let mut buf = postgres_protocol_bytes(&out);
        assert!(matches!(Message::parse(&mut buf), Ok(Some(Message::RowDescription(_)))));
        assert!(matches!(Message::parse(&mut buf), Ok(Some(Message::DataRow(_)))));
        assert!(matches!(Message::parse(&mut buf), Ok(Some(Message::CommandComplete(_)))));
        assert!(matches!(Message::parse(&mut buf), Ok(Some(Message::ParameterStatus(_)))));
        assert!(buf.is_empty());
    }

    fn postgres_protocol_bytes(bytes: &[u8]) -> bytes::BytesMut {
        bytes::BytesMut::from(bytes)
    }
}
