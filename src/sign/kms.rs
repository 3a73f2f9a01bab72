//! Keys that never leave a key service: the service signs, we hash, and check what it signed.
//!
//! The public key is read once, when the key is opened, and a trial signature shows there and then whether the
//! caller may sign: both before a build. What a service signs is checked against that key before it is stored.
//! Nothing here reads the environment: `config` passes addresses and credentials.

pub mod aws;
pub mod azure;
mod der;
pub mod gcp;
pub mod piv;
pub mod pkcs11;
pub mod plugin;
pub mod vault;

use super::evidence::{Content, Evidence, Material, Signer, SignerError, Verifier};
use super::http::HttpError;
use super::key::{Hash, KeyError, KeyKind, PublicKey};
use crate::event::Events;
use async_trait::async_trait;
use aws_lc_rs::digest;
use http::StatusCode;
use secrecy::SecretString;
use std::fmt;
use std::path::PathBuf;

/// What is signed to see whether signing works. It is no payload that any verifier of images takes.
const TRIAL: &[u8] = b"kubectl-build: may this caller sign?";

/// What a reference to a key service names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KmsReference {
    /// HashiCorp Vault or OpenBao.
    Vault(vault::Key),
    /// AWS KMS.
    Aws(aws::Key),
    /// Google Cloud KMS.
    Gcp(gcp::Key),
    /// Azure Key Vault.
    Azure(azure::Key),
    /// A `sigstore-kms-NAME` program.
    Plugin(plugin::Key),
    /// A PKCS#11 token.
    Pkcs11(Box<pkcs11::Key>),
}

impl fmt::Display for KmsReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vault(key) => key.fmt(formatter),
            Self::Aws(key) => key.fmt(formatter),
            Self::Gcp(key) => key.fmt(formatter),
            Self::Azure(key) => key.fmt(formatter),
            Self::Plugin(key) => key.fmt(formatter),
            Self::Pkcs11(key) => key.fmt(formatter),
        }
    }
}

/// A key of a key service, with all that is needed to reach it.
#[derive(Debug)]
pub enum KmsKey {
    /// HashiCorp Vault or OpenBao.
    Vault(vault::Settings),
    /// AWS KMS.
    Aws(Box<aws::Settings>),
    /// Google Cloud KMS.
    Gcp(gcp::Settings),
    /// Azure Key Vault.
    Azure(Box<azure::Settings>),
    /// A `sigstore-kms-NAME` program.
    Plugin(plugin::Settings),
    /// A PKCS#11 token.
    Pkcs11(Box<pkcs11::Settings>),
    /// A PIV security key.
    Piv(piv::Settings),
}

/// Why a key service's key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{service} could not {action}")]
pub struct KmsError {
    /// The service.
    pub service: String,
    /// What it was asked for, naming the key.
    pub action: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Why not.
    #[source]
    pub source: Fault,
}

/// What went wrong with a key service.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It refused, or could not be reached.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The settings make no client.
    #[error(transparent)]
    Options(#[from] super::http::HttpOptionsError),
    /// Nobody says who we are, or what says so cannot be used.
    #[error("{0}")]
    Credentials(String),
    /// The key is of a kind that signs no images.
    #[error("{0}")]
    Unusable(String),
    /// The public key is none.
    #[error("its public key cannot be used")]
    PublicKey(#[from] KeyError),
    /// What it answered contradicts itself.
    #[error("{0}")]
    Answer(&'static str),
    /// A file with a token or an identity.
    #[error("{} cannot be read", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A program that stands for a key service.
    #[error("{0}")]
    Program(String),
    /// A key that was to be made.
    #[error("it is there already, and no key is replaced")]
    Exists,
    /// A new key that has no name yet.
    #[error("the key {id} was made, but could not be named")]
    Unnamed {
        /// Its ID.
        id: String,
        /// Why not.
        #[source]
        source: Box<Fault>,
    },
}

impl Fault {
    /// Whether the user's settings are at fault, rather than a service.
    pub fn is_settings(&self) -> bool {
        matches!(
            self,
            Self::Options(_)
                | Self::Credentials(_)
                | Self::Unusable(_)
                | Self::File { .. }
                | Self::PublicKey(_)
                | Self::Exists
        )
    }

    /// Returns the status of a refusal.
    fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Http(error) => error.status(),
            _ => None,
        }
    }
}

/// How the message is made ready for the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hashing {
    Sha256,
    Sha384,
    Sha512,
    /// The service gets the whole message: Ed25519.
    None,
}

impl Hashing {
    /// Returns what cosign signs and, given the public key in a file, verifies a key with by default.
    fn usual(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Ed25519 => Self::None,
            _ => Self::Sha256,
        }
    }

    /// Returns the hash of the curve's own size, for services that take no other.
    fn of_curve(kind: KeyKind) -> Self {
        match kind {
            KeyKind::EcdsaP384 => Self::Sha384,
            KeyKind::EcdsaP521 => Self::Sha512,
            other => Self::usual(other),
        }
    }

    fn digest(self, message: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
            Self::None => return message.to_vec(),
        };
        digest::digest(algorithm, message).as_ref().to_vec()
    }
}

/// A key service, once its public key is known.
#[async_trait]
trait Backend: Send + Sync {
    /// Signs a digest (or the message, where nothing is hashed) and returns the signature in the form that
    /// verifiers of images expect.
    async fn sign(&self, message: &[u8], digest: &[u8], hashing: Hashing) -> Result<Vec<u8>, Fault>;

    /// Whether it signs over whichever hash it is told, with ECDSA.
    fn takes_any_hash(&self) -> bool {
        false
    }

    /// Returns what can be done about a fault.
    fn hint(&self, fault: &Fault) -> Option<String>;
}

/// What opening a key gives.
struct Opened {
    backend: Box<dyn Backend>,
    public: PublicKey,
    hashing: Hashing,
}

/// Signs with a key of a key service.
pub struct KmsSigner {
    name: String,
    service: &'static str,
    opened: Opened,
    events: Events,
}

impl fmt::Debug for KmsSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KmsSigner({}, {:?})", self.name, self.opened.public)
    }
}

impl KmsKey {
    /// Returns the service as messages name it.
    pub fn service(&self) -> &'static str {
        match self {
            Self::Vault(settings) => settings.key.product.name(),
            Self::Aws(_) => aws::SERVICE,
            Self::Gcp(_) => gcp::SERVICE,
            Self::Azure(_) => azure::SERVICE,
            Self::Plugin(_) => plugin::SERVICE,
            Self::Pkcs11(_) => pkcs11::SERVICE,
            Self::Piv(_) => piv::SERVICE,
        }
    }

    /// Returns where the PIN goes, if the key is on a token and nobody has said one yet.
    pub fn missing_pin(&mut self) -> Option<&mut Option<SecretString>> {
        match self {
            Self::Pkcs11(settings) if settings.pin.is_none() => Some(&mut settings.pin),
            Self::Piv(settings) if settings.pin.is_none() => Some(&mut settings.pin),
            _ => None,
        }
    }

    /// Reads the public key and makes a trial signature (not with a plugin or token, which may want a touch). Each further
    /// signature is a step of these events.
    ///
    /// # Errors
    /// [`KmsError`]: a missing key, a missing permission, a service that cannot be reached.
    pub async fn open(self, name: &str, events: &Events) -> Result<KmsSigner, KmsError> {
        // These may want a touch for each signature.
        let touched = matches!(self, Self::Plugin(_) | Self::Pkcs11(_) | Self::Piv(_));
        let signer = self.read(name, events).await?;
        if !touched {
            signer.sign_checked(TRIAL).await?;
        }
        Ok(signer)
    }

    /// Reads the public key, for verifiers: no right to sign is needed.
    ///
    /// # Errors
    /// [`KmsError`].
    pub async fn public_key(self, name: &str) -> Result<PublicKey, KmsError> {
        Ok(self.read(name, &Events::off()).await?.opened.public)
    }

    /// Makes the key, ECDSA P-256, which every verifier takes, and returns its public half. One that is there is
    /// never replaced.
    ///
    /// # Errors
    /// [`KmsError`]: a key that is there, a missing permission, a service that cannot be reached.
    pub async fn create(self, name: &str) -> Result<PublicKey, KmsError> {
        let service = self.service();
        let created = match self {
            Self::Vault(settings) => vault::create(settings).await,
            Self::Aws(settings) => aws::create(*settings).await,
            Self::Gcp(settings) => gcp::create(settings).await,
            Self::Azure(settings) => azure::create(*settings).await,
            Self::Plugin(settings) => plugin::create(settings).await,
            Self::Pkcs11(_) | Self::Piv(_) => {
                let fault = Fault::Unusable("a token's own tools make its keys".to_owned());
                let hint = "such as `pkcs11-tool --module LIB --token-label T --login --keypairgen --key-type \
                            EC:prime256v1 --label NAME`";
                Err((fault, Some(hint.to_owned())))
            }
        };
        created.map_err(|(source, hint)| {
            let there = || {
                format!("choose another name; `kubectl buildkit key public {name}` prints the public half")
            };
            let hint = if matches!(source, Fault::Exists) { Some(there()) } else { hint };
            KmsError { service: service.to_owned(), action: format!("make the key `{name}`"), hint, source }
        })
    }

    async fn read(self, name: &str, events: &Events) -> Result<KmsSigner, KmsError> {
        let service = self.service();
        let failed = |(source, hint)| KmsError {
            service: service.to_owned(),
            action: format!("read the public key of `{name}`"),
            hint,
            source,
        };
        let opened = match self {
            Self::Vault(settings) => vault::open(settings).await,
            Self::Aws(settings) => aws::open(*settings).await,
            Self::Gcp(settings) => gcp::open(settings).await,
            Self::Azure(settings) => azure::open(*settings).await,
            Self::Plugin(settings) => plugin::open(settings).await,
            Self::Pkcs11(settings) => pkcs11::open(*settings).await,
            Self::Piv(settings) => piv::open(settings).await,
        };
        Ok(KmsSigner {
            name: name.to_owned(),
            service,
            opened: opened.map_err(failed)?,
            events: events.clone(),
        })
    }
}

impl KmsSigner {
    async fn sign_checked(&self, message: &[u8]) -> Result<Vec<u8>, KmsError> {
        let Opened { backend, public, hashing } = &self.opened;
        let failed = |source: Fault| KmsError {
            service: self.service.to_owned(),
            action: format!("sign with `{}`", self.name),
            hint: backend.hint(&source),
            source,
        };
        let signature = backend.sign(message, &hashing.digest(message), *hashing).await.map_err(failed)?;
        match public.verify(message, &signature) {
            Some(_) => Ok(signature),
            None => Err(failed(Fault::Answer("what it signed does not verify with the key's public half"))),
        }
    }
}

#[async_trait]
impl Signer for KmsSigner {
    fn name(&self) -> &str {
        &self.name
    }

    fn verifier(&self) -> &dyn Verifier {
        &self.opened.public
    }

    fn public_key(&self) -> Option<&PublicKey> {
        Some(&self.opened.public)
    }

    fn hash(&self) -> Hash {
        match self.opened.hashing {
            Hashing::Sha256 | Hashing::None => Hash::Sha256,
            Hashing::Sha384 | Hashing::Sha512 => Hash::OfCurve,
        }
    }

    fn use_hash(&mut self, hash: Hash) -> bool {
        let Opened { backend, public, hashing } = &mut self.opened;
        let wanted = match hash {
            Hash::Sha256 => Hashing::usual(public.kind()),
            Hash::OfCurve => Hashing::of_curve(public.kind()),
        };
        if backend.takes_any_hash() {
            *hashing = wanted;
        }
        *hashing == wanted
    }

    async fn sign(&self, content: Content<'_>) -> Result<Evidence, SignerError> {
        let name = format!("asking {} for a signature with {}", self.service, self.name);
        let step = self.events.step_among("key service", name);
        let signature = step.end(self.sign_checked(&content.message()).await);
        let failed = |error| SignerError { signer: self.name.clone(), source: Box::new(error) };
        let hint = self.opened.public.hint();
        Ok(Evidence::new(signature.map_err(failed)?, Material::PublicKey { hint }))
    }
}

/// Returns a text that may stand in a message: one line, not long.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect()
}
