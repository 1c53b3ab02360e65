//! What a database says of its own functions and relations, as far as the rules ask. A value; HOT to look things up.
//!
//! `catalog.sql` reports what there is and what uses what. From that follows what must not be touched on a standby:
//! volatile functions, and whatever reaches one of them, however many views, domains, operators or aggregates lie in
//! between; and relations that a standby does not have, or has differently. And what leaves something in the session that
//! uses it.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::functions;

/// Reports objects and uses; for [`Catalog::read`]. One statement, to be run with `search_path = pg_catalog`.
pub const QUERY: &str = include_str!("catalog.sql");

/// A row of [`QUERY`], in text form.
pub type Row = Vec<Option<String>>;

/// OIDs below are initdb's (`FirstNormalObjectId`).
const FIRST_USER_OID: u32 = 16384;

/// Functions of well-known extensions that call themselves stable, but run whatever statement they are given, here or
/// somewhere else.
const RUN_STATEMENTS: &[&str] = &["connectby", "crosstab", "dblink", "xpath_table"];

/// Longest name of an object (`NAMEDATALEN` - 1). Longer ones are cut by the server.
pub(super) const MAX_NAME: usize = 63;

/// What there is in a database. The default one has only PostgreSQL's own functions and plain tables.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Functions that are not PostgreSQL's own, by name.
    functions: HashMap<Box<[u8]>, Vec<Overload>>,
    /// Names that PostgreSQL's own functions share with unsafe ones.
    shadowed: HashSet<Box<[u8]>>,
    names: CatalogNames,
    /// Unsafe functions that can be called as if they were a column: `(x).f`.
    attributes: CatalogNames,
    /// Functions that leave something in the session, and what calls them.
    leaving: CatalogNames,
    /// Unsafe operators.
    operators: Vec<Box<[u8]>>,
    /// Why nothing at all is a read here.
    opaque: Option<String>,
}

/// One of several functions of the same name.
#[derive(Debug, PartialEq, Eq)]
struct Overload {
    schema: Box<[u8]>,
    is_safe: bool,
}

/// Names that mean something when they occur.
#[derive(Debug, PartialEq, Eq)]
struct CatalogNames {
    all: HashSet<Box<[u8]>>,
    /// One of them has other bytes than ASCII ones, which look different in other encodings.
    beyond_ascii: bool,
    /// Bits of [`mix`] of all names: most words of a statement need no more than a look at this.
    filter: Box<[u64; 64]>,
}

impl Default for CatalogNames {
    fn default() -> Self {
        Self { all: HashSet::new(), beyond_ascii: false, filter: Box::new([0; 64]) }
    }
}

impl Catalog {
    /// Makes sense of the rows of [`QUERY`].
    pub fn read(rows: &[Row]) -> Result<Self, String> {
        let graph = Graph::read(rows)?;
        let unfit = graph.unfit();
        let leaving = graph.leaving();
        let mut catalog = Self { opaque: graph.opaque.clone(), ..Self::default() };
        for (id, object) in &graph.objects {
            catalog.add(*id, object, unfit.contains(id));
            if leaving.contains(id) && id.0 != b'o' {
                catalog.leaving.insert(in_quotes(object.name));
            }
        }
        // Every cast that cannot be seen goes with type 0.
        let hidden = unfit.iter().find(|(kind, oid)| *kind == b't' && *oid < FIRST_USER_OID);
        if let Some((_, oid)) = hidden {
            catalog.opaque.get_or_insert_with(|| graph.why_type(*oid));
        }
        Ok(catalog)
    }

    /// Why every statement is taken for a write, if so.
    pub fn opaque(&self) -> Option<&str> {
        self.opaque.as_deref()
    }

    /// How many names, besides functions, make a statement a write.
    pub fn unfit_names(&self) -> usize {
        self.names.all.len() + self.operators.len()
    }

    fn add(&mut self, (kind, oid): (u8, u32), object: &Object<'_>, unfit: bool) {
        let name = in_quotes(object.name);
        match kind {
            b'f' if object.is_builtin(oid) => {
                let is_called = object.note.contains("attribute") && !functions::is_safe(&name);
                is_called.then(|| self.attributes.insert(name));
            }
            b'f' => {
                let is_known = functions::is_safe(&name) || functions::is_syntax(&name);
                if unfit && is_known {
                    self.shadowed.insert(name.clone());
                }
                if unfit && object.note.contains("attribute") {
                    self.attributes.insert(name.clone());
                }
                let schema = in_quotes(object.schema);
                let overloads = self.functions.entry(name).or_default();
                overloads.push(Overload { schema, is_safe: !unfit });
                if object.note.contains("namesake") && !is_known {
                    overloads.push(Overload { schema: b"pg_catalog"[..].into(), is_safe: false });
                }
            }
            b'o' if unfit => self.operators.push(name),
            b'r' | b't' if unfit => self.names.insert(name),
            _ => {}
        }
    }

    /// Whether nothing in this text can be trusted: of this database, or of an operator in it. Operators are looked
    /// for as plain text, which finds them wherever they are.
    pub(super) fn distrusts(&self, text: &[u8]) -> bool {
        self.opaque.is_some()
            || self.operators.iter().any(|name| text.windows(name.len()).any(|window| window == &**name))
    }

    /// Whether a word or a quoted name may be one that must not occur.
    #[inline]
    pub(super) fn forbids(&self, name: &[u8], quoted: bool) -> bool {
        name.len() > MAX_NAME || self.names.may_be(name, quoted)
    }

    /// Whether a word or a quoted name behind a dot may call a function that a read must not call.
    #[inline]
    pub(super) fn calls_attribute(&self, name: &[u8], quoted: bool) -> bool {
        self.attributes.may_be(name, quoted)
    }

    /// Whether what has this name, or may have it, leaves something in the session.
    #[inline]
    pub(super) fn leaves_something(&self, name: &[u8], quoted: bool) -> bool {
        name.len() <= MAX_NAME && self.leaving.may_be(name, quoted)
    }

    /// Whether no function of this database leaves anything.
    #[inline]
    pub(super) fn leaves_nothing(&self) -> bool {
        self.leaving.all.is_empty()
    }

    /// Whether a function of PostgreSQL's own may be another one.
    #[inline]
    pub(super) fn shadows(&self, name: &[u8]) -> bool {
        !self.shadowed.is_empty() && lowered(name, |name| self.shadowed.contains(name))
    }

    /// The same, if the schema is named: somebody has put one of his own there.
    pub(super) fn shadows_in_pg_catalog(&self, name: &[u8]) -> bool {
        self.shadows(name)
            && lowered(name, |name| self.functions.get(name))
                .into_iter()
                .flatten()
                .any(|overload| &*overload.schema == b"pg_catalog" && !overload.is_safe)
    }

    /// Whether a function is one that a read may call: each one of that name, in that schema if there is one.
    pub(super) fn has_safe_function(&self, schema: Option<(&[u8], bool)>, name: &[u8], quoted: bool) -> bool {
        if !name.is_ascii() || name.len() > MAX_NAME {
            return false;
        }
        let mut overloads = match quoted {
            true => self.functions.get(name),
            false => lowered(name, |name| self.functions.get(name)),
        }
        .into_iter()
        .flatten()
        .filter(|overload| match schema {
            None => true,
            Some((schema, true)) => *overload.schema == *schema,
            Some((schema, false)) => overload.schema.eq_ignore_ascii_case(schema),
        })
        .peekable();
        overloads.peek().is_some() && overloads.all(|overload| overload.is_safe)
    }
}

impl CatalogNames {
    fn insert(&mut self, name: Box<[u8]>) {
        let (word, bit) = mix(&name);
        self.filter[word] |= bit;
        self.beyond_ascii |= !name.is_ascii();
        self.all.insert(name);
    }

    /// Whether a name is, or may be, one of them.
    #[inline]
    fn may_be(&self, name: &[u8], quoted: bool) -> bool {
        let (word, bit) = mix(name);
        self.filter[word] & bit != 0 && self.contains(name, quoted) || self.beyond_ascii && !name.is_ascii()
    }

    #[cold]
    fn contains(&self, name: &[u8], quoted: bool) -> bool {
        if quoted { self.all.contains(name) } else { lowered(name, |name| self.all.contains(name)) }
    }
}

/// A name as it is between double quotes in a statement.
fn in_quotes(name: &str) -> Box<[u8]> {
    name.replace('"', "\"\"").into_bytes().into()
}

/// One of 4096 bits for a name, the same in upper and lower case.
#[inline]
fn mix(name: &[u8]) -> (usize, u64) {
    let byte = |at: usize| name.get(at).map_or(0, |b| usize::from(b | 0x20));
    let len = name.len();
    let mixed = byte(0) ^ (byte(len / 2) << 3) ^ (byte(len.wrapping_sub(1)) << 5) ^ (len << 8);
    ((mixed >> 6) & 63, 1 << (mixed & 63))
}

/// Calls with a name in lower case; names are at most [`MAX_NAME`] long.
fn lowered<T>(name: &[u8], call: impl FnOnce(&[u8]) -> T) -> T {
    let mut lower = [0; MAX_NAME];
    let len = name.len().min(MAX_NAME);
    let lower = &mut lower[..len];
    lower.copy_from_slice(&name[..len]);
    lower.make_ascii_lowercase();
    call(lower)
}

/// Kind and OID.
type Id = (u8, u32);

/// What the query has reported.
#[derive(Default)]
struct Graph<'a> {
    /// In order, so that equal databases make equal catalogs.
    objects: BTreeMap<Id, Object<'a>>,
    users: HashMap<Id, Vec<Id>>,
    opaque: Option<String>,
}

struct Object<'a> {
    schema: &'a str,
    name: &'a str,
    good: bool,
    note: &'a str,
}

impl Object<'_> {
    fn is_builtin(&self, oid: u32) -> bool {
        oid < FIRST_USER_OID && self.schema == "pg_catalog"
    }

    /// Whether it is unfit for a standby by itself.
    fn is_unfit(&self, (kind, oid): Id) -> bool {
        match kind {
            b'f' if self.is_builtin(oid) => !functions::is_safe(self.name.as_bytes()),
            b'f' => {
                !self.good
                    || self.note.contains("leaves")
                    || RUN_STATEMENTS.iter().any(|name| self.name.starts_with(name))
            }
            _ => !self.good,
        }
    }
}

impl<'a> Graph<'a> {
    fn read(rows: &'a [Row]) -> Result<Self, String> {
        let mut graph = Self::default();
        for row in rows {
            graph.take(row).ok_or_else(|| format!("unexpected row in the catalog: {row:?}"))?;
        }
        Ok(graph)
    }

    fn take(&mut self, row: &'a Row) -> Option<()> {
        let [what, kind, oid, schema, name, flag, other, other_oid] = row.as_slice() else { return None };
        let id = |kind: &Option<String>, oid: &Option<String>| -> Option<Id> {
            Some((*kind.as_ref()?.as_bytes().first()?, oid.as_ref()?.parse().ok()?))
        };
        match what.as_deref()? {
            "object" => {
                let object = Object {
                    schema: schema.as_deref()?,
                    name: name.as_deref()?,
                    good: flag.as_deref()? == "t",
                    note: other.as_deref().unwrap_or_default(),
                };
                self.objects.insert(id(kind, oid)?, object);
            }
            "use" => self.users.entry(id(other, other_oid)?).or_default().push(id(kind, oid)?),
            "all" => self.opaque = Some(name.clone()?),
            _ => return None,
        }
        Some(())
    }

    /// Everything that is unfit by itself or uses what is.
    fn unfit(&self) -> HashSet<Id> {
        let mut next: Vec<Id> =
            self.objects.iter().filter(|(id, object)| object.is_unfit(**id)).map(|(id, _)| *id).collect();
        // A function nobody has described has been made while the query ran.
        next.extend(self.users.keys().filter(|id| id.0 == b'f' && !self.objects.contains_key(id)));
        self.with_users(next)
    }

    /// Everything that leaves something in the session by itself or uses what does.
    fn leaving(&self) -> HashSet<Id> {
        let leaving = self.objects.iter().filter(|(_, object)| object.note.contains("leaves"));
        self.with_users(leaving.map(|(id, _)| *id).collect())
    }

    /// Some objects, and what uses them, however many others lie in between.
    fn with_users(&self, mut next: Vec<Id>) -> HashSet<Id> {
        let mut all = HashSet::new();
        while let Some(id) = next.pop() {
            if all.insert(id) {
                next.extend(self.users.get(&id).into_iter().flatten());
            }
        }
        all
    }

    fn why_type(&self, oid: u32) -> String {
        match self.objects.get(&(b't', oid)) {
            Some(of) => {
                format!("an operator or operator class of type {} calls a volatile function", of.name)
            }
            None => "a cast that is made without being written calls a volatile function".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
