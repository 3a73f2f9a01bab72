//! The cluster that `make cluster` starts, as tests see it: what stands in `target/cluster/env`, nothing else.
//!
//! A test that needs it fails when it is not there; it never skips. The test binary itself runs under
//! `CLUSTER_RUN` (`make test` does that), so that code under test reaches what pods reach.

#![allow(dead_code, reason = "each suite uses a part of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The settings of the running cluster.
#[derive(Clone, Debug)]
pub(crate) struct Rig {
    settings: BTreeMap<String, String>,
}

impl Rig {
    /// Reads `target/cluster/env`.
    ///
    /// # Panics
    /// When the file is not there: a test against the cluster must not pass without one.
    pub(crate) fn load() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cluster/env");
        assert!(path.exists(), "no cluster: {} is not there; start one with `make cluster`", path.display());
        // The file is written for shells, so a shell reads it: quoting is its business.
        let output = Command::new("sh")
            .args(["-c", "set -a; . \"$0\"; env -0"])
            .arg(&path)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .output()
            .expect("sh runs");
        assert!(output.status.success(), "{} cannot be sourced: {}", path.display(), text(&output.stderr));
        let settings = output
            .stdout
            .split(|byte| *byte == 0)
            .filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self { settings }
    }

    /// Returns one setting.
    ///
    /// # Panics
    /// When it is not set.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.settings.get(name).unwrap_or_else(|| panic!("target/cluster/env does not set {name}"))
    }

    /// Returns one setting, if set and not empty.
    pub(crate) fn maybe(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns the kubeconfig of the cluster's administrator.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        PathBuf::from(self.get("KUBECONFIG"))
    }

    /// Returns the path of a peer's binary (`kubectl`, `buildctl`, `cosign`, …).
    ///
    /// # Panics
    /// When it is not there.
    pub(crate) fn peer(&self, name: &str) -> PathBuf {
        let path = Path::new(self.get("PEERS")).join(name);
        assert!(path.exists(), "the peer {} is not there; run `make cluster`", path.display());
        path
    }

    /// Returns a command that runs where the cluster is reachable, with `KUBECONFIG` set.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut prefix = self.maybe("CLUSTER_RUN").unwrap_or_default().split_whitespace();
        let mut command = match prefix.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(prefix).arg(program.as_ref());
                command
            }
            None => Command::new(program.as_ref()),
        };
        command.env("KUBECONFIG", self.get("KUBECONFIG"));
        command
    }

    /// Runs kubectl and returns its output, whatever the outcome.
    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> Output {
        let run = || self.command(self.peer("kubectl")).args(arguments).output().expect("kubectl runs");
        let output = run();
        // It gives a handshake ten seconds, which a machine that is busy with other tests may take.
        if text(&output.stderr).contains("TLS handshake timeout") { run() } else { output }
    }

    /// Runs kubectl and returns its standard output.
    ///
    /// # Panics
    /// When kubectl fails.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(arguments);
        assert!(output.status.success(), "kubectl {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Pipes a manifest (YAML or JSON) into `kubectl apply`.
    ///
    /// # Panics
    /// When kubectl refuses it.
    pub(crate) fn apply(&self, manifest: &str) {
        use std::io::Write as _;
        let mut child = self
            .command(self.peer("kubectl"))
            .args(["apply", "-f", "-"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("kubectl runs");
        child.stdin.take().expect("it is piped").write_all(manifest.as_bytes()).expect("kubectl reads");
        let output = child.wait_with_output().expect("kubectl ends");
        assert!(output.status.success(), "kubectl apply: {}", text(&output.stderr));
    }

    /// Makes a namespace of its own for a test; it is deleted when the value is dropped, also by a panic.
    ///
    /// # Panics
    /// When the cluster refuses.
    pub(crate) fn namespace(&self, purpose: &str) -> Namespace {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("t-{purpose}-{}-{count}", std::process::id());
        self.kubectl(&["create", "namespace", &name]);
        Namespace { rig: self.clone(), name }
    }
}

/// A namespace that lives as long as the value.
#[derive(Debug)]
pub(crate) struct Namespace {
    rig: Rig,
    name: String,
}

impl Namespace {
    /// Returns its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs kubectl in it and returns its standard output.
    ///
    /// # Panics
    /// When kubectl fails.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.rig.kubectl(&[&["-n", self.name.as_str()], arguments].concat())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The grace period of its pods is nothing that a test has to wait for.
        let _best_effort =
            self.rig.try_kubectl(&["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"]);
    }
}

/// Returns bytes as text, for messages.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
