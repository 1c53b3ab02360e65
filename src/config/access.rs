//! Who may come in: users and their secrets, the rules of the HBA file, the directory to ask.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::error::{ConfigError, Problem};
use super::model::Config;
use super::raw::Origin;
use super::value::AuthType;
use crate::auth::exchange::Account;
use crate::auth::hba::ident::IdentMaps;
use crate::auth::hba::{self, Rules};
use crate::auth::ldap::LdapOptions;
use crate::auth::mock::Mocks;
use crate::auth::secret::Secret;
use crate::auth::userlist;

/// Everything the settings `auth_*` name, read.
#[derive(Debug, Default)]
pub struct Access {
    /// Users and secrets of `auth_file` and the environment.
    pub accounts: HashMap<String, Arc<Account>>,
    /// What those are shown who are not among them.
    pub mocks: Mocks,
    /// `auth_hba_file`, for `auth_type = hba`.
    pub rules: Rules,
    /// `auth_ldap_options`, for `auth_type = ldap`.
    pub ldap: Option<Arc<LdapOptions>>,
}

impl Access {
    /// Reads the files. As in PgBouncer an `auth_file` that cannot be opened is worth a warning, and so is a bad line of it or
    /// of the HBA or the ident file, which is left out; what would let nobody in is an error.
    /// `current`: what is in force. Its users stay if the `auth_file` cannot be opened.
    pub fn read(config: &Config, current: Option<&Self>) -> Result<(Self, Vec<Problem>), ConfigError> {
        let mut access = Self::default();
        let mut warnings = Vec::new();
        access.read_accounts(config, current, &mut warnings);
        let settings = &config.settings;
        match settings.auth_type {
            AuthType::Hba => access.read_rules(config, current, &mut warnings)?,
            AuthType::Ldap => {
                let options = LdapOptions::parse(&settings.auth_ldap_options).map_err(|error| {
                    let problem = Problem::general(format!("auth_ldap_options: {error}"));
                    ConfigError::one(
                        problem.hint("such as ldapurl=\"ldap://host/dc=example,dc=org?uid?sub\""),
                    )
                })?;
                access.ldap = Some(Arc::new(options));
            }
            _ => {}
        }
        Ok((access, warnings))
    }

    fn read_accounts(&mut self, config: &Config, current: Option<&Self>, warnings: &mut Vec<Problem>) {
        let mut users: HashMap<String, Option<Secret>> = HashMap::new();
        let file = Path::new(&config.settings.auth_file);
        if !config.settings.auth_file.is_empty() {
            let read =
                if file.is_dir() { read_user_files(file, warnings) } else { read_userlist(file, warnings) };
            match read {
                Ok(read) => users.extend(read),
                Err(error) => {
                    let file = file.display();
                    let mut message = format!("could not open auth_file {file}: {error}");
                    if let Some(current) = current.filter(|current| !current.accounts.is_empty()) {
                        message.push_str(", its users stay as they were");
                        let kept = current.accounts.iter();
                        users.extend(kept.map(|(name, account)| (name.clone(), account.secret.clone())));
                    }
                    warnings.push(Problem::general(message));
                }
            }
        }
        for (name, secret) in &config.passwords {
            // A URL without a password says nothing about the one that the file knows.
            if secret.is_some() || !users.contains_key(name) {
                users.insert(name.clone(), secret.clone());
            }
        }
        self.accounts = users
            .into_iter()
            .map(|(name, secret)| {
                let account = Arc::new(Account::new(&name, secret));
                (name, account)
            })
            .collect();
        self.mocks = Mocks::new(self.accounts.values().filter_map(|account| account.secret.as_ref()));
    }

    fn read_rules(
        &mut self,
        config: &Config,
        current: Option<&Self>,
        warnings: &mut Vec<Problem>,
    ) -> Result<(), ConfigError> {
        let settings = &config.settings;
        let mut maps = IdentMaps::default();
        if !settings.auth_ident_file.is_empty() {
            let (read, problems) =
                IdentMaps::parse(&read_text("auth_ident_file", &settings.auth_ident_file)?);
            maps = read;
            warnings.extend(problems.into_iter().map(|p| located(&settings.auth_ident_file, p)));
        }
        let path = Path::new(&settings.auth_hba_file);
        let text = read_text("auth_hba_file", &settings.auth_hba_file)?;
        let read_names = |path: &Path| std::fs::read_to_string(path).map_err(|error| error.to_string());
        let (rules, problems) = Rules::parse(&text, path, &maps, &read_names);
        if rules.is_empty() && current.is_some_and(|current| !current.rules.is_empty()) {
            // As in PostgreSQL: a file without a rule is not finished, or not meant.
            let problem = Problem::general(format!("auth_hba_file {} contains no rule", path.display()));
            return Err(ConfigError::one(problem.hint("nobody could log in: nothing has changed")));
        }
        self.rules = rules;
        warnings.extend(problems.into_iter().map(|p| located(&settings.auth_hba_file, p)));
        Ok(())
    }
}

type Users = Vec<(String, Option<Secret>)>;

/// So many lines of an `auth_file` are complained about, and how many there are besides.
const MOST_WARNINGS: usize = 10;

fn read_userlist(file: &Path, warnings: &mut Vec<Problem>) -> std::io::Result<Users> {
    let text = std::fs::read(file)?;
    let (users, errors) = userlist::parse(&String::from_utf8_lossy(&text));
    warnings.extend(errors.iter().take(MOST_WARNINGS).map(|error| {
        // The line itself may be a secret.
        let origin = Origin::new(file, error.line, error.column, "");
        Problem::at(&origin, format!("auth_file: {}, the line is left out", error.message))
            .hint("each line is \"user\" \"password\", both in double quotes; a comment begins with ;")
    }));
    if let more @ 1.. = errors.len().saturating_sub(MOST_WARNINGS) {
        let file = file.display();
        warnings.push(Problem::general(format!("auth_file {file}: {more} more lines are left out")));
    }
    Ok(users)
}

/// A folder with one file per user, named as the user, the secret in it: so Kubernetes mounts Secrets. Hidden files are
/// the mount's own.
fn read_user_files(folder: &Path, warnings: &mut Vec<Problem>) -> std::io::Result<Users> {
    let mut users = Users::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && !name.starts_with('.') {
            let text = std::fs::read_to_string(&path)?;
            let text = text.trim_end_matches(['\r', '\n']);
            match Secret::check(text) {
                Ok(()) => users.push((name, Secret::parse(text))),
                Err(error) => {
                    let message = format!("auth_file: {error}, the user is left out");
                    warnings.push(Problem::at(&Origin::new(&path, 1, 1, ""), message));
                }
            }
        }
    }
    Ok(users)
}

fn read_text(setting: &str, file: &str) -> Result<String, ConfigError> {
    let hint = "auth_type=hba lets nobody in without it";
    std::fs::read_to_string(file).map_err(|error| {
        ConfigError::one(Problem::general(format!("could not open {setting} {file}: {error}")).hint(hint))
    })
}

fn located(file: &str, problem: hba::Problem) -> Problem {
    let origin = Origin::new(Path::new(file), problem.line, problem.column, &problem.excerpt);
    let located = Problem::at(&origin, problem.message);
    match problem.hint {
        Some(hint) => located.hint(hint),
        None => located,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_in_a_folder() {
        let folder = std::env::temp_dir().join(format!("pgweir-users-{}", std::process::id()));
        // As Kubernetes lays out a volume: the files are links into a hidden folder.
        std::fs::create_dir_all(folder.join("..data")).unwrap();
        std::fs::write(folder.join("..data/me"), "a/b+c=\n").unwrap();
        std::os::unix::fs::symlink("..data/me", folder.join("me")).unwrap();
        std::fs::write(folder.join("you"), "md5b5f5ba1a423792b526f799ae4eb3d59e").unwrap();
        let mut config = Config::default();
        config.settings.auth_file = folder.display().to_string();
        std::fs::write(folder.join("nobody"), "\n").unwrap();
        let users = read_user_files(&folder, &mut Vec::new()).unwrap();
        let (access, warnings) = Access::read(&config, None).unwrap();
        let verifier = postgres_protocol::password::scram_sha_256(b"x").replace("4096:", "20000000:");
        std::fs::write(folder.join("you"), verifier).unwrap();
        let warning = Access::read(&config, None).unwrap().1.remove(0).to_string();
        assert!(
            warning.contains("you:1:1: auth_file: the SCRAM secret has 20000000 iterations"),
            "{warning}"
        );
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!((access.accounts.len(), warnings.len()), (3, 0));
        assert_eq!(access.accounts["nobody"].secret, None, "an empty file holds no secret");
        assert!(users.contains(&("me".into(), Secret::parse("a/b+c="))));
        assert!(matches!(users.iter().find(|(name, _)| name == "you").unwrap().1, Some(Secret::Md5(_))));
        let (without, warnings) = Access::read(&config, None).unwrap();
        assert!(warnings[0].message.contains("could not open auth_file") && without.accounts.is_empty());
        let (kept, warnings) = Access::read(&config, Some(&access)).unwrap();
        assert!(warnings[0].message.ends_with("its users stay as they were"), "{warnings:?}");
        assert_eq!(kept.accounts.len(), 3);
    }

    #[test]
    fn a_user_without_a_password_in_the_environment_keeps_that_of_the_file() {
        let file = std::env::temp_dir().join(format!("pgweir-userlist-{}", std::process::id()));
        std::fs::write(&file, "\"me\" \"secret\"\n\"you\" \"secret\"\n").unwrap();
        let mut config = Config::default();
        config.settings.auth_file = file.display().to_string();
        config.passwords =
            vec![("me".into(), None), ("you".into(), Secret::parse("other")), ("they".into(), None)];
        let (access, _) = Access::read(&config, None).unwrap();
        std::fs::remove_file(&file).unwrap();
        let secrets = ["me", "you", "they"].map(|name| access.accounts[name].secret.clone());
        assert_eq!(secrets, [Secret::parse("secret"), Secret::parse("other"), None]);
    }
}
