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
                write!(f, "  | {:>width$}", '^', width = origin.column.max(1))?;
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
