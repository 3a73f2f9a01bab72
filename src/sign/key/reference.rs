//! What `--cosign-key` may name.

use super::KeyKind;
use crate::sign::http;
use crate::sign::kms::{KmsReference, aws, azure, gcp, pkcs11, plugin, vault};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use url::Url;

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
    /// `https://…` or `http://…`: PEM text behind a URL.
    Url(PemUrl),
    /// `gitlab://PROJECT`: CI variables of a project, by its number or path.
    Gitlab(String),
    /// A key that never leaves its service.
    Kms(KmsReference),
}

/// The URL of a PEM file. It may hold a password or a signed query, so it does not print them.
#[derive(Clone, PartialEq, Eq)]
pub struct PemUrl(pub Url);

impl fmt::Display for PemUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&http::shown(&self.0))
    }
}

impl fmt::Debug for PemUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PemUrl({self})")
    }
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
    /// A scheme that no program could have the name of. It is never tried as the name of a file.
    #[error("unknown key scheme `{0}://`; {USE}")]
    UnknownScheme(String),
    /// A known scheme, and behind it something else than its keys.
    #[error("`{scheme}` needs {form}")]
    Form {
        /// The scheme with its separator.
        scheme: &'static str,
        /// What must stand behind it.
        form: &'static str,
    },
    /// `k8s://` that isn't a namespace and a name.
    #[error("`k8s://` needs a namespace and the name of a Secret, as in `k8s://NAMESPACE/NAME`")]
    KubernetesSecret,
}

/// What there is instead.
const USE: &str = "use a PEM file, `env://NAME`, `k8s://NAMESPACE/NAME`, or a key service (`awskms://`, `gcpkms://`, \
                   `azurekms://`, `hashivault://`, `openbao://`, a `sigstore-kms-NAME` plugin's `NAME://`) or token (`pkcs11:`)";

/// How PEM starts, bare and in base64, as CI variables often hold it.
const PEM: [&str; 2] = ["-----BEGIN", "LS0tLS1CRUdJT"];

/// Known schemes and what stands behind them.
const PKCS11: (&str, &str) = (
    "pkcs11:",
    "a token and a key, as in `pkcs11:token=TOKEN;object=KEY?module-path=/usr/lib/softhsm/libsofthsm2.so`",
);
const FORMS: [(&str, &str); 10] = [
    PKCS11,
    ("env://", "the name of one environment variable, as in `env://COSIGN_PRIVATE_KEY`"),
    ("https://", "a host and a path, as in `https://example.com/cosign.key`"),
    ("http://", "a host and a path, as in `http://example.com/cosign.key`"),
    ("gitlab://", "a project's path or number, as in `gitlab://group/project`"),
    (
        "awskms://",
        "an endpoint (or nothing), a slash and a key's ID, ARN or alias, as in `awskms:///alias/NAME`",
    ),
    (
        "gcpkms://",
        "a key, as in `gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K`, with `/cryptoKeyVersions/V` for one version",
    ),
    ("azurekms://", "a vault's host and a key, as in `azurekms://NAME.vault.azure.net/KEY`"),
    ("hashivault://", "the name of a key in the transit engine, as in `hashivault://KEY`"),
    ("openbao://", "the name of a key in the transit engine, as in `openbao://KEY`"),
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
        if let Some(rest) = text.strip_prefix(PKCS11.0) {
            let key = pkcs11::Key::parse(rest).map(|key| Self::Kms(KmsReference::Pkcs11(Box::new(key))));
            return key.ok_or(KeyReferenceError::Form { scheme: PKCS11.0, form: PKCS11.1 });
        }
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(Self::File(text.into())) };
        let parsed = match scheme {
            "k8s" => {
                return match rest.split('/').collect::<Vec<_>>()[..] {
                    [namespace, name] if !namespace.is_empty() && !name.is_empty() => {
                        Ok(Self::KubernetesSecret { namespace: namespace.to_owned(), name: name.to_owned() })
                    }
                    _ => Err(KeyReferenceError::KubernetesSecret),
                };
            }
            "env" => variable(rest).map(Self::Environment),
            "https" | "http" => text.parse().ok().map(|url| Self::Url(PemUrl(url))),
            "gitlab" => project(rest).map(Self::Gitlab),
            _ => kms(scheme, rest).map(Self::Kms),
        };
        let unknown = || {
            let known = FORMS.into_iter().find(|(known, _)| known.strip_suffix("://") == Some(scheme));
            match known {
                Some((scheme, form)) => KeyReferenceError::Form { scheme, form },
                None => KeyReferenceError::UnknownScheme(scheme.chars().take(40).collect()),
            }
        };
        parsed.ok_or_else(unknown)
    }
}

fn variable(name: &str) -> Option<String> {
    (!name.is_empty() && !name.contains(['=', '\0', '/'])).then(|| name.to_owned())
}

fn project(path: &str) -> Option<String> {
    let fits = |letter: char| letter.is_alphanumeric() || "-_./".contains(letter);
    (!path.is_empty() && path.chars().all(fits)).then(|| path.to_owned())
}

fn kms(scheme: &str, rest: &str) -> Option<KmsReference> {
    match scheme {
        "awskms" => aws::Key::parse(rest).map(KmsReference::Aws),
        "gcpkms" => gcp::Key::parse(rest).map(KmsReference::Gcp),
        "azurekms" => azure::Key::parse(rest).map(KmsReference::Azure),
        "hashivault" => vault::Key::parse(vault::Product::Vault, rest).map(KmsReference::Vault),
        "openbao" => vault::Key::parse(vault::Product::OpenBao, rest).map(KmsReference::Vault),
        other => plugin::Key::parse(other, rest).map(KmsReference::Plugin),
    }
}

impl KeyReferenceError {
    /// Returns what may be repeated of a text that was refused: how it starts.
    pub fn redact(&self, text: &str) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Key => "[redacted]".to_owned(),
            Self::UnknownScheme(scheme) => format!("{scheme}://…"),
            Self::Form { scheme, .. } => format!("{scheme}…"),
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
            Self::Url(url) => url.fmt(formatter),
            Self::Gitlab(project) => write!(formatter, "gitlab://{project}"),
            Self::Kms(key) => key.fmt(formatter),
        }
    }
}

impl KeyReference {
    /// Returns what a verifier would most likely pass to `--key`: the Secret or key service itself, the `.pub` file
    /// that key generators write beside a `.key` file, or `cosign.pub` where nothing is known.
    pub fn public_reference(&self, kind: KeyKind) -> String {
        match self {
            Self::Kms(_) if self.keeps_from_cosign(kind) => "cosign.pub".to_owned(),
            // The library's path and the PIN are nobody else's.
            Self::Kms(KmsReference::Pkcs11(_)) => "cosign.pub".to_owned(),
            Self::KubernetesSecret { .. } | Self::Gitlab(_) | Self::Kms(_) => self.for_cosign(),
            Self::File(path) if path.extension().is_some_and(|extension| extension == "key") => {
                path.with_extension("pub").display().to_string()
            }
            Self::File(_) | Self::Environment(_) | Self::Url(_) => "cosign.pub".to_owned(),
        }
    }

    /// Returns the reference as every generation of cosign takes it: cosign 2 knows no `openbao://`.
    pub fn for_cosign(&self) -> String {
        match self {
            Self::Kms(KmsReference::Vault(vault::Key { name, .. })) => format!("hashivault://{name}"),
            _ => self.to_string(),
        }
    }

    /// Whether cosign's own client of a key service refuses good signatures of such a key, so that it needs the
    /// public key in a file: of Vault it asks whether RSA signatures are PSS, of Azure it thinks that longer RSA
    /// keys sign longer hashes (sigstore/sigstore, pkg/signature/kms/{hashivault,azure}/client.go).
    pub fn keeps_from_cosign(&self, kind: KeyKind) -> bool {
        match (self, kind) {
            (Self::Kms(KmsReference::Vault(_)), KeyKind::Rsa { .. } | KeyKind::Ed25519) => true,
            (Self::Kms(KmsReference::Azure(_)), KeyKind::Rsa { bits }) => bits > 2048,
            _ => false,
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
        assert_eq!(parse("gitlab://group/project"), Ok(KeyReference::Gitlab("group/project".into())));
        for text in [
            "awskms:///alias/app",
            "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
            "azurekms://name.vault.azure.net/app",
            "hashivault://app",
            "openbao://app",
            "my-hsm://slot/1?x=y",
        ] {
            let reference = parse(text).unwrap();
            assert!(matches!(reference, KeyReference::Kms(_)), "{text}");
            assert_eq!(reference.to_string(), text);
            let public = text.replace("openbao://", "hashivault://");
            assert_eq!(reference.public_reference(KeyKind::EcdsaP256), public);
        }
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(parse(""), Err(KeyReferenceError::Empty));
        for text in ["env://", "env://A=B", "env://a/b"] {
            assert!(matches!(parse(text), Err(KeyReferenceError::Form { scheme: "env://", .. })), "{text}");
        }
        for text in ["k8s://", "k8s://ci", "k8s://ci/", "k8s:///signing", "k8s://ci/signing/cosign.key"] {
            assert_eq!(parse(text), Err(KeyReferenceError::KubernetesSecret), "{text}");
        }
        for (scheme, _) in FORMS {
            let text = format!("{scheme}?pin-value=1234 ");
            let error = parse(&text).unwrap_err();
            let told = format!("{error} {}", error.redact(&text));
            assert!(told.contains(scheme) && !told.contains("1234"), "{told}");
        }
        let token = parse("pkcs11:token=t;object=o?pin-value=1234").unwrap();
        assert!(!format!("{token} {token:?}").contains("1234"), "a PIN must not be repeated");
        assert_eq!(token.to_string(), "pkcs11:token=t;object=o");
        assert_eq!(token.public_reference(KeyKind::EcdsaP256), "cosign.pub");
        assert_eq!(parse("a b://key"), Err(KeyReferenceError::UnknownScheme("a b".into())));
        assert_eq!(parse("://key"), Err(KeyReferenceError::UnknownScheme(String::new())));
        for text in ["-----BEGIN PRIVATE KEY-----\nMIG", "env://-----BEGIN X", "LS0tLS1CRUdJTiBFTkNSWVBURUQ="]
        {
            assert_eq!(parse(text), Err(KeyReferenceError::Key), "{text}");
        }
    }

    #[test]
    fn urls_keep_their_secrets() {
        let reference = parse("https://user:SECRET@host:8443/keys/a.key?token=SECRET").unwrap();
        assert_eq!(reference.to_string(), "https://host:8443/keys/a.key");
        assert!(!format!("{reference:?}").contains("SECRET"));
    }

    #[test]
    fn references_print_as_written_and_name_the_public_half() {
        for (text, public) in [
            ("keys/cosign.key", "keys/cosign.pub"),
            ("key.pem", "cosign.pub"),
            ("env://KEY", "cosign.pub"),
            ("k8s://ci/signing", "k8s://ci/signing"),
            ("gitlab://group/project", "gitlab://group/project"),
            ("https://example.com/cosign.key", "cosign.pub"),
        ] {
            let reference = parse(text).unwrap();
            assert_eq!(reference.to_string(), text);
            assert_eq!(reference.public_reference(KeyKind::EcdsaP256), public);
        }
    }

    #[test]
    fn where_cosigns_client_errs_the_public_key_is_named() {
        let rsa = |bits| KeyKind::Rsa { bits };
        for (text, kind, public) in [
            ("hashivault://app", KeyKind::EcdsaP384, "hashivault://app"),
            ("hashivault://app", rsa(2048), "cosign.pub"),
            ("openbao://app", KeyKind::Ed25519, "cosign.pub"),
            ("azurekms://v.vault.azure.net/app", rsa(2048), "azurekms://v.vault.azure.net/app"),
            ("azurekms://v.vault.azure.net/app", rsa(4096), "cosign.pub"),
            ("awskms:///alias/app", rsa(4096), "awskms:///alias/app"),
        ] {
            assert_eq!(parse(text).unwrap().public_reference(kind), public, "{text} {kind}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_it(scheme in "(awskms|gcpkms|azurekms|hashivault|https|gitlab|k8s|env|x)?", rest in ".{0,60}") {
            let text = format!("{scheme}://{rest}");
            if let Ok(reference) = parse(&text) {
                // What we print is read back as the same.
                let printed = reference.to_string();
                if !matches!(reference, KeyReference::Url(_)) {
                    proptest::prop_assert_eq!(parse(&printed), Ok(reference));
                }
            }
        }
    }
}
