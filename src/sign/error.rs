//! Why an image could not be signed or its signatures not be verified.

use super::evidence::SignerError;
use super::scope::ScopeError;
use super::store::StoreError;
use crate::registry::{Digest, Repository};
use std::error::Error;

/// Why signing failed. Signing again is always safe: what is there already is found and kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The request names no signer.
    #[error("nothing to sign: {0}")]
    Nothing(&'static str),
    /// The index can't be read.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// A key, KMS or token refused.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The registry refused or could not be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tag that collects signatures can't be extended because tags there never move.
    #[error("the tag {tag} in {repository} is immutable, so no signature can be added to it")]
    TagImmutable {
        /// The `.sig` tag, or the fallback tag of the referrers.
        tag: String,
        /// Where.
        repository: String,
        /// What the registry said.
        #[source]
        source: StoreError,
    },
    /// Something else stands where signatures are collected; it is left alone.
    #[error("the tag {tag} in {repository} holds something else than signatures")]
    ForeignTag {
        /// The tag.
        tag: String,
        /// Where.
        repository: String,
        /// What it is.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Others kept writing the same tag at the same time.
    #[error(
        "other writers of the tag {tag} in {repository} keep removing our signature; sign again when they are done"
    )]
    LostRace {
        /// The tag.
        tag: String,
        /// Where.
        repository: String,
    },
    /// The registry took the referrer and doesn't list it.
    #[error("{repository} took the signature {referrer} but does not list it among the referrers of {image}")]
    NotListed {
        /// The manifest that was pushed.
        referrer: Digest,
        /// What it refers to.
        image: Digest,
        /// Where.
        repository: String,
    },
    /// What the builder attested is not what it says it is; it is not signed.
    #[error("the attestation {attestation} cannot be signed: {reason}")]
    Attestation {
        /// The manifest that carries it, or another that leads to it.
        attestation: Digest,
        /// Why not.
        reason: &'static str,
    },
    /// What was read back doesn't verify.
    #[error("the signature of {image} by {signer}, read back from {repository}, does not verify: {reason}")]
    DoesNotVerify {
        /// The signed image.
        image: Digest,
        /// Whose signature.
        signer: String,
        /// Where it was read.
        repository: String,
        /// Why not.
        reason: String,
    },
}

impl SignError {
    /// Returns the registry's own error, where that is what went wrong.
    pub fn store(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        match self {
            Self::Store(error)
            | Self::Scope(ScopeError::Store(error))
            | Self::TagImmutable { source: error, .. } => Some(error.inner()),
            _ => None,
        }
    }

    /// Returns a function for a tag that could not be written.
    pub(super) fn writing(repository: &Repository, tag: &str) -> impl FnOnce(StoreError) -> Self {
        let (repository, tag) = (repository.to_string(), tag.to_owned());
        move |source| match source {
            StoreError::TagImmutable(_) => Self::TagImmutable { tag, repository, source },
            StoreError::Other(_) => Self::Store(source),
        }
    }

    /// Returns a function for what stands at a tag and isn't ours to add to.
    pub(super) fn foreign<E: Error + Send + Sync + 'static>(
        repository: &Repository,
        tag: &str,
    ) -> impl FnOnce(E) -> Self {
        let (repository, tag) = (repository.to_string(), tag.to_owned());
        move |source| Self::ForeignTag { tag, repository, source: Box::new(source) }
    }
}
