//! Interruptions and losses, with the binary that users get against the real cluster: Ctrl-C and SIGTERM at every
//! step, the builder's pod, process, node and connection gone in every way, and registries that refuse. What counts
//! is the time until the tool ends, its exit code, what it says and what it leaves behind.

#![expect(unreachable_pub, reason = "support modules are shared by several test crates")]
#![expect(clippy::print_stdout, reason = "how near a limit it was, shown with --nocapture")]
#![expect(clippy::disallowed_methods, reason = "helpers of tests without a runtime are threads")]

#[path = "support/relay.rs"]
mod relay;
#[path = "support/rig.rs"]
mod rig;
#[path = "support/running.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod running;
#[path = "support/strict_registry.rs"]
mod strict_registry;
#[path = "support/tool.rs"]
mod tool;

#[path = "interrupt/pod.rs"]
mod pod;
#[path = "interrupt/registry.rs"]
mod registry;
#[path = "interrupt/signals.rs"]
mod signals;
#[path = "interrupt/stream.rs"]
mod stream;

use crate::rig::{Namespace, Rig};
use crate::running::Running;
use crate::tool::Tool;
use std::sync::{RwLock, RwLockReadGuard};
use std::time::Duration;

/// A person who asked to stop waits at most this long.
const STOPPED: Duration = Duration::from_secs(10);
/// A loss is told within this time.
const TOLD: Duration = Duration::from_secs(15);
/// The builder's name.
const BUILDER: &str = "faults";

/// A stopped kubelet takes every pod of its node along, so the test that stops one runs alone.
static NODES: RwLock<()> = RwLock::new(());

/// A namespace with a builder and a context whose RUN step sleeps for a number of seconds that is no other's.
struct Site {
    rig: Rig,
    space: Namespace,
    tool: Tool,
    /// What the RUN step executes, as `ps` shows it.
    sleep: String,
    _nodes: Option<RwLockReadGuard<'static, ()>>,
}

impl Site {
    /// Makes everything but the builder.
    fn bare(purpose: &str) -> Self {
        let nodes = NODES.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        Self { _nodes: Some(nodes), ..Self::unlocked(purpose) }
    }

    /// The same for who holds the lock already.
    fn unlocked(purpose: &str) -> Self {
        let rig = Rig::load();
        let space = rig.namespace(purpose);
        let tool = Tool::new(&rig, space.name());
        let sleep = format!("sleep {}", 100_000 + rustix::process::getpid().as_raw_pid());
        let base = rig.get("BASE_REF");
        tool.file("sleep/Dockerfile", format!("FROM {base}\nRUN echo it-$((40 + 2)); {sleep}\n"));
        tool.file("quick/Dockerfile", format!("FROM {base}\nRUN echo quick > /quick\n"));
        Self { rig, space, tool, sleep, _nodes: None }
    }

    /// Makes a builder that speaks plain HTTP to these registries and to that of the base image.
    fn with_builder(purpose: &str, registries: &[&str]) -> Self {
        let site = Self::bare(purpose);
        site.make_builder(registries);
        site
    }

    fn make_builder(&self, registries: &[&str]) {
        let mut arguments = vec!["create", BUILDER, "--registry-http", self.rig.get("REGISTRY")];
        for registry in registries {
            arguments.extend(["--registry-http", registry]);
        }
        self.tool.buildkit(&arguments).ok();
    }

    /// Starts a build and waits until its RUN step sleeps.
    fn asleep(&self, arguments: &[&str]) -> Running {
        let before = ["--builder", BUILDER, "--no-cache", "--progress", "plain"];
        let arguments = [&before[..], arguments, &["sleep"]].concat();
        let running = Running::start(self.tool.command("kubectl-build", &arguments));
        running.until("it-42");
        running
    }

    /// Returns the name of the builder's one running pod, and its node's.
    fn pod(&self) -> (String, String) {
        let path = "jsonpath={.items[0].metadata.name} {.items[0].spec.nodeName}";
        let selector = "--field-selector=status.phase=Running";
        let found = self.space.kubectl(&["get", "pods", selector, "-o", path]);
        let (pod, node) = found.split_once(' ').expect("a pod on a node");
        (pod.to_owned(), node.to_owned())
    }

    /// Returns how many processes of the RUN step the builder's pod has.
    fn sleepers(&self) -> usize {
        let processes = self.space.kubectl(&["exec", &self.pod().0, "--", "ps", "-o", "pid,args"]);
        assert!(processes.contains("buildkitd"), "{processes}");
        processes.lines().filter(|line| line.contains(&self.sleep)).count()
    }

    /// Sends a signal to all processes of a pod, a kubelet or a containerd.
    fn signal(&self, arguments: &[&str]) {
        let output = std::process::Command::new(self.rig.get("CLUSTER_SIGNAL")).args(arguments).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{arguments:?}: {}", rig::text(&output.stderr));
    }

    /// Stops something until the value is dropped, also by a panic.
    fn stop<'a>(&'a self, what: &'a [&'a str]) -> Stopped<'a> {
        self.signal(&[&["STOP"], what].concat());
        Stopped { site: self, what }
    }
}

/// Something that does not run for now.
struct Stopped<'a> {
    site: &'a Site,
    what: &'a [&'a str],
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        // Must not panic while a panic is under way; a pod may be gone by now.
        let mut command = std::process::Command::new(self.site.rig.get("CLUSTER_SIGNAL"));
        let _best_effort = command.arg("CONT").args(self.what).output();
    }
}

/// A name that no other test or run uses.
fn fresh(purpose: &str) -> String {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    format!("{purpose}-{}-{}", time.as_millis(), rustix::process::getpid().as_raw_pid())
}
