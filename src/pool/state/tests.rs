use std::task::Waker;

use proptest::prelude::*;

use super::*;
use crate::pool::{Lane, Outcome};

fn sizes(pool: usize, reserve: usize) -> Sizes {
    Sizes { pool, reserve, reserve_timeout: Duration::from_secs(5) }
}

fn waiter(worker: usize, now: u64) -> Arc<Waiter<u32>> {
    let waiter = Arc::new(Waiter::new(worker));
    waiter.start(Micros(now), Waker::noop());
    waiter
}

fn granted(waiter: &Waiter<u32>) -> Option<u32> {
    match waiter.poll(&mut std::task::Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(Outcome::Granted(server)) => Some(server),
        _ => None,
    }
}

#[test]
fn idle_servers_are_reused_last_in_first_out_and_stolen_when_there_is_no_other() {
    let mut state = PoolState::new(2);
    for server in [1, 2] {
        assert!(matches!(state.put_back(0, server), PutBack::Idle));
    }
    assert!(matches!(state.put_back(1, 3), PutBack::Idle));
    assert_eq!(
        [state.checkout(0), state.checkout(0), state.checkout(0), state.checkout(0)],
        [Some(2), Some(1), Some(3), None]
    );
}

#[test]
fn idle_servers_take_turns_if_they_are_to() {
    let lane = Lane::new(1);
    lane.set_round_robin(true);
    for server in [1, 2, 3] {
        assert!(lane.put_back(0, server).is_none());
    }
    for expected in [1, 2, 3, 1] {
        let server = lane.checkout(0).unwrap();
        assert_eq!(server, expected);
        assert!(lane.put_back(0, server).is_none());
    }
}

#[test]
fn the_queue_is_first_in_first_out() {
    let lane = Lane::new(1);
    let queue: Vec<_> = (0..3).map(|n| waiter(0, n)).collect();
    for w in &queue {
        lane.wait(Arc::clone(w));
    }
    for server in 0..3 {
        assert!(lane.put_back(0, server).is_none());
    }
    assert_eq!(queue.iter().map(|w| granted(w)).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
}

#[test]
fn nobody_starves_on_the_other_worker() {
    let lane = Lane::new(2);
    let far = waiter(1, 0);
    lane.wait(Arc::clone(&far));
    for _ in 0..LOCAL_WINDOW - 1 {
        lane.wait(waiter(0, 1));
    }
    for server in 0..LOCAL_WINDOW as u32 {
        assert!(lane.put_back(0, server).is_none());
    }
    assert_eq!(granted(&far), Some(LOCAL_WINDOW as u32 - 1));
}

#[test]
fn connections_are_opened_for_those_who_wait_up_to_the_size() {
    let mut state = PoolState::<u32>::new(1);
    assert_eq!(state.launch(&sizes(2, 1), Micros(0)), None, "nobody waits");
    for n in 0..4 {
        state.wait(waiter(0, n));
    }
    assert_eq!(state.launch(&sizes(2, 1), Micros(9)), Some(Launch::Regular));
    assert_eq!(state.launch(&sizes(2, 1), Micros(9)), None, "the first one shows how it goes");
    assert!(!state.launch_spare(2, Micros(9)));
    state.connecting = 0;
    assert_eq!(state.launch(&sizes(2, 1), Micros(9)), Some(Launch::Regular));
    assert_eq!(state.launch(&sizes(2, 1), Micros(9)), None);
    assert_eq!(state.launch(&sizes(2, 1), Micros(5_000_000)), Some(Launch::Reserve));
    assert_eq!(state.launch(&sizes(2, 1), Micros(5_000_000)), None);
}

#[test]
fn after_a_failure_one_at_a_time_and_not_too_soon() {
    let lane = Lane::<u32>::new(1);
    for n in 0..3 {
        lane.wait(waiter(0, n));
    }
    assert!(lane.launch(&sizes(3, 0), Micros(1)).is_some());
    lane.connect_failed(|failures| (Micros(1 + 100 * u64::from(failures)), Micros(1)));
    assert!(lane.launch(&sizes(3, 0), Micros(100)).is_none());
    assert!(lane.launch(&sizes(3, 0), Micros(101)).is_some());
    assert!(lane.launch(&sizes(3, 0), Micros(101)).is_none());
    lane.connected();
    assert!(lane.launch(&sizes(3, 0), Micros(101)).is_some());
}

#[test]
fn a_paused_lane_keeps_nothing_and_gives_nothing() {
    let lane = Lane::new(1);
    assert!(lane.put_back(0, 1).is_none());
    lane.set_paused(true);
    assert_eq!(lane.checkout(0), None);
    assert_eq!(lane.put_back(0, 2), Some(2));
    let w = waiter(0, 0);
    lane.wait(Arc::clone(&w));
    assert_eq!(lane.launch(&sizes(5, 0), Micros(0)), None);
    lane.set_paused(false);
    lane.serve_waiters(0);
    assert_eq!(granted(&w), Some(1));
}

#[derive(Clone, Debug)]
enum Op {
    Checkout,
    PutBack,
    GiveUp(usize),
    Launch,
    Connected,
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Checkout),
        3 => Just(Op::PutBack),
        1 => (0usize..8).prop_map(Op::GiveUp),
        2 => Just(Op::Launch),
        2 => Just(Op::Connected),
        1 => Just(Op::Close),
    ]
}

proptest! {
    /// Whatever happens in whatever order: never more connections than the limit, each server in one place, and
    /// nobody waits while a server is idle.
    #[test]
    fn the_books_balance(ops in prop::collection::vec((op(), 0usize..2), 0..200)) {
        let lane = Arc::new(Lane::<u32>::new(2));
        let (mut in_use, mut waiting, mut connecting, mut next) = (Vec::new(), Vec::<Arc<Waiter<u32>>>::new(), 0, 0);
        let mut places = std::collections::HashMap::new();
        for (op, worker) in ops {
            match op {
                Op::Checkout => match lane.checkout(worker) {
                    Some(server) => in_use.push(server),
                    None => {
                        let w = waiter(worker, 0);
                        lane.wait(Arc::clone(&w));
                        waiting.push(w);
                    }
                },
                Op::PutBack => if let Some(server) = in_use.pop() {
                    prop_assert!(lane.put_back(worker, server).is_none());
                },
                Op::GiveUp(n) => if n < waiting.len() {
                    if let Some(server) = lane.give_up(&waiting.remove(n)) {
                        in_use.push(server);
                    }
                },
                Op::Launch => connecting += usize::from(lane.launch(&sizes(3, 0), Micros(1)).is_some()),
                Op::Connected => if connecting > 0 {
                    connecting -= 1;
                    lane.connected();
                    next += 1;
                    places.insert(next, crate::pool::Place::new(Arc::clone(&lane)));
                    prop_assert!(lane.put_back(worker, next).is_none());
                },
                Op::Close => if let Some(server) = in_use.pop() {
                    places.remove(&server);
                },
            }
            waiting.retain(|w| granted(w).map(|server| in_use.push(server)).is_none());
            let counts = lane.counts();
            prop_assert!(counts.open <= 3);
            prop_assert_eq!(counts.open, in_use.len() + counts.idle + connecting);
            prop_assert_eq!(counts.waiting, waiting.len());
            prop_assert!(counts.idle == 0 || counts.waiting == 0);
        }
    }
}
