//! PEM keys that another host keeps: behind a URL, or in the CI variables of a GitLab project.

use super::reference::PemUrl;
use crate::sign::http::{Http, HttpError, Limits, Request};
use http::{HeaderName, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::time::Duration;
use url::Url;

/// Keys are a few kilobytes.
const LIMITS: Limits = Limits { timeout: Duration::from_secs(30), max_body: 1 << 20 };

/// Where PEM text is kept.
#[derive(Debug)]
pub enum Remote {
    /// Behind a URL.
    Url(PemUrl),
    /// In the CI variables of a GitLab project.
    Gitlab(Gitlab),
}

/// A project of a GitLab, and who asks.
#[derive(Debug)]
pub struct Gitlab {
    /// `GITLAB_HOST`.
    pub host: Url,
    /// `GITLAB_TOKEN`.
    pub token: SecretString,
    /// The project's number or path.
    pub project: String,
}

#[derive(Deserialize)]
struct Variable {
    value: SecretString,
}

impl Remote {
    /// Reads a private key and, where there is one, its password.
    ///
    /// # Errors
    /// [`HttpError`], without a URL's query.
    pub async fn private(&self, http: &Http) -> Result<(SecretString, Option<SecretString>), HttpError> {
        let gitlab = match self {
            Self::Url(url) => return Ok((fetch(http, url).await?, None)),
            Self::Gitlab(gitlab) => gitlab,
        };
        let key = gitlab.variable(http, "COSIGN_PRIVATE_KEY").await?;
        let password = match gitlab.variable(http, "COSIGN_PASSWORD").await {
            Ok(password) => Some(password),
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => None,
            Err(error) => return Err(error),
        };
        Ok((key, password))
    }

    /// Reads what verifiers use.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn public(&self, http: &Http) -> Result<SecretString, HttpError> {
        match self {
            Self::Url(url) => fetch(http, url).await,
            Self::Gitlab(gitlab) => gitlab.variable(http, "COSIGN_PUBLIC_KEY").await,
        }
    }
}

/// Reads a file. Redirects are followed, and never over TLS to where there is none.
async fn fetch(http: &Http, url: &PemUrl) -> Result<SecretString, HttpError> {
    let answer = http.send("the key's server", Request::get(url.0.clone()), LIMITS).await?;
    if !answer.is_success() {
        return Err(answer.refused(""));
    }
    match String::from_utf8(answer.body.to_vec()) {
        Ok(text) => Ok(text.into()),
        Err(_) => Err(answer.garbage("PEM text")),
    }
}

impl Gitlab {
    async fn variable(&self, http: &Http, name: &str) -> Result<SecretString, HttpError> {
        let mut url = self.host.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            // The slash of a project's path is escaped, and so its name is one segment.
            path.pop_if_empty().extend(["api", "v4", "projects", &self.project, "variables", name]);
        }
        let token = HeaderName::from_static("private-token");
        let request = Request::get(url).secret_header(token, self.token.expose_secret());
        let answer = http.send("GitLab", request, LIMITS).await?;
        if !answer.is_success() {
            return Err(answer.refused(match answer.status {
                StatusCode::UNAUTHORIZED => "GITLAB_TOKEN is not valid",
                StatusCode::FORBIDDEN => "GITLAB_TOKEN may not read the project's CI variables",
                StatusCode::NOT_FOUND => "no such project or variable",
                _ => "",
            }));
        }
        Ok(answer.json::<Variable>()?.value)
    }
}
