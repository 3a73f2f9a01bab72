//! Identities that the cluster vouches for, from outside and from inside a pod.

use crate::bench::{Bench, claims, leaks_nothing};
use crate::rig::{Rig, text};
use crate::seen::Seen;
use crate::tool::{Ran, binary, run};
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

/// The name of a service account in Fulcio's certificates.
fn subject(namespace: &str, account: &str) -> String {
    format!("https://kubernetes.io/namespaces/{namespace}/serviceaccounts/{account}")
}

#[test]
#[ignore = "needs the rig"]
fn a_token_from_a_file_signs_and_cosign_verifies() {
    for registry in ["REGISTRY", "REGISTRY_REFERRERS"] {
        let bench = Bench::new("default", registry);
        let token = bench.cluster_token("default", "default", "sigstore");
        let path = bench.tool.file("token", format!("{token}\n"));
        let image = bench.image();
        let tag = format!("{}:signed", image.repository);
        let more = ["--identity-token", path.to_str().expect("UTF-8"), "--tag", &tag, "-vv"];
        let ran = run(bench.sign(&image, &bench.service_flags(), &more));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        // The source and the identity are told, the fall back to bundles in one line, each step has its time.
        for told in [
            "the file",
            "system:serviceaccount:default:default",
            "bundles only",
            "certificate",
            "timestamp",
            "recording the signature in the log",
        ] {
            assert!(ran.stderr.contains(told), "{told:?} is not in:\n{}", ran.stderr);
        }
        leaks_nothing(&ran, &[&token]);
        bench.verifies(&ran, "cosign 3");
        bench.verifies(&ran, "cosign 2");
        let issuer = claims(&token)["iss"].as_str().expect("an issuer").to_owned();
        let name = subject("default", "default");
        for (name, issuer, accepted) in [
            (name.as_str(), issuer.as_str(), true),
            ("https://kubernetes.io/namespaces/default/serviceaccounts/other", &issuer, false),
            (&name, "https://other.example", false),
        ] {
            let flags = [&bench.asked(name, issuer)[..], &["--allow-http-registry"]].concat();
            assert_eq!(bench.cosign("cosign", &flags, &tag).code == 0, accepted, "{name} {issuer}");
        }
    }
}

/// A token that a pipe hands over is in no file, no list of processes and no variable.
#[test]
#[ignore = "needs the rig"]
fn a_token_from_standard_input_signs_and_cosign_verifies() {
    let bench = Bench::new("default", "REGISTRY");
    let token = bench.cluster_token("default", "default", "sigstore");
    let image = bench.image();
    let sign = |input: &str| {
        let mut command = bench.sign(&image, &bench.service_flags(), &["--identity-token", "-", "-vv"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
        let ran = Ran::of(&child.wait_with_output().expect("it ends"));
        leaks_nothing(&ran, &[&token]);
        ran
    };
    // What was cut on the way.
    let (head, _) = token.rsplit_once('.').expect("three parts");
    sign(head).fails(2, &["standard input is no identity token"]);
    let ran = sign(&format!("{token}\n"));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("getting an identity token from standard input"), "{}", ran.stderr);
    bench.verifies(&ran, "cosign 3");
}

/// `--push --sign` with a service account of the caller's choice: one certificate for all that is signed.
#[test]
#[ignore = "needs the rig"]
fn a_build_signs_as_a_service_account_from_outside() {
    let rig = Rig::load();
    let space = rig.namespace("keyless");
    let bench = Bench::new(space.name(), "REGISTRY");
    space.kubectl(&["create", "serviceaccount", "signer"]);
    let image = bench.image();
    let tag = format!("{}:1", image.repository);
    let context = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fixtures/hello");
    let arguments =
        ["-t", &tag, "--push", "--sign", "--service-account", "signer", "--registry-http", bench.host()];
    let mut command = bench.tool.command("kubectl-build", &arguments);
    // What BuildKit attested is signed along; the printed lines verify that, too.
    command.args(bench.config_flags()).args(["--provenance", "--metadata-file", "meta.json"]).arg(context);
    let ran = run(command);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let certificates = ran.stderr.lines().filter(|line| line.contains("getting a certificate")).count();
    assert_eq!(certificates, 1, "{}", ran.stderr);
    // They live for minutes: none is asked for before there is something to sign.
    let at = |words: &str| {
        ran.stderr.find(words).unwrap_or_else(|| panic!("{words:?} is not in:\n{}", ran.stderr))
    };
    let pushed = at("pushing manifest for ");
    for late in ["getting an identity token from ", "getting a certificate for "] {
        assert!(pushed < at(late), "{late:?} is before the push:\n{}", ran.stderr);
    }
    assert!(ran.stderr.contains("cosign verify-attestation --type slsaprovenance1 "), "{}", ran.stderr);
    bench.verifies(&ran, "cosign 3");
    let metadata = std::fs::read(bench.tool.home().join("meta.json")).expect("a file");
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).expect("JSON");
    let signed = &metadata["kubectl-build"]["signatures"][0];
    assert_eq!(signed["format"], "bundle");
    assert_eq!(
        format!("{}/", signed["log"][0]["url"].as_str().expect("a log").trim_end_matches('/')),
        format!("{}/", bench.services.get("REKOR_URL"))
    );
    assert!(signed["log"][0]["index"].is_u64(), "{signed}");

    let nobody = bench.tool.command(
        "kubectl-buildkit",
        &["sign", "--service-account", "nobody", "--registry-http", bench.host()],
    );
    let mut nobody = nobody;
    nobody.args(bench.config_flags()).arg(&image.reference);
    run(nobody).fails(1, &["there is no service account `nobody`", "kubectl get serviceaccounts"]);
}

/// A builder's own key signs beside whoever builds there, an identity too: a verifier can ask for both, and knows them
/// apart by the annotation.
#[test]
#[ignore = "needs the rig"]
fn a_builders_own_key_signs_beside_an_identity() {
    let rig = Rig::load();
    let space = rig.namespace("keyless-builder");
    let bench = Bench::new(space.name(), "REGISTRY");
    let reference = format!("k8s://{}/builder", space.name());
    let mut generate = bench.tool.command("kubectl-buildkit", &["key", "generate", &reference]);
    generate.env("COSIGN_PASSWORD", "pw");
    run(generate).ok();
    let host = bench.host();
    bench.tool.buildkit(&["create", "vouching", "--registry-http", host, "--builder-key", &reference]).ok();
    let tag = format!("{}:1", bench.image().repository);
    let context = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fixtures/hello");
    let build = ["--builder", "vouching", "-t", &tag, "--push", "--metadata-file", "meta.json"];
    let sign = ["--sign", "--keyless", "--service-account", "default"];
    let mut command = bench.tool.command("kubectl-build", &[&build[..], &sign].concat());
    // The key's password is the Secret's own.
    command.args(bench.config_flags()).arg(context);
    let ran = run(command);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let metadata = std::fs::read(bench.tool.home().join("meta.json")).expect("a file");
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).expect("JSON");
    let signed = metadata["kubectl-build"]["signatures"].as_array().expect("signatures");
    let mut signers: Vec<_> = signed.iter().filter_map(|one| one["signer"].as_str()).collect();
    signers.sort_unstable();
    let account = format!("the identity system:serviceaccount:{}:default", space.name());
    assert_eq!(signers, [reference.as_str(), account.as_str()], "{metadata}");
    assert!(signed.iter().all(|one| one["log"][0]["index"].is_u64()), "the log has both: {metadata}");

    let root = bench.services.get("TRUSTED_ROOT");
    let name = subject(space.name(), "default");
    let by_key = ["--key", &reference, "--insecure-ignore-tlog=false", "--trusted-root", root];
    let by_identity = bench.asked(&name, bench.services.get("OIDC_ISSUER"));
    let verify = |by: &[&str], builder: &str| {
        let annotation = format!("builder={builder}");
        let asked = if builder.is_empty() { vec![] } else { vec!["-a", annotation.as_str()] };
        let arguments = ["verify", "--registry-http", host];
        bench.tool.buildkit(&[&arguments[..], by, &asked, &[tag.as_str()]].concat())
    };
    verify(&by_key, "vouching").ok();
    verify(&by_key, "other").fails(12, &["its annotation builder is `vouching`, not `other`"]);
    verify(&by_identity, "").ok();
    verify(&by_identity, "vouching").fails(12, &["it has no annotation builder"]);

    // One line for each signer; the key's asks for the builder.
    let asks = |line: &str| line.contains(&reference) && line.contains(" -a builder=vouching");
    assert!(ran.stderr.lines().any(asks), "{}", ran.stderr);
    assert!(ran.stderr.contains(" --certificate-identity "), "{}", ran.stderr);
    bench.verifies(&ran, "cosign 3");
    for (builder, accepted) in [("builder=vouching", true), ("builder=other", false)] {
        let flags = ["--key", &reference, "--trusted-root", root, "--allow-http-registry", "-a", builder];
        let verified = bench.cosign("cosign", &flags, &tag);
        assert_eq!(verified.code == 0, accepted, "{builder}: {}", verified.stderr);
    }
}

/// CircleCI's own program makes the tokens there; this stands in for it, with a token of the cluster's.
#[test]
#[ignore = "needs the rig"]
fn a_fake_circleci_makes_a_token_that_signs() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new("default", "REGISTRY");
    let token = bench.cluster_token("default", "default", "sigstore");
    let program =
        "#!/bin/sh\n[ \"$*\" = 'run oidc get --root-issuer --claims {\"aud\":\"sigstore\"}' ] && echo ";
    let program = bench.tool.file("bin/circleci", format!("{program}{token}\n"));
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let image = bench.image();
    let mut command = bench.sign(&image, &bench.service_flags(), &["--keyless", "-vv"]);
    // Even in CI, where nobody could log in.
    let ran = run({
        command.envs([("CIRCLECI", "true"), ("CI", "true")]);
        command
    });
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("(CircleCI)"), "{}", ran.stderr);
    leaks_nothing(&ran, &[&token]);
}

const POD: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: ci, namespace: NAMESPACE}
---
apiVersion: v1
kind: Pod
metadata: {name: ci, namespace: NAMESPACE}
spec:
  serviceAccountName: ci
  automountServiceAccountToken: false
  restartPolicy: Never
  securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532}
  containers:
  - name: ci
    image: IMAGE
    imagePullPolicy: IfNotPresent
    command: [sleep, "3600"]
    securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    volumeMounts:
    - {name: work, mountPath: /scratch}
    - {name: identity, mountPath: /var/run/sigstore/cosign, readOnly: true}
  volumes:
  - {name: work, emptyDir: {}}
  - name: identity
    projected:
      sources: [{serviceAccountToken: {path: oidc-token, audience: sigstore, expirationSeconds: 600}}]
"#;

#[test]
#[ignore = "needs the rig"]
fn a_pod_signs_with_its_projected_token() {
    let rig = Rig::load();
    let space = rig.namespace("keyless-pod");
    let bench = Bench::new(space.name(), "REGISTRY");
    rig.apply(&POD.replace("NAMESPACE", space.name()).replace("IMAGE", rig.get("TOOLS_IMAGE")));
    space.kubectl(&["wait", "--for=condition=Ready", "pod/ci", "--timeout=90s"]);
    let put = |name: &str, file: &Path| {
        let mut copy = rig.command(rig.peer("kubectl"));
        let script = format!("cat > /scratch/{name} && chmod 755 /scratch/{name}");
        copy.args(["exec", "-i", "-n", space.name(), "ci", "--", "sh", "-c", &script]);
        let file = std::fs::File::open(file).expect("a file");
        assert!(copy.stdin(file).status().expect("kubectl runs").success());
    };
    put("kubectl-buildkit", &binary());
    put("root.json", Path::new(bench.services.get("TRUSTED_ROOT")));
    put("config.json", Path::new(bench.services.get("SIGNING_CONFIG")));
    let image = bench.image();
    let tag = format!("{}:pod", image.repository);
    let sign = |opt_in: &str| {
        let script = format!(
            "cd /scratch && env -i {opt_in} ./kubectl-buildkit sign --signing-config config.json \
             --trusted-root root.json --registry-http {} --tag {tag} {} 2>&1",
            bench.host(),
            image.reference
        );
        rig.try_kubectl(&["exec", "-n", space.name(), "ci", "--", "sh", "-c", &script])
    };
    // A token that happens to lie there is no opt-in.
    let refused = sign("");
    let said = text(&refused.stdout);
    assert!(
        !refused.status.success() && said.contains("--keyless") && said.contains("--cosign-key"),
        "{said}"
    );
    // It goes before what runs the pod: nobody answers there, nor is there a program of CircleCI's.
    let ci = "COSIGN_EXPERIMENTAL=1 CIRCLECI=true ACTIONS_ID_TOKEN_REQUEST_URL=http://127.0.0.1:9/ \
              ACTIONS_ID_TOKEN_REQUEST_TOKEN=t";
    let signed = sign(ci);
    let said = text(&signed.stdout);
    assert!(signed.status.success(), "{said}");
    assert!(said.contains("(the file /var/run/sigstore/cosign/oidc-token)"), "{said}");
    // What the variable says goes before it, and is another account's.
    let token = bench.cluster_token(space.name(), "default", "sigstore");
    let ran = Ran::of(&sign(&format!("{ci} SIGSTORE_ID_TOKEN={token}")));
    leaks_nothing(&ran, &[&token]);
    let said = ran.ok();
    assert!(said.contains("(SIGSTORE_ID_TOKEN)") && !said.contains("/oidc-token"), "{said}");
    assert_eq!(
        Seen::plain(&rig)
            .digest(tag.split('/').nth(1).and_then(|name| name.split(':').next()).expect("a name"), "pod")
            .as_ref(),
        Some(&image.digest)
    );
    for account in ["ci", "default"] {
        let name = subject(space.name(), account);
        let asked = bench.asked(&name, bench.services.get("OIDC_ISSUER"));
        let verified = bench.cosign("cosign", &[&asked[..], &["--allow-http-registry"]].concat(), &tag);
        assert_eq!(verified.code, 0, "{account}: {}", verified.stderr);
    }
}
