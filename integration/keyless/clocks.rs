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

/// This machine's own clock: ahead it hurts nobody, behind it is told of before anything is done, nothing is written, and
/// the line that is printed finishes the job once the clock is right.
#[test]
#[ignore = "needs the rig"]
fn a_clock_of_this_machine_that_is_wrong_is_told_of() {
    let bench = Bench::new("default", "REGISTRY");
    let path = bench.tool.file("token", bench.cluster_token("default", "default", "sigstore"));
    let path = path.to_str().expect("UTF-8");
    // The library that `faketime` loads, which takes a binary that loads any: not the static one.
    let library = ["x86_64", "aarch64"]
        .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketime.so.1"));
    let library =
        library.iter().find(|path| std::path::Path::new(path).exists()).expect("the package faketime");
    let link = bench.tool.home().join("bin/shifted");
    std::fs::create_dir(&link).expect("a folder");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kubectl-build"), link.join("kubectl-buildkit"))
        .expect("a link");
    let sign = |image: &Image, shift: &str| {
        let tag = format!("{}:shifted", image.repository);
        let arguments = ["sign", "--registry-http", bench.host(), "--identity-token", path, "--tag", &tag];
        let mut command = bench.tool.command("shifted/kubectl-buildkit", &arguments);
        command.args(bench.config_flags()).arg(&image.reference);
        command.env("LD_PRELOAD", library).env("FAKETIME", shift).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        run(command)
    };
    let tags =
        |image: &Image| Seen::plain(&bench.rig).tags(image.repository.split_once('/').expect("a name").1);
    let image = bench.image();
    let ahead = sign(&image, "+30d");
    assert_eq!(ahead.code, 0, "{}", ahead.stderr);
    assert!(ahead.stderr.contains("days ahead of the certificate authority's"), "{}", ahead.stderr);
    bench.verifies(&ahead, "cosign 3");

    let image = bench.image();
    let said = sign(&image, "-30d").fails(
        4,
        &[
            "days behind the certificate authority",
            "has begun by this machine's clock",
            "was not moved",
            "finish with: ",
        ],
    );
    let (told, begun) =
        (said.find("days behind the").expect("told"), said.find("getting a certificate").expect("begun"));
    assert!(told < begun, "told before anything is done:\n{said}");
    assert_eq!(tags(&image), ["base"]);
    let line = said.lines().find_map(|line| line.split_once("finish with: ")).expect("a line").1;
    bench.tool.shell(&line.replace("kubectl buildkit", "kubectl-buildkit"), &[]).ok();
    assert!(tags(&image).contains(&"shifted".to_owned()));
}
