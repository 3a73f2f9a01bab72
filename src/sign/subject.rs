//! Signs one image, and what is attested of it, in all formats, then verifies it.

use super::bundle;
use super::claim::{Claim, Once};
use super::error::SignError;
use super::legacy::{self, Item};
use super::log::LogPlace;
use super::payload;
use super::run::{Placed, Run};
use super::{Format, SignedSubject, StoredSignature, Subject, pause, referrer};
use crate::event::Step;
use crate::registry::Digest;
use bytes::Bytes;

/// How often everything is begun anew when another writer removed our signature after it had been seen to stand.
const ROUNDS: u32 = 4;

/// What is to be done to one image.
pub(super) struct Work<'a> {
    pub(super) image: Subject,
    /// It is signed; some are only attested.
    pub(super) signs: bool,
    /// What is attested of it: by the number of the statement.
    pub(super) claims: Vec<(usize, &'a Claim<'a>)>,
}

/// What was done.
pub(super) struct Done {
    pub(super) signed: Option<SignedSubject>,
    /// Of each statement that stands somewhere: its number, whether it is new there, and where logs have it.
    pub(super) attested: Vec<(usize, bool, Vec<LogPlace>)>,
    /// The fallback tag lists the bundles; unknown where there are none.
    pub(super) by_tag: Option<bool>,
    /// The tags under which something of it stands.
    pub(super) tags: Vec<String>,
}

/// All that is to stand in the registry for one image, and where: one write for each tag.
struct Wanted<'a> {
    signatures: Vec<Item<'a>>,
    attestations: Vec<Item<'a>>,
    /// The signatures', then the attestations'.
    bundles: Vec<&'a Claim<'a>>,
}

/// What stands there after writing.
struct Written {
    signatures: Option<legacy::Published>,
    attestations: Option<legacy::Published>,
    bundles: Option<referrer::Published>,
}

/// Signs and verifies one image.
pub(super) async fn sign(run: &Run<'_>, work: &Work<'_>) -> Result<Done, SignError> {
    let image = work.image.descriptor.digest;
    let formats = run.request.formats;
    let signers = if work.signs { run.signers } else { &[] };
    let says = signers.iter().map(|signer| {
        let statement = bundle::signed_statement(&image, &run.annotations(signer.as_ref()));
        Claim::new(signer.as_ref(), statement.into(), bundle::SIGNED)
    });
    let says: Vec<Claim<'_>> = says.collect();
    let attested = || work.claims.iter().map(|(_, claim)| *claim);
    let mut wanted = Wanted { signatures: Vec::new(), attestations: Vec::new(), bundles: Vec::new() };
    if formats.has(Format::Legacy) {
        wanted.signatures.extend(signers.iter().map(|signer| {
            let annotations = run.annotations(signer.as_ref());
            let payload = payload::simple_signing(&run.docker_reference(), &image, &annotations);
            Item::Signature { payload: Bytes::from(payload), once: Once::by(signer.as_ref()) }
        }));
        wanted.attestations.extend(attested().map(Item::Attestation));
    }
    if formats.has(Format::Bundle) {
        wanted.bundles.extend(says.iter().chain(attested()));
    }

    let what = format!("sha256:{} ({}) in {}", &image.hex()[..12], work.image.role, run.repository());
    let id = format!("{}@{image}", run.repository());
    let by = run.signers.iter().map(|signer| match signer.public_key() {
        Some(_) => format!("key {}", signer.name()),
        None => signer.name().to_owned(),
    });
    let verb = if work.signs { "signing" } else { "attesting" };
    let signing = format!("{verb} {what} with {}", by.collect::<Vec<_>>().join(" and "));
    for round in 1.. {
        let step = run.events.step(&format!("sign {id}"), signing.clone());
        let written = ending(step, write(run, work, &wanted), |written, step| {
            tell(run, work, written, step);
            written.all().all(|placed| placed.reused)
        })
        .await?;
        run.settle().await;
        let step = run.events.step(&format!("verify {id}"), format!("verifying {what}"));
        match ending(step, verify(run, &image, &wanted, &written), |(), _| false).await {
            Ok(()) => return Ok(done(run, work, &written)),
            Err(SignError::LostRace { tag, .. }) if round < ROUNDS => {
                run.note_other_writer(&tag);
                pause(round).await;
            }
            Err(error) => return Err(error),
        }
    }
    unreachable!("the last round returns")
}

/// Ends the step as the work does: failed, done, or, if `found` says so of the result, found as it was.
async fn ending<T>(
    step: Step,
    work: impl Future<Output = Result<T, SignError>>,
    found: impl FnOnce(&T, &Step) -> bool,
) -> Result<T, SignError> {
    match work.await {
        Ok(value) => {
            match found(&value, &step) {
                true => step.cached(),
                false => step.done(),
            }
            Ok(value)
        }
        Err(error) => {
            step.fail(&error);
            Err(error)
        }
    }
}

/// Does something with what is there, if anything is.
async fn unless_empty<T, R>(
    items: &[T],
    work: impl Future<Output = Result<R, SignError>>,
) -> Result<Option<R>, SignError> {
    match items.is_empty() {
        true => Ok(None),
        false => work.await.map(Some),
    }
}

async fn write(run: &Run<'_>, work: &Work<'_>, wanted: &Wanted<'_>) -> Result<Written, SignError> {
    let image = &work.image.descriptor;
    let Wanted { signatures, attestations, bundles } = wanted;
    let (signatures, attestations, bundles) = tokio::try_join!(
        unless_empty(signatures, legacy::publish(run, legacy::tag(&image.digest), signatures)),
        unless_empty(
            attestations,
            legacy::publish(run, legacy::attestation_tag(&image.digest), attestations)
        ),
        unless_empty(bundles, referrer::publish(run, image, bundles)),
    )?;
    Ok(Written { signatures, attestations, bundles })
}

async fn verify(
    run: &Run<'_>,
    image: &Digest,
    wanted: &Wanted<'_>,
    written: &Written,
) -> Result<(), SignError> {
    let at_tag = async |items: &[Item<'_>], published: &Option<legacy::Published>| match published {
        Some(published) => legacy::verify(run, image, items, published).await,
        None => Ok(()),
    };
    let bundles = async {
        match &written.bundles {
            Some(published) => referrer::verify(run, image, &wanted.bundles, published).await,
            None => Ok(()),
        }
    };
    tokio::try_join!(
        at_tag(&wanted.signatures, &written.signatures),
        at_tag(&wanted.attestations, &written.attestations),
        bundles
    )
    .map(|_| ())
}

impl Written {
    fn at_tag(published: &Option<legacy::Published>) -> impl Iterator<Item = &Placed> {
        published.iter().flat_map(legacy::Published::placed)
    }

    fn in_bundles(&self) -> impl Iterator<Item = &Placed> {
        self.bundles.iter().flat_map(referrer::Published::placed)
    }

    fn all(&self) -> impl Iterator<Item = &Placed> {
        Self::at_tag(&self.signatures).chain(Self::at_tag(&self.attestations)).chain(self.in_bundles())
    }

    /// Returns where the statements stand, each with its number among the work's.
    fn attested(&self, work: &Work<'_>) -> impl Iterator<Item = (usize, Format, &Placed)> {
        let legacy = Self::at_tag(&self.attestations).enumerate();
        // The signatures' come first.
        let signatures = self.in_bundles().count().saturating_sub(work.claims.len());
        let bundles = self.in_bundles().skip(signatures).enumerate();
        let of = |format| move |(number, placed)| (number, format, placed);
        legacy.map(of(Format::Legacy)).chain(bundles.map(of(Format::Bundle)))
    }
}

/// Says under the step what stands where.
fn tell(run: &Run<'_>, work: &Work<'_>, written: &Written, step: &Step) {
    let already = |reused: bool| if reused { "already " } else { "" };
    for StoredSignature { signer, format, location, reused, .. } in signatures(run, work, written) {
        step.line(format!("{}signed by {signer} ({format}): {location}", already(reused)));
    }
    for (number, format, Placed { location, reused, .. }) in written.attested(work) {
        let claim = work.claims[number].1;
        let (kind, signer) = (claim.predicate_type, claim.once.signer.name());
        step.line(format!("{}attested {kind} by {signer} ({format}): {location}", already(*reused)));
    }
}

fn done(run: &Run<'_>, work: &Work<'_>, written: &Written) -> Done {
    let signatures = signatures(run, work, written);
    let attested = written
        .attested(work)
        .map(|(number, _, placed)| (work.claims[number].0, !placed.reused, placed.logged.clone()));
    let by_tag = written.bundles.as_ref().map(|bundles| bundles.by_tag);
    let at_tags = written.signatures.iter().chain(&written.attestations);
    let mut tags: Vec<String> = at_tags.map(|published| published.tag.clone()).collect();
    tags.extend((by_tag == Some(true)).then(|| work.image.descriptor.digest.tag()));
    Done {
        signed: work.signs.then(|| SignedSubject { subject: work.image.clone(), signatures }),
        attested: attested.collect(),
        by_tag,
        tags,
    }
}

fn signatures(run: &Run<'_>, work: &Work<'_>, written: &Written) -> Vec<StoredSignature> {
    let signers = if work.signs { run.signers } else { &[] };
    let signers = || signers.iter().map(|signer| signer.name());
    let stored = |format| {
        move |(signer, placed): (&str, &Placed)| {
            let Placed { location, reused, logged } = placed.clone();
            StoredSignature { signer: signer.to_owned(), format, location, reused, logged }
        }
    };
    let legacy = signers().zip(Written::at_tag(&written.signatures)).map(stored(Format::Legacy));
    legacy.chain(signers().zip(written.in_bundles()).map(stored(Format::Bundle))).collect()
}
