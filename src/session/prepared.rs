//! Named prepared statements in transaction mode.
//!
//! A client's names mean nothing to a server that other clients use as well. Each distinct statement (text and
//! parameter types) has one [`Statement`] in the program, known to servers as `PGWEIR_<id>`. A client's map
//! translates its names; a server remembers which statements it has, the least recently used going first when
//! there are more than `max_prepared_statements`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::sql::{self, Class, Route};
use crate::wire::frontend;

/// A statement some client has prepared.
#[derive(Debug)]
pub struct Statement {
    /// Unique in this process.
    pub id: u64,
    /// Its name on servers.
    pub name: Box<[u8]>,
    /// Query text, NUL, parameter types: a Parse without its name.
    pub text_and_types: Box<[u8]>,
    /// It is a `SET pgweir.route` (see [`sql::setting`]).
    pub setting: Option<Option<Route>>,
}

impl Statement {
    /// The query.
    pub fn text(&self) -> &[u8] {
        frontend::text(&self.text_and_types)
    }
}

/// All statements of the process by text and types.
#[derive(Debug, Default)]
pub struct Registry {
    statements: Mutex<HashMap<Box<[u8]>, Arc<Statement>>>,
    last_id: AtomicU64,
}

impl Registry {
    /// The statement with this text and these types.
    pub fn intern(&self, text_and_types: &[u8]) -> Arc<Statement> {
        let mut statements = self.statements.lock();
        if let Some(found) = statements.get(text_and_types) {
            return Arc::clone(found);
        }
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let mut new = Statement {
            id,
            name: server_name(id).into(),
            text_and_types: text_and_types.into(),
            setting: None,
        };
        new.setting = sql::setting(new.text());
        let new = Arc::new(new);
        statements.insert(text_and_types.into(), Arc::clone(&new));
        new
    }

    /// Forgets statements that no client uses. Called now and then by the janitor.
    pub fn sweep(&self) {
        self.statements.lock().retain(|_, statement| Arc::strong_count(statement) > 1);
    }

    /// How many statements are known.
    pub fn len(&self) -> usize {
        self.statements.lock().len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A client's names. Empty ones take no memory.
#[derive(Debug, Default)]
pub struct ClientStatements {
    names: HashMap<Box<[u8]>, Named, RandomState>,
    prepared: u64,
}

/// What a name stands for.
#[derive(Debug)]
struct Named {
    statement: Arc<Statement>,
    /// Counts Parse messages.
    order: u64,
    /// Where it may run, as found with the catalog of this generation; 0: not looked at yet.
    class: Class,
    generation: u32,
}

impl ClientStatements {
    /// The statement behind a name.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.names.get(name).map(|named| &named.statement)
    }

    /// Where the statement behind a name may run. `classify` is called if that was not found out with the catalog of
    /// this generation yet; generation 0 is never remembered.
    pub fn class(
        &mut self,
        name: &[u8],
        generation: u32,
        classify: impl FnOnce(&Statement) -> Class,
    ) -> Option<Class> {
        let named = self.names.get_mut(name)?;
        if named.generation != generation || generation == 0 {
            named.class = classify(&named.statement);
            named.generation = generation;
        }
        Some(named.class)
    }

    /// Names and statements in the order in which they were given.
    pub fn in_order(&self) -> impl Iterator<Item = (&[u8], &Arc<Statement>)> {
        let mut all: Vec<_> = self.names.iter().collect();
        all.sort_by_key(|(_, named)| named.order);
        all.into_iter().map(|(name, named)| (&**name, &named.statement))
    }

    /// Gives a statement a name that is not in use.
    pub fn insert(&mut self, name: &[u8], statement: Arc<Statement>) {
        self.prepared += 1;
        let named = Named { statement, order: self.prepared, class: Class::Write, generation: 0 };
        self.names.insert(name.into(), named);
    }

    /// Forgets a name (Close).
    pub fn remove(&mut self, name: &[u8]) {
        self.names.remove(name);
    }

    /// Forgets the name whose Parse failed: the latest one given to this statement.
    pub fn forget_latest(&mut self, id: u64) {
        let latest = self.names.iter().filter(|(_, n)| n.statement.id == id).max_by_key(|(_, n)| n.order);
        if let Some(name) = latest.map(|(name, _)| name.clone()) {
            self.names.remove(&name);
        }
    }

    /// Forgets all names (DEALLOCATE ALL, DISCARD ALL).
    pub fn clear(&mut self) {
        self.names = HashMap::default();
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// What a server has prepared.
#[derive(Debug, Default)]
pub struct ServerStatements {
    last_use: HashMap<u64, u64, RandomState>,
    clock: u64,
}

impl ServerStatements {
    /// Whether the server has the statement; marks it as used now.
    pub fn touch(&mut self, id: u64) -> bool {
        self.clock += 1;
        let clock = self.clock;
        self.last_use.get_mut(&id).map(|last| *last = clock).is_some()
    }

    /// Notes that the server has the statement, or will have it when it gets there.
    pub fn insert(&mut self, id: u64) {
        self.clock += 1;
        self.last_use.insert(id, self.clock);
    }

    /// Forgets a statement whose Parse failed.
    pub fn remove(&mut self, id: u64) {
        self.last_use.remove(&id);
    }

    /// Removes the statement not used for longest if there are `max` or more, to make room for another. Looks at
    /// all of them: it happens only to clients that use more statements than `max_prepared_statements`.
    pub fn evict(&mut self, max: usize) -> Option<u64> {
        if self.last_use.len() < max {
            return None;
        }
        let (&id, _) = self.last_use.iter().min_by_key(|(_, last)| **last)?;
        self.last_use.remove(&id);
        Some(id)
    }

    /// Forgets everything (DEALLOCATE ALL, DISCARD ALL).
    pub fn clear(&mut self) {
        self.last_use.clear();
    }

    /// How many statements the server has.
    pub fn len(&self) -> usize {
        self.last_use.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.last_use.is_empty()
    }
}

/// A statement's name on servers.
pub fn server_name(id: u64) -> Vec<u8> {
    format!("PGWEIR_{id}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> (Registry, Arc<Statement>, Arc<Statement>) {
        let registry = Registry::default();
        let a = registry.intern(b"select 1\0\0\0");
        let b = registry.intern(b"select 2\0\0\0");
        (registry, a, b)
    }

    #[test]
    fn equal_statements_are_one() {
        let (registry, a, b) = registry();
        assert_eq!(registry.intern(b"select 1\0\0\0").id, a.id);
        assert_ne!(a.id, b.id);
        drop(b);
        registry.sweep();
        assert_eq!(registry.len(), 1);
    }

    #[test]
    fn a_class_is_found_once_per_catalog() {
        let (_, a, _) = registry();
        assert_eq!(a.text(), b"select 1");
        let mut client = ClientStatements::default();
        client.insert(b"a", a);
        assert_eq!(client.class(b"a", 7, |_| Class::Read), Some(Class::Read));
        assert_eq!(client.class(b"a", 7, |_| unreachable!()), Some(Class::Read));
        assert_eq!(client.class(b"a", 8, |_| Class::Write), Some(Class::Write));
        assert_eq!(client.class(b"a", 0, |_| Class::Read), Some(Class::Read));
        assert_eq!(client.class(b"a", 0, |_| Class::Write), Some(Class::Write));
        assert_eq!(client.class(b"b", 8, |_| unreachable!()), None);
    }

    #[test]
    fn a_failed_parse_takes_only_its_own_name() {
        let (_, a, _) = registry();
        let mut client = ClientStatements::default();
        client.insert(b"old", Arc::clone(&a));
        client.insert(b"new", Arc::clone(&a));
        client.forget_latest(a.id);
        assert!(client.get(b"old").is_some());
        assert!(client.get(b"new").is_none());
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let (_, a, b) = registry();
        let mut server = ServerStatements::default();
        server.insert(a.id);
        server.insert(b.id);
        assert!(server.touch(a.id));
        assert_eq!(server.evict(3), None);
        assert_eq!(server.evict(2), Some(b.id));
        assert!(!server.touch(b.id));
    }
}
