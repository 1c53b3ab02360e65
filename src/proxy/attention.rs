//! How the rest of the program makes the task of a connection look up from its sockets: KILL, cancel requests, the tick,
//! SUSPEND, RELOAD.
//!
//! The caller writes down what it wants (an atomic, a value behind a lock) and then calls [`Attention::call`]. The task takes
//! the call *first* and looks at what is wanted *then*: what is written down later comes with a call of its own.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::{Context, Waker};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Attention {
    is_called: AtomicBool,
    waker: OnceLock<Waker>,
}

impl Attention {
    /// The task begins: it is the one to be woken from now on. It looks up once, for what came before. Later calls of this do
    /// nothing and return `false`.
    #[inline]
    pub fn begin(&self, cx: &Context<'_>) -> bool {
        self.waker.get().is_none() && self.begin_with(cx.waker().clone())
    }

    #[cold]
    fn begin_with(&self, waker: Waker) -> bool {
        let is_first = self.waker.set(waker).is_ok();
        // Either the caller finds the waker, or the task finds the call: the fences order what each writes before what it reads.
        fence(Ordering::SeqCst);
        self.is_called.store(true, Ordering::Relaxed);
        is_first
    }

    /// Makes the task look up. What was written before this call is seen by the task that takes it.
    pub fn call(&self) {
        self.is_called.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Has the task look up again whatever wakes it the next time, without waking it.
    pub fn call_again(&self) {
        self.is_called.store(true, Ordering::Relaxed);
    }

    /// Whether there is a call to be taken. HOT.
    #[inline]
    fn is_called(&self) -> bool {
        self.is_called.load(Ordering::Relaxed)
    }

    /// Takes the call, if there is one; the task then looks at all that could be wanted of it. A read-modify-write, so that it
    /// is ordered behind the call whose flag it clears.
    #[inline]
    pub fn take(&self) -> bool {
        self.is_called() && self.is_called.swap(false, Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_call_is_taken_once_and_wakes_the_task() {
        let (attention, count) = (Attention::default(), Arc::new(Count::default()));
        attention.call();
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        assert!(attention.begin(&cx));
        assert!(attention.take() && !attention.take(), "what came before the task began");
        attention.call();
        attention.call();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert!(attention.is_called() && attention.take() && !attention.is_called());
        attention.call_again();
        assert!(!attention.begin(&cx));
        assert!(attention.take());
        assert_eq!(count.0.load(Ordering::Relaxed), 2, "it was not woken for that");
    }

    /// A word written down before the call is read by the task that takes it, and none is lost.
    #[test]
    fn nothing_that_is_wanted_is_lost() {
        const WORDS: usize = 20_000;
        let shared = Arc::new((Attention::default(), AtomicUsize::new(0)));
        let caller = Arc::clone(&shared);
        let calls = std::thread::spawn(move || {
            for _ in 0..WORDS {
                caller.1.fetch_add(1, Ordering::Relaxed);
                caller.0.call();
            }
        });
        let mut heard = 0;
        while heard < WORDS {
            if shared.0.take() {
                heard = heard.max(shared.1.load(Ordering::Relaxed));
            } else if calls.is_finished() && !shared.0.is_called() {
                break;
            }
        }
        calls.join().unwrap();
        assert_eq!(heard, WORDS);
    }
}
