//! The seams: who signs, what a signature comes with, who verifies.

use super::bundle;
use super::key::{Hash, KeyKind, PrivateKey, PublicKey};
use super::log::{LogEntry, LogPlace};
use super::trust::{CertificateIdentity, TrustRoot};
use async_trait::async_trait;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

/// What is signed. Logs and verifiers treat the two kinds differently, so they are told apart down to the signer.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// A simple-signing payload, signed as it stands.
    Payload(&'a [u8]),
    /// An in-toto statement, signed within a DSSE envelope.
    Statement(&'a [u8]),
}

impl<'a> Content<'a> {
    /// Returns the bytes that the signature covers.
    pub fn message(self) -> Cow<'a, [u8]> {
        match self {
            Self::Payload(bytes) => Cow::Borrowed(bytes),
            Self::Statement(bytes) => Cow::Owned(bundle::message(bytes)),
        }
    }
}

/// A signature with what a verifier needs beside the trust root.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The signature in the form that verifiers of images expect: ECDSA as DER, RSA and Ed25519 bare.
    pub signature: Vec<u8>,
    /// Whose signature it is.
    pub material: Material,
    /// Where transparency logs have it.
    pub logged: Vec<LogEntry>,
    /// RFC 3161 responses over the signature, DER.
    pub timestamps: Vec<Vec<u8>>,
}

impl Evidence {
    /// Returns a signature that no log and no clock has seen.
    pub fn new(signature: Vec<u8>, material: Material) -> Self {
        Self { signature, material, logged: Vec::new(), timestamps: Vec::new() }
    }

    /// Whether verifiers find the same in both: they have what signed a certificate already, and where an entry was
    /// written proves nothing.
    pub(super) fn proves_as(&self, other: &Self) -> bool {
        let material = match (&self.material, &other.material) {
            (Material::Certificate { leaf: one, .. }, Material::Certificate { leaf: other, .. }) => {
                one == other
            }
            (one, other) => one == other,
        };
        material
            && self.signature == other.signature
            && self.timestamps == other.timestamps
            && self.logged.iter().map(LogEntry::inner).eq(other.logged.iter().map(LogEntry::inner))
    }

    /// Returns where logs have it; a trust root knows the addresses of logs.
    pub(super) fn log_places(&self, trust: Option<&TrustRoot>) -> Vec<LogPlace> {
        let known = |id: &[u8]| trust?.log_url(id);
        self.logged.iter().map(|entry| entry.place(known)).collect()
    }
}

/// What names the signing key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Material {
    /// A key that the verifier has already. The hint helps to find it; it proves nothing.
    PublicKey {
        /// See [`PublicKey::hint`].
        hint: String,
    },
    /// A certificate, such as keyless signatures carry.
    Certificate {
        /// The leaf, DER.
        leaf: Vec<u8>,
        /// What signed it, up to the root, DER. Bundles carry none of it: their verifiers have it already.
        chain: Vec<Vec<u8>>,
    },
}

/// Makes signatures. A key file, a KMS or a hardware token are kinds.
#[async_trait]
pub trait Signer: Send + Sync {
    /// Returns the name that messages use, such as `cosign.key`; never a secret.
    fn name(&self) -> &str;

    /// Returns what accepts this signer's signatures, for the check after signing.
    fn verifier(&self) -> &dyn Verifier;

    /// Returns the key that signs every time, or `None` where each signature has a key of its own.
    fn public_key(&self) -> Option<&PublicKey>;

    /// Returns the hash that it signs over.
    fn hash(&self) -> Hash {
        Hash::Sha256
    }

    /// Returns cosign's name for the hash that it signs over, where verifiers have to be told of it.
    fn unusual_hash(&self) -> Option<&'static str> {
        let of_curve = self.public_key()?.kind().hash_of_curve();
        (self.hash() == Hash::OfCurve).then_some(of_curve)
    }

    /// Signs over this hash from now on; returns whether it does.
    fn use_hash(&mut self, hash: Hash) -> bool {
        self.hash() == hash
    }

    /// Returns whether this stored signature is as good as one that this signer would make now, so that it is kept
    /// instead of being made once more.
    ///
    /// # Errors
    /// What keeps this signer from signing, where that has to be begun to tell.
    async fn has_made(&self, content: Content<'_>, evidence: &Evidence) -> Result<bool, SignerError> {
        // Over another hash it is another signature: verifiers have to be told of that.
        let by_key =
            |key: &PublicKey| key.verify(&content.message(), &evidence.signature) == Some(self.hash());
        // Where logs are wanted, a signature that none has is another one.
        Ok(self.public_key().is_some_and(by_key) && self.verifier().verify(content, evidence).is_ok())
    }

    /// Returns what this signer signs along beside what the request says, which yields to it.
    fn annotations(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        &NONE
    }

    /// Returns what the certificate says that this signer signs with; `None` for keys, and before the first signature.
    fn certified(&self) -> Option<Certified> {
        None
    }

    /// Begins what takes a person's time, such as a login, and needn't be waited for yet.
    fn begin(&self) {}

    /// Waits until nothing but signing is left to do.
    ///
    /// # Errors
    /// It won't come to that.
    async fn ready(&self) -> Result<(), SignerError> {
        Ok(())
    }

    /// Signs this content: the bytes of [`Content::message`], not their hash.
    async fn sign(&self, content: Content<'_>) -> Result<Evidence, SignerError>;
}

/// What a signer's certificate says, and what verifiers have to do for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Who signed.
    pub identity: CertificateIdentity,
    /// Only timestamps say when: the log gives no time.
    pub by_clock: bool,
}

/// Why a signer did not sign; the text names provider and call.
#[derive(Debug, thiserror::Error)]
#[error("{signer} could not sign")]
pub struct SignerError {
    /// The signer's name.
    pub signer: String,
    /// What its provider said.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// Accepts or refuses signatures.
pub trait Verifier: Send + Sync {
    /// Returns whether the evidence is a signature over this content by whom this verifier stands for.
    ///
    /// # Errors
    /// Why not, in words.
    fn verify(&self, content: Content<'_>, evidence: &Evidence) -> Result<(), String>;

    /// Returns the trust root by which it checks what logs say, if it does.
    fn trust(&self) -> Option<&TrustRoot> {
        None
    }
}

impl Verifier for PublicKey {
    fn verify(&self, content: Content<'_>, evidence: &Evidence) -> Result<(), String> {
        // Beside a `.sig` signature a certificate doesn't hinder a verifier that has the key, as with cosign.
        if let (Content::Statement(_), Material::Certificate { .. }) = (content, &evidence.material) {
            return Err("it was made with a certificate, not with a key".to_owned());
        }
        match self.verify(&content.message(), &evidence.signature) {
            Some(Hash::Sha256 | Hash::OfCurve) => Ok(()),
            // cosign signs Ed25519 pre-hashed, which neither our provider nor `cosign verify` can check.
            None if self.kind() == KeyKind::Ed25519 => {
                Err("it is not a (pure) Ed25519 signature of this key over this content".to_owned())
            }
            None => Err("it is not a signature of this key over this content".to_owned()),
        }
    }
}

/// A signer with its private key in memory.
#[derive(Clone, Debug)]
pub struct KeySigner {
    name: String,
    key: Arc<PrivateKey>,
    hash: Hash,
}

impl KeySigner {
    /// Returns a signer; `name` is what messages call it.
    pub fn new(name: impl Into<String>, key: PrivateKey) -> Self {
        Self { name: name.into(), key: Arc::new(key), hash: Hash::Sha256 }
    }
}

#[async_trait]
impl Signer for KeySigner {
    fn name(&self) -> &str {
        &self.name
    }

    fn verifier(&self) -> &dyn Verifier {
        self.key.public()
    }

    fn public_key(&self) -> Option<&PublicKey> {
        Some(self.key.public())
    }

    fn hash(&self) -> Hash {
        self.hash
    }

    fn use_hash(&mut self, hash: Hash) -> bool {
        // Other kinds have but one.
        if matches!(self.key.kind(), KeyKind::EcdsaP384 | KeyKind::EcdsaP521) {
            self.hash = hash;
        }
        self.hash == hash
    }

    async fn sign(&self, content: Content<'_>) -> Result<Evidence, SignerError> {
        // A few milliseconds at most (RSA 8192 takes about 20), so it stays on this thread.
        let signature = self
            .key
            .sign(&content.message(), self.hash)
            .map_err(|error| SignerError { signer: self.name.clone(), source: Box::new(error) })?;
        Ok(Evidence::new(signature, Material::PublicKey { hint: self.key.public().hint() }))
    }
}

/// A signer that signs annotations of its own along, such as the name of the builder that it stands for.
pub struct Annotated {
    signer: Box<dyn Signer>,
    annotations: BTreeMap<String, String>,
}

impl Annotated {
    /// Returns the signer with these annotations.
    pub fn new(signer: Box<dyn Signer>, annotations: BTreeMap<String, String>) -> Self {
        Self { signer, annotations }
    }
}

#[async_trait]
impl Signer for Annotated {
    fn name(&self) -> &str {
        self.signer.name()
    }

    fn verifier(&self) -> &dyn Verifier {
        self.signer.verifier()
    }

    fn public_key(&self) -> Option<&PublicKey> {
        self.signer.public_key()
    }

    fn hash(&self) -> Hash {
        self.signer.hash()
    }

    fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    fn certified(&self) -> Option<Certified> {
        self.signer.certified()
    }

    async fn has_made(&self, content: Content<'_>, evidence: &Evidence) -> Result<bool, SignerError> {
        self.signer.has_made(content, evidence).await
    }

    async fn sign(&self, content: Content<'_>) -> Result<Evidence, SignerError> {
        self.signer.sign(content).await
    }
}
