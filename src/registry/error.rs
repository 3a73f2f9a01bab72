//! What can go wrong with a registry, said so that a person knows which host, which repository and why.

use super::Repository;
use super::connect::Way;
use std::error::Error;
use std::fmt;
use std::time::Duration;

/// The source of an error, of whatever type.
pub(super) type Source = Box<dyn Error + Send + Sync>;

/// What kind of failure it was: enough to choose a hint and an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// 401: credentials are missing or wrong.
    Unauthorized,
    /// 403, or 401 to a token that the token service gave to known credentials: they may not do this.
    Denied,
    /// 404: no such repository, or the registry hides it.
    NotFound,
    /// The tag exists, and the registry lets nobody move it.
    TagImmutable,
    /// 429, with the pause that the registry asks for.
    RateLimited {
        /// `Retry-After`, where it was sent.
        retry_after: Option<Duration>,
    },
    /// Another 4xx: the registry does not take what was sent.
    Rejected,
    /// 5xx.
    Server,
    /// Connected, but no answer, or no further bytes of it, within the time that we wait.
    Timeout,
    /// The certificate is self-signed or its authority is unknown.
    UntrustedCertificate,
    /// Another failure of TLS, such as an expired certificate or one for another name.
    Tls,
    /// We spoke TLS and the registry speaks plain HTTP.
    PlainHttp,
    /// We spoke plain HTTP and the registry wants TLS.
    NeedsTls,
    /// The host name does not resolve.
    Dns,
    /// Nobody listens there.
    Refused,
    /// There is no way there: no route, say, or a firewall that drops what we send.
    Unreachable,
    /// The way through the cluster leads nowhere.
    NoRoute,
    /// The way goes through a builder, and there is none yet.
    NoBuilderYet,
    /// The connection broke.
    Disconnected,
    /// Credentials could not be looked up: a helper failed, say.
    Credentials,
    /// The content is not what its digest promises.
    DigestMismatch,
    /// The content is larger than we take.
    TooLarge,
    /// An answer that breaks the protocol, or that we refuse to follow.
    Protocol,
}

/// As whom the registry was spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Presented {
    /// It never asked.
    #[default]
    NotAsked,
    /// It asked and no credentials are known.
    Nothing,
    /// With a user's password or a token.
    Known {
        /// The user, where the credential names one.
        user: Option<String>,
        /// Where the credential came from.
        origin: String,
    },
}

impl fmt::Display for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => Ok(()),
            Self::Nothing => f.write_str(" (no credentials are known for it)"),
            Self::Known { user: Some(user), origin } => write!(f, " (as `{user}`, from `{origin}`)"),
            Self::Known { user: None, origin } => write!(f, " (with the token from `{origin}`)"),
        }
    }
}

/// A failed call to a registry.
#[derive(Debug)]
pub struct RegistryError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    action: String,
    registry: String,
    repository: Option<String>,
    presented: Presented,
    trouble: Trouble,
}

/// A failure before it is known what was being done.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) kind: Kind,
    /// What happened, in words.
    pub(super) what: String,
    /// Who answered so, where that may be another than the registry.
    pub(super) by: Option<String>,
    pub(super) status: Option<u16>,
    /// What a person can do about it, where the kind alone doesn't say.
    pub(super) hint: Option<String>,
    pub(super) source: Option<Source>,
}

impl Trouble {
    pub(super) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), by: None, status: None, hint: None, source: None }
    }

    pub(super) fn caused_by(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Names the way there, where it may be the reason and was not named yet.
    pub(super) fn on(mut self, way: Option<&Way>) -> Self {
        let may_be = matches!(self.kind, Kind::Timeout | Kind::Disconnected | Kind::Tls | Kind::Unreachable);
        if let Some(way) = way.filter(|_| may_be && self.hint.is_none()) {
            self.what = format!("{}, {}", self.what, way.through);
            self.hint = Some(way.hint.clone());
        }
        self
    }

    /// Says what was being done, as in "cannot ACTION REPOSITORY".
    pub(super) fn during(self, action: &str, repository: &Repository, presented: Presented) -> RegistryError {
        let (registry, path) = (repository.registry.clone(), Some(repository.path.clone()));
        let action = action.to_owned();
        RegistryError(Box::new(Inner { action, registry, repository: path, presented, trouble: self }))
    }

    /// The same for what concerns a registry as a whole.
    pub(super) fn during_at(self, action: &str, registry: &str) -> RegistryError {
        let (action, registry) = (action.to_owned(), registry.to_owned());
        let presented = Presented::default();
        RegistryError(Box::new(Inner { action, registry, repository: None, presented, trouble: self }))
    }
}

impl RegistryError {
    /// Returns what kind of failure it was.
    pub fn kind(&self) -> Kind {
        self.0.trouble.kind
    }

    /// Returns what a person can do about it, where the way there is the trouble.
    pub fn hint(&self) -> Option<&str> {
        self.0.trouble.hint.as_deref()
    }

    /// Returns the registry, as it stands in references.
    pub fn registry(&self) -> &str {
        &self.0.registry
    }

    /// Returns the path of the repository, if the call was about one.
    pub fn repository(&self) -> Option<&str> {
        self.0.repository.as_deref()
    }

    /// Returns the HTTP status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        self.0.trouble.status
    }

    /// Returns as whom the registry was spoken to.
    pub fn presented(&self) -> &Presented {
        &self.0.presented
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { action, registry, repository, presented, trouble } = &*self.0;
        write!(f, "cannot {action} {registry}")?;
        if let Some(repository) = repository {
            write!(f, "/{repository}")?;
        }
        match trouble.by.as_ref().filter(|by| *by != registry) {
            Some(by) => write!(f, ": {by} answers {}", trouble.what)?,
            None => write!(f, ": {}", trouble.what)?,
        }
        // As whom matters where permission is the question, and only there.
        match trouble.kind {
            Kind::Unauthorized | Kind::Denied | Kind::NotFound => write!(f, "{presented}"),
            _ => Ok(()),
        }
    }
}

impl Error for RegistryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.trouble.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
