//! Configuration files, the environment, connect strings.

use std::path::Path;

use pgweir::config::Loaded;
use pgweir::config::raw::{Item, Section};
use pgweir::config::settings::TABLE;
use pgweir::config::{ConfigError, build, connstr as connect, env, ini as ini_file, load, toml as toml_file};

use super::bytes::{Bytes, texts};

/// `pgbouncer.ini`.
pub(super) fn ini(input: &[u8]) {
    let text = Bytes(input).text();
    // It would read any file of this machine.
    if text.contains("%include") {
        return;
    }
    let parsed = ini_file::parse(&text, Path::new("x.ini"));
    if let Ok(items) = &parsed {
        let again = ini_file::parse(&as_ini(items), Path::new("x.ini")).unwrap();
        assert_eq!(entries(items), entries(&again));
    }
    configure(&text, parsed);
}

fn as_ini(items: &[Item]) -> String {
    let mut out = String::new();
    for item in items {
        out += &match item {
            Item::Reset => "[pgbouncer]\n".to_owned(),
            Item::Entry { section: Section::Pgbouncer, key, value, .. } => format!("'{key}' = {value}\n"),
            Item::Entry { section, key, value, .. } => {
                let section = format!("{section:?}").to_lowercase();
                // Back to where the settings go on, without the header that would undo them.
                format!("[{section}]\n'{key}' = {value}\n[pgbouncer]\n")
            }
            Item::Header(_) => String::new(),
            Item::Table { .. } => panic!("an ini file has no tables"),
        };
    }
    // Resets that were put in above do not count.
    format!("[pgbouncer]\n{out}")
}

/// What was said, resets apart.
fn entries(items: &[Item]) -> Vec<(Section, &str, &str)> {
    let entry = |item| match item {
        &Item::Entry { section, ref key, ref value, .. } => Some((section, key.as_str(), value.as_str())),
        _ => None,
    };
    items.iter().filter_map(entry).collect()
}

/// The same in TOML.
pub(super) fn toml(input: &[u8]) {
    let text = Bytes(input).text();
    configure(&text, toml_file::parse(&text, Path::new("x.toml")));
}

/// Variables, `NAME=value` each, a NUL between them.
pub(super) fn environment(input: &[u8]) {
    let text = Bytes(input).text();
    let variables = text.split('\0').filter_map(|variable| variable.split_once('='));
    // Others name files of this machine.
    let variables = variables.filter(|(name, _)| !name.ends_with("_FILE"));
    let variables: Vec<_> = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    match env::read(variables.clone()) {
        Ok(Some(found)) => configure(&text, Ok(found.items)),
        Ok(None) => {}
        Err(error) => configure(&text, Err(error)),
    }
    if let Ok(Some(loaded)) = load::load_env(variables) {
        assert!(!loaded.config.databases.is_empty() || loaded.config.fallback.is_some());
    }
}

/// What was read becomes a configuration, or errors that say where; a configuration can be shown and set again.
fn configure(text: &str, parsed: Result<Vec<Item>, ConfigError>) {
    let lines = text.split('\n').count();
    let built = parsed.and_then(build::build);
    let problems = match &built {
        Ok(Loaded { warnings, .. }) => warnings,
        Err(ConfigError(problems)) => {
            assert!(!problems.is_empty());
            problems
        }
    };
    for problem in problems {
        assert!(!problem.to_string().is_empty());
        assert!(problem.origin.as_ref().is_none_or(|origin| origin.line <= lines));
    }
    let Ok(Loaded { config, .. }) = built else { return };
    let mut copy = config.settings.clone();
    for setting in TABLE {
        let shown = config.settings.show(setting.name).unwrap();
        assert_eq!(copy.set(setting.name, &shown), Some(Ok(())), "{} = {shown}", setting.name);
        assert_eq!(copy.show(setting.name), Some(shown));
    }
    for database in config.databases.values().chain(&config.fallback) {
        assert!(!database.hosts().is_empty());
    }
}

/// A line of `[databases]`.
pub(super) fn connstr(input: &[u8]) {
    let text = Bytes(input).text();
    match connect::parse(&text) {
        Err((at, _)) => assert!(text.get(at..).is_some(), "byte {at} of {text:?}"),
        Ok(pairs) => {
            let written: Vec<_> =
                pairs.iter().map(|(key, value)| format!("{key}='{}'", value.replace('\'', "''"))).collect();
            assert_eq!(connect::parse(&written.join(" ")), Ok(pairs));
        }
    }
}

pub(super) fn ini_seeds() -> Vec<Vec<u8>> {
    texts(&[
        include_str!("../../config/pgbouncer.ini"),
        "[databases]\n* = host=a,b port=1,2 auth_user=x\n'my db' = dbname=x user=u password='a''b' pool_size=3\n\
         [users]\nme = pool_mode=session max_user_connections=0x10\n[peers]\n1 = host=/tmp port=6432\n\
         [pgbouncer]\nlisten_port = 6432\nauth_type = trust\nserver_lifetime = 1.5\nunix_socket_mode = 0700\n\
         ignore_startup_parameters = a, b\n;comment\n# comment\n",
        "[pgbouncer]\nserver_lifetime = 1e9\nquery_timeout = 1d\nworkers=-1\ndefualt_pool_size = 20\n",
        "[databases] x = \n[pgbouncer] [users]\n",
        "[users]",
    ])
}

pub(super) fn toml_seeds() -> Vec<Vec<u8>> {
    texts(&[
        include_str!("../../config/pgweir.toml"),
        "[pgbouncer]\nlisten_port = 0x10\nadmin_users = ['a', \"b\"]\nso_reuseport = true\nserver_lifetime = 1.5\n\
         [databases]\napp = 'host=a'\n[databases.other]\nhost = ['a', 'b']\nport = [1, 2]\n[users.me]\npool_size = 1_0\n",
        "[databases]\nx = 1979-05-27\ny = [[1]]\n[nothing]\n",
    ])
}

pub(super) fn environment_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "DATABASE_URL=postgres://me:se%20cret@[::1]:5432,host2:1/db?sslmode=require&x=y\0POOL_MODE=transaction",
        "DB_HOST=a\0DB_PORT=1\0DB_USER=u\0DB_PASSWORD=p'\0DB_NAME=d\0PGBOUNCER_DEFAULT_POOL_SIZE=3",
        "PGBOUNCER_DSN_0=x = host=a\0PGBOUNCER_DSN_1=y=host=b password=c\0PGBOUNCER_USERLIST=\"a\" \"b\"",
        "POSTGRESQL_HOST=h\0PGBOUNCER_PORT=tcp://10.0.0.1:6432\0PGBOUNCER_SET_DATABASE_USER=yes\0TIMEZONE=UTC",
    ])
}

pub(super) fn connstr_seeds() -> Vec<Vec<u8>> {
    texts(&["host=a,b   port = 5432 connect_query='set a=''b''; x' password=p+/=", "host=a port", "x='y"])
}
