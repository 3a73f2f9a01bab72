//! Real registries on this machine: distribution, which has no referrers API, and go-containerregistry's, which has.
//! Their content is gone with them.

use crate::peers::{free_address, peer};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) struct Registry {
    pub(crate) host: String,
    process: Child,
    folder: TempDir,
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
        let log = File::create(folder.path().join("log")).expect("a log");
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let mut registry = Self { host, process: process.expect("the registry starts"), folder };
        let end = Instant::now() + Duration::from_secs(20);
        while !registry.answers() {
            let ended = registry.process.try_wait().expect("our child");
            let log = || std::fs::read_to_string(registry.folder.path().join("log")).unwrap_or_default();
            assert!(
                ended.is_none() && Instant::now() < end,
                "the registry on {} doesn't start ({ended:?}):\n{}",
                registry.host,
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// Whether it speaks HTTP: that a connection is taken says little.
    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(&self.host) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("it is no zero");
        let mut answer = [0; 7];
        let asked = stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n");
        asked.and_then(|()| stream.read_exact(&mut answer)).is_ok() && answer == *b"HTTP/1."
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}
