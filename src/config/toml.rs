//! The same configuration as TOML: `[pgbouncer]` with the settings, `[databases]`, `[users]` and `[peers]` with
//! connect strings or tables.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Problem};
use super::mask;
use super::raw::{Item, Origin, Section};

/// Reads a file.
pub fn read(path: &Path) -> Result<Vec<Item>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        ConfigError::one(Problem::general(format!("cannot read \"{}\": {error}", path.display())))
    })?;
    parse(&text, path)
}

/// Reads a text; `path` is named in errors.
pub fn parse(text: &str, path: &Path) -> Result<Vec<Item>, ConfigError> {
    let source = TomlText::new(text, path);
    let table = DeTable::parse(text).map_err(|error| {
        let origin = source.origin(error.span().map_or(0, |span| span.start));
        ConfigError::one(Problem::at(&origin, error.message()))
    })?;
    let mut items = Vec::new();
    for (name, value) in table.get_ref() {
        let origin = source.origin(name.span().start);
        let problem = |message: String| ConfigError::one(Problem::at(&origin, message));
        let hint = "sections are [databases], [users], [peers] and [pgbouncer]";
        let section = Section::named(name.get_ref()).ok_or_else(|| {
            ConfigError::one(Problem::at(&origin, format!("unknown section [{}]", name.get_ref())).hint(hint))
        })?;
        items.push(match section {
            Section::Pgbouncer => Item::Reset,
            other => Item::Header(other),
        });
        let entries = value
            .get_ref()
            .as_table()
            .ok_or_else(|| problem(format!("{} must be a table", name.get_ref())))?;
        for (key, value) in entries {
            items.push(source.item(section, key.get_ref(), key.span().start, value.get_ref())?);
        }
    }
    Ok(items)
}

struct TomlText<'a> {
    path: &'a Path,
    /// Each line and where it begins.
    lines: Vec<(usize, &'a str)>,
}

impl<'a> TomlText<'a> {
    fn new(text: &'a str, path: &'a Path) -> Self {
        let mut next = 0;
        let lines = text.split('\n').map(|line| {
            let start = next;
            next += line.len() + 1;
            (start, line.trim_end_matches('\r'))
        });
        Self { path, lines: lines.collect() }
    }

    fn origin(&self, at: usize) -> Origin {
        // The first line begins at 0.
        let number = self.lines.partition_point(|(start, _)| *start <= at);
        let (start, line) = self.lines[number - 1];
        Origin::new(self.path, number, at - start + 1, &mask::line(line))
    }

    fn item(&self, section: Section, key: &str, at: usize, value: &DeValue<'_>) -> Result<Item, ConfigError> {
        let (key, origin) = (key.to_owned(), self.origin(at));
        let DeValue::Table(table) = value else {
            let value = self.scalar(value, &origin)?;
            return Ok(Item::Entry { section, key, value, origin });
        };
        let mut pairs = Vec::new();
        for (name, value) in table {
            let origin = self.origin(name.span().start);
            pairs.push((name.get_ref().to_string(), self.scalar(value.get_ref(), &origin)?, origin));
        }
        Ok(Item::Table { section, key, pairs, origin })
    }

    /// A value in the form the settings table reads: numbers and words as they stand, lists with commas.
    fn scalar(&self, value: &DeValue<'_>, origin: &Origin) -> Result<String, ConfigError> {
        Ok(match value {
            DeValue::String(text) => text.to_string(),
            DeValue::Boolean(yes) => u8::from(*yes).to_string(),
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Integer(number) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix());
                parsed.map_err(|_| ConfigError::one(Problem::at(origin, "number out of range")))?.to_string()
            }
            DeValue::Array(values) => {
                let values: Result<Vec<_>, _> =
                    values.iter().map(|value| self.scalar(value.get_ref(), origin)).collect();
                values?.join(",")
            }
            DeValue::Datetime(_) | DeValue::Table(_) => {
                let problem = Problem::at(
                    origin,
                    format!("expected text, a number or a list, not {}", value.type_str()),
                );
                return Err(ConfigError::one(problem));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::build::build;

    #[test]
    fn means_the_same_as_the_ini() {
        let text = "[pgbouncer]\nlisten_port = 7000\nadmin_users = [\"a\", \"b\"]\npool_mode = \"transaction\"\n\
                    log_stats = false\nserver_lifetime = 1.5\nunix_socket_mode = 0o700\n\
                    [databases]\napp = \"host=h port=1\"\n[databases.other]\nhost = [\"x\", \"y\"]\nport = 2\n";
        let config = build(parse(text, Path::new("x.toml")).unwrap()).unwrap().config;
        assert_eq!(config.settings.listen_port, 7000);
        assert_eq!(config.settings.admin_users, ["a", "b"]);
        assert!(!config.settings.log_stats);
        assert_eq!(config.settings.unix_socket_mode.0, 0o700);
        assert_eq!(config.databases["app"].hosts(), [("h".into(), 1)]);
        assert_eq!(config.databases["other"].hosts(), [("x".into(), 2), ("y".into(), 2)]);
    }

    #[test]
    fn errors_name_the_place() {
        let error =
            |text| parse(text, Path::new("x.toml")).and_then(build).map(drop).unwrap_err().to_string();
        assert!(error("[pgbouncer]\nlisten_port = = 1").starts_with("x.toml:2:15: "));
        assert!(error("[pgbouncr]\n").contains("unknown section"));
        assert!(error("[databases.a]\nhots = \"x\"").starts_with("x.toml:2:1: database a: unknown key hots"));
        assert!(error("[pgbouncer]\nlisten_port = 1979-05-27").contains("expected text"));
        assert!(error("[pgbouncer]\r\nx = 1\r\n").contains("x.toml:2:1: unknown setting x\n  | x = ***\n"));
        assert!(error("[databases]\na = ").starts_with("x.toml:2:5: "));
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = parse(&text, Path::new("x"));
        }
    }
}
