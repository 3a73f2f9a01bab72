//! What signing needs of a registry. The trait belongs to the caller; `build` joins it to the registry client.

use crate::registry::{Descriptor, Digest, Repository};
use async_trait::async_trait;
use bytes::Bytes;
use std::error::Error;

/// A place that keeps manifests and blobs, with the semantics of the OCI distribution spec.
///
/// Every call is repeatable and ends by itself: retries and time limits are the implementation's.
#[async_trait]
pub trait Store: Send + Sync {
    /// Returns the manifest under a tag or digest; `None` if there is none. Under a digest its bytes have been
    /// checked against it.
    async fn get_manifest(&self, at: &Repository, reference: &str) -> Result<Option<Manifest>, StoreError>;

    /// Writes a manifest under a tag or digest.
    async fn put_manifest(
        &self,
        at: &Repository,
        reference: &str,
        manifest: Manifest,
    ) -> Result<(), StoreError>;

    /// Returns a blob of at most `limit` bytes, checked against its digest.
    async fn get_blob(&self, at: &Repository, digest: &Digest, limit: usize) -> Result<Bytes, StoreError>;

    /// Writes a blob under the digest of its bytes; one that is there already is no error.
    async fn put_blob(&self, at: &Repository, bytes: Bytes) -> Result<(), StoreError>;

    /// Returns what refers to this manifest, or `None` where the registry has no referrers API.
    async fn referrers(
        &self,
        at: &Repository,
        subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>, StoreError>;
}

/// A manifest or index as a registry keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The media type: what the registry says, and what stands in the bytes where they say it.
    pub media_type: String,
    /// The bytes, never parsed and written anew.
    pub bytes: Bytes,
}

/// What went wrong in the store: its own error, which says what was attempted where, and what of it matters here.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The tag exists and the registry forbids to move it.
    #[error(transparent)]
    TagImmutable(Box<dyn Error + Send + Sync>),
    /// Anything else.
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
}

impl StoreError {
    /// Returns the store's own error.
    pub fn inner(&self) -> &(dyn Error + Send + Sync + 'static) {
        match self {
            Self::TagImmutable(inner) | Self::Other(inner) => inner.as_ref(),
        }
    }
}
