//! Signs images that are in a registry already, and proves that a stranger can verify them.
//!
//! What it owns: keys ([`key`]), the two formats in which signatures are stored next to an image (cosign's
//! `.sig` tag and the Sigstore bundle as a referrer), and the check after writing. What it never does: read
//! files or the environment, talk to a registry other than through [`Store`], move an image's tag.
//!
//! [`sign_image`] is the facade. A [`Signer`] makes signatures (a key file now; a KMS, a token or a short-lived
//! certificate are other kinds of it), a [`Store`] keeps them, a [`Verifier`] accepts them.
//! [`verify_lines`] says which `cosign verify` accepts the result.

pub mod http;
pub mod identity;
pub mod key;
pub mod kms;
pub mod login;

mod advice;
mod attest;
mod bundle;
mod check;
mod der;
mod error;
mod evidence;
mod json;
mod keyless;
mod legacy;
mod log;
mod payload;
mod referrer;
mod run;
mod scope;
mod services;
mod store;
mod subject;
#[cfg(test)]
mod tests;
mod trust;
mod verify;
mod witness;

pub use advice::{CosignLine, RegistryAccess, SignedBy, VerifyLines, verify_lines};
pub use attest::{AttestRequest, SignedAttestation, attest_image};
pub use error::SignError;
pub use evidence::{
    Annotated, Certified, Content, Evidence, KeySigner, Material, Signer, SignerError, Verifier,
};
pub use keyless::{Identity, KeylessError, KeylessSigner};
pub use log::{LogEntry, LogPlace};
pub use referrer::ATTESTATION_LIMIT;
pub use scope::{Scope, ScopeError};
pub use services::{Log, LogMode, LogVersion, ServiceError, ServicePlan, Services};
pub use store::{Manifest, Store, StoreError};
pub use trust::{
    CertificateIdentity, IdentityPolicy, IdentityVerifier, Leniency, Matcher, Refreshed, TrustError,
    TrustParts, TrustRoot, TufError, TufRepository, WitnessedKey,
};
pub use verify::{
    AcceptedSignature, NO_CERTIFICATE, RefusedSignature, Verdict, VerifyRequest, Wanted, verify_image,
};
pub use witness::{WitnessError, witnessed};

use crate::event::Events;
use crate::registry::{Descriptor, Digest, Repository};
use futures_util::{StreamExt as _, TryStreamExt as _};
use run::Run;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How many images are signed at the same time.
const AT_ONCE: usize = 4;

/// A way of storing signatures beside an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A layer of the manifest under the tag `sha256-<hex>.sig`, which every verifier since cosign 1 reads.
    Legacy,
    /// A Sigstore bundle that refers to the image, cosign 3's default.
    Bundle,
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Legacy => "legacy",
            Self::Bundle => "bundle",
        })
    }
}

/// Which formats to write (`--signature-format`).
///
/// Verifiers that find any bundle ignore the `.sig` tag, so all signers of an image should use the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Formats {
    /// Each signature in both.
    #[default]
    Both,
    /// Only the `.sig` tag.
    Legacy,
    /// Only bundles.
    Bundle,
}

impl Formats {
    /// Whether this format is among them.
    pub fn has(self, format: Format) -> bool {
        match self {
            Self::Both => true,
            Self::Legacy => format == Format::Legacy,
            Self::Bundle => format == Format::Bundle,
        }
    }
}

impl FromStr for Formats {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "both" => Ok(Self::Both),
            "legacy" => Ok(Self::Legacy),
            "bundle" => Ok(Self::Bundle),
            other => Err(format!("unknown signature format `{other}`; use `both`, `legacy` or `bundle`")),
        }
    }
}

impl fmt::Display for Formats {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Both => "both",
            Self::Legacy => "legacy",
            Self::Bundle => "bundle",
        })
    }
}

/// One manifest to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Media type, digest and size as the registry has them.
    pub descriptor: Descriptor,
    /// What it is, for people: `image`, `index`, `linux/arm64`.
    pub role: String,
}

/// What to sign, and how. One repository each: a signature names it.
#[derive(Clone, Debug)]
pub struct SignRequest {
    /// Where the image is, and what the signatures name.
    pub repository: Repository,
    /// Where the signatures go, if not there (`--signature-repository`).
    pub storage: Option<Repository>,
    /// The image or index.
    pub image: Descriptor,
    /// How far to go into an index.
    pub scope: Scope,
    /// The formats.
    pub formats: Formats,
    /// What is signed along.
    pub annotations: BTreeMap<String, String>,
    /// What `.sig` signatures name instead of the repository (`--sign-container-identity`), such as the name under
    /// which a proxy serves the image. Bundles name nothing.
    pub identity: Option<String>,
    /// A `.sig` manifest that has to be made is of docker's media types, for registries that know no others.
    pub docker_media_types: bool,
}

/// How images are signed, whatever they are and whoever does it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignOptions {
    /// How far to go into an index.
    pub scope: Scope,
    /// Where signatures go, if not beside the image.
    pub storage: Option<Repository>,
    /// What is signed along.
    pub annotations: BTreeMap<String, String>,
    /// What `.sig` signatures name instead of the repository.
    pub identity: Option<String>,
    /// `.sig` manifests are of docker's media types.
    pub docker_media_types: bool,
}

impl SignOptions {
    /// Returns the request to sign this image so.
    pub fn request(&self, repository: Repository, image: Descriptor, formats: Formats) -> SignRequest {
        let Self { scope, storage, annotations, identity, docker_media_types } = self.clone();
        SignRequest { repository, storage, image, scope, formats, annotations, identity, docker_media_types }
    }
}

/// What was signed.
#[derive(Clone, Debug)]
pub struct SignReport {
    /// The image or index itself, then what the scope took in below it.
    pub subjects: Vec<SignedSubject>,
}

/// One image, signed and verified.
#[derive(Clone, Debug)]
pub struct SignedSubject {
    /// The image.
    pub subject: Subject,
    /// One for each signer and format.
    pub signatures: Vec<StoredSignature>,
}

/// One signature as it stands in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSignature {
    /// The signer's name.
    pub signer: String,
    /// How it is stored.
    pub format: Format,
    /// The manifest that holds it.
    pub location: Digest,
    /// It was there before: signing again adds nothing.
    pub reused: bool,
    /// Where logs have it, if it was recorded just now.
    pub logged: Vec<LogPlace>,
}

/// Signs an image, or an index and what the scope takes in below it, by every signer in every format, reads the
/// signatures back and verifies them.
///
/// Safe to repeat and to cancel: a signature that is there already is kept, and what is half written is found
/// or made anew by the next run. Returns only when all of it stands and verifies.
///
/// # Errors
/// [`SignError`], naming repository and what was attempted.
pub async fn sign_image(
    store: &dyn Store,
    signers: &[Box<dyn Signer>],
    request: &SignRequest,
    events: &Events,
) -> Result<SignReport, SignError> {
    if signers.is_empty() {
        return Err(SignError::Nothing("no signer"));
    }
    for signer in signers {
        signer.ready().await?;
    }
    let subjects = scope::expand(store, &request.repository, &request.image, request.scope).await?;
    let run = &Run::new(store, signers, request, events);
    let subjects = futures_util::stream::iter(&subjects)
        .map(|subject| subject::sign(run, subject))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(SignReport { subjects })
}

/// Waits before another attempt: longer each time, and not as long as the other writer does.
async fn pause(attempt: u32) {
    let mut random = [0];
    // Without randomness the pause is merely regular.
    let _best_effort = aws_lc_rs::rand::fill(&mut random);
    let base = 40 * u64::from(attempt);
    tokio::time::sleep(Duration::from_millis(base + base * u64::from(random[0]) / 128)).await;
}
