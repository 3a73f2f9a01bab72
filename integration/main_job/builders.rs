//! `kubectl buildkit create`, `ls` and `rm`, the predecessor's ConfigMap cases among them.

use crate::rig::Rig;
use crate::tool::Tool;

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
    assert!(line.contains("node-") && line.contains("linux/amd64"), "{line}");

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
    let start = std::time::Instant::now();
    let ran = tool.buildkit(&["create", "stuck", "--image", "localhost/no-such-image:1"]);
    ran.fails(3, &["localhost/no-such-image:1", "hint:"]);
    assert!(start.elapsed().as_secs() < 60, "it took {} s", start.elapsed().as_secs());
}

#[test]
#[ignore = "needs the rig"]
fn each_mode_builds() {
    let rig = Rig::load();
    let space = rig.namespace("modes");
    let tool = Tool::new(&rig, space.name());
    tool.file("ctx/Dockerfile", format!("FROM {}\nRUN id -u | grep -q '^0$'\n", rig.get("BASE_REF")));
    for (mode, marker) in [("userns", "hostUsers"), ("privileged", "privileged")] {
        tool.buildkit(&["create", mode, "--mode", mode, "--registry-http", rig.get("REGISTRY")]).ok();
        let pod = space.kubectl(&["get", "pod", "-o", "json"]);
        assert!(pod.contains(marker), "{mode}: {pod}");
        tool.build(&["--builder", mode, "ctx"]).ok();
        tool.buildkit(&["rm", mode]).ok();
    }
}
