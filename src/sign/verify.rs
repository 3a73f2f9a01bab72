//! Looks for signatures of an image as a stranger does: from the registry alone, in both formats.

use super::check::{self, Expected};
use super::error::SignError;
use super::evidence::Verifier;
use super::store::Store;
use super::{Format, Formats, legacy, referrer};
use crate::registry::{Digest, Repository};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// What to look for.
#[derive(Clone, Debug)]
pub struct VerifyRequest {
    /// Where the signatures are: the image's repository, if not told otherwise.
    pub storage: Repository,
    /// The image, resolved once: nothing of what follows looks at tags of it again.
    pub image: Digest,
    /// The repository that signatures must name, if that matters. Bundles name none and pass.
    pub docker_reference: Option<String>,
    /// Annotations that must have been signed.
    pub annotations: BTreeMap<String, String>,
    /// Where to look. The presence of one format never hides the other.
    pub formats: Formats,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Signatures that hold. One is enough; none means that the image isn't signed by whom was asked for.
    pub accepted: Vec<AcceptedSignature>,
    /// Signatures that don't, others' among them.
    pub refused: Vec<RefusedSignature>,
}

/// A signature that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedSignature {
    /// How it is stored.
    pub format: Format,
    /// The manifest that holds it.
    pub location: Digest,
    /// What was signed along.
    pub annotations: BTreeMap<String, String>,
}

/// A signature that doesn't hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSignature {
    /// How it is stored.
    pub format: Format,
    /// The manifest that holds it.
    pub location: Digest,
    /// Why not, as a clause: `it is for the image …`.
    pub reason: String,
}

impl Verdict {
    fn add(&mut self, format: Format, location: Digest, checked: Result<BTreeMap<String, String>, String>) {
        match checked {
            Ok(annotations) => self.accepted.push(AcceptedSignature { format, location, annotations }),
            Err(reason) => self.refused.push(RefusedSignature { format, location, reason }),
        }
    }
}

/// Checks every signature of the image that the registry holds.
///
/// # Errors
/// [`SignError`] when the registry can't be read; signatures that don't hold are no error but in the verdict.
pub async fn verify_image(
    store: &dyn Store,
    verifier: &dyn Verifier,
    request: &VerifyRequest,
) -> Result<Verdict, SignError> {
    let VerifyRequest { storage, image, docker_reference, annotations, formats } = request;
    let expected = Expected {
        image: *image,
        docker_reference: docker_reference.clone(),
        annotations: annotations.clone(),
    };
    let mut verdict = Verdict::default();
    if formats.has(Format::Legacy) {
        verify_legacy(store, verifier, storage, &expected, &mut verdict).await?;
    }
    if formats.has(Format::Bundle) {
        let listed = referrer::list(store, storage, image).await?.descriptors();
        for stored in referrer::fetch_bundles(store, storage, image, listed).await? {
            let checked = check::bundle(&stored.bundle, &stored.blob, &expected, verifier);
            verdict.add(Format::Bundle, stored.entry.digest, checked);
        }
    }
    Ok(verdict)
}

async fn verify_legacy(
    store: &dyn Store,
    verifier: &dyn Verifier,
    storage: &Repository,
    expected: &Expected,
    verdict: &mut Verdict,
) -> Result<(), SignError> {
    let tag = legacy::tag(&expected.image);
    let standing = legacy::Standing::read(store, storage, &tag).await?.open(store, storage, &tag).await?;
    let location = standing.digest();
    // One payload often carries several signatures.
    let mut payloads = BTreeMap::new();
    for layer in standing.image.layers().filter(|layer| layer.is_simple_signing()) {
        if let Entry::Vacant(missing) = payloads.entry(layer.digest) {
            missing.insert(store.get_blob(storage, &layer.digest, legacy::BLOB_LIMIT).await?);
        }
        let checked = check::layer(layer, &payloads[&layer.digest], expected, verifier);
        verdict.add(Format::Legacy, location, checked);
    }
    Ok(())
}
