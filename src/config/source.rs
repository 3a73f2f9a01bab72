//! Values that remember where they came from.

use super::env::Environment;
use std::fmt;

/// Where a value came from, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A flag of the command line.
    Flag(&'static str),
    /// A variable of the environment.
    Env(&'static str),
    /// What stands on the builder.
    Builder,
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Env(name) => f.write_str(name),
            Self::Builder => f.write_str("the builder's own settings"),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// A value and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Who said it.
    pub source: Source,
}

/// Returns the first of flag, variable (if not empty) and default: the one order for all settings.
pub fn resolve(
    flag: Option<String>,
    flag_name: &'static str,
    env: &dyn Environment,
    variable: &'static str,
    default: &str,
) -> Sourced<String> {
    if let Some(value) = flag {
        return Sourced { value, source: Source::Flag(flag_name) };
    }
    match env.get_filled(variable) {
        Some(value) => Sourced { value, source: Source::Env(variable) },
        None => Sourced { value: default.to_owned(), source: Source::Default },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::env::Fixed;

    #[test]
    fn flag_beats_environment_beats_default() {
        let env = Fixed::new([("NAME", "env"), ("EMPTY", "")]);
        let get = |flag: Option<&str>, variable| {
            resolve(flag.map(str::to_owned), "--name", &env, variable, "default")
        };
        assert_eq!(
            get(Some("flag"), "NAME"),
            Sourced { value: "flag".into(), source: Source::Flag("--name") }
        );
        assert_eq!(get(None, "NAME"), Sourced { value: "env".into(), source: Source::Env("NAME") });
        assert_eq!(get(None, "EMPTY"), Sourced { value: "default".into(), source: Source::Default });
    }
}
