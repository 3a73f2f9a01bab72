//! The public half of a key: what it is, how verifiers name it, what it verifies.

use super::KeyError;
use aws_lc_rs::digest;
use aws_lc_rs::signature::{self, ParsedPublicKey, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// The kinds of keys that sign here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// RSA with PKCS#1 v1.5 padding.
    Rsa {
        /// The length of the modulus.
        bits: usize,
    },
    /// Pure Ed25519 (RFC 8032), not its pre-hashed variant.
    Ed25519,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EcdsaP256 => formatter.write_str("ECDSA P-256"),
            Self::EcdsaP384 => formatter.write_str("ECDSA P-384"),
            Self::EcdsaP521 => formatter.write_str("ECDSA P-521"),
            Self::Rsa { bits } => write!(formatter, "RSA {bits}"),
            Self::Ed25519 => formatter.write_str("Ed25519"),
        }
    }
}

impl KeyKind {
    /// Returns cosign's name for [`Hash::OfCurve`] with such a key.
    pub fn hash_of_curve(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "sha256",
            Self::EcdsaP384 => "sha384",
            Self::EcdsaP521 | Self::Rsa { .. } | Self::Ed25519 => "sha512",
        }
    }
}

/// The hash that a signature was made over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256: what we sign with, and what `cosign verify` assumes. For Ed25519 it stands for "pure".
    Sha256,
    /// The hash of the curve's own size, which cosign 3 signs with: SHA-384 for P-384, SHA-512 for P-521. For RSA it
    /// is SHA-512, which some keys of Google Cloud KMS are bound to.
    OfCurve,
}

/// A public key.
#[derive(Clone)]
pub struct PublicKey {
    kind: KeyKind,
    spki: Vec<u8>,
}

/// What a public key can be, tried in turn; the parser refuses an SPKI of another kind or curve.
const CANDIDATES: [(KeyKind, &dyn VerificationAlgorithm); 5] = [
    (KeyKind::EcdsaP256, &signature::ECDSA_P256_SHA256_ASN1),
    (KeyKind::EcdsaP384, &signature::ECDSA_P384_SHA256_ASN1),
    (KeyKind::EcdsaP521, &signature::ECDSA_P521_SHA256_ASN1),
    (KeyKind::Rsa { bits: 0 }, &signature::RSA_PKCS1_2048_8192_SHA256),
    (KeyKind::Ed25519, &signature::ED25519),
];

impl PublicKey {
    /// Reads a `PUBLIC KEY` block (SubjectPublicKeyInfo), as `cosign.pub` is.
    ///
    /// # Errors
    /// [`KeyError`] when it isn't one, or of an unsupported kind.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let block = pem::parse(text).map_err(super::file::damage)?;
        if block.tag() != "PUBLIC KEY" {
            return Err(KeyError::NotPublic(block.tag().to_owned()));
        }
        Self::from_spki(block.contents())
    }

    /// Reads the DER of a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`KeyError::Unsupported`].
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        // A raw key of 32 bytes would be taken as Ed25519; SPKI is a SEQUENCE.
        if spki.first() != Some(&0x30) || spki.len() <= 33 {
            return Err(KeyError::Unsupported("public key"));
        }
        let parses = |algorithm| UnparsedPublicKey::new(algorithm, spki).parse().is_ok();
        let (kind, _) = CANDIDATES
            .into_iter()
            .find(|(_, algorithm)| parses(*algorithm))
            .ok_or(KeyError::Unsupported("public key"))?;
        let kind = match kind {
            KeyKind::Rsa { .. } => KeyKind::Rsa {
                bits: aws_lc_rs::rsa::PublicEncryptingKey::from_der(spki)
                    .map_err(|_| KeyError::Unsupported("public key"))?
                    .key_size_bits(),
            },
            other => other,
        };
        Ok(Self { kind, spki: spki.to_vec() })
    }

    /// Returns what kind of key it is.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Returns the DER of the SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Returns the PEM that `cosign verify --key` reads.
    pub fn to_pem(&self) -> String {
        super::pem_text("PUBLIC KEY", &self.spki)
    }

    /// Returns the hint by which bundles name the key: base64 of the SHA-256 of the SPKI DER.
    pub fn hint(&self) -> String {
        STANDARD.encode(digest::digest(&digest::SHA256, &self.spki))
    }

    /// Returns which hash `signature` over `message` was made with; `None` if it is no signature of this key.
    ///
    /// The message itself is given, not its hash. ECDSA signatures are DER, RSA ones the bare integer.
    /// Ed25519ph, which cosign 3 uses with a log, isn't known here.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Option<Hash> {
        let with = |algorithm| UnparsedPublicKey::new(algorithm, &self.spki).parse().ok();
        let passes =
            |key: Option<ParsedPublicKey>| key.is_some_and(|key| key.verify_sig(message, signature).is_ok());
        let (sha256, of_curve): (
            &'static dyn VerificationAlgorithm,
            Option<&'static dyn VerificationAlgorithm>,
        ) = match self.kind {
            KeyKind::EcdsaP256 => (&signature::ECDSA_P256_SHA256_ASN1, None),
            KeyKind::EcdsaP384 => {
                (&signature::ECDSA_P384_SHA256_ASN1, Some(&signature::ECDSA_P384_SHA384_ASN1))
            }
            KeyKind::EcdsaP521 => {
                (&signature::ECDSA_P521_SHA256_ASN1, Some(&signature::ECDSA_P521_SHA512_ASN1))
            }
            KeyKind::Rsa { .. } => {
                (&signature::RSA_PKCS1_2048_8192_SHA256, Some(&signature::RSA_PKCS1_2048_8192_SHA512))
            }
            KeyKind::Ed25519 => (&signature::ED25519, None),
        };
        if passes(with(sha256)) {
            return Some(Hash::Sha256);
        }
        of_curve.is_some_and(|algorithm| passes(with(algorithm))).then_some(Hash::OfCurve)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({}, {})", self.kind, self.hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSIGN_PUB: &str = include_str!("../../../integration/fixtures/signing/cosign.pub");

    #[test]
    fn cosigns_own_file_round_trips() {
        let key = PublicKey::from_pem(COSIGN_PUB.as_bytes()).unwrap();
        assert_eq!(key.kind(), KeyKind::EcdsaP256);
        assert_eq!(key.to_pem(), COSIGN_PUB);
        assert_eq!(
            key.hint(),
            "pBNi8LKAI/k2ddRH307A8XTaIT0UZ7kZWjhgKX+91Wg=",
            "as in bundle-key-notlog.json"
        );
    }

    #[test]
    fn other_things_are_named() {
        assert_eq!(PublicKey::from_pem(b"hello"), Err(KeyError::NotPem));
        let certificate = pem::encode(&pem::Pem::new("CERTIFICATE", vec![1, 2, 3]));
        let error = PublicKey::from_pem(certificate.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("`CERTIFICATE`"), "{error}");
        assert_eq!(PublicKey::from_spki(&[0; 32]), Err(KeyError::Unsupported("public key")));
    }
}
