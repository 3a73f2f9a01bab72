//! Builds, pushes and signs container images in the user's Kubernetes cluster with BuildKit.
//!
//! Directions (left knows right): `main → commands → config → cli`, `commands → ui → event`,
//! `commands → build → {buildkit, session, cluster, registry, sign} → event`. The neighbours in the braces do
//! not import one another, save for plain values ([`registry::Reference`], [`registry::Digest`],
//! [`image::Platform`]); the lines that join two of them live in `build`. `config` turns `cli`'s strings into the
//! values that `build` and these neighbours take, and knows them for that alone. Only `ui` prints, only `config`
//! reads the environment, only `task` spawns.

pub mod build;
pub mod buildkit;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod event;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod image;
pub mod pb;
pub mod registry;
pub mod session;
pub mod sign;
pub mod task;
pub mod tls;
pub mod ui;
