//! Which replies a server still owes. HOT.
//!
//! Every message to a server that will be answered puts an entry on a queue; every answer takes one off. The
//! entry says whether the client gets that answer ([`Action`]). This is what keeps one client's rows from ever
//! reaching another: a server leaves its client only when [`Pipeline::is_settled`].
//!
//! Three rules of the protocol make it more than a counter:
//!
//! * After an error in the extended protocol the server ignores everything up to the next Sync.
//! * While a server reads COPY data it swallows Sync and Flush without an answer, up to CopyDone or CopyFail.
//!   libpq relies on that: it sends Sync right behind the Execute that starts a COPY.
//! * Outside COPY, stray CopyData, CopyDone and CopyFail are ignored: a client may still be sending them when it
//!   learns that the COPY failed.
//!
//! If a COPY fails, only the server knows whether it had swallowed such a Sync or will answer it. So a question of the
//! proxy's own goes right behind the Sync that ends the COPY ([`Expect::Mark`]): what comes before its answer belongs to the
//! client. Where that is not possible, because the client sent everything without waiting, the connection is not used again
//! ([`Pipeline::is_tainted`]).

mod answers;
mod changes;
mod entry;
mod queue;
mod state;

pub use self::answers::{Unexpected, Verdict};
pub use self::changes::Changes;
pub use self::entry::{Action, Expect};
pub use self::queue::Pipeline;

#[cfg(test)]
mod tests;
