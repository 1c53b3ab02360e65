//! A short run of every fuzz target: its seeds, what becomes of them when bytes are changed, and noise. `scripts/fuzz`
//! searches for longer, and is led by what it reaches.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../fuzz/targets/cost.rs"]
#[allow(unsafe_code, reason = "only an allocator can count what is allocated")]
mod cost;
#[path = "../fuzz/targets/mod.rs"]
mod targets;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

use targets::{TARGETS, Target};

/// A change to an input.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// Repeats a part at another place.
    Copy(Index, usize, Index),
}

impl Change {
    fn any() -> impl Strategy<Value = Self> {
        let bytes = prop_oneof![any::<u8>(), select(&b"\0\x01\x04\x7f\x80\xff '\"\\;,=#@$%*(\n"[..])];
        prop_oneof![
            (any::<Index>(), bytes.clone()).prop_map(|(at, byte)| Self::Set(at, byte)),
            (any::<Index>(), prop::collection::vec(bytes, 1..6)).prop_map(|(at, new)| Self::Insert(at, new)),
            (any::<Index>(), 1..40usize).prop_map(|(at, len)| Self::Remove(at, len)),
            (any::<Index>(), 1..40usize, any::<Index>()).prop_map(|(at, len, to)| Self::Copy(at, len, to)),
        ]
    }

    fn apply(&self, input: &mut Vec<u8>) {
        let size = input.len() + 1;
        match self {
            Self::Set(at, byte) => {
                if let Some(old) = input.get_mut(at.index(size)) {
                    *old = *byte;
                }
            }
            Self::Insert(at, new) => drop(input.splice(at.index(size)..at.index(size), new.iter().copied())),
            Self::Remove(at, len) => {
                let at = at.index(size);
                input.drain(at..(at + len).min(size - 1));
            }
            Self::Copy(at, len, to) => {
                let at = at.index(size);
                let part = input[at..(at + len).min(size - 1)].to_vec();
                input.splice(to.index(size)..to.index(size), part);
            }
        }
    }
}

fn input(target: &Target) -> impl Strategy<Value = Vec<u8>> + use<> {
    let changed = (select((target.seeds)()), prop::collection::vec(Change::any(), 0..5));
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..200),
        4 => changed.prop_map(|(mut input, changes)| {
            changes.iter().for_each(|change| change.apply(&mut input));
            input
        }),
    ]
}

#[test]
fn no_input_makes_a_target_fail() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}", target.name);
        seeds.iter().for_each(|seed| cost::run(target, seed));
        let found = format!("proptest-regressions/fuzz/{}.txt", target.name);
        let failure_persistence = Some(Box::new(FileFailurePersistence::Direct(found.leak())) as _);
        let config = Config { failure_persistence, ..Config::default() };
        let result = TestRunner::new(config).run(&input(target), |input| {
            cost::run(target, &input);
            Ok(())
        });
        if let Err(error) = result {
            panic!("{}: {error}", target.name);
        }
    }
}

/// … and no faster than it.
#[test]
fn memory_follows_the_input() {
    for target in TARGETS {
        target.long_inputs().for_each(|input| cost::run(target, &input));
    }
}
