//! How a failure reads: the failed step and the end of its output, the lines of the Dockerfile at fault, then
//! `error:`, `caused by:` and `hint:`. What they say is decided elsewhere and comes in as data.

use super::colours::Palette;
use super::progress::FailedStep;
use super::text::{self, Keep};

const RULE: &str = "------";
const EXCERPT_RULE: &str = "--------------------";

/// A line of source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExcerptLine {
    /// Counted from 1.
    pub number: u32,
    /// The line without its newline.
    pub text: String,
    /// The line is at fault, rather than around what is.
    pub marked: bool,
}

/// The lines of a file at fault, and some around them.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Excerpt {
    /// The file, such as `Dockerfile`.
    pub file: String,
    /// The lines in order.
    pub lines: Vec<ExcerptLine>,
}

/// A failure as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Report {
    /// The steps that failed, from [`super::progress::Ended`].
    pub failed: Vec<FailedStep>,
    /// Where in the Dockerfile.
    pub excerpts: Vec<Excerpt>,
    /// What failed.
    pub error: String,
    /// Why, from the outside in.
    pub causes: Vec<String>,
    /// What to do.
    pub hints: Vec<String>,
}

impl Report {
    /// Returns the report of an error and its sources.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(error.source(), |error| error.source());
        Self {
            error: error.to_string(),
            causes: causes.map(ToString::to_string).collect(),
            ..Self::default()
        }
    }

    /// Adds something to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Returns the report as text, ending with a newline.
    pub fn render(&self, palette: &Palette) -> String {
        let mut out = String::new();
        for step in &self.failed {
            out.push_str(&format!("{RULE}\n > {}:\n", step.name));
            for line in &step.lines {
                out.push_str(&format!("{line}\n"));
            }
            out.push_str(&format!("{RULE}\n"));
        }
        for excerpt in &self.excerpts {
            render_excerpt(excerpt, palette, &mut out);
        }

        labelled("error", &palette.error, &self.error, palette, &mut out);
        let mut told = self.error.as_str();
        for cause in self.causes.iter().map(|cause| cause.trim()) {
            // Errors of other libraries often end with the text of their source.
            if !cause.is_empty() && !told.ends_with(cause) {
                labelled("caused by", "", cause, palette, &mut out);
            }
            told = cause;
        }
        let mut hints: Vec<&str> = Vec::new();
        for hint in &self.hints {
            if !hints.contains(&hint.as_str()) {
                labelled("hint", &palette.run, hint, palette, &mut out);
                hints.push(hint);
            }
        }
        out
    }

    /// Prints the report to standard error, waiting no longer than five seconds for a terminal that takes
    /// nothing. A reader that has gone is not told.
    pub async fn print(&self, palette: &Palette) {
        super::printer::say(self.render(palette)).await;
    }
}

fn labelled(label: &str, colour: &str, message: &str, palette: &Palette, out: &mut String) {
    let mut lines = message.trim_end().lines().map(|line| text::clean(line.as_bytes(), Keep::Text));
    let label = format!("{label}:");
    out.push_str(&format!("{} {}\n", palette.paint(colour, &label), lines.next().unwrap_or_default()));
    for line in lines {
        out.push_str(&format!("  {line}\n"));
    }
}

/// Renders lines as BuildKit's `solver/errdefs/source.go` does.
fn render_excerpt(excerpt: &Excerpt, palette: &Palette, out: &mut String) {
    let clean = |line: &str| text::clean(line.as_bytes(), Keep::Text);
    let Some(first) = excerpt.lines.iter().find(|line| line.marked).or(excerpt.lines.first()) else { return };
    out.push_str(&format!("{}:{}\n{EXCERPT_RULE}\n", clean(&excerpt.file), first.number));
    for line in &excerpt.lines {
        let text = clean(&line.text);
        let mark = if line.marked { palette.paint(&palette.error, ">>>") } else { palette.paint("", "   ") };
        let row = format!(" {:>3} | {mark} {text}", line.number);
        out.push_str(row.trim_end());
        out.push('\n');
    }
    out.push_str(&format!("{EXCERPT_RULE}\n"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::StepId;
    use insta::assert_snapshot;

    #[derive(Debug, thiserror::Error)]
    #[error("pod `buildkit-0` refused the connection")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("exec: Forbidden")]
    struct Inner;

    #[test]
    fn an_error_its_causes_and_hints() {
        let report = Report::of(&Outer(Inner))
            .hint("allow `create` on `pods/exec` in namespace `dev`,\nor choose another with -n")
            .hint("twice")
            .hint("twice");
        assert_snapshot!(report.render(&Palette::none()), @r"
        error: pod `buildkit-0` refused the connection
        caused by: exec: Forbidden
        hint: allow `create` on `pods/exec` in namespace `dev`,
          or choose another with -n
        hint: twice
        ");
    }

    #[test]
    fn nothing_is_said_twice() {
        let report = Report {
            error: "pushing failed: denied".into(),
            causes: vec!["denied".into(), "denied".into(), "HTTP 403".into()],
            ..Report::default()
        };
        assert_snapshot!(report.render(&Palette::none()), @r"
        error: pushing failed: denied
        caused by: HTTP 403
        ");
    }

    #[test]
    fn a_failed_build() {
        let line = |number, text: &str, marked| ExcerptLine { number, text: text.into(), marked };
        let report = Report {
            failed: vec![FailedStep {
                id: StepId("sha256:0".into()),
                name: "[2/3] RUN make".into(),
                error: "exit code: 2".into(),
                lines: vec!["0.050 cc -o a a.c".into(), "0.123 make: *** [all] Error 2".into()],
            }],
            excerpts: vec![Excerpt {
                file: "Dockerfile".into(),
                lines: vec![
                    line(5, "FROM \x1b[2Jalpine", false),
                    line(6, "", false),
                    line(7, "RUN make", true),
                    line(8, "COPY . /", false),
                ],
            }],
            error: "process \"/bin/sh -c make\" did not complete successfully: exit code: 2".into(),
            ..Report::default()
        };
        assert_snapshot!(report.render(&Palette::none()), @r#"
        ------
         > [2/3] RUN make:
        0.050 cc -o a a.c
        0.123 make: *** [all] Error 2
        ------
        Dockerfile:7
        --------------------
           5 |     FROM alpine
           6 |
           7 | >>> RUN make
           8 |     COPY . /
        --------------------
        error: process "/bin/sh -c make" did not complete successfully: exit code: 2
        "#);
        let coloured = report.render(&Palette::default());
        assert!(coloured.contains("   7 | \x1b[31m>>>\x1b[0m RUN make\n"), "{coloured:?}");
        assert!(coloured.contains("\n\x1b[31merror:\x1b[0m process"), "{coloured:?}");
    }
}
