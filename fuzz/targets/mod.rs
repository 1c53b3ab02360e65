//! Everything that reads what others have written, fed with anything at all.
//!
//! Each target is a function that takes bytes and panics if something is wrong: not only with a panic of the program, but
//! if what it has read does not read the same once more, if it depends on how a stream was cut into pieces, if it claims
//! more bytes than there are. `scripts/fuzz` looks for such bytes for as long as it is told to, `tests/fuzz.rs` tries a
//! few hundred with every run of the tests.

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
}

/// All targets.
pub(crate) const TARGETS: &[Target] = &[
    Target { name: "startup", run: wire::startup, seeds: wire::startup_seeds },
    Target { name: "frames", run: wire::frames, seeds: wire::frames_seeds },
    Target { name: "scram_server", run: auth::scram_server, seeds: auth::scram_server_seeds },
    Target { name: "scram_client", run: auth::scram_client, seeds: auth::scram_client_seeds },
    Target { name: "backend", run: session::backend, seeds: session::backend_seeds },
    Target { name: "frontend", run: session::frontend, seeds: session::frontend_seeds },
    Target { name: "conversation", run: conversation::conversation, seeds: conversation::seeds },
    Target { name: "ini", run: config::ini, seeds: config::ini_seeds },
    Target { name: "toml", run: config::toml, seeds: config::toml_seeds },
    Target { name: "environment", run: config::environment, seeds: config::environment_seeds },
    Target { name: "connstr", run: config::connstr, seeds: config::connstr_seeds },
    Target { name: "userlist", run: rules::userlist, seeds: rules::userlist_seeds },
    Target { name: "hba", run: rules::hba, seeds: rules::hba_seeds },
    Target { name: "ident", run: rules::ident, seeds: rules::ident_seeds },
    Target { name: "ldap_options", run: rules::ldap_options, seeds: rules::ldap_options_seeds },
    Target { name: "ldap_message", run: wire::ldap_message, seeds: wire::ldap_message_seeds },
    Target { name: "sql", run: admin::sql, seeds: admin::sql_seeds },
    Target { name: "session_state", run: admin::session_state, seeds: admin::session_state_seeds },
    Target { name: "console", run: admin::console, seeds: admin::console_seeds },
];
