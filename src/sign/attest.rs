//! What BuildKit attested of an image, to be signed: provenance and bills of materials.
//!
//! BuildKit's statements name one platform each and are signed by nobody. Each becomes a statement of ours with the
//! same predicate, byte for byte, about the index under its tags and about the platform's image; it is signed once by
//! each signer and attached to both, as a layer of the `.att` tag and as a bundle. The original is found from the
//! index's own digest, each step checked against the digest that the step before gave: where it is read is no matter of
//! trust.

mod statement;

use super::error::SignError;
use super::log::LogPlace;
use super::store::{Store, StoreError};
use super::{SignRequest, Subject};
use crate::registry::{Descriptor, Digest, Reference, Repository};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

/// Where an index and what leads from it to its statements can be read, by digest.
#[async_trait]
pub trait Content: Send + Sync {
    /// Returns an index or manifest.
    async fn manifest(&self, digest: &Digest) -> Result<Bytes, StoreError>;

    /// Returns a blob of at most `limit` bytes.
    async fn blob(&self, digest: &Digest, limit: usize) -> Result<Bytes, StoreError>;
}

/// The statements of one image as BuildKit wrote them.
#[derive(Clone, Debug, Default)]
pub struct Attested(Vec<Arc<statement::Original>>);

impl Attested {
    /// Returns the statements of an image that was joined from these.
    pub fn join(parts: impl IntoIterator<Item = Self>) -> Self {
        Self(parts.into_iter().flat_map(|part| part.0).collect())
    }
}

/// Reads the statements that an index carries, in its order; none of an image without any.
///
/// # Errors
/// [`SignError::Attestation`] if one is not about the image that carries it, or has not the digest that leads to it.
pub async fn attested(content: &dyn Content, root: &Descriptor) -> Result<Attested, SignError> {
    let originals = statement::collect(content, root).await?;
    Ok(Attested(originals.into_iter().map(Arc::new).collect()))
}

/// An image's own repository.
struct InRegistry<'a>(&'a dyn Store, &'a Repository);

#[async_trait]
impl Content for InRegistry<'_> {
    async fn manifest(&self, digest: &Digest) -> Result<Bytes, StoreError> {
        let Self(store, at) = self;
        let found = store.get_manifest(at, &digest.to_string()).await?;
        let found =
            found.ok_or_else(|| StoreError::Other(format!("{digest} is not in {at} any more").into()))?;
        Ok(found.bytes)
    }

    async fn blob(&self, digest: &Digest, limit: usize) -> Result<Bytes, StoreError> {
        self.0.get_blob(self.1, digest, limit).await
    }
}

/// Takes any bytes for a statement of BuildKit's.
#[cfg(any(test, fuzzing))]
pub(super) fn read_any(bytes: &[u8]) {
    let image = crate::registry::Descriptor::of("image", b"");
    if let Ok(original) = statement::read(bytes, None, &image) {
        let at = "r.example/a".parse().expect("a repository");
        let ours = statement::ours(&original, &at, &[], &image.digest);
        assert!(super::bundle::Statement::parse(&ours).is_ok());
    }
}

/// An attestation that is signed and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAttestation {
    /// What kind of statement it is.
    pub predicate_type: String,
    /// The platform's image that it is about, beside the index.
    pub image: Digest,
    /// Each of them had it already, from every signer.
    pub reused: bool,
    /// Where logs have it.
    pub logged: Vec<LogPlace>,
}

/// A statement of ours.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) bytes: Arc<[u8]>,
    pub(super) predicate_type: String,
    /// The platform's image.
    pub(super) image: Subject,
}

/// Returns our statements of what an index carries.
///
/// # Errors
/// As [`attested`], where that has still to be read.
pub(super) async fn statements(
    store: &dyn Store,
    request: &SignRequest,
    tags: &[Reference],
) -> Result<Vec<Statement>, SignError> {
    let Attested(originals) = match &request.attested {
        Some(known) => known.clone(),
        None => attested(&InRegistry(store, &request.repository), &request.image).await?,
    };
    let ours = originals.iter().map(|original| {
        let bytes = statement::ours(original, &request.repository, tags, &request.image.digest).into();
        let statement::Original { image, role, predicate_type, .. } = (**original).clone();
        Statement { bytes, predicate_type, image: Subject { descriptor: image, role } }
    });
    Ok(ours.collect())
}
