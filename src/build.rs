//! Drives one build from end to end, and finishes what an interrupted one left behind.
//!
//! Composes its neighbours (`buildkit`, `session`, `cluster`, `registry`, `sign`) and holds the lines that join two
//! of them. Knows nothing of flags, the environment or the terminal: those arrive as values.

pub mod cache;
mod content;
mod credentials;
pub mod error;
pub mod finish;
pub mod identity;
mod join;
pub mod outcome;
mod part;
pub mod placement;
pub mod plan;
pub mod preflight;
pub mod reach;
mod record;
pub mod request;
pub mod route;
mod run;
mod settle;
pub mod signing;
mod sites;
pub mod store;

pub use error::BuildError;
pub use join::JoinError;
pub use outcome::{BuildOutcome, Unfinished};
pub use part::Site;
pub use record::Detail;
pub use request::BuildRequest;
pub use run::{Deps, run};
pub use sites::{SitesError, sites};
