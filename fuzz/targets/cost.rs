//! What a run costs, which may grow with its input and no faster.
//!
//! What is allocated is counted per thread: tests run beside each other. Steps are counted by what `scripts/fuzz` builds
//! (`fuzz/steps.rs`), nowhere else.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::targets::Target;

/// How many steps have been taken.
pub(crate) static STEPS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, which counts.
pub(crate) struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends has no counters any more.
        let _ = BYTES.try_with(|bytes| bytes.set(bytes.get() + layout.size()));
        let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes allocated, allocations, steps.
type Cost = [usize; 3];

fn so_far() -> Cost {
    [BYTES.get(), ALLOCATIONS.get(), STEPS.load(Ordering::Relaxed)]
}

/// Runs a target. Fails if that costs more than the length of the input allows.
pub(crate) fn run(target: &Target, input: &[u8]) {
    let before = so_far();
    (target.run)(input);
    let after = so_far();
    let what = ["bytes allocated", "allocations", "steps"];
    for (i, (base, per_byte)) in target.most.into_iter().enumerate() {
        let (taken, most) = (after[i] - before[i], base + per_byte * input.len());
        assert!(
            taken <= most,
            "{}: {taken} {} for {} bytes, at most {most}",
            target.name,
            what[i],
            input.len()
        );
    }
}
