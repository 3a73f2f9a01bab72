//! The few DER structures that key services don't write themselves (X.690; RFC 5480, RFC 8017, RFC 8410).

use crate::sign::der::{BIT_STRING, positive as integer, sequence, tlv};

/// AlgorithmIdentifiers, whole.
const RSA: &[u8] =
    &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
const P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07,
];
const P384: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
    0x22,
];
const P521: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
    0x23,
];
const ED25519: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];

/// Returns `r || s` as an ECDSA-Sig-Value; none if it cannot be halved.
pub(super) fn signature(raw: &[u8]) -> Option<Vec<u8>> {
    let half = raw.len() / 2;
    let (r, s) = raw.split_at(half);
    (half > 0 && r.len() == s.len()).then(|| sequence(&[&integer(r), &integer(s)]))
}

fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> = [&[0], key].concat();
    sequence(&[algorithm, &tlv(BIT_STRING, &bits)])
}

/// Returns the SubjectPublicKeyInfo of an RSA key.
pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    spki(RSA, &sequence(&[&integer(modulus), &integer(exponent)]))
}

/// Returns the SubjectPublicKeyInfo of a point on a curve; none if its length is not the curve's.
pub(super) fn ec(curve: &str, x: &[u8], y: &[u8]) -> Option<Vec<u8>> {
    let (algorithm, length): (_, usize) = match curve {
        "P-256" => (P256, 32),
        "P-384" => (P384, 48),
        "P-521" => (P521, 66),
        _ => return None,
    };
    let padded = |number: &[u8]| {
        let missing = length.checked_sub(number.len())?;
        Some([vec![0; missing], number.to_vec()].concat())
    };
    Some(spki(algorithm, &[vec![4], padded(x)?, padded(y)?].concat()))
}

/// Returns the SubjectPublicKeyInfo of an Ed25519 key.
pub(super) fn ed25519(key: &[u8]) -> Vec<u8> {
    spki(ED25519, key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::key::{KeyKind, PublicKey};
    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{self as crypto, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};

    #[test]
    fn points_become_the_keys_that_the_provider_writes() {
        for (curve, algorithm, kind) in [
            ("P-256", &crypto::ECDSA_P256_SHA256_FIXED_SIGNING, KeyKind::EcdsaP256),
            ("P-384", &crypto::ECDSA_P384_SHA384_FIXED_SIGNING, KeyKind::EcdsaP384),
            ("P-521", &crypto::ECDSA_P521_SHA512_FIXED_SIGNING, KeyKind::EcdsaP521),
        ] {
            for _ in 0..20 {
                let pair = EcdsaKeyPair::generate(algorithm).unwrap();
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                // JSON Web Keys of careless writers lack leading zeros.
                let short: Vec<u8> = x.iter().copied().skip_while(|byte| *byte == 0).collect();
                let spki = ec(curve, &short, y).unwrap();
                assert_eq!(spki, pair.public_key().as_der().unwrap().as_ref());
                let key = PublicKey::from_spki(&spki).unwrap();
                assert_eq!(key.kind(), kind);
                let raw = pair.sign(&SystemRandom::new(), b"message").unwrap();
                assert!(key.verify(b"message", &signature(raw.as_ref()).unwrap()).is_some());
                assert!(key.verify(b"massage", &signature(raw.as_ref()).unwrap()).is_none());
            }
        }
        assert_eq!(ec("P-256", &[1; 33], &[1; 32]), None);
        assert_eq!(ec("secp256k1", &[1; 32], &[1; 32]), None);
    }

    #[test]
    fn other_keys() {
        let pair = Ed25519KeyPair::generate().unwrap();
        assert_eq!(ed25519(pair.public_key().as_ref()), pair.public_key().as_der().unwrap().as_ref());
        let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let public = pair.public_key();
        // SEQUENCE, INTEGER, and the modulus after its zero; then INTEGER and the exponent (RFC 8017, A.1.1).
        let (modulus, exponent) = (&public.as_ref()[9..][..256], [1, 0, 1]);
        let spki = rsa(modulus, &exponent);
        let der: aws_lc_rs::encoding::PublicKeyX509Der<'_> = public.as_der().unwrap();
        assert_eq!(spki, der.as_ref());
    }

    #[test]
    fn numbers_keep_their_sign() {
        assert_eq!(integer(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(integer(&[0, 0, 0x7f]), [2, 1, 0x7f]);
        assert_eq!(integer(&[0]), [2, 1, 0]);
        assert_eq!(signature(&[1, 2, 3]), None);
        assert_eq!(signature(&[]), None);
    }
}
