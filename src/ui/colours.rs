//! The colours of progress and errors, as values: who reads `NO_COLOR` and `BUILDKIT_COLORS` is not said here.

use std::fmt;

/// The escape sequences that colour output. Empty sequences leave it plain: colour is never the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Palette {
    pub(super) run: String,
    pub(super) cancel: String,
    pub(super) error: String,
    pub(super) warning: String,
    pub(super) faint: String,
    pub(super) bold: String,
}

impl Default for Palette {
    fn default() -> Self {
        let [run, cancel, error, warning] = ["34", "33", "31", "33"].map(sequence);
        Self { run, cancel, error, warning, faint: sequence("2"), bold: sequence("1") }
    }
}

/// A part of a `BUILDKIT_COLORS` value that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` in BUILDKIT_COLORS is not `run|cancel|error|warning=COLOUR` with a colour's name or `R,G,B`")]
pub struct ColourError(String);

impl Palette {
    /// Returns the palette of `NO_COLOR` and of output that is no terminal.
    pub fn none() -> Self {
        let empty = String::new;
        Self {
            run: empty(),
            cancel: empty(),
            error: empty(),
            warning: empty(),
            faint: empty(),
            bold: empty(),
        }
    }

    /// Returns the default palette changed by a `BUILDKIT_COLORS` value, such as
    /// `run=green:error=255,0,0:cancel=yellow:warning=light-magenta`, and what of it was not understood.
    pub fn parse(value: &str) -> (Self, Vec<ColourError>) {
        let mut palette = Self::default();
        let mut errors = Vec::new();
        for part in value.split(':').filter(|part| !part.is_empty()) {
            let understood = part.split_once('=').and_then(|(what, colour)| {
                let slot = match what.trim().to_ascii_lowercase().as_str() {
                    "run" => &mut palette.run,
                    "cancel" => &mut palette.cancel,
                    "error" => &mut palette.error,
                    "warning" => &mut palette.warning,
                    _ => return None,
                };
                *slot = colour_code(colour.trim())?;
                Some(())
            });
            if understood.is_none() {
                errors.push(ColourError(part.to_owned()));
            }
        }
        (palette, errors)
    }

    /// Returns `text` so coloured.
    pub(super) fn paint<'a>(&self, colour: &'a str, text: &'a str) -> Painted<'a> {
        Painted { colour, text }
    }
}

/// Text between a colour and the end of it.
pub(super) struct Painted<'a> {
    colour: &'a str,
    text: &'a str,
}

impl fmt::Display for Painted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.colour.is_empty() || self.text.is_empty() {
            return out.write_str(self.text);
        }
        write!(out, "{}{}\x1b[0m", self.colour, self.text)
    }
}

fn sequence(parameters: &str) -> String {
    format!("\x1b[{parameters}m")
}

fn colour_code(colour: &str) -> Option<String> {
    if colour.contains(',') {
        let mut parts = colour.split(',').map(|part| part.trim().parse::<u8>());
        let (Some(Ok(red)), Some(Ok(green)), Some(Ok(blue)), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        return Some(sequence(&format!("38;2;{red};{green};{blue}")));
    }
    let colour = colour.to_ascii_lowercase();
    if colour == "default" {
        return Some(sequence("39"));
    }
    let (name, base) = match colour.strip_prefix("light-") {
        Some(name) => (name, 90),
        None => (colour.as_str(), 30),
    };
    const NAMES: [&str; 8] = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
    let offset = NAMES.iter().position(|known| *known == name)?;
    Some(sequence(&(base + offset).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buildkit_colors_are_understood() {
        let (palette, errors) = Palette::parse("run=green:error=255,0,10:cancel=light-blue:WARNING=Magenta");
        assert_eq!(errors, []);
        assert_eq!(
            [palette.run, palette.error, palette.cancel, palette.warning],
            ["\x1b[32m", "\x1b[38;2;255;0;10m", "\x1b[94m", "\x1b[35m"]
        );
    }

    #[test]
    fn what_is_not_understood_is_named_and_changes_nothing() {
        let (palette, errors) = Palette::parse("run=puce:jump=red:error=1,2:cancel=1,2,256:red");
        assert_eq!(palette, Palette::default());
        assert_eq!(errors.len(), 5);
        assert!(errors[0].to_string().starts_with("`run=puce` in BUILDKIT_COLORS"));
    }

    #[test]
    fn without_colours_text_stays_as_it_is() {
        let palette = Palette::none();
        assert_eq!(palette.paint(&palette.error, "no").to_string(), "no");
    }
}
