//! Publishing a key's signature for good is asked about, or agreed to before; an identity's is announced. None of this
//! reaches the public instance: it is known before, or stopped by a proxy that nobody serves.

use crate::bench::Bench;
use crate::running::Pty;
use crate::seen::Seen;
use crate::tool::run;
use std::process::Command;
use std::time::{Duration, Instant};

const SHOWN: &str = "for everybody and for good: the public key";

fn sign(bench: &Bench, image: &crate::bench::Image, more: &[&str]) -> Command {
    let mut command = bench.sign(image, &[], more);
    command.env("COSIGN_PASSWORD", "").env("HTTPS_PROXY", "http://127.0.0.1:9").env("NO_PROXY", "10.0.0.0/8");
    command
}

#[test]
#[ignore = "needs the rig"]
fn a_key_is_published_only_after_a_yes() {
    let bench = Bench::new("default", "REGISTRY");
    let (key, _) = bench.tool.key_pair("k", "");
    let image = bench.image();
    let logged = ["--cosign-key", key.to_str().expect("UTF-8"), "--rekor"];
    // Without a terminal nobody can be asked, and nobody is called.
    let ran = run(sign(&bench, &image, &logged));
    ran.fails(2, &["https://rekor.sigstore.dev", "--yes", "KUBECTL_BUILD_YES"]);
    // Agreed to before, by flag or variable: what becomes public is said, then the log is called.
    let yes = run(sign(&bench, &image, &[&logged[..], &["--yes"]].concat()));
    let unreachable = ["https://rekor.sigstore.dev/ will show", SHOWN, "cannot be reached"];
    yes.fails(1, &unreachable);
    let mut command = sign(&bench, &image, &logged);
    command.env("KUBECTL_BUILD_YES", "1");
    run(command).fails(1, &unreachable);
    for (answer, code, told) in [("n\n", 2, "--yes"), ("\n", 2, "--yes"), ("y\n", 1, "cannot be reached")] {
        let mut pty = Pty::start(sign(&bench, &image, &logged));
        pty.until("Go on? [y/N]");
        pty.type_in(answer.as_bytes());
        let ended = pty.ends(Instant::now(), Duration::from_secs(60));
        let screen = pty.screen().contents();
        let words = screen.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(ended, code, "{screen}");
        assert!(words.contains("the public key") && words.contains(told), "{screen}");
    }
    let name = image.repository.split_once('/').expect("a name").1;
    assert_eq!(Seen::plain(&bench.rig).tags(name), ["base"], "nothing was signed");
    // A log of one's own is nobody's business.
    let own = ["--cosign-key", key.to_str().expect("UTF-8"), "--rekor-url", bench.services.get("REKOR_URL")];
    let ran = run(sign(&bench, &image, &own));
    assert!(ran.code == 0 && !ran.stderr.contains("for good"), "{}", ran.stderr);
}

/// Opting in to an identity is the consent: nothing is asked, one line says what becomes public.
#[test]
#[ignore = "needs the rig"]
fn an_identity_is_published_with_a_word_about_it() {
    let bench = Bench::new("default", "REGISTRY");
    let image = bench.image();
    let mut pty = Pty::start(sign(&bench, &image, &["--service-account", "default"]));
    let ended = pty.ends(Instant::now(), Duration::from_secs(60));
    let screen = pty.screen().contents();
    let words = screen.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(ended, 1, "{screen}");
    assert!(words.contains("for everybody and for good: the identity that signs"), "{screen}");
    assert!(!words.contains("[y/N]") && words.contains("cannot be reached"), "{screen}");
}

/// A builder's own key is a key, too: opting in to an identity is no consent for it.
#[test]
#[ignore = "needs the rig"]
fn a_builders_key_is_published_only_after_a_yes_too() {
    let bench = Bench::new("default", "REGISTRY");
    let (key, _) = bench.tool.key_pair("k", "");
    let image = bench.image();
    let more = ["--service-account", "default", "--builder-key", key.to_str().expect("UTF-8")];
    run(sign(&bench, &image, &more)).fails(2, &["https://rekor.sigstore.dev", "--yes"]);
    run(sign(&bench, &image, &[&more[..], &["--yes"]].concat())).fails(1, &["cannot be reached"]);
}
