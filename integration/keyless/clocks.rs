//! Certificates that end, and clocks that are wrong: a fake authority gives what a real one never does; log, timestamps
//! and cosign are real.

use crate::bench::{Bench, Image};
use crate::fake_authority::FakeAuthority;
use crate::front::{Fault, Front};
use crate::rig::text;
use crate::seen::Seen;
use crate::tool::{Ran, run};
use std::time::Duration;

/// Returns the flags for the services with this authority and log, and the trust root.
fn flags(bench: &Bench, authority: &FakeAuthority, log: &str) -> (Vec<String>, String) {
    let root = std::fs::read_to_string(bench.services.get("TRUSTED_ROOT")).expect("a trust root");
    let root = bench.tool.file("fake-root.json", authority.trusted_root(&root));
    let root = root.to_str().expect("UTF-8").to_owned();
    let values = [&authority.url, log, bench.services.get("TSA_URL"), &root];
    let mut flags = bench.service_flags();
    for (at, value) in values.into_iter().enumerate() {
        flags[2 * at + 1] = value.to_owned();
    }
    (flags, root)
}

fn sign(bench: &Bench, image: &Image, flags: &[String], more: &[&str]) -> Ran {
    run(bench.sign(image, flags, &[&["--service-account", "default"], more].concat()))
}

/// One certificate for a run, and another only when it ends: what was signed before and after verifies.
#[test]
#[ignore = "needs the rig"]
fn a_certificate_that_ends_between_two_signatures_is_renewed() {
    let bench = Bench::new("default", "REGISTRY");
    let authority = FakeAuthority::start(Duration::from_secs(6), 0);
    // Eight images are signed at a time, and the log takes its time with each.
    let slow = Front::new(bench.services.get("REKOR_URL"), "POST /api/v2/log/entries", 0, Fault::Late(4_000));
    let image = bench.image();
    let crane = |arguments: &[&str]| {
        let output = bench.rig.command(bench.rig.peer("crane")).args(arguments).output().expect("crane runs");
        assert!(output.status.success(), "crane {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    };
    let mut append = vec!["index".to_owned(), "append".to_owned(), "--insecure".to_owned()];
    for number in 0..9 {
        let tag = format!("{}:n{number}", image.repository);
        let annotation = format!("n={number}");
        crane(&["mutate", "--insecure", "--annotation", &annotation, &image.reference, "-t", &tag]);
        append.extend(["-m".to_owned(), tag]);
    }
    let index = format!("{}:index", image.repository);
    append.extend(["-t".to_owned(), index.clone()]);
    crane(&append.iter().map(String::as_str).collect::<Vec<_>>());
    let digest = crane(&["digest", "--insecure", &index]);
    let reference = format!("{}@{digest}", image.repository);
    let index = Image { reference, repository: image.repository.clone(), digest };

    let (flags, root) = flags(&bench, &authority, &slow.url);
    let ran = sign(&bench, &index, &flags, &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(authority.issued(), 2, "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("getting a certificate").count(), 2, "{}", ran.stderr);
    bench.verifies(&ran, "cosign 3");
    let issuer = bench.services.get("OIDC_ISSUER");
    let name = "urn:fake:system:serviceaccount:default:default";
    for tag in ["n0", "n8"] {
        let asked = [
            "verify",
            "--registry-http",
            bench.host(),
            "--trusted-root",
            &root,
            "--certificate-identity",
            name,
            "--certificate-oidc-issuer",
            issuer,
            "--insecure-ignore-sct",
        ];
        let image = format!("{}:{tag}", image.repository);
        bench.tool.buildkit(&[&asked[..], &[&image]].concat()).ok();
    }
}

/// A certificate whose time and the timestamp's don't fit verifies nowhere, so it is written nowhere.
#[test]
#[ignore = "needs the rig"]
fn a_clock_that_is_wrong_is_noticed_before_anything_is_written() {
    let bench = Bench::new("default", "REGISTRY");
    for ahead in [3600, -3600] {
        let authority = FakeAuthority::start(Duration::from_secs(600), ahead);
        let (flags, _) = flags(&bench, &authority, bench.services.get("REKOR_URL"));
        let image = bench.image();
        let tag = format!("{}:skewed", image.repository);
        let ran = sign(&bench, &image, &flags, &["--tag", &tag]);
        ran.fails(4, &["would not verify", "one of the clocks is wrong", "was not moved", "finish with: "]);
        let seen = Seen::plain(&bench.rig);
        assert_eq!(seen.tags(image.repository.split_once('/').expect("a name").1), ["base"]);
    }
}
