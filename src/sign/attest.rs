//! What BuildKit attested of an image, to be signed: provenance and bills of materials.
//!
//! BuildKit's statements name one platform each and are signed by nobody. Each becomes a statement of ours with the
//! same predicate, byte for byte, about the index under its tags and about the platform's image; it is signed once by
//! each signer and attached to both, as a layer of the `.att` tag and as a bundle. The original is found from the
//! index's own digest, each step checked against the digest that the step before gave.

mod statement;

use super::error::SignError;
use super::log::LogPlace;
use super::store::Store;
use super::{SignRequest, Subject};
use crate::registry::{Digest, Reference};
use std::sync::Arc;

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

/// Returns our statements of what an index carries, in its order; none of an image without any.
///
/// # Errors
/// [`SignError::Attestation`] if a statement is not about the image that carries it.
pub(super) async fn statements(
    store: &dyn Store,
    request: &SignRequest,
    tags: &[Reference],
) -> Result<Vec<Statement>, SignError> {
    let originals = statement::collect(store, &request.repository, &request.image).await?;
    let ours = originals.into_iter().map(|original| {
        let bytes = statement::ours(&original, &request.repository, tags, &request.image.digest).into();
        let statement::Original { image, role, predicate_type, .. } = original;
        Statement { bytes, predicate_type, image: Subject { descriptor: image, role } }
    });
    Ok(ours.collect())
}
