//! Where the configuration comes from: a file that is named, else the environment, else the file at the usual place.

use std::path::Path;

use super::fatal::Fatal;
use crate::config::error::Problem;
use crate::config::{Loaded, env, load};

/// Read when no file is named and the environment names no server: where PgBouncer's packages and images have theirs.
pub(super) const USUAL_FILE: &str = "/etc/pgbouncer/pgbouncer.ini";

/// The configuration, and in its warnings what was found besides and does not count.
pub(super) fn load(file: Option<&Path>) -> Result<Loaded, Fatal> {
    let text = |name: std::ffi::OsString| name.into_string().ok();
    // What is not UTF-8 is no name or value of ours.
    let variables = std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
    choose(file, Path::new(USUAL_FILE), variables.collect())
}

fn choose(file: Option<&Path>, usual: &Path, variables: Vec<(String, String)>) -> Result<Loaded, Fatal> {
    let has_usual = usual.exists();
    if let Some(file) = file {
        return from_file(file, &variables);
    }
    let found = load::load_env(variables.clone()).map_err(|error| match has_usual {
        true => format!(
            "{error}\nThe environment says where a server is, so {} is not read; to read it, name it on the command line.",
            usual.display()
        ),
        false => error.to_string(),
    })?;
    match found {
        Some(mut loaded) => {
            if has_usual {
                let message =
                    format!("the environment is the configuration, {} is not read", usual.display());
                loaded.warnings.push(Problem::general(message));
            }
            Ok(loaded)
        }
        None if has_usual => from_file(usual, &variables),
        None => Err(format!(
            "no configuration: name a file, or put it at {},\n\
             or say where PostgreSQL is with DATABASE_URL=postgres://user:password@host:port/database.\n\
             Try \"pgweir --help\" for more information.",
            usual.display()
        )),
    }
}

fn from_file(file: &Path, variables: &[(String, String)]) -> Result<Loaded, Fatal> {
    let mut loaded = load::load_file(file).map_err(|error| error.to_string())?;
    let ignored = env::meant(variables);
    if !ignored.is_empty() {
        let message = format!("{} is the configuration, ignoring {}", file.display(), ignored.join(", "));
        loaded.warnings.push(Problem::general(message));
    }
    Ok(loaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that goes with the test.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pgweir-sources-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, port: u16) -> std::path::PathBuf {
            let path = self.0.join(name);
            let text = format!("[databases]\na = host=x\n[pgbouncer]\nlisten_port = {port}\n");
            std::fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// Everything that there may be, and what is then read, said of it and warned of.
    #[test]
    fn one_source_counts_and_the_others_are_named() {
        let folder = Folder::new("choice");
        let (usual, named) = (folder.file("usual.ini", 1), folder.file("named.ini", 2));
        let nowhere = folder.0.join("nowhere.ini");
        let server = [("DATABASE_URL", "postgres://me:secret@h/app"), ("HOME", "/root")];
        let port = [("PGBOUNCER_LISTEN_PORT", "3")];
        let link = [("PGBOUNCER_SERVICE_HOST", "10.0.0.8"), ("PGBOUNCER_PORT", "tcp://10.0.0.8:6432")];
        let choose = |file: Option<&Path>, usual: &Path, variables: &[&[(&str, &str)]]| {
            let variables = variables.concat().into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
            choose(file, usual, variables.collect()).map(|loaded| {
                let warnings: Vec<_> =
                    loaded.warnings.iter().map(|warning| warning.message.clone()).collect();
                (loaded.config.settings.listen_port, loaded.sources, warnings.join("; "))
            })
        };
        let of_file = |path: &Path| path.display().to_string();
        let (usual_name, named_name) = (of_file(&usual), of_file(&named));
        for (file, usual, variables, port, sources, warning) in [
            (Some(&named), &usual, vec![], 2, &named_name, String::new()),
            (
                Some(&named),
                &usual,
                vec![&server[..], &port],
                2,
                &named_name,
                format!("{named_name} is the configuration, ignoring DATABASE_URL, PGBOUNCER_LISTEN_PORT"),
            ),
            (None, &usual, vec![], 1, &usual_name, String::new()),
            (None, &usual, vec![&link[..]], 1, &usual_name, String::new()),
            (
                None,
                &usual,
                vec![&port[..]],
                1,
                &usual_name,
                format!("{usual_name} is the configuration, ignoring PGBOUNCER_LISTEN_PORT"),
            ),
            (
                None,
                &usual,
                vec![&server[..], &port],
                3,
                &"environment variables DATABASE_URL, PGBOUNCER_LISTEN_PORT".to_owned(),
                format!("the environment is the configuration, {usual_name} is not read"),
            ),
            (
                None,
                &nowhere,
                vec![&server[..]],
                6432,
                &"environment variables DATABASE_URL".to_owned(),
                String::new(),
            ),
        ] {
            let found = choose(file.map(|file| &**file), usual, &variables);
            assert_eq!(found, Ok((port, vec![sources.clone()], warning)), "{file:?} {variables:?}");
        }
        assert!(choose(None, &nowhere, &[&port]).unwrap_err().contains("no configuration: name a file"));
        // What is meant for another program stands in the way: it is said what to do.
        let error = choose(None, &usual, &[&[("DATABASE_URL", "sqlite:///x")]]).unwrap_err();
        assert!(error.contains("DATABASE_URL") && error.contains("name it on the command line"), "{error}");
    }

    #[test]
    fn files_that_are_included_are_named() {
        let folder = Folder::new("include");
        let included = folder.file("more.ini", 4);
        let main = folder.0.join("main.ini");
        std::fs::write(&main, format!("[databases]\nb = host=y\n%include {}\n", included.display())).unwrap();
        let loaded = choose(Some(&main), Path::new("/nonexistent"), Vec::new()).unwrap();
        assert_eq!(loaded.sources, [main.display().to_string(), included.display().to_string()]);
    }
}
