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
mod claim;
mod der;
mod envelope;
mod error;
mod evidence;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
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
pub use attest::{Attested, Content as AttestedContent, SignedAttestation, attested};
pub use error::SignError;
pub use evidence::{
    Annotated, Certified, Content, Evidence, KeySigner, Material, Signer, SignerError, Verifier,
};
pub use keyless::{Identity, KeylessError, KeylessSigner};
pub use log::{LogEntry, LogPlace};
pub use referrer::ATTESTATION_LIMIT;
pub use scope::{Scope, ScopeError};
pub use services::{
    Log, LogMode, LogVersion, PUBLISHED_BY_IDENTITY, PUBLISHED_BY_KEY, ServiceError, ServicePlan, Services,
};
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
use crate::registry::{Descriptor, Digest, Reference, Repository};
use claim::Claim;
use futures_util::{StreamExt as _, TryStreamExt as _};
use run::Run;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use subject::Work;

/// How many images are signed at the same time: a usual index with all its platforms, so that a log or key service
/// that takes its time is waited for once.
const AT_ONCE: usize = 8;

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
    /// What the builder attested of the image is signed too, as statements about it under these tags.
    pub attested_as: Option<Vec<Reference>>,
    /// What the builder attested, if it is known already; else the registry is asked.
    pub attested: Option<Attested>,
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
        SignRequest {
            repository,
            storage,
            image,
            scope,
            formats,
            annotations,
            identity,
            docker_media_types,
            attested_as: None,
            attested: None,
        }
    }
}

/// What was signed.
#[derive(Clone, Debug)]
pub struct SignReport {
    /// The image or index itself, then what the scope took in below it.
    pub subjects: Vec<SignedSubject>,
    /// What of the builder's attestations was signed.
    pub attestations: Vec<SignedAttestation>,
    /// Whether the registry lists bundles itself, by its referrers API, or an index under a tag of ours does; unknown
    /// where none were written.
    pub has_referrers: Option<bool>,
    /// The tags that signatures, attestations and lists of bundles stand under.
    pub tags: Vec<String>,
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

/// Signs an image, or an index and what the scope takes in below it, and what was attested of it, by every signer in
/// every format, reads the signatures back and verifies them.
///
/// Each tag of each image is written once, since some registries let nobody write it twice. Safe to repeat and to
/// cancel: a signature that is there already is kept, and what is half written is found or made anew by the next run.
/// Returns only when all of it stands and verifies.
///
/// # Errors
/// [`SignError`], naming repository and what was attempted; [`SignError::Attestation`] before anything is written.
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
    let statements = match &request.attested_as {
        Some(tags) => attest::statements(store, request, tags).await?,
        None => Vec::new(),
    };
    let mut claims: Vec<(usize, Claim<'_>)> = Vec::new();
    for (number, statement) in statements.iter().enumerate() {
        let kind = &statement.predicate_type;
        let claim = |signer| Claim::new(signer, Arc::clone(&statement.bytes), kind);
        claims.extend(signers.iter().map(|signer| (number, claim(signer.as_ref()))));
    }

    let work = |image| Work { image, signs: true, claims: Vec::new() };
    let mut works: Vec<Work<'_>> = subjects.into_iter().map(work).collect();
    for (number, claim) in &claims {
        let image = &statements[*number].image;
        for digest in [request.image.digest, image.descriptor.digest] {
            let at = works.iter().position(|work| work.image.descriptor.digest == digest);
            let at = at.unwrap_or_else(|| {
                works.push(Work { image: image.clone(), signs: false, claims: Vec::new() });
                works.len() - 1
            });
            works[at].claims.push((*number, claim));
        }
    }
    let run = &Run::new(store, signers, request, events);
    let done: Vec<subject::Done> = futures_util::stream::iter(&works)
        .map(|work| subject::sign(run, work))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let stamped = |claim: &Claim<'_>| claim.once.made().is_some_and(|made| !made.timestamps.is_empty());
    if request.formats.has(Format::Legacy) && claims.iter().any(|(_, claim)| stamped(claim)) {
        let bundles = if request.formats.has(Format::Bundle) { ", those in bundles do" } else { "" };
        events.note(format!("attestations under `.att` carry no timestamp{bundles}"));
    }
    let attestation = |(number, statement): (usize, attest::Statement)| {
        let stands = done.iter().flat_map(|done| &done.attested).filter(|(of, ..)| *of == number);
        let (mut reused, mut logged) = (true, Vec::<LogPlace>::new());
        for (_, new, places) in stands {
            reused &= !new;
            // Both formats and both subjects share one signature.
            let known = |place: &&LogPlace| {
                !logged.iter().any(|at| at.index == place.index && at.log_id == place.log_id)
            };
            let fresh: Vec<_> = places.iter().filter(known).cloned().collect();
            logged.extend(fresh);
        }
        let (predicate_type, image) = (statement.predicate_type, statement.image.descriptor.digest);
        SignedAttestation { predicate_type, image, reused, logged }
    };
    let tags = done.iter().flat_map(|done| done.tags.clone()).collect();
    let has_referrers = done.iter().find_map(|done| done.by_tag).map(|by_tag| !by_tag);
    // The statements are lent to the claims, and those to what was done.
    drop(works);
    drop(claims);
    let attestations = statements.into_iter().enumerate().map(attestation).collect();
    let subjects = done.into_iter().filter_map(|done| done.signed).collect();
    Ok(SignReport { subjects, attestations, has_referrers, tags })
}

/// Waits before another attempt: longer each time, and not as long as the other writer does.
async fn pause(attempt: u32) {
    let mut random = [0];
    // Without randomness the pause is merely regular.
    let _best_effort = aws_lc_rs::rand::fill(&mut random);
    let base = 40 * u64::from(attempt);
    tokio::time::sleep(Duration::from_millis(base + base * u64::from(random[0]) / 128)).await;
}
