//! What a run allocates, which may grow with its input and no faster. Counted per thread: tests run beside each other.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, which counts bytes.
pub(crate) struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends has no counter any more.
        let _ = BYTES.try_with(|bytes| bytes.set(bytes.get() + layout.size()));
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

/// How many bytes this allocates.
pub(crate) fn of(run: impl FnOnce()) -> usize {
    let before = BYTES.get();
    run();
    BYTES.get() - before
}

/// Fails if that is out of proportion to the length of the input. Targets copy their input in pieces, several times.
pub(crate) fn check(target: &str, len: usize, bytes: usize) {
    let most = (1 << 20) + 4096 * len;
    // That one compares all that was said with each answer.
    let is_compared = target == "conversation";
    assert!(is_compared || bytes <= most, "{target}: {bytes} bytes for an input of {len}");
}
