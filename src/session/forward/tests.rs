//! Walks over whole conversations.

mod statements;

use std::sync::Arc;

use proptest::prelude::*;

use super::frames::MAX_NAME;
use super::server::MAX_ANSWER;
use super::*;
use crate::error::Refusal;
use crate::session::output::Output;
use crate::session::parameters::Parameters;
use crate::session::pipeline::{Action, Expect};
use crate::session::prepared::Registry;
use crate::wire::samples::message;

/// A client and a server session with nothing between them but the walks, fed in chunks.
#[derive(Default)]
struct Link {
    registry: Registry,
    client: ClientSession,
    server: ServerSession,
    max_prepared: usize,
    one_at_a_time: bool,
    from_client: Vec<u8>,
    from_server: Vec<u8>,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

impl Link {
    fn new(max_prepared: usize) -> Self {
        let mut link = Self { max_prepared, ..Self::default() };
        link.server.attach(&link.client, false);
        link
    }

    fn client_sends(&mut self, bytes: &[u8]) -> Result<Stop, Refusal> {
        self.from_client.extend(bytes);
        let context = Context {
            registry: &self.registry,
            max_prepared: self.max_prepared,
            exclusive: false,
            one_at_a_time: self.one_at_a_time,
            refuse_simple: false,
        };
        let mut scratch = Vec::new();
        let mut out = Output::new(&self.from_client, &mut scratch);
        let sent =
            client_to_server(&self.from_client, &mut self.client, &mut self.server, &context, &mut out)?;
        self.to_server.extend(out.bytes());
        self.from_client.drain(..sent.consumed);
        let mut scratch = Vec::new();
        let mut fakes = Output::new(&[], &mut scratch);
        fake_replies_due(&mut self.server, &mut self.client, &mut fakes);
        self.to_client.extend(fakes.bytes());
        Ok(sent.stop)
    }

    fn server_sends(&mut self, bytes: &[u8]) -> Result<Received, ServerFault> {
        self.from_server.extend(bytes);
        let mut scratch = Vec::new();
        let mut out = Output::new(&self.from_server, &mut scratch);
        let received = server_to_client(&self.from_server, &mut self.server, &mut self.client, &mut out)?;
        self.to_client.extend(out.bytes());
        self.from_server.drain(..received.consumed);
        Ok(received)
    }
}

fn messages(all: &[(u8, &[u8])]) -> Vec<u8> {
    all.iter().flat_map(|(tag, body)| message(*tag, body)).collect()
}

const PARSE_A: (u8, &[u8]) = (b'P', b"a\0select 1\0\0\0");
const SYNC: (u8, &[u8]) = (b'S', b"");
const READY: (u8, &[u8]) = (b'Z', b"I");

#[test]
fn one_batch_at_a_time_on_a_standby() {
    let mut link = Link::new(10);
    link.one_at_a_time = true;
    let query = message(b'Q', b"select 1\0");
    let stop = link.client_sends(&[query.clone(), query.clone()].concat()).unwrap();
    assert_eq!((stop, link.to_server.len()), (Stop::Hold, query.len()));
    link.server_sends(&messages(&[READY])).unwrap();
    assert_eq!(link.client_sends(b"").unwrap(), Stop::More);
    assert_eq!(link.to_server.len(), 2 * query.len());
}

/// Whoever had to wait for the answer would find its server given back by then.
#[test]
fn a_standby_gets_the_batch_right_behind_the_parameters() {
    let mut link = Link::new(10);
    link.one_at_a_time = true;
    link.client.parameters = time_zone(b"UTC");
    link.server.parameters = time_zone(b"GMT");
    let mut setup = Vec::new();
    assert!(align_parameters(&mut link.client, &mut link.server, &mut setup));
    let query = message(b'Q', b"select 1\0");
    let stop = link.client_sends(&[query.clone(), query.clone()].concat()).unwrap();
    assert_eq!((stop, link.to_server.len()), (Stop::Hold, query.len()));
    link.server_sends(&messages(&[(b'C', b"SET\0"), READY])).unwrap();
    assert!(!link.server.is_settled());
    assert_eq!(link.client_sends(b"").unwrap(), Stop::Hold);
}

fn time_zone(zone: &[u8]) -> Arc<Parameters> {
    let mut all = Parameters::default();
    all.set(b"TimeZone", zone);
    Arc::new(all)
}

#[test]
fn parameters_are_aligned_and_shared() {
    let mut link = Link::new(10);
    link.client.parameters = time_zone(b"UTC");
    link.server.parameters = time_zone(b"GMT");
    let mut setup = Vec::new();
    assert!(align_parameters(&mut link.client, &mut link.server, &mut setup));
    assert_eq!(setup, message(b'Q', b"SET TimeZone='UTC';\0"));
    link.server_sends(&messages(&[(b'S', b"TimeZone\0UTC\0"), (b'C', b"SET\0"), READY])).unwrap();
    assert_eq!(link.to_client, b"");
    assert!(link.server.is_settled());
    assert!(!align_parameters(&mut link.client, &mut link.server, &mut setup));
    assert!(Arc::ptr_eq(&link.client.parameters, &link.server.parameters));
}

#[test]
fn an_error_that_answers_our_own_query_is_read_to_its_end() {
    let error = message(b'E', b"SFEHLER\0VFATAL\0C57P01\0Mbye\0\0");
    for cut in 0..=error.len() {
        let mut link = Link::new(10);
        link.server.ask(b"SELECT 1", &mut Vec::new());
        let (start, end) = error.split_at(cut);
        let fault = link.server_sends(start).and_then(|_| link.server_sends(end)).unwrap_err();
        assert!(matches!(&fault, ServerFault::Leaving(text) if text == "FATAL bye"), "{cut}: {fault}");
    }
}

#[test]
fn an_idle_server_may_only_report() {
    let mut server = ServerSession::default();
    assert!(server.on_idle_bytes(&messages(&[(b'S', b"TimeZone\0UTC\0"), (b'N', b"\0")])).is_ok());
    assert_eq!(server.parameters.get(b"timezone"), Some(&b"UTC"[..]));
    assert!(server.on_idle_bytes(&messages(&[(b'E', b"\0")])).is_err());
    assert!(server.on_idle_bytes(&messages(&[READY])).is_err());
}

#[test]
fn what_an_idle_client_says_without_asking() {
    let mut client = ClientSession::default();
    let late = message(b'd', &[7; 100]);
    assert_eq!(client.skip_idle(&late[..50], true).unwrap(), (50, None));
    let mut rest = late[50..].to_vec();
    rest.extend(messages(&[(b'c', b""), (b'H', b""), (b'Q', b"x\0")]));
    assert_eq!(client.skip_idle(&rest, true).unwrap(), (65, Some(Idle::Request)));
    assert_eq!(client.skip_idle(&message(b'X', b""), true).unwrap(), (0, Some(Idle::Terminate)));
    assert!(client.skip_idle(&message(b'p', b""), true).is_err());
}

#[test]
fn half_a_message_goes_nowhere() {
    let long = [&b"\0"[..], &[b'x'; 60_000], b"\0\0\0"].concat();
    let all: [(u8, &[u8]); 11] = [
        (b'Q', b"select 1\0"),
        PARSE_A,
        (b'P', b"\0select 1\0\0\0"),
        (b'P', &long),
        (b'B', b"\0\0\0\0\0\0\0\0"),
        (b'D', b"P\0"),
        (b'E', b"\0\0\0\0\0"),
        (b'C', b"P\0"),
        (b'F', b"\0\0\0\x01\0\0\0\0\0\0"),
        (b'c', b""),
        (b'f', b"why\0"),
    ];
    for (tag, body) in all {
        let whole = message(tag, body);
        for cut in [1, 4, 5, 6, 7, 8, whole.len() / 2, whole.len() - 1] {
            let Some(half) = whole.get(..cut).filter(|half| half.len() < whole.len()) else { continue };
            let mut link = Link::new(10);
            link.client.unnamed = Some(b"select 1\0\0\0"[..].into());
            link.client_sends(half).unwrap();
            assert!(link.to_server.is_empty() && link.server.is_settled(), "{tag} {cut}");
            link.client_sends(&whole[cut..]).unwrap();
            assert!(!link.to_server.is_empty(), "{tag} {cut}");
            if !matches!(tag, b'c' | b'f') {
                let mut client = ClientSession::default();
                assert_eq!(client.skip_idle(half, true).unwrap(), (0, None), "{tag} {cut}");
                assert_eq!(client.skip_idle(&whole, true).unwrap(), (0, Some(Idle::Request)));
            }
        }
    }
}

#[test]
fn of_a_long_message_a_good_part_has_to_be_there() {
    let whole = message(b'Q', &vec![b'x'; 200_000]);
    let idle = |len: usize| ClientSession::default().skip_idle(&whole[..len], true).unwrap();
    assert_eq!((idle(MAX_NAME), idle(MAX_NAME + 6)), ((0, None), (0, Some(Idle::Request))));
    let mut link = Link::new(10);
    link.client_sends(&whole[..MAX_NAME]).unwrap();
    assert!(link.to_server.is_empty());
    link.client_sends(&whole[MAX_NAME..100_000]).unwrap();
    assert_eq!(link.to_server.len(), 100_000);
    // One that has to be read whole waits without a server.
    let named = message(b'P', &[&b"a\0"[..], &[b'x'; 200_000], b"\0\0\0"].concat());
    let idle = |len: usize, reads| ClientSession::default().skip_idle(&named[..len], reads).unwrap().1;
    assert_eq!(idle(named.len() - 1, true), None);
    assert_eq!(idle(named.len(), true), Some(Idle::Request));
    assert_eq!(idle(named.len() - 1, false), Some(Idle::Request));
    assert!(ClientSession::default().skip_idle(b"P\x7f\0\0\0a", true).is_err());
}

#[test]
fn no_message_is_longer_than_allowed() {
    assert_eq!((MaxPacket::of(104), MaxPacket::of(i32::MAX as u32)), (MaxPacket(104), MaxPacket::default()));
    let long = message(b'Q', &[b'x'; 100]);
    for limit in [105, 104] {
        let mut link = Link::new(10);
        link.client.max_packet = MaxPacket(limit);
        let idle = link.client.skip_idle(&long[..10], true);
        let sent = link.client_sends(&long[..10]);
        assert_eq!((idle.is_ok(), sent.is_ok()), (limit == 105, limit == 105));
        link.server.pipeline.expect(Expect::Query, Action::Forward);
        link.server_sends(&message(b'T', b"\0\0")).unwrap();
        let row = message(b'D', &[b'x'; 100]);
        assert_eq!(link.server_sends(&row[..10]).is_ok(), limit == 105);
    }
}

#[test]
fn an_answer_to_ourselves_ends() {
    let mut server = ServerSession::default();
    server.ask(b"select 1", &mut Vec::new());
    let mut link = Link { server, ..Link::new(10) };
    let row = message(b'D', &[0; 1019]);
    link.server_sends(&message(b'T', b"\0\0")).unwrap();
    let taken = (0..).take_while(|_| link.server_sends(&row).is_ok()).count();
    assert_eq!(taken, MAX_ANSWER / 1024 - 1);
    // One after the other they may be as long as they like.
    let mut link = Link::new(10);
    for _ in 0..3 {
        link.server.ask(b"select 1", &mut Vec::new());
        link.server_sends(&message(b'T', b"\0\0")).unwrap();
        (0..1000).for_each(|_| _ = link.server_sends(&row).unwrap());
        link.server_sends(&messages(&[(b'C', b"SELECT 1\0"), READY])).unwrap();
    }
    assert!(link.to_client.is_empty());
}

/// A conversation with a bit of everything, as what the client sends and what the server answers.
fn conversation() -> (Vec<u8>, Vec<u8>) {
    let big = vec![b'x'; 300];
    let client = messages(&[
        (b'Q', b"begin\0"),
        PARSE_A,
        (b'B', &[&b"\0a\0"[..], &big].concat()),
        (b'E', b"\0\0\0\0\0"),
        (b'P', b"\0select 2\0\0\0"),
        (b'B', b"\0\0xyz"),
        (b'D', b"Sa\0"),
        (b'C', b"Sa\0"),
        PARSE_A,
        SYNC,
        (b'Q', b"copy t from stdin\0"),
        (b'd', &big),
        (b'c', b""),
        (b'Q', b"commit\0"),
    ]);
    let server = messages(&[
        (b'C', b"BEGIN\0"),
        (b'Z', b"T"),
        (b'1', b""),
        (b'2', b""),
        (b'D', &big),
        (b'S', b"TimeZone\0UTC\0"),
        (b'C', b"SELECT 1\0"),
        (b'1', b""),
        (b'2', b""),
        (b't', b"\0\0"),
        (b'T', b"\0\0"),
        (b'Z', b"T"),
        (b'N', b"\0"),
        (b'G', b"\0\0\0"),
        (b'C', b"COPY 1\0"),
        (b'Z', b"T"),
        (b'C', b"COMMIT\0"),
        READY,
    ]);
    (client, server)
}

proptest! {
    #[test]
    fn splitting_the_stream_changes_nothing(client_cuts: Vec<prop::sample::Index>, server_cuts: Vec<prop::sample::Index>) {
        let (client, server) = conversation();
        let run = |client_cuts: &[usize], server_cuts: &[usize]| {
            let mut link = Link::new(10);
            for chunk in chunks(&client, client_cuts) {
                link.client_sends(chunk).unwrap();
            }
            let mut ready = 0;
            for chunk in chunks(&server, server_cuts) {
                ready += link.server_sends(chunk).unwrap().queries;
            }
            prop_assert!(link.server.is_settled());
            prop_assert_eq!(ready, 4);
            Ok((link.to_server, link.to_client))
        };
        let cuts = |indices: &[prop::sample::Index], len| {
            let mut all: Vec<usize> = indices.iter().map(|i| i.index(len)).collect();
            all.sort_unstable();
            all
        };
        let whole = run(&[], &[])?;
        let split = run(&cuts(&client_cuts, client.len()), &cuts(&server_cuts, server.len()))?;
        prop_assert_eq!(whole, split);
    }

    #[test]
    fn no_input_panics(client: Vec<u8>, server: Vec<u8>) {
        let mut link = Link::new(2);
        let _ = link.client_sends(&client);
        let _ = link.server_sends(&server);
        let _ = ServerSession::default().on_idle_bytes(&server);
        let _ = ClientSession::default().skip_idle(&client, true);
    }
}

fn chunks<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut all = Vec::new();
    let mut from = 0;
    for &cut in cuts {
        all.push(&bytes[from..cut]);
        from = cut;
    }
    all.push(&bytes[from..]);
    all
}

/// All that one packet of many messages makes the walks do, in allocations and moves, is counted by what it leaves behind: the
/// queue, the journal and the maps are empty when everything was answered, and each message was one entry of each.
#[test]
fn many_messages_behind_one_that_fails() {
    let mut link = Link::new(100_000);
    link.client_sends(&messages(&[(b'P', b"bad\0nonsense\0\0\0")])).unwrap();
    let mut sent = 0;
    for n in 0..50_000 {
        let parse = message(b'P', format!("s{n}\0select {n}\0\0\0").as_bytes());
        match link.client_sends(&parse).unwrap() {
            Stop::Hold => break,
            _ => sent += 1,
        }
    }
    assert!(link.server.pipeline.is_full() && sent < 5000, "{sent} are under way, the others wait");
    assert!(link.to_server.ends_with(&message(b'H', b"")), "and the server is asked for what it owes");
    link.server_sends(&message(b'E', b"SERROR\0C42601\0Mx\0\0")).unwrap();
    assert!(link.client.statements.is_empty() && link.server.statements.is_empty());
    link.client_sends(&message(b'S', b"")).unwrap();
    link.server_sends(&messages(&[READY])).unwrap();
    assert!(link.server.is_settled());
}

/// A client that asks for what the proxy answers itself is not read from without an end while nothing of it can be answered.
#[test]
fn replies_of_our_own_are_bounded() {
    let mut link = Link::new(10);
    link.client_sends(&messages(&[PARSE_A, SYNC])).unwrap();
    link.server_sends(&messages(&[(b'1', b""), READY])).unwrap();
    link.client_sends(&messages(&[(b'B', b"\0a\0"), (b'E', b"\0\0\0\0\0")])).unwrap();
    let pair = messages(&[(b'C', b"Sa\0"), PARSE_A]);
    let taken = (0..).take_while(|_| link.client_sends(&pair).unwrap() != Stop::Hold).count();
    assert!(taken < 5000, "{taken}");
    link.to_client.clear();
    link.server_sends(&messages(&[(b'2', b""), (b'C', b"SELECT 1\0")])).unwrap();
    assert_eq!(link.client_sends(b"").unwrap(), Stop::More);
    assert!(link.to_client.len() >= 10 * taken);
}
