//! Pushes bundles as referrers of their image, and keeps the fallback index where the registry lists none.

use super::read::{Listing, find_claims, limit, list, open_index};
use super::{EMPTY_CONFIG, Entry, FallbackIndex, OCI_INDEX, OCI_MANIFEST, find, referrer};
use crate::registry::{Descriptor, Digest};
use crate::sign::bundle;
use crate::sign::check;
use crate::sign::claim::Claim;
use crate::sign::error::SignError;
use crate::sign::pause;
use crate::sign::run::{Placed, Run};
use crate::sign::store::Manifest;
use bytes::Bytes;

/// How often the fallback tag is written when other writers overwrite it, and a list is read until it is whole.
const ATTEMPTS: u32 = 6;

/// What was found or made for one image.
#[derive(Debug)]
pub(in crate::sign) struct Published {
    /// The registry has no referrers API, so that the index under the fallback tag lists the bundles.
    pub(in crate::sign) by_tag: bool,
    /// One for each claim, in their order.
    bundles: Vec<Stands>,
}

impl Published {
    /// Returns where each claim stands.
    pub(in crate::sign) fn placed(&self) -> impl Iterator<Item = &Placed> {
        self.bundles.iter().map(|bundle| &bundle.placed)
    }
}

/// What was found or made for one claim.
#[derive(Clone, Debug)]
pub(super) struct Stands {
    /// What an index says of the manifest that holds the bundle.
    pub(super) entry: Entry,
    pub(super) bundle: Digest,
    pub(super) placed: Placed,
}

/// Makes a bundle of every claim refer to the image, and the fallback index name them, by one write, where the registry
/// lists none.
///
/// As with the `.sig` tag, two writers can remove each other's entries from that index, so it is read right before the
/// write and after it.
pub(in crate::sign) async fn publish(
    run: &Run<'_>,
    image: &Descriptor,
    claims: &[&Claim<'_>],
) -> Result<Published, SignError> {
    let ((), published) = tokio::try_join!(run.upload(EMPTY_CONFIG.into()), add(run, image, claims))?;
    Ok(published)
}

async fn add(run: &Run<'_>, image: &Descriptor, claims: &[&Claim<'_>]) -> Result<Published, SignError> {
    let at = run.storage();
    let listing = list(run.store, at, &image.digest).await?;
    let found = find_claims(run.store, at, &image.digest, listing.descriptors(), claims).await?;

    // All at the same time: a key service or a log may take its time.
    let making = claims.iter().zip(found).map(async |(claim, found)| match found {
        Some(stands) => Ok((stands, None)),
        None => upload(run, image, claim).await.map(|(stands, manifest)| (stands, Some(manifest))),
    });
    let made = futures_util::future::try_join_all(making).await?;
    let (bundles, new): (Vec<Stands>, Vec<Option<Manifest>>) = made.into_iter().unzip();
    let anything = new.iter().any(Option::is_some);
    // The header OCI-Subject of the answers isn't asked for: verifiers go by the referrers API alone.
    let writing = new.into_iter().flatten().map(async |manifest| {
        let digest = Digest::of(&manifest.bytes).to_string();
        run.store.put_manifest(at, &digest, manifest).await.map_err(SignError::from)
    });
    let writing = futures_util::future::try_join_all(writing);
    let (by_tag, tag) = (matches!(listing, Listing::Tag(_)), image.digest.tag());
    let all = async {
        if !by_tag {
            return writing.await.map(drop);
        }
        let (_, index) = tokio::try_join!(writing, read_index(run, &tag))?;
        write_index(run, &tag, index, &bundles).await
    };
    match anything {
        true => run.upload_step(&format!("bundles about sha256:{}", &image.digest.hex()[..12]), all).await?,
        false => all.await?,
    }
    Ok(Published { by_tag, bundles })
}

/// Makes the fallback index name every bundle, completely.
async fn write_index(
    run: &Run<'_>,
    tag: &str,
    mut index: FallbackIndex,
    bundles: &[Stands],
) -> Result<(), SignError> {
    let at = run.storage();
    for attempt in 1..=ATTEMPTS {
        if complete(&mut index, bundles) {
            return Ok(());
        }
        let manifest = Manifest { media_type: OCI_INDEX.to_owned(), bytes: Bytes::from(index.to_vec()) };
        run.store.put_manifest(at, tag, manifest).await.map_err(SignError::writing(at, tag))?;
        index = read_index(run, tag).await?;
        if complete(&mut index.clone(), bundles) {
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
    claims: &[&Claim<'_>],
    published: &Published,
) -> Result<(), SignError> {
    let pairs = claims.iter().zip(&published.bundles);
    let checks = pairs.map(|(claim, stands)| check_one(run, claim, stands, image));
    let checks = futures_util::future::try_join_all(checks);
    tokio::try_join!(checks, check_listed(run, image, published)).map(|_| ())
}

async fn check_one(
    run: &Run<'_>,
    claim: &Claim<'_>,
    stands: &Stands,
    image: &Digest,
) -> Result<(), SignError> {
    let (at, digest, signer) = (run.storage(), stands.entry.digest, claim.once.signer);
    let mut expected = run.expected(image, signer);
    if claim.predicate_type != bundle::SIGNED {
        expected.annotations.clear();
    }
    let reference = digest.to_string();
    let manifest = run.store.get_manifest(at, &reference);
    let blob = run.store.get_blob(at, &stands.bundle, limit(claim.predicate_type));
    let (manifest, blob) = tokio::try_join!(manifest, blob)?;
    let refused = |reason: String| run.does_not_verify(image, signer, reason);
    let found = manifest
        .filter(|manifest| Digest::of(&manifest.bytes) == digest)
        .and_then(|manifest| find(&manifest.bytes, image))
        .ok_or_else(|| refused(format!("{digest} is gone, or is no referrer of the image")))?;
    if found.bundle != stands.bundle {
        return Err(refused(format!("{digest} holds another bundle")));
    }
    let (kind, verifier) = (claim.predicate_type, signer.verifier());
    check::attestation_bundle(&found.bundle, &blob, kind, &expected, verifier).map(drop).map_err(refused)
}

async fn check_listed(run: &Run<'_>, image: &Digest, published: &Published) -> Result<(), SignError> {
    if !published.by_tag {
        return wait_until_listed(run, image, &published.bundles).await;
    }
    let tag = image.tag();
    let mut index = read_index(run, &tag).await?;
    match complete(&mut index, &published.bundles) {
        true => Ok(()),
        false => Err(SignError::LostRace { tag, repository: run.storage().to_string() }),
    }
}

/// Signs, and uploads all that the referrer names; the referrer itself is returned.
async fn upload(
    run: &Run<'_>,
    image: &Descriptor,
    claim: &Claim<'_>,
) -> Result<(Stands, Manifest), SignError> {
    let evidence = claim.once.sign(claim.content()).await?;
    let blob = Bytes::from(bundle::encode(&claim.statement, evidence));
    let created = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let referrer = referrer(image, &blob, claim.predicate_type, &created);
    let bundle = Digest::of(&blob);
    tokio::try_join!(run.upload(blob), run.upload(EMPTY_CONFIG.into()))?;
    let logged = claim.once.logged(evidence);
    let placed = Placed { location: referrer.entry.digest, reused: false, logged };
    let manifest = Manifest { media_type: OCI_MANIFEST.to_owned(), bytes: Bytes::from(referrer.manifest) };
    Ok((Stands { entry: referrer.entry, bundle, placed }, manifest))
}

/// Adds what the index lacks of these bundles; returns whether it lacked nothing.
fn complete(index: &mut FallbackIndex, bundles: &[Stands]) -> bool {
    bundles.iter().filter(|stands| index.put(&stands.entry)).count() == 0
}

/// Waits until the referrers API lists every bundle: some registries index after they answered.
async fn wait_until_listed(run: &Run<'_>, image: &Digest, bundles: &[Stands]) -> Result<(), SignError> {
    let new: Vec<Digest> =
        bundles.iter().filter(|stands| !stands.placed.reused).map(|stands| stands.entry.digest).collect();
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
