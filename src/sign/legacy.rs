//! The `.sig` image: one manifest under a tag made of the digest, one layer for each signature.
//!
//! Other people's signatures live in the same manifest. Their layers, history entries and whatever else stands
//! there go through untouched, byte for byte; ours are added at the end. Source: cosign's `pkg/oci/mutate` and
//! `specs/SIGNATURE_SPEC.md`.

mod publish;
mod read;

pub(super) use publish::{Item, Published, publish, verify};
pub(super) use read::BLOB_LIMIT;

use super::evidence::{Evidence, Material};
use super::json::{Object, raw};
use super::key::pem_text;
use super::log::LogEntry;
use super::payload;
use crate::registry::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const PREDICATE_TYPE: &str = "predicateType";
/// The media type of an attestation's layer.
pub(super) const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const LOGGED: &str = "dev.sigstore.cosign/bundle";
const TIMESTAMP: &str = "dev.sigstore.cosign/rfc3161timestamp";
/// Go's zero time, which cosign writes so that equal signatures give equal images.
const NO_TIME: &str = "0001-01-01T00:00:00Z";
/// cosign reads no more layers than this (`pkg/oci/signatures.go`, its limit against endless manifests).
const LAYERS_MAX: usize = 1000;

/// Why what stands at a `.sig` tag can't be added to.
#[derive(Debug, thiserror::Error)]
pub(super) enum LegacyError {
    /// Not a JSON object, or one that readers would differ on.
    #[error("its {part} is no valid JSON")]
    Json {
        /// `manifest` or `config`.
        part: &'static str,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// An index, say.
    #[error("it is a `{0}`, not an image manifest")]
    MediaType(String),
    /// A part that each image manifest has is missing.
    #[error("{0}")]
    Incomplete(&'static str),
    /// Full.
    #[error("it has {0} layers already; verifiers read no more than {LAYERS_MAX}")]
    Full(usize),
}

/// Returns the tag that holds the signatures of this image.
pub(super) fn tag(image: &Digest) -> String {
    format!("{}.sig", image.tag())
}

/// Returns the tag that holds the attestations of this image.
pub(super) fn attestation_tag(image: &Digest) -> String {
    format!("{}.att", image.tag())
}

/// Returns the layers of a manifest that can be signatures or attestations, without its config.
pub(super) fn layers_of(manifest: &[u8]) -> Result<Vec<Layer>, LegacyError> {
    let manifest = object(manifest, "manifest")?;
    let media_type: Option<String> = member(&manifest, "mediaType", "manifest")?;
    check_media_type(media_type.as_deref())?;
    let layers = elements(&manifest, "layers", "manifest")?;
    Ok(layers.iter().take(LAYERS_MAX).filter_map(|layer| serde_json::from_str(layer.get()).ok()).collect())
}

fn check_media_type(found: Option<&str>) -> Result<(), LegacyError> {
    match found {
        None | Some(OCI_MANIFEST | DOCKER_MANIFEST) => Ok(()),
        Some(other) => Err(LegacyError::MediaType(other.to_owned())),
    }
}

/// A layer of a `.sig` image, as far as it concerns signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Layer {
    pub(super) media_type: String,
    pub(super) size: u64,
    pub(super) digest: Digest,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
}

impl Layer {
    /// Returns the layer for a signature over this payload.
    pub(super) fn new(payload: &[u8], evidence: &Evidence) -> Self {
        let mut annotations = BTreeMap::from([(SIGNATURE.to_owned(), STANDARD.encode(&evidence.signature))]);
        if let Material::Certificate { leaf, chain } = &evidence.material {
            annotations.insert(CERTIFICATE.to_owned(), pem_text("CERTIFICATE", leaf));
            // Written also where it is empty, as cosign does.
            annotations
                .insert(CHAIN.to_owned(), chain.iter().map(|der| pem_text("CERTIFICATE", der)).collect());
        }
        if let Some(logged) = evidence.logged.iter().find_map(LogEntry::to_annotation) {
            annotations.insert(LOGGED.to_owned(), logged);
        }
        if let Some(timestamp) = evidence.timestamps.first() {
            let timestamp = TimestampJson { response: STANDARD.encode(timestamp) };
            let text = serde_json::to_string(&timestamp).expect("a string always serialises");
            annotations.insert(TIMESTAMP.to_owned(), text);
        }
        Self {
            media_type: payload::MEDIA_TYPE.to_owned(),
            size: payload.len() as u64,
            digest: Digest::of(payload),
            annotations,
        }
    }

    /// Whether it is a signature and not, say, an attestation.
    pub(super) fn is_simple_signing(&self) -> bool {
        self.media_type == payload::MEDIA_TYPE
    }

    /// Whether it may be an attestation of this predicate type.
    pub(super) fn may_hold(&self, predicate_type: &str) -> bool {
        // Not every writer says the type (`cosign attach attestation` doesn't).
        let plausible = self.annotations.get(PREDICATE_TYPE).is_none_or(|found| found == predicate_type);
        self.media_type == ENVELOPE && plausible
    }

    /// Returns what the annotations hold; `None` where there is no readable signature. What else can't be read is
    /// left out: a verifier that needs it misses it.
    pub(super) fn evidence(&self) -> Option<Evidence> {
        let signature = STANDARD.decode(self.annotations.get(SIGNATURE)?).ok()?;
        let certificates = |name| {
            let text = self.annotations.get(name).map(String::as_str).unwrap_or_default();
            let blocks = pem::parse_many(text).unwrap_or_default();
            blocks.into_iter().map(pem::Pem::into_contents).collect::<Vec<_>>()
        };
        let material = match certificates(CERTIFICATE).into_iter().next() {
            Some(leaf) => Material::Certificate { leaf, chain: certificates(CHAIN) },
            None => Material::PublicKey { hint: String::new() },
        };
        let mut evidence = Evidence::new(signature, material);
        evidence.logged.extend(self.annotations.get(LOGGED).and_then(|text| LogEntry::from_annotation(text)));
        let timestamp = self.annotations.get(TIMESTAMP).and_then(|text| {
            STANDARD.decode(serde_json::from_str::<TimestampJson>(text).ok()?.response).ok()
        });
        evidence.timestamps.extend(timestamp);
        Some(evidence)
    }

    /// Whether `other` adds nothing but another signature over the same payload: the same blob, and no
    /// annotation besides the signature that isn't here with equal value.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.digest == other.digest
            && self.media_type == other.media_type
            && other
                .annotations
                .iter()
                .all(|(key, value)| key == SIGNATURE || self.annotations.get(key) == Some(value))
    }
}

#[derive(Serialize, Deserialize)]
struct TimestampJson {
    #[serde(rename = "SignedRFC3161Timestamp")]
    response: String,
}

/// A `.sig` image as it stands in a registry, or as it will.
#[derive(Clone, Debug)]
pub(super) struct SignatureImage {
    manifest: Object,
    config: Object,
    /// `None` for a layer that can't be read as a signature's; it counts and stays all the same.
    layers: Vec<Option<Layer>>,
}

/// The bytes to upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Encoded {
    pub(super) config: Vec<u8>,
    pub(super) manifest: Vec<u8>,
    pub(super) media_type: String,
}

impl SignatureImage {
    /// Returns the image without signatures.
    pub(super) fn empty() -> Self {
        Self::empty_of(OCI_MANIFEST, OCI_CONFIG)
    }

    /// Returns the image without signatures, of docker's media types.
    pub(super) fn empty_docker() -> Self {
        Self::empty_of(DOCKER_MANIFEST, DOCKER_CONFIG)
    }

    fn empty_of(manifest_type: &str, config_type: &str) -> Self {
        let manifest = Object::parse(
            format!(r#"{{"schemaVersion":2,"mediaType":"{manifest_type}","config":{{"mediaType":"{config_type}","size":0,"digest":"{}"}},"layers":[]}}"#, Digest::of(b""))
                .as_bytes(),
        );
        let config = Object::parse(
            format!(r#"{{"architecture":"","created":"{NO_TIME}","history":[],"os":"","rootfs":{{"type":"layers","diff_ids":[]}},"config":{{}}}}"#)
                .as_bytes(),
        );
        Self {
            manifest: manifest.expect("a constant"),
            config: config.expect("a constant"),
            layers: Vec::new(),
        }
    }

    /// Returns the digest of the config that a manifest names.
    pub(super) fn config_digest(manifest: &[u8]) -> Result<Digest, LegacyError> {
        config_descriptor(&object(manifest, "manifest")?).map(|(_, digest)| digest)
    }

    /// Reads what stands at a `.sig` tag.
    pub(super) fn parse(manifest: &[u8], config: &[u8]) -> Result<Self, LegacyError> {
        let manifest = object(manifest, "manifest")?;
        let media_type: Option<String> = member(&manifest, "mediaType", "manifest")?;
        check_media_type(media_type.as_deref())?;
        config_descriptor(&manifest)?;
        let layers = elements(&manifest, "layers", "manifest")?;
        let layers = layers.iter().map(|layer| serde_json::from_str(layer.get()).ok()).collect();
        Ok(Self { layers, config: object(config, "config")?, manifest })
    }

    /// Returns the layers of a manifest that can be signatures, without its config.
    pub(super) fn layers_of(manifest: &[u8]) -> Result<Vec<Layer>, LegacyError> {
        let layers = elements(&object(manifest, "manifest")?, "layers", "manifest")?;
        Ok(layers.iter().filter_map(|layer| serde_json::from_str(layer.get()).ok()).collect())
    }

    /// Returns the layers that can be signatures, in their order.
    pub(super) fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().flatten()
    }

    /// Adds a signature after the others.
    pub(super) fn append(&mut self, layer: &Layer) -> Result<(), LegacyError> {
        if self.layers.len() >= LAYERS_MAX {
            return Err(LegacyError::Full(self.layers.len()));
        }
        let mut layers = elements(&self.manifest, "layers", "manifest")?;
        let mut rootfs: Object = member(&self.config, "rootfs", "config")?.unwrap_or_default();
        let mut diff_ids = elements(&rootfs, "diff_ids", "config")?;
        let mut history = elements(&self.config, "history", "config")?;
        if diff_ids.len() != layers.len() {
            // Some writers leave the config empty. The layers aren't compressed, so the ids are the digests.
            diff_ids = layers.iter().map(|layer| Self::digest_of(layer)).collect::<Result<_, _>>()?;
            rootfs.set("type", &"layers");
        }

        layers.push(raw(layer));
        diff_ids.push(raw(&layer.digest));
        history.push(raw(&BTreeMap::from([("created", NO_TIME)])));
        rootfs.set("diff_ids", &diff_ids);
        self.manifest.set("layers", &layers);
        self.config.set("rootfs", &rootfs);
        self.config.set("history", &history);
        self.layers.push(Some(layer.clone()));
        Ok(())
    }

    fn digest_of(layer: &RawValue) -> Result<Box<RawValue>, LegacyError> {
        let layer = object(layer.get().as_bytes(), "manifest")?;
        member(&layer, "digest", "manifest")?.ok_or(LegacyError::Incomplete("a layer has no digest"))
    }

    /// Returns the bytes to upload.
    pub(super) fn encode(&self) -> Encoded {
        let config = self.config.to_vec();
        let mut manifest = self.manifest.clone();
        let (mut descriptor, _) = config_descriptor(&manifest).expect("checked when it was parsed");
        descriptor.set("size", &config.len());
        descriptor.set("digest", &Digest::of(&config));
        manifest.set("config", &descriptor);
        let media_type = manifest.get("mediaType").ok().flatten().unwrap_or_else(|| OCI_MANIFEST.to_owned());
        Encoded { config, manifest: manifest.to_vec(), media_type }
    }
}

fn config_descriptor(manifest: &Object) -> Result<(Object, Digest), LegacyError> {
    let descriptor: Object = member(manifest, "config", "manifest")?
        .ok_or(LegacyError::Incomplete("its manifest has no config"))?;
    let digest = member(&descriptor, "digest", "manifest")?
        .ok_or(LegacyError::Incomplete("its config has no digest"))?;
    Ok((descriptor, digest))
}

fn object(bytes: &[u8], part: &'static str) -> Result<Object, LegacyError> {
    Object::parse(bytes).map_err(|source| LegacyError::Json { part, source })
}

fn elements(object: &Object, name: &str, part: &'static str) -> Result<Vec<Box<RawValue>>, LegacyError> {
    object.elements(name).map_err(|source| LegacyError::Json { part, source })
}

fn member<T: DeserializeOwned>(
    object: &Object,
    name: &str,
    part: &'static str,
) -> Result<Option<T>, LegacyError> {
    object.get(name).map_err(|source| LegacyError::Json { part, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::key::{Hash, PublicKey};
    use proptest::prelude::*;

    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!("../../integration/fixtures/signing/", $name)).as_slice().trim_ascii_end()
        };
    }

    /// The config that cosign made for the one-layer manifest of the fixtures; its digest and size stand there.
    const CONFIG_OF_ONE: &str = concat!(
        r#"{"architecture":"","created":"0001-01-01T00:00:00Z","history":[{"created":"0001-01-01T00:00:00Z"}],"#,
        r#""os":"","rootfs":{"type":"layers","diff_ids":["#,
        r#""sha256:c6cb25a76aae8175ec7133a78e7c1ce581bc54fc02ca62f962fbc4ad826a2dcd"]},"config":{}}"#
    );

    fn layer(signature: &[u8]) -> Layer {
        let material = Material::PublicKey { hint: String::new() };
        Layer::new(b"payload", &Evidence::new(signature.to_vec(), material))
    }

    #[test]
    fn the_first_signature_makes_cosigns_image_byte_for_byte() {
        let cosigns =
            SignatureImage::parse(fixture!("legacy-sig-manifest.json"), CONFIG_OF_ONE.as_bytes()).unwrap();
        let mut ours = SignatureImage::empty();
        ours.append(cosigns.layers().next().unwrap()).unwrap();
        let encoded = ours.encode();
        assert_eq!(String::from_utf8(encoded.config).unwrap(), CONFIG_OF_ONE);
        // Two members of the config's descriptor and of the layer's stand in another order; parsed they are equal.
        let value = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
        assert_eq!(value(&encoded.manifest), value(fixture!("legacy-sig-manifest.json")));
        assert_eq!(encoded.media_type, OCI_MANIFEST);
    }

    #[test]
    fn the_signature_of_the_fixture_is_read() {
        let image =
            SignatureImage::parse(fixture!("legacy-sig-manifest.json"), CONFIG_OF_ONE.as_bytes()).unwrap();
        let layer = image.layers().next().unwrap();
        let payload = include_bytes!("../../integration/fixtures/signing/simple-signing-payload.json");
        assert_eq!(layer.digest, Digest::of(payload));
        let key = PublicKey::from_pem(fixture!("cosign.pub")).unwrap();
        assert_eq!(key.verify(payload, &layer.evidence().unwrap().signature), Some(Hash::Sha256));
    }

    #[test]
    fn a_keyless_layer_is_written_as_it_was_read() {
        let manifest = fixture!("legacy-keyless-manifest-rekorv1-emulator.json");
        let layers = SignatureImage::layers_of(manifest).unwrap();
        let evidence = layers[0].evidence().unwrap();
        assert!(matches!(evidence.material, Material::Certificate { .. }));
        assert_eq!(evidence.logged.len(), 1);
        let mut timestamped = evidence.clone();
        timestamped.timestamps.push(vec![0x30, 0]);
        for evidence in [evidence, timestamped] {
            assert_eq!(Layer::new(b"payload", &evidence).evidence().unwrap(), evidence);
        }
        let ours = Layer::new(b"payload", &layers[0].evidence().unwrap());
        assert_eq!(ours.annotations, layers[0].annotations);
    }

    #[test]
    fn others_layers_stay_byte_for_byte() {
        let before = br#"{ "schemaVersion": 2, "x-new": {"b":1,"a":1.50},
            "config": {"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":2,"data":"e30="},
            "layers": [ {"size": 7,"mediaType":"m","urls":["\u003c"],"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
                        {"mediaType":"n","digest":"sha512:00","size":1} ] }"#;
        let mut image = SignatureImage::parse(before, b"{}").unwrap();
        assert_eq!(image.layers().count(), 1, "the sha512 one is passed over");
        image.append(&layer(b"s")).unwrap();
        let encoded = image.encode();
        let manifest = String::from_utf8(encoded.manifest).unwrap();
        for kept in [
            r#""x-new":{"b":1,"a":1.50}"#,
            r#"{"size": 7,"mediaType":"m","urls":["\u003c"],"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#,
            r#"{"mediaType":"n","digest":"sha512:00","size":1}"#,
        ] {
            assert!(manifest.contains(kept), "{kept} is gone from {manifest}");
        }
        let config = String::from_utf8(encoded.config).unwrap();
        assert!(
            config.contains(r#""diff_ids":["sha256:e3b0"#) && config.contains(r#""sha512:00""#),
            "{config}"
        );
        assert_eq!(
            SignatureImage::parse(manifest.as_bytes(), config.as_bytes()).unwrap().encode().manifest,
            manifest.as_bytes()
        );
    }

    #[test]
    fn foreign_things_at_the_tag_are_refused() {
        let index = br#"{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        assert!(matches!(SignatureImage::parse(index, b"{}"), Err(LegacyError::MediaType(_))));
        assert!(matches!(SignatureImage::parse(br#"{"layers":[]}"#, b"{}"), Err(LegacyError::Incomplete(_))));
        assert!(matches!(SignatureImage::parse(b"<html>", b"{}"), Err(LegacyError::Json { .. })));
        let mut full = SignatureImage::empty();
        full.layers = vec![None; LAYERS_MAX];
        assert!(matches!(full.append(&layer(b"s")), Err(LegacyError::Full(LAYERS_MAX))));
    }

    #[test]
    fn what_counts_as_the_same_signature() {
        let (one, two) = (layer(b"1"), layer(b"2"));
        assert!(one.covers(&two), "another signature over the same payload");
        let mut keyless = layer(b"3");
        keyless.annotations.insert(CERTIFICATE.to_owned(), "pem".to_owned());
        assert!(!one.covers(&keyless));
        assert!(keyless.covers(&one), "more evidence than asked for");
    }

    prop_compose! {
        fn any_image()(signatures in prop::collection::vec(any::<Vec<u8>>(), 0..8), spaces in 0usize..3) -> (Vec<u8>, Vec<u8>) {
            let mut image = SignatureImage::empty();
            for signature in &signatures {
                image.append(&layer(signature)).unwrap();
            }
            let encoded = image.encode();
            let text = String::from_utf8(encoded.manifest).unwrap();
            // Another writer's spacing.
            (text.replace("\":", &format!("\":{}", " ".repeat(spaces))).into_bytes(), encoded.config)
        }
    }

    proptest! {
        #[test]
        fn appending_keeps_what_was_there((manifest, config) in any_image(), added in prop::collection::vec(any::<Vec<u8>>(), 1..4)) {
            let raw_layers = |bytes: &[u8]| Object::parse(bytes).unwrap().elements("layers").unwrap()
                .iter().map(|layer| layer.get().to_owned()).collect::<Vec<_>>();
            let before = raw_layers(&manifest);
            let mut image = SignatureImage::parse(&manifest, &config).unwrap();
            for signature in &added {
                image.append(&layer(signature)).unwrap();
            }
            let encoded = image.encode();
            let after = raw_layers(&encoded.manifest);
            prop_assert_eq!(after.len(), before.len() + added.len());
            prop_assert_eq!(&after[..before.len()], &before[..]);
            let again = SignatureImage::parse(&encoded.manifest, &encoded.config).unwrap();
            let signatures: Vec<_> = again.layers().map(|layer| layer.evidence().unwrap().signature).collect();
            prop_assert_eq!(&signatures[before.len()..], &added[..]);
            prop_assert_eq!(SignatureImage::config_digest(&encoded.manifest).unwrap(), Digest::of(&encoded.config));
            let rootfs: Object = Object::parse(&encoded.config).unwrap().get("rootfs").unwrap().unwrap();
            prop_assert_eq!(rootfs.elements("diff_ids").unwrap().len(), after.len());
        }

        #[test]
        fn no_bytes_panic(manifest: Vec<u8>, config: Vec<u8>) {
            if let Ok(mut image) = SignatureImage::parse(&manifest, &config) {
                let _either_way = image.append(&layer(b"s"));
                image.encode();
            }
        }
    }
}
