//! The layout of a key kept in a Kubernetes Secret, as `cosign generate-key-pair k8s://NS/NAME` makes it.

use super::PublicKey;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use std::collections::BTreeMap;

const PRIVATE: &str = "cosign.key";
const PASSWORD: &str = "cosign.password";
const PUBLIC: &str = "cosign.pub";

/// The three entries of such a Secret. The reference is for messages only.
#[derive(Debug)]
pub struct KubernetesSecret {
    /// `cosign.key`: PEM, usually encrypted.
    pub private: SecretSlice<u8>,
    /// `cosign.password`, where there is one.
    pub password: Option<SecretString>,
    /// `cosign.pub`: what `cosign verify --key k8s://…` uses.
    pub public: Option<PublicKey>,
}

/// Why a Secret is no signing key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The entry `cosign.key` is missing.
    #[error("the Secret has no entry `cosign.key`; {0}")]
    NoKey(String),
    /// The password is no text.
    #[error("the Secret's `cosign.password` is not UTF-8 text")]
    Password,
    /// The entry `cosign.pub` is missing.
    #[error("the Secret has no entry `cosign.pub`; {0}")]
    NoPublic(String),
    /// The public key can't be read.
    #[error("the Secret's `cosign.pub` is no public key")]
    Public(#[source] super::KeyError),
    /// The halves don't belong together, so a verifier that reads the Secret would refuse every signature.
    #[error("the Secret's `cosign.pub` does not belong to its `cosign.key`")]
    Mismatch,
}

impl KubernetesSecret {
    /// Reads the public half alone, which is all that a verifier needs.
    ///
    /// # Errors
    /// [`SecretError::NoPublic`] or [`SecretError::Public`].
    pub fn public_of(entries: &BTreeMap<String, SecretSlice<u8>>) -> Result<PublicKey, SecretError> {
        let public = entries.get(PUBLIC).filter(|value| !value.expose_secret().is_empty());
        let public = public.ok_or_else(|| SecretError::NoPublic(having(entries)))?;
        PublicKey::from_pem(public.expose_secret()).map_err(SecretError::Public)
    }

    /// Reads the decoded entries of a Secret.
    ///
    /// # Errors
    /// [`SecretError`]; names entries, never shows values.
    pub fn from_entries(entries: &BTreeMap<String, SecretSlice<u8>>) -> Result<Self, SecretError> {
        let get = |name| entries.get(name).filter(|value| !value.expose_secret().is_empty());
        let private = get(PRIVATE).ok_or_else(|| SecretError::NoKey(having(entries)))?.clone();
        // An empty password is a password, unlike an empty key.
        let password = entries
            .get(PASSWORD)
            .map(|value| std::str::from_utf8(value.expose_secret()).map(SecretString::from))
            .transpose()
            .map_err(|_| SecretError::Password)?;
        let public = get(PUBLIC)
            .map(|value| PublicKey::from_pem(value.expose_secret()))
            .transpose()
            .map_err(SecretError::Public)?;
        Ok(Self { private, password, public })
    }

    /// Checks that `cosign.pub`, where there is one, belongs to the opened private key.
    ///
    /// # Errors
    /// [`SecretError::Mismatch`].
    pub fn check(&self, opened: &PublicKey) -> Result<(), SecretError> {
        match &self.public {
            Some(public) if public != opened => Err(SecretError::Mismatch),
            _ => Ok(()),
        }
    }
}

fn having(entries: &BTreeMap<String, SecretSlice<u8>>) -> String {
    if entries.is_empty() {
        return "it is empty".to_owned();
    }
    let names: Vec<_> = entries.keys().map(|name| format!("`{name}`")).collect();
    format!("it has {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = include_str!("../../../integration/fixtures/signing/cosign.key");
    const PUB: &str = include_str!("../../../integration/fixtures/signing/cosign.pub");
    const OTHER: &str = include_str!("../../../integration/fixtures/signing/bundle-buildkit-slsa1-key.pub");

    fn entries(pairs: &[(&str, &[u8])]) -> BTreeMap<String, SecretSlice<u8>> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), SecretSlice::from(value.to_vec()))).collect()
    }

    #[test]
    fn a_whole_secret() {
        let entries = entries(&[
            ("cosign.key", KEY.as_bytes()),
            ("cosign.password", b""),
            ("cosign.pub", PUB.as_bytes()),
        ]);
        let secret = KubernetesSecret::from_entries(&entries).unwrap();
        assert_eq!(secret.password.as_ref().unwrap().expose_secret(), "", "empty, yet there");
        let public = PublicKey::from_pem(PUB.as_bytes()).unwrap();
        assert_eq!(secret.check(&public), Ok(()));
        let other = PublicKey::from_pem(OTHER.as_bytes()).unwrap();
        assert_eq!(secret.check(&other), Err(SecretError::Mismatch));
        assert!(!format!("{secret:?}").contains("BEGIN ENCRYPTED"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = KubernetesSecret::from_entries(&entries(&[])).unwrap_err();
        assert_eq!(error.to_string(), "the Secret has no entry `cosign.key`; it is empty");
        let error = KubernetesSecret::from_entries(&entries(&[("tls.key", b"hidden")])).unwrap_err();
        assert_eq!(error.to_string(), "the Secret has no entry `cosign.key`; it has `tls.key`");
        let error =
            KubernetesSecret::from_entries(&entries(&[("cosign.key", b"k"), ("cosign.password", b"\xff")]))
                .unwrap_err();
        assert_eq!(error, SecretError::Password);
    }
}
