//! What happens during a build, as one stream for the daemon's steps and our own.
//!
//! Producers hold [`Events`] and know nothing of displays; with nobody listening every call is a no-op.
//! This module uses no other module of ours.

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use tokio::sync::mpsc;

/// Identifies a step: the vertex digest for the daemon's steps, a name of ours for the client's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub String);

impl StepId {
    /// Returns the id of a step that the client itself makes.
    pub fn client(name: &str) -> Self {
        Self(format!("client:{name}"))
    }
}

/// Where a step stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepState {
    /// Known, not started.
    Pending,
    /// Running since `Event::Step::at`.
    Running,
    /// Ended well.
    Done {
        /// The result came from the cache.
        cached: bool,
    },
    /// Ended with this text.
    Failed(String),
    /// Ended because the build was cancelled.
    Cancelled,
}

/// The stream that a chunk of output was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The step's standard output.
    Stdout,
    /// The step's standard error.
    Stderr,
}

/// A warning of a frontend, such as a lint rule's.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Warning {
    /// One line.
    pub short: String,
    /// More lines, possibly none.
    pub detail: Vec<String>,
    /// Where to read on; empty if nowhere.
    pub url: String,
    /// `Dockerfile:7`, if the daemon said where.
    pub location: Option<String>,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A step is known, started or ended; later events with one id supersede earlier ones.
    Step {
        /// Which step.
        id: StepId,
        /// What a person reads.
        name: String,
        /// Where it stands.
        state: StepState,
        /// When it came to stand there, by the clock of whoever runs the step.
        at: SystemTime,
    },
    /// A count within a step; supersedes the one before with the same item.
    Counter {
        /// Which step.
        id: StepId,
        /// What is counted, such as `transferring context`.
        item: String,
        /// How much is done (bytes where `unit_bytes`).
        done: u64,
        /// How much there is, where known.
        total: Option<u64>,
        /// The item ended.
        finished: bool,
        /// When.
        at: SystemTime,
    },
    /// Output of a step: arbitrary chunks, not lines.
    Output {
        /// Which step.
        id: StepId,
        /// Which stream of it.
        stream: Stream,
        /// The bytes as the step wrote them.
        bytes: Bytes,
        /// When.
        at: SystemTime,
    },
    /// A warning belonging to a step.
    Warning {
        /// Which step.
        id: StepId,
        /// The warning.
        warning: Warning,
    },
    /// A line for the person, outside of any step (`#0` in plain progress).
    Note(String),
    /// Something that the person is asked to do, shown in every mode: a quiet build waits for it, too.
    Request(String),
}

impl Event {
    /// Daemons know nothing of one another: the same step of two has the same id.
    fn in_lane(mut self, lane: &str) -> Self {
        match &mut self {
            Self::Step { id, name, .. } => {
                id.0 = format!("{lane}:{}", id.0);
                *name = lane_name(lane, name);
            }
            Self::Counter { id, .. } | Self::Output { id, .. } | Self::Warning { id, .. } => {
                id.0 = format!("{lane}:{}", id.0);
            }
            Self::Note(_) | Self::Request(_) => {}
        }
        self
    }
}

/// Puts the lane into the brackets that a step's name begins with, as docker does with a node's name, unless a platform
/// stands there.
fn lane_name(lane: &str, name: &str) -> String {
    let Some(inside) = name.strip_prefix('[') else { return format!("[{lane}] {name}") };
    let first = inside.split([' ', ']']).next().unwrap_or_default();
    let system = first.split_once('/').map_or("", |(system, _)| system);
    if !system.is_empty() && system.chars().all(|c| c.is_ascii_alphabetic()) {
        return name.to_owned();
    }
    format!("[{lane} {inside}")
}

/// The handle that producers hold. Cheap to clone; sending never blocks and never fails.
///
/// The channel is unbounded because the display task folds events at once, whatever the terminal does: a slow
/// terminal must never hold up the status stream, which shares its connection with the file transfer.
#[derive(Clone, Debug, Default)]
pub struct Events {
    sender: Option<mpsc::UnboundedSender<Event>>,
    /// Whose steps these are, where several builders tell theirs at once.
    lane: Option<Arc<str>>,
}

impl Events {
    /// Returns a handle and the end that a display reads.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender: Some(sender), lane: None }, receiver)
    }

    /// Returns a handle that nobody listens to.
    pub fn off() -> Self {
        Self::default()
    }

    /// Returns a handle for one of several builders: its steps are told apart by this name.
    pub fn lane(&self, name: &str) -> Self {
        Self { sender: self.sender.clone(), lane: Some(name.into()) }
    }

    /// Sends one event; a no-op when nobody listens any more.
    pub fn send(&self, event: Event) {
        if let Some(sender) = &self.sender {
            let event = match &self.lane {
                Some(lane) => event.in_lane(lane),
                None => event,
            };
            // A closed display is not a reason to fail a build.
            let _closed = sender.send(event);
        }
    }

    /// Sends a line for the person.
    pub fn note(&self, text: impl Into<String>) {
        self.send(Event::Note(text.into()));
    }

    /// Sends a line on what the person is asked to do.
    pub fn request(&self, text: impl Into<String>) {
        self.send(Event::Request(text.into()));
    }

    /// Starts a step of the client's own; it ends when the returned guard says so, and counts as cancelled
    /// when the guard is dropped unsaid.
    pub fn step(&self, id: &str, name: impl Into<String>) -> Step {
        let step = Step { events: self.clone(), id: StepId::client(id), name: name.into(), ended: false };
        step.say(StepState::Running);
        step
    }

    /// Starts a step of a kind of which several may run at a time.
    pub fn step_among(&self, kind: &str, name: impl Into<String>) -> Step {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.step(&format!("{kind} {}", NEXT.fetch_add(1, Ordering::Relaxed)), name)
    }
}

/// A running step of the client's own.
#[derive(Debug)]
pub struct Step {
    events: Events,
    id: StepId,
    name: String,
    ended: bool,
}

impl Step {
    fn say(&self, state: StepState) {
        let (id, name) = (self.id.clone(), self.name.clone());
        self.events.send(Event::Step { id, name, state, at: SystemTime::now() });
    }

    /// Writes a line of output under the step.
    pub fn line(&self, text: impl AsRef<str>) {
        let bytes = Bytes::from(format!("{}\n", text.as_ref()));
        let id = self.id.clone();
        self.events.send(Event::Output { id, stream: Stream::Stderr, bytes, at: SystemTime::now() });
    }

    /// Counts something under the step.
    pub fn count(&self, item: &str, done: u64, total: Option<u64>, finished: bool) {
        let id = self.id.clone();
        let item = item.to_owned();
        self.events.send(Event::Counter { id, item, done, total, finished, at: SystemTime::now() });
    }

    /// Ends the step well.
    pub fn done(mut self) {
        self.ended = true;
        self.say(StepState::Done { cached: false });
    }

    /// Ends the step well, its result found rather than made.
    pub fn cached(mut self) {
        self.ended = true;
        self.say(StepState::Done { cached: true });
    }

    /// Ends the step as its work did, and hands on what came of it.
    pub fn end<T, E: std::fmt::Display>(self, outcome: Result<T, E>) -> Result<T, E> {
        match &outcome {
            Ok(_) => self.done(),
            Err(error) => self.fail(error),
        }
        outcome
    }

    /// Ends the step with a failure.
    pub fn fail(mut self, error: impl std::fmt::Display) {
        self.ended = true;
        self.say(StepState::Failed(error.to_string()));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.say(StepState::Cancelled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unread_handle_is_inert() {
        Events::off().note("nobody hears this");
        let (events, receiver) = Events::channel();
        drop(receiver);
        events.step("push", "pushing").done();
    }

    #[test]
    fn lanes_tell_the_same_step_of_two_builders_apart() {
        let (events, mut receiver) = Events::channel();
        for lane in ["amd64", "arm64"] {
            events.lane(lane).step("x", "[internal] load").line("text");
        }
        let ids = std::iter::from_fn(|| receiver.try_recv().ok()).map(|event| match event {
            Event::Step { id, name, .. } => format!("{} {name}", id.0),
            Event::Output { id, .. } => id.0,
            other => panic!("unexpected {other:?}"),
        });
        let ids: std::collections::BTreeSet<String> = ids.collect();
        let expected = [
            "amd64:client:x",
            "amd64:client:x [amd64 internal] load",
            "arm64:client:x",
            "arm64:client:x [arm64 internal] load",
        ];
        assert_eq!(ids.into_iter().collect::<Vec<_>>(), expected);
        for (name, shown) in [
            ("exporting", "[arm64] exporting"),
            ("[1/2] FROM x", "[arm64 1/2] FROM x"),
            ("[build 1/2] RUN x", "[arm64 build 1/2] RUN x"),
            ("[linux/arm64 1/2] RUN x", "[linux/arm64 1/2] RUN x"),
        ] {
            assert_eq!(lane_name("arm64", name), shown);
        }
    }

    #[test]
    fn a_dropped_step_counts_as_cancelled() {
        let (events, mut receiver) = Events::channel();
        drop(events.step("sign", "signing"));
        let states: Vec<_> = std::iter::from_fn(|| receiver.try_recv().ok())
            .map(|event| match event {
                Event::Step { state, .. } => state,
                other => panic!("unexpected {other:?}"),
            })
            .collect();
        assert_eq!(states, [StepState::Running, StepState::Cancelled]);
    }
}
