//! An index with its platforms and attestations, all of it signed by an identity, by a key service, and by two signers.

use crate::openbao::{OpenBao, ROOT};
use crate::rig::Rig;
use crate::seen::Seen;
use crate::services::Services;
use crate::tool::{self, Ran, Tool};
use crate::{fresh, nodes};

/// Runs the lines that were printed to verify with, each for all these names of the image at once.
#[track_caller]
fn verified(
    tool: &Tool,
    ran: &Ran,
    image: &str,
    names: &[String],
    attested: &[String],
    variables: &[(&str, &str)],
) {
    let mut lines = 0;
    for line in ran.stderr.lines().filter_map(|line| line.strip_prefix("verify with ")) {
        let (generation, line) = line.split_once(": ").expect("a generation");
        let peer = tool.rig.peer(if generation == "cosign 2" { "cosign2" } else { "cosign" });
        let names = if line.contains("cosign verify-attestation ") { attested } else { names };
        let line = line.replace("cosign verify", &format!("{} verify", peer.display()));
        let line = line.replace(image, &names.join(" "));
        let verified = tool.shell(&line, variables);
        assert_eq!(verified.code, 0, "{generation}: {line}\n{}", verified.stderr);
        lines += 1;
    }
    assert!(lines > 0, "no line:\n{}", ran.stderr);
}

#[test]
#[ignore = "needs the rig"]
fn all_of_an_index_is_signed_by_whoever_is_asked_to() {
    let rig = Rig::load();
    let _both_amd64 = nodes(&rig);
    let space = rig.namespace("signers");
    let tool = Tool::new(&rig, space.name());
    let (registry, name) = (rig.get("REGISTRY"), fresh("signers"));
    tool.file(
        "ctx/Dockerfile",
        "FROM scratch\nARG TARGETARCH SIGNER\nLABEL built=$TARGETARCH signer=$SIGNER\nCOPY Dockerfile /\n",
    );
    let server = OpenBao::start();
    server.key("app", "ecdsa-p256");
    let (key, _) = tool.key_pair("k", "");
    let key = key.to_str().expect("UTF-8");
    let services = Services::load().config_flags();
    let services: Vec<&str> = services.iter().map(String::as_str).collect();
    let signers = [
        ("identity", [&["--service-account", "default"][..], &services].concat(), 1),
        ("service", vec!["--cosign-key", "openbao://app"], 2),
        ("two", vec!["--cosign-key", key, "--builder-key", "openbao://app"], 4),
    ];
    let variables = [
        ("COSIGN_PASSWORD", ""),
        ("BAO_ADDR", server.address.as_str()),
        ("BAO_TOKEN", ROOT),
        ("VAULT_ADDR", server.address.as_str()),
        ("VAULT_TOKEN", ROOT),
    ];
    for (signer, flags, signatures) in signers {
        let tag = format!("{registry}/{name}:{signer}");
        let argument = format!("SIGNER={signer}");
        let build = [
            "-t",
            &tag,
            "--platform",
            "linux/amd64,linux/arm64",
            "--cross",
            "--provenance",
            "--build-arg",
            &argument,
            "--push",
            "--sign",
            "--sign-scope",
            "all",
            "--registry-http",
            registry,
            "--progress",
            "plain",
            "--metadata-file",
            "meta.json",
        ];
        let mut command = tool.command("kubectl-build", &[&build[..], &flags, &["ctx"]].concat());
        command.envs(variables);
        let ran = tool::run(command);
        assert_eq!(ran.code, 0, "{signer}: {}", ran.stderr);
        let index = Seen::plain(&rig).manifest(&name, signer).expect("an index");
        let digest = Seen::plain(&rig).digest(&name, signer).expect("the tag is there");
        let entries = index["manifests"].as_array().expect("entries");
        assert_eq!(entries.len(), 4, "two platforms, and what is attested of each: {index}");
        let below = entries.iter().map(|entry| {
            let is_image = entry["annotations"]["vnd.docker.reference.type"].is_null();
            (is_image, format!("{registry}/{name}@{}", entry["digest"].as_str().expect("a digest")))
        });
        let (platforms, attestations): (Vec<_>, Vec<_>) = below.partition(|(is_image, _)| *is_image);
        assert_eq!((platforms.len(), attestations.len()), (2, 2), "{index}");
        let image = format!("{registry}/{name}@{digest}");
        let attested: Vec<String> =
            [image.clone(), tag].into_iter().chain(platforms.into_iter().map(|(_, name)| name)).collect();
        let names: Vec<String> =
            attested.iter().cloned().chain(attestations.into_iter().map(|(_, name)| name)).collect();
        verified(&tool, &ran, &image, &names, &attested, &variables);
        let metadata = std::fs::read(tool.home().join("meta.json")).expect("a file");
        let metadata: serde_json::Value = serde_json::from_slice(&metadata).expect("JSON");
        let made = metadata["kubectl-build"]["signatures"].as_array().expect("signatures").len();
        assert_eq!(made, 5 * signatures, "{signer}: {metadata}");
    }
}
