//! Reads a configuration from its source: a file or the environment.

use std::path::Path;

use super::build::build;
use super::error::{ConfigError, Problem};
use super::model::{Config, Loaded, Source};
use super::raw::{Item, Section};
use super::{env, ini, toml};

/// Reads a file: TOML if its name ends in `.toml`, else `pgbouncer.ini`.
pub fn load_file(path: &Path) -> Result<Loaded, ConfigError> {
    let items = items(path)?;
    let has_settings = items.iter().any(|item| matches!(item, Item::Reset));
    let mut loaded = of_file(items, path)?;
    if !has_settings {
        let message =
            format!("{} has no [pgbouncer] section: all settings have their defaults", path.display());
        loaded.warnings.push(Problem::general(message));
    }
    Ok(loaded)
}

/// Reads a file again that has been read before. One that is just being written may be empty, or end too early: without a
/// `[pgbouncer]` section, or `[databases]` where there were some, it is an error.
pub fn load_file_again(path: &Path, current: &Config) -> Result<Loaded, ConfigError> {
    let items = items(path)?;
    let has_settings = items.iter().any(|item| matches!(item, Item::Reset));
    let is_databases = |item: &Item| match item {
        Item::Header(section) => *section == Section::Databases,
        _ => false,
    };
    let had_databases = !current.databases.is_empty() || current.fallback.is_some();
    let missing = if !has_settings {
        "[pgbouncer]"
    } else if had_databases && !items.iter().any(is_databases) {
        "[databases]"
    } else {
        return of_file(items, path);
    };
    let problem = Problem::general(format!("{} has no {missing} section", path.display()));
    Err(ConfigError::one(
        problem.hint("it may not be finished: nothing has changed; an empty section is allowed"),
    ))
}

fn items(path: &Path) -> Result<Vec<Item>, ConfigError> {
    let is_toml = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"));
    if is_toml { toml::read(path) } else { ini::read(path) }
}

fn of_file(items: Vec<Item>, path: &Path) -> Result<Loaded, ConfigError> {
    let mut loaded = build(items)?;
    loaded.config.source = Source::File(path.to_owned());
    // Those that it includes follow.
    let name = path.display().to_string();
    loaded.sources.retain(|source| *source != name);
    loaded.sources.insert(0, name);
    loaded.config.settings.conffile = path.display().to_string();
    Ok(loaded)
}

/// Reads the environment; `None` if nothing in it says where a server is.
pub fn load_env(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Option<Loaded>, ConfigError> {
    let Some(found) = env::read(variables)? else { return Ok(None) };
    let mut loaded = build(found.items)?;
    loaded.config.passwords = found.passwords;
    loaded.warnings.extend(found.warnings);
    loaded.sources = vec![format!("environment variables {}", found.variables.join(", "))];
    Ok(Some(loaded))
}

#[cfg(test)]
mod tests;
