//! A real buildkitd of our own on a unix socket, with its own root folder, mount and process namespaces: nothing
//! of it, containers included, outlives the test. Needs root.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) struct Buildkitd {
    folder: TempDir,
    /// `unshare`, which takes the whole process namespace with it when it dies.
    parent: Child,
    pid: Pid,
}

/// Returns the path of a peer binary, such as `buildkitd`, from the folder that `PEERS` names.
pub(crate) fn peer(name: &str) -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "tests are told of their peers by the environment")]
    let folder = std::env::var_os("PEERS");
    let folder = folder.expect("PEERS names the folder of the peer binaries: source target/cluster/env");
    let path = Path::new(&folder).join(name);
    assert!(path.is_file(), "{} is missing: run `make peers`", path.display());
    path
}

impl Buildkitd {
    /// Starts one and waits until it serves.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with more arguments, such as a second address. A daemon that ends while it starts, as it may on a
    /// machine short of something, is told and started once more.
    pub(crate) fn start_with(more: &[String]) -> Self {
        Self::try_start(more).unwrap_or_else(|first| {
            #[expect(clippy::print_stderr, reason = "a failure that was got over should still be seen")]
            let () = eprintln!("buildkitd ended while it started, once more:\n{first}");
            Self::try_start(more).unwrap_or_else(|log| panic!("buildkitd doesn't start:\n{log}"))
        })
    }

    /// # Errors
    ///
    /// Its log, if it ends or isn't there in time.
    fn try_start(more: &[String]) -> Result<Self, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        let (daemon, runc) = (peer("buildkitd"), peer("runc"));
        let peers = daemon.parent().expect("a folder").to_owned();
        let parent = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .arg(&daemon)
            .args(["--containerd-worker=false", "--oci-worker-binary"])
            .arg(runc)
            .arg("--root")
            .arg(folder.path().join("root"))
            .arg(format!("--addr=unix://{}", folder.path().join("b.sock").display()))
            .args(more)
            // It looks for runc there too, whatever it is told.
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", peers.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("unshare of util-linux starts");
        let mut daemon = Self { folder, pid: Pid::from_child(&parent), parent };
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end && daemon.parent.try_wait().expect("our child").is_none() {
            if daemon.speaks()
                && let Some(pid) = daemon.child_of_unshare()
            {
                daemon.pid = pid;
                return Ok(daemon);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(daemon.log())
    }

    /// Whether it sends its SETTINGS (RFC 9113, 3.4): the socket is there before anybody listens, and connections are
    /// taken before anybody serves them.
    fn speaks(&self) -> bool {
        let Ok(mut stream) = UnixStream::connect(self.socket()) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(1))).expect("it is no zero");
        stream.read_exact(&mut [0; 9]).is_ok()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("b.sock")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Sends a signal to buildkitd itself.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("buildkitd runs");
    }

    /// Whether a process of this name runs in a container of the daemon.
    pub(crate) fn runs(&self, name: &str) -> bool {
        let ours = fs::read_link(format!("/proc/{}/ns/mnt", self.parent.id())).expect("a namespace");
        let entries = fs::read_dir("/proc").expect("procfs").flatten();
        entries.map(|entry| entry.path()).any(|process| {
            let comm = fs::read_to_string(process.join("comm")).unwrap_or_default();
            let elsewhere = fs::read_link(process.join("ns/mnt")).is_ok_and(|namespace| namespace != ours);
            comm.trim_end() == name && elsewhere && self.is_ancestor_of(&process)
        })
    }

    fn is_ancestor_of(&self, process: &Path) -> bool {
        let ancestors = std::iter::successors(Some(process.to_owned()), |process| {
            let status = fs::read_to_string(process.join("status")).ok()?;
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().to_owned();
            (parent != "0").then(|| Path::new("/proc").join(parent))
        });
        let daemon = self.pid.as_raw_nonzero().to_string();
        ancestors.into_iter().any(|process| process.file_name().is_some_and(|name| name == daemon.as_str()))
    }

    /// The list may lack some while other processes come and go (Documentation/filesystems/proc.rst, 3.7).
    fn child_of_unshare(&self) -> Option<Pid> {
        let id = self.parent.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
    }
}

impl Drop for Buildkitd {
    fn drop(&mut self) {
        // SIGKILL reaches a stopped process too, and the first process of a namespace takes the others along.
        let _gone_already = kill_process(self.pid, Signal::KILL);
        let _gone_already = self.parent.kill();
        let _reaped = self.parent.wait();
    }
}
