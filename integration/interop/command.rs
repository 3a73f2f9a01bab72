//! `kubectl buildkit verify` over what cosign signed and attested, and over what we signed; its answers beside
//! cosign's.

use crate::support::{Bench, Image, Key};
use crate::theirs::sign_lines;
use kubectl_build::sign::{Format, Formats};
use rstest::rstest;
use serde_json::Value;
use std::process::Output;

/// An answer: exit code, standard output, standard error.
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let code = output.status.code().expect("it ended by itself");
        Self { code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Asserts success and returns the JSON of standard output.
    #[track_caller]
    fn json(self) -> Value {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    #[track_caller]
    fn fails(self, code: i32, words: &str) {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(words), "{words:?} is not in: {}", self.stderr);
        assert_eq!(self.stdout, "", "nothing for programs");
    }
}

impl Bench {
    /// Runs `verify` in the key's folder.
    fn verify_command(&self, key: &Key, arguments: &[&str]) -> Said {
        Said::of(&self.tool(key, &[&["verify", "--registry-http", &self.host], arguments].concat()))
    }
}

/// The generation of cosign that reads this format by itself, and how it is told to.
fn reader(format: Format) -> &'static str {
    match format {
        Format::Legacy => "cosign verify --key cosign.pub --insecure-ignore-tlog --new-bundle-format=false",
        Format::Bundle => "cosign verify --key cosign.pub --insecure-ignore-tlog",
    }
}

/// Each signature of cosign's, over a tag and over the digest of an index, gives the array that cosign prints.
#[rstest]
#[case(None)]
#[case(Some("p384-pkcs8"))]
#[case(Some("p521-sec1"))]
#[case(Some("rsa2048-pkcs1"))]
#[tokio::test]
#[ignore = "needs the rig"]
async fn verify_says_of_cosigns_signatures_what_cosign_says(#[case] imported: Option<&str>) {
    for bench in [Bench::with_referrers(), Bench::without_referrers()] {
        let mut keys = std::collections::BTreeMap::new();
        for number in 0..3 {
            let name = format!("command{number}-{}", imported.unwrap_or("p256"));
            let image = bench.push_index(&name).await;
            let (generation, format, line) = sign_lines(&image).swap_remove(number);
            let key = keys.entry(generation).or_insert_with(|| Key::of_cosign(&bench, generation, imported));
            bench.run(generation, key, &line);
            for name in [format!("{}:v", image.repository), image.to_string()] {
                let ours = bench.verify_command(key, &["--key", "cosign.pub", "-a", "by=cosign", &name]);
                let words = format!("{image}: signed by cosign.pub ({format}");
                assert!(ours.stderr.contains(&words), "{}", ours.stderr);
                let ours = ours.json();
                // cosign 3 looks at P-384 and P-521 with SHA-256 alone, and so refuses its own signatures.
                if matches!(imported, None | Some("rsa2048-pkcs1")) {
                    let cosigns = bench.run("cosign 3", key, &format!("{} {name}", reader(format)));
                    assert_eq!(
                        ours,
                        serde_json::from_str::<Value>(&cosigns).unwrap(),
                        "{generation} {format}"
                    );
                }
                assert_eq!(ours[0]["optional"]["by"], "cosign");
            }
            let name = image.to_string();
            bench
                .verify_command(key, &["--key", "cosign.pub", "-a", "by=someone", &name])
                .fails(12, "its annotation by is `cosign`, not `someone`");
        }
    }
}

/// Whom we believe, and what each refusal says and exits with.
#[tokio::test]
#[ignore = "needs the rig"]
async fn verify_takes_keys_from_everywhere_and_exits_as_cosign() {
    let bench = Bench::without_referrers();
    let key = Key::of_cosign(&bench, "cosign 3", None);
    let other = Key::fixture("rsa3072-pkcs8");
    std::fs::copy(other.path().join("cosign.pub"), key.path().join("other.pub")).unwrap();
    let image = bench.push_image("refusals").await;
    let name = image.to_string();
    let verify = |arguments: &[&str]| bench.verify_command(&key, arguments);
    let codes = |line: &str| bench.shell("cosign 3", &key, line).status.code();
    let cosign = "cosign verify --insecure-ignore-tlog --key";

    verify(&["--key", "cosign.pub", &name]).fails(10, "there is no signature");
    assert_eq!(codes(&format!("{cosign} cosign.pub {name}")), Some(10));
    let absent = format!("{}:absent", image.repository);
    verify(&["--key", "cosign.pub", &absent]).fails(11, "there is no image");
    assert_eq!(codes(&format!("{cosign} cosign.pub {absent}")), Some(11));
    bench.sign(&image, &key, Formats::Legacy).await;
    verify(&["--key", "other.pub", &name]).fails(12, "it is not a signature of this key");
    assert_eq!(codes(&format!("{cosign} other.pub --new-bundle-format=false {name}")), Some(12));
    // Both must have signed.
    verify(&["--key", "cosign.pub", "--key", "other.pub", &name]).fails(12, "is by other.pub");
    bench.sign(&image, &other, Formats::Bundle).await;
    let both = verify(&["--key", "cosign.pub", "--key", "other.pub", &name]).json();
    assert_eq!(both.as_array().map(Vec::len), Some(2), "one each: {both}");
    // cosign sees the bundle alone, and with it the other key alone.
    assert_ne!(codes(&format!("{cosign} cosign.pub {name}")), Some(0));

    // The private half of it, encrypted, and a variable.
    assert!(verify(&["--key", "cosign.key", &name]).json()[0].is_object());
    assert!(verify(&["--key", "env://PUBLIC", &name]).json()[0].is_object());
    verify(&["--key", "absent.pub", &name]).fails(2, "absent.pub");
    verify(&[&name]).fails(2, "needs a key");
    verify(&["--key", "cosign.pub", "--output", "yaml", &name]).fails(2, "--output");

    // For people alone.
    let text = verify(&["--key", "cosign.pub", "-o", "text", &name]);
    assert!(
        text.stdout.starts_with(&format!("{name}: signed by cosign.pub (legacy: sha256:")),
        "{}",
        text.stdout
    );
    assert_eq!(text.stderr, "");
    // What fails is told after what passes was printed.
    let mixed = verify(&["--key", "cosign.pub", &absent, &name]);
    assert_eq!(mixed.code, 11);
    assert!(mixed.stdout.starts_with("[{"), "{}", mixed.stdout);
}

/// Attestations of both generations, by type; none of them is a signature of the image.
#[tokio::test]
#[ignore = "needs the rig"]
async fn verify_prints_cosigns_attestations() {
    let flags = [
        ("cosign 2", "--tlog-upload=false"),
        ("cosign 3", "--signing-config sc.json --trusted-root tr.json"),
    ];
    for bench in [Bench::with_referrers(), Bench::without_referrers()] {
        for (generation, flags) in flags {
            let image = bench.push_image(&format!("attested-{}", &generation[7..])).await;
            let key = Key::of_cosign(&bench, generation, None);
            offline(&key);
            std::fs::write(key.path().join("predicate.json"), r#"{"a":1}"#).unwrap();
            let line = format!(
                "cosign attest --key cosign.key {flags} -y --predicate predicate.json --type custom {image}"
            );
            bench.run(generation, &key, &line);
            let name = image.to_string();
            let ours = bench.verify_command(&key, &["--key", "cosign.pub", "--type", "custom", &name]);
            assert!(
                ours.stderr.contains("attested (https://cosign.sigstore.dev/attestation/v1)"),
                "{}",
                ours.stderr
            );
            assert_eq!(ours.stdout.lines().count(), 1, "{}", ours.stdout);
            let line = format!(
                "cosign verify-attestation --key cosign.pub --insecure-ignore-tlog --type custom {image}"
            );
            let cosigns: Value = serde_json::from_str(&bench.run("cosign 3", &key, &line)).unwrap();
            let ours = ours.json();
            assert_eq!(ours["payload"], cosigns["payload"]);
            assert_eq!(ours["signatures"][0]["sig"], cosigns["signatures"][0]["sig"]);
            let arguments = ["--key", "cosign.pub", "--attestation", "slsaprovenance1", &name];
            bench
                .verify_command(&key, &arguments)
                .fails(10, "no attestation of type https://slsa.dev/provenance/v1");
            // Where cosign takes any statement of the key for a signature, we don't.
            bench.verify_command(&key, &["--key", "cosign.pub", &name]).fails(10, "there is no signature");
            let stranger = Key::fixture("rsa3072-pkcs8");
            bench
                .verify_command(&stranger, &["--key", "cosign.pub", "--type", "custom", &name])
                .fails(12, "it is not a signature of this key");
        }
    }
}

/// Writes the files that keep cosign 3 from looking for services.
fn offline(key: &Key) {
    let write = |name: &str, text: &str| std::fs::write(key.path().join(name), text).unwrap();
    write(
        "sc.json",
        r#"{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json","rekorTlogConfig":{},"tsaConfig":{}}"#,
    );
    write("tr.json", r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}"#);
}

/// Our own signatures, by every kind of key and in every format, over a tag and a digest.
#[tokio::test]
#[ignore = "needs the rig"]
async fn verify_accepts_what_we_sign() {
    for bench in [Bench::with_referrers(), Bench::without_referrers()] {
        for kind in ["p256-pkcs8", "p384-pkcs8", "p521-pkcs8", "rsa4096-pkcs8", "ed25519-pkcs8"] {
            for formats in [Formats::Both, Formats::Legacy, Formats::Bundle] {
                let image: Image = bench.push_index(&format!("own-{kind}-{formats}")).await;
                let key = Key::fixture(kind);
                bench.sign(&image, &key, formats).await;
                for name in [format!("{}:v", image.repository), image.to_string()] {
                    let said = bench.verify_command(&key, &["--key", "cosign.pub", &name]).json();
                    let found = said.as_array().map_or(0, Vec::len);
                    assert_eq!(
                        found,
                        if formats == Formats::Both { 2 } else { 1 },
                        "{kind} {formats}: {said}"
                    );
                }
            }
        }
    }
}
