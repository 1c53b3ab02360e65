//! Sockets by io_uring, where the kernel lets us: a thread hands over with one system call whatever its clients' tasks
//! have left to send and to wait for, and learns what has come meanwhile, instead of making a call for each.
//!
//! The ring is a guest of the runtime: its driver is a task, and when there is nothing to do the thread waits for the
//! runtime's events, of which the ring's is one. Whatever else there is goes on by the runtime alone.

#![expect(
    unsafe_code,
    reason = "the kernel reads and writes memory on its own: the borrow checker cannot know of it"
)]

mod buffers;
mod ring;
mod socket;
#[cfg(test)]
mod tests;

use std::io;
use std::task::{Context, Poll};

use nix::sys::eventfd::EventFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use self::ring::Ring;
pub use self::socket::Socket;

/// Whether the calling thread has a ring.
pub fn is_here() -> bool {
    Ring::is_here()
}

/// Hands to the kernel what the calling thread's sockets have written.
pub fn flush() {
    if is_here() {
        Ring::with(Ring::turn);
    }
}

/// What keeps a thread's ring going.
pub struct Driver {
    ring: Ring,
    /// An operation has ended. It is never read: each time it is signalled anew is an event for the runtime.
    event: AsyncFd<EventFd>,
}

impl Driver {
    /// A ring for the calling thread, from the inside of its runtime; an error says why it must do without.
    pub fn new() -> io::Result<Self> {
        let (ring, event) = Ring::new()?;
        // SAFETY: it owns its descriptor, which is open as long as it lives, and always the same.
        let event = unsafe { AsyncFd::register_with_interest(event, Interest::READABLE)? };
        Ok(Self { ring, event })
    }

    /// From now on the thread's sockets use it.
    pub fn start(self) {
        self.ring.install();
        tokio::task::spawn_local(std::future::poll_fn(move |cx| drive(&self.event, cx)));
    }
}

fn drive(event: &AsyncFd<EventFd>, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        if Ring::with(|ring| ring.drive(cx.waker())) {
            // After those that were woken.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match event.poll_read_ready(cx) {
            Poll::Ready(Ok(mut ready)) => ready.clear_ready(),
            // The runtime has ended.
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
    }
}
