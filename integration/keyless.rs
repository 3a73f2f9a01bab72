//! Signing with identities and logs, with the binary that users get, against real Fulcio, Rekor v2, a timestamp
//! authority, the cluster's API server as issuer, and an OpenID Connect provider at which a real browser logs in
//! (`make signing-services`); real cosign verifies. Faults that the real services won't produce on demand come from
//! fakes, called fakes.

#![expect(unreachable_pub, reason = "support modules are shared by several test crates")]
#![expect(clippy::disallowed_methods, reason = "helpers of tests without a runtime are threads")]
#![expect(clippy::print_stdout, reason = "how near a limit it was, shown with --nocapture")]

#[path = "support/fake_authority.rs"]
mod fake_authority;
#[path = "support/front.rs"]
mod front;
#[path = "support/openbao.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod openbao;
#[path = "support/peers.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod peers;
#[path = "support/rig.rs"]
mod rig;
#[path = "support/running.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod running;
#[path = "support/seen.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod seen;
#[path = "support/services.rs"]
mod services;
#[path = "support/tool.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod tool;

#[path = "keyless/again.rs"]
mod again;
#[path = "keyless/bench.rs"]
mod bench;
#[path = "keyless/clocks.rs"]
mod clocks;
#[path = "keyless/cluster.rs"]
mod cluster;
#[path = "keyless/consent.rs"]
mod consent;
#[path = "keyless/emulator.rs"]
mod emulator;
#[path = "keyless/faults.rs"]
mod faults;
#[path = "keyless/formats.rs"]
mod formats;
#[path = "keyless/leaks.rs"]
mod leaks;
#[path = "keyless/login.rs"]
mod login;
#[path = "keyless/person.rs"]
mod person;
#[path = "keyless/routes.rs"]
mod routes;
#[path = "keyless/steps.rs"]
mod steps;
#[path = "keyless/tap.rs"]
mod tap;
#[path = "keyless/tuf.rs"]
mod tuf;
#[path = "keyless/verify.rs"]
mod verify;
