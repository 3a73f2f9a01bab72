//! The builder's pod gone, killed, stopped, or its node out of touch.

use crate::rig::Rig;
use crate::running::Running;
use crate::tool::eventually;
use crate::{BUILDER, NODES, Site, TOLD};
use std::process::Command;
use std::time::{Duration, Instant};

/// A node without a kubelet, until the value is dropped, also by a panic.
struct Bereft<'a> {
    site: &'a Site,
    node: &'a str,
}

impl<'a> Bereft<'a> {
    fn of_kubelet(site: &'a Site, node: &'a str) -> Self {
        let bereft = Self { site, node };
        site.signal(&["KILL", "kubelet", node]);
        bereft
    }
}

impl Drop for Bereft<'_> {
    fn drop(&mut self) {
        // Must not panic while a panic is under way; the next `make cluster` mends the node, too.
        let mut command = Command::new(self.site.rig.get("CLUSTER_SIGNAL"));
        let _best_effort = command.args(["START", "kubelet", self.node]).output();
    }
}

#[test]
#[ignore = "needs the rig"]
fn killed_its_end_is_told() {
    let site = Site::with_builder("killed", &[]);
    let running = site.asleep(&[]);
    let (pod, node) = site.pod();
    let fault = Instant::now();
    site.signal(&["KILL", "pod", site.space.name(), &pod]);
    let text = format!("pod {pod} on node {node} ended: container buildkitd");
    running.ends(fault, TOLD).fails(3, &[&text, "exit code 137", "hint: "]);
}

#[test]
#[ignore = "needs the rig"]
fn out_of_memory_is_told_as_such() {
    let site = Site::with_builder("oom", &[]);
    let name = format!("deployment/{BUILDER}");
    // A pod with all of what it requests guaranteed has no process that the kernel takes first.
    let resources = ["--limits=memory=300Mi,cpu=500m", "--requests=memory=300Mi,cpu=500m"];
    site.space.kubectl(&[&["set", "resources", &name][..], &resources].concat());
    site.space.kubectl(&["rollout", "status", &name, "--timeout=90s"]);
    let base = site.rig.get("BASE_REF");
    site.tool
        .file("eater/Dockerfile", format!("FROM {base}\nRUN echo it-$((40 + 2)); sleep 2; tail /dev/zero\n"));
    let arguments = ["--builder", BUILDER, "--no-cache", "--progress", "plain", "eater"];
    let running = Running::start(site.tool.command("kubectl-build", &arguments));
    running.until("it-42");
    let (pod, node) = site.pod();
    // Two seconds of sleep, some for eating, and then the limit counts.
    let ran = running.ends(Instant::now(), TOLD + Duration::from_secs(10));
    // The kernel picks its victim: the daemon with the whole container, or the step alone.
    if ran.stderr.contains("error: pod ") {
        ran.fails(3, &[&format!("pod {pod} on node {node} ended"), "OOMKilled", "out of memory"]);
    } else {
        ran.fails(1, &["exit code: 137", "ran out of memory"]);
    }

    // Now the daemon is the first that the kernel takes.
    let running = site.asleep(&[]);
    let (pod, node) = site.pod();
    let eat = "echo 1000 > /proc/1/oom_score_adj; tail /dev/zero";
    let mut kubectl = site.rig.command(site.rig.peer("kubectl"));
    kubectl.args(["-n", site.space.name(), "exec", &pod, "--", "sh", "-c", eat]);
    let fault = Instant::now();
    let _eater = Running::start(kubectl);
    let text = format!("pod {pod} on node {node} ended: container buildkitd OOMKilled");
    running.ends(fault, TOLD).fails(3, &[&text, "out of memory"]);
}

#[test]
#[ignore = "needs the rig"]
fn deleted_it_is_named() {
    let site = Site::with_builder("deleted", &[]);
    let running = site.asleep(&[]);
    let (pod, node) = site.pod();
    let fault = Instant::now();
    site.space.kubectl(&["delete", "pod", &pod, "--wait=false"]);
    running.ends(fault, TOLD).fails(3, &[&format!("pod {pod} on node {node} "), "deleted", "hint: "]);
}

/// The builder's PodDisruptionBudget holds evictions off; whoever takes it away means it.
#[test]
#[ignore = "needs the rig"]
fn evicted_it_is_named() {
    let site = Site::with_builder("evicted", &[]);
    let running = site.asleep(&[]);
    let (pod, node) = site.pod();
    let space = site.space.name();
    let eviction = format!(
        r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"{pod}","namespace":"{space}"}}}}"#
    );
    let file = site.tool.file("eviction.json", eviction);
    let path = format!("/api/v1/namespaces/{space}/pods/{pod}/eviction");
    let arguments = ["create", "--raw", &path, "-f", file.to_str().expect("UTF-8")];
    let refused = site.rig.try_kubectl(&arguments);
    assert!(!refused.status.success(), "the budget holds");
    site.space.kubectl(&["delete", "poddisruptionbudget", BUILDER]);
    let fault = Instant::now();
    site.rig.kubectl(&arguments);
    let stderr =
        running.ends(fault, TOLD).fails(3, &[&format!("pod {pod} on node {node} "), "deleted", "hint: "]);
    assert!(stderr.contains("Eviction API"), "the cluster's reason is told: {stderr}");
}

#[test]
#[ignore = "needs the rig"]
fn stopped_its_silence_is_told_to_who_builds_and_to_who_wants_to() {
    let site = Site::with_builder("stopped", &[]);
    let running = site.asleep(&[]);
    let (pod, node) = site.pod();
    let space = site.space.name();
    let what = ["pod", space, &pod];
    let text = format!("pod {pod} on node {node} no longer answers");
    let fault = Instant::now();
    let stopped = site.stop(&what);
    let second = Running::start(site.tool.command("kubectl-build", &["--builder", BUILDER, "quick"]));
    running.ends(fault, TOLD).fails(3, &[&text, "hint: "]);
    second.ends(fault, TOLD).fails(3, &[&text, "hint: "]);
    drop(stopped);
    site.tool.build(&["--builder", BUILDER, "quick"]).ok();
}

#[test]
#[ignore = "needs the rig"]
fn with_its_kubelet_stopped_its_silence_is_told() {
    let _alone = NODES.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    let site = Site::unlocked("kubelet");
    site.make_builder(&[]);
    let running = site.asleep(&[]);
    let (pod, node) = site.pod();
    let what = ["kubelet", node.as_str()];
    let text = format!("pod {pod} on node {node} no longer answers");
    let another = || Running::start(site.tool.command("kubectl-build", &["--builder", BUILDER, "quick"]));
    let fault = Instant::now();
    let stopped = site.stop(&what);
    let second = another();
    running.ends(fault, TOLD).fails(3, &[&text, "hint: "]);
    second.ends(fault, TOLD).fails(3, &[&text, "hint: "]);
    drop(stopped);

    // Killed it leaves no silence: the streams through it break, and nobody takes new ones. The pod lives on.
    let running = site.asleep(&[]);
    let fault = Instant::now();
    let bereft = Bereft::of_kubelet(&site, &node);
    let second = another();
    let broken = format!("pod {pod} on node {node} can no longer be reached");
    running.ends(fault, TOLD).fails(3, &[&broken, "hint: "]);
    second.ends(fault, TOLD).fails(3, &[&text, "connection refused", "hint: "]);

    // Once the cluster has noticed, too, what it says of the node is told.
    let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    let ready = || site.space.kubectl(&["get", "pod", &pod, "-o", path]);
    eventually("the pod counts as not ready", Duration::from_secs(120), || {
        (ready() == "False").then_some(())
    });
    let third = another();
    let told = third.ends(Instant::now(), TOLD).fails(3, &["NodeNotReady", &pod, "hint: "]);
    assert!(told.contains(&format!("node {node} is not ready: Kubelet stopped posting")), "{told}");
    drop(bereft);
    eventually("the pod is ready again", Duration::from_secs(60), || (ready() == "True").then_some(()));
    let path = "jsonpath={.status.containerStatuses[0].restartCount}";
    assert_eq!(site.space.kubectl(&["get", "pod", &pod, "-o", path]), "0", "the daemon lived on");
    eventually("the daemon ends the steps", TOLD, || (site.sleepers() == 0).then_some(()));
    site.tool.build(&["--builder", BUILDER, "quick"]).ok();
}

/// Nothing of the cluster is needed for this one but its name: nobody listens there.
#[test]
#[ignore = "needs the rig"]
fn an_address_without_a_daemon_is_named() {
    let rig = Rig::load();
    let tool = crate::tool::Tool::new(&rig, "default");
    tool.file("quick/Dockerfile", "FROM scratch\n");
    for address in ["tcp://127.0.0.1:9", "unix:///no/such.sock"] {
        let running = Running::start(tool.command("kubectl-build", &["--builder", address, "quick"]));
        let name = address.split_once("//").expect("a scheme").1;
        running.ends(Instant::now(), TOLD).fails(3, &[name]);
    }
}
