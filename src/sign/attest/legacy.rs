//! The `.att` tag: one layer for each attestation and signer, beside those of others.

use super::{STATEMENT_LIMIT, Signed, envelope};
use crate::registry::{Digest, Repository};
use crate::sign::error::SignError;
use crate::sign::evidence::Evidence;
use crate::sign::legacy::{
    ENVELOPE, Layer, PREDICATE_TYPE, SIGNATURE, SignatureImage, Standing, attestation_tag,
};
use crate::sign::pause;
use crate::sign::store::{Manifest, Store};
use bytes::Bytes;

/// How often the tag is written when other writers overwrite it.
const ATTEMPTS: u32 = 10;

/// Makes every signer's attestation stand at the image's `.att` tag; returns whether all did already.
pub(super) async fn attach(
    store: &dyn Store,
    at: &Repository,
    image: &Digest,
    signed: &[Signed<'_>],
) -> Result<bool, SignError> {
    let tag = attestation_tag(image);
    let mut written = vec![false; signed.len()];
    for attempt in 1..=ATTEMPTS {
        let found = Standing::read(store, at, &tag).await?.open(store, at, &tag).await?;
        let standing = found.image;
        let mut next = standing.clone();
        let mut missing = false;
        for (one, written) in signed.iter().zip(&mut written) {
            if find(store, at, image, &standing, one, *written).await? {
                continue;
            }
            (missing, *written) = (true, true);
            let (layer, blob) = layer(one, one.evidence().await?);
            store.put_blob(at, Bytes::from(blob)).await?;
            next.append(&layer).map_err(SignError::foreign(at, &tag))?;
        }
        if !missing {
            return Ok(!written.contains(&true));
        }
        let encoded = next.encode();
        store.put_blob(at, Bytes::from(encoded.config)).await?;
        // What another writer did meanwhile must not be overwritten: as fresh a look as can be had.
        if store.get_manifest(at, &tag).await? == found.manifest {
            let manifest = Manifest { media_type: encoded.media_type, bytes: Bytes::from(encoded.manifest) };
            store.put_manifest(at, &tag, manifest).await.map_err(SignError::writing(at, &tag))?;
        } else {
            pause(attempt).await;
        }
        // The next round reads back what stands there, and checks it.
    }
    Err(SignError::LostRace { tag, repository: at.to_string() })
}

/// Whether this attestation stands there: one that was `written` must be found as it is, and verify as a stranger would
/// see it.
async fn find(
    store: &dyn Store,
    at: &Repository,
    image: &Digest,
    standing: &SignatureImage,
    one: &Signed<'_>,
    written: bool,
) -> Result<bool, SignError> {
    let made = one.evidence.get().filter(|_| written).map(|evidence| layer(one, evidence).0.digest);
    for layer in standing.layers().filter(|layer| layer.may_hold(one.predicate_type)) {
        if made.is_some_and(|made| made != layer.digest) {
            continue;
        }
        // Too large or unreadable means: not one of ours.
        let Ok(blob) = store.get_blob(at, &layer.digest, 2 * STATEMENT_LIMIT).await else { continue };
        let Some((statement, signature)) = envelope::open(&blob) else { continue };
        if statement != one.statement || Digest::of(&blob) != layer.digest {
            continue;
        }
        let Some(mut evidence) = layer.evidence() else { continue };
        evidence.signature = signature;
        match made {
            Some(_) => {
                one.check(image, at, &evidence)?;
                one.note(one.evidence().await?);
                return Ok(true);
            }
            None if one.is_made_by(&evidence).await? => {
                one.note(&evidence);
                return Ok(true);
            }
            None => {}
        }
    }
    Ok(false)
}

/// Returns the layer for a signed statement, and its content.
fn layer(one: &Signed<'_>, evidence: &Evidence) -> (Layer, Vec<u8>) {
    let blob = envelope::encode(one.statement, &evidence.signature);
    // A timestamp would have to be of the whole envelope here, and of the signature in a bundle: one signature serves
    // both, so its time comes from the log.
    let mut layer = Layer::new(&blob, &Evidence { timestamps: Vec::new(), ..evidence.clone() });
    layer.media_type = ENVELOPE.to_owned();
    // The signature stands in the envelope.
    layer.annotations.insert(SIGNATURE.to_owned(), String::new());
    layer.annotations.insert(PREDICATE_TYPE.to_owned(), one.predicate_type.to_owned());
    (layer, blob)
}
