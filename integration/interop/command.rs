//! `kubectl buildkit verify` over what cosign signed and attested, and over what we signed; its answers beside
//! cosign's.

use crate::support::{Bench, Key};
use crate::theirs::sign_lines;
use kubectl_build::sign::{Format, Formats, Store as _};
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

/// Pairs that we make or import sign with both generations of cosign; nothing that is there is replaced.
#[rstest]
#[case(None)]
#[case(Some("p384-sec1"))]
#[case(Some("rsa2048-pkcs1"))]
#[case(Some("rsa3072-pkcs8"))]
#[tokio::test]
#[ignore = "needs the rig"]
async fn cosign_signs_with_the_keys_that_we_make(#[case] imported: Option<&str>) {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::without_referrers();
    let key = Key::fixture(imported.unwrap_or("p256-pkcs8"));
    let (private, public) = (key.path().join("cosign.key"), key.path().join("cosign.pub"));
    let before = std::fs::read_to_string(&public).unwrap();
    std::fs::remove_file(&public).unwrap();
    let pem = imported
        .map(|name| format!("{}/integration/fixtures/signing/keys/{name}.pem", env!("CARGO_MANIFEST_DIR")));
    let arguments = match &pem {
        None => vec!["key", "generate"],
        Some(pem) => vec!["key", "import", pem],
    };
    let made = Said::of(&bench.tool(&key, &arguments));
    assert_eq!((made.code, made.stdout.as_str()), (0, "cosign.key\ncosign.pub\n"), "{}", made.stderr);
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&private), mode(&public)), (0o600, 0o644));
    let written = std::fs::read_to_string(&public).unwrap();
    assert_eq!(written == before, imported.is_some(), "an imported key stays itself");
    Said::of(&bench.tool(&key, &arguments)).fails(2, "cosign.key and cosign.pub is there already");
    assert_eq!(std::fs::read_to_string(&public).unwrap(), written);
    let shown = Said::of(&bench.tool(&key, &["key", "public", "cosign.key"]));
    assert_eq!(shown.stdout, written, "{}", shown.stderr);
    // A file's last newline is nobody's password.
    std::fs::write(key.path().join("password"), "secret\n").unwrap();
    let other = ["key", "generate", "--output-key-prefix", "other", "--cosign-password-file", "password"];
    assert_eq!(Said::of(&bench.tool(&key, &other)).code, 0);
    for number in 0..3 {
        let image = bench.push_image(&format!("made{number}-{}", imported.unwrap_or("new"))).await;
        let (generation, _, line) = sign_lines(&image).swap_remove(number);
        bench.run(generation, &key, &line);
        let name = image.to_string();
        assert!(bench.verify_command(&key, &["--key", "cosign.pub", &name]).json()[0].is_object());
        bench.run(generation, &key, &line.replace("cosign.key", "other.key"));
        assert!(bench.verify_command(&key, &["--key", "other.pub", &name]).json()[0].is_object());
    }
}

/// What is no plain private key is refused, with nothing written.
#[test]
#[ignore = "needs the rig"]
fn only_plain_keys_are_imported() {
    let bench = Bench::without_referrers();
    let key = Key::of_cosign(&bench, "cosign 3", None);
    let import =
        |file: &str| Said::of(&bench.tool(&key, &["key", "import", file, "--output-key-prefix", "imported"]));
    import("cosign.key").fails(2, "is in cosign's encrypted format already");
    import("cosign.pub").fails(2, "a public key");
    import("absent").fails(2, "absent");
    Said::of(&bench.tool(&key, &["key", "generate", "env://KEY"])).fails(2, "k8s://NAMESPACE/SECRET");
    Said::of(&bench.tool(&key, &["key", "generate", "--output-key-prefix", "no/such"]))
        .fails(1, "no/such.key");
    let files = std::fs::read_dir(key.path()).unwrap().map(|file| file.unwrap().file_name());
    assert!(!files.map(|name| name.into_string().unwrap()).any(|name| name.starts_with("imported")));
}

/// The printed lines are run as they stand, over signatures with annotations, kept elsewhere, by two keys; each key's
/// line finds its own.
#[tokio::test]
#[ignore = "needs the rig"]
async fn the_printed_lines_verify_what_is_special() {
    for bench in [Bench::with_referrers(), Bench::without_referrers()] {
        let key = Key::of_cosign(&bench, "cosign 3", None);
        let other = Key::fixture("rsa3072-pkcs8");
        std::fs::copy(other.path().join("cosign.pub"), key.path().join("other.pub")).unwrap();
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/fixtures/signing/keys");
        std::fs::copy(format!("{fixtures}/rsa3072-pkcs8.pem"), key.path().join("other.key")).unwrap();
        for format in ["both", "legacy", "bundle"] {
            let image = bench.push_index(&format!("special-{format}")).await;
            let (name, storage) = (image.to_string(), format!("{}/interop/signatures", bench.host));
            let arguments = [
                "sign",
                "--registry-http",
                &bench.host,
                "--signature-format",
                format,
                "--signature-repository",
                &storage,
                "-a",
                "env=<prod 1>",
                "--cosign-key",
                "cosign.key",
                "--key",
                "other.key",
                &name,
            ];
            let signed = Said::of(&bench.tool(&key, &arguments));
            assert_eq!(signed.code, 0, "{}", signed.stderr);
            let lines =
                signed.stderr.lines().filter_map(|line| line.strip_prefix("verify with ")?.split_once(": "));
            let lines: Vec<_> = lines.collect();
            // cosign 2.6 finds bundles beside the image alone.
            let generations = if format == "bundle" { 1 } else { 2 };
            assert_eq!(lines.len(), 2 * generations, "for each of two keys: {}", signed.stderr);
            for (generation, line) in lines {
                bench.run(generation, &key, line);
                // cosign 2.6 doesn't look at the annotations of bundles, its own included.
                if generation == "cosign 3" {
                    bench.fail(generation, &key, &line.replace("<prod 1>", "<prod 2>"));
                }
            }
            let both = ["--key", "cosign.pub", "--key", "other.pub", "-a", "env=<prod 1>", &name];
            bench.verify_command(&key, &both).fails(10, "there is no signature");
            let there = [&["--signature-repository", storage.as_str()][..], &both].concat();
            let found = bench.verify_command(&key, &there).json();
            assert_eq!(found.as_array().map(Vec::len), Some(if format == "both" { 4 } else { 2 }));
        }
    }
}

/// How far signing goes into an index, under which name, and in whose media types.
#[tokio::test]
#[ignore = "needs the rig"]
async fn scope_identity_and_media_types_are_as_asked_for() {
    let bench = Bench::without_referrers();
    let key = Key::of_cosign(&bench, "cosign 2", None);
    let image = bench.push_index("scope").await;
    let child = bench.push_image("scope").await.to_string();
    let name = image.to_string();
    let sign = |scope| {
        let arguments =
            ["sign", "--registry-http", &bench.host, "--cosign-key", "cosign.key", "--sign-scope", scope];
        Said::of(&bench.tool(&key, &[&arguments[..], &[&name]].concat()))
    };
    assert_eq!(sign("index").code, 0);
    bench.verify_command(&key, &["--key", "cosign.pub", &child]).fails(10, "there is no signature");
    assert_eq!(sign("platforms").code, 0);
    bench.verify_command(&key, &["--key", "cosign.pub", &child]).json();
    sign("everything").fails(2, "unknown signing scope `everything`");

    let image = bench.push_image("old-registry").await;
    let line = format!(
        "COSIGN_DOCKER_MEDIA_TYPES=1 ./kubectl-buildkit sign --registry-http {} --cosign-key cosign.key \
         --signature-format legacy --sign-container-identity proxy.example/app {image}",
        bench.host
    );
    bench.run("cosign 2", &key, &line);
    let tag = format!("{}.sig", image.digest.tag());
    let stored = bench.store.get_manifest(&image.repository, &tag).await.unwrap().expect("it is signed");
    assert_eq!(stored.media_type, "application/vnd.docker.distribution.manifest.v2+json");
    for generation in ["cosign 2", "cosign 3"] {
        let line = format!("cosign verify --key cosign.pub --insecure-ignore-tlog {image}");
        let said: Value = serde_json::from_str(&bench.run(generation, &key, &line)).unwrap();
        assert_eq!(said[0]["critical"]["identity"]["docker-reference"], "proxy.example/app");
    }
    // cosign adds to what we made.
    bench.run(
        "cosign 2",
        &key,
        &format!("cosign sign --key cosign.key --tlog-upload=false -y -a by=cosign {image}"),
    );
    let found = bench.verify_command(&key, &["--key", "cosign.pub", &image.to_string()]).json();
    assert_eq!(found.as_array().map(Vec::len), Some(2), "{found}");
}
