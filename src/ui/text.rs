//! Text as a terminal shows it: cleaned, measured, cut, and the units that BuildKit's users know.

use std::time::{Duration, SystemTime};
use unicode_width::UnicodeWidthChar as _;

/// What of a program's output survives cleaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Printable text alone.
    Text,
    /// Printable text and colours, which are closed at the end of the line.
    Colours,
}

/// Returns what a line of a program's output would leave on a terminal.
///
/// Steps write whatever they like, and some of it would move our cursor or retitle the user's window: only text
/// (and colours) pass. What a carriage return would have overwritten is dropped, so that a progress bar shows its
/// last state; tabs become spaces.
pub(super) fn clean(line: &[u8], keep: Keep) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let end = line.iter().rposition(|byte| *byte != b'\r').map_or(0, |last| last + 1);
    let start = line[..end].iter().rposition(|byte| *byte == b'\r').map_or(0, |last| last + 1);
    let text = String::from_utf8_lossy(&line[start..end]);

    let mut out = String::with_capacity(text.len());
    let (mut column, mut coloured) = (0, false);
    let mut rest = text.chars().peekable();
    while let Some(char) = rest.next() {
        match char {
            '\x1b' => {
                let sequence = escape(&mut rest);
                if keep == Keep::Colours && sequence.starts_with('[') && sequence.ends_with('m') {
                    out.push('\x1b');
                    out.push_str(&sequence);
                    coloured = true;
                }
            }
            '\t' => {
                let stop = (column / 8 + 1) * 8;
                out.extend(std::iter::repeat_n(' ', stop - column));
                column = stop;
            }
            _ => {
                // Control characters have no width; C1 controls are escape sequences of their own.
                if let Some(width) = char.width() {
                    out.push(char);
                    column += width;
                }
            }
        }
    }
    if coloured {
        out.push_str("\x1b[0m");
    }
    out
}

/// Takes the rest of an escape sequence (ECMA-48 §5.4, §8.3.89) after its ESC.
fn escape(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let mut sequence = String::new();
    let Some(kind) = rest.next() else { return sequence };
    sequence.push(kind);
    match kind {
        '[' => {
            for char in rest.by_ref() {
                sequence.push(char);
                if ('@'..='~').contains(&char) {
                    break;
                }
            }
        }
        // Strings for the terminal itself, such as a window title, end with BEL or ESC \.
        ']' | 'P' | 'X' | '^' | '_' => {
            while let Some(char) = rest.next() {
                if char == '\x07' {
                    break;
                }
                if char == '\x1b' {
                    rest.next();
                    break;
                }
            }
        }
        '(' | ')' | '#' | '%' => sequence.extend(rest.next()),
        _ => {}
    }
    sequence
}

/// Returns the number of columns that cleaned text without colours takes.
pub(super) fn width(text: &str) -> usize {
    text.chars().filter_map(unicode_width::UnicodeWidthChar::width).sum()
}

/// Returns the longest start of cleaned text that fits into so many columns.
pub(super) fn cut(text: &str, columns: usize) -> &str {
    let mut used = 0;
    for (at, char) in text.char_indices() {
        used += char.width().unwrap_or(0);
        if used > columns {
            return &text[..at];
        }
    }
    text
}

/// Breaks cleaned text into lines of at most so many columns.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    loop {
        // Even a terminal of no width takes a character at a time, or this would not end.
        let line = match cut(rest, columns.max(2)) {
            "" => rest,
            line => line,
        };
        lines.push(line);
        rest = &rest[line.len()..];
        if rest.is_empty() {
            return lines;
        }
    }
}

/// Formats a size as docker does: `36B`, `1.23kB`, `4.56MB`.
pub(super) fn bytes(size: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if size < 1000 {
        return format!("{size}B");
    }
    #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
    let mut value = size as f64 / 1000.0;
    let mut unit = 0;
    // 999,999 B is 1.00MB, not 1000.00kB.
    while value >= 999.995 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.2}{}", UNITS[unit])
}

/// Formats the time into a step that a line of output carries: four digits, as docker does.
pub(super) fn stamp(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let precision = match seconds {
        ..10.0 => 3,
        ..100.0 => 2,
        _ => 1,
    };
    format!("{seconds:.precision$}")
}

/// Returns the time between two instants of one clock, zero if they are out of order.
pub(super) fn between(start: SystemTime, end: SystemTime) -> Duration {
    end.duration_since(start).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::plain(b"hello\n", "hello")]
    #[case::crlf(b"hello\r\n", "hello")]
    #[case::progress_bar(b"10%\r50%\r100%\r", "100%")]
    #[case::tab(b"a\tb", "a       b")]
    #[case::title(b"\x1b]0;pwned\x07ok", "ok")]
    #[case::title_ended_by_st(b"\x1b]0;pwned\x1b\\ok", "ok")]
    #[case::cursor(b"\x1b[2J\x1b[1;1Hok", "ok")]
    #[case::colour(b"\x1b[31mred\x1b[0m", "red")]
    #[case::charset(b"\x1b(Bok", "ok")]
    #[case::cut_short(b"ok\x1b[", "ok")]
    #[case::c1(b"o\xc2\x9b2Jk", "o2Jk")]
    #[case::not_utf8(b"\xffok", "\u{fffd}ok")]
    #[case::only_returns(b"\r\r", "")]
    fn only_text_survives(#[case] line: &[u8], #[case] expected: &str) {
        assert_eq!(clean(line, Keep::Text), expected);
    }

    #[test]
    fn colours_survive_if_asked_and_are_closed() {
        assert_eq!(clean(b"\x1b[31mred\x1b[2K", Keep::Colours), "\x1b[31mred\x1b[0m");
    }

    #[rstest]
    #[case(0, "0B")]
    #[case(36, "36B")]
    #[case(999, "999B")]
    #[case(1000, "1.00kB")]
    #[case(1_234_567, "1.23MB")]
    #[case(999_999, "1.00MB")]
    #[case(u64::MAX, "18.45EB")]
    fn sizes(#[case] size: u64, #[case] expected: &str) {
        assert_eq!(bytes(size), expected);
    }

    #[rstest]
    #[case(Duration::from_millis(123), "0.123")]
    #[case(Duration::from_millis(12_345), "12.35")]
    #[case(Duration::from_millis(123_456), "123.5")]
    fn stamps_keep_four_digits(#[case] elapsed: Duration, #[case] expected: &str) {
        assert_eq!(stamp(elapsed), expected);
    }

    #[test]
    fn wide_characters_are_not_cut_in_half() {
        assert_eq!(cut("日本語", 5), "日本");
        assert_eq!(wrap("日本語", 5), ["日本", "語"]);
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(width("日本語!"), 7);
    }
}
