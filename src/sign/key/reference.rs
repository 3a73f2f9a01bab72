//! What `--cosign-key` may name.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A place where a key is kept, as the user wrote it (cosign's `--key` grammar).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyReference {
    /// A PEM file.
    File(PathBuf),
    /// `env://NAME`: the PEM text itself is the value of that variable.
    Environment(String),
    /// `k8s://NAMESPACE/NAME`: a Secret as [`KubernetesSecret`](super::KubernetesSecret) describes.
    KubernetesSecret {
        /// The namespace of the Secret.
        namespace: String,
        /// The name of the Secret.
        name: String,
    },
}

/// Why a key reference names nothing.
///
/// The texts repeat the scheme only: a PKCS#11 URI may carry a PIN, and who mistakes the grammar passes the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyReferenceError {
    /// The reference is the empty string.
    #[error("the key reference is empty")]
    Empty,
    /// The key's own text, PEM or that in base64, where the key's place was asked for.
    #[error("this is a key, not the place of one; keep it in a variable and name that: `env://NAME`")]
    Key,
    /// A kind of key that cosign has and this version has not.
    #[error(
        "keys in {kind} (`{scheme}`) are not supported yet; use a PEM file, `env://NAME` or `k8s://NAMESPACE/NAME`"
    )]
    NotYet {
        /// The scheme with its separator, such as `awskms://`.
        scheme: &'static str,
        /// What stands behind it, in words.
        kind: &'static str,
    },
    /// A scheme that nobody knows. It is never tried as the name of a file.
    #[error("unknown key scheme `{0}://`; use a PEM file, `env://NAME` or `k8s://NAMESPACE/NAME`")]
    UnknownScheme(String),
    /// `env://` without a usable name.
    #[error("`env://` needs the name of one environment variable, as in `env://COSIGN_PRIVATE_KEY`")]
    Environment,
    /// `k8s://` that isn't a namespace and a name.
    #[error("`k8s://` needs a namespace and the name of a Secret, as in `k8s://NAMESPACE/NAME`")]
    KubernetesSecret,
}

/// How PEM starts, bare and in base64, as CI variables often hold it.
const PEM: [&str; 2] = ["-----BEGIN", "LS0tLS1CRUdJT"];

/// Kinds that are recognised by name; their order doesn't matter.
const LATER: [(&str, &str); 9] = [
    ("awskms://", "AWS KMS"),
    ("gcpkms://", "Google Cloud KMS"),
    ("azurekms://", "Azure Key Vault"),
    ("hashivault://", "HashiCorp Vault"),
    ("openbao://", "OpenBao"),
    ("gitlab://", "GitLab CI variables"),
    ("https://", "files behind a URL"),
    ("http://", "files behind a URL"),
    ("pkcs11:", "PKCS#11 tokens"),
];

impl FromStr for KeyReference {
    type Err = KeyReferenceError;

    fn from_str(text: &str) -> Result<Self, KeyReferenceError> {
        if text.is_empty() {
            return Err(KeyReferenceError::Empty);
        }
        if PEM.into_iter().any(|start| text.contains(start)) {
            return Err(KeyReferenceError::Key);
        }
        if let Some((scheme, kind)) = LATER.into_iter().find(|(scheme, _)| text.starts_with(scheme)) {
            return Err(KeyReferenceError::NotYet { scheme, kind });
        }
        match text.split_once("://") {
            None => Ok(Self::File(text.into())),
            Some(("env", name)) if !name.is_empty() && !name.contains(['=', '\0', '/']) => {
                Ok(Self::Environment(name.to_owned()))
            }
            Some(("env", _)) => Err(KeyReferenceError::Environment),
            Some(("k8s", rest)) => match rest.split('/').collect::<Vec<_>>()[..] {
                [namespace, name] if !namespace.is_empty() && !name.is_empty() => {
                    Ok(Self::KubernetesSecret { namespace: namespace.to_owned(), name: name.to_owned() })
                }
                _ => Err(KeyReferenceError::KubernetesSecret),
            },
            Some((scheme, _)) => Err(KeyReferenceError::UnknownScheme(scheme.to_owned())),
        }
    }
}

impl KeyReferenceError {
    /// Returns what may be repeated of a text that was refused: how it starts.
    pub fn redact(&self, text: &str) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Key => "[redacted]".to_owned(),
            Self::NotYet { scheme, .. } => format!("{scheme}…"),
            Self::UnknownScheme(scheme) => format!("{scheme}://…"),
            Self::Environment => "env://…".to_owned(),
            // Two names, and which of them is missing helps.
            Self::KubernetesSecret => text.to_owned(),
        }
    }
}

impl fmt::Display for KeyReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Environment(name) => write!(formatter, "env://{name}"),
            Self::KubernetesSecret { namespace, name } => write!(formatter, "k8s://{namespace}/{name}"),
        }
    }
}

impl KeyReference {
    /// Returns what a verifier would most likely pass to `--key`: the Secret itself, the `.pub` file that key
    /// generators write beside a `.key` file, or `cosign.pub` where nothing is known.
    pub fn public_reference(&self) -> String {
        match self {
            Self::KubernetesSecret { .. } => self.to_string(),
            Self::File(path) if path.extension().is_some_and(|extension| extension == "key") => {
                path.with_extension("pub").display().to_string()
            }
            Self::File(_) | Self::Environment(_) => "cosign.pub".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<KeyReference, KeyReferenceError> {
        text.parse()
    }

    #[test]
    fn the_grammar() {
        assert_eq!(parse("keys/cosign.key"), Ok(KeyReference::File("keys/cosign.key".into())));
        assert_eq!(parse("C:\\cosign.key"), Ok(KeyReference::File("C:\\cosign.key".into())));
        assert_eq!(
            parse("env://COSIGN_PRIVATE_KEY"),
            Ok(KeyReference::Environment("COSIGN_PRIVATE_KEY".into()))
        );
        let secret = KeyReference::KubernetesSecret { namespace: "ci".into(), name: "signing".into() };
        assert_eq!(parse("k8s://ci/signing"), Ok(secret));
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(parse(""), Err(KeyReferenceError::Empty));
        for text in ["env://", "env://A=B", "env://a/b"] {
            assert_eq!(parse(text), Err(KeyReferenceError::Environment), "{text}");
        }
        for text in ["k8s://", "k8s://ci", "k8s://ci/", "k8s:///signing", "k8s://ci/signing/cosign.key"] {
            assert_eq!(parse(text), Err(KeyReferenceError::KubernetesSecret), "{text}");
        }
        assert_eq!(parse("vault://key"), Err(KeyReferenceError::UnknownScheme("vault".into())));
        for (scheme, _) in LATER {
            let error = parse(&format!("{scheme}x?pin-value=1234")).unwrap_err();
            assert!(matches!(error, KeyReferenceError::NotYet { .. }), "{error}");
            assert!(error.to_string().contains("not supported yet"), "{error}");
            assert!(!error.to_string().contains("1234"), "a PIN must not be repeated");
        }
        for text in ["-----BEGIN PRIVATE KEY-----\nMIG", "env://-----BEGIN X", "LS0tLS1CRUdJTiBFTkNSWVBURUQ="]
        {
            assert_eq!(parse(text), Err(KeyReferenceError::Key), "{text}");
        }
    }

    #[test]
    fn references_print_as_written_and_name_the_public_half() {
        for (text, public) in [
            ("keys/cosign.key", "keys/cosign.pub"),
            ("key.pem", "cosign.pub"),
            ("env://KEY", "cosign.pub"),
            ("k8s://ci/signing", "k8s://ci/signing"),
        ] {
            let reference = parse(text).unwrap();
            assert_eq!(reference.to_string(), text);
            assert_eq!(reference.public_reference(), public);
        }
    }
}
