//! Holds the architecture: imports run downwards only and never in a circle, pure rooms stay pure, nothing grows too large.
//!
//! `cargo test --test architecture -- --ignored --nocapture` prints the figures.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed, and prints why"
)]

#[path = "architecture/figures.rs"]
mod figures;
#[path = "architecture/imports.rs"]
mod imports;
#[path = "architecture/made_up.rs"]
mod made_up;
#[path = "architecture/tree.rs"]
mod tree;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tree::{File, Tree};

/// The rooms from bottom to top, as in `src/lib.rs` and ARCHITECTURE.md. A room may import those before it.
const ROOMS: &[&str] = &[
    "clock", "error", "wire", "sql", "auth", "config", "session", "pool", "metrics", "net", "route", "proxy",
    "admin", "cli", "logging", "app",
];

/// Rooms in which files still import each other in a circle.
const CIRCLES: &[&str] = &[];

/// Rooms that know neither sockets nor files nor threads nor time: their tests need no server.
const PURE: &[&str] = &["error", "wire", "sql", "auth", "session", "metrics", "route"];

/// What they may not name, with all that is below it.
const IMPURE: &[&str] = &[
    "tokio",
    "nix",
    "socket2",
    "io_uring",
    "libc",
    "parking_lot",
    "dashmap",
    "arc_swap",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::sync::Condvar",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::mpsc",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "crate::clock",
];

/// What they may name all the same: values without input or output.
const ALLOWED: &[&str] = &[
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
    "std::net::SocketAddr",
    "crate::clock::AtomicMicros",
    "crate::clock::Micros",
];

/// Rooms that are not pure, and of which pure rooms may import what is allowed above.
const HALF_PURE: &[&str] = &["clock"];

/// Names that are excused in a pure room, with the reason: room, what it names, why.
const EXCUSED: &[(&str, &str, &str)] = &[
    (
        "auth",
        "parking_lot::Mutex",
        "keys that one login has derived are there for the next one, in any thread",
    ),
    ("session", "parking_lot::Mutex", "a statement that many clients prepare is kept once, for all threads"),
];

/// No file may have more lines than that, its tests not counted.
const MAX_LINES: usize = 500;

/// Files that still have more.
const LONG: &[&str] = &[];

/// No room may have more of all lines than that, in thousandths and tests not counted.
const MAX_SHARE: usize = 125;

/// Rooms that still have more.
const LARGE: &[&str] = &["proxy"];

/// The text of a file by its name from the package's folder.
fn read(name: &str) -> Option<String> {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).ok()
}

/// The library.
fn crate_tree() -> Tree {
    Tree::load("src/lib.rs", false, &read)
}

/// The integration tests, each a crate of its own.
fn test_trees() -> Vec<Tree> {
    let mut roots: Vec<_> =
        files("tests").into_iter().filter(|name| name.matches('/').count() == 1).collect();
    roots.push("tests/it/main.rs".to_owned());
    roots.iter().map(|root| Tree::load(root, true, &read)).collect()
}

/// The names of all Rust files in a folder of the package.
fn files(folder: &str) -> Vec<String> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open = vec![package.join(folder)];
    let mut names = Vec::new();
    while let Some(folder) = open.pop() {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let (folders, files): (Vec<PathBuf>, Vec<_>) = entries.partition(|path| path.is_dir());
        open.extend(folders);
        let rust = files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
        names.extend(rust.map(|path| path.strip_prefix(package).unwrap().to_str().unwrap().to_owned()));
    }
    names
}

fn rank(room: &str) -> usize {
    ROOMS.iter().position(|name| *name == room).unwrap_or_else(|| panic!("{room} is not among the rooms"))
}

/// Whether a path is that one, or below it.
fn is_below(name: &str, above: &str) -> bool {
    name.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn assert_none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Fails if a list of those excused is not exactly what needs an excuse.
fn assert_excused(what: &str, found: BTreeSet<&str>, excused: &[&str]) {
    let excused: BTreeSet<_> = excused.iter().copied().collect();
    let new: Vec<_> = found.difference(&excused).collect();
    assert!(new.is_empty(), "{what}: {new:?}");
    let gone: Vec<_> = excused.difference(&found).collect();
    assert!(gone.is_empty(), "{gone:?} need no excuse any more: take them off the list ({what})");
}

#[test]
fn the_checker_sees_every_file() {
    let tree = crate_tree();
    let seen: BTreeSet<_> = tree.files.iter().map(|file| file.name.clone()).collect();
    let all: BTreeSet<_> = files("src").into_iter().filter(|name| name != "src/main.rs").collect();
    assert_eq!(seen, all);
    let tests = test_trees();
    let seen: BTreeSet<_> = tests.iter().flat_map(|tree| &tree.files).map(|file| file.name.clone()).collect();
    let missing: Vec<_> = files("tests").into_iter().filter(|name| !seen.contains(name)).collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn imports_run_downwards() {
    let tree = crate_tree();
    let mut faults = Vec::new();
    for (from, imported) in tree.imports() {
        let from = &tree.files[from];
        for (to, names) in imported {
            let to = &tree.files[to];
            if from.room() != to.room() && (to.room().is_empty() || rank(to.room()) >= rank(from.room())) {
                faults.push(format!("{} must not import {names:?} of {}", from.name, to.name));
            }
        }
    }
    assert_none(faults);
}

#[test]
fn imports_run_in_no_circle() {
    let tree = crate_tree();
    let circles = tree.circles();
    let room = |circle: &Vec<usize>| tree.files[circle[0]].room();
    let open = circles.iter().filter(|circle| !CIRCLES.contains(&room(circle)));
    assert_none(open.map(|circle| tree.describe(circle)).collect());
    assert_excused("circles", circles.iter().map(room).collect(), CIRCLES);
}

#[test]
fn pure_rooms_know_no_input_and_output() {
    let tree = crate_tree();
    let mut faults = Vec::new();
    let mut excused = BTreeSet::new();
    for module in tree.own_modules() {
        let file = &tree.files[tree.modules[module].file];
        let room = file.room();
        if !PURE.contains(&room) {
            continue;
        }
        for target in tree.named(module) {
            let name = tree.name(&target);
            let is_impure = IMPURE.iter().any(|above| is_below(&name, above))
                && !ALLOWED.iter().any(|above| is_below(&name, above));
            let excuse = EXCUSED.iter().find(|(of, above, _)| *of == room && is_below(&name, above));
            match excuse {
                Some((of, what, _)) => _ = excused.insert((*of, *what)),
                None if is_impure => faults.push(format!("{}: {room} is pure, but names {name}", file.name)),
                None => {}
            }
        }
    }
    assert_none(faults);
    let unused: Vec<_> =
        EXCUSED.iter().filter(|(room, what, _)| !excused.contains(&(*room, *what))).collect();
    assert!(unused.is_empty(), "{unused:?} need no excuse any more");
}

#[test]
fn pure_rooms_import_pure_rooms() {
    let tree = crate_tree();
    let mut faults = Vec::new();
    for (from, imported) in tree.imports() {
        let from = &tree.files[from];
        for (to, names) in imported.into_iter().filter(|_| PURE.contains(&from.room())) {
            let to = &tree.files[to];
            if !PURE.contains(&to.room()) && !HALF_PURE.contains(&to.room()) {
                faults.push(format!("{} is pure, but imports {names:?} of {}", from.name, to.name));
            }
        }
    }
    assert_none(faults);
}

#[test]
fn no_file_is_a_drawer_for_everything() {
    let tree = crate_tree();
    let long = tree.files.iter().filter(|file| file.own_lines() > MAX_LINES);
    let names = long.map(|file: &File| file.name.as_str()).collect();
    assert_excused(&format!("above {MAX_LINES} lines"), names, LONG);
}

#[test]
fn no_room_is_a_hall() {
    let tree = crate_tree();
    let rooms = figures::rooms(&tree);
    let total: usize = rooms.values().map(|room| room.lines).sum();
    let large = rooms.iter().filter(|(_, room)| room.lines * 1000 > total * MAX_SHARE).map(|(name, _)| *name);
    assert_excused(&format!("above {MAX_SHARE} thousandths of {total} lines"), large.collect(), LARGE);
}

#[test]
fn the_document_names_every_room() {
    let document = read("ARCHITECTURE.md").unwrap();
    for room in ROOMS {
        assert!(document.contains(&format!("`{room}`")), "ARCHITECTURE.md does not mention {room}");
    }
}
