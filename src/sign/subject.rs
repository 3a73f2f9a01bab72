//! Signs one image in all formats, then verifies it.

use super::error::SignError;
use super::run::{Placed, Run};
use super::{Format, SignedSubject, StoredSignature, Subject, legacy, pause, referrer};
use crate::event::Step;
use crate::registry::Digest;

/// How often everything is begun anew when another writer removed our signature after it had been seen to stand.
const ROUNDS: u32 = 4;

/// What stands in the registry after writing.
struct Written {
    legacy: Option<legacy::Published>,
    bundles: referrer::Published,
}

/// Signs and verifies one image.
pub(super) async fn sign(run: &Run<'_>, subject: &Subject) -> Result<SignedSubject, SignError> {
    let image = subject.descriptor.digest;
    let what = format!("sha256:{} ({}) in {}", &image.hex()[..12], subject.role, run.repository());
    let id = format!("{}@{image}", run.repository());
    let by = run.signers.iter().map(|signer| match signer.public_key() {
        Some(_) => format!("key {}", signer.name()),
        None => signer.name().to_owned(),
    });
    let signing = format!("signing {what} with {}", by.collect::<Vec<_>>().join(" and "));

    for round in 1.. {
        let step = run.events.step(&format!("sign {id}"), signing.clone());
        let written = ending(step, write(run, subject), |written, step| {
            let signatures = signatures(run, written);
            for StoredSignature { signer, format, location, reused, .. } in &signatures {
                let verb = if *reused { "already signed" } else { "signed" };
                step.line(format!("{verb} by {signer} ({format}): {location}"));
            }
            signatures.iter().all(|signature| signature.reused)
        })
        .await?;
        run.settle().await;
        let step = run.events.step(&format!("verify {id}"), format!("verifying {what}"));
        match ending(step, verify(run, &image, &written), |(), _| false).await {
            Ok(()) => {
                let signatures = signatures(run, &written);
                return Ok(SignedSubject { subject: subject.clone(), signatures });
            }
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

async fn write(run: &Run<'_>, subject: &Subject) -> Result<Written, SignError> {
    let formats = run.request.formats;
    let legacy = async {
        match formats.has(Format::Legacy) {
            true => legacy::publish(run, &subject.descriptor.digest).await.map(Some),
            false => Ok(None),
        }
    };
    let bundles = async {
        match formats.has(Format::Bundle) {
            true => referrer::publish(run, &subject.descriptor).await,
            false => Ok(referrer::Published::default()),
        }
    };
    let (legacy, bundles) = tokio::try_join!(legacy, bundles)?;
    Ok(Written { legacy, bundles })
}

async fn verify(run: &Run<'_>, image: &Digest, written: &Written) -> Result<(), SignError> {
    let legacy = async {
        match &written.legacy {
            Some(published) => legacy::verify(run, image, published).await,
            None => Ok(()),
        }
    };
    tokio::try_join!(legacy, referrer::verify(run, image, &written.bundles)).map(|_| ())
}

fn signatures(run: &Run<'_>, written: &Written) -> Vec<StoredSignature> {
    let of = |format, placed: Vec<Placed>| {
        run.signers.iter().zip(placed).map(move |(signer, Placed { location, reused, logged })| {
            let signer = signer.name().to_owned();
            StoredSignature { signer, format, location, reused, logged }
        })
    };
    let legacy = written.legacy.as_ref().map(legacy::Published::placed).unwrap_or_default();
    of(Format::Legacy, legacy).chain(of(Format::Bundle, written.bundles.placed())).collect()
}
