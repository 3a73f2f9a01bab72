//! The binary that users get, run as they run it: by its name on the PATH, in an environment that holds nothing
//! but what a test puts there.

use crate::rig::{Rig, text};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A home directory with the two commands on its PATH.
pub struct Tool {
    /// The cluster.
    pub rig: Rig,
    home: TempDir,
    namespace: String,
    kubeconfig: OnceLock<PathBuf>,
}

/// What a run left behind.
pub struct Ran {
    /// The exit code; 128 and the signal if one ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Tool {
    /// Returns the tool for a namespace, with an empty home.
    pub fn new(rig: &Rig, namespace: &str) -> Self {
        let home = tempfile::tempdir().expect("a home");
        let bin = home.path().join("bin");
        std::fs::create_dir(&bin).expect("a directory");
        for name in ["kubectl-build", "kubectl-buildkit"] {
            std::os::unix::fs::symlink(binary(), bin.join(name)).expect("a link");
        }
        std::os::unix::fs::symlink(rig.peer("kubectl"), bin.join("kubectl")).expect("a link");
        Self { rig: rig.clone(), home, namespace: namespace.to_owned(), kubeconfig: OnceLock::new() }
    }

    /// Returns the home directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Writes a file into the home and returns its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(&path, content).expect("a file");
        path
    }

    /// Returns a command of the tool, `kubectl-build` or `kubectl-buildkit`, standing in the home.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.rig.command(self.home.path().join("bin").join(program));
        command.args(arguments).current_dir(self.home.path()).env_clear();
        command.env("HOME", self.home.path()).env("KUBECONFIG", self.kubeconfig());
        command.env("PATH", format!("{}/bin:/usr/bin:/bin:/usr/sbin", self.home.path().display()));
        command.env("KUBECTL_BUILD_BUILDER_IMAGE", self.rig.get("BUILDKIT_IMAGE"));
        command
    }

    /// The administrator's kubeconfig, in the tool's namespace. Tests that run several commands at once share it.
    fn kubeconfig(&self) -> &Path {
        self.kubeconfig.get_or_init(|| {
            let path = self.home.path().join("kubeconfig");
            std::fs::copy(self.rig.kubeconfig(), &path).expect("a copy");
            let kubectl = self.rig.peer("kubectl");
            let arguments = ["config", "set-context", "--current", "--namespace", &self.namespace];
            let output = Command::new(kubectl)
                .args(arguments)
                .env("KUBECONFIG", &path)
                .output()
                .expect("kubectl runs");
            assert!(output.status.success(), "{}", text(&output.stderr));
            path
        })
    }

    /// Runs `kubectl-build` to its end.
    pub fn build(&self, arguments: &[&str]) -> Ran {
        run(self.command("kubectl-build", arguments))
    }

    /// Runs `kubectl-buildkit` to its end.
    pub fn buildkit(&self, arguments: &[&str]) -> Ran {
        run(self.command("kubectl-buildkit", arguments))
    }

    /// Writes docker's configuration with the user of one of the registries that have a password.
    #[allow(dead_code, reason = "not every test crate logs in")]
    pub fn log_in(&self, registry: &str) {
        let (user, password) = (self.rig.get("REGISTRY_USER"), self.rig.get("REGISTRY_PASSWORD"));
        let config =
            format!(r#"{{"auths":{{"{registry}":{{"username":"{user}","password":"{password}"}}}}}}"#);
        self.file(".docker/config.json", config);
    }

    /// Runs a line that was printed, in a shell, as a person would.
    #[allow(dead_code, reason = "not every test crate prints lines")]
    pub fn shell(&self, line: &str, variables: &[(&str, &str)]) -> Ran {
        let mut command = self.rig.command("/bin/sh");
        command.arg("-c").arg(line).current_dir(self.home()).env_clear();
        for (name, value) in self.command("true", &[]).get_envs() {
            command.env(name, value.expect("it is set"));
        }
        command.envs(variables.iter().copied());
        run(command)
    }

    /// Makes a key pair with cosign, with this password, and returns the paths of its halves.
    pub fn key_pair(&self, name: &str, password: &str) -> (PathBuf, PathBuf) {
        let mut command = Command::new(self.rig.peer("cosign"));
        command.args(["generate-key-pair", "--output-key-prefix", name]).current_dir(self.home.path());
        let output = command.env("COSIGN_PASSWORD", password).output().expect("cosign runs");
        assert!(output.status.success(), "cosign: {}", text(&output.stderr));
        (self.home.path().join(format!("{name}.key")), self.home.path().join(format!("{name}.pub")))
    }
}

/// Returns the binary under test: the release build where `make test` says so, else the one beside the tests.
pub fn binary() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the product")]
    let path =
        std::env::var_os("KUBECTL_BUILD_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_kubectl-build").into());
    PathBuf::from(path)
}

/// Runs a command to its end, at most five minutes.
pub fn run(mut command: Command) -> Ran {
    use std::process::Stdio;
    let shown = format!("{command:?}");
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect(&shown);
    let process = rustix::process::Pid::from_child(&child);
    let (ended, watch) = std::sync::mpsc::channel::<()>();
    #[expect(clippy::disallowed_methods, reason = "tests have no runtime to spawn on")]
    let watchdog = std::thread::spawn(move || {
        if watch.recv_timeout(Duration::from_secs(300)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _gone = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
    });
    let output = child.wait_with_output().expect(&shown);
    drop(ended);
    watchdog.join().expect("the watchdog ends");
    Ran::of(&output)
}

impl Ran {
    /// Reads a finished process.
    pub fn of(output: &Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or_default());
        Self { code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Returns the command line of a hint that begins with these words.
    #[allow(dead_code, reason = "not every test crate takes advice")]
    #[track_caller]
    pub fn advice(&self, words: &str) -> String {
        let hints = self.stderr.lines().filter(|line| line.starts_with("hint: "));
        let line = hints.flat_map(|hint| hint.split('`')).find(|part| part.starts_with(words));
        line.unwrap_or_else(|| panic!("no `{words} …` is advised:\n{}", self.stderr)).to_owned()
    }

    /// Asserts success and returns standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Asserts this exit code and that standard error holds all of these texts; returns standard error.
    #[track_caller]
    pub fn fails(self, code: i32, texts: &[&str]) -> String {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?} is not in:\n{}", self.stderr);
        }
        self.stderr
    }
}

/// Waits until a condition holds.
#[allow(dead_code, reason = "not every test crate waits")]
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    // A look often is a process: many of them would slow down what they wait for.
    let mut pause = Duration::from_millis(50);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "not within {} s: {what}", limit.as_secs());
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(400));
    }
}
