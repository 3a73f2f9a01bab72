//! Builds for platforms that nothing here runs, by steps that don't either.

use crate::rig::Rig;
use crate::tool::Tool;
use crate::{crane, deployments, fresh, nodes, probes};
use serde_json::Value;

/// The predecessor's TestMultiArchCrossCompile, with the results inspected.
#[test]
#[ignore = "needs the rig"]
fn a_dockerfile_that_cross_compiles_builds_every_platform_on_one_node() {
    let rig = Rig::load();
    let _both_amd64 = nodes(&rig);
    let space = rig.namespace("cross");
    let tool = Tool::new(&rig, space.name());
    let (registry, name) = (rig.get("REGISTRY"), fresh("cross"));
    let dockerfile = format!(
        "FROM --platform=$BUILDPLATFORM {} AS build\nARG TARGETPLATFORM BUILDPLATFORM\n\
         RUN echo \"for $TARGETPLATFORM on $BUILDPLATFORM.\" > /out\nFROM scratch\nCOPY --from=build /out /out\n",
        rig.get("BASE_REF")
    );
    tool.file("ctx/Dockerfile", dockerfile);
    tool.buildkit(&["create", "--emulate", "--registry-http", registry]).ok();
    let platforms =
        ["linux/386", "linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64", "windows/amd64"];
    let tag = format!("{registry}/{name}:1");
    let list = platforms.join(",");
    let arguments =
        ["-t", &tag, "--platform", &list, "--push", "--registry-http", registry, "--progress", "plain"];
    let ran = tool.build(&[&arguments[..], &["ctx"]].concat());
    assert!(ran.stderr.contains("linux/386 → ") && ran.stderr.contains(", native"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("windows/amd64 → ") && ran.stderr.contains(", cross-compiled"),
        "{}",
        ran.stderr
    );
    ran.ok();
    let index: Value = serde_json::from_slice(&crane(&rig, &["manifest", &tag])).expect("an index");
    let entries = index["manifests"].as_array().expect("entries");
    assert_eq!(entries.len(), platforms.len(), "{index}");
    for (entry, platform) in entries.iter().zip(platforms) {
        let parts = ["os", "architecture", "variant"].map(|part| entry["platform"][part].as_str());
        assert_eq!(parts.into_iter().flatten().collect::<Vec<_>>().join("/"), platform);
        let image = format!("{registry}/{name}@{}", entry["digest"].as_str().expect("a digest"));
        let files = crane(&rig, &["export", &image, "-"]);
        let written = format!("for {platform} on linux/amd64.");
        assert!(
            files.windows(written.len()).any(|window| window == written.as_bytes()),
            "not built: {platform}"
        );
    }

    // A builder that was made to emulate does so unasked; what crosses does not need it.
    probes(&tool);
    let ran = tool.build(&["--platform", "linux/arm64", "--progress", "plain", "ctx"]);
    assert!(ran.stderr.contains(", emulated") && ran.stderr.contains("built on arm64"), "{}", ran.stderr);
    ran.ok();
}

/// A stage that names its platform may be anybody's: that nothing else runs has to be said.
#[test]
#[ignore = "needs the rig"]
fn an_image_for_another_platform_by_steps_of_this_one_is_built_when_it_is_said_to_cross() {
    let rig = Rig::load();
    let _both_amd64 = nodes(&rig);
    let space = rig.namespace("crossed");
    let tool = Tool::new(&rig, space.name());
    let (registry, name) = (rig.get("REGISTRY"), fresh("crossed"));
    let dockerfile = format!(
        "FROM --platform=linux/amd64 {} AS build\nRUN echo \"made on $(uname -m).\" > /out\n\
         FROM scratch\nCOPY --from=build /out /out\n",
        rig.get("BASE_REF")
    );
    tool.file("ctx/Dockerfile", dockerfile);
    let tag = format!("{registry}/{name}:1");
    let build = |more: &[&str]| {
        let push = ["-t", &tag, "--push", "--registry-http", registry, "--progress", "plain"];
        tool.build(&[&push[..], &["--platform", "linux/arm64"], more, &["ctx"]].concat())
    };
    build(&[]).fails(3, &["nothing here builds linux/arm64", "--cross"]);
    assert!(deployments(&rig, space.name()).is_empty(), "a builder was made for nothing");
    let ran = build(&["--cross"]);
    assert!(
        ran.stderr.contains("linux/arm64 → ") && ran.stderr.contains(", cross-compiled"),
        "{}",
        ran.stderr
    );
    ran.ok();
    let config: Value = serde_json::from_slice(&crane(&rig, &["config", &tag])).expect("a config");
    assert_eq!(config["architecture"], "arm64");
    let (files, written) = (crane(&rig, &["export", &tag, "-"]), "made on x86_64.");
    assert!(files.windows(written.len()).any(|window| window == written.as_bytes()), "nothing ran");
}
