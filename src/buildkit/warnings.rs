//! The warnings of a build, kept as buildx writes them down.

use crate::pb::moby::buildkit::v1::{StatusResponse, VertexWarning};
use crate::pb::pb::Position;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::sync::{Arc, Mutex};

/// What a build has been warned of so far.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<Value>>>);

impl Warnings {
    /// Returns them in the shape of BuildKit's `client.VertexWarning` (client/graph.go).
    pub fn so_far(&self) -> Vec<Value> {
        self.0.lock().expect("no holder of the lock panics").clone()
    }

    pub(super) fn note(&self, message: &StatusResponse) {
        let mut known = self.0.lock().expect("no holder of the lock panics");
        for warning in message.warnings.iter().map(as_json) {
            // Messages that are split for their size repeat them.
            if !known.contains(&warning) {
                known.push(warning);
            }
        }
    }
}

fn as_json(warning: &VertexWarning) -> Value {
    let position = |position: &Option<Position>| {
        let Position { line, character } = position.unwrap_or_default();
        filled([("line", json!(line)), ("character", json!(character))])
    };
    let ranges = warning.ranges.iter();
    let ranges = ranges.map(|range| json!({ "start": position(&range.start), "end": position(&range.end) }));
    let source = warning.info.as_ref().map(|info| {
        let data = STANDARD.encode(&info.data);
        filled([
            ("filename", json!(info.filename)),
            ("data", json!(data)),
            ("language", json!(info.language)),
        ])
    });
    filled([
        ("vertex", json!(warning.vertex)),
        ("level", json!(warning.level)),
        ("short", json!(STANDARD.encode(&warning.short))),
        ("detail", warning.detail.iter().map(|line| STANDARD.encode(line)).collect()),
        ("url", json!(warning.url)),
        ("sourceInfo", source.unwrap_or_default()),
        ("range", ranges.collect()),
    ])
}

/// Returns an object of those that say something, as Go's `omitempty` does.
fn filled<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let empty = |value: &Value| [Value::Null, json!(0), json!(""), json!([])].contains(value);
    let fields = fields.into_iter().filter(|(_, value)| !empty(value));
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}
