//! `--progress rawjson`: one JSON object a line in the form of BuildKit's `client.SolveStatus`
//! (`client/graph.go`), as `buildx --progress=rawjson` prints it.

use super::model::{Model, StepView};
use super::sink::Sink;
use super::{Renderer, Seen};
use crate::event::{Event, StepId, StepState, Stream, Warning};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use std::time::SystemTime;

/// Writes every event as it comes.
pub(super) struct Json {
    /// Makes each note's vertex its own.
    notes: usize,
}

#[derive(Default, Serialize)]
struct SolveStatus<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    vertexes: Option<[Vertex<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statuses: Option<[VertexStatus<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<[VertexLog; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<[VertexWarning<'a>; 1]>,
}

#[derive(Serialize)]
struct Vertex<'a> {
    digest: String,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

#[derive(Serialize)]
struct VertexStatus<'a> {
    id: &'a str,
    vertex: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    current: u64,
    timestamp: String,
    started: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
}

#[derive(Serialize)]
struct VertexLog {
    vertex: String,
    stream: u8,
    data: String,
    timestamp: String,
}

#[derive(Serialize)]
struct VertexWarning<'a> {
    vertex: String,
    level: u8,
    short: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'a str,
}

impl Json {
    pub(super) fn new() -> Self {
        Self { notes: 0 }
    }

    fn status<'a>(
        &mut self,
        event: &'a Event,
        step: Option<&'a StepView>,
        now: SystemTime,
    ) -> SolveStatus<'a> {
        let mut status = SolveStatus::default();
        match event {
            Event::Step { .. } => status.vertexes = step.map(|step| [vertex(step)]),
            Event::Counter { id, item, done, total, finished, at } => {
                let known = step.and_then(|step| step.counters.iter().find(|counter| counter.item == *item));
                status.statuses = Some([VertexStatus {
                    id: item,
                    vertex: as_digest(id),
                    total: total.filter(|total| *total > 0),
                    current: *done,
                    timestamp: rfc3339(*at),
                    started: rfc3339(known.map_or(*at, |counter| counter.first)),
                    completed: finished.then(|| rfc3339(*at)),
                }]);
            }
            Event::Output { id, stream, bytes, at } => {
                status.logs = Some([VertexLog {
                    vertex: as_digest(id),
                    stream: match stream {
                        Stream::Stdout => 1,
                        Stream::Stderr => 2,
                    },
                    data: BASE64_STANDARD.encode(bytes),
                    timestamp: rfc3339(*at),
                }]);
            }
            Event::Warning { id, warning } => status.warnings = Some([vertex_warning(id, warning)]),
            Event::Note(note) | Event::Request(note) => {
                // SolveStatus knows no such thing; a step that is over at once shows as the same line.
                self.notes += 1;
                status.vertexes = Some([Vertex {
                    digest: as_digest(&StepId::client(&format!("note {}", self.notes))),
                    name: note,
                    started: Some(rfc3339(now)),
                    completed: Some(rfc3339(now)),
                    cached: false,
                    error: "",
                }]);
            }
        }
        status
    }
}

impl Renderer for Json {
    fn observe(&mut self, seen: &Seen<'_>, sink: &Sink) {
        let Some(event) = seen.event else { return };
        // The daemon repeats warnings with every part of a long message.
        if seen.change.stale && matches!(event, Event::Warning { .. }) {
            return;
        }
        let step = seen.change.step.map(|place| seen.model.step(place));
        let mut line = serde_json::to_vec(&self.status(event, step, seen.now)).expect("strings and numbers");
        line.push(b'\n');
        sink.text(&line);
    }

    fn tick(&mut self, _: &Model, _: SystemTime, _: &Sink) {}

    fn finish(&mut self, _: &Model, _: SystemTime, _: &Sink) {}
}

fn vertex(step: &StepView) -> Vertex<'_> {
    let (started, completed) = step.latest();
    Vertex {
        digest: as_digest(&step.id),
        name: &step.name,
        started: started.map(rfc3339),
        completed: completed.map(rfc3339),
        cached: step.state == StepState::Done { cached: true },
        error: match &step.state {
            StepState::Failed(error) => error,
            StepState::Cancelled => "context canceled",
            _ => "",
        },
    }
}

fn vertex_warning<'a>(id: &StepId, warning: &'a Warning) -> VertexWarning<'a> {
    // The place has no field of its own without the source, which events do not carry.
    let place = warning.location.as_ref().filter(|_| !warning.short.contains(" (line "));
    let place = place.map_or(String::new(), |place| format!(" ({place})"));
    VertexWarning {
        vertex: as_digest(id),
        level: 1,
        short: BASE64_STANDARD.encode(format!("{}{place}", warning.short)),
        detail: warning.detail.iter().map(|line| BASE64_STANDARD.encode(line)).collect(),
        url: &warning.url,
    }
}

/// Returns the id as a digest, which readers may take every vertex's id for.
fn as_digest(id: &StepId) -> String {
    if id.0.starts_with("sha256:") {
        return id.0.clone();
    }
    let hash = digest::digest(&digest::SHA256, id.0.as_bytes());
    hash.as_ref().iter().fold("sha256:".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// Formats a time as Go's `encoding/json` does.
fn rfc3339(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).unwrap_or_default().to_string()
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
