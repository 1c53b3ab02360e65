//! What a StartupMessage asks for, beyond user and database.

use std::borrow::Cow;

use crate::error::{Refusal, shown, sqlstate};
use crate::session::parameters::Parameters;
use crate::sql::{self, Route};
use crate::wire::startup::{Parameter, Session};

/// Parameters of a StartupMessage that are not settings of the session.
const NOT_SETTINGS: &[&[u8]] = &[b"user", b"database", b"options", b"replication"];

/// Say as whom statements run. That is for the login to say: as parameters they would reach a server that belongs to the pool.
const IDENTITY: &[&[u8]] = &[b"role", b"session_authorization"];

fn is_identity(name: &[u8]) -> bool {
    IDENTITY.iter().any(|identity| identity.eq_ignore_ascii_case(name))
}

/// Startup parameters for a server connection of the client's own: all but those that say who and where, and those to be
/// ignored that a server must not get.
pub fn own_parameters(session: &Session, ignored: &[String]) -> Result<Vec<Parameter>, Refusal> {
    let is_ignored = |name: &[u8]| ignored.iter().any(|i| i.as_bytes().eq_ignore_ascii_case(name));
    let mut own = Vec::new();
    for (name, value) in session.parameters() {
        if matches!(name, b"user" | b"database") {
            continue;
        }
        if is_identity(name) {
            if is_ignored(name) {
                continue;
            }
            return Err(unsupported(name, false));
        }
        if name == b"options" {
            // The server gets the text as it is, so nothing in it can be left out.
            if let Some((name, _)) = parse_options(value)?.iter().find(|(name, _)| is_identity(name)) {
                return Err(unsupported(name, true));
            }
        }
        own.push((name.into(), value.into()));
    }
    Ok(own)
}

/// Name and value.
type Setting<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// What a client asked for, still to be compared with what its server reports.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Requested<'a> {
    settings: Vec<Setting<'a>>,
    from_options: Vec<Setting<'a>>,
    /// `pgweir.route`.
    pub route: Route,
    /// Options that cannot be heeded are ignored.
    lenient: bool,
}

impl<'a> Requested<'a> {
    /// Collects the settings of a StartupMessage, those inside `options` included, but for the ones to be ignored
    /// (setting `ignore_startup_parameters`).
    pub fn new(session: &'a Session, ignored: &[String]) -> Result<Self, Refusal> {
        // Blanks separate as well as commas.
        let ignored = || ignored.iter().flat_map(|part| part.split_whitespace());
        let is_ignored = |name: &[u8]| ignored().any(|i| i.as_bytes().eq_ignore_ascii_case(name));
        let mut requested = Self::default();
        for (name, value) in session.parameters() {
            if requested.take_route(name, value)? {
                continue;
            }
            if !NOT_SETTINGS.contains(&name) && !is_ignored(name) {
                requested.settings.push((name.into(), value.into()));
            }
        }
        // `options` among the ignored ones: what can be heeded still is.
        requested.lenient = is_ignored(b"options");
        if let Some(options) = session.parameter("options") {
            let parsed = if requested.lenient {
                parse_options(options).unwrap_or_default()
            } else {
                parse_options(options)?
            };
            for (name, value) in parsed {
                if requested.route == Route::Auto && requested.take_route(&name, &value)? {
                    continue;
                }
                if !is_ignored(&name) {
                    requested.from_options.push((name, value));
                }
            }
        }
        Ok(requested)
    }

    /// The parameters the client is to have: what the server reports, changed as the client asked. Says whether
    /// anything was changed. A setting the server does not report cannot follow the client, so it is refused.
    pub fn apply(&self, reported: &Parameters) -> Result<Option<Parameters>, Refusal> {
        let mut parameters = None;
        let both =
            self.from_options.iter().map(|o| (true, o)).chain(self.settings.iter().map(|s| (false, s)));
        for (in_options, (name, value)) in both {
            if is_identity(name) || !reported.is_tracked(name) {
                if in_options && self.lenient {
                    continue;
                }
                return Err(unsupported(name, in_options));
            }
            if !same_value(name, reported.get(name).unwrap_or_default(), value) {
                parameters.get_or_insert_with(|| reported.clone()).set(name, value);
            }
        }
        Ok(parameters)
    }

    /// Adds where the client comes from to its `application_name` (setting `application_name_add_host`).
    pub fn add_host(&mut self, host: &str) {
        let name = self.get(b"application_name").unwrap_or(b"app");
        let name = [name, b" - ", host.as_bytes()].concat();
        self.settings.push((b"application_name"[..].into(), name.into()));
    }

    /// Whether this is the setting that is pgweir's own.
    fn take_route(&mut self, name: &[u8], value: &[u8]) -> Result<bool, Refusal> {
        if !name.eq_ignore_ascii_case(sql::SETTING) {
            return Ok(false);
        }
        self.route = Route::parse(value).ok_or_else(|| {
            let value = shown(value);
            Refusal::new(
                sqlstate::INVALID_PARAMETER,
                format!("invalid value for parameter \"pgweir.route\": \"{value}\""),
            )
            .hint("Available values: auto, primary, replica.")
        })?;
        Ok(true)
    }

    /// The value asked for, if any.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let mut all = self.from_options.iter().chain(&self.settings);
        all.rfind(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

/// Encodings have several spellings (`utf8`, `UTF-8`); setting one that is in force already would be a round trip
/// for nothing.
fn same_value(name: &[u8], ours: &[u8], theirs: &[u8]) -> bool {
    let plain = |text: &[u8]| -> Vec<u8> {
        text.iter().filter(|b| b.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase).collect()
    };
    ours == theirs || name.eq_ignore_ascii_case(b"client_encoding") && plain(ours) == plain(theirs)
}

fn unsupported(name: &[u8], in_options: bool) -> Refusal {
    let name = shown(name);
    let place = if in_options { " in options" } else { "" };
    Refusal::protocol(format!("unsupported startup parameter{place}: {name}"))
        .hint(format!("Add {name} to ignore_startup_parameters if the application can do without it."))
}

/// Splits the value of `options` as PostgreSQL does: blanks separate, a backslash escapes.
fn parse_options(options: &[u8]) -> Result<Vec<Setting<'static>>, Refusal> {
    let mut words = words(options).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = if word == b"-c" {
            words.next()
        } else {
            word.strip_prefix(b"-c").or_else(|| word.strip_prefix(b"--")).map(<[u8]>::to_vec)
        };
        let setting = setting.and_then(|setting| {
            let equals = setting.iter().position(|&b| b == b'=')?;
            let name: Vec<u8> = setting[..equals].iter().map(|&b| if b == b'-' { b'_' } else { b }).collect();
            Some((name.into(), setting[equals + 1..].to_vec().into()))
        });
        settings.push(setting.ok_or_else(|| {
            Refusal::protocol(
                "unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed",
            )
        })?);
    }
    Ok(settings)
}

fn words(text: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => word.get_or_insert_default().extend(bytes.next()),
            b if b.is_ascii_whitespace() => words.extend(word.take()),
            b => word.get_or_insert_default().push(b),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::startup::{self, Startup};
    use crate::wire::write;

    fn session(parameters: &[(&str, &str)]) -> Session {
        let mut packet = Vec::new();
        write::startup(&mut packet, parameters.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
        let Ok(Startup::Session(session)) = startup::parse(&packet[4..]) else { panic!("no session") };
        session
    }

    fn reported() -> Parameters {
        let mut all = Parameters::default();
        for (name, value) in [("client_encoding", "UTF8"), ("TimeZone", "UTC"), ("server_version", "17")] {
            all.set(name.as_bytes(), value.as_bytes());
        }
        all
    }

    fn apply(parameters: &[(&str, &str)]) -> Result<Option<String>, String> {
        let session = session(parameters);
        let requested =
            Requested::new(&session, &["extra_float_digits".into()]).map_err(|r| r.to_string())?;
        let got = requested.apply(&reported()).map_err(|r| r.to_string())?;
        Ok(got.map(|p| String::from_utf8_lossy(p.get(b"TimeZone").unwrap()).into_owned()))
    }

    #[test]
    fn settings_are_taken_from_both_places() {
        assert_eq!(
            apply(&[("user", "u"), ("client_encoding", "utf-8"), ("extra_float_digits", "3")]),
            Ok(None)
        );
        assert_eq!(apply(&[("timezone", "Asia/Ho_Chi_Minh")]), Ok(Some("Asia/Ho_Chi_Minh".into())));
        assert_eq!(apply(&[("options", "-c timezone=GMT")]), Ok(Some("GMT".into())));
        assert_eq!(
            apply(&[("options", " --timezone=a\\ b  -cextra-float-digits=1")]),
            Ok(Some("a b".into()))
        );
        assert_eq!(apply(&[("options", "-c timezone=GMT"), ("TimeZone", "CET")]), Ok(Some("CET".into())));
    }

    #[test]
    fn blanks_separate_what_is_ignored() {
        let session = session(&[("a", "1"), ("b", "1"), ("c", "1"), ("options", "-c d=1")]);
        let requested = Requested::new(&session, &["a b".into(), "C\td".into()]).unwrap();
        assert_eq!(requested.apply(&reported()).unwrap(), None);
    }

    #[test]
    fn the_name_of_an_application_says_where_it_runs() {
        let named = session(&[("application_name", "psql")]);
        let mut requested = Requested::new(&named, &[]).unwrap();
        requested.add_host("127.0.0.1:5");
        assert_eq!(requested.get(b"application_name"), Some(&b"psql - 127.0.0.1:5"[..]));
        let nameless = session(&[]);
        let mut requested = Requested::new(&nameless, &[]).unwrap();
        requested.add_host("unix(7@db):6432");
        assert_eq!(requested.get(b"application_name"), Some(&b"app - unix(7@db):6432"[..]));
    }

    #[test]
    fn nobody_becomes_another_by_a_parameter() {
        let mut reported = reported();
        reported.set(b"session_authorization", b"me");
        reported.set_unreported(b"role", b"none");
        let ignored = ["session_authorization".to_owned()];
        for (name, value) in [
            ("role", "other"),
            ("Session_Authorization", "other"),
            ("options", "-c role=other"),
            ("options", "--SESSION-AUTHORIZATION=other"),
            ("options", "-crole=other"),
        ] {
            let session = session(&[("user", "me"), (name, value)]);
            let refused = Requested::new(&session, &[]).unwrap().apply(&reported).unwrap_err();
            assert!(refused.message.starts_with("unsupported startup parameter"), "{refused}");
            assert_eq!(own_parameters(&session, &[]).unwrap_err(), refused);
            if value.to_ascii_lowercase().contains("role") || name == "role" {
                continue;
            }
            assert_eq!(Requested::new(&session, &ignored).unwrap().apply(&reported), Ok(None));
            assert_eq!(own_parameters(&session, &ignored).is_ok(), name != "options");
        }
        let plain = session(&[("user", "me"), ("replication", "1"), ("options", "-c datestyle=ISO")]);
        assert_eq!(own_parameters(&plain, &[]).unwrap().len(), 2);
        for odd in ["-jcrole=other", "-d 5 -c role=other"] {
            assert!(own_parameters(&session(&[("options", odd)]), &[]).is_err(), "{odd}");
        }
    }

    #[test]
    fn others_are_refused_by_name() {
        assert_eq!(
            apply(&[("statement_timeout", "1")]),
            Err("unsupported startup parameter: statement_timeout".into())
        );
        assert_eq!(
            apply(&[("server_version", "1")]),
            Err("unsupported startup parameter: server_version".into())
        );
        let both = session(&[("options", "-c enable_seqscan=off -c timezone=GMT -d")]);
        assert!(Requested::new(&both, &["options".into()]).unwrap().apply(&reported()).unwrap().is_none());
        let both = session(&[("options", "-c enable_seqscan=off -c timezone=GMT")]);
        let heeded = Requested::new(&both, &["options".into()]).unwrap().apply(&reported()).unwrap().unwrap();
        assert_eq!(heeded.get(b"TimeZone"), Some(&b"GMT"[..]));
        let refused = apply(&[("options", "-c enable_seqscan=off")]);
        assert_eq!(refused, Err("unsupported startup parameter in options: enable_seqscan".into()));
        for options in ["-c", "-d", "timezone=GMT", "-c timezone", "--timezone"] {
            assert!(
                apply(&[("options", options)]).unwrap_err().starts_with("unsupported options"),
                "{options}"
            );
        }
    }
}
