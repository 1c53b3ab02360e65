//! libFuzzer's side of the fuzz targets: looks for input that makes one of [`targets`] fail, led by what parts of the
//! program each input reaches. `scripts/fuzz` runs it.

#![no_main]

#[path = "targets/cost.rs"]
mod cost;
mod steps;
#[allow(clippy::unwrap_used, reason = "a target that cannot go on has found something")]
mod targets;

use std::path::Path;
use std::sync::LazyLock;

use targets::{TARGETS, Target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        panic!("FUZZ_TARGET must be one of {}", names.join(" "))
    })
});

libfuzzer_sys::fuzz_target!(
    init: {
        // The folder that libFuzzer has been told to begin with.
        if let Some(corpus) = std::env::var_os("FUZZ_CORPUS") {
            for (number, seed) in (TARGET.seeds)().into_iter().chain(TARGET.long_inputs()).enumerate() {
                std::fs::write(Path::new(&corpus).join(format!("seed-{number}")), seed).unwrap();
            }
        }
    },
    |data: &[u8]| cost::run(&TARGET, data)
);
