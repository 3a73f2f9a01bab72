//! Every call that signing makes is a step with its time, however progress is shown.

use crate::bench::Bench;
use crate::login::{Desk, LONG, LOOPBACK, page};
use crate::openbao::{OpenBao, ROOT};
use crate::person;
use crate::running::Pty;
use crate::tool::{Ran, run};
use serde_json::Value;
use std::ffi::OsStr;
use std::process::Command;
use std::time::Instant;

/// What is shown of signing an image with an identity, in this order at first sight.
const STEPS: [&str; 6] = [
    "getting an identity token from ",
    "getting a certificate for ",
    "getting a timestamp from ",
    "recording the signature in the log ",
    "uploading bundles about sha256:",
    "verifying sha256:",
];

/// What is shown of somebody who logs in for that.
const LOGIN: [&str; 2] = ["waiting for the login at http://", "getting a certificate for the identity "];

/// What is shown of a key service.
const KEY_SERVICE: [&str; 1] = ["asking OpenBao for a signature with openbao://app"];

#[test]
#[ignore = "needs the rig"]
fn each_call_is_a_step_with_its_time_in_each_form_of_progress() {
    let bench = Bench::new("default", "REGISTRY");
    let show = |mode: &str| {
        let more = ["--service-account", "default", "--progress", mode];
        let image = bench.image();
        bench.sign(&image, &bench.service_flags(), &more)
    };
    plain_shows(&told(run(show("plain"))), &STEPS);
    rawjson_shows(&told(run(show("rawjson"))), &STEPS);
    terminal_shows(&on_a_terminal(&bench, &show("tty")), &STEPS);
}

#[test]
#[ignore = "needs the rig"]
fn the_wait_for_a_login_is_a_step_with_its_time() {
    let desk = Desk::new("default");
    let said = |mode: &str| {
        let mut pty = Pty::start(desk.sign(&["--progress", mode]));
        person::log_in(&desk.bench.rig, &page(&mut pty, 0, LOOPBACK), &format!("step-{mode}"));
        assert_eq!(pty.ends(Instant::now(), LONG), 0, "{}", pty.said());
        pty.said()
    };
    plain_shows(&said("plain"), &LOGIN);
    rawjson_shows(&said("rawjson"), &LOGIN);
}

#[test]
#[ignore = "needs the rig"]
fn each_call_of_a_key_service_is_a_step_with_its_time_in_each_form_of_progress() {
    let bench = Bench::new("default", "REGISTRY");
    let server = OpenBao::start();
    server.key("app", "ecdsa-p256");
    let show = |mode: &str| {
        let more = ["--cosign-key", "openbao://app", "--progress", mode];
        let mut command = bench.sign(&bench.image(), &[], &more);
        command.env("BAO_ADDR", &server.address).env("BAO_TOKEN", ROOT);
        command
    };
    plain_shows(&told(run(show("plain"))), &KEY_SERVICE);
    rawjson_shows(&told(run(show("rawjson"))), &KEY_SERVICE);
    terminal_shows(&on_a_terminal(&bench, &show("tty")), &KEY_SERVICE);
}

/// Returns what a run that went well said beside its result.
#[track_caller]
fn told(ran: Ran) -> String {
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.stderr
}

/// Runs a command on a terminal of its own and returns what it wrote there.
#[track_caller]
fn on_a_terminal(bench: &Bench, command: &Command) -> String {
    let quoted = |word: &OsStr| format!("'{}'", word.to_str().expect("UTF-8").replace('\'', "'\\''"));
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(quoted).collect::<Vec<_>>().join(" ");
    let script = format!("stty cols 160 rows 60; {line}");
    let mut terminal = bench.rig.command("script");
    terminal.args(["--quiet", "--return", "--command", &script, "/dev/null"]).env_clear();
    terminal.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    run(terminal).ok()
}

#[track_caller]
fn plain_shows(said: &str, steps: &[&str]) {
    for step in steps {
        let named = |line: &str| line.split_once(' ').is_some_and(|(_, name)| name.starts_with(step));
        let line = said.lines().find(|line| named(line));
        let number = line.and_then(|line| line.split(' ').next());
        let number = number.unwrap_or_else(|| panic!("{step:?} is not in:\n{said}"));
        let done = |line: &str| line.starts_with(&format!("{number} DONE ")) && line.ends_with('s');
        assert!(said.lines().any(done), "{number} has no time:\n{said}");
    }
}

#[track_caller]
fn rawjson_shows(said: &str, steps: &[&str]) {
    let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let vertexes: Vec<Value> =
        lines.flat_map(|line| line["vertexes"].as_array().cloned().unwrap_or_default()).collect();
    for step in steps {
        let timed = |vertex: &Value| {
            let named = vertex["name"].as_str().is_some_and(|name| name.starts_with(step));
            named && vertex["started"].is_string() && vertex["completed"].is_string()
        };
        assert!(vertexes.iter().any(timed), "{step:?} is not in:\n{said}");
    }
}

#[track_caller]
fn terminal_shows(said: &str, steps: &[&str]) {
    for step in steps {
        let timed = |line: &str| {
            let text = line.split_once("=> ").and_then(|(_, text)| text.split('\u{1b}').next());
            text.is_some_and(|text| text.starts_with(step) && text.trim_end().ends_with('s'))
        };
        assert!(said.lines().any(timed), "{step:?} is not in:\n{said}");
    }
}
