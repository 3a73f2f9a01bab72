//! Looks for signatures of an image as a stranger does: from the registry alone, in both formats.

use super::check::{self, Envelope, Expected, Said};
use super::error::SignError;
use super::evidence::{Material, Verifier};
use super::log::LogPlace;
use super::store::Store;
use super::trust::CertificateIdentity;
use super::{Format, Formats, bundle, legacy, referrer};
use crate::registry::{Digest, Repository};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// What to look for.
#[derive(Clone, Debug)]
pub struct VerifyRequest {
    /// Where the signatures are: the image's repository, if not told otherwise.
    pub storage: Repository,
    /// The image, resolved once: nothing of what follows looks at tags of it again.
    pub image: Digest,
    /// What counts.
    pub wanted: Wanted,
    /// The repository that signatures must name, if that matters. Bundles name none and pass.
    pub docker_reference: Option<String>,
    /// Annotations that must have been signed.
    pub annotations: BTreeMap<String, String>,
    /// Where to look. The presence of one format never hides the other.
    pub formats: Formats,
    /// The largest attestation that is read, usually [`ATTESTATION_LIMIT`](super::ATTESTATION_LIMIT).
    pub largest_attestation: usize,
}

/// What counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A signature: a provenance by the same key says how the image was built, not that it is approved.
    Signature,
    /// A statement about the image, of this predicate type.
    Attestation(String),
}

impl Wanted {
    fn predicate_type(&self) -> &str {
        match self {
            Self::Signature => bundle::SIGNED,
            Self::Attestation(predicate_type) => predicate_type,
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Signatures that hold. One is enough; none means that the image isn't signed by whom was asked for.
    pub accepted: Vec<AcceptedSignature>,
    /// Signatures that don't, others' among them.
    pub refused: Vec<RefusedSignature>,
}

/// A signature that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedSignature {
    /// How it is stored.
    pub format: Format,
    /// The manifest that holds it.
    pub location: Digest,
    /// The repository that it names; bundles name none.
    pub docker_reference: Option<String>,
    /// The kind of statement: `critical.type`, or the predicate type.
    pub kind: String,
    /// What was signed along.
    pub annotations: BTreeMap<String, String>,
    /// What the certificate beside it says: as good as the verifier, since one that knows a key looks at no certificate.
    pub certificate: Option<CertificateIdentity>,
    /// Where logs have it.
    pub logged: Vec<LogPlace>,
    /// The verifier checked what the logs say, so that they do have it.
    pub log_checked: bool,
    /// The DSSE envelope as JSON in one line, of an attestation.
    pub envelope: Option<String>,
}

/// Why a verifier of identities refuses a key's signature.
pub const NO_CERTIFICATE: &str = "it was made with a key, not with a certificate";

/// A signature that doesn't hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSignature {
    /// How it is stored.
    pub format: Format,
    /// The manifest that holds it, or should.
    pub location: Digest,
    /// Why not, as a clause: `it is for the image …`.
    pub reason: String,
}

impl Verdict {
    fn add(
        &mut self,
        format: Format,
        location: Digest,
        verifier: &dyn Verifier,
        checked: Result<(Said, Option<Envelope>), String>,
    ) {
        match checked {
            Ok((said, envelope)) => {
                let Said { evidence, docker_reference, kind, annotations } = said;
                let certificate = match &evidence.material {
                    Material::Certificate { leaf, .. } => CertificateIdentity::read(leaf).ok(),
                    Material::PublicKey { .. } => None,
                };
                let trust = verifier.trust();
                let (logged, log_checked) = (evidence.log_places(trust), trust.is_some());
                let envelope = envelope.map(|envelope| envelope.to_json());
                self.accepted.push(AcceptedSignature {
                    format,
                    location,
                    docker_reference,
                    kind,
                    annotations,
                    certificate,
                    logged,
                    log_checked,
                    envelope,
                });
            }
            Err(reason) => self.refused.push(RefusedSignature { format, location, reason }),
        }
    }
}

/// Checks every signature of the image that the registry holds.
///
/// What can't be read hides nothing: if another signature holds, that is enough. If none does, an unread one
/// could have.
///
/// # Errors
/// [`SignError`] when no signature holds and something could not be read; signatures that don't hold are no
/// error but in the verdict.
pub async fn verify_image(
    store: &dyn Store,
    verifier: &dyn Verifier,
    request: &VerifyRequest,
) -> Result<Verdict, SignError> {
    let expected = Expected {
        image: request.image,
        docker_reference: request.docker_reference.clone(),
        kind: None,
        annotations: request.annotations.clone(),
    };
    let looking = Looking { store, verifier, request, expected };
    let (legacy, bundles) = tokio::join!(looking.at_tag(), looking.at_referrers());
    let mut verdict = Verdict::default();
    let mut unread = None;
    for found in [legacy, bundles] {
        let Found { verdict: part, unread: error } = found;
        verdict.accepted.extend(part.accepted);
        verdict.refused.extend(part.refused);
        unread = unread.or(error);
    }
    match unread {
        Some(error) if verdict.accepted.is_empty() => Err(error),
        _ => Ok(verdict),
    }
}

struct Looking<'a> {
    store: &'a dyn Store,
    verifier: &'a dyn Verifier,
    request: &'a VerifyRequest,
    expected: Expected,
}

/// What one of the two places holds, as far as it could be read.
#[derive(Default)]
struct Found {
    verdict: Verdict,
    unread: Option<SignError>,
}

impl Found {
    /// Keeps the first error.
    fn unread(&mut self, error: impl Into<SignError>) {
        self.unread.get_or_insert(error.into());
    }
}

impl Looking<'_> {
    /// Looks at the `.sig` or `.att` tag.
    async fn at_tag(&self) -> Found {
        let mut found = Found::default();
        let VerifyRequest { storage, image, wanted, formats, .. } = self.request;
        if !formats.has(Format::Legacy) {
            return found;
        }
        let tag = match wanted {
            Wanted::Signature => legacy::tag(image),
            Wanted::Attestation(_) => legacy::attestation_tag(image),
        };
        let manifest = match self.store.get_manifest(storage, &tag).await {
            Ok(Some(manifest)) => manifest.bytes,
            Ok(None) => return found,
            Err(error) => {
                found.unread(error);
                return found;
            }
        };
        let location = Digest::of(&manifest);
        let layers = match legacy::layers_of(&manifest) {
            Ok(layers) => layers,
            Err(error) => {
                let reason = format!("the tag {tag} holds something else than signatures: {error}");
                found.verdict.add(Format::Legacy, location, self.verifier, Err(reason));
                return found;
            }
        };
        // One payload often carries several signatures.
        let mut blobs = BTreeMap::new();
        for layer in &layers {
            let limit = match wanted {
                Wanted::Signature if layer.is_simple_signing() => legacy::BLOB_LIMIT,
                Wanted::Attestation(predicate_type) if layer.may_hold(predicate_type) => {
                    self.request.largest_attestation
                }
                _ => continue,
            };
            let blob = match blobs.entry(layer.digest) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(missing) => match self.store.get_blob(storage, &layer.digest, limit).await {
                    Ok(blob) => missing.insert(blob),
                    Err(error) => {
                        found.unread(error);
                        continue;
                    }
                },
            };
            let checked = match wanted {
                Wanted::Signature => {
                    check::layer(layer, blob, &self.expected, self.verifier).map(|said| (said, None))
                }
                Wanted::Attestation(wanted) => {
                    check::attestation_layer(layer, blob, wanted, &self.expected, self.verifier)
                        .map(|(said, envelope)| (said, Some(envelope)))
                }
            };
            found.verdict.add(Format::Legacy, location, self.verifier, checked);
        }
        found
    }

    /// Looks at what refers to the image.
    async fn at_referrers(&self) -> Found {
        let mut found = Found::default();
        let VerifyRequest { storage, image, wanted, formats, .. } = self.request;
        if !formats.has(Format::Bundle) {
            return found;
        }
        let listed = match referrer::list(self.store, storage, image).await {
            Ok(listing) => listing.descriptors(),
            Err(SignError::ForeignTag { tag, source, .. }) => {
                let reason = format!("the tag {tag} holds something else than referrers: {source}");
                found.verdict.add(Format::Bundle, *image, self.verifier, Err(reason));
                return found;
            }
            Err(error) => {
                found.unread(error);
                return found;
            }
        };
        let (predicate_type, largest) = (wanted.predicate_type(), self.request.largest_attestation);
        for candidate in
            referrer::candidates(self.store, storage, image, listed, predicate_type, largest).await
        {
            let stored = match candidate {
                Ok(stored) => stored,
                Err(error) => {
                    found.unread(error);
                    continue;
                }
            };
            let (digest, blob) = (&stored.bundle, &stored.blob);
            let checked = match wanted {
                Wanted::Signature => {
                    check::bundle(digest, blob, &self.expected, self.verifier).map(|said| (said, None))
                }
                Wanted::Attestation(wanted) => {
                    check::attestation_bundle(digest, blob, wanted, &self.expected, self.verifier)
                        .map(|(said, envelope)| (said, Some(envelope)))
                }
            };
            found.verdict.add(Format::Bundle, stored.entry.digest, self.verifier, checked);
        }
        found
    }
}
