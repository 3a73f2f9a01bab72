//! The context on its way: files that change under us, very large ones, and what a transfer costs in memory.

use crate::Local;
use crate::rig::Rig;
use crate::running::Running;
use rustix::fs::{CWD, FileType, Mode};
use rustix::process::Signal;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const EVERYTHING: &str = "FROM scratch\nCOPY . /\n";

/// Makes a file of this many bytes, all of them holes.
fn sparse(path: &Path, size: u64) -> File {
    let file = File::create(path).expect("a file");
    file.set_len(size).expect("a sparse file");
    file
}

/// Mounts a file of sysfs that not even root may read over another.
fn shut(path: &Path) {
    let mut mount = Command::new("mount");
    mount.args(["--bind", "/sys/bus/platform/drivers_probe"]).arg(path);
    assert!(mount.status().expect("mount runs").success());
}

/// What happens to a file.
type Meddle = fn(&Path);

/// Something happens to the file that is being sent, or to the one that waits for its turn.
#[test]
#[ignore = "needs the rig"]
fn what_happens_to_files_while_they_are_sent_is_told_by_name() {
    const SIZE: u64 = 64 << 20;
    let local = Local::start(&Rig::load());
    let home = local.tool.home();
    local.tool.file("ctx/Dockerfile", EVERYTHING);
    let files = [home.join("ctx/one"), home.join("ctx/two")];
    let meddled = |waiting: bool, meddle: Meddle| {
        files.iter().for_each(|file| drop(sparse(file, SIZE)));
        let running = Running::start(local.command(&["--progress", "plain", "--iidfile", "iid", "ctx"]));
        // The daemon asks in any order. Little of a file fits into the pipes.
        let open = running.stop_with_open(&files);
        let file = &files[if waiting { 1 - open } else { open }];
        meddle(file);
        running.signal(Signal::CONT);
        let ran = running.ends(Instant::now(), Duration::from_secs(60));
        let _unmounted = Command::new("umount").arg(file).stderr(Stdio::null()).status();
        let _removed = fs::remove_file(file);
        (ran, file.display())
    };
    let cases: [(bool, Meddle, &str, &str); 5] = [
        (false, |file| drop(sparse(file, 1 << 20)), "", " changed while it was being sent\n"),
        (false, |file| rewrite(file, SIZE - 9), "", " changed while it was being sent\n"),
        (true, |file| fs::remove_file(file).expect("it is there"), "", " vanished while it was being sent\n"),
        (true, become_a_pipe, "", " changed while it was being sent\n"),
        (true, shut, "cannot open ", "\ncaused by: Permission denied"),
    ];
    for (waiting, meddle, before, after) in cases {
        let (ran, name) = meddled(waiting, meddle);
        let hint = "hint: nothing was pushed; what the build does not need can be named in `.dockerignore`";
        ran.fails(1, &[&format!("error: {before}{name}{after}"), hint]);
        assert!(!home.join("iid").exists());
    }
    // A log that goes on is sent as it was when it was looked at.
    let (ran, name) = meddled(false, |file| rewrite(file, SIZE));
    let note = format!("{name} grew while it was being sent: only its first {SIZE} bytes were");
    assert!(ran.stderr.contains(&note), "{}", ran.stderr);
    ran.ok();
}

/// Writes at an offset of a file that is there.
fn rewrite(path: &Path, offset: u64) {
    let file = File::options().write(true).open(path).expect("the file");
    file.write_all_at(b"new", offset).expect("to write");
}

fn become_a_pipe(path: &Path) {
    fs::remove_file(path).expect("it is there");
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from(0o644), 0).expect("a FIFO");
}

#[test]
#[ignore = "needs the rig"]
fn a_file_beyond_4_gib_arrives_whole() {
    let rig = Rig::load();
    let local = Local::start(&rig);
    let size = (4 << 30) + (1 << 20);
    let run = format!(
        "RUN --mount=target=/ctx test \"$(stat -c %s /ctx/large)\" = {size} && test \"$(tail -c 3 /ctx/large)\" = end"
    );
    local.tool.file("ctx/Dockerfile", format!("FROM {}\n{run}\n", rig.get("BASE_REF")));
    let large = sparse(&local.tool.home().join("ctx/large"), size);
    large.write_all_at(b"end", size - 3).expect("to write");
    local.build(&["ctx"]).ok();
}

/// Runs a command to its good end and returns the most memory that it held, in KiB.
fn peak(mut command: Command) -> u64 {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        // What has ended has no memory, and says nothing of it.
        peak = line.and_then(|kib| kib.parse().ok()).unwrap_or(peak);
        if let Some(status) = child.try_wait().expect("it is ours") {
            assert!(status.success(), "{command:?}: {status}");
            return peak;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
#[ignore = "needs the rig"]
fn memory_does_not_grow_with_the_context() {
    let rig = Rig::load();
    let local = Local::start(&rig);
    let dockerfile = format!("FROM {}\nRUN --mount=target=/context true\n", rig.get("BASE_REF"));
    let (home, mut peaks) = (local.tool.home(), Vec::new());
    for (context, files, size) in [("few", 10, 0), ("many", 20_000, 0), ("big", 0, 512 << 20)] {
        local.tool.file(&format!("{context}/Dockerfile"), &dockerfile);
        for number in 0..files {
            let path = format!("{context}/directory-{}/file-{number}", number / 200);
            local.tool.file(&path, format!("{number}"));
        }
        sparse(&home.join(context).join("sparse"), size);
        peaks.push(peak(local.command(&["--progress", "plain", context])));
    }
    let [few, many, big] = peaks[..] else { unreachable!("three contexts") };
    let told = format!("few {few}, many {many}, big {big} KiB");
    assert!(few > 1000, "that is no process: {told}");
    // A transfer's buffers are full of a large file only.
    assert!(many < few + (6 << 10) && big < few + (12 << 10), "{told}");
}
