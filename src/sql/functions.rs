//! Functions that a read may call: PostgreSQL's own, as far as they are immutable or stable and do not tell
//! anything about the server they run on, and a few volatile ones that change nothing (`random`).

use std::cmp::Ordering;
use std::sync::OnceLock;

/// Sorted by byte value.
static NAMES: &str = include_str!("safe_functions.txt");

/// Whether `name` is a function that a read may call. Case is ignored.
pub(super) fn is_safe(name: &[u8]) -> bool {
    static SORTED: OnceLock<Vec<&'static [u8]>> = OnceLock::new();
    let sorted = SORTED.get_or_init(|| NAMES.lines().map(str::as_bytes).collect());
    sorted.binary_search_by(|known| compare(known, name)).is_ok()
}

fn compare(known: &[u8], name: &[u8]) -> Ordering {
    known.iter().copied().cmp(name.iter().map(u8::to_ascii_lowercase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_lower_case() {
        let names: Vec<&str> = NAMES.lines().collect();
        assert!(names.is_sorted());
        assert!(
            names
                .iter()
                .all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
        );
    }

    #[test]
    fn safe_and_unsafe_ones() {
        for name in ["now", "COUNT", "lower", "Generate_Series", "random", "jsonb_build_object", "to_char"] {
            assert!(is_safe(name.as_bytes()), "{name}");
        }
        for name in [
            "nextval",
            "setval",
            "currval",
            "set_config",
            "pg_advisory_lock",
            "pg_notify",
            "lo_create",
            "txid_current",
            "dblink",
            "pg_is_in_recovery",
            "inet_server_addr",
            "query_to_xml",
            "my_function",
            "",
            "pg_current_xact_id",
        ] {
            assert!(!is_safe(name.as_bytes()), "{name}");
        }
    }
}
