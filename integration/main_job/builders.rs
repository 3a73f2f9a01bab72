//! `kubectl buildkit create`, `ls` and `rm`, the predecessor's ConfigMap cases among them.

use crate::rig::Rig;
use crate::tool::Tool;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const KEY: &str = "jsonpath={.data.buildkitd\\.toml}";

/// TestDefaultCreate.
#[test]
#[ignore = "needs the rig"]
fn a_builder_without_settings_gets_the_default_ones_and_rm_takes_them_along() {
    let rig = Rig::load();
    let space = rig.namespace("config");
    let tool = Tool::new(&rig, space.name());
    assert_eq!(tool.buildkit(&["create", "configmaptest"]).ok(), "configmaptest\n");
    let config = space.kubectl(&["get", "configmap", "configmaptest", "-o", KEY]);
    assert!(config.contains("Default buildkitd configuration."), "{config}");
    let listed = tool.buildkit(&["ls"]).ok();
    let line =
        listed.lines().find(|line| line.starts_with("configmaptest ")).expect("it is listed").to_owned();
    let nodes: Vec<&str> = rig.get("CLUSTER_NODES").split(' ').collect();
    let names_node = line.split_whitespace().any(|cell| nodes.contains(&cell));
    assert!(names_node && line.contains("linux/amd64"), "{line}");

    // A builder that runs nothing is listed too.
    space.kubectl(&["scale", "deployment/configmaptest", "--replicas=0"]);
    space.kubectl(&[
        "wait",
        "--for=delete",
        "pod",
        "-l",
        "app.kubernetes.io/managed-by=kubectl-build",
        "--timeout=60s",
    ]);
    assert!(tool.buildkit(&["ls"]).ok().lines().any(|line| line.starts_with("configmaptest ")));
    // It is not waited for, and the advised line brings it back.
    tool.file("ctx/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let start = Instant::now();
    let ran = tool.build(&["--builder", "configmaptest", "ctx"]);
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    let line = ran.advice("kubectl scale deployment configmaptest -n ");
    ran.fails(3, &["scaled to 0"]);
    tool.shell(&line, &[]).ok();
    tool.build(&["--builder", "configmaptest", "ctx"]).ok();

    tool.buildkit(&["rm", "configmaptest"]).ok();
    assert_eq!(space.kubectl(&["get", "configmap", "configmaptest", "--ignore-not-found", "-o", "name"]), "");
    // Each failure is told.
    tool.buildkit(&["rm", "configmaptest", "nor-this"])
        .fails(1, &["no builder `configmaptest`", "no builder `nor-this`"]);
}

/// TestPreExistingConfigDefaultCreate.
#[test]
#[ignore = "needs the rig"]
fn a_configmap_that_was_there_is_not_overwritten() {
    let rig = Rig::load();
    let space = rig.namespace("preexisting");
    let tool = Tool::new(&rig, space.name());
    let mine = tool.file("mine.toml", "# mine\ndebug = true\n");
    let from = format!("--from-file=buildkitd.toml={}", mine.display());
    space.kubectl(&["create", "configmap", "configmaptest", &from]);
    tool.buildkit(&["create", "configmaptest"]).ok();
    assert_eq!(space.kubectl(&["get", "configmap", "configmaptest", "-o", KEY]), "# mine\ndebug = true\n");
    // It isn't ours, so it stays, and a line says so.
    let ran = tool.buildkit(&["rm", "configmaptest"]);
    assert!(ran.stderr.contains("the ConfigMap `configmaptest` stays"), "{}", ran.stderr);
    ran.ok();
    assert_eq!(space.kubectl(&["get", "configmap", "configmaptest", "-o", KEY]), "# mine\ndebug = true\n");
}

/// TestCustomCreate and TestPreExistingWithCustomCreate.
#[test]
#[ignore = "needs the rig"]
fn a_given_configuration_is_used_and_replaces_what_was_there() {
    let rig = Rig::load();
    let space = rig.namespace("custom");
    let tool = Tool::new(&rig, space.name());
    tool.file("custom.toml", "# custom\ndebug = true\n");
    tool.buildkit(&["create", "one", "--config", "custom.toml"]).ok();
    assert_eq!(space.kubectl(&["get", "configmap", "one", "-o", KEY]), "# custom\ndebug = true\n");
    tool.buildkit(&["rm", "one"]).ok();
    assert_eq!(space.kubectl(&["get", "configmap", "one", "--ignore-not-found", "-o", "name"]), "");

    space.kubectl(&["create", "configmap", "two", "--from-literal=buildkitd.toml=# old"]);
    tool.buildkit(&["create", "two", "--config", "custom.toml"]).ok();
    assert_eq!(space.kubectl(&["get", "configmap", "two", "-o", KEY]), "# custom\ndebug = true\n");
    tool.buildkit(&["rm", "two"]).ok();
    assert_eq!(space.kubectl(&["get", "configmap", "two", "--ignore-not-found", "-o", "name"]), "");
}

#[test]
#[ignore = "needs the rig"]
fn a_builder_that_cannot_start_is_given_up_in_seconds_with_the_events_words() {
    let rig = Rig::load();
    let space = rig.namespace("stuck");
    let tool = Tool::new(&rig, space.name());
    let start = Instant::now();
    let ran = tool.buildkit(&["create", "stuck", "--image", "localhost/no-such-image:1"]);
    assert!(start.elapsed().as_secs() < 60, "it took {} s", start.elapsed().as_secs());
    let line = ran.advice("kubectl buildkit rm stuck -n ");
    ran.fails(3, &["localhost/no-such-image:1", "hint:"]);
    // The stuck Deployment is still there; the advised line copes with it.
    tool.shell(&line.replace("IMAGE", rig.get("BUILDKIT_IMAGE")), &[]).ok();
    tool.file("ctx/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    tool.build(&["--builder", "stuck", "ctx"]).ok();
}

/// Sooner than the patience that each obstacle is given.
#[test]
#[ignore = "needs the rig"]
fn a_builder_timeout_ends_the_wait_of_a_build() {
    let rig = Rig::load();
    let space = rig.namespace("timeout");
    let tool = Tool::new(&rig, space.name());
    tool.file("ctx/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let start = Instant::now();
    let ran = tool.build(&["--builder-timeout", "1s", "--builder-image", "localhost/no-such-image:1", "ctx"]);
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    let line = ran.advice("kubectl describe pods -n ");
    ran.fails(3, &["builder `buildkit` is not ready after 1 s: still ", "`--builder-timeout` waits longer"]);
    tool.shell(&line, &[]).ok();
}

#[test]
#[ignore = "needs the rig"]
fn an_image_without_buildkit_is_told_in_the_runtimes_words() {
    let rig = Rig::load();
    let space = rig.namespace("busybox");
    let tool = Tool::new(&rig, space.name());
    let start = Instant::now();
    let ran = tool.buildkit(&["create", "wrong", "--image", rig.get("BASE_REF")]);
    assert!(start.elapsed().as_secs() < 45, "it took {} s", start.elapsed().as_secs());
    let line = ran.advice("kubectl buildkit rm wrong -n ");
    ran.fails(3, &["CreateContainerError", "executable file not found"]);
    tool.shell(&line.replace("IMAGE", rig.get("BUILDKIT_IMAGE")), &[]).ok();
}

#[test]
#[ignore = "needs the rig"]
fn each_mode_builds() {
    let rig = Rig::load();
    let space = rig.namespace("modes");
    let tool = Tool::new(&rig, space.name());
    tool.file("ctx/Dockerfile", format!("FROM {}\nRUN id -u | grep -q '^0$'\n", rig.get("BASE_REF")));
    let path = "jsonpath={range .items[*]}{.spec.hostUsers},{.spec.containers[0].securityContext.privileged},\
                {.spec.containers[0].securityContext.runAsUser}{end}";
    for (mode, image, confined) in [
        ("userns", "BUILDKIT_IMAGE", "false,,0"),
        ("privileged", "BUILDKIT_IMAGE", ",true,"),
        ("rootless", "BUILDKIT_ROOTLESS_IMAGE", ",,1000"),
    ] {
        let http = ["--registry-http", rig.get("REGISTRY")];
        tool.buildkit(&[&["create", mode, "--mode", mode, "--image", rig.get(image)][..], &http].concat())
            .ok();
        let selector = format!("kubectl-build.github.io/builder={mode}");
        assert_eq!(space.kubectl(&["get", "pod", "-l", &selector, "-o", path]), confined, "{mode}");
        tool.build(&["--builder", mode, "ctx"]).ok();
        tool.buildkit(&["rm", mode]).ok();
    }
}

/// A build is one BuildKit session, and a session is one pod's.
#[test]
#[ignore = "needs the rig"]
fn of_two_pods_each_context_keeps_its_own() {
    let rig = Rig::load();
    let space = rig.namespace("replicas");
    let tool = Tool::new(&rig, space.name());
    tool.buildkit(&["create", "pair", "--registry-http", rig.get("REGISTRY")]).ok();
    space.kubectl(&["scale", "deployment/pair", "--replicas=2"]);
    space.kubectl(&["rollout", "status", "deployment/pair", "--timeout=120s"]);
    let pods = space.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]);
    let pods: Vec<&str> = pods.split_whitespace().collect();
    assert_eq!(pods.len(), 2, "{pods:?}");
    let build = |context: &str, mark: &str| {
        let dockerfile = format!("FROM {}\nRUN echo {mark} > /mark\n", rig.get("BASE_REF"));
        tool.file(&format!("{context}/Dockerfile"), dockerfile);
        tool.build(&["--builder", "pair", context]).ok();
    };
    // What a pod has run stands in its cache.
    let builder_of = |mark: &str| {
        let ran = |pod: &&&str| space.kubectl(&["exec", pod, "--", "buildctl", "du", "-v"]).contains(mark);
        let pods: Vec<&str> = pods.iter().filter(ran).copied().collect();
        assert_eq!(pods.len(), 1, "{mark} was built in {pods:?}");
        pods[0]
    };
    let contexts = ["one", "two", "three", "four"];
    std::thread::scope(|scope| {
        for context in contexts {
            let build = &build;
            scope.spawn(move || build(context, &format!("first-{context}-of-all")));
        }
    });
    let mut used = BTreeSet::new();
    for context in contexts {
        let pod = builder_of(&format!("first-{context}-of-all"));
        let again = format!("second-{context}-of-all");
        build(context, &again);
        assert_eq!(builder_of(&again), pod, "{context} stays");
        used.insert(pod);
    }
    // Which one is a matter of the path; that it is always the same one is all but impossible.
    for number in 0..20 {
        if used.len() == 2 {
            return;
        }
        let (context, mark) = (format!("more-{number}"), format!("more-{number}-of-all"));
        build(&context, &mark);
        used.insert(builder_of(&mark));
    }
    panic!("all builds went to {used:?}");
}
