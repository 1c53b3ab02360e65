//! Memory the kernel puts into use when something has come: a socket that waits needs none.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering::Release};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// How much is received at once. What is longer is read without the ring, into the reader's own buffer.
pub(super) const LEN: usize = 2048;
/// How many there are. When all are in use, receiving takes a system call. A power of two.
const COUNT: u16 = 128;
/// They are a group; there is no other.
pub(super) const GROUP: u16 = 0;
/// The largest page size of Linux: the entries begin at the start of a page.
const PAGE: usize = 64 * 1024;

/// The buffers of a ring. They live as long as the process.
pub(super) struct Buffers {
    /// What the kernel takes buffers from.
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    /// Counts the buffers that were ever put in.
    tail: u16,
}

impl Buffers {
    /// Has the kernel take buffers from here. Needs Linux 5.19.
    pub(super) fn register(submitter: &Submitter<'_>) -> io::Result<Self> {
        let entries = allocate(usize::from(COUNT) * size_of::<BufRingEntry>(), PAGE).cast();
        let memory = allocate(usize::from(COUNT) * LEN, 64);
        // SAFETY: there is room for so many entries, at a page's start, and it is never freed.
        unsafe { submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, COUNT, GROUP, 0)? };
        let mut buffers = Self { entries, memory, tail: 0 };
        (0..COUNT).for_each(|id| buffers.give_back(id));
        Ok(buffers)
    }

    /// What lies in a buffer that the kernel has handed out.
    pub(super) fn bytes(&self, id: u16, len: usize) -> &[u8] {
        assert!(id < COUNT && len <= LEN);
        // SAFETY: it lies within the memory, which was initialized; the kernel writes to it only after it was given back,
        // for which the borrow has to end.
        unsafe { slice::from_raw_parts(self.at(id), len) }
    }

    /// The kernel may use it again.
    pub(super) fn give_back(&mut self, id: u16) {
        assert!(id < COUNT);
        // SAFETY: the entry lies within the ring, and the kernel does not look at it before the tail has passed it. The tail
        // is a 16-bit number the kernel only reads, in a place of the first entry that nothing else uses.
        unsafe {
            let entry = self.entries.add(usize::from(self.tail % COUNT)).as_mut();
            entry.set_addr(self.at(id) as u64);
            entry.set_len(LEN as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Release);
        }
    }

    fn at(&self, id: u16) -> *mut u8 {
        // SAFETY: both callers have seen to it that there is such a buffer.
        unsafe { self.memory.as_ptr().add(usize::from(id) * LEN) }
    }
}

/// Zeroed memory that is never freed.
fn allocate(size: usize, align: usize) -> NonNull<u8> {
    let Ok(layout) = Layout::from_size_align(size, align) else { unreachable!("both are constants") };
    // SAFETY: the size is not zero.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}
