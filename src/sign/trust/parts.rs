//! A trust root whose parts are named one by one, as PEM: cosign's way before there were TrustedRoot files.

use super::{TrustError, TrustRoot};
use crate::registry::Digest;
use crate::sign::der;
use crate::sign::key::{KeyKind, PublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// What stands in the place of the public instance's; PEM.
#[derive(Clone, Debug, Default)]
pub struct TrustParts {
    /// Certificates of the authority: its roots, and what stands between them and what it issues.
    pub authority: Option<Vec<u8>>,
    /// Keys of transparency logs that speak Rekor v1.
    pub log: Option<Vec<u8>>,
    /// Keys of certificate logs.
    pub certificate_log: Option<Vec<u8>>,
    /// The timestamp authority's certificates: its own, then what signed it, up to the root.
    pub clock: Option<Vec<u8>>,
}

impl TrustRoot {
    /// Returns this root with other parts. Another authority isn't expected to be in this root's certificate logs.
    ///
    /// # Errors
    /// PEM that holds nothing of the kind.
    pub fn with(&self, parts: &TrustParts) -> Result<Self, TrustError> {
        let mut root =
            serde_json::to_value(&*self.root).map_err(|error| TrustError::Json(Box::new(error)))?;
        if let Some(pem) = &parts.authority {
            root["certificateAuthorities"] = authorities(&certificates(pem)?);
            root["ctlogs"] = json!([]);
        }
        if let Some(pem) = &parts.log {
            root["tlogs"] = logs(pem)?;
        }
        if let Some(pem) = &parts.certificate_log {
            root["ctlogs"] = logs(pem)?;
        }
        if let Some(pem) = &parts.clock {
            root["timestampAuthorities"] = json!([authority(&certificates(pem)?)]);
        }
        Self::parse(root.to_string().as_bytes())
    }
}

fn nothing(what: &'static str) -> TrustError {
    TrustError::Content(format!("it holds no {what} as PEM").into())
}

fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, TrustError> {
    let blocks = pem::parse_many(pem).map_err(|error| TrustError::Content(Box::new(error)))?;
    let blocks = blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE");
    let all: Vec<_> = blocks.map(pem::Pem::into_contents).collect();
    if all.is_empty() { Err(nothing("certificate")) } else { Ok(all) }
}

/// One authority for each root, with all that isn't one between.
fn authorities(certificates: &[Vec<u8>]) -> Value {
    let (roots, between): (Vec<_>, Vec<_>) = certificates.iter().partition(|der| is_root(der) != Some(false));
    let chain =
        |root: &Vec<u8>| between.iter().map(|&der| der.clone()).chain([root.clone()]).collect::<Vec<_>>();
    roots.into_iter().map(|root| authority(&chain(root))).collect()
}

fn authority(chain: &[Vec<u8>]) -> Value {
    let chain: Vec<_> = chain.iter().map(|der| json!({ "rawBytes": STANDARD.encode(der) })).collect();
    json!({ "uri": "", "certChain": { "certificates": chain }, "validFor": { "start": "1970-01-01T00:00:00Z" } })
}

/// Whether a certificate names itself as its issuer.
fn is_root(certificate: &[u8]) -> Option<bool> {
    let (_, certificate, _) = der::read(certificate)?;
    let (_, mut rest, _) = der::read(certificate)?;
    // Version, serial number, algorithm, issuer, validity, subject (RFC 5280 4.1).
    let mut fields = Vec::new();
    while fields.len() < 6 {
        let (_, content, after) = der::read(rest)?;
        fields.push(content);
        rest = after;
    }
    Some(fields[3] == fields[5])
}

fn logs(pem: &[u8]) -> Result<Value, TrustError> {
    let blocks = pem::parse_many(pem).map_err(|error| TrustError::Content(Box::new(error)))?;
    let log = |block: &pem::Pem| {
        let key =
            PublicKey::from_spki(block.contents()).map_err(|error| TrustError::Content(Box::new(error)))?;
        Ok::<_, TrustError>(json!({
            "baseUrl": "",
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": STANDARD.encode(key.spki()),
                "keyDetails": key_details(key.kind()),
                "validFor": { "start": "1970-01-01T00:00:00Z" },
            },
            // RFC 6962 3.2.
            "logId": { "keyId": STANDARD.encode(Digest::of(key.spki()).bytes()) },
        }))
    };
    let logs = blocks.iter().filter(|block| block.tag() == "PUBLIC KEY").map(log);
    let logs = logs.collect::<Result<Vec<_>, _>>()?;
    if logs.is_empty() { Err(nothing("public key")) } else { Ok(Value::Array(logs)) }
}

/// sigstore's name for a key that signs SHA-256 (protobuf-specs `PublicKeyDetails`).
fn key_details(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::EcdsaP256 => "PKIX_ECDSA_P256_SHA_256",
        KeyKind::EcdsaP384 => "PKIX_ECDSA_P384_SHA_256",
        KeyKind::EcdsaP521 => "PKIX_ECDSA_P521_SHA_256",
        KeyKind::Rsa { bits: ..=2048 } => "PKIX_RSA_PKCS1V15_2048_SHA256",
        KeyKind::Rsa { bits: ..=3072 } => "PKIX_RSA_PKCS1V15_3072_SHA256",
        KeyKind::Rsa { .. } => "PKIX_RSA_PKCS1V15_4096_SHA256",
        KeyKind::Ed25519 => "PKIX_ED25519",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::key::pem_text;

    /// The parts of the emulator's own root, as PEM.
    fn parts() -> (Value, TrustParts) {
        let json = include_str!("../../../integration/fixtures/signing/trusted-root-emulator.json");
        let root: Value = serde_json::from_str(json).unwrap();
        let text =
            |label: &str, raw: &Value| pem_text(label, &STANDARD.decode(raw.as_str().unwrap()).unwrap());
        let key = |logs: &str| Some(text("PUBLIC KEY", &root[logs][0]["publicKey"]["rawBytes"]).into_bytes());
        let chain = |authorities: &str| {
            let all = root[authorities][0]["certChain"]["certificates"].as_array()?;
            Some(all.iter().map(|one| text("CERTIFICATE", &one["rawBytes"])).collect::<String>().into_bytes())
        };
        let authority = chain("certificateAuthorities");
        let parts = TrustParts {
            authority,
            log: key("tlogs"),
            certificate_log: key("ctlogs"),
            clock: chain("timestampAuthorities"),
        };
        (root, parts)
    }

    #[test]
    fn the_same_parts_make_the_same_root() {
        let (root, parts) = parts();
        let made = TrustRoot::public().with(&parts).unwrap();
        let made = serde_json::to_value(&*made.root).unwrap();
        assert_eq!(made["tlogs"][0]["logId"], root["tlogs"][0]["logId"]);
        assert_eq!(made["ctlogs"][0]["logId"], root["ctlogs"][0]["logId"]);
        let chain = |root: &Value| root["certificateAuthorities"][0]["certChain"].clone();
        assert_eq!(chain(&made), chain(&root));
    }

    #[test]
    fn another_authority_has_no_certificate_logs_unless_they_are_named() {
        let (_, parts) = parts();
        let alone = TrustParts { authority: parts.authority, ..TrustParts::default() };
        assert!(!TrustRoot::public().with(&alone).unwrap().has_certificate_logs());
        assert!(TrustRoot::public().with(&TrustParts::default()).unwrap().has_certificate_logs());
        let key = parts.log.unwrap();
        let swapped = TrustParts { authority: Some(key), ..TrustParts::default() };
        assert!(TrustRoot::public().with(&swapped).is_err());
        let garbage = TrustParts { log: Some(b"no PEM".to_vec()), ..TrustParts::default() };
        assert!(TrustRoot::public().with(&garbage).is_err());
    }
}
