//! Adds signatures to the `.sig` tag, and makes sure that they stay there.

use super::read::{BLOB_LIMIT, Opened, Standing};
use super::{Layer, SignatureImage, tag};
use crate::registry::Digest;
use crate::sign::check;
use crate::sign::error::SignError;
use crate::sign::evidence::{Content, Signer};
use crate::sign::key::Hash;
use crate::sign::log::LogPlace;
use crate::sign::pause;
use crate::sign::payload;
use crate::sign::run::{Placed, Run};
use crate::sign::store::Manifest;
use bytes::Bytes;
use tokio::sync::OnceCell;

/// How often the tag is written when other writers overwrite it.
const ATTEMPTS: u32 = 10;

/// What was found or made for one image.
#[derive(Debug)]
pub(in crate::sign) struct Published {
    payload: Digest,
    /// One for each signer, in their order.
    signatures: Vec<(Layer, Placed)>,
}

impl Published {
    /// Returns where each signer's signature stands.
    pub(in crate::sign) fn placed(&self) -> Vec<Placed> {
        self.signatures.iter().map(|(_, placed)| placed.clone()).collect()
    }
}

/// Makes every signer's layer stand at the tag: all that are missing go there in one write.
///
/// Registries have no conditional write, so that two writers can each read, add and write, and the second
/// removes the layer of the first. Hence the tag is read again right before the write and after it, and written
/// anew with what stands there now while ours is missing.
pub(in crate::sign) async fn publish(run: &Run<'_>, image: &Digest) -> Result<Published, SignError> {
    let payload = payload::simple_signing(&run.repository().signing_name(), image, run.annotations());
    let payload = Payload { bytes: Bytes::from(payload), uploaded: OnceCell::new() };
    let tag = tag(image);
    // It goes up while the tag is read and the signatures are made.
    let ((), published) = tokio::try_join!(payload.upload(run), add(run, &tag, &payload))?;
    Ok(published)
}

/// What is signed, on its way to the registry.
struct Payload {
    bytes: Bytes,
    uploaded: OnceCell<()>,
}

impl Payload {
    /// Uploads it, or waits until it is.
    async fn upload(&self, run: &Run<'_>) -> Result<(), SignError> {
        let upload = || run.store.put_blob(run.storage(), self.bytes.clone());
        self.uploaded.get_or_try_init(upload).await?;
        Ok(())
    }
}

async fn add(run: &Run<'_>, tag: &str, payload: &Payload) -> Result<Published, SignError> {
    let at = run.storage();
    let mut standing = Standing::read(run.store, at, tag).await?.open(run.store, at, tag).await?;
    let mut made: Vec<Option<(Layer, Vec<LogPlace>)>> = vec![None; run.signers.len()];
    for attempt in 1..=ATTEMPTS {
        let before = standing.image.layers().count();
        let mut next = standing.image.clone();
        let mut signatures = Vec::new();
        for (signer, made) in run.signers.iter().zip(&mut made) {
            let own = made.as_ref().map(|(layer, _)| layer);
            let layer = match find(&next, signer.as_ref(), &payload.bytes, own) {
                Some(layer) => layer.clone(),
                None => {
                    let (layer, logged) = match made.take() {
                        Some(made) => made,
                        None => {
                            let evidence = signer.sign(Content::Payload(&payload.bytes)).await?;
                            (Layer::new(&payload.bytes, &evidence), evidence.log_places())
                        }
                    };
                    next.append(&layer).map_err(SignError::foreign(at, tag))?;
                    made.insert((layer, logged)).0.clone()
                }
            };
            // Nothing made means: found.
            let logged = made.as_ref().map(|(_, logged)| logged.clone());
            signatures.push((layer, logged));
        }
        let location = match next.layers().count() == before {
            true => standing.digest(),
            false => match write(run, tag, &standing, &next, payload).await? {
                Written::Yes(location) => location,
                Written::Changed => {
                    run.note_other_writer(tag);
                    pause(attempt).await;
                    standing = Standing::read(run.store, at, tag).await?.open(run.store, at, tag).await?;
                    continue;
                }
            },
        };
        let placed = |(layer, logged): (Layer, Option<Vec<LogPlace>>)| {
            let reused = logged.is_none();
            (layer, Placed { location, reused, logged: logged.unwrap_or_default() })
        };
        let signatures = signatures.into_iter().map(placed).collect();
        return Ok(Published { payload: Digest::of(&payload.bytes), signatures });
    }
    Err(SignError::LostRace { tag: tag.to_owned(), repository: at.to_string() })
}

/// What became of a write.
enum Written {
    /// The manifest that stands at the tag.
    Yes(Digest),
    /// Another writer came between.
    Changed,
}

/// Writes the tag, if it stands as it stood, and looks whether it stays.
async fn write(
    run: &Run<'_>,
    tag: &str,
    standing: &Opened,
    next: &SignatureImage,
    payload: &Payload,
) -> Result<Written, SignError> {
    let at = run.storage();
    let encoded = next.encode();
    let config = async { Ok(run.store.put_blob(at, Bytes::from(encoded.config)).await?) };
    tokio::try_join!(config, payload.upload(run))?;
    // The upload took a while. What is read here is as fresh as it can be, so that a writer who looks after his
    // own write sees ours.
    if Standing::read(run.store, at, tag).await?.0 != standing.manifest {
        return Ok(Written::Changed);
    }
    let manifest = Manifest { media_type: encoded.media_type, bytes: Bytes::from(encoded.manifest) };
    let ours = manifest.bytes.clone();
    run.store.put_manifest(at, tag, manifest).await.map_err(SignError::writing(at, tag))?;
    match Standing::read(run.store, at, tag).await?.0 {
        Some(found) if found.bytes == ours => Ok(Written::Yes(Digest::of(&ours))),
        _ => Ok(Written::Changed),
    }
}

/// Reads tag and payload back and checks each signature as it stands there.
///
/// # Errors
/// [`SignError::LostRace`] if another writer, who had read the tag before we wrote it, has removed a signature
/// since.
pub(in crate::sign) async fn verify(
    run: &Run<'_>,
    image: &Digest,
    published: &Published,
) -> Result<(), SignError> {
    let at = run.storage();
    let tag = tag(image);
    let blob = run.store.get_blob(at, &published.payload, BLOB_LIMIT);
    let (blob, manifest) = tokio::try_join!(blob, run.store.get_manifest(at, &tag))?;
    let standing = match manifest {
        Some(manifest) => SignatureImage::layers_of(&manifest.bytes).map_err(SignError::foreign(at, &tag))?,
        None => Vec::new(),
    };
    let expected = run.expected(image);
    for ((layer, _), signer) in published.signatures.iter().zip(run.signers) {
        let Some(found) = standing.iter().find(|found| *found == layer) else {
            return Err(SignError::LostRace { tag, repository: at.to_string() });
        };
        check::layer(found, &blob, &expected, signer.verifier())
            .map_err(|reason| run.does_not_verify(image, signer.as_ref(), reason))?;
    }
    Ok(())
}

/// Returns this signer's layer: the one just made, or an earlier one by the same key over the same payload.
fn find<'a>(
    image: &'a SignatureImage,
    signer: &dyn Signer,
    payload: &[u8],
    made: Option<&Layer>,
) -> Option<&'a Layer> {
    if let Some(made) = made {
        return image.layers().find(|layer| layer.covers(made) && layer.evidence() == made.evidence());
    }
    let key = signer.public_key()?;
    let digest = Digest::of(payload);
    // Only SHA-256 counts: of other hashes plain `cosign verify --key` knows nothing.
    image.layers().find(|layer| {
        layer.digest == digest
            && layer.is_simple_signing()
            && layer.evidence().is_some_and(|evidence| {
                key.verify(payload, &evidence.signature) == Some(Hash::Sha256)
                    // Where logs are wanted, a signature that none has is another one.
                    && signer.verifier().verify(Content::Payload(payload), &evidence).is_ok()
            })
    })
}
