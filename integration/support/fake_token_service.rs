//! A fake of the token services that GHCR, Docker Hub and Quay have: it signs tokens which a real distribution with
//! `auth: token` takes (distribution docs "spec/auth/token" and "spec/auth/jwt"), and records who asks for them.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, USER_AGENT};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// Its tokens end after so many seconds, the least that the protocol's clients expect.
const LIFE: i64 = 60;

/// What somebody without a password gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strangers {
    /// A token that allows nothing, as from Docker Hub.
    GetNothing,
    /// A 401.
    AreRefused,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Asked {
    pub peer: IpAddr,
    /// `User-Agent`.
    pub agent: String,
    pub scopes: Vec<String>,
    /// Whether it came with credentials, right or wrong.
    pub password: bool,
}

struct Inner {
    key: EcdsaKeyPair,
    certificate: rcgen::Certificate,
    /// The one `Authorization` that it knows.
    known: String,
    strangers: Mutex<Strangers>,
    asked: Mutex<Vec<Asked>>,
}

/// A running service; it ends when dropped.
pub struct FakeTokenService {
    inner: Arc<Inner>,
    realm: String,
    _runtime: Runtime,
}

impl FakeTokenService {
    /// Starts one with one user, at the tests' own address, where pods would reach it too.
    pub fn start(address: &str, user: &str, password: &str) -> Self {
        let pair = KeyPair::generate().expect("a P-256 key");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pair.serialize_der());
        let certificate = CertificateParams::default().self_signed(&pair).expect("a certificate");
        let inner = Arc::new(Inner {
            key: key.expect("the same key"),
            certificate,
            known: format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))),
            strangers: Mutex::new(Strangers::GetNothing),
            asked: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener =
            runtime.block_on(TcpListener::bind((address, 0))).expect("tests run under CLUSTER_RUN");
        let realm = format!("http://{}/token", listener.local_addr().expect("an address"));
        let app = Router::new().fallback(serve).with_state(Arc::clone(&inner));
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { inner, realm, _runtime: runtime }
    }

    /// Returns the `auth` section for a distribution that takes its tokens, and puts what it needs into a folder.
    pub fn registry_auth(&self, folder: &Path) -> String {
        let bundle = folder.join("token-service.pem");
        std::fs::write(&bundle, self.inner.certificate.pem()).expect("a file");
        format!(
            "{{token: {{realm: {:?}, service: real, issuer: fake, rootcertbundle: {:?}}}}}",
            self.realm,
            bundle.display().to_string()
        )
    }

    /// Returns its URL.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// Sets what somebody without a password gets from now on.
    pub fn set_strangers(&self, strangers: Strangers) {
        *self.inner.strangers.lock().expect("no holder panics") = strangers;
    }

    /// Returns the calls since the last time, oldest first.
    pub fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.inner.asked.lock().expect("no holder panics"))
    }

    /// Returns a token for a test's own look at the registry.
    pub fn token(&self, scope: &str) -> String {
        self.inner.sign(&[scope.to_owned()])
    }
}

impl Inner {
    fn sign(&self, scopes: &[String]) -> String {
        let access: Vec<Value> = scopes.iter().filter_map(|scope| access(scope)).collect();
        let now = jiff::Timestamp::now().as_second();
        let header = json!({
            "typ": "JWT", "alg": "ES256", "x5c": [BASE64_STANDARD.encode(self.certificate.der())],
        });
        let claims = json!({
            "iss": "fake", "sub": "user", "aud": "real", "iat": now, "nbf": now, "exp": now + LIFE,
            "jti": format!("{now}-{}", scopes.join(" ")), "access": access,
        });
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Reads `repository:team/app:pull,push`.
fn access(scope: &str) -> Option<Value> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    Some(json!({ "type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>() }))
}

async fn serve(
    State(service): State<Arc<Inner>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let header = |name: HeaderName| Some(request.headers().get(name)?.to_str().ok()?.to_owned());
    let query = url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
    let scopes = query.filter(|(name, _)| name == "scope");
    let mut scopes: Vec<String> = scopes.map(|(_, scope)| scope.into_owned()).collect();
    let authorization = header(AUTHORIZATION);
    let asked = Asked {
        peer: peer.ip(),
        agent: header(USER_AGENT).unwrap_or_default(),
        scopes: scopes.clone(),
        // A POST could only bring credentials.
        password: authorization.is_some() || request.method() == Method::POST,
    };
    service.asked.lock().expect("no holder panics").push(asked);
    if request.method() != Method::GET {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let refused = match authorization {
        Some(given) => given != service.known,
        None => {
            scopes.clear();
            *service.strangers.lock().expect("no holder panics") == Strangers::AreRefused
        }
    };
    let (status, body) = if refused {
        let error = json!({ "code": "UNAUTHORIZED", "message": "incorrect username or password" });
        (StatusCode::UNAUTHORIZED, json!({ "errors": [error] }))
    } else {
        let issued_at = jiff::Timestamp::now().to_string();
        let token = service.sign(&scopes);
        (StatusCode::OK, json!({ "token": token, "expires_in": LIFE, "issued_at": issued_at }))
    };
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
