//! Command lines: clap types only. Values stay strings; `config` gives them a meaning.
#![expect(
    missing_docs,
    reason = "flattened groups have no help of their own: their types carry the documentation"
)]

pub mod build;
pub mod buildkit;
pub mod cluster;
pub mod key;
pub mod registry;
pub mod signing;
pub mod verify;

use clap::{CommandFactory as _, FromArgMatches as _};
use std::ffi::OsString;
use std::path::Path;

/// The verbs of `kubectl buildkit`, which `kubectl build` reaches too.
pub const VERBS: &[&str] = &["build", "create", "ls", "rm", "sign", "verify", "key", "version", "help"];

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// `kubectl build …`.
    Build(Box<build::BuildArgs>),
    /// `kubectl buildkit VERB …`.
    Buildkit(Box<buildkit::BuildkitArgs>),
}

/// Parses a command line by the name that the binary was called by (its first element).
///
/// As `kubectl-buildkit` the first word is a verb. As `kubectl-build` the line is a build's, unless the word that
/// would be its PATH is a verb and `exists` finds nothing of that name: `./sign` is always a path.
///
/// # Errors
/// clap's error, which is also how `--help` and `--version` end.
pub fn parse(argv: &[OsString], exists: impl Fn(&Path) -> bool) -> Result<Invocation, clap::Error> {
    let name = argv.first().map(Path::new).and_then(Path::file_stem).and_then(|stem| stem.to_str());
    if name == Some("kubectl-buildkit") {
        return parse_verb(argv);
    }
    let is_verb = |word: &str| VERBS.contains(&word) && !exists(Path::new(word));
    if argv.get(1).and_then(|word| word.to_str()).is_some_and(is_verb) {
        return parse_verb(argv);
    }
    let matches = build::BuildArgs::command().try_get_matches_from(argv)?;
    let args = build::BuildArgs::from_arg_matches(&matches)?;
    if let [path] = args.paths.as_slice()
        && path.to_str().is_some_and(is_verb)
    {
        return parse_verb(argv);
    }
    Ok(Invocation::Build(Box::new(args)))
}

fn parse_verb(argv: &[OsString]) -> Result<Invocation, clap::Error> {
    let matches = buildkit::BuildkitArgs::command().try_get_matches_from(argv)?;
    let args = buildkit::BuildkitArgs::from_arg_matches(&matches)?;
    Ok(Invocation::Buildkit(Box::new(args)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn clap_accepts_the_whole_tree() {
        build::BuildArgs::command().debug_assert();
        buildkit::BuildkitArgs::command().debug_assert();
    }

    #[test]
    fn a_verb_is_one_only_where_no_path_has_its_name() {
        let nothing = |_: &Path| false;
        let everything = |_: &Path| true;
        assert!(matches!(parse(&words("kubectl-build ls"), nothing), Ok(Invocation::Buildkit(_))));
        assert!(matches!(parse(&words("kubectl-build ls"), everything), Ok(Invocation::Build(_))));
        assert!(matches!(parse(&words("kubectl-build ./ls"), nothing), Ok(Invocation::Build(_))));
        assert!(matches!(parse(&words("kubectl-build -n x ls"), nothing), Ok(Invocation::Buildkit(_))));
        assert!(matches!(parse(&words("/a/kubectl-buildkit ls"), everything), Ok(Invocation::Buildkit(_))));
    }

    #[test]
    fn sign_takes_a_value_only_with_an_equals_sign() {
        let Ok(Invocation::Build(args)) = parse(&words("kubectl-build --push --sign ."), |_| false) else {
            panic!("a build");
        };
        assert_eq!(args.paths, [OsString::from(".")]);
        assert_eq!(args.signing.sign.as_deref(), Some("true"));
        let Ok(Invocation::Build(args)) = parse(&words("kubectl-build --sign=cosign ."), |_| false) else {
            panic!("a build");
        };
        assert_eq!(args.signing.sign.as_deref(), Some("cosign"));
    }

    #[test]
    fn unknown_options_are_refused() {
        for line in ["kubectl-build --squash .", "kubectl-build --secret id=x ."] {
            let error = parse(&words(line), |_| false).expect_err(line);
            assert_eq!(error.kind(), clap::error::ErrorKind::UnknownArgument, "{line}");
        }
    }
}
