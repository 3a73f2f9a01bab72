//! The index that we assemble, beside what buildx's imagetools makes of the same inputs.

use crate::buildkitd::peer;
use crate::strict_registry::{StrictRegistry, Switches};
use crate::{Home, built};
use kubectl_build::image::Platform;
use kubectl_build::image::index::{Source, assemble};
use kubectl_build::registry::{Descriptor, media_type};
use rstest::rstest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;

const APP: &str = "team/app";

/// Puts an image without attestations into the registry.
fn image(registry: &StrictRegistry, kind: &str, config: &str, architecture: &str) -> Descriptor {
    let content = json!({ "os": "linux", "architecture": architecture }).to_string();
    let digest = registry.add_blob(APP, content.as_bytes()).to_string();
    let config = json!({ "mediaType": config, "digest": digest, "size": content.len() });
    registry
        .add_manifest(APP, &json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [] }))
}

fn compare(registry: &StrictRegistry, sources: &[(Descriptor, Option<Platform>)], platforms: &[Platform]) {
    let home = Home::new();
    let mut buildx = Command::new(peer("buildx"));
    buildx.args(["imagetools", "create", "--dry-run"]);
    buildx.args(sources.iter().map(|(image, _)| format!("{}/{APP}@{}", registry.host(), image.digest)));
    let output = buildx.env_clear().env("HOME", home.path()).env("PATH", "/usr/bin:/bin").output();
    let output = output.expect("buildx runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs: Value = serde_json::from_slice(&output.stdout).expect("an index");

    let bytes: Vec<_> = sources
        .iter()
        .map(|(image, _)| registry.manifest(APP, &image.digest.to_string()).expect("it is there"))
        .collect();
    let inputs = sources.iter().zip(&bytes).map(|((descriptor, platform), bytes)| Source {
        descriptor,
        bytes,
        platform: platform.as_ref(),
    });
    let ours = assemble(&inputs.collect::<Vec<_>>(), platforms, &BTreeMap::new()).expect("an index");
    let ours: Value = serde_json::from_slice(&ours.bytes).expect("an index");
    assert_eq!(ours, theirs);
}

#[rstest]
#[case::oci(media_type::OCI_MANIFEST, "application/vnd.oci.image.config.v1+json")]
#[case::docker(media_type::DOCKER_MANIFEST, "application/vnd.docker.container.image.v1+json")]
#[ignore = "needs buildx"]
fn images_make_the_index_that_buildx_makes(#[case] kind: &str, #[case] config: &str) {
    let registry = StrictRegistry::start(Switches::default());
    let platforms = ["linux/amd64", "linux/arm64"].map(|text| text.parse::<Platform>().expect("a platform"));
    let images = platforms.iter().map(|platform| {
        let image = image(&registry, kind, config, &platform.architecture);
        (image, Some(platform.clone()))
    });
    let images: Vec<_> = images.collect();
    compare(&registry, &images, &platforms);
}

#[test]
#[ignore = "needs buildx"]
fn an_index_with_attestations_goes_through_as_with_buildx() {
    let registry = StrictRegistry::start(Switches::default());
    let index = built(&registry, APP);
    let platforms = ["linux/amd64", "linux/arm64"].map(|text| text.parse().expect("a platform"));
    compare(&registry, &[(index, None)], &platforms);
}
