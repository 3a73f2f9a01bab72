//! Signs what BuildKit attested of an image: provenance and bills of materials.
//!
//! BuildKit's statements name one platform each and are signed by nobody. Each becomes a statement of ours with the
//! same predicate, byte for byte, about the index under its tags and about the platform's image; it is signed once by
//! each signer and attached to both, as a layer of the `.att` tag and as a bundle. The original is found from the
//! index's own digest, each step checked against the digest that the step before gave.

mod envelope;
mod legacy;
mod referrer;
mod statement;

use super::error::SignError;
use super::evidence::{Content, Evidence, Signer};
use super::log::LogPlace;
use super::store::Store;
use super::{Format, Formats};
use crate::event::Events;
use crate::registry::{Descriptor, Digest, Reference, Repository};
use statement::Original;
use std::sync::Mutex;

/// The largest statement that is read; a bill of materials of a large image takes some megabytes.
const STATEMENT_LIMIT: usize = 64 << 20;

/// What is to be attested.
#[derive(Clone, Debug)]
pub struct AttestRequest {
    /// Where the image is, and what the statements name where there are no tags.
    pub repository: Repository,
    /// Where the attestations go, if not there.
    pub storage: Option<Repository>,
    /// The index.
    pub image: Descriptor,
    /// The tags of this repository that will point at it.
    pub tags: Vec<Reference>,
    /// The formats.
    pub formats: Formats,
}

/// An attestation that is signed and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAttestation {
    /// What kind of statement it is.
    pub predicate_type: String,
    /// The platform's image that it is about, beside the index.
    pub image: Digest,
    /// Each of them had it already, from every signer.
    pub reused: bool,
    /// Where logs have it.
    pub logged: Vec<LogPlace>,
}

/// One statement on its way into the registry.
struct Signed<'a> {
    statement: &'a [u8],
    predicate_type: &'a str,
    signer: &'a dyn Signer,
    /// `None` until it is needed: what is found need not be made.
    evidence: tokio::sync::OnceCell<Evidence>,
    /// Where logs have what was found or made.
    logged: Mutex<Vec<LogPlace>>,
}

impl Signed<'_> {
    /// Returns the signature, made on first use.
    async fn evidence(&self) -> Result<&Evidence, SignError> {
        let sign =
            || async { Ok::<_, SignError>(self.signer.sign(Content::Statement(self.statement)).await?) };
        self.evidence.get_or_try_init(sign).await
    }

    /// Whether this evidence is the signer's, over this statement, so that it need not be made again.
    async fn is_made_by(&self, evidence: &Evidence) -> Result<bool, SignError> {
        Ok(self.signer.has_made(Content::Statement(self.statement), evidence).await?)
    }

    /// Keeps in mind where logs have it.
    fn note(&self, evidence: &Evidence) {
        let places = evidence.log_places(self.signer.verifier().trust());
        let mut logged = self.logged.lock().expect("nobody panics while holding it");
        for place in places {
            // Both formats and both subjects share one signature.
            if !logged
                .iter()
                .any(|known: &LogPlace| known.index == place.index && known.log_id == place.log_id)
            {
                logged.push(place);
            }
        }
    }

    fn check(&self, image: &Digest, at: &Repository, evidence: &Evidence) -> Result<(), SignError> {
        let checked = self.signer.verifier().verify(Content::Statement(self.statement), evidence);
        checked.map_err(|reason| SignError::DoesNotVerify {
            image: *image,
            signer: self.signer.name().to_owned(),
            repository: at.to_string(),
            reason,
        })
    }
}

/// Signs the attestations that an index carries, reads them back and verifies them; nothing of an image without any.
///
/// Safe to repeat: what is there already is kept.
///
/// # Errors
/// [`SignError`]; [`SignError::Attestation`] if a statement is not about the image that carries it.
pub async fn attest_image(
    store: &dyn Store,
    signers: &[Box<dyn Signer>],
    request: &AttestRequest,
    events: &Events,
) -> Result<Vec<SignedAttestation>, SignError> {
    let originals = statement::collect(store, &request.repository, &request.image).await?;
    let at = request.storage.as_ref().unwrap_or(&request.repository);
    let mut done = Vec::new();
    for original in &originals {
        let Original { image, role, predicate_type, .. } = original;
        let what = format!("signing {predicate_type} of {role} in {}", request.repository);
        let step = events.step(&format!("attest {at} {} {predicate_type}", image.digest), what);
        let attested = one(store, at, signers, request, original).await;
        let (reused, logged) = match attested {
            Ok(attested) => attested,
            Err(error) => {
                step.fail(&error);
                return Err(error);
            }
        };
        match reused {
            true => step.cached(),
            false => step.done(),
        }
        let (predicate_type, image) = (predicate_type.clone(), image.digest);
        done.push(SignedAttestation { predicate_type, image, reused, logged });
    }
    Ok(done)
}

async fn one(
    store: &dyn Store,
    at: &Repository,
    signers: &[Box<dyn Signer>],
    request: &AttestRequest,
    original: &Original,
) -> Result<(bool, Vec<LogPlace>), SignError> {
    let statement = statement::ours(original, &request.repository, &request.tags, &request.image.digest);
    let signed = signers.iter().map(|signer| Signed {
        statement: &statement,
        predicate_type: &original.predicate_type,
        signer: signer.as_ref(),
        evidence: tokio::sync::OnceCell::new(),
        logged: Mutex::default(),
    });
    let signed: Vec<Signed<'_>> = signed.collect();
    // The index and the image have tags of their own.
    let attach = async |subject: &Descriptor| {
        let legacy = async {
            match request.formats.has(Format::Legacy) {
                true => legacy::attach(store, at, &subject.digest, &signed).await,
                false => Ok(true),
            }
        };
        let bundles = async {
            match request.formats.has(Format::Bundle) {
                true => referrer::attach(store, at, subject, &signed).await,
                false => Ok(true),
            }
        };
        tokio::try_join!(legacy, bundles)
    };
    let (index, image) = tokio::try_join!(attach(&request.image), attach(&original.image))?;
    let logged =
        signed.into_iter().flat_map(|one| one.logged.into_inner().expect("nobody panics while holding it"));
    Ok((index.0 && index.1 && image.0 && image.1, logged.collect()))
}
