//! What a client may read when something goes wrong, and whose fault it was.

use std::borrow::Cow;
use std::fmt;

/// SQLSTATE codes the proxy itself uses (PostgreSQL documentation, appendix A).
pub mod sqlstate {
    /// `protocol_violation`: PgBouncer's code for most of its own errors.
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    /// `sqlclient_unable_to_establish_sqlconnection`.
    pub const CANNOT_CONNECT: &str = "08001";
    /// `connection_failure`: the server connection broke.
    pub const CONNECTION_FAILURE: &str = "08006";
    /// `invalid_password`.
    pub const INVALID_PASSWORD: &str = "28P01";
    /// `invalid_authorization_specification`.
    pub const INVALID_AUTHORIZATION: &str = "28000";
    /// `invalid_catalog_name`: no such database.
    pub const UNKNOWN_DATABASE: &str = "3D000";
    /// `too_many_connections`.
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    /// `admin_shutdown`.
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    /// `cannot_connect_now`.
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
    /// `query_canceled`: a time limit was reached.
    pub const QUERY_CANCELED: &str = "57014";
    /// `idle_session_timeout`.
    pub const IDLE_SESSION: &str = "57P05";
    /// `feature_not_supported`.
    pub const NOT_SUPPORTED: &str = "0A000";
    /// `invalid_parameter_value`.
    pub const INVALID_PARAMETER: &str = "22023";
    /// `character_not_in_repertoire`.
    pub const INVALID_CHARACTERS: &str = "22021";
    /// `undefined_object`.
    pub const UNDEFINED_OBJECT: &str = "42704";
    /// `syntax_error`.
    pub const SYNTAX_ERROR: &str = "42601";
    /// `insufficient_privilege`.
    pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
    /// `duplicate_prepared_statement`.
    pub const DUPLICATE_STATEMENT: &str = "42P05";
    /// `duplicate_cursor`: a portal of that name exists.
    pub const DUPLICATE_PORTAL: &str = "42P03";
    /// `invalid_cursor_name`: no such portal.
    pub const UNKNOWN_PORTAL: &str = "34000";
    /// `program_limit_exceeded`.
    pub const TOO_COMPLEX: &str = "54000";
    /// `object_not_in_prerequisite_state`.
    pub const WRONG_STATE: &str = "55000";
    /// `invalid_sql_statement_name`: no such prepared statement.
    pub const UNKNOWN_STATEMENT: &str = "26000";
    /// `config_file_error`: RELOAD failed.
    pub const CONFIG_FILE_ERROR: &str = "F0000";
}

/// Longest text of somebody else's that a message or a log line shows.
const SHOWN: usize = 100;

/// What a message or a log line shows of a text that a client has sent: the beginning, if it is long.
pub fn shown(text: &[u8]) -> Cow<'_, str> {
    if text.len() <= SHOWN {
        return String::from_utf8_lossy(text);
    }
    // Not in the middle of a character.
    let end = (SHOWN - 3..=SHOWN).rev().find(|&end| text[end] & 0xc0 != 0x80).unwrap_or(SHOWN);
    format!("{}…", String::from_utf8_lossy(&text[..end])).into()
}

/// An error the proxy reports to a client in an ErrorResponse.
///
/// Everything in it is meant for the client's eyes; details for the operator go to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Field `C`.
    pub sqlstate: &'static str,
    /// Field `M`. Also what the log says after `closing because:`, unless `log` is set.
    pub message: Cow<'static, str>,
    /// Field `D`.
    pub detail: Option<Cow<'static, str>>,
    /// Field `H`.
    pub hint: Option<Cow<'static, str>>,
    /// What the log says instead of the message: PgBouncer's words, which log parsers rely on.
    pub log: Option<Cow<'static, str>>,
}

impl Refusal {
    /// An error with a code and a message.
    pub fn new(sqlstate: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { sqlstate, message: message.into(), detail: None, hint: None, log: None }
    }

    /// PgBouncer's general error, SQLSTATE 08P01.
    pub fn protocol(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(sqlstate::PROTOCOL_VIOLATION, message)
    }

    /// Adds field `D`.
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds field `H`.
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets what the log says.
    pub fn log(mut self, log: impl Into<Cow<'static, str>>) -> Self {
        self.log = Some(log.into());
        self
    }

    /// The reason as the log gives it.
    pub fn reason(&self) -> &str {
        self.log.as_deref().unwrap_or(&self.message)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_shortened() {
        assert_eq!(shown(b"short"), "short");
        assert_eq!(shown(&[b'x'; 100]).len(), 100);
        assert_eq!(shown(&[b'x'; 101]), format!("{}…", "x".repeat(100)));
        assert_eq!(shown("é".repeat(5000).as_bytes()), format!("{}…", "é".repeat(50)));
        assert_eq!(shown(format!("x{}", "é".repeat(5000)).as_bytes()), format!("x{}…", "é".repeat(49)));
        assert!(shown(&[0xff; 9000]).len() < 400 && shown(&[0x80; 9000]).len() < 400);
    }
}
