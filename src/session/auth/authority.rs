//! The key pair by which a builder tells which sessions may share a registry's token.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

/// What makes our keys ours, per registry.
#[derive(Clone, Copy)]
pub(super) struct Seed([u8; 16]);

impl Seed {
    pub(super) fn random() -> Self {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
        Self(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<[u8; 16]> for Seed {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

/// A key pair, derived as upstream does it: the Ed25519 seed is HMAC-SHA256 of our seed, with the builder's salt as
/// the key (moby/buildkit session/auth/authprovider/authprovider.go).
pub(super) struct Authority(Ed25519KeyPair);

impl Authority {
    pub(super) fn new(salt: &[u8], seed: &[u8]) -> Self {
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), seed);
        let pair = Ed25519KeyPair::from_seed_unchecked(mac.as_ref()).expect("any 32 bytes are a seed");
        Self(pair)
    }

    pub(super) fn public_key(&self) -> Vec<u8> {
        self.0.public_key().as_ref().to_vec()
    }

    /// Signs as NaCl does: the signature, then what was signed.
    pub(super) fn sign(&self, payload: &[u8]) -> Vec<u8> {
        [self.0.sign(payload).as_ref(), payload].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected keys from Go: `ed25519.NewKeyFromSeed(hmac.New(sha256.New, "salt").Sum(seed))`.
    #[test]
    fn keys_are_those_that_go_derives() {
        let hex = |seed: &[u8]| -> String {
            Authority::new(b"salt", seed).public_key().iter().map(|byte| format!("{byte:02x}")).collect()
        };
        assert_eq!(hex(&[]), "a7878eff9d42de4f00cb8529dd435d19412c60bc1526483e7c5c3e6325d7ab26");
        let seed: Vec<u8> = (0..16).collect();
        assert_eq!(hex(&seed), "ff0114ce493315b81ec7083ea8c12dd37b71b81c52333ae83d61a70baadb1eaf");
    }
}
