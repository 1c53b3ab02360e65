use std::num::NonZeroU64;

use super::changes::Skipped;
use super::*;
use crate::session::numbers::{ChangeNumber, StatementId};
use Action::{Fake, Forward, Skip};
use Expect::{Bind, Call, Close, CopyEnd, Describe, Execute, Parse, Query, Sync};

const SEVEN: StatementId = StatementId(NonZeroU64::new(7).unwrap());

fn send(p: &mut Pipeline, messages: &[Expect]) {
    for &expect in messages {
        p.expect(expect, Forward);
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

/// A COPY by the extended protocol that fails, and Sync behind its end.
fn failed_copy() -> Pipeline {
    let mut p = Pipeline::default();
    send(&mut p, &[Execute, Sync]);
    receive(&mut p, &["G"]);
    send(&mut p, &[CopyEnd, Sync]);
    assert!(p.mark_copy());
    send(&mut p, &[Query]);
    receive(&mut p, &["E"]);
    p
}

#[test]
fn a_mark_tells_how_many_syncs_a_failed_copy_has_swallowed() {
    let replies = |p: &mut Pipeline, replies: &[&str]| -> Vec<Verdict> {
        let reply = |reply: &&str| p.on_backend(reply.as_bytes()[0], &reply.as_bytes()[1..]).unwrap();
        replies.iter().map(reply).collect()
    };
    use Verdict::{Forward as F, Skip as S};
    let mut p = failed_copy();
    assert_eq!(replies(&mut p, &["ZI", "3", "ZI", "C", "ZI"]), [F, S, S, F, F], "it was swallowed");
    assert!(p.is_settled() && !p.is_tainted());
    let mut p = failed_copy();
    assert_eq!(replies(&mut p, &["ZI", "ZI", "3", "ZI", "C", "ZI"]), [F, F, S, S, F, F], "it was not");
    assert!(p.is_settled() && !p.is_tainted());
}

#[test]
fn a_copy_that_fails_before_its_end_is_sent() {
    // The next Sync is marked.
    let mut p = Pipeline::default();
    send(&mut p, &[Execute, Sync]);
    receive(&mut p, &["G", "E"]);
    send(&mut p, &[CopyEnd, Sync]);
    assert!(p.mark_copy() && !p.mark_copy());
    receive(&mut p, &["ZI", "3", "ZI"]);
    assert!(p.is_settled());
    // It was not swallowed, and its answer comes first.
    let mut p = Pipeline::default();
    send(&mut p, &[Execute, Sync]);
    receive(&mut p, &["G", "E", "ZI"]);
    assert!(p.is_settled());
    send(&mut p, &[CopyEnd, Sync]);
    assert!(!p.mark_copy());
    receive(&mut p, &["ZI"]);
    assert!(p.is_settled());
}

#[test]
fn a_copy_that_succeeds_may_be_marked_in_vain() {
    let mut p = Pipeline::default();
    send(&mut p, &[Execute, Sync]);
    receive(&mut p, &["G"]);
    send(&mut p, &[CopyEnd, Sync]);
    assert!(p.mark_copy());
    receive(&mut p, &["C", "ZI", "3", "ZI"]);
    assert!(p.is_settled());
}

#[test]
fn a_failed_copy_sent_without_waiting_taints() {
    let mut p = Pipeline::default();
    send(&mut p, &[Execute, Sync, CopyEnd, Sync]);
    receive(&mut p, &["G", "E", "ZI"]);
    assert!(p.is_spent());
    // If the server had not swallowed it, there is one ReadyForQuery more.
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
    p.expect(Query, Skip);
    p.expect(Parse, Skip);
    send(&mut p, &[Bind, Execute, Sync]);
    for reply in [&b"S"[..], b"C", b"ZI", b"1"] {
        assert_eq!(p.on_backend(reply[0], &reply[1..]), Ok(Verdict::Skip));
    }
    for reply in [&b"2"[..], b"D", b"C", b"ZI"] {
        assert_eq!(p.on_backend(reply[0], &reply[1..]), Ok(Verdict::Forward));
    }
    p.expect(Query, Skip);
    assert_eq!(p.on_backend(b'E', b""), Ok(Verdict::SetupFailed));
}

#[test]
fn faked_replies_keep_their_place() {
    let mut p = Pipeline::default();
    send(&mut p, &[Bind, Execute]);
    p.expect(Parse, Fake);
    p.expect(Close, Fake);
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
    p.expect(Close, Fake);
    send(&mut p, &[CopyEnd]);
    p.expect(Close, Fake);
    send(&mut p, &[Sync]);
    assert_eq!(p.pop_fake(), Some(b'3'));
    assert_eq!(p.pop_fake(), Some(b'3'));
    receive(&mut p, &["ZI"]);
    assert!(p.is_settled());
}

#[test]
fn changes_behind_an_error_are_skipped_up_to_the_end_of_the_batch() {
    let mut p = Pipeline::default();
    assert_eq!(p.expect_change(Parse, Forward, Some(SEVEN)), ChangeNumber(1));
    p.expect(Bind, Forward);
    assert_eq!(p.expect_change(Close, Skip, None), ChangeNumber(2));
    p.expect_columns(Forward, SEVEN);
    send(&mut p, &[Sync]);
    assert!(p.changes().is_in_doubt(ChangeNumber(2)) && !p.changes().is_in_batch(ChangeNumber(2)));
    assert_eq!(p.expect_change(Parse, Forward, Some(SEVEN)), ChangeNumber(3));
    assert!(!p.changes().is_in_doubt(ChangeNumber(3)) && p.changes().is_in_batch(ChangeNumber(3)));
    receive(&mut p, &["1"]);
    assert!(!p.changes().is_in_doubt(ChangeNumber(1)));
    receive(&mut p, &["E"]);
    assert_eq!(p.take_skipped(), Skipped { last_change: Some(ChangeNumber(2)), describes: 1 });
    assert_eq!(p.take_skipped(), Skipped::default());
    receive(&mut p, &["ZI"]);
    assert_eq!(p.changes().done, ChangeNumber(2));
}

#[test]
fn what_is_refused_is_waited_for() {
    let mut p = Pipeline::default();
    p.expect_refusal(Bind);
    assert!(p.is_refusing());
    assert!(p.on_backend(b'2', b"").is_err(), "the server cannot accept it");
    assert_eq!(p.on_backend(b'E', b""), Ok(Verdict::Refused));
    assert!(!p.is_refusing());
    // An error in front of it counts.
    let mut p = Pipeline::default();
    send(&mut p, &[Execute]);
    p.expect_refusal(Bind);
    assert_eq!(p.on_backend(b'E', b""), Ok(Verdict::Forward));
    assert!(!p.is_refusing());
}

/// Steps are counted by what is left in the queue, which each of them takes something off.
#[test]
fn syncs_behind_a_copy_are_dropped_in_one_go() {
    let mut p = Pipeline::default();
    send(&mut p, &[Execute]);
    for _ in 0..1000 {
        send(&mut p, &[Describe, Sync]);
    }
    receive(&mut p, &["G"]);
    assert_eq!((p.expected.len(), p.for_client), (1001, 1001));
    assert!(p.on_backend(b'G', b"").is_err(), "one COPY at a time");
}

#[test]
fn what_nobody_asked_for_is_an_error() {
    let rows = [&b"D"[..], b"T", b"t", b"n", b"C", b"I", b"s", b"d", b"H", b"c", b"V"];
    for reply in [&b"1"[..], b"2", b"3", b"ZI", b"G", b"R", b"K", b"\0"].into_iter().chain(rows) {
        assert!(Pipeline::default().on_backend(reply[0], &reply[1..]).is_err(), "{reply:?}");
    }
    let mut p = Pipeline::default();
    send(&mut p, &[Parse, Sync]);
    assert!(p.on_backend(b'Z', b"I").is_err(), "the ParseComplete is missing");
    for row in [b'D', b'T', b'C'] {
        assert!(p.on_backend(row, b"").is_err(), "nothing was run");
    }
    let mut p = Pipeline::default();
    send(&mut p, &[Query]);
    assert!(p.on_backend(b'D', b"").is_err(), "a row without columns");
    let mut p = Pipeline::default();
    assert_eq!(p.on_backend(b'E', b""), Ok(Verdict::Farewell), "57P01 and the like");
    assert!(p.is_spent() && p.is_leaving());
    let mut p = Pipeline::default();
    send(&mut p, &[Query]);
    assert_eq!(p.on_backend(b'Z', b"T"), Ok(Verdict::Forward));
    assert_eq!(p.on_backend(b'E', b""), Ok(Verdict::Forward), "it ends a transaction");
    assert!(p.is_tainted() && !p.is_spent());
}

#[test]
fn a_client_that_leaves_is_owed_its_last_whole_batch() {
    let behind = |messages: &[Expect], is_cut| {
        let mut p = Pipeline::default();
        send(&mut p, messages);
        p.behind_last_batch(is_cut)
    };
    assert_eq!(behind(&[], false), None);
    assert_eq!(behind(&[], true), None);
    assert_eq!(behind(&[Query], false), Some(0));
    assert_eq!(behind(&[Query], true), None, "the query itself is not whole");
    assert_eq!(behind(&[Query, Query], true), Some(1));
    assert_eq!(behind(&[Parse, Bind, Execute], false), None, "it would be rolled back");
    assert_eq!(behind(&[Parse, Bind, Execute, Sync, Parse, Bind], false), Some(2));
    assert_eq!(behind(&[Query, CopyEnd], false), Some(0), "the end of COPY data is not answered");
    let mut p = Pipeline::default();
    send(&mut p, &[Query, CopyEnd]);
    assert!(!p.awaits_copy_data());
    receive(&mut p, &["G"]);
    assert!(!p.awaits_copy_data() && p.len() == 1);
    receive(&mut p, &["C", "ZI"]);
    assert!(p.is_empty());
    send(&mut p, &[Query]);
    receive(&mut p, &["G"]);
    assert!(p.awaits_copy_data());
}

#[test]
fn a_copy_whose_mark_fails_costs_the_connection_and_nothing_else() {
    let mut p = Pipeline::default();
    send(&mut p, &[Execute, Sync]);
    receive(&mut p, &["G"]);
    send(&mut p, &[CopyEnd, Sync]);
    assert!(p.mark_copy());
    receive(&mut p, &["E", "ZI"]);
    assert_eq!(p.on_backend(b'E', b""), Ok(Verdict::Skip), "it belongs to no message of the client's");
    assert_eq!(p.on_backend(b'Z', b"I"), Ok(Verdict::Skip));
    assert!(p.is_spent() && !p.is_marked() && p.only_ours());
}
