//! Real registries on this machine: distribution, which has no referrers API, and go-containerregistry's, which has.
//! Their content is gone with them.

use crate::peers::{free_address, peer};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) struct Registry {
    pub(crate) host: String,
    process: Child,
    _folder: TempDir,
}

impl Registry {
    /// Starts distribution.
    #[allow(dead_code, reason = "not every test crate looks at both kinds")]
    pub(crate) fn without_referrers() -> Self {
        Self::distribution(&Ipv4Addr::LOCALHOST.to_string(), "")
    }

    /// Starts distribution at an address of this machine, with this `auth` section.
    #[allow(dead_code, reason = "not every test crate has logins")]
    pub(crate) fn with_auth(address: &str, auth: &str) -> Self {
        Self::distribution(address, &format!("auth: {auth}\n"))
    }

    fn distribution(address: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let host = free_address(address.parse().expect("an address"));
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: {host:?}}}\n{more}",
            folder.path().join("data").display()
        );
        std::fs::write(&config, text).expect("a file");
        let mut command = Command::new(peer("registry"));
        command.arg("serve").arg(config).env("OTEL_TRACES_EXPORTER", "none");
        Self::start(command, host, folder)
    }

    /// Starts go-containerregistry's registry, in memory.
    pub(crate) fn with_referrers() -> Self {
        let host = free_address(Ipv4Addr::LOCALHOST.into());
        let mut command = Command::new(peer("rigtool"));
        command.args(["referrers", &host]);
        Self::start(command, host, tempfile::tempdir().expect("a folder"))
    }

    fn start(mut command: Command, host: String, folder: TempDir) -> Self {
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut registry = Self { host, process: process.expect("the registry starts"), _folder: folder };
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&registry.host).is_err() {
            let ended = registry.process.try_wait().expect("our child");
            assert!(
                ended.is_none() && Instant::now() < end,
                "the registry on {} doesn't start",
                registry.host
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}
