//! The few messages of RFC 4511 that a login needs, in BER.

/// Longest message that is accepted: what a directory has to say here is short.
pub const MAX_LEN: usize = 64 * 1024;

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const SEQUENCE: u8 = 0x30;

/// How much of the tree below the base is searched. The numbers are the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The base itself.
    Base = 0,
    /// What is directly below it.
    One = 1,
    /// Everything.
    Sub = 2,
}

/// A tag, the length and the content.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match content.len() {
        len @ 0..=0x7f => bytes.push(len as u8),
        len => {
            bytes.push(0x84);
            bytes.extend((len as u32).to_be_bytes());
        }
    }
    bytes.extend(content);
    bytes
}

fn integer(tag: u8, value: u8) -> Vec<u8> {
    element(tag, &[value])
}

/// A request around its operation. IDs are small numbers here.
fn message(id: u8, operation: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[&integer(INTEGER, id), operation].concat())
}

/// Asks to be known as `dn`, by its password. With neither the connection is anonymous.
pub fn bind(id: u8, dn: &str, password: &str) -> Vec<u8> {
    let content =
        [integer(INTEGER, 3), element(OCTET_STRING, dn.as_bytes()), element(0x80, password.as_bytes())];
    message(id, &element(0x60, &content.concat()))
}

/// Asks for the names of at most two entries, which is enough to know that there is one. `filter` is encoded.
pub fn search(id: u8, base: &str, scope: Scope, filter: &[u8]) -> Vec<u8> {
    let no_attributes = element(OCTET_STRING, b"1.1");
    let content = [
        element(OCTET_STRING, base.as_bytes()),
        integer(ENUMERATED, scope as u8),
        // Aliases stay what they are, at most two entries, no limit of time, values too.
        integer(ENUMERATED, 0),
        integer(INTEGER, 2),
        integer(INTEGER, 0),
        element(0x01, &[0]),
        filter.to_vec(),
        element(SEQUENCE, &no_attributes),
    ];
    message(id, &element(0x63, &content.concat()))
}

/// Asks for TLS on this connection (RFC 4511, 4.14).
pub fn start_tls(id: u8) -> Vec<u8> {
    message(id, &element(0x77, &element(0x80, b"1.3.6.1.4.1.1466.20037")))
}

/// Says goodbye; there is no reply.
pub fn unbind(id: u8) -> Vec<u8> {
    message(id, &element(0x42, &[]))
}

/// What a directory says.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// How a bind ended.
    Bound(Outcome),
    /// An entry was found.
    Entry {
        /// Its name.
        dn: String,
    },
    /// How a search ended.
    Searched(Outcome),
    /// Part of the tree is elsewhere.
    Reference,
    /// How an extended request ended, of which there is one ([`start_tls`]). Unasked for, it is the directory's goodbye.
    Extended(Outcome),
    /// Something that was not asked for.
    Other(Outcome),
}

/// How an operation ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// 0 is success.
    pub code: u32,
    /// What the directory has to say about it, often nothing.
    pub message: String,
}

impl Outcome {
    /// All went well.
    pub const SUCCESS: u32 = 0;
    /// There would have been more entries than asked for.
    pub const SIZE_LIMIT_EXCEEDED: u32 = 4;
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // OpenLDAP's words, which PgBouncer logs.
        let known = match self.code {
            0 => "Success",
            1 => "Operations error",
            2 => "Protocol error",
            3 => "Time limit exceeded",
            4 => "Size limit exceeded",
            8 => "Strong(er) authentication required",
            10 => "Referral",
            13 => "Confidentiality required",
            32 => "No such object",
            34 => "Invalid DN syntax",
            48 => "Inappropriate authentication",
            49 => "Invalid credentials",
            50 => "Insufficient access",
            51 => "Server is busy",
            52 => "Server is unavailable",
            53 => "Server is unwilling to perform",
            _ => "result code",
        };
        write!(f, "{known} ({})", self.code)?;
        match self.message.trim_matches('\0') {
            "" => Ok(()),
            message => write!(f, ": {}", message.escape_debug()),
        }
    }
}

/// Bytes that are no LDAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid LDAP message")]
pub struct Invalid;

/// How long the message is with which `bytes` begin; `None` if too little of it is there to know.
pub fn len(bytes: &[u8]) -> Result<Option<usize>, Invalid> {
    let Some((header, content)) = header(bytes)? else { return Ok(None) };
    let len = header.checked_add(content).filter(|len| *len <= MAX_LEN).ok_or(Invalid)?;
    if bytes[0] == SEQUENCE { Ok(Some(len)) } else { Err(Invalid) }
}

/// Reads a whole message: the ID of the request it answers, and what it says.
pub fn decode(bytes: &[u8]) -> Result<(u32, Reply), Invalid> {
    let (mut message, _) = Reader::open(bytes, SEQUENCE)?;
    let id = number(message.take(INTEGER)?)?;
    let tag = *message.0.first().ok_or(Invalid)?;
    let mut operation = Reader(message.take(tag)?);
    let reply = match tag {
        0x61 => Reply::Bound(operation.outcome()?),
        0x64 => Reply::Entry {
            dn: String::from_utf8(operation.take(OCTET_STRING)?.to_vec()).map_err(|_| Invalid)?,
        },
        0x65 => Reply::Searched(operation.outcome()?),
        0x73 => Reply::Reference,
        0x78 => Reply::Extended(operation.outcome()?),
        _ => Reply::Other(operation.outcome()?),
    };
    Ok((id, reply))
}

/// Length of the header (tag and length) and of the content.
fn header(bytes: &[u8]) -> Result<Option<(usize, usize)>, Invalid> {
    let [_, first, rest @ ..] = bytes else { return Ok(None) };
    match first {
        0..=0x7f => Ok(Some((2, usize::from(*first)))),
        0x81..=0x84 => {
            let count = usize::from(first & 0x7f);
            let length = rest.get(..count);
            Ok(length
                .map(|length| (2 + count, length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))))
        }
        _ => Err(Invalid),
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The content of the element with which `bytes` begin, and what follows it.
    fn open(bytes: &'a [u8], tag: u8) -> Result<(Self, &'a [u8]), Invalid> {
        let (start, len) = header(bytes)?.ok_or(Invalid)?;
        let end = start.checked_add(len).ok_or(Invalid)?;
        if bytes[0] != tag || bytes.len() < end {
            return Err(Invalid);
        }
        Ok((Self(&bytes[start..end]), &bytes[end..]))
    }

    fn take(&mut self, tag: u8) -> Result<&'a [u8], Invalid> {
        let (content, rest) = Self::open(self.0, tag)?;
        self.0 = rest;
        Ok(content.0)
    }

    fn outcome(&mut self) -> Result<Outcome, Invalid> {
        let code = number(self.take(ENUMERATED)?)?;
        self.take(OCTET_STRING)?;
        let message = String::from_utf8_lossy(self.take(OCTET_STRING)?).into_owned();
        Ok(Outcome { code, message })
    }
}

/// A number that is not negative.
fn number(content: &[u8]) -> Result<u32, Invalid> {
    if content.is_empty() || content.len() > 4 || content[0] > 0x7f {
        return Err(Invalid);
    }
    Ok(content.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
}
