//! A registry in memory that holds its clients to the distribution and image specs, with a switch for each way in which
//! registries differ or fail. What it is asked is recorded, and so is each breach of the specs, whatever the client makes
//! of the refusal. Never a stand-in for a real registry in tests of what users get.

#![allow(dead_code, reason = "each suite uses a part of it")]

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST, LOCATION, RANGE, RETRY_AFTER,
    USER_AGENT, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use kubectl_build::registry::{Descriptor, Digest, media_type};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How the registry wants to be spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody may do anything.
    #[default]
    Open,
    /// Basic, by this user and password.
    Basic(String, String),
    /// Tokens for this user and password, from the registry's own `/token`.
    Bearer(String, String),
    /// Tokens for whoever holds this refresh token.
    Identity(String),
    /// Tokens for anybody; they allow pulling only.
    AnonymousPull,
    /// Tokens for anybody; they allow pushing too.
    AnonymousPush,
}

/// What becomes of the referrers API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Referrers {
    /// It is there, and `OCI-Subject` says so.
    #[default]
    Listed,
    /// It is there, and nothing says so.
    Silent,
    /// There is none: this status; 303 leads to a page for people.
    Missing(u16),
    /// There is none: a web page is given, as if all were well.
    Page,
}

/// In what it differs from a registry with everything. All off by default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switches {
    pub(crate) access: Access,
    /// Below these paths other users' names and passwords hold.
    pub(crate) others: BTreeMap<String, (String, String)>,
    /// Where the token service is said to be; the registry itself otherwise.
    pub(crate) realm: Option<String>,
    /// Tokens allow pulling only, whatever was asked for.
    pub(crate) pull_tokens: bool,
    /// Tokens end after this.
    pub(crate) token_life: Option<Duration>,
    /// `expires_in` of tokens, whatever their real life.
    pub(crate) announced_life: Option<u64>,
    /// The next so many calls are answered with this status, and this `Retry-After`.
    pub(crate) failing: Option<(usize, u16, Option<String>)>,
    /// Of so many calls one is told to wait a second: 429.
    pub(crate) limited: Option<usize>,
    /// Each answer takes this long to begin.
    pub(crate) slow: Option<Duration>,
    /// The next so many GETs of content end before their `Content-Length`.
    pub(crate) truncated: usize,
    /// Content is altered on the way, its announced digest is not.
    pub(crate) altered: bool,
    /// `Docker-Content-Digest` is left out.
    pub(crate) no_digest_header: bool,
    /// Blobs are kept on another host, which signed URLs lead to.
    pub(crate) blobs_elsewhere: bool,
    /// Uploads go on at that host.
    pub(crate) uploads_elsewhere: bool,
    /// The signature is left out of the URLs that lead there.
    pub(crate) unsigned_urls: bool,
    /// Locations are relative, with a query of their own.
    pub(crate) relative_locations: bool,
    pub(crate) referrers: Referrers,
    /// Referrers come one a page.
    pub(crate) paged: bool,
    /// Tags cannot be moved, not even to where they are.
    pub(crate) immutable: bool,
    /// Bodies of more bytes are refused, manifests beyond 4 MiB in any case.
    pub(crate) largest: Option<usize>,
    /// The next so many blob PUTs lose the connection's upload: 404.
    pub(crate) lost_uploads: usize,
    /// Pushes are denied.
    pub(crate) read_only: bool,
}

/// What happens to a call that a test picks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// It is answered with this status.
    Status(u16),
    /// It goes through after this time.
    Late(Duration),
    /// Its connection ends within the answer.
    Broken,
}

type Pick = Box<dyn Fn(&str, &str) -> Option<Fault> + Send>;

/// One call that it has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) authorization: Option<String>,
    pub(crate) host: String,
    /// `User-Agent`.
    pub(crate) agent: String,
    pub(crate) body: String,
}

#[derive(Default)]
struct Content {
    repositories: HashMap<String, Repository>,
    /// Tokens by value: when they end, and what they allow: repositories, and whether to push there.
    tokens: HashMap<String, (Instant, Vec<(String, bool)>)>,
    issued: usize,
    /// Uploads under way, by number: their repository and what has come.
    uploads: HashMap<usize, (String, Vec<u8>)>,
    begun: usize,
    breaches: Vec<String>,
}

#[derive(Default)]
struct Repository {
    manifests: BTreeMap<Digest, (String, Bytes)>,
    tags: BTreeMap<String, Digest>,
    blobs: HashMap<Digest, Bytes>,
    /// How often each tag was written.
    writes: BTreeMap<String, usize>,
}

struct Inner {
    address: String,
    /// Where content is kept when it is kept elsewhere.
    storage: String,
    switches: Mutex<Switches>,
    pick: Mutex<Pick>,
    seen: Mutex<Vec<Seen>>,
    content: Mutex<Content>,
}

/// A running registry; it ends when dropped.
pub(crate) struct StrictRegistry {
    inner: Arc<Inner>,
    runtime: Option<Runtime>,
}

impl StrictRegistry {
    /// Starts one on a free port of the loopback.
    pub(crate) fn start(switches: Switches) -> Self {
        Self::at("127.0.0.1", switches)
    }

    /// Starts one at an address of this machine.
    pub(crate) fn at(address: &str, switches: Switches) -> Self {
        let listener = || {
            let listener = TcpListener::bind((address, 0)).expect("an address of this machine");
            listener.set_nonblocking(true).expect("a socket");
            let host = listener.local_addr().expect("an address").to_string();
            (listener, host)
        };
        let ((listener, address), (storage_listener, storage)) = (listener(), listener());
        let inner = Arc::new(Inner {
            address,
            storage,
            switches: Mutex::new(switches),
            pick: Mutex::new(Box::new(|_, _| None)),
            seen: Mutex::default(),
            content: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        for listener in [listener, storage_listener] {
            let app = Router::new().fallback(serve).with_state(Arc::clone(&inner));
            runtime.spawn(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
                axum::serve(listener, app).await
            });
        }
        Self { inner, runtime: Some(runtime) }
    }

    /// Returns `host:port`.
    pub(crate) fn host(&self) -> &str {
        &self.inner.address
    }

    /// Returns `host:port` of where content is kept when it is kept elsewhere.
    pub(crate) fn storage(&self) -> &str {
        &self.inner.storage
    }

    /// Returns the origin as a URL.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.inner.address)
    }

    /// Gives the switches, to be set anew.
    pub(crate) fn switches(&self) -> MutexGuard<'_, Switches> {
        self.inner.switches.lock().unwrap()
    }

    /// Sets which calls go wrong from now on, by method and path.
    pub(crate) fn set(&self, pick: impl Fn(&str, &str) -> Option<Fault> + Send + 'static) {
        *self.inner.pick.lock().unwrap() = Box::new(pick);
    }

    /// Returns what was seen so far, and forgets it.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.inner.seen.lock().unwrap())
    }

    /// Returns the calls seen so far as `METHOD target`, and forgets them.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        self.take_seen().into_iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect()
    }

    /// Returns how many calls of this method whose paths hold these words have come.
    pub(crate) fn count(&self, method: &str, words: &str) -> usize {
        let seen = self.inner.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.method == method && seen.target.contains(words)).count()
    }

    /// Whether a call of this method whose path holds these words has come.
    pub(crate) fn was_asked(&self, method: &str, words: &str) -> bool {
        self.count(method, words) > 0
    }

    /// Returns the breaches of the specs so far.
    pub(crate) fn breaches(&self) -> Vec<String> {
        self.content().breaches.clone()
    }

    /// Ends all tokens at once.
    pub(crate) fn expire_tokens(&self) {
        self.content().tokens.clear();
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.inner.content.lock().unwrap()
    }

    fn of<T>(&self, repository: &str, read: impl FnOnce(&mut Repository) -> T) -> T {
        read(self.content().repositories.entry(repository.to_owned()).or_default())
    }

    /// Keeps a blob.
    pub(crate) fn add_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.of(repository, |of| of.blobs.insert(digest, Bytes::copy_from_slice(bytes)));
        digest
    }

    /// Keeps a manifest and returns its descriptor.
    pub(crate) fn add_manifest(&self, repository: &str, manifest: &Value) -> Descriptor {
        let (media_type, bytes) = (manifest["mediaType"].as_str().unwrap(), manifest.to_string());
        let descriptor = Descriptor::of(media_type, bytes.as_bytes());
        let kept = (media_type.to_owned(), Bytes::from(bytes));
        self.of(repository, |of| of.manifests.insert(descriptor.digest, kept));
        descriptor
    }

    /// Returns a blob.
    pub(crate) fn blob(&self, repository: &str, digest: &Digest) -> Option<Bytes> {
        self.of(repository, |of| of.blobs.get(digest).cloned())
    }

    /// Returns the bytes of a manifest by tag or digest.
    pub(crate) fn manifest(&self, repository: &str, reference: &str) -> Option<Bytes> {
        self.of(repository, |of| of.find(reference).map(|(_, _, bytes)| bytes.clone()))
    }

    /// Returns a manifest by tag or digest as JSON.
    pub(crate) fn json(&self, repository: &str, reference: &str) -> Value {
        let bytes =
            self.manifest(repository, reference).unwrap_or_else(|| panic!("no {repository}:{reference}"));
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Returns what a tag points at.
    pub(crate) fn digest(&self, repository: &str, tag: &str) -> Option<Digest> {
        self.of(repository, |of| of.tags.get(tag).copied())
    }

    /// Returns all tags, and how often each was written.
    pub(crate) fn tags(&self, repository: &str) -> BTreeMap<String, usize> {
        self.of(repository, |of| of.writes.clone())
    }

    /// Returns what refers to a digest, as the API would list it.
    pub(crate) fn referrers(&self, repository: &str, subject: &Digest) -> Vec<Value> {
        self.of(repository, |of| of.referrers(&subject.to_string()))
    }
}

impl Drop for StrictRegistry {
    fn drop(&mut self) {
        // Waiting for it would be wrong within a test's own runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Repository {
    fn find(&self, reference: &str) -> Option<(Digest, &str, &Bytes)> {
        let digest = reference.parse().ok().or_else(|| self.tags.get(reference).copied())?;
        self.manifests.get(&digest).map(|(media_type, bytes)| (digest, media_type.as_str(), bytes))
    }

    fn referrers(&self, subject: &str) -> Vec<Value> {
        let mut found = Vec::new();
        for (media_type, bytes) in self.manifests.values() {
            let manifest: Value = serde_json::from_slice(bytes).expect("checked when it was pushed");
            if manifest["subject"]["digest"] != subject {
                continue;
            }
            let mut entry = serde_json::to_value(Descriptor::of(media_type.clone(), bytes)).expect("JSON");
            // Where a manifest has no type of its own, its config's counts (distribution spec, "listing referrers").
            let own = manifest["artifactType"].as_str().or(manifest["config"]["mediaType"].as_str());
            entry["artifactType"] = json!(own);
            entry["annotations"] = manifest["annotations"].clone();
            found.push(entry);
        }
        found
    }
}

/// What a call comes with, beside its body.
#[derive(Default)]
struct Call {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    authorization: Option<String>,
    /// It came to the other host.
    at_storage: bool,
}

impl Call {
    fn header(&self, name: impl axum::http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn pushes(&self) -> bool {
        !matches!(self.method, Method::GET | Method::HEAD)
    }
}

async fn serve(State(registry): State<Arc<Inner>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 256 << 20).await.unwrap_or_default();
    let query = head.uri.query().unwrap_or_default();
    let mut call = Call {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        headers: head.headers,
        authorization: None,
        at_storage: false,
    };
    call.authorization = call.header(AUTHORIZATION).map(str::to_owned);
    let host = call.header(HOST).unwrap_or_default().to_owned();
    call.at_storage = host == registry.storage;
    let agent = call.header(USER_AGENT).unwrap_or_default().to_owned();
    let target = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    registry.seen.lock().unwrap().push(Seen {
        method: call.method.to_string(),
        target,
        authorization: call.authorization.clone(),
        host,
        agent,
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    let number = registry.seen.lock().unwrap().len();
    let fault = registry.pick.lock().unwrap()(call.method.as_str(), &call.path);
    let slow = registry.switches.lock().unwrap().slow;
    match fault {
        None => tokio::time::sleep(slow.unwrap_or_default()).await,
        Some(Fault::Late(pause)) => tokio::time::sleep(pause).await,
        Some(Fault::Status(status)) => return picked(status),
        Some(Fault::Broken) => {
            let response = Response::builder().header(CONTENT_LENGTH, 10);
            return response.body(cut(Bytes::new())).unwrap();
        }
    }
    let mut switches = registry.switches.lock().unwrap();
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
    if switches.limited.is_some_and(|every| number % every == 0) {
        let mut response = refusal(429, "TOOMANYREQUESTS", "you have reached your rate limit");
        response.headers_mut().insert(RETRY_AFTER, "1".parse().unwrap());
        return response;
    }
    let mut content = registry.content.lock().unwrap();
    if call.path == "/token" {
        return token(&mut content, &switches, &call, &body);
    }
    match answer(&registry, &mut content, &mut switches, &call, body) {
        Ok(response) => response,
        Err(Refused::Switched(response)) => *response,
        Err(Refused::Breach(status, code, what)) => {
            content.breaches.push(format!("{} {}: {what}", call.method, call.path));
            refusal(status, code, &what)
        }
    }
}

/// Why a call is not answered as it wants.
enum Refused {
    /// A switch says so, or what is asked for isn't there.
    Switched(Box<Response>),
    /// It is against the specs.
    Breach(u16, &'static str, String),
}

type Answer = Result<Response, Refused>;

fn refuse(status: u16, code: &str, message: &str) -> Answer {
    Err(Refused::Switched(Box::new(refusal(status, code, message))))
}

fn breach<T>(status: u16, code: &'static str, what: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Breach(status, code, what.into()))
}

fn refusal(status: u16, code: &str, message: &str) -> Response {
    let body = json!({ "errors": [{ "code": code, "message": message }] }).to_string();
    (StatusCode::from_u16(status).unwrap(), [(CONTENT_TYPE, "application/json")], body).into_response()
}

/// The answer to a call that was picked to fail.
fn picked(status: u16) -> Response {
    let (code, message) = match status {
        401 => ("UNAUTHORIZED", "authentication required"),
        403 => ("DENIED", "requested access to the resource is denied"),
        404 => ("NAME_UNKNOWN", "repository name not known to registry"),
        429 => ("TOOMANYREQUESTS", "you have reached your rate limit"),
        _ => ("UNKNOWN", "the storage is not there"),
    };
    let mut response = refusal(status, code, message);
    let more = match status {
        401 => Some((WWW_AUTHENTICATE, r#"Basic realm="fault""#)),
        429 => Some((RETRY_AFTER, "600")),
        _ => None,
    };
    response.headers_mut().extend(more.map(|(name, value)| (name, value.parse().unwrap())));
    response
}

/// A body that ends with an error, at which hyper cuts the connection.
fn cut(bytes: Bytes) -> Body {
    let error = std::io::Error::other("cut by a switch");
    Body::from_stream(futures_util::stream::iter([Ok(bytes), Err(error)]))
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}")))
}

impl Switches {
    /// Returns who may do what in a repository.
    fn login(&self, repository: &str) -> Option<(&str, &str)> {
        let other = self.others.iter().filter(|(path, _)| {
            repository
                .strip_prefix(path.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        let other = other.max_by_key(|(path, _)| path.len()).map(|(_, login)| login);
        match (&self.access, other) {
            (_, Some((user, password))) => Some((user, password)),
            (Access::Basic(user, password) | Access::Bearer(user, password), None) => Some((user, password)),
            _ => None,
        }
    }
}

fn token(content: &mut Content, switches: &Switches, call: &Call, body: &[u8]) -> Response {
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
    let by_post = call.method == Method::POST;
    let asked: Vec<String> = match by_post {
        true => form.get("scope").cloned().into_iter().collect(),
        false => {
            call.query.iter().filter(|(key, _)| key == "scope").map(|(_, scope)| scope.clone()).collect()
        }
    };
    let logins = match &switches.access {
        Access::Bearer(user, password) => vec![(user.as_str(), password.as_str())],
        _ => Vec::new(),
    };
    let others = switches.others.values().map(|(user, password)| (user.as_str(), password.as_str()));
    let is_given = |(user, password): (&str, &str)| call.authorization == Some(basic(user, password));
    let known = match &switches.access {
        Access::Identity(token) => by_post && form.get("refresh_token") == Some(token),
        Access::AnonymousPull | Access::AnonymousPush => true,
        _ => !by_post && logins.into_iter().chain(others).any(is_given),
    };
    if !known {
        return refusal(401, "UNAUTHORIZED", "incorrect username or password");
    }
    let mut grants = Vec::new();
    for scope in asked.iter().flat_map(|scopes| scopes.split_whitespace()) {
        let parts: Vec<&str> = scope.split(':').collect();
        let [kind, path, actions] = parts[..] else {
            content.breaches.push(format!("the scope `{scope}` is none"));
            return refusal(400, "UNSUPPORTED", "no such scope");
        };
        // Of what is asked for, what the user has a right to is granted, without a word (distribution docs, spec/auth).
        let may = switches.login(path).is_none_or(is_given);
        let pushes = actions.split(',').any(|action| action == "push");
        let pushes = pushes && !switches.pull_tokens && switches.access != Access::AnonymousPull;
        grants.extend((kind == "repository" && may).then(|| (path.to_owned(), pushes)));
    }
    let life = switches.token_life.unwrap_or(Duration::from_secs(300));
    content.issued += 1;
    let value = format!("token-{}", content.issued);
    content.tokens.insert(value.clone(), (Instant::now() + life, grants));
    let announced = switches.announced_life.unwrap_or(life.as_secs());
    json!({ "token": value, "expires_in": announced }).to_string().into_response()
}

/// Whether somebody may make this call; if not, how he may find out who may.
fn challenge(
    registry: &Inner,
    content: &Content,
    switches: &Switches,
    call: &Call,
    repository: Option<&str>,
) -> Result<(), Refused> {
    let given = call.authorization.as_deref();
    let realm = switches.realm.clone().unwrap_or_else(|| format!("http://{}/token", registry.address));
    let (allowed, challenge) = match &switches.access {
        Access::Open => return Ok(()),
        Access::Basic(user, password) => {
            let (user, password) = repository
                .and_then(|path| switches.login(path))
                .unwrap_or((user.as_str(), password.as_str()));
            (given == Some(basic(user, password).as_str()), r#"Basic realm="strict""#.to_owned())
        }
        _ => {
            let token = given.and_then(|given| given.strip_prefix("Bearer "));
            let grant = token.and_then(|token| content.tokens.get(token));
            let grants = grant.filter(|(until, _)| Instant::now() < *until).map(|(_, grants)| grants);
            let allowed = match (grants, repository) {
                (Some(grants), Some(path)) => {
                    grants.iter().any(|(of, push)| of == path && (*push || !call.pushes()))
                }
                (Some(_), None) => true,
                (None, _) => false,
            };
            let actions = if call.pushes() { "pull,push" } else { "pull" };
            let scope = repository.map(|path| format!(r#",scope="repository:{path}:{actions}""#));
            let scope = scope.unwrap_or_default();
            (allowed, format!(r#"Bearer realm="{realm}",service="strict"{scope}"#))
        }
    };
    if allowed {
        return Ok(());
    }
    let mut response = refusal(401, "UNAUTHORIZED", "authentication required");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
    Err(Refused::Switched(Box::new(response)))
}

fn answer(
    registry: &Inner,
    content: &mut Content,
    switches: &mut Switches,
    call: &Call,
    body: Bytes,
) -> Answer {
    if call.at_storage {
        if call.authorization.is_some() {
            // As S3: "only one auth mechanism allowed".
            return breach(400, "UNSUPPORTED", "credentials were sent to another host");
        }
        if call.parameter("signed").is_none() {
            let mut response = refusal(401, "UNAUTHORIZED", "authentication required");
            response.headers_mut().insert(WWW_AUTHENTICATE, r#"Basic realm="storage""#.parse().unwrap());
            return Err(Refused::Switched(Box::new(response)));
        }
    }
    let Some((repository, kind, rest)) = split(&call.path) else {
        if !matches!(call.path.as_str(), "/v2" | "/v2/") {
            return refuse(404, "UNSUPPORTED", "no such thing");
        }
        challenge(registry, content, switches, call, None)?;
        return Ok("{}".into_response());
    };
    if !is_name(repository) {
        return breach(400, "NAME_INVALID", format!("`{repository}` is no name of a repository"));
    }
    if !call.at_storage {
        challenge(registry, content, switches, call, Some(repository))?;
    }
    if call.pushes() && switches.read_only {
        return refuse(403, "DENIED", "requested access to the resource is denied");
    }
    if switches.largest.is_some_and(|largest| body.len() > largest) {
        return refuse(413, "SIZE_INVALID", "the body is too large");
    }
    match (kind, rest) {
        ("manifests", reference) if call.method == Method::PUT => {
            put_manifest(content, switches, call, (repository, reference), body)
        }
        ("manifests", reference) => {
            let of = content.repositories.entry(repository.to_owned()).or_default();
            get_manifest(of, switches, call, reference)
        }
        ("blobs", rest) if rest.starts_with("uploads") => {
            upload(registry, content, switches, call, (repository, rest), body)
        }
        ("blobs", digest) => get_blob(registry, content, switches, call, (repository, digest)),
        ("referrers", digest) => {
            let of = content.repositories.entry(repository.to_owned()).or_default();
            referrers(of, switches, call, digest)
        }
        ("tags", "list") => {
            let of = content.repositories.entry(repository.to_owned()).or_default();
            let tags: Vec<_> = of.tags.keys().collect();
            let list = json!({ "name": repository, "tags": tags }).to_string();
            Ok(([(CONTENT_TYPE, "application/json")], list).into_response())
        }
        _ => refuse(404, "UNSUPPORTED", "no such thing"),
    }
}

/// Takes a path apart: repository, kind of thing, and the rest.
fn split(path: &str) -> Option<(&str, &str, &str)> {
    let rest = path.strip_prefix("/v2/")?;
    ["/manifests/", "/blobs/", "/referrers/", "/tags/"].into_iter().find_map(|kind| {
        let (repository, rest) = rest.split_once(kind)?;
        Some((repository, kind.trim_matches('/'), rest))
    })
}

/// Whether the distribution spec takes it as a repository's name.
fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        let ends = |end: Option<char>| end.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends(part.chars().next())
            && ends(part.chars().last())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
    };
    name.split('/').all(part)
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=128).contains(&tag.len())
        && tag.starts_with(word)
        && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

fn sent(switches: &mut Switches, call: &Call, media_type: &str, digest: &Digest, bytes: &Bytes) -> Answer {
    let mut bytes = bytes.to_vec();
    let length = bytes.len();
    if switches.altered && !bytes.is_empty() {
        bytes[0] ^= 1;
    }
    let mut body = Body::from(bytes.clone());
    if switches.truncated > 0 && call.method == Method::GET {
        switches.truncated -= 1;
        bytes.truncate(length / 2);
        body = cut(Bytes::from(bytes));
    }
    let mut response = Response::builder().header(CONTENT_TYPE, media_type).header(CONTENT_LENGTH, length);
    if !switches.no_digest_header {
        response = response.header("Docker-Content-Digest", digest.to_string());
    }
    Ok(response.body(if call.method == Method::HEAD { Body::empty() } else { body }).unwrap())
}

fn get_manifest(of: &Repository, switches: &mut Switches, call: &Call, reference: &str) -> Answer {
    let Some((digest, media_type, bytes)) = of.find(reference) else {
        return refuse(404, "MANIFEST_UNKNOWN", "manifest unknown");
    };
    let accepted = call.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let accepted: Vec<&str> = accepted.flat_map(|value| value.split(',')).map(str::trim).collect();
    let fits =
        |accepted: &&str| [media_type, "*/*"].contains(&accepted.split(';').next().unwrap_or_default());
    if !accepted.is_empty() && !accepted.iter().any(fits) {
        return breach(404, "MANIFEST_UNKNOWN", format!("a {media_type} is not accepted"));
    }
    sent(switches, call, media_type, &digest, bytes)
}

fn put_manifest(
    content: &mut Content,
    switches: &Switches,
    call: &Call,
    (repository, reference): (&str, &str),
    body: Bytes,
) -> Answer {
    if body.len() > 4 << 20 {
        return refuse(413, "SIZE_INVALID", "the manifest is too large");
    }
    let of = content.repositories.entry(repository.to_owned()).or_default();
    let (digest, media_type) = (Digest::of(&body), call.header(CONTENT_TYPE).unwrap_or_default().to_owned());
    let subject = check_manifest(of, &media_type, &body)?;
    match reference.parse::<Digest>() {
        Ok(other) if other != digest => {
            return breach(400, "DIGEST_INVALID", format!("the content has digest {digest}"));
        }
        Err(_) if !is_tag(reference) => return breach(400, "TAG_INVALID", "it is no tag"),
        Err(_) if switches.immutable && of.tags.contains_key(reference) => {
            return refuse(400, "TAG_INVALID", "the tag cannot be overwritten because it is immutable");
        }
        Err(_) => {
            of.tags.insert(reference.to_owned(), digest);
            *of.writes.entry(reference.to_owned()).or_default() += 1;
        }
        Ok(_) => {}
    }
    of.manifests.insert(digest, (media_type, body));
    let mut response = Response::builder()
        .status(StatusCode::CREATED)
        .header(LOCATION, format!("/v2/{repository}/manifests/{digest}"))
        .header("Docker-Content-Digest", digest.to_string());
    if let Some(subject) = subject.filter(|_| switches.referrers == Referrers::Listed) {
        response = response.header("OCI-Subject", subject);
    }
    Ok(response.body(Body::empty()).unwrap())
}

/// Checks a manifest by the image spec, and that all it names is there; returns the digest of its subject.
fn check_manifest(of: &Repository, media_type: &str, body: &[u8]) -> Result<Option<String>, Refused> {
    let invalid = |what: String| breach(400, "MANIFEST_INVALID", what);
    let Ok(manifest) = serde_json::from_slice::<Value>(body) else { return invalid("it is no JSON".into()) };
    if manifest["schemaVersion"] != 2 {
        return invalid("its schemaVersion is not 2".into());
    }
    if manifest.get("mediaType").is_some_and(|own| own != media_type) {
        return invalid(format!("it says {}, and its Content-Type {media_type}", manifest["mediaType"]));
    }
    let descriptor = |value: &Value| match serde_json::from_value::<Descriptor>(value.clone()) {
        Ok(descriptor) if !descriptor.media_type.is_empty() => Ok(descriptor),
        _ => breach(400, "MANIFEST_INVALID", format!("{value} is no descriptor")),
    };
    let list = |name: &str| manifest[name].as_array().cloned().unwrap_or_default();
    match media_type {
        media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => {
            let config = &manifest["config"];
            let empty = config["mediaType"] == "application/vnd.oci.empty.v1+json";
            if empty && manifest["artifactType"].as_str().is_none_or(str::is_empty) {
                return invalid("an empty config needs an artifactType".into());
            }
            if !manifest["layers"].is_array() {
                return invalid("it has no layers".into());
            }
            for named in [config.clone()].iter().chain(&list("layers")) {
                let descriptor = descriptor(named)?;
                if named.get("urls").is_some() {
                    continue;
                }
                match of.blobs.get(&descriptor.digest) {
                    None => {
                        let what = format!("the blob {} is not there", descriptor.digest);
                        return breach(400, "MANIFEST_BLOB_UNKNOWN", what);
                    }
                    Some(blob) if blob.len() as u64 != descriptor.size => {
                        return invalid(format!("the size of {} is {}", descriptor.digest, blob.len()));
                    }
                    Some(_) => {}
                }
            }
        }
        media_type::OCI_INDEX | media_type::DOCKER_LIST => {
            if !manifest["manifests"].is_array() {
                return invalid("it has no manifests".into());
            }
            for named in list("manifests") {
                let descriptor = descriptor(&named)?;
                match of.manifests.get(&descriptor.digest) {
                    None => {
                        let what = format!("the manifest {} is not there", descriptor.digest);
                        return breach(400, "MANIFEST_BLOB_UNKNOWN", what);
                    }
                    Some((kind, bytes))
                        if bytes.len() as u64 != descriptor.size || *kind != descriptor.media_type =>
                    {
                        return invalid(format!(
                            "{} is a {kind} of {} bytes",
                            descriptor.digest,
                            bytes.len()
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
        other => return invalid(format!("`{other}` is no manifest")),
    }
    let strings = |value: &Value| value.as_object().is_some_and(|map| map.values().all(Value::is_string));
    if manifest.get("annotations").is_some_and(|annotations| !strings(annotations)) {
        return invalid("its annotations are no strings".into());
    }
    match manifest.get("subject") {
        // It need not be there.
        Some(subject) => Ok(Some(descriptor(subject)?.digest.to_string())),
        None => Ok(None),
    }
}

fn get_blob(
    registry: &Inner,
    content: &mut Content,
    switches: &mut Switches,
    call: &Call,
    (repository, digest): (&str, &str),
) -> Answer {
    let Ok(digest) = digest.parse::<Digest>() else {
        return breach(400, "DIGEST_INVALID", format!("`{digest}` is no digest"));
    };
    let of = content.repositories.entry(repository.to_owned()).or_default();
    let Some(bytes) = of.blobs.get(&digest) else {
        return refuse(404, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    if switches.blobs_elsewhere && !call.at_storage {
        let signed = if switches.unsigned_urls { "" } else { "?signed=1" };
        let location = format!("http://{}{}{signed}", registry.storage, call.path);
        return Ok((StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)]).into_response());
    }
    sent(switches, call, "application/octet-stream", &digest, bytes)
}

fn upload(
    registry: &Inner,
    content: &mut Content,
    switches: &mut Switches,
    call: &Call,
    (repository, rest): (&str, &str),
    body: Bytes,
) -> Answer {
    let location = |number: usize| {
        let path = format!("/v2/{repository}/blobs/uploads/{number}");
        match (switches.uploads_elsewhere, switches.relative_locations) {
            (true, _) => format!("http://{}{path}?signed=1", registry.storage),
            (false, true) => format!("{path}?_state=a%2Fb=="),
            (false, false) => format!("http://{}{path}", registry.address),
        }
    };
    if call.method == Method::POST {
        if let (Some(mounted), Some(from)) = (call.parameter("mount"), call.parameter("from"))
            && let Ok(digest) = mounted.parse::<Digest>()
        {
            let pulls =
                Call { method: Method::GET, authorization: call.authorization.clone(), ..Call::default() };
            challenge(registry, content, switches, &pulls, Some(from))?;
            let there = content.repositories.get(from).and_then(|from| from.blobs.get(&digest).cloned());
            if let Some(blob) = there {
                content.repositories.entry(repository.to_owned()).or_default().blobs.insert(digest, blob);
                let location = format!("/v2/{repository}/blobs/{digest}");
                return Ok((StatusCode::CREATED, [(LOCATION, location)]).into_response());
            }
        }
        content.begun += 1;
        content.uploads.insert(content.begun, (repository.to_owned(), Vec::new()));
        return Ok((StatusCode::ACCEPTED, [(LOCATION, location(content.begun))]).into_response());
    }
    let number = rest.strip_prefix("uploads/").and_then(|number| number.parse::<usize>().ok());
    let found = number.and_then(|number| Some((number, content.uploads.get_mut(&number)?)));
    let Some((number, (_, come))) = found.filter(|(_, (of, _))| of == repository) else {
        return refuse(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
    };
    let range = |come: usize| format!("0-{}", come.saturating_sub(1));
    match call.method {
        Method::PATCH => {
            let expected = format!("{}-", come.len());
            if call.header(CONTENT_RANGE).is_some_and(|range| !range.starts_with(&expected)) {
                return breach(
                    416,
                    "BLOB_UPLOAD_INVALID",
                    "the chunk does not begin where the last one ended",
                );
            }
            come.extend_from_slice(&body);
            let headers = [(LOCATION, location(number)), (RANGE, range(come.len()))];
            Ok((StatusCode::ACCEPTED, headers).into_response())
        }
        Method::PUT if switches.lost_uploads > 0 => {
            switches.lost_uploads -= 1;
            content.uploads.remove(&number);
            refuse(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        }
        Method::PUT => {
            if switches.relative_locations && call.parameter("_state").is_none() {
                return breach(400, "BLOB_UPLOAD_INVALID", "the location's own query is gone");
            }
            if !body.is_empty() && call.header(CONTENT_TYPE) != Some("application/octet-stream") {
                return breach(415, "BLOB_UPLOAD_INVALID", "the content is no application/octet-stream");
            }
            let (_, mut bytes) = content.uploads.remove(&number).expect("found before");
            bytes.extend_from_slice(&body);
            let digest = Digest::of(&bytes);
            let named = call.parameter("digest").unwrap_or_default();
            if named != digest.to_string() {
                return breach(400, "DIGEST_INVALID", format!("the content is {digest}, not {named}"));
            }
            let of = content.repositories.entry(repository.to_owned()).or_default();
            of.blobs.insert(digest, Bytes::from(bytes));
            let location = format!("/v2/{repository}/blobs/{digest}");
            let headers = [(LOCATION.as_str(), location), ("Docker-Content-Digest", digest.to_string())];
            Ok((StatusCode::CREATED, headers).into_response())
        }
        Method::DELETE => {
            content.uploads.remove(&number);
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Ok((StatusCode::NO_CONTENT, [(LOCATION, location(number)), (RANGE, range(come.len()))])
            .into_response()),
    }
}

fn referrers(of: &Repository, switches: &Switches, call: &Call, digest: &str) -> Answer {
    match switches.referrers {
        Referrers::Listed | Referrers::Silent => {}
        Referrers::Missing(303) => {
            return Ok((StatusCode::SEE_OTHER, [(LOCATION, "https://example.com/docs")]).into_response());
        }
        Referrers::Missing(status) => return refuse(status, "UNSUPPORTED", "there is no such API"),
        Referrers::Page => {
            let page = "<!DOCTYPE html><html><body>Packages</body></html>";
            return Ok(([(CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response());
        }
    }
    if digest.parse::<Digest>().is_err() {
        return breach(400, "DIGEST_INVALID", format!("`{digest}` is no digest"));
    }
    let mut all = of.referrers(digest);
    let filter = call.parameter("artifactType");
    all.retain(|entry| filter.is_none_or(|filter| entry["artifactType"] == filter));
    let start = call.parameter("after").map_or(0, |number| number.parse().unwrap());
    let end = if switches.paged { (start + 1).min(all.len()) } else { all.len() };
    let page =
        json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": all[start..end] });
    let mut response = Response::builder().header(CONTENT_TYPE, media_type::OCI_INDEX);
    if filter.is_some() {
        response = response.header("OCI-Filters-Applied", "artifactType");
    }
    if end < all.len() {
        response = response.header("Link", format!(r#"<{}?after={end}>; rel="next""#, call.path));
    }
    Ok(response.body(Body::from(page.to_string())).unwrap())
}
