//! `--push --sign`: what stands in the registry, who verifies it, and what happens when it can't be finished.

use crate::rig::{Rig, text};
use crate::seen::Seen;
use crate::tool::Tool;
use crate::{fresh, hello};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const ROOT: &str = r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}"#;

fn cosign(tool: &Tool, peer: &str, arguments: &[&str]) -> std::process::Output {
    tool.file("root.json", ROOT);
    let mut command: Command = tool.rig.command(tool.rig.peer(peer));
    command.args(arguments).current_dir(tool.home()).env("HOME", tool.home()).env("COSIGN_PASSWORD", "pw");
    command.output().expect("cosign runs")
}

/// Asserts that a generation of cosign verifies an image; cosign 2 needs a root as soon as it sees a bundle.
#[track_caller]
pub fn cosign_accepts(tool: &Tool, peer: &str, key: &Path, image: &str) {
    let key = key.to_str().expect("UTF-8");
    let root: &[&str] = if peer == "cosign2" { &["--trusted-root", "root.json"] } else { &[] };
    let common = ["verify", "--key", key, "--insecure-ignore-tlog", "--allow-http-registry", image];
    let output = cosign(tool, peer, &[&common[..], root].concat());
    assert!(output.status.success(), "{peer}: {}", text(&output.stderr));
}

#[track_caller]
fn verified(tool: &Tool, key: &Path, image: &str) {
    cosign_accepts(tool, "cosign", key, image);
    cosign_accepts(tool, "cosign2", key, image);
}

/// The predecessor's TestBuildWithPush, signed, with a throw-away key made here.
#[test]
#[ignore = "needs the rig"]
fn a_signed_push_is_verified_by_both_generations_of_cosign() {
    let rig = Rig::load();
    let space = rig.namespace("sign");
    let tool = Tool::new(&rig, space.name());
    let (key, public) = tool.key_pair("k", "pw");
    let (registry, name) = (rig.get("REGISTRY"), fresh("sign"));
    let tag = format!("{registry}/{name}:1");
    let context = hello();
    let arguments = [
        "-t",
        &tag,
        "--push",
        "--sign",
        "--cosign-key",
        key.to_str().expect("UTF-8"),
        "--registry-http",
        registry,
    ];
    let mut command =
        tool.command("kubectl-build", &[&arguments[..], &[context.to_str().expect("UTF-8")]].concat());
    command.env("COSIGN_PASSWORD", "pw").arg("--metadata-file").arg("meta.json");
    let ran = crate::tool::run(command);
    assert!(ran.stderr.contains("cosign verify --key"), "{}", ran.stderr);
    // Our own steps have numbers like the daemon's.
    for step in
        ["finding builder buildkit", "signing sha256:", "verifying sha256:", &format!("writing {tag}")]
    {
        let started = ran.stderr.lines().find(|line| line.starts_with('#') && line.contains(step));
        let number = started.and_then(|line| line.split_once(' ')).expect(step).0;
        assert!(
            ran.stderr.lines().any(|line| line.starts_with(&format!("{number} DONE"))),
            "{step}: {}",
            ran.stderr
        );
    }
    ran.ok();

    let seen = Seen::plain(&rig);
    let digest = seen.digest(&name, "1").expect("the tag is there");
    let signatures = seen.manifest(&name, &format!("{}.sig", digest.replace(':', "-"))).expect("a .sig tag");
    assert_eq!(signatures["layers"].as_array().expect("layers").len(), 1);
    // This registry has no referrers API, so the fallback tag lists the bundle, complete.
    let fallback = seen.manifest(&name, &digest.replace(':', "-")).expect("a fallback tag");
    let entry = &fallback["manifests"][0];
    assert_eq!(entry["artifactType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
    assert_eq!(
        entry["annotations"]["dev.sigstore.bundle.predicateType"],
        "https://sigstore.dev/cosign/sign/v1"
    );
    verified(&tool, &public, &format!("{registry}/{name}@{digest}"));
    verified(&tool, &public, &tag);
    let metadata: Value =
        serde_json::from_slice(&std::fs::read(tool.home().join("meta.json")).expect("a file")).expect("JSON");
    let signed = metadata["kubectl-build"]["signatures"].as_array().expect("signatures");
    assert_eq!(signed.len(), 2);
    assert!(signed.iter().all(|one| one["digest"] == digest.as_str()));
}

#[test]
#[ignore = "needs the rig"]
fn signing_again_changes_nothing() {
    let rig = Rig::load();
    let space = rig.namespace("again");
    let tool = Tool::new(&rig, space.name());
    let (key, public) = tool.key_pair("k", "");
    let (registry, name) = (rig.get("REGISTRY_REFERRERS"), fresh("again"));
    let tag = format!("{registry}/{name}:1");
    let context = hello();
    for _ in 0..2 {
        let arguments = ["-t", &tag, "--push", "--registry-http", registry, context.to_str().expect("UTF-8")];
        let mut command = tool.command("kubectl-build", &arguments);
        command.env("COSIGN_PASSWORD", "").env("COSIGN_KEY", &key).env("KUBECTL_BUILD_SIGN", "true");
        command.args(["--progress", "rawjson"]);
        let ran = crate::tool::run(command);
        let lines = ran.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let vertexes: Vec<Value> =
            lines.filter_map(|line| Some(line["vertexes"].as_array()?.clone())).flatten().collect();
        for step in ["checking keys", "signing sha256:", "verifying sha256:", &format!("writing {tag}")] {
            let named = |vertex: &&Value| vertex["name"].as_str().is_some_and(|name| name.starts_with(step));
            let last = vertexes.iter().rfind(named).unwrap_or_else(|| panic!("{step}: {}", ran.stderr));
            let times = (last["started"].as_str(), last["completed"].as_str());
            assert!(matches!(times, (Some(from), Some(to)) if from <= to), "{last}");
            assert!(last.get("error").is_none() && last["digest"].as_str().is_some(), "{last}");
        }
        ran.ok();
    }
    let seen = Seen::referrers_registry(&rig);
    let digest = seen.digest(&name, "1").expect("the tag is there");
    let signatures = seen.manifest(&name, &format!("{}.sig", digest.replace(':', "-"))).expect("a .sig tag");
    assert_eq!(signatures["layers"].as_array().expect("layers").len(), 1);
    assert_eq!(seen.referrers(&name, &digest).len(), 1);
    assert!(!seen.tags(&name).contains(&digest.replace(':', "-")), "the API needs no fallback tag");
    verified(&tool, &public, &tag);
}

/// Two repositories, one behind TLS of its own authority with a password, and a key in a Secret as cosign makes it.
#[test]
#[ignore = "needs the rig"]
fn each_repository_gets_its_own_signature_and_then_its_tag() {
    let rig = Rig::load();
    let space = rig.namespace("repos");
    let tool = Tool::new(&rig, space.name());
    let (plain, tls, name) = (rig.get("REGISTRY"), rig.get("REGISTRY_TLS"), fresh("repos"));
    let reference = format!("k8s://{}/signer", space.name());
    let made = cosign(&tool, "cosign", &["generate-key-pair", &reference]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    tool.log_in(tls);
    let ca = format!("{tls}={}", rig.get("REGISTRY_TLS_CA"));
    tool.buildkit(&["create", "--registry-ca", &ca, "--registry-http", plain]).ok();
    let (one, two) = (format!("{plain}/{name}:1"), format!("{tls}/{name}:1"));
    let context = hello();
    let arguments = ["-t", &one, "-t", &two, "--push", "--sign", "--key", &reference];
    // No registry flag here: the builder's configuration is read back.
    tool.build(&[&arguments[..], &[context.to_str().expect("UTF-8")]].concat()).ok();
    let digest = Seen::plain(&rig).digest(&name, "1").expect("the tag is there");
    for (seen, host) in [(Seen::plain(&rig), plain), (Seen::tls(&rig, tls), tls)] {
        assert_eq!(seen.digest(&name, "1").as_ref(), Some(&digest));
        let signatures =
            seen.manifest(&name, &format!("{}.sig", digest.replace(':', "-"))).expect("a .sig tag");
        let payload = seen.blob(&name, signatures["layers"][0]["digest"].as_str().expect("a digest"));
        assert_eq!(payload["critical"]["identity"]["docker-reference"], format!("{host}/{name}"));
        assert_eq!(payload["critical"]["image"]["docker-manifest-digest"], digest.as_str());
    }
}

#[test]
#[ignore = "needs the rig"]
fn preflight_stops_a_build_that_could_not_be_signed() {
    let rig = Rig::load();
    let space = rig.namespace("preflight");
    let tool = Tool::new(&rig, space.name());
    let (key, _) = tool.key_pair("k", "right");
    let key = key.to_str().expect("UTF-8");
    let (registry, tls, name) = (rig.get("REGISTRY"), rig.get("REGISTRY_TLS"), fresh("preflight"));
    let context = hello();
    let context = context.to_str().expect("UTF-8");
    let run = |tag: &str, key: &str, password: Option<&str>| {
        let ca = rig.get("REGISTRY_TLS_CA");
        let arguments = [
            "-t",
            tag,
            "--push",
            "--sign",
            "--cosign-key",
            key,
            "--registry-http",
            registry,
            "--registry-ca",
            &format!("{tls}={ca}"),
            context,
        ];
        let mut command = tool.command("kubectl-build", &arguments);
        if let Some(password) = password {
            command.env("COSIGN_PASSWORD", password);
        }
        crate::tool::run(command)
    };
    let tag = format!("{registry}/{name}:1");
    run(&tag, key, Some("wrong")).fails(2, &["the password does not decrypt the key", "COSIGN_PASSWORD"]);
    run(&tag, key, None).fails(2, &["there is no password", "COSIGN_PASSWORD"]);
    let absent = format!("k8s://{}/absent", space.name());
    run(&tag, &absent, None).fails(2, &["absent", space.name()]);
    space.kubectl(&["create", "secret", "generic", "other", "--from-literal=tls.key=x"]);
    let other = format!("k8s://{}/other", space.name());
    run(&tag, &other, None).fails(2, &[&other, "no entry `cosign.key`", "it has `tls.key`"]);
    // No credentials for this one: it refuses the upload that preflight starts.
    let refused = run(&format!("{tls}/{name}:1"), key, Some("right"));
    refused.fails(1, &[tls, "docker login"]);
    let builders = space.kubectl(&["get", "deployments", "-o", "name"]);
    assert_eq!(builders, "", "nothing was started");
    assert!(Seen::plain(&rig).tags(&name).is_empty());
}

/// The tag's registry goes read-only between push and signature: exit 4, no tag, and the line that was printed
/// finishes the job as it stands.
#[test]
#[ignore = "needs the rig"]
fn the_printed_line_finishes_a_build_whose_signing_was_cut() {
    let rig = Rig::load();
    let space = rig.namespace("resume");
    let tool = Tool::new(&rig, space.name());
    let (key, public) = tool.key_pair("k", "pw");
    let (registry, name) = (rig.get("REGISTRY"), fresh("resume"));
    // An index stands where the signatures would go: no signature can be added to it, and replacing it is out of
    // the question.
    let tag = format!("{registry}/{name}:1");
    let context = hello();
    let context = context.to_str().expect("UTF-8");
    let digest = tool.build(&[
        "-q",
        "-t",
        &format!("{registry}/{name}:first"),
        "--push",
        "--registry-http",
        registry,
        context,
    ]);
    let digest = digest.ok().trim().to_owned();
    let place = format!("{registry}/{name}:{}.sig", digest.replace(':', "-"));
    let crane = |arguments: &[&str]| {
        let output = rig.command(rig.peer("crane")).args(arguments).output().expect("crane runs");
        assert!(output.status.success(), "crane {arguments:?}: {}", text(&output.stderr));
    };
    crane(&["index", "append", "--insecure", "-m", &format!("{registry}/{name}@{digest}"), "-t", &place]);

    let arguments = [
        "-t",
        &tag,
        "--push",
        "--sign",
        "--cosign-key",
        key.to_str().expect("UTF-8"),
        "--registry-http",
        registry,
        context,
    ];
    let run = |password: &str| {
        let mut command = tool.command("kubectl-build", &arguments);
        command.env("COSIGN_PASSWORD", password);
        crate::tool::run(command)
    };
    // The builder is reached while the key is unlocked, but gets nothing to build.
    let stderr = run("wrong").fails(2, &["the password does not decrypt the key"]);
    assert!(!stderr.contains("load .dockerignore") && !stderr.contains("COPY"), "{stderr}");
    let stderr = run("pw").fails(4, &[&digest, "was not moved", "finish with: kubectl buildkit sign"]);
    let seen = Seen::plain(&rig);
    assert_eq!(seen.digest(&name, "1"), None, "no tag points at an unsigned image");

    crane(&["delete", "--insecure", &place]);
    let line = stderr.lines().find_map(|line| Some(line.split_once("finish with: ")?.1)).expect("the line");
    tool.shell(line, &[("COSIGN_PASSWORD", "pw")]).ok();
    assert_eq!(seen.digest(&name, "1").as_ref(), Some(&digest));
    verified(&tool, &public, &tag);
}

/// The predecessor's recipe for a private authority: the builder's file names a certificate in another ConfigMap. What
/// the build read there, the line that finishes it reads, too.
#[test]
#[ignore = "needs the rig"]
fn the_printed_line_knows_the_authority_in_a_custom_config() {
    let rig = Rig::load();
    let space = rig.namespace("resume-ca");
    let tool = Tool::new(&rig, space.name());
    let (key, _) = tool.key_pair("k", "pw");
    let (registry, name) = (rig.get("REGISTRY_TLS"), fresh("resume-ca"));
    tool.log_in(registry);
    let from = format!("--from-file=cert.pem={}", rig.get("REGISTRY_TLS_CA"));
    space.kubectl(&["create", "configmap", "certs", &from]);
    tool.file("b.toml", format!("[registry.\"{registry}\"]\nca = [\"/etc/config/cert.pem\"]\n"));
    tool.buildkit(&["create", "--config", "b.toml", "--custom-config", "certs"]).ok();
    let context = hello();
    let context = context.to_str().expect("UTF-8");
    let digest = tool.build(&["-q", "-t", &format!("{registry}/{name}:first"), "--push", context]).ok();
    let digest = digest.trim();
    let place = format!("{registry}/{name}:{}.sig", digest.replace(':', "-"));
    let crane = |arguments: &[&str]| {
        let mut command = rig.command(rig.peer("crane"));
        command.args(arguments).env("DOCKER_CONFIG", tool.home().join(".docker"));
        let output = command.output().expect("crane runs");
        assert!(output.status.success(), "crane {arguments:?}: {}", text(&output.stderr));
    };
    // Nothing can be signed while an index stands in that place.
    crane(&["index", "append", "--insecure", "-m", &format!("{registry}/{name}@{digest}"), "-t", &place]);
    let tag = format!("{registry}/{name}:1");
    let key = key.to_str().expect("UTF-8");
    let mut command =
        tool.command("kubectl-build", &["-t", &tag, "--push", "--sign", "--cosign-key", key, context]);
    command.env("COSIGN_PASSWORD", "pw");
    let stderr = crate::tool::run(command).fails(4, &["finish with: kubectl buildkit sign"]);
    crane(&["delete", "--insecure", &place]);
    let line = stderr.lines().find_map(|line| Some(line.split_once("finish with: ")?.1)).expect("the line");
    assert!(!line.contains("--registry-ca"), "{line}");
    tool.shell(line, &[("COSIGN_PASSWORD", "pw")]).ok();
    assert_eq!(Seen::tls(&rig, registry).digest(&name, "1").as_deref(), Some(digest));
}

/// As after an eviction: the builder is there, its pod is not yet, and its settings count all the same.
#[test]
#[ignore = "needs the rig"]
fn a_builder_that_is_starting_keeps_its_registry_settings() {
    let rig = Rig::load();
    let space = rig.namespace("starting");
    let tool = Tool::new(&rig, space.name());
    let (key, _) = tool.key_pair("k", "");
    let (plain, tls, name) = (rig.get("REGISTRY"), rig.get("REGISTRY_TLS"), fresh("starting"));
    tool.log_in(tls);
    let ca = format!("{tls}={}", rig.get("REGISTRY_TLS_CA"));
    tool.buildkit(&["create", "--registry-ca", &ca, "--registry-http", plain]).ok();
    space.kubectl(&["scale", "deployment/buildkit", "--replicas=0"]);
    let ours = "app.kubernetes.io/managed-by=kubectl-build";
    space.kubectl(&["wait", "--for=delete", "pod", "-l", ours, "--timeout=60s"]);
    space.kubectl(&["scale", "deployment/buildkit", "--replicas=1"]);
    let (one, two) = (format!("{plain}/{name}:1"), format!("{tls}/{name}:1"));
    let context = hello();
    let arguments = ["-t", &one, "-t", &two, "--push", "--sign", "--cosign-key"];
    let more = [key.to_str().expect("UTF-8"), context.to_str().expect("UTF-8")];
    let mut command = tool.command("kubectl-build", &[&arguments[..], &more].concat());
    command.env("COSIGN_PASSWORD", "");
    crate::tool::run(command).ok();
    let digest = Seen::plain(&rig).digest(&name, "1").expect("the tag is there");
    assert_eq!(Seen::tls(&rig, tls).digest(&name, "1"), Some(digest));
}

#[test]
#[ignore = "needs the rig"]
fn nothing_is_signed_unless_the_image_is_in_each_repository() {
    let rig = Rig::load();
    let space = rig.namespace("elsewhere");
    let tool = Tool::new(&rig, space.name());
    let (key, _) = tool.key_pair("k", "");
    let (registry, name) = (rig.get("REGISTRY"), fresh("elsewhere"));
    let context = hello();
    let tag = format!("{registry}/{name}:1");
    let push = ["-q", "-t", &tag, "--push", "--registry-http", registry, context.to_str().expect("UTF-8")];
    let digest = tool.build(&push).ok();
    let digest = digest.trim();
    let there = format!("{registry}/{name}@{digest}");
    let elsewhere = format!("{registry}/{name}-absent@{digest}");
    let key = key.to_str().expect("UTF-8");
    let arguments = ["sign", "--cosign-key", key, "--registry-http", registry, &there, &elsewhere];
    let mut command = tool.command("kubectl-buildkit", &arguments);
    command.env("COSIGN_PASSWORD", "");
    crate::tool::run(command).fails(1, &[&format!("{registry}/{name}-absent"), "there is no image"]);
    let seen = Seen::plain(&rig);
    assert_eq!(seen.tags(&name), ["1"], "nothing was signed");
    assert!(seen.tags(&format!("{name}-absent")).is_empty());
}

/// Runtimes pull an index by the digest of one platform: that is signed along.
#[test]
#[ignore = "needs the rig"]
fn an_index_is_signed_with_each_of_its_images() {
    let rig = Rig::load();
    let space = rig.namespace("index");
    let tool = Tool::new(&rig, space.name());
    let (key, public) = tool.key_pair("k", "pw");
    let (registry, name) = (rig.get("REGISTRY"), fresh("index"));
    let context = hello();
    let first = format!("{registry}/{name}:first");
    let push = ["-q", "-t", &first, "--push", "--registry-http", registry, context.to_str().expect("UTF-8")];
    let image = tool.build(&push).ok();
    let image = format!("{registry}/{name}@{}", image.trim());
    let mut crane = rig.command(rig.peer("crane"));
    let index = format!("{registry}/{name}:index");
    let made = crane.args(["index", "append", "--insecure", "-m", &image, "-t", &index]).output();
    let made = made.expect("crane runs");
    assert!(made.status.success(), "{}", text(&made.stderr));
    let seen = Seen::plain(&rig);
    let digest = seen.digest(&name, "index").expect("an index");
    let (tag, index) = (format!("{registry}/{name}:signed"), format!("{registry}/{name}@{digest}"));
    let key = key.to_str().expect("UTF-8");
    let arguments = ["sign", "--cosign-key", key, "--registry-http", registry, "--tag", &tag, &index];
    let mut command = tool.command("kubectl-buildkit", &arguments);
    command.env("COSIGN_PASSWORD", "pw");
    crate::tool::run(command).ok();
    assert_eq!(seen.digest(&name, "signed"), Some(digest));
    verified(&tool, &public, &index);
    verified(&tool, &public, &image);
}

/// `create --builder-key` makes each signed build there carry a second signature that names the builder; a verifier
/// can ask for both. The reference stands on the builder, the key doesn't.
#[test]
#[ignore = "needs the rig"]
fn a_builders_own_key_signs_beside_the_users() {
    let rig = Rig::load();
    let space = rig.namespace("builder-key");
    let tool = Tool::new(&rig, space.name());
    let (key, public) = tool.key_pair("k", "pw");
    let (key, public) = (key.to_str().expect("UTF-8"), public.to_str().expect("UTF-8"));
    let (registry, name) = (rig.get("REGISTRY"), fresh("builder-key"));
    let reference = format!("k8s://{}/builder", space.name());
    let run = |program: &str, arguments: &[&str]| {
        let mut command = tool.command(program, arguments);
        command.env("COSIGN_PASSWORD", "pw");
        crate::tool::run(command)
    };
    run("kubectl-buildkit", &["key", "generate", &reference]).ok();
    run("kubectl-buildkit", &["create", "--builder-key", key]).fails(2, &["all its users can reach"]);
    tool.buildkit(&["create", "--registry-http", registry, "--builder-key", &reference]).ok();
    tool.buildkit(&["create", "--builder-key", &format!("{reference}2")])
        .fails(2, &["another configuration"]);
    let map = space.kubectl(&["get", "configmap", "buildkit", "-o", "yaml"]);
    assert!(map.contains(&reference) && !map.contains("BEGIN"), "{map}");

    let tag = format!("{registry}/{name}:1");
    let context = hello();
    let context = context.to_str().expect("UTF-8");
    run("kubectl-build", &["-t", &tag, "--push", "--sign", "--cosign-key", key, context]).ok();
    let verify = |more: &[&str]| {
        tool.buildkit(&[&["verify", "--registry-http", registry], more, &[tag.as_str()]].concat())
    };
    let both: Value =
        serde_json::from_str(&verify(&["--key", public, "--key", &reference]).ok()).expect("JSON");
    assert_eq!(both.as_array().map(Vec::len), Some(4), "two signers, two formats: {both}");
    verify(&["--key", &reference, "-a", "builder=buildkit"]).ok();
    verify(&["--key", public, "-a", "builder=buildkit"]).fails(12, &["it has no annotation builder"]);
    for line in [
        format!("verify --key {reference} --insecure-ignore-tlog -a builder=buildkit {tag}"),
        format!("verify --key {public} --insecure-ignore-tlog {tag}"),
    ] {
        let output = rig.command(rig.peer("cosign")).args(line.split(' ')).output().expect("cosign runs");
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    }

    // The flag is for one build alone, and need not be one that others reach.
    let (other, other_public) = tool.key_pair("other", "pw");
    let other = other.to_str().expect("UTF-8");
    let second = format!("{registry}/{name}:2");
    let arguments =
        ["-t", &second, "--label", "n=2", "--push", "--sign", "--cosign-key", key, "--builder-key", other];
    run("kubectl-build", &[&arguments[..], &[context]].concat()).ok();
    let verify = |key: &str| tool.buildkit(&["verify", "--registry-http", registry, "--key", key, &second]);
    verify(other_public.to_str().expect("UTF-8")).ok();
    verify(&reference).fails(12, &["it is not a signature of this key"]);
    // What finishes a build there signs as the build would have.
    let digest = Seen::plain(&rig).digest(&name, "2").expect("it was pushed");
    let image = format!("{registry}/{name}@{digest}");
    run("kubectl-buildkit", &["sign", "--builder", "buildkit", "--cosign-key", key, &image]).ok();
    verify(&reference).ok();
    // Without the Secret nothing is built.
    space.kubectl(&["delete", "secret", "builder"]);
    let arguments = ["-t", &second, "--push", "--sign", "--cosign-key", key, context];
    let stderr = run("kubectl-build", &arguments).fails(2, &[&reference]);
    assert!(!stderr.contains("load build definition"), "{stderr}");
}

/// The builder's key is read with the caller's own rights: who may build there and not read it is told before anything
/// is built, and what to ask for.
#[test]
#[ignore = "needs the rig"]
fn a_builders_key_that_the_caller_may_not_read_is_told_before_the_build() {
    let rig = Rig::load();
    let space = rig.namespace("builder-denied");
    let tool = Tool::new(&rig, space.name());
    let (key, _) = tool.key_pair("k", "pw");
    let key = key.to_str().expect("UTF-8");
    let (registry, name) = (rig.get("REGISTRY"), fresh("builder-denied"));
    let reference = format!("k8s://{}/builder", space.name());
    let mut command = tool.command("kubectl-buildkit", &["key", "generate", &reference]);
    command.env("COSIGN_PASSWORD", "pw");
    crate::tool::run(command).ok();
    tool.buildkit(&["create", "--registry-http", registry, "--builder-key", &reference]).ok();
    let role = include_str!("../../hack/rbac.yaml").split("\n---").next().expect("the Role");
    let role = role.split("  # For `--cosign-key k8s://").next().expect("all but Secrets");
    let role = tool.file("role.yaml", role);
    space.kubectl(&["create", "-f", role.to_str().expect("UTF-8")]);
    space.kubectl(&["create", "serviceaccount", "dev"]);
    let dev = format!("{}:dev", space.name());
    space.kubectl(&[
        "create",
        "rolebinding",
        "dev",
        "--role=kubectl-build",
        &format!("--serviceaccount={dev}"),
    ]);
    let tag = format!("{registry}/{name}:1");
    let (context, account) = (hello(), format!("system:serviceaccount:{dev}"));
    let context = context.to_str().expect("UTF-8");
    let build = |more: &[&str]| {
        let arguments = ["-t", &tag, "--push", "--sign", "--cosign-key", key, "--as", &account];
        let mut command = tool.command("kubectl-build", &[&arguments[..], more, &[context]].concat());
        command.env("COSIGN_PASSWORD", "pw");
        crate::tool::run(command)
    };
    let stderr = build(&[]).fails(3, &[&reference, "forbidden", "secrets"]);
    assert!(!stderr.contains("load build definition"), "{stderr}");
    assert!(Seen::plain(&rig).tags(&name).is_empty());
    // A key of this build's own is in reach.
    let (other, _) = tool.key_pair("other", "pw");
    build(&["--builder-key", other.to_str().expect("UTF-8")]).ok();
}

/// An authority of one's own is named to cosign by its file, and checked.
#[test]
#[ignore = "needs the rig"]
fn the_printed_lines_check_the_registrys_authority() {
    let rig = Rig::load();
    let tool = Tool::new(&rig, "default");
    let (key, _) = tool.key_pair("k", "pw");
    let (registry, name) = (rig.get("REGISTRY_TLS"), fresh("cacert"));
    tool.log_in(registry);
    let base = format!("{}/base:busybox", rig.get("REGISTRY"));
    let tag = format!("{registry}/{name}:1");
    let mut crane = rig.command(rig.peer("crane"));
    crane.args(["copy", "--insecure", &base, &tag]).env("DOCKER_CONFIG", tool.home().join(".docker"));
    assert!(crane.output().expect("crane runs").status.success());
    let digest = Seen::tls(&rig, registry).digest(&name, "1").expect("it was copied");
    let ca = format!("{registry}={}", rig.get("REGISTRY_TLS_CA"));
    let image = format!("{registry}/{name}@{digest}");
    let arguments = ["sign", "--cosign-key", key.to_str().expect("UTF-8"), "--registry-ca", &ca, &image];
    let mut command = tool.command("kubectl-buildkit", &arguments);
    command.env("COSIGN_PASSWORD", "pw");
    let signed = crate::tool::run(command);
    assert_eq!(signed.code, 0, "{}", signed.stderr);
    for (generation, peer) in [("cosign 3", "cosign"), ("cosign 2", "cosign2")] {
        let start = format!("verify with {generation}: ");
        let line = signed.stderr.lines().find_map(|line| line.strip_prefix(&start)).expect("the line");
        assert!(line.contains(&format!(" --registry-cacert {}", rig.get("REGISTRY_TLS_CA"))), "{line}");
        assert!(!line.contains("--allow-insecure-registry"), "{line}");
        let peer = format!("{} verify", rig.peer(peer).display());
        let (host, _) = registry.rsplit_once(':').expect("a port");
        let proxy = [("HTTPS_PROXY", "http://127.0.0.1:9"), ("NO_PROXY", host)];
        tool.shell(&line.replace("cosign verify", &peer), &proxy).ok();
    }
}
