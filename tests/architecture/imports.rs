//! Which file imports which, and where that goes in a circle.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{Module, Path, Tree};

/// What a path stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// A module of the crate.
    Module(usize),
    /// What that module defines under that name.
    Item(usize, String),
    /// Something of another crate, or of the function itself.
    Other(Path),
}

/// How far a chain of re-exports is followed.
const MAX_DEPTH: usize = 16;

impl Tree {
    /// What a path in the code of a module stands for: several things if it is the name of a type and of a function, say.
    pub(crate) fn resolve(&self, module: usize, path: &[String]) -> BTreeSet<Target> {
        let mut found = BTreeSet::new();
        self.resolve_into(&mut found, module, path, 0);
        found
    }

    fn resolve_into(&self, found: &mut BTreeSet<Target>, module: usize, path: &[String], depth: usize) {
        let Some((first, rest)) = path.split_first() else { return };
        let parent = self.modules[module].parent.unwrap_or(0);
        match first.as_str() {
            "crate" => self.descend(found, 0, rest, depth),
            "self" => self.descend(found, module, rest, depth),
            "super" if rest.first().is_some_and(|next| next == "super") => {
                self.resolve_into(found, parent, rest, depth);
            }
            "super" => self.descend(found, parent, rest, depth),
            "Self" => {}
            _ if !self.look_up(found, module, path, depth) => {
                found.insert(Target::Other(path.to_vec()));
            }
            _ => {}
        }
    }

    /// Follows a path that begins in a module.
    fn descend(&self, found: &mut BTreeSet<Target>, module: usize, path: &[String], depth: usize) {
        if path.is_empty() {
            found.insert(Target::Module(module));
        } else if !self.look_up(found, module, path, depth)
            && !self.look_into_globs(found, module, path, depth)
        {
            // A macro has made it.
            found.insert(Target::Item(module, path[0].clone()));
        }
    }

    /// Whether the path's first name is known in the module.
    fn look_up(&self, found: &mut BTreeSet<Target>, at: usize, path: &[String], depth: usize) -> bool {
        let (name, rest) = (&path[0], &path[1..]);
        let module = &self.modules[at];
        let child = module.children.get(name);
        let is_item = module.items.contains(name);
        if is_item {
            found.insert(Target::Item(at, name.clone()));
        }
        let bindings = module.bindings.get(name).filter(|_| depth < MAX_DEPTH);
        for binding in bindings.into_iter().flatten() {
            // `use tracing;` and `use self::tracing::tracing` are not what they bring in.
            if binding.first() == Some(name) && child.is_none() {
                found.insert(Target::Other(binding.iter().chain(rest).cloned().collect()));
            } else {
                let whole: Path = binding.iter().chain(rest).cloned().collect();
                self.resolve_into(found, at, &whole, depth + 1);
            }
        }
        if let Some(child) = child.filter(|_| !rest.is_empty() || (!is_item && bindings.is_none())) {
            self.descend(found, *child, rest, depth);
        }
        child.is_some() || is_item || bindings.is_some()
    }

    /// Whether something that the module re-exports with `*` has the path's first name.
    fn look_into_globs(
        &self,
        found: &mut BTreeSet<Target>,
        at: usize,
        path: &[String],
        depth: usize,
    ) -> bool {
        let globs = self.modules[at].globs.iter().filter(|_| depth < MAX_DEPTH);
        let mut modules = globs.flat_map(|glob| self.resolve(at, glob)).filter_map(|target| match target {
            Target::Module(module) if module != at => Some(module),
            _ => None,
        });
        modules.any(|module| self.look_up(found, module, path, depth + 1))
    }

    /// What the code of a module imports or names. What it passes on of its children is none of that, unless its own code
    /// names that, too.
    pub(crate) fn named(&self, module: usize) -> BTreeSet<Target> {
        let Module { named, exports, globs, mentioned, .. } = &self.modules[module];
        let mut targets: BTreeSet<_> = named.iter().flat_map(|path| self.resolve(module, path)).collect();
        for (name, path) in exports {
            let exported = self.resolve(module, path).into_iter();
            let is_used = mentioned.contains(name);
            targets.extend(exported.filter(|target| is_used || !self.is_inside(target, module)));
        }
        for glob in globs {
            // Everything in it.
            targets.extend(self.resolve(module, glob).into_iter().map(|target| match target {
                Target::Module(of) => Target::Item(of, "*".to_owned()),
                other => other,
            }));
        }
        targets
    }

    /// Whether a target is in a module or below it.
    fn is_inside(&self, target: &Target, module: usize) -> bool {
        match target {
            Target::Module(of) | Target::Item(of, _) => {
                self.modules[*of].path.starts_with(&self.modules[module].path)
            }
            Target::Other(_) => false,
        }
    }

    /// The name of a target from the root: `crate::clock::now`, `std::time::Instant`.
    pub(crate) fn name(&self, target: &Target) -> String {
        let in_crate =
            |module: usize| ["crate".to_owned()].into_iter().chain(self.modules[module].path.clone());
        match target {
            Target::Module(module) => in_crate(*module).collect::<Path>().join("::"),
            Target::Item(module, name) => {
                in_crate(*module).chain([name.clone()]).collect::<Path>().join("::")
            }
            Target::Other(path) => path.join("::"),
        }
    }

    /// The modules that are part of the program.
    pub(crate) fn own_modules(&self) -> impl Iterator<Item = usize> {
        (0..self.modules.len()).filter(|module| !self.modules[*module].is_test)
    }

    /// Which file imports what of which other file.
    pub(crate) fn imports(&self) -> BTreeMap<usize, BTreeMap<usize, BTreeSet<String>>> {
        let mut imports: BTreeMap<usize, BTreeMap<usize, BTreeSet<String>>> = BTreeMap::new();
        for module in self.own_modules() {
            let from = self.modules[module].file;
            for target in self.named(module) {
                let Target::Item(of, name) = target else { continue };
                let to = self.modules[of].file;
                if to != from {
                    imports.entry(from).or_default().entry(to).or_default().insert(name);
                }
            }
        }
        imports
    }

    /// The circles of imports: the files of each.
    pub(crate) fn circles(&self) -> Vec<Vec<usize>> {
        let imports = self.imports();
        let reached: Vec<BTreeSet<usize>> = (0..self.files.len())
            .map(|start| {
                let mut reached = BTreeSet::new();
                let mut open = vec![start];
                while let Some(file) = open.pop() {
                    let next = imports.get(&file).into_iter().flat_map(BTreeMap::keys);
                    open.extend(next.filter(|to| reached.insert(**to)));
                }
                reached
            })
            .collect();
        let mut circles: BTreeSet<Vec<usize>> = BTreeSet::new();
        for file in (0..self.files.len()).filter(|file| reached[*file].contains(file)) {
            let members = reached[file].iter().copied().filter(|other| reached[*other].contains(&file));
            circles.insert(members.collect());
        }
        circles.into_iter().collect()
    }

    /// A circle for a person to read: each of its files, and what it imports of the others.
    pub(crate) fn describe(&self, circle: &[usize]) -> String {
        let imports = self.imports();
        let mut text = format!("a circle of {} files:\n", circle.len());
        for from in circle {
            for (to, names) in imports.get(from).into_iter().flatten().filter(|(to, _)| circle.contains(to)) {
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                let (from, to) = (&self.files[*from].name, &self.files[*to].name);
                text += &format!("    {from} imports {} of {to}\n", names.join(", "));
            }
        }
        text
    }
}
