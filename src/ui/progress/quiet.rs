//! The display that shows nothing: errors are the report's, the digest is the command's.

use super::model::Model;
use super::sink::Sink;
use super::{Renderer, Seen};
use std::time::SystemTime;

/// Shows nothing.
pub(super) struct Quiet;

impl Renderer for Quiet {
    fn observe(&mut self, _: &Seen<'_>, _: &Sink) {}

    fn tick(&mut self, _: &Model, _: SystemTime, _: &Sink) {}

    fn finish(&mut self, _: &Model, _: SystemTime, _: &Sink) {}
}
