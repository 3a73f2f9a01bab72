//! Attestations as bundles that refer to their image.

use super::{STATEMENT_LIMIT, Signed};
use crate::registry::{Descriptor, Digest, Repository};
use crate::sign::bundle;
use crate::sign::error::SignError;
use crate::sign::pause;
use crate::sign::referrer::{
    EMPTY_CONFIG, Entry, FallbackIndex, Listing, OCI_INDEX, OCI_MANIFEST, find, list, may_hold, referrer,
};
use crate::sign::store::{Manifest, Store};
use bytes::Bytes;

/// How often the fallback tag is written when other writers overwrite it, and a list is read until it is whole.
const ATTEMPTS: u32 = 6;

/// Makes a bundle of every signer refer to the image; returns whether all did already.
pub(super) async fn attach(
    store: &dyn Store,
    at: &Repository,
    image: &Descriptor,
    signed: &[Signed<'_>],
) -> Result<bool, SignError> {
    let mut reused = true;
    for one in signed {
        if found(store, at, &image.digest, one, None).await? {
            continue;
        }
        reused = false;
        let evidence = one.evidence().await?;
        let blob = Bytes::from(bundle::encode(one.statement, evidence));
        let created = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let made = referrer(image, &blob, one.predicate_type, &created);
        let config = store.put_blob(at, Bytes::from_static(EMPTY_CONFIG));
        tokio::try_join!(config, store.put_blob(at, blob))?;
        let manifest = Manifest { media_type: OCI_MANIFEST.to_owned(), bytes: Bytes::from(made.manifest) };
        store.put_manifest(at, &made.entry.digest.to_string(), manifest).await?;
        stand(store, at, &image.digest, one, &made.entry).await?;
    }
    Ok(reused)
}

/// Makes sure that the registry, or the fallback tag, lists a bundle, and that it verifies from there.
async fn stand(
    store: &dyn Store,
    at: &Repository,
    image: &Digest,
    one: &Signed<'_>,
    entry: &Entry,
) -> Result<(), SignError> {
    for attempt in 1..=ATTEMPTS {
        if let Listing::Tag(mut index) = list(store, at, image).await?
            && index.put(entry)
        {
            write(store, at, &image.tag(), &index).await?;
        }
        if found(store, at, image, one, Some(entry)).await? {
            return Ok(());
        }
        // Some registries index after they answered; another writer may have been at the tag.
        pause(attempt).await;
    }
    Err(SignError::NotListed { referrer: entry.digest, image: *image, repository: at.to_string() })
}

async fn write(
    store: &dyn Store,
    at: &Repository,
    tag: &str,
    index: &FallbackIndex,
) -> Result<(), SignError> {
    let manifest = Manifest { media_type: OCI_INDEX.to_owned(), bytes: Bytes::from(index.to_vec()) };
    store.put_manifest(at, tag, manifest).await.map_err(SignError::writing(at, tag))
}

/// Whether a listed bundle is this attestation. One that was `made` now must verify.
async fn found(
    store: &dyn Store,
    at: &Repository,
    image: &Digest,
    one: &Signed<'_>,
    made: Option<&Entry>,
) -> Result<bool, SignError> {
    for listed in list(store, at, image).await?.descriptors() {
        if !may_hold(&listed, one.predicate_type) || made.is_some_and(|made| made.digest != listed.digest) {
            continue;
        }
        let manifest = store.get_manifest(at, &listed.digest.to_string()).await?;
        let Some(referrer) = manifest.and_then(|manifest| find(&manifest.bytes, image)) else { continue };
        // Too large or unreadable means: not one of ours.
        let Ok(blob) = store.get_blob(at, &referrer.bundle, 2 * STATEMENT_LIMIT).await else { continue };
        let Ok(opened) = bundle::open(&blob) else { continue };
        if Digest::of(&blob) != referrer.bundle || opened.statement != one.statement {
            continue;
        }
        match made {
            Some(_) => {
                one.check(image, at, &opened.evidence)?;
                one.note(one.evidence().await?);
                return Ok(true);
            }
            None if one.is_made_by(&opened.evidence).await? => {
                one.note(&opened.evidence);
                return Ok(true);
            }
            None => {}
        }
    }
    Ok(false)
}
