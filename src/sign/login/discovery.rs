//! What a provider says of itself (OpenID Connect Discovery 1.0).

use super::LoginError;
use crate::sign::http::{Http, Limits, Request};
use serde::Deserialize;
use std::time::Duration;
use url::Url;

pub(super) const SERVICE: &str = "the OIDC provider";

/// A provider, and where it is asked for what.
#[derive(Debug)]
pub(super) struct Provider {
    /// Its name, exactly as its tokens have it.
    pub(super) issuer: String,
    pub(super) authorization: Option<Url>,
    pub(super) token: Url,
    pub(super) keys: Url,
    pub(super) device: Option<Url>,
    pub(super) scope: String,
    /// The client's secret goes into the form, not into a header.
    pub(super) secret_in_form: bool,
    s256: bool,
}

#[derive(Deserialize)]
struct DocumentJson {
    issuer: String,
    authorization_endpoint: Option<Url>,
    token_endpoint: Url,
    jwks_uri: Url,
    device_authorization_endpoint: Option<Url>,
    scopes_supported: Option<Vec<String>>,
    code_challenge_methods_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// Asks a provider of this name.
///
/// # Errors
/// It doesn't answer, or says that it is somebody else.
pub(super) async fn ask(http: &Http, issuer: &Url) -> Result<Provider, LoginError> {
    let mut url = issuer.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend([".well-known", "openid-configuration"]);
    }
    let answer = http.send(SERVICE, Request::get(url), Limits::within(Duration::from_secs(20))).await?;
    if !answer.is_success() {
        return Err(answer.refused("").into());
    }
    read(answer.json()?, issuer)
}

fn read(document: DocumentJson, issuer: &Url) -> Result<Provider, LoginError> {
    let no = |reason: String| LoginError::Provider { issuer: issuer.to_string(), reason };
    // Names are compared as they are written, but for the slash that a URL without a path gets.
    let bare = issuer.path() == "/" && document.issuer == issuer.as_str().trim_end_matches('/');
    if document.issuer != issuer.as_str() && !bare {
        return Err(no(format!("it says that its name is `{}`", document.issuer)));
    }
    let endpoints = [Some(&document.token_endpoint), Some(&document.jwks_uri)].into_iter();
    let more = [document.authorization_endpoint.as_ref(), document.device_authorization_endpoint.as_ref()];
    for url in endpoints.chain(more).flatten() {
        if url.scheme() != "https" && (url.scheme(), issuer.scheme()) != ("http", "http") {
            return Err(no(format!("its address {url} is not https")));
        }
    }
    let lists = |list: &Option<Vec<String>>, word: &str| {
        list.as_ref().map(|list| list.iter().any(|listed| listed == word))
    };
    // A token that can be renewed is for builds that take longer than tokens live.
    let mut scope = "openid email".to_owned();
    if lists(&document.scopes_supported, "offline_access") == Some(true) {
        scope.push_str(" offline_access");
    }
    let methods = &document.token_endpoint_auth_methods_supported;
    Ok(Provider {
        scope,
        // Without a list the header is what there is (Discovery 1.0, section 3).
        secret_in_form: lists(methods, "client_secret_basic") == Some(false),
        // Some providers do it and don't say so.
        s256: lists(&document.code_challenge_methods_supported, "S256").unwrap_or(true),
        issuer: document.issuer,
        authorization: document.authorization_endpoint,
        token: document.token_endpoint,
        keys: document.jwks_uri,
        device: document.device_authorization_endpoint,
    })
}

impl Provider {
    /// Whether a browser can come back from it with a code that is worth nothing to others.
    pub(super) fn by_browser(&self) -> bool {
        self.authorization.is_some() && self.s256
    }

    /// Whether it may renew tokens.
    pub(super) fn renews(&self) -> bool {
        self.scope.contains("offline_access")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn provider(name: &str, issuer: &str, endpoint: &str) -> Result<Provider, LoginError> {
        let document = json!({
            "issuer": name, "authorization_endpoint": endpoint, "token_endpoint": endpoint, "jwks_uri": endpoint,
            "scopes_supported": ["openid", "offline_access"], "code_challenge_methods_supported": ["plain"],
        });
        read(serde_json::from_value(document).unwrap(), &issuer.parse().unwrap())
    }

    #[test]
    fn a_provider_is_who_it_says() {
        let at = "https://a.example/x";
        assert_eq!(
            provider("https://a.example", "https://a.example", at).unwrap().issuer,
            "https://a.example"
        );
        assert!(provider("https://a.example/auth", "https://a.example/auth", at).unwrap().renews());
        for (name, issuer) in [
            ("https://b.example", "https://a.example"),
            ("https://a.example/auth/", "https://a.example/auth"),
            ("https://a.example/auth", "https://a.example/"),
        ] {
            let error = provider(name, issuer, at).unwrap_err().to_string();
            assert!(error.contains(&format!("its name is `{name}`")), "{error}");
        }
        let plain = provider("https://a.example", "https://a.example", "http://a.example/x").unwrap_err();
        assert!(plain.to_string().contains("not https"), "{plain}");
        assert!(
            !provider("https://a.example", "https://a.example", at).unwrap().by_browser(),
            "only `plain`"
        );
    }
}
