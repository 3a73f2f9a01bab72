//! Google Cloud KMS over its REST API, with the CRC32C checks that its documentation asks for.

mod token;

pub use token::Credentials;
pub(in crate::sign) use token::{PLATFORM_SCOPE, Tokens};

use super::{Backend, Fault, Hashing, Opened, one_line};
use crate::sign::http::{Answer, Http, HttpError, HttpOptions, Limits, Request};
use crate::sign::key::{KeyKind, PublicKey};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt;
use std::time::Duration;
use token::SCOPE;
use url::Url;

/// The name of the service in messages.
pub const SERVICE: &str = "Google Cloud KMS";
/// The pauses in which a new key's first version is waited for, in seconds.
const GENERATION: [u64; 5] = [1, 1, 2, 4, 8];
/// Where its API is.
pub const ENDPOINT: &str = "https://cloudkms.googleapis.com/";

/// `gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K[/cryptoKeyVersions/V]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The resource name of the key, without a version.
    pub name: String,
    /// The version; the first enabled one where it isn't named.
    pub version: Option<String>,
}

impl Key {
    /// Reads what stands behind `gcpkms://`; none if it names no key. `versions` is another way to write
    /// `cryptoKeyVersions`.
    pub fn parse(rest: &str) -> Option<Self> {
        let parts: Vec<&str> = rest.split('/').collect();
        let fits = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.:".contains(letter))
        };
        let (key, version) = match parts[..] {
            [ref key @ .., "cryptoKeyVersions" | "versions", version] if key.len() == 8 => {
                (key, Some(version))
            }
            ref key => (key, None),
        };
        match key {
            ["projects", project, "locations", location, "keyRings", ring, "cryptoKeys", name]
                if [project, location, ring, name].into_iter().all(|part| fits(part))
                    && version.is_none_or(fits) =>
            {
                Some(Self { name: key.join("/"), version: version.map(str::to_owned) })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "gcpkms://{}", self.name)?;
        match &self.version {
            Some(version) => write!(formatter, "/cryptoKeyVersions/{version}"),
            None => Ok(()),
        }
    }
}

/// A key and how KMS is reached.
#[derive(Debug)]
pub struct Settings {
    /// The key.
    pub key: Key,
    /// [`ENDPOINT`], or another.
    pub endpoint: Url,
    /// Who we are.
    pub credentials: Credentials,
    /// `GOOGLE_CLOUD_QUOTA_PROJECT`: the project whose quota calls count against, instead of the credentials' own.
    pub quota_project: Option<String>,
    /// Trust and proxies.
    pub http: HttpOptions,
}

struct Kms {
    http: Http,
    tokens: Tokens,
    endpoint: Url,
    quota_project: Option<String>,
    /// The resource name of the version.
    version: String,
    hashing: Hashing,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    #[serde(default)]
    crypto_key_versions: Vec<Version>,
}

#[derive(Deserialize)]
struct Version {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PublicKeyAnswer {
    pem: String,
    #[serde(default)]
    algorithm: String,
    pem_crc32c: Option<Number>,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SignAnswer {
    signature: String,
    signature_crc32c: Option<Number>,
    #[serde(default)]
    verified_digest_crc32c: bool,
    name: Option<String>,
}

/// protojson writes 64-bit numbers as strings; readers take both.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Text(String),
    Plain(i64),
}

impl Number {
    fn is(&self, value: u32) -> bool {
        match self {
            Self::Text(text) => text.parse() == Ok(i64::from(value)),
            Self::Plain(number) => *number == i64::from(value),
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
    message: String,
    #[serde(default)]
    status: String,
}

pub(super) async fn open(settings: Settings) -> Result<Opened, (Fault, Option<String>)> {
    let key = settings.key.clone();
    let mut kms = Kms::new(settings).map_err(|fault| (fault, None))?;
    match kms.public_key(&key).await {
        Ok(public) => Ok(Opened { hashing: kms.hashing, backend: Box::new(kms), public }),
        Err(fault) => {
            let hint = kms.hint(&fault);
            Err((fault, hint))
        }
    }
}

pub(super) async fn create(settings: Settings) -> Result<PublicKey, (Fault, Option<String>)> {
    if settings.key.version.is_some() {
        let fault = "a new key makes its first version itself".to_owned();
        return Err((Fault::Unusable(fault), Some("leave the version out of the reference".to_owned())));
    }
    let key = settings.key.clone();
    let mut kms = Kms::new(settings).map_err(|fault| (fault, None))?;
    match kms.create(&key).await {
        Ok(public) => Ok(public),
        Err(fault) => {
            let hint = match fault.status() {
                Some(StatusCode::FORBIDDEN) => Some(
                    "the caller needs cloudkms.cryptoKeys.get and .create, cloudkms.cryptoKeyVersions.list and \
                     .viewPublicKey and, where the key ring is new, cloudkms.keyRings.get and .create: the roles \
                     roles/cloudkms.admin and roles/cloudkms.publicKeyViewer"
                        .to_owned(),
                ),
                _ => kms.hint(&fault),
            };
            Err((fault, hint))
        }
    }
}

impl Kms {
    fn new(settings: Settings) -> Result<Self, Fault> {
        let Settings { credentials, endpoint, quota_project, http, .. } = settings;
        let http = Http::new(&http)?;
        let quota_project = quota_project.or_else(|| credentials.quota_project());
        let tokens = Tokens::new(credentials, SCOPE, http.clone());
        Ok(Self { http, tokens, endpoint, quota_project, version: String::new(), hashing: Hashing::Sha256 })
    }

    /// Makes a key and, where there is none of that name, its key ring, as cosign does.
    async fn create(&mut self, key: &Key) -> Result<PublicKey, Fault> {
        let parts: Vec<&str> = key.name.split('/').collect();
        let [location, ring, name] = [parts[..4].join("/"), parts[..6].join("/"), parts[7].to_owned()];
        if self.find(&key.name).await? {
            return Err(Fault::Exists);
        }
        if !self.find(&ring).await? {
            self.make(&format!("{location}/keyRings"), ("keyRingId", parts[5]), &json!({})).await?;
        }
        let body = json!({
            "purpose": "ASYMMETRIC_SIGN",
            "versionTemplate": { "algorithm": "EC_SIGN_P256_SHA256" },
        });
        match self.make(&format!("{ring}/cryptoKeys"), ("cryptoKeyId", &name), &body).await {
            Err(fault) if fault.status() == Some(StatusCode::CONFLICT) => return Err(Fault::Exists),
            made => made?,
        }
        // Its first version is enabled once the service has generated it.
        let mut pauses = GENERATION.into_iter();
        loop {
            match (self.public_key(key).await, pauses.next()) {
                (Err(Fault::Unusable(_)), Some(pause)) => {
                    tokio::time::sleep(Duration::from_secs(pause)).await;
                }
                (public, _) => return public,
            }
        }
    }

    async fn find(&self, name: &str) -> Result<bool, Fault> {
        match self.call::<serde_json::Value>(Request::get(self.url(name)?)).await {
            Ok(_) => Ok(true),
            Err(fault) if fault.status() == Some(StatusCode::NOT_FOUND) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    async fn make(&self, at: &str, (id, name): (&str, &str), body: &serde_json::Value) -> Result<(), Fault> {
        let mut url = self.url(at)?;
        url.query_pairs_mut().append_pair(id, name);
        self.call::<serde_json::Value>(Request::post_json(url, body)).await.map(drop)
    }

    async fn public_key(&mut self, key: &Key) -> Result<PublicKey, Fault> {
        self.version = match &key.version {
            Some(version) => format!("{}/cryptoKeyVersions/{version}", key.name),
            None => {
                let mut url = self.url(&format!("{}/cryptoKeyVersions", key.name))?;
                // As cosign asks, so that both sign with the same version.
                url.query_pairs_mut()
                    .append_pair("filter", "state=ENABLED")
                    .append_pair("orderBy", "name desc");
                let versions: Versions = self.call(Request::get(url)).await?;
                let first = versions.crypto_key_versions.into_iter().next();
                let name = first.map(|version| version.name).filter(|name| is_version_of(name, &key.name));
                name.ok_or_else(|| Fault::Unusable("the key has no enabled version".to_owned()))?
            }
        };
        let answer: PublicKeyAnswer =
            self.call(Request::get(self.url(&format!("{}/publicKey", self.version))?)).await?;
        if answer.name.is_some_and(|name| name != self.version) {
            return Err(Fault::Answer("it answered with another key's public half"));
        }
        if answer.pem_crc32c.is_some_and(|sum| !sum.is(crc32c(answer.pem.as_bytes()))) {
            return Err(Fault::Answer("the checksum of the public key is wrong: it was damaged on its way"));
        }
        let unusable = || {
            Fault::Unusable(format!(
                "a key of algorithm {} signs nothing that cosign verifies; EC_SIGN_P256_SHA256 does",
                one_line(&answer.algorithm)
            ))
        };
        let public = PublicKey::from_pem(answer.pem.as_bytes()).map_err(|_| unusable())?;
        let algorithm = answer.algorithm.as_str();
        self.hashing = match (public.kind(), algorithm) {
            (_, pss) if pss.contains("_PSS_") => return Err(unusable()),
            (KeyKind::EcdsaP256, "EC_SIGN_P256_SHA256") => Hashing::Sha256,
            (KeyKind::EcdsaP384, "EC_SIGN_P384_SHA384") => Hashing::Sha384,
            (KeyKind::Rsa { .. }, rsa) if rsa.ends_with("_SHA256") => Hashing::Sha256,
            (KeyKind::Rsa { .. }, rsa) if rsa.ends_with("_SHA512") => Hashing::Sha512,
            _ => return Err(unusable()),
        };
        Ok(public)
    }

    fn url(&self, path: &str) -> Result<Url, Fault> {
        let url = self.endpoint.join(&format!("/v1/{path}"));
        url.map_err(|_| Fault::Answer("it names a key that no URL can name"))
    }

    async fn call<T: DeserializeOwned>(&self, request: Request) -> Result<T, Fault> {
        let mut request = self.tokens.authorise(request).await?;
        // Without it a person's calls count against gcloud's own project, where KMS is not enabled.
        if let Some(Ok(project)) = self.quota_project.as_deref().map(HeaderValue::from_str) {
            request = request.header(HeaderName::from_static("x-goog-user-project"), project);
        }
        let answer: Answer = self.http.send(SERVICE, request, Limits::default()).await?;
        if answer.is_success() {
            return Ok(answer.json()?);
        }
        let ErrorAnswer { error } = serde_json::from_slice(&answer.body).unwrap_or_default();
        Err(answer.refused(&one_line(&format!("{} {}", error.status, error.message))).into())
    }
}

fn is_version_of(name: &str, key: &str) -> bool {
    let version = name.strip_prefix(key).and_then(|rest| rest.strip_prefix("/cryptoKeyVersions/"));
    version.is_some_and(|version| !version.is_empty() && version.chars().all(|d| d.is_ascii_digit()))
}

#[async_trait]
impl Backend for Kms {
    async fn sign(&self, _message: &[u8], digest: &[u8], hashing: Hashing) -> Result<Vec<u8>, Fault> {
        let kind = match hashing {
            Hashing::Sha384 => "sha384",
            Hashing::Sha512 => "sha512",
            Hashing::Sha256 | Hashing::None => "sha256",
        };
        let body = json!({
            "digest": { kind: STANDARD.encode(digest) },
            "digestCrc32c": crc32c(digest).to_string(),
        });
        let url = self.url(&format!("{}:asymmetricSign", self.version))?;
        let answer: SignAnswer = self.call(Request::post_json(url, &body).repeatable()).await?;
        if !answer.verified_digest_crc32c {
            return Err(Fault::Answer(
                "it did not confirm the digest's checksum: the digest was damaged on its way",
            ));
        }
        if answer.name.is_some_and(|name| name != self.version) {
            return Err(Fault::Answer("it signed with another key"));
        }
        let signature = STANDARD.decode(answer.signature);
        let signature = signature.map_err(|_| Fault::Answer("its signature is not base64"))?;
        match answer.signature_crc32c {
            Some(sum) if sum.is(crc32c(&signature)) => Ok(signature),
            _ => Err(Fault::Answer("the checksum of the signature is wrong: it was damaged on its way")),
        }
    }

    fn hint(&self, fault: &Fault) -> Option<String> {
        const LOG_IN: &str =
            "log in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS";
        let Fault::Http(HttpError::Refused { place, status, said }) = fault else { return None };
        let is_kms = place.service == SERVICE;
        let of_quota = ["serviceusage", "has not been used in project", "USER_PROJECT_DENIED"];
        let hint = match *status {
            StatusCode::BAD_REQUEST if !is_kms => LOG_IN,
            StatusCode::FORBIDDEN if of_quota.iter().any(|word| said.contains(word)) => {
                "the project that calls count against (GOOGLE_CLOUD_QUOTA_PROJECT, or the login's) must have Cloud KMS \
                 enabled, and the caller roles/serviceusage.serviceUsageConsumer there"
            }
            StatusCode::FORBIDDEN if !is_kms => {
                "the caller needs iam.serviceAccounts.getAccessToken on the service account: the role \
                 roles/iam.serviceAccountTokenCreator"
            }
            StatusCode::FORBIDDEN => {
                "the caller needs cloudkms.cryptoKeyVersions.viewPublicKey, .useToSign and, without a version in the \
                 reference, .list: the roles roles/cloudkms.signerVerifier and roles/cloudkms.viewer"
            }
            StatusCode::UNAUTHORIZED => LOG_IN,
            StatusCode::NOT_FOUND if is_kms => "check project, location, key ring, key and version",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// CRC-32C (Castagnoli), as Cloud KMS sums digests and signatures (RFC 3720, appendix B.4).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar() {
        let key = "projects/p-1/locations/europe-west1/keyRings/ring/cryptoKeys/app";
        let parsed = Key::parse(key).unwrap();
        assert_eq!((parsed.name.as_str(), parsed.version.as_deref()), (key, None));
        assert_eq!(parsed.to_string(), format!("gcpkms://{key}"));
        for kind in ["cryptoKeyVersions", "versions"] {
            let parsed = Key::parse(&format!("{key}/{kind}/3")).unwrap();
            assert_eq!((parsed.name.as_str(), parsed.version.as_deref()), (key, Some("3")));
            assert_eq!(parsed.to_string(), format!("gcpkms://{key}/cryptoKeyVersions/3"));
        }
        // Projects of an organisation's domain have a colon.
        assert!(Key::parse(&key.replace("p-1", "example.com:p")).is_some());
        for rest in [
            "",
            "projects/p",
            &format!("{key}/"),
            &format!("{key}/versions/"),
            &format!("{key}/versions/../x"),
            &key.replace("ring/", "/"),
            &key.replace("app", ".."),
            &key.replace("app", "a?b"),
        ] {
            assert_eq!(Key::parse(rest), None, "{rest}");
        }
    }

    #[test]
    fn the_checksums_of_rfc_3720() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
