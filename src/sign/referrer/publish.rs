//! Pushes bundles as referrers of their image, and keeps the fallback index where the registry lists none.

use super::read::{BUNDLE_LIMIT, Listing, Stored, fetch_bundles, list, open_index};
use super::{Entry, FallbackIndex, OCI_INDEX, OCI_MANIFEST, find, referrer};
use crate::registry::{Descriptor, Digest};
use crate::sign::bundle;
use crate::sign::check;
use crate::sign::error::SignError;
use crate::sign::evidence::{Content, Evidence, Signer};
use crate::sign::pause;
use crate::sign::run::{Placed, Run};
use crate::sign::store::Manifest;
use bytes::Bytes;

/// How often the fallback tag is written when other writers overwrite it, and a list is read until it is whole.
const ATTEMPTS: u32 = 6;

/// What was found or made for one image.
#[derive(Debug, Default)]
pub(in crate::sign) struct Published {
    /// The registry has no referrers API, so that the index under the fallback tag lists the signatures.
    by_tag: bool,
    /// One for each signer, in their order.
    signatures: Vec<Signature>,
}

impl Published {
    /// Returns where each signer's signature stands.
    pub(in crate::sign) fn placed(&self) -> Vec<Placed> {
        self.signatures.iter().map(|signature| signature.placed.clone()).collect()
    }
}

/// What was found or made for one signer.
#[derive(Debug)]
struct Signature {
    entry: Entry,
    bundle: Digest,
    placed: Placed,
}

/// Makes a bundle of every signer refer to the image, and the fallback index name them where the registry lists none.
///
/// As with the `.sig` tag, two writers can remove each other's entries from that index, so it is read right before the
/// write and after it.
pub(in crate::sign) async fn publish(run: &Run<'_>, image: &Descriptor) -> Result<Published, SignError> {
    let ((), published) = tokio::try_join!(run.ensure_empty_config(), add(run, image))?;
    Ok(published)
}

async fn add(run: &Run<'_>, image: &Descriptor) -> Result<Published, SignError> {
    let at = run.storage();
    let listing = list(run.store, at, &image.digest).await?;
    let stored = fetch_bundles(run.store, at, &image.digest, listing.descriptors()).await?;

    let (mut signatures, mut new) = (Vec::new(), Vec::new());
    for signer in run.signers {
        signatures.push(match find_by(&stored, signer.as_ref(), run, &image.digest).await? {
            Some((Stored { entry, bundle, .. }, evidence)) => {
                let logged = evidence.log_places(signer.verifier().trust());
                let placed = Placed { location: entry.digest, reused: true, logged };
                Signature { entry: entry.clone(), bundle: *bundle, placed }
            }
            None => {
                let annotations = run.annotations(signer.as_ref());
                let statement = bundle::signed_statement(&image.digest, &annotations);
                let (signature, manifest) = upload(run, image, signer.as_ref(), &statement).await?;
                new.push((signature.entry.digest, manifest));
                signature
            }
        });
    }
    // The header OCI-Subject of the answers isn't asked for: verifiers go by the referrers API alone.
    let writing = new.into_iter().map(async |(digest, manifest)| {
        run.store.put_manifest(at, &digest.to_string(), manifest).await.map_err(SignError::from)
    });
    let writing = futures_util::future::try_join_all(writing);
    let by_tag = match listing {
        Listing::Api(_) => {
            writing.await?;
            false
        }
        Listing::Tag(_) => {
            let tag = image.digest.tag();
            let (_, index) = tokio::try_join!(writing, read_index(run, &tag))?;
            write_index(run, &tag, index, &signatures).await?;
            true
        }
    };
    Ok(Published { by_tag, signatures })
}

/// Makes the fallback index name every bundle, completely.
async fn write_index(
    run: &Run<'_>,
    tag: &str,
    mut index: FallbackIndex,
    signatures: &[Signature],
) -> Result<(), SignError> {
    let at = run.storage();
    for attempt in 1..=ATTEMPTS {
        if complete(&mut index, signatures) {
            return Ok(());
        }
        let manifest = Manifest { media_type: OCI_INDEX.to_owned(), bytes: Bytes::from(index.to_vec()) };
        run.store.put_manifest(at, tag, manifest).await.map_err(SignError::writing(at, tag))?;
        index = read_index(run, tag).await?;
        if complete(&mut index.clone(), signatures) {
            return Ok(());
        }
        run.note_other_writer(tag);
        pause(attempt).await;
        index = read_index(run, tag).await?;
    }
    Err(SignError::LostRace { tag: tag.to_owned(), repository: at.to_string() })
}

async fn read_index(run: &Run<'_>, tag: &str) -> Result<FallbackIndex, SignError> {
    open_index(run.storage(), tag, run.store.get_manifest(run.storage(), tag).await?)
}

/// Reads each bundle back, from its listing on, and checks it.
///
/// # Errors
/// [`SignError::LostRace`] if another writer, who had read the index before we wrote it, has removed an entry
/// since.
pub(in crate::sign) async fn verify(
    run: &Run<'_>,
    image: &Digest,
    published: &Published,
) -> Result<(), SignError> {
    let pairs = run.signers.iter().zip(&published.signatures);
    let checks = pairs.map(|(signer, signature)| check_one(run, signer.as_ref(), signature, image));
    let checks = futures_util::future::try_join_all(checks);
    tokio::try_join!(checks, check_listed(run, image, published)).map(|_| ())
}

async fn check_one(
    run: &Run<'_>,
    signer: &dyn Signer,
    signature: &Signature,
    image: &Digest,
) -> Result<(), SignError> {
    let (at, digest) = (run.storage(), signature.entry.digest);
    let expected = run.expected(image, signer);
    let reference = digest.to_string();
    let manifest = run.store.get_manifest(at, &reference);
    let blob = run.store.get_blob(at, &signature.bundle, BUNDLE_LIMIT);
    let (manifest, blob) = tokio::try_join!(manifest, blob)?;
    let refused = |reason: String| run.does_not_verify(image, signer, reason);
    let found = manifest
        .filter(|manifest| Digest::of(&manifest.bytes) == digest)
        .and_then(|manifest| find(&manifest.bytes, image))
        .ok_or_else(|| refused(format!("{digest} is gone, or is no referrer of the image")))?;
    if found.bundle != signature.bundle {
        return Err(refused(format!("{digest} holds another bundle")));
    }
    check::bundle(&found.bundle, &blob, &expected, signer.verifier()).map(|_| ()).map_err(refused)
}

async fn check_listed(run: &Run<'_>, image: &Digest, published: &Published) -> Result<(), SignError> {
    if !published.by_tag {
        return wait_until_listed(run, image, &published.signatures).await;
    }
    let tag = image.tag();
    let mut index = read_index(run, &tag).await?;
    match complete(&mut index, &published.signatures) {
        true => Ok(()),
        false => Err(SignError::LostRace { tag, repository: run.storage().to_string() }),
    }
}

/// Returns the bundle that says what we are about to say, signed by the same signer. Statements are compared by their
/// meaning: cosign's builds differ in the spaces that they write.
async fn find_by<'a>(
    stored: &'a [Stored],
    signer: &dyn Signer,
    run: &Run<'_>,
    image: &Digest,
) -> Result<Option<(&'a Stored, Evidence)>, SignError> {
    for stored in stored.iter().filter(|stored| Digest::of(&stored.blob) == stored.bundle) {
        let Ok(bundle::Opened { statement, evidence }) = bundle::open(&stored.blob) else { continue };
        let says_the_same = bundle::Statement::parse(&statement).is_ok_and(|statement| {
            statement.predicate_type == bundle::SIGNED
                && statement.about(image).is_some_and(|annotations| annotations == run.annotations(signer))
        });
        if says_the_same && signer.has_made(Content::Statement(&statement), &evidence).await? {
            return Ok(Some((stored, evidence)));
        }
    }
    Ok(None)
}

/// Signs, and uploads all that the referrer names; the referrer itself is returned.
async fn upload(
    run: &Run<'_>,
    image: &Descriptor,
    signer: &dyn Signer,
    statement: &[u8],
) -> Result<(Signature, Manifest), SignError> {
    let evidence = signer.sign(Content::Statement(statement)).await?;
    let blob = Bytes::from(bundle::encode(statement, &evidence));
    let created = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let referrer = referrer(image, &blob, bundle::SIGNED, &created);
    let bundle = Digest::of(&blob);
    let blob = async { Ok(run.store.put_blob(run.storage(), blob).await?) };
    tokio::try_join!(blob, run.ensure_empty_config())?;
    let logged = evidence.log_places(signer.verifier().trust());
    let placed = Placed { location: referrer.entry.digest, reused: false, logged };
    let manifest = Manifest { media_type: OCI_MANIFEST.to_owned(), bytes: Bytes::from(referrer.manifest) };
    Ok((Signature { entry: referrer.entry, bundle, placed }, manifest))
}

/// Adds what the index lacks of these signatures; returns whether it lacked nothing.
fn complete(index: &mut FallbackIndex, signatures: &[Signature]) -> bool {
    signatures.iter().filter(|signature| index.put(&signature.entry)).count() == 0
}

/// Waits until the referrers API lists every bundle: some registries index after they answered.
async fn wait_until_listed(run: &Run<'_>, image: &Digest, signatures: &[Signature]) -> Result<(), SignError> {
    let new: Vec<Digest> = signatures
        .iter()
        .filter(|signature| !signature.placed.reused)
        .map(|signature| signature.entry.digest)
        .collect();
    let at = run.storage();
    for attempt in 1..=ATTEMPTS {
        if new.is_empty() {
            return Ok(());
        }
        let listed = run.store.referrers(at, image).await?.unwrap_or_default();
        if new.iter().all(|digest| listed.iter().any(|listed| listed.digest == *digest)) {
            return Ok(());
        }
        if attempt < ATTEMPTS {
            pause(attempt).await;
        }
    }
    Err(SignError::NotListed { referrer: new[0], image: *image, repository: at.to_string() })
}
