//! Answers for registries, so that the builder can pull and push with the user's rights: the session service
//! `moby.filesync.v1.Auth` (moby/buildkit session/auth).
//!
//! A builder may fetch a registry's tokens itself, with the password that `Credentials` hands out. It does so
//! only if the client has no token authority. We have one: the builder then asks us for short-lived tokens, and
//! passwords stay here, save for registries that know nothing but passwords.

mod authority;

use super::Attachable;
use crate::pb::moby::filesync::v1::auth_server::{self, AuthServer};
use crate::pb::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use async_trait::async_trait;
use authority::{Authority, Seed};
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status};

/// Why credentials or a token can't be had; its whole chain is told to the builder.
pub type CredentialsError = Box<dyn std::error::Error + Send + Sync>;

/// The builder gives up after 60 s; an error that comes before says more.
const PATIENCE: Duration = Duration::from_secs(50);

/// Most that fits into a trailer beside the rest, as grpc-go takes 8 KiB.
const LONGEST_TEXT: usize = 2048;

/// What the builder wants a token for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The registry, such as `registry-1.docker.io`.
    pub host: String,
    /// URL of the token service.
    pub realm: String,
    /// The service's name, from the registry's challenge.
    pub service: String,
    /// Such as `repository:library/alpine:pull`.
    pub scopes: Vec<String>,
}

/// A registry's token.
#[derive(Clone, Debug)]
pub struct Token {
    /// Goes into `Authorization: Bearer`.
    pub token: SecretString,
    /// From `issued_at` on; zero if the token service doesn't say (60 s is then assumed).
    pub expires_in: Duration,
    /// By the token service's clock, if it says.
    pub issued_at: Option<SystemTime>,
}

/// Where credentials come from. Calls may come concurrently.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// Returns the user and password of a registry; the user is empty where the secret is an identity token.
    /// `None` if there are none: the builder then asks the registry anonymously.
    async fn basic(&self, host: &str) -> Result<Option<(String, SecretString)>, CredentialsError>;

    /// Whether tokens of this registry may be more than what anybody gets. Not the same as [`Credentials::basic`]:
    /// there may be tokens without a password, and passwords for some of its repositories only.
    async fn knows(&self, host: &str) -> bool;

    /// Fetches a token, with the registry's credentials or anonymously. `None` if it can't be had either way.
    async fn token(&self, request: TokenRequest) -> Result<Option<Token>, CredentialsError>;

    /// Returns 16 random bytes that stay the same for a registry on this machine, if there is a place to keep
    /// them. The builder then shares its tokens between sessions, which saves a call per build.
    async fn seed(&self, _host: &str) -> Option<[u8; 16]> {
        None
    }
}

/// The auth service.
#[derive(Clone)]
pub struct Auth {
    credentials: Arc<dyn Credentials>,
    seeds: Arc<Mutex<HashMap<String, Seed>>>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Auth([redacted])")
    }
}

impl Auth {
    /// Answers with these credentials.
    pub fn new(credentials: Arc<dyn Credentials>) -> Self {
        Self { credentials, seeds: Arc::default() }
    }

    async fn basic(&self, host: &str) -> Result<Option<(String, SecretString)>, Status> {
        within("credentials", host, self.credentials.basic(host)).await
    }

    /// Returns the key pair by which the builder knows sessions with the same rights.
    async fn authority(&self, host: &str, salt: &[u8]) -> Authority {
        // Without a secret there is nothing to prove, so all anonymous sessions may share tokens. Anybody can derive
        // this key and be given them: whatever is not known for certain gets a key of its own.
        if matches!(tokio::time::timeout(PATIENCE, self.credentials.knows(host)).await, Ok(false)) {
            return Authority::new(salt, &[]);
        }
        let known = || self.seeds.lock().expect("no holder panics").get(host).copied();
        let seed = match known() {
            Some(seed) => seed,
            None => {
                let kept = self.credentials.seed(host).await;
                let fresh = kept.map_or_else(Seed::random, Seed::from);
                *self.seeds.lock().expect("no holder panics").entry(host.to_owned()).or_insert(fresh)
            }
        };
        Authority::new(salt, seed.as_bytes())
    }
}

impl Attachable for Auth {
    fn methods(&self) -> &'static [&'static str] {
        &[
            "/moby.filesync.v1.Auth/Credentials",
            "/moby.filesync.v1.Auth/FetchToken",
            "/moby.filesync.v1.Auth/GetTokenAuthority",
            "/moby.filesync.v1.Auth/VerifyTokenAuthority",
        ]
    }

    fn register(self: Box<Self>, routes: &mut RoutesBuilder) {
        routes.add_service(AuthServer::new(*self).max_decoding_message_size(16 << 20));
    }
}

#[async_trait]
impl auth_server::Auth for Auth {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        // Nothing known is an empty answer, not an error, which would fail the pull.
        let known = self.basic(&host).await?;
        let (username, secret) =
            known.map_or_else(Default::default, |(user, secret)| (user, secret.expose_secret().to_owned()));
        Ok(Response::new(CredentialsResponse { username, secret }))
    }

    async fn fetch_token(
        &self,
        request: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        let FetchTokenRequest { host, realm, service, scopes, .. } = request.into_inner();
        let wanted = TokenRequest { host: host.clone(), realm, service, scopes };
        let token = within("a token", &host, self.credentials.token(wanted)).await?;
        let Some(token) = token else {
            return Err(Status::unauthenticated(format!("no token for {host}")));
        };
        let issued = token.issued_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Ok(Response::new(FetchTokenResponse {
            token: token.token.expose_secret().to_owned(),
            expires_in: token.expires_in.as_secs().cast_signed(),
            issued_at: issued.map_or(0, |since| since.as_secs().cast_signed()),
        }))
    }

    async fn get_token_authority(
        &self,
        request: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        let GetTokenAuthorityRequest { host, salt } = request.into_inner();
        let authority = self.authority(&host, &salt).await;
        Ok(Response::new(GetTokenAuthorityResponse { public_key: authority.public_key().into() }))
    }

    async fn verify_token_authority(
        &self,
        request: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        let VerifyTokenAuthorityRequest { host, payload, salt } = request.into_inner();
        // The builder's challenges have 32 bytes; nothing else is signed.
        if payload.len() != 32 {
            return Err(Status::invalid_argument("a challenge has 32 bytes"));
        }
        let authority = self.authority(&host, &salt).await;
        Ok(Response::new(VerifyTokenAuthorityResponse { signed: authority.sign(&payload).into() }))
    }
}

/// Waits for an answer about a registry, and puts errors into words for the builder.
async fn within<T>(
    what: &str,
    host: &str,
    answer: impl Future<Output = Result<T, CredentialsError>>,
) -> Result<T, Status> {
    let failed = match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            let said = format!("cannot get {what} for {host}: ");
            // A registry's error begins so by itself.
            Status::unknown(cut(if text.starts_with(&said) { text } else { said + &text }))
        }
        Err(_) => {
            Status::deadline_exceeded(cut(format!("no {what} for {host} within {} s", PATIENCE.as_secs())))
        }
    };
    tracing::debug!(host, status = %failed, "registry credentials");
    Err(failed)
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(LONGEST_TEXT));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use auth_server::Auth as _;
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    /// A fake: one registry with a password, one that can't be asked, and the rest unknown.
    struct Fake;

    #[async_trait]
    impl Credentials for Fake {
        async fn basic(&self, host: &str) -> Result<Option<(String, SecretString)>, CredentialsError> {
            match host {
                "private.example" => Ok(Some(("me".into(), "secret".into()))),
                "broken.example" => Err("the helper crashed".into()),
                "slow.example" => std::future::pending().await,
                _ => Ok(None),
            }
        }

        async fn knows(&self, host: &str) -> bool {
            matches!(host, "private.example" | "token.example")
        }

        async fn token(&self, request: TokenRequest) -> Result<Option<Token>, CredentialsError> {
            let token = format!("{} {}", request.service, request.scopes.join(",")).into();
            let issued_at = Some(UNIX_EPOCH + Duration::from_secs(1000));
            if request.host == "broken.example" {
                return Err("cannot get a token for broken.example: 401".into());
            }
            let known = request.host == "private.example";
            Ok(known.then_some(Token { token, expires_in: Duration::from_secs(300), issued_at }))
        }
    }

    fn auth() -> Auth {
        Auth::new(Arc::new(Fake))
    }

    async fn credentials(host: &str) -> Result<(String, String), Status> {
        let answer = auth().credentials(Request::new(CredentialsRequest { host: host.into() })).await?;
        let answer = answer.into_inner();
        Ok((answer.username, answer.secret))
    }

    async fn key(auth: &Auth, host: &str, salt: &'static [u8]) -> Vec<u8> {
        let request = GetTokenAuthorityRequest { host: host.into(), salt: salt.into() };
        auth.get_token_authority(Request::new(request)).await.expect("a key").into_inner().public_key.to_vec()
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_are_empty_where_there_are_none() {
        assert_eq!(credentials("private.example").await.expect("known"), ("me".into(), "secret".into()));
        assert_eq!(credentials("other.example").await.expect("unknown"), (String::new(), String::new()));
        let broken = credentials("broken.example").await.expect_err("no answer");
        assert_eq!(broken.message(), "cannot get credentials for broken.example: the helper crashed");
        let slow = credentials("slow.example").await.expect_err("no answer");
        assert_eq!(slow.message(), "no credentials for slow.example within 50 s");
    }

    #[tokio::test]
    async fn tokens_come_with_their_times() {
        let request = |host: &str| {
            Request::new(FetchTokenRequest {
                host: host.into(),
                service: "registry".into(),
                scopes: vec!["a".into(), "b".into()],
                ..Default::default()
            })
        };
        let token = auth().fetch_token(request("private.example")).await.expect("a token").into_inner();
        assert_eq!((token.token.as_str(), token.expires_in, token.issued_at), ("registry a,b", 300, 1000));
        let none = auth().fetch_token(request("other.example")).await.expect_err("no token");
        assert_eq!(none.code(), tonic::Code::Unauthenticated);
        let broken = auth().fetch_token(request("broken.example")).await.expect_err("no token");
        assert_eq!(broken.message(), "cannot get a token for broken.example: 401", "said once");
    }

    #[tokio::test]
    async fn a_key_is_bound_to_host_salt_and_session() {
        let (one, other) = (auth(), auth());
        let private = key(&one, "private.example", b"salt").await;
        assert_eq!(private.len(), 32);
        assert_eq!(key(&one, "private.example", b"salt").await, private);
        assert_ne!(key(&one, "private.example", b"pepper").await, private);
        assert_ne!(key(&other, "private.example", b"salt").await, private, "a seed of its own");
        let token = key(&one, "token.example", b"salt").await;
        assert_ne!(key(&other, "token.example", b"salt").await, token, "no password, but tokens of its own");
        let anonymous = key(&one, "other.example", b"salt").await;
        assert_eq!(key(&other, "other.example", b"salt").await, anonymous, "nothing to prove");
    }

    #[tokio::test]
    async fn a_challenge_is_signed_with_the_key() {
        let auth = auth();
        let payload = [7_u8; 32];
        let request = |payload: &[u8]| {
            Request::new(VerifyTokenAuthorityRequest {
                host: "private.example".into(),
                payload: payload.to_vec().into(),
                salt: b"salt"[..].into(),
            })
        };
        let signed =
            auth.verify_token_authority(request(&payload)).await.expect("a proof").into_inner().signed;
        let (signature, signed_payload) = signed.split_at(64);
        assert_eq!(signed_payload, payload);
        let key = key(&auth, "private.example", b"salt").await;
        UnparsedPublicKey::new(&ED25519, key).verify(&payload, signature).expect("the key's signature");
        let refused =
            auth.verify_token_authority(request(b"GET / HTTP/1.1")).await.expect_err("no challenge");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(format!("{:?}", auth()), "Auth([redacted])");
    }
}
