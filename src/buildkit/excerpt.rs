//! The lines of a Dockerfile that an error points at.

use serde::{Deserialize, Deserializer};

/// A file, or what of it a daemon sent, with the places that an error is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The file's name as the frontend knows it, usually `Dockerfile`.
    pub filename: String,
    /// The whole text; lossy where it isn't UTF-8.
    pub text: String,
    /// The places; not in any order.
    pub ranges: Vec<LineRange>,
}

/// Lines from `start` to `end`, both included and counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineRange {
    /// The first line.
    pub start: usize,
    /// The last line; never before `start`.
    pub end: usize,
}

/// A line of an excerpt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExcerptLine {
    /// Counted from 1.
    pub number: u32,
    /// Without its end.
    pub text: String,
    /// An error is about it; else it is a neighbour.
    pub at_fault: bool,
}

impl Source {
    /// Returns the lines at fault among their neighbours. Empty when the daemon named no place, or one outside of
    /// the text.
    ///
    /// The number of neighbours is that of buildctl and buildx (moby/buildkit solver/errdefs/source.go), because
    /// people know how to read it.
    pub fn excerpt(&self) -> Vec<ExcerptLine> {
        let lines: Vec<&str> = self.text.split('\n').collect();
        let first = self.ranges.iter().map(|range| range.start).min();
        let last = self.ranges.iter().map(|range| range.end).max();
        let (Some(first), Some(last)) = (first, last) else { return Vec::new() };
        if first < 1 || first > lines.len() {
            return Vec::new();
        }
        let (from, to) = widen(first, last.min(lines.len()), lines.len());
        let shown = (1..).zip(&lines).take(to).skip(from - 1);
        let line = |(number, text): (usize, &&str)| ExcerptLine {
            number: u32::try_from(number).unwrap_or(u32::MAX),
            text: text.trim_end_matches('\r').to_owned(),
            at_fault: self.ranges.iter().any(|range| (range.start..=range.end).contains(&number)),
        };
        shown.map(line).collect()
    }

    /// Returns `Dockerfile:7`, the place where the first range starts.
    pub fn location(&self) -> Option<String> {
        let line = self.ranges.iter().map(|range| range.start).filter(|line| *line > 0).min()?;
        Some(format!("{}:{line}", self.filename))
    }
}

/// Widens a range of lines by its neighbours: a budget of four around one line and of two around several, spent
/// in rounds. A round takes a line before and a line after where there is one, and costs one more than it takes.
fn widen(first: usize, last: usize, count: usize) -> (usize, usize) {
    let budget = if first == last { 4 } else { 2 };
    let (mut from, mut to, mut spent) = (first, last, 0);
    while spent < budget {
        if from > 1 {
            from -= 1;
            spent += 1;
        }
        if to != count {
            to += 1;
            spent += 1;
        }
        spent += 1;
    }
    (from, to)
}

/// The JSON of `errdefs.Source`: Go leaves out what is zero and writes `null` for what is nil.
#[derive(Deserialize, Default)]
#[serde(default)]
struct WireSource {
    #[serde(deserialize_with = "or_default")]
    info: WireInfo,
    #[serde(deserialize_with = "or_default")]
    ranges: Vec<WireRange>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireInfo {
    filename: String,
    #[serde(deserialize_with = "or_default")]
    data: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireRange {
    #[serde(deserialize_with = "or_default")]
    start: WirePosition,
    #[serde(deserialize_with = "or_default")]
    end: WirePosition,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WirePosition {
    line: i64,
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Reads the JSON form of an error's detail; `None` if it isn't what it says.
pub(super) fn from_json(json: &[u8]) -> Option<Source> {
    use base64::Engine as _;
    let wire: WireSource = serde_json::from_slice(json).ok()?;
    let data = base64::engine::general_purpose::STANDARD.decode(wire.info.data).ok()?;
    let ranges = wire.ranges.iter().map(|range| LineRange::of(range.start.line, range.end.line));
    Some(Source {
        filename: wire.info.filename,
        text: String::from_utf8_lossy(&data).into_owned(),
        ranges: ranges.collect(),
    })
}

impl LineRange {
    pub(super) fn of(start: i64, end: i64) -> Self {
        let start = usize::try_from(start).unwrap_or_default();
        // The end is left out of one-line ranges.
        Self { start, end: usize::try_from(end).unwrap_or_default().max(start) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(lines: usize, ranges: &[(usize, usize)]) -> Source {
        let text: Vec<String> = (1..=lines).map(|number| format!("LINE {number}")).collect();
        let ranges = ranges.iter().map(|&(start, end)| LineRange { start, end }).collect();
        Source { filename: "Dockerfile".to_owned(), text: text.join("\n"), ranges }
    }

    /// The numbers of the lines shown, those at fault negated.
    fn shown(source: &Source) -> Vec<i64> {
        let signed =
            |line: ExcerptLine| if line.at_fault { -i64::from(line.number) } else { line.number.into() };
        source.excerpt().into_iter().map(signed).collect()
    }

    #[test]
    fn one_line_has_two_neighbours_on_each_side() {
        let source = source(9, &[(7, 7)]);
        assert_eq!(source.location().as_deref(), Some("Dockerfile:7"));
        assert_eq!(shown(&source), [5, 6, -7, 8, 9]);
        assert_eq!(source.excerpt()[2].text, "LINE 7");
    }

    #[test]
    fn the_edges_of_the_file_shift_the_neighbours() {
        assert_eq!(shown(&source(9, &[(1, 1)])), [-1, 2, 3]);
        assert_eq!(shown(&source(9, &[(9, 9)])), [7, 8, -9]);
        assert_eq!(shown(&source(1, &[(1, 1)])), [-1]);
        assert_eq!(shown(&source(9, &[(4, 6)])), [3, -4, -5, -6, 7]);
        assert_eq!(shown(&source(9, &[(2, 2), (5, 5)])), [1, -2, 3, 4, -5, 6]);
        assert_eq!(shown(&source(3, &[(2, 99)])), [1, -2, -3]);
    }

    #[test]
    fn a_place_outside_of_the_text_gives_nothing() {
        assert!(source(9, &[]).excerpt().is_empty());
        assert!(source(9, &[(10, 10)]).excerpt().is_empty());
        assert!(source(9, &[(0, 3)]).excerpt().is_empty());
    }

    #[test]
    fn carriage_returns_do_not_reach_the_terminal() {
        let mut source = source(1, &[(1, 1)]);
        source.text = "FROM a\r\nRUN b\r\n".to_owned();
        let texts: Vec<_> = source.excerpt().into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["FROM a", "RUN b", ""]);
    }

    #[test]
    fn missing_and_null_fields_are_zero() {
        let json = br#"{"info":{"filename":"D","data":"YQ=="},"ranges":[{"start":{"line":1},"end":null}]}"#;
        let source = from_json(json).expect("a source");
        assert_eq!((source.text.as_str(), source.ranges), ("a", vec![LineRange { start: 1, end: 1 }]));
        assert_eq!(from_json(br#"{"info":null,"ranges":null}"#), Some(Source::default()));
        assert_eq!(from_json(br#"{"info":{"data":"?"}}"#), None);
        assert_eq!(from_json(b"7"), None);
    }
}
