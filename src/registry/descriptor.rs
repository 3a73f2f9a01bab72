//! Descriptors and manifests as the OCI image spec writes them.

use super::Digest;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The media types that registries keep, by the names that the field uses.
pub mod media_type {
    pub use oci_client::manifest::{
        IMAGE_CONFIG_MEDIA_TYPE as OCI_CONFIG, IMAGE_DOCKER_CONFIG_MEDIA_TYPE as DOCKER_CONFIG,
        IMAGE_MANIFEST_LIST_MEDIA_TYPE as DOCKER_LIST, IMAGE_MANIFEST_MEDIA_TYPE as DOCKER_MANIFEST,
        OCI_IMAGE_INDEX_MEDIA_TYPE as OCI_INDEX, OCI_IMAGE_MEDIA_TYPE as OCI_MANIFEST,
    };
    /// The config of an artifact that has none: the two bytes `{}` (image spec, "guidance for an empty
    /// descriptor").
    pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
}

/// What a manifest or index says about a piece of content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The content's media type.
    #[serde(default)]
    pub media_type: String,
    /// The content's digest.
    pub digest: Digest,
    /// The content's length in bytes.
    pub size: u64,
    /// What kind of artifact a referrer is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Free-form facts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What the content runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
}

impl Descriptor {
    /// Returns the bare descriptor of these bytes.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::bare(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Returns a descriptor with the three fields that each has.
    pub fn bare(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        let (media_type, annotations) = (media_type.into(), BTreeMap::new());
        Self { media_type, digest, size, artifact_type: None, annotations, platform: None }
    }
}

/// The `platform` object of an index entry, as it stands there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorPlatform {
    /// Go's GOARCH; `unknown` for attestation manifests.
    #[serde(default)]
    pub architecture: String,
    /// Go's GOOS; `unknown` for attestation manifests.
    #[serde(default)]
    pub os: String,
    /// Such as `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// For Windows.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// For Windows.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

/// A manifest or an index, byte for byte as the registry has it. Sign and copy these bytes, never a
/// serialisation of what was parsed from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its media type, digest (checked) and size.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Go marshals an empty map as `null` where a field lacks `omitempty`, and some tools write just that.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_reads_and_writes_as_the_spec_has_it() {
        let text = concat!(
            r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
            r#""digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":7,"#,
            r#""artifactType":"a/b","annotations":{"k":"v"},"#,
            r#""platform":{"architecture":"arm","os":"linux","variant":"v7"}}"#
        );
        let descriptor: Descriptor = serde_json::from_str(text).unwrap();
        assert_eq!(descriptor.size, 7);
        assert_eq!(serde_json::to_string(&descriptor).unwrap(), text);
    }

    #[test]
    fn null_annotations_are_none() {
        let text = format!(r#"{{"digest":"{}","size":0,"annotations":null}}"#, Digest::of(b""));
        assert!(serde_json::from_str::<Descriptor>(&text).unwrap().annotations.is_empty());
    }
}
