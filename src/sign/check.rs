//! Whether one stored signature is good: pure, over bytes as a stranger reads them.

use super::bundle;
use super::evidence::{Content, Evidence, Verifier};
use super::legacy::Layer;
use super::payload;
use crate::registry::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many signatures of one envelope are looked at.
const SIGNATURES_MAX: usize = 32;

/// What a signature must say.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// The digest of the signed manifest.
    pub(super) image: Digest,
    /// The repository that a payload must name, where the verifier insists; bundles name none.
    pub(super) docker_reference: Option<String>,
    /// The `critical.type` that a payload must have, where the verifier insists; cosign doesn't.
    pub(super) kind: Option<&'static str>,
    /// Annotations that must be signed along.
    pub(super) annotations: BTreeMap<String, String>,
}

impl Expected {
    fn check_annotations(&self, signed: &BTreeMap<String, String>) -> Result<(), String> {
        match self.annotations.iter().find(|(key, value)| signed.get(*key) != Some(value)) {
            None => Ok(()),
            Some((key, value)) => match signed.get(key) {
                Some(other) => Err(format!("its annotation {key} is `{other}`, not `{value}`")),
                None => Err(format!("it has no annotation {key}")),
            },
        }
    }
}

/// What a good signature says.
#[derive(Debug)]
pub(super) struct Said {
    /// What signs it.
    pub(super) evidence: Evidence,
    /// The repository that it names; bundles name none.
    pub(super) docker_reference: Option<String>,
    /// `critical.type`, or the statement's predicate type.
    pub(super) kind: String,
    /// What was signed along.
    pub(super) annotations: BTreeMap<String, String>,
}

/// Checks a layer of a `.sig` image with its blob: digest, signature, claims, in this order.
pub(super) fn layer(
    layer: &Layer,
    blob: &[u8],
    expected: &Expected,
    verifier: &dyn Verifier,
) -> Result<Said, String> {
    if Digest::of(blob) != layer.digest {
        return Err(format!("its payload is not the content of {}", layer.digest));
    }
    let evidence =
        layer.evidence().ok_or_else(|| "its signature annotation is missing or no base64".to_owned())?;
    verifier.verify(Content::Payload(blob), &evidence)?;
    let claims =
        payload::parse(blob).map_err(|error| format!("its payload is no simple signing: {error}"))?;
    if expected.kind.is_some_and(|kind| kind != claims.kind) {
        return Err(format!("it is a `{}`", claims.kind));
    }
    if claims.image != expected.image.to_string() {
        return Err(format!("it is for the image {}", claims.image));
    }
    match &expected.docker_reference {
        Some(name) if *name != claims.docker_reference => {
            return Err(format!("it is for the repository {}", claims.docker_reference));
        }
        _ => {}
    }
    expected.check_annotations(&claims.annotations)?;
    let payload::Claims { docker_reference, kind, annotations, .. } = claims;
    Ok(Said { evidence, docker_reference: Some(docker_reference), kind, annotations })
}

/// Checks a bundle with the digest that its manifest gave: digest, signature, statement, in this order.
///
/// A statement of another predicate type isn't a signature of the image, even by the right key: a provenance
/// says how it was built, not that it is approved.
pub(super) fn bundle(
    digest: &Digest,
    blob: &[u8],
    expected: &Expected,
    verifier: &dyn Verifier,
) -> Result<Said, String> {
    let (said, _) = bundle_of(digest, blob, bundle::SIGNED, expected, verifier)?;
    Ok(said)
}

/// Checks a bundle as [`bundle`] does, but of another predicate type; returns the signed envelope too.
pub(super) fn attestation_bundle(
    digest: &Digest,
    blob: &[u8],
    predicate_type: &str,
    expected: &Expected,
    verifier: &dyn Verifier,
) -> Result<(Said, Envelope), String> {
    let (said, opened) = bundle_of(digest, blob, predicate_type, expected, verifier)?;
    let signature = DsseSignature { keyid: String::new(), sig: STANDARD.encode(&opened.evidence.signature) };
    let payload = STANDARD.encode(&opened.statement);
    let payload_type = bundle::STATEMENT.to_owned();
    Ok((said, Envelope { payload_type, payload, signatures: vec![signature] }))
}

fn bundle_of(
    digest: &Digest,
    blob: &[u8],
    predicate_type: &str,
    expected: &Expected,
    verifier: &dyn Verifier,
) -> Result<(Said, bundle::Opened), String> {
    if Digest::of(blob) != *digest {
        return Err(format!("its bundle is not the content of {digest}"));
    }
    let opened = bundle::open(blob).map_err(|error| error.to_string())?;
    verifier.verify(Content::Statement(&opened.statement), &opened.evidence)?;
    let said = statement(&opened.statement, &opened.evidence, predicate_type, expected)?;
    Ok((said, opened))
}

/// Checks what a statement says, once its signature has been verified.
fn statement(
    bytes: &[u8],
    evidence: &Evidence,
    predicate_type: &str,
    expected: &Expected,
) -> Result<Said, String> {
    let statement = bundle::Statement::parse(bytes).map_err(|error| error.to_string())?;
    if statement.predicate_type != predicate_type {
        let not = if predicate_type == bundle::SIGNED { "signature" } else { predicate_type };
        return Err(format!("it is a `{}`, not a {not}", statement.predicate_type));
    }
    let annotations =
        statement.about(&expected.image).ok_or_else(|| "its statement is about another image".to_owned())?;
    expected.check_annotations(&annotations)?;
    let evidence = evidence.clone();
    Ok(Said { evidence, docker_reference: None, kind: statement.predicate_type, annotations })
}

/// A DSSE envelope as it stands in a layer of an `.att` image; its payload is a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<DsseSignature>,
}

impl Envelope {
    /// Returns its JSON in one line.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings always serialise")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct DsseSignature {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    keyid: String,
    sig: String,
}

/// Checks a layer of an `.att` image with its blob: digest, one of the envelope's signatures, statement.
pub(super) fn attestation_layer(
    layer: &Layer,
    blob: &[u8],
    predicate_type: &str,
    expected: &Expected,
    verifier: &dyn Verifier,
) -> Result<(Said, Envelope), String> {
    if Digest::of(blob) != layer.digest {
        return Err(format!("its envelope is not the content of {}", layer.digest));
    }
    let envelope: Envelope =
        serde_json::from_slice(blob).map_err(|error| format!("it is no DSSE envelope: {error}"))?;
    if envelope.payload_type != bundle::STATEMENT {
        return Err(format!("its payload is a `{}`, not an in-toto statement", envelope.payload_type));
    }
    let payload = STANDARD.decode(&envelope.payload).map_err(|_| "its payload is no base64".to_owned())?;
    // A certificate stands in the layer's annotations; the signature there is empty.
    let mut evidence =
        layer.evidence().ok_or_else(|| "its signature annotation is missing or no base64".to_owned())?;
    let mut refused = "its envelope is not signed".to_owned();
    let is_good = envelope.signatures.iter().take(SIGNATURES_MAX).any(|signature| {
        let verified = STANDARD.decode(&signature.sig).map_err(|_| "its signature is no base64".to_owned());
        let verified = verified.and_then(|signature| {
            evidence.signature = signature;
            verifier.verify(Content::Statement(&payload), &evidence)
        });
        verified.map_err(|reason| refused = reason).is_ok()
    });
    if !is_good {
        return Err(refused);
    }
    Ok((statement(&payload, &evidence, predicate_type, expected)?, envelope))
}
