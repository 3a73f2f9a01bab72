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
        // A group is told when all its members in the message are known, or it would end and start again
        // between two of them.
        let mut groups: Vec<StepId> = Vec::new();
        for vertex in message.vertexes {
            let grouped = vertex.progress_group.is_some();
            let id = self.vertex(vertex);
            match grouped {
                false => self.tell_step(&id, now, &mut events),
                true if groups.contains(&id) => {}
                true => groups.push(id),
            }
        }
        for id in groups {
            self.tell_step(&id, now, &mut events);
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
            Some(Event::Step {
                id: id.clone(),
                name: told.name.clone(),
                state: StepState::Cancelled,
                at: now,
            })
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

    /// Takes a record in and returns the step that it belongs to.
    fn vertex(&mut self, vertex: Vertex) -> StepId {
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
        id
    }

    fn tell_step(&mut self, id: &StepId, now: SystemTime, events: &mut Vec<Event>) {
        if let Some(step) = self.steps.get_mut(id) {
            step.tell(id, now, events);
        }
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
        let ranges =
            warning.ranges.into_iter().map(|range| LineRange::of(line(range.start), line(range.end)));
        Source { filename: info.filename, text: String::new(), ranges: ranges.collect() }.location()
    });
    Warning {
        short: text(&warning.short),
        detail: warning.detail.iter().map(|line| text(line)).collect(),
        url: warning.url,
        location,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::pb::{Position, ProgressGroup, Range, SourceInfo};

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn stamp(seconds: i64) -> Option<prost_types::Timestamp> {
        (seconds > 0).then_some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    /// A vertex; zero times are unset.
    fn vertex(digest: &str, started: i64, completed: i64) -> Vertex {
        Vertex {
            digest: digest.to_owned(),
            name: format!("step {digest}"),
            started: stamp(started),
            completed: stamp(completed),
            ..Vertex::default()
        }
    }

    fn grouped(digest: &str, started: i64, completed: i64, weak: bool) -> Vertex {
        let group = ProgressGroup { id: "g".to_owned(), name: "group".to_owned(), weak };
        Vertex { progress_group: Some(group), ..vertex(digest, started, completed) }
    }

    fn vertexes(vertexes: impl Into<Vec<Vertex>>) -> StatusResponse {
        StatusResponse { vertexes: vertexes.into(), ..StatusResponse::default() }
    }

    fn log(digest: &str, text: &str) -> StatusResponse {
        let log = VertexLog {
            vertex: digest.to_owned(),
            stream: 2,
            msg: text.as_bytes().to_vec().into(),
            ..VertexLog::default()
        };
        StatusResponse { logs: vec![log], ..StatusResponse::default() }
    }

    /// Events in brief: `step a:Running@5`.
    fn brief(events: Vec<Event>) -> Vec<String> {
        let seconds = |at: SystemTime| at.duration_since(NOW).expect("after the epoch").as_secs();
        let one = |event| match event {
            Event::Step { name, state, at, .. } => format!("{name}:{state:?}@{}", seconds(at)),
            Event::Counter { id, item, done, total, finished, at } => {
                format!("{}:{item} {done}/{total:?} {finished}@{}", id.0, seconds(at))
            }
            Event::Output { id, stream, bytes, .. } => {
                format!("{}:{stream:?} {}", id.0, String::from_utf8_lossy(&bytes))
            }
            Event::Warning { id, warning } => {
                format!("{}:{} {:?}", id.0, warning.short, warning.location)
            }
            Event::Note(text) | Event::Request(text) => text,
        };
        events.into_iter().map(one).collect()
    }

    /// What a fresh translator tells of some messages.
    fn told(messages: impl IntoIterator<Item = StatusResponse>) -> Vec<String> {
        let mut translator = Translator::default();
        brief(messages.into_iter().flat_map(|message| translator.apply(message, NOW)).collect())
    }

    #[test]
    fn records_are_upserts() {
        let events = told([
            vertexes([vertex("a", 0, 0)]),
            vertexes([vertex("a", 0, 0), vertex("a", 5, 0)]),
            vertexes([vertex("a", 5, 0), vertex("a", 0, 0)]),
            vertexes([vertex("a", 5, 7)]),
            vertexes([vertex("a", 5, 7), vertex("a", 0, 0)]),
        ]);
        assert_eq!(events, ["step a:Pending@0", "step a:Running@5", "step a:Done { cached: false }@7"]);
    }

    #[test]
    fn a_step_may_run_again() {
        let events = told([
            vertexes([vertex("a", 5, 7)]),
            vertexes([vertex("a", 9, 0)]),
            vertexes([vertex("a", 9, 12)]),
        ]);
        assert_eq!(
            events,
            [
                "step a:Running@5",
                "step a:Done { cached: false }@7",
                "step a:Running@9",
                "step a:Done { cached: false }@12",
            ]
        );
    }

    #[test]
    fn ends_are_told_apart() {
        let mut cached = vertex("a", 5, 5);
        cached.cached = true;
        let mut failed = vertex("b", 5, 6);
        failed.error = "exit code: 1".to_owned();
        let mut cancelled = vertex("c", 5, 6);
        cancelled.error = "process \"x\": context canceled".to_owned();
        let events = told([vertexes([cached, failed, cancelled])]);
        assert_eq!(events[1], "step a:Done { cached: true }@5");
        assert_eq!(events[3], "step b:Failed(\"exit code: 1\")@6");
        assert_eq!(events[5], "step c:Cancelled@6");
    }

    #[test]
    fn what_never_ended_counts_as_cancelled() {
        let mut translator = Translator::default();
        translator.apply(vertexes([vertex("a", 5, 0), vertex("b", 5, 6), vertex("c", 0, 0)]), NOW);
        assert_eq!(brief(translator.finish(NOW)), ["step a:Cancelled@0"]);
        assert!(translator.finish(NOW).is_empty(), "told once");
    }

    #[test]
    fn a_group_is_one_step() {
        let events = told([
            vertexes([grouped("a", 5, 0, false), grouped("b", 0, 0, false)]),
            log("b", "out"),
            vertexes([grouped("a", 5, 7, false), grouped("b", 6, 0, false)]),
            vertexes([grouped("b", 6, 9, false)]),
        ]);
        assert_eq!(
            events,
            ["group:Running@5", "g:Stderr out", "group:Running@6", "group:Done { cached: false }@9"],
            "output of a member is the group's"
        );
    }

    #[test]
    fn a_group_is_cached_only_as_a_whole_and_fails_with_its_first_error() {
        let member = |digest, cached, error: &str| {
            let error = error.to_owned();
            Vertex { cached, error, ..grouped(digest, 5, 6, false) }
        };
        let last = |members: [Vertex; 2]| told([vertexes(members)]).pop();
        let all = last([member("a", true, ""), member("b", true, "")]);
        assert_eq!(all.as_deref(), Some("group:Done { cached: true }@6"));
        let some = last([member("a", true, ""), member("b", false, "")]);
        assert_eq!(some.as_deref(), Some("group:Done { cached: false }@6"));
        let failed = last([member("a", false, "first"), member("b", false, "second")]);
        assert_eq!(failed.as_deref(), Some("group:Failed(\"first\")@6"));
    }

    #[test]
    fn a_group_hides_until_a_member_that_counts_has_started() {
        let mut translator = Translator::default();
        let mut tell = |message| brief(translator.apply(message, NOW));
        assert!(tell(vertexes([grouped("a", 5, 0, true)])).is_empty());
        assert!(tell(log("a", "kept")).is_empty());
        assert_eq!(tell(vertexes([grouped("b", 6, 0, false)])), ["group:Running@5", "g:Stderr kept"]);
        assert_eq!(tell(log("a", "passed")), ["g:Stderr passed"]);
    }

    #[test]
    fn counters_say_what_they_count() {
        let status = |current, total, completed| VertexStatus {
            id: "transferring context:".to_owned(),
            vertex: "a".to_owned(),
            current,
            total,
            timestamp: stamp(5),
            completed: stamp(completed),
            ..VertexStatus::default()
        };
        let statuses = vec![status(1, 0, 0), status(2, 4, 0), status(-1, -1, 6)];
        let events = told([StatusResponse { statuses, ..StatusResponse::default() }]);
        assert_eq!(
            events,
            [
                "a:transferring context: 1/None false@5",
                "a:transferring context: 2/Some(4) false@5",
                "a:transferring context: 0/None true@6",
            ]
        );
    }

    #[test]
    fn a_repeated_warning_is_told_once() {
        let warning = |line| VertexWarning {
            vertex: "a".to_owned(),
            short: b"JSONArgsRecommended: use JSON".to_vec().into(),
            detail: vec![b"more \xff".to_vec().into()],
            info: Some(SourceInfo { filename: "Dockerfile".to_owned(), ..SourceInfo::default() }),
            ranges: vec![Range { start: Some(Position { line, character: 0 }), end: None }],
            ..VertexWarning::default()
        };
        let message = |line| StatusResponse { warnings: vec![warning(line)], ..StatusResponse::default() };
        let events = told([message(3), message(3), message(7)]);
        assert_eq!(
            events,
            [
                r#"a:JSONArgsRecommended: use JSON Some("Dockerfile:3")"#,
                r#"a:JSONArgsRecommended: use JSON Some("Dockerfile:7")"#,
            ]
        );
        let Some(Event::Warning { warning, .. }) = Translator::default().apply(message(3), NOW).pop() else {
            panic!("a warning")
        };
        assert_eq!(warning.detail, ["more \u{fffd}"]);
    }

    #[test]
    fn clocks_are_aligned_both_ways() {
        let at = |seconds| NOW + Duration::from_secs(seconds);
        for (daemon, ours, told) in [(100, 160, "65"), (160, 100, "0"), (70, 70, "5")] {
            let mut translator = Translator::default();
            translator.set_daemon_clock(at(daemon), at(ours));
            let started = if daemon > ours { 60 } else { 5 };
            let events = brief(translator.apply(vertexes([vertex("a", started, 0)]), NOW));
            assert_eq!(events, [format!("step a:Running@{told}")]);
        }
    }
}
