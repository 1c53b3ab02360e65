//! Rounds on the hot path, for `scripts/instructions` to count what they cost. Times are `hot_path`'s job.
//!
//! Valgrind counts what runs in [`counted`], which each of them enters once. Their names go to standard output, in order.

#![allow(clippy::print_stdout, reason = "the names are for the script that counts")]

mod scenarios;

use std::hint::black_box;

use pgweir::pool::Lane;
use pgweir::sql::{self, Catalog};
use scenarios::Pair;

/// Rounds that are counted of each.
const ROUNDS: usize = 100;
/// Rounds before that: buffers have grown, and what is made once is made.
const WARM_UP: usize = 20;

fn main() {
    println!("rounds {ROUNDS}");
    for (name, exchange) in [
        ("simple-query", scenarios::simple_query()),
        ("extended-batch", scenarios::extended_batch()),
        ("prepared-batch", scenarios::prepared_batch()),
    ] {
        let mut pair = Pair::default();
        pair.transaction(&scenarios::prepare());
        count(name, &mut || pair.transaction(black_box(&exchange)));
    }

    let rows = scenarios::rows();
    let mut pair = Pair::default();
    pair.ask();
    count("result-of-1-MB", &mut || {
        for _ in 0..16 {
            black_box(pair.result(black_box(&rows)));
        }
    });

    let catalog = Catalog::default();
    for (name, text) in
        [("classify-select", scenarios::SELECT.to_owned()), ("classify-orm-select", scenarios::orm_select())]
    {
        count(name, &mut || {
            black_box(sql::classify(black_box(text.as_bytes()), Some(&catalog)));
        });
    }

    let pool = Lane::new(2);
    for server in 0..8 {
        assert!(pool.put_back(server % 2, Box::new(server)).is_none());
    }
    count("checkout-and-put-back", &mut || {
        let back = pool.checkout(black_box(0)).and_then(|server| pool.put_back(0, server));
        assert!(back.is_none());
    });
}

fn count(name: &str, round: &mut dyn FnMut()) {
    for _ in 0..WARM_UP {
        round();
    }
    println!("{name}");
    counted(round);
}

#[inline(never)]
fn counted(round: &mut dyn FnMut()) {
    for _ in 0..ROUNDS {
        round();
    }
}
