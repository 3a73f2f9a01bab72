//! The token endpoint, and whether what comes from it is what was asked for.

use super::discovery::SERVICE;
use super::{LoggedIn, Login, LoginError};
use crate::sign::http::{Answer, HttpError, Limits, Request};
use crate::sign::identity::IdentityToken;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::time::Duration;

const LIMITS: Limits = Limits { timeout: Duration::from_secs(30), max_body: 1 << 20 };

/// What providers sign with; a shared secret (`HS256`) and `none` prove nothing.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

#[derive(Deserialize)]
struct GrantedJson {
    id_token: Option<SecretString>,
    refresh_token: Option<SecretString>,
}

/// What a refusal says (RFC 6749, section 5.2).
#[derive(Default, Deserialize)]
pub(super) struct RefusedJson {
    #[serde(default)]
    pub(super) error: String,
    #[serde(default)]
    error_description: String,
}

impl RefusedJson {
    pub(super) fn of(answer: &Answer) -> Self {
        answer.json().unwrap_or_default()
    }

    pub(super) fn told(&self) -> String {
        told(&self.error, &self.error_description)
    }
}

/// Returns a provider's words for people.
pub(super) fn told(error: &str, description: &str) -> String {
    let clean = |text: &str| text.chars().filter(|letter| !letter.is_control()).take(200).collect::<String>();
    match description {
        "" => clean(error),
        description => format!("{} ({})", clean(error), clean(description)),
    }
}

#[derive(Deserialize)]
struct KeysJson {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct ClaimsJson {
    nonce: Option<String>,
    azp: Option<String>,
}

impl Login {
    /// Asks an endpoint of the provider's as the client that we are.
    pub(super) async fn call(&self, url: &url::Url, fields: &[(&str, &str)]) -> Result<Answer, HttpError> {
        let id = self.settings.client_id.as_str();
        let secret = self.settings.client_secret.as_ref().map(|secret| secret.expose_secret().trim());
        let mut fields = fields.to_vec();
        if secret.is_none() || self.provider.secret_in_form {
            fields.push(("client_id", id));
        }
        if self.provider.secret_in_form {
            fields.extend(secret.map(|secret| ("client_secret", secret)));
        }
        let mut request = Request::post_form(url.clone(), &fields).once();
        if let Some(secret) = secret.filter(|_| !self.provider.secret_in_form) {
            let encoded =
                |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret)));
            request = request.secret_header(AUTHORIZATION, &format!("Basic {pair}"));
        }
        self.http.send(SERVICE, request, LIMITS).await
    }

    /// Takes what the provider grants, once it is known to be for us.
    pub(super) async fn granted(&self, answer: &Answer, nonce: Option<&str>) -> Result<LoggedIn, LoginError> {
        if !answer.is_success() {
            return Err(answer.refused(&RefusedJson::of(answer).told()).into());
        }
        let GrantedJson { id_token, refresh_token } = answer.json()?;
        let token = id_token.ok_or_else(|| self.unfit("it gave none"))?;
        self.check(token.expose_secret(), nonce).await?;
        let token = IdentityToken::parse(token.expose_secret(), &self.place())?;
        Ok(LoggedIn { token, refresh: refresh_token })
    }

    /// Gets another token for the person who logged in.
    ///
    /// # Errors
    /// The provider doesn't give one, or one for somebody else.
    pub async fn refresh(&self, refresh: &SecretString, subject: &str) -> Result<LoggedIn, LoginError> {
        let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh.expose_secret())];
        let answer = self.call(&self.provider.token, &fields).await?;
        let mut logged = self.granted(&answer, None).await?;
        if logged.token.subject != subject {
            let (now, before) = (logged.token.subject, subject.to_owned());
            return Err(LoginError::SomebodyElse { now, before });
        }
        // A provider that gives no new one leaves the old one good.
        logged.refresh.get_or_insert_with(|| refresh.clone());
        Ok(logged)
    }

    fn unfit(&self, reason: impl Into<String>) -> LoginError {
        LoginError::Token { issuer: self.provider.issuer.clone(), reason: reason.into() }
    }

    /// Checks signature, issuer, audience, nonce and lifetime (OpenID Connect Core 1.0, section 3.1.3.7).
    async fn check(&self, token: &str, nonce: Option<&str>) -> Result<(), LoginError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| self.unfit("it is no signed token"))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(self.unfit(format!("it is signed by {:?}", header.alg)));
        }
        let answer = self.http.send(SERVICE, Request::get(self.provider.keys.clone()), LIMITS).await?;
        if !answer.is_success() {
            return Err(answer.refused("").into());
        }
        // Keys of kinds that we don't know don't matter.
        let keys = answer.json::<KeysJson>()?.keys.into_iter();
        let keys = keys.filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        let keys = keys.filter(|key| {
            let signs = key.common.public_key_use.as_ref().is_none_or(|to| *to == PublicKeyUse::Signature);
            signs && (header.kid.is_none() || key.common.key_id.is_none() || key.common.key_id == header.kid)
        });
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&[&self.settings.client_id]);
        validation.set_issuer(&[&self.provider.issuer]);
        validation.set_required_spec_claims(&["iss", "aud", "exp", "sub"]);
        let mut found = false;
        for key in keys.filter_map(|key| DecodingKey::from_jwk(&key).ok()) {
            let decoded = jsonwebtoken::decode::<ClaimsJson>(token, &key, &validation);
            let reason = match decoded.map_err(jsonwebtoken::errors::Error::into_kind) {
                Ok(decoded) => return self.check_claims(&decoded.claims, nonce),
                // Another key's, perhaps.
                Err(ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm) => {
                    found = true;
                    continue;
                }
                Err(ErrorKind::InvalidIssuer) => "another issuer's name stands in it".to_owned(),
                Err(ErrorKind::InvalidAudience) => {
                    format!("it is not for `{}`", self.settings.client_id)
                }
                Err(ErrorKind::ExpiredSignature) => {
                    "it has expired: is this machine's clock right?".to_owned()
                }
                Err(ErrorKind::MissingRequiredClaim(claim)) => format!("it has no `{claim}`"),
                Err(_) => "it is malformed".to_owned(),
            };
            return Err(self.unfit(reason));
        }
        Err(self.unfit(match found {
            true => "its signature is not the provider's",
            false => "the provider publishes no key for its signature",
        }))
    }

    fn check_claims(&self, claims: &ClaimsJson, nonce: Option<&str>) -> Result<(), LoginError> {
        if nonce.is_some() && claims.nonce.as_deref() != nonce {
            return Err(self.unfit("it is for another login (`nonce`)"));
        }
        if claims.azp.as_deref().is_some_and(|party| party != self.settings.client_id) {
            return Err(self.unfit("it was issued to another client (`azp`)"));
        }
        Ok(())
    }
}
