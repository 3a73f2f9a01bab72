//! The chain of AWS credentials: environment, web identity, profiles, single sign-on, containers, the machine.

use super::profile::Profiles;
use super::{Fault, one_line, sigv4};
use crate::sign::http::{Answer, Http, Limits, Request};
use aws_lc_rs::digest;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::sync::Mutex;
use url::Url;

/// Credentials this close to their end are fetched anew.
const MARGIN: SignedDuration = SignedDuration::from_secs(120);
/// The machine's own metadata service answers at once, or isn't there.
const METADATA: Duration = Duration::from_secs(2);
const PROCESS: Duration = Duration::from_secs(60);
/// How many roles may be assumed one after the other.
const ROLES: usize = 5;
/// How refusals of roles begin.
pub(super) const ASSUMING: &str = "assuming ";

/// Keys that sign requests.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) id: String,
    pub(super) secret: SecretString,
    pub(super) session_token: Option<SecretString>,
    expires: Option<Timestamp>,
}

impl Keys {
    pub(super) fn new(id: &str, secret: &str, token: Option<&str>) -> Self {
        let session_token = token.filter(|token| !token.is_empty()).map(SecretString::from);
        Self { id: id.to_owned(), secret: SecretString::from(secret), session_token, expires: None }
    }

    fn until(mut self, text: Option<&str>) -> Self {
        self.expires = text.and_then(|text| text.parse().ok());
        self
    }

    fn are_fresh(&self) -> bool {
        self.expires.is_none_or(|expires| expires.duration_since(Timestamp::now()) > MARGIN)
    }
}

/// Keys that the environment holds.
#[derive(Clone, Debug)]
pub struct StaticKeys {
    /// `AWS_ACCESS_KEY_ID`.
    pub id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret: SecretString,
    /// `AWS_SESSION_TOKEN`.
    pub session_token: Option<SecretString>,
}

/// A role that is assumed with a token from a file, as pods of EKS do (IRSA).
#[derive(Clone, Debug)]
pub struct WebIdentity {
    /// `AWS_ROLE_ARN`.
    pub role: String,
    /// `AWS_WEB_IDENTITY_TOKEN_FILE`; read anew each time.
    pub token_file: PathBuf,
    /// `AWS_ROLE_SESSION_NAME`.
    pub session: Option<String>,
}

/// Where a container gets credentials (ECS, EKS Pod Identity).
#[derive(Clone, Debug)]
pub struct Container {
    /// `AWS_CONTAINER_CREDENTIALS_FULL_URI`, or the relative one at its usual host.
    pub url: Url,
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN`.
    pub token: Option<SecretString>,
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`; read anew each time.
    pub token_file: Option<PathBuf>,
}

/// Where credentials may come from, in the order in which they are tried.
#[derive(Clone, Default)]
pub struct Sources {
    /// Keys of the environment.
    pub keys: Option<StaticKeys>,
    /// A web identity of the environment.
    pub web_identity: Option<WebIdentity>,
    /// `AWS_PROFILE`.
    pub profile: Option<String>,
    /// The text of the shared config file.
    pub config: Option<SecretString>,
    /// The text of the shared credentials file.
    pub credentials: Option<SecretString>,
    /// Where `aws sso login` keeps its tokens.
    pub sso_cache: Option<PathBuf>,
    /// A container's.
    pub container: Option<Container>,
    /// The machine's metadata service; none if it is switched off.
    pub metadata: Option<Url>,
    /// `AWS_ENDPOINT_URL_STS`.
    pub sts: Option<Url>,
    /// What a `credential_process` runs in.
    pub environment: Vec<(OsString, OsString)>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Sources")
            .field("keys", &self.keys)
            .field("web_identity", &self.web_identity)
            .field("profile", &self.profile)
            .field("container", &self.container)
            .finish_non_exhaustive()
    }
}

impl Sources {
    fn profiles(&self) -> Profiles {
        let text = |file: &Option<SecretString>| file.as_ref().map(|text| text.expose_secret().to_owned());
        Profiles::parse(text(&self.config).as_deref(), text(&self.credentials).as_deref())
    }

    fn profile(&self) -> &str {
        self.profile.as_deref().unwrap_or("default")
    }

    pub(super) fn profile_region(&self) -> Option<String> {
        self.profiles().get(self.profile(), "region").map(str::to_owned)
    }
}

/// Finds credentials, keeps them as long as they are good.
pub(super) struct Chain {
    sources: Sources,
    http: Http,
    region: String,
    kept: Mutex<Option<Keys>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct JsonKeys {
    access_key_id: String,
    secret_access_key: SecretString,
    #[serde(alias = "SessionToken")]
    token: Option<SecretString>,
    expiration: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SsoToken {
    access_token: SecretString,
    expires_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SsoAnswer {
    role_credentials: SsoKeys,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SsoKeys {
    access_key_id: String,
    secret_access_key: SecretString,
    session_token: SecretString,
    /// Milliseconds.
    expiration: i64,
}

fn lacking(text: impl Into<String>) -> Fault {
    Fault::Credentials(text.into())
}

impl Chain {
    pub(super) fn new(sources: Sources, http: Http, region: String) -> Self {
        Self { sources, http, region, kept: Mutex::default() }
    }

    pub(super) async fn keys(&self) -> Result<Keys, Fault> {
        let mut kept = self.kept.lock().await;
        if let Some(keys) = kept.as_ref().filter(|keys| keys.are_fresh()) {
            return Ok(keys.clone());
        }
        let keys = self.find().await?;
        *kept = Some(keys.clone());
        Ok(keys)
    }

    async fn find(&self) -> Result<Keys, Fault> {
        let Sources { keys, web_identity, container, metadata, .. } = &self.sources;
        if let Some(StaticKeys { id, secret, session_token }) = keys {
            let token = session_token.as_ref().map(ExposeSecret::expose_secret);
            return Ok(Keys::new(id, secret.expose_secret(), token));
        }
        if let Some(identity) = web_identity {
            return self.assume_with_token(identity).await;
        }
        let profiles = self.sources.profiles();
        let profile = self.sources.profile();
        if self.sources.profile.is_some() && !profiles.has(profile) {
            return Err(lacking(format!("there is no AWS profile `{profile}`")));
        }
        if let Some(keys) = self.of_profile(&profiles, profile).await? {
            return Ok(keys);
        }
        match (container, metadata) {
            (Some(container), _) => self.of_container(container).await,
            (None, Some(metadata)) => self.of_machine(metadata).await,
            (None, None) => Err(lacking(
                "no AWS credentials: no AWS_ACCESS_KEY_ID, web identity, profile or container has any",
            )),
        }
    }

    /// Follows a profile to its keys: roles name the profile that assumes them.
    async fn of_profile(&self, profiles: &Profiles, first: &str) -> Result<Option<Keys>, Fault> {
        let mut roles = Vec::new();
        let mut profile = first.to_owned();
        let base = loop {
            if roles.len() > ROLES {
                return Err(lacking(format!("the roles of AWS profile `{first}` lead nowhere")));
            }
            let get = |name| profiles.get(&profile, name);
            let static_keys = || {
                Some(Keys::new(
                    get("aws_access_key_id")?,
                    get("aws_secret_access_key")?,
                    get("aws_session_token"),
                ))
            };
            let Some(role) = get("role_arn") else {
                match static_keys() {
                    Some(keys) => break keys,
                    None => match self.single_source(profiles, &profile).await? {
                        Some(keys) => break keys,
                        None if roles.is_empty() => return Ok(None),
                        None => {
                            return Err(lacking(format!("the AWS profile `{profile}` has no credentials")));
                        }
                    },
                }
            };
            if let Some(file) = get("web_identity_token_file") {
                let session = get("role_session_name").map(str::to_owned);
                let identity = WebIdentity { role: role.to_owned(), token_file: file.into(), session };
                break self.assume_with_token(&identity).await?;
            }
            roles.push(profile.clone());
            match (get("source_profile"), get("credential_source")) {
                // A profile that is its own source has the keys beside the role.
                (Some(source), _) if source == profile => {
                    break static_keys()
                        .ok_or_else(|| lacking(format!("the AWS profile `{profile}` has no keys")))?;
                }
                (Some(source), _) => profile = source.to_owned(),
                (None, Some(source)) => break self.named_source(source).await?,
                (None, None) => {
                    return Err(lacking(format!(
                        "the AWS profile `{profile}` assumes a role, and no `source_profile` says as whom"
                    )));
                }
            }
        };
        let mut keys = base;
        for profile in roles.iter().rev() {
            keys = self.assume(profiles, profile, &keys).await?;
        }
        Ok(Some(keys))
    }

    async fn single_source(&self, profiles: &Profiles, profile: &str) -> Result<Option<Keys>, Fault> {
        if let Some(command) = profiles.get(profile, "credential_process") {
            return self.of_process(command).await.map(Some);
        }
        if profiles.get(profile, "sso_account_id").is_some() {
            return self.of_sso(profiles, profile).await.map(Some);
        }
        Ok(None)
    }

    async fn named_source(&self, source: &str) -> Result<Keys, Fault> {
        let Sources { keys, container, metadata, .. } = &self.sources;
        match (source, keys, container, metadata) {
            ("Environment", Some(StaticKeys { id, secret, session_token }), ..) => {
                let token = session_token.as_ref().map(ExposeSecret::expose_secret);
                Ok(Keys::new(id, secret.expose_secret(), token))
            }
            ("EcsContainer", _, Some(container), _) => self.of_container(container).await,
            ("Ec2InstanceMetadata", .., Some(metadata)) => self.of_machine(metadata).await,
            _ => Err(lacking(format!("the credential_source `{}` has nothing", one_line(source)))),
        }
    }

    fn sts(&self) -> Url {
        let domain = domain_of(&self.region);
        self.sources.sts.clone().unwrap_or_else(|| {
            let regional = format!("https://sts.{}.{domain}/", self.region);
            regional.parse().unwrap_or_else(|_| "https://sts.amazonaws.com/".parse().expect("a URL"))
        })
    }

    async fn assume_with_token(&self, identity: &WebIdentity) -> Result<Keys, Fault> {
        let token = read(&identity.token_file).await?;
        let fields = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", &identity.role),
            ("RoleSessionName", identity.session.as_deref().unwrap_or("kubectl-build")),
            ("WebIdentityToken", token.expose_secret().trim()),
        ];
        let request = Request::post_form(self.sts(), &fields).repeatable();
        let answer = self.http.send("AWS STS", request, Limits::default()).await?;
        keys_of_sts(&answer, &identity.role)
    }

    async fn assume(&self, profiles: &Profiles, profile: &str, with: &Keys) -> Result<Keys, Fault> {
        let get = |name| profiles.get(profile, name);
        if get("mfa_serial").is_some() {
            return Err(lacking(format!(
                "the AWS profile `{profile}` wants a one-time code; export the session's keys instead"
            )));
        }
        let role = get("role_arn").unwrap_or_default();
        let mut fields = vec![
            ("Action", "AssumeRole"),
            ("Version", "2011-06-15"),
            ("RoleArn", role),
            ("RoleSessionName", get("role_session_name").unwrap_or("kubectl-build")),
        ];
        fields.extend(get("external_id").map(|id| ("ExternalId", id)));
        fields.extend(get("duration_seconds").map(|seconds| ("DurationSeconds", seconds)));
        let url = self.sts();
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let form = "application/x-www-form-urlencoded; charset=utf-8".to_owned();
        let mut headers = vec![(http::header::CONTENT_TYPE, form)];
        let to_sign = sigv4::ToSign { method: "POST", url: &url, body: body.as_bytes() };
        let scope = sigv4::Scope { region: &self.region, service: "sts", time: Timestamp::now() };
        sigv4::sign(&to_sign, &mut headers, with, &scope);
        let mut request = Request::new(Method::POST, url.clone()).body(body).repeatable();
        for (name, value) in headers {
            request = request.secret_header(name, &value);
        }
        let answer = self.http.send("AWS STS", request, Limits::default()).await?;
        keys_of_sts(&answer, role)
    }

    async fn of_process(&self, command: &str) -> Result<Keys, Fault> {
        // The command line may hold a secret: it is not repeated.
        let failed = |what: String| lacking(format!("the profile's credential_process {what}"));
        let output = tokio::process::Command::new("sh")
            .args(["-c", command])
            .env_clear()
            .envs(self.sources.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PROCESS, output).await;
        let output = output.map_err(|_| failed(format!("did not end within {} s", PROCESS.as_secs())))?;
        let output = output.map_err(|error| failed(format!("could not be run: {error}")))?;
        if !output.status.success() {
            return Err(failed(format!("failed ({})", output.status)));
        }
        let keys = serde_json::from_slice(&output.stdout);
        Ok(of_json(keys.map_err(|_| failed("gave no JSON with keys".to_owned()))?))
    }

    async fn of_sso(&self, profiles: &Profiles, profile: &str) -> Result<Keys, Fault> {
        let log_in = || lacking(format!("the AWS login of profile `{profile}` is gone: `aws sso login`"));
        let get = |name| profiles.sso(profile, name);
        // The file's name is the SHA-1 of the session's name or, without one, of its URL.
        let name = profiles.get(profile, "sso_session").or(get("sso_start_url")).unwrap_or_default();
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, name.as_bytes());
        let file: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let cache = self.sources.sso_cache.as_ref().ok_or_else(log_in)?;
        let text = read(&cache.join(format!("{file}.json"))).await.map_err(|_| log_in())?;
        let token: SsoToken = serde_json::from_str(text.expose_secret()).map_err(|_| log_in())?;
        if token.expires_at.parse::<Timestamp>().is_ok_and(|end| end < Timestamp::now()) {
            return Err(log_in());
        }
        let region = get("sso_region").unwrap_or(&self.region);
        let url = format!("https://portal.sso.{region}.{}/federation/credentials", domain_of(region));
        let parameters = [("role_name", get("sso_role_name")), ("account_id", get("sso_account_id"))];
        let parameters = parameters.map(|(name, value)| (name, value.unwrap_or_default()));
        let url = Url::parse_with_params(&url, parameters).map_err(|_| log_in())?;
        let bearer = HeaderName::from_static("x-amz-sso_bearer_token");
        let request = Request::get(url).secret_header(bearer, token.access_token.expose_secret());
        let answer = self.http.send("AWS single sign-on", request, Limits::default()).await?;
        if !answer.is_success() {
            let said = match answer.status {
                StatusCode::UNAUTHORIZED => "log in again with `aws sso login`",
                StatusCode::FORBIDDEN => "the login has no such role in this account",
                _ => "",
            };
            return Err(answer.refused(said).into());
        }
        let SsoAnswer { role_credentials: keys } = answer.json()?;
        let expires = Timestamp::from_millisecond(keys.expiration).ok();
        let token = Some(keys.session_token.expose_secret());
        let fresh = Keys::new(&keys.access_key_id, keys.secret_access_key.expose_secret(), token);
        Ok(Keys { expires, ..fresh })
    }

    async fn of_container(&self, container: &Container) -> Result<Keys, Fault> {
        let token = match &container.token_file {
            Some(file) => Some(read(file).await?),
            None => container.token.clone(),
        };
        let mut request = Request::get(container.url.clone()).direct();
        if let Some(token) = token {
            request = request.secret_header(http::header::AUTHORIZATION, token.expose_secret());
        }
        let limits = Limits::within(Duration::from_secs(10));
        let answer = self.http.send("the container's credential service", request, limits).await?;
        if !answer.is_success() {
            return Err(answer.refused("").into());
        }
        Ok(of_json(answer.json()?))
    }

    async fn of_machine(&self, metadata: &Url) -> Result<Keys, Fault> {
        let none = || {
            lacking(
                "no AWS credentials: neither environment, web identity, profile nor container has any, and this \
                 machine has no role",
            )
        };
        let url = |path: &str| metadata.join(path).map_err(|_| none());
        let limits = Limits::within(METADATA);
        let lifetime = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
        let request = Request::new(Method::PUT, url("/latest/api/token")?)
            .header(lifetime, HeaderValue::from_static("300"))
            .direct();
        let answer = self.http.send("the EC2 metadata service", request, limits).await;
        let answer = answer.ok().filter(Answer::is_success).ok_or_else(none)?;
        let token = String::from_utf8_lossy(&answer.body).into_owned();
        let get = async |path: &str| {
            let name = HeaderName::from_static("x-aws-ec2-metadata-token");
            let request = Request::get(url(path)?).secret_header(name, &token).direct();
            let answer = self.http.send("the EC2 metadata service", request, limits).await?;
            if answer.is_success() { Ok(answer) } else { Err(none()) }
        };
        let list = get("/latest/meta-data/iam/security-credentials/").await?;
        let text = String::from_utf8_lossy(&list.body).into_owned();
        let role = text.lines().next().map(str::trim).filter(|role| !role.is_empty()).ok_or_else(none)?;
        let keys = get(&format!("/latest/meta-data/iam/security-credentials/{role}")).await?;
        Ok(of_json(keys.json()?))
    }
}

fn of_json(keys: JsonKeys) -> Keys {
    let token = keys.token.as_ref().map(ExposeSecret::expose_secret);
    Keys::new(&keys.access_key_id, keys.secret_access_key.expose_secret(), token)
        .until(keys.expiration.as_deref())
}

/// Returns where the services of a region have their names.
pub(super) fn domain_of(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

/// STS speaks XML; its keys hold nothing that XML escapes.
fn keys_of_sts(answer: &Answer, role: &str) -> Result<Keys, Fault> {
    let text = String::from_utf8_lossy(&answer.body);
    let field = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(value, _)| value.trim())
    };
    if !answer.is_success() {
        let said = format!(
            "{ASSUMING}{role}: {}: {}",
            field("Code").unwrap_or_default(),
            one_line(field("Message").unwrap_or_default())
        );
        return Err(answer.refused(&said).into());
    }
    let keys = || {
        let keys = Keys::new(field("AccessKeyId")?, field("SecretAccessKey")?, field("SessionToken"));
        Some(keys.until(field("Expiration")))
    };
    keys().ok_or_else(|| answer.garbage("a role's keys").into())
}

async fn read(path: &PathBuf) -> Result<SecretString, Fault> {
    let text = tokio::fs::read_to_string(path).await;
    text.map(SecretString::from).map_err(|source| Fault::File { path: path.clone(), source })
}

#[cfg(test)]
mod tests;
