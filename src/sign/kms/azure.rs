//! Azure Key Vault over its REST API.

use super::{Backend, Fault, Hashing, Opened, der, one_line};
use crate::sign::http::{Answer, Http, HttpError, HttpOptions, Limits, Request};
use crate::sign::key::{KeyKind, PublicKey};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use url::Url;

/// The name of the service in messages.
pub const SERVICE: &str = "Azure Key Vault";
const LOGIN: &str = "Microsoft Entra ID";
const MANAGED: &str = "the managed identity service";
const VERSION: &str = "7.4";
const MARGIN: Duration = Duration::from_secs(120);
const METADATA: Duration = Duration::from_secs(5);

/// `azurekms://VAULT_HOST/KEY[/VERSION]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The vault's host, such as `name.vault.azure.net`.
    pub host: String,
    /// The key's name.
    pub name: String,
    /// The version; the current one where it isn't named.
    pub version: Option<String>,
}

impl Key {
    /// Reads what stands behind `azurekms://`; none if it names no key.
    pub fn parse(rest: &str) -> Option<Self> {
        let parts: Vec<&str> = rest.split('/').collect();
        let (host, name, version) = match parts[..] {
            [host, name] => (host, name, None),
            // cosign takes a slash at the end for the current version.
            [host, name, ""] => (host, name, None),
            [host, name, version] => (host, name, Some(version)),
            _ => return None,
        };
        let host_fits = host.starts_with(|letter: char| letter.is_ascii_alphanumeric())
            && host.chars().all(|letter| letter.is_ascii_alphanumeric() || "-.:".contains(letter))
            && format!("https://{host}/").parse::<Url>().is_ok();
        let name_fits =
            !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
        let version_fits = version.is_none_or(|version| {
            version.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
        });
        (host_fits && name_fits && version_fits).then(|| Self {
            host: host.to_owned(),
            name: name.to_owned(),
            version: version.map(str::to_owned),
        })
    }

    /// Returns what a token must be for: the cloud's vaults, or its managed HSMs.
    fn resource(&self) -> &'static str {
        let host = self.host.split(':').next().unwrap_or_default();
        let all = [
            (".vault.usgovcloudapi.net", "https://vault.usgovcloudapi.net"),
            (".vault.azure.cn", "https://vault.azure.cn"),
            (".managedhsm.azure.net", "https://managedhsm.azure.net"),
            (".managedhsm.usgovcloudapi.net", "https://managedhsm.usgovcloudapi.net"),
            (".managedhsm.azure.cn", "https://managedhsm.azure.cn"),
        ];
        let found = all.into_iter().find(|(suffix, _)| host.ends_with(suffix));
        found.map_or("https://vault.azure.net", |(_, resource)| resource)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "azurekms://{}/{}", self.host, self.name)?;
        match &self.version {
            Some(version) => write!(formatter, "/{version}"),
            None => Ok(()),
        }
    }
}

/// Who we are to Azure.
#[derive(Debug)]
pub enum Identity {
    /// An application with a secret.
    Secret {
        /// `AZURE_CLIENT_SECRET`.
        secret: SecretString,
        /// Tenant and client.
        application: Application,
    },
    /// A workload identity: a token of the cluster's stands for the secret.
    Federated {
        /// `AZURE_FEDERATED_TOKEN_FILE`; read anew each time.
        token_file: PathBuf,
        /// Tenant and client.
        application: Application,
    },
    /// The machine's or the app's managed identity.
    Managed {
        /// `AZURE_CLIENT_ID`, for a user-assigned one.
        client: Option<String>,
        /// `IDENTITY_ENDPOINT` and `IDENTITY_HEADER`, where an app service has them.
        app: Option<(Url, SecretString)>,
        /// The machine's metadata service.
        metadata: Url,
    },
}

/// An application that is registered with Entra.
#[derive(Clone, Debug)]
pub struct Application {
    /// Where it logs in.
    pub authority: Url,
    /// `AZURE_TENANT_ID`.
    pub tenant: String,
    /// `AZURE_CLIENT_ID`.
    pub client: String,
}

/// A key and how the vault is reached.
#[derive(Debug)]
pub struct Settings {
    /// The key.
    pub key: Key,
    /// Who we are.
    pub identity: Identity,
    /// Trust and proxies.
    pub http: HttpOptions,
}

struct Vault {
    http: Http,
    settings: Settings,
    /// Which version answered first: a newer one has another key.
    version: String,
    algorithm: &'static str,
    token: Mutex<Option<(SecretString, Instant)>>,
}

#[derive(Deserialize)]
struct KeyAnswer {
    key: Jwk,
}

#[derive(Deserialize)]
struct Jwk {
    kid: String,
    kty: String,
    #[serde(default)]
    crv: String,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

#[derive(Deserialize)]
struct SignAnswer {
    value: String,
}

#[derive(Deserialize)]
struct Granted {
    access_token: SecretString,
    expires_in: Option<Seconds>,
    expires_on: Option<Seconds>,
}

/// Entra writes a number, managed identities write text; those of App Service say only when it ends, since 1970.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

impl Seconds {
    fn number(&self) -> u64 {
        match self {
            Self::Number(seconds) => *seconds,
            Self::Text(text) => text.parse().unwrap_or_default(),
        }
    }
}

#[derive(Default, Deserialize)]
struct ErrorAnswer {
    #[serde(default)]
    error: ErrorBody,
}

#[derive(Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

#[derive(Default, Deserialize)]
struct LoginError {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
}

pub(super) async fn open(settings: Settings) -> Result<Opened, (Fault, Option<String>)> {
    let http = Http::new(&settings.http).map_err(|error| (error.into(), None))?;
    let version = settings.key.version.clone().unwrap_or_default();
    let mut vault = Vault { http, settings, version, algorithm: "", token: Mutex::default() };
    match vault.public_key().await {
        Ok((public, hashing)) => Ok(Opened { backend: Box::new(vault), public, hashing }),
        Err(fault) => {
            let hint = vault.hint(&fault);
            Err((fault, hint))
        }
    }
}

pub(super) async fn create(settings: Settings) -> Result<PublicKey, (Fault, Option<String>)> {
    if settings.key.version.as_ref().is_some_and(|version| !version.is_empty()) {
        let fault = "the vault names a new key's version itself".to_owned();
        return Err((Fault::Unusable(fault), Some("leave the version out of the reference".to_owned())));
    }
    let http = Http::new(&settings.http).map_err(|error| (error.into(), None))?;
    let mut vault = Vault { http, settings, version: String::new(), algorithm: "", token: Mutex::default() };
    match vault.create().await {
        Ok(public) => Ok(public),
        Err(fault) => {
            let hint = match fault.status() {
                Some(StatusCode::FORBIDDEN) => Some(
                    "the caller needs the key permissions `get` and `create` (with RBAC: the role `Key Vault Crypto Officer`)"
                        .to_owned(),
                ),
                _ => vault.hint(&fault),
            };
            Err((fault, hint))
        }
    }
}

impl Vault {
    async fn create(&mut self) -> Result<PublicKey, Fault> {
        // To create one that is there would give it a version with another key.
        match self.call::<serde_json::Value>(Request::get(self.url("")?)).await {
            Ok(_) => return Err(Fault::Exists),
            Err(fault) if fault.status() == Some(StatusCode::NOT_FOUND) => {}
            Err(fault) => return Err(fault),
        }
        let body = json!({ "kty": "EC", "crv": "P-256", "key_ops": ["sign", "verify"] });
        let made: KeyAnswer = self.call(Request::post_json(self.url("create")?, &body)).await?;
        self.take(&made.key).map(|(public, _)| public)
    }

    async fn public_key(&mut self) -> Result<(PublicKey, Hashing), Fault> {
        let KeyAnswer { key } = self.call(Request::get(self.url("")?)).await?;
        self.take(&key)
    }

    /// Takes in a key that the vault describes.
    fn take(&mut self, key: &Jwk) -> Result<(PublicKey, Hashing), Fault> {
        // Of the identifier only the version is believed: it must not lead the token elsewhere.
        let version = key.kid.rsplit('/').next().unwrap_or_default();
        if version.is_empty() || !version.chars().all(|letter| letter.is_ascii_alphanumeric()) {
            return Err(Fault::Answer("its answer does not name the key's version"));
        }
        self.version = version.to_owned();
        let number = |text: &Option<String>| {
            let text = text.as_deref().unwrap_or_default().trim_end_matches('=');
            URL_SAFE_NO_PAD
                .decode(text)
                .map_err(|_| Fault::Answer("the numbers of its public key are not base64"))
        };
        let spki = match key.kty.trim_end_matches("-HSM") {
            "EC" => der::ec(&key.crv, &number(&key.x)?, &number(&key.y)?),
            "RSA" => Some(der::rsa(&number(&key.n)?, &number(&key.e)?)),
            _ => None,
        };
        let unusable = || {
            let kind = one_line(&format!("{} {}", key.kty, key.crv));
            Fault::Unusable(format!("a key of type {kind} signs nothing that cosign verifies; EC P-256 does"))
        };
        let public = PublicKey::from_spki(&spki.ok_or_else(unusable)?).map_err(|_| unusable())?;
        self.algorithm = match public.kind() {
            KeyKind::EcdsaP256 => "ES256",
            KeyKind::EcdsaP384 => "ES384",
            KeyKind::EcdsaP521 => "ES512",
            // Whatever the length: it is what verifiers with the public key in a file assume.
            KeyKind::Rsa { .. } => "RS256",
            KeyKind::Ed25519 => return Err(unusable()),
        };
        Ok((public.clone(), Hashing::of_curve(public.kind())))
    }

    fn url(&self, action: &str) -> Result<Url, Fault> {
        let Key { host, name, .. } = &self.settings.key;
        let url = format!("https://{host}/keys/{name}/{}{action}?api-version={VERSION}", self.version);
        url.parse().map_err(|_| Fault::Answer("it names a key that no URL can name"))
    }

    async fn call<T: DeserializeOwned>(&self, request: Request) -> Result<T, Fault> {
        let token = self.token().await?;
        let request = request.bearer(token.expose_secret());
        let answer: Answer = self.http.send(SERVICE, request, Limits::default()).await?;
        if answer.is_success() {
            return Ok(answer.json()?);
        }
        let ErrorAnswer { error } = serde_json::from_slice(&answer.body).unwrap_or_default();
        Err(answer.refused(&one_line(&format!("{} {}", error.code, error.message))).into())
    }

    async fn token(&self) -> Result<SecretString, Fault> {
        let mut kept = self.token.lock().await;
        if let Some((token, _)) = kept.as_ref().filter(|(_, until)| *until > Instant::now()) {
            return Ok(token.clone());
        }
        let Granted { access_token, expires_in, expires_on } = self.log_in().await?;
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
        let left = expires_on.map(|seconds| seconds.number().saturating_sub(now));
        let lasts = expires_in.map(|seconds| seconds.number()).or(left).unwrap_or_default();
        let until = Instant::now() + Duration::from_secs(lasts).saturating_sub(MARGIN);
        *kept = Some((access_token.clone(), until));
        Ok(access_token)
    }

    async fn log_in(&self) -> Result<Granted, Fault> {
        let resource = self.settings.key.resource();
        let scope = format!("{resource}/.default");
        match &self.settings.identity {
            Identity::Secret { secret, application } => {
                let proof = [("client_secret", secret.expose_secret())];
                self.of_application(application, &scope, &proof).await
            }
            Identity::Federated { token_file, application } => {
                let token = tokio::fs::read_to_string(token_file).await;
                let token = token.map(SecretString::from);
                let token = token.map_err(|source| Fault::File { path: token_file.clone(), source })?;
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                let proof =
                    [("client_assertion_type", kind), ("client_assertion", token.expose_secret().trim())];
                self.of_application(application, &scope, &proof).await
            }
            Identity::Managed { client, app, metadata } => {
                let (url, version, header, value) = match app {
                    Some((url, secret)) => (url, "2019-08-01", "x-identity-header", secret.expose_secret()),
                    None => (metadata, "2018-02-01", "metadata", "true"),
                };
                let mut url = url.clone();
                url.query_pairs_mut().append_pair("api-version", version).append_pair("resource", resource);
                if let Some(client) = client {
                    url.query_pairs_mut().append_pair("client_id", client);
                }
                let request =
                    Request::get(url).secret_header(HeaderName::from_static(header), value).direct();
                let sent = self.http.send(MANAGED, request, Limits::within(METADATA));
                match sent.await {
                    Ok(answer) if answer.is_success() => Ok(answer.json()?),
                    Ok(answer) => Err(login_refusal(&answer)),
                    Err(_) => Err(Fault::Credentials(
                        "no Azure credentials: AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET or \
                         AZURE_FEDERATED_TOKEN_FILE are not set, and this machine has no managed identity"
                            .to_owned(),
                    )),
                }
            }
        }
    }

    async fn of_application(
        &self,
        application: &Application,
        scope: &str,
        proof: &[(&str, &str)],
    ) -> Result<Granted, Fault> {
        let Application { authority, tenant, client } = application;
        let mut url = authority.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend([tenant, "oauth2", "v2.0", "token"]);
        }
        let mut fields = vec![("grant_type", "client_credentials"), ("client_id", client), ("scope", scope)];
        fields.extend_from_slice(proof);
        let request = Request::post_form(url, &fields).repeatable();
        let answer = self.http.send(LOGIN, request, Limits::default()).await?;
        if answer.is_success() { Ok(answer.json()?) } else { Err(login_refusal(&answer)) }
    }
}

fn login_refusal(answer: &Answer) -> Fault {
    let LoginError { error, error_description } = serde_json::from_slice(&answer.body).unwrap_or_default();
    answer.refused(&one_line(&format!("{error} {error_description}"))).into()
}

#[async_trait]
impl Backend for Vault {
    async fn sign(&self, _message: &[u8], digest: &[u8], _hashing: Hashing) -> Result<Vec<u8>, Fault> {
        let body = json!({ "alg": self.algorithm, "value": URL_SAFE_NO_PAD.encode(digest) });
        let request = Request::post_json(self.url("/sign")?, &body).repeatable();
        let SignAnswer { value } = self.call(request).await?;
        let raw = URL_SAFE_NO_PAD.decode(value.trim_end_matches('='));
        let raw = raw.map_err(|_| Fault::Answer("its signature is not base64"))?;
        match self.algorithm {
            "RS256" => Ok(raw),
            _ => der::signature(&raw).ok_or(Fault::Answer("its signature is no pair of numbers")),
        }
    }

    fn hint(&self, fault: &Fault) -> Option<String> {
        let Fault::Http(HttpError::Refused { place, status, .. }) = fault else { return None };
        let hint = match *status {
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND if place.service == MANAGED => {
                "give this machine or app an identity, or name one that it has with AZURE_CLIENT_ID"
            }
            StatusCode::FORBIDDEN => {
                "the caller needs the key permissions `get` and `sign` (with RBAC: the role `Key Vault Crypto User`)"
            }
            StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST if place.service == LOGIN => {
                "check AZURE_TENANT_ID, AZURE_CLIENT_ID and the secret or token file"
            }
            StatusCode::NOT_FOUND => "check the vault's host, the key's name and its version",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// Returns where applications of a cloud log in, by the name that `AZURE_ENVIRONMENT` has for it.
pub fn authority_of(environment: &str) -> &'static str {
    match environment.to_ascii_uppercase().as_str() {
        "AZUREUSGOVERNMENT" | "AZUREUSGOVERNMENTCLOUD" => "https://login.microsoftonline.us/",
        "AZURECHINACLOUD" => "https://login.chinacloudapi.cn/",
        _ => "https://login.microsoftonline.com/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar() {
        let key = Key::parse("name.vault.azure.net/app-1").unwrap();
        assert_eq!(
            (key.host.as_str(), key.name.as_str(), &key.version),
            ("name.vault.azure.net", "app-1", &None)
        );
        assert_eq!(Key::parse("name.vault.azure.net/app-1/"), Some(key));
        let key = Key::parse("127.0.0.1:8443/app/0a1b").unwrap();
        assert_eq!(key.to_string(), "azurekms://127.0.0.1:8443/app/0a1b");
        for rest in
            ["", "host", "host/", "/key", "host/key/V", "host/a_b", "host/k/1/2", "u@host/k", "h?x/k", "-/k"]
        {
            assert_eq!(Key::parse(rest), None, "{rest}");
        }
    }

    #[test]
    fn each_cloud_has_its_resource() {
        let resource = |host: &str| Key::parse(&format!("{host}/key")).unwrap().resource();
        assert_eq!(resource("a.vault.azure.net"), "https://vault.azure.net");
        assert_eq!(resource("a.vault.usgovcloudapi.net"), "https://vault.usgovcloudapi.net");
        assert_eq!(resource("a.managedhsm.azure.net"), "https://managedhsm.azure.net");
        assert_eq!(authority_of("AzureChinaCloud"), "https://login.chinacloudapi.cn/");
        assert_eq!(authority_of(""), "https://login.microsoftonline.com/");
    }
}
