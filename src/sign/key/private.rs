//! The private half: signs bytes, never shows itself.

use super::{Hash, KeyError, KeyKind, PublicKey};
use aws_lc_rs::digest;
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _};
use std::fmt;

/// A private key in the provider's memory, which wipes it when dropped.
pub struct PrivateKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    /// With the hash of the curve's own size: the provider joins not every curve with SHA-256.
    Ecdsa(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

impl PrivateKey {
    /// Reads unencrypted PKCS#8, whatever the algorithm within.
    ///
    /// # Errors
    /// [`KeyError::RsaSize`] or [`KeyError::Unsupported`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
            return Self::ed25519(pair);
        }
        match RsaKeyPair::from_pkcs8(der) {
            Ok(pair) => Self::rsa(pair),
            Err(error) if is_rsa_of_wrong_size(&error) => Err(rsa_size(&error)),
            Err(_) => Self::from_sec1(der).map_err(|_| KeyError::Unsupported("PKCS#8 key")),
        }
    }

    /// Reads an `EC PRIVATE KEY` (SEC1, RFC 5915) that names its curve.
    ///
    /// # Errors
    /// [`KeyError::Unsupported`].
    pub fn from_sec1(der: &[u8]) -> Result<Self, KeyError> {
        let read =
            |algorithm: &'static EcdsaSigningAlgorithm| EcdsaKeyPair::from_private_key_der(algorithm, der);
        let pair = read(&signature::ECDSA_P256_SHA256_ASN1_SIGNING)
            .or_else(|_| read(&signature::ECDSA_P384_SHA384_ASN1_SIGNING))
            .or_else(|_| read(&signature::ECDSA_P521_SHA512_ASN1_SIGNING))
            .map_err(|_| KeyError::Unsupported("EC key"))?;
        let spki = pair.public_key().as_der().map_err(|_| KeyError::Unsupported("EC key"))?;
        Ok(Self { public: PublicKey::from_spki(spki.as_ref())?, pair: Pair::Ecdsa(pair) })
    }

    /// Reads an `RSA PRIVATE KEY` (PKCS#1).
    ///
    /// # Errors
    /// [`KeyError::RsaSize`] or [`KeyError::Unsupported`].
    pub fn from_pkcs1(der: &[u8]) -> Result<Self, KeyError> {
        Self::rsa(RsaKeyPair::from_der(der).map_err(|error| rsa_size(&error))?)
    }

    fn rsa(pair: RsaKeyPair) -> Result<Self, KeyError> {
        let spki = pair.public_key().as_der().map_err(|_| KeyError::Unsupported("RSA key"))?;
        Ok(Self { public: PublicKey::from_spki(spki.as_ref())?, pair: Pair::Rsa(Box::new(pair)) })
    }

    fn ed25519(pair: Ed25519KeyPair) -> Result<Self, KeyError> {
        let spki = pair.public_key().as_der().map_err(|_| KeyError::Unsupported("Ed25519 key"))?;
        Ok(Self { public: PublicKey::from_spki(spki.as_ref())?, pair: Pair::Ed25519(pair) })
    }

    /// Returns the public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs the message: ECDSA over this hash, RSA (PKCS#1 v1.5) over its SHA-256, Ed25519 pure.
    ///
    /// ECDSA signatures are DER, as all verifiers of images expect. SHA-256 for every curve is what
    /// `cosign verify --key` assumes when it isn't told otherwise.
    ///
    /// # Errors
    /// Only when the provider fails, such as for lack of randomness.
    pub fn sign(&self, message: &[u8], hash: Hash) -> Result<Vec<u8>, SignatureError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ecdsa(pair) => {
                let signed = self.ecdsa_digest(message, hash).and_then(|digest| pair.sign_digest(&digest));
                Ok(signed.map_err(|_| SignatureError)?.as_ref().to_vec())
            }
            Pair::Rsa(pair) => {
                let mut bytes = vec![0; pair.public_modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut bytes)
                    .map_err(|_| SignatureError)?;
                Ok(bytes)
            }
            Pair::Ed25519(pair) => Ok(pair.try_sign(message).map_err(|_| SignatureError)?.as_ref().to_vec()),
        }
    }

    /// Returns the digest for ECDSA. A SHA-256 is padded on the left to the length that the provider wants for the curve:
    /// ECDSA reads a hash that is no longer than the curve's order as one big-endian integer (FIPS 186-5, 6.4.1;
    /// SEC 1, 4.1.3), so leading zeros change nothing.
    fn ecdsa_digest(&self, message: &[u8], hash: Hash) -> Result<digest::Digest, Unspecified> {
        let of_curve = match self.kind() {
            KeyKind::EcdsaP384 => &digest::SHA384,
            KeyKind::EcdsaP521 => &digest::SHA512,
            _ => &digest::SHA256,
        };
        if hash == Hash::OfCurve {
            return Ok(digest::digest(of_curve, message));
        }
        let mut padded = vec![0; of_curve.output_len() - digest::SHA256_OUTPUT_LEN];
        padded.extend_from_slice(digest::digest(&digest::SHA256, message).as_ref());
        digest::Digest::import_less_safe(&padded, of_curve)
    }
}

/// The provider could not make the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic provider could not sign")]
pub struct SignatureError;

/// The provider tells sizes only by the description of its error.
fn is_rsa_of_wrong_size(error: &KeyRejected) -> bool {
    matches!(error.description_(), "TooSmall" | "TooLarge")
}

fn rsa_size(error: &KeyRejected) -> KeyError {
    match error.description_() {
        "TooSmall" => KeyError::RsaSize("short"),
        "TooLarge" => KeyError::RsaSize("long"),
        _ => KeyError::Unsupported("RSA key"),
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PrivateKey([redacted], public {:?})", self.public)
    }
}

impl PrivateKey {
    /// Returns what kind of key it is.
    pub fn kind(&self) -> KeyKind {
        self.public.kind()
    }
}
