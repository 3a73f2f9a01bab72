//! Ctrl-C and SIGTERM at every step.

use crate::rig::Rig;
use crate::running::Running;
use crate::strict_registry::{Fault, StrictRegistry, Switches};
use crate::tool::{Tool, eventually};
use crate::{BUILDER, STOPPED, Site};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use std::time::Duration;

/// Longer than any test waits.
const NEVER: Duration = Duration::from_secs(300);

/// Asserts that no result file, whole or half, was left.
fn assert_no_results(tool: &Tool) {
    let names = std::fs::read_dir(tool.home()).expect("a directory").flatten();
    let names: Vec<_> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(!names.iter().any(|name| name.starts_with("iid") || name.starts_with("meta")), "{names:?}");
}

#[test]
#[ignore = "needs the rig"]
fn while_waiting_for_a_builder_whose_image_never_comes() {
    let site = Site::bare("pull");
    let mut command =
        site.tool.command("kubectl-build", &["--builder", BUILDER, "--progress", "plain", "sleep"]);
    command.env("KUBECTL_BUILD_BUILDER_IMAGE", format!("{}/no/such:1", site.rig.get("REGISTRY")));
    let running = Running::start(command);
    running.until("waiting on node");
    let asked = running.signal(Signal::INT);
    running.ends(asked, STOPPED).fails(130, &["interrupted"]);
}

#[test]
#[ignore = "needs the rig"]
fn while_waiting_for_a_builder_that_fits_on_no_node() {
    let site = Site::bare("unschedulable");
    // Admission gives every pod of the namespace a request that no node can meet.
    let space = site.space.name();
    site.rig.apply(&format!(
        "{{apiVersion: v1, kind: LimitRange, metadata: {{name: huge, namespace: {space}}}, spec: {{limits: \
         [{{type: Container, defaultRequest: {{\"example.com/unobtainable\": 1}}, default: {{\"example.com/unobtainable\": 1}}}}]}}}}"
    ));
    let command = site.tool.command("kubectl-build", &["--builder", BUILDER, "--progress", "plain", "sleep"]);
    let running = Running::start(command);
    running.until("waiting for a node");
    let asked = running.signal(Signal::INT);
    running.ends(asked, STOPPED).fails(130, &["interrupted"]);
}

#[test]
#[ignore = "needs the rig"]
fn while_create_waits_for_its_builder() {
    let site = Site::bare("create");
    let image = format!("{}/no/such:1", site.rig.get("REGISTRY"));
    let arguments = ["create", BUILDER, "--image", &image, "--progress", "plain"];
    let running = Running::start(site.tool.command("kubectl-buildkit", &arguments));
    running.until("waiting on node");
    let asked = running.signal(Signal::TERM);
    running.ends(asked, STOPPED).fails(143, &["interrupted"]);
}

/// Who reads hears nothing of the first; the second ends it.
#[test]
#[ignore = "needs the rig"]
fn while_a_file_says_nothing() {
    let tool = Tool::new(&Rig::load(), "default");
    let pipe = tool.home().join("key.pem");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from(0o644), 0).expect("a FIFO");
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let pipe = pipe.to_str().expect("UTF-8");
        let running = Running::start(tool.command("kubectl-buildkit", &["key", "import", pipe]));
        std::thread::sleep(Duration::from_secs(1));
        running.signal(signal);
        std::thread::sleep(Duration::from_millis(300));
        let asked = running.signal(signal);
        running.ends(asked, Duration::from_secs(3)).fails(code, &[]);
    }
}

/// Each verb, and each of a build's first steps.
#[test]
#[ignore = "needs the rig"]
fn while_the_api_server_says_nothing() {
    let site = Site::bare("silence");
    let (relay, flags) = super::stream::relay_of(&site);
    relay.set(crate::relay::Way::Silent);
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let (digest, place) = ("0".repeat(64), site.rig.get("REGISTRY"));
    let image = format!("{place}/silence@sha256:{digest}");
    let verbs: [(&str, &[&str], Signal, i32); 5] = [
        ("kubectl-build", &["quick"], Signal::INT, 130),
        ("kubectl-buildkit", &["create"], Signal::TERM, 143),
        ("kubectl-buildkit", &["ls"], Signal::INT, 130),
        ("kubectl-buildkit", &["rm"], Signal::TERM, 143),
        ("kubectl-buildkit", &["sign", "--cosign-key", "k8s://default/signer", &image], Signal::INT, 130),
    ];
    let all = verbs.map(|(program, arguments, signal, code)| {
        let command = site.tool.command(program, &[arguments, &flags].concat());
        (Running::start(command), signal, code)
    });
    std::thread::sleep(Duration::from_secs(1));
    for (running, signal, code) in all {
        let asked = running.signal(signal);
        running.ends(asked, STOPPED).fails(code, &["interrupted"]);
    }
}

#[test]
#[ignore = "needs the rig"]
fn while_a_registry_says_nothing_to_preflight_or_to_sign() {
    let rig = Rig::load();
    let registry = StrictRegistry::at(rig.get("CLIENT_ADDRESS"), Switches::default());
    registry.set(|_, _| Some(Fault::Late(NEVER)));
    let site = Site::bare("unheard");
    let (key, _) = site.tool.key_pair("k", "");
    let (key, host, name) = (key.to_str().expect("UTF-8"), registry.host(), crate::fresh("unheard"));
    let (tag, image) = (format!("{host}/{name}:1"), format!("{host}/{name}@sha256:{}", "0".repeat(64)));
    let common = ["--cosign-key", key, "--registry-http", host];
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let build = ["-t", &tag, "--push", "--sign", "quick"];
        let sign = ["sign", "--tag", &tag, &image];
        let programs = [("kubectl-build", &build[..]), ("kubectl-buildkit", &sign[..])];
        for (number, (program, arguments)) in programs.into_iter().enumerate() {
            let method = ["POST", "HEAD"][number];
            let mut command = site.tool.command(program, &[arguments, &common].concat());
            command.env("COSIGN_PASSWORD", "");
            let asked = registry.count(method, &name);
            let running = Running::start(command);
            running.until_that("the call has come", || registry.count(method, &name) > asked);
            let asked = running.signal(signal);
            running.ends(asked, STOPPED).fails(code, &["interrupted"]);
        }
    }
    assert_eq!(site.space.kubectl(&["get", "deployments", "-o", "name"]), "", "nothing was started");
}

#[test]
#[ignore = "needs the rig"]
fn while_a_big_context_is_sent() {
    let site = Site::with_builder("context", &[]);
    site.tool.file("big/Dockerfile", "FROM scratch\nCOPY data /\n");
    let data = std::fs::File::create(site.tool.home().join("big/data")).expect("a file");
    data.set_len(8 << 30).expect("a sparse file");
    let arguments = ["--builder", BUILDER, "--progress", "plain", "--iidfile", "iid", "big"];
    let running = Running::start(site.tool.command("kubectl-build", &arguments));
    running.until("transferring context: 1");
    let asked = running.signal(Signal::INT);
    running.ends(asked, STOPPED).fails(130, &["interrupted"]);
    assert_no_results(&site.tool);
}

#[test]
#[ignore = "needs the rig"]
fn while_a_step_runs_its_process_ends_too() {
    let site = Site::with_builder("run", &[]);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let running = site.asleep(&["--iidfile", "iid", "--metadata-file", "meta.json"]);
        assert_eq!(site.sleepers(), 1, "the step runs");
        let asked = running.signal(signal);
        running.ends(asked, STOPPED).fails(code, &["interrupted"]);
        eventually("the step's process is gone", STOPPED, || (site.sleepers() == 0).then_some(()));
        assert_no_results(&site.tool);
    }
}

/// A daemon that is stopped answers nothing, so an orderly end takes its time; a second Ctrl-C doesn't.
#[test]
#[ignore = "needs the rig"]
fn a_second_time_it_ends_at_once() {
    let site = Site::with_builder("twice", &[]);
    let running = site.asleep(&[]);
    let (space, pod) = (site.space.name(), site.pod().0);
    let what = ["pod", space, &pod];
    let stopped = site.stop(&what);
    running.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(500));
    let asked = running.signal(Signal::INT);
    assert_eq!(running.ends(asked, Duration::from_millis(700)).code, 130);
    drop(stopped);
    eventually("the step's process is gone", STOPPED, || (site.sleepers() == 0).then_some(()));
}

#[test]
#[ignore = "needs the rig"]
fn when_the_daemon_answers_nothing() {
    let site = Site::with_builder("mute", &[]);
    let running = site.asleep(&[]);
    let (space, pod) = (site.space.name(), site.pod().0);
    let what = ["pod", space, &pod];
    let _stopped = site.stop(&what);
    let asked = running.signal(Signal::INT);
    running.ends(asked, STOPPED).fails(130, &["interrupted"]);
}

#[test]
#[ignore = "needs the rig"]
fn while_the_daemon_pushes() {
    let rig = Rig::load();
    let registry = StrictRegistry::at(rig.get("CLIENT_ADDRESS"), Switches::default());
    registry.set(|method, path| {
        (method != "HEAD" && path.contains("/blobs/uploads/")).then_some(Fault::Late(NEVER))
    });
    let site = Site::with_builder("push", &[registry.host()]);
    let name = crate::fresh("push");
    let tag = format!("{}/{name}:1", registry.host());
    let arguments = ["--builder", BUILDER, "-t", &tag, "--push", "--progress", "plain", "quick"];
    let running = Running::start(site.tool.command("kubectl-build", &arguments));
    running.until_that("the upload has begun", || registry.was_asked("POST", &name));
    let asked = running.signal(Signal::INT);
    running.ends(asked, STOPPED).fails(130, &["interrupted"]);
    assert!(registry.tags(&name).is_empty());
}

/// Between push and tag the image is there already: its digest and the line that finishes the job are told, and the
/// line does finish it.
#[test]
#[ignore = "needs the rig"]
fn between_push_and_tag_the_line_that_finishes_is_told() {
    let rig = Rig::load();
    let registry = StrictRegistry::at(rig.get("CLIENT_ADDRESS"), Switches::default());
    let site = Site::with_builder("sign", &[registry.host()]);
    let (key, _) = site.tool.key_pair("k", "pw");
    let name = crate::fresh("sign");
    let host = registry.host().to_owned();
    let tag = format!("{host}/{name}:1");
    // First the signature is held up, then the tag.
    let cases = [
        (".sig", Signal::TERM, 143, "was not moved"),
        ("/manifests/1", Signal::INT, 130, "may have been moved"),
    ];
    for (held, signal, code, state) in cases {
        registry
            .set(move |method, path| (method == "PUT" && path.ends_with(held)).then_some(Fault::Late(NEVER)));
        let key = key.to_str().expect("UTF-8");
        let arguments = ["--builder", BUILDER, "-t", &tag, "--push", "--sign", "--cosign-key", key];
        let more = ["--registry-http", &host, "--iidfile", "iid", "quick"];
        let mut command = site.tool.command("kubectl-build", &[&arguments[..], &more].concat());
        command.env("COSIGN_PASSWORD", "pw");
        let running = Running::start(command);
        running.until_that("the call has come", || registry.was_asked("PUT", held));
        let asked = running.signal(signal);
        let stderr = running.ends(asked, STOPPED).fails(code, &[state, "finish with: "]);
        assert!(stderr.contains(&format!("{host}/{name}@sha256:")), "{stderr}");
        assert_eq!(registry.digest(&name, "1"), None, "no tag was moved");
        assert_no_results(&site.tool);
        let line = stderr.lines().find_map(|line| Some(line.split_once("finish with: ")?.1));
        let line = line.expect("the line").to_owned();
        if held == ".sig" {
            continue;
        }
        registry.set(|_, _| None);
        let mut shell = rig.command("/bin/sh");
        shell.arg("-c").arg(&line).current_dir(site.tool.home()).env_clear();
        for (name, value) in site.tool.command("true", &[]).get_envs() {
            shell.env(name, value.expect("it is set"));
        }
        shell.env("COSIGN_PASSWORD", "pw");
        crate::tool::run(shell).ok();
        let digest = registry.digest(&name, "1").expect("the tag is there");
        assert!(stderr.contains(&digest.to_string()), "{stderr}");
        assert!(registry.manifest(&name, &format!("{}.sig", digest.tag())).is_some());
    }
}

#[test]
#[ignore = "needs the rig"]
fn on_a_terminal_it_is_as_it_was() {
    let site = Site::with_builder("tty", &[]);
    let arguments = ["--builder", BUILDER, "--no-cache", "--progress", "tty", "sleep"];
    let mut pty = crate::running::Pty::start(site.tool.command("kubectl-build", &arguments));
    pty.until("# it-42");
    let asked = pty.type_in(b"\x03");
    assert_eq!(pty.ends(asked, STOPPED), 130);
    let screen = pty.screen().contents();
    assert!(screen.contains("CANCELED") && screen.contains("error: interrupted"), "{screen}");
    pty.assert_in_order();
}

#[test]
#[ignore = "needs the rig"]
fn at_the_question_for_a_password_the_echo_comes_back() {
    let site = Site::bare("prompt");
    let (key, _) = site.tool.key_pair("k", "pw");
    let tag = format!("{}/prompt:1", site.rig.get("REGISTRY"));
    let arguments = ["-t", &tag, "--push", "--sign", "--cosign-key", key.to_str().expect("UTF-8"), "quick"];
    // Two of its tasks hear of the signal, in any order.
    for _ in 0..8 {
        let mut pty = crate::running::Pty::start(site.tool.command("kubectl-build", &arguments));
        pty.until("k.key: ");
        let asked = pty.type_in(b"\x03");
        assert_eq!(pty.ends(asked, STOPPED), 130);
        pty.assert_in_order();
    }
    assert_eq!(site.space.kubectl(&["get", "deployments", "-o", "name"]), "", "nothing was started");
}
