//! Messages as clients send them, for unit tests.

use super::tag::frontend;
use super::write;

/// Any message.
pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write::frame(&mut out, tag, |out| out.extend(body));
    out
}

/// Query.
pub(crate) fn query(sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write::query(&mut out, sql.as_bytes());
    out
}

/// Parse without parameter types.
pub(crate) fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(frontend::PARSE, format!("{name}\0{sql}\0\0\0").as_bytes())
}

/// Bind to the unnamed portal, without parameters.
pub(crate) fn bind(statement: &str) -> Vec<u8> {
    message(frontend::BIND, format!("\0{statement}\0\0\0\0\0\0\0").as_bytes())
}
