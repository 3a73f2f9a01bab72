//! Sigstore bundles v0.3 around in-toto statements.
//!
//! The types of the `sigstore-*` crates change from one minor release to the next, so nothing of them shows outside
//! of `sign`. The statement is written here because its type there has no place for the annotations of a subject.

use super::evidence::{Evidence, Material};
use super::log::LogEntry;
use super::payload::push_map;
use crate::registry::Digest;
use serde::Deserialize;
use sigstore_bundle::{BundleV03, VerificationMaterialV03};
use sigstore_types::{
    Bundle, DerCertificate, DsseEnvelope, DsseSignature, KeyId, MediaType, PayloadBytes, SignatureBytes,
    SignatureContent, TimestampToken, VerificationMaterialContent,
};
use std::collections::BTreeMap;

/// The media type of a bundle, and the artifact type of the manifest that holds one.
pub(super) const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// What begins the media types of bundles of every version.
pub(super) const MEDIA_TYPE_STEM: &str = "application/vnd.dev.sigstore.bundle";

/// The predicate type that says "this image is signed", and no more.
pub(super) const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";

/// The payload type of an in-toto statement in a DSSE envelope.
pub(super) const STATEMENT: &str = "application/vnd.in-toto+json";

/// How many log entries, and how many timestamps, verifiers look at (sigstore-go `pkg/verify`).
const WITNESSES_MAX: usize = 32;

/// Returns the statement that says "this image is signed", byte for byte as cosign writes it.
pub(super) fn signed_statement(image: &Digest, annotations: &BTreeMap<String, String>) -> Vec<u8> {
    let mut text = format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{}"}},"annotations":"#,
        image.hex()
    );
    push_map(&mut text, annotations);
    text.push_str(r#"}],"predicateType":""#);
    text.push_str(SIGNED);
    text.push_str(r#"","predicate":{}}"#);
    text.into_bytes()
}

/// Returns what the signature of an envelope covers (DSSE's pre-authentication encoding).
pub(super) fn message(statement: &[u8]) -> Vec<u8> {
    sigstore_types::pae(STATEMENT, statement)
}

/// Returns the DSSE envelope's own JSON.
pub(super) fn envelope(statement: &[u8], signature: &[u8]) -> String {
    let signature = DsseSignature::new(SignatureBytes::from_bytes(signature), KeyId::default());
    let envelope = DsseEnvelope::new(STATEMENT, PayloadBytes::from_bytes(statement), signature);
    serde_json::to_string(&envelope).expect("strings and bytes always serialise")
}

/// Returns the bundle's JSON as cosign writes it: zero values are left out.
pub(super) fn encode(statement: &[u8], evidence: &Evidence) -> Vec<u8> {
    let material = match &evidence.material {
        Material::PublicKey { hint } => VerificationMaterialV03::PublicKey { hint: hint.clone() },
        Material::Certificate { leaf, .. } => {
            VerificationMaterialV03::Certificate(DerCertificate::from_bytes(leaf))
        }
    };
    let signature = DsseSignature::new(SignatureBytes::from_bytes(&evidence.signature), KeyId::default());
    let envelope = DsseEnvelope::new(STATEMENT, PayloadBytes::from_bytes(statement), signature);
    let mut bundle = BundleV03::new(material, SignatureContent::DsseEnvelope(envelope));
    for entry in &evidence.logged {
        bundle = bundle.with_tlog_entry(entry.inner().clone());
    }
    for timestamp in &evidence.timestamps {
        bundle = bundle.with_rfc3161_timestamp(TimestampToken::from_bytes(timestamp));
    }
    let mut json = serde_json::to_value(bundle.into_bundle()).expect("strings and bytes always serialise");
    if let Some(material) = json["verificationMaterial"].as_object_mut() {
        material.retain(|_, value| match value {
            serde_json::Value::Array(entries) => !entries.is_empty(),
            serde_json::Value::Object(members) => !members.is_empty(),
            _ => true,
        });
    }
    serde_json::to_vec(&json).expect("a JSON value always serialises")
}

/// Why bytes are no bundle of a signed statement.
#[derive(Debug, thiserror::Error)]
pub(super) enum BundleError {
    /// Not the JSON of a bundle.
    #[error("it is not a Sigstore bundle")]
    Json(#[source] sigstore_types::Error),
    /// An older version, whose rules are weaker.
    #[error("its version `{0}` is not v0.3")]
    Version(String),
    /// A bare message signature, or certificates in a way that v0.3 forbids.
    #[error("{0}")]
    Content(&'static str),
    /// The payload isn't the JSON of a statement.
    #[error("its payload is not an in-toto statement")]
    Statement(#[source] serde_json::Error),
}

/// A bundle taken apart, not verified.
#[derive(Debug)]
pub(super) struct Opened {
    /// The statement as it was signed.
    pub(super) statement: Vec<u8>,
    /// What signs it.
    pub(super) evidence: Evidence,
}

/// Takes a bundle apart.
pub(super) fn open(json: &[u8]) -> Result<Opened, BundleError> {
    let text = std::str::from_utf8(json).map_err(|_| BundleError::Content("it is not text"))?;
    let bundle = Bundle::from_json(text).map_err(BundleError::Json)?;
    if bundle.media_type != MediaType::Bundle0_3 {
        return Err(BundleError::Version(bundle.media_type.as_str().to_owned()));
    }
    let material = match bundle.verification_material.content {
        VerificationMaterialContent::PublicKey(key) => Material::PublicKey { hint: key.hint },
        VerificationMaterialContent::Certificate(certificate) => {
            Material::Certificate { leaf: certificate.raw_bytes.into_bytes(), chain: Vec::new() }
        }
        _ => return Err(BundleError::Content("it has a certificate chain, which v0.3 forbids")),
    };
    let SignatureContent::DsseEnvelope(envelope) = bundle.content else {
        return Err(BundleError::Content("it signs a file, not a statement"));
    };
    if envelope.payload_type != STATEMENT {
        return Err(BundleError::Content("its payload is not an in-toto statement"));
    }
    let mut evidence = Evidence::new(envelope.signature.sig.into_bytes(), material);
    let logged = bundle.verification_material.tlog_entries;
    let timestamps = bundle.verification_material.timestamp_verification_data.rfc3161_timestamps;
    if logged.len().max(timestamps.len()) > WITNESSES_MAX {
        return Err(BundleError::Content("it has more log entries or timestamps than verifiers look at"));
    }
    evidence.logged = logged.into_iter().map(|entry| LogEntry::new(entry, None)).collect();
    evidence.timestamps = timestamps.into_iter().map(|one| one.signed_timestamp.into_bytes()).collect();
    Ok(Opened { statement: envelope.payload.into_bytes(), evidence })
}

/// What a statement claims.
#[derive(Debug, Deserialize)]
pub(super) struct Statement {
    /// What kind of statement it is.
    #[serde(rename = "predicateType")]
    pub(super) predicate_type: String,
    #[serde(default)]
    subject: Vec<SubjectJson>,
}

#[derive(Debug, Deserialize)]
struct SubjectJson {
    #[serde(default)]
    digest: BTreeMap<String, String>,
    annotations: Option<BTreeMap<String, serde_json::Value>>,
}

impl Statement {
    /// Reads a statement; only after its signature has been verified.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        serde_json::from_slice(bytes).map_err(BundleError::Statement)
    }

    /// Returns the SHA-256, in hex, of the first subject that has one.
    pub(super) fn first_sha256(&self) -> Option<&str> {
        self.subject.iter().find_map(|subject| subject.digest.get("sha256")).map(String::as_str)
    }

    /// Returns the annotations of the subject that is this image; `None` if the statement isn't about it.
    pub(super) fn about(&self, image: &Digest) -> Option<BTreeMap<String, String>> {
        let hex = image.hex();
        let subject = self.subject.iter().find(|subject| subject.digest.get("sha256") == Some(&hex))?;
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let annotations = subject.annotations.iter().flatten();
        Some(annotations.map(|(key, value)| (key.clone(), text(value))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::key::{Hash, PublicKey};

    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!("../../integration/fixtures/signing/", $name)).as_slice()
        };
    }

    const IMAGE: &str = "sha256:3f5f4205e5f0ae0cac469c932230928faad334460c7877f960e9b2728ed1cb10";

    #[test]
    fn cosigns_bundle_verifies_and_is_written_alike() {
        let original = fixture!("bundle-key-notlog.json").trim_ascii_end();
        let opened = open(original).unwrap();
        let key = PublicKey::from_pem(fixture!("cosign.pub")).unwrap();
        let signature = &opened.evidence.signature;
        assert_eq!(key.verify(&message(&opened.statement), signature), Some(Hash::Sha256));
        assert_eq!(opened.evidence.material, Material::PublicKey { hint: key.hint() });

        let image = IMAGE.parse().unwrap();
        let annotations = BTreeMap::from([("foo".to_owned(), "bar".to_owned())]);
        assert_eq!(signed_statement(&image, &annotations), opened.statement);
        assert_eq!(Statement::parse(&opened.statement).unwrap().about(&image), Some(annotations));
        // The members of the envelope stand in another order; nobody signs that.
        let value = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
        assert_eq!(value(&encode(&opened.statement, &opened.evidence)), value(original));
    }

    #[test]
    fn logged_and_timestamped_evidence_is_written_as_it_was_read() {
        let key = PublicKey::from_pem(fixture!("cosign.pub")).unwrap();
        let logged = open(fixture!("bundle-key-rekorv2.json")).unwrap();
        assert!(key.verify(&message(&logged.statement), &logged.evidence.signature).is_some());
        let keyless = open(fixture!("bundle-keyless-rekorv2-tsa.json")).unwrap();
        assert!(matches!(keyless.evidence.material, Material::Certificate { .. }));
        assert_eq!((keyless.evidence.logged.len(), keyless.evidence.timestamps.len()), (1, 1));
        for opened in [logged, keyless] {
            let again = open(&encode(&opened.statement, &opened.evidence)).unwrap();
            assert_eq!(again.evidence, opened.evidence);
        }
    }

    #[test]
    fn a_provenance_is_no_signature_of_the_image() {
        let opened = open(fixture!("bundle-buildkit-slsa1-key.json")).unwrap();
        let key = PublicKey::from_pem(fixture!("bundle-buildkit-slsa1-key.pub")).unwrap();
        assert!(key.verify(&message(&opened.statement), &opened.evidence.signature).is_some());
        let statement = Statement::parse(&opened.statement).unwrap();
        assert_eq!(statement.predicate_type, "https://slsa.dev/provenance/v1");
        assert_eq!(statement.about(&IMAGE.parse().unwrap()), None);
    }

    #[test]
    fn without_annotations_the_object_stays_empty() {
        let text = String::from_utf8(signed_statement(&IMAGE.parse().unwrap(), &BTreeMap::new())).unwrap();
        assert!(text.contains(r#""annotations":{}}],"predicateType""#), "{text}");
    }

    #[test]
    fn what_is_no_v03_bundle_is_refused() {
        let good = String::from_utf8(fixture!("bundle-key-notlog.json").to_vec()).unwrap();
        let refused = |from: &str, to: &str| open(good.replace(from, to).as_bytes()).unwrap_err().to_string();
        assert!(refused("bundle.v0.3+json", "bundle+json;version=0.1").contains("0.1"));
        assert!(refused("in-toto+json", "other+json").contains("payload"));
        assert!(
            refused(r#""signatures":["#, r#""signatures":[{"sig":"AAAA"},"#)
                .contains("not a Sigstore bundle")
        );
        assert!(open(b"\xff").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _either_way = open(&bytes);
            let _either_way = Statement::parse(&bytes);
        }
    }
}
