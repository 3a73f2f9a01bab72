//! Image registries: names, digests, credentials, and a small client of the distribution API.
//!
//! The module pushes and reads manifests, small blobs and referrers; layers are BuildKit's business. HTTP is
//! our own over hyper, so that connections may come from tunnels ([`connect::Connect`]) and headers such as
//! `OCI-Subject` can be read; media types are oci-client's. It reads no files and no environment (but for where
//! the system keeps its trusted roots), and knows nothing of clusters, sessions and signatures.

mod auth;
mod client;
pub mod connect;
pub mod credentials;
mod descriptor;
mod digest;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod proxy;
mod reference;
mod retry;
mod tls;
mod token;
mod wire;

pub use client::{Client, HostOptions, Limits, Options, PutManifest};
pub use descriptor::{Descriptor, DescriptorPlatform, Manifest, media_type};
pub use digest::{Digest, DigestError};
pub use error::{Kind, Presented, RegistryError};
pub use reference::{DOCKER_HUB, Reference, ReferenceError, ReferenceProblem, Repository};
pub use tls::OptionsError;
pub use token::{Token, TokenRequest};
