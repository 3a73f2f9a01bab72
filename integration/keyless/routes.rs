//! An identity and a key service's key sign for a registry that only the cluster reaches.

use crate::bench::{Bench, claims};
use crate::openbao::{OpenBao, ROOT};
use crate::rig::Rig;
use crate::seen::Seen;
use crate::tool::run;
use std::path::Path;

#[test]
#[ignore = "needs the rig"]
fn an_identity_and_a_key_service_sign_through_the_cluster() {
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
    let build =
        ["-t", &tag, "--push", "--sign", "--sign-scope", "all", "--provenance", "--progress", "plain"];
    let mut command = bench.tool.command("kubectl-build", &[&build[..], &signers].concat());
    command.args(bench.service_flags()).args(["--rekor", "--yes"]).arg(context);
    command.env("BAO_ADDR", &server.address).env("BAO_TOKEN", ROOT);
    let ran = run(command);
    assert!(ran.stderr.contains("of the Service `registry` in namespace `registry`"), "{}", ran.stderr);
    ran.ok();
    let seen = Seen::tls(&rig, svc);
    let digest = seen.digest(&name, "1").expect("the tag is there");
    let referrers = seen.manifest(&name, &digest.replace(':', "-")).expect("the fallback tag");
    // Two signatures, and two attestations, of the image.
    assert_eq!(referrers["manifests"].as_array().expect("a list").len(), 4, "{referrers}");

    let verify = |more: &[&str]| {
        let arguments = ["verify", "--registry-ca", &ca];
        let mut command =
            bench.tool.command("kubectl-buildkit", &[&arguments[..], more, &[tag.as_str()]].concat());
        command.env("BAO_ADDR", &server.address).env("BAO_TOKEN", ROOT);
        run(command)
    };
    verify(&["--key", "openbao://app"]).ok();
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
    verify(&by).ok();
    verify(&[&by[..], &["--type", "slsaprovenance1"]].concat()).ok();
}
