//! A real OpenBao server in development mode, in memory, on a port of its own; it ends with the test.

use crate::peers::{free_address, peer};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The token of its administrator.
pub(crate) const ROOT: &str = "root-token-of-the-test";

pub(crate) struct OpenBao {
    pub(crate) address: String,
    process: Child,
    folder: TempDir,
}

impl OpenBao {
    /// Starts one with the transit engine at its usual place.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let host = free_address(Ipv4Addr::LOCALHOST.into());
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let process = Command::new(peer("bao"))
            .args(["server", "-dev", "-dev-no-store-token"])
            .arg(format!("-dev-root-token-id={ROOT}"))
            .arg(format!("-dev-listen-address={host}"))
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("bao starts");
        let mut server = Self { address: format!("http://{host}"), process, folder };
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(&host).is_err() {
            let ended = server.process.try_wait().expect("our child");
            let log = || std::fs::read_to_string(server.folder.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < end, "OpenBao doesn't start:\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        while server.run(&["secrets", "enable", "transit"]).is_err() {
            // It listens before it is unsealed.
            assert!(Instant::now() < end, "the transit engine can't be mounted");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    /// Runs its command line as administrator.
    pub(crate) fn bao(&self, arguments: &[&str]) -> String {
        self.run(arguments).unwrap_or_else(|error| panic!("bao {arguments:?}: {error}"))
    }

    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(peer("bao"))
            .args(arguments)
            .env("HOME", self.folder.path())
            .env("BAO_ADDR", &self.address)
            .env("BAO_TOKEN", ROOT)
            .stdin(Stdio::null())
            .output()
            .expect("bao runs");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Makes a key in the transit engine.
    pub(crate) fn key(&self, name: &str, kind: &str) {
        self.bao(&["write", "-f", &format!("transit/keys/{name}"), &format!("type={kind}")]);
    }

    /// Returns a token that may do what this policy says.
    pub(crate) fn token(&self, name: &str, policy: &str) -> String {
        let path = self.folder.path().join(format!("{name}.hcl"));
        std::fs::write(&path, policy).expect("a file");
        self.bao(&["policy", "write", name, path.to_str().expect("UTF-8")]);
        self.bao(&["token", "create", "-field=token", &format!("-policy={name}")])
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}
