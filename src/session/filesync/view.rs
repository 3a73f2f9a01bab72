//! What the daemon asks for: a directory by its name and which part of it, all in request metadata
//! (moby/buildkit session/filesync/filesync.go).

use super::error::SyncError;
use super::filter::Filter;
use super::followpaths;
use super::tree::Tree;
use http::HeaderMap;

/// One request for a directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// The daemon's name for the directory.
    pub(super) directory: String,
    include: Option<Vec<Vec<u8>>>,
    exclude: Option<Vec<Vec<u8>>>,
    follow: Option<Vec<Vec<u8>>>,
}

impl View {
    /// Reads a request's metadata.
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let directory = headers.get("dir-name").map(http::HeaderValue::as_bytes).unwrap_or_default();
        Self {
            directory: String::from_utf8_lossy(directory).into_owned(),
            include: list(headers, "include-patterns"),
            exclude: list(headers, "exclude-patterns"),
            follow: list(headers, "followpaths"),
        }
    }

    /// Builds the filter; the paths to follow are looked up in the tree, whatever else is excluded.
    pub(super) fn filter(&self, tree: &Tree) -> Result<Filter, SyncError> {
        let mut include = self.include.clone();
        if let Some(follow) = &self.follow
            && let Some(followed) = followpaths::resolve(tree, follow)?
        {
            include.get_or_insert_default().extend(followed);
            include = include.as_deref().and_then(followpaths::without_nested);
        }
        Filter::new(include.as_deref(), self.exclude.as_deref()).map_err(SyncError::Pattern)
    }
}

/// Returns all values of a key; if any of them isn't plain text the daemon escapes them all and says so.
fn list(headers: &HeaderMap, key: &str) -> Option<Vec<Vec<u8>>> {
    if !headers.contains_key(key) {
        return None;
    }
    let flag = headers.get(format!("{key}-encoded")).map(http::HeaderValue::as_bytes);
    // What Go's `strconv.ParseBool` takes for true.
    let encoded = matches!(flag, Some(b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True"));
    let values = headers.get_all(key).iter().map(http::HeaderValue::as_bytes);
    // As upstream: what can't be unescaped counts as empty.
    let decode = |value: &[u8]| {
        if encoded { unescape(value).unwrap_or_default() } else { value.to_vec() }
    };
    Some(values.map(decode).collect())
}

/// Undoes Go's `url.QueryEscape`.
fn unescape(value: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = value.iter();
    let mut plain = Vec::with_capacity(value.len());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(*bytes.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            other => *other,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn headers(entries: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| http::HeaderValue::from_bytes(text.as_bytes()).expect("a header value");
        let mut headers = HeaderMap::new();
        for (key, text) in entries {
            headers.append(*key, value(text));
        }
        headers
    }

    fn owned(list: &[&str]) -> Option<Vec<Vec<u8>>> {
        Some(list.iter().map(|text| text.as_bytes().to_vec()).collect())
    }

    #[test]
    fn reads_repeated_values_each_by_itself() {
        let view = View::read(&headers(&[
            ("dir-name", "context"),
            ("exclude-patterns", "a,b"),
            ("exclude-patterns", "!c d"),
            ("followpaths", "src"),
        ]));
        assert_eq!(
            view,
            View {
                directory: "context".into(),
                include: None,
                exclude: owned(&["a,b", "!c d"]),
                follow: owned(&["src"]),
            }
        );
    }

    #[rstest]
    #[case(&["a+b", "%C3%A4%2Fc"], Some("1"), &["a b", "ä/c"])]
    #[case(&["100%", "a+b"], None, &["100%", "a+b"])]
    #[case(&["100%"], Some("0"), &["100%"])]
    #[case(&["ok", "%zz", "%4"], Some("true"), &["ok", "", ""])]
    fn unescapes_only_what_is_marked(
        #[case] values: &[&str],
        #[case] flag: Option<&str>,
        #[case] expected: &[&str],
    ) {
        let mut entries: Vec<_> = values.iter().map(|value| ("exclude-patterns", *value)).collect();
        entries.extend(flag.map(|flag| ("exclude-patterns-encoded", flag)));
        assert_eq!(View::read(&headers(&entries)).exclude, owned(expected));
    }

    #[test]
    fn bytes_that_are_no_text_survive() {
        let view = View::read(&headers(&[("followpaths", "caf%E9"), ("followpaths-encoded", "1")]));
        assert_eq!(view.follow, Some(vec![b"caf\xe9".to_vec()]));
    }
}
