use super::*;
use crate::route::wal::Lsn;

const ANY: ReplicaRules = ReplicaRules { lag: Duration::ZERO, lag_bytes: 0, warm_up: Duration::ZERO };

fn cluster(split: bool, balance: Balance) -> Cluster {
    let hosts = [("a", 1), ("b", 2), ("c", 3)].map(|(name, port)| Host::new(name.into(), port, 1));
    Cluster::new(hosts.into(), split, balance)
}

/// A host answers a question that was sent at `asked`, a microsecond later.
fn report(role: Role, timeline: Option<u32>, asked: u64, position: u64) -> Report {
    Report {
        asked: Micros(asked),
        answered: Micros(asked + 1),
        role,
        system: 0,
        timeline,
        position: Some(Lsn(position)),
    }
}

fn primary(cluster: &Cluster, host: usize, timeline: u32, asked: u64, position: u64) {
    cluster.note(host, &report(Role::Primary, Some(timeline), asked, position));
}

fn replica(cluster: &Cluster, host: usize, timeline: Option<u32>, asked: u64, position: u64) {
    cluster.note(host, &report(Role::Replica, timeline, asked, position));
}

fn reads_after(cluster: &Cluster, write: u64) -> Option<usize> {
    cluster.replica(Micros(write), &ANY, Micros(10_000))
}

#[test]
fn without_a_split_hosts_take_turns_or_do_not() {
    let hosts = cluster(false, Balance::RoundRobin);
    assert_eq!(hosts.candidates(Purpose::Write), [0, 1, 2]);
    assert_eq!(hosts.candidates(Purpose::Write), [1, 2, 0]);
    hosts.connected(2);
    assert_eq!(hosts.candidates(Purpose::Write), [2, 0, 1]);
    let hosts = cluster(false, Balance::Disable);
    assert_eq!(hosts.candidates(Purpose::Write), [0, 1, 2]);
    assert_eq!(hosts.candidates(Purpose::Write), [0, 1, 2]);
    hosts.connected(1);
    assert_eq!(hosts.candidates(Purpose::Write), [1, 2, 0]);
    assert!(!hosts.has_replica());
}

#[test]
fn roles_decide_and_not_the_order() {
    let hosts = cluster(true, Balance::RoundRobin);
    assert!(!hosts.has_replica());
    assert!(hosts.hosts[0].answered(Role::Replica, Micros(1)));
    assert!(hosts.hosts[1].answered(Role::Primary, Micros(1)));
    assert!(!hosts.hosts[1].answered(Role::Primary, Micros(1)));
    assert_eq!(hosts.candidates(Purpose::Write), [1, 2]);
    assert_eq!(hosts.candidates(Purpose::Read(0)), [0]);
    assert!(hosts.suits(0, Purpose::Read(0)) && !hosts.suits(1, Purpose::Read(1)));
    assert!(hosts.has_replica());
    assert!(hosts.hosts[0].failed("gone".into()));
    assert!(!hosts.hosts[0].failed("gone".into()));
    assert!(!hosts.has_replica());
    hosts.hosts[1].answered(Role::Replica, Micros(1));
    hosts.hosts[2].answered(Role::Replica, Micros(1));
    assert_eq!(hosts.candidates(Purpose::Write), [0, 1, 2]);
}

#[test]
fn a_replica_serves_those_whose_writes_it_has() {
    let hosts = cluster(true, Balance::RoundRobin);
    replica(&hosts, 1, Some(1), 50, 500);
    assert_eq!(
        (reads_after(&hosts, 0), reads_after(&hosts, 1)),
        (Some(1), None),
        "nothing to compare it with"
    );
    primary(&hosts, 0, 1, 100, 1000);
    assert_eq!(reads_after(&hosts, 99), None);
    replica(&hosts, 1, Some(1), 150, 999);
    assert_eq!((reads_after(&hosts, 99), hosts.hosts[1].bytes_behind()), (None, 1));
    replica(&hosts, 1, Some(1), 200, 1000);
    assert_eq!((reads_after(&hosts, 99), reads_after(&hosts, 100)), (Some(1), None));
    primary(&hosts, 0, 1, 300, 1000);
    assert_eq!(reads_after(&hosts, 100), None, "it has not been asked since");
    replica(&hosts, 1, Some(1), 400, 1000);
    assert_eq!((reads_after(&hosts, 299), reads_after(&hosts, 300)), (Some(1), None));
}

#[test]
fn what_comes_back_has_to_prove_itself_again() {
    let hosts = cluster(true, Balance::RoundRobin);
    primary(&hosts, 0, 1, 100, 1000);
    replica(&hosts, 1, Some(1), 200, 1000);
    hosts.hosts[1].failed("gone".into());
    assert_eq!(reads_after(&hosts, 0), None);
    hosts.hosts[1].answered(Role::Replica, Micros(1));
    assert_eq!((reads_after(&hosts, 0), reads_after(&hosts, 50)), (Some(1), None));
    // Restored from an old copy, without our having missed it.
    replica(&hosts, 1, Some(1), 300, 1000);
    assert_eq!(reads_after(&hosts, 50), Some(1));
    replica(&hosts, 1, Some(1), 400, 900);
    assert_eq!(reads_after(&hosts, 50), None);
}

#[test]
fn a_replica_too_far_behind_serves_nobody() {
    let hosts = cluster(true, Balance::RoundRobin);
    primary(&hosts, 0, 1, 100, 1000);
    replica(&hosts, 1, Some(1), 200, 1000);
    primary(&hosts, 0, 1, 300, 5000);
    replica(&hosts, 1, Some(1), 400, 3000);
    let within = |micros, bytes| {
        let max = ReplicaRules { lag: Duration::from_micros(micros), lag_bytes: bytes, ..ANY };
        hosts.replica(Micros(0), &max, Micros(1100)).is_some()
    };
    assert!(within(0, 0) && within(1000, 2000));
    assert!(!within(999, 0) && !within(0, 1999));
}

#[test]
fn reads_go_to_whoever_has_least_to_do_and_take_turns() {
    let hosts = cluster(true, Balance::RoundRobin);
    for host in 0..3 {
        hosts.hosts[host].answered(Role::Replica, Micros(1));
    }
    let mut seen = [0; 3];
    for _ in 0..30 {
        seen[reads_after(&hosts, 0).unwrap()] += 1;
    }
    assert!(seen.iter().all(|&n| (8..=12).contains(&n)), "{seen:?}");
    hosts.hosts[0].busy.store(1, Relaxed);
    hosts.hosts[2].busy.store(1, Relaxed);
    assert!((0..5).all(|_| reads_after(&hosts, 0) == Some(1)));
}

#[test]
fn of_two_primaries_the_older_gets_nothing() {
    let hosts = cluster(true, Balance::RoundRobin);
    primary(&hosts, 0, 1, 100, 1000);
    assert_eq!(hosts.primary(), Some(0));
    primary(&hosts, 1, 2, 200, 1010);
    assert_eq!((hosts.primary(), hosts.candidates(Purpose::Write)), (Some(1), vec![1, 2]));
    assert!(hosts.is_outdated(0) && hosts.obstacle(0).unwrap().0 == "outdated");
    // Even if the newer one has gone.
    hosts.hosts[1].failed("gone".into());
    primary(&hosts, 0, 1, 300, 1020);
    assert_eq!((hosts.primary(), hosts.suits(0, Purpose::Write)), (None, false));
    // What has just been promoted has to say to which timeline.
    hosts.hosts[2].answered(Role::Primary, Micros(1));
    assert!(!hosts.suits(2, Purpose::Write));
    primary(&hosts, 2, 3, 400, 1100);
    assert_eq!(hosts.primary(), Some(2));
}

#[test]
fn positions_of_different_timelines_are_not_compared() {
    let hosts = cluster(true, Balance::RoundRobin);
    primary(&hosts, 0, 1, 100, 1000);
    replica(&hosts, 2, Some(1), 150, 1000);
    primary(&hosts, 1, 2, 200, 900);
    replica(&hosts, 2, Some(1), 300, 2000);
    assert_eq!(reads_after(&hosts, 150), None, "it follows the old primary");
    replica(&hosts, 2, None, 310, 2000);
    assert_eq!(reads_after(&hosts, 150), None, "it may");
    hosts.hosts[0].failed("gone".into());
    primary(&hosts, 1, 2, 400, 1900);
    assert!(hosts.hosts[2].has_diverged(), "nobody else can have written what it has");
    assert_eq!((reads_after(&hosts, 0), hosts.has_replica()), (None, false));
}

#[test]
fn a_replica_ahead_of_an_older_answer_has_not_diverged() {
    let hosts = cluster(true, Balance::RoundRobin);
    replica(&hosts, 1, None, 200, 2000);
    // Asked before.
    primary(&hosts, 0, 1, 150, 1000);
    assert!(!hosts.hosts[1].has_diverged());
    replica(&hosts, 1, None, 250, 2000);
    assert_eq!(reads_after(&hosts, 149), Some(1));
}

#[test]
fn a_weight_of_zero_means_no_reads() {
    let hosts = ["a", "b"].map(|name| Host::new(name.into(), 1, u32::from(name == "b")));
    let hosts = Cluster::new(hosts.into(), true, Balance::RoundRobin);
    hosts.hosts[0].answered(Role::Replica, Micros(1));
    assert!(!hosts.has_replica());
    hosts.hosts[1].answered(Role::Replica, Micros(1));
    assert_eq!(reads_after(&hosts, 0), Some(1));
}

#[test]
fn who_comes_back_is_warmed_up_and_who_was_there_is_not() {
    let rules = ReplicaRules { warm_up: Duration::from_secs(10), ..ANY };
    let second = |n: u64| Micros(n * 1_000_000);
    let hosts = cluster(true, Balance::RoundRobin);
    let warmth = |n: usize, at: u64| hosts.hosts[n].warmth(rules.warm_up, second(at));
    hosts.hosts[0].answered(Role::Primary, second(1));
    hosts.hosts[1].answered(Role::Replica, second(1));
    assert_eq!((warmth(0, 1), warmth(1, 1)), (WARM, WARM));
    hosts.hosts[1].failed("gone".into());
    hosts.hosts[1].answered(Role::Replica, second(5));
    assert_eq!((warmth(1, 5), warmth(1, 10), warmth(1, 15)), (WARM / 10, WARM * 55 / 100, WARM));
    let reads = (0..100).filter(|_| hosts.replica(Micros(0), &rules, second(5)).is_some()).count();
    assert!((8..=12).contains(&reads), "{reads}");
    // Nobody else could serve them.
    hosts.hosts[0].failed("gone".into());
    assert!((0..100).all(|_| hosts.replica(Micros(0), &rules, second(5)).is_some()));
    // A primary that has become a replica, and one that was down from the beginning.
    hosts.hosts[0].answered(Role::Replica, second(20));
    hosts.hosts[2].failed("not there yet".into());
    hosts.hosts[2].answered(Role::Replica, second(20));
    assert_eq!((warmth(0, 20), warmth(2, 20)), (WARM / 10, WARM / 10));

    let others = ["b", "c", "d"].map(|name| Host::new(name.into(), if name == "b" { 2 } else { 3 }, 1));
    let others = Cluster::new(others.into(), true, Balance::RoundRobin);
    others.warm_up_new_ones(&hosts, second(30));
    let warmth = |n: usize| others.hosts[n].warmth(rules.warm_up, second(30));
    assert_eq!([warmth(0), warmth(1), warmth(2)], [WARM, WARM, WARM / 10]);
}

#[test]
fn it_is_told_once_who_takes_writes() {
    let hosts = cluster(true, Balance::RoundRobin);
    let changed = |at: u64| hosts.note_primary_change(Micros(at));
    assert_eq!(changed(10), None);
    primary(&hosts, 0, 1, 100, 1000);
    assert_eq!(changed(110), Some(PrimaryChange::Found { primary: 0, without: None }));
    assert_eq!(changed(120), None);
    hosts.hosts[0].failed("gone".into());
    assert_eq!((changed(200), changed(300)), (Some(PrimaryChange::Lost), None));
    primary(&hosts, 1, 2, 400, 1000);
    let without = Some(Duration::from_micros(250));
    assert_eq!(changed(450), Some(PrimaryChange::Found { primary: 1, without }));
    primary(&hosts, 2, 3, 500, 1000);
    assert_eq!(changed(600), Some(PrimaryChange::Found { primary: 2, without: None }));
}

#[test]
fn databases_made_anew_begin_with_timeline_one() {
    const LATE: u64 = 20_000_000;
    let hosts = cluster(true, Balance::RoundRobin);
    let note = |host: usize, role: Role, system: u64, timeline: u32, asked: u64| {
        hosts.note(host, &Report { system, ..report(role, Some(timeline), asked, asked) })
    };
    let gone = |host: usize| hosts.hosts[host].failed("gone".into());
    note(0, Role::Primary, 7, 3, 100);
    note(1, Role::Replica, 7, 3, 101);
    assert_eq!((hosts.primary(), reads_after(&hosts, 0)), (Some(0), Some(1)));
    // Not as long as somebody has the others, or has had them just now.
    note(2, Role::Primary, 8, 1, 110);
    note(0, Role::Primary, 7, 3, 120);
    assert_eq!((hosts.primary(), hosts.is_outdated(2)), (Some(0), true));
    assert!(hosts.obstacle(2).unwrap().1.contains("other ones"));
    gone(0);
    note(2, Role::Primary, 8, 1, LATE - 2);
    assert_eq!((hosts.primary(), hosts.is_lost(0)), (None, false));
    note(1, Role::Replica, 7, 3, LATE - 1);
    gone(1);
    assert!(!note(2, Role::Primary, 8, 1, LATE));
    assert_eq!(hosts.primary(), None);
    assert!(note(2, Role::Primary, 8, 1, 2 * LATE));
    assert_eq!((hosts.primary(), hosts.timeline()), (Some(2), 1));
    assert!(hosts.is_lost(0) && !hosts.is_lost(2) && !hosts.is_lost(3));
    // A copy of the old ones serves nobody, and they do not come back.
    note(1, Role::Replica, 7, 3, 2 * LATE + 10);
    assert_eq!(reads_after(&hosts, 0), None);
    assert!(hosts.obstacle(1).unwrap().1.contains("other databases"));
    note(0, Role::Primary, 7, 4, 2 * LATE + 20);
    note(2, Role::Primary, 8, 1, 2 * LATE + 30);
    assert_eq!((hosts.primary(), hosts.is_outdated(0)), (Some(2), true));
    // Nor is anything of the old positions left.
    hosts.hosts[1].set_instance(5);
    note(1, Role::Replica, 8, 1, 2 * LATE + 25);
    assert_eq!((reads_after(&hosts, 2 * LATE - 1), reads_after(&hosts, 2 * LATE + 5)), (Some(1), None));
    // The replica may be seen before its primary.
    (0..3).for_each(|host| _ = gone(host));
    hosts.hosts[1].set_instance(6);
    note(1, Role::Replica, 9, 1, 3 * LATE);
    assert_eq!(reads_after(&hosts, 0), None);
    note(2, Role::Primary, 9, 1, 3 * LATE);
    assert_eq!(reads_after(&hosts, 0), Some(1));
}
