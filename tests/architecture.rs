//! Holds the architecture: imports run downwards only, pure rooms stay pure.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

/// The rooms from bottom to top, as in `src/lib.rs` and ARCHITECTURE.md. A room may import those before it.
const ROOMS: &[&str] = &[
    "clock", "error", "wire", "sql", "auth", "config", "session", "pool", "metrics", "net", "route", "proxy",
    "admin", "cli", "logging", "app",
];

/// Rooms that know neither sockets nor threads nor time: their tests need no server.
const PURE: &[&str] = &["wire", "sql", "auth", "session", "metrics", "route"];

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
    all
}

/// Each file of the library with its room and its code, comments and unit tests left out.
fn sources() -> Vec<(PathBuf, String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let is_other = |path: &PathBuf| {
        let name = path.strip_prefix(&src).unwrap().to_str().unwrap();
        name != "lib.rs" && name != "main.rs" && !name.ends_with("tests.rs")
    };
    files(&src)
        .into_iter()
        .filter(is_other)
        .map(|path| {
            let relative = path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
            let room = relative.split(['/', '.']).next().unwrap().to_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            (path.clone(), room, lines.collect::<Vec<_>>().join("\n"))
        })
        .collect()
}

fn rank(room: &str) -> usize {
    ROOMS.iter().position(|name| *name == room).unwrap_or_else(|| panic!("{room} is not among the rooms"))
}

#[test]
fn imports_run_downwards() {
    let sources = sources();
    assert!(sources.len() > 50);
    for (path, room, code) in sources {
        for (at, _) in code.match_indices("crate::") {
            let imported: String =
                code[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if imported == room || !ROOMS.contains(&imported.as_str()) {
                continue;
            }
            assert!(rank(&imported) < rank(&room), "{}: {room} must not import {imported}", path.display());
        }
    }
}

#[test]
fn pure_rooms_know_no_io() {
    for (path, room, code) in sources() {
        if PURE.contains(&room.as_str()) {
            for forbidden in
                ["tokio::", "std::net::", "std::fs::", "std::thread::", "std::io::", "clock::now"]
            {
                assert!(
                    !code.contains(forbidden),
                    "{}: {room} is pure, but uses {forbidden}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn no_file_is_a_drawer_for_everything() {
    for (path, _, code) in sources() {
        assert!(code.lines().count() < 800, "{} is too long", path.display());
    }
}

#[test]
fn the_document_names_every_room() {
    let document =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    for room in ROOMS {
        assert!(document.contains(&format!("`{room}`")), "ARCHITECTURE.md does not mention {room}");
    }
}
