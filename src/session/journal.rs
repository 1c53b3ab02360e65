//! A map whose changes may still be undone: each belongs to a message that a server has not answered yet.
//!
//! The map shows what will hold once the server has done all that it was told. An answer commits the oldest change; an
//! error undoes those of the messages that the server skips. Every operation takes constant time, but for [`Journal::undo`]
//! and [`Journal::commit`], which take constant time per change.
//!
//! Changes are numbered by [`super::pipeline::Changes`], upwards.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use foldhash::fast::RandomState;
use hashlink::LruCache;

use super::numbers::ChangeNumber;

/// See the module's documentation. Keys are cloned, and should be cheap to clone.
#[derive(Debug)]
pub(super) struct Journal<K, V> {
    /// Least recently used first.
    live: LruCache<K, Live<V>, RandomState>,
    /// What a change that is not committed has removed, and the number of that change.
    removed: HashMap<K, ChangeNumber, RandomState>,
    /// Changes that are not committed, oldest first.
    log: VecDeque<Undo<K, V>>,
    /// What was set by this change or an earlier one has been forgotten.
    forgotten: Option<ChangeNumber>,
}

#[derive(Debug)]
struct Live<V> {
    value: V,
    /// The change that has set it.
    change: ChangeNumber,
}

#[derive(Debug)]
struct Undo<K, V> {
    number: ChangeNumber,
    key: K,
    before: Option<Live<V>>,
    /// The next change to the same key.
    next: Option<ChangeNumber>,
}

impl<K: Hash + Eq, V> Default for Journal<K, V> {
    fn default() -> Self {
        Self {
            live: LruCache::with_hasher(usize::MAX, RandomState::default()),
            removed: HashMap::default(),
            log: VecDeque::new(),
            forgotten: None,
        }
    }
}

impl<K: Hash + Eq + Clone, V> Journal<K, V> {
    /// The value of a key.
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let slot = self.live.peek(key)?;
        (!self.is_forgotten(slot)).then_some(&slot.value)
    }

    /// The change that has set a key.
    pub(super) fn set_by<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<ChangeNumber>
    where
        K: Borrow<Q>,
    {
        let slot = self.live.peek(key)?;
        (!self.is_forgotten(slot)).then_some(slot.change)
    }

    /// The value of a key and the change that has set it.
    pub(super) fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<(&mut V, ChangeNumber)>
    where
        K: Borrow<Q>,
    {
        let forgotten = self.forgotten;
        let slot = self.live.peek_mut(key)?;
        (Some(slot.change) > forgotten).then_some((&mut slot.value, slot.change))
    }

    /// The same; the key becomes the most recently used one.
    pub(super) fn touch<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<(&mut V, ChangeNumber)>
    where
        K: Borrow<Q>,
    {
        let forgotten = self.forgotten;
        let slot = self.live.get_mut(key)?;
        (Some(slot.change) > forgotten).then_some((&mut slot.value, slot.change))
    }

    /// The change that has removed a key, if that can still be undone.
    pub(super) fn removed_by<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<ChangeNumber>
    where
        K: Borrow<Q>,
    {
        if self.removed.is_empty() { None } else { self.removed.get(key).copied() }
    }

    /// Sets a key, or removes it. Without a `number` nothing can undo it.
    pub(super) fn set(&mut self, key: K, value: Option<V>, number: Option<ChangeNumber>) {
        let (before, removed_by) = match value {
            Some(value) => {
                let removed_by = if self.removed.is_empty() { None } else { self.removed.remove(&key) };
                let new = Live { value, change: number.unwrap_or_default() };
                (self.live.insert(key.clone(), new), removed_by)
            }
            None => {
                let removed_by = number.and_then(|number| self.removed.insert(key.clone(), number));
                (self.live.remove(&key), removed_by)
            }
        };
        if let Some(number) = number {
            self.record(number, key, before, removed_by);
        }
    }

    /// `before`: what the key was. `removed_by`: the change that had removed it, if that may still be undone.
    fn record(
        &mut self,
        number: ChangeNumber,
        key: K,
        before: Option<Live<V>>,
        removed_by: Option<ChangeNumber>,
    ) {
        let previous = before.as_ref().map(|live| live.change).or(removed_by);
        let first = self.log.front().map(|change| change.number);
        if let Some(previous) = previous.filter(|&previous| first.is_some_and(|first| first <= previous)) {
            if let Ok(at) = self.log.binary_search_by_key(&previous, |change| change.number) {
                self.log[at].next = Some(number);
            }
        }
        self.log.push_back(Undo { number, key, before, next: None });
    }

    /// The server has answered the messages of all changes up to this one.
    #[inline]
    pub(super) fn commit(&mut self, done: ChangeNumber) {
        if !self.log.is_empty() {
            self.commit_some(done);
        }
    }

    fn commit_some(&mut self, done: ChangeNumber) {
        while self.log.front().is_some_and(|change| change.number <= done) {
            let Some(change) = self.log.pop_front() else { break };
            if self.removed.get(&change.key) == Some(&change.number) {
                self.removed.remove(&change.key);
            }
        }
        self.drop_forgotten();
    }

    /// The server skips the messages of all changes up to this one. What a later change has made of a key stays; what that one
    /// would go back to is what was before.
    pub(super) fn undo(&mut self, last: ChangeNumber) {
        let undone = self.log.partition_point(|change| change.number <= last);
        let undone: Vec<_> = self.log.drain(..undone).collect();
        let mut later = HashMap::<K, ChangeNumber, RandomState>::default();
        for change in undone.into_iter().rev() {
            let holds = change.next.filter(|&next| next > last).or_else(|| later.get(&change.key).copied());
            let at =
                holds.and_then(|holds| self.log.binary_search_by_key(&holds, |change| change.number).ok());
            if let (Some(holds), Some(at)) = (holds, at) {
                self.log[at].before = change.before;
                later.insert(change.key, holds);
                continue;
            }
            self.removed.remove(&change.key);
            match change.before {
                Some(slot) => drop(self.live.insert(change.key, slot)),
                None => drop(self.live.remove(&change.key)),
            }
        }
        self.drop_forgotten();
    }

    /// … as soon as no change is left that could bring one back.
    fn drop_forgotten(&mut self) {
        if let Some(last) = self.forgotten.filter(|_| self.log.is_empty()) {
            self.forgotten = None;
            self.live.retain(|_, slot| slot.change > last);
        }
    }

    /// Forgets all that was set by change `last` or an earlier one: the server has done so. Says whether there was anything;
    /// what has been forgotten a moment ago may count.
    pub(super) fn forget(&mut self, last: ChangeNumber) -> bool {
        let had_any = !self.live.is_empty();
        if self.log.back().is_none_or(|change| change.number <= last) {
            self.live.clear();
        } else {
            self.forgotten = Some(last);
        }
        had_any
    }

    /// Removes the key that was not used for longest.
    pub(super) fn remove_oldest(&mut self, number: ChangeNumber) -> Option<K> {
        let (key, slot) = self.live.remove_lru()?;
        self.removed.insert(key.clone(), number);
        self.record(number, key.clone(), Some(slot), None);
        Some(key)
    }

    /// Keys and values, least recently used first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let live = self.live.iter().filter(|(_, slot)| !self.is_forgotten(slot));
        live.map(|(key, slot)| (key, &slot.value))
    }

    /// Whether there is no key.
    pub(super) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// How many keys there are. Forgotten ones count as long as changes are under way.
    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    fn is_forgotten(&self, slot: &Live<V>) -> bool {
        Some(slot.change) <= self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(journal: &Journal<&'static str, u32>) -> Vec<(&'static str, u32)> {
        let mut all: Vec<_> = journal.iter().map(|(key, value)| (*key, *value)).collect();
        all.sort_unstable();
        all
    }

    fn journal() -> Journal<&'static str, u32> {
        let mut journal = Journal::default();
        journal.set("a", Some(1), None);
        journal.set("b", Some(2), None);
        journal
    }

    #[test]
    fn what_is_skipped_is_undone_backwards() {
        let mut journal = journal();
        journal.set("a", None, Some(ChangeNumber(1)));
        journal.set("a", Some(3), Some(ChangeNumber(2)));
        journal.set("c", Some(4), Some(ChangeNumber(3)));
        journal.set("b", None, Some(ChangeNumber(4)));
        assert_eq!(all(&journal), [("a", 3), ("c", 4)]);
        assert_eq!(
            [journal.removed_by("a"), journal.removed_by("b"), journal.removed_by("d")],
            [None, Some(ChangeNumber(4)), None]
        );
        assert_eq!(journal.get_mut("a"), Some((&mut 3, ChangeNumber(2))));
        journal.commit(ChangeNumber(1));
        journal.undo(ChangeNumber(3));
        assert_eq!(all(&journal), [], "the first is done, and the last one belongs to another batch");
        journal.commit(ChangeNumber(4));
        assert_eq!((journal.log.len(), journal.removed.len()), (0, 0));
    }

    /// An error comes while a later batch has changed the same keys.
    #[test]
    fn what_a_later_batch_does_stays() {
        let mut journal = journal();
        journal.set("a", None, Some(ChangeNumber(1)));
        journal.set("a", Some(3), Some(ChangeNumber(2)));
        journal.set("c", Some(4), Some(ChangeNumber(3)));
        // The next batch.
        journal.set("a", None, Some(ChangeNumber(4)));
        journal.set("c", Some(5), Some(ChangeNumber(5)));
        journal.set("b", None, Some(ChangeNumber(6)));
        journal.undo(ChangeNumber(3));
        assert_eq!(all(&journal), [("c", 5)]);
        assert_eq!(journal.removed_by("a"), Some(ChangeNumber(4)));
        // It fails, too.
        journal.undo(ChangeNumber(6));
        assert_eq!(all(&journal), [("a", 1), ("b", 2)]);
        assert_eq!((journal.log.len(), journal.removed.len()), (0, 0));
    }

    #[test]
    fn what_comes_behind_a_deallocate_all_stays() {
        let mut journal = journal();
        journal.set("c", Some(3), Some(ChangeNumber(5)));
        journal.set("a", Some(4), Some(ChangeNumber(7)));
        journal.forget(ChangeNumber(6));
        assert_eq!(all(&journal), [("a", 4)]);
        assert_eq!(journal.get("b"), None);
        assert_eq!(journal.touch("c"), None);
        assert_eq!(journal.get_mut("a"), Some((&mut 4, ChangeNumber(7))));
        journal.commit(ChangeNumber(7));
        assert_eq!(journal.len(), 1);
        journal.forget(ChangeNumber(7));
        assert_eq!(journal.len(), 0);
    }

    #[test]
    fn what_was_there_before_the_first_change_is_forgotten() {
        let mut journal = journal();
        journal.set("a", Some(4), Some(ChangeNumber(1)));
        journal.forget(ChangeNumber::default());
        assert_eq!(all(&journal), [("a", 4)]);
    }

    #[test]
    fn what_was_forgotten_is_not_brought_back_by_an_error() {
        let mut journal = journal();
        journal.set("a", Some(4), Some(ChangeNumber(7)));
        journal.set("b", None, Some(ChangeNumber(8)));
        journal.forget(ChangeNumber(6));
        assert!(!journal.is_empty());
        journal.undo(ChangeNumber(8));
        assert_eq!((all(&journal), journal.len(), journal.forgotten), (vec![], 0, None));
    }

    #[test]
    fn the_one_not_used_for_longest_goes_first() {
        let mut journal = journal();
        journal.touch("a");
        assert_eq!(journal.remove_oldest(ChangeNumber(1)), Some("b"));
        assert_eq!(
            (journal.remove_oldest(ChangeNumber(2)), journal.remove_oldest(ChangeNumber(3))),
            (Some("a"), None)
        );
        journal.undo(ChangeNumber(2));
        assert_eq!(all(&journal), [("a", 1), ("b", 2)]);
    }
}
