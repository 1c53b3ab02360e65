//! The last catalog read of a database ([`crate::sql::Catalog`]: its functions and relations), and whether it still holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::session::command::Ddl;
use crate::sql::Catalog;

/// Time after which something new is looked for. It waits for more: applications make temporary tables all the time.
const ADDED: Duration = Duration::from_secs(2);

/// The catalog of a database, as far as it is known.
#[derive(Debug, Default)]
pub struct Catalogs {
    current: ArcSwapOption<Numbered>,
    /// The latest one, which may not hold any more.
    last: ArcSwapOption<Numbered>,
    /// Counts the changes that were seen. A catalog whose reading began before the last one is worthless.
    changes: AtomicU64,
    /// Its lock is held while `current` or `last` is replaced.
    changing: Mutex<()>,
    wanted: Notify,
}

/// A catalog and its number, which no other catalog of this process has.
#[derive(Debug)]
pub struct Numbered {
    /// What is known.
    pub catalog: Catalog,
    /// Its number; not 0.
    pub generation: u32,
}

impl Catalogs {
    /// What is known now. HOT.
    #[inline]
    pub fn load(&self) -> Guard<Option<Arc<Numbered>>> {
        self.current.load()
    }

    /// What was known last. HOT.
    #[inline]
    pub fn last(&self) -> Guard<Option<Arc<Numbered>>> {
        self.last.load()
    }

    /// A client has changed the catalog, and its transaction has ended.
    #[cold]
    pub fn changed(&self, ddl: Ddl) {
        if ddl == Ddl::Changes {
            self.forget();
        } else {
            self.wanted.notify_one();
        }
    }

    /// Nothing is known any more, until the catalog has been read again.
    pub fn forget(&self) {
        let _changing = self.changing.lock();
        self.changes.fetch_add(1, Relaxed);
        self.current.store(None);
        self.wanted.notify_one();
    }

    /// How many changes were seen.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    /// Waits until the catalog has to be read again.
    pub(super) async fn outdated(&self, changes: u64, period: Duration) {
        let mut until = Instant::now() + period;
        while self.changes.load(Relaxed) == changes
            && tokio::time::timeout_at(until, self.wanted.notified()).await.is_ok()
        {
            until = until.min(Instant::now() + ADDED);
        }
    }

    /// Takes a catalog whose reading began when there were so many changes; says whether it is in force and new.
    pub(super) fn set(&self, catalog: Catalog, changes: u64) -> bool {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let _changing = self.changing.lock();
        let known = self.current.load();
        if self.changes.load(Relaxed) != changes
            || known.as_ref().is_some_and(|known| known.catalog == catalog)
        {
            return false;
        }
        let generation = LAST.fetch_add(1, Relaxed).wrapping_add(1).max(1);
        let known = Arc::new(Numbered { catalog, generation });
        self.last.store(Some(Arc::clone(&known)));
        self.current.store(Some(known));
        true
    }
}
