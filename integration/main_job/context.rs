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

/// One file is being sent when something happens to it, or to the file that waits for its turn.
#[test]
#[ignore = "needs the rig"]
fn what_happens_to_files_while_they_are_sent_is_told_by_name() {
    let local = Local::start(&Rig::load());
    let home = local.tool.home();
    local.tool.file("ctx/Dockerfile", EVERYTHING);
    let (large, small) = (home.join("ctx/large"), home.join("ctx/small"));
    let meddled = |meddle: &dyn Fn()| {
        sparse(&large, 128 << 20);
        fs::write(&small, "small").expect("a file");
        let running = Running::start(local.command(&["--progress", "plain", "--iidfile", "iid", "ctx"]));
        // Little of the file fits into the pipes.
        running.stop_with_open(&large);
        meddle();
        running.signal(Signal::CONT);
        running.ends(Instant::now(), Duration::from_secs(60))
    };
    let vanished = || fs::remove_file(&small).expect("it is there");
    let replaced = || {
        fs::remove_file(&small).expect("it is there");
        rustix::fs::mknodat(CWD, &small, FileType::Fifo, Mode::from(0o644), 0).expect("a FIFO");
    };
    let shrunk = || sparse(&large, 1 << 20).sync_all().expect("a file");
    let written = || {
        let file = File::options().write(true).open(&large).expect("the file");
        file.write_all_at(b"new", 100 << 20).expect("to write");
    };
    let (large_name, small_name) = (large.display(), small.display());
    let cases: [(&dyn Fn(), String); 5] = [
        (&shrunk, format!("error: {large_name} changed while it was being sent")),
        (&written, format!("error: {large_name} changed while it was being sent")),
        (&vanished, format!("error: {small_name} vanished while it was being sent")),
        (&replaced, format!("error: {small_name} changed while it was being sent")),
        (&|| shut(&small), format!("error: cannot open {small_name}\ncaused by: Permission denied")),
    ];
    for (meddle, expected) in cases {
        let ran = meddled(meddle);
        let _unmounted = Command::new("umount").arg(&small).stderr(Stdio::null()).status();
        let _removed = fs::remove_file(&small);
        let hint = "hint: nothing was pushed; what the build does not need can be named in `.dockerignore`";
        ran.fails(1, &[&expected, hint]);
        assert!(!home.join("iid").exists(), "{expected}");
    }
    // A log that goes on is sent as it was when it was looked at.
    let grown =
        || File::options().write(true).open(&large).expect("the file").set_len(1 << 28).expect("grown");
    let ran = meddled(&grown);
    let note = format!("{large_name} grew while it was being sent: only its first {} bytes were", 128 << 20);
    assert!(ran.stderr.contains(&note), "{}", ran.stderr);
    ran.ok();
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
