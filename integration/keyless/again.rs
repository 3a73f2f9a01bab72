//! Signing once more: what is there and verifies is kept, and what a log has already is success.

use crate::bench::{Bench, Image};
use crate::front::{Fault, Front};
use crate::seen::Seen;
use crate::tool::run;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many bundles refer to an image, as a registry without the referrers API or with it says.
fn bundles(bench: &Bench, image: &Image) -> usize {
    let name = image.repository.split_once('/').expect("a name").1;
    match bench.host() == bench.rig.get("REGISTRY_REFERRERS") {
        true => Seen::referrers_registry(&bench.rig).referrers(name, &image.digest).len(),
        false => {
            let index = Seen::plain(&bench.rig).manifest(name, &image.digest.replace(':', "-"));
            index.map_or(0, |index| index["manifests"].as_array().expect("a list").len())
        }
    }
}

/// One signature for each identity: whoever is it already and is vouched for is not signed for again. Another account,
/// another annotation or another issuer is another signature.
#[test]
#[ignore = "needs the rig"]
fn an_identity_signs_once() {
    for registry in ["REGISTRY", "REGISTRY_REFERRERS"] {
        let rig = crate::rig::Rig::load();
        let space = rig.namespace("again");
        space.kubectl(&["create", "serviceaccount", "other"]);
        let bench = Bench::new(space.name(), registry);
        let image = bench.image();
        let sign = |more: &[&str], expected: usize| {
            let ran = run(bench.sign(&image, &bench.config_flags(), more));
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            assert_eq!(bundles(&bench, &image), expected, "{more:?}:\n{}", ran.stderr);
            ran
        };
        let account = ["--service-account", "default"];
        let first = sign(&account, 1);
        assert!(!first.stderr.contains("already signed"), "{}", first.stderr);
        let again = sign(&account, 1);
        assert!(again.stderr.contains("already signed by the identity "), "{}", again.stderr);
        assert!(!again.stderr.contains("recording the signature"), "{}", again.stderr);
        // Where the log has it is told just the same.
        let logged = |ran: &crate::tool::Ran| {
            let line = ran.stderr.lines().find(|line| line.starts_with("logged: ")).expect("a line");
            line.rsplit_once(": ").expect("a place").1.trim_end_matches('/').to_owned()
        };
        assert_eq!(logged(&first), logged(&again));
        bench.verifies(&again, "cosign 3");
        sign(&["--service-account", "default", "-a", "stage=two"], 2);
        sign(&["--service-account", "other"], 3);
        sign(&["--service-account", "other"], 3);
        // Without a trust root nobody knows whose the one that is there is.
        let no_root = ["--fulcio-url", "--rekor-url", "--timestamp-server-url"];
        let flags = bench.service_flags();
        let flags: Vec<_> = flags.chunks(2).filter(|pair| no_root.contains(&pair[0].as_str())).collect();
        let ran = run(bench.sign(&image, &flags.concat(), &account));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert_eq!(bundles(&bench, &image), 4);
    }
}

/// A cut between what is written and the tag: the line that finishes finds it.
#[test]
#[ignore = "needs the rig"]
fn what_was_signed_before_a_cut_is_found_by_who_finishes() {
    let bench = Bench::new("default", "REGISTRY");
    let (first, second) = (bench.image(), bench.image());
    // The second image's entry fails, when the first's is written.
    let log = bench.services.get("REKOR_URL");
    let front = Front::new(log, "POST /api/v2/log/entries", 1, Fault::Answer(400, "{}"));
    let mut flags = bench.service_flags();
    flags[3] = front.url;
    let tag = format!("{}:cut", first.repository);
    let more = ["--service-account", "default", "--tag", &tag, "-a", "n=1", &second.reference];
    // Both repositories hold the same image: one signature does for both.
    let ran = run(bench.sign(&first, &flags, &more));
    assert_eq!(ran.code, 0, "one entry is enough for two repositories:\n{}", ran.stderr);
    assert_eq!((bundles(&bench, &first), bundles(&bench, &second)), (1, 1));

    let (key, _) = bench.tool.key_pair("k", "");
    let image = bench.image();
    let front = Front::new(log, "POST /api/v2/log/entries", 1, Fault::Answer(400, "{}"));
    flags[3] = front.url.clone();
    let tag = format!("{}:cut", image.repository);
    let key = ["--cosign-key", key.to_str().expect("UTF-8"), "--keyless", "--service-account", "default"];
    let mut command = bench.sign(&image, &flags, &[&key[..], &["--tag", &tag]].concat());
    command.env("COSIGN_PASSWORD", "");
    let said = run(command).fails(4, &["answered 400", "finish with: "]);
    front.mend();
    let line = said.lines().find_map(|line| line.split_once("finish with: ")).expect("a line").1;
    let line = line.replace("kubectl buildkit", "kubectl-buildkit");
    for _ in 0..2 {
        bench.tool.shell(&line, &[("COSIGN_PASSWORD", "")]).ok();
        assert_eq!(bundles(&bench, &image), 2, "one for each signer");
    }
}

/// RSA signs the same thing the same way each time, and a v2 log takes it once and gives it out to nobody.
#[test]
#[ignore = "needs the rig"]
fn a_signature_that_a_v2_log_has_already_is_told() {
    let bench = Bench::new("default", "REGISTRY");
    let key = bench.tool.file("rsa.pem", include_str!("../fixtures/signing/keys/rsa2048-pkcs8.pem"));
    let image = bench.image();
    let number = image.repository.rsplit('-').nth(1).expect("a number").to_owned();
    let run_number = format!("run={number}");
    let key = key.to_str().expect("UTF-8");
    let arguments = ["--cosign-key", key, "--signature-format", "bundle", "-a", &run_number];
    let flags = bench.config_flags();
    let sign =
        |image: &Image, more: &[&str]| run(bench.sign(image, &flags, &[&arguments[..], more].concat()));
    bench.has_halves(key);
    // Two repositories in one run share it; cosign takes both.
    let other = bench.image();
    let both = sign(&image, &[&other.reference]);
    assert_eq!(both.code, 0, "{}", both.stderr);
    bench.verifies(&both, "cosign 3");
    assert!(sign(&image, &[]).stderr.contains("already signed"));
    // A third is another run's, which finds nothing there and signs the very same.
    let third = bench.image();
    let tag = format!("{}:third", third.repository);
    let said = sign(&third, &["--tag", &tag])
        .fails(4, &["has this very signature already", "signing once more", "-a attempt=2", "finish with: "]);
    let line = said.lines().find_map(|line| line.split_once("finish with: ")).expect("a line").1;
    let line = line.replace("kubectl buildkit sign", "kubectl-buildkit sign -a attempt=2");
    bench.tool.shell(&line, &[]).ok();
}

/// An ECDSA key signs the same thing differently each time: another signature takes the place of one that a v2 log has
/// and gives out to nobody. The real log has none that is new, so a fake in front says it of the first.
#[test]
#[ignore = "needs the rig"]
fn a_key_signs_once_more_where_a_v2_log_has_its_signature_already() {
    let bench = Bench::new("default", "REGISTRY");
    let key = bench.tool.file("p256.pem", include_str!("../fixtures/signing/keys/p256-pkcs8.pem"));
    let key = key.to_str().expect("UTF-8");
    bench.has_halves(key);
    let image = bench.image();
    let entries = "POST /api/v2/log/entries";
    let refusing = Front::new(bench.services.get("REKOR_URL"), entries, 0, Fault::Answer(409, "{}"));
    let real = refusing.url.clone();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let front = Front::watching(&real, entries, move || {
        if count.fetch_add(1, Ordering::Relaxed) == 1 {
            refusing.mend();
        }
    });
    let (clock, root) = (bench.services.get("TSA_URL"), bench.services.get("TRUSTED_ROOT"));
    let flags = ["--cosign-key", key, "--rekor-url", &front.url, "--timestamp-server-url", clock];
    let ran = run(bench.sign(&image, &[], &[&flags[..], &["--trusted-root", root]].concat()));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("signing once more"), "{}", ran.stderr);
    assert_eq!(asked.load(Ordering::Relaxed), 2, "{}", ran.stderr);
    assert_eq!(bundles(&bench, &image), 1);
    bench.verifies(&ran, "cosign 3");
}

/// Where logs have a signature stands in the report, the metadata and what `verify` says, and cosign finds it by that.
#[test]
#[ignore = "needs the rig"]
fn where_the_log_has_it_is_told_everywhere() {
    let bench = Bench::new("default", "REGISTRY");
    let image = bench.image();
    let tag = format!("{}:told", image.repository);
    let context = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fixtures/hello");
    let build = |more: &[&str]| -> Command {
        let arguments = ["-t", &tag, "--push", "--sign", "--service-account", "default", "--registry-http"];
        let mut command =
            bench.tool.command("kubectl-build", &[&arguments[..], &[bench.host()], more].concat());
        command.args(bench.config_flags()).arg(&context);
        command
    };
    let log = bench.services.get("REKOR_URL").trim_end_matches('/').to_owned();
    let same = |place: &serde_json::Value| {
        assert_eq!(place["url"].as_str().expect("a URL").trim_end_matches('/'), log);
        assert_eq!(place["uuid"], serde_json::Value::Null, "v2 has none");
        place["index"].as_u64().expect("an index")
    };
    let ran = run(build(&["--report", "json", "--metadata-file", "meta.json", "--provenance"]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let index = same(&report["signatures"][0]["log"][0]);
    let metadata = std::fs::read(bench.tool.home().join("meta.json")).expect("a file");
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).expect("JSON");
    let own = &metadata["kubectl-build"];
    assert_eq!(same(&own["signatures"][0]["log"][0]), index);
    let attested = same(&own["attestations"][0]["log"][0]);
    assert_ne!(attested, index, "{own}");

    // Another build is another image: provenance says when.
    let ran = run(build(&["--provenance"]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let lines: Vec<_> = ran.stderr.lines().filter(|line| line.starts_with("logged: ")).collect();
    let issuer = bench.services.get("OIDC_ISSUER");
    let subject = "https://kubernetes.io/namespaces/default/serviceaccounts/default";
    let asked = [
        "verify",
        "--registry-http",
        bench.host(),
        "--trusted-root",
        bench.services.get("TRUSTED_ROOT"),
        "--certificate-identity",
        subject,
        "--certificate-oidc-issuer",
        issuer,
        "--insecure-ignore-sct",
        &tag,
    ];
    let found = bench.tool.buildkit(&asked);
    assert_eq!(found.code, 0, "{}", found.stderr);
    let json: serde_json::Value = serde_json::from_str(&found.stdout).expect("JSON");
    let index = same(&json[0]["log"][0]);
    assert!(found.stderr.contains(&format!(", entry {index} of {log}")), "{}", found.stderr);
    assert!(lines.iter().any(|line| line.ends_with(&format!(": entry {index} of {log}"))), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("https://slsa.dev/provenance/")), "{lines:#?}");
}
