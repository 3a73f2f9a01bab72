//! Tokens that a CI system hands to its jobs. What it takes is in variables, which `config` reads.

use super::{AUDIENCE, IdentityError, IdentityToken, TokenSource};
use crate::sign::http::{Http, Limits, Request};
use async_trait::async_trait;
use http::header::{ACCEPT, AUTHORIZATION};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::time::Duration;
use url::Url;

/// A CI system's way to a token.
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
}

/// Asks a CI system.
#[derive(Debug)]
pub struct Ambient {
    source: AmbientSource,
    http: Http,
}

impl Ambient {
    /// Returns a source.
    pub fn new(source: AmbientSource, http: Http) -> Self {
        Self { source, http }
    }

    fn name(&self) -> &'static str {
        match self.source {
            AmbientSource::GitHub { .. } => "GitHub Actions",
            AmbientSource::Buildkite { .. } => "Buildkite",
            AmbientSource::CircleCi => "CircleCI",
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

#[async_trait]
impl TokenSource for Ambient {
    fn place(&self) -> String {
        self.name().to_owned()
    }

    async fn token(&self) -> Result<IdentityToken, IdentityError> {
        let text = match &self.source {
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
        };
        IdentityToken::parse(text.expose_secret(), &self.place())
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
