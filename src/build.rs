//! Drives one build from end to end, and finishes what an interrupted one left behind.
//!
//! Composes its neighbours (`buildkit`, `session`, `cluster`, `registry`, `sign`) and holds the lines that join two
//! of them. Knows nothing of flags, the environment or the terminal: those arrive as values.

mod credentials;
pub mod error;
pub mod finish;
pub mod outcome;
pub mod plan;
pub mod preflight;
pub mod reach;
pub mod request;
mod run;
mod store;

pub use error::BuildError;
pub use outcome::{BuildOutcome, Unfinished};
pub use request::BuildRequest;
pub use run::{Deps, run};
