//! The signing services that `make signing-services` starts.

#![allow(dead_code, reason = "each suite uses a part of it")]

use std::collections::BTreeMap;
use std::path::Path;

/// What `target/cluster/signing-env` says.
pub(crate) struct Services(BTreeMap<String, String>);

impl Services {
    pub(crate) fn load() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cluster/signing-env");
        let content = std::fs::read_to_string(&path).unwrap_or_else(|_| {
            panic!(
                "no signing services: {} is not there; start them with `make signing-services`",
                path.display()
            )
        });
        let lines = content.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        Self(lines.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned())).collect())
    }

    /// Returns one setting.
    #[track_caller]
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("target/cluster/signing-env does not set {name}"))
    }

    /// Returns the flags that name services and trust.
    pub(crate) fn service_flags(&self) -> Vec<String> {
        self.flags(&[
            ("--fulcio-url", "FULCIO_URL"),
            ("--rekor-url", "REKOR_URL"),
            ("--timestamp-server-url", "TSA_URL"),
            ("--trusted-root", "TRUSTED_ROOT"),
        ])
    }

    /// Returns the same as the files that cosign made.
    pub(crate) fn config_flags(&self) -> Vec<String> {
        self.flags(&[("--signing-config", "SIGNING_CONFIG"), ("--trusted-root", "TRUSTED_ROOT")])
    }

    /// Returns the flags that name the emulator of Rekor v1, and of an authority whose certificates are logged.
    pub(crate) fn emulator_flags(&self) -> Vec<String> {
        self.flags(&[
            ("--fulcio-url", "EMULATOR_URL"),
            ("--rekor-url", "EMULATOR_URL"),
            ("--trusted-root", "EMULATOR_ROOT"),
        ])
    }

    fn flags(&self, named: &[(&str, &str)]) -> Vec<String> {
        named.iter().flat_map(|(flag, name)| [(*flag).to_owned(), self.get(name).to_owned()]).collect()
    }
}
