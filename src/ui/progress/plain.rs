//! `--progress plain`: docker's familiar log form. Steps take turns, and are numbered as they are first shown.
//!
//! What changes is gathered, and printed at the next tick: if the reader is slow, counts that would be outdated
//! anyway are never printed. The timings are those of BuildKit's `util/progress/progressui/printer.go`.

use super::model::{LogLine, Model};
use super::sink::Sink;
use super::{ProgressOptions, Renderer, Seen, summary};
use crate::event::{Event, StepState};
use crate::ui::text::{self, Keep};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

/// How long a step is shown at least while others have something to show, as long as it is not silent itself.
const ANTI_FLICKER: Duration = Duration::from_secs(5);
/// How long a step with something to show waits at most.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A count is printed again after so long,
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// or after so much of its total.
const COUNT_FRACTION: f64 = 0.05;
/// While more than this waits to be written, changes are gathered instead.
const BACKLOG: usize = 64 * 1024;

/// What a step has to show.
struct Waiting {
    since: SystemTime,
    changes: usize,
    lines: Vec<LogLine>,
    counters: BTreeSet<String>,
    warnings: Vec<String>,
}

/// Whose lines are being printed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Nobody,
    Note,
    Step(usize),
}

/// Prints lines.
pub(super) struct Plain {
    options: ProgressOptions,
    turn: Turn,
    turn_began: SystemTime,
    /// Changes printed in this turn.
    turn_changes: usize,
    first: bool,
    numbers: HashMap<usize, usize>,
    waiting: BTreeMap<usize, Waiting>,
    /// The counts as they were last printed.
    counted: HashMap<(usize, String), (u64, bool, SystemTime)>,
    notes: Vec<String>,
    out: Vec<u8>,
}

impl Plain {
    pub(super) fn new(options: ProgressOptions) -> Self {
        Self {
            options,
            turn: Turn::Nobody,
            turn_began: SystemTime::UNIX_EPOCH,
            turn_changes: 0,
            first: true,
            numbers: HashMap::new(),
            waiting: BTreeMap::new(),
            counted: HashMap::new(),
            notes: Vec::new(),
            out: Vec::new(),
        }
    }

    fn say(&mut self, number: usize, text: &str) {
        self.out.extend_from_slice(format!("#{number} {text}\n").as_bytes());
    }

    /// Gives the turn away, saying so if the step that has it is not over.
    fn leave(&mut self) {
        if let Turn::Step(place) = self.turn {
            self.say(self.numbers[&place], "...");
        }
        if !self.first && self.turn != Turn::Note {
            self.out.push(b'\n');
        }
        self.first = false;
    }

    fn print_notes(&mut self) {
        let notes = std::mem::take(&mut self.notes);
        for note in notes.iter().flat_map(|note| note.lines()) {
            if self.turn != Turn::Note {
                self.leave();
                self.turn = Turn::Note;
            }
            self.say(0, &text::clean(note.as_bytes(), Keep::Text));
        }
    }

    fn take_turn(&mut self, model: &Model, place: usize, now: SystemTime) -> usize {
        if self.turn == Turn::Step(place) {
            return self.numbers[&place];
        }
        // Notes form a block of their own.
        if self.turn == Turn::Note {
            self.turn = Turn::Nobody;
        }
        self.leave();
        let next = self.numbers.len() + 1;
        let number = *self.numbers.entry(place).or_insert(next);
        let name = text::clean(model.step(place).name.as_bytes(), Keep::Text);
        let shown = self.options.name_limit.map_or(name.as_str(), |limit| text::cut(&name, limit));
        let ellipsis = if shown.len() < name.len() { "..." } else { "" };
        self.say(number, &format!("{shown}{ellipsis}"));
        (self.turn, self.turn_began, self.turn_changes) = (Turn::Step(place), now, 0);
        number
    }

    /// Prints what a step has to show.
    fn print(&mut self, model: &Model, place: usize, now: SystemTime) {
        let number = self.take_turn(model, place, now);
        let step = model.step(place);
        if let Some(waiting) = self.waiting.remove(&place) {
            self.turn_changes += waiting.changes;
            for counter in step.counters.iter().filter(|counter| waiting.counters.contains(&counter.item)) {
                let key = (place, counter.item.clone());
                let last = self.counted.get(&key);
                if last.is_some_and(|last| too_soon(*last, counter)) {
                    continue;
                }
                self.counted.insert(key, (counter.done, counter.finished, counter.at));
                let took = text::between(counter.first, counter.at).as_secs_f64();
                let took = if took > 0.01 { format!(" {took:.1}s") } else { String::new() };
                let done = if counter.finished { " done" } else { "" };
                let item = text::clean(counter.item.as_bytes(), Keep::Text);
                self.say(number, &format!("{item}{}{took}{done}", counter.amount()));
            }
            for warning in &waiting.warnings {
                self.say(number, &format!("WARN: {}", text::clean(warning.as_bytes(), Keep::Text)));
            }
            for line in &waiting.lines {
                self.print_line(number, line);
            }
        }
        let end = match &step.state {
            StepState::Pending | StepState::Running => return,
            StepState::Done { cached: true } => "CACHED".to_owned(),
            StepState::Done { cached: false } => format!("DONE {:.1}s", step.took(now).as_secs_f64()),
            StepState::Failed(error) => {
                format!("ERROR: {}", text::clean(error.replace('\n', " ").as_bytes(), Keep::Text))
            }
            StepState::Cancelled => "CANCELED".to_owned(),
        };
        self.say(number, &end);
        self.turn = Turn::Nobody;
    }

    fn print_line(&mut self, number: usize, line: &LogLine) {
        self.out.extend_from_slice(format!("#{number} {} ", text::stamp(line.elapsed)).as_bytes());
        if self.options.terminal {
            self.out.extend_from_slice(text::clean(&line.bytes, Keep::Colours).as_bytes());
        } else {
            // Files and CI logs get the bytes as the step wrote them.
            self.out.extend_from_slice(&line.bytes);
        }
        self.out.push(b'\n');
    }

    /// Prints what is due at this time.
    fn print_due(&mut self, model: &Model, now: SystemTime) {
        self.print_notes();
        let mine = |turn| if let Turn::Step(place) = turn { Some(place) } else { None };
        let mut ended: Vec<_> =
            self.waiting.keys().copied().filter(|place| model.step(*place).ended()).collect();
        // Whoever has the turn ends it first, the others in the order of their ends.
        ended.sort_by_key(|place| (Turn::Step(*place) != self.turn, model.step(*place).latest().1));
        for place in ended {
            self.print(model, place, now);
        }

        let current = mine(self.turn);
        if let Some(place) = current.filter(|place| self.waiting.contains_key(place)) {
            self.print(model, place, now);
        }
        let due = match current {
            None => self.longest_waiting(model).or_else(|| {
                // The last lines of the log shall say what is being done.
                let running = model.started().iter().copied().find(|place| model.step(*place).running());
                running.filter(|_| self.turn == Turn::Nobody)
            }),
            Some(_) => self.longest_waiting(model).filter(|place| self.overdue(*place, now)),
        };
        if let Some(place) = due {
            self.print(model, place, now);
        }
    }

    fn longest_waiting(&self, model: &Model) -> Option<usize> {
        let waiting = self.waiting.iter().filter(|(place, _)| model.step(**place).started());
        waiting.min_by_key(|(_, waiting)| waiting.since).map(|(place, _)| *place)
    }

    /// Whether the turn must go on to this step, which waits.
    fn overdue(&self, place: usize, now: SystemTime) -> bool {
        if text::between(self.waiting[&place].since, now) > LONGEST_WAIT {
            return true;
        }
        let others: usize = self.waiting.values().map(|waiting| waiting.changes).sum();
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let share_of_others = others as f64 / (self.turn_changes + others).max(1) as f64;
        text::between(self.turn_began, now).as_secs_f64() * share_of_others > ANTI_FLICKER.as_secs_f64()
    }
}

/// Whether a count has hardly changed since it was printed.
fn too_soon((done, finished, at): (u64, bool, SystemTime), counter: &super::model::CounterView) -> bool {
    if finished || counter.finished {
        return finished;
    }
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let fraction = counter.done.saturating_sub(done) as f64 / counter.total.unwrap_or(u64::MAX).max(1) as f64;
    fraction < COUNT_FRACTION && text::between(at, counter.at) < COUNT_EVERY
}

impl Renderer for Plain {
    fn observe(&mut self, seen: &Seen<'_>, _: &Sink) {
        if let Some(Event::Note(note) | Event::Request(note)) = seen.event {
            self.notes.push(note.clone());
        }
        let Some(place) = seen.change.step else { return };
        if seen.change.stale || matches!(seen.event, Some(Event::Step { state: StepState::Pending, .. })) {
            return;
        }
        let since = seen.now;
        let waiting = self.waiting.entry(place).or_insert_with(|| Waiting {
            since,
            changes: 0,
            lines: Vec::new(),
            counters: BTreeSet::new(),
            warnings: Vec::new(),
        });
        waiting.changes += 1;
        waiting.lines.extend(seen.change.lines.iter().cloned());
        match seen.event {
            Some(Event::Counter { item, .. }) => {
                waiting.counters.insert(item.clone());
            }
            Some(Event::Warning { warning, .. }) => waiting.warnings.push(warning.short.clone()),
            _ => {}
        }
    }

    fn tick(&mut self, model: &Model, now: SystemTime, sink: &Sink) {
        if sink.backlog() < BACKLOG {
            self.print_due(model, now);
            sink.text(&std::mem::take(&mut self.out));
        }
    }

    fn finish(&mut self, model: &Model, now: SystemTime, sink: &Sink) {
        self.print_due(model, now);
        let left: Vec<_> =
            self.waiting.keys().copied().filter(|place| model.step(*place).started()).collect();
        for place in left {
            self.print(model, place, now);
        }
        self.out.extend_from_slice(summary::warnings(model, &self.options).as_bytes());
        sink.text(&std::mem::take(&mut self.out));
    }
}

#[cfg(test)]
#[path = "plain_tests.rs"]
mod tests;
