//! Rekor v1 and certificate logs, by an emulator (`hack/cluster/emulator`): the real ones need a database. Timestamps and
//! cosign are real.

use crate::bench::{Bench, Image};
use crate::seen::Seen;
use crate::tool::{Ran, run};
use serde_json::Value;
use std::path::Path;

/// The flags that name the emulator's services.
fn flags(bench: &Bench) -> Vec<String> {
    bench.services.emulator_flags()
}

fn asked<'a>(bench: &'a Bench, subject: &'a str) -> [&'a str; 6] {
    [
        "--certificate-identity",
        subject,
        "--certificate-oidc-issuer",
        bench.services.get("OIDC_ISSUER"),
        "--trusted-root",
        bench.services.get("EMULATOR_ROOT"),
    ]
}

fn verify(bench: &Bench, image: &Image, more: &[&str]) -> Ran {
    let arguments = ["verify", "--registry-http", bench.host()];
    bench.tool.buildkit(&[&arguments[..], more, &[&image.reference]].concat())
}

/// Both formats, with promises and proofs, and certificates that were logged: nothing has to be ignored.
#[test]
#[ignore = "needs the rig"]
fn an_emulated_v1_log_and_certificate_log_are_verified_in_both_formats() {
    let bench = Bench::new("default", "REGISTRY");
    let image = bench.image();
    // The emulator takes the subject as it stands, for an e-mail address.
    let account = ["--service-account", "default"];
    let signed = run(bench.sign(&image, &flags(&bench), &account));
    assert_eq!(signed.code, 0, "{}", signed.stderr);
    assert!(!signed.stderr.contains("bundles only"), "{}", signed.stderr);
    let subject = "system:serviceaccount:default:default";
    let asked = asked(&bench, subject);
    let found = verify(&bench, &image, &asked);
    assert_eq!(found.code, 0, "{}", found.stderr);
    // Each place tells the entry by number and name, and they are the same.
    let places = |text: &str| {
        let lines = text.lines().filter_map(|line| Some(line.split_once("entry ")?.1.to_owned()));
        lines.filter(|line| line.contains("(UUID ")).collect::<Vec<_>>()
    };
    let json: Value = serde_json::from_str(&found.stdout).expect("JSON");
    let formats = json.as_array().expect("an array");
    assert_eq!(formats.len(), 2, "{json}");
    let told = places(&signed.stderr);
    for signature in formats {
        let place = &signature["log"][0];
        let (index, uuid) =
            (place["index"].as_u64().expect("an index"), place["uuid"].as_str().expect("a UUID"));
        assert_eq!(place["url"], bench.services.get("EMULATOR_URL"));
        // The tree's number isn't in a `.sig` layer.
        assert!(
            told.iter().any(|told| told.starts_with(&format!("{index} ")) && told.contains(uuid)),
            "{told:#?}"
        );
    }
    let cosign = [&asked[..], &["--allow-http-registry"]].concat();
    for more in [&[][..], &["--new-bundle-format=false"]] {
        let ran = bench.cosign("cosign", &[&cosign[..], more].concat(), &image.reference);
        assert_eq!(ran.code, 0, "{more:?}: {}", ran.stderr);
    }
    let ran = bench.cosign("cosign2", &cosign, &image.reference);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    // Again: both are kept.
    let again = run(bench.sign(&image, &flags(&bench), &account));
    assert_eq!(again.stderr.matches("already signed by ").count(), 2, "{}", again.stderr);
    let seen = Seen::plain(&bench.rig);
    let (name, place) = (image.repository.split_once('/').expect("a name").1, image.digest.replace(':', "-"));
    let layers = seen.manifest(name, &format!("{place}.sig")).expect("a tag")["layers"].clone();
    assert_eq!(layers.as_array().map(Vec::len), Some(1));
    // Somebody else's certificate log proves nothing.
    let mut root: Value =
        serde_json::from_slice(&std::fs::read(bench.services.get("EMULATOR_ROOT")).expect("a root"))
            .expect("JSON");
    root["ctlogs"] = root["tlogs"].clone();
    let root = bench.tool.file("other-ct.json", root.to_string());
    let mut other = asked;
    other[5] = root.to_str().expect("UTF-8");
    verify(&bench, &image, &other).fails(12, &["SCT"]);
    verify(&bench, &image, &[&other[..], &["--insecure-ignore-sct"]].concat()).ok();
}

/// A build tells the entries of an emulated v1 log by number and name wherever it tells of signatures.
#[test]
#[ignore = "needs the rig"]
fn the_name_of_an_entry_in_an_emulated_v1_log_stands_in_report_and_metadata() {
    let bench = Bench::new("default", "REGISTRY");
    let tag = format!("{}:told", bench.image().repository);
    let context = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fixtures/hello");
    let arguments = ["-t", &tag, "--push", "--sign", "--service-account", "default", "--registry-http"];
    let told = ["--report", "json", "--metadata-file", "meta.json"];
    let arguments = [&arguments[..], &[bench.host()], &told].concat();
    let mut command = bench.tool.command("kubectl-build", &arguments);
    command.args(flags(&bench)).arg(context);
    let report: Value = serde_json::from_str(&run(command).ok()).expect("JSON");
    let metadata = std::fs::read(bench.tool.home().join("meta.json")).expect("a file");
    let metadata: Value = serde_json::from_slice(&metadata).expect("JSON");
    for format in ["legacy", "bundle"] {
        let place = |signatures: &Value| {
            let mut list = signatures.as_array().expect("a list").iter();
            let one = list.find(|one| one["format"] == format);
            one.unwrap_or_else(|| panic!("no {format} in {signatures}"))["log"][0].clone()
        };
        let reported = place(&report["signatures"]);
        assert_eq!(reported, place(&metadata["kubectl-build"]["signatures"]));
        assert_eq!(reported["url"], bench.services.get("EMULATOR_URL"));
        let uuid = reported["uuid"].as_str().unwrap_or_else(|| panic!("no UUID in {reported}"));
        assert!(reported["index"].is_u64() && uuid.len() >= 64, "{reported}");
        assert!(uuid.bytes().all(|byte| byte.is_ascii_hexdigit()), "{reported}");
    }
}

/// What RSA signs is the same each time: an emulated v1 log has it already, tells where, and that entry is taken.
#[test]
#[ignore = "needs the rig"]
fn an_entry_that_an_emulated_v1_log_has_already_is_fetched() {
    let bench = Bench::new("default", "REGISTRY");
    let key = bench.tool.file("rsa.pem", include_str!("../fixtures/signing/keys/rsa2048-pkcs8.pem"));
    let key = key.to_str().expect("UTF-8");
    let flags = &flags(&bench)[2..];
    bench.has_halves(key);
    // The same digest each time, and no repository in a bundle: what is signed is the same.
    let sign = |image: &Image| {
        let more = ["--cosign-key", key, "--signature-format", "bundle"];
        let ran = run(bench.sign(image, flags, &more));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let line = ran.stderr.lines().find(|line| line.starts_with("logged: ")).expect("a line").to_owned();
        (ran, line.split_once(": entry ").expect("a place").1.to_owned())
    };
    let (first, place) = sign(&bench.image());
    let (second, same) = sign(&bench.image());
    assert_eq!(place, same);
    assert!(place.contains(" (UUID "), "{place}");
    assert!(!second.stderr.contains("already signed"), "it was not there: {}", second.stderr);
    bench.verifies(&first, "cosign 3");
    bench.verifies(&second, "cosign 3");
}

/// Files of parts, as cosign's variables name them, are the same root.
#[test]
#[ignore = "needs the rig"]
fn an_emulator_is_trusted_by_the_files_that_variables_name() {
    let bench = Bench::new("default", "REGISTRY");
    let image = bench.image();
    let ran = run(bench.sign(&image, &flags(&bench), &["--service-account", "default"]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let root: Value =
        serde_json::from_slice(&std::fs::read(bench.services.get("EMULATOR_ROOT")).expect("a root"))
            .expect("JSON");
    let pem = |name: &str, label: &str, raw: &Value| {
        let body = raw.as_str().expect("base64");
        let text = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        bench.tool.file(name, text)
    };
    let authority = &root["certificateAuthorities"][0]["certChain"]["certificates"][0]["rawBytes"];
    let files = [
        ("SIGSTORE_ROOT_FILE", pem("ca.pem", "CERTIFICATE", authority)),
        (
            "SIGSTORE_REKOR_PUBLIC_KEY",
            pem("log.pub", "PUBLIC KEY", &root["tlogs"][0]["publicKey"]["rawBytes"]),
        ),
        (
            "SIGSTORE_CT_LOG_PUBLIC_KEY_FILE",
            pem("ct.pub", "PUBLIC KEY", &root["ctlogs"][0]["publicKey"]["rawBytes"]),
        ),
    ];
    let verify = |files: &[(&str, std::path::PathBuf)]| {
        let arguments = ["verify", "--registry-http", bench.host(), &image.reference];
        let mut command = bench.tool.command("kubectl-buildkit", &arguments);
        command.envs(files.iter().map(|(name, path)| (name, path)));
        command.env("COSIGN_CERTIFICATE_IDENTITY", "system:serviceaccount:default:default");
        command.env("COSIGN_CERTIFICATE_OIDC_ISSUER", bench.services.get("OIDC_ISSUER"));
        run(command)
    };
    verify(&files).ok();
    for missing in 0..files.len() {
        let mut some = files.to_vec();
        some.remove(missing);
        verify(&some).fails(12, &[]);
    }
}
