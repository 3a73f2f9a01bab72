//! Bearer tokens from token services: docker's token protocol, and the OAuth2 form for identity tokens
//! (distribution docs "spec/auth/token" and "spec/auth/oauth").

use super::credentials::Credential;
use super::error::{Kind, Trouble};
use super::wire::{Request, Wire};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::time::{Duration, SystemTime};
use url::Url;

/// Answers hold one token; Azure's are the longest, at some kilobytes.
const ANSWER_MAX: u64 = 1 << 20;
/// The spec's default, which is also BuildKit's.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// What is asked of a token service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The registry that named the service, as it stands in references.
    pub host: String,
    /// The service's URL, `realm` in the challenge.
    pub realm: String,
    /// The registry's name at the service; may be empty.
    pub service: String,
    /// Such as `repository:team/app:pull,push`.
    pub scopes: Vec<String>,
}

/// A bearer token.
#[derive(Clone, Debug)]
pub struct Token {
    /// The token.
    pub token: SecretString,
    /// How long it lives.
    pub expires_in: Duration,
    /// Since when it lives, where the service says so.
    pub issued_at: Option<SystemTime>,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<SecretString>,
    access_token: Option<SecretString>,
    expires_in: Option<serde_json::Number>,
    issued_at: Option<String>,
}

/// Gets a token. Passwords go by GET with Basic, which each service knows and docker uses; identity tokens by
/// POST, the only way that takes them.
pub(super) async fn fetch(
    wire: &Wire,
    ask: &TokenRequest,
    credential: &Credential,
) -> Result<Token, Trouble> {
    if let Credential::RegistryToken(token) = credential {
        return Ok(Token { token: token.clone(), expires_in: DEFAULT_LIFE, issued_at: None });
    }
    let realm = Url::parse(&ask.realm).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let realm = realm.ok_or_else(|| {
        Trouble::new(Kind::Protocol, format!("the registry names `{}` as its token service", ask.realm))
    })?;
    if !credential.is_anonymous() && !wire.may_take_secrets(&realm) {
        let what = format!(
            "the token service {} is not encrypted: no password goes there",
            super::wire::place(&realm)
        );
        return Err(Trouble::new(Kind::Protocol, what));
    }
    let request = match credential {
        Credential::IdentityToken(token) => by_post(realm, ask, token),
        Credential::Basic { username, password } => by_get(realm, ask, Some(basic(username, password))),
        Credential::Anonymous | Credential::RegistryToken(_) => by_get(realm, ask, None),
    };
    let response = wire.send(request).await?;
    if !response.status.is_success() {
        return Err(response.refusal().await);
    }
    let at = super::wire::place(&response.url);
    read(&response.bytes(ANSWER_MAX).await?, &at)
}

fn by_get(mut url: Url, ask: &TokenRequest, authorization: Option<HeaderValue>) -> Request {
    {
        let mut query = url.query_pairs_mut();
        if !ask.service.is_empty() {
            query.append_pair("service", &ask.service);
        }
        for scope in &ask.scopes {
            query.append_pair("scope", scope);
        }
    }
    let mut request = Request::get(url);
    request.headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
    request
}

fn by_post(url: Url, ask: &TokenRequest, token: &SecretString) -> Request {
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "refresh_token")
        .append_pair("service", &ask.service)
        .append_pair("client_id", "kubectl-build")
        .append_pair("scope", &ask.scopes.join(" "))
        .append_pair("refresh_token", token.expose_secret())
        .finish();
    let mut request = Request::get(url);
    request.method = Method::POST;
    request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    request.body = Bytes::from(form);
    request
}

/// Returns the header for a user and password.
pub(super) fn basic(username: &str, password: &SecretString) -> HeaderValue {
    let pair = format!("{username}:{}", password.expose_secret());
    secret(&format!("Basic {}", BASE64_STANDARD.encode(pair))).expect("base64 is fit for a header")
}

/// Returns the header for a token; none if the token holds what no header may.
pub(super) fn bearer(token: &SecretString) -> Option<HeaderValue> {
    secret(&format!("Bearer {}", token.expose_secret()))
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn read(body: &[u8], at: &str) -> Result<Token, Trouble> {
    let wrong =
        || Trouble::new(Kind::Protocol, format!("the answer of the token service {at} holds no token"));
    let answer: Answer = serde_json::from_slice(body).map_err(|error| wrong().caused_by(error))?;
    let filled = |token: Option<SecretString>| token.filter(|token| !token.expose_secret().is_empty());
    let token = filled(answer.token).or_else(|| filled(answer.access_token)).ok_or_else(wrong)?;
    // Some services write a fraction.
    let seconds = answer.expires_in.and_then(|number| number.as_f64()).filter(|seconds| *seconds >= 1.0);
    let expires_in = seconds.map_or(DEFAULT_LIFE, |seconds| Duration::from_secs(seconds as u64));
    let issued_at = answer.issued_at.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    Ok(Token { token, expires_in, issued_at: issued_at.map(SystemTime::from) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn ask(realm: &str) -> (Url, TokenRequest) {
        let scopes = vec!["repository:a/b:pull,push".to_owned(), "repository:c:pull".to_owned()];
        let (realm, service) = (realm.to_owned(), "r.io".to_owned());
        (realm.parse().unwrap(), TokenRequest { host: "r.io".to_owned(), realm, service, scopes })
    }

    #[test]
    fn a_get_keeps_the_realms_own_query() {
        let (url, ask) = ask("https://auth.r.io/token?account=x");
        assert_eq!(
            by_get(url, &ask, None).url.as_str(),
            "https://auth.r.io/token?account=x&service=r.io&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Ac%3Apull"
        );
    }

    #[test]
    fn a_post_joins_the_scopes() {
        let (url, ask) = ask("https://auth.r.io/token");
        let request = by_post(url, &ask, &SecretString::from("s&t"));
        assert_eq!(
            request.body,
            "grant_type=refresh_token&service=r.io&client_id=kubectl-build\
             &scope=repository%3Aa%2Fb%3Apull%2Cpush+repository%3Ac%3Apull&refresh_token=s%26t"
        );
    }

    #[rstest]
    #[case(r#"{"token":"a","expires_in":300}"#, "a", 300)]
    #[case(r#"{"token":"","access_token":"b"}"#, "b", 60)]
    #[case(r#"{"access_token":"c","expires_in":0}"#, "c", 60)]
    #[case(r#"{"token":"d","expires_in":90.5,"issued_at":"2024-01-02T03:04:05Z"}"#, "d", 90)]
    #[case(r#"{"token":"e","issued_at":"once"}"#, "e", 60)]
    fn answers(#[case] body: &str, #[case] token: &str, #[case] seconds: u64) {
        let read = read(body.as_bytes(), "auth").unwrap();
        assert_eq!((read.token.expose_secret(), read.expires_in.as_secs()), (token, seconds));
    }

    #[test]
    fn an_answer_without_token_is_an_error() {
        assert_eq!(read(b"{}", "auth").unwrap_err().kind, Kind::Protocol);
        assert_eq!(read(b"<html>", "auth").unwrap_err().kind, Kind::Protocol);
    }

    #[test]
    fn headers_do_not_print_their_secret() {
        let header = basic("u", &SecretString::from("p"));
        assert_eq!(header, "Basic dTpw");
        assert_eq!(format!("{header:?}"), "Sensitive");
        assert!(bearer(&SecretString::from("a\nb")).is_none());
    }
}
