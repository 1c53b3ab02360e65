//! `pgbouncer.ini`, exactly as PgBouncer reads it: comments only at the start of a line, no quotes around values,
//! `%include` relative to the current directory, and a second `[pgbouncer]` header that undoes the first.

use std::path::{Path, PathBuf};

use super::error::{ConfigError, Problem};
use super::mask;
use super::raw::{Item, Origin, Section};

/// How deep `%include` may go.
const MAX_DEPTH: usize = 10;

/// Reads a file and those it includes.
pub fn read(path: &Path) -> Result<Vec<Item>, ConfigError> {
    let mut reader = IniReader { items: Vec::new(), section: None };
    reader.file(path, 0, None)?;
    Ok(reader.items)
}

/// Reads a text; `path` is named in errors.
pub fn parse(text: &str, path: &Path) -> Result<Vec<Item>, ConfigError> {
    let mut reader = IniReader { items: Vec::new(), section: None };
    reader.text(text, path, 0)?;
    Ok(reader.items)
}

struct IniReader {
    items: Vec<Item>,
    section: Option<Section>,
}

impl IniReader {
    fn file(&mut self, path: &Path, depth: usize, from: Option<&Origin>) -> Result<(), ConfigError> {
        let problem = |message| match from {
            Some(origin) => Problem::at(origin, message),
            None => Problem::general(message),
        };
        if depth > MAX_DEPTH {
            return Err(ConfigError::one(problem(format!("%include is nested more than {MAX_DEPTH} deep"))));
        }
        let text = std::fs::read(path).map_err(|error| {
            ConfigError::one(problem(format!("cannot read \"{}\": {error}", path.display())))
        })?;
        self.text(&String::from_utf8_lossy(&text), path, depth)
    }

    fn text(&mut self, text: &str, path: &Path, depth: usize) -> Result<(), ConfigError> {
        for (index, line) in text.lines().enumerate() {
            self.line(line.trim_end(), path, index + 1, depth)?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str, path: &Path, number: usize, depth: usize) -> Result<(), ConfigError> {
        let mut rest = line.trim_start();
        // There may be many section headers in one line.
        let mut origin = Origin::new(path, number, 1, &mask::line(line));
        loop {
            origin.column = line.len() - rest.len() + 1;
            let fail = |message: &str| ConfigError::one(Problem::at(&origin, message));
            if rest.is_empty() || rest.starts_with([';', '#']) {
                return Ok(());
            }
            if let Some(after) = rest.strip_prefix("%include") {
                let file = after.trim();
                if file.is_empty() || !after.starts_with([' ', '\t']) {
                    return Err(fail("%include needs a file name"));
                }
                return self.file(&PathBuf::from(file), depth + 1, Some(&origin));
            }
            if let Some(after) = rest.strip_prefix('[') {
                let (name, after) = after.split_once(']').ok_or_else(|| fail("section header without ]"))?;
                let section = Section::named(name).ok_or_else(|| {
                    let problem = Problem::at(&origin, format!("unknown section [{name}]"));
                    ConfigError::one(
                        problem.hint("sections are [databases], [users], [peers] and [pgbouncer]"),
                    )
                })?;
                self.items.push(match section {
                    Section::Pgbouncer => Item::Reset,
                    other => Item::Header(other),
                });
                self.section = Some(section);
                rest = after.trim_start();
                continue;
            }
            let (key, after) = key(rest).ok_or_else(|| fail("expected a name"))?;
            let value =
                after.trim_start().strip_prefix('=').ok_or_else(|| fail("expected = after the name"))?;
            let section = self.section.ok_or_else(|| fail("setting outside of any section"))?;
            self.items.push(Item::Entry { section, key, value: value.trim().to_owned(), origin });
            return Ok(());
        }
    }
}

/// A bare name, or one in single quotes, and what follows it.
fn key(text: &str) -> Option<(String, &str)> {
    if let Some(quoted) = text.strip_prefix('\'') {
        let (name, after) = quoted.split_once('\'')?;
        return (!name.is_empty()).then(|| (name.to_owned(), after));
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "_.*-".contains(c))).unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_owned(), &text[end..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(text: &str) -> Vec<(Section, String, String)> {
        let items = parse(text, Path::new("x.ini")).unwrap();
        let entry = |item| match item {
            Item::Entry { section, key, value, .. } => Some((section, key, value)),
            Item::Table { .. } | Item::Reset | Item::Header(_) => None,
        };
        items.into_iter().filter_map(entry).collect()
    }

    #[test]
    fn lines_are_read_as_pgbouncer_reads_them() {
        let got = entries(
            "; comment\n  [databases]\n a = host=b ; not a comment\n'my db'=\n* = x\n[pgbouncer] pool_mode = session\n# c\n\tk.e-y=v  \r\n",
        );
        let expected = [
            (Section::Databases, "a", "host=b ; not a comment"),
            (Section::Databases, "my db", ""),
            (Section::Databases, "*", "x"),
            (Section::Pgbouncer, "pool_mode", "session"),
            (Section::Pgbouncer, "k.e-y", "v"),
        ];
        assert_eq!(got, expected.map(|(s, k, v)| (s, k.to_owned(), v.to_owned())));
    }

    #[test]
    fn errors_name_the_place() {
        for (text, line, column) in [
            ("[x]\n", 1, 1),
            ("\n a = b", 2, 2),
            ("[users]\n= b", 2, 1),
            ("[users]\nab", 2, 1),
            ("[users", 1, 1),
            ("%include", 1, 1),
        ] {
            let error = parse(text, Path::new("x.ini")).unwrap_err();
            let origin = error.0[0].origin.clone().unwrap();
            assert_eq!((origin.line, origin.column), (line, column), "{text}");
            assert!(error.to_string().starts_with("x.ini:"), "{error}");
        }
    }

    #[test]
    fn includes_go_on_in_the_same_section() {
        let dir = std::env::temp_dir().join(format!("pgweir-ini-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let inner = dir.join("inner.ini");
        std::fs::write(&inner, "b = 2\n[users]\n").unwrap();
        let outer = format!("[databases]\na = 1\n%include {}\nc = 3\n", inner.display());
        let got = entries(&outer);
        assert_eq!(got[1], (Section::Databases, "b".into(), "2".into()));
        assert_eq!(got[2], (Section::Users, "c".into(), "3".into()));
        std::fs::write(&inner, format!("%include {}\n", inner.display())).unwrap();
        assert!(parse(&outer, Path::new("x")).unwrap_err().to_string().contains("nested"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = parse(&text.replace("%include", ""), Path::new("x"));
        }
    }
}
