//! Several platforms in one build: emulated on one pod, natively on two. The second node is presented as arm64 by its
//! label, and QEMU stands in for its processor.

#![expect(unreachable_pub, reason = "support modules are shared by several test crates")]
#![expect(clippy::print_stdout, reason = "how near a limit it was, shown with --nocapture")]
#![expect(clippy::disallowed_methods, reason = "helpers of tests without a runtime are threads")]

#[path = "multiarch/cross.rs"]
mod cross;
#[path = "support/openbao.rs"]
#[allow(dead_code, reason = "the suite of key services uses more of it")]
mod openbao;
#[path = "support/peers.rs"]
mod peers;
#[path = "support/probe.rs"]
mod probe;
#[path = "support/registries.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod registries;
#[path = "support/rig.rs"]
mod rig;
#[path = "support/running.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod running;
#[path = "support/seen.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod seen;
#[path = "support/services.rs"]
mod services;
#[path = "multiarch/signers.rs"]
mod signers;
#[path = "support/tool.rs"]
mod tool;

use crate::registries::Registry;
use crate::rig::{Namespace, Rig, text};
use crate::running::Running;
use crate::seen::Seen;
use crate::tool::{Ran, Tool};
use rustix::process::Signal;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Only one test at a time says what the nodes are.
static NODES: Mutex<()> = Mutex::new(());

/// Holds the nodes as they are: both amd64.
fn nodes(rig: &Rig) -> MutexGuard<'static, ()> {
    let alone = NODES.lock().unwrap_or_else(PoisonError::into_inner);
    // A run that was killed may have left it.
    ArmNode::withdraw(rig);
    alone
}

/// Returns the names of the two nodes.
fn names(rig: &Rig) -> [String; 2] {
    let names: Vec<String> = rig.get("CLUSTER_NODES").split(' ').map(str::to_owned).collect();
    names.try_into().expect("two nodes")
}

/// The second node, presented as arm64 while this lives.
struct ArmNode<'a> {
    rig: &'a Rig,
    _alone: MutexGuard<'static, ()>,
}

impl<'a> ArmNode<'a> {
    const POLICY: &'static str = "kubectl-build-test-arm64";

    fn present(rig: &'a Rig) -> Self {
        let alone = nodes(rig);
        // A kubelet mends the label with its next report, so its reports are refused meanwhile; the node's lease keeps
        // it alive.
        rig.apply(&format!(
            "apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {policy}}}
spec:
  matchConstraints:
    resourceRules:
    - {{apiGroups: [''], apiVersions: [v1], operations: [UPDATE], resources: [nodes, nodes/status], resourceNames: [{node}]}}
  validations:
  - expression: object.metadata.labels['kubernetes.io/arch'] == 'arm64'
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {policy}}}
spec: {{policyName: {policy}, validationActions: [Deny]}}
",
            policy = Self::POLICY,
            node = names(rig)[1]
        ));
        let presented = Self { rig, _alone: alone };
        tool::eventually("the kubelet's reports are refused", Duration::from_secs(30), || {
            presented.label("arm64", &[]);
            let refused = !presented.label("amd64", &["--dry-run=server"]);
            (refused && Self::architecture(rig) == "arm64").then_some(())
        });
        presented
    }

    fn label(&self, architecture: &str, more: &[&str]) -> bool {
        let label = format!("kubernetes.io/arch={architecture}");
        let [_, node] = names(self.rig);
        let arguments = [&["label", "node", &node, &label, "--overwrite"], more].concat();
        self.rig.try_kubectl(&arguments).status.success()
    }

    fn architecture(rig: &Rig) -> String {
        rig.kubectl(&[
            "get",
            "node",
            &names(rig)[1],
            "-o",
            r"jsonpath={.metadata.labels.kubernetes\.io/arch}",
        ])
    }

    /// Lets the kubelet say again what the node is.
    fn withdraw(rig: &Rig) {
        for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
            rig.try_kubectl(&["delete", kind, Self::POLICY, "--ignore-not-found"]);
        }
        tool::eventually("the kubelet mends its label", Duration::from_secs(60), || {
            (Self::architecture(rig) == "amd64").then_some(())
        });
    }
}

impl Drop for ArmNode<'_> {
    fn drop(&mut self) {
        Self::withdraw(self.rig);
    }
}

/// Writes a context whose RUN step runs a program of the platform that is built.
fn probes(tool: &Tool) {
    use std::os::unix::fs::PermissionsExt as _;
    for architecture in ["amd64", "arm64"] {
        let path = tool.file(&format!("ctx/probe-{architecture}"), probe::program(architecture));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    tool.file("ctx/Dockerfile", probe::DOCKERFILE);
}

fn fresh(purpose: &str) -> String {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    format!("{purpose}-{}", time.as_millis())
}

fn crane(rig: &Rig, arguments: &[&str]) -> Vec<u8> {
    let output =
        rig.command(rig.peer("crane")).args(arguments).arg("--insecure").output().expect("crane runs");
    assert!(output.status.success(), "crane {arguments:?}: {}", text(&output.stderr));
    output.stdout
}

/// Reads the index of a tag, checks its bytes against its digest, and returns it with the platforms of its images.
fn index(rig: &Rig, tag: &str) -> (Value, Vec<String>) {
    let index: Value = serde_json::from_slice(&crane(rig, &["manifest", tag])).expect("an index");
    assert_eq!(index["mediaType"], INDEX);
    let entries = index["manifests"].as_array().expect("entries");
    let platforms = entries.iter().filter(|entry| entry["platform"]["os"] == "linux").map(|entry| {
        assert_eq!(entry["mediaType"], IMAGE);
        format!("linux/{}", entry["platform"]["architecture"].as_str().expect("an architecture"))
    });
    let platforms = platforms.collect();
    (index, platforms)
}

/// Asserts that the file that the RUN step wrote stands in the image of a platform.
fn ran_on(rig: &Rig, tag: &str, architecture: &str) {
    let image = crane(rig, &["export", "--platform", &format!("linux/{architecture}"), tag, "-"]);
    let written = format!("built on {architecture}\n");
    assert!(
        image.windows(written.len()).any(|window| window == written.as_bytes()),
        "not built on {architecture}"
    );
}

/// Puts a key pair without a password into a Secret, as cosign does, and returns cosign's name for it.
fn in_secret(space: &Namespace, key: &Path, public: &Path) -> String {
    let [key, public] = [("key", key), ("pub", public)]
        .map(|(half, path)| format!("--from-file=cosign.{half}={}", path.display()));
    let password = "--from-literal=cosign.password=";
    space.kubectl(&["create", "secret", "generic", "signing", &key, &public, password]);
    format!("k8s://{}/signing", space.name())
}

fn cosign(tool: &Tool, key: impl AsRef<OsStr>, verb: &[&str], image: &str) {
    // cosign 2 wants a root as soon as it sees a bundle.
    let root = r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}"#;
    let root = tool.file("root.json", root);
    let root = ["--trusted-root", root.to_str().expect("UTF-8")];
    for (cosign, more) in [("cosign", &[][..]), ("cosign2", &root[..])] {
        let mut command = tool.rig.command(tool.rig.peer(cosign));
        command.args(verb).arg("--key").arg(&key).arg("--insecure-ignore-tlog");
        command.args(["--allow-http-registry", image]).args(more);
        let output = command.env("HOME", tool.home()).output().expect("cosign runs");
        assert!(output.status.success(), "{cosign} {verb:?} {image}: {}", text(&output.stderr));
    }
}

fn cosign_accepts(tool: &Tool, key: &Path, image: &str) {
    cosign(tool, key, &["verify"], image);
}

/// Asserts that a signed statement of this kind stands at the image, in both formats.
fn attested(tool: &Tool, key: impl AsRef<OsStr>, kind: &str, image: &str) {
    cosign(tool, &key, &["verify-attestation", "--type", kind], image);
    // Without bundles in sight it is the `.att` tag that counts.
    let mut command = tool.rig.command(tool.rig.peer("cosign"));
    command.args(["verify-attestation", "--type", kind, "--new-bundle-format=false"]);
    command.arg("--key").arg(&key).args(["--insecure-ignore-tlog", "--allow-http-registry", image]);
    let output = command.env("HOME", tool.home()).output().expect("cosign runs");
    assert!(output.status.success(), "cosign, .att of {image}: {}", text(&output.stderr));
}

/// Whether policy-controller's own tester lets an image in that must have a signature by this key, or a statement of this
/// kind.
fn admitted(tool: &Tool, key: &Path, predicate_type: Option<&str>, image: &str) -> bool {
    let pem = std::fs::read_to_string(key).expect("a key").replace('\n', "\n        ");
    let attestations =
        predicate_type.map(|kind| format!("    attestations: [{{name: a, predicateType: '{kind}'}}]\n"));
    let policy = format!(
        "apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {{name: p}}\nspec:\n  \
         images: [{{glob: '**'}}]\n  authorities:\n  - name: ours\n    key:\n      hashAlgorithm: sha256\n      \
         data: |\n        {pem}\n{}",
        attestations.unwrap_or_default()
    );
    let policy = tool.file("policy.yaml", policy);
    let mut command = tool.rig.command(tool.rig.peer("policy-tester"));
    command.arg("--policy").arg(policy).args(["--image", image]).env("HOME", tool.home());
    let output = command.output().expect("the tester runs");
    let said = text(&output.stderr) + &text(&output.stdout);
    let admitted = said.contains("Verification was successful");
    assert!(admitted || said.contains("\"errors\""), "it says nothing of the image: {said}");
    admitted
}

fn deployments(rig: &Rig, namespace: &str) -> Vec<String> {
    let names = rig.kubectl(&["get", "deployments", "-n", namespace, "-o", "name"]);
    names.lines().map(|line| line.trim_start_matches("deployment.apps/").to_owned()).collect()
}

#[test]
#[ignore = "needs the rig"]
fn one_pod_builds_natively_and_by_emulation_and_all_of_it_is_signed() {
    let rig = Rig::load();
    let _both_amd64 = nodes(&rig);
    let space = rig.namespace("emulated");
    let tool = Tool::new(&rig, space.name());
    probes(&tool);
    let (key, public) = tool.key_pair("k", "");
    let (registry, name) = (rig.get("REGISTRY"), fresh("emulated"));
    let (one, two) = (format!("{registry}/{name}:1"), format!("{registry}/{name}-too:1"));
    let build = |more: &[&str]| {
        let platforms = ["--platform", "linux/aarch64", "--platform", "linux/amd64,linux/arm64"];
        let push = ["-t", &one, "-t", &two, "--push", "--registry-http", registry, "--progress", "plain"];
        let sign = ["--sign", "--cosign-key", key.to_str().expect("UTF-8"), "--iidfile", "iid"];
        let mut command =
            tool.command("kubectl-build", &[&platforms[..], &push, &sign, more, &["ctx"]].concat());
        command.env("COSIGN_PASSWORD", "").env("GITHUB_OUTPUT", "outputs");
        tool::run(command)
    };
    tool.file("outputs", "before=1\n");
    let [first, second] = names(&rig);
    let there = format!("nothing here builds linux/arm64: {first} is linux/amd64, {second} is linux/amd64");
    build(&[]).fails(3, &[&there, "--emulate", "--cross"]);
    assert!(deployments(&rig, space.name()).is_empty(), "a builder was made for nothing");

    let ran = build(&["--emulate", "--metadata-file", "meta.json"]);
    let node = rig.kubectl(&["get", "pods", "-n", space.name(), "-o", "jsonpath={.items[0].spec.nodeName}"]);
    for line in [
        &format!("linux/arm64 → {node}, emulated"),
        &format!("linux/amd64 → {node}, native"),
        "built on arm64",
        "built on amd64",
    ] {
        assert!(ran.stderr.contains(line), "{line:?} is not in:\n{}", ran.stderr);
    }
    let digest = Seen::plain(&rig).digest(&name, "1").expect("the tag is there");
    assert_eq!(ran.ok(), format!("{one}@{digest}\n{two}@{digest}\n"));
    assert_eq!(text(&crane(&rig, &["digest", &one])).trim(), digest);
    assert_eq!(std::fs::read_to_string(tool.home().join("iid")).expect("a file"), digest);
    let outputs = std::fs::read_to_string(tool.home().join("outputs")).expect("a file");
    let images = format!("{registry}/{name}@{digest},{registry}/{name}-too@{digest}");
    assert_eq!(outputs, format!("before=1\nimage={one}\nimages={images}\ndigest={digest}\n"));
    for tag in [&one, &two] {
        let (index, platforms) = index(&rig, tag);
        assert_eq!(platforms, ["linux/arm64", "linux/amd64"], "{index}");
        assert_eq!(
            index["manifests"].as_array().expect("entries").len(),
            2,
            "nothing else was asked for: {index}"
        );
        cosign_accepts(&tool, &public, tag);
    }
    for architecture in ["amd64", "arm64"] {
        ran_on(&rig, &one, architecture);
    }
    cosign_accepts(&tool, &public, &format!("{registry}/{name}@{digest}"));
    for entry in index(&rig, &one).0["manifests"].as_array().expect("entries") {
        cosign_accepts(
            &tool,
            &public,
            &format!("{registry}/{name}@{}", entry["digest"].as_str().expect("a digest")),
        );
    }

    // A node takes its own platform of the tag.
    space.kubectl(&["run", "it", "--image", &one, "--restart=Never"]);
    let ended = "--for=jsonpath={.status.phase}=Succeeded";
    space.kubectl(&["wait", ended, "pod/it", "--timeout=90s"]);
    assert_eq!(space.kubectl(&["logs", "it"]), "built on amd64\n");

    // The older provenance, and a bill of materials by a scanner of our own: BuildKit's protocol is a script's matter.
    let statement = r#"{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://spdx.dev/Document","predicate":{"spdxVersion":"SPDX-2.3"}}"#;
    tool.file("scan/scan.sh", format!("echo '{statement}' > \"$BUILDKIT_SCAN_DESTINATION/a.spdx.json\"\n"));
    let base = rig.get("BASE_REF");
    tool.file(
        "scan/Dockerfile",
        format!("FROM {base}\nCOPY scan.sh /\nENTRYPOINT [\"/bin/sh\", \"/scan.sh\"]\n"),
    );
    let scanner = format!("{registry}/{name}-scanner:1");
    tool.build(&["-t", &scanner, "--push", "--registry-http", registry, "scan"]).ok();
    let sbom = format!("--sbom=generator={scanner}");
    let ran = build(&["--emulate", "--provenance=version=v0.2,mode=min", &sbom]);
    assert!(ran.stderr.contains("cosign verify-attestation --type slsaprovenance --key"), "{}", ran.stderr);
    ran.ok();
    let in_cluster = in_secret(&space, &key, &public);
    let kinds = ["slsaprovenance", "spdxjson"];
    for kind in kinds {
        attested(&tool, &public, kind, &one);
        attested(&tool, &in_cluster, kind, &two);
    }
    for entry in index(&rig, &one).0["manifests"].as_array().expect("entries") {
        if entry["platform"]["os"] == "linux" {
            let image = format!("{registry}/{name}@{}", entry["digest"].as_str().expect("a digest"));
            for kind in kinds {
                attested(&tool, &public, kind, &image);
            }
        }
    }
    let digest = Seen::plain(&rig).digest(&name, "1").expect("the tag is there").replace(':', "-");
    let tags = text(&crane(&rig, &["ls", &format!("{registry}/{name}")]));
    let tags: Vec<&str> = tags.lines().collect();
    assert!(tags.contains(&"1"), "{tags:?}");
    assert!([".sig", ".att"].iter().all(|end| tags.contains(&&*format!("{digest}{end}"))), "{tags:?}");

    // So does an admission controller, for this key and what was attested, and for no other.
    let (_, stranger) = tool.key_pair("other", "");
    let provenance = Some("https://slsa.dev/provenance/v0.2");
    assert!(admitted(&tool, &public, None, &one) && admitted(&tool, &public, provenance, &one));
    assert!(!admitted(&tool, &stranger, None, &one) && !admitted(&tool, &stranger, provenance, &one));
    assert!(!admitted(&tool, &public, Some("https://cyclonedx.org/bom"), &one));
    // The same image where nobody signed it.
    let root = format!("{registry}/{name}@{}", digest.replacen('-', ":", 1));
    let unsigned = format!("{registry}/{name}-unsigned:1");
    crane(&rig, &["copy", &root, &unsigned]);
    assert_eq!(crane(&rig, &["digest", &unsigned]), crane(&rig, &["digest", &root]));
    for wanted in [None, provenance] {
        assert!(!admitted(&tool, &public, wanted, &unsigned), "it was never signed there");
    }

    // The command that finishes an interrupted build finds all of it done, and adds nothing.
    let layers = || {
        let manifest = Seen::plain(&rig).manifest(&name, &format!("{digest}.att")).expect("attestations");
        manifest["layers"].as_array().expect("layers").len()
    };
    let before = layers();
    let key = key.to_str().expect("UTF-8");
    let sign =
        ["sign", "--attestations", "--cosign-key", key, "--registry-http", registry, "--tag", &one, &root];
    let mut command = tool.command("kubectl-buildkit", &sign);
    tool::run({
        command.env("COSIGN_PASSWORD", "");
        command
    })
    .ok();
    assert_eq!((before, layers()), (4, 4), "two kinds of statements about two platforms");

    // What the daemon does not name and its image does not bring is refused before the build.
    let riscv = ["--platform", "linux/riscv64", "--emulate", "ctx"];
    let refused = format!("nothing here builds linux/riscv64: {node} runs linux/amd64");
    tool.build(&riscv).fails(3, &[&refused, "tonistiigi/binfmt", "--cross"]);
    let bring =
        "printf '#!/bin/sh\\n' > /usr/bin/buildkit-qemu-riscv64 && chmod 755 /usr/bin/buildkit-qemu-riscv64";
    space.kubectl(&["exec", "deployment/buildkit", "--", "sh", "-c", bring]);
    tool.build(&riscv).fails(1, &["probe-riscv64"]);
}

#[test]
#[ignore = "needs the rig"]
fn each_platform_is_built_on_a_node_that_runs_it() {
    let rig = Rig::load();
    let _arm = ArmNode::present(&rig);
    let space = rig.namespace("native");
    let tool = Tool::new(&rig, space.name());
    probes(&tool);
    let (registry, name) = (rig.get("REGISTRY"), fresh("native"));
    let build = |tag: &str, platforms: &str, more: &[&str]| -> Ran {
        let push =
            ["--push", "--registry-http", registry, "--progress", "plain", "--metadata-file", "meta.json"];
        tool.build(&[&["-t", tag, "--platform", platforms], &push[..], more, &["ctx"]].concat())
    };
    // Where both could be had, one is enough for one.
    let (single, tag) = (format!("{registry}/{name}:single"), format!("{registry}/{name}:1"));
    let stderr = build(&single, "linux/arm64", &[]).stderr;
    let [first, second] = names(&rig);
    let lines = [format!("linux/amd64 → {first}, native"), format!("linux/arm64 → {second}, native")];
    assert!(stderr.contains(&lines[1]), "{stderr}");
    assert_eq!(deployments(&rig, space.name()), ["buildkit"]);
    let seen = Seen::plain(&rig);
    assert_eq!(seen.manifest(&name, "single").expect("a manifest")["mediaType"], IMAGE);

    // Neither pod's cache is written over by the other's.
    let (cached, cache) = (format!("{registry}/{name}:cached"), format!("{registry}/{name}:cache"));
    let both = ["--cache-from", &cache, "--cache-to", &cache];
    build(&cached, "linux/amd64,linux/arm64", &both).ok();
    let caches: Vec<String> = seen.tags(&name).into_iter().filter(|tag| tag.starts_with("cache-")).collect();
    assert_eq!(caches, ["cache-amd64", "cache-arm64"]);

    // From the second time on each pod is there already.
    let other = format!("{registry}/{name}-too:1");
    let attest = [
        "-t",
        &other,
        "--provenance=mode=max",
        "--annotation",
        "index:a=b",
        "--annotation",
        "manifest-descriptor[linux/arm64]:c=d",
        "--annotation",
        "manifest[linux/arm64]:k=v",
    ];
    for more in [&[][..], &attest[..]] {
        let ran = build(&tag, "linux/amd64,linux/arm64", more);
        for line in lines.iter().map(String::as_str).chain(["[amd64 internal] load"]) {
            assert!(ran.stderr.contains(line), "{more:?}: {line:?} is not in:\n{}", ran.stderr);
        }
        let digest = seen.digest(&name, "1").expect("the tag is there");
        let tags = if more.is_empty() { vec![&tag] } else { vec![&tag, &other] };
        let printed: Vec<String> = tags.iter().map(|tag| format!("{tag}@{digest}\n")).collect();
        assert_eq!(ran.ok(), printed.concat());
        assert_eq!(deployments(&rig, space.name()), ["buildkit", "buildkit-amd64"]);
    }
    let (joined, platforms) = index(&rig, &tag);
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"], "{joined}");
    for architecture in ["amd64", "arm64"] {
        ran_on(&rig, &tag, architecture);
        ran_on(&rig, &other, architecture);
    }
    let entries = joined["manifests"].as_array().expect("entries");
    assert_eq!((&joined["annotations"]["a"], &entries[1]["annotations"]["c"]), (&"b".into(), &"d".into()));
    let annotated = |entry: &Value| {
        let manifest = seen.manifest(&name, entry["digest"].as_str().expect("a digest"));
        manifest.expect("it is there")["annotations"]["k"].clone()
    };
    assert_eq!([annotated(&entries[0]), annotated(&entries[1])], [Value::Null, "v".into()]);
    let attestations = &entries[2..];
    assert_eq!(attestations.len(), 2, "one for each platform: {joined}");
    for (image, attestation) in entries.iter().zip(attestations) {
        assert_eq!(attestation["annotations"]["vnd.docker.reference.digest"], image["digest"]);
        let manifest =
            seen.manifest(&name, attestation["digest"].as_str().expect("a digest")).expect("it is there");
        let provenance = seen.blob(&name, manifest["layers"][0]["digest"].as_str().expect("a digest"));
        assert_eq!(provenance["predicateType"], "https://slsa.dev/provenance/v1");
        let builder = provenance["predicate"]["runDetails"]["builder"]["id"].as_str().expect("an id");
        let object = format!("/namespaces/{}/deployments/buildkit", space.name());
        assert!(builder.starts_with("https://") && builder.ends_with(&object), "{builder}");
    }

    // Ours is what buildx makes of the same.
    let metadata: Value =
        serde_json::from_slice(&std::fs::read(tool.home().join("meta.json")).expect("a file")).expect("JSON");
    assert_eq!(
        metadata["containerimage.digest"],
        seen.digest(&name, "1").expect("the tag is there").as_str()
    );
    assert_eq!(metadata["containerimage.descriptor"]["mediaType"], INDEX);
    let builds = metadata["kubectl-build"]["builds"].as_array().expect("one for each pod");
    let local = Registry::without_referrers();
    let mut sources = Vec::new();
    for build in builds {
        let digest = build["digest"].as_str().expect("a digest");
        let copy = format!("{}/{name}@{digest}", local.host);
        let bytes = crane(&rig, &["manifest", &format!("{registry}/{name}@{digest}")]);
        assert!(!bytes.is_empty());
        crane(
            &rig,
            &[
                "copy",
                &format!("{registry}/{name}@{digest}"),
                &format!("{}/{name}:{}", local.host, sources.len()),
            ],
        );
        sources.push(copy);
    }
    let mut buildx = rig.command(rig.peer("buildx"));
    let output = buildx
        .args(["imagetools", "create", "--dry-run", "--annotation", "index:a=b"])
        .args(&sources)
        .env("HOME", tool.home())
        .output();
    let output = output.expect("buildx runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut theirs: Value = serde_json::from_slice(&output.stdout).expect("an index");
    let mut ours = joined;
    // Theirs stand in the order of the builders, ours in that of the request.
    for index in [&mut theirs, &mut ours] {
        index["manifests"].as_array_mut().expect("entries").sort_by_key(|entry| entry["digest"].to_string());
    }
    assert_eq!(ours, theirs);

    // One builder to the person, whatever it consists of.
    let listed = tool.buildkit(&["ls"]).ok();
    assert!(listed.lines().count() == 3 && listed.contains(&first) && listed.contains(&second), "{listed}");
    assert_eq!(listed.matches("buildkit").count(), 1, "{listed}");
    tool.buildkit(&["rm"]).ok();
    assert!(deployments(&rig, space.name()).is_empty());
}

#[test]
#[ignore = "needs the rig"]
fn a_platform_that_fails_stops_the_others_and_is_named() {
    let rig = Rig::load();
    let _arm = ArmNode::present(&rig);
    let space = rig.namespace("failing");
    let tool = Tool::new(&rig, space.name());
    let (registry, name) = (rig.get("REGISTRY"), fresh("failing"));
    let dockerfile = format!(
        "FROM {} AS amd64\nRUN echo begun && sleep 250\nFROM scratch AS arm64\nCOPY Dockerfile /probe\n\
         RUN [\"/probe\"]\nFROM $TARGETARCH\n",
        rig.get("BASE_REF")
    );
    tool.file("ctx/Dockerfile", dockerfile);
    tool.buildkit(&["create", "--registry-http", registry]).ok();
    let tag = format!("{registry}/{name}:1");
    let began = Instant::now();
    let ran = tool.build(&[
        "-t",
        &tag,
        "--platform",
        "linux/amd64,linux/arm64",
        "--push",
        "--registry-http",
        registry,
        "--progress",
        "plain",
        "ctx",
    ]);
    assert!(began.elapsed() < Duration::from_secs(120), "the other platform was waited for");
    ran.fails(1, &["error: linux/arm64: ", "the other platforms were stopped", "CANCELED"]);
    assert_eq!(Seen::plain(&rig).digest(&name, "1"), None);
}

/// The registry that only pods resolve: the daemons push images to it by its name, we the index by a pod's port. And
/// somebody who may not list nodes, who gets by with the pods that are there.
#[test]
#[ignore = "needs the rig"]
fn the_index_goes_through_a_services_pod_and_platforms_to_the_pods_that_are_there() {
    let rig = Rig::load();
    let _arm = ArmNode::present(&rig);
    let space = rig.namespace("through");
    let tool = Tool::new(&rig, space.name());
    probes(&tool);
    let [(key, _), (second, _)] = ["k", "second"].map(|name| tool.key_pair(name, ""));
    let second = second.to_str().expect("UTF-8");
    let svc = rig.get("REGISTRY_SVC");
    tool.log_in(svc);
    let ca = format!("{svc}={}", rig.get("REGISTRY_SVC_CA"));
    let name = fresh("through");
    let tag = |number: u8| format!("{svc}/{name}:{number}");
    let build = |number: u8, platforms: &str, more: &[&str]| {
        let tag = tag(number);
        let what = ["-t", &tag, "--platform", platforms, "--provenance", "--push", "--progress", "plain"];
        let sign = ["--sign", "--cosign-key", key.to_str().expect("UTF-8"), "--sign-scope", "all"];
        let ca = ["--registry-ca", &ca, "ctx"];
        let mut command = tool.command("kubectl-build", &[&what[..], more, &sign, &ca].concat());
        command.env("COSIGN_PASSWORD", "");
        tool::run(command)
    };
    let seen = Seen::tls(&rig, svc);
    let has_both = |number: u8| {
        let digest = seen.digest(&name, &number.to_string()).expect("the tag is there");
        let index = seen.manifest(&name, &digest).expect("an index");
        assert_eq!(index["mediaType"], INDEX);
        let entries = index["manifests"].as_array().expect("entries");
        let architectures = entries.iter().filter(|entry| entry["platform"]["os"] == "linux");
        let architectures: Vec<_> =
            architectures.filter_map(|entry| entry["platform"]["architecture"].as_str()).collect();
        assert_eq!(architectures, ["amd64", "arm64"], "{index}");
        // Each entry is signed, attestations too.
        for digest in entries.iter().filter_map(|entry| entry["digest"].as_str()).chain([digest.as_str()]) {
            let place = format!("{}.sig", digest.replace(':', "-"));
            assert!(seen.manifest(&name, &place).is_some(), "{digest} is not signed: {index}");
        }
        digest
    };
    let both = "linux/amd64,linux/arm64";
    let ran = build(1, both, &["--builder-key", second]);
    assert!(ran.stderr.contains("of the Service `registry` in namespace `registry`"), "{}", ran.stderr);
    ran.ok();
    let digest = has_both(1);
    let arguments = ["verify", "--key", key.to_str().expect("UTF-8"), "--registry-ca", &ca];
    let verify = |more: &[&str], reference: &str| {
        let mut command = tool.command("kubectl-buildkit", &[&arguments[..], more, &[reference]].concat());
        command.env("COSIGN_PASSWORD", "");
        tool::run(command).ok()
    };
    assert!(verify(&["--key", second], &tag(1)).contains(&digest), "by both");
    verify(&["--key", second, "--type", "slsaprovenance1"], &tag(1));

    // Without a look at the nodes the pods tell what they run.
    let role = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/rbac.yaml");
    let role = std::fs::read_to_string(role).expect("a file");
    let (role, _of_nodes) = role.split_once("\n---\n").expect("a role and a cluster role");
    rig.apply(&role.replacen("metadata:\n", &format!("metadata:\n  namespace: {}\n", space.name()), 1));
    let account = format!("{}:ci", space.name());
    space.kubectl(&[
        "create",
        "rolebinding",
        "ci",
        "--role=kubectl-build",
        &format!("--serviceaccount={account}"),
    ]);
    let user = format!("--as=system:serviceaccount:{account}");
    let pods = deployments(&rig, space.name());
    let ran = build(2, both, &[&user]);
    let [first, second] = names(&rig);
    for line in [format!("linux/amd64 → {first}, native"), format!("linux/arm64 → {second}, native")] {
        assert!(ran.stderr.contains(&line), "{line:?} is not in:\n{}", ran.stderr);
    }
    // The registry's namespace is none of theirs: the builder's pod leads there.
    assert!(ran.stderr.contains("of the builder"), "{}", ran.stderr);
    ran.ok();
    has_both(2);
    assert_eq!(deployments(&rig, space.name()), pods, "nothing was made");
    build(3, "linux/amd64,linux/s390x", &[&user]).fails(
        3,
        &[
            "nothing here builds linux/s390x",
            &format!("{first} is linux/amd64"),
            &format!("{second} is linux/arm64"),
            "`kubectl-build-nodes`",
            "--emulate",
        ],
    );
}

#[test]
#[ignore = "needs the rig"]
fn whenever_it_is_killed_no_tag_points_at_something_unsigned() {
    let rig = Rig::load();
    let _arm = ArmNode::present(&rig);
    let space = rig.namespace("killed");
    let tool = Tool::new(&rig, space.name());
    probes(&tool);
    let (key, public) = tool.key_pair("k", "");
    let (registry, name) = (rig.get("REGISTRY"), fresh("killed"));
    let command = |tag: &str| {
        let platforms = ["--platform", "linux/amd64,linux/arm64", "--provenance", "--progress", "plain"];
        let push = ["-t", tag, "--push", "--registry-http", registry, "--sign", "--cosign-key"];
        let key = [key.to_str().expect("UTF-8"), "ctx"];
        let mut command = tool.command("kubectl-build", &[&platforms[..], &push, &key].concat());
        command.env("COSIGN_PASSWORD", "");
        command
    };
    let in_cluster = in_secret(&space, &key, &public);
    // While arm64 is pushed amd64 sleeps. Only once: the daemon keeps the mount, and the next run finds its folder there.
    let slow = format!(
        "FROM {} AS amd64\nRUN --mount=type=cache,target=/c \
         mkdir /c/begun && echo asleep-$((40 + 2)) && sleep 30 && echo awake-$((40 + 2)) || true\n\
         FROM scratch AS arm64\nCOPY Dockerfile /\nFROM $TARGETARCH\n",
        rig.get("BASE_REF")
    );
    // Once the digest was told, the line that was told with it finishes the job; before, the same build does.
    let moments = [
        ("finish with: ", "after the push of the index", true),
        ("attested https://slsa.dev/provenance/v1", "between signatures", true),
        ("verifying sha256:", "between signatures and tag", false),
        // The last, because by now both pods are there and begin at once.
        ("pushing manifest for", "after the push of a platform", false),
    ];
    let seen = Seen::plain(&rig);
    for (number, (words, when, resume)) in moments.into_iter().enumerate() {
        let tag = format!("{registry}/{name}:{number}");
        let halfway = words == "pushing manifest for";
        let dockerfile = if halfway { slow.as_str() } else { probe::DOCKERFILE };
        // A context of its own: nothing of the run before makes this one short.
        tool.file("ctx/Dockerfile", format!("{dockerfile}LABEL number={number}\n"));
        let running = Running::start(command(&tag));
        running.until(words);
        if halfway {
            running.until("asleep-42");
            // It was said when the push began.
            std::thread::sleep(Duration::from_secs(2));
        }
        let killed = running.signal(Signal::KILL);
        let said = running.ends(killed, Duration::from_secs(10)).stderr;
        if halfway {
            let hex = said.lines().find_map(|line| {
                let (_, rest) = line.split_once("exporting manifest sha256:")?;
                rest.split(' ').next()
            });
            let platform = format!("sha256:{}", hex.expect("a digest"));
            assert!(seen.manifest(&name, &platform).is_some(), "{platform} was not pushed:\n{said}");
            assert!(!said.contains("awake-42"), "nothing was built any more:\n{said}");
        }
        if let Some(digest) = seen.digest(&name, &number.to_string()) {
            cosign_accepts(&tool, &public, &format!("{registry}/{name}@{digest}"));
        }
        let ran = match resume {
            true => {
                let line = said.lines().find_map(|line| Some(line.split_once("finish with: ")?.1));
                tool.shell(line.expect("the line"), &[("COSIGN_PASSWORD", "")])
            }
            false => tool::run(command(&tag)),
        };
        assert_eq!(ran.code, 0, "killed {when}, then: {}", ran.stderr);
        cosign_accepts(&tool, &public, &tag);
        attested(&tool, &in_cluster, "slsaprovenance1", &tag);
    }
}
