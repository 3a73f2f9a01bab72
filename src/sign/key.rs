//! Long-lived keys: where a reference points, what a PEM file holds, signing and verifying.
//!
//! Nothing here reads files, the environment or the cluster; callers bring the bytes, save for those behind a URL.
//! [`KeyReference`] says what to fetch, [`KeyFile`] what the bytes are, [`PrivateKey`] signs, [`PublicKey`]
//! verifies and [`KubernetesSecret`] is the layout of a key kept in the cluster.

mod encrypted;
mod file;
mod pair;
pub(in crate::sign) mod pbes2;
mod private;
mod public;
mod reference;
mod remote;
mod secret;

pub use encrypted::EncryptedKey;
pub use file::KeyFile;
pub use pair::SealedPair;
pub use private::PrivateKey;
pub use public::{Hash, KeyKind, PublicKey};
pub use reference::{KeyReference, KeyReferenceError, PemUrl};
pub use remote::{Gitlab, GitlabError, Remote};
pub use secret::{KubernetesSecret, SecretError};

/// Returns a PEM block with the line endings that every reader takes.
pub(in crate::sign) fn pem_text(label: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), config)
}

/// Why bytes are no key that signs. None of the texts holds a byte of the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no PEM block at all.
    #[error("not a PEM file: no `-----BEGIN …-----` line")]
    NotPem,
    /// The PEM around the key is damaged.
    #[error("damaged PEM: {0}")]
    DamagedPem(String),
    /// The block is something else, described in words.
    #[error("holds {found}, not a private key that signs here; {remedy}")]
    WrongBlock {
        /// What it is, with the article.
        found: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A block of another kind where a public key was wanted.
    #[error("holds a `{0}` block, not a `PUBLIC KEY`")]
    NotPublic(String),
    /// The JSON within an encrypted key doesn't have the form that cosign writes.
    #[error("damaged encrypted key: {0}")]
    DamagedBox(&'static str),
    /// The key derivation or cipher is another one.
    #[error("encrypted with {0}, which is not supported")]
    UnsupportedCipher(String),
    /// Work factors that nobody's cosign writes; computing them could take hours and gigabytes.
    #[error(
        "refused scrypt parameters N={n} r={r} p={p}; accepted are N=32768, 65536 or 131072 with r=8 p=1"
    )]
    ScryptParameters {
        /// The cost parameter.
        n: u64,
        /// The block size.
        r: u64,
        /// The parallelism.
        p: u64,
    },
    /// A key that was to be encrypted is encrypted already.
    #[error("is in cosign's encrypted format already")]
    Sealed,
    /// The cryptographic provider failed, such as for lack of randomness.
    #[error("the cryptographic provider could not make the key")]
    Provider,
    /// The password doesn't open the box, or the box is damaged: the cipher can't tell which.
    #[error("the password does not decrypt the key")]
    WrongPassword,
    /// An RSA key that is too short to be safe, or longer than verifiers take.
    #[error("the RSA key is too {0}; 2048 to 8192 bits are accepted")]
    RsaSize(&'static str),
    /// The key is of a kind that isn't supported, or damaged.
    #[error(
        "the {0} is damaged or of an unsupported kind; supported are ECDSA P-256, P-384 and P-521, RSA and Ed25519"
    )]
    Unsupported(&'static str),
}
