//! Whether one stored signature is good: pure, over bytes as a stranger reads them.

use super::bundle;
use super::evidence::{Content, Verifier};
use super::legacy::Layer;
use super::payload;
use crate::registry::Digest;
use std::collections::BTreeMap;

/// What a signature must say.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// The digest of the signed manifest.
    pub(super) image: Digest,
    /// The repository that a payload must name, where the verifier insists; bundles name none.
    pub(super) docker_reference: Option<String>,
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

/// What a good signature says besides.
pub(super) type Annotations = BTreeMap<String, String>;

/// Checks a layer of a `.sig` image with its blob: digest, signature, claims, in this order.
pub(super) fn layer(
    layer: &Layer,
    blob: &[u8],
    expected: &Expected,
    verifier: &dyn Verifier,
) -> Result<Annotations, String> {
    if Digest::of(blob) != layer.digest {
        return Err(format!("its payload is not the content of {}", layer.digest));
    }
    let evidence =
        layer.evidence().ok_or_else(|| "its signature annotation is missing or no base64".to_owned())?;
    verifier.verify(Content::Payload(blob), &evidence)?;
    let claims =
        payload::parse(blob).map_err(|error| format!("its payload is no simple signing: {error}"))?;
    if claims.kind != payload::IMAGE_SIGNATURE {
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
    Ok(claims.annotations)
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
) -> Result<Annotations, String> {
    if Digest::of(blob) != *digest {
        return Err(format!("its bundle is not the content of {digest}"));
    }
    let opened = bundle::open(blob).map_err(|error| error.to_string())?;
    verifier.verify(Content::Statement(&opened.statement), &opened.evidence)?;
    let statement = bundle::Statement::parse(&opened.statement).map_err(|error| error.to_string())?;
    if statement.predicate_type != bundle::SIGNED {
        return Err(format!("it is a `{}`, not a signature", statement.predicate_type));
    }
    let annotations =
        statement.about(&expected.image).ok_or_else(|| "its statement is about another image".to_owned())?;
    expected.check_annotations(&annotations)?;
    Ok(annotations)
}
