use std::sync::Arc;

use super::*;
use crate::session::prepared::Registry;
use crate::sql::{Left, Route};
use crate::wire::samples::{bind, message, parse, query};
use crate::wire::write;

struct Watched {
    client: ClientSession,
    memo: Memo,
    catalog: Catalog,
}

impl Watched {
    fn new(parameters: &[(&str, &str)]) -> Self {
        let mut all = Parameters::default();
        for (name, value) in parameters {
            all.set(name.as_bytes(), value.as_bytes());
        }
        let mut client = ClientSession::new(Arc::new(all), Route::Auto);
        let registry = Registry::default();
        client.statements.insert(b"role", registry.intern(b"set role app\0\0\0"));
        client.statements.insert(b"discard", registry.intern(b"discard all\0\0\0"));
        client.statements.insert(b"write", registry.intern(b"delete from t\0\0\0"));
        Self { client, memo: Memo::default(), catalog: Catalog::default() }
    }

    fn watch(&mut self, buf: &[u8]) -> usize {
        let mut judge = Judge { memo: &mut self.memo, known: (Some(&self.catalog), 1) };
        self.client.watch(buf, false, &mut judge)
    }

    /// What there is after this has been sent.
    fn state(&mut self, messages: &[Vec<u8>]) -> State {
        let all = messages.concat();
        assert_eq!(self.watch(&all), all.len());
        self.client.kept.state()
    }
}

fn call(oid: u32) -> Vec<u8> {
    message(b'F', &oid.to_be_bytes())
}

#[test]
fn by_every_message_that_runs_something() {
    for (messages, expected) in [
        (vec![query("set role app")], State::from(Left::Role)),
        (vec![query("insert into t values (1)"), query("set role app")], Left::Role.into()),
        (vec![parse("", "set role app"), bind("")], Left::Role.into()),
        (vec![parse("a", "set role app"), bind("a")], Left::Role.into()),
        (vec![bind("role")], Left::Role.into()),
        (vec![call(20000)], Left::Something.into()),
        // What is not run leaves nothing.
        (vec![parse("", "set role app")], State::default()),
        (vec![parse("", "set role app"), parse("", "delete from t"), bind("")], State::default()),
        (vec![bind("write"), bind("unknown"), call(2000)], State::default()),
    ] {
        assert_eq!(Watched::new(&[]).state(&messages), expected, "{messages:?}");
    }
    // Bound in a later packet.
    let mut watched = Watched::new(&[]);
    assert!(watched.state(&[parse("", "set role app")]).is_empty());
    assert!(!watched.state(&[bind("")]).is_empty());
}

#[test]
fn what_follows_the_client_does_not_count() {
    let mut watched = Watched::new(&[("search_path", "public"), ("in_hot_standby", "off")]);
    assert!(watched.state(&[query("set search_path = app")]).is_empty());
    assert!(!watched.state(&[query("set other = 1")]).is_empty());
}

#[test]
fn it_is_gone_when_the_server_has_said_so() {
    let mut watched = Watched::new(&[]);
    for discard in [query("discard all"), [parse("", "discard all"), bind("")].concat(), bind("discard")] {
        assert!(!watched.state(&[query("set role app")]).is_empty());
        assert!(!watched.client.kept.is_changing());
        watched.watch(&discard);
        assert!(watched.client.kept.is_changing() && !watched.client.kept.state().is_empty());
        watched.client.kept.settle(false);
        assert!(!watched.client.kept.state().is_empty(), "it has failed");
        watched.watch(&discard);
        watched.client.kept.settle(true);
        assert!(watched.client.kept.state().is_empty());
    }
    // Left again behind it, before the server has answered.
    watched.watch(&[query("discard all"), query("set role app")].concat());
    watched.client.kept.settle(true);
    assert_eq!(watched.client.kept.state(), Left::Role.into());
}

#[test]
fn what_waits_for_an_answer_is_looked_at_later() {
    let mut watched = Watched::new(&[]);
    let both = [parse("", "select 1"), bind(""), message(b'S', b""), query("set role app")].concat();
    let mut judge = Judge { memo: &mut watched.memo, known: (Some(&watched.catalog), 1) };
    assert_eq!(watched.client.watch(&both, true, &mut judge), both.len());
    assert!(watched.client.kept.state().is_empty());
}

#[test]
fn a_query_that_is_not_all_there_waits() {
    let mut watched = Watched::new(&[]);
    let whole = [query("delete from t"), query("set role app")].concat();
    let first = query("delete from t").len();
    for cut in first..whole.len() {
        assert_eq!(watched.watch(&whole[..cut]), if cut < first + 5 { cut } else { first }, "{cut}");
        assert!(watched.client.kept.state().is_empty());
    }
    // One that is too long is judged by its beginning.
    for (beginning, expected) in [
        ("insert into t values ", State::default()),
        ("insert into pg_temp.t values ", Left::Temporary.into()),
        ("begin; insert into t values ", Left::Something.into()),
    ] {
        let long = query(&format!("{beginning}('{}')", "x".repeat(MAX_NAME)));
        let unnamed = parse("", &format!("{beginning}('{}')", "x".repeat(MAX_NAME)));
        for messages in [long[..1000].to_vec(), [&unnamed[..1000]].concat()] {
            let mut watched = Watched::new(&[]);
            assert_eq!(watched.watch(&messages), 1000);
            watched.watch(&bind(""));
            assert_eq!(watched.client.kept.state(), expected, "{beginning}");
        }
    }
}

#[test]
fn what_cannot_be_read_may_be_anything() {
    let mut old = Watched::new(&[("standard_conforming_strings", "off")]);
    assert!(old.state(&[query("insert into t values ('a')")]).is_empty());
    assert_eq!(old.state(&[query("insert into t values ('\\')")]), Left::Something.into());
    let mut sjis = Watched::new(&[("client_encoding", "SJIS")]);
    let mut half = Vec::new();
    write::query(&mut half, b"insert into t values (e'\x95\x5c'); set role app --'");
    assert_eq!(sjis.state(&[half]), Left::Something.into());
    let mut sjis = Watched::new(&[("client_encoding", "SJIS")]);
    let mut whole = Vec::new();
    write::query(&mut whole, b"insert into t values ('\x95\x5c'); insert into t values ('')");
    assert!(sjis.state(&[whole, query("insert into t values (e'\\'')")]).is_empty());
    assert!(Watched::new(&[]).state(&[query("insert into t values ('")]).is_empty());
}
