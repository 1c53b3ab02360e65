//! Files about users: who there is, who may come from where, who is whom.

use std::path::Path;

use pgweir::auth::hba::ident::IdentMaps;
use pgweir::auth::hba::{Connection, Problem, Rules};
use pgweir::auth::ldap::{LdapOptions, Lookup, filter};
use pgweir::auth::secret::Secret;
use pgweir::auth::userlist as list;

use super::bytes::{Bytes, texts};

/// `userlist.txt`.
pub(super) fn userlist(input: &[u8]) {
    let text = Bytes(input).text();
    let (users, errors) = list::parse(&text);
    let lines: Vec<_> = text.lines().collect();
    for error in &errors {
        assert!(error.column <= lines[error.line - 1].len() + 1, "{error}");
    }
    assert!(users.len() + errors.len() <= lines.len());
    let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let plain = users.iter().filter_map(|(user, secret)| match secret {
        Some(Secret::Plain(password)) => Some((user, password.as_str())),
        _ => None,
    });
    let written: String = plain.clone().map(|(u, p)| format!("{} {}\n", quote(u), quote(p))).collect();
    let (again, errors) = list::parse(&written);
    assert!(errors.is_empty());
    assert!(again.iter().map(|(user, _)| user).eq(plain.map(|(user, _)| user)));
    let mut users = users.iter();
    assert!(again.iter().all(|user| users.any(|known| known == user)));
}

/// What is wrong is in the text.
fn check(problems: &[Problem], text: &str) {
    let lines: Vec<_> = text.lines().collect();
    for problem in problems {
        let line = lines[problem.line - 1];
        assert!((1..=line.len() + 1).contains(&problem.column), "{problem} in {line:?}");
        assert!(!problem.to_string().is_empty());
    }
}

/// `pg_hba.conf`: a connection, then the text.
pub(super) fn hba(input: &[u8]) {
    let mut bytes = Bytes(input);
    let choice = bytes.choice();
    let address = match choice & 3 {
        0 => None,
        1 => Some([choice; 16].into()),
        2 => Some([127, 0, 0, choice].into()),
        _ => Some([10, choice, 0, 1].into()),
    };
    let connection = Connection {
        address,
        tls: choice & 4 > 0,
        physical_replication: choice & 8 > 0,
        database: ["app", "me", "all", "replication"][usize::from(choice >> 4 & 3)],
        user: "me",
    };
    let text = bytes.text();
    let (maps, _) = IdentMaps::parse("m me me\n");
    // Names of files lead to more of the same text, and so to files in files.
    let read = |path: &Path| match path.to_str() {
        Some(name) if name.len() % 2 == 0 => Ok(text.chars().take(20).collect()),
        _ => Err("no such file".to_owned()),
    };
    let parse = |text: &str| Rules::parse(text, Path::new("/etc/hba"), &maps, &read);
    let (rules, problems) = parse(&text);
    check(&problems, &text);
    let found = rules.find(&connection);
    assert_eq!(found, rules.iter().find(|rule| Some(*rule) == found));
    // Each line is read for itself: what one says does not change what another means.
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let (rules, problems) = parse(line);
        assert!(rules.iter().count() + problems.len() <= 3);
        lines.extend(rules.iter().cloned().map(|mut rule| {
            rule.line = number + 1;
            rule
        }));
    }
    assert!(rules.iter().eq(&lines));
}

/// `pg_ident.conf`.
pub(super) fn ident(input: &[u8]) {
    let text = Bytes(input).text();
    let (maps, problems) = IdentMaps::parse(&text);
    check(&problems, &text);
    for map in ["m", "a"].into_iter().filter_map(|name| maps.get(name)) {
        assert!(!map.allows("me", |_| false));
    }
}

/// `auth_ldap_options`, and the filters that it may contain.
pub(super) fn ldap_options(input: &[u8]) {
    let text = Bytes(input).text();
    match LdapOptions::parse(&text) {
        Ok(options) => {
            assert!(!options.servers.is_empty());
            if let Lookup::Search(search) = &options.lookup {
                let password = search.bind_password.reveal();
                assert!(
                    password.len() < 8
                        || !format!("{search:?}").contains(password)
                        || text.matches(password).count() > 1
                );
                // Whoever logs in does not write filters.
                for user in ["*", "a)(b", "\\2a"] {
                    assert_eq!(search.filter(user), None);
                }
                search.filter("me");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match filter::encode(&text) {
        Ok(encoded) => assert!(is_well_formed(&encoded), "{encoded:02x?}"),
        Err(error) => assert!((1..=text.len() + 1).contains(&error.at), "{error} of {text:?}"),
    }
}

/// One BER element with nothing behind it, and so on inside.
fn is_well_formed(bytes: &[u8]) -> bool {
    let Some(([tag, first], rest)) = bytes.split_first_chunk::<2>() else { return false };
    let (len, content) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x84 => match rest.split_first_chunk::<4>() {
            Some((len, content)) => (u32::from_be_bytes(*len) as usize, content),
            None => return false,
        },
        _ => return false,
    };
    let is_constructed = tag & 0x20 > 0;
    len == content.len() && (!is_constructed || all_well_formed(content))
}

fn all_well_formed(mut content: &[u8]) -> bool {
    while !content.is_empty() {
        let len = match content {
            [_, 0x84, a, b, c, d, ..] => 6 + u32::from_be_bytes([*a, *b, *c, *d]) as usize,
            [_, len, ..] => 2 + usize::from(*len),
            _ => return false,
        };
        let Some((element, rest)) = content.split_at_checked(len) else { return false };
        if !is_well_formed(element) {
            return false;
        }
        content = rest;
    }
    true
}

pub(super) fn userlist_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "\"me\" \"se\"\"cret\" ignored\n\n ; comment\n\t\"a\"\"b\"\"\" \"\"\n",
        "\"me\" \"md5d41d8cd98f00b204e9800998ecf8427e\"\n\"u\" \"SCRAM-SHA-256$4096:c2FsdA==$AAAA:BBBB\"",
        "\"\" \"x\"\n",
        "\"me\" x",
    ])
}

pub(super) fn hba_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "\u{1}local all all trust\nhost app,\"me\" all 127.0.0.0/8 scram-sha-256 # comment\nhostssl sameuser me ::1/128 cert map=m\n",
        "\u{2}hostnossl all @names 10.0.0.0 255.0.0.0 md5\nhost replication all all reject\nhost all all 0.0.0.0/0 password\n",
        "\u{3}host all all all ldap ldapserver=a ldapbasedn=\"dc=x\" ldapbindpasswd=secret\nhost all +g ::/0 peer\n",
        "\u{4}host all \"a\"\"b\" 1.2.3.4/33 pam\nhost all all host.example trust\n,,\n\"\n@\n@xx @y\n",
    ])
}

pub(super) fn ident_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "# MAP SYSTEM USER\nm acme.org me # comment\nm \"boun cer\" all\na me \"all\"\n",
        "m a\nm b c d\n\"m\" a b\nm \"a b\nm , b\n",
    ])
}

pub(super) fn ldap_options_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "ldapserver=a,b ldapport=389 ldaptls=1 ldapprefix=\"cn=\" ldapsuffix=\", dc=x\"",
        "ldapurl=\"ldaps://host:636/dc=x?uid?sub?(objectClass=*)\" ldapbinddn=\"cn=a\" ldapbindpasswd=\"long secret\"",
        "ldapserver=\"a b\", ldapbasedn=dc=x ldapsearchfilter=(|(uid=$username)(mail=$username)) # comment",
        "(&(objectClass=person)(|(cn=a*b*c)(!(x>=1)))(y:dn:2.4.6:=\\2a\\28)(z~=1)(w=*))",
    ])
}
