//! The first packet of a connection: it has a length but no tag.

use std::ops::Range;

use super::frame::cstr;

/// Protocol 3.0, as all drivers speak it.
pub const PROTOCOL_3_0: u32 = 3 << 16;
/// Protocol 3.2 (PostgreSQL 18): cancel keys of up to 256 bytes.
pub const PROTOCOL_3_2: u32 = 3 << 16 | 2;
const CANCEL_REQUEST: u32 = 1234 << 16 | 5678;
pub(crate) const SSL_REQUEST: u32 = 1234 << 16 | 5679;
const GSSENC_REQUEST: u32 = 1234 << 16 | 5680;
/// What names of protocol options begin with.
const PROTOCOL_OPTION: &[u8] = b"_pq_.";

/// Longest startup packet taken, as in PostgreSQL (`MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_LENGTH: usize = 10_000;
/// Longest secret in a cancel key (protocol 3.2).
const MAX_CANCEL_KEY: usize = 256;

/// What a client may say first.
#[derive(Debug, PartialEq, Eq)]
pub enum Startup {
    /// Asks for TLS; answered with one byte.
    Ssl,
    /// Asks for GSSAPI encryption; answered with one byte.
    GssEnc,
    /// Asks to cancel another connection's query.
    Cancel(CancelKey),
    /// Opens a session.
    Session(Session),
}

/// Identifies a connection to whoever wants to cancel its query.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelKey {
    /// The `process ID` field.
    pub pid: u32,
    /// Four bytes in protocol 3.0, up to 256 in 3.2.
    pub secret: Box<[u8]>,
}

/// How often a request may be passed on from peer to peer: the last two bits of the eighth byte, as in PgBouncer.
const TTL: u8 = 3;

impl CancelKey {
    /// A key of random bytes. `peer` is the number of this process among its peers, 0 if it has none: as in PgBouncer,
    /// the second and third byte carry it, for whichever peer the request comes to.
    pub fn new(pid: [u8; 4], mut secret: Box<[u8]>, peer: u16) -> Self {
        let mut pid = [pid[0] & 0x7f, pid[1], pid[2], pid[3]];
        if peer > 0 {
            pid[1..3].copy_from_slice(&peer.to_le_bytes());
            secret[3] |= TTL;
        }
        Self { pid: u32::from_be_bytes(pid), secret }
    }

    /// The first eight bytes, but for those bits that change on the way from peer to peer.
    pub fn id(&self) -> u64 {
        let secret = self.secret.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        u64::from(self.pid) << 32 | u64::from(secret | u32::from(TTL))
    }

    /// The process that has made the key, if it has peers.
    pub fn peer(&self) -> u16 {
        let pid = self.pid.to_be_bytes();
        u16::from_le_bytes([pid[1], pid[2]])
    }

    /// The key for the next peer; `None` if it has been passed on too often.
    pub fn passed_on(&self) -> Option<Self> {
        let mut next = self.clone();
        let byte = next.secret.get_mut(3).filter(|byte| **byte & TTL > 0)?;
        *byte -= 1;
        Some(next)
    }

    /// The key as it was made by a process that has peers, however often it was passed on.
    pub fn original(&self) -> Self {
        let mut original = self.clone();
        if let Some(byte) = original.secret.get_mut(3) {
            *byte |= TTL;
        }
        original
    }
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CancelKey {{ pid: {}, .. }}", self.pid)
    }
}

/// Name and value of a run-time parameter.
pub type Parameter = (Box<[u8]>, Box<[u8]>);

/// A StartupMessage.
#[derive(Debug, PartialEq, Eq)]
pub struct Session {
    /// Requested protocol version; the major part is 3.
    pub protocol: u32,
    /// Names and values as they have come.
    text: Box<[u8]>,
    /// Where in `text` each name and its value lie.
    pairs: Vec<[Range<usize>; 2]>,
}

impl Session {
    /// Name and value of each parameter, in the client's order, `_pq_.` options not among them.
    pub fn parameters(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
        self.all().filter(|(name, _)| !name.starts_with(PROTOCOL_OPTION))
    }

    /// Names of protocol options (`_pq_.…`), none of which is supported.
    pub fn options(&self) -> impl Iterator<Item = &[u8]> {
        self.all().map(|(name, _)| name).filter(|name| name.starts_with(PROTOCOL_OPTION))
    }

    /// The last value given for a parameter.
    pub fn parameter(&self, name: &str) -> Option<&[u8]> {
        self.parameters().rfind(|(n, _)| *n == name.as_bytes()).map(|(_, value)| value)
    }

    fn all(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
        self.pairs.iter().map(|[name, value]| (&self.text[name.clone()], &self.text[value.clone()]))
    }
}

/// Why a first packet was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// Too short, too long, or not of the form the protocol asks for. Whoever sends this does not speak the
    /// protocol, so it gets no answer.
    #[error("bad startup packet")]
    Malformed,
    /// A protocol this proxy does not speak.
    #[error("unsupported frontend protocol {}.{}", .0 >> 16, .0 & 0xffff)]
    Version(u32),
}

/// Checks the length word in front of a startup packet and gives the length of what follows it.
pub fn body_length(word: [u8; 4]) -> Result<usize, StartupError> {
    let len = u32::from_be_bytes(word) as usize;
    if !(8..=MAX_LENGTH).contains(&len) {
        return Err(StartupError::Malformed);
    }
    Ok(len - 4)
}

/// Parses a startup packet without its length word.
pub fn parse(body: &[u8]) -> Result<Startup, StartupError> {
    let (code, rest) = body.split_first_chunk::<4>().ok_or(StartupError::Malformed)?;
    match u32::from_be_bytes(*code) {
        SSL_REQUEST if rest.is_empty() => Ok(Startup::Ssl),
        GSSENC_REQUEST if rest.is_empty() => Ok(Startup::GssEnc),
        CANCEL_REQUEST => {
            let (pid, secret) = rest.split_first_chunk::<4>().ok_or(StartupError::Malformed)?;
            if secret.len() < 4 || secret.len() > MAX_CANCEL_KEY {
                return Err(StartupError::Malformed);
            }
            Ok(Startup::Cancel(CancelKey { pid: u32::from_be_bytes(*pid), secret: secret.into() }))
        }
        protocol if protocol >> 16 == 3 => session(protocol, rest).map(Startup::Session),
        other => Err(StartupError::Version(other)),
    }
}

fn session(protocol: u32, text: &[u8]) -> Result<Session, StartupError> {
    let mut pairs = Vec::new();
    let mut at = 0;
    let mut string = || {
        let (string, _) = cstr(&text[at..]).ok_or(StartupError::Malformed)?;
        let range = at..at + string.len();
        at = range.end + 1;
        Ok(range)
    };
    loop {
        let name = string()?;
        if name.is_empty() {
            let is_last = name.end + 1 == text.len();
            let session = Session { protocol, text: text.into(), pairs };
            return if is_last { Ok(session) } else { Err(StartupError::Malformed) };
        }
        pairs.push([name, string()?]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_without_a_session() {
        assert_eq!(parse(&SSL_REQUEST.to_be_bytes()), Ok(Startup::Ssl));
        assert_eq!(parse(&GSSENC_REQUEST.to_be_bytes()), Ok(Startup::GssEnc));
        let mut cancel = CANCEL_REQUEST.to_be_bytes().to_vec();
        assert_eq!(parse(&cancel), Err(StartupError::Malformed));
        cancel.extend([0, 0, 0, 7, 1, 2, 3, 4]);
        let key = CancelKey { pid: 7, secret: [1, 2, 3, 4].into() };
        assert_eq!(parse(&cancel), Ok(Startup::Cancel(key)));
        cancel.extend([0; 300]);
        assert_eq!(parse(&cancel), Err(StartupError::Malformed));
    }

    #[test]
    fn keys_name_their_peer_as_pgbouncer_does() {
        let key = CancelKey::new([0xff; 4], [0xf0; 4].into(), 0x0102);
        assert_eq!(
            (key.pid.to_be_bytes(), &*key.secret),
            ([0x7f, 2, 1, 0xff], &[0xf0, 0xf0, 0xf0, 0xf3][..])
        );
        assert_eq!(key.peer(), 0x0102);
        let passed_on = |key: &CancelKey| key.passed_on();
        let last = passed_on(&key).as_ref().and_then(passed_on).as_ref().and_then(passed_on).unwrap();
        assert_eq!(last.passed_on(), None);
        assert_eq!((last.id(), last.original()), (key.id(), key.clone()));
        let other = CancelKey::new([0xff; 4], [0xf0; 4].into(), 0);
        assert_eq!((other.pid, &*other.secret), (0x7fff_ffff, &[0xf0; 4][..]));
    }

    #[test]
    fn a_session() {
        let mut packet = PROTOCOL_3_2.to_be_bytes().to_vec();
        packet.extend(b"user\0me\0_pq_.x\0on\0database\0db\0\0");
        let Ok(Startup::Session(session)) = parse(&packet) else { panic!("no session") };
        assert_eq!(session.protocol, PROTOCOL_3_2);
        assert_eq!(session.parameter("user"), Some(&b"me"[..]));
        assert_eq!(session.parameter("database"), Some(&b"db"[..]));
        assert_eq!(
            session.parameters().map(|(name, _)| name).collect::<Vec<_>>(),
            [b"user", &b"database"[..]]
        );
        assert_eq!(session.options().collect::<Vec<_>>(), [b"_pq_.x"]);
        for end in 0..packet.len() {
            assert!(parse(&packet[..end]).is_err(), "cut at {end}");
        }
        packet.push(0);
        assert_eq!(parse(&packet), Err(StartupError::Malformed));
    }

    #[test]
    fn other_protocols() {
        assert_eq!(parse(&(2u32 << 16).to_be_bytes()), Err(StartupError::Version(2 << 16)));
        assert_eq!(body_length([0, 0, 0, 7]), Err(StartupError::Malformed));
        assert_eq!(body_length(*b"GET "), Err(StartupError::Malformed));
        assert_eq!(body_length([0, 0, 0, 8]), Ok(4));
    }
}
