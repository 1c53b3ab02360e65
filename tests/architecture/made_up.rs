//! The checker itself, on made-up crates.

use crate::tree::Tree;

fn tree(files: &[(&str, &str)]) -> Tree {
    let read = |name: &str| files.iter().find(|(file, _)| *file == name).map(|(_, text)| (*text).to_owned());
    Tree::load("src/lib.rs", false, &read)
}

/// What each file imports: `a.rs > b.rs: Name`.
fn imports(files: &[(&str, &str)]) -> Vec<String> {
    let tree = tree(files);
    let short = |file: usize| tree.files[file].name.trim_start_matches("src/").to_owned();
    let all = tree.imports();
    let pairs =
        all.iter().flat_map(|(from, imported)| imported.iter().map(move |(to, names)| (from, to, names)));
    pairs
        .flat_map(|(from, to, names)| names.iter().map(move |name| (*from, *to, name)))
        .map(|(from, to, name)| format!("{} > {}: {name}", short(from), short(to)))
        .collect()
}

fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let tree = tree(files);
    let names = |circle: &Vec<usize>| circle.iter().map(|file| tree.files[*file].name.clone()).collect();
    tree.circles().iter().map(names).collect()
}

#[test]
fn a_circle_is_found() {
    let files = [
        ("src/lib.rs", "mod a; mod b; mod c; mod d;"),
        ("src/a.rs", "use crate::b::B; pub struct A(B);"),
        ("src/b.rs", "use super::c; pub struct B; fn f() { c::f() }"),
        ("src/c.rs", "pub fn f() -> crate::a::A { loop {} }"),
        ("src/d.rs", "use crate::a::A; fn f(_: A) {}"),
    ];
    assert_eq!(circles(&files), [["src/a.rs", "src/b.rs", "src/c.rs"]]);
}

#[test]
fn a_child_that_uses_its_parent_and_a_parent_that_uses_its_child_are_a_circle() {
    let files = [
        ("src/lib.rs", "pub mod room;"),
        ("src/room/mod.rs", "mod child; pub struct P; fn f() { child::g() }"),
        ("src/room/child.rs", "use super::P; pub fn g() { let _ = P; }"),
    ];
    assert_eq!(circles(&files), [["src/room/mod.rs", "src/room/child.rs"]]);
}

#[test]
fn to_declare_and_to_pass_on_is_no_import() {
    let files = [
        ("src/lib.rs", "pub mod room;"),
        ("src/room/mod.rs", "mod child; mod other; pub use child::C; pub struct P;"),
        ("src/room/child.rs", "use super::P; pub struct C(P);"),
        ("src/room/other.rs", "use super::C; fn f(_: C) {}"),
    ];
    assert_eq!(imports(&files), ["room/child.rs > room/mod.rs: P", "room/other.rs > room/child.rs: C"]);
    assert!(circles(&files).is_empty());
    // What is passed on and used is imported.
    let mut used = files;
    used[1].1 = "mod child; mod other; pub use child::C; pub struct P; fn f(_: C) {}";
    assert_eq!(circles(&used), [["src/room/mod.rs", "src/room/child.rs"]]);
    // And so is what is passed on of a room beside.
    let mut beside = files;
    beside[2].1 = "pub use super::P; pub struct C;";
    assert!(imports(&beside).contains(&"room/child.rs > room/mod.rs: P".to_owned()));
}

#[test]
fn paths_in_code_count() {
    for code in [
        "fn f() { super::b::B::new(); }",
        "fn f(_: super::b::B) {}",
        "fn f<T: crate::b::B>() {}",
        "fn f() -> Vec<crate::b::B> { loop {} }",
        "fn f() { if let super::b::B = g() {} }",
        "fn f() { println!(\"{}\", super::b::B); }",
        "fn f() { select! { x = super::b::B::new() => { x } } }",
        "use super::b; fn f() { b::B::new(); }",
        "use crate::{b::{self as c}}; fn f() { vec![c::B]; }",
        "fn f() { use super::b::B; }",
        "mod inner { fn f() { super::super::b::B::new(); } }",
        "impl From<super::b::B> for A {}",
        "struct A { #[allow(unused)] b: super::b::B }",
        "macro_rules! m { () => { $crate::b::B }; }",
        "const A: usize = crate::b::B;",
    ] {
        let files = [("src/lib.rs", "mod a; mod b;"), ("src/a.rs", code), ("src/b.rs", "pub struct B;")];
        assert_eq!(imports(&files), ["a.rs > b.rs: B"], "{code}");
    }
}

#[test]
fn what_is_no_import() {
    for code in [
        "//! [`super::b::B`]\n/// See [`B`](crate::b::B).\nfn f() {}",
        "pub(in crate::a) fn f() {}",
        "#[cfg(test)] use super::b::B;",
        "#[cfg(test)] mod tests { use crate::b::B; }",
        "struct A; impl A { #[cfg(test)] fn f() -> crate::b::B { loop {} } }",
        "struct A { #[cfg(test)] b: crate::b::B }",
        "fn f() { let text = \"crate::b::B\"; }",
        "fn f() { b::B::new(); }",
        "use b::B; use std::b as c; fn f() { c::B::new() }",
    ] {
        let files = [("src/lib.rs", "mod a; mod b;"), ("src/a.rs", code), ("src/b.rs", "pub struct B;")];
        assert_eq!(imports(&files), Vec::<String>::new(), "{code}");
    }
}

#[test]
fn a_test_in_the_middle_of_a_file_hides_nothing() {
    let text = "use super::b::B;\n#[cfg(test)]\nmod tests;\n#[cfg(test)]\nfn g() {\n}\nfn f() { super::c::C::new() }\n";
    let files = [
        ("src/lib.rs", "mod a; mod b; mod c;"),
        ("src/a.rs", text),
        ("src/a/tests.rs", "use super::*;\n#[test]\nfn t() { sleep(1); }\n"),
        ("src/b.rs", "pub struct B;"),
        ("src/c.rs", "pub struct C;"),
    ];
    assert_eq!(imports(&files), ["a.rs > b.rs: B", "a.rs > c.rs: C"]);
    let tree = tree(&files);
    let file = |name: &str| tree.files.iter().find(|file| file.name == name).unwrap();
    assert_eq!((file("src/a.rs").own_lines(), file("src/a/tests.rs").own_lines()), (2, 0));
    assert_eq!((file("src/a/tests.rs").tests, file("src/a/tests.rs").sleeps), (1, 1));
    assert_eq!(file("src/a.rs").functions.len(), 1);
}

#[test]
fn a_path_leads_to_the_file_that_defines_the_item() {
    let files = [
        ("src/lib.rs", "pub mod a; pub mod room;"),
        (
            "src/a.rs",
            "use crate::room::{self, All, Deep, Renamed, hint, made}; fn f() { room::g(); hint(); hint::h(); }",
        ),
        (
            "src/room/mod.rs",
            "mod deep; mod all; mod hint; pub use deep::Deep; pub use self::deep::inner::D as Renamed; \
             pub use all::*; pub use deep::g; pub use hint::leading as hint; make!(made);",
        ),
        ("src/room/deep.rs", "pub mod inner; pub use inner::D as Deep; pub fn g() {}"),
        ("src/room/deep/inner.rs", "pub struct D;"),
        ("src/room/all.rs", "pub struct All;"),
        ("src/room/hint.rs", "pub fn leading() {} pub fn h() {}"),
    ];
    let expected = [
        "a.rs > room/mod.rs: made",
        "a.rs > room/deep.rs: g",
        "a.rs > room/deep/inner.rs: D",
        "a.rs > room/all.rs: All",
        "a.rs > room/hint.rs: h",
        "a.rs > room/hint.rs: leading",
        "room/mod.rs > room/all.rs: *",
    ];
    assert_eq!(imports(&files), expected);
}

#[test]
fn files_are_found_where_the_compiler_finds_them() {
    let files = [
        ("src/lib.rs", "mod a; mod b; #[path = \"../other/c.rs\"] mod c; mod d { mod inner; }"),
        ("src/a.rs", "mod child;"),
        ("src/a/child.rs", ""),
        ("src/b/mod.rs", "mod child;"),
        ("src/b/child.rs", ""),
        ("other/c.rs", "mod beside;"),
        ("other/beside.rs", ""),
        ("src/d/inner.rs", ""),
    ];
    let seen: Vec<_> = tree(&files).files.into_iter().map(|file| file.name).collect();
    assert_eq!(seen, files.map(|(name, _)| name));
}

#[test]
fn what_is_not_of_the_crate_is_known_by_its_whole_name() {
    let code = "use std::time::{self, Instant as Now}; use parking_lot::Mutex; use tracing; \
                fn f(_: Now, _: Mutex<()>) { time::SystemTime::now(); tracing::info!(\"\"); std::fs::read(); }";
    let tree = tree(&[("src/lib.rs", "mod a;"), ("src/a.rs", code)]);
    let names: Vec<_> = tree.named(1).iter().map(|target| tree.name(target)).collect();
    for name in ["std::time::Instant", "std::time::SystemTime::now", "parking_lot::Mutex", "std::fs::read"] {
        assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
    }
}
