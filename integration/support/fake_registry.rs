//! A fake registry for faults that real ones don't produce on demand. It keeps what is pushed in memory and
//! misbehaves as its switches say; what it is asked is recorded. Never a stand-in for a real registry in tests
//! of what users get.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use kubectl_build::registry::{Descriptor, Digest};
use kubectl_build::task::{Task, spawn};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// How the fake wants to be spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody may do anything.
    #[default]
    Open,
    /// Basic, by this user and password.
    Basic(String, String),
    /// Tokens for this user and password, from the fake's own `/token`.
    Bearer(String, String),
    /// Tokens for whoever holds this refresh token.
    Identity(String),
    /// Tokens for anybody; they allow pulling only.
    AnonymousPull,
}

/// What goes wrong. All off by default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switches {
    pub(crate) access: Access,
    /// Where the token service is said to be; the fake itself otherwise.
    pub(crate) realm: Option<String>,
    /// Tokens allow pulling only, whatever was asked for.
    pub(crate) pull_tokens: bool,
    /// Tokens end after this.
    pub(crate) token_life: Option<Duration>,
    /// `expires_in` of tokens, whatever their real life.
    pub(crate) announced_life: Option<u64>,
    /// The next so many calls are answered with this status, and this `Retry-After`.
    pub(crate) failing: Option<(usize, u16, Option<String>)>,
    /// Each answer takes this long to begin.
    pub(crate) slow: Option<Duration>,
    /// The next so many GETs of content end before their `Content-Length`.
    pub(crate) truncated: usize,
    /// Content is altered on the way, its announced digest is not.
    pub(crate) altered: bool,
    /// `Docker-Content-Digest` is left out.
    pub(crate) no_digest_header: bool,
    /// Blobs are redirected to this origin.
    pub(crate) blobs_elsewhere: Option<String>,
    /// Uploads go on at this origin.
    pub(crate) uploads_elsewhere: Option<String>,
    /// Locations are relative, with a query of their own.
    pub(crate) relative_locations: bool,
    /// The status of the referrers API; it works at 0.
    pub(crate) referrers_status: u16,
    /// Referrers come one a page.
    pub(crate) paged: bool,
    /// `OCI-Subject` is sent.
    pub(crate) oci_subject: bool,
    /// Tags cannot be moved.
    pub(crate) immutable: bool,
    /// The next so many blob PUTs lose the connection's upload: 404.
    pub(crate) lost_uploads: usize,
    /// Pushes are denied.
    pub(crate) read_only: bool,
}

/// One call that the fake has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) authorization: Option<String>,
    pub(crate) host: String,
    pub(crate) body: String,
}

#[derive(Default)]
struct Content {
    manifests: HashMap<String, (String, Bytes)>,
    blobs: HashMap<String, Bytes>,
    /// Tokens by value: when they end, and whether they allow pushing.
    tokens: HashMap<String, (Instant, bool)>,
    issued: usize,
    uploads: usize,
}

struct Inner {
    address: String,
    switches: Mutex<Switches>,
    seen: Mutex<Vec<Seen>>,
    content: Mutex<Content>,
}

/// A running fake; it ends when dropped.
pub(crate) struct FakeRegistry {
    inner: Arc<Inner>,
    _task: Task<()>,
}

impl FakeRegistry {
    /// Starts one on a free port of the loopback.
    pub(crate) async fn start(switches: Switches) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let inner = Arc::new(Inner {
            address,
            switches: Mutex::new(switches),
            seen: Mutex::default(),
            content: Mutex::default(),
        });
        let app = Router::new().fallback(serve).with_state(Arc::clone(&inner));
        let task = spawn("fake registry", async move { axum::serve(listener, app).await.unwrap() });
        Self { inner, _task: task }
    }

    /// Returns `host:port`.
    pub(crate) fn host(&self) -> &str {
        &self.inner.address
    }

    /// Returns the origin as a URL.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.inner.address)
    }

    /// Gives the switches, to be set anew.
    pub(crate) fn switches(&self) -> MutexGuard<'_, Switches> {
        self.inner.switches.lock().unwrap()
    }

    /// Returns what was seen so far, and forgets it.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.inner.seen.lock().unwrap())
    }

    /// Returns the calls seen so far as `METHOD target`, and forgets them.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        self.take_seen().into_iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect()
    }

    /// Ends all tokens at once.
    pub(crate) fn expire_tokens(&self) {
        self.inner.content.lock().unwrap().tokens.clear();
    }

    /// Keeps a blob.
    pub(crate) fn add_blob(&self, bytes: &'static [u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.inner.content.lock().unwrap().blobs.insert(digest.to_string(), Bytes::from_static(bytes));
        digest
    }

    /// Returns a blob that was pushed.
    pub(crate) fn blob(&self, digest: &Digest) -> Option<Bytes> {
        self.inner.content.lock().unwrap().blobs.get(&digest.to_string()).cloned()
    }

    /// Returns the bytes of a manifest of `team/app` by tag or digest.
    pub(crate) fn manifest(&self, reference: &str) -> Option<Bytes> {
        let content = self.inner.content.lock().unwrap();
        content.manifests.get(&format!("team/app/{reference}")).map(|(_, bytes)| bytes.clone())
    }
}

async fn serve(State(fake): State<Arc<Inner>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap_or_default();
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let seen = Seen {
        method: head.method.to_string(),
        target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        authorization: text(AUTHORIZATION),
        host: text(HOST).unwrap_or_default(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    fake.seen.lock().unwrap().push(seen.clone());
    let slow = fake.switches.lock().unwrap().slow;
    if let Some(slow) = slow {
        tokio::time::sleep(slow).await;
    }
    let mut switches = fake.switches.lock().unwrap();
    if let Some((left, status, pause)) = &mut switches.failing
        && *left > 0
    {
        *left -= 1;
        let mut response = refusal(*status, "UNAVAILABLE", "come back later");
        if let Some(pause) = pause {
            response.headers_mut().insert(RETRY_AFTER, pause.parse().unwrap());
        }
        return response;
    }
    let content_type = text(CONTENT_TYPE).unwrap_or_default();
    let mut content = fake.content.lock().unwrap();
    if head.uri.path() == "/token" {
        return token(&mut content, &switches, &seen);
    }
    let pushes = !matches!(head.method, Method::GET | Method::HEAD);
    // Uploads on another host carry their permission in the URL, as signed storage URLs do.
    let signed = seen.target.contains("signed=1");
    if !signed && let Some(response) = denied(&fake, &content, &switches, &seen, pushes) {
        return response;
    }
    if pushes && switches.read_only {
        return refusal(403, "DENIED", "requested access to the resource is denied");
    }
    let call =
        Call { method: head.method, path: head.uri.path().to_owned(), target: seen.target, content_type };
    api(&fake.address, &mut content, &mut switches, &call, body)
}

struct Call {
    method: Method,
    path: String,
    target: String,
    content_type: String,
}

fn refusal(status: u16, code: &str, message: &str) -> Response {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
    (StatusCode::from_u16(status).unwrap(), [(CONTENT_TYPE, "application/json")], body).into_response()
}

fn token(content: &mut Content, switches: &Switches, seen: &Seen) -> Response {
    let push = match &switches.access {
        Access::Bearer(user, password) => {
            let expected = basic(user, password);
            if seen.method != "GET" || seen.authorization.as_deref() != Some(&expected) {
                return refusal(401, "UNAUTHORIZED", "incorrect username or password");
            }
            seen.target.contains("push")
        }
        Access::Identity(token) => {
            if seen.method != "POST" || !seen.body.contains(&format!("refresh_token={token}")) {
                return refusal(401, "UNAUTHORIZED", "no such refresh token");
            }
            seen.body.contains("push")
        }
        _ => false,
    };
    let life = switches.token_life.unwrap_or(Duration::from_secs(300));
    let push = push && !switches.pull_tokens;
    content.issued += 1;
    let value = format!("token-{}", content.issued);
    content.tokens.insert(value.clone(), (Instant::now() + life, push));
    let announced = switches.announced_life.unwrap_or(life.as_secs());
    format!(r#"{{"token":"{value}","expires_in":{announced}}}"#).into_response()
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}")))
}

fn denied(
    fake: &Inner,
    content: &Content,
    switches: &Switches,
    seen: &Seen,
    pushes: bool,
) -> Option<Response> {
    let given = seen.authorization.as_deref();
    let realm = switches.realm.clone().unwrap_or_else(|| format!("http://{}/token", fake.address));
    let (allowed, challenge) = match &switches.access {
        Access::Open => return None,
        Access::Basic(user, password) => {
            (given == Some(&basic(user, password)), r#"Basic realm="fake""#.to_owned())
        }
        _ => {
            let token = given.and_then(|given| given.strip_prefix("Bearer "));
            let grant = token.and_then(|token| content.tokens.get(token));
            let allowed = grant.is_some_and(|(until, push)| Instant::now() < *until && (*push || !pushes));
            let scope = "repository:team/app:pull";
            (allowed, format!(r#"Bearer realm="{realm}",service="fake",scope="{scope}""#))
        }
    };
    if allowed {
        return None;
    }
    let mut response = refusal(401, "UNAUTHORIZED", "authentication required");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
    Some(response)
}

fn api(address: &str, content: &mut Content, switches: &mut Switches, call: &Call, body: Bytes) -> Response {
    let Some(rest) = call.path.strip_prefix("/v2/team/app/") else {
        return refusal(404, "NAME_UNKNOWN", "repository name not known to registry");
    };
    if let Some(reference) = rest.strip_prefix("manifests/") {
        return match call.method {
            Method::PUT => put_manifest(content, switches, call, reference, body),
            _ => get_manifest(content, switches, call, reference),
        };
    }
    if rest.starts_with("blobs/uploads/") {
        return upload(address, content, switches, call, body);
    }
    if let Some(digest) = rest.strip_prefix("blobs/") {
        if let Some(origin) = &switches.blobs_elsewhere {
            let location = format!("{origin}{}?signed=1", call.path);
            return (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)]).into_response();
        }
        return match content.blobs.get(digest) {
            Some(bytes) => sent(switches, call, "application/octet-stream", digest, bytes),
            None => refusal(404, "BLOB_UNKNOWN", "blob unknown to registry"),
        };
    }
    match rest.strip_prefix("referrers/") {
        Some(digest) => referrers(content, switches, call, digest),
        None => refusal(404, "UNSUPPORTED", "no such thing"),
    }
}

fn sent(switches: &mut Switches, call: &Call, media_type: &str, digest: &str, bytes: &Bytes) -> Response {
    let mut bytes = bytes.to_vec();
    let length = bytes.len();
    if switches.altered && !bytes.is_empty() {
        bytes[0] ^= 1;
    }
    let mut body = Body::from(bytes.clone());
    if switches.truncated > 0 && call.method == Method::GET {
        switches.truncated -= 1;
        bytes.truncate(length / 2);
        // A stream with an error after its bytes makes hyper cut the connection.
        let cut = futures_util::stream::iter([
            Ok(Bytes::from(bytes)),
            Err(std::io::Error::other("cut by a switch of the fake")),
        ]);
        body = Body::from_stream(cut);
    }
    let mut response = Response::builder().header(CONTENT_TYPE, media_type).header(CONTENT_LENGTH, length);
    if !switches.no_digest_header {
        response = response.header("Docker-Content-Digest", digest);
    }
    response.body(if call.method == Method::HEAD { Body::empty() } else { body }).unwrap()
}

fn get_manifest(content: &Content, switches: &mut Switches, call: &Call, reference: &str) -> Response {
    match content.manifests.get(&format!("team/app/{reference}")) {
        Some((media_type, bytes)) => sent(switches, call, media_type, &Digest::of(bytes).to_string(), bytes),
        None => refusal(404, "MANIFEST_UNKNOWN", "manifest unknown"),
    }
}

fn put_manifest(
    content: &mut Content,
    switches: &Switches,
    call: &Call,
    reference: &str,
    body: Bytes,
) -> Response {
    let digest = Digest::of(&body);
    let key = format!("team/app/{reference}");
    if switches.immutable && content.manifests.contains_key(&key) {
        return refusal(400, "TAG_INVALID", "the tag cannot be overwritten because it is immutable");
    }
    let subject = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let subject = subject.and_then(|manifest| manifest["subject"]["digest"].as_str().map(str::to_owned));
    content.manifests.insert(key, (call.content_type.clone(), body.clone()));
    content.manifests.insert(format!("team/app/{digest}"), (call.content_type.clone(), body));
    let mut response =
        Response::builder().status(StatusCode::CREATED).header("Docker-Content-Digest", digest.to_string());
    if let Some(subject) = subject.filter(|_| switches.oci_subject) {
        response = response.header("OCI-Subject", subject);
    }
    response.body(Body::empty()).unwrap()
}

fn upload(
    address: &str,
    content: &mut Content,
    switches: &mut Switches,
    call: &Call,
    body: Bytes,
) -> Response {
    match call.method {
        Method::POST => {
            content.uploads += 1;
            let path = format!("/v2/team/app/blobs/uploads/{}", content.uploads);
            let location = match &switches.uploads_elsewhere {
                Some(origin) => format!("{origin}{path}?signed=1"),
                None if switches.relative_locations => format!("{path}?_state=a%2Fb=="),
                None => format!("http://{address}{path}"),
            };
            (StatusCode::ACCEPTED, [(LOCATION, location)]).into_response()
        }
        Method::PUT if switches.lost_uploads > 0 => {
            switches.lost_uploads -= 1;
            refusal(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        }
        Method::PUT => {
            let digest = Digest::of(&body).to_string();
            if !call.target.ends_with(&format!("digest={digest}")) {
                return refusal(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
            }
            content.blobs.insert(digest, body);
            StatusCode::CREATED.into_response()
        }
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

fn referrers(content: &Content, switches: &Switches, call: &Call, digest: &str) -> Response {
    match switches.referrers_status {
        0 => {}
        303 => return (StatusCode::SEE_OTHER, [(LOCATION, "https://example.com/docs")]).into_response(),
        status => return refusal(status, "UNSUPPORTED", "there is no such API"),
    }
    let mut found = BTreeMap::new();
    for (media_type, bytes) in content.manifests.values() {
        let manifest: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        if manifest["subject"]["digest"] == digest {
            let mut descriptor = Descriptor::of(media_type.clone(), bytes);
            descriptor.artifact_type = manifest["artifactType"].as_str().map(str::to_owned);
            found.insert(descriptor.digest, descriptor);
        }
    }
    let all: Vec<_> = found.into_values().collect();
    let start = call.target.split_once("after=").map_or(0, |(_, number)| number.parse().unwrap());
    let end = if switches.paged { (start + 1).min(all.len()) } else { all.len() };
    let page = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": all[start..end],
    });
    let mut response = Response::builder().header(CONTENT_TYPE, "application/vnd.oci.image.index.v1+json");
    if end < all.len() {
        response = response.header("Link", format!(r#"<{}?after={end}>; rel="next""#, call.path));
    }
    response.body(Body::from(page.to_string())).unwrap()
}
