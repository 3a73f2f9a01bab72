//! What a v2 log (rekor-tiles) records: its one kind of entry, `hashedrekord` 0.0.2, also for what stands in an
//! envelope.
//!
//! Its entries need not be read: the body is made anew from the signature that is being verified, as the log made it,
//! and is there or not. Sources: protobuf-specs `PublicKeyDetails`, rekor-tiles `pkg/types/hashedrekord`.

use crate::sign::evidence::{Content, Evidence, Material};
use crate::sign::key::{Hash, KeyKind, PublicKey};
use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Returns the one hash over which v2 logs take signatures of such a key; `None` if they take none: of Ed25519 they
/// want a variant that `cosign verify` does not.
pub(in crate::sign) fn hash(kind: KeyKind) -> Option<Hash> {
    Some(match kind {
        KeyKind::EcdsaP384 | KeyKind::EcdsaP521 => Hash::OfCurve,
        KeyKind::EcdsaP256 | KeyKind::Rsa { bits: 2048 | 3072 | 4096 } => Hash::Sha256,
        KeyKind::Rsa { .. } | KeyKind::Ed25519 => return None,
    })
}

/// A signature as such a log records it.
pub(in crate::sign) struct Rekord {
    algorithm: &'static str,
    digest: String,
    signature: Value,
}

impl Rekord {
    /// Returns what a log records of a signature; `None` for kinds of keys that no log takes.
    pub(in crate::sign) fn of(content: Content<'_>, key: &PublicKey, evidence: &Evidence) -> Option<Self> {
        let (details, algorithm, hash): (_, _, &'static Algorithm) = match key.kind() {
            KeyKind::EcdsaP256 => ("PKIX_ECDSA_P256_SHA_256", "SHA2_256", &SHA256),
            KeyKind::EcdsaP384 => ("PKIX_ECDSA_P384_SHA_384", "SHA2_384", &SHA384),
            KeyKind::EcdsaP521 => ("PKIX_ECDSA_P521_SHA_512", "SHA2_512", &SHA512),
            KeyKind::Rsa { bits: 2048 } => ("PKIX_RSA_PKCS1V15_2048_SHA256", "SHA2_256", &SHA256),
            KeyKind::Rsa { bits: 3072 } => ("PKIX_RSA_PKCS1V15_3072_SHA256", "SHA2_256", &SHA256),
            KeyKind::Rsa { bits: 4096 } => ("PKIX_RSA_PKCS1V15_4096_SHA256", "SHA2_256", &SHA256),
            KeyKind::Rsa { .. } | KeyKind::Ed25519 => return None,
        };
        let (member, raw) = match &evidence.material {
            Material::Certificate { leaf, .. } => ("x509Certificate", leaf.as_slice()),
            Material::PublicKey { .. } => ("publicKey", key.spki()),
        };
        // Members in the order of their names, and nothing that JSON would escape: canonical (RFC 8785) as it stands.
        let verifier = json!({ "keyDetails": details, member: { "rawBytes": STANDARD.encode(raw) } });
        let signature = json!({ "content": STANDARD.encode(&evidence.signature), "verifier": verifier });
        let digest = STANDARD.encode(digest(hash, &content.message()));
        Some(Self { algorithm, digest, signature })
    }

    /// Returns what asks a log to record it.
    pub(in crate::sign) fn request(&self) -> Value {
        json!({ "hashedRekordRequestV002": { "digest": self.digest, "signature": self.signature } })
    }

    /// Returns the body of the entry, which is the leaf of the log's tree.
    pub(in crate::sign) fn body(&self) -> Vec<u8> {
        let Self { algorithm, digest, signature } = self;
        let rekord = json!({ "data": { "algorithm": algorithm, "digest": digest }, "signature": signature });
        let spec = json!({ "hashedRekordV002": rekord });
        json!({ "apiVersion": "0.0.2", "kind": "hashedrekord", "spec": spec }).to_string().into_bytes()
    }
}
