//! `kubectl buildkit verify` of identities, and of keys that a log must have.

use crate::bench::{Bench, Image};
use crate::tool::{Ran, run};
use serde_json::Value;

fn verify(bench: &Bench, image: &Image, more: &[&str]) -> Ran {
    let arguments =
        ["verify", "--registry-http", bench.host(), "--trusted-root", bench.services.get("TRUSTED_ROOT")];
    run(bench.tool.command("kubectl-buildkit", &[&arguments[..], more, &[&image.reference]].concat()))
}

/// A service account's signature is its own: exactly, by pattern, and by nobody else's name or word.
#[test]
#[ignore = "needs the rig"]
fn an_identity_is_verified_by_name_and_issuer() {
    let bench = Bench::new("default", "REGISTRY");
    let image = bench.image();
    let subject = "https://kubernetes.io/namespaces/default/serviceaccounts/default";
    let issuer = bench.services.get("OIDC_ISSUER");
    let asked =
        ["--certificate-identity", subject, "--certificate-oidc-issuer", issuer, "--insecure-ignore-sct"];
    verify(&bench, &image, &asked).fails(10, &["there is no signature"]);

    let (key, public) = bench.tool.key_pair("k", "");
    let arguments = ["--cosign-key", key.to_str().expect("UTF-8"), "--signature-format", "bundle"];
    let mut command = bench.sign(&image, &[], &arguments);
    command.env("COSIGN_PASSWORD", "");
    run(command).ok();
    verify(&bench, &image, &asked).fails(13, &["made with a key, not with a certificate"]);

    run(bench.sign(&image, &bench.config_flags(), &["--service-account", "default"])).ok();
    let found = verify(&bench, &image, &asked);
    assert!(
        found.stderr.contains(&format!("signed by {subject} (by the word of {issuer})")),
        "{}",
        found.stderr
    );
    let found: Value = serde_json::from_str(&found.ok()).expect("JSON");
    assert_eq!(found[0]["optional"]["Subject"], subject);
    assert_eq!(found[0]["optional"]["Issuer"], issuer);
    let patterns = [
        "--certificate-identity-regexp",
        "^https://kubernetes.io/namespaces/default/",
        "--certificate-oidc-issuer-regexp",
        "^https://",
        "--insecure-ignore-sct",
    ];
    verify(&bench, &image, &patterns).ok();
    let other = ["--certificate-identity", "dev@example.com", "--certificate-oidc-issuer", issuer];
    verify(&bench, &image, &other).fails(12, &[subject, "not by `dev@example.com`"]);
    let other = ["--certificate-identity", subject, "--certificate-oidc-issuer", "https://other.example"];
    verify(&bench, &image, &other).fails(12, &[issuer, "not by `https://other.example`"]);
    verify(&bench, &image, &["--certificate-identity", subject]).fails(2, &["--certificate-oidc-issuer"]);
    // The public instance's authorities know nothing of ours.
    let arguments = [&["verify", "--registry-http", bench.host()], &asked[..], &[&image.reference]].concat();
    run(bench.tool.command("kubectl-buildkit", &arguments)).fails(12, &[]);
    // The key's signature is there beside it, unlogged.
    let public = public.to_str().expect("UTF-8");
    verify(&bench, &image, &["--key", public]).ok();
    verify(&bench, &image, &["--key", public, "--insecure-ignore-tlog=false"]).fails(12, &[]);
    let image = bench.image();
    let mut command =
        bench.sign(&image, &bench.config_flags(), &["--cosign-key", key.to_str().expect("UTF-8")]);
    command.env("COSIGN_PASSWORD", "");
    run(command).ok();
    verify(&bench, &image, &["--key", public, "--insecure-ignore-tlog=false"]).ok();
}
