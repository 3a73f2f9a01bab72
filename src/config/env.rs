//! The process environment, behind a trait so that tests bring their own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Every variable that is read, with what it means.
pub mod names {
    /// `true`: a build that pushes also signs.
    pub const SIGN: &str = "KUBECTL_BUILD_SIGN";
    /// Name or address of the builder.
    pub const BUILDER: &str = "KUBECTL_BUILD_BUILDER";
    /// Image for a builder that has to be made.
    pub const BUILDER_IMAGE: &str = "KUBECTL_BUILD_BUILDER_IMAGE";
    /// Filter of the log, in tracing's syntax.
    pub const LOG: &str = "KUBECTL_BUILD_LOG";
    /// Reference of the signing key, as cosign's.
    pub const COSIGN_KEY: &str = "COSIGN_KEY";
    /// Password of the signing key; set counts, even if empty.
    pub const COSIGN_PASSWORD: &str = "COSIGN_PASSWORD";
    /// Repository that signatures go to, if it isn't the image's.
    pub const COSIGN_REPOSITORY: &str = "COSIGN_REPOSITORY";
    /// `1`: sign with an identity where no key is given, as cosign 1 did.
    pub const COSIGN_EXPERIMENTAL: &str = "COSIGN_EXPERIMENTAL";
    /// Certificate authority, as `--fulcio-url`; cosign's name, as those that follow.
    pub const COSIGN_FULCIO_URL: &str = "COSIGN_FULCIO_URL";
    /// Transparency log, as `--rekor-url`.
    pub const COSIGN_REKOR_URL: &str = "COSIGN_REKOR_URL";
    /// Timestamp authority, as `--timestamp-server-url`.
    pub const COSIGN_TIMESTAMP_SERVER_URL: &str = "COSIGN_TIMESTAMP_SERVER_URL";
    /// Issuer, as `--oidc-issuer`.
    pub const COSIGN_OIDC_ISSUER: &str = "COSIGN_OIDC_ISSUER";
    /// File, as `--signing-config`.
    pub const COSIGN_SIGNING_CONFIG: &str = "COSIGN_SIGNING_CONFIG";
    /// File, as `--trusted-root`.
    pub const COSIGN_TRUSTED_ROOT: &str = "COSIGN_TRUSTED_ROOT";
    /// Identity token.
    pub const SIGSTORE_ID_TOKEN: &str = "SIGSTORE_ID_TOKEN";
    /// `1`: agree to publish a key's signatures, as `--yes`.
    pub const YES: &str = "KUBECTL_BUILD_YES";
    /// Progress mode where the flag is absent or `auto`.
    pub const PROGRESS: &str = "BUILDKIT_PROGRESS";
    /// Colours of the progress, as BuildKit's.
    pub const COLORS: &str = "BUILDKIT_COLORS";
    /// Lines of a running step's output that tty progress shows.
    pub const TTY_LOG_LINES: &str = "BUILDKIT_TTY_LOG_LINES";
    /// Set to anything: no colours.
    pub const NO_COLOR: &str = "NO_COLOR";
    /// Kind of terminal.
    pub const TERM: &str = "TERM";
    /// Platform where `--platform` is absent.
    pub const PLATFORM: &str = "DOCKER_DEFAULT_PLATFORM";
    /// Clock of a reproducible build, in seconds.
    pub const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";
    /// Directory of docker's config.json.
    pub const DOCKER_CONFIG: &str = "DOCKER_CONFIG";
    /// A docker config in the variable itself; its entries come first.
    pub const DOCKER_AUTH_CONFIG: &str = "DOCKER_AUTH_CONFIG";
    /// List of kubeconfig files.
    pub const KUBECONFIG: &str = "KUBECONFIG";
    /// The file that a step of GitHub Actions adds its outputs to.
    pub const GITHUB_OUTPUT: &str = "GITHUB_OUTPUT";
    /// The home directory.
    pub const HOME: &str = "HOME";
    /// Where credential helpers are looked up.
    pub const PATH: &str = "PATH";
}

/// What the process was started in.
pub trait Environment: Send + Sync {
    /// Returns the variable, if set.
    fn get_os(&self, name: &str) -> Option<OsString>;

    /// Returns the working directory.
    fn current_dir(&self) -> std::io::Result<PathBuf>;

    /// Returns all variables, for processes that we start.
    fn all(&self) -> Vec<(OsString, OsString)>;

    /// Returns the variable if it is set and UTF-8.
    fn get(&self, name: &str) -> Option<String> {
        self.get_os(name).and_then(|value| value.into_string().ok())
    }

    /// Returns the variable if it is set and not empty.
    fn get_filled(&self, name: &str) -> Option<String> {
        self.get(name).filter(|value| !value.is_empty())
    }
}

/// The real environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process;

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
impl Environment for Process {
    fn get_os(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn current_dir(&self) -> std::io::Result<PathBuf> {
        std::env::current_dir()
    }

    fn all(&self) -> Vec<(OsString, OsString)> {
        std::env::vars_os().collect()
    }
}

/// An environment made of a map.
#[derive(Clone, Debug, Default)]
pub struct Fixed {
    /// The variables.
    pub variables: BTreeMap<String, String>,
    /// The working directory.
    pub directory: PathBuf,
}

impl Fixed {
    /// Returns an environment with these variables, standing in `/`.
    pub fn new<const N: usize>(variables: [(&str, &str); N]) -> Self {
        let variables =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { variables, directory: PathBuf::from("/") }
    }
}

impl Environment for Fixed {
    fn get_os(&self, name: &str) -> Option<OsString> {
        self.variables.get(name).map(OsString::from)
    }

    fn current_dir(&self) -> std::io::Result<PathBuf> {
        Ok(self.directory.clone())
    }

    fn all(&self) -> Vec<(OsString, OsString)> {
        self.variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }
}
