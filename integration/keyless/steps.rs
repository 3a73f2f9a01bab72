//! Every call that signing makes is a step with its time, however progress is shown.

use crate::bench::Bench;
use crate::tool::run;
use serde_json::Value;

/// What is shown of signing an image with an identity, in this order at first sight.
const STEPS: [&str; 6] = [
    "getting an identity token from ",
    "getting a certificate for ",
    "getting a timestamp from ",
    "recording the signature in the log ",
    "uploading bundles about sha256:",
    "verifying sha256:",
];

#[test]
#[ignore = "needs the rig"]
fn each_call_is_a_step_with_its_time_in_each_form_of_progress() {
    let bench = Bench::new("default", "REGISTRY");
    let show = |mode: &str| {
        let more = ["--service-account", "default", "--progress", mode];
        let image = bench.image();
        bench.sign(&image, &bench.service_flags(), &more)
    };

    let plain = run(show("plain"));
    assert_eq!(plain.code, 0, "{}", plain.stderr);
    for step in STEPS {
        let named = |line: &str| line.split_once(' ').is_some_and(|(_, name)| name.starts_with(step));
        let line = plain.stderr.lines().find(|line| named(line));
        let number = line.and_then(|line| line.split(' ').next());
        let number = number.unwrap_or_else(|| panic!("{step:?} is not in:\n{}", plain.stderr));
        let done = |line: &&str| line.starts_with(&format!("{number} DONE ")) && line.ends_with('s');
        assert!(plain.stderr.lines().any(|line| done(&line)), "{number} has no time:\n{}", plain.stderr);
    }

    let raw = run(show("rawjson"));
    assert_eq!(raw.code, 0, "{}", raw.stderr);
    let lines = raw.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let vertexes: Vec<Value> =
        lines.flat_map(|line| line["vertexes"].as_array().cloned().unwrap_or_default()).collect();
    for step in STEPS {
        let timed = |vertex: &&Value| {
            let named = vertex["name"].as_str().is_some_and(|name| name.starts_with(step));
            named && vertex["started"].is_string() && vertex["completed"].is_string()
        };
        assert!(vertexes.iter().any(|vertex| timed(&vertex)), "{step:?} is not in:\n{}", raw.stderr);
    }

    // A terminal of its own.
    let command = show("tty");
    let line = std::iter::once(command.get_program()).chain(command.get_args());
    let line: Vec<String> =
        line.map(|word| format!("'{}'", word.to_str().expect("UTF-8").replace('\'', "'\\''"))).collect();
    let script = format!("stty cols 160 rows 60; {}", line.join(" "));
    let mut terminal = bench.tool.command("kubectl-buildkit", &[]);
    let variables: Vec<_> =
        terminal.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
    terminal = bench.rig.command("script");
    terminal.args(["--quiet", "--return", "--command", &script, "/dev/null"]).env_clear();
    for (name, value) in variables {
        terminal.env(name, value.expect("it is set"));
    }
    let shown = run(terminal);
    assert_eq!(shown.code, 0, "{}", shown.stdout);
    for step in STEPS {
        let timed = |line: &str| {
            let text = line.split_once("=> ").and_then(|(_, text)| text.split('\u{1b}').next());
            text.is_some_and(|text| text.starts_with(step) && text.trim_end().ends_with('s'))
        };
        assert!(shown.stdout.lines().any(timed), "{step:?} is not in:\n{}", shown.stdout);
    }
}
