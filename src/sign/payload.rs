//! The simple-signing payload, the thing that a `.sig` signature covers.
//!
//! Source: containers/image `docs/containers-signature.5.md`, in the form that cosign writes.

use crate::registry::Digest;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The media type of a payload stored as a layer.
pub(super) const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// What `critical.type` says of a container image's signature.
pub(super) const IMAGE_SIGNATURE: &str = "cosign container image signature";

/// Returns the payload for one image, byte for byte as cosign would write it: no spaces, annotations sorted,
/// `null` when there are none, Go's escapes.
///
/// `docker_reference` is registry and repository without tag or digest.
pub(super) fn simple_signing(
    docker_reference: &str,
    image: &Digest,
    annotations: &BTreeMap<String, String>,
) -> Vec<u8> {
    let mut text = String::new();
    text.push_str(r#"{"critical":{"identity":{"docker-reference":"#);
    push_string(&mut text, docker_reference);
    let _infallible = write!(
        text,
        r#"}},"image":{{"docker-manifest-digest":"{image}"}},"type":"{IMAGE_SIGNATURE}"}},"optional":"#
    );
    match annotations.is_empty() {
        true => text.push_str("null"),
        false => push_map(&mut text, annotations),
    }
    text.push('}');
    text.into_bytes()
}

/// Appends an object of strings, in the order of its keys.
pub(super) fn push_map(text: &mut String, map: &BTreeMap<String, String>) {
    text.push('{');
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        push_string(text, key);
        text.push(':');
        push_string(text, value);
    }
    text.push('}');
}

/// Appends a JSON string as Go's `encoding/json` writes it, with what could end a script element escaped, so
/// that the same claims give the same blob whichever tool writes them.
fn push_string(text: &mut String, value: &str) {
    for letter in serde_json::to_string(value).expect("strings always serialise").chars() {
        match letter {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _infallible = write!(text, "\\u{:04x}", u32::from(letter));
            }
            other => text.push(other),
        }
    }
}

/// What a payload claims.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Claims {
    /// Registry and repository, possibly with more.
    pub(super) docker_reference: String,
    /// The digest of the image, as text: it is compared, never followed.
    pub(super) image: String,
    /// The kind of statement.
    pub(super) kind: String,
    /// What was signed besides. Values that aren't strings are given as their JSON text.
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct PayloadJson {
    critical: CriticalJson,
    optional: Option<BTreeMap<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct CriticalJson {
    identity: IdentityJson,
    image: ImageJson,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct IdentityJson {
    #[serde(rename = "docker-reference")]
    docker_reference: String,
}

#[derive(Deserialize)]
struct ImageJson {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Reads a payload; only after its signature has been verified.
pub(super) fn parse(bytes: &[u8]) -> serde_json::Result<Claims> {
    let PayloadJson { critical, optional } = serde_json::from_slice(bytes)?;
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(Claims {
        docker_reference: critical.identity.docker_reference,
        image: critical.image.digest,
        kind: critical.kind,
        annotations: optional
            .unwrap_or_default()
            .into_iter()
            .map(|(key, value)| (key, text(value)))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY_COSIGN: &[u8] = include_bytes!("../../integration/fixtures/signing/simple-signing-payload.json");
    const IMAGE: &str = "sha256:3f5f4205e5f0ae0cac469c932230928faad334460c7877f960e9b2728ed1cb10";

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_bytes_are_cosigns() {
        let ours = simple_signing("127.0.0.1:5601/demo", &IMAGE.parse().unwrap(), &map(&[]));
        assert_eq!(ours, BY_COSIGN);
    }

    #[test]
    fn annotations_are_sorted() {
        let annotations = map(&[("foo", "bar"), ("env", "prod")]);
        let ours = simple_signing("127.0.0.1:5601/demo", &IMAGE.parse().unwrap(), &annotations);
        let text = String::from_utf8(ours).unwrap();
        assert!(text.ends_with(r#""optional":{"env":"prod","foo":"bar"}}"#), "{text}");
    }

    #[test]
    fn go_escapes_what_html_would_mind() {
        let annotations = map(&[("k", "<a href=\"x\">&\u{2028}\u{1}\n\t\u{7f}é</a>")]);
        let text = String::from_utf8(simple_signing("r/a", &IMAGE.parse().unwrap(), &annotations)).unwrap();
        let expected = r#""optional":{"k":"\u003ca href=\"x\"\u003e\u0026\u2028\u0001\n\t"#;
        assert!(text.contains(expected), "{text}");
        assert_eq!(parse(text.as_bytes()).unwrap().annotations, annotations);
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(key: String, value: String, name: String) {
            let annotations = BTreeMap::from([(key, value)]);
            let claims = parse(&simple_signing(&name, &IMAGE.parse().unwrap(), &annotations)).unwrap();
            let expected = Claims {
                docker_reference: name, image: IMAGE.into(), kind: IMAGE_SIGNATURE.into(), annotations,
            };
            proptest::prop_assert_eq!(claims, expected);
        }
    }
}
