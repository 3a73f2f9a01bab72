//! The state of a build as a pure fold over its events; every display draws from it.
//!
//! Times within a step are compared by the clock of whoever runs it, and running steps are timed from the moment
//! their start was folded, by our own clock: the daemon's clock may be minutes away from ours.

use crate::event::{Event, StepId, StepState, Stream, Warning};
use crate::ui::text;
use bytes::Bytes;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, SystemTime};

/// The lines of output that a step keeps for the report of its failure, as many as docker shows.
const KEPT_LINES: usize = 10;
/// The longest line that is waited for; a longer one is broken.
const LONGEST_LINE: usize = 64 * 1024;

/// A line of a step's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogLine {
    /// Since the step's latest start.
    pub(super) elapsed: Duration,
    /// The bytes as written, without the newline.
    pub(super) bytes: Vec<u8>,
}

/// What folding one event changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// The step it was about, by its place in [`Model::steps`].
    pub(super) step: Option<usize>,
    /// The lines of output that became whole.
    pub(super) lines: Vec<LogLine>,
    /// Nothing that could be seen changed.
    pub(super) stale: bool,
}

/// A count within a step.
#[derive(Clone, Debug)]
pub(super) struct CounterView {
    pub(super) item: String,
    pub(super) done: u64,
    pub(super) total: Option<u64>,
    pub(super) finished: bool,
    pub(super) first: SystemTime,
    pub(super) at: SystemTime,
    /// When the first was folded, by our clock.
    since: SystemTime,
}

impl CounterView {
    /// Returns how long it has been counting: until now if it still does.
    pub(super) fn took(&self, running: bool, now: SystemTime) -> Duration {
        if running { text::between(self.since, now) } else { text::between(self.first, self.at) }
    }

    /// Returns how much is done, as in ` 1.23MB / 4.56MB`; empty if nothing is.
    pub(super) fn amount(&self) -> String {
        match (self.done, self.total.filter(|total| *total > 0)) {
            (done, Some(total)) => format!(" {} / {}", text::bytes(done), text::bytes(total)),
            (0, None) => String::new(),
            (done, None) => format!(" {}", text::bytes(done)),
        }
    }
}

/// The beginning of a line that has not ended.
#[derive(Clone, Debug, Default)]
struct Partial {
    elapsed: Duration,
    bytes: Vec<u8>,
    /// By our clock.
    since: Option<SystemTime>,
}

/// One step as it stands.
#[derive(Clone, Debug)]
pub(super) struct StepView {
    pub(super) id: StepId,
    pub(super) name: String,
    pub(super) state: StepState,
    /// Starts and ends by the step's clock; only the last may be open.
    intervals: Vec<(SystemTime, Option<SystemTime>)>,
    /// When the running interval's start was folded, by our clock.
    since: Option<SystemTime>,
    pub(super) counters: Vec<CounterView>,
    /// The last lines of output.
    pub(super) tail: VecDeque<LogLine>,
    partial: [Partial; 2],
    /// When it last wrote something, by our clock.
    pub(super) wrote: Option<SystemTime>,
}

impl StepView {
    fn new(id: StepId) -> Self {
        Self {
            name: id.0.clone(),
            id,
            state: StepState::Pending,
            intervals: Vec::new(),
            since: None,
            counters: Vec::new(),
            tail: VecDeque::new(),
            partial: Default::default(),
            wrote: None,
        }
    }

    /// Whether it has ever started; steps that have not are counted, not shown.
    pub(super) fn started(&self) -> bool {
        !self.intervals.is_empty()
    }

    /// Whether it runs now.
    pub(super) fn running(&self) -> bool {
        self.state == StepState::Running
    }

    /// Whether it has ended, in whichever way.
    pub(super) fn ended(&self) -> bool {
        matches!(self.state, StepState::Done { .. } | StepState::Failed(_) | StepState::Cancelled)
    }

    /// Returns the start and the end of its latest run.
    pub(super) fn latest(&self) -> (Option<SystemTime>, Option<SystemTime>) {
        self.intervals.last().map_or((None, None), |(start, end)| (Some(*start), *end))
    }

    /// Returns the time that it has run in all, overlaps counted once.
    pub(super) fn took(&self, now: SystemTime) -> Duration {
        let mut sum = self.since.map_or(Duration::ZERO, |since| text::between(since, now));
        let mut closed: Vec<_> =
            self.intervals.iter().filter_map(|(start, end)| Some((*start, (*end)?))).collect();
        closed.sort_unstable();
        let mut covered: Option<SystemTime> = None;
        for (start, end) in closed {
            let start = covered.map_or(start, |covered| covered.max(start));
            sum += text::between(start, end);
            covered = Some(covered.map_or(end, |covered| covered.max(end)));
        }
        sum
    }

    /// Returns the last lines of output, the unfinished ones included, as a terminal would show them.
    pub(super) fn window(&self, lines: usize) -> Vec<String> {
        let partial = self.partial.iter().map(|partial| &partial.bytes).filter(|bytes| !bytes.is_empty());
        let all = self.tail.iter().map(|line| &line.bytes).chain(partial);
        let mut shown: Vec<_> = all
            .map(|bytes| text::clean(bytes, text::Keep::Text))
            .filter(|line| !line.trim().is_empty())
            .collect();
        shown.drain(..shown.len().saturating_sub(lines));
        shown
    }

    /// Moves to a state; returns false if that changed nothing.
    fn enter(&mut self, state: StepState, at: SystemTime, now: SystemTime) -> bool {
        match state {
            // The daemon repeats the initial record, and that must not reset a step.
            StepState::Pending => return false,
            StepState::Running => {
                if self.intervals.iter().any(|(start, _)| *start == at) {
                    return false;
                }
                // A step of a shared group starts again while it runs.
                if let Some((_, end @ None)) = self.intervals.last_mut() {
                    *end = Some(at);
                }
                self.intervals.push((at, None));
                self.since = Some(now);
            }
            _ => {
                if self.state == state && self.latest().1 == Some(at) {
                    return false;
                }
                match self.intervals.last_mut() {
                    Some((_, end)) => *end = Some(end.map_or(at, |end| end.max(at))),
                    None => self.intervals.push((at, Some(at))),
                }
                self.since = None;
            }
        }
        self.state = state;
        true
    }

    /// Splits a chunk of output into lines.
    fn write(&mut self, stream: Stream, bytes: &Bytes, at: SystemTime, now: SystemTime) -> Vec<LogLine> {
        let elapsed = self.latest().0.map_or(Duration::ZERO, |start| text::between(start, at));
        self.wrote = Some(now);
        let mut lines = Vec::new();
        let partial = &mut self.partial[stream as usize];
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if partial.bytes.is_empty() {
                partial.elapsed = elapsed;
                partial.since = Some(now);
            }
            let (text, whole) = match piece {
                [text @ .., b'\n'] => (text, true),
                text => (text, false),
            };
            partial.bytes.extend_from_slice(text);
            if whole || partial.bytes.len() >= LONGEST_LINE {
                lines.push(partial.take());
            }
        }
        self.keep(&lines);
        lines
    }

    /// Ends the unfinished lines that `due` chooses.
    fn flush(&mut self, due: impl Fn(SystemTime) -> bool) -> Vec<LogLine> {
        let waiting = self.partial.iter_mut().filter(|partial| partial.since.is_some_and(&due));
        let lines: Vec<_> = waiting.filter(|partial| !partial.bytes.is_empty()).map(Partial::take).collect();
        self.keep(&lines);
        lines
    }

    fn keep(&mut self, lines: &[LogLine]) {
        self.tail.extend(lines.iter().skip(lines.len().saturating_sub(KEPT_LINES)).cloned());
        let excess = self.tail.len().saturating_sub(KEPT_LINES);
        self.tail.drain(..excess);
    }
}

impl Partial {
    fn take(&mut self) -> LogLine {
        self.since = None;
        LogLine { elapsed: self.elapsed, bytes: std::mem::take(&mut self.bytes) }
    }
}

/// Everything known of the build.
#[derive(Clone, Debug)]
pub(super) struct Model {
    began: SystemTime,
    steps: Vec<StepView>,
    places: HashMap<StepId, usize>,
    /// Places of the started steps, in the order of their first starts.
    started: Vec<usize>,
    warnings: Vec<Warning>,
    warned: HashSet<(String, Option<String>)>,
}

impl Model {
    /// Returns the model of a build that begins now.
    pub(super) fn new(now: SystemTime) -> Self {
        Self {
            began: now,
            steps: Vec::new(),
            places: HashMap::new(),
            started: Vec::new(),
            warnings: Vec::new(),
            warned: HashSet::new(),
        }
    }

    /// Folds one event in, at this time by our clock.
    pub(super) fn apply(&mut self, event: &Event, now: SystemTime) -> Change {
        match event {
            Event::Step { id, name, state, at } => {
                let place = self.place(id);
                let step = &mut self.steps[place];
                let unseen = !step.started();
                let renamed = step.name != *name;
                step.name.clone_from(name);
                let changed = step.enter(cancelled_or(state), *at, now);
                let lines = if changed && step.ended() { step.flush(|_| true) } else { Vec::new() };
                if unseen && step.started() {
                    self.started.push(place);
                }
                Change { step: Some(place), lines, stale: !changed && !renamed }
            }
            Event::Counter { id, item, done, total, finished, at } => {
                let place = self.place(id);
                let counters = &mut self.steps[place].counters;
                let known = counters.iter().position(|counter| counter.item == *item);
                let (first, since) = known.map_or((*at, now), |at| (counters[at].first, counters[at].since));
                let item = item.clone();
                let counter = CounterView {
                    item,
                    done: *done,
                    total: *total,
                    finished: *finished,
                    first,
                    at: *at,
                    since,
                };
                match known {
                    Some(at) => counters[at] = counter,
                    None => counters.push(counter),
                }
                Change { step: Some(place), ..Change::default() }
            }
            Event::Output { id, stream, bytes, at } => {
                let place = self.place(id);
                let lines = self.steps[place].write(*stream, bytes, *at, now);
                Change { step: Some(place), stale: lines.is_empty(), lines }
            }
            Event::Warning { id, warning } => {
                let place = self.place(id);
                // The daemon repeats warnings in every part of a long message.
                let new = self.warned.insert((warning.short.clone(), warning.location.clone()));
                if new {
                    self.warnings.push(warning.clone());
                }
                Change { step: Some(place), stale: !new, ..Change::default() }
            }
            Event::Note(_) | Event::Request(_) => Change::default(),
        }
    }

    /// Ends lines that have waited for their newline for `age`, so that a question without one is seen.
    pub(super) fn flush(&mut self, now: SystemTime, age: Duration) -> Vec<Change> {
        let mut changes = Vec::new();
        for &place in &self.started {
            let lines = self.steps[place].flush(|since| text::between(since, now) >= age);
            if !lines.is_empty() {
                changes.push(Change { step: Some(place), lines, stale: false });
            }
        }
        changes
    }

    fn place(&mut self, id: &StepId) -> usize {
        if let Some(place) = self.places.get(id) {
            return *place;
        }
        let place = self.steps.len();
        self.steps.push(StepView::new(id.clone()));
        self.places.insert(id.clone(), place);
        place
    }

    /// Returns the step at a place that a [`Change`] named.
    pub(super) fn step(&self, place: usize) -> &StepView {
        &self.steps[place]
    }

    /// Returns the started steps in the order of their first starts.
    pub(super) fn steps(&self) -> impl DoubleEndedIterator<Item = &StepView> {
        self.started.iter().map(|place| &self.steps[*place])
    }

    /// Returns the places of the started steps in the order of their first starts.
    pub(super) fn started(&self) -> &[usize] {
        &self.started
    }

    /// Returns how many steps have ended, and how many are known.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.steps.iter().filter(|step| step.ended()).count(), self.steps.len())
    }

    /// Returns the time since the build began.
    pub(super) fn elapsed(&self, now: SystemTime) -> Duration {
        text::between(self.began, now)
    }

    /// Returns the warnings, each once, in the order of their coming.
    pub(super) fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

/// Go's way of saying that a step ended because everything did.
fn cancelled_or(state: &StepState) -> StepState {
    match state {
        StepState::Failed(error) if error.ends_with("context canceled") => StepState::Cancelled,
        state => state.clone(),
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
