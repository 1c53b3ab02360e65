//! What an error or SHOW may quote of a configuration. Secrets are where somebody has put them, which need not be behind
//! `password=`: the key may be misspelt, a value with a blank may lack its quotes. So a value is shown only behind a key
//! that is known to have nothing to hide, and nothing behind the first one that is not.

use super::model::{DatabaseConfig, PeerConfig, UserConfig};
use super::settings;

const HIDDEN: &str = "***";
/// Known keys whose values are or contain secrets.
const SECRET: &[&str] = &["password", "connect_query", "auth_ldap_options"];
/// Longest name of anything.
const MAX_NAME: usize = 63;

/// Whether a value may be shown behind this key.
pub fn has_nothing_to_hide(key: &str) -> bool {
    let sections = [DatabaseConfig::KEYS, UserConfig::KEYS, PeerConfig::KEYS];
    let is_known = settings::info(key).is_some() || sections.iter().any(|keys| keys.contains(&key));
    is_known && !SECRET.contains(&key)
}

/// A line of a configuration file.
pub fn line(text: &str) -> String {
    let start = text.trim_start();
    if start.starts_with(['[', ';', '#', '%']) && !start.contains('=') {
        return text.to_owned();
    }
    let Some((name, value)) = text.split_once('=') else {
        // What comes before the blank may be a setting that lacks its `=`.
        let word = start.split_whitespace().next().unwrap_or_default();
        return match has_nothing_to_hide(word) {
            true if word == start => text.to_owned(),
            true => format!("{word} {HIDDEN}"),
            false if start.is_empty() => String::new(),
            false => HIDDEN.to_owned(),
        };
    };
    let key = name.rsplit(']').next().unwrap_or_default().trim().trim_matches(['\'', '"']);
    if value.contains('=') {
        let name = if is_name(key) { name } else { HIDDEN };
        return format!("{name}={}", connect_string(value));
    }
    if has_nothing_to_hide(key) {
        text.to_owned()
    } else if is_name(key) {
        format!("{name}= {HIDDEN}")
    } else {
        HIDDEN.to_owned()
    }
}

/// A connect string, in quotes perhaps, or a table in one line of TOML.
fn connect_string(text: &str) -> String {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || "\"{,}".contains(c));
        if rest.is_empty() {
            return text.to_owned();
        }
        let shown = &text[..text.len() - rest.len()];
        let Some((key, after)) = rest.split_once('=') else { return format!("{shown}{HIDDEN}") };
        let name = key.trim();
        if !has_nothing_to_hide(name) {
            return if is_word(name) { format!("{shown}{key}={HIDDEN}") } else { format!("{shown}{HIDDEN}") };
        }
        let value = after.trim_start();
        let end = match value.bytes().next() {
            Some(quote @ (b'\'' | b'"')) => value[1..].find(char::from(quote)).map(|end| end + 2),
            _ => Some(value.find([' ', '\t', '"', '}']).unwrap_or(value.len())),
        };
        let Some(end) = end else { return format!("{shown}{key}={HIDDEN}") };
        rest = &value[end..];
    }
}

/// What may be the name of a database or a setting, and is not likely to be the rest of a secret.
fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME && text.chars().all(|c| c.is_alphanumeric() || "_.*- ".contains(c))
}

fn is_word(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_known_is_shown() {
        for text in [
            "a = host=b port=1",
            "  [databases] a = host='b c' dbname = x user=me",
            "auth_file = x",
            "listen_port = seven",
            "listen_port",
            "[users",
            "%include x",
            "# a comment",
            "host = \"x\"",
            "a = \"host=b port=1\"",
            "a = { host = \"b\", port = 1 }",
            "",
        ] {
            assert_eq!(line(text), text);
        }
    }

    #[test]
    fn what_may_be_a_secret_is_not() {
        for (text, shown) in [
            ("a = host=b password=geheim port=1", "a = host=b password=***"),
            ("a = host=b pasword=geheim port=1", "a = host=b pasword=***"),
            ("a = host=b password='geheim geheim' port=1", "a = host=b password=***"),
            ("a = host=b password=ge geheim=1", "a = host=b password=***"),
            ("a = host=b geheim", "a = host=b ***"),
            ("a = host=b port=1 geheim", "a = host=b port=1 ***"),
            ("a = host='b geheim port=1", "a = host=***"),
            ("a = host=b pass word=geheim", "a = host=b ***"),
            ("a = host=b connect_query='set x=geheim'", "a = host=b connect_query=***"),
            ("a = geheim", "a = ***"),
            ("password = geheim", "password = ***"),
            ("pasword = \"geheim\"", "pasword = ***"),
            ("geheim", "***"),
            ("listen_port geheim", "listen_port ***"),
            ("auth_ldap_options = ldapserver=x ldapbindpasswd=geheim", "auth_ldap_options = ldapserver=***"),
            ("auth_ldap_parameter = ldapbindpasswd=geheim", "auth_ldap_parameter = ldapbindpasswd=***"),
            ("a = \"host=b password=geheim\"", "a = \"host=b password=***"),
            ("a = { host = \"b\", password = \"geheim\" }", "a = { host = \"b\", password =***"),
            ("geheim's\" host=1", "***"),
            ("gehe!im' = x", "***"),
        ] {
            assert!(!line(text).contains("geheim"), "{text}: {}", line(text));
            assert_eq!(line(text), shown, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = (line(&text), line(&format!("a = {text}=")));
        }
    }
}
