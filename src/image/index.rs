//! The index that joins what several builders pushed. Pure, and the same bytes for the same input.

use super::Platform;
use crate::registry::{Descriptor, Digest, media_type};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashSet};

/// What one builder pushed: an image, or an index of several.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its descriptor.
    pub descriptor: &'a Descriptor,
    /// Its bytes, as they came.
    pub bytes: &'a [u8],
    /// What it is for, where it is one image: manifests don't say it.
    pub platform: Option<&'a Platform>,
}

/// Why sources make no index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The media type says that it is an index, and it is none.
    #[error("{digest} is no index")]
    NotAnIndex {
        /// The source.
        digest: Digest,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// An entry does not say what it runs on.
    #[error("{0} does not say which platform it is for")]
    NoPlatform(Digest),
    /// Nobody built it.
    #[error("no builder pushed an image for {0}")]
    Missing(Platform),
}

/// An index as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its descriptor.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

#[derive(Deserialize)]
struct Manifests<'a> {
    #[serde(borrow)]
    manifests: Vec<&'a RawValue>,
}

struct Entry {
    digest: Digest,
    media_type: String,
    platform: Option<Platform>,
    /// The image that it belongs to, where it is none itself.
    about: Option<Digest>,
    /// As it stands in its source: what is carried over is not written anew.
    text: String,
}

/// Joins sources into one index: the images in the order of `platforms`, then everything that belongs to them, such as
/// BuildKit's attestations, in the order of the images. Descriptors are carried over as they are written there. The
/// layout is BuildKit's own (Go's `MarshalIndent`), so that they stand in it as in their sources.
///
/// # Errors
/// [`IndexError`].
pub fn assemble(
    sources: &[Source<'_>],
    platforms: &[Platform],
    annotations: &BTreeMap<String, String>,
) -> Result<Index, IndexError> {
    let mut seen = HashSet::new();
    let (mut images, mut others) = (Vec::new(), Vec::new());
    for source in sources {
        for entry in entries(source)? {
            if seen.insert(entry.digest) {
                if entry.platform.is_some() { &mut images } else { &mut others }.push(entry);
            }
        }
    }
    let place = |entry: &Entry| {
        platforms.iter().position(|it| entry.platform.as_ref().is_some_and(|at| same(at, it)))
    };
    for platform in platforms {
        if !images.iter().any(|entry| entry.platform.as_ref().is_some_and(|at| same(at, platform))) {
            return Err(IndexError::Missing(platform.clone()));
        }
    }
    images.sort_by_key(|entry| place(entry).unwrap_or(usize::MAX));
    others.sort_by_key(|other| images.iter().position(|image| Some(image.digest) == other.about));
    let entries: Vec<Entry> = images.into_iter().chain(others).collect();
    let docker = entries.iter().all(|entry| entry.media_type == media_type::DOCKER_MANIFEST);
    let media_type = if docker { media_type::DOCKER_LIST } else { media_type::OCI_INDEX };
    let bytes = write(media_type, &entries, annotations);
    Ok(Index { descriptor: Descriptor::of(media_type, &bytes), bytes })
}

/// Whether an entry is what was asked for: daemons add the version and features of Windows that a base image has.
fn same(entry: &Platform, asked: &Platform) -> bool {
    let Platform { os, architecture, variant, os_version, os_features } = asked;
    entry.os == *os
        && entry.architecture == *architecture
        && entry.variant == *variant
        && (os_version.is_none() || entry.os_version == *os_version)
        && (os_features.is_empty() || entry.os_features == *os_features)
}

fn entries(source: &Source<'_>) -> Result<Vec<Entry>, IndexError> {
    let Source { descriptor, bytes, platform } = *source;
    if ![media_type::OCI_INDEX, media_type::DOCKER_LIST].contains(&descriptor.media_type.as_str()) {
        let platform = platform.ok_or(IndexError::NoPlatform(descriptor.digest))?;
        let text = bare(descriptor, platform);
        let (digest, media_type) = (descriptor.digest, descriptor.media_type.clone());
        return Ok(vec![Entry { digest, media_type, platform: Some(platform.clone()), about: None, text }]);
    }
    let broken = |source| IndexError::NotAnIndex { digest: descriptor.digest, source };
    let Manifests { manifests } = serde_json::from_slice(bytes).map_err(broken)?;
    let entry = |raw: &RawValue| {
        let entry: Descriptor = serde_json::from_str(raw.get()).map_err(broken)?;
        let belongs = entry.annotations.contains_key("vnd.docker.reference.type");
        let named = entry.platform.as_ref().and_then(Platform::of).filter(|_| !belongs);
        if named.is_none() && !belongs {
            return Err(IndexError::NoPlatform(entry.digest));
        }
        let about = entry.annotations.get("vnd.docker.reference.digest").and_then(|text| text.parse().ok());
        let (digest, media_type) = (entry.digest, entry.media_type);
        Ok(Entry { digest, media_type, platform: named, about, text: raw.get().to_owned() })
    };
    manifests.into_iter().map(entry).collect()
}

/// Writes the descriptor of an image that stands in no index yet.
fn bare(descriptor: &Descriptor, platform: &Platform) -> String {
    use crate::registry::DescriptorPlatform;
    let platform = DescriptorPlatform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    };
    let plain = Descriptor::bare(descriptor.media_type.clone(), descriptor.digest, descriptor.size);
    let entry = Descriptor { platform: Some(platform), ..plain };
    // As deep as it will stand.
    serde_json::to_string_pretty(&entry).expect("a descriptor is JSON").replace('\n', "\n    ")
}

fn write(media_type: &str, entries: &[Entry], annotations: &BTreeMap<String, String>) -> Vec<u8> {
    let list: Vec<&str> = entries.iter().map(|entry| entry.text.as_str()).collect();
    let list = list.join(",\n    ");
    let mut text = format!(
        "{{\n  \"schemaVersion\": 2,\n  \"mediaType\": \"{media_type}\",\n  \"manifests\": [\n    {list}\n  ]"
    );
    if !annotations.is_empty() {
        let map = serde_json::to_string_pretty(annotations).expect("strings are JSON");
        text.push_str(",\n  \"annotations\": ");
        text.push_str(&map.replace('\n', "\n  "));
    }
    text.push_str("\n}");
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn platform(text: &str) -> Platform {
        text.parse().expect("a platform")
    }

    fn image(name: &str, text: &str) -> Value {
        let platform = platform(text);
        let mut entry = json!({
            "mediaType": media_type::OCI_MANIFEST, "digest": Digest::of(name.as_bytes()).to_string(), "size": 7,
            "platform": { "architecture": platform.architecture, "os": platform.os },
        });
        if let Some(variant) = platform.variant {
            entry["platform"]["variant"] = json!(variant);
        }
        entry
    }

    fn attestation(of: &str) -> Value {
        json!({
            "mediaType": media_type::OCI_MANIFEST, "digest": Digest::of(format!("att {of}").as_bytes()).to_string(),
            "size": 9, "unknownField": [1.50, "x"],
            "annotations": {
                "vnd.docker.reference.digest": Digest::of(of.as_bytes()).to_string(),
                "vnd.docker.reference.type": "attestation-manifest",
            },
            "platform": { "architecture": "unknown", "os": "unknown" },
        })
    }

    fn index(entries: &[Value]) -> Vec<u8> {
        serde_json::to_vec_pretty(
            &json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries }),
        )
        .expect("JSON")
    }

    fn join(pushed: &[Vec<u8>], asked: &[&str]) -> Result<Index, IndexError> {
        let descriptors: Vec<_> =
            pushed.iter().map(|bytes| Descriptor::of(media_type::OCI_INDEX, bytes)).collect();
        let sources: Vec<_> = pushed
            .iter()
            .zip(&descriptors)
            .map(|(bytes, descriptor)| Source { descriptor, bytes, platform: None })
            .collect();
        let asked: Vec<_> = asked.iter().map(|text| platform(text)).collect();
        assemble(&sources, &asked, &BTreeMap::new())
    }

    #[test]
    fn images_stand_in_the_order_asked_for_and_attestations_after_them() {
        let amd = index(&[
            image("amd64", "linux/amd64"),
            image("386", "linux/386"),
            attestation("amd64"),
            attestation("386"),
        ]);
        let arm = index(&[image("arm64", "linux/arm64"), attestation("arm64")]);
        let joined =
            join(&[amd.clone(), arm], &["linux/386", "linux/arm64", "linux/amd64"]).expect("an index");
        let value: Value = serde_json::from_slice(&joined.bytes).expect("JSON");
        let expected = [
            image("386", "linux/386"),
            image("arm64", "linux/arm64"),
            image("amd64", "linux/amd64"),
            attestation("386"),
            attestation("arm64"),
            attestation("amd64"),
        ];
        assert_eq!(value["manifests"], json!(expected));
        assert_eq!(joined.descriptor, Descriptor::of(media_type::OCI_INDEX, &joined.bytes));
        let text = String::from_utf8(joined.bytes).expect("text");
        let source = String::from_utf8(amd).expect("text");
        let kept = &source[source.find("\"unknownField\"").expect("it is there")..][..120];
        assert!(text.contains(kept), "written anew: {text}");
    }

    #[test]
    fn the_order_in_which_builders_come_changes_no_byte() {
        let pushed = [
            index(&[
                image("amd64", "linux/amd64"),
                image("386", "linux/386"),
                attestation("amd64"),
                attestation("386"),
            ]),
            index(&[image("arm64", "linux/arm64"), attestation("arm64")]),
            index(&[image("s390x", "linux/s390x"), attestation("s390x")]),
        ];
        let asked = ["linux/386", "linux/s390x", "linux/arm64", "linux/amd64"];
        let joined = join(&pushed, &asked).expect("an index");
        for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let others = order.map(|place| pushed[place].clone());
            assert_eq!(join(&others, &asked).expect("an index"), joined, "{order:?}");
        }
    }

    #[test]
    fn joining_one_index_changes_no_byte() {
        let only = index(&[image("amd64", "linux/amd64"), attestation("amd64")]);
        assert_eq!(join(std::slice::from_ref(&only), &["linux/amd64"]).expect("an index").bytes, only);
    }

    #[test]
    fn what_is_there_twice_stands_there_once() {
        let one = index(&[image("amd64", "linux/amd64")]);
        let joined = join(&[one.clone(), one.clone()], &["linux/amd64"]).expect("an index");
        assert_eq!(joined.bytes, one);
    }

    #[test]
    fn a_platform_that_nobody_pushed_is_missed() {
        let one = index(&[image("amd64", "linux/amd64")]);
        let error = join(&[one], &["linux/amd64", "linux/arm64"]).expect_err("arm64 is missing");
        assert_eq!(error.to_string(), "no builder pushed an image for linux/arm64");
    }

    #[test]
    fn images_that_stand_in_no_index_get_their_platform() {
        let (bytes, arm) = (br#"{"schemaVersion":2}"#, platform("linux/arm/v7"));
        for (kind, list) in [
            (media_type::OCI_MANIFEST, media_type::OCI_INDEX),
            (media_type::DOCKER_MANIFEST, media_type::DOCKER_LIST),
        ] {
            let descriptor = Descriptor::of(kind, bytes);
            let source = Source { descriptor: &descriptor, bytes, platform: Some(&arm) };
            let annotations = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
            let index = assemble(&[source], std::slice::from_ref(&arm), &annotations).expect("an index");
            let value: Value = serde_json::from_slice(&index.bytes).expect("JSON");
            let expected = json!({
                "schemaVersion": 2,
                "mediaType": list,
                "manifests": [{
                    "mediaType": kind, "digest": descriptor.digest.to_string(), "size": bytes.len(),
                    "platform": { "architecture": "arm", "os": "linux", "variant": "v7" },
                }],
                "annotations": { "a": "b" },
            });
            assert_eq!(value, expected);
            assert_eq!(serde_json::to_vec_pretty(&expected).expect("JSON"), index.bytes, "Go's layout");
            let nameless = Source { platform: None, ..source };
            assert!(matches!(assemble(&[nameless], &[], &annotations), Err(IndexError::NoPlatform(_))));
        }
    }

    #[test]
    fn what_is_no_index_is_refused() {
        for broken in [&b"{}"[..], b"[]", br#"{"manifests":[{"size":1}]}"#] {
            assert!(matches!(join(&[broken.to_vec()], &[]), Err(IndexError::NotAnIndex { .. })));
        }
    }
}
