//! A batch that may have to run a second time, and what of its result is held back until that is decided.

use super::super::relay::Scratch;
use crate::route::router::Access;
use crate::session::forward::batch_len;
use crate::session::numbers::ChangeNumber;
use crate::wire::frame::peek;
use crate::wire::{backend, frontend};

/// Longest batch that is kept, and most that is held back.
const MOST: usize = 64 * 1024;
/// How all SQLSTATEs begin of a server that shuts down or has crashed.
const SERVER_GOES: &[u8] = b"57P0";

/// A batch that can be run again.
pub(super) struct Attempt {
    pub(super) batch: Vec<u8>,
    /// The last change to what the client has prepared before it.
    pub(super) last_change: ChangeNumber,
    held: Vec<u8>,
    failed: bool,
    /// An error is among what is held back.
    has_error: bool,
    reason: Reason,
}

/// Why a batch would be run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// An error that only a standby has a reason for, or that its server goes: it reads.
    Standby,
    /// Its server goes. It reads here, but might do something else elsewhere, or is on the primary: an error is its result.
    ServerGone,
    /// Its server does not have a prepared statement as it should, and has run nothing of it yet: it may do anything.
    LostStatement,
}

/// What to do with what the server has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes to the client.
    Deliver,
    /// Not yet.
    Hold,
    /// It never does: the batch is to be run again.
    Drop,
}

impl Attempt {
    /// `None`: the batch at the start of `bytes` cannot be repeated.
    pub(super) fn new(
        scratch: &mut Scratch,
        bytes: &[u8],
        access: Access,
        last_change: ChangeNumber,
    ) -> Option<Self> {
        let batch = &bytes[..batch_len(bytes).filter(|&len| len <= MOST)?];
        is_repeatable(batch)?;
        let reason = if access == Access::Read { Reason::Standby } else { Reason::ServerGone };
        Some(Self::of(scratch.vector(batch), reason, last_change))
    }

    /// The same if `bytes` are one batch that uses prepared statements.
    #[inline]
    pub(super) fn with_statements(
        scratch: &mut Scratch,
        bytes: &[u8],
        last_change: ChangeNumber,
    ) -> Option<Self> {
        if bytes.len() > MOST || batch_len(bytes) != Some(bytes.len()) {
            return None;
        }
        is_repeatable(bytes)?;
        Some(Self::of(scratch.vector(bytes), Reason::LostStatement, last_change))
    }

    fn of(batch: Vec<u8>, reason: Reason, last_change: ChangeNumber) -> Self {
        Self { batch, last_change, held: Vec::new(), failed: false, has_error: false, reason }
    }

    /// Whether it does not matter where it runs.
    pub(super) fn may_write(&self) -> bool {
        self.reason == Reason::LostStatement
    }

    /// It runs on the primary.
    pub(super) fn is_on_primary(&mut self) {
        if self.reason == Reason::Standby {
            self.reason = Reason::ServerGone;
        }
    }

    /// Takes what the server has said. `failed`: there is an error in it; `lost_statement`: it is that of a prepared statement
    /// that the server does not have as it should.
    pub(super) fn judge(&mut self, said: &[u8], failed: bool, lost_statement: bool) -> Verdict {
        if self.failed {
            return Verdict::Drop;
        }
        self.has_error |= failed;
        if self.held.is_empty() {
            let verdict = judge(said, self.reason, self.has_error, lost_statement);
            if verdict == Verdict::Hold {
                self.held.extend_from_slice(said);
            }
            self.failed = verdict == Verdict::Drop;
            return verdict;
        }
        self.held.extend_from_slice(said);
        let verdict = judge(&self.held, self.reason, self.has_error, lost_statement);
        self.failed = verdict == Verdict::Drop;
        verdict
    }

    /// Holds back a reply that is not the server's.
    pub(super) fn hold(&mut self, reply: &[u8]) {
        self.held.extend_from_slice(reply);
    }

    /// What was held back, the last that was said included.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Gives its memory back.
    pub(super) fn recycle(self, scratch: &mut Scratch) {
        scratch.recycle(self.batch);
        scratch.recycle(self.held);
    }
}

fn judge(mut said: &[u8], reason: Reason, has_error: bool, lost_statement: bool) -> Verdict {
    if said.len() > MOST {
        return Verdict::Deliver;
    }
    while let Ok(Some(frame)) = peek(said) {
        match frame.tag {
            b'1' | b'2' | b'3' | b'T' | b't' | b'n' | b'N' => {}
            b'E' if !frame.is_complete() => return Verdict::Hold,
            b'E' => {
                let error = backend::error_fields(frame.body);
                let again = match reason {
                    _ if lost_statement => true,
                    Reason::LostStatement => false,
                    _ if error.sqlstate.starts_with(SERVER_GOES) => true,
                    Reason::ServerGone => false,
                    Reason::Standby => is_standbys(&error),
                };
                return if again { Verdict::Drop } else { Verdict::Deliver };
            }
            // Of what reads, whatever came before the error has not gone to the client either.
            b'D' | b'C' | b'I' | b's' | b'H' | b'd' | b'c' if has_error && reason == Reason::Standby => {}
            _ => return Verdict::Deliver,
        }
        if !frame.is_complete() {
            return Verdict::Hold;
        }
        said = &said[frame.len..];
    }
    Verdict::Hold
}

/// Whether a standby says this of a read that the primary can run. All other errors are results: "cached plan must not change
/// result type" above all, for the client would be given other columns than it was told.
fn is_standbys(error: &backend::ErrorFields<'_>) -> bool {
    match error.sqlstate {
        // It writes, or wants a lock that writers need.
        b"25006" => true,
        // In the way of replay. Nothing else gets in the way of a read, which a standby does not run as SERIALIZABLE.
        b"40001" | b"40P01" => true,
        // "recovery is in progress", and materialized views that are filled elsewhere.
        b"55000" => true,
        // A function's library, or a tablespace, is only on the primary.
        b"58P01" => true,
        // What has just been made or granted is not there yet: schemas, relations, columns, functions and operators, types.
        b"3F000" | b"42P01" | b"42703" | b"42883" | b"42704" | b"42501" => true,
        // A value that has just been added to an enum.
        b"22P02" => matches!(error.routine, b"enum_in" | b"enum_recv"),
        // Unlogged and temporary relations.
        b"0A000" => error.routine == b"get_relation_info",
        // A function that writes without asking whether it may.
        b"XX000" => matches!(
            error.routine,
            b"GetNewTransactionId" | b"GetNewObjectId" | b"GetNewMultiXactId" | b"XLogBeginInsert"
        ),
        _ => false,
    }
}

/// Whether a batch does the same when it is sent once more. What it closes it could not use again, unless it prepares that
/// itself, and an unnamed statement of an earlier batch may be gone.
fn is_repeatable(mut batch: &[u8]) -> Option<()> {
    let (mut has_unnamed, mut has_used, mut prepared) = (false, false, None);
    while !batch.is_empty() {
        let frame = peek(batch).ok()??;
        match frame.tag {
            b'P' => {
                prepared = frontend::parse_name(frame.body);
                has_unnamed |= prepared?.is_empty();
            }
            b'B' if frontend::bind(frame.body)?.name.is_empty() && !has_unnamed => return None,
            b'B' | b'D' => has_used = true,
            b'C' if !has_used || frontend::target(frame.body).is_ok_and(|t| Some(t.name) == prepared) => {}
            b'Q' | b'E' | b'S' => {}
            _ => return None,
        }
        batch = &batch[frame.len..];
    }
    Some(())
}

/// The statements that a batch prepares.
pub(super) fn prepared(mut batch: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while let Ok(Some(frame)) = peek(batch) {
            batch = &batch[frame.len.min(batch.len())..];
            if frame.tag == b'P' {
                return Some(frontend::parse(frame.body).map_or(&b""[..], |parse| parse.name));
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[tag][..], &length, body].concat()
    }

    fn messages(all: &[(u8, &[u8])]) -> Vec<u8> {
        all.iter().flat_map(|(tag, body)| message(*tag, body)).collect()
    }

    #[test]
    fn an_error_before_the_first_row_is_not_passed_on() {
        let error: (u8, &[u8]) = (b'E', b"SERROR\0C40001\0\0");
        let start: [(u8, &[u8]); 3] = [(b'1', b""), (b'2', b""), (b'T', b"\0\0")];
        assert_eq!(judge(&messages(&start), Reason::Standby, false, false), Verdict::Hold);
        let failed = messages(&[&start[..], &[error]].concat());
        for cut in 0..failed.len() {
            let mut attempt = Attempt::of(Vec::new(), Reason::Standby, ChangeNumber::default());
            assert_eq!(attempt.judge(&failed[..cut], true, false), Verdict::Hold, "{cut}");
            assert_eq!(attempt.judge(&failed[cut..], true, false), Verdict::Drop, "{cut}");
            assert_eq!(attempt.judge(&message(b'Z', b"I"), false, false), Verdict::Drop);
        }
        let changed: (u8, &[u8]) =
            (b'E', b"SERROR\0VERROR\0C0A000\0Mcached plan\0RRevalidateCachedQuery\0\0");
        for result in [
            (b'D', &b"\0\0"[..]),
            (b'C', b"SELECT 0\0"),
            (b'Z', b"I"),
            (b'E', b"SERROR\0C57014\0\0"),
            (b'E', b"SERROR\0C22012\0\0"),
            (b'E', b"SERROR\0\0"),
            changed,
        ] {
            assert_eq!(
                judge(&messages(&[start[0], result, error]), Reason::Standby, false, false),
                Verdict::Deliver,
                "{result:?}"
            );
        }
        for (sqlstate, routine) in [
            ("25006", ""),
            ("40P01", ""),
            ("42P01", ""),
            ("57P01", ""),
            ("0A000", "get_relation_info"),
            ("22P02", "enum_in"),
            ("XX000", "GetNewTransactionId"),
        ] {
            let error = format!("SERROR\0C{sqlstate}\0R{routine}\0\0");
            assert_eq!(
                judge(&message(b'E', error.as_bytes()), Reason::Standby, true, false),
                Verdict::Drop,
                "{error:?}"
            );
        }
        // Rows that have come with the error have not gone to the client, the end of a batch before it has.
        let row: (u8, &[u8]) = (b'D', b"\0\0");
        let ready: (u8, &[u8]) = (b'Z', b"I");
        assert_eq!(
            judge(&messages(&[start[2], row, row, error]), Reason::Standby, true, false),
            Verdict::Drop
        );
        assert_eq!(
            judge(&messages(&[start[2], row, ready, error]), Reason::Standby, true, false),
            Verdict::Deliver
        );
        // What might write elsewhere is run again only if its server goes.
        let gone = message(b'E', b"SFATAL\0C57P01\0\0");
        assert_eq!(
            judge(&message(b'E', b"SERROR\0C25006\0\0"), Reason::ServerGone, true, false),
            Verdict::Deliver
        );
        assert_eq!(judge(&gone, Reason::ServerGone, true, false), Verdict::Drop);
        // A row of which only the beginning has come.
        assert_eq!(judge(&message(b'D', &[0; 100])[..20], Reason::Standby, false, false), Verdict::Deliver);
        assert_eq!(judge(&message(b'T', &[0; 100])[..20], Reason::Standby, false, false), Verdict::Hold);
    }

    #[test]
    fn what_was_held_back_comes_before_the_rest() {
        let (start, row) = (messages(&[(b'1', b""), (b'T', b"\0\0")]), message(b'D', b"\0\0"));
        let mut attempt = Attempt::of(Vec::new(), Reason::Standby, ChangeNumber::default());
        assert_eq!(attempt.judge(&start, false, false), Verdict::Hold);
        assert_eq!(attempt.judge(&row, false, false), Verdict::Deliver);
        assert_eq!(attempt.held(), [start, row].concat());
    }

    #[test]
    fn only_what_does_the_same_again_is_repeated() {
        let parse: (u8, &[u8]) = (b'P', b"\0select\0\0\0");
        let named: (u8, &[u8]) = (b'P', b"a\0select\0\0\0");
        let unnamed: (u8, &[u8]) = (b'B', b"\0\0");
        let bind: (u8, &[u8]) = (b'B', b"\0a\0");
        let sync: (u8, &[u8]) = (b'S', b"");
        for (batch, expected) in [
            (vec![(b'Q', &b"select\0"[..])], true),
            (vec![parse, unnamed, sync], true),
            (vec![named, bind, sync], true),
            (vec![unnamed, sync], false),
            (vec![named, unnamed, sync], false),
            (vec![bind, (b'C', b"Sa\0"), sync], false),
        ] {
            assert_eq!(is_repeatable(&messages(&batch)).is_some(), expected, "{batch:?}");
        }
        let batch = messages(&[named, parse, bind, sync]);
        assert_eq!(prepared(&batch).collect::<Vec<_>>(), [&b"a"[..], b""]);
    }
}
