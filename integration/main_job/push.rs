//! Pushing without signing: the predecessor's cases, and what comes out beside the image.

use crate::rig::Rig;
use crate::seen::Seen;
use crate::tool::Tool;
use crate::{fresh, hello};
use serde_json::Value;

#[test]
#[ignore = "needs the rig"]
fn a_push_without_a_signature_moves_the_tags() {
    let rig = Rig::load();
    let space = rig.namespace("push");
    let tool = Tool::new(&rig, space.name());
    let (registry, name) = (rig.get("REGISTRY"), fresh("push"));
    let (one, two) = (format!("{registry}/{name}:1"), format!("{registry}/{name}:two"));
    let context = hello();
    let arguments = [
        "-t",
        &one,
        "-t",
        &two,
        "--push",
        "--registry-http",
        registry,
        "--iidfile",
        "iid",
        "--metadata-file",
        "meta.json",
    ];
    let stdout = tool.build(&[&arguments[..], &[context.to_str().expect("UTF-8")]].concat()).ok();

    let seen = Seen::plain(&rig);
    let digest = seen.digest(&name, "1").expect("the tag is there");
    assert_eq!(seen.digest(&name, "two").as_ref(), Some(&digest));
    assert_eq!(stdout, format!("{one}@{digest}\n{two}@{digest}\n"));
    assert_eq!(std::fs::read_to_string(tool.home().join("iid")).expect("a file"), digest);
    let metadata: Value =
        serde_json::from_slice(&std::fs::read(tool.home().join("meta.json")).expect("a file")).expect("JSON");
    assert_eq!(metadata["containerimage.digest"], digest.as_str());
    assert_eq!(metadata["containerimage.descriptor"]["digest"], digest.as_str());
    assert!(!seen.tags(&name).iter().any(|tag| tag.starts_with("sha256-")), "nothing was signed");
    let manifest = seen.manifest(&name, "1").expect("a manifest");
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(manifest["layers"].as_array().expect("layers").len(), 1);
}

#[test]
#[ignore = "needs the rig"]
fn without_a_push_the_result_stays_in_the_cache_and_a_line_says_so() {
    let rig = Rig::load();
    let space = rig.namespace("cache");
    let tool = Tool::new(&rig, space.name());
    let context = hello();
    let ran = tool.build(&["--progress", "plain", context.to_str().expect("UTF-8")]);
    assert!(ran.stderr.contains("stays in the cache of builder buildkit: add --push"), "{}", ran.stderr);
    assert_eq!(ran.ok(), "");
    // -q promises a digest.
    let ran = tool.build(&["-q", context.to_str().expect("UTF-8")]);
    assert_eq!(ran.stderr, "");
    let digest = ran.ok();
    assert!(digest.starts_with("sha256:") && digest.trim_end().len() == 71, "{digest}");
}

/// Checks are loosened for the registry that was named, and for no other that is pushed to.
#[test]
#[ignore = "needs the rig"]
fn a_plain_registry_beside_another_does_not_loosen_its_checks() {
    let rig = Rig::load();
    let space = rig.namespace("mixed");
    let tool = Tool::new(&rig, space.name());
    let (plain, tls) = (rig.get("REGISTRY"), rig.get("REGISTRY_TLS"));
    tool.log_in(tls);
    let ca = format!("{tls}={}", rig.get("REGISTRY_TLS_CA"));
    tool.buildkit(&["create", "knows-nothing"]).ok();
    tool.buildkit(&["create", "knows-the-ca", "--registry-ca", &ca]).ok();
    let context = hello();
    let build = |builder: &str, name: &str| {
        let tags = [format!("{plain}/{name}:1"), format!("{tls}/{name}:1")];
        let arguments =
            ["--builder", builder, "-t", &tags[0], "-t", &tags[1], "--push", "--registry-http", plain];
        tool.build(&[&arguments[..], &[context.to_str().expect("UTF-8")]].concat())
    };
    let name = fresh("mixed");
    build("knows-nothing", &name).fails(1, &[tls, "x509", "--registry-ca"]);
    assert_eq!(Seen::tls(&rig, tls).digest(&name, "1"), None, "it went there unchecked");
    let name = fresh("mixed");
    let stdout = build("knows-the-ca", &name).ok();
    let digest = Seen::plain(&rig).digest(&name, "1").expect("the tag is there");
    assert_eq!(Seen::tls(&rig, tls).digest(&name, "1").as_ref(), Some(&digest));
    assert_eq!(stdout, format!("{plain}/{name}:1@{digest}\n{tls}/{name}:1@{digest}\n"));
}

/// The predecessor's TestBuildWithPush: a registry that only pods can resolve, with TLS of its own authority and a
/// password from a Secret.
#[test]
#[ignore = "needs the rig"]
fn a_registry_that_only_pods_resolve_takes_a_push() {
    let rig = Rig::load();
    let space = rig.namespace("svc");
    let tool = Tool::new(&rig, space.name());
    let (registry, name) = (rig.get("REGISTRY_SVC"), fresh("svc"));
    let ca = std::fs::read_to_string(rig.get("REGISTRY_SVC_CA")).expect("the CA");
    let pem = tool.file("cert.pem", &ca);
    space.kubectl(&["create", "configmap", "certs", &format!("--from-file=cert.pem={}", pem.display())]);
    let config = format!("[registry.\"{registry}\"]\n  ca = [\"/etc/config/cert.pem\"]\n");
    tool.file("buildkitd.toml", config);
    space.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "regtest",
        &format!("--docker-server=https://{registry}"),
        &format!("--docker-username={}", rig.get("REGISTRY_USER")),
        &format!("--docker-password={}", rig.get("REGISTRY_PASSWORD")),
    ]);
    tool.buildkit(&["create", "regtest", "--config", "buildkitd.toml", "--custom-config", "certs"]).ok();
    let tag = format!("{registry}/{name}:1");
    let context = hello();
    let context = context.to_str().expect("UTF-8");
    tool.build(&["--builder", "regtest", "--registry-secret", "regtest", "-t", &tag, "--push", context]).ok();
    assert!(Seen::tls(&rig, registry).manifest(&name, "1").is_some());

    // Without credentials the registry's refusal is told, with what to do.
    let refused = tool.build(&["--builder", "regtest", "-t", &tag, "--push", context]);
    refused.fails(1, &[registry, "hint:", "--registry-secret"]);
}

/// The predecessor's TestParallelDefaultBuilds: three first builds at once share the builder that they make, and
/// each image runs as a pod.
#[test]
#[ignore = "needs the rig"]
fn parallel_first_builds_share_one_builder() {
    let rig = Rig::load();
    let space = rig.namespace("race");
    let tool = Tool::new(&rig, space.name());
    let (registry, name, base) = (rig.get("REGISTRY"), fresh("race"), rig.get("BASE_REF"));
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (tool, name, space) = (&tool, &name, &space);
            scope.spawn(move || {
                let dockerfile = format!(
                    "FROM {base}\nRUN echo number {number} > /number\nCMD sh -c 'cat /number; sleep 1d'\n"
                );
                tool.file(&format!("c{number}/Dockerfile"), dockerfile);
                let tag = format!("{registry}/{name}:{number}");
                tool.build(&["-t", &tag, "--push", "--registry-http", registry, &format!("c{number}")]).ok();
                let pod = format!("n{number}");
                space.kubectl(&["run", &pod, "--image", &tag, "--restart=Never"]);
                space.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"]);
                assert_eq!(space.kubectl(&["logs", &pod]), format!("number {number}\n"));
            });
        }
    });
    let deployments = space.kubectl(&["get", "deployments", "-o", "name"]);
    assert_eq!(deployments.lines().count(), 1, "{deployments}");
}
