//! The one HTTP client of signing services: key services, certificate authorities, logs, timestamps, identity.
//!
//! It owns trust, proxies, time limits, size limits and the one policy of trying again. It never follows a
//! redirect with headers on it, never reads the environment, and its errors name service, host and path only:
//! no query, no header, no body.

use bytes::{Bytes, BytesMut};
use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::de::DeserializeOwned;
use std::error::Error;
use std::fmt;
use std::time::Duration;
use url::Url;

use crate::tls::{self, AuthorityError};

/// How often a repeatable request is sent at most.
const ATTEMPTS: u32 = 3;
/// The longest pause that a service may ask for; one that wants more is told of at once.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many redirects a bare request follows.
const REDIRECTS: u32 = 5;

/// How services are reached.
#[derive(Clone, Debug, Default)]
pub struct HttpOptions {
    /// Authorities (PEM files) in addition to the system's.
    pub extra_ca_pem: Vec<Vec<u8>>,
    /// Proxies, as the environment names them.
    pub proxies: Proxies,
    /// No certificate is checked.
    pub insecure: bool,
    /// No answer is waited for longer, whatever it usually takes.
    pub longest: Option<Duration>,
}

/// Proxies as `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` name them.
#[derive(Clone, Default)]
pub struct Proxies {
    /// For `https://` services.
    pub https: Option<String>,
    /// For `http://` services.
    pub http: Option<String>,
    /// Hosts, domains and networks that are reached without.
    pub none_for: Option<String>,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Their URLs may hold passwords.
        let given = |proxy: &Option<String>| proxy.as_ref().map(|_| "[redacted]");
        formatter
            .debug_struct("Proxies")
            .field("https", &given(&self.https))
            .field("http", &given(&self.http))
            .field("none_for", &self.none_for)
            .finish()
    }
}

/// Settings that no client can be made of.
#[derive(Debug, thiserror::Error)]
pub enum HttpOptionsError {
    /// A CA file.
    #[error("the CA file for signing services cannot be used")]
    Authority(#[from] AuthorityError),
    /// A proxy; its text may hold a password and is not repeated.
    #[error("the proxy in {0} is not a URL that can be used")]
    Proxy(&'static str),
    /// The client itself.
    #[error("no HTTP client could be made")]
    Client(#[source] reqwest::Error),
}

/// A client. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
    direct: reqwest::Client,
    longest: Option<Duration>,
}

/// One request.
#[derive(Clone)]
pub struct Request {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
    repeatable: bool,
    direct: bool,
}

/// How long an answer may take and how long it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one attempt, from the connection to the last byte.
    pub timeout: Duration,
    /// Of the body, in bytes.
    pub max_body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), max_body: 4 * 1024 * 1024 }
    }
}

impl Limits {
    /// Returns the usual limits with another timeout.
    pub fn within(timeout: Duration) -> Self {
        Self { timeout, ..Self::default() }
    }
}

/// What a service answered, whatever the status.
#[derive(Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    place: Place,
}

/// A service and the call to it, as messages name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The service, such as `Fulcio`.
    pub service: String,
    /// Method, scheme, host and path.
    pub call: String,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.service, self.call)
    }
}

/// Why there is no answer that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// No connection, or none that is trusted.
    #[error("{place} cannot be reached: {reason}")]
    Unreachable {
        /// The service.
        place: Place,
        /// What kept us from it.
        reason: String,
    },
    /// It took too long.
    #[error("{place} did not answer within {:.0?}", .limit)]
    Slow {
        /// The service.
        place: Place,
        /// How long it had.
        limit: Duration,
    },
    /// The body is too long.
    #[error("{place} answered with more than {limit} bytes")]
    TooLong {
        /// The service.
        place: Place,
        /// How long it may be.
        limit: usize,
    },
    /// The connection ended in the middle.
    #[error("{place} broke off: {reason}")]
    Broken {
        /// The service.
        place: Place,
        /// How.
        reason: String,
    },
    /// The body is not what was asked for.
    #[error("{place} answered {status} with something that is not {expected}")]
    Garbage {
        /// The service.
        place: Place,
        /// The status.
        status: StatusCode,
        /// What was asked for.
        expected: &'static str,
    },
    /// It refused. `said` is what the caller took from the answer as fit to be repeated.
    #[error("{place} answered {status}{}", words_of(.said))]
    Refused {
        /// The service.
        place: Place,
        /// The status.
        status: StatusCode,
        /// Its words; empty if it has none.
        said: String,
    },
}

fn words_of(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(": {words}") }
}

impl HttpError {
    /// Returns the status of a refusal.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } | Self::Garbage { status, .. } => Some(*status),
            _ => None,
        }
    }
}

impl Request {
    /// Returns a request without headers and body. A GET may be repeated, anything else not before
    /// [`repeatable`](Self::repeatable) says so.
    pub fn new(method: Method, url: Url) -> Self {
        let repeatable = method == Method::GET;
        Self { method, url, headers: HeaderMap::new(), body: Bytes::new(), repeatable, direct: false }
    }

    /// Returns a GET.
    pub fn get(url: Url) -> Self {
        Self::new(Method::GET, url)
    }

    /// Returns a POST of JSON.
    pub fn post_json(url: Url, body: &serde_json::Value) -> Self {
        let json = HeaderValue::from_static("application/json");
        Self::new(Method::POST, url)
            .header(http::header::CONTENT_TYPE, json.clone())
            .header(http::header::ACCEPT, json)
            .body(body.to_string())
    }

    /// Returns a POST of a form.
    pub fn post_form(url: Url, fields: &[(&str, &str)]) -> Self {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        Self::new(Method::POST, url)
            .header(http::header::CONTENT_TYPE, form)
            .header(http::header::ACCEPT, HeaderValue::from_static("application/json"))
            .body(body)
    }

    /// Sets a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets a header that is marked as secret; text that no header can hold leaves it out.
    #[must_use]
    pub fn secret_header(mut self, name: HeaderName, value: &str) -> Self {
        // A token read from a file often ends in a newline.
        if let Ok(mut value) = HeaderValue::from_str(value.trim()) {
            value.set_sensitive(true);
            self.headers.insert(name, value);
        }
        self
    }

    /// Sets `Authorization: Bearer …`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.secret_header(http::header::AUTHORIZATION, &format!("Bearer {}", token.trim()))
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Says that it does no harm when it is made twice.
    #[must_use]
    pub fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    /// Says that it is made once only, whatever comes.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.repeatable = false;
        self
    }

    /// Goes past any proxy, as calls to a machine's own metadata service must.
    #[must_use]
    pub fn direct(mut self) -> Self {
        self.direct = true;
        self
    }

    fn place(&self, service: &str) -> Place {
        Place { service: service.to_owned(), call: format!("{} {}", self.method, shown(&self.url)) }
    }
}

/// Returns a URL as messages show it: without user, password, query and fragment.
pub fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path())
}

impl fmt::Debug for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Request({} {})", self.method, shown(&self.url))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Answer({} of {}, {} bytes)", self.status, self.place, self.body.len())
    }
}

impl Answer {
    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// Reads the body of a success as JSON.
    ///
    /// # Errors
    /// [`HttpError::Garbage`]; the text holds nothing of the body.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        serde_json::from_slice(&self.body).map_err(|_| self.garbage("the JSON that was asked for"))
    }

    /// Returns an error for a body that is not what was asked for.
    pub fn garbage(&self, expected: &'static str) -> HttpError {
        HttpError::Garbage { place: self.place.clone(), status: self.status, expected }
    }

    /// Returns an error for a status that is no success. `said` are words of the answer that hold no secret,
    /// such as an error code; they are shortened, and control characters are left out.
    pub fn refused(&self, said: &str) -> HttpError {
        let said: String = said.chars().filter(|letter| !letter.is_control()).take(300).collect();
        HttpError::Refused { place: self.place.clone(), status: self.status, said }
    }
}

impl Http {
    /// Returns a client.
    ///
    /// # Errors
    /// Authorities or proxies that cannot be used.
    pub fn new(options: &HttpOptions) -> Result<Self, HttpOptionsError> {
        let authorities = tls::authorities(&options.extra_ca_pem)?;
        let build = |proxies: Vec<reqwest::Proxy>| {
            let mut config = tls::client_config(&authorities, options.insecure);
            // Few and small calls: a second protocol would be weight without gain.
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let builder = reqwest::Client::builder()
                .tls_backend_preconfigured(config)
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .user_agent(concat!("kubectl-build/", env!("CARGO_PKG_VERSION")))
                .referer(false)
                // The environment is read elsewhere.
                .no_proxy();
            proxies.into_iter().fold(builder, reqwest::ClientBuilder::proxy).build()
        };
        let direct = build(Vec::new()).map_err(HttpOptionsError::Client)?;
        let proxies = proxies(&options.proxies)?;
        let client = match proxies.is_empty() {
            true => direct.clone(),
            false => build(proxies).map_err(HttpOptionsError::Client)?,
        };
        Ok(Self { client, direct, longest: options.longest })
    }

    /// Sends a request and reads the whole answer, whatever its status. A repeatable one is tried up to three
    /// times where no connection comes to stand, on 429 and on 5xx; `Retry-After` is obeyed up to 10 s.
    ///
    /// # Errors
    /// [`HttpError`], naming the service and the call.
    pub async fn send(&self, service: &str, request: Request, limits: Limits) -> Result<Answer, HttpError> {
        let mut request = request;
        let (mut attempt, mut redirects, mut pause) = (1, 0, FIRST_PAUSE);
        loop {
            let place = request.place(service);
            let result = self.attempt(&request, &place, limits).await;
            tracing::debug!(%place, attempt, status = ?result.as_ref().ok().map(|answer| answer.status.as_u16()), "called");
            if let Some(next) = result.as_ref().ok().and_then(|answer| redirect(&request, answer))
                && redirects < REDIRECTS
            {
                redirects += 1;
                request.url = next;
                continue;
            }
            let again = match &result {
                Ok(answer) => passing(answer).map(|asked| asked.unwrap_or(pause)),
                Err(HttpError::Unreachable { .. }) => Some(pause),
                Err(_) => None,
            };
            match again.filter(|wait| request.repeatable && attempt < ATTEMPTS && *wait <= LONGEST_PAUSE) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return result,
            }
            attempt += 1;
            pause *= 3;
        }
    }

    async fn attempt(&self, request: &Request, place: &Place, limits: Limits) -> Result<Answer, HttpError> {
        let whole = self.exchange(request, place, limits.max_body);
        let limit = self.longest.map_or(limits.timeout, |longest| longest.min(limits.timeout));
        let slow = || HttpError::Slow { place: place.clone(), limit };
        tokio::time::timeout(limit, whole).await.map_err(|_| slow())?
    }

    async fn exchange(&self, request: &Request, place: &Place, max_body: usize) -> Result<Answer, HttpError> {
        let client = if request.direct { &self.direct } else { &self.client };
        let builder = client
            .request(request.method.clone(), request.url.clone())
            .headers(request.headers.clone())
            .body(request.body.clone());
        let mut response = builder.send().await.map_err(|error| failed(place, error))?;
        let too_long = || HttpError::TooLong { place: place.clone(), limit: max_body };
        if response.content_length().is_some_and(|length| length > max_body as u64) {
            return Err(too_long());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(place, error))? {
            if body.len() + chunk.len() > max_body {
                return Err(too_long());
            }
            body.extend_from_slice(&chunk);
        }
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        Ok(Answer { status, headers, body: body.freeze(), place: place.clone() })
    }
}

fn proxies(options: &Proxies) -> Result<Vec<reqwest::Proxy>, HttpOptionsError> {
    let none_for = options.none_for.as_deref().and_then(reqwest::NoProxy::from_string);
    type Make = fn(&str) -> reqwest::Result<reqwest::Proxy>;
    let kinds: [(_, _, Make); 2] = [
        (&options.https, "HTTPS_PROXY", |url| reqwest::Proxy::https(url)),
        (&options.http, "HTTP_PROXY", |url| reqwest::Proxy::http(url)),
    ];
    let mut all = Vec::new();
    for (url, name, make) in kinds {
        if let Some(url) = url.as_deref().filter(|url| !url.is_empty()) {
            let proxy = make(url).map_err(|_| HttpOptionsError::Proxy(name))?;
            all.push(proxy.no_proxy(none_for.clone()));
        }
    }
    Ok(all)
}

/// Where to go on, for a bare GET: one with headers might take a credential along, and one over TLS stays there.
fn redirect(request: &Request, answer: &Answer) -> Option<Url> {
    let bare = request.method == Method::GET && request.headers.is_empty();
    if !bare || !answer.status.is_redirection() {
        return None;
    }
    let next = request.url.join(answer.headers.get(LOCATION)?.to_str().ok()?).ok()?;
    (next.scheme() == "https" || next.scheme() == request.url.scheme()).then_some(next)
}

/// "The client hung up", which Rekor v2 tells all that wait for the same checkpoint as somebody who did.
const CLIENT_CLOSED: u16 = 499;

/// Whether an answer may be another one in a moment, and the pause that it asks for.
fn passing(answer: &Answer) -> Option<Option<Duration>> {
    let passes = answer.status == StatusCode::TOO_MANY_REQUESTS
        || answer.status.as_u16() == CLIENT_CLOSED
        || answer.status.is_server_error();
    passes.then(|| {
        let text = answer.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        Some(Duration::try_from(until.duration_since(jiff::Timestamp::now())).unwrap_or_default())
    })
}

/// The client's own error tells the URL with its query; what lies below it tells what happened.
fn failed(place: &Place, error: reqwest::Error) -> HttpError {
    let place = place.clone();
    let unreachable = error.is_connect() || error.is_builder();
    let error = error.without_url();
    let mut innermost: &dyn Error = &error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let reason = innermost.to_string();
    match unreachable {
        true => HttpError::Unreachable { place, reason },
        false => HttpError::Broken { place, reason },
    }
}

#[cfg(test)]
mod tests;
