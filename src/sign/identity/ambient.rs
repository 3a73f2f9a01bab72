//! Tokens that a CI system hands to its jobs, a cloud to its machines, an agent to its workloads. What it takes is in
//! variables, which `config` reads.

use super::spiffe::{self, Socket};
use super::{AUDIENCE, IdentityError, IdentityToken, TokenSource};
use crate::sign::http::{Http, Limits, Request};
use crate::sign::kms::gcp::{Credentials, PLATFORM_SCOPE, Tokens};
use async_trait::async_trait;
use http::header::{ACCEPT, AUTHORIZATION};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::time::Duration;
use url::Url;

/// The metadata server answers at once, or isn't there.
const METADATA: Duration = Duration::from_secs(5);

/// A way to a token.
#[derive(Debug)]
pub enum AmbientSource {
    /// GitHub Actions, in a job with `permissions: id-token: write`.
    GitHub {
        /// `ACTIONS_ID_TOKEN_REQUEST_URL`.
        url: Url,
        /// `ACTIONS_ID_TOKEN_REQUEST_TOKEN`.
        token: SecretString,
    },
    /// Buildkite.
    Buildkite {
        /// `BUILDKITE_AGENT_ENDPOINT`.
        endpoint: Url,
        /// `BUILDKITE_JOB_ID`.
        job: String,
        /// `BUILDKITE_AGENT_ACCESS_TOKEN`.
        token: SecretString,
    },
    /// CircleCI, whose own program makes tokens for an audience.
    CircleCi,
    /// A machine or workload of Google's, whose metadata server is this `host[:port]`.
    Google {
        /// Where.
        host: String,
    },
    /// A service account of Google's that we may act for.
    GoogleAccount {
        /// Its e-mail address (`GOOGLE_SERVICE_ACCOUNT_NAME`).
        name: String,
        /// The IAM credentials API.
        endpoint: Url,
        /// Who we are to Google ourselves.
        credentials: Credentials,
    },
    /// A workload that a SPIFFE agent knows.
    Spiffe(Socket),
}

/// Asks what runs us.
pub struct Ambient {
    source: Source,
    http: Http,
}

enum Source {
    Of(AmbientSource),
    /// One that keeps what it got on the way.
    GoogleAccount {
        name: String,
        endpoint: Url,
        tokens: Box<Tokens>,
    },
}

impl Ambient {
    /// Returns a source.
    pub fn new(source: AmbientSource, http: Http) -> Self {
        let source = match source {
            AmbientSource::GoogleAccount { name, endpoint, credentials } => {
                let tokens = Box::new(Tokens::new(credentials, PLATFORM_SCOPE, http.clone()));
                Source::GoogleAccount { name, endpoint, tokens }
            }
            source => Source::Of(source),
        };
        Self { source, http }
    }

    fn name(&self) -> &'static str {
        match self.source {
            Source::Of(AmbientSource::GitHub { .. }) => "GitHub Actions",
            Source::Of(AmbientSource::Buildkite { .. }) => "Buildkite",
            Source::Of(AmbientSource::CircleCi) => "CircleCI",
            Source::Of(AmbientSource::Google { .. }) => "Google's metadata server",
            Source::Of(AmbientSource::GoogleAccount { .. }) | Source::GoogleAccount { .. } => "Google",
            Source::Of(AmbientSource::Spiffe(_)) => "the SPIFFE agent",
        }
    }

    async fn call<T: serde::de::DeserializeOwned>(&self, request: Request) -> Result<T, IdentityError> {
        let answer = self.http.send(self.name(), request, Limits::within(Duration::from_secs(20))).await?;
        match answer.is_success() {
            true => Ok(answer.json()?),
            false => Err(answer.refused("").into()),
        }
    }
}

#[derive(Deserialize)]
struct GitHubJson {
    value: SecretString,
}

#[derive(Deserialize)]
struct BuildkiteJson {
    token: SecretString,
}

#[derive(Deserialize)]
struct GoogleJson {
    token: SecretString,
}

#[async_trait]
impl TokenSource for Ambient {
    fn place(&self) -> String {
        match &self.source {
            Source::GoogleAccount { name, .. } => format!("Google, for {name}"),
            _ => self.name().to_owned(),
        }
    }

    async fn token(&self) -> Result<IdentityToken, IdentityError> {
        let source = match &self.source {
            Source::Of(source) => source,
            Source::GoogleAccount { name, endpoint, tokens } => {
                let text = self.of_account(name, endpoint, tokens).await?;
                return IdentityToken::parse(text.expose_secret(), &self.place());
            }
        };
        let text = match source {
            AmbientSource::GitHub { url, token } => {
                let mut url = url.clone();
                url.query_pairs_mut().append_pair("audience", AUDIENCE);
                let request = Request::get(url)
                    .header(ACCEPT, http::HeaderValue::from_static("application/json"))
                    .bearer(token.expose_secret());
                self.call::<GitHubJson>(request).await?.value
            }
            AmbientSource::Buildkite { endpoint, job, token } => {
                let mut url = endpoint.clone();
                if let Ok(mut path) = url.path_segments_mut() {
                    path.pop_if_empty().extend(["jobs", job, "oidc", "tokens"]);
                }
                let request = Request::post_json(url, &serde_json::json!({ "audience": AUDIENCE }))
                    .secret_header(AUTHORIZATION, &format!("Token {}", token.expose_secret()))
                    .repeatable();
                self.call::<BuildkiteJson>(request).await?.token
            }
            AmbientSource::CircleCi => circle_ci().await?,
            AmbientSource::Google { host } => self.of_machine(host).await?,
            AmbientSource::Spiffe(socket) => spiffe::fetch(socket, AUDIENCE).await?,
            AmbientSource::GoogleAccount { .. } => unreachable!("it was turned into another source"),
        };
        IdentityToken::parse(text.expose_secret(), &self.place())
    }
}

impl Ambient {
    /// Asks a machine of Google's, as its documentation on verifying an instance's identity says.
    async fn of_machine(&self, host: &str) -> Result<SecretString, IdentityError> {
        let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/identity");
        let failed = |error: url::ParseError| IdentityError::Service {
            place: self.place(),
            source: format!("`{host}` is no host: {error}").into(),
        };
        let mut url: Url = url.parse().map_err(failed)?;
        url.query_pairs_mut().append_pair("audience", AUDIENCE).append_pair("format", "full");
        let flavor = http::HeaderValue::from_static("Google");
        let request =
            Request::get(url).header(http::HeaderName::from_static("metadata-flavor"), flavor).direct();
        let answer = self.http.send(self.name(), request, Limits::within(METADATA)).await?;
        match answer.is_success() {
            true => Ok(String::from_utf8_lossy(&answer.body).trim().to_owned().into()),
            false => Err(answer.refused("").into()),
        }
    }

    /// Asks Google for a token of an account that we may act for.
    async fn of_account(
        &self,
        name: &str,
        endpoint: &Url,
        tokens: &Tokens,
    ) -> Result<SecretString, IdentityError> {
        let mut url = endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty();
            path.extend(["v1", "projects", "-", "serviceAccounts", &format!("{name}:generateIdToken")]);
        }
        let body = serde_json::json!({ "audience": AUDIENCE, "includeEmail": true });
        let request = tokens.authorise(Request::post_json(url, &body).repeatable()).await;
        let request = request
            .map_err(|fault| IdentityError::Service { place: self.place(), source: Box::new(fault) })?;
        Ok(self.call::<GoogleJson>(request).await?.token)
    }
}

/// Runs `circleci`, which every job has; the tokens in the job's variables are for the organisation, not for sigstore.
async fn circle_ci() -> Result<SecretString, IdentityError> {
    let failed = |reason: String| IdentityError::Service {
        place: "CircleCI".to_owned(),
        source: format!("`circleci run oidc get` {reason}").into(),
    };
    let mut command = tokio::process::Command::new("circleci");
    command.args(["run", "oidc", "get", "--root-issuer", "--claims"]);
    command.arg(format!(r#"{{"aud":"{AUDIENCE}"}}"#));
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let ran = tokio::time::timeout(Duration::from_secs(30), command.output()).await;
    let output = ran.map_err(|_| failed("did not end within 30 s".to_owned()))?;
    let output = output.map_err(|error| failed(format!("cannot be run: {error}")))?;
    if !output.status.success() {
        return Err(failed(format!("failed ({})", output.status)));
    }
    let text = String::from_utf8(output.stdout).map_err(|_| failed("printed no text".to_owned()))?;
    Ok(text.trim().to_owned().into())
}
