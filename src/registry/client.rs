//! The calls of the distribution spec that pushing, signing and verifying need.

mod blobs;
mod manifests;
mod referrers;

pub use manifests::PutManifest;

use super::auth::{Access, Auth};
use super::connect::{Connect, Tcp};
use super::credentials::{Credential, Resolver};
use super::error::{Kind, RegistryError, Trouble};
use super::token::{self, Token, TokenRequest};
use super::wire::{Request, Response, Shared, Wire, place};
use super::{OptionsError, Repository};
use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderMap, Method, StatusCode};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use url::Url;

/// Manifests beyond this are refused; registries take four.
const MANIFEST_MAX: u64 = 16 << 20;
/// Redirects followed for one call.
const HOPS_MAX: usize = 5;

/// What holds for one registry.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// The registry as it stands in references: host, and port where there is one.
    pub host: String,
    /// PEM files of authorities to trust beside the system's.
    pub ca_pem: Vec<Vec<u8>>,
    /// Speak HTTP without TLS.
    pub plain_http: bool,
    /// Take any certificate.
    pub insecure_skip_verify: bool,
}

/// How long things may take, and how often they are tried.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Until a connection stands, TLS included.
    pub connect: Duration,
    /// Until an answer begins; uploads get more by their size.
    pub response: Duration,
    /// Between two pieces of an answer.
    pub idle: Duration,
    /// Further attempts at calls that do no harm when they are made twice.
    pub retries: u32,
    /// The pause before the first of them; each further one is three times as long.
    pub first_pause: Duration,
    /// All pauses of a call together.
    pub retry_budget: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            response: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            retries: 3,
            first_pause: Duration::from_millis(300),
            retry_budget: Duration::from_secs(20),
        }
    }
}

/// What a client needs to know.
#[derive(Clone)]
pub struct Options {
    /// Registries that are special in some way.
    pub hosts: Vec<HostOptions>,
    /// Who we are.
    pub resolver: Arc<Resolver>,
    /// How hosts are reached.
    pub connector: Arc<dyn Connect>,
    /// How long things may take.
    pub limits: Limits,
}

impl Options {
    /// Returns the options of a client that speaks TCP and knows of no special registry.
    pub fn new(resolver: Arc<Resolver>) -> Self {
        Self { hosts: Vec::new(), resolver, connector: Arc::new(Tcp), limits: Limits::default() }
    }
}

/// A client of registries. Clones share connections and tokens; dropping the last one closes the connections.
///
/// Every call ends within the [`Limits`], and may be cancelled by dropping it. Loopback registries are tried with
/// TLS first and without it then, unless their [`HostOptions`] say which; others need TLS.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    resolver: Arc<Resolver>,
    registries: Mutex<HashMap<String, Arc<Registry>>>,
}

struct Registry {
    wire: Wire,
    auth: Auth,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// One call below a repository.
struct Call<'a> {
    repository: &'a Repository,
    access: Access,
    method: Method,
    /// Below `/v2/PATH/`, or a whole URL that the registry gave.
    target: Target,
    headers: HeaderMap,
    body: Bytes,
    repeatable: bool,
    follow: bool,
}

enum Target {
    Path(String),
    Url(Url),
}

impl<'a> Call<'a> {
    fn new(method: Method, repository: &'a Repository, access: Access, target: Target) -> Self {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Self { repository, access, method, target, headers, body, repeatable: true, follow: true }
    }

    fn get(repository: &'a Repository, path: String) -> Self {
        Self::new(Method::GET, repository, Access::Pull, Target::Path(path))
    }
}

impl Client {
    /// Returns a client that has not connected anywhere yet.
    ///
    /// # Errors
    /// If a CA cannot be used.
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        let shared = Arc::new(Shared::new(options.hosts, options.connector, options.limits)?);
        Ok(Self(Arc::new(Inner { shared, resolver: options.resolver, registries: Mutex::default() })))
    }

    /// Gets a token from the service that a registry named, for whoever speaks to that registry himself, such as
    /// the BuildKit daemon.
    ///
    /// # Errors
    /// If the service refuses or cannot be reached, or if it is not encrypted and there is a secret to send.
    pub async fn fetch_token(
        &self,
        ask: &TokenRequest,
        credential: &Credential,
    ) -> Result<Token, RegistryError> {
        let registry = self.registry(&ask.host);
        token::fetch(&registry.wire, ask, credential)
            .await
            .map_err(|trouble| trouble.during_at("get a token for", &ask.host))
    }

    fn registry(&self, name: &str) -> Arc<Registry> {
        let mut registries = self.0.registries.lock().expect("nobody panics while holding the map");
        let registry = registries.entry(name.to_owned()).or_insert_with(|| {
            let auth = Auth::new(name, Arc::clone(&self.0.resolver));
            Arc::new(Registry { wire: Wire::new(&self.0.shared, name), auth })
        });
        Arc::clone(registry)
    }

    /// Runs some work and says on failure what it was: "cannot ACTION REPOSITORY".
    async fn run<T>(
        &self,
        repository: &Repository,
        action: &str,
        work: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, RegistryError> {
        match work.await {
            Ok(value) => Ok(value),
            Err(mut trouble) => {
                let registry = self.registry(&repository.registry);
                let (presented, known) = registry.auth.standing(&repository.path).await;
                if trouble.kind == Kind::Unauthorized && known {
                    trouble.kind = Kind::Denied;
                }
                Err(trouble.during(action, repository, presented))
            }
        }
    }

    /// Makes one call: answers challenges, follows redirects, and returns whatever comes then. Credentials go to
    /// the registry itself only, whatever host a redirect or an upload's location names.
    async fn call(&self, call: Call<'_>) -> Result<Response, Trouble> {
        let registry = self.registry(&call.repository.registry);
        let Registry { wire, auth } = &*registry;
        let mut header = auth.header(wire, call.repository, call.access).await?;
        let mut url = match call.target {
            Target::Url(url) => url,
            Target::Path(path) => below(&wire.base()?, &format!("{}/{path}", call.repository.path))?,
        };
        let (mut answered, mut hops) = (false, 0);
        loop {
            let ours = same_origin(&wire.base()?, &url);
            let mut headers = call.headers.clone();
            headers.extend(header.clone().filter(|_| ours).map(|header| (AUTHORIZATION, header)));
            let (method, body, repeatable) = (call.method.clone(), call.body.clone(), call.repeatable);
            let response = wire.send(Request { method, url, headers, body, repeatable }).await?;
            // A loopback registry may have turned out to be plain meanwhile.
            let ours = ours || same_origin(&wire.base()?, &response.url);
            if response.status == StatusCode::UNAUTHORIZED && ours && !answered {
                answered = true;
                let refused = (&response, header.as_ref());
                if let Some(fresh) = auth.answer(wire, call.repository, call.access, refused).await? {
                    header = Some(fresh);
                    url = response.url.clone();
                    response.discard().await;
                    continue;
                }
            }
            if !call.follow || !is_redirect(&call.method, response.status) {
                return Ok(response);
            }
            hops += 1;
            if hops > HOPS_MAX {
                let what = format!("{} redirects without end", place(&response.url));
                return Err(Trouble::new(Kind::Protocol, what));
            }
            url = location(&response)?;
            response.discard().await;
        }
    }

    /// Reads the whole answer of a call that changes nothing; none if there is no such thing. An answer that
    /// breaks off is asked for once more.
    async fn read<'a>(
        &self,
        call: impl Fn() -> Call<'a> + Send,
        max: u64,
    ) -> Result<Option<(HeaderMap, Bytes)>, Trouble> {
        let mut again = true;
        loop {
            let response = self.call(call()).await?;
            if response.status == StatusCode::NOT_FOUND {
                response.discard().await;
                return Ok(None);
            }
            if !response.status.is_success() {
                return Err(response.refusal().await);
            }
            let headers = response.headers.clone();
            match response.bytes(max).await {
                Ok(bytes) => return Ok(Some((headers, bytes))),
                Err(trouble) if trouble.kind == Kind::Disconnected && again => again = false,
                Err(trouble) => return Err(trouble),
            }
        }
    }
}

fn is_redirect(method: &Method, status: StatusCode) -> bool {
    match status.as_u16() {
        307 | 308 => true,
        301..=303 => matches!(*method, Method::GET | Method::HEAD),
        _ => false,
    }
}

fn below(base: &Url, path: &str) -> Result<Url, Trouble> {
    base.join(path)
        .map_err(|error| Trouble::new(Kind::Protocol, format!("`{path}` makes no URL")).caused_by(error))
}

fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// Returns where an answer points.
fn location(response: &Response) -> Result<Url, Trouble> {
    let at = place(&response.url);
    let text = response.header(LOCATION);
    let text =
        text.ok_or_else(|| Trouble::new(Kind::Protocol, format!("the answer of {at} lacks its location")))?;
    let mut url = response.url.join(text).map_err(|error| {
        Trouble::new(Kind::Protocol, format!("the location that {at} gives is no URL")).caused_by(error)
    })?;
    if response.url.scheme() == "https" && url.scheme() == "http" {
        // Registries behind a proxy that ends TLS often don't know that they are: the host is right, the scheme
        // is not. Anything else would take the content off TLS.
        let (port, same_host) = (response.url.port(), response.url.host() == url.host());
        if !same_host || url.set_scheme("https").is_err() || url.set_port(port).is_err() {
            let what = format!("{at} points to {}, which is not encrypted", place(&url));
            return Err(Trouble::new(Kind::Protocol, what));
        }
    }
    match url.scheme() {
        "http" | "https" => Ok(url),
        scheme => {
            Err(Trouble::new(Kind::Protocol, format!("the location that {at} gives is a {scheme} URL")))
        }
    }
}
