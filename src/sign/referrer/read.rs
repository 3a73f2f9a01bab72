//! Finds the bundles that refer to an image, wherever the registry lists them.

use super::super::bundle::{self, SIGNED};
use super::publish::Stands;
use super::{Entry, FallbackIndex, find, may_be, may_hold};
use crate::registry::{Descriptor, Digest, Repository};
use crate::sign::claim::Claim;
use crate::sign::error::SignError;
use crate::sign::run::Placed;
use crate::sign::store::{Manifest, Store};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};

/// The largest bundle that is read. A signature takes a kilobyte, a logged one five.
pub(in crate::sign) const BUNDLE_LIMIT: usize = 4 << 20;
/// The largest attestation that is read unless told otherwise, as cosign's own limit.
pub const ATTESTATION_LIMIT: usize = 128 << 20;
/// How many referrers are fetched at a time.
const AT_ONCE: usize = 8;
/// How many listed referrers are looked into.
const LOOKED_INTO: usize = 200;

/// What a registry lists as referrers.
pub(in crate::sign) enum Listing {
    /// By the referrers API.
    Api(Vec<Descriptor>),
    /// By the index under the fallback tag.
    Tag(FallbackIndex),
}

impl Listing {
    /// Returns all that is listed, whatever it is.
    pub(in crate::sign) fn descriptors(&self) -> Vec<Descriptor> {
        match self {
            Self::Api(descriptors) => descriptors.clone(),
            Self::Tag(index) => index.descriptors(),
        }
    }
}

/// Lists what refers to the image.
pub(in crate::sign) async fn list(
    store: &dyn Store,
    at: &Repository,
    image: &Digest,
) -> Result<Listing, SignError> {
    let tag = image.tag();
    // Both at once: which of them counts is known only when the first has answered.
    let api = store.referrers(at, image);
    let (api, fallback) = tokio::join!(api, store.get_manifest(at, &tag));
    if let Some(descriptors) = api? {
        return Ok(Listing::Api(descriptors));
    }
    Ok(Listing::Tag(open_index(at, &tag, fallback?)?))
}

/// Opens what was found under the fallback tag.
pub(super) fn open_index(
    at: &Repository,
    tag: &str,
    found: Option<Manifest>,
) -> Result<FallbackIndex, SignError> {
    match found {
        None => Ok(FallbackIndex::empty()),
        Some(found) => FallbackIndex::parse(&found.bytes).map_err(SignError::foreign(at, tag)),
    }
}

/// Returns how large a bundle of this predicate type may be.
pub(super) fn limit(predicate_type: &str) -> usize {
    if predicate_type == SIGNED { BUNDLE_LIMIT } else { ATTESTATION_LIMIT }
}

/// Looks for each claim among the listed bundles. Entries whose content is gone are passed over: garbage collection may
/// leave them behind.
pub(super) async fn find_claims(
    store: &dyn Store,
    at: &Repository,
    image: &Digest,
    listed: Vec<Descriptor>,
    claims: &[&Claim<'_>],
) -> Result<Vec<Option<Stands>>, SignError> {
    let open = |listed: Descriptor| async move {
        let manifest = store.get_manifest(at, &listed.digest.to_string()).await?;
        let Some(found) = manifest.and_then(|manifest| find(&manifest.bytes, image)) else {
            return Ok::<_, SignError>(None);
        };
        let may_be = |claim: &&&Claim<'_>| may_be(&found.entry.annotations, claim.predicate_type);
        let Some(limit) = claims.iter().filter(may_be).map(|claim| limit(claim.predicate_type)).max() else {
            return Ok(None);
        };
        // Too large or unreadable means: none of ours.
        let blob = store.get_blob(at, &found.bundle, limit).await.ok();
        let blob = blob.filter(|blob| Digest::of(blob) == found.bundle);
        let Some(opened) = blob.and_then(|blob| bundle::open(&blob).ok()) else { return Ok(None) };
        let mut stands = Vec::new();
        for claim in claims {
            let (reused, logged) =
                (!claim.once.is_own(&opened.evidence), claim.once.logged(&opened.evidence));
            let placed = Placed { location: found.entry.digest, reused, logged };
            let is = claim.is(&opened, image).await?;
            stands.push(is.then(|| Stands { entry: found.entry.clone(), bundle: found.bundle, placed }));
        }
        Ok(Some(stands))
    };
    let may_hold = |listed: &Descriptor| claims.iter().any(|claim| may_hold(listed, claim.predicate_type));
    let candidates = listed.into_iter().filter(may_hold).take(LOOKED_INTO);
    let mut opened = futures_util::stream::iter(candidates).map(open).buffered(AT_ONCE);
    let mut standing = vec![None; claims.len()];
    while let Some(candidate) = opened.try_next().await? {
        for (standing, found) in standing.iter_mut().zip(candidate.into_iter().flatten()) {
            *standing = standing.take().or(found);
        }
    }
    Ok(standing)
}

/// A bundle that refers to the image already, not verified.
pub(in crate::sign) struct Stored {
    /// The manifest that holds it.
    pub(in crate::sign) entry: Entry,
    /// The digest that the manifest gives for it.
    pub(in crate::sign) bundle: Digest,
    /// Its bytes.
    pub(in crate::sign) blob: Bytes,
}

/// Fetches the listed bundles that may be statements of this predicate type, for a verifier: each that can't be
/// read is an error by itself. Entries whose manifest is gone are passed over.
pub(in crate::sign) async fn candidates(
    store: &dyn Store,
    at: &Repository,
    image: &Digest,
    listed: Vec<Descriptor>,
    predicate_type: &str,
    largest_attestation: usize,
) -> Vec<Result<Stored, SignError>> {
    let limit = if predicate_type == SIGNED { BUNDLE_LIMIT } else { largest_attestation };
    let fetch = |listed: Descriptor| async move {
        let manifest = store.get_manifest(at, &listed.digest.to_string()).await?;
        let Some(found) = manifest.and_then(|manifest| find(&manifest.bytes, image)) else {
            return Ok::<_, SignError>(None);
        };
        // A registry whose listing tells no predicate type hands out the manifests of all referrers.
        if !may_be(&found.entry.annotations, predicate_type) {
            return Ok(None);
        }
        let blob = store.get_blob(at, &found.bundle, limit).await?;
        Ok(Some(Stored { entry: found.entry, bundle: found.bundle, blob }))
    };
    let listed = listed.into_iter().filter(|listed| may_hold(listed, predicate_type)).take(LOOKED_INTO);
    let fetched = futures_util::stream::iter(listed).map(fetch).buffered(AT_ONCE);
    fetched.filter_map(|found| std::future::ready(found.transpose())).collect().await
}
