//! What can be known before a build minute is spent: keys decrypt, registries take an upload.

use super::signing::{Ready, Signing};
use crate::event::Events;
use crate::registry::{self, Kind, RegistryError, Repository};
use crate::sign::key::{KeyError, KeyFile, KubernetesSecret, SecretError};
use crate::sign::kms::{KmsError, KmsKey};
use crate::sign::{KeySigner, KeylessError, Signer};
use crate::task;
use secrecy::SecretString;

/// What opens into somebody who signs.
#[derive(Debug)]
pub enum Locked {
    /// A private key that we hold.
    Key(Box<LockedKey>),
    /// A key of a key service.
    Kms {
        /// As it was given.
        name: String,
        /// The key and how its service is reached.
        key: Box<KmsKey>,
    },
}

/// A key that is still locked, and what unlocks it.
#[derive(Debug)]
pub struct LockedKey {
    /// As it was given: a path, `env://NAME` or `k8s://NAMESPACE/SECRET`.
    pub name: String,
    /// The key.
    pub file: KeyFile,
    /// The password, for an encrypted one.
    pub password: SecretString,
    /// Where the password came from, for messages.
    pub password_source: &'static str,
    /// The Secret that it stands in, if it does: the halves must fit.
    pub secret: Option<KubernetesSecret>,
}

/// Why a build doesn't start.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// A key can't be used.
    #[error("the signing key `{name}` cannot be used")]
    Key {
        /// The key's reference.
        name: String,
        /// Where its password came from.
        password_source: &'static str,
        /// Why not.
        #[source]
        source: KeyError,
    },
    /// A Secret's halves don't fit.
    #[error("the signing key `{name}` cannot be used")]
    Secret {
        /// The key's reference.
        name: String,
        /// Why not.
        #[source]
        source: SecretError,
    },
    /// The identity or the services can't be used.
    #[error("keyless signing or its services cannot be used")]
    Keyless(#[source] Box<KeylessError>),
    /// A key's signatures would be published, and nobody agreed to that.
    #[error("the signature would be published in the log {0}, for everybody and for good")]
    Unagreed(String),
    /// A key whose signatures logs don't take.
    #[error("{0}")]
    Unloggable(String),
    /// A key service refused, or its key can't be used.
    #[error(transparent)]
    Kms(Box<KmsError>),
    /// A registry wouldn't take the image or its signatures.
    #[error("{repository} does not take a push")]
    Push {
        /// The repository.
        repository: Repository,
        /// Why not.
        #[source]
        source: Box<RegistryError>,
    },
}

impl From<KeylessError> for PreflightError {
    fn from(error: KeylessError) -> Self {
        Self::Keyless(Box::new(error))
    }
}

/// Waits for the keys, asks services and identity, and asks each repository for an upload, which is cancelled at once:
/// a granted token may lack the scope. Returns, beside the signers, the repositories that can be asked only when there
/// is a builder.
///
/// # Errors
/// The first key or repository that fails.
pub async fn check(
    signing: Option<Signing>,
    client: &registry::Client,
    repositories: &[Repository],
    events: &Events,
) -> Result<(Ready, Vec<Repository>), PreflightError> {
    let step = events.step("preflight", "checking keys and registries");
    let prepared = async {
        match signing {
            Some(signing) => signing.prepare(events).await,
            None => Ok(Ready::default()),
        }
    };
    step.end(tokio::try_join!(prepared, pushes(client, repositories)))
}

/// Asks repositories for an upload that had to wait for the builder.
///
/// # Errors
/// The first that fails.
pub async fn check_pushes(
    client: &registry::Client,
    repositories: &[Repository],
    events: &Events,
) -> Result<(), PreflightError> {
    let step = events.step("preflight-builder", "checking registries through the builder");
    step.end(pushes(client, repositories).await).map(|_none_wait| ())
}

async fn pushes(
    client: &registry::Client,
    repositories: &[Repository],
) -> Result<Vec<Repository>, PreflightError> {
    let mut later = Vec::new();
    for repository in repositories {
        match client.check_push(repository).await {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::NoBuilderYet => later.push(repository.clone()),
            Err(source) => {
                return Err(PreflightError::Push {
                    repository: repository.clone(),
                    source: Box::new(source),
                });
            }
        }
    }
    Ok(later)
}

/// Keys that are being unlocked.
pub struct Unlocking(task::Task<Result<Vec<Box<dyn Signer>>, PreflightError>>);

/// Starts to unlock keys: scrypt takes a tenth of a second and 64 MiB each, key services take their time too, so it
/// runs beside everything else. Signatures of key services will be steps of these events.
pub fn unlock(keys: Vec<Locked>, events: &Events) -> Unlocking {
    let events = events.clone();
    let opening = async move {
        let opening = keys.into_iter().map(|locked| open(locked, &events));
        futures_util::future::try_join_all(opening).await
    };
    Unlocking(task::spawn("keys", opening))
}

impl Unlocking {
    /// Waits for the keys.
    ///
    /// # Errors
    /// The first key that can't be used.
    pub async fn signers(self) -> Result<Vec<Box<dyn Signer>>, PreflightError> {
        self.0.join().await
    }
}

async fn open(locked: Locked, events: &Events) -> Result<Box<dyn Signer>, PreflightError> {
    match locked {
        Locked::Key(key) => task::spawn_blocking(move || unlock_one(*key)).join().await,
        Locked::Kms { name, key } => match key.open(&name, events).await {
            Ok(signer) => Ok(Box::new(signer)),
            Err(error) => Err(PreflightError::Kms(Box::new(error))),
        },
    }
}

fn unlock_one(key: LockedKey) -> Result<Box<dyn Signer>, PreflightError> {
    let LockedKey { name, file, password, password_source, secret } = key;
    let key = match file {
        KeyFile::Plain(key) => key,
        KeyFile::Encrypted(locked) => match locked.decrypt(&password) {
            Ok(key) => key,
            Err(source) => return Err(PreflightError::Key { name, password_source, source }),
        },
    };
    if let Some(Err(source)) = secret.map(|secret| secret.check(key.public())) {
        return Err(PreflightError::Secret { name, source });
    }
    Ok(Box::new(KeySigner::new(name, key)))
}
