//! Figures that say how the house is doing.

use std::collections::BTreeMap;

use crate::imports::Target;
use crate::tree::{File, Tree};
use crate::{crate_tree, read, test_trees};

/// Prints them: `cargo test --test architecture -- --ignored --nocapture`.
#[test]
#[ignore = "prints figures, checks nothing"]
fn figures() {
    let tree = crate_tree();
    let circles = tree.circles();
    println!("files in circles        {} in {} circles", circles.concat().len(), circles.len());
    for circle in &circles {
        let names: Vec<_> = circle.iter().map(|file| short(&tree.files[*file])).collect();
        println!("                        {}", names.join(" "));
    }

    let rooms = rooms(&tree);
    let total: usize = rooms.values().map(|room| room.lines).sum();
    let percent = |lines: usize| 100.0 * lines as f64 / total as f64;
    let (name, largest) = rooms.iter().max_by_key(|(_, room)| room.lines).unwrap();
    println!(
        "largest room            {name}: {} of {total} lines, {:.1} %",
        largest.lines,
        percent(largest.lines)
    );
    let mut files: Vec<_> = tree.files.iter().collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.own_lines()));
    println!("largest file            {}: {} lines", short(files[0]), files[0].own_lines());

    let mut functions: Vec<_> = tree
        .files
        .iter()
        .flat_map(|file| file.functions.iter().map(move |function| (file, function)))
        .collect();
    functions.sort_by_key(|(_, function)| std::cmp::Reverse(function.lines));
    let above: Vec<_> = functions.iter().take_while(|(_, function)| function.lines > 60).collect();
    println!("functions               {}, {} above 60 lines", functions.len(), above.len());
    for (file, function) in above {
        println!(
            "                   {:>4} {} ({}:{})",
            function.lines,
            function.name,
            short(file),
            function.line
        );
    }
    println!("types in more files     {}", types_with_functions_elsewhere(&tree));

    let in_unit_tests: usize = tree.files.iter().map(|file| file.sleeps).sum();
    let in_tests: usize = test_trees().iter().flat_map(|tree| &tree.files).map(|file| file.sleeps).sum();
    println!("sleeps in real time     {} in tests/, {in_unit_tests} in unit tests", in_tests);
    println!("`let Some(server)`      {} in the client", checks_for_a_server(&tree));
    let tests: usize = rooms.values().map(|room| room.tests).sum();
    println!("unit tests              {tests}");

    println!("\n{:<10} {:>6} {:>6} {:>6} {:>6}", "room", "files", "lines", "%", "tests");
    for (name, room) in &rooms {
        let share = percent(room.lines);
        println!("{name:<10} {:>6} {:>6} {share:>6.1} {:>6}", room.files, room.lines, room.tests);
    }
}

/// The sums of a room.
#[derive(Default)]
pub(crate) struct Room {
    pub(crate) files: usize,
    /// Without tests.
    pub(crate) lines: usize,
    pub(crate) tests: usize,
}

/// All rooms by name; what is in none has the empty name.
pub(crate) fn rooms(tree: &Tree) -> BTreeMap<&str, Room> {
    let mut rooms: BTreeMap<&str, Room> = BTreeMap::new();
    for file in &tree.files {
        let room = rooms.entry(file.room()).or_default();
        room.files += usize::from(!file.is_test);
        room.lines += file.own_lines();
        room.tests += file.tests;
    }
    rooms
}

fn short(file: &File) -> &str {
    file.name.trim_start_matches("src/")
}

/// In how many files functions are added to a type that another file defines: calls of those run both ways, and no import
/// says so.
fn types_with_functions_elsewhere(tree: &Tree) -> usize {
    let adds = |module: &usize| {
        let file = tree.modules[*module].file;
        let types = tree.modules[*module].extended.iter().flat_map(|path| tree.resolve(*module, path));
        let mut items = types.filter_map(|target| match target {
            Target::Item(of, _) => Some(of),
            _ => None,
        });
        items.any(|of| tree.modules[of].file != file)
    };
    tree.own_modules().filter(adds).count()
}

/// How often the client asks whether it has a server.
fn checks_for_a_server(tree: &Tree) -> usize {
    let files = tree.files.iter().filter(|file| {
        let mut parts = file.name.trim_end_matches(".rs").split('/');
        !file.is_test && parts.any(|part| part == "client") && !file.name.contains("/scram/")
    });
    files.map(|file| read(&file.name).unwrap().matches("let Some(server)").count()).sum()
}
