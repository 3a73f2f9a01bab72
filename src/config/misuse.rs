//! What can be wrong with a command line: all of it is found before anything starts, and exits with 2.
//!
//! Where the predecessor (buildkit-cli-for-kubectl) had a message, this is its wording.

use std::path::PathBuf;

/// A command line or setting that can't be meant.
#[derive(Debug, thiserror::Error)]
pub enum Misuse {
    /// No PATH, or more than one.
    #[error("\"build\" requires exactly 1 argument(s).")]
    Arguments,
    /// PATH is the empty string.
    #[error("please specify build context (e.g. \".\" for the current directory)")]
    EmptyContext,
    /// PATH is no directory that is there.
    #[error("unable to prepare context: path {0:?} not found")]
    ContextNotFound(PathBuf),
    /// PATH is a file.
    #[error("unable to prepare context: path {0:?} is not a directory")]
    ContextNotDirectory(PathBuf),
    /// PATH cannot be looked at.
    #[error("unable to prepare context: path {path:?} cannot be read")]
    ContextUnreadable {
        /// PATH.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `-` as PATH.
    #[error("a build context on stdin (`-`) is not supported yet")]
    StdinContext,
    /// PATH and `-f` are both `-`.
    #[error("invalid argument: can't use stdin for both build context and dockerfile")]
    StdinTwice,
    /// A URL as PATH.
    #[error("a remote build context (`{0}`) is not supported yet")]
    UrlContext(String),
    /// `-f -` or a URL.
    #[error("a Dockerfile from {0} is not supported yet")]
    DockerfileSource(String),
    /// The Dockerfile isn't there.
    #[error("failed to read dockerfile: {path:?} cannot be opened")]
    Dockerfile {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A variable that names a proxy of no kind that is known; its value may hold a password.
    #[error(
        "{0} names no proxy that can be used: write http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT, with \
         USER:PASSWORD@ before the host where it is needed"
    )]
    Proxy(String),
    /// `--push` with no tag.
    #[error("tag is needed when pushing to registry")]
    PushWithoutTag,
    /// A file for what is pushed, and no `--push`.
    #[error("{0} is about a pushed image")]
    ResultWithoutPush(&'static str),
    /// `--cosign-password-file` for a key that has no password.
    #[error("a key service keeps its keys itself: `--cosign-password-file` is for keys in files and Secrets")]
    PasswordUnused,
    /// `--sign` with no `--push`.
    #[error("there is nothing to sign without `--push`")]
    SignWithoutPush,
    /// `--sign` with no key and no identity.
    #[error("`--sign` needs a key or an identity")]
    SignWithoutKey,
    /// `verify` with no key.
    #[error("`verify` needs a key")]
    VerifyWithoutKey,
    /// An identity is to sign, there is no token, and nobody can be asked to log in.
    #[error(
        "keyless signing needs an identity token, and there is none; nobody is asked to log in, because {0}"
    )]
    NoIdentity(&'static str),
    /// A GitHub job that may not have tokens.
    #[error("this GitHub Actions job may not ask for an identity token")]
    GitHubPermission,
    /// `--rekor=false` for an identity.
    #[error(
        "keyless signatures are always recorded in a log: without one nobody could tell that the certificate was still valid"
    )]
    KeylessUnlogged,
    /// Services by flag and by file.
    #[error("{0} and `--signing-config` both name services")]
    ServicesTwice(&'static str),
    /// A key's signatures would be published.
    #[error("the signature would be published in the log {0}, for everybody and for good")]
    PublicLog(String),
    /// An identity without its issuer, or the other way round.
    #[error("`{0}` (or its `-regexp`) is missing: an identity counts only by the word of its issuer")]
    VerifyHalf(&'static str),
    /// `--sign=` with a word we don't know.
    #[error("{name}={value} is not one of `true`, `false`, `cosign`")]
    SignValue {
        /// Flag or variable.
        name: String,
        /// What was said.
        value: String,
    },
    /// A key or signing option on a build that doesn't sign.
    #[error("{0} has no effect without `--sign`")]
    SigningOptionUnused(&'static str),
    /// A flag's value that can't be parsed.
    #[error("invalid value {value:?} for {name}: {reason}")]
    Value {
        /// Flag or variable.
        name: String,
        /// What was said.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `--network`.
    #[error("network mode {0:?} not supported by buildkit")]
    Network(String),
    /// `--allow`.
    #[error("invalid entitlement: {0}")]
    Entitlement(String),
    /// `--add-host`.
    #[error("invalid host {0}")]
    Host(String),
    /// TLS flags on a builder that doesn't speak it.
    #[error("{0} needs a builder at `tcp://`")]
    TlsWithoutTcp(&'static str),
    /// `--builder-tls-cert` and `--builder-tls-key` belong together.
    #[error("`--builder-tls-cert` and `--builder-tls-key` need each other")]
    TlsPair,
    /// A file named by a flag that can't be read.
    #[error("{name}: {path:?} cannot be read")]
    File {
        /// The flag.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file named by a flag that couldn't be written.
    #[error("{name}: {path:?} cannot be written")]
    Output {
        /// The flag.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The process stands nowhere.
    #[error("the working directory cannot be found")]
    WorkingDirectory(#[source] std::io::Error),
}

impl Misuse {
    /// Returns what to do, where the message alone doesn't say it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Arguments => {
                "say which directory to build, such as `kubectl build -t REGISTRY/app:1 --push .`"
            }
            Self::ContextNotFound(_) | Self::ContextNotDirectory(_) => {
                "PATH is the directory that holds what is built"
            }
            Self::StdinContext | Self::StdinTwice => "unpack it into a directory and name that as PATH",
            Self::UrlContext(_) => "clone or download it and name the directory as PATH",
            Self::DockerfileSource(_) => "save it as a file and name that with `-f FILE`",
            Self::Dockerfile { .. } => "name another Dockerfile with `-f FILE`",
            Self::PushWithoutTag => "add `-t REGISTRY/NAME:TAG`",
            Self::ResultWithoutPush(_) => "add `--push`, or leave it out",
            Self::SignWithoutPush => "add `--push`: signatures are stored in the registry, beside the image",
            Self::SignWithoutKey => {
                "name a key with `--cosign-key FILE|env://NAME|k8s://NAMESPACE/SECRET|awskms://…|gcpkms://…|azurekms://…|hashivault://…` or COSIGN_KEY; or sign with an identity: `--identity-token FILE`, `--service-account NAME`, or `--keyless` (COSIGN_EXPERIMENTAL=1) for the token that the CI system, the cloud or a mounted file offers, or a login in a browser"
            }
            Self::NoIdentity(_) => {
                "use `--identity-token FILE`, `--service-account NAME`, SIGSTORE_ID_TOKEN (GitLab: `id_tokens`, GitHub: `permissions: {id-token: write}`), or mount a service account token at /var/run/sigstore/cosign/oidc-token"
            }
            Self::GitHubPermission => "give the job `permissions: {id-token: write}`",
            Self::KeylessUnlogged => "leave `--rekor` out, or sign with a key",
            Self::ServicesTwice(_) => "leave one of them out",
            Self::PublicLog(_) => {
                "agree with `--yes` or KUBECTL_BUILD_YES=1, or name another log with `--rekor-url`"
            }
            Self::VerifyWithoutKey => {
                "name the public key with `--key FILE|env://NAME|k8s://NAMESPACE/SECRET` or COSIGN_KEY, or an identity with `--certificate-identity` and `--certificate-oidc-issuer`"
            }
            Self::SigningOptionUnused(_) => "add `--sign`, or leave it out",
            Self::TlsWithoutTcp(_) => "use `--builder tcp://HOST:PORT`, or leave it out",
            Self::Entitlement(_) => "`--allow` takes `network.host` and `security.insecure`",
            Self::Network(_) => "`--network` takes `default`, `none` and `host`",
            Self::Host(_) => "`--add-host` takes `HOST:IP`",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
