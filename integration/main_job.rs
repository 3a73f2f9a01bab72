//! The main job, with the binary that users get, against the real cluster and registries of `make cluster`.

#![expect(unreachable_pub, reason = "support modules are shared by several test crates")]
#![expect(clippy::print_stdout, reason = "how near a limit it was, shown with --nocapture")]
#![expect(clippy::disallowed_methods, reason = "helpers of tests without a runtime are threads")]

#[path = "support/buildkitd.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod buildkitd;
#[path = "support/fake_token_service.rs"]
mod fake_token_service;
#[path = "support/peers.rs"]
mod peers;
#[path = "support/registries.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod registries;
#[path = "support/rig.rs"]
mod rig;
#[path = "support/running.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod running;
#[path = "support/seen.rs"]
mod seen;
#[path = "support/tool.rs"]
mod tool;
#[path = "support/tree.rs"]
mod tree;

#[path = "main_job/builders.rs"]
mod builders;
#[path = "main_job/cache.rs"]
mod cache;
#[path = "main_job/connection.rs"]
mod connection;
#[path = "main_job/context.rs"]
mod context;
#[path = "main_job/credentials.rs"]
mod credentials;
#[path = "main_job/digest.rs"]
mod digest;
#[path = "main_job/direct.rs"]
mod direct;
#[path = "main_job/keys.rs"]
mod keys;
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
#[path = "main_job/routes.rs"]
mod routes;
#[path = "main_job/signing.rs"]
mod signing;
#[path = "main_job/tokens.rs"]
mod tokens;

use crate::buildkitd::Buildkitd;
use crate::rig::Rig;
use crate::tool::{Ran, Tool};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A daemon beside the tests: sooner there than a pod, where it makes no difference which of the two builds.
struct Local {
    tool: Tool,
    _daemon: Buildkitd,
    address: String,
}

impl Local {
    /// Starts one that speaks plain HTTP to the registry of the base image, and grants what a build asks for.
    fn start(rig: &Rig) -> Self {
        let tool = Tool::new(rig, "default");
        let config = format!(
            "insecure-entitlements = [\"network.host\", \"security.insecure\"]\n\
             [registry.\"{}\"]\n  http = true\n",
            rig.get("REGISTRY")
        );
        let config = tool.file("buildkitd.toml", config);
        let daemon = Buildkitd::start_with(&[format!("--config={}", config.display())]);
        let address = format!("unix://{}", daemon.socket().display());
        Self { tool, _daemon: daemon, address }
    }

    /// Returns the command of a build there.
    fn command(&self, arguments: &[&str]) -> Command {
        self.tool.command("kubectl-build", &[&["--builder", &self.address], arguments].concat())
    }

    /// Builds there.
    fn build(&self, arguments: &[&str]) -> Ran {
        tool::run(self.command(arguments))
    }
}

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
