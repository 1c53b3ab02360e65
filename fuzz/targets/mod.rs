//! Everything that reads what others have written, fed with anything at all.
//!
//! Each target is a function that takes bytes and panics if something is wrong: not only with a panic of the program, but
//! if what it has read does not read the same once more, if it depends on how a stream was cut into pieces, if it claims
//! more bytes than there are. A run must not cost more than the length of its input allows ([`Target::most`]), either.
//! `scripts/fuzz` looks for such bytes for as long as it is told to, `tests/fuzz.rs` tries a few hundred with every run of the
//! tests.

mod admin;
mod auth;
mod bytes;
mod config;
mod conversation;
mod rules;
mod session;
mod wire;

/// A fuzz target.
pub(crate) struct Target {
    /// As `scripts/fuzz` takes it.
    pub(crate) name: &'static str,
    /// Fails if the program misbehaves on these bytes.
    pub(crate) run: fn(&[u8]),
    /// Input to begin with.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// How many bytes at its front are no material, but say what is done with it.
    head: usize,
    /// What a run may take of bytes allocated, of allocations and of steps: so much, and so much more per byte of input.
    /// Two to three times the worst that was measured, so that only what is out of proportion takes more.
    pub(crate) most: [(usize, usize); 3],
}

impl Target {
    /// Each seed, over and over: inputs so long that a cost which is out of proportion shows.
    pub(crate) fn long_inputs(&self) -> impl Iterator<Item = Vec<u8>> {
        let repeated = |seed: &[u8], len| {
            let (head, material) = seed.split_at(self.head);
            head.iter().chain(material.iter().cycle()).copied().take(len).collect()
        };
        (self.seeds)()
            .into_iter()
            .flat_map(move |seed| [4 << 10, 16 << 10, 64 << 10].map(|len| repeated(&seed, len)))
    }
}

const fn target(
    name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    head: usize,
    most: [(usize, usize); 3],
) -> Target {
    Target { name, run, seeds, head, most }
}

/// All targets.
pub(crate) const TARGETS: &[Target] = &[
    target("startup", wire::startup, wire::startup_seeds, 4, [(39_000, 180), (560, 3), (30_000, 130)]),
    target("frames", wire::frames, wire::frames_seeds, 2, [(42_000, 190), (490, 2), (20_000, 300)]),
    target(
        "scram_server",
        auth::scram_server,
        auth::scram_server_seeds,
        1,
        [(40_000, 110), (470, 2), (38_000, 170)],
    ),
    target(
        "scram_client",
        auth::scram_client,
        auth::scram_client_seeds,
        1,
        [(12_000, 49), (140, 1), (17_000, 34)],
    ),
    target("backend", session::backend, session::backend_seeds, 3, [(82_000, 360), (540, 2), (48_000, 220)]),
    target(
        "frontend",
        session::frontend,
        session::frontend_seeds,
        3,
        [(70_000, 320), (510, 2), (50_000, 250)],
    ),
    target(
        "conversation",
        conversation::conversation,
        conversation::seeds,
        1,
        [(350_000, 1_600), (13_000, 41), (530_000, 2_100)],
    ),
    target("ini", config::ini, config::ini_seeds, 0, [(640_000, 9_000), (9_400, 130), (810_000, 9_000)]),
    target("toml", config::toml, config::toml_seeds, 0, [(430_000, 9_000), (5_500, 130), (690_000, 12_000)]),
    target(
        "environment",
        config::environment,
        config::environment_seeds,
        0,
        [(1_200_000, 6_300), (17_000, 90), (2_700_000, 16_000)],
    ),
    target("connstr", config::connstr, config::connstr_seeds, 0, [(34_000, 250), (740, 4), (21_000, 99)]),
    target("userlist", rules::userlist, rules::userlist_seeds, 0, [(58_000, 240), (850, 4), (21_000, 96)]),
    target("hba", rules::hba, rules::hba_seeds, 1, [(240_000, 1_300), (4_000, 17), (130_000, 370)]),
    target("ident", rules::ident, rules::ident_seeds, 0, [(90_000, 380), (1_700, 7), (36_000, 140)]),
    target(
        "ldap_options",
        rules::ldap_options,
        rules::ldap_options_seeds,
        0,
        [(46_000, 210), (710, 3), (19_000, 73)],
    ),
    target(
        "ldap_message",
        wire::ldap_message,
        wire::ldap_message_seeds,
        0,
        [(15_000, 35), (98, 1), (13_000, 32)],
    ),
    target("sql", admin::sql, admin::sql_seeds, 0, [(210_000, 41), (110, 1), (59_000, 250)]),
    target(
        "session_state",
        admin::session_state,
        admin::session_state_seeds,
        0,
        [(210_000, 71), (120, 1), (120_000, 2_500)],
    ),
    target("console", admin::console, admin::console_seeds, 0, [(87_000, 300), (1_100, 4), (37_000, 160)]),
];
