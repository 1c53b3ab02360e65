use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::auth::ldap::LdapOptions;

fn no_files(_: &Path) -> Result<String, String> {
    Err("no such file".into())
}

fn read(text: &str) -> (Rules, Vec<Problem>) {
    let (maps, _) = IdentMaps::parse("mymap joe all");
    Rules::parse(text, Path::new("conf/hba.conf"), &maps, &no_files)
}

/// The rules of a text without problems.
fn rules(text: &str) -> Rules {
    let (rules, problems) = read(text);
    assert_eq!(problems, []);
    rules
}

/// A connection from words: `database user address|unix [tls] [replication]`.
fn connection(words: &str) -> Connection<'_> {
    let parts: Vec<_> = words.split(' ').collect();
    Connection {
        address: (parts[2] != "unix").then(|| parts[2].parse().unwrap()),
        tls: parts[3..].contains(&"tls"),
        physical_replication: parts[3..].contains(&"replication"),
        database: parts[0],
        user: parts[1],
    }
}

/// On which lines the rules for these connections stand, 0 if there is none.
fn check(rules: &Rules, expected: &[(&str, usize)]) {
    for (words, line) in expected {
        let found = rules.find(&connection(words)).map_or(0, |rule| rule.line);
        assert_eq!(found, *line, "{words}");
    }
}

#[test]
fn nothing_of_a_secret_is_shown() {
    for text in [
        "local all joe ldap ldapserver=h ldapbindpaswd=geheim",
        "local all joe ldap geheim",
        "local all joe ldapbindpasswd=geheim",
        "local all joe md5 ldapbindpasswd=geheim",
        "host all joe ldap ldapbindpasswd=geheim",
        "host all joe 10.0.0.1/32 ldap ldapserver=h geheim",
        "host all joe 10.0.0.1/32 ldap ldapserver=h ldapbindpasswd=\"ge geheim",
        "host all joe 10.0.0.1/32 ldap ldapserver=h ldapbindpasswd=ge geheim ldaptls=1",
        "  ldapserver=h ldapbindpasswd=geheim",
        "geheim ldaptls=1",
        "host all joe 10.0.0.1/32 ldapbindpasswd geheim",
    ] {
        let (_, problems) = read(text);
        assert!(!problems.is_empty(), "{text}");
        for problem in problems {
            let shown = format!("{problem} {} {}", problem.message, problem.excerpt);
            assert!(!shown.contains("geheim"), "{text}: {shown}");
        }
    }
}

#[test]
fn kinds_of_connections() {
    let rules = rules(
        "local a all trust\n\
         hostssl a all all cert\n\
         hostnossl b all 10.0.0.0/8 md5\n\
         host c all all password\n",
    );
    check(
        &rules,
        &[
            ("a joe unix", 1),
            ("b joe unix", 0),
            ("c joe unix", 0),
            ("a joe 10.0.0.1 tls", 2),
            ("a joe ::1 tls", 2),
            ("a joe 10.0.0.1", 0),
            ("b joe 10.0.0.1", 3),
            ("b joe 10.0.0.1 tls", 0),
            ("c joe 10.0.0.1", 4),
            ("c joe fe80::1 tls", 4),
        ],
    );
    assert_eq!(rules.find(&connection("a joe unix")).unwrap().method, Method::Trust);
    assert!(Rules::default().find(&connection("a joe unix")).is_none());
}

#[test]
fn names_of_databases_and_users() {
    let rules = rules(
        "# comment\n\
         \t \u{b}\r\n\
         local db1,db2 , db3 joe,\"j#o,e\"trust#comment\n\
         local sameuser all peer\n\
         local \"all\" \"a \"\"b\" md5\n\
         local x,all admin reject\r\n\
         local x sameuser trust\n",
    );
    check(
        &rules,
        &[
            ("db1 joe unix", 3),
            ("db2 joe unix", 3),
            ("db3 j#o,e unix", 3),
            ("db joe unix", 0),
            ("db1 jo unix", 0),
            ("joe joe unix", 4),
            ("joe Joe unix", 0),
            ("anything admin unix", 6),
            // In the column for users, as PgBouncer has it.
            ("x x unix", 4),
        ],
    );
    let mut connection = connection("all joe unix");
    connection.user = "a \"b";
    assert_eq!(rules.find(&connection).unwrap().line, 5);
    assert!(rules.find(&Connection { database: "other", ..connection }).is_none());
}

#[test]
fn physical_replication_is_not_covered_by_all() {
    let rules = rules(
        "host replication,db2 admin ::1/128 trust\n\
         host all all ::1/128 md5\n\
         host \"replication\" other all cert\n",
    );
    check(
        &rules,
        &[
            ("db admin ::1 replication", 1),
            ("db2 admin ::1", 1),
            ("db joe ::1 replication", 0),
            ("replication admin ::1", 2),
            ("db other ::2 replication", 0),
            ("replication other ::2", 3),
        ],
    );
}

#[test]
fn addresses() {
    let rules = rules(
        "host a all 10.1.0.0/16 trust\n\
         host a all 10.2.0.0 255.255.0.0 trust\n\
         host a all 0.0.0.0/0 trust\n\
         host b all 128.0.0.0/1 trust\n\
         host b all 1.2.3.4/32 trust\n\
         host b all 1.2.3.0/31 trust\n\
         host c all ff20::/12 trust\n\
         host c all ::1/128 trust\n\
         host c all 2001:db8:: ffff:ffff:: trust\n\
         host d all ::/0 trust\n\
         host e all 0.0.0.1 0.0.0.255 trust\n",
    );
    check(
        &rules,
        &[
            ("a joe 10.1.255.255", 1),
            ("a joe 10.2.0.1", 2),
            ("a joe 10.3.0.1", 3),
            ("a joe ::1", 0),
            ("b joe 127.255.255.255", 0),
            ("b joe 128.0.0.0", 4),
            ("b joe 1.2.3.4", 5),
            ("b joe 1.2.3.5", 0),
            ("b joe 1.2.3.1", 6),
            ("b joe 1.2.3.2", 0),
            ("c joe ff2f:3::1", 7),
            ("c joe ff30::", 0),
            ("c joe ::1", 8),
            ("c joe ::2", 0),
            ("c joe 2001:db8:1::", 9),
            ("c joe 2001:db9::", 0),
            ("d joe fe80::", 10),
            ("d joe 1.2.3.4", 0),
            ("e joe 9.9.9.1", 11),
            ("e joe 9.9.9.2", 0),
        ],
    );
}

#[test]
fn methods_and_their_options() {
    let rules = rules(
        "local a all trust\n\
         local a all reject\n\
         local a all md5\n\
         local a all password\n\
         local a all peer map=mymap # comment\n\
         local a all cert map=mymap\n\
         local a all scram-sha-256\n\
         local a all ldap ldapserver=h \"ldapport\"=1 ldapprefix=\"uid=\" ,ldapsuffix=\",dc=x\" # comment\n",
    );
    let methods: Vec<_> = rules.iter().map(|rule| rule.method.clone()).collect();
    let ldap = LdapOptions::parse("ldapserver=h ldapport=1 ldapprefix=uid= ldapsuffix=\",dc=x\"").unwrap();
    assert_eq!(
        methods,
        [
            Method::Trust,
            Method::Reject,
            Method::Md5,
            Method::Password,
            Method::Peer,
            Method::Cert,
            Method::ScramSha256,
            Method::Ldap(Some(Arc::new(ldap))),
        ]
    );
    let maps: Vec<_> = rules.iter().map(|rule| rule.map.as_ref().map(|map| map.name.as_str())).collect();
    assert_eq!(maps, [None, None, None, None, Some("mymap"), Some("mymap"), None, None]);
}

#[test]
fn bad_lines_are_reported_and_left_out() {
    for (line, column, message) in [
        ("hostx a b all trust", 1, "unknown type"),
        ("\"local\" a b trust", 1, "unknown type"),
        ("local", 6, "expected a database, found the end of the line"),
        ("local a", 8, "expected a user, found the end of the line"),
        ("local a, # b", 10, "expected a database, found the end of the line"),
        ("local ,a b trust", 7, "expected a database, found a comma"),
        ("local \"a b trust", 7, "expected a database, found a quote that is not closed"),
        ("local samerole b trust", 7, "samerole is not supported"),
        ("local a,+b c trust", 9, "groups (+name) are not supported"),
        ("local @x b trust", 7, "cannot read \"conf/x\": no such file"),
        ("local a b", 10, "unsupported method \"\""),
        ("local a b pam", 11, "unsupported method \"pam\""),
        ("local a b \"trust\"", 11, "unsupported method \"\""),
        ("local a b trust now", 17, "unsupported parameter \"now\""),
        ("local a b trust \"now\"", 17, "unsupported parameters"),
        ("local a b peer map=none", 16, "ident map \"none\" is not found in ident config file"),
        ("local a b peer map=mymap x", 26, "unsupported parameters"),
        ("host a b trust", 10, "failed to parse address \"trust\""),
        ("host a b", 9, "expected an address, found the end of the line"),
        ("host a b samenet trust", 10, "failed to parse address \"samenet\""),
        ("host a b 10.0.0.1 trust", 10, "address 10.0.0.1 without a valid mask"),
        ("host a b 10.0.0.1 ffff:: trust", 10, "address 10.0.0.1 without a valid mask"),
        ("host a b 10.0.0.1/33 trust", 10, "address 10.0.0.1/33 without a valid mask"),
        ("host a b 10.0.0.1/ trust", 10, "address 10.0.0.1/ without a valid mask"),
        ("host a b ::/129 trust", 10, "address ::/129 without a valid mask"),
    ] {
        let (rules, problems) = read(&format!("\n{line}\nlocal all all md5"));
        assert_eq!(problems.len(), 1, "{line}");
        let problem = &problems[0];
        assert_eq!((problem.line, problem.column, problem.message.as_str()), (2, column, message), "{line}");
        // What stands behind the method may be part of a secret.
        assert!(line.starts_with(problem.excerpt.trim_end_matches("***")), "{}", problem.excerpt);
        let lines: Vec<_> = rules.iter().map(|rule| rule.line).collect();
        assert_eq!(lines, [3], "{line}");
    }
    let (_, problems) = read("hostx");
    assert_eq!(
        problems[0].to_string(),
        "line 1, column 1: unknown type (a rule begins with local, host, hostssl or hostnossl)"
    );
}

#[test]
fn rules_that_match_nobody_are_reported() {
    let (rules, problems) = read("host all all 192.168.1.1/0 trust\nlocal all replication trust");
    let places: Vec<_> = problems.iter().map(|problem| (problem.line, problem.column)).collect();
    assert_eq!(places, [(1, 14), (2, 11)]);
    check(&rules, &[("a joe 192.168.1.1", 0), ("a replication unix", 0)]);
}

#[test]
fn a_rule_with_bad_options_for_ldap_still_matches() {
    let (rules, problems) =
        read("local all joe ldap ldapserver=h ldapbindpasswd=secret\nlocal all all trust");
    check(&rules, &[("a joe unix", 1), ("a jane unix", 2)]);
    assert_eq!(rules.find(&connection("a joe unix")).unwrap().method, Method::Ldap(None));
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.contains("ldapbasedn"), "{}", problems[0]);
    assert!(!format!("{problems:?}").contains("secret"), "{problems:?}");
}

#[test]
fn names_from_files() {
    let files = |path: &Path| match path.to_str().unwrap() {
        "conf/dbs" => Ok("one # comment\n\n two,\"three 3\" four\nsub/more\n@sub/more\n".to_owned()),
        "conf/sub/more" => Ok("@beside\n".into()),
        "conf/sub/beside" => Ok("five".into()),
        "/abs" => Ok("joe".into()),
        "conf/bad" => Ok("x\n+group".into()),
        "conf/loop" => Ok("@loop".into()),
        _ => Err("No such file".into()),
    };
    let text = "local zero,@dbs,six @/abs trust\nlocal @bad all trust\nlocal @loop all trust";
    let (rules, problems) = Rules::parse(text, Path::new("conf/hba.conf"), &IdentMaps::default(), &files);
    for database in ["zero", "one", "two", "three 3", "four", "sub/more", "five", "six"] {
        let found = rules.find(&Connection { database, ..connection("x joe unix") });
        assert_eq!(found.map(|rule| rule.line), Some(1), "{database}");
    }
    check(&rules, &[("two jane unix", 0), ("x joe unix", 0)]);
    let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(messages[0], "\"conf/bad\" line 2: groups (+name) are not supported");
    assert!(messages[1].ends_with("files of names are nested more than 10 deep"), "{}", messages[1]);
    assert_eq!(messages.len(), 2);
}

proptest! {
    #[test]
    fn no_text_panics(text: String, line in "(host|local) [a\",#@+]{0,5} all [0-9./: \"]{0,12}(ldap |trust|map=| ){0,3}") {
        let reader = |_: &Path| Ok(text.clone());
        for text in [&text, &line] {
            let (rules, _) = Rules::parse(text, Path::new(""), &IdentMaps::default(), &reader);
            let _ = rules.find(&connection("a b ::1"));
        }
    }
}
