//! Logins at a fake provider, whose tokens can be wrong in every way; the real one is in `integration/keyless`.

use super::*;
use crate::event::Event;
use crate::sign::http::HttpOptions;
use crate::task::{Task, spawn};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;

/// What is different about the next tokens.
#[derive(Default)]
struct Inner {
    url: String,
    claims: Mutex<Value>,
    key: Option<EcdsaKeyPair>,
    /// Signs instead.
    other: Mutex<Option<EncodingKey>>,
    shared: Mutex<bool>,
    nonce: Mutex<String>,
    /// What the token endpoint answers first.
    errors: Mutex<Vec<&'static str>>,
}

struct FakeProvider {
    inner: Arc<Inner>,
    _task: Task<()>,
}

fn encoding(key: &EcdsaKeyPair) -> EncodingKey {
    let der = key.to_pkcs8v1().unwrap();
    EncodingKey::from_ec_der(der.as_ref())
}

fn new_key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

impl FakeProvider {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner { url, key: Some(new_key()), ..Inner::default() });
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(document))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .route("/device", post(device))
            .with_state(Arc::clone(&inner));
        let task = spawn("fake-provider", async move { axum::serve(listener, app).await.unwrap() });
        Self { inner, _task: task }
    }

    async fn login(&self, flow: Flow) -> (Arc<Login>, UnboundedReceiver<Event>) {
        self.login_with(Some(flow), None).await
    }

    async fn login_with(
        &self,
        flow: Option<Flow>,
        redirect: Option<Url>,
    ) -> (Arc<Login>, UnboundedReceiver<Event>) {
        let (events, receiver) = Events::channel();
        let settings = LoginSettings {
            client_id: "us".into(),
            client_secret: None,
            flow,
            open: Some(Arc::new(|_| {})),
            redirect,
            timeout: Duration::from_secs(5),
        };
        let http = Http::new(&HttpOptions::default()).unwrap();
        let issuer = self.inner.url.parse().unwrap();
        (Arc::new(Login::discover(&issuer, settings, http, events).await.unwrap()), receiver)
    }
}

async fn document(State(inner): State<Arc<Inner>>) -> String {
    let at = |path: &str| format!("{}{path}", inner.url);
    json!({
        "issuer": inner.url, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
        "jwks_uri": at("/keys"), "device_authorization_endpoint": at("/device"),
        "code_challenge_methods_supported": ["S256"], "scopes_supported": ["openid", "offline_access"],
    })
    .to_string()
}

async fn keys(State(inner): State<Arc<Inner>>) -> String {
    let point = &inner.key.as_ref().unwrap().public_key().as_ref()[1..];
    let encode = |number: &[u8]| URL_SAFE_NO_PAD.encode(number);
    let ours = json!({ "kty": "EC", "crv": "P-256", "kid": "1", "use": "sig", "x": encode(&point[..32]), "y": encode(&point[32..]) });
    // A kind of key that nobody knows yet spoils nothing.
    json!({ "keys": [{ "kty": "AKP", "alg": "ML-DSA-44", "pub": "AA" }, ours] }).to_string()
}

async fn device() -> String {
    json!({
        "device_code": "d", "user_code": "ABCD-EFGH", "verification_uri": "http://p.example/device",
        "verification_uri_complete": "http://p.example/device?user_code=ABCD-EFGH", "expires_in": 60, "interval": 1,
    })
    .to_string()
}

async fn token(State(inner): State<Arc<Inner>>, body: Bytes) -> Response {
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    if let Some(error) = inner.errors.lock().unwrap().pop() {
        let body = json!({ "error": error, "error_description": "as it was told to" });
        return (http::StatusCode::BAD_REQUEST, body.to_string()).into_response();
    }
    assert!(form["grant_type"] == "refresh_token" || form["code_verifier"].len() >= 43);
    assert_eq!(form["client_id"], "us");
    let mut claims = json!({
        "iss": inner.url, "aud": "us", "sub": "1", "email": "dev@example.com",
        "exp": jiff::Timestamp::now().as_second() + 60, "nonce": *inner.nonce.lock().unwrap(),
    });
    for (name, value) in inner.claims.lock().unwrap().as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    let (header, key) = match *inner.shared.lock().unwrap() {
        true => (Header::new(Algorithm::HS256), EncodingKey::from_secret(b"us")),
        false => {
            let header = Header { kid: Some("1".into()), ..Header::new(Algorithm::ES256) };
            let other = inner.other.lock().unwrap().clone();
            (header, other.unwrap_or_else(|| encoding(inner.key.as_ref().unwrap())))
        }
    };
    let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
    json!({ "id_token": token, "refresh_token": "r" }).to_string().into_response()
}

/// Waits for what the person is asked.
async fn asked(events: &mut UnboundedReceiver<Event>) -> String {
    loop {
        if let Event::Request(text) = events.recv().await.expect("a request") {
            return text.lines().last().expect("an address").to_owned();
        }
    }
}

/// Gets a page as a browser would; returns all that came.
async fn visit(page: &str) -> String {
    let url: Url = page.parse().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", url.port().unwrap())).await.unwrap();
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let request = format!("GET {}{query} HTTP/1.1\r\nHost: localhost\r\n\r\n", url.path());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Follows the page to the provider; returns what it was sent there with.
async fn follow(page: &str) -> BTreeMap<String, String> {
    let answer = visit(page).await;
    assert!(answer.starts_with("HTTP/1.1 302"), "{answer}");
    let location = answer.lines().find_map(|line| line.strip_prefix("location: ")).expect("a redirect");
    Url::parse(location).unwrap().query_pairs().into_owned().collect()
}

fn back(sent: &BTreeMap<String, String>, query: &str) -> String {
    format!("{}?state={}&{query}", sent["redirect_uri"], sent["state"])
}

#[tokio::test]
async fn a_browser_comes_back_whatever_else_it_does() {
    let provider = FakeProvider::start().await;
    let (login, mut events) = provider.login(Flow::Browser).await;
    let running = Arc::clone(&login);
    let running = spawn("login", async move { running.run().await });
    let page = asked(&mut events).await;
    assert!(page.starts_with("http://localhost:") && page.len() < 60, "{page}");
    let port = page.parse::<Url>().unwrap().port().unwrap();
    // Connections ahead of time, an icon, somebody who guesses, and somebody else's login.
    let _ahead = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let root = format!("http://localhost:{port}");
    assert!(visit(&format!("{root}/favicon.ico")).await.starts_with("HTTP/1.1 404"));
    assert!(visit(&format!("{root}/")).await.starts_with("HTTP/1.1 404"));
    assert!(visit(&format!("{root}/auth/callback?state=x&code=c")).await.contains("not the login"));
    let sent = follow(&page).await;
    assert_eq!((sent["code_challenge_method"].as_str(), sent["response_type"].as_str()), ("S256", "code"));
    assert_eq!((sent["scope"].as_str(), sent["prompt"].as_str()), ("openid email offline_access", "consent"));
    let denied = visit(&back(&sent, "error=access_denied&error_description=<b>no</b>")).await;
    assert!(denied.contains("&lt;b&gt;no") && denied.contains("Try again"), "{denied}");
    assert!(visit(&back(&sent, "code=c&iss=http://other.example")).await.contains("another issuer"));
    provider.inner.nonce.lock().unwrap().clone_from(&sent["nonce"]);
    let done = visit(&back(&sent, "code=c")).await;
    assert!(done.contains("Logged in as dev@example.com"), "{done}");
    let logged = running.join().await.unwrap();
    assert_eq!(logged.token.subject, "dev@example.com");
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err(), "it still listens");
    let refresh = logged.refresh.expect("a refresh token");
    assert!(login.refresh(&refresh, "dev@example.com").await.is_ok());
    let other = login.refresh(&refresh, "boss@example.com").await.unwrap_err();
    assert!(matches!(other, LoginError::SomebodyElse { .. }), "{other}");
}

#[tokio::test]
async fn a_token_that_is_not_for_us_logs_nobody_in() {
    let provider = FakeProvider::start().await;
    let (login, mut events) = provider.login(Flow::Browser).await;
    let running = Arc::clone(&login);
    let running = spawn("login", async move { running.run().await });
    let sent = follow(&asked(&mut events).await).await;
    let inner = &provider.inner;
    let refused = async |expected: &str| {
        let page = visit(&back(&sent, "code=c")).await;
        assert!(page.contains("Not logged in") && page.contains(expected), "{expected}: {page}");
    };
    refused("another login").await;
    inner.nonce.lock().unwrap().clone_from(&sent["nonce"]);
    for (claims, expected) in [
        (json!({ "aud": "them" }), "not for `us`"),
        (json!({ "aud": ["us", "them"], "azp": "them" }), "another client"),
        (json!({ "iss": "http://other.example" }), "another issuer"),
        (json!({ "exp": 1_700_000_000 }), "expired"),
        (json!({ "exp": null }), "no `exp`"),
    ] {
        *inner.claims.lock().unwrap() = claims;
        refused(expected).await;
    }
    *inner.claims.lock().unwrap() = json!({});
    *inner.shared.lock().unwrap() = true;
    refused("HS256").await;
    *inner.shared.lock().unwrap() = false;
    *inner.other.lock().unwrap() = Some(encoding(&new_key()));
    refused("signature is not the provider").await;
    *inner.other.lock().unwrap() = None;
    inner.errors.lock().unwrap().push("invalid_grant");
    refused("invalid_grant (as it was told to)").await;
    assert!(!running.is_finished());
    visit(&back(&sent, "code=c")).await;
    assert!(running.join().await.is_ok());
}

#[tokio::test]
async fn a_code_is_asked_after_until_it_is_confirmed() {
    let provider = FakeProvider::start().await;
    let (login, mut events) = provider.login(Flow::Device).await;
    provider.inner.errors.lock().unwrap().push("authorization_pending");
    let (logged, page) = tokio::join!(login.run(), asked(&mut events));
    assert_eq!(page, "http://p.example/device?user_code=ABCD-EFGH");
    assert_eq!(logged.unwrap().token.subject, "dev@example.com");
    for (error, expected) in [("access_denied", "refused the login"), ("expired_token", "nobody confirmed")] {
        provider.inner.errors.lock().unwrap().push(error);
        let refused = login.run().await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
}

#[tokio::test]
async fn a_code_does_where_the_browser_cannot_come_back() {
    let provider = FakeProvider::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().port();
    let redirect: Url = format!("http://localhost:{at}/auth/callback").parse().unwrap();
    let (login, mut events) = provider.login_with(None, Some(redirect.clone())).await;
    let logged = login.run().await.unwrap();
    assert_eq!(logged.token.subject, "dev@example.com");
    let Some(Event::Note(note)) = events.recv().await else { panic!("a note comes first") };
    let told = format!("the browser cannot come back: no listener on localhost:{at}: ");
    assert!(note.starts_with(&told) && note.ends_with("a code will do instead"), "{note}");
    assert_eq!(asked(&mut events).await, "http://p.example/device?user_code=ABCD-EFGH");
    // Who asked for a browser gets none of this.
    let (login, _events) = provider.login_with(Some(Flow::Browser), Some(redirect)).await;
    assert!(matches!(login.run().await, Err(LoginError::Listen { .. })));
}
