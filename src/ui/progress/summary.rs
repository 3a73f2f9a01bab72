//! What is said when the build is over: the warnings, and the steps that failed.

use super::model::Model;
use super::{FailedStep, ProgressOptions};
use crate::event::StepState;
use crate::ui::text::{self, Keep};

/// Returns the warnings as text for below the progress; empty without any.
pub(super) fn warnings(model: &Model, options: &ProgressOptions) -> String {
    let warnings = model.warnings();
    let title = match warnings.len() {
        0 => return String::new(),
        1 => " 1 warning found:".to_owned(),
        count => format!(" {count} warnings found:"),
    };
    let palette = &options.palette;
    let mut out = format!("\n{}\n", palette.paint(&palette.warning, &title));
    let clean = |line: &str| text::clean(line.as_bytes(), Keep::Text);
    for warning in warnings {
        // The lint rules' own text already ends with ` (line 7)`.
        let place = warning.location.as_ref().filter(|_| !warning.short.contains(" (line "));
        let place = place.map_or(String::new(), |place| format!(" ({})", clean(place)));
        out.push_str(&format!(" - {}{place}\n", clean(&warning.short)));
        if options.warning_details {
            for line in &warning.detail {
                out.push_str(&format!("   {}\n", clean(line)));
            }
            if !warning.url.is_empty() {
                out.push_str(&format!("   More info: {}\n", clean(&warning.url)));
            }
        }
    }
    out
}

/// Returns the steps that failed, with the ends of their output.
pub(super) fn failed(model: &Model) -> Vec<FailedStep> {
    let failed = model.steps().filter_map(|step| match &step.state {
        StepState::Failed(error) => Some((step, error)),
        _ => None,
    });
    failed
        .map(|(step, error)| FailedStep {
            id: step.id.clone(),
            name: text::clean(step.name.as_bytes(), Keep::Text),
            error: error.clone(),
            lines: step
                .tail
                .iter()
                .map(|line| format!("{} {}", text::stamp(line.elapsed), text::clean(&line.bytes, Keep::Text)))
                .collect(),
        })
        .collect()
}
