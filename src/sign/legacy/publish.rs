//! Adds signatures to the `.sig` tag, and makes sure that they stay there.

use super::read::{BLOB_LIMIT, Opened, Standing};
use super::{Layer, SignatureImage, tag};
use crate::registry::Digest;
use crate::sign::check;
use crate::sign::error::SignError;
use crate::sign::evidence::{Content, Signer};
use crate::sign::log::LogPlace;
use crate::sign::pause;
use crate::sign::payload;
use crate::sign::run::{Placed, Run};
use crate::sign::store::{Manifest, StoreError};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::OnceCell;

/// How often the tag is written when other writers overwrite it.
const ATTEMPTS: u32 = 10;

/// What was found or made for one image.
#[derive(Debug)]
pub(in crate::sign) struct Published {
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
    let payloads = Payloads::new(run, image);
    let tag = tag(image);
    // They go up while the tag is read and the signatures are made.
    let ((), published) = tokio::try_join!(payloads.upload(run), add(run, &tag, &payloads))?;
    Ok(published)
}

/// What the signers sign: mostly one and the same, but some sign annotations of their own along.
struct Payloads {
    distinct: Vec<Payload>,
    /// Which of them each signer signs.
    of_signer: Vec<usize>,
}

impl Payloads {
    fn new(run: &Run<'_>, image: &Digest) -> Self {
        let mut payloads = Self { distinct: Vec::new(), of_signer: Vec::new() };
        for signer in run.signers {
            let annotations = run.annotations(signer.as_ref());
            let bytes = payload::simple_signing(&run.docker_reference(), image, &annotations);
            let known = payloads.distinct.iter().position(|payload| payload.bytes == bytes);
            payloads.of_signer.push(known.unwrap_or_else(|| {
                payloads.distinct.push(Payload { bytes: Bytes::from(bytes), uploaded: OnceCell::new() });
                payloads.distinct.len() - 1
            }));
        }
        payloads
    }

    /// Returns each signer's, in their order.
    fn each(&self) -> impl Iterator<Item = &Bytes> {
        self.of_signer.iter().map(|at| &self.distinct[*at].bytes)
    }

    /// Uploads them, or waits until they are.
    async fn upload(&self, run: &Run<'_>) -> Result<(), SignError> {
        let uploads = self.distinct.iter().map(|payload| payload.upload(run));
        futures_util::future::try_join_all(uploads).await.map(drop)
    }
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

async fn add(run: &Run<'_>, tag: &str, payloads: &Payloads) -> Result<Published, SignError> {
    let at = run.storage();
    let docker = run.request.docker_media_types;
    let mut standing =
        Standing::read(run.store, at, tag).await?.open(run.store, at, tag).await?.or_new(docker);
    let mut made: Vec<Option<(Layer, Vec<LogPlace>)>> = vec![None; run.signers.len()];
    for attempt in 1..=ATTEMPTS {
        let before = standing.image.layers().count();
        let mut next = standing.image.clone();
        let mut signatures = Vec::new();
        for ((signer, payload), made) in run.signers.iter().zip(payloads.each()).zip(&mut made) {
            let signer = signer.as_ref();
            let own = made.as_ref().map(|(layer, _)| layer);
            let layer = match find(&next, signer, payload, own).await? {
                Some(layer) => layer.clone(),
                None => {
                    let (layer, logged) = match made.take() {
                        Some(made) => made,
                        None => {
                            let evidence = signer.sign(Content::Payload(payload)).await?;
                            let logged = evidence.log_places(signer.verifier().trust());
                            (Layer::new(payload, &evidence), logged)
                        }
                    };
                    next.append(&layer).map_err(SignError::foreign(at, tag))?;
                    made.insert((layer, logged)).0.clone()
                }
            };
            // Nothing made means: found.
            let reused = made.is_none();
            let logged = match made {
                Some((_, logged)) => logged.clone(),
                None => {
                    layer.evidence().map(|it| it.log_places(signer.verifier().trust())).unwrap_or_default()
                }
            };
            signatures.push((layer, reused, logged));
        }
        let location = match next.layers().count() == before {
            true => standing.digest(),
            false => match write(run, tag, &standing, &next, payloads).await? {
                Written::Yes(location) => location,
                Written::Changed => {
                    run.note_other_writer(tag);
                    pause(attempt).await;
                    standing = Standing::read(run.store, at, tag).await?.open(run.store, at, tag).await?;
                    standing = standing.or_new(docker);
                    continue;
                }
            },
        };
        let placed = |(layer, reused, logged)| (layer, Placed { location, reused, logged });
        let signatures = signatures.into_iter().map(placed).collect();
        return Ok(Published { signatures });
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
    payloads: &Payloads,
) -> Result<Written, SignError> {
    let at = run.storage();
    let encoded = next.encode();
    let config = async { Ok(run.store.put_blob(at, Bytes::from(encoded.config)).await?) };
    tokio::try_join!(config, payloads.upload(run))?;
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
    let payloads: BTreeSet<Digest> = published.signatures.iter().map(|(layer, _)| layer.digest).collect();
    let blobs = payloads.into_iter().map(async |digest| {
        let blob = run.store.get_blob(at, &digest, BLOB_LIMIT).await?;
        Ok::<_, StoreError>((digest, blob))
    });
    let blobs = futures_util::future::try_join_all(blobs);
    let (blobs, manifest) = tokio::try_join!(blobs, run.store.get_manifest(at, &tag))?;
    let blobs: BTreeMap<Digest, Bytes> = blobs.into_iter().collect();
    let standing = match manifest {
        Some(manifest) => SignatureImage::layers_of(&manifest.bytes).map_err(SignError::foreign(at, &tag))?,
        None => Vec::new(),
    };
    for ((layer, _), signer) in published.signatures.iter().zip(run.signers) {
        let Some(found) = standing.iter().find(|found| *found == layer) else {
            return Err(SignError::LostRace { tag, repository: at.to_string() });
        };
        let expected = run.expected(image, signer.as_ref());
        check::layer(found, &blobs[&layer.digest], &expected, signer.verifier())
            .map_err(|reason| run.does_not_verify(image, signer.as_ref(), reason))?;
    }
    Ok(())
}

/// Returns this signer's layer: the one just made, or an earlier one by the same signer over the same payload.
async fn find<'a>(
    image: &'a SignatureImage,
    signer: &dyn Signer,
    payload: &[u8],
    made: Option<&Layer>,
) -> Result<Option<&'a Layer>, SignError> {
    if let Some(made) = made {
        return Ok(image.layers().find(|layer| layer.covers(made) && layer.evidence() == made.evidence()));
    }
    let digest = Digest::of(payload);
    for layer in image.layers().filter(|layer| layer.digest == digest && layer.is_simple_signing()) {
        let Some(evidence) = layer.evidence() else { continue };
        if signer.has_made(Content::Payload(payload), &evidence).await? {
            return Ok(Some(layer));
        }
    }
    Ok(None)
}
