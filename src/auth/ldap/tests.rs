use proptest::prelude::*;

use super::message::{Outcome, Reply};
use super::*;

fn search(filter: &str) -> Search {
    Search {
        base: "dc=example,dc=net".into(),
        scope: Scope::Sub,
        bind_dn: String::new(),
        bind_password: BindPassword::default(),
        filter: filter.into(),
    }
}

fn at(port: u16, security: Security, lookup: Lookup) -> LdapOptions {
    LdapOptions { servers: vec!["127.0.0.1".into()], port, security, lookup }
}

#[test]
fn secrets_are_not_shown() {
    for (text, shown) in [
        ("", ""),
        ("ldapserver=h, ldapbasedn=\"a b\" ldaptls=1", "ldapserver=h, ldapbasedn=\"a b\" ldaptls=1"),
        ("ldapserver=h ldapbindpasswd=geheim ldaptls=1", "ldapserver=h ldapbindpasswd=***"),
        ("ldapserver=h ldapbindpassword=geheim", "ldapserver=h ldapbindpassword=***"),
        ("ldapserver=h geheim ldaptls=1", "ldapserver=h ***"),
        ("ldapserver=h \"geheim\"=1", "ldapserver=h ***"),
        ("ldapserver=\"h geheim", "ldapserver=***"),
        ("ldapserver=h # geheim", "ldapserver=h ***"),
    ] {
        assert_eq!(without_secrets(text), shown, "{text}");
    }
}

#[test]
fn direct_and_search() {
    let direct = Lookup::Direct { prefix: "uid=".into(), suffix: ",dc=example,dc=net".into() };
    let full = Search {
        bind_dn: "cn=Manager,dc=example,dc=net".into(),
        bind_password: BindPassword(Zeroizing::new("se\"c ret".into())),
        ..search("(mail=$username)")
    };
    for (text, expected) in [
        (
            " ldapserver=127.0.0.1 ldapport=1389 ldapprefix=\"uid=\" ldapsuffix=\",dc=example,dc=net\"\n",
            at(1389, Security::Plain, direct.clone()),
        ),
        (
            "ldapserver=127.0.0.1,ldapprefix=uid= , ldapsuffix=\",dc=example,dc=net\" ldaptls=1 # a=b",
            at(389, Security::StartTls, direct),
        ),
        (
            "ldapserver=127.0.0.1 ldapscheme=ldaps ldapprefix=\"\"",
            at(636, Security::Ldaps, Lookup::Direct { prefix: String::new(), suffix: String::new() }),
        ),
        (
            "ldapserver=127.0.0.1 \"ldapport\"=5 ldapbasedn=\"dc=example,dc=net\" ,ldapsearchfilter=\"uid=$username\"",
            at(5, Security::Plain, Lookup::Search(search("uid=$username"))),
        ),
        (
            "ldapserver=127.0.0.1 ldapbasedn=\"dc=example,dc=net\" ldaptls=0",
            at(389, Security::Plain, Lookup::Search(search("(uid=$username)"))),
        ),
        (
            "ldapserver=127.0.0.1 ldapbasedn=\"dc=example,dc=net\" ldapbinddn=\"cn=Manager,dc=example,dc=net\" \
             ldapbindpasswd=\"se\"\"c ret\" ldapsearchattribute=mail",
            at(389, Security::Plain, Lookup::Search(full)),
        ),
    ] {
        assert_eq!(LdapOptions::parse(text), Ok(expected), "{text}");
    }
    let several = LdapOptions::parse("ldapserver=\"a b  c\" ldapsuffix=@x").unwrap();
    assert_eq!(several.servers, ["a", "b", "c"]);
}

#[test]
fn urls() {
    let found = |filter, scope| Lookup::Search(Search { scope, ..search(filter) });
    for (url, expected) in [
        (
            "ldap://127.0.0.1:12345/dc=example,dc=net?uid?sub",
            at(12345, Security::Plain, found("(uid=$username)", Scope::Sub)),
        ),
        (
            "ldaps://127.0.0.1/dc=example,dc=net??sub?(|(uid=$username)(mail=$username))",
            at(636, Security::Ldaps, found("(|(uid=$username)(mail=$username))", Scope::Sub)),
        ),
        (
            "ldap://127.0.0.1/dc=example%2cdc=net",
            at(389, Security::Plain, found("(uid=$username)", Scope::Base)),
        ),
        (
            "LDAP://127.0.0.1/dc=example,dc=net?cn,uid?one",
            at(389, Security::Plain, found("(cn=$username)", Scope::One)),
        ),
    ] {
        assert_eq!(LdapOptions::parse(&format!("ldapurl=\"{url}\"")), Ok(expected), "{url}");
    }
    let v6 = LdapOptions::parse("ldapurl=\"ldap://[::1]:390/dc=x\"").unwrap();
    assert_eq!((v6.servers[0].as_str(), v6.port), ("[::1]", 390));
    let elsewhere = LdapOptions::parse("ldapurl=\"ldap:///dc=x\" ldapserver=h").unwrap();
    assert_eq!(elsewhere.servers, ["h"]);
    for url in [
        "127.0.0.1",
        "ldapi://x/",
        "ldap://h:x/b",
        "ldap://h:0/b",
        "ldap://h/b?a?all",
        "ldap://h/%zz",
        "ldap://h/%f",
    ] {
        assert_eq!(LdapOptions::parse(&format!("ldapurl={url}")), Err(OptionsError::Url(url.into())));
    }
}

#[test]
fn errors() {
    let server = "ldapserver=h ";
    for (text, expected) in [
        ("ldapbasedn=b", OptionsError::NoServer),
        ("ldapserver=h", OptionsError::NoLookup),
        ("ldapserver=h ldapprefix=a ldapbasedn=b", OptionsError::Mixed),
        ("ldapserver=h ldapsuffix=a ldapsearchfilter=b", OptionsError::Mixed),
        ("ldapserver=h ldapbasedn=b ldapsearchfilter=(a=b) ldapsearchattribute=c", OptionsError::TwoFilters),
        ("ldapserver=h ldapbasedn=b ldapscheme=ldaps ldaptls=1", OptionsError::TlsTwice),
        ("ldapserver=h ldaptls ", OptionsError::Syntax(14)),
        ("ldapserver=h ldapbasedn=dc=x,dc=y", OptionsError::UnknownKey(30)),
        ("ldapserver=h ldapbasedn=\"dc=x", OptionsError::Unclosed),
        ("\"ldapserver\"x=h", OptionsError::Syntax(1)),
        ("ldapport=0", OptionsError::Value { key: "ldapport", value: "0".into() }),
        ("ldapport=65536", OptionsError::Value { key: "ldapport", value: "65536".into() }),
        ("ldaptls=yes", OptionsError::Value { key: "ldaptls", value: "yes".into() }),
        ("ldapscheme=http", OptionsError::Value { key: "ldapscheme", value: "http".into() }),
    ] {
        assert_eq!(LdapOptions::parse(text), Err(expected), "{text}");
    }
    let error = LdapOptions::parse(&format!("{server} ldapbasedn=b ldapsearchfilter=(a=b")).unwrap_err();
    assert_eq!(error.to_string(), "invalid LDAP search filter: expected ) at byte 2");
}

#[test]
fn the_bind_password_is_not_shown() {
    let options = LdapOptions::parse("ldapserver=h ldapbasedn=b ldapbindpasswd=secret").unwrap();
    let Lookup::Search(search) = &options.lookup else { panic!("{options:?}") };
    assert_eq!(search.bind_password.reveal(), "secret");
    assert!(!format!("{options:?}").contains("secret"));
}

#[test]
fn the_user_is_put_into_the_filter() {
    let search = search("(|(uid=$username)(mail=$username))");
    assert_eq!(search.filter("joe").unwrap(), filter::encode("(|(uid=joe)(mail=joe))").unwrap());
    for user in ["*", "joe)(uid=*", "a\\2a", "a/b"] {
        assert_eq!(search.filter(user), None, "{user}");
    }
}

/// The bytes of a hexadecimal text; letters in single quotes are themselves.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in text.split(' ') {
        match word.strip_prefix('\'') {
            Some(letters) => bytes.extend(letters.bytes()),
            None => bytes.push(u8::from_str_radix(word, 16).unwrap()),
        }
    }
    bytes
}

#[test]
fn filters() {
    for (text, encoded) in [
        ("(uid=joe)", "a3 0a 04 03 'uid 04 03 'joe"),
        (" uid=joe ", "a3 0a 04 03 'uid 04 03 'joe"),
        ("(uid=)", "a3 07 04 03 'uid 04 00"),
        ("(uid=*)", "87 03 'uid"),
        ("(n>=1)", "a5 06 04 01 'n 04 01 '1"),
        ("(n<=1)", "a6 06 04 01 'n 04 01 '1"),
        ("(n~=1)", "a8 06 04 01 'n 04 01 '1"),
        ("(n=\\2a\\C3\\a4=)", "a3 09 04 01 'n 04 04 '* c3 a4 '="),
        ("(n=a*)", "a4 08 04 01 'n 30 03 80 01 'a"),
        ("(n=*z)", "a4 08 04 01 'n 30 03 82 01 'z"),
        ("(n=a*b*c*z)", "a4 11 04 01 'n 30 0c 80 01 'a 81 01 'b 81 01 'c 82 01 'z"),
        ("(&(a=1)(!(b=2)))", "a0 12 a3 06 04 01 'a 04 01 '1 a2 08 a3 06 04 01 'b 04 01 '2"),
        ("( | (a=1) (b=2) )", "a1 10 a3 06 04 01 'a 04 01 '1 a3 06 04 01 'b 04 01 '2"),
        ("(&)", "a0 00"),
        ("(o:1.2:=x)", "a9 0b 81 03 '1.2 82 01 'o 83 01 'x"),
        ("(o:dn:=x)", "a9 09 82 01 'o 83 01 'x 84 01 ff"),
        ("(:dn:r:=x)", "a9 09 81 01 'r 83 01 'x 84 01 ff"),
    ] {
        assert_eq!(filter::encode(text), Ok(bytes(encoded)), "{text}");
    }
    let deep = "(!".repeat(100) + "(a=b)" + &")".repeat(100);
    for text in [
        "",
        "(",
        "()",
        "(a)",
        "(a=b",
        "(a=b))",
        "a=b)",
        "(a b=c)",
        "(=b)",
        "(a=\\2)",
        "(:=x)",
        "(a:b:c:=x)",
        "(!)",
        &deep,
    ] {
        // Without parentheses everything up to the end is the value, as with OpenLDAP.
        assert_eq!(filter::encode(text).is_err(), text != "a=b)", "{text}");
    }
}

#[test]
fn requests() {
    assert_eq!(message::bind(1, "cn=a", "pw"), bytes("30 12 02 01 01 60 0d 02 01 03 04 04 'cn=a 80 02 'pw"),);
    let filter = filter::encode("(a=b)").unwrap();
    assert_eq!(
        message::search(2, "dc=x", Scope::Sub, &filter),
        bytes(
            "30 29 02 01 02 63 24 04 04 'dc=x 0a 01 02 0a 01 00 02 01 02 02 01 00 01 01 00 \
             a3 06 04 01 'a 04 01 'b 30 05 04 03 '1.1"
        ),
    );
    assert_eq!(message::start_tls(1), bytes("30 1d 02 01 01 77 18 80 16 '1.3.6.1.4.1.1466.20037"));
    assert_eq!(message::unbind(3), bytes("30 05 02 01 03 42 00"));
    let long = message::bind(1, &"x".repeat(200), "");
    assert_eq!(long[..6], [0x30, 0x84, 0, 0, 0, 0xdc]);
    assert_eq!(message::len(&long), Ok(Some(long.len())));
}

#[test]
fn replies() {
    let outcome = |code, message: &str| Outcome { code, message: message.into() };
    for (text, id, reply) in [
        ("30 0c 02 01 01 61 07 0a 01 00 04 00 04 00", 1, Reply::Bound(outcome(0, ""))),
        ("30 0e 02 01 01 61 09 0a 01 31 04 00 04 02 'no", 1, Reply::Bound(outcome(49, "no"))),
        ("30 0d 02 01 02 64 08 04 04 'dc=x 30 00", 2, Reply::Entry { dn: "dc=x".into() }),
        (
            "30 84 00 00 00 10 02 01 02 65 84 00 00 00 07 0a 01 04 04 00 04 00",
            2,
            Reply::Searched(outcome(4, "")),
        ),
        ("30 09 02 01 02 73 04 04 02 'x:", 2, Reply::Reference),
        ("30 0e 02 01 00 78 09 0a 01 34 04 00 04 00 8a 00", 0, Reply::Extended(outcome(52, ""))),
    ] {
        let bytes = bytes(text);
        assert_eq!(message::len(&bytes), Ok(Some(bytes.len())), "{text}");
        assert_eq!(message::decode(&bytes), Ok((id, reply)), "{text}");
        for end in 0..bytes.len() {
            assert!(message::decode(&bytes[..end]).is_err(), "{text} to {end}");
        }
    }
    assert_eq!(outcome(49, "no\n").to_string(), "Invalid credentials (49): no\\n");
}

#[test]
fn replies_that_are_none() {
    assert_eq!(message::len(b"HT"), Err(message::Invalid));
    assert_eq!(message::len(&[0x30, 0x84, 0, 1]), Ok(None));
    assert_eq!(message::len(&[0x30, 0x84, 0, 1, 0, 0]), Err(message::Invalid));
    assert_eq!(message::len(&[0x30, 0x80]), Err(message::Invalid));
    // A negative ID, and a DN that is no text.
    assert!(message::decode(&bytes("30 0c 02 01 81 61 07 0a 01 00 04 00 04 00")).is_err());
    assert!(message::decode(&bytes("30 0a 02 01 02 64 05 04 01 ff 30 00")).is_err());
}

proptest! {
    #[test]
    fn no_text_panics(text: String, line in "(ldap(url|port|server|basedn)=)?[a/:?%0\" ,=]{0,12}", filter in "[()|&!a=*:\\\\ 2]{0,16}") {
        let _ = LdapOptions::parse(&text);
        let _ = LdapOptions::parse(&line);
        let _ = filter::encode(&text);
        let _ = filter::encode(&filter);
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = message::len(&bytes);
        let _ = message::decode(&bytes);
        let _ = message::decode(&message::element(0x30, &bytes));
    }
}
