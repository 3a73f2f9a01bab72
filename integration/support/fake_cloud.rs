//! Fakes of the APIs of Google Cloud KMS, Azure Key Vault, their token services, and GitLab: what their
//! documentation says goes over the wire, with real keys behind it. They are no proof of what the clouds do. And a fake
//! proxy, for addresses that the tool knows by heart.

use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use kubectl_build::task::{Task, spawn};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What the fake's services take for a token.
pub(crate) const TOKEN: &str = "ya29.access-token-of-the-fake";
/// The one key of Google's.
pub(crate) const GCP_KEY: &str = "projects/p/locations/l/keyRings/r/cryptoKeys/k";
/// What the login of a person holds who may sign.
pub(crate) const REFRESH_TOKEN: &str = "1//refresh-token-of-the-test";
/// What the login of a person holds who may take on a service account, and nothing else.
pub(crate) const DELEGATE_TOKEN: &str = "1//delegate-token-of-the-test";
/// What gcloud shows beside either.
pub(crate) const CLIENT_SECRET: &str = "client-secret-of-the-test";
/// The audience of a workload that may sign itself.
pub(crate) const DIRECT: &str = "//iam.googleapis.com/direct";
/// What a workload shows to get its own token.
pub(crate) const REQUEST_TOKEN: &str = "request-token-of-the-test";
/// What an application shows to Entra.
pub(crate) const AZURE_SECRET: &str = "azure~secret-of-the-test";
/// What an app shows to the service of its identity.
pub(crate) const APP_HEADER: &str = "identity-header-of-the-test";
/// What a workload shows to any of them.
pub(crate) const WORKLOAD_TOKEN: &str = "eyJ.workload-token.of-the-test";
/// What GitLab takes.
pub(crate) const GITLAB_TOKEN: &str = "glpat-of-the-test";

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wrong {
    #[default]
    Nothing,
    /// The caller may not sign.
    MaySign,
    /// The caller may not make keys.
    MayCreate,
    /// The digest arrived damaged.
    DigestSum,
    /// The signature left damaged.
    SignatureSum,
    /// It signs with another key.
    Key,
    /// 503, always.
    Service,
}

struct Inner {
    google: EcdsaKeyPair,
    azure: EcdsaKeyPair,
    other: EcdsaKeyPair,
    /// The service account's public key, DER.
    account: Mutex<Vec<u8>>,
    /// PEM texts and variables by path.
    files: Mutex<BTreeMap<String, String>>,
    /// The keys and key rings that were made, by path.
    made: Mutex<Vec<String>>,
    wrong: Mutex<Wrong>,
    seen: Mutex<Vec<String>>,
    quota_projects: Mutex<Vec<String>>,
}

/// A running fake; it ends when dropped.
pub(crate) struct FakeCloud {
    pub(crate) host: String,
    inner: Arc<Inner>,
    _task: Task<()>,
}

impl FakeCloud {
    pub(crate) async fn start() -> Self {
        let inner = Arc::new(Inner {
            google: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap(),
            azure: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            other: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap(),
            account: Mutex::default(),
            files: Mutex::default(),
            made: Mutex::default(),
            wrong: Mutex::default(),
            seen: Mutex::default(),
            quota_projects: Mutex::default(),
        });
        let app = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let task = spawn("fake-cloud", async move { axum::serve(listener, app).await.unwrap() });
        Self { host, inner, _task: task }
    }

    pub(crate) fn goes_wrong(&self, wrong: Wrong) {
        *self.inner.wrong.lock().unwrap() = wrong;
    }

    /// Returns the calls so far, as `METHOD path`, and forgets them.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.seen.lock().unwrap())
    }

    /// Returns the projects that calls to Google's KMS counted against since the last time, equal ones in a row once.
    pub(crate) fn quota_projects(&self) -> Vec<String> {
        let mut projects = std::mem::take(&mut *self.inner.quota_projects.lock().unwrap());
        projects.dedup();
        projects
    }

    /// Puts a text behind a path, percent-encoded as in the request.
    pub(crate) fn put(&self, path: &str, text: &str) {
        self.inner.files.lock().unwrap().insert(path.to_owned(), text.to_owned());
    }

    pub(crate) fn google_pem(&self) -> String {
        pem(&self.inner.google)
    }

    pub(crate) fn azure_pem(&self) -> String {
        pem(&self.inner.azure)
    }

    /// Returns the JSON key of a service account whose assertions the fake takes.
    pub(crate) fn service_account(&self) -> String {
        let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let public: aws_lc_rs::encoding::PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        *self.inner.account.lock().unwrap() = public.as_ref().to_vec();
        let private: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let private = pem::encode(&pem::Pem::new("PRIVATE KEY", private.as_ref()));
        json!({
            "type": "service_account", "client_email": "ci@p.iam.gserviceaccount.com", "private_key": private,
            "private_key_id": "1", "token_uri": format!("http://{}/token", self.host),
        })
        .to_string()
    }
}

/// Returns what `gcloud auth application-default login` writes: it names no address.
pub(crate) fn google_login(refresh_token: &str) -> Value {
    json!({
        "account": "", "client_id": "client", "client_secret": CLIENT_SECRET, "refresh_token": refresh_token,
        "type": "authorized_user", "universe_domain": "googleapis.com",
    })
}

/// A fake proxy: it opens tunnels to one place only, whatever host it is asked for.
pub(crate) struct FakeTunnel {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<String>>>,
    _task: Task<()>,
}

impl FakeTunnel {
    /// Starts one to a server at `host:port`.
    pub(crate) async fn start(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::default();
        let (to, noted) = (to.to_owned(), Arc::clone(&asked));
        let task = spawn("fake-tunnel", async move {
            let mut tunnels = tokio::task::JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tunnels.spawn(tunnel(client, to.clone(), Arc::clone(&noted)));
            }
        });
        Self { url, asked, _task: task }
    }

    /// Returns the hosts that it was asked for so far, those in a row once, and forgets them.
    pub(crate) fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.dedup();
        asked
    }
}

async fn tunnel(client: TcpStream, to: String, asked: Arc<Mutex<Vec<String>>>) {
    let (mut client, mut head) = (BufReader::new(client), String::new());
    while !head.ends_with("\r\n\r\n") {
        if client.read_line(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    asked.lock().unwrap().push(head.split(' ').nth(1).unwrap_or_default().to_owned());
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    if client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.is_ok() {
        let _closed = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}

fn pem(pair: &EcdsaKeyPair) -> String {
    pem::encode(&pem::Pem::new("PUBLIC KEY", pair.public_key().as_der().unwrap().as_ref()))
}

fn sign(pair: &EcdsaKeyPair, digest: &[u8]) -> Vec<u8> {
    pair.sign_digest(&Digest::import_less_safe(digest, &SHA256).unwrap()).unwrap().as_ref().to_vec()
}

/// The same sum as the product's, written another way: bit by bit over a shift register.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut register = u32::MAX;
    for byte in bytes {
        for bit in 0..8 {
            let carry = (register & 1) ^ u32::from(byte >> bit & 1);
            register >>= 1;
            if carry == 1 {
                register ^= 0x82f6_3b78;
            }
        }
    }
    !register
}

fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "error": { "code": code, "status": code, "message": message } });
    (status, body.to_string()).into_response()
}

async fn answer(
    State(inner): State<Arc<Inner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    inner.seen.lock().unwrap().push(format!("{method} {path}"));
    let wrong = *inner.wrong.lock().unwrap();
    if wrong == Wrong::Service {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "the service is down");
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if path.starts_with("/v1/projects/") {
        inner.quota_projects.lock().unwrap().push(header("x-goog-user-project").to_owned());
    }
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let granted =
        |token: &str| json!({ "access_token": token, "expires_in": 3600 }).to_string().into_response();
    let denied = |error: &str| {
        let body = json!({ "error": error, "error_description": "AADSTS7000215: invalid secret provided" });
        (StatusCode::UNAUTHORIZED, body.to_string()).into_response()
    };
    match (method.as_str(), path.as_str()) {
        ("POST", "/token") if field("grant_type") == "refresh_token" => {
            let client = (field("client_id"), field("client_secret"));
            match field("refresh_token") {
                REFRESH_TOKEN if client == ("client", CLIENT_SECRET) => granted(TOKEN),
                DELEGATE_TOKEN if client == ("client", CLIENT_SECRET) => granted("federated"),
                _ => {
                    let told = "Token has been expired or revoked.";
                    let body = json!({ "error": "invalid_grant", "error_description": told });
                    (StatusCode::BAD_REQUEST, body.to_string()).into_response()
                }
            }
        }
        ("POST", "/token") => match is_signed(&inner, field("assertion")) {
            true => granted(TOKEN),
            false => denied("invalid_grant"),
        },
        ("GET", "/computeMetadata/v1/instance/service-accounts/default/token")
            if header("metadata-flavor") == "Google" =>
        {
            granted(TOKEN)
        }
        ("GET", "/workload-token") if header("authorization") == format!("bearer {REQUEST_TOKEN}") => {
            json!({ "count": 1, "value": WORKLOAD_TOKEN }).to_string().into_response()
        }
        ("POST", "/sts") => match (field("subject_token"), field("audience")) {
            (WORKLOAD_TOKEN, DIRECT) => granted(TOKEN),
            (WORKLOAD_TOKEN, _) => granted("federated"),
            _ => denied("invalid_grant"),
        },
        ("POST", "/impersonate") if header("authorization") == "Bearer federated" => {
            json!({ "accessToken": TOKEN, "expireTime": "2099-01-01T00:00:00Z" }).to_string().into_response()
        }
        ("POST", "/impersonate") => {
            let told = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource";
            refuse(StatusCode::FORBIDDEN, "PERMISSION_DENIED", told)
        }
        ("POST", "/tenant/oauth2/v2.0/token") => {
            let proof = form.get("client_secret").or_else(|| form.get("client_assertion"));
            let known = proof.is_some_and(|proof| proof == AZURE_SECRET || proof == WORKLOAD_TOKEN);
            let scoped = field("scope") == "https://vault.azure.net/.default";
            if known && scoped { granted(TOKEN) } else { denied("invalid_client") }
        }
        ("GET", "/metadata/identity/oauth2/token") if header("metadata") == "true" => {
            managed(uri.query(), "2018-02-01", json!({ "access_token": TOKEN, "expires_in": "3600" }))
        }
        ("GET", "/msi/token") if header("x-identity-header") == APP_HEADER => {
            managed(uri.query(), "2019-08-01", json!({ "access_token": TOKEN, "expires_on": "4070908800" }))
        }
        (_, path) if path.starts_with("/api/v4/") || path.ends_with(".key") => {
            let gitlab = path.starts_with("/api/");
            if gitlab && header("private-token") != GITLAB_TOKEN {
                return StatusCode::UNAUTHORIZED.into_response();
            }
            if method == Method::POST || method == Method::DELETE {
                return gitlab_variable(&inner, wrong, path, &body);
            }
            match inner.files.lock().unwrap().get(path) {
                Some(text) if gitlab => json!({ "key": "K", "value": text }).to_string().into_response(),
                Some(text) => text.clone().into_response(),
                None => StatusCode::NOT_FOUND.into_response(),
            }
        }
        _ if header("authorization") != format!("Bearer {TOKEN}") => {
            refuse(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", "who are you?")
        }
        (method, path) if path.starts_with("/v1/") => {
            let query = uri.query().unwrap_or_default();
            let made = make_google(&inner, wrong, (method, &path[4..], query), &body);
            made.unwrap_or_else(|| google(&inner, wrong, (method, &path[4..]), &body))
        }
        (method, path) if path.starts_with("/keys/") => azure(&inner, wrong, (method, path), &body),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A token of an identity that Azure manages: the one that is there anyway, or the one of the client `client`.
fn managed(query: Option<&str>, version: &str, token: Value) -> Response {
    let query = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let query: BTreeMap<String, String> = query.into_owned().collect();
    let asked = |name: &str| query.get(name).map_or("", String::as_str);
    let fits = asked("api-version") == version && asked("resource") == "https://vault.azure.net";
    if fits && ["", "client"].contains(&asked("client_id")) {
        return token.to_string().into_response();
    }
    let body = json!({ "error": "invalid_request", "error_description": "Identity not found" });
    (StatusCode::BAD_REQUEST, body.to_string()).into_response()
}

fn is_signed(inner: &Inner, assertion: &str) -> bool {
    let Some((text, signature)) = assertion.rsplit_once('.') else { return false };
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    let account = inner.account.lock().unwrap();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, account.as_slice())
        .verify(text.as_bytes(), &signature)
        .is_ok()
}

/// A variable of the one project; a DELETE forgets it.
fn gitlab_variable(inner: &Inner, wrong: Wrong, path: &str, body: &[u8]) -> Response {
    let Ok(variable) = serde_json::from_slice::<Value>(body) else {
        let gone = inner.files.lock().unwrap().remove(path);
        return if gone.is_some() { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }.into_response();
    };
    let text = |name: &str| variable[name].as_str().unwrap_or_default().to_owned();
    // The password before it was taken.
    if wrong == Wrong::MayCreate && text("key") == "COSIGN_PRIVATE_KEY" {
        return StatusCode::FORBIDDEN.into_response();
    }
    inner.files.lock().unwrap().insert(format!("{path}/{}", text("key")), text("value"));
    (StatusCode::CREATED, variable.to_string()).into_response()
}

/// The key `app` of the key ring `new`, neither of which is there at first; no answer for anything else.
fn make_google(
    inner: &Inner,
    wrong: Wrong,
    (method, path, query): (&str, &str, &str),
    body: &[u8],
) -> Option<Response> {
    const RINGS: &str = "projects/p/locations/l/keyRings";
    let key = format!("{RINGS}/new/cryptoKeys/app");
    let mut made = inner.made.lock().unwrap();
    let answer = |value: Value| Some(value.to_string().into_response());
    let missing = || Some(refuse(StatusCode::NOT_FOUND, "NOT_FOUND", "no such key"));
    let denied = || Some(refuse(StatusCode::FORBIDDEN, "PERMISSION_DENIED", "you may not"));
    let new = match (path.strip_prefix(RINGS)?, query) {
        ("", "keyRingId=new") => format!("{RINGS}/new"),
        ("/new/cryptoKeys", "cryptoKeyId=app") => {
            let request: Value = serde_json::from_slice(body).unwrap();
            assert_eq!(request["purpose"], "ASYMMETRIC_SIGN");
            assert_eq!(request["versionTemplate"]["algorithm"], "EC_SIGN_P256_SHA256");
            key
        }
        ("/new" | "/new/cryptoKeys/app", "") => {
            return if made.iter().any(|made| made == path) {
                answer(json!({ "name": path }))
            } else {
                missing()
            };
        }
        ("/new/cryptoKeys/app/cryptoKeyVersions", _) => {
            // Its first version takes a moment.
            let versions = [json!({ "name": format!("{key}/cryptoKeyVersions/1"), "state": "ENABLED" })];
            let ready = made.iter().any(|made| made == "ready");
            made.push("ready".to_owned());
            return answer(json!({ "cryptoKeyVersions": if ready { &versions[..] } else { &[] } }));
        }
        ("/new/cryptoKeys/app/cryptoKeyVersions/1/publicKey", _) => {
            return answer(json!({ "algorithm": "EC_SIGN_P256_SHA256", "pem": pem(&inner.google) }));
        }
        _ => return None,
    };
    if method != "POST" || wrong == Wrong::MayCreate {
        return denied();
    }
    made.push(new.clone());
    answer(json!({ "name": new }))
}

fn google(inner: &Inner, wrong: Wrong, (method, path): (&str, &str), body: &[u8]) -> Response {
    let version = format!("{GCP_KEY}/cryptoKeyVersions/7");
    match (method, path.strip_prefix(GCP_KEY)) {
        ("GET", Some("/cryptoKeyVersions")) => {
            json!({ "cryptoKeyVersions": [{ "name": version, "state": "ENABLED" }] })
                .to_string()
                .into_response()
        }
        ("GET", Some("/cryptoKeyVersions/7/publicKey")) => {
            let pem = pem(&inner.google);
            json!({
                "name": version, "algorithm": "EC_SIGN_P256_SHA256", "pemCrc32c": crc32c(pem.as_bytes()).to_string(),
                "pem": pem,
            })
            .to_string()
            .into_response()
        }
        ("GET", Some("/cryptoKeyVersions/8/publicKey")) => {
            json!({ "algorithm": "RSA_SIGN_PSS_2048_SHA256", "pem": pem(&inner.google) })
                .to_string()
                .into_response()
        }
        ("POST", Some("/cryptoKeyVersions/7:asymmetricSign")) => {
            if wrong == Wrong::MaySign {
                let text = "Permission 'cloudkms.cryptoKeyVersions.useToSign' denied on resource";
                return refuse(StatusCode::FORBIDDEN, "PERMISSION_DENIED", text);
            }
            let request: Value = serde_json::from_slice(body).unwrap();
            let digest = STANDARD.decode(request["digest"]["sha256"].as_str().unwrap()).unwrap();
            let sum = crc32c(&digest).to_string();
            let whole = request["digestCrc32c"].as_str() == Some(sum.as_str()) && wrong != Wrong::DigestSum;
            let pair = if wrong == Wrong::Key { &inner.other } else { &inner.google };
            let signature = sign(pair, &digest);
            let sum = crc32c(&signature) ^ u32::from(wrong == Wrong::SignatureSum);
            json!({
                "name": version, "signature": STANDARD.encode(signature), "signatureCrc32c": sum.to_string(),
                "verifiedDigestCrc32c": whole,
            })
            .to_string()
            .into_response()
        }
        _ => refuse(StatusCode::NOT_FOUND, "NOT_FOUND", "no such key"),
    }
}

fn azure(inner: &Inner, wrong: Wrong, (method, path): (&str, &str), body: &[u8]) -> Response {
    let is_made = inner.made.lock().unwrap().iter().any(|made| made == "azure");
    match (method, path) {
        ("POST", "/keys/new/create") if wrong == Wrong::MayCreate => {
            refuse(StatusCode::FORBIDDEN, "Forbidden", "The user does not have keys create permission")
        }
        ("GET", "/keys/new/") if !is_made => {
            refuse(StatusCode::NOT_FOUND, "KeyNotFound", "A key with that name was not found")
        }
        ("GET", "/keys/app/" | "/keys/app/0a1b" | "/keys/new/") | ("POST", "/keys/new/create") => {
            if method == "POST" {
                let request: Value = serde_json::from_slice(body).unwrap();
                assert_eq!((&request["kty"], &request["crv"]), (&"EC".into(), &"P-256".into()));
                inner.made.lock().unwrap().push("azure".to_owned());
            }
            let point = &inner.azure.public_key().as_ref()[1..];
            let encode = |number: &[u8]| URL_SAFE_NO_PAD.encode(number);
            json!({ "key": {
                "kid": "https://elsewhere.example/keys/app/0a1b", "kty": "EC-HSM", "crv": "P-256",
                "x": encode(&point[..32]), "y": encode(&point[32..]),
            }})
            .to_string()
            .into_response()
        }
        ("POST", "/keys/app/0a1b/sign") => {
            if wrong == Wrong::MaySign {
                return refuse(
                    StatusCode::FORBIDDEN,
                    "Forbidden",
                    "The user does not have keys sign permission",
                );
            }
            let request: Value = serde_json::from_slice(body).unwrap();
            assert_eq!(request["alg"], "ES256");
            let digest = URL_SAFE_NO_PAD.decode(request["value"].as_str().unwrap()).unwrap();
            let value = URL_SAFE_NO_PAD.encode(sign(&inner.azure, &digest));
            json!({ "kid": "x", "value": value }).to_string().into_response()
        }
        _ => refuse(StatusCode::NOT_FOUND, "KeyNotFound", "A key with that name was not found"),
    }
}
