//! Adds signatures to the `.sig` tag and attestations to the `.att` tag, and makes sure that they stay there.

use super::read::{BLOB_LIMIT, Opened, Standing};
use super::{ENVELOPE, Layer, PREDICATE_TYPE, SIGNATURE, SignatureImage};
use crate::registry::Digest;
use crate::sign::check;
use crate::sign::claim::{Claim, Once};
use crate::sign::envelope;
use crate::sign::error::SignError;
use crate::sign::evidence::{Content, Evidence, Signer};
use crate::sign::log::LogPlace;
use crate::sign::pause;
use crate::sign::referrer::ATTESTATION_LIMIT;
use crate::sign::run::{Placed, Run};
use crate::sign::store::Manifest;
use bytes::Bytes;

/// How often the tag is written when other writers overwrite it.
const ATTEMPTS: u32 = 10;

/// What is to stand at a tag.
#[expect(
    clippy::large_enum_variant,
    reason = "there are a handful of them, and all at a tag are of one kind"
)]
pub(in crate::sign) enum Item<'a> {
    /// A signature over the payload, at the `.sig` tag.
    Signature {
        /// The payload; signers that say the same have the same.
        payload: Bytes,
        /// Its signature.
        once: Once<'a>,
    },
    /// A statement in its envelope, at the `.att` tag.
    Attestation(&'a Claim<'a>),
}

impl Item<'_> {
    fn once(&self) -> &Once<'_> {
        match self {
            Self::Signature { once, .. } => once,
            Self::Attestation(claim) => &claim.once,
        }
    }

    fn signer(&self) -> &dyn Signer {
        self.once().signer
    }

    /// Returns the layer for this signature, and its content.
    fn layer(&self, evidence: &Evidence) -> (Layer, Bytes) {
        let claim = match self {
            Self::Signature { payload, .. } => return (Layer::new(payload, evidence), payload.clone()),
            Self::Attestation(claim) => claim,
        };
        let blob = Bytes::from(envelope::encode(&claim.statement, &evidence.signature));
        // A timestamp would have to be of the whole envelope here, and of the signature in a bundle: one signature
        // serves both, so its time comes from the log.
        let mut layer = Layer::new(&blob, &Evidence { timestamps: Vec::new(), ..evidence.clone() });
        layer.media_type = ENVELOPE.to_owned();
        // The signature stands in the envelope.
        layer.annotations.insert(SIGNATURE.to_owned(), String::new());
        layer.annotations.insert(PREDICATE_TYPE.to_owned(), claim.predicate_type.to_owned());
        (layer, blob)
    }

    async fn make(&self) -> Result<(Layer, Bytes), SignError> {
        let content = match self {
            Self::Signature { payload, .. } => Content::Payload(payload),
            Self::Attestation(claim) => claim.content(),
        };
        Ok(self.layer(self.once().sign(content).await?))
    }

    /// Returns the layer that stands there for it, and whether it is the one made in this run: another would be an
    /// earlier one by the same key over the same content.
    async fn find(&self, run: &Run<'_>, image: &SignatureImage) -> Result<Option<(Layer, bool)>, SignError> {
        if let Some((own, _)) = self.once().made().map(|made| self.layer(made)) {
            let own = |layer: &&Layer| layer.covers(&own) && layer.evidence() == own.evidence();
            if let Some(layer) = image.layers().find(own) {
                return Ok(Some((layer.clone(), true)));
            }
        }
        for layer in image.layers() {
            let found = match self {
                Self::Signature { payload, once } => {
                    let is = layer.is_simple_signing() && layer.digest == Digest::of(payload);
                    match layer.evidence().filter(|_| is) {
                        Some(found) => once.signer.has_made(Content::Payload(payload), &found).await?,
                        None => false,
                    }
                }
                Self::Attestation(claim) => {
                    layer.may_hold(claim.predicate_type) && is_in_envelope(run, layer, claim).await?
                }
            };
            if found {
                return Ok(Some((layer.clone(), false)));
            }
        }
        Ok(None)
    }

    /// Returns where logs have the signature of a layer.
    fn logged(&self, layer: &Layer) -> Vec<LogPlace> {
        layer.evidence().map(|evidence| self.once().logged(&evidence)).unwrap_or_default()
    }

    /// Checks a layer with its content as a stranger does.
    fn check(&self, run: &Run<'_>, image: &Digest, layer: &Layer, blob: &[u8]) -> Result<(), SignError> {
        let (signer, mut expected) = (self.signer(), run.expected(image, self.signer()));
        let checked = match self {
            Self::Signature { .. } => check::layer(layer, blob, &expected, signer.verifier()).map(drop),
            Self::Attestation(claim) => {
                expected.annotations.clear();
                let kind = claim.predicate_type;
                check::attestation_layer(layer, blob, kind, &expected, signer.verifier()).map(drop)
            }
        };
        checked.map_err(|reason| run.does_not_verify(image, signer, reason))
    }

    fn limit(&self) -> usize {
        match self {
            Self::Signature { .. } => BLOB_LIMIT,
            Self::Attestation(_) => ATTESTATION_LIMIT,
        }
    }
}

/// Whether the envelope that this layer names holds the claim, signed by its signer.
async fn is_in_envelope(run: &Run<'_>, layer: &Layer, claim: &Claim<'_>) -> Result<bool, SignError> {
    // Too large or unreadable means: not one of ours.
    let Ok(blob) = run.store.get_blob(run.storage(), &layer.digest, ATTESTATION_LIMIT).await else {
        return Ok(false);
    };
    let (Some((statement, signature)), Some(evidence)) = (envelope::open(&blob), layer.evidence()) else {
        return Ok(false);
    };
    if statement != *claim.statement || Digest::of(&blob) != layer.digest {
        return Ok(false);
    }
    let evidence = Evidence { signature, ..evidence };
    Ok(claim.once.signer.has_made(claim.content(), &evidence).await?)
}

/// What stands at one tag.
#[derive(Debug)]
pub(in crate::sign) struct Published {
    pub(in crate::sign) tag: String,
    /// One for each item, in their order.
    layers: Vec<(Layer, Placed)>,
}

impl Published {
    /// Returns where each item stands.
    pub(in crate::sign) fn placed(&self) -> impl Iterator<Item = &Placed> {
        self.layers.iter().map(|(_, placed)| placed)
    }
}

/// Makes a layer for every item stand at the tag: all that are missing go there in one write.
///
/// Registries have no conditional write, so that two writers can each read, add and write, and the second
/// removes the layer of the first. Hence the tag is read again right before the write and after it, and written
/// anew with what stands there now while ours is missing.
pub(in crate::sign) async fn publish(
    run: &Run<'_>,
    tag: String,
    items: &[Item<'_>],
) -> Result<Published, SignError> {
    // Payloads go up while the tag is read and the signatures are made.
    let payloads = items.iter().filter_map(|item| match item {
        Item::Signature { payload, .. } => Some(run.upload(payload.clone())),
        Item::Attestation(_) => None,
    });
    let payloads = futures_util::future::try_join_all(payloads);
    let (_, layers) = tokio::try_join!(payloads, add(run, &tag, items))?;
    Ok(Published { tag, layers })
}

async fn add(run: &Run<'_>, tag: &str, items: &[Item<'_>]) -> Result<Vec<(Layer, Placed)>, SignError> {
    let at = run.storage();
    let docker = run.request.docker_media_types;
    let short = format!("{}….{}", &tag[.."sha256-".len() + 12], tag.rsplit('.').next().unwrap_or_default());
    for attempt in 1..=ATTEMPTS {
        let standing =
            Standing::read(run.store, at, tag).await?.open(run.store, at, tag).await?.or_new(docker);
        // Whoever has none yet signs now, all at the same time: a key service or a log may take its time.
        let looking = items.iter().map(async |item| match item.find(run, &standing.image).await? {
            Some(found) => Ok(Some(found)),
            None => item.make().await.map(|_| None),
        });
        let found = futures_util::future::try_join_all(looking).await?;
        let mut next = standing.image.clone();
        let (mut layers, mut contents) = (Vec::new(), Vec::new());
        for (item, found) in items.iter().zip(found) {
            let found = match (found, item) {
                // A key that was given twice finds what it has just added.
                (None, Item::Signature { .. }) => item.find(run, &next).await?,
                (found, _) => found,
            };
            layers.push(match found {
                Some(found) => found,
                None => {
                    let (layer, content) = item.make().await?;
                    next.append(&layer).map_err(SignError::foreign(at, tag))?;
                    contents.push(content);
                    (layer, true)
                }
            });
        }
        let location = match contents.is_empty() {
            true => standing.digest(),
            false => match run.upload_step(&short, write(run, tag, &standing, &next, contents)).await? {
                Some(location) => location,
                None => {
                    run.note_other_writer(tag);
                    pause(attempt).await;
                    continue;
                }
            },
        };
        let placed = |(item, (layer, own)): (&Item<'_>, (Layer, bool))| {
            let logged = item.logged(&layer);
            (layer, Placed { location, reused: !own, logged })
        };
        return Ok(items.iter().zip(layers).map(placed).collect());
    }
    Err(SignError::LostRace { tag: tag.to_owned(), repository: at.to_string() })
}

/// Writes the tag, if it stands as it stood, and looks whether it stays; none if another writer came between.
async fn write(
    run: &Run<'_>,
    tag: &str,
    standing: &Opened,
    next: &SignatureImage,
    contents: Vec<Bytes>,
) -> Result<Option<Digest>, SignError> {
    let at = run.storage();
    let encoded = next.encode();
    let contents = contents.into_iter().chain([Bytes::from(encoded.config)]);
    futures_util::future::try_join_all(contents.map(|content| run.upload(content))).await?;
    // The upload took a while. What is read here is as fresh as it can be, so that a writer who looks after his
    // own write sees ours.
    if Standing::read(run.store, at, tag).await?.0 != standing.manifest {
        return Ok(None);
    }
    let manifest = Manifest { media_type: encoded.media_type, bytes: Bytes::from(encoded.manifest) };
    let ours = manifest.bytes.clone();
    run.store.put_manifest(at, tag, manifest).await.map_err(SignError::writing(at, tag))?;
    let found = Standing::read(run.store, at, tag).await?.0;
    Ok(found.filter(|found| found.bytes == ours).map(|_| Digest::of(&ours)))
}

/// Reads tag and contents back and checks each layer as it stands there.
///
/// # Errors
/// [`SignError::LostRace`] if another writer, who had read the tag before we wrote it, has removed a layer
/// since.
pub(in crate::sign) async fn verify(
    run: &Run<'_>,
    image: &Digest,
    items: &[Item<'_>],
    published: &Published,
) -> Result<(), SignError> {
    let (at, tag) = (run.storage(), &published.tag);
    let standing = async {
        match run.store.get_manifest(at, tag).await? {
            Some(manifest) => SignatureImage::layers_of(&manifest.bytes).map_err(SignError::foreign(at, tag)),
            None => Ok(Vec::new()),
        }
    };
    let checks = items.iter().zip(&published.layers).map(async |(item, (layer, _))| {
        let blob = run.store.get_blob(at, &layer.digest, item.limit()).await?;
        item.check(run, image, layer, &blob)
    });
    let (standing, _) = tokio::try_join!(standing, futures_util::future::try_join_all(checks))?;
    match published.layers.iter().all(|(layer, _)| standing.contains(layer)) {
        true => Ok(()),
        false => Err(SignError::LostRace { tag: tag.clone(), repository: at.to_string() }),
    }
}
