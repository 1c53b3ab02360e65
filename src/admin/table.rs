//! Tables the console answers with: columns of PgBouncer's types, and values in the form the client wants them in.

use std::borrow::Cow;

use crate::wire::write::{self, Column};

/// The values of a row, as text. `None` is NULL.
pub(super) type Row = Vec<Option<String>>;

const BYTEA: u32 = 17;
const INT8: u32 = 20;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const NUMERIC: u32 = 1700;

/// A column of type `text`.
pub(super) const fn text(name: &'static str) -> Column {
    Column { name, oid: TEXT, size: -1 }
}

/// A column of type `integer`.
pub(super) const fn int(name: &'static str) -> Column {
    Column { name, oid: INT4, size: 4 }
}

/// A column of type `bigint`.
pub(super) const fn bigint(name: &'static str) -> Column {
    Column { name, oid: INT8, size: 8 }
}

/// A column of type `numeric`; only whole numbers that are not negative stand in it.
pub(super) const fn numeric(name: &'static str) -> Column {
    Column { name, oid: NUMERIC, size: -1 }
}

/// A column of type `bytea`.
pub(super) const fn bytea(name: &'static str) -> Column {
    Column { name, oid: BYTEA, size: -1 }
}

/// A value.
pub(super) fn cell(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

/// The formats a client wants values in, as a Bind message gives them: none means text, one holds for all columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Formats(pub(super) Vec<bool>);

impl Formats {
    fn is_binary(&self, column: usize) -> bool {
        match &self.0[..] {
            [] => false,
            [one] => *one,
            each => each.get(column).copied().unwrap_or(false),
        }
    }
}

/// Appends a RowDescription.
pub(super) fn describe(out: &mut Vec<u8>, columns: &[Column], formats: &Formats) {
    write::row_description(out, columns, |column| formats.is_binary(column));
}

/// Appends a DataRow.
pub(super) fn row(out: &mut Vec<u8>, columns: &[Column], formats: &Formats, values: &Row) {
    let mut encoded = Vec::with_capacity(values.len());
    for (n, (column, value)) in columns.iter().zip(values).enumerate() {
        let oid = if formats.is_binary(n) { column.oid } else { TEXT };
        encoded.push(value.as_deref().map(|text| binary(oid, text)));
    }
    write::data_row(out, &encoded);
}

/// A value in binary form, which for texts is the text (`pg_type`'s typsend functions). Numbers too large for their column become its largest.
fn binary(oid: u32, text: &str) -> Cow<'_, [u8]> {
    match oid {
        INT4 => Cow::Owned(text.parse().unwrap_or(i32::MAX).to_be_bytes().into()),
        INT8 => Cow::Owned(text.parse().unwrap_or(i64::MAX).to_be_bytes().into()),
        NUMERIC => Cow::Owned(binary_numeric(text.parse().unwrap_or(u64::MAX))),
        _ => Cow::Borrowed(text.as_bytes()),
    }
}

/// `numeric` is sent as digits of base 10000, the first of which counts 10000 to the power of `weight`.
fn binary_numeric(mut number: u64) -> Vec<u8> {
    let mut digits = Vec::new();
    while number > 0 {
        digits.push((number % 10_000) as u16);
        number /= 10_000;
    }
    let count = digits.len() as u16;
    let (weight, sign, scale) = (count.saturating_sub(1), 0, 0);
    let header = [count, weight, sign, scale];
    header.into_iter().chain(digits.into_iter().rev()).flat_map(u16::to_be_bytes).collect()
}

#[cfg(test)]
mod tests {
    use postgres_protocol::types;

    use super::*;

    #[test]
    fn one_format_holds_for_all_columns() {
        let binary = |formats: &[bool], column| Formats(formats.to_vec()).is_binary(column);
        assert!(!binary(&[], 0));
        assert!(binary(&[true], 0) && binary(&[true], 7));
        assert!(!binary(&[false, true], 0) && binary(&[false, true], 1) && !binary(&[false, true], 2));
    }

    #[test]
    fn binary_values_are_what_postgresql_sends() {
        assert_eq!(types::int4_from_sql(&binary(INT4, "-7")).unwrap(), -7);
        assert_eq!(types::int4_from_sql(&binary(INT4, "99999999999")).unwrap(), i32::MAX);
        assert_eq!(types::int8_from_sql(&binary(INT8, "99999999999")).unwrap(), 99_999_999_999);
        assert_eq!(&*binary(TEXT, "a"), b"a");
        // As PostgreSQL's numeric_send says it.
        assert_eq!(&*binary(NUMERIC, "0"), [0; 8]);
        assert_eq!(&*binary(NUMERIC, "7"), [0, 1, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(
            &*binary(NUMERIC, "120000005"),
            [0, 3, 0, 2, 0, 0, 0, 0, 0, 1, 2000u16.to_be_bytes()[0], 2000u16.to_be_bytes()[1], 0, 5]
        );
        assert_eq!(&*binary(NUMERIC, "10000"), [0, 2, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn rows_have_the_form_asked_for() {
        let columns = [text("a"), int("b"), int("c")];
        let mut out = Vec::new();
        row(&mut out, &columns, &Formats(vec![false, true, false]), &vec![None, cell(1), cell(1)]);
        assert_eq!(out, b"D\0\0\0\x17\0\x03\xff\xff\xff\xff\0\0\0\x04\0\0\0\x01\0\0\0\x011");
        out.clear();
        describe(&mut out, &columns[1..2], &Formats(vec![true]));
        assert_eq!(out[out.len() - 2..], [0, 1], "the format stands at the end");
    }
}
