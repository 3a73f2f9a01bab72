//! The client of one BuildKit daemon: is it there, what can it do, and one build from request to outcome.
//!
//! [`Client`] owns a single byte stream (a tunnel to a pod, a unix socket, TCP with TLS) and speaks
//! `moby.buildkit.v1.Control` on it. The stream is never redialled: a session, its solve and its status belong
//! to one daemon, so a second connection that a Service or an exec might lead elsewhere would be wrong.
//! [`solve::solve`] runs a build and tells its steps as [`crate::event::Event`]s; [`failure::Failure`] is what a
//! daemon says when it refuses, with the details decoded.
//!
//! This module never prints, never reads the environment, and knows no session service: the caller opens the
//! session on [`Client::control`] and passes its id.

mod client;
mod dial;
mod excerpt;
pub mod failure;
mod history;
mod link;
mod silence;
pub mod solve;
mod status;
mod translate;
mod warnings;

pub use client::{Client, ClientError, Worker};
pub use dial::{Address, DialError, Tls};
pub use excerpt::{ExcerptLine, LineRange, Source};
pub use link::Lost;
pub use warnings::Warnings;

/// The largest gRPC message and the largest header list, both ways, in bytes: what buildkitd itself allows.
///
/// Errors ride in a trailer with the whole Dockerfile in it; a peer whose header limit is smaller gets a bare
/// stream reset and the error is lost (grpc-go internal/transport/http2_server.go).
pub const MESSAGE_LIMIT: usize = 16 << 20;
