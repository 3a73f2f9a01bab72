//! People who log in: at a certified OpenID Connect provider, with a real browser, and certificates of the real
//! Fulcio; certificates that end sooner than the real one's come from a fake.

use crate::bench::{Bench, Image};
use crate::fake_authority::FakeAuthority;
use crate::person::{self, Browser};
use crate::rig::Rig;
use crate::running::Pty;
use crate::tap::Tap;
use crate::tool::{eventually, run};
use rustix::process::Signal;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

/// A person who asked to stop waits at most this long.
const STOPPED: Duration = Duration::from_secs(10);
/// More than what is waited for takes on any machine.
pub const LONG: Duration = Duration::from_secs(120);

/// Where somebody is asked to log in, to sign an image.
pub struct Desk {
    pub bench: Bench,
    pub image: Image,
}

impl Desk {
    pub fn new(namespace: &str) -> Self {
        let bench = Bench::new(namespace, "REGISTRY");
        let image = bench.image();
        // What opens a browser: it says which page it was asked for.
        let script = format!("#!/bin/sh\necho \"$1\" >>{}/opened\n", bench.tool.home().display());
        let opener = bench.tool.file("bin/xdg-open", script);
        std::fs::set_permissions(opener, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
        Self { bench, image }
    }

    /// Returns a command that signs the image as whoever logs in.
    pub fn sign(&self, more: &[&str]) -> Command {
        let issuer = ["--keyless", "--oidc-issuer", self.bench.services.get("LOGIN_ISSUER")];
        let mut command = self.bench.sign(&self.image, &self.bench.service_flags(), &issuer);
        command.args(more).env("DISPLAY", ":0");
        command
    }

    /// A build that takes at least so long, with certificates from this authority.
    fn build(&self, seconds: u32, authority: &FakeAuthority, client: &str) -> Command {
        let base = self.bench.rig.get("BASE_REF");
        self.bench.tool.file(
            "context/Dockerfile",
            format!("FROM {base}\nRUN : {} {} && sleep {seconds}\n", authority.url, self.image.repository),
        );
        let tag = format!("{}:built", self.image.repository);
        let arguments = ["-t", &tag, "--push", "--sign", "--keyless", "--progress", "plain", "context"];
        let mut command = self.bench.tool.command("kubectl-build", &arguments);
        let service = |name: &str| self.bench.services.get(name).to_owned();
        command.args(["--registry-http", self.bench.host(), "--fulcio-url", &authority.url]);
        command.args(["--rekor-url", &service("REKOR_URL"), "--timestamp-server-url", &service("TSA_URL")]);
        command.args(["--oidc-issuer", &service("LOGIN_ISSUER"), "--oidc-client-id", client]);
        command.env("DISPLAY", ":0");
        command
    }

    /// Asserts that real cosign accepts this person's signature.
    #[track_caller]
    fn verifies(&self, name: &str) {
        let identity = format!("{name}@example.com");
        let asked = self.bench.asked(&identity, self.bench.services.get("LOGIN_ISSUER"));
        let arguments = [&asked[..], &["--allow-http-registry"]].concat();
        let ran = self.bench.cosign("cosign", &arguments, &self.image.reference);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
}

/// Returns the address that was asked for last, after so many others.
pub fn page(pty: &mut Pty, before: usize, start: &str) -> String {
    pty.until_said("address", |said| {
        let mut found = said.match_indices(start).map(|(at, _)| &said[at..]);
        let rest = found.nth(before)?;
        // Only a whole one: the terminal may have written half of it. In JSON a quote ends it.
        let ends = |letter: char| letter.is_whitespace() || matches!(letter, '\x1b' | '"');
        rest.find(ends).map(|end| rest[..end].to_owned())
    })
}

/// How the address of the page begins that leads to the provider.
pub const LOOPBACK: &str = "http://localhost:";

/// The listener's port, from the page that leads to it.
fn port(page: &str) -> u16 {
    let port = page.trim_start_matches(LOOPBACK).split('/').next().and_then(|port| port.parse().ok());
    port.unwrap_or_else(|| panic!("no port in {page}"))
}

#[test]
#[ignore = "needs the rig"]
fn a_person_logs_in_with_a_browser_and_cosign_verifies() {
    let desk = Desk::new("default");
    let browser = Browser::start(&desk.bench.rig);
    let mut pty = Pty::start(desk.sign(&["--tag", &format!("{}:signed", desk.image.repository)]));
    let page = page(&mut pty, 0, LOOPBACK);
    let opened = || std::fs::read_to_string(desk.bench.tool.home().join("opened")).ok();
    assert_eq!(eventually("the browser is opened", LONG, opened).trim(), page);
    // Browsers connect ahead of time and say nothing.
    let _ahead = TcpStream::connect(("127.0.0.1", port(&page))).expect("it listens");
    browser.visit(&page);
    browser.log_in("browser");
    browser.until("Logged in as browser@example.com");
    assert_eq!(pty.ends(Instant::now(), LONG), 0, "{}", pty.said());
    pty.assert_in_order();
    let said = pty.said();
    for told in ["waiting for the login at", "signing as `browser@example.com`", "getting a certificate"] {
        assert!(said.contains(told), "{told:?} is not in:\n{said}");
    }
    assert!(TcpStream::connect(("127.0.0.1", port(&page))).is_err(), "it still listens");
    desk.verifies("browser");
}

#[test]
#[ignore = "needs the rig"]
fn a_person_without_a_browser_confirms_a_code_elsewhere() {
    let desk = Desk::new("default");
    let browser = Browser::start(&desk.bench.rig);
    let mut command = desk.sign(&["--progress", "plain"]);
    command.env_remove("DISPLAY");
    let tap = Tap::start();
    let mut pty = Pty::start(tap.before(command));
    let page = page(&mut pty, 0, &format!("{}/device?user_code=", desk.bench.services.get("LOGIN_ISSUER")));
    let code = page.split("user_code=").nth(1).expect("a code");
    assert!(pty.said().contains(&format!("confirm the code {code}")), "{}", pty.said());
    browser.visit(&page);
    browser.until("Confirm Device");
    browser.click("button[type=submit]");
    browser.log_in("device");
    browser.until("Sign-in Success");
    assert_eq!(pty.ends(Instant::now(), LONG), 0, "{}", pty.said());
    tap.untold(&pty.said(), &["device_code", "code_verifier", "id_token", "access_token"]);
    desk.verifies("device");
}

/// Builds that take longer than what a login gave: one builder serves them all.
#[test]
#[ignore = "needs the rig"]
fn what_a_login_gives_ends_before_the_build_does() {
    let space = Rig::load().namespace("login");
    let desk = Desk::new(space.name());
    a_token_that_ended_during_the_build_is_renewed(&desk);
    a_certificate_outlives_a_token_that_cannot_be_renewed(&desk);
    a_certificate_that_ended_during_the_build_is_asked_for_again(&desk);
    the_page_is_shown_again_when_the_build_ends(&desk);
}

fn a_token_that_ended_during_the_build_is_renewed(desk: &Desk) {
    let authority = FakeAuthority::start(Duration::from_secs(5), 0);
    let tap = Tap::start();
    let mut pty = Pty::start(tap.before(desk.build(8, &authority, "short")));
    person::log_in(&desk.bench.rig, &page(&mut pty, 0, LOOPBACK), "renewed");
    pty.until_said("word", |said| said.contains("signing as `renewed@example.com`").then_some(()));
    assert_eq!(authority.issued(), 0, "a certificate before there is something to sign");
    assert_eq!(pty.ends(Instant::now(), LONG), 0, "{}", pty.said());
    let said = pty.said();
    assert!(said.contains("getting a fresh identity token by the login"), "{said}");
    assert_eq!(said.matches(LOOPBACK).count(), 1, "{said}");
    tap.untold(&said, &["code", "code_verifier", "id_token", "access_token", "refresh_token"]);
}

fn a_certificate_outlives_a_token_that_cannot_be_renewed(desk: &Desk) {
    let authority = FakeAuthority::start(Duration::from_secs(600), 0);
    let mut pty = Pty::start(desk.build(8, &authority, "once"));
    person::log_in(&desk.bench.rig, &page(&mut pty, 0, LOOPBACK), "kept");
    assert_eq!(pty.ends(Instant::now(), LONG), 0, "{}", pty.said());
    assert_eq!((authority.issued(), pty.said().matches(LOOPBACK).count()), (1, 1), "{}", pty.said());
}

fn a_certificate_that_ended_during_the_build_is_asked_for_again(desk: &Desk) {
    let authority = FakeAuthority::start(Duration::from_secs(5), 0);
    let mut pty = Pty::start(desk.build(8, &authority, "once"));
    let first = page(&mut pty, 0, LOOPBACK);
    person::log_in(&desk.bench.rig, &first, "again");
    let second = page(&mut pty, 1, LOOPBACK);
    assert_ne!(first, second);
    assert!(pty.said().contains("the certificate ended before it was needed: please log in again"));
    person::log_in(&desk.bench.rig, &second, "again");
    assert_eq!(pty.ends(Instant::now(), LONG), 0, "{}", pty.said());
    assert!(authority.issued() >= 2);
}

/// The wait for somebody has an end of its own, and begins when there is nothing else to do: a page that was shown for
/// longer while the image was built has cost nothing of it.
fn the_page_is_shown_again_when_the_build_ends(desk: &Desk) {
    let authority = FakeAuthority::start(Duration::from_secs(600), 0);
    let mut command = desk.build(4, &authority, "sigstore");
    command.args(["--sign-timeout", "2s"]);
    let mut pty = Pty::start(command);
    let (first, shown) = (page(&mut pty, 0, LOOPBACK), Instant::now());
    let (second, again) = (page(&mut pty, 1, LOOPBACK), Instant::now());
    assert_eq!(first, second);
    assert!(again.duration_since(shown) > Duration::from_secs(3), "the build was too short to tell");
    assert_eq!(pty.ends(again, LONG), 4, "{}", pty.said());
    let (waited, said) = (again.elapsed(), pty.said());
    // We see a page a little later than it is shown.
    assert!(waited > Duration::from_millis(1500), "it ended {waited:?} after the build:\n{said}");
    let resume = "kubectl buildkit sign ";
    for told in ["nobody logged in within 2 s", "--identity-token", "was not moved", resume, "--oidc-issuer"]
    {
        assert!(said.contains(told), "{told:?} is not in:\n{said}");
    }
}

#[test]
#[ignore = "needs the rig"]
fn the_page_is_shown_in_every_mode() {
    let desk = Desk::new("default");
    for mode in ["tty", "plain", "rawjson", "quiet"] {
        let mut pty = Pty::start(desk.sign(&["--progress", mode, "--sign-timeout", "1s"]));
        let begun = Instant::now();
        let page = page(&mut pty, 0, LOOPBACK);
        assert_eq!(pty.ends(begun, LONG), 4, "{}", pty.said());
        assert!(page.len() > LOOPBACK.len() + 20, "{page}");
    }
}

#[test]
#[ignore = "needs the rig"]
fn a_login_that_is_waited_for_can_be_stopped() {
    let desk = Desk::new("default");
    for (signal, code) in [(None, 130), (Some(Signal::TERM), 143)] {
        let mut pty = Pty::start(desk.sign(&[]));
        let page = page(&mut pty, 0, LOOPBACK);
        let since = match signal {
            None => pty.type_in(b"\x03"),
            Some(signal) => pty.signal(signal),
        };
        assert_eq!(pty.ends(since, STOPPED), code, "{}", pty.said());
        pty.assert_in_order();
        assert!(TcpStream::connect(("127.0.0.1", port(&page))).is_err(), "it still listens");
    }
}

/// The port that the browser would come back to is taken: a code is confirmed instead.
#[test]
#[ignore = "needs the rig"]
fn a_person_whose_browser_cannot_come_back_confirms_a_code() {
    let desk = Desk::new("default");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let redirect = format!("http://localhost:{port}/auth/callback");
    let mut pty = Pty::start(desk.sign(&["--progress", "plain", "--oidc-redirect-url", &redirect]));
    let page = page(&mut pty, 0, &format!("{}/device?user_code=", desk.bench.services.get("LOGIN_ISSUER")));
    let told = format!("no listener on localhost:{port}");
    assert!(pty.said().contains(&told) && pty.said().contains("a code will do instead"), "{}", pty.said());
    let browser = Browser::start(&desk.bench.rig);
    browser.visit(&page);
    browser.until("Confirm Device");
    browser.click("button[type=submit]");
    browser.log_in("turned");
    browser.until("Sign-in Success");
    assert_eq!(pty.ends(Instant::now(), LONG), 0, "{}", pty.said());
    desk.verifies("turned");
}

/// Known before anybody is asked to log in.
#[test]
#[ignore = "needs the rig"]
fn a_client_that_the_authority_does_not_know_is_told_which_it_knows() {
    let desk = Desk::new("default");
    let mut pty = Pty::start(desk.sign(&["--progress", "plain", "--oidc-client-id", "once"]));
    assert_eq!(pty.ends(Instant::now(), LONG), 2, "{}", pty.said());
    let said = pty.said();
    assert!(
        said.contains("gives to the client `once`") && said.contains("--oidc-client-id sigstore"),
        "{said}"
    );
    assert!(!said.contains(LOOPBACK) && !said.contains("kubectl create token"), "{said}");
}

#[test]
#[ignore = "needs the rig"]
fn nobody_is_asked_where_nobody_is() {
    let desk = Desk::new("default");
    let told =
        ["needs an identity token", "--identity-token FILE", "--service-account NAME", "SIGSTORE_ID_TOKEN"];
    let stderr = run(desk.sign(&[])).fails(2, &told);
    assert!(stderr.contains("standard error is no terminal") && !stderr.contains(LOOPBACK), "{stderr}");
    let mut command = desk.sign(&[]);
    command.env("CI", "true");
    let mut pty = Pty::start(command);
    assert_eq!(pty.ends(Instant::now(), LONG), 2, "{}", pty.said());
    assert!(pty.said().contains("CI is set") && !pty.said().contains(LOOPBACK), "{}", pty.said());
}
