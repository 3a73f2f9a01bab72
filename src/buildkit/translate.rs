//! The daemon's status messages as events. Pure: bytes in, events out, the clock passed in.

use super::excerpt::{LineRange, Source};
use crate::event::{Event, StepId, StepState, Stream, Warning};
use crate::pb::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

/// What is remembered between two messages of one build.
///
/// Vertexes are upserts by digest: a later record replaces an earlier one, except that a repeated first record
/// (not started) must not undo a start. A vertex may run several times. Vertexes that share a progress group are
/// one step.
#[derive(Debug, Default)]
pub(super) struct Translator {
    skew: Skew,
    steps: HashMap<StepId, Step>,
    /// Digest to step; the step bears the digest's own name unless the vertex is in a group.
    vertexes: HashMap<String, StepId>,
    warned: HashSet<(StepId, WarningKey)>,
}

/// What makes two warnings the same: messages that are split for their size repeat them.
type WarningKey = (String, Option<String>, String);

/// How far our clock is ahead of the daemon's.
#[derive(Clone, Copy, Debug, Default)]
enum Skew {
    #[default]
    None,
    Ahead(Duration),
    Behind(Duration),
}

impl Skew {
    fn local(self, at: SystemTime) -> SystemTime {
        match self {
            Self::None => at,
            Self::Ahead(by) => at.checked_add(by).unwrap_or(at),
            Self::Behind(by) => at.checked_sub(by).unwrap_or(at),
        }
    }
}

#[derive(Debug)]
struct Step {
    name: String,
    members: Vec<Member>,
    /// A group that only has weak members started so far.
    hidden: bool,
    /// What came for a hidden group meanwhile.
    held: Vec<Event>,
    told: Option<Told>,
}

#[derive(Clone, Debug, PartialEq)]
struct Told {
    name: String,
    state: StepState,
    at: SystemTime,
}

#[derive(Debug)]
struct Member {
    digest: String,
    started: Option<SystemTime>,
    completed: Option<SystemTime>,
    cached: bool,
    error: String,
    weak: bool,
}

impl Translator {
    /// Takes the daemon's clock as it stood `now` by ours: from then on, times are told by our clock.
    pub(super) fn set_daemon_clock(&mut self, daemon: SystemTime, now: SystemTime) {
        self.skew = match now.duration_since(daemon) {
            Ok(ahead) => Skew::Ahead(ahead),
            Err(error) => Skew::Behind(error.duration()),
        };
    }

    /// Returns what a message says that wasn't known before.
    pub(super) fn apply(&mut self, message: StatusResponse, now: SystemTime) -> Vec<Event> {
        let mut events = Vec::new();
        for vertex in message.vertexes {
            self.vertex(vertex, now, &mut events);
        }
        for status in message.statuses {
            let id = self.step_of(&status.vertex);
            let event = self.counter(id.clone(), status, now);
            self.tell(&id, event, &mut events);
        }
        for log in message.logs {
            let id = self.step_of(&log.vertex);
            let event = self.output(id.clone(), log, now);
            self.tell(&id, event, &mut events);
        }
        for warning in message.warnings {
            let id = self.step_of(&warning.vertex);
            let warning = translate_warning(warning);
            let key = (warning.short.clone(), warning.location.clone(), warning.url.clone());
            if self.warned.insert((id.clone(), key)) {
                // Never held back: a warning counts even where its step isn't worth a line.
                events.push(Event::Warning { id, warning });
            }
        }
        events
    }

    /// Returns the ends of the steps whose end the daemon never told.
    pub(super) fn finish(&mut self, now: SystemTime) -> Vec<Event> {
        let running = self.steps.iter_mut().filter_map(|(id, step)| {
            let told = step.told.as_mut().filter(|told| told.state == StepState::Running)?;
            told.state = StepState::Cancelled;
            Some(Event::Step { id: id.clone(), name: told.name.clone(), state: StepState::Cancelled, at: now })
        });
        running.collect()
    }

    fn step_of(&self, digest: &str) -> StepId {
        self.vertexes.get(digest).cloned().unwrap_or_else(|| StepId(digest.to_owned()))
    }

    fn time(&self, stamp: Option<&prost_types::Timestamp>) -> Option<SystemTime> {
        let stamp = stamp?;
        let seconds = Duration::from_secs(u64::try_from(stamp.seconds).unwrap_or_default());
        let nanos = Duration::from_nanos(u64::try_from(stamp.nanos).unwrap_or_default());
        Some(self.skew.local(SystemTime::UNIX_EPOCH + seconds + nanos))
    }

    fn vertex(&mut self, vertex: Vertex, now: SystemTime, events: &mut Vec<Event>) {
        let (id, name, weak, grouped) = match vertex.progress_group {
            Some(group) => (StepId(group.id), group.name, group.weak, true),
            None => (StepId(vertex.digest.clone()), vertex.name, false, false),
        };
        let member = Member {
            started: self.time(vertex.started.as_ref()),
            completed: self.time(vertex.completed.as_ref()),
            digest: vertex.digest,
            cached: vertex.cached,
            error: vertex.error,
            weak,
        };
        self.vertexes.insert(member.digest.clone(), id.clone());
        let step = self.steps.entry(id.clone()).or_insert_with(|| Step {
            name: String::new(),
            members: Vec::new(),
            hidden: grouped,
            held: Vec::new(),
            told: None,
        });
        step.upsert(name, member);
        step.tell(&id, now, events);
    }

    /// Passes an event of a step on, or keeps it while the step is hidden.
    fn tell(&mut self, id: &StepId, event: Event, events: &mut Vec<Event>) {
        match self.steps.get_mut(id) {
            Some(step) if step.hidden => step.held.push(event),
            _ => events.push(event),
        }
    }

    fn counter(&self, id: StepId, status: VertexStatus, now: SystemTime) -> Event {
        let completed = self.time(status.completed.as_ref());
        let at = completed.or_else(|| self.time(status.timestamp.as_ref()));
        Event::Counter {
            id,
            item: status.id,
            done: u64::try_from(status.current).unwrap_or_default(),
            total: u64::try_from(status.total).ok().filter(|total| *total > 0),
            finished: completed.is_some(),
            at: at.unwrap_or(now),
        }
    }

    fn output(&self, id: StepId, log: VertexLog, now: SystemTime) -> Event {
        let stream = if log.stream == 2 { Stream::Stderr } else { Stream::Stdout };
        let at = self.time(log.timestamp.as_ref()).unwrap_or(now);
        Event::Output { id, stream, bytes: log.msg, at }
    }
}

impl Step {
    fn upsert(&mut self, name: String, member: Member) {
        let known = self.members.iter_mut().find(|known| known.digest == member.digest);
        match known {
            Some(known) if known.started.is_some() && member.started.is_none() => return,
            Some(known) => *known = member,
            None => self.members.push(member),
        }
        self.name = name;
    }

    fn tell(&mut self, id: &StepId, now: SystemTime, events: &mut Vec<Event>) {
        let started_strong = self.members.iter().any(|member| member.started.is_some() && !member.weak);
        let failed = self.members.iter().any(|member| !member.error.is_empty());
        if self.hidden && !started_strong && !failed {
            return;
        }
        self.hidden = false;
        let mut say = |told: &Told| {
            let Told { name, state, at } = told.clone();
            events.push(Event::Step { id: id.clone(), name, state, at });
        };
        let fresh = self.state(now);
        if self.told.as_ref().is_some_and(|told| told.is_same(&fresh)) {
            return;
        }
        // A message may tell of start and end at once; displays need the start for the duration.
        let was_running = self.told.as_ref().is_some_and(|told| told.state == StepState::Running);
        if !matches!(fresh.state, StepState::Pending | StepState::Running) && !was_running {
            let start = self.members.iter().filter_map(|member| member.started).max();
            if let Some(at) = start {
                say(&Told { name: fresh.name.clone(), state: StepState::Running, at });
            }
        }
        say(&fresh);
        self.told = Some(fresh);
        events.append(&mut self.held);
    }

    /// Sums the members up: running while one runs, failed with the first error, cached if all are.
    fn state(&self, now: SystemTime) -> Told {
        let name = self.name.clone();
        let open = self.members.iter().filter(|member| member.completed.is_none());
        if let Some(at) = open.filter_map(|member| member.started).min() {
            return Told { name, state: StepState::Running, at };
        }
        let error = self.members.iter().map(|member| member.error.as_str()).find(|error| !error.is_empty());
        let Some(at) = self.members.iter().filter_map(|member| member.completed).max() else {
            let state = error.map_or(StepState::Pending, ended_with);
            return Told { name, state, at: now };
        };
        let cached = self.members.iter().all(|member| member.cached);
        Told { name, state: error.map_or(StepState::Done { cached }, ended_with), at }
    }
}

impl Told {
    fn is_same(&self, fresh: &Self) -> bool {
        // The time of what hasn't started is ours and says nothing.
        let timeless = fresh.state == StepState::Pending || matches!(fresh.state, StepState::Failed(_));
        self.name == fresh.name && self.state == fresh.state && (timeless || self.at == fresh.at)
    }
}

fn ended_with(error: &str) -> StepState {
    // Go's text of a cancelled context, at the end of whatever wraps it.
    match error.ends_with("context canceled") {
        true => StepState::Cancelled,
        false => StepState::Failed(error.to_owned()),
    }
}

fn translate_warning(warning: VertexWarning) -> Warning {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let location = warning.info.and_then(|info| {
        let line = |position: Option<crate::pb::pb::Position>| position.map_or(0, |it| i64::from(it.line));
        let ranges = warning.ranges.into_iter().map(|range| LineRange::of(line(range.start), line(range.end)));
        Source { filename: info.filename, text: String::new(), ranges: ranges.collect() }.location()
    });
    Warning {
        short: text(&warning.short),
        detail: warning.detail.iter().map(|line| text(line)).collect(),
        url: warning.url,
        location,
    }
}
