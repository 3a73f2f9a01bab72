//! Compiles the regular expressions that patterns turn into, from Go's syntax to ours.
//!
//! moby hands brackets and escapes of a pattern on to Go's `regexp` as they are, so it is Go's reading that
//! counts: `\d` is a class, `[[` holds a bracket, `&&` means nothing. The crate reads some of these otherwise,
//! hence every class and escape is spelled out anew.

use std::iter::Peekable;
use std::str::Chars;

/// An expression that Go's `regexp` would refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadExpression;

/// Compiles Go's spelling.
pub(super) fn compile(source: &str) -> Result<regex::Regex, BadExpression> {
    let mut ours = String::with_capacity(source.len() + 16);
    let mut chars = source.chars().peekable();
    while let Some(next) = chars.next() {
        match next {
            '[' => class(&mut chars, &mut ours)?,
            '\\' => match escape(chars.next().ok_or(BadExpression)?)? {
                Escape::Char(letter) => push_char(letter, &mut ours),
                Escape::Class { negated, ranges } => {
                    ours.push_str(if negated { "[^" } else { "[" });
                    ours.push_str(ranges);
                    ours.push(']');
                }
            },
            other => ours.push(other),
        }
    }
    regex::Regex::new(&ours).map_err(|_| BadExpression)
}

enum Escape {
    Char(char),
    /// Go's classes are ASCII.
    Class {
        negated: bool,
        ranges: &'static str,
    },
}

fn escape(letter: char) -> Result<Escape, BadExpression> {
    const DIGIT: &str = "0-9";
    const SPACE: &str = r"\t\n\x0C\r ";
    const WORD: &str = "0-9A-Za-z_";
    let class = |negated, ranges| Escape::Class { negated, ranges };
    Ok(match letter {
        'd' => class(false, DIGIT),
        'D' => class(true, DIGIT),
        's' => class(false, SPACE),
        'S' => class(true, SPACE),
        'w' => class(false, WORD),
        'W' => class(true, WORD),
        'a' => Escape::Char('\x07'),
        'f' => Escape::Char('\x0C'),
        't' => Escape::Char('\t'),
        'n' => Escape::Char('\n'),
        'r' => Escape::Char('\r'),
        'v' => Escape::Char('\x0B'),
        // Assertions, numbers and Unicode classes: nobody means them in a file name, and Go refuses most.
        other if other.is_ascii_alphanumeric() => return Err(BadExpression),
        other => Escape::Char(other),
    })
}

fn push_char(letter: char, ours: &mut String) {
    use std::fmt::Write as _;
    write!(ours, "\\x{{{:X}}}", u32::from(letter)).expect("a string takes all");
}

/// Reads a class after its opening bracket.
fn class(chars: &mut Peekable<Chars<'_>>, ours: &mut String) -> Result<(), BadExpression> {
    ours.push('[');
    if chars.next_if_eq(&'^').is_some() {
        ours.push('^');
    }
    let mut first = true;
    while first || chars.next_if_eq(&']').is_none() {
        first = false;
        if let Some(name) = posix_name(chars)? {
            ours.push_str(&name);
            continue;
        }
        let low = match class_item(chars)? {
            Escape::Char(letter) => letter,
            Escape::Class { negated, ranges } => {
                ours.push_str(if negated { "[^" } else { "[" });
                ours.push_str(ranges);
                ours.push(']');
                continue;
            }
        };
        push_char(low, ours);
        let mut ahead = chars.clone();
        let is_range = ahead.next() == Some('-') && ahead.next().is_some_and(|after| after != ']');
        if is_range {
            chars.next();
            match class_item(chars)? {
                Escape::Char(high) if low <= high => {
                    ours.push('-');
                    push_char(high, ours);
                }
                _ => return Err(BadExpression),
            }
        }
    }
    ours.push(']');
    Ok(())
}

fn class_item(chars: &mut Peekable<Chars<'_>>) -> Result<Escape, BadExpression> {
    match chars.next().ok_or(BadExpression)? {
        '\\' => escape(chars.next().ok_or(BadExpression)?),
        plain => Ok(Escape::Char(plain)),
    }
}

/// Takes `[:alpha:]` and the like, which both syntaxes share.
fn posix_name(chars: &mut Peekable<Chars<'_>>) -> Result<Option<String>, BadExpression> {
    const NAMES: [&str; 14] = [
        "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
        "upper", "word", "xdigit",
    ];
    let rest: String = chars.clone().collect();
    let Some(end) = rest.strip_prefix("[:").and_then(|name| name.find(":]")) else { return Ok(None) };
    let name = &rest[2..2 + end];
    if !NAMES.contains(&name.strip_prefix('^').unwrap_or(name)) {
        return Err(BadExpression);
    }
    chars.by_ref().take(rest[..end + 4].chars().count()).for_each(drop);
    Ok(Some(rest[..end + 4].to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(r"^[[^/]*]$", "[^]", true)]
    #[case(r"^[a&&b]$", "&", true)]
    #[case(r"^[a&&b]$", "b", true)]
    #[case(r"^[+--]$", ",", true)]
    #[case(r"^[a-]$", "-", true)]
    #[case(r"^[]a]$", "]", true)]
    #[case(r"^[[:digit:]x]$", "5", true)]
    #[case(r"^[[:^digit:]]$", "5", false)]
    #[case(r"^\d[\d-]$", "4-", true)]
    #[case(r"^\d$", "٣", false)]
    #[case(r"^[\]\-]$", "-", true)]
    #[case(r"^a~~b$", "a~~b", true)]
    fn reads_as_go_does(#[case] source: &str, #[case] text: &str, #[case] expected: bool) {
        assert_eq!(compile(source).expect("good in Go").is_match(text), expected);
    }

    #[rstest]
    #[case("[z-a]")]
    #[case("[a--]")]
    #[case("[a")]
    #[case(r"\q")]
    #[case("[[:nope:]]")]
    fn refuses(#[case] source: &str) {
        assert!(compile(source).is_err());
    }
}
