//! BuildKit's statements, found from an index, and ours with the same predicate.

use super::Content;
use crate::registry::{Descriptor, Digest, Reference, Repository};
use crate::sign::bundle;
use crate::sign::error::SignError;
use crate::sign::scope::is_index;
use futures_util::future::try_join_all;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The largest statement that is read; a bill of materials of a large image takes some megabytes.
const STATEMENT_LIMIT: usize = 64 << 20;
/// Where an attestation manifest names the image that it is about (buildkit util/attestation).
const ABOUT: &str = "vnd.docker.reference.digest";
const KIND: &str = "vnd.docker.reference.type";
const ATTESTATION: &str = "attestation-manifest";
/// Where a layer names its kind of statement.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// Nobody attests more of an image; a longer list is a mistake or an attack.
const STATEMENTS_MAX: usize = 64;

/// A statement as BuildKit wrote it.
#[derive(Clone, Debug)]
pub(super) struct Original {
    /// The platform's image that it is about.
    pub(super) image: Descriptor,
    /// Its platform, for people.
    pub(super) role: String,
    pub(super) predicate_type: String,
    /// The predicate as it stands there.
    predicate: Box<RawValue>,
}

#[derive(Deserialize)]
struct IndexJson {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct ManifestJson {
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct StatementJson {
    #[serde(rename = "_type")]
    kind: String,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    #[serde(default)]
    subject: Vec<SubjectJson>,
    predicate: Box<RawValue>,
}

#[derive(Deserialize)]
struct SubjectJson {
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

/// Returns the statements that an index carries, in its order.
pub(super) async fn collect(content: &dyn Content, root: &Descriptor) -> Result<Vec<Original>, SignError> {
    if !is_index(root) {
        return Ok(Vec::new());
    }
    let index: IndexJson = manifest(content, &root.digest).await?;
    let mut found = Vec::new();
    for entry in &index.manifests {
        if entry.annotations.get(KIND).is_none_or(|kind| kind != ATTESTATION) {
            continue;
        }
        let about = entry.annotations.get(ABOUT).and_then(|text| text.parse::<Digest>().ok());
        let image = index.manifests.iter().find(|image| Some(image.digest) == about);
        found.push((
            entry.digest,
            image.ok_or_else(refuse(entry.digest, "it is about no image of this index"))?,
        ));
    }
    few(root, found.len())?;
    let manifests = found.iter().map(|(digest, _)| manifest::<ManifestJson>(content, digest));
    let layers = try_join_all(manifests).await?.into_iter().zip(&found).flat_map(|(manifest, of)| {
        let statements = manifest.layers.into_iter().filter(|layer| layer.media_type == bundle::STATEMENT);
        statements.map(move |layer| (layer, of))
    });
    let layers: Vec<_> = layers.collect();
    few(root, layers.len())?;
    let read = layers.iter().map(async |(layer, (attestation, image))| {
        let blob = content.blob(&layer.digest, STATEMENT_LIMIT).await?;
        let said = layer.annotations.get(PREDICATE_TYPE).map(String::as_str);
        let original = checked(&blob, &layer.digest).and_then(|()| read(&blob, said, image));
        original.map_err(|reason| refuse(*attestation, reason)())
    });
    try_join_all(read).await
}

fn refuse(attestation: Digest, reason: &'static str) -> impl FnOnce() -> SignError {
    move || SignError::Attestation { attestation, reason }
}

fn few(root: &Descriptor, found: usize) -> Result<(), SignError> {
    let few = found <= STATEMENTS_MAX;
    few.then_some(()).ok_or_else(refuse(root.digest, "there are more of them than anybody makes"))
}

async fn manifest<T: serde::de::DeserializeOwned>(
    content: &dyn Content,
    digest: &Digest,
) -> Result<T, SignError> {
    let bytes = content.manifest(digest).await?;
    let parsed = checked(&bytes, digest)
        .and_then(|()| serde_json::from_slice(&bytes).map_err(|_| "it is no valid JSON"));
    parsed.map_err(|reason| refuse(*digest, reason)())
}

fn checked(bytes: &[u8], digest: &Digest) -> Result<(), &'static str> {
    (Digest::of(bytes) == *digest).then_some(()).ok_or("its content has another digest")
}

/// Reads a statement, and whether it is about the image that carries it.
pub(super) fn read(blob: &[u8], said: Option<&str>, image: &Descriptor) -> Result<Original, &'static str> {
    let parsed: StatementJson = serde_json::from_slice(blob).map_err(|_| "it is no in-toto statement")?;
    let StatementJson { kind, predicate_type, subject, predicate } = parsed;
    if !kind.starts_with("https://in-toto.io/Statement/") {
        return Err("it is no in-toto statement");
    }
    if said.is_some_and(|said| said != predicate_type) {
        return Err("it is of another type than its manifest says");
    }
    let hex = image.digest.hex();
    // Built without a name, it has no subjects at all.
    if !subject.is_empty() && !subject.iter().any(|one| one.digest.get("sha256") == Some(&hex)) {
        return Err("its statement is about another image");
    }
    let role = image.platform.as_ref().map(|it| format!("{}/{}", it.os, it.architecture));
    let descriptor = Descriptor::bare(image.media_type.clone(), image.digest, image.size);
    Ok(Original {
        image: descriptor,
        role: role.unwrap_or_else(|| "image".to_owned()),
        predicate_type,
        predicate,
    })
}

/// Returns our statement: the original's predicate, about the index under each of its tags, and the platform's image.
pub(super) fn ours(original: &Original, at: &Repository, tags: &[Reference], index: &Digest) -> Vec<u8> {
    let names: Vec<String> = match tags {
        [] => vec![at.to_string()],
        tags => tags.iter().map(ToString::to_string).collect(),
    };
    let mut subjects: Vec<_> = names.iter().map(|name| subject(name, index)).collect();
    subjects.push(subject(&at.to_string(), &original.image.digest));
    let quoted = serde_json::to_string(&original.predicate_type).expect("a string is JSON");
    format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{}],"predicateType":{quoted},"predicate":{}}}"#,
        subjects.join(","),
        original.predicate.get()
    )
    .into_bytes()
}

fn subject(name: &str, digest: &Digest) -> String {
    let name = serde_json::to_string(name).expect("a string is JSON");
    format!(r#"{{"name":{name},"digest":{{"sha256":"{}"}}}}"#, digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const SLSA: &str = "https://slsa.dev/provenance/v1";

    fn image() -> Descriptor {
        Descriptor::bare("application/vnd.oci.image.manifest.v1+json", Digest::of(b"image"), 5)
    }

    fn statement(about: &Digest) -> Vec<u8> {
        let text = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"pkg:docker/x","digest":{"sha256":"HEX"}}],"predicateType":"https://slsa.dev/provenance/v1","predicate":{"b":1.50, "a":[ ]}}"#;
        text.replace("HEX", &about.hex()).into_bytes()
    }

    #[test]
    fn the_predicate_goes_through_byte_for_byte() {
        let original = read(&statement(&image().digest), Some(SLSA), &image()).expect("a statement");
        let index = Digest::of(b"index");
        let repository: Repository = "r.example/a".parse().expect("a repository");
        let tags = ["r.example/a:1", "r.example/a:2"].map(|tag| tag.parse().expect("a tag"));
        let ours = ours(&original, &repository, &tags, &index);
        let text = String::from_utf8(ours.clone()).expect("text");
        assert!(text.ends_with(r#""predicate":{"b":1.50, "a":[ ]}}"#), "{text}");
        let value: Value = serde_json::from_slice(&ours).expect("JSON");
        let subject =
            |name: &str, digest: &Digest| json!({ "name": name, "digest": { "sha256": digest.hex() } });
        let expected = json!([
            subject("r.example/a:1", &index),
            subject("r.example/a:2", &index),
            subject("r.example/a", &image().digest),
        ]);
        assert_eq!((&value["subject"], &value["predicateType"]), (&expected, &json!(SLSA)));
    }

    #[test]
    fn a_statement_about_something_else_is_not_signed() {
        let refused = |blob: &[u8], said| read(blob, said, &image()).expect_err("refused");
        assert!(refused(&statement(&Digest::of(b"other")), None).contains("another image"));
        assert!(
            refused(&statement(&image().digest), Some("https://spdx.dev/Document")).contains("another type")
        );
        assert!(refused(b"{}", None).contains("no in-toto"));
        let foreign =
            String::from_utf8(statement(&image().digest)).expect("text").replace("in-toto.io", "x.example");
        assert!(refused(foreign.as_bytes(), None).contains("no in-toto"));
    }
}
