//! Decides which entries of a tree are sent, and which directories are looked into at all
//! (tonistiigi/fsutil filter.go).

use super::patterns::{Matched, PatternError, Patterns};

/// Include and exclude patterns; `None` stands for "no restriction", which an empty list of includes is not.
#[derive(Debug, Default)]
pub(super) struct Filter {
    include: Option<Patterns>,
    exclude: Option<Patterns>,
    /// All includes are literal but for a trailing glob, so a directory can be ruled out by its path.
    literal_includes: bool,
    /// The same of the exclude patterns' exceptions.
    literal_exceptions: bool,
}

/// Which patterns matched a directory; its entries inherit them.
#[derive(Clone, Debug, Default)]
pub(super) struct Inherited {
    include: Matched,
    exclude: Matched,
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// It is sent.
    pub(super) keep: bool,
    /// If it is a directory: something inside may be sent.
    pub(super) descend: bool,
}

impl Filter {
    /// Builds the filter of a request; `None` for a list that the request does not have.
    ///
    /// # Errors
    /// The first pattern that moby would refuse.
    pub(super) fn new(
        include: Option<&[Vec<u8>]>,
        exclude: Option<&[Vec<u8>]>,
    ) -> Result<Self, PatternError> {
        let parse = |patterns: Option<&[Vec<u8>]>| {
            let present = patterns.filter(|patterns| !patterns.is_empty());
            present.map(|patterns| Patterns::parse(patterns.iter().map(Vec::as_slice))).transpose()
        };
        let (include, exclude) = (parse(include)?, parse(exclude)?);
        let literal_includes =
            include.iter().flat_map(Patterns::plain).all(super::patterns::Pattern::is_literal_prefix);
        let literal_exceptions =
            exclude.iter().flat_map(Patterns::exceptions).all(super::patterns::Pattern::is_literal_prefix);
        Ok(Self { include, exclude, literal_includes, literal_exceptions })
    }

    /// Whether everything is sent.
    pub(super) fn is_open(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }

    /// Returns what the root's entries inherit: nothing.
    pub(super) fn root(&self) -> Inherited {
        let none =
            |patterns: &Option<Patterns>| patterns.as_ref().map(Patterns::none_matched).unwrap_or_default();
        Inherited { include: none(&self.include), exclude: none(&self.exclude) }
    }

    /// Judges an entry by its path from the root, given what matched its directory. `matched` is overwritten
    /// with what the entry's own entries inherit.
    pub(super) fn judge(
        &self,
        path: &[u8],
        is_directory: bool,
        parent: &Inherited,
        matched: &mut Inherited,
    ) -> Verdict {
        let mut keep = true;
        if let Some(include) = &self.include
            && !include.matches(path, &parent.include, &mut matched.include)
        {
            keep = false;
            let may_hold = |directory| include.plain().any(|pattern| pattern.may_match_inside(directory));
            if is_directory && self.literal_includes && !may_hold(path) {
                return Verdict { keep, descend: false };
            }
        }
        if let Some(exclude) = &self.exclude
            && exclude.matches(path, &parent.exclude, &mut matched.exclude)
        {
            keep = false;
            let may_except =
                |directory| exclude.exceptions().any(|pattern| pattern.may_match_inside(directory));
            // Without exceptions this always prunes: none of none may match.
            if is_directory && self.literal_exceptions && !may_except(path) {
                return Verdict { keep, descend: false };
            }
        }
        Verdict { keep, descend: is_directory }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn filter(include: &[&str], exclude: &[&str]) -> Filter {
        let owned = |list: &[&str]| -> Vec<Vec<u8>> { list.iter().map(|p| p.as_bytes().to_vec()).collect() };
        Filter::new(Some(&owned(include)), Some(&owned(exclude))).expect("good patterns")
    }

    fn judge(filter: &Filter, path: &str) -> Option<Verdict> {
        let mut parent = filter.root();
        let mut matched = Inherited::default();
        let is_directory = path.ends_with('/');
        let path = path.trim_end_matches('/');
        for (end, _) in path.match_indices('/') {
            if !filter.judge(&path.as_bytes()[..end], true, &parent, &mut matched).descend {
                return None;
            }
            std::mem::swap(&mut parent, &mut matched);
        }
        Some(filter.judge(path.as_bytes(), is_directory, &parent, &mut matched))
    }

    fn keeps(filter: &Filter, path: &str) -> bool {
        judge(filter, path).is_some_and(|verdict| verdict.keep)
    }

    #[test]
    fn no_patterns_keep_all() {
        let open = Filter::new(None, Some(&[])).expect("nothing to refuse");
        assert!(open.is_open());
        assert!(keeps(&open, "a/b"));
    }

    #[rstest]
    #[case(&["a/b"], &[], &["a/b", "a/b/c"], &["a", "a/c", "x"])]
    #[case(&["a/b/**"], &[], &["a/b/c"], &["a/b", "a/c"])]
    #[case(&[], &["*", "!src"], &["src", "src/x/y"], &["other", "other/x"])]
    #[case(&[], &["docs", "!docs/keep.md"], &["docs/keep.md", "x"], &["docs", "docs/other"])]
    #[case(&["a"], &["a/secret"], &["a/x"], &["a/secret", "b"])]
    #[case(&["**/*.go"], &["vendor"], &["m.go", "a/m.go"], &["vendor/m.go", "a/m.rs"])]
    // A list of blanks is a list: it includes nothing.
    #[case(&[" "], &[], &[], &["a"])]
    fn keeps_what_is_included_and_not_excluded(
        #[case] include: &[&str],
        #[case] exclude: &[&str],
        #[case] kept: &[&str],
        #[case] dropped: &[&str],
    ) {
        let filter = filter(include, exclude);
        for path in kept {
            assert!(keeps(&filter, path), "{path} should be kept");
        }
        for path in dropped {
            assert!(!keeps(&filter, path), "{path} should be dropped");
        }
    }

    #[rstest]
    #[case(&["a/b"], &[], "x/", false)]
    #[case(&["a/b"], &[], "a/", true)]
    #[case(&["a/b"], &[], "ab/", false)]
    #[case(&["a/*"], &[], "a/", true)]
    #[case(&["*/b"], &[], "x/", true)]
    #[case(&[], &["node_modules"], "node_modules/", false)]
    #[case(&[], &["docs", "!docs/keep.md"], "docs/", true)]
    #[case(&[], &["docs", "!src/keep.md"], "docs/", false)]
    #[case(&[], &["docs", "!**/keep.md"], "docs/", true)]
    fn looks_only_where_something_may_match(
        #[case] include: &[&str],
        #[case] exclude: &[&str],
        #[case] directory: &str,
        #[case] descend: bool,
    ) {
        let verdict = judge(&filter(include, exclude), directory).expect("reached");
        assert_eq!(verdict.descend, descend);
    }
}
