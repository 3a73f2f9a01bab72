//! An identity and a key service's key sign an index of two platforms, in a registry that only the cluster reaches.

use crate::bench::{Bench, claims};
use crate::openbao::{OpenBao, ROOT};
use crate::rig::Rig;
use crate::seen::Seen;
use crate::tool::run;
use serde_json::Value;
use std::path::Path;

#[test]
#[ignore = "needs the rig"]
fn an_identity_and_a_key_service_sign_all_of_an_index_through_the_cluster() {
    let rig = Rig::load();
    let space = rig.namespace("routes");
    let bench = Bench::new(space.name(), "REGISTRY");
    let server = OpenBao::start();
    server.key("app", "ecdsa-p256");
    space.kubectl(&["create", "serviceaccount", "signer"]);
    let svc = rig.get("REGISTRY_SVC");
    bench.tool.log_in(svc);
    let ca = format!("{svc}={}", rig.get("REGISTRY_SVC_CA"));
    bench.tool.buildkit(&["create", "--registry-ca", &ca]).ok();
    let name = bench.image().repository.rsplit('/').next().expect("a name").to_owned();
    let tag = format!("{svc}/{name}:1");
    let context = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fixtures/hello");
    let signers = ["--cosign-key", "openbao://app", "--keyless", "--service-account", "signer"];
    // Which pod builds arm64 is no matter here: another suite may present a node as that meanwhile.
    let platforms = ["--platform", "linux/amd64,linux/arm64", "--cross"];
    let build =
        ["-t", &tag, "--push", "--sign", "--sign-scope", "all", "--provenance", "--progress", "plain"];
    let mut command = bench.tool.command("kubectl-build", &[&build[..], &platforms, &signers].concat());
    command.args(bench.service_flags()).args(["--rekor", "--yes"]).arg(context);
    command.env("BAO_ADDR", &server.address).env("BAO_TOKEN", ROOT);
    let ran = run(command);
    assert!(ran.stderr.contains("of the Service `registry` in namespace `registry`"), "{}", ran.stderr);
    ran.ok();
    let seen = Seen::tls(&rig, svc);
    let digest = seen.digest(&name, "1").expect("the tag is there");
    let index = seen.manifest(&name, &digest).expect("an index");
    let entries = index["manifests"].as_array().expect("entries");
    let (images, attestations): (Vec<&Value>, Vec<&Value>) =
        entries.iter().partition(|entry| entry["platform"]["os"] == "linux");
    let architectures: Vec<_> = images.iter().map(|image| &image["platform"]["architecture"]).collect();
    assert_eq!(architectures, ["amd64", "arm64"], "{index}");
    assert_eq!(attestations.len(), 2, "what is attested of each: {index}");
    let bundles = |digest: &str| {
        let referrers = seen.manifest(&name, &digest.replace(':', "-")).expect("the fallback tag");
        referrers["manifests"].as_array().expect("a list").len()
    };
    let digest_of = |entry: &Value| entry["digest"].as_str().expect("a digest").to_owned();
    // Of each signer a signature, and what it says of the provenance: the index's is that of both platforms.
    assert_eq!(bundles(&digest), 6);
    for image in &images {
        assert_eq!(bundles(&digest_of(image)), 4, "{image}");
    }
    for attestation in &attestations {
        assert_eq!(bundles(&digest_of(attestation)), 2, "{attestation}");
    }

    let named = |digest: &str| format!("{svc}/{name}@{digest}");
    let mut attested = vec![tag, named(&digest)];
    attested.extend(images.iter().map(|image| named(&digest_of(image))));
    let mut signed = attested.clone();
    signed.extend(attestations.iter().map(|attestation| named(&digest_of(attestation))));
    let verify = |more: &[&str], names: &[String]| {
        let arguments = ["verify", "--registry-ca", &ca];
        let mut command = bench.tool.command("kubectl-buildkit", &[&arguments[..], more].concat());
        command.args(names).env("BAO_ADDR", &server.address).env("BAO_TOKEN", ROOT);
        run(command)
    };
    let token = bench.cluster_token(space.name(), "signer", "sigstore");
    let issuer = claims(&token)["iss"].as_str().expect("an issuer").to_owned();
    let identity = format!("https://kubernetes.io/namespaces/{}/serviceaccounts/signer", space.name());
    let by = [
        "--certificate-identity",
        &identity,
        "--certificate-oidc-issuer",
        &issuer,
        "--trusted-root",
        bench.services.get("TRUSTED_ROOT"),
        "--insecure-ignore-sct",
    ];
    for signer in [&["--key", "openbao://app"][..], &by[..]] {
        verify(signer, &signed).ok();
        verify(&[signer, &["--type", "slsaprovenance1"]].concat(), &attested).ok();
    }
}
