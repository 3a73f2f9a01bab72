//! cosign's encrypted private key: a JSON box of scrypt and NaCl secretbox around PKCS#8.
//!
//! The format is that of go-securesystemslib's `encrypted/encrypted.go`, which cosign writes into PEM.

use super::{KeyError, PrivateKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::Aead as _;
use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::fmt;
use zeroize::Zeroizing;

const SALT_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// The work factor of new boxes, as a power of two.
const LOG_N: u8 = 16;
/// The longest box we look into; RSA 8192 is under 5 KiB of PKCS#8.
const CIPHERTEXT_LIMIT: usize = 64 * 1024;

/// An encrypted private key: waits for a password.
pub struct EncryptedKey {
    log_n: u8,
    salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
    ciphertext: Vec<u8>,
}

#[derive(Deserialize)]
struct BoxJson {
    kdf: KdfJson,
    cipher: CipherJson,
    ciphertext: String,
}

#[derive(Deserialize)]
struct KdfJson {
    name: String,
    params: ParamsJson,
    salt: String,
}

#[derive(Deserialize)]
struct ParamsJson {
    #[serde(rename = "N")]
    n: u64,
    r: u64,
    p: u64,
}

#[derive(Deserialize)]
struct CipherJson {
    name: String,
    nonce: String,
}

impl EncryptedKey {
    /// Reads the JSON that stands in the PEM block.
    ///
    /// # Errors
    /// [`KeyError::DamagedBox`], [`KeyError::UnsupportedCipher`] or [`KeyError::ScryptParameters`].
    pub fn parse(json: &[u8]) -> Result<Self, KeyError> {
        let outer: BoxJson = serde_json::from_slice(json)
            .map_err(|_| KeyError::DamagedBox("its JSON does not have the form that cosign writes"))?;
        if outer.kdf.name != "scrypt" {
            return Err(KeyError::UnsupportedCipher(format!("key derivation `{}`", outer.kdf.name)));
        }
        if outer.cipher.name != "nacl/secretbox" {
            return Err(KeyError::UnsupportedCipher(format!("cipher `{}`", outer.cipher.name)));
        }
        let ParamsJson { n, r, p } = outer.kdf.params;
        let log_n = match (n, r, p) {
            (0x8000, 8, 1) => 15,
            (0x1_0000, 8, 1) => 16,
            (0x2_0000, 8, 1) => 17,
            _ => return Err(KeyError::ScryptParameters { n, r, p }),
        };
        let ciphertext = decode(&outer.ciphertext, "the ciphertext is not base64")?;
        if ciphertext.len() > CIPHERTEXT_LIMIT {
            return Err(KeyError::DamagedBox("the ciphertext is too long for a private key"));
        }
        Ok(Self {
            log_n,
            salt: exactly(&outer.kdf.salt, "the salt is not 32 bytes of base64")?,
            nonce: exactly(&outer.cipher.nonce, "the nonce is not 24 bytes of base64")?,
            ciphertext,
        })
    }

    /// Returns the JSON of a box around PKCS#8, locked with this password as cosign does it today: N=2^16.
    ///
    /// Costs what [`decrypt`](Self::decrypt) costs.
    ///
    /// # Errors
    /// [`KeyError::Provider`], for lack of randomness.
    pub(super) fn seal(pkcs8: &[u8], password: &SecretString) -> Result<Vec<u8>, KeyError> {
        let (mut salt, mut nonce) = ([0; SALT_BYTES], [0; NONCE_BYTES]);
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| KeyError::Provider)?;
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| KeyError::Provider)?;
        Self::seal_with(pkcs8, password, LOG_N, (salt, nonce))
    }

    fn seal_with(
        pkcs8: &[u8],
        password: &SecretString,
        log_n: u8,
        (salt, nonce): ([u8; SALT_BYTES], [u8; NONCE_BYTES]),
    ) -> Result<Vec<u8>, KeyError> {
        let key = derive(password.expose_secret(), &salt, log_n);
        let sealed = XSalsa20Poly1305::new(key.as_ref().into()).encrypt(&nonce.into(), pkcs8);
        let (salt, nonce) = (STANDARD.encode(salt), STANDARD.encode(nonce));
        let sealed = STANDARD.encode(sealed.map_err(|_| KeyError::Provider)?);
        let n = 1_u32 << log_n;
        // The order of the members is cosign's.
        let json = format!(
            r#"{{"kdf":{{"name":"scrypt","params":{{"N":{n},"r":8,"p":1}},"salt":"{salt}"}},"cipher":{{"name":"nacl/secretbox","nonce":"{nonce}"}},"ciphertext":"{sealed}"}}"#
        );
        Ok(json.into_bytes())
    }

    /// Decrypts with this password; if that fails and it ends in a newline, once more without it.
    ///
    /// cosign takes everything that it reads from a pipe as the password, so that `echo pw | cosign
    /// generate-key-pair` makes the newline a part of it, while files and Secrets often have one too many.
    /// Takes about 64 MiB and a tenth of a second of one core: keep it off the runtime's own threads.
    ///
    /// # Errors
    /// [`KeyError::WrongPassword`], or what [`PrivateKey::from_pkcs8`] says of the content.
    pub fn decrypt(&self, password: &SecretString) -> Result<PrivateKey, KeyError> {
        let password = password.expose_secret();
        let der = match (self.open(password), password.strip_suffix('\n')) {
            (Err(KeyError::WrongPassword), Some(shorter)) => self.open(shorter)?,
            (opened, _) => opened?,
        };
        PrivateKey::from_pkcs8(&der)
    }

    fn open(&self, password: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let key = derive(password, &self.salt, self.log_n);
        XSalsa20Poly1305::new(key.as_ref().into())
            .decrypt(&self.nonce.into(), self.ciphertext.as_slice())
            .map(Zeroizing::new)
            .map_err(|_| KeyError::WrongPassword)
    }
}

fn derive(password: &str, salt: &[u8], log_n: u8) -> Zeroizing<[u8; 32]> {
    let params = scrypt::Params::new(log_n, 8, 1).expect("the three accepted sets are valid");
    let mut key = Zeroizing::new([0; 32]);
    scrypt::scrypt(password.as_bytes(), salt, &params, key.as_mut_slice())
        .expect("32 bytes is a valid length");
    key
}

fn decode(text: &str, otherwise: &'static str) -> Result<Vec<u8>, KeyError> {
    STANDARD.decode(text).map_err(|_| KeyError::DamagedBox(otherwise))
}

fn exactly<const N: usize>(text: &str, otherwise: &'static str) -> Result<[u8; N], KeyError> {
    decode(text, otherwise)?.try_into().map_err(|_| KeyError::DamagedBox(otherwise))
}

impl fmt::Debug for EncryptedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EncryptedKey(scrypt N=2^{})", self.log_n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::key::KeyFile;

    /// Seals `plain` as cosign does, with a chosen work factor.
    fn seal(plain: &[u8], password: &str, log_n: u8) -> String {
        let random = ([7; SALT_BYTES], [9; NONCE_BYTES]);
        String::from_utf8(EncryptedKey::seal_with(plain, &password.into(), log_n, random).unwrap()).unwrap()
    }

    fn pkcs8() -> Vec<u8> {
        let algorithm = &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
        let key = aws_lc_rs::signature::EcdsaKeyPair::generate(algorithm).unwrap();
        key.to_pkcs8v1().unwrap().as_ref().to_vec()
    }

    #[test]
    fn the_three_work_factors_open() {
        let plain = pkcs8();
        for log_n in [15, 16, 17] {
            let key = EncryptedKey::parse(seal(&plain, "", log_n).as_bytes()).unwrap();
            assert!(key.decrypt(&SecretString::from("")).is_ok(), "2^{log_n}, empty password");
        }
    }

    #[test]
    fn a_newline_belongs_to_the_password_or_not() {
        let plain = pkcs8();
        let with = EncryptedKey::parse(seal(&plain, "pw\n", 15).as_bytes()).unwrap();
        let without = EncryptedKey::parse(seal(&plain, "pw", 15).as_bytes()).unwrap();
        assert!(with.decrypt(&SecretString::from("pw\n")).is_ok());
        assert!(without.decrypt(&SecretString::from("pw\n")).is_ok());
        assert_eq!(with.decrypt(&SecretString::from("pw")).unwrap_err(), KeyError::WrongPassword);
        assert_eq!(without.decrypt(&SecretString::from("pw\n\n")).unwrap_err(), KeyError::WrongPassword);
    }

    #[test]
    fn expensive_or_foreign_boxes_are_refused_unopened() {
        let good = seal(&[1], "", 15);
        let refused =
            |from: &str, to: &str| EncryptedKey::parse(good.replace(from, to).as_bytes()).unwrap_err();
        for (from, to) in
            [("32768", "1073741824"), ("32768", "16384"), (r#""r":8"#, r#""r":80"#), (r#""p":1"#, r#""p":9"#)]
        {
            assert!(matches!(refused(from, to), KeyError::ScryptParameters { .. }), "{to}");
        }
        assert!(matches!(refused("scrypt", "argon2"), KeyError::UnsupportedCipher(_)));
        assert!(matches!(refused("secretbox", "aes"), KeyError::UnsupportedCipher(_)));
        assert!(matches!(refused("salt", "pepper"), KeyError::DamagedBox(_)));
        assert!(matches!(refused("Bwc", "Bw"), KeyError::DamagedBox(_)));
    }

    #[test]
    fn cosigns_key_opens_with_its_password_only() {
        let pem = include_bytes!("../../../integration/fixtures/signing/cosign.key");
        let KeyFile::Encrypted(key) = KeyFile::parse(pem).unwrap() else { panic!("cosign.key is encrypted") };
        let private = key.decrypt(&SecretString::from("secret")).unwrap();
        let public = include_str!("../../../integration/fixtures/signing/cosign.pub");
        assert_eq!(private.public().to_pem(), public);
        assert_eq!(key.decrypt(&SecretString::from("secret ")).unwrap_err(), KeyError::WrongPassword);
        assert_eq!(format!("{key:?}"), "EncryptedKey(scrypt N=2^16)");
    }
}
