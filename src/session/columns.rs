//! The columns that a client has been told of, as one number, to compare with what another server says.

use std::hash::{DefaultHasher, Hasher};
use std::num::NonZeroU64;

use crate::wire::frame::cstr;

/// Bytes of a column's description behind its name.
const FIXED: usize = 18;

/// The columns of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(NonZeroU64);

impl Fingerprint {
    /// A statement without a result (NoData).
    pub(super) const NO_DATA: Self = Self(NonZeroU64::MIN);
    /// Columns whose description is too long to be read.
    pub(super) const LONG: Self = Self(NonZeroU64::MIN.saturating_add(1));
    /// The first that is left for those that are read.
    const FIRST: NonZeroU64 = NonZeroU64::MIN.saturating_add(2);
}

/// The columns of a RowDescription: their names, types and type modifiers, which is what PostgreSQL compares
/// (`RevalidateCachedQuery`), but neither the tables they come from nor their formats.
pub(super) fn fingerprint(row_description: &[u8]) -> Fingerprint {
    let mut hasher = DefaultHasher::new();
    let mut rest = row_description.get(2..).unwrap_or_default();
    while let Some((name, after)) = cstr(rest) {
        let Some((fixed, next)) = after.split_at_checked(FIXED) else { break };
        hasher.write(name);
        // Type, its size, its modifier.
        hasher.write(&fixed[6..16]);
        rest = next;
    }
    let number = NonZeroU64::new(hasher.finish()).unwrap_or(Fingerprint::FIRST);
    Fingerprint(number.max(Fingerprint::FIRST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(columns: &[(&str, u32, u8)]) -> Vec<u8> {
        let mut body = vec![0, columns.len() as u8];
        for (name, oid, format) in columns {
            body.extend([name.as_bytes(), &[0, 0, 0, 4, 210, 0, 1], &oid.to_be_bytes(), &[0, 4]].concat());
            body.extend([&[0xff; 4][..], &[0, *format]].concat());
        }
        body
    }

    #[test]
    fn names_and_types_count_and_formats_do_not() {
        let one = fingerprint(&description(&[("a", 23, 0), ("b", 25, 0)]));
        assert_eq!(one, fingerprint(&description(&[("a", 23, 1), ("b", 25, 1)])));
        for other in [&[("a", 23, 0)][..], &[("b", 25, 0), ("a", 23, 0)], &[("a", 701, 0), ("b", 25, 0)], &[]]
        {
            assert_ne!(one, fingerprint(&description(other)), "{other:?}");
        }
        assert_eq!(fingerprint(b""), fingerprint(b"\0"));
    }
}
