//! New key pairs in cosign's form: the private half encrypted with a password, the public half beside it.

use super::{EncryptedKey, KeyError, PrivateKey};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{self, EcdsaKeyPair};
use secrecy::SecretString;
use zeroize::Zeroizing;

/// PKCS#8 with a password of its own (RFC 7468, 11).
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

/// A key pair as cosign writes it into files and Secrets.
#[derive(Debug)]
pub struct SealedPair {
    /// The private half, as PEM (`ENCRYPTED SIGSTORE PRIVATE KEY`).
    pub private: SecretString,
    /// The public half, as PEM.
    pub public: String,
}

impl SealedPair {
    /// Makes a pair for ECDSA on P-256, the one kind that every verifier takes without further flags.
    ///
    /// Takes about 64 MiB and a tenth of a second of one core, as every encryption here does: keep it off the
    /// runtime's own threads.
    ///
    /// # Errors
    /// [`KeyError::Provider`].
    pub fn generate(password: &SecretString) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_ASN1_SIGNING);
        let document = pair.and_then(|pair| pair.to_pkcs8v1()).map_err(|_| KeyError::Provider)?;
        Self::seal(&Zeroizing::new(document.as_ref().to_vec()), password)
    }

    /// Puts a key into cosign's form: PEM of PKCS#8, SEC1 or PKCS#1, or PKCS#8 that is encrypted with `old`.
    ///
    /// # Errors
    /// [`KeyError::Sealed`] where it is in that form already, [`KeyError::WrongPassword`] for `old`, and whatever
    /// [`super::KeyFile::parse`] says.
    pub fn import(pem: &[u8], old: &SecretString, password: &SecretString) -> Result<Self, KeyError> {
        Self::seal(&Self::pkcs8(pem, old)?, password)
    }

    /// Whether a key has a password that [`import`](Self::import) must know.
    pub fn has_password(pem: &[u8]) -> bool {
        pem::parse_many(pem).is_ok_and(|blocks| blocks.iter().any(|block| block.tag() == ENCRYPTED))
    }

    /// Returns the PKCS#8 of a key in PEM.
    ///
    /// # Errors
    /// As [`import`](Self::import).
    pub(in crate::sign) fn pkcs8(pem: &[u8], old: &SecretString) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let blocks = pem::parse_many(pem).map_err(super::file::damage)?;
        let mut blocks = blocks.into_iter().filter(|block| block.tag() != "EC PARAMETERS");
        let block = blocks.next().ok_or(KeyError::NotPem)?;
        if block.tag() == ENCRYPTED {
            return super::pbes2::open(&Zeroizing::new(block.into_contents()), old);
        }
        // Everything that is no key that signs is refused there.
        match super::KeyFile::parse(pem)? {
            super::KeyFile::Encrypted(_) => return Err(KeyError::Sealed),
            super::KeyFile::Plain(_) => {}
        }
        let tag = block.tag().to_owned();
        let der = Zeroizing::new(block.into_contents());
        Ok(match tag.as_str() {
            "EC PRIVATE KEY" => pkcs8_of_sec1(&der)?,
            "RSA PRIVATE KEY" => {
                let pair = RsaKeyPair::from_der(&der).map_err(|_| KeyError::Unsupported("RSA key"))?;
                let document: Pkcs8V1Der<'static> = pair.as_der().map_err(|_| KeyError::Provider)?;
                Zeroizing::new(document.as_ref().to_vec())
            }
            _ => der,
        })
    }

    fn seal(pkcs8: &[u8], password: &SecretString) -> Result<Self, KeyError> {
        // What can't be read back must not be written.
        let public = PrivateKey::from_pkcs8(pkcs8)?.public().to_pem();
        let json = EncryptedKey::seal(pkcs8, password)?;
        Ok(Self { private: super::pem_text("ENCRYPTED SIGSTORE PRIVATE KEY", &json).into(), public })
    }
}

fn pkcs8_of_sec1(der: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let algorithms = [
        &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
        &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
        &signature::ECDSA_P521_SHA512_ASN1_SIGNING,
    ];
    let mut pairs =
        algorithms.into_iter().map(|algorithm| EcdsaKeyPair::from_private_key_der(algorithm, der));
    let pair = pairs.find_map(Result::ok).ok_or(KeyError::Unsupported("EC key"))?;
    let document = pair.to_pkcs8v1().map_err(|_| KeyError::Provider)?;
    Ok(Zeroizing::new(document.as_ref().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::key::{KeyFile, KeyKind, PublicKey};
    use rstest::rstest;
    use secrecy::ExposeSecret as _;

    fn opened(pair: &SealedPair, password: &str) -> Result<PrivateKey, KeyError> {
        let KeyFile::Encrypted(key) = KeyFile::parse(pair.private.expose_secret().as_bytes()).unwrap() else {
            panic!("it is encrypted")
        };
        key.decrypt(&password.into())
    }

    #[test]
    fn a_new_pair_fits_and_opens_with_its_password() {
        let pair = SealedPair::generate(&"pw".into()).unwrap();
        let private = opened(&pair, "pw").unwrap();
        assert_eq!(private.kind(), KeyKind::EcdsaP256);
        assert_eq!(private.public().to_pem(), pair.public);
        assert_eq!(opened(&pair, "other").unwrap_err(), KeyError::WrongPassword);
        assert!(pair.private.expose_secret().starts_with("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"));
        let other = SealedPair::generate(&"pw".into()).unwrap();
        assert_ne!(other.public, pair.public);
        assert!(!format!("{pair:?}").contains("BEGIN ENCRYPTED"));
    }

    /// Keys made by OpenSSL 3 for these tests; they sign nothing else.
    macro_rules! key {
        ($name:literal) => {
            include_bytes!(concat!("../../../integration/fixtures/signing/keys/", $name, ".pem"))
        };
    }

    #[rstest]
    #[case(key!("p256-sec1-with-parameters"))]
    #[case(key!("p384-sec1"))]
    #[case(key!("p521-sec1"))]
    #[case(key!("p521-pkcs8"))]
    #[case(key!("rsa2048-pkcs1"))]
    #[case(key!("rsa3072-pkcs8"))]
    #[case(key!("ed25519-pkcs8"))]
    fn an_imported_key_stays_the_same(#[case] pem: &[u8]) {
        let KeyFile::Plain(before) = KeyFile::parse(pem).unwrap() else { panic!("a plain key") };
        let pair = SealedPair::import(pem, &"".into(), &"".into()).unwrap();
        assert_eq!(opened(&pair, "").unwrap().public(), before.public());
        assert_eq!(PublicKey::from_pem(pair.public.as_bytes()).unwrap(), *before.public());
    }

    #[test]
    fn an_encrypted_key_is_imported_with_its_password() {
        let KeyFile::Plain(plain) = KeyFile::parse(key!("p256-pkcs8")).unwrap() else {
            panic!("a plain key")
        };
        for pem in [&key!("p256-encrypted-pkcs8")[..], key!("p256-encrypted-pkcs8-sha1")] {
            assert!(SealedPair::has_password(pem));
            let pair = SealedPair::import(pem, &"secret".into(), &"new".into()).unwrap();
            let public = opened(&pair, "new").unwrap().public().to_pem();
            assert_eq!(public, plain.public().to_pem());
            for wrong in ["", "new", "secret\n"] {
                assert_eq!(
                    SealedPair::import(pem, &wrong.into(), &"".into()).unwrap_err(),
                    KeyError::WrongPassword
                );
            }
        }
        let old =
            SealedPair::import(key!("p256-encrypted-pkcs12"), &"secret".into(), &"".into()).unwrap_err();
        assert!(old.to_string().contains("PKCS#5 version 1, or of PKCS#12, which is not supported"), "{old}");
        assert!(!SealedPair::has_password(key!("p256-pkcs8")));
    }

    #[test]
    fn what_is_encrypted_or_no_private_key_is_not_imported() {
        let sealed = include_bytes!("../../../integration/fixtures/signing/cosign.key");
        assert_eq!(SealedPair::import(sealed, &"".into(), &"".into()).unwrap_err(), KeyError::Sealed);
        let public = include_bytes!("../../../integration/fixtures/signing/cosign.pub");
        assert!(matches!(
            SealedPair::import(public, &"".into(), &"".into()),
            Err(KeyError::WrongBlock { .. })
        ));
    }
}
