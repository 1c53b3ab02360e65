//! The two walks that every byte of a session takes: from client to server and back, in pieces as they happen to come.

use pgweir::error::Refusal;
use pgweir::session::forward::{self, ClientSession, Context, ServerFault, ServerSession, Stop};
use pgweir::session::output::Output;
use pgweir::session::parameters::Parameters;
use pgweir::session::prepared::Registry;
use pgweir::wire::frame::{HEADER, peek};

use super::bytes::{Bytes, messages, pieces};

/// Longest beginning of a frame that waits for its end here; inputs are shorter.
const MAX_CARRY: usize = 64 * 1024 + HEADER;

/// A client and a server with nothing between them but the walks.
pub(super) struct Link {
    registry: Registry,
    pub(super) client: ClientSession,
    pub(super) server: ServerSession,
    pub(super) max_prepared: usize,
    pub(super) exclusive: bool,
    pub(super) one_at_a_time: bool,
    pub(super) refuse_simple: bool,
    from_client: Vec<u8>,
    from_server: Vec<u8>,
    pub(super) to_server: Vec<u8>,
    pub(super) to_client: Vec<u8>,
    /// So many replies were owed that no more was sent for a while. When that is depends on how much comes at once, for the
    /// proxy's own replies count until they are given.
    was_full: bool,
}

impl Link {
    pub(super) fn new() -> Self {
        let mut server = ServerSession::default();
        server.attach(&ClientSession::default(), false);
        Self {
            registry: Registry::default(),
            client: ClientSession::default(),
            server,
            max_prepared: 2,
            exclusive: false,
            one_at_a_time: false,
            refuse_simple: false,
            from_client: Vec::new(),
            from_server: Vec::new(),
            to_server: Vec::new(),
            to_client: Vec::new(),
            was_full: false,
        }
    }

    pub(super) fn client_sends(&mut self, bytes: &[u8]) -> Result<Stop, Refusal> {
        self.from_client.extend_from_slice(bytes);
        let context = Context {
            registry: &self.registry,
            max_prepared: self.max_prepared,
            exclusive: self.exclusive,
            one_at_a_time: self.one_at_a_time,
            refuse_simple: self.refuse_simple,
        };
        let mut scratch = Vec::new();
        let mut out = Output::new(&self.from_client, &mut scratch);
        let walked = forward::client_to_server(
            &self.from_client,
            &mut self.client,
            &mut self.server,
            &context,
            &mut out,
        );
        self.to_server.extend_from_slice(out.bytes());
        let sent = walked?;
        assert!(sent.consumed <= self.from_client.len());
        self.from_client.drain(..sent.consumed);
        self.was_full |= self.server.pipeline.is_full();
        let mut fakes = Output::new(&[], &mut scratch);
        forward::fake_replies_due(&mut self.server, &mut self.client, &mut fakes);
        self.to_client.extend_from_slice(fakes.bytes());
        Ok(sent.stop)
    }

    pub(super) fn server_sends(&mut self, bytes: &[u8]) -> Result<(), ServerFault> {
        self.from_server.extend_from_slice(bytes);
        let mut scratch = Vec::new();
        let mut out = Output::new(&self.from_server, &mut scratch);
        let walked =
            forward::server_to_client(&self.from_server, &mut self.server, &mut self.client, &mut out);
        self.to_client.extend_from_slice(out.bytes());
        let received = walked?;
        assert!(received.consumed <= self.from_server.len());
        assert!(received.transactions <= received.queries);
        self.from_server.drain(..received.consumed);
        // What is kept back is the beginning of one frame that has to be read whole.
        assert!(self.from_server.len() < MAX_CARRY);
        if let Ok(Some(frame)) = peek(&self.from_server) {
            assert!(!frame.is_complete());
        }
        Ok(())
    }

    /// The client leaves its server for another one, which knows nothing of it.
    pub(super) fn change_server(&mut self) {
        self.server.detach(&mut self.client);
        self.server = ServerSession::new(Parameters::clone(&self.server.parameters));
        self.server.attach(&self.client, false);
    }

    /// Whether nothing lies around half dealt with.
    pub(super) fn is_quiet(&self) -> bool {
        self.from_client.is_empty() && self.from_server.is_empty() && !self.client.is_mid_frame()
    }

    /// All that can be seen of where the two stand.
    fn state(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let pipeline = &self.server.pipeline;
        (
            (pipeline.is_settled(), pipeline.is_tainted(), pipeline.is_empty(), pipeline.is_skipping()),
            (pipeline.status(), pipeline.ends_batch(), pipeline.only_ours()),
            (self.client.statements.len(), self.server.statements.len(), self.server.is_settled()),
            (self.client.is_mid_frame(), self.from_client.clone(), self.from_server.clone()),
            (self.to_client.clone(), self.to_server.clone(), self.server.parameters.clone()),
        )
    }
}

/// Frames one after the other; the last one may not be complete.
fn is_stream(mut bytes: &[u8]) -> bool {
    while let Ok(Some(frame)) = peek(bytes) {
        bytes = &bytes[frame.available()..];
    }
    bytes.len() < HEADER
}

/// Whatever a client says, in whatever pieces.
pub(super) fn frontend(input: &[u8]) {
    let mut bytes = Bytes(input);
    let (choice, seed) = (bytes.choice(), bytes.number());
    let run = |all: &[&[u8]]| {
        let mut link = Link::new();
        link.max_prepared = [0, 1, 2, 100][usize::from(choice & 3)];
        link.exclusive = choice & 4 > 0;
        link.one_at_a_time = choice & 8 > 0;
        link.refuse_simple = choice & 48 == 48;
        let mut stop = Stop::More;
        for piece in all {
            if stop == Stop::Hold {
                // It is shown again when the server says something, which it does not do here.
                link.from_client.extend_from_slice(piece);
                continue;
            }
            stop = match link.client_sends(piece) {
                // Nothing more is looked at, however much of it has come.
                Ok(Stop::Terminate) => return (Ok(Stop::Terminate), link),
                Ok(stop) => stop,
                Err(refusal) => return (Err((refusal.sqlstate, refusal.message)), link),
            }
        }
        (Ok(stop), link)
    };
    let (whole, mut link) = run(&[bytes.0]);
    let (split, mut cut) = run(&pieces(bytes.0, seed));
    assert!(is_stream(&link.to_server) && is_stream(&link.to_client));
    assert!(link.server.statements.len() <= link.max_prepared.max(1));
    idle_client(bytes.0, seed);
    if link.was_full {
        return;
    }
    assert_eq!(whole, split);
    // Refused, the client is gone, and with it what was to be sent.
    if let Ok(stop) = whole {
        if stop == Stop::Terminate {
            link.from_client.clear();
            cut.from_client.clear();
        }
        assert_eq!(link.state(), cut.state());
    }
}

/// The same while it has no server.
fn idle_client(input: &[u8], seed: u16) {
    let run = |all: &[&[u8]]| {
        let (mut client, mut carry, mut skipped) = (ClientSession::default(), Vec::new(), 0);
        for piece in all {
            carry.extend_from_slice(piece);
            match client.skip_idle(&carry, seed & 1 > 0) {
                Err(refusal) => return Err(refusal.message),
                Ok((n, next)) => {
                    assert!(n <= carry.len());
                    skipped += n;
                    carry.drain(..n);
                    if next.is_some() {
                        return Ok((skipped, next));
                    }
                }
            }
        }
        Ok((skipped, None))
    };
    assert_eq!(run(&[input]), run(&pieces(input, seed)));
    assert!(forward::batch_len(input).is_none_or(|len| len <= input.len()));
}

pub(super) fn frontend_seeds() -> Vec<Vec<u8>> {
    let big = vec![b'x'; 90];
    let stream = messages(&[
        (b'Q', b"begin\0"),
        (b'P', b"a\0select 1\0\0\0"),
        (b'B', &[&b"\0a\0"[..], &big].concat()),
        (b'E', b"\0\0\0\0\0"),
        (b'P', b"\0select 2\0\0\0"),
        (b'B', b"\0\0xyz"),
        (b'P', b"b\0select 3\0\0\0"),
        (b'P', b"c\0select 4\0\0\0"),
        (b'D', b"Sa\0"),
        (b'D', b"P\0"),
        (b'C', b"Sa\0"),
        (b'H', b""),
        (b'S', b""),
        (b'Q', b"copy t from stdin\0"),
        (b'd', &big),
        (b'c', b""),
        (b'F', b"\0\0\0\x01\0\0\0\0\0\0"),
        (b'X', b""),
    ]);
    // The end of a COPY that never was, between replies that the proxy gives itself.
    let stray = messages(&[(b'C', b"Sa\0"), (b'c', b""), (b'C', b"Sa\0"), (b'S', b"")]);
    let mut seeds: Vec<_> = (0..16).map(|choice| [&[choice, 0, choice][..], &stream].concat()).collect();
    seeds.push([&[2, 0, 0][..], &stray].concat());
    let long = [&messages(&[(b'P', b"a\0select 1\0\0\0")])[..], b"B\x7f\xff\xff\xff\0a\0"].concat();
    seeds.push([&[3, 0, 7][..], &long].concat());
    seeds
}

/// Whatever a server says, in whatever pieces, to a client that has asked for something.
pub(super) fn backend(input: &[u8]) {
    let mut bytes = Bytes(input);
    let (choice, seed) = (bytes.choice(), bytes.number());
    let run = |all: &[&[u8]]| {
        let mut link = Link::new();
        if choice & 8 > 0 {
            let mut ours = Vec::new();
            link.server.ask(b"SET x='y';", &mut ours);
        }
        link.client_sends(&asked(choice)).unwrap();
        for piece in all {
            if let Err(fault) = link.server_sends(piece) {
                return (Err(std::mem::discriminant(&fault)), link);
            }
        }
        (Ok(()), link)
    };
    let (whole, mut link) = run(&[bytes.0]);
    let (split, mut cut) = run(&pieces(bytes.0, seed));
    assert_eq!(whole, split);
    if whole.is_err() {
        link.from_server.clear();
        cut.from_server.clear();
    }
    assert_eq!(link.state(), cut.state());
    assert!(is_stream(&link.to_client));
    if link.server.is_settled() {
        assert!(link.server.pipeline.is_empty() && link.server.pipeline.status() == b'I');
    }
    idle_server(bytes.0, seed);
}

/// The same while no client has it.
fn idle_server(input: &[u8], seed: u16) {
    let run = |all: &[&[u8]]| {
        let (mut server, mut carry) = (ServerSession::default(), Vec::new());
        for piece in all {
            carry.extend_from_slice(piece);
            match server.on_idle_bytes(&carry) {
                Err(_) => return None,
                Ok(n) => drop(carry.drain(..n)),
            }
        }
        assert!(server.is_settled() && carry.len() < MAX_CARRY);
        Some((carry, server.parameters))
    };
    assert_eq!(run(&[input]), run(&pieces(input, seed)));
}

fn asked(choice: u8) -> Vec<u8> {
    match choice & 7 {
        0 => Vec::new(),
        1 => messages(&[(b'Q', b"select 1\0")]),
        2 => messages(&[(b'P', b"a\0select 1\0\0\0"), (b'B', b"\0a\0"), (b'E', b"\0"), (b'S', b"")]),
        3 => messages(&[
            (b'P', b"\0x\0\0\0"),
            (b'D', b"S\0"),
            (b'B', b"\0\0"),
            (b'E', b"\0"),
            (b'C', b"P\0"),
            (b'H', b""),
        ]),
        4 => messages(&[
            (b'Q', b"copy t from stdin\0"),
            (b'd', b"1"),
            (b'S', b""),
            (b'c', b""),
            (b'Q', b"x\0"),
        ]),
        // The third statement pushes the first one out; the last one is known and answered here.
        5 => messages(&[
            (b'P', b"a\0select 1\0\0\0"),
            (b'P', b"b\0select 2\0\0\0"),
            (b'P', b"c\0select 3\0\0\0"),
            (b'P', b"d\0select 3\0\0\0"),
            (b'C', b"Sa\0"),
            (b'S', b""),
        ]),
        6 => messages(&[(b'F', b"\0"), (b'Q', b"x\0"), (b'S', b""), (b'Q', b"y\0")]),
        _ => messages(&[
            (b'P', b"\0copy\0\0\0"),
            (b'B', b"\0\0"),
            (b'E', b"\0"),
            (b'S', b""),
            (b'd', b"1"),
            (b'f', b"\0"),
            (b'S', b""),
        ]),
    }
}

pub(super) fn backend_seeds() -> Vec<Vec<u8>> {
    let row = vec![b'x'; 60];
    let answers: [&[(u8, &[u8])]; 8] = [
        &[(b'S', b"TimeZone\0UTC\0"), (b'N', b"\0"), (b'A', b"\0\0\0\x01x\0y\0")],
        &[(b'T', b"\0\0"), (b'D', &row), (b'D', &row), (b'C', b"SELECT 2\0"), (b'Z', b"I")],
        &[(b'1', b""), (b'2', b""), (b'D', &row), (b'C', b"SELECT 1\0"), (b'Z', b"T")],
        &[(b'1', b""), (b't', b"\0\0"), (b'n', b""), (b'2', b""), (b's', b""), (b'3', b"")],
        &[(b'G', b"\0\0\0"), (b'C', b"COPY 1\0"), (b'Z', b"I"), (b'I', b""), (b'Z', b"I")],
        &[(b'1', b""), (b'1', b""), (b'3', b""), (b'1', b""), (b'Z', b"I")],
        &[
            (b'V', b"\0\0\0\0"),
            (b'Z', b"I"),
            (b'H', b"\0"),
            (b'd', &row),
            (b'c', b""),
            (b'C', b"DISCARD ALL\0"),
        ],
        &[(b'1', b""), (b'2', b""), (b'G', b"\0"), (b'E', b"SERROR\0C57014\0\0"), (b'Z', b"E")],
    ];
    let mut seeds = Vec::new();
    for (choice, answer) in (0..).zip(answers) {
        seeds.push([&[choice, 0, choice][..], &messages(answer)].concat());
        let setup = messages(&[(b'C', b"SET\0"), (b'Z', b"I")]);
        seeds.push([&[choice | 8, 0, choice][..], &setup, &messages(answer)].concat());
        let error = messages(&[(b'E', b"SFATAL\0VFATAL\0C57P01\0Mbye\0\0"), (b'Z', b"I")]);
        seeds.push([&[choice | 8, 0, choice][..], &setup, &error].concat());
    }
    seeds
}
