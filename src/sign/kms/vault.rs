//! The transit engine of HashiCorp Vault and OpenBao: two calls, the same for both.

use super::{Backend, Fault, Hashing, Opened, der, one_line};
use crate::sign::http::{Answer, Http, HttpOptions, Limits, Request};
use crate::sign::key::PublicKey;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use url::Url;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Calls that lack it are refused by agents and proxies that demand it (Vault API, "The X-Vault-Request header").
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// Which of the two is meant: they differ in the names of variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// `hashivault://`.
    Vault,
    /// `openbao://`.
    OpenBao,
}

impl Product {
    /// Returns the name that messages use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vault => "Vault",
            Self::OpenBao => "OpenBao",
        }
    }

    /// Returns the name of its command line.
    fn tool(self) -> &'static str {
        match self {
            Self::Vault => "vault",
            Self::OpenBao => "bao",
        }
    }

    /// Returns the scheme of references.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Vault => "hashivault",
            Self::OpenBao => "openbao",
        }
    }
}

/// `hashivault://KEY` or `openbao://KEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Which scheme.
    pub product: Product,
    /// The name of the key in the transit engine.
    pub name: String,
}

impl Key {
    /// Reads what stands behind the scheme; none if it is no key's name.
    ///
    /// Letters, digits, `_`, `-` and `.`, as cosign takes them; the first and the last are letters, digits or `_`.
    pub fn parse(product: Product, rest: &str) -> Option<Self> {
        let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let inner = rest.chars().all(|letter| word(letter) || letter == '-' || letter == '.');
        let ends = rest.starts_with(word) && rest.ends_with(word);
        (inner && ends).then(|| Self { product, name: rest.to_owned() })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.product.scheme(), self.name)
    }
}

/// A key and how its server is reached.
#[derive(Debug)]
pub struct Settings {
    /// The key.
    pub key: Key,
    /// `VAULT_ADDR`.
    pub address: Url,
    /// Who we are.
    pub token: SecretString,
    /// `VAULT_NAMESPACE`.
    pub namespace: Option<String>,
    /// Where the transit engine is mounted.
    pub mount: String,
    /// Trust and proxies.
    pub http: HttpOptions,
}

struct Transit {
    http: Http,
    settings: Settings,
    version: u64,
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct KeyData {
    latest_version: u64,
    #[serde(default)]
    supports_signing: Option<bool>,
    #[serde(default, rename = "type")]
    kind: String,
    keys: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct VersionData {
    #[serde(default)]
    name: String,
    public_key: String,
}

#[derive(Deserialize)]
struct SignData {
    signature: String,
}

#[derive(Default, Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<String>,
}

pub(super) async fn open(settings: Settings) -> Result<Opened, (Fault, Option<String>)> {
    let http = Http::new(&settings.http).map_err(|error| (error.into(), None))?;
    let mut transit = Transit { http, settings, version: 0 };
    let public = match transit.public_key().await {
        Ok(public) => public,
        Err(fault) => {
            let hint = transit.hint(&fault);
            return Err((fault, hint));
        }
    };
    Ok(Opened { hashing: Hashing::usual(public.kind()), backend: Box::new(transit), public })
}

pub(super) async fn create(settings: Settings) -> Result<PublicKey, (Fault, Option<String>)> {
    let http = Http::new(&settings.http).map_err(|error| (error.into(), None))?;
    let mut transit = Transit { http, settings, version: 0 };
    match transit.create().await {
        Ok(public) => Ok(public),
        Err(fault) => {
            let Settings { key: Key { product, name }, mount, .. } = &transit.settings;
            let hint = match fault.status() {
                Some(StatusCode::FORBIDDEN) => Some(format!(
                    "the token must be valid and its policy allow `read`, `create` and `update` on `{mount}/keys/{name}`"
                )),
                Some(StatusCode::NOT_FOUND) => Some(format!(
                    "enable the engine with `{} secrets enable -path={mount} transit`, or say where it is with \
                     TRANSIT_SECRET_ENGINE_PATH",
                    product.tool()
                )),
                _ => transit.hint(&fault),
            };
            Err((fault, hint))
        }
    }
}

impl Transit {
    async fn create(&mut self) -> Result<PublicKey, Fault> {
        let url = self.url(&["keys", &self.settings.key.name]);
        match self.call(Request::get(url.clone())).await {
            // Another write to it would be no error, and change nothing.
            Ok(_) => return Err(Fault::Exists),
            Err(fault) if fault.status() == Some(StatusCode::NOT_FOUND) => {}
            Err(fault) => return Err(fault),
        }
        let body = serde_json::json!({ "type": "ecdsa-p256" });
        self.call(Request::post_json(url, &body).repeatable()).await?;
        self.public_key().await
    }

    /// Reads the latest version's key, and stays with that version: one that is made meanwhile has another key.
    async fn public_key(&mut self) -> Result<PublicKey, Fault> {
        let request = Request::get(self.url(&["keys", &self.settings.key.name]));
        let answer = self.call(request).await?;
        let key: Data<KeyData> = answer.json()?;
        let KeyData { latest_version, supports_signing, kind, mut keys } = key.data;
        if supports_signing == Some(false) {
            return Err(Fault::Unusable(format!(
                "a key of type `{}` does not sign; `ecdsa-p256` does",
                one_line(&kind)
            )));
        }
        let version = keys.remove(&latest_version.to_string());
        let version = version.ok_or(Fault::Answer("its answer lacks the key's latest version"))?;
        // Symmetric keys have a number here.
        let VersionData { name, public_key } = serde_json::from_value(version).map_err(|_| {
            Fault::Unusable("it is no key pair; `ecdsa-p256` makes one that signs".to_owned())
        })?;
        self.version = latest_version;
        if name == "ed25519" {
            let raw = STANDARD.decode(&public_key).ok().filter(|raw| raw.len() == 32);
            let raw = raw.ok_or(Fault::Answer("its Ed25519 public key is not 32 bytes of base64"))?;
            return Ok(PublicKey::from_spki(&der::ed25519(&raw))?);
        }
        Ok(PublicKey::from_pem(public_key.as_bytes())?)
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.settings.address.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1");
            segments.extend(self.settings.mount.split('/').filter(|part| !part.is_empty()));
            segments.extend(path);
        }
        url
    }

    async fn call(&self, request: Request) -> Result<Answer, Fault> {
        let mut request = request
            .secret_header(TOKEN, self.settings.token.expose_secret())
            .header(REQUEST, HeaderValue::from_static("true"));
        if let Some(namespace) = &self.settings.namespace {
            request = request.secret_header(NAMESPACE, namespace);
        }
        let service = self.settings.key.product.name();
        let answer = self.http.send(service, request, Limits::default()).await?;
        if answer.is_success() {
            return Ok(answer);
        }
        let errors: Errors = serde_json::from_slice(&answer.body).unwrap_or_default();
        let said = match (answer.status, errors.errors.is_empty()) {
            (StatusCode::NOT_FOUND, true) => {
                format!("there is no key `{}` in `{}`", self.settings.key.name, self.settings.mount)
            }
            _ => one_line(&errors.errors.join("; ")),
        };
        Err(answer.refused(&said).into())
    }
}

#[async_trait]
impl Backend for Transit {
    async fn sign(&self, _message: &[u8], digest: &[u8], hashing: Hashing) -> Result<Vec<u8>, Fault> {
        let key = &self.settings.key.name;
        let url = match hashing {
            Hashing::None => self.url(&["sign", key]),
            Hashing::Sha256 => self.url(&["sign", key, "sha2-256"]),
            Hashing::Sha384 => self.url(&["sign", key, "sha2-384"]),
            Hashing::Sha512 => self.url(&["sign", key, "sha2-512"]),
        };
        let body = serde_json::json!({
            "input": STANDARD.encode(digest),
            "prehashed": hashing != Hashing::None,
            "key_version": self.version,
            "signature_algorithm": "pkcs1v15",
        });
        let answer = self.call(Request::post_json(url, &body).repeatable()).await?;
        let signed: Data<SignData> = answer.json()?;
        let encoded = signed.data.signature.rsplit(':').next().unwrap_or_default();
        STANDARD.decode(encoded).map_err(|_| Fault::Answer("its signature is not base64"))
    }

    fn takes_any_hash(&self) -> bool {
        true
    }

    fn hint(&self, fault: &Fault) -> Option<String> {
        let Fault::Http(error) = fault else { return None };
        let Settings { key: Key { product, name }, mount, .. } = &self.settings;
        Some(match error.status() {
            Some(StatusCode::NOT_FOUND) if error.to_string().contains("namespace not found") => {
                "check the namespace (VAULT_NAMESPACE, BAO_NAMESPACE)".to_owned()
            }
            Some(StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) => format!(
                "the token must be valid and its policy allow `read` on `{mount}/keys/{name}` and `update` on \
                 `{mount}/sign/{name}` and `{mount}/sign/{name}/*`"
            ),
            Some(StatusCode::NOT_FOUND) => format!(
                "make it with `{} write -f {mount}/keys/{name} type=ecdsa-p256`, or say where the engine is with TRANSIT_SECRET_ENGINE_PATH",
                product.tool()
            ),
            Some(StatusCode::SERVICE_UNAVAILABLE) => "the server may be sealed".to_owned(),
            Some(_) => return None,
            None => format!("the address is {}", crate::sign::http::shown(&self.settings.address)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_keys() {
        for name in ["k", "my-key", "my.key_1", "K9"] {
            let key = Key::parse(Product::Vault, name).unwrap();
            assert_eq!(key.to_string(), format!("hashivault://{name}"));
        }
        for name in ["", "-k", "k-", ".k", "a/b", "a b", "a?b", "ä", "k:1"] {
            assert_eq!(Key::parse(Product::OpenBao, name), None, "{name}");
        }
    }
}
