//! Where values come from: flags, then the environment, then defaults; each remembers its source.
//!
//! The only module that reads the process environment. It turns [`crate::cli`] types into `*Settings`, checks
//! misuse before anything starts, and touches the network never.

mod attest;
pub mod build;
pub mod builder;
mod cache;
pub mod cluster;
pub mod duration;
pub mod env;
pub mod key;
pub mod keyless;
mod kms;
pub mod misuse;
pub mod registry;
pub mod results;
pub mod services;
pub mod sign;
pub mod source;
pub mod verify;

pub use misuse::Misuse;
