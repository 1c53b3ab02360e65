use super::*;
use Action::{Fake, Forward, Skip};
use Expect::{Bind, Call, Close, CopyEnd, Describe, Execute, Parse, Query, Sync};

fn send(p: &mut Pipeline, messages: &[Expect]) {
    for &expect in messages {
        p.expect(expect, Forward, 0);
    }
}

/// Feeds replies, given as tags; `I`, `T`, `E` behind a `Z` are its status.
fn receive(p: &mut Pipeline, replies: &[&str]) {
    for reply in replies {
        let (tag, body) = reply.as_bytes().split_first().unwrap();
        p.on_backend(*tag, body).unwrap_or_else(|e| panic!("{reply}: {e}"));
    }
}

#[test]
fn a_simple_query() {
    let mut p = Pipeline::default();
    assert!(p.is_settled());
    send(&mut p, &[Query]);
    receive(&mut p, &["T", "D", "C", "I", "E"]);
    assert!(!p.is_settled());
    receive(&mut p, &["ZI"]);
    assert!(p.is_settled());
}

#[test]
fn a_transaction_is_not_settled() {
    let mut p = Pipeline::default();
    send(&mut p, &[Query]);
    receive(&mut p, &["C", "ZT"]);
    assert!(!p.is_settled() && p.is_empty());
    send(&mut p, &[Call]);
    receive(&mut p, &["V", "ZT"]);
    send(&mut p, &[Query]);
    receive(&mut p, &["C", "ZI"]);
    assert!(p.is_settled());
}

#[test]
fn a_batch_is_open_until_sync() {
    let mut p = Pipeline::default();
    send(&mut p, &[Parse, Describe]);
    p.touch();
    receive(&mut p, &["1", "t", "T"]);
    assert!(p.is_empty() && !p.is_settled());
    send(&mut p, &[Bind, Execute, Execute, Close, Sync, Bind, Execute, Sync]);
    receive(&mut p, &["2", "D", "s", "D", "C", "3", "ZI"]);
    assert!(!p.is_settled());
    receive(&mut p, &["2", "I", "ZI"]);
    assert!(p.is_settled());
}

#[test]
fn an_error_skips_to_sync() {
    let mut p = Pipeline::default();
    send(&mut p, &[Parse, Bind, Execute, Query]);
    receive(&mut p, &["1", "E"]);
    assert!(p.is_skipping());
    send(&mut p, &[Parse, Bind, Execute, Query, Call]);
    assert!(p.is_empty(), "ignored by the server");
    send(&mut p, &[Sync, Parse, Sync]);
    receive(&mut p, &["ZI", "1"]);
    assert!(!p.is_settled());
    receive(&mut p, &["ZI"]);
    assert!(p.is_settled());
}

#[test]
fn an_error_at_sync_is_still_followed_by_ready() {
    let mut p = Pipeline::default();
    send(&mut p, &[Bind, Execute, Sync]);
    receive(&mut p, &["2", "C", "E", "ZI"]);
    assert!(p.is_settled());
}

#[test]
fn copy_in_by_simple_query() {
    let mut p = Pipeline::default();
    send(&mut p, &[Query]);
    receive(&mut p, &["G"]);
    send(&mut p, &[CopyEnd]);
    receive(&mut p, &["C", "ZI"]);
    assert!(p.is_settled());
}

#[test]
fn copy_in_swallows_the_first_sync() {
    let mut p = Pipeline::default();
    send(&mut p, &[Parse, Bind, Execute, Sync]);
    receive(&mut p, &["1", "2", "G"]);
    send(&mut p, &[CopyEnd, Sync]);
    receive(&mut p, &["C"]);
    assert!(!p.is_settled());
    receive(&mut p, &["ZI"]);
    assert!(p.is_settled());
}

#[test]
fn copy_in_sent_without_waiting() {
    let mut p = Pipeline::default();
    send(&mut p, &[Parse, Bind, Execute, Sync, CopyEnd, Sync, Query]);
    receive(&mut p, &["1", "2", "G", "C", "ZI", "C", "ZI"]);
    assert!(p.is_settled());
}

#[test]
fn failed_copy_with_a_swallowed_sync_taints() {
    let mut p = Pipeline::default();
    send(&mut p, &[Execute, Sync]);
    receive(&mut p, &["G", "E"]);
    send(&mut p, &[CopyEnd, Sync]);
    receive(&mut p, &["ZI"]);
    assert!(!p.is_settled() && p.is_spent());
    // What belongs to a batch stays together, until that is over.
    send(&mut p, &[Execute]);
    assert!(!p.is_spent());
    receive(&mut p, &["E"]);
    assert!(p.is_empty() && !p.is_spent());
    send(&mut p, &[Sync]);
    receive(&mut p, &["ZI"]);
    assert!(p.is_spent());
    // … and if the server had not swallowed it, there is one ReadyForQuery more.
    receive(&mut p, &["ZI"]);
}

#[test]
fn failed_copy_by_simple_query_settles() {
    let mut p = Pipeline::default();
    send(&mut p, &[Query]);
    receive(&mut p, &["G", "E"]);
    send(&mut p, &[CopyEnd]);
    receive(&mut p, &["ZI"]);
    assert!(p.is_settled());
    send(&mut p, &[CopyEnd, Query, CopyEnd]);
    receive(&mut p, &["C", "ZI"]);
    assert!(p.is_settled(), "stray CopyDone is ignored");
}

#[test]
fn replies_the_client_does_not_get() {
    let mut p = Pipeline::default();
    p.expect(Query, Skip, 0);
    p.expect(Parse, Skip, 7);
    send(&mut p, &[Bind, Execute, Sync]);
    for reply in [&b"S"[..], b"C", b"ZI", b"1"] {
        assert_eq!(p.on_backend(reply[0], &reply[1..]), Ok(Verdict::Skip));
    }
    for reply in [&b"2"[..], b"D", b"C", b"ZI"] {
        assert_eq!(p.on_backend(reply[0], &reply[1..]), Ok(Verdict::Forward));
    }
    p.expect(Query, Skip, 0);
    assert_eq!(p.on_backend(b'E', b""), Ok(Verdict::SetupFailed));
}

#[test]
fn faked_replies_keep_their_place() {
    let mut p = Pipeline::default();
    send(&mut p, &[Bind, Execute]);
    p.expect(Parse, Fake, 3);
    p.expect(Close, Fake, 0);
    send(&mut p, &[Sync]);
    assert_eq!(p.pop_fake(), None);
    receive(&mut p, &["2", "C"]);
    assert_eq!(p.pop_fake(), Some(b'1'));
    assert_eq!(p.pop_fake(), Some(b'3'));
    assert_eq!(p.pop_fake(), None);
    receive(&mut p, &["ZI"]);
    assert!(p.is_settled());
}

#[test]
fn a_stray_copy_end_holds_up_no_faked_reply() {
    let mut p = Pipeline::default();
    p.expect(Close, Fake, 0);
    send(&mut p, &[CopyEnd]);
    p.expect(Close, Fake, 0);
    send(&mut p, &[Sync]);
    assert_eq!(p.pop_fake(), Some(b'3'));
    assert_eq!(p.pop_fake(), Some(b'3'));
    receive(&mut p, &["ZI"]);
    assert!(p.is_settled());
}

#[test]
fn statements_behind_an_error_are_undone_backwards() {
    let mut p = Pipeline::default();
    p.expect(Close, Skip, 1);
    p.expect(Parse, Skip, 2);
    p.expect(Bind, Forward, 0);
    p.expect(Parse, Forward, 3);
    p.expect(Parse, Fake, 4);
    p.expect(Sync, Forward, 0);
    p.expect(Parse, Forward, 5);
    receive(&mut p, &["E"]);
    let undone: Vec<_> = p.take_undone().collect();
    assert_eq!(
        undone,
        [
            Undone::ClientParse { id: 4, on_server: false },
            Undone::ClientParse { id: 3, on_server: true },
            Undone::ServerParse(2),
            Undone::ServerClose(1),
        ]
    );
}

#[test]
fn what_nobody_asked_for_is_an_error() {
    for reply in [&b"1"[..], b"2", b"3", b"ZI", b"G", b"R", b"K", b"\0"] {
        assert!(Pipeline::default().on_backend(reply[0], &reply[1..]).is_err(), "{reply:?}");
    }
    let mut p = Pipeline::default();
    send(&mut p, &[Parse, Sync]);
    assert!(p.on_backend(b'Z', b"I").is_err(), "the ParseComplete is missing");
    let mut p = Pipeline::default();
    assert_eq!(p.on_backend(b'E', b""), Ok(Verdict::Farewell), "57P01 and the like");
    assert!(p.is_spent() && p.is_leaving());
    let mut p = Pipeline::default();
    send(&mut p, &[Query]);
    assert_eq!(p.on_backend(b'Z', b"T"), Ok(Verdict::Forward));
    assert_eq!(p.on_backend(b'E', b""), Ok(Verdict::Forward), "it ends a transaction");
    assert!(p.is_tainted() && !p.is_spent());
}
