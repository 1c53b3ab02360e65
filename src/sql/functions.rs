//! Functions that a read may call: PostgreSQL's own, as far as they are immutable or stable, do not run statements they
//! are given and do not tell anything about the server or session they run in, and a few volatile ones that change
//! nothing (`random`). Where the server is (`inet_server_addr`) is asked to see where reads go, so that is one of them.

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

/// Words that are followed by `(` without being functions, and functions with a syntax of their own.
pub(super) fn is_syntax(word: &[u8]) -> bool {
    const WORDS: &[&[u8]] = &[
        b"all",
        b"analyze",
        b"and",
        b"any",
        b"array",
        b"as",
        b"between",
        b"bernoulli",
        b"bit",
        b"by",
        b"case",
        b"cast",
        b"char",
        b"character",
        b"coalesce",
        b"costs",
        b"current_time",
        b"current_timestamp",
        b"cross",
        b"cube",
        b"dec",
        b"decimal",
        b"distinct",
        b"else",
        b"except",
        b"exists",
        b"explain",
        b"extract",
        b"fetch",
        b"filter",
        b"float",
        b"from",
        b"full",
        b"greatest",
        b"group",
        b"grouping",
        b"having",
        b"ilike",
        b"in",
        b"inner",
        b"intersect",
        b"interval",
        b"is",
        b"join",
        b"lateral",
        b"least",
        b"left",
        b"like",
        b"limit",
        b"localtime",
        b"localtimestamp",
        b"materialized",
        b"nchar",
        b"normalize",
        b"not",
        b"nullif",
        b"numeric",
        b"offset",
        b"on",
        b"only",
        b"operator",
        b"or",
        b"order",
        b"over",
        b"overlay",
        b"partition",
        b"position",
        b"precision",
        b"range",
        b"recursive",
        b"returning",
        b"right",
        b"rollup",
        b"row",
        b"rows",
        b"select",
        b"sets",
        b"similar",
        b"some",
        b"substring",
        b"symmetric",
        b"system",
        b"then",
        b"time",
        b"timestamp",
        b"treat",
        b"trim",
        b"union",
        b"using",
        b"values",
        b"varchar",
        b"varying",
        b"verbose",
        b"when",
        b"where",
        b"window",
        b"with",
        b"within",
        b"xmlattributes",
        b"xmlconcat",
        b"xmlelement",
        b"xmlexists",
        b"xmlforest",
        b"xmlnamespaces",
        b"xmlparse",
        b"xmlpi",
        b"xmlroot",
        b"xmlserialize",
        b"xmltable",
    ];
    WORDS.iter().any(|known| word.eq_ignore_ascii_case(known))
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
        for name in
            ["now", "COUNT", "lower", "Generate_Series", "random", "jsonb_build_object", "inet_server_addr"]
        {
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
            "query_to_xml",
            "my_function",
            "",
            "pg_current_xact_id",
        ] {
            assert!(!is_safe(name.as_bytes()), "{name}");
        }
    }
}
