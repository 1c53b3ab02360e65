//! Ident maps, the file of `auth_ident_file`: which system user (or name in a certificate) may log in as which user.
//!
//! Each line is `map-name system-username database-username`. There are no regular expressions; `all` without quotes
//! as the third word means every user.

use std::collections::HashMap;
use std::sync::Arc;

use super::line::{Complaint, Line};
use super::problem::Problem;

/// The maps of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentMaps(HashMap<String, Arc<IdentMap>>);

impl IdentMaps {
    /// Reads a file's text. A bad line is left out and reported, the others count.
    pub fn parse(text: &str) -> (Self, Vec<Problem>) {
        let mut maps: HashMap<String, IdentMap> = HashMap::new();
        let mut problems = Vec::new();
        for (index, text) in text.lines().enumerate() {
            match mapping(text) {
                Ok(Some((name, mapping))) => {
                    let map = maps
                        .entry(name)
                        .or_insert_with_key(|name| IdentMap { name: name.clone(), mappings: Vec::new() });
                    map.mappings.push(mapping);
                }
                Ok(None) => {}
                Err(complaint) => problems.push(complaint.on_line(index + 1, text)),
            }
        }
        (Self(maps.into_iter().map(|(name, map)| (name, Arc::new(map))).collect()), problems)
    }

    /// The map of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<IdentMap>> {
        self.0.get(name)
    }
}

/// All lines with the same map name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentMap {
    /// Its name.
    pub name: String,
    mappings: Vec<Mapping>,
}

impl IdentMap {
    /// Whether some system user that `is_client` says the client is may log in as `user`.
    ///
    /// A question instead of a name because a certificate has several names, and because a peer is known by a number.
    pub fn allows(&self, user: &str, is_client: impl Fn(&str) -> bool) -> bool {
        self.mappings.iter().any(|mapping| mapping.allows(user) && is_client(&mapping.system_user))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    system_user: String,
    /// `None` is every user.
    user: Option<String>,
}

impl Mapping {
    fn allows(&self, user: &str) -> bool {
        self.user.as_deref().is_none_or(|mapped| mapped == user)
    }
}

fn mapping(text: &str) -> Result<Option<(String, Mapping)>, Complaint> {
    let mut line = Line::new(text);
    if line.is_over() {
        return Ok(None);
    }
    let name = line.word("the name of a map")?;
    let system_user = line.value("a system user")?;
    let user = match line.take("all") {
        true => None,
        false => Some(line.value("a database user")?),
    };
    line.end()?;
    Ok(Some((name, Mapping { system_user, user })))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_map_is_all_lines_of_its_name() {
        let text = "# MAP SYSTEM USER\n\n\
            test\tacme.org  someuser # comment\n\
            test  acme.org  anotheruser\r\n\
            test2 \"boun cer\" all\n\
            test2 acme.org  \"all\"\n\
            test2 all       one\n";
        let (maps, problems) = IdentMaps::parse(text);
        assert_eq!(problems, []);
        for (map, system_user, user, allowed) in [
            ("test", "acme.org", "someuser", true),
            ("test", "acme.org", "anotheruser", true),
            ("test", "acme.org", "bouncer", false),
            ("test", "acme", "someuser", false),
            ("test2", "boun cer", "whoever", true),
            // In quotes "all" is a user like others, and it never is special for system users.
            ("test2", "acme.org", "all", true),
            ("test2", "acme.org", "whoever", false),
            ("test2", "all", "one", true),
            ("test2", "other", "one", false),
        ] {
            let map = maps.get(map).unwrap();
            assert_eq!(map.allows(user, |name| name == system_user), allowed, "{system_user} {user}");
        }
        assert_eq!(maps.get("test3"), None);
    }

    #[test]
    fn bad_lines_are_reported_and_left_out() {
        let (maps, problems) =
            IdentMaps::parse("m a\nm b c d\n\"m\" a b\nm \"a b\nm a b\nm , b\nm all all x");
        let places: Vec<_> = problems.iter().map(|problem| (problem.line, problem.column)).collect();
        assert_eq!(places, [(1, 4), (2, 7), (3, 1), (4, 3), (6, 3), (7, 11)]);
        assert_eq!(
            problems[0].to_string(),
            "line 1, column 4: expected a database user, found the end of the line"
        );
        assert_eq!(maps.get("m").unwrap().mappings.len(), 1);
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String, line in "[a \",#]{0,12}") {
            let _ = IdentMaps::parse(&text);
            let _ = IdentMaps::parse(&line);
        }
    }
}
