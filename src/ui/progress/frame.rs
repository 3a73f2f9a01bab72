//! One frame of the terminal display, as lines: pure, so that a test can look at it.
//!
//! The form is that of BuildKit's own display (`util/progress/progressui/display.go`), which users know.

use super::model::{CounterView, Model, StepView};
use crate::event::StepState;
use crate::ui::colours::Palette;
use crate::ui::terminal::Size;
use crate::ui::text;
use std::time::{Duration, SystemTime};

/// The fewest columns that a name needs to be worth showing.
const NARROWEST_NAME: usize = 12;
/// What a window of output keeps free on its right.
const WINDOW_PADDING: usize = 10;
/// Lines around a window that must be free besides its own before it opens.
const WINDOW_MARGIN: usize = 3;
/// How long the choice among the steps with output stands, so that windows don't jump about.
const WINDOW_STAYS: u64 = 5;

/// How a frame is to look.
#[derive(Clone, Debug)]
pub(super) struct View<'a> {
    /// What the header says at its right end.
    pub(super) title: &'a str,
    pub(super) palette: &'a Palette,
    /// The most lines of output shown of a running step.
    pub(super) log_lines: usize,
}

/// When and how large.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) size: Size,
    pub(super) now: SystemTime,
    /// The build is over: everything is shown, however tall.
    pub(super) last: bool,
}

/// A line about a step or about a count within it.
struct Job {
    text: String,
    amount: String,
    took: Duration,
    running: bool,
    colour: Colour,
    window: Vec<String>,
    /// When it last wrote something, in units of [`WINDOW_STAYS`].
    wrote: u64,
}

#[derive(Clone, Copy)]
enum Colour {
    None,
    Run,
    Cancel,
    Error,
}

impl View<'_> {
    /// Returns the lines of a frame, each short enough not to wrap.
    pub(super) fn lines(&self, model: &Model, moment: Moment) -> Vec<String> {
        let Moment { size, now, last } = moment;
        // The last column stays free: terminals differ in what a character there does to the cursor.
        let width = size.columns.saturating_sub(1).max(1);
        let mut lines = vec![self.header(model, width, moment)];
        for job in self.choose(self.jobs(model, now), size, last) {
            let Some(line) = self.line(&job, width) else { continue };
            lines.push(line);
            for output in &job.window {
                let room = width.saturating_sub(WINDOW_PADDING).max(1);
                let line = format!(" => => # {output}");
                lines.push(self.palette.paint(&self.palette.faint, text::cut(&line, room)).to_string());
            }
        }
        if !last {
            // The cursor stands below the frame, and a frame that scrolled could not be drawn over.
            lines.truncate(size.rows.saturating_sub(1).max(1));
        }
        lines
    }

    fn header(&self, model: &Model, width: usize, moment: Moment) -> String {
        let (ended, known) = model.counts();
        let finished = if moment.last && known > 0 && ended == known { " FINISHED" } else { "" };
        let seconds = model.elapsed(moment.now).as_secs_f64();
        let left = format!("[+] Building {seconds:.1}s ({ended}/{known}){finished}");
        let line = match width.checked_sub(text::width(&left) + text::width(self.title) + 1) {
            Some(_) if self.title.is_empty() => left,
            Some(room) => format!("{left}{:room$} {}", "", self.title),
            None => left,
        };
        text::cut(&line, width).to_owned()
    }

    /// Returns all jobs in order.
    fn jobs(&self, model: &Model, now: SystemTime) -> Vec<Job> {
        let mut jobs = Vec::new();
        for step in model.steps() {
            jobs.push(self.step_job(step, now));
            jobs.extend(step.counters.iter().map(|counter| counter_job(step, counter, now)));
        }
        jobs
    }

    fn step_job(&self, step: &StepView, now: SystemTime) -> Job {
        let (prefix, colour) = match &step.state {
            StepState::Pending | StepState::Running => ("", Colour::None),
            StepState::Done { cached: true } => ("CACHED ", Colour::Run),
            StepState::Done { cached: false } => ("", Colour::Run),
            StepState::Failed(_) => ("ERROR ", Colour::Error),
            StepState::Cancelled => ("CANCELED ", Colour::Cancel),
        };
        let wrote =
            step.wrote.map_or(0, |at| text::between(SystemTime::UNIX_EPOCH, at).as_secs() / WINDOW_STAYS);
        Job {
            text: format!("{prefix}{}", text::clean(step.name.as_bytes(), text::Keep::Text)),
            amount: String::new(),
            took: step.took(now),
            running: step.running(),
            colour,
            window: if step.running() { step.window(self.log_lines) } else { Vec::new() },
            wrote,
        }
    }

    /// Chooses which windows open, and which jobs stay when there is no room for all.
    fn choose(&self, mut jobs: Vec<Job>, size: Size, all: bool) -> Vec<Job> {
        let running = jobs.iter().filter(|job| job.running).count();
        let mut free = size.rows.saturating_sub(2 + running);
        let mut talking: Vec<_> = (0..jobs.len()).filter(|at| !jobs[*at].window.is_empty()).collect();
        talking.sort_by_key(|at| std::cmp::Reverse(jobs[*at].wrote));
        let mut used = 0;
        for at in talking {
            if free > self.log_lines + WINDOW_MARGIN {
                free -= self.log_lines + WINDOW_MARGIN;
                used += jobs[at].window.len();
            } else {
                jobs[at].window.clear();
            }
        }
        if all {
            return jobs;
        }
        let room = size.rows.saturating_sub(2 + used);
        let mut excess = jobs.len().saturating_sub(room);
        // The oldest that have ended go first; running ones only when nothing else is left to go.
        let ended = jobs.iter().filter(|job| !job.running).count();
        let mut drop_ended = excess.min(ended);
        excess -= drop_ended;
        jobs.retain(|job| {
            let quota = if job.running { &mut excess } else { &mut drop_ended };
            let goes = *quota > 0;
            *quota -= usize::from(goes);
            !goes
        });
        jobs
    }

    fn line(&self, job: &Job, width: usize) -> Option<String> {
        let seconds = match job.took.as_secs_f64() {
            short if short < 0.05 => 0.0,
            long => long,
        };
        let timer = format!(" {seconds:.1}s");
        let mut left = width.checked_sub(" => ".len() + timer.len())?;
        let amount_width = text::width(&job.amount);
        let with_amount = !job.amount.is_empty() && left > 20 + amount_width;
        if with_amount {
            left -= amount_width;
        }
        if left < NARROWEST_NAME {
            return None;
        }
        let mut line = format!(" => {}", text::cut(&job.text, left));
        if with_amount {
            line.push_str(&job.amount);
        }
        let gap = width.saturating_sub(text::width(&line) + timer.len());
        line.extend(std::iter::repeat_n(' ', gap));
        line.push_str(&timer);
        let palette = self.palette;
        let colour = match job.colour {
            Colour::None => return Some(line),
            Colour::Run => &palette.run,
            Colour::Cancel => &palette.cancel,
            Colour::Error => &palette.error,
        };
        Some(palette.paint(colour, &line).to_string())
    }
}

fn counter_job(step: &StepView, counter: &CounterView, now: SystemTime) -> Job {
    // A count that the daemon never closed ended with its step.
    let running = !counter.finished && step.running();
    Job {
        text: format!("=> {}", text::clean(counter.item.as_bytes(), text::Keep::Text)),
        amount: counter.amount(),
        took: counter.took(running, now),
        running,
        colour: if running { Colour::None } else { Colour::Run },
        window: Vec::new(),
        wrote: 0,
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
