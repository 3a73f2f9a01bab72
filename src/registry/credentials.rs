//! Who we are to a registry: docker config documents, `dockerconfigjson` Secrets and credential helpers.
//!
//! The module reads no files and no environment: documents and the helpers' variables come in as values. It
//! feeds our own registry calls and BuildKit's auth service alike, so that both act as the same user.

mod config;
mod helper;
#[cfg(test)]
mod tests;

pub use config::Document;
pub use helper::{HelperEnvironment, HelperError};

use config::{Entry, Origin};
use secrecy::{ExposeSecret as _, SecretString};
use std::cmp::Reverse;
use std::fmt;

/// What Docker Hub is called in docker's own config files and by helpers.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What is presented to a registry or its token service.
#[derive(Clone)]
pub enum Credential {
    /// Nothing is known.
    Anonymous,
    /// For Basic challenges, and for token services.
    Basic {
        /// The user or robot account; may hold `+`, `$` and the like.
        username: String,
        /// Its password or access token.
        password: SecretString,
    },
    /// An OAuth2 refresh token for the token service.
    IdentityToken(SecretString),
    /// A bearer token for the registry itself.
    RegistryToken(SecretString),
}

impl Credential {
    /// Whether nothing is known.
    pub fn is_anonymous(&self) -> bool {
        matches!(self, Self::Anonymous)
    }

    /// Whether it is the same secret of the same user.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Anonymous, Self::Anonymous) => true,
            (Self::Basic { username, password }, Self::Basic { username: name, password: other }) => {
                username == name && password.expose_secret() == other.expose_secret()
            }
            (Self::IdentityToken(token), Self::IdentityToken(other))
            | (Self::RegistryToken(token), Self::RegistryToken(other)) => {
                token.expose_secret() == other.expose_secret()
            }
            _ => false,
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { username, .. } => write!(f, "Basic({username:?}, [redacted])"),
            Self::IdentityToken(_) => f.write_str("IdentityToken([redacted])"),
            Self::RegistryToken(_) => f.write_str("RegistryToken([redacted])"),
        }
    }
}

/// A credential and the place that it came from.
#[derive(Clone, Debug)]
pub struct Found {
    /// What to present.
    pub credential: Credential,
    /// For messages, such as `/home/me/.docker/config.json` or `docker-credential-pass`; none if anonymous.
    pub origin: Option<String>,
}

/// Why credentials could not be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A document is no docker config.
    #[error("`{document}` is no docker config")]
    Document {
        /// The document's name.
        document: String,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// An `auth` value is not base64 of `user:password`.
    #[error("the `auth` value for `{key}` in `{document}` is not base64 of `user:password`")]
    Auth {
        /// The document's name.
        document: String,
        /// The key under `auths`.
        key: String,
    },
    /// A helper failed.
    #[error("credential helper `{helper}`, named in `{document}`, gave no credentials for `{server}`")]
    Helper {
        /// The program, such as `docker-credential-pass`.
        helper: String,
        /// The document that names it.
        document: String,
        /// What it was asked for.
        server: String,
        /// What it did.
        #[source]
        source: HelperError,
    },
}

/// Finds credentials. Answers of helpers are kept for less than five minutes, the life of a Google Artifact
/// Registry token; nothing else is kept.
#[derive(Debug)]
pub struct Resolver {
    documents: Vec<Document>,
    helpers: helper::Helpers,
}

impl Resolver {
    /// Returns one over these documents; of those that know a host equally well, the first wins.
    pub fn new(documents: Vec<Document>, environment: HelperEnvironment) -> Self {
        Self { documents, helpers: helper::Helpers::new(environment) }
    }

    /// Returns one that knows nobody.
    pub fn anonymous() -> Self {
        Self::new(Vec::new(), HelperEnvironment::default())
    }

    /// Returns the credential for a repository, or for a host as such.
    ///
    /// # Errors
    /// As [`Resolver::find`].
    pub async fn lookup(
        &self,
        host: &str,
        repository_path: Option<&str>,
    ) -> Result<Credential, CredentialError> {
        Ok(self.find(host, repository_path).await?.credential)
    }

    /// Returns the credential and where it came from.
    ///
    /// The longest path of all documents wins, at one length the first document's; there `credHelpers` comes before
    /// `credsStore` and that before `auths`, as in docker's CLI. Empty entries, which docker writes beside a store, say nothing.
    ///
    /// # Errors
    /// The first failure of a helper or an entry, unless another entry knows the host.
    pub async fn find(&self, host: &str, repository_path: Option<&str>) -> Result<Found, CredentialError> {
        let host = config::canonical_host(host);
        let server = server(&host);
        let mut failure = None;
        let path = repository_path.unwrap_or_default();
        let origins = self.documents.iter().flat_map(|document| {
            document.origins(&host, path).into_iter().map(move |(length, origin)| (length, document, origin))
        });
        let mut origins: Vec<_> = origins.collect();
        origins.sort_by_key(|(length, ..)| Reverse(*length));
        for (_, document, origin) in origins {
            match self.ask(document, origin, server).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "no credentials from here");
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(Found { credential: Credential::Anonymous, origin: None }),
        }
    }

    /// Whether there are credentials for anything at a host: itself, or any path on it. A place that fails to answer
    /// counts as having some.
    pub async fn knows(&self, host: &str) -> bool {
        let host = config::canonical_host(host);
        for document in &self.documents {
            for origin in document.origins_of_host(&host) {
                if !matches!(self.ask(document, origin, server(&host)).await, Ok(None)) {
                    return true;
                }
            }
        }
        false
    }

    /// Returns the credential that all paths of a host share which have one, as docker uses it for the whole host
    /// (docker/cli cli/config/credentials/file_store.go); anonymous where there are several.
    ///
    /// # Errors
    /// As [`Resolver::find`].
    pub async fn only_one(&self, host: &str) -> Result<Credential, CredentialError> {
        let host = config::canonical_host(host);
        let mut only = Credential::Anonymous;
        for document in &self.documents {
            for origin in document.origins_of_host(&host) {
                let Some(found) = self.ask(document, origin, server(&host)).await? else { continue };
                if !only.is_anonymous() && !only.is(&found.credential) {
                    return Ok(Credential::Anonymous);
                }
                only = found.credential;
            }
        }
        Ok(only)
    }

    /// Forgets what helpers have answered, after a registry refused it.
    pub async fn forget(&self) {
        self.helpers.forget().await;
    }

    async fn ask(
        &self,
        document: &Document,
        origin: Origin<'_>,
        server: &str,
    ) -> Result<Option<Found>, CredentialError> {
        match origin {
            Origin::Helper(name) => {
                let answer =
                    self.helpers.get(name, server).await.map_err(|source| CredentialError::Helper {
                        helper: helper::program(name),
                        document: document.name().to_owned(),
                        server: server.to_owned(),
                        source,
                    })?;
                let origin = Some(helper::program(name));
                Ok(answer.map(|credential| Found { credential, origin }))
            }
            Origin::Entry(key, entry) => Ok(decode(document, key, entry)?
                .map(|credential| Found { credential, origin: Some(document.name().to_owned()) })),
        }
    }
}

/// Returns the name by which helpers know a host.
fn server(host: &str) -> &str {
    if host == super::reference::DOCKER_HUB { DOCKER_HUB_KEY } else { host }
}

fn decode(document: &Document, key: &str, entry: &Entry) -> Result<Option<Credential>, CredentialError> {
    entry.credential().map_err(|config::BadAuth| CredentialError::Auth {
        document: document.name().to_owned(),
        key: key.to_owned(),
    })
}

/// Takes any bytes for a docker config, and asks it for a repository's password.
#[cfg(any(test, fuzzing))]
pub(super) fn read_any(bytes: &[u8]) {
    let documents = [Document::parse("config", bytes), Document::parse_dockercfg("config", bytes)];
    for document in documents.into_iter().flatten() {
        for origin in document.origins("registry.example.com:5000", "team/app") {
            if let (_, Origin::Entry(_, entry)) = origin {
                let _either_way = entry.credential();
            }
        }
    }
}
