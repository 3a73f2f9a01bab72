//! Paths and globs as Go's `path/filepath` sees them on unix, over bytes: the daemon's patterns were written
//! for that library, and file names need not be UTF-8. Nothing here touches the file system.

/// A glob that Go's `filepath.Match` would refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadGlob;

/// Returns the shortest equal path: no `//`, no `.`, `..` resolved as text (Go `filepath.Clean`).
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match parts.last() {
                Some(last) if *last != b".." => drop(parts.pop()),
                // Above the root there is nothing.
                _ if rooted => {}
                _ => parts.push(part),
            },
            _ => parts.push(part),
        }
    }
    let mut cleaned = if rooted { vec![b'/'] } else { Vec::new() };
    cleaned.extend_from_slice(&parts.join(&b'/'));
    if cleaned.is_empty() {
        cleaned.push(b'.');
    }
    cleaned
}

/// Joins and cleans, leaving out empty elements (Go `filepath.Join`).
pub(super) fn join(elements: &[&[u8]]) -> Vec<u8> {
    let present: Vec<&[u8]> = elements.iter().copied().filter(|element| !element.is_empty()).collect();
    if present.is_empty() { Vec::new() } else { clean(&present.join(&b'/')) }
}

/// Splits a cleaned path into its directory (`.` if there is none) and its last element.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) => (b"/", &path[1..]),
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b".", path),
    }
}

/// Decodes like Go's range over a string: every byte that is no part of valid UTF-8 counts as one U+FFFD.
/// (`String::from_utf8_lossy` would fold several such bytes into one.)
pub(super) fn go_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

/// Whether `name` matches the shell glob as a whole (Go `filepath.Match`): `*` and `?` stop at `/`, `[^…]`
/// negates, `\` escapes. The pattern's syntax is checked to its end even when the name can't match.
pub(super) fn glob(pattern: &[u8], name: &[u8]) -> Result<bool, BadGlob> {
    let tokens = parse(&go_text(pattern))?;
    let name: Vec<char> = go_text(name).chars().collect();
    Ok(matches(&tokens, &name))
}

enum Token {
    Char(char),
    Any,
    Star,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

fn parse(pattern: &str) -> Result<Vec<Token>, BadGlob> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(next) = chars.next() {
        tokens.push(match next {
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => Token::Char(chars.next().ok_or(BadGlob)?),
            '[' => {
                let negated = chars.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                while ranges.is_empty() || chars.next_if_eq(&']').is_none() {
                    let low = class_char(&mut chars)?;
                    let high = if chars.next_if_eq(&'-').is_some() { class_char(&mut chars)? } else { low };
                    ranges.push((low, high));
                }
                Token::Class { negated, ranges }
            }
            other => Token::Char(other),
        });
    }
    Ok(tokens)
}

fn class_char(chars: &mut impl Iterator<Item = char>) -> Result<char, BadGlob> {
    match chars.next() {
        None | Some('-' | ']') => Err(BadGlob),
        Some('\\') => chars.next().ok_or(BadGlob),
        Some(plain) => Ok(plain),
    }
}

/// Matches greedily from the left, going back to the last star only: enough for globs, and never exponential.
fn matches(tokens: &[Token], name: &[char]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        match tokens.get(token) {
            Some(Token::Star) => {
                star = Some((token, at));
                token += 1;
                continue;
            }
            Some(single) if name.get(at).is_some_and(|letter| fits(single, *letter)) => {
                token += 1;
                at += 1;
                continue;
            }
            None if at == name.len() => return true,
            _ => {}
        }
        match &mut star {
            Some((back, from)) if name.get(*from).is_some_and(|letter| *letter != '/') => {
                *from += 1;
                (token, at) = (*back + 1, *from);
            }
            _ => return false,
        }
    }
}

fn fits(token: &Token, letter: char) -> bool {
    match token {
        Token::Char(wanted) => *wanted == letter,
        Token::Any => letter != '/',
        Token::Star => false,
        Token::Class { negated, ranges } => {
            let within = ranges.iter().any(|(low, high)| (*low..=*high).contains(&letter));
            within != *negated
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("", ".")]
    #[case("a//b/./c", "a/b/c")]
    #[case("a/../b", "b")]
    #[case("../../a", "../../a")]
    #[case("/../a", "/a")]
    #[case("a/..", ".")]
    #[case("/", "/")]
    #[case("a/b/", "a/b")]
    #[case("!a/../b", "b")]
    fn cleans(#[case] path: &str, #[case] expected: &str) {
        assert_eq!(clean(path.as_bytes()), expected.as_bytes());
    }

    #[test]
    fn joins_and_splits() {
        assert_eq!(join(&[b".", b"/"]), b".");
        assert_eq!(join(&[b".", b"/a/b"]), b"a/b");
        assert_eq!(join(&[b"/", b"../../a"]), b"/a");
        assert_eq!(join(&[b"", b""]), b"");
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"c"), (&b"."[..], &b"c"[..]));
        assert_eq!(split(b"/c"), (&b"/"[..], &b"c"[..]));
    }

    #[rstest]
    #[case("abc", "abc", true)]
    #[case("*", "abc", true)]
    #[case("*", "a/c", false)]
    #[case("*c", "abc", true)]
    #[case("a*", "a", true)]
    #[case("a*/b", "abc/b", true)]
    #[case("a*/b", "a/c/b", false)]
    #[case("a*b*c*d*e*/f", "axbxcxdxexxx/f", true)]
    #[case("a*b?c*x", "abxbbxdbxebxczzx", true)]
    #[case("a*b?c*x", "abxbbxdbxebxczzy", false)]
    #[case("ab[b-d]", "abc", true)]
    #[case("ab[^c]", "abc", false)]
    #[case("a\\*b", "a*b", true)]
    #[case("a\\*b", "ab", false)]
    #[case("a?b", "a☺b", true)]
    #[case("a???b", "a☺b", false)]
    #[case("[a-ζ]*", "α", true)]
    #[case("*[a-ζ]", "A", false)]
    #[case("a[^x]b", "a/b", true)]
    #[case("[\\]a]", "]", true)]
    #[case("[\\-x]", "-", true)]
    fn globs(#[case] pattern: &str, #[case] name: &str, #[case] expected: bool) {
        assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), Ok(expected));
    }

    #[rstest]
    #[case("[")]
    #[case("[]a]")]
    #[case("[-x]")]
    #[case("[x-]")]
    #[case("[^]")]
    #[case("[^bc")]
    #[case("a[")]
    #[case("a\\")]
    fn refuses_bad_globs(#[case] pattern: &str) {
        assert_eq!(glob(pattern.as_bytes(), b"x"), Err(BadGlob));
    }

    #[test]
    fn an_invalid_byte_is_one_letter() {
        assert_eq!(glob(b"a?b", b"a\xffb"), Ok(true));
        assert_eq!(glob(b"a?b", b"a\xf0\x9fb"), Ok(false));
        assert_eq!(glob(b"a??b", b"a\xf0\x9fb"), Ok(true));
    }
}
