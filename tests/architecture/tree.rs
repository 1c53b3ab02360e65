//! The module tree of a crate as the compiler sees it, and what the code of each module names.

use std::collections::{HashMap, HashSet};

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Item, UseTree, Visibility};

/// A path as it is written: `["super", "table", "Row"]`.
pub(crate) type Path = Vec<String>;

/// Gives the text of a file, by its name from the package's folder; `None` if there is none.
pub(crate) type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A file of the crate.
#[derive(Debug, Default)]
pub(crate) struct File {
    /// From the package's folder: `src/net/mod.rs`.
    pub(crate) name: String,
    /// All of it is compiled for tests only.
    pub(crate) is_test: bool,
    /// All of its lines.
    pub(crate) lines: usize,
    /// Those of them that are compiled for tests only.
    pub(crate) test_lines: usize,
    /// The functions that are not for tests.
    pub(crate) functions: Vec<Function>,
    /// How many tests there are.
    pub(crate) tests: usize,
    /// How often its tests call a function `sleep` while the real clock runs.
    pub(crate) sleeps: usize,
}

impl File {
    /// The room the file belongs to: `net` for `src/net/mod.rs`; nothing for `src/lib.rs`.
    pub(crate) fn room(&self) -> &str {
        let name = self.name.strip_prefix("src/").unwrap_or(&self.name);
        match name.split_once('/') {
            Some((room, _)) => room,
            None => Some(name.trim_end_matches(".rs"))
                .filter(|name| *name != "lib" && *name != "main")
                .unwrap_or(""),
        }
    }

    /// The lines that are compiled into the program.
    pub(crate) fn own_lines(&self) -> usize {
        if self.is_test { 0 } else { self.lines - self.test_lines }
    }
}

/// A function, from its `fn` to its closing brace.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

/// A module, in a file of its own or inside another one.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// From the root of the crate: `["net", "tls"]`.
    pub(crate) path: Path,
    pub(crate) parent: Option<usize>,
    pub(crate) file: usize,
    pub(crate) is_test: bool,
    pub(crate) children: HashMap<String, usize>,
    /// The names that are defined here.
    pub(crate) items: HashSet<String>,
    /// The names that `use` brings in, and what they stand for.
    pub(crate) bindings: HashMap<String, Vec<Path>>,
    /// What `use …::*` brings in.
    pub(crate) globs: Vec<Path>,
    /// The paths that the code names, but for re-exports.
    pub(crate) named: Vec<Path>,
    /// `pub use`: under which name, and what.
    pub(crate) exports: Vec<(String, Path)>,
    /// The first segment of every path in the code.
    pub(crate) mentioned: HashSet<String>,
    /// The types to which an `impl` without a trait adds functions.
    pub(crate) extended: Vec<Path>,
}

/// A crate: its files, and its modules with the root first.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
    pub(crate) modules: Vec<Module>,
}

impl Tree {
    /// Reads the crate whose root is that file.
    pub(crate) fn load(root: &str, is_test: bool, read: Read<'_>) -> Self {
        let mut tree = Self::default();
        tree.load_file(root, folder_of(root), None, "", is_test, read);
        tree
    }

    /// Reads a module that is a file of its own. `folder` is that of its children. Gives the module.
    fn load_file(
        &mut self,
        name: &str,
        folder: &str,
        parent: Option<usize>,
        module: &str,
        is_test: bool,
        read: Read<'_>,
    ) -> usize {
        let text = read(name).unwrap_or_else(|| panic!("there is no {name}"));
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let is_test = is_test || is_for_tests(&parsed.attrs);
        let file = self.files.len();
        let lines = text.lines().count();
        self.files.push(File { name: name.to_owned(), is_test, lines, ..File::default() });
        let module = self.add_module(parent, module, file, is_test);
        Walk { folder: folder.to_owned(), tree: self, module, file, is_test, is_paused: false, read }
            .items(&parsed.items);
        module
    }

    fn add_module(&mut self, parent: Option<usize>, name: &str, file: usize, is_test: bool) -> usize {
        let mut path = parent.map_or_else(Vec::new, |parent| self.modules[parent].path.clone());
        if parent.is_some() {
            path.push(name.to_owned());
        }
        self.modules.push(Module { path, parent, file, is_test, ..Module::default() });
        let module = self.modules.len() - 1;
        if let Some(parent) = parent {
            self.modules[parent].children.insert(name.to_owned(), module);
        }
        module
    }
}

/// Whether `#[cfg(test)]`, or `all` of that and something else, stands before it.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        let Ok(condition) = attribute.parse_args::<syn::Meta>() else { return false };
        match condition {
            syn::Meta::Path(path) => path.is_ident("test"),
            syn::Meta::List(list) if list.path.is_ident("all") => list
                .tokens
                .into_iter()
                .any(|token| matches!(token, TokenTree::Ident(ident) if ident == "test")),
            _ => false,
        }
    })
}

/// Walks through the code of one module.
struct Walk<'a> {
    tree: &'a mut Tree,
    module: usize,
    file: usize,
    /// The folder in which the module's children are.
    folder: String,
    /// What is being walked through is compiled for tests only.
    is_test: bool,
    /// The clock of the test that is being walked through is not the real one.
    is_paused: bool,
    read: Read<'a>,
}

impl Walk<'_> {
    fn module(&mut self) -> &mut Module {
        &mut self.tree.modules[self.module]
    }

    fn file(&mut self) -> &mut File {
        &mut self.tree.files[self.file]
    }

    fn items(&mut self, items: &[Item]) {
        self.module().items.extend(items.iter().filter_map(name_of));
        items.iter().for_each(|item| self.visit_item(item));
    }

    /// Goes on with something that has attributes.
    fn guarded(&mut self, attributes: &[Attribute], span: Span, go_on: impl FnOnce(&mut Self)) {
        if self.is_test || !is_for_tests(attributes) {
            return go_on(self);
        }
        self.is_test = true;
        self.file().test_lines += span.end().line - span.start().line + 1;
        go_on(self);
        self.is_test = false;
    }

    /// A path that the code names, `use` left out.
    fn mention(&mut self, path: Path) {
        if self.is_test {
            return;
        }
        if let Some(first) = path.first() {
            self.module().mentioned.insert(first.clone());
        }
        if path.len() > 1 {
            self.module().named.push(path);
        }
    }

    fn function(&mut self, signature: &syn::Signature, body: Span, attributes: &[Attribute]) {
        let is_a_test =
            |attribute: &Attribute| attribute.path().segments.last().is_some_and(|last| last.ident == "test");
        if attributes.iter().any(is_a_test) {
            self.file().tests += 1;
        }
        if !self.is_test {
            let line = signature.span().start().line;
            let function =
                Function { name: signature.ident.to_string(), line, lines: body.end().line - line + 1 };
            self.file().functions.push(function);
        }
    }

    /// Names in what is handed to a macro, which no parser knows.
    fn scan(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => {
                    let is_attribute = at > 0 && is_punct(tokens.get(at - 1), '#');
                    if is_attribute && group.delimiter() == Delimiter::Bracket {
                        if group.stream().to_string() == "test" {
                            self.file().tests += 1;
                        }
                    } else {
                        self.scan(group.stream());
                    }
                    at += 1;
                }
                TokenTree::Ident(first) => {
                    let mut path = vec![first.to_string()];
                    at += 1;
                    while is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':') {
                        let Some(TokenTree::Ident(next)) = tokens.get(at + 2) else { break };
                        path.push(next.to_string());
                        at += 3;
                    }
                    let is_call = matches!(tokens.get(at), Some(TokenTree::Group(_)));
                    if is_call {
                        self.call(path.last().map_or("", String::as_str));
                    }
                    self.mention(path);
                }
                _ => at += 1,
            }
        }
    }

    fn call(&mut self, function: &str) {
        if function == "sleep" && self.is_test && !self.is_paused {
            self.file().sleeps += 1;
        }
    }

    /// The leaves of `use`.
    fn leaves(&mut self, tree: &UseTree, before: &Path, is_export: bool) {
        let with =
            |segment: &syn::Ident| before.iter().cloned().chain([segment.to_string()]).collect::<Path>();
        match tree {
            UseTree::Path(path) => self.leaves(&path.tree, &with(&path.ident), is_export),
            UseTree::Group(group) => {
                group.items.iter().for_each(|item| self.leaves(item, before, is_export));
            }
            UseTree::Name(name) if name.ident == "self" => {
                let name = before.last().cloned().unwrap_or_default();
                self.bind(name, before.clone(), is_export);
            }
            UseTree::Name(name) => self.bind(name.ident.to_string(), with(&name.ident), is_export),
            UseTree::Rename(rename) if rename.ident == "self" => {
                self.bind(rename.rename.to_string(), before.clone(), is_export);
            }
            UseTree::Rename(rename) => {
                self.bind(rename.rename.to_string(), with(&rename.ident), is_export);
            }
            UseTree::Glob(_) => self.module().globs.push(before.clone()),
        }
    }

    fn bind(&mut self, name: String, path: Path, is_export: bool) {
        let module = self.module();
        module.bindings.entry(name.clone()).or_default().push(path.clone());
        if is_export {
            module.exports.push((name, path));
        } else {
            module.named.push(path);
        }
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        self.guarded(attributes_of(item), item.span(), |walk| visit::visit_item(walk, item));
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        let folder = format!("{}/{name}", self.folder);
        if let Some((_, items)) = &item.content {
            let module = self.tree.add_module(Some(self.module), &name, self.file, self.is_test);
            let (tree, read) = (&mut *self.tree, self.read);
            let (file, is_test, is_paused) = (self.file, self.is_test, self.is_paused);
            return Walk { tree, module, file, folder, is_test, is_paused, read }.items(items);
        }
        if let Some(file) = item.attrs.iter().find_map(path_attribute) {
            let file = joined(folder_of(&self.tree.files[self.file].name), &file);
            // Children of such a file are beside it, whatever it is called.
            let folder = folder_of(&file).to_owned();
            self.tree.load_file(&file, &folder, Some(self.module), &name, self.is_test, self.read);
            return;
        }
        let beside = format!("{folder}.rs");
        let file = if (self.read)(&beside).is_some() { beside } else { format!("{folder}/mod.rs") };
        self.tree.load_file(&file, &folder, Some(self.module), &name, self.is_test, self.read);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !self.is_test && item.leading_colon.is_none() {
            let is_export = !matches!(item.vis, Visibility::Inherited);
            self.leaves(&item.tree, &Vec::new(), is_export);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        let was_paused = self.is_paused;
        let is_paused = |attribute: &Attribute| {
            attribute
                .meta
                .require_list()
                .is_ok_and(|list| list.tokens.to_string().contains("start_paused = true"))
        };
        self.is_paused |= item.attrs.iter().any(is_paused);
        self.function(&item.sig, item.block.span(), &item.attrs);
        visit::visit_item_fn(self, item);
        self.is_paused = was_paused;
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let (None, syn::Type::Path(of), false) = (&item.trait_, &*item.self_ty, self.is_test) {
            self.module().extended.push(segments(&of.path));
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attributes: &[_] = match item {
            syn::ImplItem::Const(item) => &item.attrs,
            syn::ImplItem::Fn(item) => &item.attrs,
            syn::ImplItem::Type(item) => &item.attrs,
            syn::ImplItem::Macro(item) => &item.attrs,
            _ => &[],
        };
        self.guarded(attributes, item.span(), |walk| visit::visit_impl_item(walk, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, item.block.span(), &item.attrs);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.guarded(&item.attrs, item.span(), |walk| {
            if let Some(body) = &item.default {
                walk.function(&item.sig, body.span(), &item.attrs);
            }
            visit::visit_trait_item_fn(walk, item);
        });
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        self.guarded(&field.attrs, field.span(), |walk| visit::visit_field(walk, field));
    }

    fn visit_field_value(&mut self, value: &'ast syn::FieldValue) {
        self.guarded(&value.attrs, value.span(), |walk| visit::visit_field_value(walk, value));
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        self.guarded(&variant.attrs, variant.span(), |walk| visit::visit_variant(walk, variant));
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        self.guarded(&arm.attrs, arm.span(), |walk| visit::visit_arm(walk, arm));
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        self.guarded(&local.attrs, local.span(), |walk| visit::visit_local(walk, local));
    }

    fn visit_expr_block(&mut self, block: &'ast syn::ExprBlock) {
        self.guarded(&block.attrs, block.span(), |walk| visit::visit_expr_block(walk, block));
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let Expr::Path(function) = &*call.func {
            if let Some(last) = function.path.segments.last() {
                self.call(&last.ident.to_string());
            }
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_pat_ident(&mut self, pattern: &'ast syn::PatIdent) {
        // A constant looks like a variable here.
        self.mention(vec![pattern.ident.to_string()]);
        visit::visit_pat_ident(self, pattern);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.mention(segments(path));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.mention(segments(&item.path));
        self.scan(item.tokens.clone());
    }

    /// `pub(in crate::admin)` imports nothing.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

fn is_punct(token: Option<&TokenTree>, punct: char) -> bool {
    matches!(token, Some(TokenTree::Punct(found)) if found.as_char() == punct)
}

fn segments(path: &syn::Path) -> Path {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

fn folder_of(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// A file as seen from a folder: `..` is the folder above.
fn joined(folder: &str, file: &str) -> String {
    let mut parts: Vec<_> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in file.split('/') {
        match part {
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The file that `#[path = "…"]` names.
fn path_attribute(attribute: &Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
    match &pair.value {
        Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) if pair.path.is_ident("path") => {
            Some(text.value())
        }
        _ => None,
    }
}

/// The name that an item defines, if others can import it.
fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
