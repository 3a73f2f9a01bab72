//! How registries are reached: from here, or through the cluster by a port of a Service's pod or by a process in the
//! builder's pod. Joins `registry`'s connections and `cluster`'s streams.

mod tunnel;

use crate::cluster::builder::{self, Builder, BuilderSpec, Found};
use crate::cluster::exec::{self, Command};
use crate::cluster::service::{self, PodPort, ServiceError, ServiceName};
use crate::cluster::{ConnectOptions, Connection};
use crate::event::Events;
use crate::registry::connect::{Connect, Fault, Link, LookupError, RouteError, Target, Tcp, Way};
use crate::registry::proxy::Proxies;
use http::HeaderValue;
use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{OnceCell, watch};
use tunnel::{Passage, Tunnel};

/// How long a name may take to resolve here before the cluster is asked for a way.
const LOCAL_NAMES: Duration = Duration::from_secs(2);
/// How much longer than a connection from here one through the cluster may take: the cluster's own ends come first.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long a connection from here may take.
const DIRECT: Duration = Duration::from_secs(10);

/// How registries are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Via {
    /// From here if the name resolves, else through the cluster; names of Services through the cluster at once.
    #[default]
    Auto,
    /// From here.
    Direct,
    /// By the port of a Service's pod.
    Service,
    /// From the builder's pod.
    Builder,
}

/// The cluster that ways lead through.
#[derive(Clone, Debug)]
pub enum Cluster {
    /// Connected to.
    Known(Connection),
    /// Connected to when it is needed.
    Options(Box<ConnectOptions>),
}

/// The builder whose pod ways lead through.
#[derive(Clone, Debug)]
pub enum Through {
    /// Its pod is known.
    Pod(PodContainer),
    /// It will be made or waited for.
    Awaited,
    /// It is looked for, by name, when it is needed.
    Named(String),
    /// It is no pod.
    Outside(String),
}

/// A container that runs a builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodContainer {
    /// The pod.
    pub pod: String,
    /// Its namespace.
    pub namespace: String,
    /// The container.
    pub container: String,
}

impl From<&Builder> for PodContainer {
    fn from(Builder { pod, container, .. }: &Builder) -> Self {
        let container = container.clone();
        Self { pod: pod.name.clone(), namespace: pod.namespace.clone(), container }
    }
}

/// Finds the way to each host that a registry client connects to.
pub struct Router {
    via: Via,
    cluster: Cluster,
    connected: OnceCell<Connection>,
    through: watch::Sender<Through>,
    proxies: Proxies,
    events: Events,
    routes: Mutex<HashMap<(String, u16), Route>>,
    /// Pods of a Service take turns.
    turn: AtomicUsize,
}

/// How a host is reached.
#[derive(Clone, Debug)]
enum Route {
    Direct,
    /// From here, by a proxy of this name.
    Proxy(String),
    Service {
        service: ServiceName,
        to: PodPort,
        /// The pod takes no connections from within: pods may reach it nevertheless.
        refused: bool,
    },
    Builder {
        builder: PodContainer,
        /// Why no shorter way is taken, where that is not plain.
        since: Option<String>,
    },
}

impl Route {
    fn way(&self) -> Option<Way> {
        Some(match self {
            Self::Direct => return None,
            Self::Proxy(proxy) => Way {
                through: format!("through the proxy {proxy}"),
                hint: "HTTPS_PROXY and HTTP_PROXY name the proxy, NO_PROXY what is reached without one"
                    .to_owned(),
            },
            Self::Service { service, to: PodPort { pod, namespace, port }, .. } => Way {
                through: format!("through pod `{pod}`, port {port}, of the {service}"),
                hint: format!("`kubectl get pod -n {namespace} {pod}` tells how it is"),
            },
            Self::Builder { builder: PodContainer { pod, namespace, .. }, since } => Way {
                through: match since {
                    Some(why) => format!("through pod `{pod}` of the builder, since {why}"),
                    None => format!("through pod `{pod}` of the builder"),
                },
                hint: format!(
                    "`kubectl exec -n {namespace} {pod} -- nc HOST PORT` shows what the builder's pod reaches"
                ),
            },
        })
    }
}

impl Router {
    /// Returns one that has asked nobody yet. Ways through others are told to `events`, each once.
    pub fn new(via: Via, cluster: Cluster, through: Through, proxies: Proxies, events: Events) -> Self {
        let (through, _) = watch::channel(through);
        let (connected, routes, turn) = Default::default();
        Self { via, cluster, connected, through, proxies, events, routes, turn }
    }

    /// Says which pod ways may lead through, if that was not known.
    pub fn builder_is(&self, pod: PodContainer) {
        self.through.send_if_modified(|through| {
            let news = matches!(through, Through::Awaited);
            if news {
                *through = Through::Pod(pod);
            }
            news
        });
    }

    /// Completes once the builder is there, or there is none to wait for.
    pub async fn builder_there(&self) {
        let mut through = self.through.subscribe();
        // The sender is ours.
        let _there = through.wait_for(|through| !matches!(through, Through::Awaited)).await;
    }

    async fn cluster(&self) -> Result<&Connection, RouteError> {
        let connect = async {
            match &self.cluster {
                Cluster::Known(connection) => Ok(connection.clone()),
                Cluster::Options(options) => Connection::connect(options, &self.events).await,
            }
        };
        self.connected.get_or_try_init(|| connect).await.map_err(|error| {
            let hint = error.hint();
            no_way("there is no cluster to reach it through", hint).because(error)
        })
    }

    fn routes(&self) -> MutexGuard<'_, HashMap<(String, u16), Route>> {
        self.routes.lock().expect("nobody panics while holding the map")
    }

    fn known(&self, to: Target<'_>) -> Option<Route> {
        self.routes().get(&(to.host.to_owned(), to.port)).cloned()
    }

    /// Keeps a way, and tells of it if it is another than the last.
    fn keep(&self, to: Target<'_>, route: Route) {
        let told = route.way().map(|way| format!("connecting to {} {}", at(to), way.through));
        let before = self.routes().insert((to.host.to_owned(), to.port), route);
        let known = before
            .and_then(|route| route.way())
            .map(|way| format!("connecting to {} {}", at(to), way.through));
        if let Some(told) = told.filter(|told| known.as_ref() != Some(told)) {
            self.events.note(told);
        }
    }

    async fn auto(self: &Arc<Self>, to: Target<'_>) -> io::Result<Link> {
        match self.known(to) {
            Some(Route::Direct | Route::Proxy(_)) => return self.direct(to).await,
            Some(Route::Builder { since, .. }) => return Ok(self.builder(to, since).await?),
            Some(Route::Service { service, to: PodPort { pod, port, .. }, refused: true }) => {
                let why =
                    format!("port {port} of pod `{pod}` of the {service} takes no forwarded connections");
                return Ok(self.builder(to, Some(why)).await?);
            }
            Some(Route::Service { service, .. }) => return Ok(self.service_or_builder(to, &service).await?),
            None => {}
        }
        if to.host.parse::<IpAddr>().is_ok() || to.host == "localhost" {
            return self.direct(to).await;
        }
        if ServiceName::of_host(to.host, "").is_some_and(|service| service.certain) {
            return match self.cluster().await {
                Ok(cluster) => {
                    // The cluster's own names resolve in its pods.
                    if cluster.is_from_inside()
                        && let Ok(addresses) = resolve(to).await
                    {
                        return self.keep_direct(to, addresses).await;
                    }
                    let service = ServiceName::of_host(to.host, cluster.namespace());
                    let service = service.expect("the host names one");
                    Ok(self.service_or_builder(to, &service).await?)
                }
                Err(no_cluster) => match resolve(to).await {
                    _ if self.proxies.find(to).is_some() => self.direct(to).await,
                    Ok(addresses) => self.keep_direct(to, addresses).await,
                    Err(_) => Err(no_cluster.about(to).into()),
                },
            };
        }
        if self.proxies.find(to).is_some() {
            return self.direct(to).await;
        }
        let unresolved = match resolve(to).await {
            Ok(addresses) => return self.keep_direct(to, addresses).await,
            Err(error) => error,
        };
        let Ok(cluster) = self.cluster().await else { return Err(unresolved) };
        if let Some(service) = ServiceName::of_host(to.host, cluster.namespace()) {
            match self.service(to, &service).await {
                Ok(link) => return Ok(link),
                // There is one, and it is of no use.
                Err(Failed { found: true, reachable_by_pods: false, error }) => return Err(error.into()),
                Err(_) => {}
            }
        }
        match self.builder(to, None).await {
            Ok(link) => Ok(link),
            Err(error) if error.fault == Fault::NoBuilderYet => Err(error.into()),
            Err(error) => {
                tracing::debug!(%error, "no way through a builder either");
                Err(unresolved)
            }
        }
    }

    async fn direct(&self, to: Target<'_>) -> io::Result<Link> {
        let Some(proxy) = self.proxies.find(to) else { return within(Tcp.connect(to)).await };
        self.keep(to, Route::Proxy(proxy.to_string()));
        within(proxy.connect(to)).await
    }

    async fn keep_direct(&self, to: Target<'_>, addresses: Vec<SocketAddr>) -> io::Result<Link> {
        self.keep(to, Route::Direct);
        within(Tcp::to(addresses)).await
    }

    async fn service_or_builder(
        self: &Arc<Self>,
        to: Target<'_>,
        service: &ServiceName,
    ) -> Result<Link, RouteError> {
        let failed = match self.service(to, service).await {
            Ok(link) => return Ok(link),
            Err(failed) => failed,
        };
        if !failed.reachable_by_pods {
            return Err(failed.error);
        }
        match self.builder(to, None).await {
            Err(error) if error.fault != Fault::NoBuilderYet => {
                let RouteError { what, hint, .. } = error;
                let hint = failed.error.hint.clone().or(hint);
                Err(RouteError { what: format!("{}, and {what}", failed.error.what), hint, ..failed.error })
            }
            outcome => outcome,
        }
    }

    /// Goes by a port of one of the Service's pods.
    async fn service(self: &Arc<Self>, to: Target<'_>, service: &ServiceName) -> Result<Link, Failed> {
        let cluster = self.cluster().await.map_err(|error| Failed::from(error.about(to)))?;
        let pods = service::pods(cluster, service, to.port).await.map_err(|error| {
            let forbidden = matches!(&error, ServiceError::Api(error) if error.is_forbidden());
            let (reachable_by_pods, hint) =
                (error.may_be_reached_by_pods(), or_builder(error.hint(), forbidden));
            let found = matches!(error, ServiceError::NoPort { .. } | ServiceError::NotReady { .. });
            let error = match error {
                ServiceError::Api(error) => {
                    no_way(format!("{} is not reached through the {service}", at(to)), hint).because(error)
                }
                error => no_way(format!("{} is not reached: {error}", at(to)), hint),
            };
            Failed { reachable_by_pods, found, error }
        })?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let pod = pods[turn % pods.len()].clone();
        let PodPort { pod: name, namespace, port } = &pod;
        let stream = exec::forward(cluster, namespace, name, *port).await.map_err(|error| {
            let reachable_by_pods =
                matches!(&error, exec::DialError::Api { source, .. } if source.is_forbidden());
            let fault = if error.is_about_pod() { Fault::Broken } else { Fault::NoWay };
            let hint = or_builder(error.hint(), reachable_by_pods);
            let what =
                format!("{} is not reached through pod `{name}`, port {port}, of the {service}", at(to));
            let error = RouteError { fault, ..no_way(what, hint).because(error) };
            Failed { reachable_by_pods, found: true, error }
        })?;
        let route = Route::Service { service: service.clone(), to: pod, refused: false };
        let passage = Passage::port(at(to), route.way().expect("it is a way"), self, to);
        self.keep(to, route);
        Ok(Link { io: Box::new(Tunnel::new(stream, passage)), endless: false, forwards: false })
    }

    /// Notes that the pods of a Service take no connections from within.
    fn refused(&self, host: &str, port: u16) {
        if let Some(Route::Service { refused, .. }) = self.routes().get_mut(&(host.to_owned(), port)) {
            *refused = true;
        }
    }

    /// Goes by a process in the builder's pod.
    async fn builder(&self, to: Target<'_>, since: Option<String>) -> Result<Link, RouteError> {
        // Hosts are a registry's word, and what follows is a command line.
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b".:_-".contains(&byte);
        if to.host.starts_with('-') || !to.host.bytes().all(harmless) {
            return Err(no_way(format!("`{}` is no name to look for in a builder's pod", to.host), None));
        }
        let builder = self.builders_pod(to).await?;
        let cluster = self.cluster().await.map_err(|error| error.about(to))?;
        let PodContainer { pod, namespace, container } = builder.clone();
        let words = ["nc".to_owned(), to.host.to_owned(), to.port.to_string()].to_vec();
        let command = Command { pod: pod.clone(), namespace, container, command: words };
        let stream = exec::dial(cluster, &command).await.map_err(|error| {
            let hint = error.hint();
            no_way(format!("{} is not reached through pod `{pod}` of the builder", at(to)), hint)
                .because(error)
        })?;
        let route = Route::Builder { builder, since };
        let passage = Passage::process(at(to), to.host, route.way().expect("it is a way"));
        self.keep(to, route);
        Ok(Link { io: Box::new(Tunnel::new(stream, passage)), endless: true, forwards: false })
    }

    async fn builders_pod(&self, to: Target<'_>) -> Result<PodContainer, RouteError> {
        let through = self.through.borrow().clone();
        let name = match through {
            Through::Pod(pod) => return Ok(pod),
            Through::Awaited => {
                let what = format!("{} is reached through the builder, which is not there yet", at(to));
                return Err(RouteError { fault: Fault::NoBuilderYet, ..no_way(what, None) });
            }
            Through::Outside(name) => {
                let hint = "use a builder in the cluster, or a name that resolves here".to_owned();
                let what =
                    format!("{} is not reached through builder {name}, which is no pod of a cluster", at(to));
                return Err(no_way(what, Some(hint)));
            }
            Through::Named(name) => name,
        };
        let cluster = self.cluster().await.map_err(|error| error.about(to))?;
        let spec = BuilderSpec::named(name.as_str(), Duration::ZERO);
        let found = builder::find(cluster, &spec, "").await.map_err(|error| {
            let hint = error.hint();
            no_way(format!("{} is not reached through builder {name}", at(to)), hint).because(error)
        })?;
        let Found::Ready(found) = found else {
            let namespace = cluster.namespace();
            let hint =
                format!("`kubectl buildkit create {name}` makes one; `-n` and `--builder` choose another");
            let what = format!(
                "no pod of builder {name} in namespace {namespace} is there to reach {} through",
                at(to)
            );
            return Err(no_way(what, Some(hint)));
        };
        let pod = PodContainer::from(&*found);
        self.through.send_replace(Through::Pod(pod.clone()));
        Ok(pod)
    }
}

/// [`Router`] as registry clients take it.
pub struct Ways(pub Arc<Router>);

#[async_trait::async_trait]
impl Connect for Ways {
    async fn connect(&self, to: Target<'_>) -> io::Result<Link> {
        let router = &self.0;
        match router.via {
            Via::Direct => router.direct(to).await,
            Via::Auto => router.auto(to).await,
            Via::Builder => Ok(router.builder(to, None).await?),
            Via::Service => {
                let cluster = router.cluster().await.map_err(|error| error.about(to))?;
                let Some(service) = ServiceName::of_host(to.host, cluster.namespace()) else {
                    let what = format!("`{}` is no name of a Service", to.host);
                    let hint = "such names look like NAME.NAMESPACE.svc.cluster.local; `--registry-via auto` takes others too";
                    return Err(no_way(what, Some(hint.to_owned())).into());
                };
                Ok(router.service(to, &service).await.map_err(|failed| failed.error)?)
            }
        }
    }

    fn patience(&self) -> Duration {
        if self.0.via == Via::Direct { Duration::ZERO } else { PATIENCE }
    }

    fn proxy_authorization(&self, host: &str, port: u16) -> Option<HeaderValue> {
        let to = Target { host, port, secure: false };
        // Only what is known to go there: it is nobody else's business.
        let goes = matches!(self.0.known(to), Some(Route::Proxy(_)));
        self.0.proxies.find(to).filter(|_| goes)?.authorization(to)
    }

    fn way(&self, host: &str, port: u16) -> Option<Way> {
        self.0.known(Target { host, port, secure: true })?.way()
    }
}

/// Names the way that takes no further rights.
fn or_builder(hint: Option<String>, forbidden: bool) -> Option<String> {
    let other = "; or go through the builder's pod with `--registry-via builder`";
    hint.map(|hint| if forbidden { hint + other } else { hint })
}

/// Why a Service is no way.
struct Failed {
    error: RouteError,
    reachable_by_pods: bool,
    /// It is there.
    found: bool,
}

impl From<RouteError> for Failed {
    fn from(error: RouteError) -> Self {
        Self { error, reachable_by_pods: false, found: false }
    }
}

async fn within(connecting: impl Future<Output = io::Result<Link>>) -> io::Result<Link> {
    match tokio::time::timeout(DIRECT, connecting).await {
        Ok(connected) => connected,
        Err(elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, elapsed)),
    }
}

async fn resolve(Target { host, port, .. }: Target<'_>) -> io::Result<Vec<SocketAddr>> {
    tokio::time::timeout(LOCAL_NAMES, Tcp::lookup(host, port)).await.unwrap_or_else(|elapsed| {
        let source = io::Error::new(io::ErrorKind::TimedOut, elapsed);
        Err(io::Error::new(io::ErrorKind::NotFound, LookupError { host: host.to_owned(), source }))
    })
}

fn at(Target { host, port, .. }: Target<'_>) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn no_way(what: impl Into<String>, hint: Option<String>) -> RouteError {
    RouteError { what: what.into(), hint, fault: Fault::NoWay, source: None }
}

impl RouteError {
    fn because(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Some(Arc::new(source)), ..self }
    }

    fn about(self, to: Target<'_>) -> Self {
        Self { what: format!("{} is not reached: {}", at(to), self.what), ..self }
    }
}
