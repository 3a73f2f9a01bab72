//! PEM keys that another host keeps: behind a URL, or in the CI variables of a GitLab project.

use super::SealedPair;
use super::reference::PemUrl;
use crate::sign::http::{Answer, Http, HttpError, Limits, Request};
use http::{HeaderName, Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use url::Url;

/// Keys are a few kilobytes.
const LIMITS: Limits = Limits { timeout: Duration::from_secs(30), max_body: 1 << 20 };

/// The names of the CI variables of a GitLab project, as `cosign generate-key-pair gitlab://…` makes them.
const PRIVATE: &str = "COSIGN_PRIVATE_KEY";
const PASSWORD: &str = "COSIGN_PASSWORD";
const PUBLIC: &str = "COSIGN_PUBLIC_KEY";

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
        let key = gitlab.variable(http, PRIVATE).await?;
        let password = match gitlab.variable(http, PASSWORD).await {
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
            Self::Gitlab(gitlab) => gitlab.variable(http, PUBLIC).await,
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

/// Why a GitLab project did not take a new key.
#[derive(Debug, thiserror::Error)]
pub enum GitlabError {
    /// A key is there.
    #[error("its variable {0} is there already, and no key is replaced")]
    Exists(&'static str),
    /// It refused, or could not be reached.
    #[error(transparent)]
    Http(#[from] HttpError),
}

impl Gitlab {
    /// Makes sure that the project has no key.
    ///
    /// # Errors
    /// [`GitlabError`].
    pub async fn is_free(&self, http: &Http) -> Result<(), GitlabError> {
        for name in [PRIVATE, PASSWORD, PUBLIC] {
            match self.variable(http, name).await {
                Ok(_) => return Err(GitlabError::Exists(name)),
                Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Keeps a key pair and its password in variables of the project, as cosign does. What is half done is undone.
    ///
    /// # Errors
    /// [`GitlabError`].
    pub async fn keep(
        &self,
        http: &Http,
        pair: &SealedPair,
        password: &SecretString,
    ) -> Result<(), GitlabError> {
        let values = [
            (PASSWORD, password.expose_secret()),
            (PRIVATE, pair.private.expose_secret()),
            (PUBLIC, pair.public.as_str()),
        ];
        for (at, (name, value)) in values.into_iter().enumerate() {
            let body = json!({ "key": name, "value": value, "variable_type": "env_var" });
            let request = self.authorised(Request::post_json(self.url(None), &body));
            let answer = http.send("GitLab", request, LIMITS).await?;
            if answer.is_success() {
                continue;
            }
            for (name, _) in &values[..at] {
                let request = self.authorised(Request::new(Method::DELETE, self.url(Some(name))));
                // What kept us is told; a variable that stays is told of by the next attempt.
                let _remains = http.send("GitLab", request, LIMITS).await;
            }
            return Err(refused(&answer).into());
        }
        Ok(())
    }

    fn url(&self, variable: Option<&str>) -> Url {
        let mut url = self.host.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            // The slash of a project's path is escaped, and so its name is one segment.
            path.pop_if_empty()
                .extend(["api", "v4", "projects", &self.project, "variables"])
                .extend(variable);
        }
        url
    }

    fn authorised(&self, request: Request) -> Request {
        request.secret_header(HeaderName::from_static("private-token"), self.token.expose_secret())
    }

    async fn variable(&self, http: &Http, name: &str) -> Result<SecretString, HttpError> {
        let answer = http.send("GitLab", self.authorised(Request::get(self.url(Some(name)))), LIMITS).await?;
        if !answer.is_success() {
            return Err(refused(&answer));
        }
        Ok(answer.json::<Variable>()?.value)
    }
}

fn refused(answer: &Answer) -> HttpError {
    answer.refused(match answer.status {
        StatusCode::UNAUTHORIZED => "GITLAB_TOKEN is not valid",
        StatusCode::FORBIDDEN => {
            "GITLAB_TOKEN lacks the role Maintainer, or the scope `read_api` (`api` for a new key), that a project's CI variables need"
        }
        StatusCode::NOT_FOUND => "no such project or variable",
        _ => "",
    })
}
