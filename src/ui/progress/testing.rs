//! Events by hand, for the tests of the displays.

use super::model::Model;
use super::sink::Sink;
use super::{Renderer, Seen};
use crate::event::{Event, StepId, StepState, Stream, Warning};
use bytes::Bytes;
use std::time::{Duration, SystemTime};

/// Returns the moment so many milliseconds into a build.
pub(super) fn ms(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + Duration::from_millis(millis)
}

pub(super) fn id(name: &str) -> StepId {
    StepId(name.to_owned())
}

pub(super) fn step(name: &str, state: StepState, at: u64) -> Event {
    Event::Step { id: id(name), name: name.to_owned(), state, at: ms(at) }
}

pub(super) fn pending(name: &str) -> Event {
    step(name, StepState::Pending, 0)
}

pub(super) fn running(name: &str, at: u64) -> Event {
    step(name, StepState::Running, at)
}

pub(super) fn done(name: &str, at: u64) -> Event {
    step(name, StepState::Done { cached: false }, at)
}

pub(super) fn cached(name: &str, at: u64) -> Event {
    step(name, StepState::Done { cached: true }, at)
}

pub(super) fn failed(name: &str, error: &str, at: u64) -> Event {
    step(name, StepState::Failed(error.to_owned()), at)
}

pub(super) fn output(name: &str, text: &'static str, at: u64) -> Event {
    Event::Output {
        id: id(name),
        stream: Stream::Stdout,
        bytes: Bytes::from_static(text.as_bytes()),
        at: ms(at),
    }
}

pub(super) fn count(name: &str, item: &str, (done, total): (u64, Option<u64>), at: u64) -> Event {
    Event::Counter { id: id(name), item: item.to_owned(), done, total, finished: false, at: ms(at) }
}

pub(super) fn counted(name: &str, item: &str, (done, total): (u64, Option<u64>), at: u64) -> Event {
    Event::Counter { id: id(name), item: item.to_owned(), done, total, finished: true, at: ms(at) }
}

pub(super) fn warning(name: &str, short: &str, location: Option<&str>) -> Event {
    let location = location.map(str::to_owned);
    let detail = vec!["More about it".to_owned()];
    let url = "https://docs.docker.com/go/dockerfile/rule/".to_owned();
    Event::Warning { id: id(name), warning: Warning { short: short.to_owned(), detail, url, location } }
}

/// Plays events into a display without a thread: each is folded at its own time, ticks come as in life, and the
/// end comes at the end. Returns the text, the last frame and what is below it.
pub(super) fn play(
    renderer: &mut impl Renderer,
    events: impl IntoIterator<Item = Event>,
    end: u64,
) -> (String, Option<Vec<String>>, String) {
    let sink = Sink::unwritten();
    let mut model = Model::new(ms(0));
    let mut text = String::new();
    let mut clock = 0;
    let mut pass = |model: &mut Model, renderer: &mut _, until: u64| {
        while clock <= until {
            tick(model, renderer, ms(clock), &sink);
            clock += 150;
        }
        text.push_str(&sink.take().0);
    };
    for event in events {
        let at = match &event {
            Event::Step { at, .. } | Event::Output { at, .. } | Event::Counter { at, .. } => *at,
            Event::Warning { .. } | Event::Note(_) | Event::Request(_) => ms(0),
        };
        let millis = at.duration_since(ms(0)).unwrap_or_default().as_millis();
        pass(&mut model, renderer, u64::try_from(millis).unwrap().saturating_sub(1));
        let change = model.apply(&event, at);
        renderer.observe(&Seen { model: &model, event: Some(&event), change: &change, now: at }, &sink);
    }
    pass(&mut model, renderer, end);
    renderer.finish(&model, ms(end), &sink);
    let (rest, frame, after) = sink.take();
    text.push_str(&rest);
    (text, frame, after)
}

fn tick(model: &mut Model, renderer: &mut impl Renderer, now: SystemTime, sink: &Sink) {
    for change in model.flush(now, super::HALF_A_LINE) {
        renderer.observe(&Seen { model, event: None, change: &change, now }, sink);
    }
    renderer.tick(model, now, sink);
}
