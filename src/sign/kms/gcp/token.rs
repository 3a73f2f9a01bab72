//! Application Default Credentials: a service account's key, a person's login, another cloud's identity, the
//! machine's metadata server.

use super::{Fault, one_line};
use crate::sign::http::{Answer, Http, Limits, Request};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use url::Url;

pub(super) const SCOPE: &str = "https://www.googleapis.com/auth/cloudkms";
/// Impersonation and other clouds' identities are granted by the wider scope only.
pub(in crate::sign) const PLATFORM_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
const SERVICE: &str = "Google's token service";
const METADATA: Duration = Duration::from_secs(3);
const MARGIN: Duration = Duration::from_secs(60);

/// Who we are to Google.
#[derive(Debug)]
pub enum Credentials {
    /// A JSON file of credentials: its text and where it came from.
    File(SecretString, String),
    /// The metadata server at this `host[:port]`.
    Metadata(String),
}

impl Credentials {
    /// Returns the project that a person's login names for what its calls cost.
    pub(super) fn quota_project(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Quota {
            quota_project_id: Option<String>,
        }
        let Self::File(text, _) = self else { return None };
        serde_json::from_str::<Quota>(text.expose_secret()).ok()?.quota_project_id
    }
}

/// Gets access tokens and keeps them as long as they are good.
pub(in crate::sign) struct Tokens {
    credentials: Credentials,
    scope: &'static str,
    http: Http,
    kept: Mutex<Option<(SecretString, Instant)>>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Identity {
    ServiceAccount {
        client_email: String,
        private_key: SecretString,
        #[serde(default)]
        private_key_id: String,
        token_uri: Option<Address>,
    },
    AuthorizedUser {
        client_id: String,
        client_secret: SecretString,
        refresh_token: SecretString,
        token_uri: Option<Address>,
    },
    ExternalAccount(Box<ExternalAccount>),
    ImpersonatedServiceAccount {
        source_credentials: Box<Identity>,
        service_account_impersonation_url: Address,
    },
}

/// An address in a credentials file.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
struct Address(Url);

impl TryFrom<String> for Address {
    type Error = url::ParseError;

    fn try_from(text: String) -> Result<Self, url::ParseError> {
        text.parse().map(Self)
    }
}

#[derive(Deserialize)]
struct ExternalAccount {
    audience: String,
    subject_token_type: String,
    token_url: Address,
    credential_source: Source,
    service_account_impersonation_url: Option<Address>,
}

#[derive(Deserialize)]
struct Source {
    /// Of AWS, whose own source has a URL, too.
    environment_id: Option<String>,
    file: Option<PathBuf>,
    url: Option<Address>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    format: Option<Format>,
}

#[derive(Deserialize)]
struct Format {
    #[serde(rename = "type")]
    kind: String,
    subject_token_field_name: Option<String>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: SecretString,
    #[serde(default)]
    expires_in: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Impersonated {
    access_token: SecretString,
}

#[derive(Default, Deserialize)]
struct Refused {
    #[serde(default)]
    error: Value,
    #[serde(default)]
    error_description: String,
}

impl Tokens {
    pub(in crate::sign) fn new(credentials: Credentials, scope: &'static str, http: Http) -> Self {
        Self { credentials, scope, http, kept: Mutex::default() }
    }

    pub(in crate::sign) async fn authorise(&self, request: Request) -> Result<Request, Fault> {
        let mut kept = self.kept.lock().await;
        let fresh = kept.as_ref().filter(|(_, until)| *until > Instant::now());
        if let Some((token, _)) = fresh {
            return Ok(request.bearer(token.expose_secret()));
        }
        let Granted { access_token, expires_in } = self.get().await?;
        let lasts = Duration::from_secs(expires_in).saturating_sub(MARGIN);
        let request = request.bearer(access_token.expose_secret());
        *kept = Some((access_token, Instant::now() + lasts));
        Ok(request)
    }

    async fn get(&self) -> Result<Granted, Fault> {
        match &self.credentials {
            Credentials::Metadata(host) => self.of_machine(host).await,
            Credentials::File(text, source) => {
                let identity: Identity = serde_json::from_str(text.expose_secret()).map_err(|_| {
                    Fault::Credentials(format!(
                        "{source} is no service account key, user login or workload identity configuration"
                    ))
                })?;
                self.of(&identity, self.scope).await
            }
        }
    }

    async fn of(&self, identity: &Identity, scope: &str) -> Result<Granted, Fault> {
        match identity {
            Identity::ServiceAccount { client_email, private_key, private_key_id, token_uri } => {
                let Address(url) = token_uri.clone().unwrap_or_else(default_uri);
                let assertion = assertion(client_email, private_key, private_key_id, (&url, scope))?;
                let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
                self.exchange(url, &[("grant_type", grant), ("assertion", &assertion)]).await
            }
            Identity::AuthorizedUser { client_id, client_secret, refresh_token, token_uri } => {
                let fields = [
                    ("grant_type", "refresh_token"),
                    ("client_id", client_id),
                    ("client_secret", client_secret.expose_secret()),
                    ("refresh_token", refresh_token.expose_secret()),
                ];
                self.exchange(token_uri.clone().unwrap_or_else(default_uri).0, &fields).await
            }
            Identity::ExternalAccount(account) => self.of_workload(account).await,
            Identity::ImpersonatedServiceAccount {
                source_credentials,
                service_account_impersonation_url,
            } => {
                let granted = Box::pin(self.of(source_credentials, PLATFORM_SCOPE)).await?;
                self.impersonate(&service_account_impersonation_url.0, &granted).await
            }
        }
    }

    /// Exchanges another cloud's or a cluster's token, and takes on a service account where one is named.
    async fn of_workload(&self, account: &ExternalAccount) -> Result<Granted, Fault> {
        let subject = self.subject(&account.credential_source).await?;
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("audience", &account.audience),
            ("scope", PLATFORM_SCOPE),
            ("subject_token_type", &account.subject_token_type),
            ("subject_token", subject.expose_secret().trim()),
        ];
        let granted = self.exchange(account.token_url.0.clone(), &fields).await?;
        match &account.service_account_impersonation_url {
            Some(url) => self.impersonate(&url.0, &granted).await,
            None => Ok(granted),
        }
    }

    /// Reads the token of the other cloud or cluster; anew each time, because they rotate.
    async fn subject(&self, source: &Source) -> Result<SecretString, Fault> {
        let text = match (&source.file, source.url.as_ref().filter(|_| source.environment_id.is_none())) {
            (Some(file), _) => tokio::fs::read_to_string(file)
                .await
                .map_err(|error| Fault::File { path: file.clone(), source: error })?,
            (None, Some(url)) => {
                let mut request = Request::get(url.0.clone()).direct();
                for (name, value) in &source.headers {
                    if let Ok(name) = HeaderName::try_from(name.as_str()) {
                        request = request.secret_header(name, value);
                    }
                }
                let answer = self.http.send("the identity's own token service", request, Limits::default());
                let answer = answer.await?;
                if !answer.is_success() {
                    return Err(answer.refused("").into());
                }
                String::from_utf8_lossy(&answer.body).into_owned()
            }
            (None, None) => {
                return Err(Fault::Credentials(
                    "a workload identity of this kind (AWS or an executable) is not supported: use one with a file or URL"
                        .to_owned(),
                ));
            }
        };
        let Some(Format { kind, subject_token_field_name: Some(field) }) = &source.format else {
            return Ok(text.into());
        };
        if kind != "json" {
            return Ok(text.into());
        }
        let token = serde_json::from_str::<Value>(&text).ok();
        let token = token.as_ref().and_then(|json| json.get(field)).and_then(Value::as_str);
        token.map(SecretString::from).ok_or_else(|| {
            Fault::Credentials(format!("the workload identity's token has no field `{field}`"))
        })
    }

    async fn exchange(&self, url: Url, fields: &[(&str, &str)]) -> Result<Granted, Fault> {
        let request = Request::post_form(url, fields).repeatable();
        let answer = self.http.send(SERVICE, request, Limits::default()).await?;
        if answer.is_success() { Ok(answer.json()?) } else { Err(refusal(&answer)) }
    }

    async fn impersonate(&self, url: &Url, with: &Granted) -> Result<Granted, Fault> {
        let request = Request::post_json(url.clone(), &json!({ "scope": [PLATFORM_SCOPE] }))
            .bearer(with.access_token.expose_secret())
            .repeatable();
        let answer = self.http.send(SERVICE, request, Limits::default()).await?;
        if !answer.is_success() {
            return Err(refusal(&answer));
        }
        let Impersonated { access_token } = answer.json()?;
        // An hour, unless asked otherwise; well within it, a new one is asked for.
        Ok(Granted { access_token, expires_in: 1800 })
    }

    async fn of_machine(&self, host: &str) -> Result<Granted, Fault> {
        let none = || {
            Fault::Credentials(
                "no Google credentials: GOOGLE_APPLICATION_CREDENTIALS is not set, there is no `gcloud auth \
                 application-default login`, and this machine has no service account"
                    .to_owned(),
            )
        };
        let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
        let google = HeaderValue::from_static("Google");
        let request = Request::get(url.parse().map_err(|_| none())?)
            .header(HeaderName::from_static("metadata-flavor"), google)
            .direct();
        let answer = self.http.send("the metadata server", request, Limits::within(METADATA)).await;
        match answer {
            Ok(answer) if answer.is_success() => Ok(answer.json()?),
            Ok(answer) if answer.status != http::StatusCode::NOT_FOUND => Err(answer.refused("").into()),
            _ => Err(none()),
        }
    }
}

fn default_uri() -> Address {
    Address(TOKEN_URI.parse().expect("a URL"))
}

fn refusal(answer: &Answer) -> Fault {
    let Refused { error, error_description } = serde_json::from_slice(&answer.body).unwrap_or_default();
    // OAuth has a code here, Google's own APIs an object.
    let code = error.as_str().or_else(|| error.get("message").and_then(Value::as_str)).unwrap_or_default();
    answer.refused(&one_line(&format!("{code} {error_description}"))).into()
}

/// Returns the signed claim that a service account's key makes (RFC 7523).
fn assertion(
    email: &str,
    key: &SecretString,
    key_id: &str,
    (audience, scope): (&Url, &str),
) -> Result<String, Fault> {
    let bad = || Fault::Credentials("the private key of the service account cannot be read".to_owned());
    let block = pem::parse(key.expose_secret()).map_err(|_| bad())?;
    let pair = KeyPair::from_pkcs8(block.contents()).map_err(|_| bad())?;
    let now = jiff::Timestamp::now().as_second();
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": key_id });
    let claims = json!({
        "iss": email, "scope": scope, "aud": audience.as_str(), "iat": now, "exp": now + 3600,
    });
    let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let text = format!("{}.{}", encode(&header), encode(&claims));
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).map_err(|_| bad())?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
