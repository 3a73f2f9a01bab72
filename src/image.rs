//! What an image is made of, as pure values: the platforms it is built for and the index that joins them.
//!
//! Knows no cluster, no daemon and no registry.

pub mod annotation;
pub mod index;
pub mod platform;

pub use annotation::Annotation;
pub use platform::{Platform, PlatformError};
