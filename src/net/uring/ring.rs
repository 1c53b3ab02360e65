//! The ring of a thread: what its sockets have under way.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::{
    AtomicU32,
    Ordering::{Relaxed, SeqCst},
    fence,
};
use std::task::{Poll, Waker};
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};
use slab::Slab;

use super::buffers::{Buffers, GROUP, LEN};

/// Operations that are handed to the kernel with one system call.
const SUBMISSIONS: u32 = 512;
/// Operations that may have ended before their ends are looked at. The kernel keeps what does not fit.
const COMPLETIONS: u32 = 4096;
/// `IORING_RECVSEND_POLL_FIRST`: nothing has come yet, do not even try.
const POLL_FIRST: u16 = 1;
/// `IORING_ENTER_GETEVENTS`: finish what was put off.
const GET_EVENTS: u32 = 1;
/// After an error that passes.
const PAUSE: Duration = Duration::from_millis(1);
/// Marks a completion nobody waits for.
const NOBODY: u64 = u64::MAX;
/// Errors that say nothing of the socket.
const NOTHING: [i32; 4] = [libc::ENOBUFS, libc::ECANCELED, libc::EAGAIN, libc::EINTR];
/// Turns that are enough for whatever is called off to end, however much else the kernel has put off: it does 20 a turn.
pub(super) const PATIENCE: usize = 500;
/// Vectors that are kept for what is to be sent.
const SPARES: usize = 128;
/// Whether the event may be muted while the ring turns anyway. The kernel marks that it has put something off and then looks
/// whether the event is wanted; only on x86 is that order certain.
const MUTE: bool = cfg!(target_arch = "x86_64");

/// Counts the rings of the process.
static RINGS: AtomicU32 = AtomicU32::new(0);

/// Which operation, of which ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    ring: u32,
    index: u32,
}

/// What an operation has come to. What has ended stays until its socket asks; what is abandoned goes when it ends.
///
/// ```text
/// Receive ──▶ Received            Queued ──▶ Send ──▶ Sent
///    └──────▶ Abandoned ──▶ gone               └────▶ Abandoned ──▶ gone
/// ```
enum Operation {
    /// The kernel waits for bytes, or for there to be some.
    Receive(Waker),
    /// What the kernel has said in the end.
    Received { result: i32, flags: u32 },
    /// Goes to the kernel with the next turn.
    Queued { fd: RawFd, bytes: Vec<u8> },
    /// The kernel has it.
    Send { fd: RawFd, bytes: Vec<u8>, sent: usize, waker: Option<Waker> },
    /// All of it was sent, or an error number other than 0.
    Sent(i32),
    /// The kernel still has it. The socket is closed when that has ended.
    Abandoned { _bytes: Vec<u8>, _socket: Rc<OwnedFd> },
}

/// How an attempt to receive has ended.
pub(super) enum Received {
    /// `len` bytes; the `surplus` did not fit. There may be `more`.
    Bytes {
        len: usize,
        surplus: Vec<u8>,
        more: bool,
    },
    /// Nothing: it is to be read without the ring.
    Readable,
    /// The other side has closed the connection.
    End,
    Failed(io::Error),
}

/// See the module's documentation.
pub(super) struct Ring {
    id: u32,
    io: IoUring,
    buffers: Buffers,
    operations: Slab<Operation>,
    /// Those that are [`Operation::Queued`].
    queue: Vec<usize>,
    spare: Vec<Vec<u8>>,
    completions: Vec<cqueue::Entry>,
    /// Wakes the task that [drives](Self::drive) it, unless it is awake.
    driver: Option<Waker>,
}

thread_local! {
    static RING: Cell<Option<&'static RefCell<Ring>>> = const { Cell::new(None) };
}

impl Ring {
    /// A ring for the calling thread, and what is signalled when an operation has ended. Needs Linux 6.1, and the permission
    /// to use io_uring.
    pub(super) fn new() -> io::Result<(Self, EventFd)> {
        let io: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        io.submitter().register_eventfd(event.as_raw_fd())?;
        let buffers = Buffers::register(&io.submitter())?;
        let ring = Self {
            id: RINGS.fetch_add(1, Relaxed),
            io,
            buffers,
            operations: Slab::new(),
            queue: Vec::new(),
            spare: Vec::new(),
            completions: Vec::new(),
            driver: None,
        };
        Ok((ring, event))
    }

    /// Makes it the ring of the calling thread. It stays: the kernel may read what it has for as long as there is a socket.
    pub(super) fn install(self) {
        RING.set(Some(Box::leak(Box::new(RefCell::new(self)))));
    }

    /// Whether the calling thread has a ring.
    pub(super) fn is_here() -> bool {
        RING.get().is_some()
    }

    /// The ring of the calling thread. There must be one.
    #[inline]
    pub(super) fn with<R>(f: impl FnOnce(&mut Self) -> R) -> R {
        let Some(ring) = RING.get() else { unreachable!("this thread has no ring") };
        f(&mut ring.borrow_mut())
    }

    /// Whether an operation is one of the calling thread's.
    pub(super) fn owns(key: Key) -> bool {
        RING.get().is_some_and(|ring| ring.borrow().id == key.ring)
    }

    fn insert(&mut self, operation: Operation) -> Key {
        Key { ring: self.id, index: self.operations.insert(operation) as u32 }
    }

    /// Its index. A socket that went to another thread with something under way would get what is another's: it must not.
    #[inline]
    fn index(&self, key: Key) -> usize {
        assert_eq!(key.ring, self.id, "a socket has left its thread");
        key.index as usize
    }

    // Receiving ----------------------------------------------------------------------------------------------------------

    /// Waits for bytes and takes them.
    pub(super) fn receive(&mut self, fd: RawFd, waker: &Waker) -> Key {
        let receive = opcode::Recv::new(types::Fd(fd), std::ptr::null_mut(), LEN as u32)
            .ioprio(POLL_FIRST)
            .buf_group(GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.wait(receive, waker)
    }

    /// Waits for bytes and leaves them where they are.
    pub(super) fn await_readable(&mut self, fd: RawFd, waker: &Waker) -> Key {
        self.wait(opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32).build(), waker)
    }

    fn wait(&mut self, entry: squeue::Entry, waker: &Waker) -> Key {
        let key = self.insert(Operation::Receive(waker.clone()));
        self.push(entry.user_data(key.index.into()));
        key
    }

    /// What has come of it.
    pub(super) fn received(&mut self, key: Key, waker: &Waker, buf: &mut [u8]) -> Poll<Received> {
        let index = self.index(key);
        let (result, flags) = match &mut self.operations[index] {
            Operation::Received { result, flags } => (*result, *flags),
            Operation::Receive(known) => {
                if !known.will_wake(waker) {
                    known.clone_from(waker);
                }
                return Poll::Pending;
            }
            _ => unreachable!("not a receive operation"),
        };
        self.operations.remove(index);
        Poll::Ready(self.unpack(result, flags, buf))
    }

    fn unpack(&mut self, result: i32, flags: u32, buf: &mut [u8]) -> Received {
        let buffer = cqueue::buffer_select(flags);
        let received = match (usize::try_from(result), buffer) {
            (Ok(0), _) => Received::End,
            (Ok(_), None) => Received::Readable,
            (Ok(all), Some(id)) => {
                let bytes = self.buffers.bytes(id, all);
                let len = all.min(buf.len());
                buf[..len].copy_from_slice(&bytes[..len]);
                let more = cqueue::sock_nonempty(flags) || all == LEN;
                Received::Bytes { len, surplus: bytes[len..].to_vec(), more }
            }
            // All buffers are in use, or it was called off.
            (Err(_), _) if NOTHING.contains(&-result) => Received::Readable,
            (Err(_), _) => Received::Failed(io::Error::from_raw_os_error(-result)),
        };
        self.give_back(flags);
        received
    }

    /// What has come before it was called off. An end or an error is met again by whoever reads next.
    pub(super) fn take_early(&mut self, key: Key) -> Vec<u8> {
        let index = self.index(key);
        let Operation::Received { result, flags } = self.operations.remove(index) else {
            unreachable!("not a receive operation that has ended")
        };
        match self.unpack(result, flags, &mut []) {
            Received::Bytes { surplus, .. } => surplus,
            _ => Vec::new(),
        }
    }

    // Sending ------------------------------------------------------------------------------------------------------------

    /// Sends all of this with the next turn.
    pub(super) fn send(&mut self, fd: RawFd, bytes: &[u8]) -> Key {
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.extend_from_slice(bytes);
        let key = self.insert(Operation::Queued { fd, bytes: copy });
        self.queue.push(key.index as usize);
        self.wake_driver();
        key
    }

    /// Sends this behind what is being sent, if that has not begun yet and does not become longer than `most`.
    pub(super) fn add(&mut self, key: Key, bytes: &[u8], most: usize) -> bool {
        let index = self.index(key);
        match &mut self.operations[index] {
            Operation::Queued { bytes: queued, .. } if queued.len() + bytes.len() <= most => {
                queued.extend_from_slice(bytes);
                true
            }
            _ => false,
        }
    }

    /// How it has ended.
    pub(super) fn sent(&mut self, key: Key, waker: &Waker) -> Poll<io::Result<()>> {
        let index = self.index(key);
        match &mut self.operations[index] {
            Operation::Sent(errno) => {
                let errno = *errno;
                self.operations.remove(index);
                Poll::Ready(if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) })
            }
            Operation::Send { waker: known, .. } => {
                *known = Some(waker.clone());
                Poll::Pending
            }
            _ => unreachable!("not a send operation that has begun"),
        }
    }

    /// Whether it has ended. Then that was the last of it.
    pub(super) fn is_sent(&mut self, key: Key) -> bool {
        let index = self.index(key);
        let is_sent = matches!(self.operations[index], Operation::Sent(_));
        if is_sent {
            self.operations.remove(index);
        }
        is_sent
    }

    // Ends ---------------------------------------------------------------------------------------------------------------

    /// Calls an operation off. It ends all the same, in one way or another.
    ///
    /// The index may be another operation's soon, but not before the kernel has seen this: it takes one after the other, and
    /// does at once what can be done. So what was written before goes out, too.
    pub(super) fn cancel(&mut self, key: Key) {
        if self.has_ended(key) {
            return;
        }
        self.push(opcode::AsyncCancel::new(key.index.into()).build().user_data(NOBODY));
    }

    /// Whether an operation has ended; helps along one that is about to, by so many turns at most.
    pub(super) fn settle(&mut self, key: Key, turns: usize) -> bool {
        for _ in 0..turns {
            if self.has_ended(key) || self.is_quiet() {
                break;
            }
            self.turn();
        }
        self.has_ended(key)
    }

    fn has_ended(&self, key: Key) -> bool {
        matches!(self.operations[self.index(key)], Operation::Received { .. } | Operation::Sent(_))
    }

    /// Nobody waits for this any more. The socket is closed when all of its operations have ended.
    pub(super) fn abandon(&mut self, key: Key, socket: &Rc<OwnedFd>) {
        let index = self.index(key);
        if matches!(self.operations[index], Operation::Queued { .. }) {
            // It is to go out before it is called off.
            self.submit_queue();
        }
        let bytes = match &mut self.operations[index] {
            Operation::Receive(_) => Vec::new(),
            Operation::Send { bytes, .. } => std::mem::take(bytes),
            _ => {
                if let Operation::Received { flags, .. } = self.operations.remove(index) {
                    self.give_back(flags);
                }
                return;
            }
        };
        self.operations[index] = Operation::Abandoned { _bytes: bytes, _socket: Rc::clone(socket) };
        self.cancel(key);
    }

    /// The buffer a completion has come with, if any, is for the kernel again.
    fn give_back(&mut self, flags: u32) {
        if let Some(id) = cqueue::buffer_select(flags) {
            self.buffers.give_back(id);
        }
    }

    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: what the operation points to is owned by its `Operation`, which stays until the operation has ended, or by
        // `buffers`, which stay for good; its socket is not closed before either.
        while unsafe { self.io.submission().push(&entry) }.is_err() {
            self.turn();
        }
        self.wake_driver();
    }

    fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    fn submit_queue(&mut self) {
        while let Some(index) = self.queue.pop() {
            let Operation::Queued { fd, bytes } = &mut self.operations[index] else {
                unreachable!("it is queued")
            };
            let (fd, bytes) = (*fd, std::mem::take(bytes));
            let entry = send(fd, &bytes).user_data(index as u64);
            self.operations[index] = Operation::Send { fd, bytes, sent: 0, waker: None };
            self.push(entry);
        }
    }

    // Turning ------------------------------------------------------------------------------------------------------------

    /// Hands everything new to the kernel, sees what has ended and wakes whom that concerns. Says whether there were any.
    ///
    /// Mostly the driver does it, but also a task that cannot wait so long. What it drops and wakes must not use the ring: no
    /// socket may be among it.
    pub(super) fn turn(&mut self) -> bool {
        // Other sockets' ends would be lost, and their clients would wait for ever.
        let abort_if_panicking = AbortOnDrop;
        self.submit_queue();
        let new = self.io.submission().len() as u32;
        // SAFETY: there is no argument.
        if let Err(error) = unsafe { self.io.submitter().enter::<()>(new, 0, GET_EVENTS, None) } {
            // Out of memory, or too much has ended: both pass, and the driver comes again.
            tracing::debug!("io_uring_enter: {error}");
            std::thread::sleep(PAUSE);
        }
        let mut completions = std::mem::take(&mut self.completions);
        completions.extend(self.io.completion());
        let mut were_any = false;
        for completion in completions.drain(..).filter(|completion| completion.user_data() != NOBODY) {
            let index = completion.user_data() as usize;
            if let Some(waker) = self.end(index, completion.result(), completion.flags()) {
                were_any = true;
                waker.wake();
            }
        }
        self.completions = completions;
        std::mem::forget(abort_if_panicking);
        were_any
    }

    /// An operation has ended. Returns whom that concerns.
    fn end(&mut self, index: usize, result: i32, flags: u32) -> Option<Waker> {
        match &mut self.operations[index] {
            Operation::Receive(_) => {
                let ended = Operation::Received { result, flags };
                match std::mem::replace(&mut self.operations[index], ended) {
                    Operation::Receive(waker) => Some(waker),
                    _ => None,
                }
            }
            Operation::Send { fd, bytes, sent, waker } => {
                *sent += usize::try_from(result).unwrap_or(0);
                if result > 0 && *sent < bytes.len() {
                    let entry = send(*fd, &bytes[*sent..]);
                    self.push(entry.user_data(index as u64));
                    return None;
                }
                let (waker, mut bytes) = (waker.take(), std::mem::take(bytes));
                self.operations[index] = Operation::Sent(if result < 0 { -result } else { 0 });
                if self.spare.len() < SPARES {
                    bytes.clear();
                    self.spare.push(bytes);
                }
                waker
            }
            Operation::Abandoned { .. } => {
                self.give_back(flags);
                self.operations.remove(index);
                None
            }
            Operation::Received { .. } | Operation::Queued { .. } | Operation::Sent(_) => {
                unreachable!("it is not under way")
            }
        }
    }

    /// Whether a turn would change nothing.
    fn is_quiet(&mut self) -> bool {
        let submission = self.io.submission();
        let has_kernel_work = submission.taskrun() || submission.cq_overflow();
        let is_quiet = self.queue.is_empty() && submission.is_empty() && !has_kernel_work;
        drop(submission);
        is_quiet && self.io.completion().is_empty()
    }

    /// Turns the ring; says whether there is reason to do so again before waiting for the event. If there is not, `waker` is
    /// woken when something new is to be handed over.
    pub(super) fn drive(&mut self, waker: &Waker) -> bool {
        if MUTE {
            self.io.completion().disable_eventfd();
        }
        if !self.is_quiet() && self.turn() {
            // What those who were woken will have left to do is to go out at once, with one call.
            return true;
        }
        self.io.completion().enable_eventfd();
        fence(SeqCst);
        let is_quiet = self.is_quiet();
        if is_quiet {
            self.driver = Some(waker.clone());
        }
        !is_quiet
    }
}

struct AbortOnDrop;

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        std::process::abort();
    }
}

fn send(fd: RawFd, bytes: &[u8]) -> squeue::Entry {
    opcode::Send::new(types::Fd(fd), bytes.as_ptr(), bytes.len() as u32)
        .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
        .build()
}
