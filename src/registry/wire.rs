//! HTTP to one registry, with what its token service and its storage need: connections, TLS, time limits, retries.
//!
//! Knows nothing of credentials and of the distribution protocol.

mod dial;
mod failure;
mod response;

pub(super) use dial::Shared;
pub(super) use response::Response;

use super::error::{Kind, Trouble};
use super::retry::Pauses;
use crate::task::Task;
use bytes::Bytes;
use dial::Dialer;
use http::header::{CONTENT_LENGTH, HOST, PROXY_AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioTimer;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use url::Url;

/// Connections idle for longer are not used again: load balancers forget them at about this age, silently.
const IDLE_CONNECTION: Duration = Duration::from_secs(55);
/// Uploads slower than this count as stuck.
const SLOWEST_UPLOAD: u64 = 64 * 1024;
const AGENT: &str = concat!("kubectl-build/", env!("CARGO_PKG_VERSION"));

/// What is sent. Not printable: bodies may hold tokens.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Whether sending it twice does no harm.
    pub(super) repeatable: bool,
}

impl Request {
    pub(super) fn get(url: Url) -> Self {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Self { method: Method::GET, url, headers, body, repeatable: true }
    }
}

/// The way to one registry.
pub(super) struct Wire {
    registry: String,
    shared: Arc<Shared>,
    http: Client<Dialer, Full<Bytes>>,
    /// Loopback registries are tried with TLS first, then without, as docker does.
    plain: AtomicBool,
    _connections: Arc<Connections>,
}

impl Wire {
    pub(super) fn new(shared: &Arc<Shared>, registry: &str) -> Self {
        let connections = Arc::new(Connections::default());
        let http = Client::builder(Spawner(Arc::downgrade(&connections)))
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .build(Dialer::new(shared, registry));
        let plain = AtomicBool::new(shared.options(registry).is_some_and(|options| options.plain_http));
        let (registry, shared) = (registry.to_owned(), Arc::clone(shared));
        Self { registry, shared, http, plain, _connections: connections }
    }

    /// Returns the URL below which the registry's API lives.
    pub(super) fn base(&self) -> Result<Url, Trouble> {
        let scheme = if self.is_plain() { "http" } else { "https" };
        let host = match self.registry.as_str() {
            super::reference::DOCKER_HUB => "registry-1.docker.io",
            host => host,
        };
        Url::parse(&format!("{scheme}://{host}/v2/"))
            .map_err(|error| Trouble::new(Kind::Protocol, format!("`{host}` makes no URL")).caused_by(error))
    }

    /// Whether the registry is spoken to without TLS.
    pub(super) fn is_plain(&self) -> bool {
        self.plain.load(Ordering::Relaxed)
    }

    /// Whether secrets may go to this URL: over TLS, or where the user has accepted its lack.
    pub(super) fn may_take_secrets(&self, url: &Url) -> bool {
        url.scheme() == "https" || self.is_plain() || dial::is_loopback(url) || self.shared.accepts_plain(url)
    }

    /// Sends a request, as often as its nature and the registry's answers allow, and returns the last answer.
    pub(super) async fn send(&self, request: Request) -> Result<Response, Trouble> {
        let mut pauses = Pauses::new(&self.shared.limits);
        let mut request = request;
        loop {
            let told = self.shared.proxy_authorization(&request.url).is_some();
            let outcome = self.send_once(&request).await;
            let pause = match &outcome {
                // The connection led to a proxy, as nobody knew before.
                Ok(response)
                    if response.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED
                        && !told
                        && self.shared.proxy_authorization(&request.url).is_some() =>
                {
                    continue;
                }
                Err(trouble) if self.falls_back(&request.url, trouble) => {
                    let rescheme = request.url.set_scheme("http");
                    rescheme.map_err(|()| Trouble::new(Kind::Protocol, "the URL has no plain twin"))?;
                    continue;
                }
                // It was not looked into: sending it again does no harm, whatever it is.
                Ok(response) if response.status == StatusCode::TOO_MANY_REQUESTS => {
                    pauses.next(response.retry_after())
                }
                _ if !request.repeatable => None,
                Ok(response) if is_passing(response.status) => pauses.next(response.retry_after()),
                Err(trouble) if trouble.kind == Kind::Disconnected => pauses.next(None),
                _ => None,
            };
            match pause {
                Some(pause) => {
                    tracing::debug!(registry = %self.registry, ?pause, "trying again");
                    tokio::time::sleep(pause).await;
                }
                None => return outcome,
            }
        }
    }

    async fn send_once(&self, request: &Request) -> Result<Response, Trouble> {
        let limit =
            self.shared.limits.response + Duration::from_secs(request.body.len() as u64 / SLOWEST_UPLOAD);
        let started = std::time::Instant::now();
        let answer = tokio::time::timeout(limit, self.http.request(self.message(request)?)).await;
        let at = place(&request.url);
        let way = self.shared.way(&request.url);
        let response = answer
            .map_err(|_elapsed| {
                Trouble::new(Kind::Timeout, format!("no answer from {at} within {} s", limit.as_secs()))
            })
            .and_then(|answer| answer.map_err(|error| failure::explain(error, &at)))
            .map_err(|trouble| trouble.on(way.as_ref()))?;
        tracing::debug!(
            method = %request.method, %at, path = request.url.path(), status = response.status().as_u16(),
            milliseconds = started.elapsed().as_millis(), "answered"
        );
        Ok(Response::new(response, request.url.clone(), self.shared.limits.idle, way))
    }

    fn message(&self, request: &Request) -> Result<http::Request<Full<Bytes>>, Trouble> {
        let uri: Uri = request.url.as_str().parse().map_err(|error| {
            Trouble::new(Kind::Protocol, format!("{} cannot be sent to", place(&request.url)))
                .caused_by(error)
        })?;
        let mut message = http::Request::new(Full::new(request.body.clone()));
        *message.method_mut() = request.method.clone();
        *message.uri_mut() = uri;
        *message.headers_mut() = request.headers.clone();
        message.headers_mut().remove(HOST);
        message.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if let Some(value) = self.shared.proxy_authorization(&request.url) {
            message.headers_mut().insert(PROXY_AUTHORIZATION, value);
        }
        if request.body.is_empty() && matches!(request.method, Method::POST | Method::PUT) {
            // An empty body goes out without the header otherwise, and some registries then answer 411.
            message.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Ok(message)
    }

    /// Switches a loopback registry to plain HTTP if TLS did not come about there.
    fn falls_back(&self, url: &Url, trouble: &Trouble) -> bool {
        let undecided = url.scheme() == "https" && self.shared.options(&self.registry).is_none();
        let own = self.base().is_ok_and(|base| base.host() == url.host() && base.port() == url.port());
        let no_tls = matches!(trouble.kind, Kind::PlainHttp | Kind::Tls);
        let falls = undecided && own && no_tls && dial::is_loopback(url);
        if falls {
            self.plain.store(true, Ordering::Relaxed);
        }
        falls
    }
}

/// Whether the same request may be answered better in a moment.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Returns the part of a URL that is fit to be shown: queries hold signatures.
pub(super) fn place(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => "a URL without host".to_owned(),
    }
}

/// The tasks that drive connections; they end when the wire is dropped.
#[derive(Default)]
struct Connections(Mutex<Vec<Task<()>>>);

/// Starts those tasks. Weak, because the tasks hold a clone of it.
#[derive(Clone)]
struct Spawner(Weak<Connections>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, future: F) {
        if let Some(connections) = self.0.upgrade() {
            let mut tasks = connections.0.lock().expect("nobody panics while holding the list");
            tasks.retain(|task| !task.is_finished());
            tasks.push(crate::task::spawn("registry connection", future));
        }
    }
}
