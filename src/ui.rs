//! Everything that a person or a script reads: progress and errors on standard error, results on standard
//! output, questions on the terminal.
//!
//! Nothing else in the crate prints, and nothing here knows what a build is: progress comes in as
//! [`crate::event::Event`]s, failures as a [`report::Report`], facts about the terminal as plain values.

pub mod browser;
pub mod colours;
pub mod printer;
pub mod progress;
pub mod prompt;
pub mod report;
pub mod terminal;
mod text;
