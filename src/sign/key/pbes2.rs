//! Opens PKCS#8 keys that are encrypted with a password, as `openssl pkcs8 -topk8` writes them: PBES2 with PBKDF2 and
//! AES-CBC (RFC 8018, appendices A.2, A.4, B.2.5; RFC 5958, 3). To be imported, not to sign with.

use super::KeyError;
use crate::sign::der::{self, OCTET_STRING, SEQUENCE};
use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA1, PBKDF2_HMAC_SHA256, PBKDF2_HMAC_SHA384, PBKDF2_HMAC_SHA512};
use secrecy::{ExposeSecret as _, SecretString};
use std::num::NonZeroU32;
use zeroize::Zeroizing;

const OBJECT: u8 = 0x06;
const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];
/// hmacWith…, but for their last byte.
const HMAC: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02];
const HMAC_SHA1: u8 = 7;
/// aes…-CBC, but for their last byte.
const AES: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01];
/// Some seconds of work; more is a mistake or an attack.
const ITERATIONS_MAX: u32 = 10_000_000;

const DAMAGED: KeyError = KeyError::DamagedBox("it is no EncryptedPrivateKeyInfo");

/// Returns the PKCS#8 within.
pub(in crate::sign) fn open(bytes: &[u8], password: &SecretString) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let (info, _) = take(bytes, SEQUENCE)?;
    let (algorithm, rest) = take(info, SEQUENCE)?;
    let (sealed, _) = take(rest, OCTET_STRING)?;
    let (scheme, parameters) = named(algorithm)?;
    if scheme != PBES2 {
        return Err(unsupported("a scheme of PKCS#5 version 1, or of PKCS#12"));
    }
    let (parameters, _) = take(parameters, SEQUENCE)?;
    let (derivation, rest) = take(parameters, SEQUENCE)?;
    let (encryption, _) = take(rest, SEQUENCE)?;

    let (cipher, iv) = named(encryption)?;
    let (cipher, length) = match cipher.strip_prefix(AES) {
        Some([2]) => (&AES_128, 16),
        Some([22]) => (&AES_192, 24),
        Some([42]) => (&AES_256, 32),
        _ => return Err(unsupported("a cipher other than AES-CBC")),
    };
    let (iv, _) = take(iv, OCTET_STRING)?;
    let iv: [u8; 16] = iv.try_into().map_err(|_| DAMAGED)?;

    let key = derive(derivation, password, length)?;
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    let mut plain = Zeroizing::new(sealed.to_vec());
    let key = UnboundCipherKey::new(cipher, &key).and_then(PaddedBlockDecryptingKey::cbc_pkcs7);
    let key = key.map_err(|_| KeyError::Provider)?;
    let length = key.decrypt(&mut plain, context).map_err(|_| KeyError::WrongPassword)?.len();
    plain.truncate(length);
    // Padding fits by chance once in some hundred wrong passwords; a key does not.
    match take(&plain, SEQUENCE) {
        Ok((_, [])) => Ok(plain),
        _ => Err(KeyError::WrongPassword),
    }
}

fn derive(function: &[u8], password: &SecretString, length: usize) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let (function, parameters) = named(function)?;
    if function != PBKDF2 {
        return Err(unsupported("a key derivation other than PBKDF2"));
    }
    let (parameters, _) = take(parameters, SEQUENCE)?;
    let (salt, rest) = take(parameters, OCTET_STRING)?;
    let (iterations, mut rest) = take(rest, der::INTEGER)?;
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0_u32, |sum, digit| sum.checked_mul(256)?.checked_add(u32::from(*digit)))
    };
    let iterations = number(iterations).filter(|count| *count <= ITERATIONS_MAX).and_then(NonZeroU32::new);
    let iterations = iterations.ok_or_else(|| unsupported("an absurd number of rounds"))?;
    if let Ok((_, after)) = take(rest, der::INTEGER) {
        // The length of the key, which the cipher says as well.
        rest = after;
    }
    let hash = match take(rest, SEQUENCE) {
        Ok((hash, _)) => named(hash)?.0.strip_prefix(HMAC).and_then(<[u8]>::first).copied(),
        Err(_) => Some(HMAC_SHA1),
    };
    let algorithm = match hash {
        Some(HMAC_SHA1) => PBKDF2_HMAC_SHA1,
        Some(9) => PBKDF2_HMAC_SHA256,
        Some(10) => PBKDF2_HMAC_SHA384,
        Some(11) => PBKDF2_HMAC_SHA512,
        _ => return Err(unsupported("a hash other than those of the SHA family")),
    };
    let mut key = Zeroizing::new(vec![0; length]);
    pbkdf2::derive(algorithm, iterations, salt, password.expose_secret().as_bytes(), &mut key);
    Ok(key)
}

/// Takes off an element of this tag: its content, and what follows.
fn take(bytes: &[u8], tag: u8) -> Result<(&[u8], &[u8]), KeyError> {
    match der::read(bytes) {
        Some((found, content, rest)) if found == tag => Ok((content, rest)),
        _ => Err(DAMAGED),
    }
}

/// Takes an AlgorithmIdentifier apart: its name, and its parameters.
fn named(algorithm: &[u8]) -> Result<(&[u8], &[u8]), KeyError> {
    take(algorithm, OBJECT)
}

fn unsupported(what: &str) -> KeyError {
    KeyError::UnsupportedCipher(what.to_owned())
}
