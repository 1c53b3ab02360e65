//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;

use super::raw::Origin;

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where; `None` if it concerns the whole.
    pub origin: Option<Origin>,
    /// What.
    pub message: String,
    /// A way out.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem at a place.
    pub fn at(origin: &Origin, message: impl Into<String>) -> Self {
        Self { origin: Some(origin.clone()), message: message.into(), hint: None }
    }

    /// A problem with the whole.
    pub fn general(message: impl Into<String>) -> Self {
        Self { origin: None, message: message.into(), hint: None }
    }

    /// Adds a way out.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) if origin.line > 0 => {
                writeln!(f, "{}:{}:{}: {}", origin.file, origin.line, origin.column, self.message)?;
                writeln!(f, "  | {}", origin.excerpt)?;
                // A line that hides a secret is shown in part. The width of a format has 16 bits.
                let most = (origin.excerpt.len() + 1).min(usize::from(u16::MAX));
                write!(f, "  | {:>width$}", '^', width = origin.column.clamp(1, most))?;
            }
            Some(origin) => write!(f, "{} variable {}: {}", origin.file, origin.excerpt, self.message)?,
            None => f.write_str(&self.message)?,
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  = hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Problem>);

impl ConfigError {
    /// A single problem.
    pub fn one(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_mark_stays_under_the_line() {
        let problem = |column, text: &str| {
            let origin = Origin::new(Path::new("x.ini"), 1, column, text);
            Problem::at(&origin, "wrong").to_string()
        };
        assert_eq!(problem(3, "a = b"), "x.ini:1:3: wrong\n  | a = b\n  |   ^");
        assert_eq!(problem(70_000, "a=***"), "x.ini:1:70000: wrong\n  | a=***\n  |      ^");
        assert!(problem(70_000, &"x".repeat(80_000)).ends_with(" ^"));
    }
}
