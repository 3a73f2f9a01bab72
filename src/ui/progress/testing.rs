//! Events by hand, for the tests of the displays.

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
    Event::Output { id: id(name), stream: Stream::Stdout, bytes: Bytes::from_static(text.as_bytes()), at: ms(at) }
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
