//! What a PEM file holds.

use super::{EncryptedKey, KeyError, PrivateKey};
use zeroize::Zeroizing;

/// A private key as found in a file, a variable or a Secret.
#[derive(Debug)]
pub enum KeyFile {
    /// Encrypted as cosign does: ask for the password now, not before.
    Encrypted(EncryptedKey),
    /// Not encrypted: worth a warning where the place isn't a secret one.
    Plain(PrivateKey),
}

const IMPORT: &str = "put it into cosign's format with `kubectl buildkit key import FILE`";
const DECRYPT: &str = "decrypt it with `openssl pkey -in FILE -out KEY.pem`";

impl KeyFile {
    /// Reads PEM: cosign's encrypted key (`ENCRYPTED SIGSTORE PRIVATE KEY` and the older `ENCRYPTED COSIGN …`),
    /// PKCS#8, SEC1 or PKCS#1. Blocks before the key that only describe it are passed over.
    ///
    /// # Errors
    /// [`KeyError`]; never quotes the input.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        let blocks = pem::parse_many(bytes).map_err(damage)?;
        // `openssl ecparam -genkey` writes the curve's parameters first.
        let block =
            blocks.into_iter().find(|block| block.tag() != "EC PARAMETERS").ok_or(KeyError::NotPem)?;
        let tag = block.tag().to_owned();
        // RFC 1421 encryption, as `openssl rsa -aes256 -traditional` writes.
        let old_encryption = block.headers().get("DEK-Info").is_some();
        let der = Zeroizing::new(block.into_contents());
        match tag.as_str() {
            "ENCRYPTED SIGSTORE PRIVATE KEY" | "ENCRYPTED COSIGN PRIVATE KEY" => {
                EncryptedKey::parse(&der).map(Self::Encrypted)
            }
            "ENCRYPTED PRIVATE KEY" => {
                Err(KeyError::WrongBlock { found: "an encrypted PKCS#8 key".to_owned(), remedy: IMPORT })
            }
            _ if old_encryption => {
                Err(KeyError::WrongBlock { found: format!("an OpenSSL-encrypted `{tag}`"), remedy: DECRYPT })
            }
            "PRIVATE KEY" => PrivateKey::from_pkcs8(&der).map(Self::Plain),
            "EC PRIVATE KEY" => PrivateKey::from_sec1(&der).map(Self::Plain),
            "RSA PRIVATE KEY" => PrivateKey::from_pkcs1(&der).map(Self::Plain),
            _ => Err(wrong_block(&tag)),
        }
    }
}

fn wrong_block(tag: &str) -> KeyError {
    let (found, remedy) = match tag {
        "PUBLIC KEY" | "RSA PUBLIC KEY" => ("a public key".to_owned(), "signing needs the private one"),
        "CERTIFICATE" => ("a certificate".to_owned(), "signing needs a private key"),
        "OPENSSH PRIVATE KEY" => (
            "an OpenSSH key".to_owned(),
            "make a signing key with `cosign generate-key-pair`, or convert a copy with `ssh-keygen -p -m PKCS8 -f COPY`",
        ),
        other => (format!("a `{other}` block"), "make a signing key with `cosign generate-key-pair`"),
    };
    KeyError::WrongBlock { found, remedy }
}

/// The parser's own texts can quote the input, so they are replaced.
pub(super) fn damage(error: pem::PemError) -> KeyError {
    KeyError::DamagedPem(match error {
        pem::PemError::MalformedFraming | pem::PemError::MissingBeginTag => return KeyError::NotPem,
        pem::PemError::MismatchedTags(..) => "the BEGIN and END lines differ".to_owned(),
        pem::PemError::MissingEndTag => "the END line is missing".to_owned(),
        pem::PemError::MissingData => "nothing stands between BEGIN and END".to_owned(),
        pem::PemError::InvalidData(_) => "what stands between BEGIN and END is not base64".to_owned(),
        pem::PemError::InvalidHeader(_) => "a header line is invalid".to_owned(),
        pem::PemError::NotUtf8(_) => "it is not text".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::key::{Hash, KeyKind};
    use rstest::rstest;

    /// Keys made by OpenSSL 3 for these tests; they sign nothing else.
    macro_rules! key {
        ($name:literal) => {
            include_bytes!(concat!("../../../integration/fixtures/signing/keys/", $name, ".pem"))
        };
    }

    #[rstest]
    #[case::p256(key!("p256-pkcs8"), KeyKind::EcdsaP256)]
    #[case::p256_sec1(key!("p256-sec1-with-parameters"), KeyKind::EcdsaP256)]
    #[case::p384(key!("p384-pkcs8"), KeyKind::EcdsaP384)]
    #[case::p384_sec1(key!("p384-sec1"), KeyKind::EcdsaP384)]
    #[case::p521(key!("p521-pkcs8"), KeyKind::EcdsaP521)]
    #[case::p521_sec1(key!("p521-sec1"), KeyKind::EcdsaP521)]
    #[case::rsa2048(key!("rsa2048-pkcs8"), KeyKind::Rsa { bits: 2048 })]
    #[case::rsa2048_pkcs1(key!("rsa2048-pkcs1"), KeyKind::Rsa { bits: 2048 })]
    #[case::rsa3072(key!("rsa3072-pkcs8"), KeyKind::Rsa { bits: 3072 })]
    #[case::rsa4096(key!("rsa4096-pkcs8"), KeyKind::Rsa { bits: 4096 })]
    #[case::rsa2560(key!("rsa2560-pkcs8"), KeyKind::Rsa { bits: 2560 })]
    #[case::ed25519(key!("ed25519-pkcs8"), KeyKind::Ed25519)]
    fn every_kind_signs_what_its_public_half_verifies(#[case] pem: &[u8], #[case] kind: KeyKind) {
        let KeyFile::Plain(key) = KeyFile::parse(pem).unwrap() else { panic!("a plain key") };
        assert_eq!(key.kind(), kind);
        let signature = key.sign(b"message", Hash::Sha256).unwrap();
        assert_eq!(key.public().verify(b"message", &signature), Some(Hash::Sha256));
        assert_eq!(key.public().verify(b"massage", &signature), None);
        let mut damaged = signature;
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(key.public().verify(b"message", &damaged), None);
        assert!(!format!("{key:?}").contains("BEGIN"));
    }

    #[rstest]
    #[case(key!("rsa1024-pkcs8"), "too short")]
    #[case(key!("rsa1024-pkcs1"), "too short")]
    #[case(key!("secp256k1-pkcs8"), "unsupported kind")]
    #[case(key!("secp256k1-sec1"), "unsupported kind")]
    #[case(key!("p256-encrypted-pkcs8"), "an encrypted PKCS#8 key")]
    #[case(key!("rsa2048-encrypted-traditional"), "an OpenSSL-encrypted `RSA PRIVATE KEY`")]
    #[case(include_bytes!("../../../integration/fixtures/signing/cosign.pub"), "a public key")]
    #[case(b"", "not a PEM file")]
    #[case(b"c2VjcmV0", "not a PEM file")]
    #[case(b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0!\n-----END PRIVATE KEY-----\n", "not base64")]
    #[case(b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", "unsupported kind")]
    #[case(b"-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED COSIGN PRIVATE KEY-----\n", "JSON")]
    fn what_does_not_sign_is_named(#[case] pem: &[u8], #[case] expected: &str) {
        let error = KeyFile::parse(pem).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("c2VjcmV0") && !error.contains("secret"), "quotes the input: {error}");
    }

    #[test]
    fn the_older_header_is_the_same_key() {
        let newer = include_str!("../../../integration/fixtures/signing/cosign.key");
        let older = newer.replace("SIGSTORE", "COSIGN");
        assert!(matches!(KeyFile::parse(older.as_bytes()), Ok(KeyFile::Encrypted(_))));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _either_way = KeyFile::parse(&bytes);
            let _either_way = EncryptedKey::parse(&bytes);
            let _either_way = PrivateKey::from_pkcs8(&bytes);
            let _either_way = crate::sign::key::PublicKey::from_spki(&bytes);
        }
    }
}
