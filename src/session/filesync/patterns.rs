//! Include and exclude patterns as moby's patternmatcher defines them (moby/patternmatcher patternmatcher.go).
//!
//! The daemon parses `.dockerignore` and sends the patterns; the client must read them exactly as moby does,
//! oddities included, or a file is missing from the image that `docker build` would have put there.

use super::expression;
use super::lexical::{clean, glob, go_text};

/// A pattern that moby refuses as well.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PatternError {
    /// Nothing follows the exclamation mark.
    #[error("illegal exclusion pattern: `!`")]
    LoneExclamation,
    /// The glob's syntax is wrong, such as an unclosed bracket.
    #[error("syntax error in pattern `{0}`")]
    Syntax(String),
}

/// Which patterns of a list matched a directory: they match all that lies in it.
///
/// One bit would not do: with `a`, `!a/b`, `a/b/c` a child inherits the verdict of each pattern by itself.
pub(super) type Matched = Vec<bool>;

/// An ordered list of patterns; the last one that matches decides.
#[derive(Debug)]
pub(super) struct Patterns(Vec<Pattern>);

/// One pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    /// Cleaned, without the exclamation mark.
    text: Vec<u8>,
    exception: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The whole path.
    Exact,
    /// `dir/**`: all that starts with what is before the stars, which is not `dir` itself.
    Prefix,
    /// `**/name`: all that ends with what is after the stars, and `name` itself.
    Suffix,
    /// All else.
    Expression(regex::Regex),
}

impl Patterns {
    /// Reads patterns in their order; blank ones don't count.
    ///
    /// # Errors
    /// The first pattern that moby would refuse.
    pub(super) fn parse<'a>(patterns: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, PatternError> {
        let mut parsed = Vec::new();
        for pattern in patterns {
            let pattern = trim(pattern);
            if !pattern.is_empty() {
                parsed.push(Pattern::parse(&clean(pattern))?);
            }
        }
        Ok(Self(parsed))
    }

    /// Returns what is known above the root: nothing matched.
    pub(super) fn none_matched(&self) -> Matched {
        vec![false; self.0.len()]
    }

    /// Whether the path matches, given what matched its parent; writes what matched the path to `matched`.
    pub(super) fn matches(&self, path: &[u8], parent: &[bool], matched: &mut Matched) -> bool {
        matched.clear();
        let mut verdict = false;
        for (pattern, inherited) in self.0.iter().zip(parent) {
            // A plain pattern can't change a yes, nor an exception a no: skipped, they count as not matching,
            // also for the children.
            let hit = *inherited || (pattern.exception == verdict && pattern.matches(path));
            if hit {
                verdict = !pattern.exception;
            }
            matched.push(hit);
        }
        verdict
    }

    /// The patterns without an exclamation mark.
    pub(super) fn plain(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter().filter(|pattern| !pattern.exception)
    }

    /// The patterns with one.
    pub(super) fn exceptions(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter().filter(|pattern| pattern.exception)
    }
}

impl Pattern {
    fn parse(pattern: &[u8]) -> Result<Self, PatternError> {
        let (text, exception) = match pattern {
            b"!" => return Err(PatternError::LoneExclamation),
            [b'!', rest @ ..] => (rest, true),
            whole => (whole, false),
        };
        let syntax = || PatternError::Syntax(String::from_utf8_lossy(text).into_owned());
        glob(text, b".").map_err(|_| syntax())?;
        let kind = classify(text).map_err(|_| syntax())?;
        Ok(Self { text: text.to_vec(), exception, kind })
    }

    fn matches(&self, path: &[u8]) -> bool {
        match &self.kind {
            Kind::Exact => path == self.text,
            Kind::Prefix => path.starts_with(&self.text[..self.text.len() - 2]),
            Kind::Suffix => {
                let suffix = &self.text[2..];
                path.ends_with(suffix) || suffix.strip_prefix(b"/").is_some_and(|name| path == name)
            }
            Kind::Expression(expression) => match std::str::from_utf8(path) {
                Ok(path) => expression.is_match(path),
                Err(_) => expression.is_match(&go_text(path)),
            },
        }
    }

    /// The pattern without one trailing `/**` and then one trailing `/*`.
    pub(super) fn without_trailing_glob(&self) -> &[u8] {
        let text = self.text.strip_suffix(b"/**").unwrap_or(&self.text);
        text.strip_suffix(b"/*").unwrap_or(text)
    }

    /// Whether something inside `directory` could match, if the pattern is a literal prefix.
    pub(super) fn may_match_inside(&self, directory: &[u8]) -> bool {
        let prefix = self.without_trailing_glob();
        let inside = prefix.strip_prefix(directory);
        inside.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }

    /// Whether all but a trailing glob is literal.
    pub(super) fn is_literal_prefix(&self) -> bool {
        !self.without_trailing_glob().iter().any(|byte| b"*[]?^\\".contains(byte))
    }
}

/// Finds the kind in one pass, as moby does; what is neither exact, prefix nor suffix becomes an expression.
fn classify(text: &[u8]) -> Result<Kind, expression::BadExpression> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        Exact,
        Prefix,
        Suffix,
        Other,
    }
    let pattern = go_text(text);
    let mut seen = Seen::Exact;
    let mut source = String::from("^");
    let mut chars = pattern.chars().peekable();
    let mut first = true;
    while let Some(next) = chars.next() {
        match next {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_none() && seen == Seen::Exact {
                    seen = Seen::Prefix;
                } else if chars.peek().is_none() {
                    source.push_str(".*");
                    seen = Seen::Other;
                } else {
                    source.push_str("(.*/)?");
                    seen = Seen::Other;
                }
                if first {
                    seen = Seen::Suffix;
                }
            }
            '*' => {
                source.push_str("[^/]*");
                seen = Seen::Other;
            }
            '?' => {
                source.push_str("[^/]");
                seen = Seen::Other;
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => source.extend(['\\', next]),
            '\\' => {
                source.push('\\');
                if let Some(escaped) = chars.next() {
                    source.push(escaped);
                    seen = Seen::Other;
                }
            }
            '[' | ']' => {
                source.push(next);
                seen = Seen::Other;
            }
            other => source.push(other),
        }
        first = false;
    }
    Ok(match seen {
        Seen::Exact => Kind::Exact,
        Seen::Prefix => Kind::Prefix,
        Seen::Suffix => Kind::Suffix,
        Seen::Other => {
            source.push('$');
            Kind::Expression(expression::compile(&source)?)
        }
    })
}

fn trim(pattern: &[u8]) -> &[u8] {
    std::str::from_utf8(pattern).map_or_else(|_| pattern.trim_ascii(), |text| text.trim().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn parse(patterns: &[&str]) -> Patterns {
        Patterns::parse(patterns.iter().map(|pattern| pattern.as_bytes())).expect("good patterns")
    }

    /// Matches one path by itself, without its parents.
    fn alone(pattern: &str, path: &str) -> bool {
        let patterns = parse(&[pattern]);
        patterns.matches(path.as_bytes(), &patterns.none_matched(), &mut Vec::new())
    }

    /// Walks down to the path, carrying what matched.
    fn below(patterns: &[&str], path: &str) -> bool {
        let patterns = parse(patterns);
        let mut parent = patterns.none_matched();
        let mut matched = Vec::new();
        let mut verdict = false;
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            verdict = patterns.matches(&path.as_bytes()[..end], &parent, &mut matched);
            std::mem::swap(&mut parent, &mut matched);
        }
        verdict
    }

    #[rstest]
    #[case("x", &["x"], &["y/x", "x/y"])]
    #[case("x/**", &["x/y", "x/y/z"], &["x"])]
    #[case("x**", &["x", "xy", "x/y"], &["ax"])]
    #[case("**/foo", &["foo", "a/foo"], &["afoo"])]
    #[case("**foo", &["foo", "afoo", "a/foo"], &["foob"])]
    #[case("**", &["x", "x/y", "file/"], &[])]
    #[case("a**b", &["ab", "a/b", "ax/b"], &["axb", "ax/yb"])]
    #[case("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["ab"])]
    #[case("**/*.go", &["m.go", "a/m.go", "a/b/m.go"], &["m.got"])]
    #[case("*/b", &["a/b"], &["x/a/b"])]
    #[case("a*/**", &["a/x", "ab/x"], &["a"])]
    #[case("**/foo/**", &["foo/x", "a/foo/x"], &["foo"])]
    #[case("[^a]b", &["bb"], &["ab"])]
    #[case("**/**", &["dir/file"], &[])]
    #[case("**/**/*.txt", &["file.txt", "dir/dir/file.txt"], &["file.txt2"])]
    #[case("a**/*.txt", &["a/file.txt", "a/dir/dir/file.txt"], &[])]
    #[case("a/*.txt**", &["a/file.txt"], &["a/b/file.txt"])]
    #[case("abc.def", &["abc.def"], &["abcdef", "abcZdef"])]
    #[case("abc?def", &["abcZdef"], &["abcdef"])]
    #[case("a\\*b", &["a*b"], &["ab"])]
    #[case("a\\\\", &["a\\"], &["a"])]
    #[case("**/.foo", &[".foo"], &["bar.foo"])]
    #[case("a(b)c/def", &["a(b)c/def"], &["a(b)c/xyz"])]
    #[case("a.|)$(}+{bc", &["a.|)$(}+{bc"], &[])]
    #[case("dist/*.whl", &["dist/p.py-2.4+g0-py3.whl"], &["dist/a/b.whl"])]
    #[case("a[b-d]e", &["ace"], &["ae", "aae"])]
    #[case("a?b", &["a☺b"], &["a/b"])]
    #[case("a???b", &[], &["a☺b"])]
    #[case("[a-ζ]*", &["α"], &["😀"])]
    fn matches_as_moby_does(#[case] pattern: &str, #[case] yes: &[&str], #[case] no: &[&str]) {
        for path in yes {
            assert!(alone(pattern, path), "`{pattern}` should match `{path}`");
        }
        for path in no {
            assert!(!alone(pattern, path), "`{pattern}` should not match `{path}`");
        }
    }

    #[rstest]
    // The children of a match match.
    #[case(&["x"], "x/y/z", true)]
    #[case(&["*/b"], "a/b/c", true)]
    #[case(&["**/dir"], "dir/file", true)]
    #[case(&["a/*.txt"], "a/dir/file.txt", false)]
    // The last match wins, and each pattern is inherited by itself.
    #[case(&["docs", "!docs/keep.md"], "docs/other", true)]
    #[case(&["docs", "!docs/keep.md"], "docs/keep.md", false)]
    #[case(&["*", "!src"], "src/a/b", false)]
    #[case(&["*", "!src"], "other/a", true)]
    #[case(&["**", "!util/docker/web"], "util/docker/web/foo", false)]
    #[case(&["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", true)]
    #[case(&["!fileutils.go", "*.go"], "fileutils.go", true)]
    #[case(&["*.go", "!fileutils.go"], "fileutils.go", false)]
    #[case(&["docs/", "!docs/README.md"], "docs/README.md", false)]
    #[case(&["docs/*", "!docs/README.md"], "docs/README.md", false)]
    #[case(&["a", "!a/b", "a/b/c"], "a/b/c/d", true)]
    #[case(&["a", "!a/b", "a/b/c"], "a/b/x", false)]
    #[case(&["  docs  ", ""], "docs", true)]
    #[case(&[], "any/path", false)]
    fn inherits_per_pattern(#[case] patterns: &[&str], #[case] path: &str, #[case] expected: bool) {
        assert_eq!(below(patterns, path), expected);
    }

    #[test]
    fn names_that_are_not_utf8() {
        let patterns = parse(&["*.o"]);
        let none = patterns.none_matched();
        assert!(patterns.matches(b"a\xff.o", &none, &mut Vec::new()));
        let raw = Patterns::parse([&b"caf\xe9"[..]]).expect("bytes are no syntax error");
        assert!(raw.matches(b"caf\xe9", &[false], &mut Vec::new()));
        assert!(!raw.matches(b"caf\xe8", &[false], &mut Vec::new()));
    }

    #[test]
    fn a_dot_does_not_match_a_line_feed() {
        assert!(!alone("a**b", "a\n/b"), "Go's `.` stops at line feeds");
        assert!(alone("a*b", "a\nb"), "`[^/]` does not");
    }

    #[rstest]
    #[case("!", PatternError::LoneExclamation)]
    #[case("a[", PatternError::Syntax("a[".into()))]
    #[case("!a[", PatternError::Syntax("a[".into()))]
    fn refuses(#[case] pattern: &str, #[case] error: PatternError) {
        assert_eq!(Patterns::parse([pattern.as_bytes()]).err(), Some(error));
    }
}
