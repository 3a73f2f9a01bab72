//! Where results go: a full disk, a terminal that takes nothing, devices.

use crate::fresh;
use crate::hello;
use crate::rig::Rig;
use crate::seen::Seen;
use crate::tool::{Tool, eventually};
use std::fs::File;
use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

#[test]
#[ignore = "needs the rig"]
fn a_digest_that_cannot_be_written_is_an_error_and_the_files_are_there() {
    let rig = Rig::load();
    let space = rig.namespace("full");
    let tool = Tool::new(&rig, space.name());
    let (registry, name) = (rig.get("REGISTRY"), fresh("full"));
    let tag = format!("{registry}/{name}:1");
    let context = hello();
    let arguments = ["-t", &tag, "--push", "--registry-http", registry, "--iidfile", "iid"];
    let mut command =
        tool.command("kubectl-build", &[&arguments[..], &[context.to_str().expect("UTF-8")]].concat());
    let full = File::options().write(true).open("/dev/full").expect("a full disk");
    let output = command.stdin(Stdio::null()).stdout(full).output().expect("it runs");
    let stderr = crate::rig::text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("standard output") && stderr.contains("No space left"), "{stderr}");
    let written = std::fs::read_to_string(tool.home().join("iid")).expect("a file");
    assert_eq!(Seen::plain(&rig).digest(&name, "1"), Some(written));
}

/// A terminal stopped by Ctrl-S, or a log collector that hangs: the build ends all the same, with its own exit code.
#[test]
#[ignore = "needs the rig"]
fn a_standard_error_that_nobody_reads_does_not_hold_up_the_end() {
    let rig = Rig::load();
    let space = rig.namespace("stuck-stderr");
    let tool = Tool::new(&rig, space.name());
    // Ten times what a pipe holds.
    let chatter = "RUN i=0; while [ $i -lt 8000 ]; do echo \"$i -------------------------------------------------------------\"; i=$((i+1)); done";
    let base = rig.get("BASE_REF");
    tool.file("good/Dockerfile", format!("FROM {base}\n{chatter}\n"));
    tool.file("bad/Dockerfile", format!("FROM {base}\n{chatter}; exit 7\n"));
    tool.buildkit(&["create", "--registry-http", rig.get("REGISTRY")]).ok();
    for (context, code) in [("good", 0), ("bad", 1)] {
        let mut command = tool.command("kubectl-build", &["--no-cache", "--iidfile", "iid", context]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let ended = eventually("it ends", Duration::from_secs(90), || child.try_wait().expect("it is ours"));
        assert_eq!(ended.code(), Some(code), "{context}");
        let mut stdout = String::new();
        child.stdout.take().expect("it is piped").read_to_string(&mut stdout).expect("text");
        assert_eq!(stdout.starts_with("sha256:"), code == 0, "{stdout}");
    }
}

/// By links, lest a tool that replaces what it should write to ruin the machine's devices.
#[test]
#[ignore = "needs the rig"]
fn a_result_file_that_is_none_is_only_written_to() {
    let rig = Rig::load();
    let space = rig.namespace("devices");
    let tool = Tool::new(&rig, space.name());
    let links = [("out", "/proc/self/fd/1"), ("null", "/dev/null")];
    for (link, target) in links {
        std::os::unix::fs::symlink(target, tool.home().join(link)).expect("a link");
    }
    let context = hello();
    let arguments = ["-q", "--iidfile", "out", "--metadata-file", "null"];
    let stdout = tool.build(&[&arguments[..], &[context.to_str().expect("UTF-8")]].concat()).ok();
    let (printed, written) = stdout.split_once('\n').expect("a line");
    assert_eq!(printed, written);
    for (link, target) in links {
        let still = std::fs::read_link(tool.home().join(link)).expect("it is a link");
        assert_eq!(still, std::path::Path::new(target));
    }
}
