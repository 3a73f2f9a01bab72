//! AWS KMS: `GetPublicKey`, `Sign` and what makes a key, signed with Signature Version 4.

pub mod credentials;
mod profile;
mod sigv4;

pub use credentials::{Container, Sources, StaticKeys, WebIdentity};

use super::{Backend, Fault, Hashing, Opened, one_line};
use crate::sign::http::{Answer, Http, HttpError, HttpOptions, Limits, Request};
use crate::sign::key::{KeyKind, PublicKey};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use credentials::{ASSUMING, Chain};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;
use url::Url;

/// The name of the service in messages.
pub const SERVICE: &str = "AWS KMS";
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
/// KMS says "slow down" with a status of 400, which the HTTP client does not know.
const THROTTLED: [&str; 2] = ["ThrottlingException", "LimitExceededException"];
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(1)];

/// `awskms://[HOST[:PORT]]/ID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Where KMS is, if not at AWS's own address; always over TLS.
    pub host: Option<String>,
    /// A key's UUID, `alias/NAME`, or the ARN of either.
    pub id: String,
}

impl Key {
    /// Reads what stands behind `awskms://`; none if it names no key.
    pub fn parse(rest: &str) -> Option<Self> {
        let (host, id) = rest.split_once('/')?;
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "-.:[]".contains(letter);
        let names_key = |id: &str| is_uuid(id) || is_alias(id);
        let names = match id.strip_prefix("arn:") {
            None => names_key(id),
            Some(arn) => match arn.splitn(5, ':').collect::<Vec<_>>()[..] {
                [partition, "kms", region, account, resource] => {
                    partition.starts_with("aws")
                        && !region.is_empty()
                        && region.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-')
                        && account.len() == 12
                        && account.chars().all(|digit| digit.is_ascii_digit())
                        && (resource.strip_prefix("key/").is_some_and(is_uuid) || is_alias(resource))
                }
                _ => false,
            },
        };
        let host_fits = host.chars().all(plain) && (host.is_empty() || endpoint(host).is_some());
        (names && host_fits)
            .then(|| Self { host: (!host.is_empty()).then(|| host.to_owned()), id: id.to_owned() })
    }

    /// Returns the region that an ARN names.
    fn region(&self) -> Option<&str> {
        self.id.strip_prefix("arn:")?.split(':').nth(2)
    }
}

fn endpoint(host: &str) -> Option<Url> {
    format!("https://{host}/").parse().ok()
}

/// A UUID, whose dashes cosign does without, and which `mrk-` may precede.
fn is_uuid(id: &str) -> bool {
    let digits: Vec<char> =
        id.strip_prefix("mrk-").unwrap_or(id).chars().filter(|letter| *letter != '-').collect();
    digits.len() == 32 && digits.iter().all(char::is_ascii_hexdigit)
}

fn is_alias(id: &str) -> bool {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "/_-".contains(letter);
    id.strip_prefix("alias/").is_some_and(|name| !name.is_empty() && name.chars().all(fits))
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "awskms://{}/{}", self.host.as_deref().unwrap_or_default(), self.id)
    }
}

/// A key and how KMS is reached.
#[derive(Debug)]
pub struct Settings {
    /// The key.
    pub key: Key,
    /// `AWS_REGION`; an ARN's own region comes first.
    pub region: Option<String>,
    /// `AWS_ENDPOINT_URL_KMS`, for references without a host.
    pub endpoint: Option<Url>,
    /// Where credentials may come from.
    pub sources: Sources,
    /// Trust and proxies.
    pub http: HttpOptions,
}

struct Kms {
    http: Http,
    chain: Chain,
    url: Url,
    region: String,
    /// The ARN that the first answer names: an alias may move.
    id: String,
    algorithm: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PublicKeyAnswer {
    key_id: String,
    public_key: String,
    #[serde(default)]
    key_usage: String,
    #[serde(default)]
    key_spec: String,
    signing_algorithms: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SignAnswer {
    signature: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateAnswer {
    key_metadata: KeyMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeyMetadata {
    key_id: String,
}

#[derive(Default, Deserialize)]
struct ErrorAnswer {
    #[serde(default, rename = "__type")]
    kind: String,
    /// Some of AWS's services spell it large, some small.
    #[serde(default)]
    message: String,
    #[serde(default, rename = "Message")]
    large_message: String,
}

pub(super) async fn open(settings: Settings) -> Result<Opened, (Fault, Option<String>)> {
    let mut kms = Kms::new(settings)?;
    match kms.public_key().await {
        Ok((public, hashing)) => Ok(Opened { backend: Box::new(kms), public, hashing }),
        Err(fault) => {
            let hint = kms.hint(&fault);
            Err((fault, hint))
        }
    }
}

pub(super) async fn create(settings: Settings) -> Result<PublicKey, (Fault, Option<String>)> {
    if !is_alias(&settings.key.id) {
        let fault = "KMS names a new key itself, and only an alias can be chosen".to_owned();
        return Err((Fault::Unusable(fault), Some("write `awskms:///alias/NAME`".to_owned())));
    }
    let mut kms = Kms::new(settings)?;
    match kms.create().await {
        Ok(public) => Ok(public),
        Err(fault) => {
            let hint = match &fault {
                Fault::Unnamed { id, .. } => Some(format!(
                    "the caller needs kms:CreateAlias on the key and on {alias}; then name it with `aws kms create-alias \
                     --target-key-id {id} --alias-name {alias}`, or delete it with `aws kms schedule-key-deletion --key-id {id}`",
                    alias = kms.id
                )),
                Fault::Http(HttpError::Refused { said, .. }) if said.contains("AccessDenied") => Some(
                    "the caller needs the permissions kms:GetPublicKey, kms:CreateKey and kms:CreateAlias"
                        .to_owned(),
                ),
                _ => kms.hint(&fault),
            };
            Err((fault, hint))
        }
    }
}

/// The region in the name of one of AWS's own endpoints.
fn region_of_host(host: &str) -> Option<String> {
    let labels: Vec<&str> = host.split(':').next()?.split('.').collect();
    let at = labels.iter().position(|label| *label == "amazonaws")?;
    let region = labels.get(at.checked_sub(1)?)?;
    region.contains('-').then(|| (*region).to_owned())
}

impl Kms {
    fn new(settings: Settings) -> Result<Self, (Fault, Option<String>)> {
        let plain = |fault: Fault| (fault, None);
        let http = Http::new(&settings.http).map_err(|error| plain(error.into()))?;
        let profile_region = settings.sources.profile_region();
        let from_host = settings.key.host.as_deref().and_then(region_of_host);
        let region =
            settings.key.region().map(str::to_owned).or(settings.region).or(profile_region).or(from_host);
        let region = region.filter(|region| !region.is_empty()).ok_or_else(|| {
            let fault = "no region is known for the key".to_owned();
            (Fault::Credentials(fault), Some("set AWS_REGION, or name the key by its ARN".to_owned()))
        })?;
        let domain = credentials::domain_of(&region);
        let url = match (&settings.key.host, settings.endpoint) {
            (Some(host), _) => endpoint(host),
            (None, Some(url)) => Some(url),
            (None, None) => endpoint(&format!("kms.{region}.{domain}")),
        };
        let url = url.ok_or_else(|| plain(Fault::Credentials(format!("`{region}` is no region"))))?;
        let chain = Chain::new(settings.sources, http.clone(), region.clone());
        Ok(Self { http, chain, url, region, id: settings.key.id, algorithm: "" })
    }

    /// Makes a key under the alias that was asked for.
    async fn create(&mut self) -> Result<PublicKey, Fault> {
        let says = |fault: &Fault, word: &str| matches!(fault, Fault::Http(HttpError::Refused { said, .. }) if said.contains(word));
        match self.ask("GetPublicKey", json!({ "KeyId": self.id })).await {
            Err(fault) if says(&fault, "NotFoundException") => {}
            // Keys that have no public half are keys.
            Err(fault) if !says(&fault, "UnsupportedOperationException") => return Err(fault),
            _ => return Err(Fault::Exists),
        }
        let alias = self.id.clone();
        let body = json!({
            "KeyUsage": "SIGN_VERIFY",
            "KeySpec": "ECC_NIST_P256",
            "Description": format!("signs container images, as {alias}"),
        });
        let made: CreateAnswer = self.ask("CreateKey", body).await?.json()?;
        let id = made.key_metadata.key_id;
        let named = self.ask("CreateAlias", json!({ "AliasName": alias, "TargetKeyId": id })).await;
        named.map_err(|fault| Fault::Unnamed { id: id.clone(), source: Box::new(fault) })?;
        // A new key is known everywhere in a moment ("AWS KMS eventual consistency").
        self.id = id;
        let mut pauses = [1, 2, 4].into_iter();
        loop {
            match self.public_key().await {
                Err(fault) if says(&fault, "NotFoundException") => match pauses.next() {
                    Some(pause) => tokio::time::sleep(Duration::from_secs(pause)).await,
                    None => return Err(fault),
                },
                public => return public.map(|(public, _)| public),
            }
        }
    }

    async fn public_key(&mut self) -> Result<(PublicKey, Hashing), Fault> {
        let answer: PublicKeyAnswer = self.call("GetPublicKey", json!({ "KeyId": self.id })).await?;
        let der = STANDARD.decode(&answer.public_key);
        let der = der.map_err(|_| Fault::Answer("its public key is not base64"))?;
        if !answer.key_usage.is_empty() && answer.key_usage != "SIGN_VERIFY" {
            return Err(Fault::Unusable(format!(
                "its usage is {}, not SIGN_VERIFY",
                one_line(&answer.key_usage)
            )));
        }
        let unusable = || {
            let spec = match answer.key_spec.as_str() {
                "" => "of this spec".to_owned(),
                spec => format!("of spec {}", one_line(spec)),
            };
            Fault::Unusable(format!("a key {spec} signs nothing that cosign verifies; ECC_NIST_P256 does"))
        };
        let public = PublicKey::from_spki(&der).map_err(|_| unusable())?;
        let algorithm = match public.kind() {
            KeyKind::EcdsaP256 => "ECDSA_SHA_256",
            KeyKind::EcdsaP384 => "ECDSA_SHA_384",
            KeyKind::EcdsaP521 => "ECDSA_SHA_512",
            KeyKind::Rsa { .. } => "RSASSA_PKCS1_V1_5_SHA_256",
            // KMS takes 4096 bytes of a message, which statements exceed.
            KeyKind::Ed25519 => return Err(unusable()),
        };
        let known = answer.signing_algorithms.as_ref();
        if known.is_some_and(|known| !known.is_empty() && !known.iter().any(|known| known == algorithm)) {
            return Err(unusable());
        }
        self.algorithm = algorithm;
        self.id = answer.key_id;
        let hashing = Hashing::of_curve(public.kind());
        Ok((public, hashing))
    }

    async fn call<T: DeserializeOwned>(&self, operation: &str, body: Value) -> Result<T, Fault> {
        Ok(self.ask(operation, body).await?.json()?)
    }

    async fn ask(&self, operation: &str, body: Value) -> Result<Answer, Fault> {
        let body = body.to_string();
        let mut pauses = PAUSES.into_iter();
        loop {
            let answer = self.send(operation, &body).await?;
            if answer.is_success() {
                return Ok(answer);
            }
            let error: ErrorAnswer = serde_json::from_slice(&answer.body).unwrap_or_default();
            let kind = error.kind.rsplit('#').next().unwrap_or_default();
            if THROTTLED.contains(&kind)
                && let Some(pause) = pauses.next()
            {
                tokio::time::sleep(pause).await;
                continue;
            }
            let words = one_line(&format!("{}{}", error.message, error.large_message));
            let said = [operation, kind, &words];
            let said: Vec<_> = said.into_iter().filter(|part| !part.is_empty()).collect();
            let said = said.join(": ");
            return Err(answer.refused(&said).into());
        }
    }

    async fn send(&self, operation: &str, body: &str) -> Result<Answer, Fault> {
        let keys = self.chain.keys().await?;
        let mut headers = vec![
            (http::header::CONTENT_TYPE, "application/x-amz-json-1.1".to_owned()),
            (TARGET, format!("TrentService.{operation}")),
        ];
        let to_sign = sigv4::ToSign { method: "POST", url: &self.url, body: body.as_bytes() };
        let scope = sigv4::Scope { region: &self.region, service: "kms", time: jiff::Timestamp::now() };
        sigv4::sign(&to_sign, &mut headers, &keys, &scope);
        let mut request = Request::new(Method::POST, self.url.clone()).body(body.to_owned());
        // A key that is made twice costs twice.
        if operation != "CreateKey" {
            request = request.repeatable();
        }
        for (name, value) in headers {
            request = request.secret_header(name, &value);
        }
        let accept = HeaderValue::from_static("application/json");
        let request = request.header(http::header::ACCEPT, accept);
        Ok(self.http.send(SERVICE, request, Limits::default()).await?)
    }
}

#[async_trait]
impl Backend for Kms {
    async fn sign(&self, _message: &[u8], digest: &[u8], _hashing: Hashing) -> Result<Vec<u8>, Fault> {
        let body = json!({
            "KeyId": self.id,
            "Message": STANDARD.encode(digest),
            "MessageType": "DIGEST",
            "SigningAlgorithm": self.algorithm,
        });
        let answer: SignAnswer = self.call("Sign", body).await?;
        STANDARD.decode(answer.signature).map_err(|_| Fault::Answer("its signature is not base64"))
    }

    fn hint(&self, fault: &Fault) -> Option<String> {
        let (status, said) = match fault {
            Fault::Http(HttpError::Refused { status, said, .. }) => (*status, said.as_str()),
            Fault::Http(HttpError::Unreachable { .. }) => {
                return Some(format!("the region is {}: is it the key's?", self.region));
            }
            _ => return None,
        };
        let has = |word: &str| said.contains(word);
        let hint = match status {
            _ if said.starts_with(ASSUMING) && has("AccessDenied") => {
                "the role's trust policy must name the caller (with a pod's token: its issuer, audience and subject)"
            }
            _ if has("AccessDenied") || has("not authorized") => {
                "the caller needs the permissions kms:GetPublicKey and kms:Sign on this key"
            }
            _ if has("NotFoundException") => {
                return Some(format!(
                    "no such key in region {}: check AWS_REGION and the account",
                    self.region
                ));
            }
            _ if has("ExpiredToken") => "the credentials have expired: log in again",
            _ if has("UnrecognizedClient") || has("InvalidClientTokenId") || has("InvalidSignature") => {
                "the credentials are not valid for AWS (or this machine's clock is wrong)"
            }
            _ if has("DisabledException") || has("InvalidState") => "enable the key in KMS",
            StatusCode::TOO_MANY_REQUESTS => "KMS asks to slow down: try again later",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar() {
        const UUID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
        let arn = format!("arn:aws:kms:us-east-2:111122223333:key/{UUID}");
        for id in [
            UUID,
            "mrk-1234abcd12ab34cd56ef1234567890ab",
            &arn,
            "alias/ExampleAlias",
            "alias/team/app_1",
            "arn:aws-cn:kms:cn-north-1:111122223333:alias/ExampleAlias",
        ] {
            let key = Key::parse(&format!("/{id}")).unwrap();
            assert_eq!((key.host.as_deref(), key.id.as_str()), (None, id));
            assert_eq!(key.to_string(), format!("awskms:///{id}"));
            let key = Key::parse(&format!("localhost:4566/{id}")).unwrap();
            assert_eq!(key.host.as_deref(), Some("localhost:4566"));
        }
        assert_eq!(Key::parse(&format!("/{arn}")).unwrap().region(), Some("us-east-2"));
        for rest in [
            "",
            "/",
            UUID,
            "/alias/",
            "/key",
            "/alias/a b",
            "/arn:aws:kms:us-east-2:1111:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "/arn:aws:s3:us-east-2:111122223333:alias/x",
            "user@host/alias/x",
            "host?x/alias/x",
        ] {
            assert_eq!(Key::parse(rest), None, "{rest}");
        }
    }

    #[test]
    fn regions_of_endpoints() {
        assert_eq!(region_of_host("kms.eu-west-1.amazonaws.com"), Some("eu-west-1".to_owned()));
        assert_eq!(region_of_host("vpce-1.kms.us-east-1.vpce.amazonaws.com"), None);
        assert_eq!(region_of_host("127.0.0.1:5000"), None);
    }
}
