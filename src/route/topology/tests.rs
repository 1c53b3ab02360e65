mod seen;

use seen::Seen;

use super::*;
use crate::route::cluster::Balance;

const ANY: ReplicaRules = ReplicaRules { lag: Duration::ZERO, lag_bytes: 0, warm_up: Duration::ZERO };
/// Longer than anything is waited for.
const LATE: u64 = 20_000_000;

#[test]
fn what_is_seen_decides() {
    /// What it is, what is seen, the primary, the hosts' states, who serves reads, where a connection that may write goes.
    type Case =
        (&'static str, fn(&mut Seen), Option<usize>, &'static str, &'static [usize], &'static [usize]);
    let cases: &[Case] = &[
        ("nothing is known", |_| {}, None, "unknown up, unknown up, unknown up", &[], &[0, 1, 2]),
        (
            "a primary and its replicas",
            |seen| {
                seen.replica(0, Some(1), 10, 5);
                seen.primary(1, 1, 20, 5);
                seen.replica(2, None, 30, 5);
            },
            Some(1),
            "replica up, primary up, replica up",
            &[0, 2],
            &[1],
        ),
        (
            "of two primaries that which is on the newer timeline",
            |seen| {
                seen.primary(0, 1, 10, 5);
                seen.primary(1, 2, 20, 5);
            },
            Some(1),
            "primary outdated, primary up, unknown up",
            &[],
            &[1, 2],
        ),
        (
            "of two primaries on one timeline the first",
            |seen| {
                seen.primary(1, 1, 10, 5);
                seen.primary(0, 1, 20, 5);
            },
            Some(0),
            "primary up, primary up, unknown up",
            &[],
            &[0, 1, 2],
        ),
        (
            "a silent primary is waited for as long as no other is there",
            |seen| {
                seen.primary(0, 1, 10, 5);
                seen.replica(1, Some(1), 20, 5);
                seen.replica(2, Some(1), 20, 5);
                seen.gone(0);
            },
            None,
            "primary down, replica up, replica up",
            &[1, 2],
            &[0],
        ),
        (
            "a silent primary that another one has replaced is lost",
            |seen| {
                seen.primary(0, 1, 10, 5);
                seen.gone(0);
                seen.primary(1, 2, 20, 5);
            },
            Some(1),
            "primary down lost, primary up, unknown up",
            &[],
            &[1, 2],
        ),
        (
            "a promoted host that has not told its timeline takes no writes, and is not lost",
            |seen| {
                seen.primary(0, 1, 10, 5);
                seen.logged_in(1, Role::Primary, Micros(20));
                seen.gone(1);
            },
            Some(0),
            "primary up, primary down, unknown up",
            &[],
            &[0, 2],
        ),
        (
            "a host that lets nobody in is closing: nothing new goes there, and it is not lost",
            |seen| {
                seen.primary(0, 1, 10, 5);
                seen.replica(2, Some(1), 20, 5);
                seen.set_closing(0, true);
                seen.set_closing(2, true);
                seen.gone(0);
                seen.primary(1, 2, 30, 5);
            },
            Some(1),
            "primary closing, primary up, replica closing",
            &[],
            &[1],
        ),
        (
            "a host that was closing and lets others in again",
            |seen| {
                seen.primary(0, 1, 10, 5);
                seen.set_closing(0, true);
                seen.gone(0);
                seen.set_closing(0, false);
                seen.primary(0, 1, 20, 5);
            },
            Some(0),
            "primary up, unknown up, unknown up",
            &[],
            &[0, 1, 2],
        ),
        (
            "a replica that has what the primary has never written",
            |seen| {
                seen.replica(1, Some(1), 10, 9);
                seen.primary(0, 1, 20, 5);
            },
            Some(0),
            "primary up, replica diverged, unknown up",
            &[],
            &[0, 2],
        ),
        (
            "a copy of other databases, and a primary of other ones",
            |seen| {
                seen.report_of(0, Role::Primary, 7, Some(3), 10, 5);
                seen.report_of(1, Role::Primary, 8, Some(9), 20, 5);
                seen.report_of(2, Role::Replica, 8, Some(9), 30, 5);
            },
            Some(0),
            "primary up, primary outdated, replica diverged",
            &[],
            &[0],
        ),
        (
            "a replica whose weight is 0",
            |seen| {
                seen.primary(0, 1, 10, 5);
                seen.replica(1, Some(1), 20, 5);
                seen.weights[1] = 0;
            },
            Some(0),
            "primary up, replica up, unknown up",
            &[],
            &[0, 2],
        ),
        (
            "a host whose name means another server now has still the role that it said",
            |seen| {
                seen.primary(0, 1, 10, 5);
                seen.watch_instance(0, Instance::new(3));
            },
            None,
            "primary outdated, unknown up, unknown up",
            &[],
            &[1, 2],
        ),
    ];
    for (what, events, primary, states, readers, writers) in cases {
        let mut seen = Seen::nothing();
        events(&mut seen);
        let decided = seen.decided();
        assert_eq!((decided.primary, &*seen.states()), (*primary, *states), "{what}");
        let reads: Vec<usize> = (0..3).filter(|&n| decided.can_read_from(n)).collect();
        assert_eq!((&*reads, decided.has_replica), (*readers, !readers.is_empty()), "{what}");
        assert_eq!(decided.candidates(Purpose::Write), *writers, "{what}");
        for host in 0..3 {
            let suits = writers.contains(&host) && decided.hosts.iter().any(|h| h.seen.role == Role::Primary);
            assert!(!suits || decided.suits(host, Purpose::Write), "{what}: {host}");
        }
    }
}

#[test]
fn a_revision_counts_what_makes_decisions_wrong() {
    let mut seen = Seen::nothing();
    seen.primary(0, 1, 100, 1000);
    seen.replica(1, Some(1), 200, 1000);
    let mut before = seen.decided();
    let mut counts = |what: &str, event: fn(&mut Seen), expected: bool| {
        event(&mut seen);
        let after = seen.decided().after(&before);
        assert_eq!(after.revision, before.revision + u64::from(expected), "{what}");
        before = after;
    };
    counts("nothing", |_| {}, false);
    counts("the primary writes on", |seen| seen.primary(0, 1, 300, 2000), false);
    counts("the replica follows", |seen| seen.replica(1, Some(1), 400, 2000), false);
    counts(
        "a replica is behind its own position of before",
        |seen| seen.replica(1, Some(1), 500, 1500),
        true,
    );
    counts("it follows again", |seen| seen.replica(1, Some(1), 600, 2000), false);
    counts("another server is watched", |seen| _ = seen.watch_instance(1, Instance::new(5)), true);
    counts("its first answer", |seen| seen.replica(1, Some(1), 700, 2000), true);
    counts("and the next one", |seen| seen.replica(1, Some(1), 800, 2000), false);
    counts("closing", |seen| seen.set_closing(1, true), true);
    counts("closing still", |seen| seen.set_closing(1, true), false);
    counts("open", |seen| seen.set_closing(1, false), true);
    counts("gone", |seen| _ = seen.gone(0), true);
    counts("gone for another reason", |seen| _ = seen.failed(0, "no route"), false);
    counts("promoted", |seen| seen.primary(1, 2, 900, 2000), true);
    counts("another weight", |seen| seen.weights[2] = 9, true);
    let other = Seen::nothing().decided().after(&before);
    assert_eq!(other.revision, before.revision + 1);
}

#[test]
fn without_a_split_hosts_take_turns_or_do_not() {
    let decided = |balance| Seen::of(&["a", "b", "c"], false, balance).decided();
    let turns = decided(Balance::RoundRobin);
    assert_eq!(turns.candidates(Purpose::Write), [0, 1, 2]);
    assert_eq!(turns.candidates(Purpose::Write), [1, 2, 0]);
    turns.cluster.connected(2);
    assert_eq!(turns.candidates(Purpose::Write), [2, 0, 1]);
    let same = decided(Balance::Disable);
    assert_eq!(same.candidates(Purpose::Write), [0, 1, 2]);
    assert_eq!(same.candidates(Purpose::Write), [0, 1, 2]);
    same.cluster.connected(1);
    assert_eq!(same.candidates(Purpose::Write), [1, 2, 0]);
    assert!(!same.has_replica && same.suits(0, Purpose::Write));
}

#[test]
fn roles_decide_and_not_the_order() {
    let mut seen = Seen::nothing();
    assert!(seen.logged_in(0, Role::Replica, Micros(1)));
    assert!(seen.logged_in(1, Role::Primary, Micros(1)));
    assert!(!seen.logged_in(1, Role::Primary, Micros(1)));
    let decided = seen.decided();
    assert_eq!(decided.candidates(Purpose::Write), [1, 2]);
    assert_eq!(decided.candidates(Purpose::Read(0)), [0]);
    assert!(decided.suits(0, Purpose::Read(0)) && !decided.suits(1, Purpose::Read(1)));
    assert!(!decided.leads_elsewhere(1, Purpose::Write) && decided.leads_elsewhere(2, Purpose::Write));
    assert!(decided.has_replica && decided.leads_elsewhere(0, Purpose::Read(9)));
    assert!(seen.gone(0));
    assert!(!seen.gone(0));
    assert!(!seen.decided().has_replica);
    seen.logged_in(1, Role::Replica, Micros(1));
    seen.logged_in(2, Role::Replica, Micros(1));
    assert_eq!(seen.decided().candidates(Purpose::Write), [0, 1, 2]);
}

#[test]
fn a_replica_serves_those_whose_writes_it_has() {
    let mut seen = Seen::nothing();
    seen.replica(1, Some(1), 50, 500);
    assert_eq!((seen.reads_after(0), seen.reads_after(1)), (Some(1), None), "nothing to compare it with");
    seen.primary(0, 1, 100, 1000);
    assert_eq!(seen.reads_after(99), None);
    seen.replica(1, Some(1), 150, 999);
    assert_eq!((seen.reads_after(99), seen.hosts[1].bytes_behind), (None, 1));
    seen.replica(1, Some(1), 200, 1000);
    assert_eq!((seen.reads_after(99), seen.reads_after(100)), (Some(1), None));
    seen.primary(0, 1, 300, 1000);
    assert_eq!(seen.reads_after(100), None, "it has not been asked since");
    seen.replica(1, Some(1), 400, 1000);
    assert_eq!((seen.reads_after(299), seen.reads_after(300)), (Some(1), None));
}

#[test]
fn what_comes_back_has_to_prove_itself_again() {
    let mut seen = Seen::nothing();
    seen.primary(0, 1, 100, 1000);
    seen.replica(1, Some(1), 200, 1000);
    seen.gone(1);
    assert_eq!(seen.reads_after(0), None);
    seen.logged_in(1, Role::Replica, Micros(1));
    assert_eq!((seen.reads_after(0), seen.reads_after(50)), (Some(1), None));
    // Restored from an old copy, without our having missed it.
    seen.replica(1, Some(1), 300, 1000);
    assert_eq!(seen.reads_after(50), Some(1));
    seen.replica(1, Some(1), 400, 900);
    assert_eq!(seen.reads_after(50), None);
}

#[test]
fn of_several_servers_only_the_watched_one_is_known() {
    let mut seen = Seen::nothing();
    let [first, second] = [3, 4].map(Instance::new);
    let is_other = |seen: &Seen, instance| seen.decided().hosts[1].is_other(instance);
    assert!(!is_other(&seen, first));
    assert_eq!(seen.watch_instance(1, first), None);
    assert!(!is_other(&seen, first) && is_other(&seen, second) && is_other(&seen, None));
    seen.primary(0, 1, 100, 1000);
    seen.replica(1, Some(1), 200, 1000);
    assert_eq!(seen.reads_after(50), Some(1));
    assert_eq!(seen.watch_instance(1, second), first);
    assert_eq!((seen.reads_after(50), seen.hosts[1].position), (None, None));
    assert!(is_other(&seen, first) && !is_other(&seen, second));
    // The other server is at an earlier position, which is no way back.
    seen.replica(1, Some(1), 300, 900);
    assert_eq!((seen.reads_after(0), seen.reads_after(50)), (Some(1), None));
}

#[test]
fn a_replica_too_far_behind_serves_nobody() {
    let mut seen = Seen::nothing();
    seen.primary(0, 1, 100, 1000);
    seen.replica(1, Some(1), 200, 1000);
    seen.primary(0, 1, 300, 5000);
    seen.replica(1, Some(1), 400, 3000);
    let decided = seen.decided();
    let within = |micros, bytes| {
        let max = ReplicaRules { lag: Duration::from_micros(micros), lag_bytes: bytes, ..ANY };
        decided.replica(Micros(0), &max, Micros(1100)).is_some()
    };
    assert!(within(0, 0) && within(1000, 2000));
    assert!(!within(999, 0) && !within(0, 1999));
    assert_eq!(decided.hosts[1].lag(Micros(1100)), Some(Duration::from_micros(1000)));
    assert_eq!(decided.hosts[0].lag(Micros(1100)), None);
}

#[test]
fn reads_go_to_the_replica_with_least_to_do_and_take_turns() {
    let mut seen = Seen::nothing();
    for host in 0..3 {
        seen.logged_in(host, Role::Replica, Micros(1));
    }
    let mut counts = [0; 3];
    for _ in 0..30 {
        counts[seen.reads_after(0).unwrap()] += 1;
    }
    assert!(counts.iter().all(|&n| (8..=12).contains(&n)), "{counts:?}");
    seen.cluster.hosts[0].counters.busy.store(1, Relaxed);
    seen.cluster.hosts[2].counters.busy.store(1, Relaxed);
    assert!((0..5).all(|_| seen.reads_after(0) == Some(1)));
}

#[test]
fn of_two_primaries_the_older_gets_nothing() {
    let mut seen = Seen::nothing();
    seen.primary(0, 1, 100, 1000);
    assert_eq!(seen.decided().primary, Some(0));
    seen.primary(1, 2, 200, 1010);
    let decided = seen.decided();
    assert_eq!((decided.primary, decided.candidates(Purpose::Write)), (Some(1), vec![1, 2]));
    assert_eq!(decided.hosts[0].obstacle, Some(Obstacle::Outdated(2)));
    // Even if the newer one has gone.
    seen.gone(1);
    seen.primary(0, 1, 300, 1020);
    let decided = seen.decided();
    assert_eq!((decided.primary, decided.suits(0, Purpose::Write)), (None, false));
    // What has just been promoted has to say to which timeline.
    seen.logged_in(2, Role::Primary, Micros(1));
    assert!(!seen.decided().suits(2, Purpose::Write));
    seen.primary(2, 3, 400, 1100);
    assert_eq!(seen.decided().primary, Some(2));
}

#[test]
fn positions_of_different_timelines_are_not_compared() {
    let mut seen = Seen::nothing();
    seen.primary(0, 1, 100, 1000);
    seen.replica(2, Some(1), 150, 1000);
    seen.primary(1, 2, 200, 900);
    seen.replica(2, Some(1), 300, 2000);
    assert_eq!(seen.reads_after(150), None, "it follows the old primary");
    seen.replica(2, None, 310, 2000);
    assert_eq!(seen.reads_after(150), None, "it may");
    seen.gone(0);
    seen.primary(1, 2, 400, 1900);
    let decided = seen.decided();
    assert!(decided.hosts[2].seen.diverged, "no other host can have written what it has");
    assert_eq!((seen.reads_after(0), decided.has_replica), (None, false));
}

#[test]
fn a_replica_ahead_of_an_older_answer_has_not_diverged() {
    let mut seen = Seen::nothing();
    seen.replica(1, None, 200, 2000);
    // Asked before.
    seen.primary(0, 1, 150, 1000);
    assert!(!seen.hosts[1].diverged);
    seen.replica(1, None, 250, 2000);
    assert_eq!(seen.reads_after(149), Some(1));
}

#[test]
fn a_weight_of_zero_means_no_reads() {
    let mut seen = Seen::of(&["a", "b"], true, Balance::RoundRobin);
    seen.weights[0] = 0;
    seen.logged_in(0, Role::Replica, Micros(1));
    assert!(!seen.decided().has_replica);
    assert_eq!(seen.decided().hosts[0].obstacle.as_ref().map(Obstacle::why), Some("its weight is 0".into()));
    seen.logged_in(1, Role::Replica, Micros(1));
    assert_eq!(seen.reads_after(0), Some(1));
}

#[test]
fn a_replica_that_comes_back_is_warmed_up_and_one_that_was_there_is_not() {
    let rules = ReplicaRules { warm_up: Duration::from_secs(10), ..ANY };
    let second = |n: u64| Micros(n * 1_000_000);
    let warmth = |seen: &Seen, n: usize, at: u64| seen.decided().hosts[n].warmth(rules.warm_up, second(at));
    let reads = |seen: &Seen| {
        let decided = seen.decided();
        (0..100).filter(|_| decided.replica(Micros(0), &rules, second(5)).is_some()).count()
    };
    let mut seen = Seen::nothing();
    seen.logged_in(0, Role::Primary, second(1));
    seen.logged_in(1, Role::Replica, second(1));
    assert_eq!((warmth(&seen, 0, 1), warmth(&seen, 1, 1)), (WARM, WARM));
    seen.gone(1);
    seen.logged_in(1, Role::Replica, second(5));
    let warmths = [5, 10, 15].map(|at| warmth(&seen, 1, at));
    assert_eq!(warmths, [WARM / 10, WARM * 55 / 100, WARM]);
    assert!((8..=12).contains(&reads(&seen)), "{}", reads(&seen));
    // Nobody else could serve them.
    seen.gone(0);
    assert_eq!(reads(&seen), 100);
    // A primary that has become a replica, and one that was down from the beginning.
    seen.logged_in(0, Role::Replica, second(20));
    seen.failed(2, "not there yet");
    seen.logged_in(2, Role::Replica, second(20));
    assert_eq!((warmth(&seen, 0, 20), warmth(&seen, 2, 20)), (WARM / 10, WARM / 10));

    let mut others = Seen::of(&["b", "d"], true, Balance::RoundRobin);
    let mut before = Seen::nothing();
    before.gone(2);
    others.warm_up_new_ones(&before, second(30));
    assert_eq!([warmth(&others, 0, 30), warmth(&others, 1, 30)], [WARM, WARM / 10]);
    others.warm_up_new_ones(&seen, second(30));
    assert_eq!(warmth(&others, 0, 10), WARM * 55 / 100);
}

#[test]
fn databases_made_anew_begin_with_timeline_one() {
    let mut seen = Seen::nothing();
    let note = |seen: &mut Seen, host: usize, role: Role, system: u64, timeline: u32, asked: u64| {
        seen.report_of(host, role, system, Some(timeline), asked, asked)
    };
    note(&mut seen, 0, Role::Primary, 7, 3, 100);
    note(&mut seen, 1, Role::Replica, 7, 3, 101);
    assert_eq!((seen.decided().primary, seen.reads_after(0)), (Some(0), Some(1)));
    // Not as long as a host has the others, or has had them just now.
    note(&mut seen, 2, Role::Primary, 8, 1, 110);
    note(&mut seen, 0, Role::Primary, 7, 3, 120);
    let decided = seen.decided();
    assert_eq!((decided.primary, &decided.hosts[2].obstacle), (Some(0), &Some(Obstacle::OtherDatabases)));
    seen.gone(0);
    note(&mut seen, 2, Role::Primary, 8, 1, LATE - 2);
    let decided = seen.decided();
    assert_eq!((decided.primary, decided.hosts[0].is_lost), (None, false));
    note(&mut seen, 1, Role::Replica, 7, 3, LATE - 1);
    seen.gone(1);
    assert!(!note(&mut seen, 2, Role::Primary, 8, 1, LATE));
    assert_eq!(seen.decided().primary, None);
    assert!(note(&mut seen, 2, Role::Primary, 8, 1, 2 * LATE));
    let decided = seen.decided();
    assert_eq!((decided.primary, decided.timeline), (Some(2), Some(1)));
    assert!(decided.hosts[0].is_lost && !decided.hosts[2].is_lost);
    // A copy of the old ones serves nobody, and they do not come back.
    note(&mut seen, 1, Role::Replica, 7, 3, 2 * LATE + 10);
    assert_eq!(seen.reads_after(0), None);
    assert_eq!(seen.decided().hosts[1].obstacle, Some(Obstacle::CopyOfOtherDatabases));
    note(&mut seen, 0, Role::Primary, 7, 4, 2 * LATE + 20);
    note(&mut seen, 2, Role::Primary, 8, 1, 2 * LATE + 30);
    let decided = seen.decided();
    assert_eq!((decided.primary, decided.hosts[0].is_outdated), (Some(2), true));
    // Nor is anything of the old positions left.
    seen.watch_instance(1, Instance::new(5));
    note(&mut seen, 1, Role::Replica, 8, 1, 2 * LATE + 25);
    assert_eq!((seen.reads_after(2 * LATE - 1), seen.reads_after(2 * LATE + 5)), (Some(1), None));
    // The replica may be seen before its primary.
    (0..3).for_each(|host| _ = seen.gone(host));
    seen.watch_instance(1, Instance::new(6));
    note(&mut seen, 1, Role::Replica, 9, 1, 3 * LATE);
    assert_eq!(seen.reads_after(0), None);
    note(&mut seen, 2, Role::Primary, 9, 1, 3 * LATE);
    assert_eq!(seen.reads_after(0), Some(1));
}
