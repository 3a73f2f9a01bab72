//! The display that shows nothing but what the person is asked to do: errors are the report's, the digest is the
//! command's.

use super::model::Model;
use super::sink::Sink;
use super::{Renderer, Seen};
use crate::event::Event;
use crate::ui::text;
use std::time::SystemTime;

/// Shows next to nothing.
pub(super) struct Quiet;

impl Renderer for Quiet {
    fn observe(&mut self, seen: &Seen<'_>, sink: &Sink) {
        if let Some(Event::Request(request)) = seen.event {
            for line in request.lines() {
                sink.text(format!("{}\n", text::clean(line.as_bytes(), text::Keep::Text)).as_bytes());
            }
        }
    }

    fn tick(&mut self, _: &Model, _: SystemTime, _: &Sink) {}

    fn finish(&mut self, _: &Model, _: SystemTime, _: &Sink) {}
}
