//! Named prepared statements in transaction mode.
//!
//! A client's names mean nothing to a server that other clients use as well. Each distinct statement (text and
//! parameter types) has one [`Statement`] in the program, known to servers as `PGWEIR_<id>`. A client's map
//! translates its names; a server remembers which statements it has, the least recently used going first when
//! there are more than `max_prepared_statements`.

use std::collections::{HashMap, VecDeque, hash_map};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::columns::Fingerprint;
use super::journal::Journal;
use super::numbers::{ChangeNumber, StatementId};
use super::pipeline::Changes;
use super::refused::Refused;
use crate::sql::{self, Class, Effect, Route};
use crate::wire::frontend;

/// A statement some client has prepared.
#[derive(Debug)]
pub struct Statement {
    /// Unique in this process.
    pub id: StatementId,
    /// Its name on servers.
    pub name: Box<[u8]>,
    /// Query text, NUL, parameter types: a Parse without its name.
    pub text_and_types: Box<[u8]>,
    /// It is a `SET pgweir.route` (see [`sql::setting`]).
    pub setting: Option<Option<Route>>,
    /// It is DEALLOCATE ALL or DISCARD ALL.
    pub deallocates_all: bool,
}

impl Statement {
    /// The query.
    pub fn text(&self) -> &[u8] {
        frontend::text(&self.text_and_types)
    }
}

/// All statements of the process by text and types. A text may be long: it is held once, hashed once, and compared and copied
/// while nobody waits for it.
#[derive(Debug, Default)]
pub struct Registry {
    /// By hash, and a number that tells those apart that have the same.
    statements: Mutex<HashMap<(u64, u32), Arc<Statement>>>,
    hasher: hash_map::RandomState,
    last_id: AtomicU64,
}

impl Registry {
    /// The statement with this text and these types.
    pub fn intern(&self, text_and_types: &[u8]) -> Arc<Statement> {
        let mut key = (self.hasher.hash_one(text_and_types), 0);
        let mut new = None;
        loop {
            let found = self.statements.lock().get(&key).cloned();
            if let Some(found) = found {
                if *found.text_and_types == *text_and_types {
                    return found;
                }
                key.1 += 1;
                continue;
            }
            let new = new.get_or_insert_with(|| Arc::new(self.statement(text_and_types)));
            // Another thread may have been faster; then that is looked at.
            if let hash_map::Entry::Vacant(place) = self.statements.lock().entry(key) {
                return Arc::clone(place.insert(Arc::clone(new)));
            }
        }
    }

    fn statement(&self, text_and_types: &[u8]) -> Statement {
        let id = StatementId::after(self.last_id.fetch_add(1, Ordering::Relaxed));
        let mut new = Statement {
            id,
            name: server_name(id).into(),
            text_and_types: text_and_types.into(),
            setting: None,
            deallocates_all: false,
        };
        new.setting = sql::setting(new.text());
        new.deallocates_all = sql::deallocates_all(new.text());
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

/// A client's names. Without any they take no memory.
#[derive(Debug, Default)]
pub struct ClientStatements {
    known: Option<Box<ClientNames>>,
}

/// A client's names, and what of them is under way to its server.
#[derive(Debug, Default)]
pub(super) struct ClientNames {
    pub(super) names: Journal<Arc<[u8]>, ClientStatement>,
    /// The statement in the unnamed portal, if the client has not been told its columns: its name and ID.
    pub(super) bound: Option<(Arc<[u8]>, StatementId)>,
    /// Statements whose columns the server is about to tell, in the order in which the client has asked for them.
    pub(super) describing: VecDeque<(Arc<[u8]>, StatementId)>,
    /// What the server was made to refuse.
    pub(super) refused: Option<Refused>,
    /// DEALLOCATE ALL or DISCARD ALL has made it forget names, and none was given since.
    pub(super) are_forgotten: bool,
    /// What the portal bound last deallocates.
    pub(super) portal: Deallocates,
    /// … and the unnamed statement.
    pub(super) unnamed: Deallocates,
}

/// Which prepared statements a command deallocates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Deallocates {
    #[default]
    Nothing,
    /// It is DEALLOCATE of a statement that the client has prepared under this name by the protocol.
    One(Arc<[u8]>),
    /// It is DEALLOCATE ALL or DISCARD ALL.
    All,
}

/// What a name stands for.
#[derive(Debug)]
pub(super) struct ClientStatement {
    /// The name itself.
    pub(super) name: Arc<[u8]>,
    pub(super) statement: Arc<Statement>,
    /// The columns that the client has been told of.
    pub(super) told: Option<Fingerprint>,
    /// Where it may run and what it leaves in its session, as far as that was found out with the catalog of this generation.
    class: Option<Class>,
    effect: Option<Effect>,
    generation: u32,
}

impl ClientStatement {
    fn new(name: Arc<[u8]>, statement: Arc<Statement>) -> Self {
        Self { name, statement, told: None, class: None, effect: None, generation: 0 }
    }

    /// Forgets what was found out with another catalog. Generation 0 is never remembered.
    #[inline]
    fn look_at(&mut self, generation: u32) {
        if self.generation != generation || generation == 0 {
            (self.class, self.effect, self.generation) = (None, None, generation);
        }
    }
}

impl ClientStatements {
    /// The statement behind a name.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.known.as_ref()?.names.get(name).map(|named| &named.statement)
    }

    /// Where the statement behind a name may run. `classify` is called if that was not found out with the catalog of
    /// this generation yet; generation 0 is never remembered.
    pub fn class(
        &mut self,
        name: &[u8],
        generation: u32,
        classify: impl FnOnce(&Statement) -> Class,
    ) -> Option<Class> {
        let (named, _) = self.known.as_mut()?.names.get_mut(name)?;
        named.look_at(generation);
        Some(*named.class.get_or_insert_with(|| classify(&named.statement)))
    }

    /// What the statement behind a name leaves in its session, in the same way.
    pub fn effect(
        &mut self,
        name: &[u8],
        generation: u32,
        effect: impl FnOnce(&Statement) -> Effect,
    ) -> Option<Effect> {
        let (named, _) = self.known.as_mut()?.names.get_mut(name)?;
        named.look_at(generation);
        Some(*named.effect.get_or_insert_with(|| effect(&named.statement)))
    }

    /// Names and statements in the order in which they were given.
    pub fn in_order(&self) -> impl Iterator<Item = (&[u8], &Arc<Statement>)> {
        let all = self.known.iter().flat_map(|known| known.names.iter());
        all.map(|(name, named)| (&**name, &named.statement))
    }

    /// Gives a statement a name that is not in use.
    pub fn insert(&mut self, name: &[u8], statement: Arc<Statement>) {
        self.known().set(name, Some(statement), None);
    }

    /// Takes a name away that a later change than this one has given.
    pub fn remove_set_after(&mut self, name: &[u8], change: ChangeNumber) {
        if let Some(known) = &mut self.known {
            if known.names.set_by(name).is_some_and(|set_by| set_by > change) {
                known.set(name, None, None);
            }
        }
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.known.as_ref().map_or(0, |known| known.names.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it, if there ever was any.
    pub(super) fn any(&mut self) -> Option<&mut ClientNames> {
        self.known.as_deref_mut()
    }

    pub(super) fn known(&mut self) -> &mut ClientNames {
        self.known.get_or_insert_default()
    }
}

impl ClientNames {
    /// Gives a statement a name, or takes it away, as change `number` of the conversation with the server. Without a number
    /// nothing can undo it.
    pub(super) fn set(
        &mut self,
        name: &[u8],
        statement: Option<Arc<Statement>>,
        number: Option<ChangeNumber>,
    ) {
        self.are_forgotten &= statement.is_none();
        let name: Arc<[u8]> = name.into();
        let named = statement.map(|statement| ClientStatement::new(Arc::clone(&name), statement));
        self.names.set(name, named, number);
    }

    /// Whether the server has yet to say if there is a statement of that name.
    pub(super) fn in_doubt(&self, name: &[u8], changes: &Changes) -> bool {
        let change = self.names.set_by(name).or_else(|| self.names.removed_by(name));
        change.is_some_and(|change| changes.is_in_doubt(change))
    }

    /// The server is lost: what it was told and has not answered has not happened.
    pub(super) fn lose_server(&mut self) {
        self.names.undo(ChangeNumber::MAX);
        self.describing.clear();
        (self.bound, self.refused) = (None, None);
    }
}

/// What a server has prepared, by [`Statement::id`].
#[derive(Debug, Default)]
pub struct ServerStatements {
    copies: Journal<StatementId, ServerCopy>,
}

/// A statement that a server has prepared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerCopy {
    pub(super) columns: Columns,
    /// The server has refused to go on with it, or has it although it should not: it must be closed and prepared again.
    pub(super) stale: bool,
}

/// The columns of a statement's result, as the server has prepared it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Columns {
    /// Nothing is known of them.
    #[default]
    Unknown,
    /// The proxy has asked the server for them.
    Asked,
    /// These.
    Known(Fingerprint),
}

impl ServerStatements {
    /// How many statements the server has.
    pub fn len(&self) -> usize {
        self.copies.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn copies_mut(&mut self) -> &mut Journal<StatementId, ServerCopy> {
        &mut self.copies
    }
}

/// A statement's name on servers.
pub fn server_name(id: StatementId) -> Vec<u8> {
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
}
