//! Keys whose signatures logs and clocks see, and what formats a log allows.

use crate::bench::{Bench, unsigned_token};
use crate::seen::Seen;
use crate::tool::run;
use serde_json::json;

/// What a v2 log can't do is refused before anything is signed, where it was asked for explicitly.
#[test]
#[ignore = "needs the rig"]
fn the_sig_format_is_refused_with_a_v2_log() {
    let bench = Bench::new("default", "REGISTRY");
    let image = bench.image();
    for format in ["legacy", "both"] {
        let more = ["--service-account", "default", "--signature-format", format];
        let ran = run(bench.sign(&image, &bench.service_flags(), &more));
        ran.fails(2, &["Rekor v2", "--signature-format bundle"]);
    }
    let no_clock: Vec<_> = bench
        .service_flags()
        .into_iter()
        .enumerate()
        .filter(|(index, _)| !matches!(index, 4 | 5))
        .map(|(_, flag)| flag)
        .collect();
    assert!(!no_clock.contains(&"--timestamp-server-url".to_owned()));
    run(bench.sign(&image, &no_clock, &["--service-account", "default"]))
        .fails(2, &["--timestamp-server-url"]);
    let unlogged = ["--service-account", "default", "--rekor=false"];
    run(bench.sign(&image, &bench.service_flags(), &unlogged)).fails(2, &["always recorded"]);
    let seen = Seen::plain(&bench.rig);
    let name = image.repository.split_once('/').expect("a name").1;
    assert!(seen.manifest(name, &image.digest.replace(':', "-")).is_none(), "something was signed");
}

/// A key's signature with log entry and timestamp verifies with neither `--insecure-ignore-tlog` nor network.
#[test]
#[ignore = "needs the rig"]
fn a_key_s_signature_is_logged_where_that_is_asked_for() {
    let bench = Bench::new("default", "REGISTRY");
    let (key, public) = bench.tool.key_pair("k", "");
    let (key, public) = (key.to_str().expect("UTF-8"), public.to_str().expect("UTF-8"));
    let root = bench.services.get("TRUSTED_ROOT");
    let image = bench.image();
    let logged = |flags: &[String], more: &[&str]| {
        let mut command = bench.sign(&image, flags, &[&["--cosign-key", key], more].concat());
        run({
            command.env("COSIGN_PASSWORD", "");
            command
        })
    };
    // Without a log first: that signature must not pass for a logged one later.
    let plain = logged(&[], &["--signature-format", "bundle"]);
    assert_eq!(plain.code, 0, "{}", plain.stderr);
    let ran = logged(&bench.config_flags(), &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("entry ") && !ran.stderr.contains("already signed"), "{}", ran.stderr);
    bench.verifies(&ran, "cosign 3");
    let verified = bench.cosign(
        "cosign",
        &["--key", public, "--trusted-root", root, "--allow-http-registry"],
        &image.reference,
    );
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    // Again: it is logged already.
    let again = logged(&bench.config_flags(), &[]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert!(again.stderr.contains("already signed"), "{}", again.stderr);

    // A key that verifiers could not use with a log is refused before.
    let edwards = bench.tool.file("ed25519.pem", include_str!("../fixtures/signing/keys/ed25519-pkcs8.pem"));
    let more = ["--cosign-key", edwards.to_str().expect("UTF-8")];
    run(bench.sign(&image, &bench.config_flags(), &more)).fails(2, &["Ed25519", "--rekor=false"]);
}

/// Both sign: a verifier that asks for either accepts.
#[test]
#[ignore = "needs the rig"]
fn an_identity_signs_beside_a_key_when_both_are_wanted() {
    let bench = Bench::new("default", "REGISTRY_REFERRERS");
    let (key, _) = bench.tool.key_pair("k", "");
    let key = key.to_str().expect("UTF-8");
    let image = bench.image();
    let sign = |more: &[&str]| {
        let more = [&["--cosign-key", key, "--service-account", "default"], more].concat();
        let mut command = bench.sign(&image, &bench.config_flags(), &more);
        command.env("COSIGN_PASSWORD", "");
        run(command)
    };
    let one = sign(&[]);
    assert_eq!(one.code, 0, "{}", one.stderr);
    assert!(one.stderr.contains("the identity is not used"), "{}", one.stderr);
    assert!(!one.stderr.contains("--certificate-identity"), "{}", one.stderr);
    let both = sign(&["--keyless"]);
    assert_eq!(both.code, 0, "{}", both.stderr);
    assert!(
        both.stderr.contains("--certificate-identity") && both.stderr.contains("--key "),
        "{}",
        both.stderr
    );
    bench.verifies(&both, "cosign 3");
}

/// What is wrong with a token is said before anybody is asked, and nothing of it is repeated.
#[test]
#[ignore = "needs the rig"]
fn a_token_that_will_not_do_is_told_at_once() {
    let bench = Bench::new("default", "REGISTRY");
    let image = bench.image();
    let issuer = bench.services.get("OIDC_ISSUER");
    let later = 4_000_000_000_u64;
    for (claims, expected) in [
        (
            json!({ "iss": issuer, "aud": "sigstore", "sub": "s", "exp": 1_000_000_000 }),
            &["expired", "--identity-token"][..],
        ),
        (
            json!({ "iss": issuer, "aud": "other", "sub": "s", "exp": later }),
            &["is for `other`, not for `sigstore`", "--audience sigstore"],
        ),
        (
            json!({ "iss": "https://other.example", "aud": "sigstore", "sub": "s", "exp": later }),
            &["does not accept", issuer],
        ),
    ] {
        let token = unsigned_token(&claims);
        let mut command = bench.sign(&image, &bench.service_flags(), &["--keyless", "-vv"]);
        command.env("SIGSTORE_ID_TOKEN", &token);
        let ran = run(command);
        crate::bench::leaks_nothing(&ran, &[&token]);
        let said = ran.fails(2, &["SIGSTORE_ID_TOKEN"]);
        for text in expected {
            assert!(said.contains(text) || *text == "--identity-token", "{text:?} is not in:\n{said}");
        }
    }
    // One that only the authority can see through: refused by it, in its words, and never shown.
    let token = unsigned_token(&json!({ "iss": issuer, "aud": "sigstore", "sub": "s", "exp": later }));
    let tag = format!("{}:forged", image.repository);
    let mut command = bench.sign(&image, &bench.service_flags(), &["--keyless", "-vv", "--tag", &tag]);
    command.env("SIGSTORE_ID_TOKEN", &token);
    let ran = run(command);
    crate::bench::leaks_nothing(&ran, &[&token]);
    ran.fails(
        4,
        &["the certificate authority", "was not moved", "finish with: kubectl buildkit sign ", " --keyless "],
    );
}
