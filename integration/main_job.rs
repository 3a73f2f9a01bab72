//! The main job, with the binary that users get, against the real cluster and registries of `make cluster`.

#![expect(unreachable_pub, reason = "support modules are shared by several test crates")]
#![expect(clippy::print_stdout, reason = "how near a limit it was, shown with --nocapture")]
#![expect(clippy::disallowed_methods, reason = "helpers of tests without a runtime are threads")]

#[path = "support/buildkitd.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod buildkitd;
#[path = "support/rig.rs"]
mod rig;
#[path = "support/running.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod running;
#[path = "support/seen.rs"]
mod seen;
#[path = "support/tool.rs"]
mod tool;

#[path = "main_job/builders.rs"]
mod builders;
#[path = "main_job/connection.rs"]
mod connection;
#[path = "main_job/direct.rs"]
mod direct;
#[path = "main_job/misuse.rs"]
mod misuse;
#[path = "main_job/options.rs"]
mod options;
#[path = "main_job/output.rs"]
mod output;
#[path = "main_job/pod.rs"]
mod pod;
#[path = "main_job/push.rs"]
mod push;
#[path = "main_job/signing.rs"]
mod signing;

use std::path::{Path, PathBuf};

/// The image that the demo builds.
fn hello() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fixtures/hello")
}

/// A name that no other test or run uses.
fn fresh(purpose: &str) -> String {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let time =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
    format!("{purpose}-{time}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}
