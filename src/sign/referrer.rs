//! The manifest that ties a bundle to its image, and the index that stands in for the referrers API.
//!
//! Source: OCI image spec 1.1 ("artifact usage"), distribution spec 1.1 ("referrers tag schema").

mod publish;
mod read;

pub(super) use publish::{Published, publish, verify};
pub use read::ATTESTATION_LIMIT;
pub(super) use read::{candidates, list};

use super::bundle;
use super::json::{Object, raw};
use crate::registry::{Descriptor, Digest};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The media type of an image manifest.
pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an index.
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The config that an artifact without one names; its blob must be there all the same.
pub(super) const EMPTY_CONFIG: &[u8] = b"{}";
const EMPTY_MEDIA_TYPE: &str = "application/vnd.oci.empty.v1+json";
const PREDICATE_TYPE: &str = "dev.sigstore.bundle.predicateType";
const CONTENT: &str = "dev.sigstore.bundle.content";
const CREATED: &str = "org.opencontainers.image.created";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Plain {
    media_type: String,
    size: u64,
    digest: Digest,
}

impl Plain {
    fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self { media_type: media_type.to_owned(), size: bytes.len() as u64, digest: Digest::of(bytes) }
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestJson<'a> {
    schema_version: u8,
    media_type: &'a str,
    artifact_type: &'a str,
    config: Plain,
    layers: [Plain; 1],
    subject: Plain,
    annotations: &'a BTreeMap<String, String>,
}

/// A referrer that holds one bundle, ready to be pushed.
#[derive(Clone, Debug)]
pub(super) struct Referrer {
    /// The manifest's bytes.
    pub(super) manifest: Vec<u8>,
    /// What an index of referrers says of it.
    pub(super) entry: Entry,
}

/// An entry of an index of referrers, complete as the distribution spec wants it: some verifiers (Kyverno's
/// `SigstoreBundle`, moby's policy helpers) find bundles by the artifact type and annotations in the index only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    pub(super) media_type: String,
    pub(super) size: u64,
    pub(super) digest: Digest,
    #[serde(default)]
    pub(super) artifact_type: String,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
}

/// Returns the referrer of `image` that holds this bundle. `created` is RFC 3339 in UTC.
pub(super) fn referrer(image: &Descriptor, bundle: &[u8], predicate_type: &str, created: &str) -> Referrer {
    let annotations = BTreeMap::from(
        [(CONTENT, "dsse-envelope"), (PREDICATE_TYPE, predicate_type), (CREATED, created)]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    let subject = Plain { media_type: image.media_type.clone(), size: image.size, digest: image.digest };
    let manifest = serde_json::to_vec(&ManifestJson {
        schema_version: 2,
        media_type: OCI_MANIFEST,
        artifact_type: bundle::MEDIA_TYPE,
        config: Plain::of(EMPTY_MEDIA_TYPE, EMPTY_CONFIG),
        layers: [Plain::of(bundle::MEDIA_TYPE, bundle)],
        subject,
        annotations: &annotations,
    })
    .expect("strings and numbers always serialise");
    let entry = entry(&manifest, annotations);
    Referrer { manifest, entry }
}

fn entry(manifest: &[u8], annotations: BTreeMap<String, String>) -> Entry {
    let Plain { media_type, size, digest } = Plain::of(OCI_MANIFEST, manifest);
    Entry { media_type, size, digest, artifact_type: bundle::MEDIA_TYPE.to_owned(), annotations }
}

#[derive(Deserialize)]
struct FoundJson {
    #[serde(default)]
    layers: Vec<Plain>,
    subject: Option<Plain>,
    annotations: Option<BTreeMap<String, String>>,
}

/// A referrer's manifest that holds a bundle of our image, as found in a registry.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The blob that is the bundle.
    pub(super) bundle: Digest,
    /// What an index should say of this manifest.
    pub(super) entry: Entry,
}

/// Reads a referrer's manifest; `None` unless it holds one bundle and is about this image.
///
/// What it holds is told by the layer: artifact types are written wrongly too often (go-containerregistry puts
/// the config's type there).
pub(super) fn find(manifest: &[u8], image: &Digest) -> Option<Found> {
    let found: FoundJson = serde_json::from_slice(manifest).ok()?;
    let [layer] = &found.layers[..] else { return None };
    let about = found.subject.is_some_and(|subject| subject.digest == *image);
    if !about || !layer.media_type.starts_with(bundle::MEDIA_TYPE_STEM) {
        return None;
    }
    Some(Found { bundle: layer.digest, entry: entry(manifest, found.annotations.unwrap_or_default()) })
}

/// Whether a listed referrer may hold a statement of this predicate type about the image, so that its manifest is
/// worth fetching.
pub(super) fn may_hold(listed: &Descriptor, predicate_type: &str) -> bool {
    let plausible = match listed.artifact_type.as_deref() {
        None | Some("" | EMPTY_MEDIA_TYPE) => true,
        Some(other) => other.starts_with(bundle::MEDIA_TYPE_STEM),
    };
    plausible && may_be(&listed.annotations, predicate_type)
}

/// Whether what carries these annotations may be a statement of this predicate type.
fn may_be(annotations: &BTreeMap<String, String>, predicate_type: &str) -> bool {
    annotations.get(PREDICATE_TYPE).is_none_or(|found| found == predicate_type)
}

/// Why what stands at the fallback tag can't be added to.
#[derive(Debug, thiserror::Error)]
pub(super) enum IndexError {
    /// Not a JSON object, or one that readers would differ on.
    #[error("it is no valid JSON")]
    Json(#[from] serde_json::Error),
    /// A manifest of an image, say.
    #[error("it is a `{0}`, not an image index")]
    MediaType(String),
}

/// The index at the fallback tag.
#[derive(Clone, Debug)]
pub(super) struct FallbackIndex(Object);

impl FallbackIndex {
    /// Returns the index without entries.
    pub(super) fn empty() -> Self {
        let text = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}"#);
        Self(Object::parse(text.as_bytes()).expect("a constant"))
    }

    /// Reads what stands at the fallback tag.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, IndexError> {
        let object = Object::parse(bytes)?;
        match object.get::<String>("mediaType")?.as_deref() {
            None | Some(OCI_INDEX) => {}
            Some(other) => return Err(IndexError::MediaType(other.to_owned())),
        }
        object.elements("manifests")?;
        Ok(Self(object))
    }

    /// Returns the entries that can be read.
    pub(super) fn descriptors(&self) -> Vec<Descriptor> {
        self.entries().iter().filter_map(|entry| serde_json::from_str(entry.get()).ok()).collect()
    }

    fn entries(&self) -> Vec<Box<RawValue>> {
        self.0.elements("manifests").expect("checked when it was parsed")
    }

    /// Adds an entry, or mends the one of the same digest; returns whether anything changed. All other entries
    /// stay byte for byte, wrong as they may be: they are other people's.
    pub(super) fn put(&mut self, entry: &Entry) -> bool {
        let mut entries = self.entries();
        let is_ours = |raw: &RawValue| {
            serde_json::from_str::<Plain>(raw.get()).is_ok_and(|plain| plain.digest == entry.digest)
        };
        match entries.iter_mut().find(|raw| is_ours(raw)) {
            Some(found) if serde_json::from_str::<Entry>(found.get()).is_ok_and(|found| found == *entry) => {
                return false;
            }
            Some(found) => *found = raw(entry),
            None => entries.push(raw(entry)),
        }
        self.0.set("manifests", &entries);
        true
    }

    /// Returns the index's bytes.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        self.0.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!("../../integration/fixtures/signing/", $name)).as_slice().trim_ascii_end()
        };
    }

    fn value(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn the_manifest_is_cosigns() {
        let bundle = fixture!("bundle-keyless-rekorv2-tsa.json");
        let mut cosigns = value(fixture!("referrer-manifest.json"));
        let image: Descriptor = serde_json::from_value(cosigns["subject"].clone()).unwrap();
        let ours = referrer(&image, bundle, bundle::SIGNED, "2026-11-21T23:56:25Z");
        // cosign sets an artifact type in the config's descriptor too, which nobody reads.
        cosigns["config"].as_object_mut().unwrap().remove("artifactType");
        let mut ours = value(&ours.manifest);
        // The stored file has lost or gained a byte at its end since cosign pushed it.
        for manifest in [&mut ours, &mut cosigns] {
            manifest["layers"][0]["digest"] = Value::Null;
            manifest["layers"][0]["size"] = Value::Null;
        }
        assert_eq!(ours, cosigns);
    }

    #[test]
    fn cosigns_manifest_is_found() {
        let manifest = fixture!("referrer-manifest.json");
        let image =
            "sha256:3f5f4205e5f0ae0cac469c932230928faad334460c7877f960e9b2728ed1cb10".parse().unwrap();
        let found = find(manifest, &image).unwrap();
        assert_eq!(found.entry.annotations[PREDICATE_TYPE], bundle::SIGNED);
        assert_eq!(found.entry.digest, Digest::of(manifest));
        assert!(find(manifest, &Digest::of(b"another")).is_none());
        assert!(find(b"{}", &image).is_none());
    }

    #[test]
    fn the_fallback_index_is_complete_and_keeps_others() {
        let cosigns = fixture!("referrers-fallback-index-by-cosign.json");
        let mut index = FallbackIndex::parse(cosigns).unwrap();
        let before = index.entries()[0].get().to_owned();
        let image = Descriptor::bare("m", Digest::of(b"image"), 5);
        let ours = referrer(&image, b"bundle", bundle::SIGNED, "2026-11-21T23:56:25Z").entry;
        assert!(index.put(&ours));
        assert!(!index.put(&ours), "a second time changes nothing");

        let written = value(&index.to_vec());
        assert_eq!(index.entries()[0].get(), before, "cosign's entry is not ours to mend");
        let entry = &written["manifests"][1];
        assert_eq!(entry["artifactType"], bundle::MEDIA_TYPE);
        assert_eq!(entry["annotations"][PREDICATE_TYPE], bundle::SIGNED);
        assert_eq!(entry["annotations"][CONTENT], "dsse-envelope");
        assert_eq!(entry["size"], ours.size);
        assert_eq!(index.descriptors().len(), 2);
    }

    #[test]
    fn an_entry_of_ours_is_mended() {
        let image = Descriptor::bare("m", Digest::of(b"image"), 5);
        let ours = referrer(&image, b"bundle", bundle::SIGNED, "2026-11-21T23:56:25Z").entry;
        let wrong = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{OCI_MANIFEST}","size":{},"digest":"{}","artifactType":"{EMPTY_MEDIA_TYPE}"}}]}}"#,
            ours.size, ours.digest
        );
        let mut index = FallbackIndex::parse(wrong.as_bytes()).unwrap();
        assert!(index.put(&ours));
        let entries = value(&index.to_vec())["manifests"].as_array().unwrap().clone();
        assert_eq!(entries, [serde_json::to_value(&ours).unwrap()]);
    }

    #[test]
    fn foreign_things_at_the_tag_are_refused() {
        assert!(matches!(FallbackIndex::parse(b"x"), Err(IndexError::Json(_))));
        let manifest = format!(r#"{{"mediaType":"{OCI_MANIFEST}"}}"#);
        assert!(matches!(FallbackIndex::parse(manifest.as_bytes()), Err(IndexError::MediaType(_))));
        assert!(FallbackIndex::parse(br#"{"manifests":7}"#).is_err());
    }

    #[test]
    fn lying_and_silent_listings_are_looked_into() {
        let mut listed = Descriptor::bare(OCI_MANIFEST, Digest::of(b""), 0);
        assert!(may_hold(&listed, bundle::SIGNED));
        listed.artifact_type = Some(EMPTY_MEDIA_TYPE.to_owned());
        assert!(may_hold(&listed, bundle::SIGNED));
        listed.annotations.insert(PREDICATE_TYPE.to_owned(), "https://slsa.dev/provenance/v1".to_owned());
        assert!(!may_hold(&listed, bundle::SIGNED), "it says that it is something else");
        assert!(may_hold(&listed, "https://slsa.dev/provenance/v1"));
        listed.annotations.clear();
        listed.artifact_type = Some("application/spdx+json".to_owned());
        assert!(!may_hold(&listed, bundle::SIGNED));
    }
}
