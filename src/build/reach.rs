//! From a builder's place to a daemon that answers. One connection is one pod, for the whole build.

use super::route::PodContainer;
use crate::buildkit::{Client, ClientError, DialError, Tls};
use crate::cluster::builder::{self, Builder, BuilderSpec, PodRef};
use crate::cluster::exec::{self, Command, ExecEnd, ExecHandle, ExecStream};
use crate::cluster::watch::{self, Loss, LossKind, PodWatch};
use crate::cluster::{ClusterError, Connection};
use crate::event::Events;
use crate::image::Platform;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a daemon whose pod is ready may take to its first answer.
const ANSWER: Duration = Duration::from_secs(12);

/// How far the cluster's word on a pod may lag behind the end of its stream: the kubelet looks at containers once
/// a second, and a terminating pod is given 4 s to end the build.
const WORD: Duration = Duration::from_secs(5);

/// Where the builder is.
#[derive(Clone, Debug)]
pub enum Place {
    /// In the cluster.
    Cluster {
        /// The cluster.
        connection: Connection,
        /// What it is, or will be.
        spec: Box<BuilderSpec>,
        /// What was found: nothing if it has to be made.
        found: Option<Box<Builder>>,
    },
    /// Behind a unix socket.
    Unix {
        /// The socket.
        path: PathBuf,
        /// The longest wait for an answer.
        timeout: Duration,
    },
    /// At a TCP address.
    Tcp {
        /// Name or address.
        host: String,
        /// The port.
        port: u16,
        /// What TLS needs, if it is spoken.
        tls: Option<Tls>,
        /// The longest wait for an answer.
        timeout: Duration,
    },
}

/// Why no daemon answers.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// There is no builder, or it doesn't get ready.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// No tunnel into the pod.
    #[error(transparent)]
    Exec(#[from] exec::DialError),
    /// The pod, or the node that it is on, does not answer or is gone.
    #[error("{loss}")]
    Pod {
        /// What is known of it.
        loss: Box<Loss>,
        /// What was tried.
        #[source]
        source: Box<ReachError>,
    },
    /// No connection to the address.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The daemon doesn't answer.
    #[error("BuildKit at {builder} does not answer")]
    Mute {
        /// The builder, with its pod.
        builder: String,
        /// What the tunnel's other end wrote, if anything.
        stderr: Option<String>,
        /// What happened instead.
        #[source]
        source: ClientError,
    },
}

/// A daemon that answers.
#[derive(Debug)]
pub struct Reached {
    /// The connection to it.
    pub client: Client,
    /// The builder's name or address.
    pub name: String,
    /// The pod, if it runs in one.
    pub pod: Option<PodRef>,
    /// The builder was made to let QEMU run what its node does not.
    pub emulates: bool,
    /// The pod's container.
    container: String,
    cluster: Option<(Connection, PodWatch, ExecHandle)>,
}

/// Reaches a builder that is there already; `None` if it has to be made.
///
/// # Errors
/// It is there, but does not answer.
pub async fn find(place: &Place, events: &Events) -> Result<Option<Reached>, ReachError> {
    match place {
        Place::Cluster { found: None, .. } => Ok(None),
        Place::Cluster { connection, found: Some(builder), .. } => {
            let step = events.step("builder", format!("connecting to builder {}", builder.name));
            let reached = tunnel(connection, builder).await;
            match &reached {
                Ok(_) => {
                    let node = builder.pod.node.as_deref().unwrap_or("unknown");
                    step.line(format!("pod {} on node {node}", builder.pod.name));
                    step.done();
                }
                Err(error) => step.fail(error),
            }
            reached.map(Some)
        }
        Place::Unix { path, timeout } => {
            let client = Client::unix(path).await?;
            direct(client, format!("unix://{}", path.display()), *timeout).await.map(Some)
        }
        Place::Tcp { host, port, tls, timeout } => {
            let client = Client::tcp(host, *port, tls.as_ref()).await?;
            direct(client, format!("tcp://{host}:{port}"), *timeout).await.map(Some)
        }
    }
}

/// Makes a builder that isn't there, or waits for one that is being made, and reaches it.
///
/// # Errors
/// What keeps it from getting ready.
pub async fn make(place: &Place, context: &Path, events: &Events) -> Result<Reached, ReachError> {
    let Place::Cluster { connection, spec, .. } = place else {
        unreachable!("only builders in the cluster are made")
    };
    let builder = builder::ensure(connection, spec, &context.to_string_lossy(), events).await?;
    tunnel(connection, &builder).await
}

/// Opens a tunnel; what is known of the pod comes with the error where the pod may be the reason.
async fn tunnel(connection: &Connection, builder: &Builder) -> Result<Reached, ReachError> {
    let error = match open_tunnel(connection, builder).await {
        Err(error @ ReachError::Mute { .. }) => error,
        Err(ReachError::Exec(error)) if error.is_about_pod() => error.into(),
        outcome => return outcome,
    };
    let loss = Box::new(watch::examine(connection, &builder.pod).await);
    Err(ReachError::Pod { loss, source: Box::new(error) })
}

async fn open_tunnel(connection: &Connection, builder: &Builder) -> Result<Reached, ReachError> {
    let command = Command {
        pod: builder.pod.name.clone(),
        namespace: builder.namespace.clone(),
        container: builder.container.clone(),
        command: ["buildctl", "dial-stdio"].map(str::to_owned).to_vec(),
    };
    let ask = |stream: ExecStream| async move {
        let handle = stream.handle();
        let client = Client::over(stream);
        let ready = client.wait_ready(ANSWER).await;
        (client, handle, ready)
    };
    let (client, handle, ready) = exec::converse(connection, &command, ask).await?;
    if let Err(source) = ready {
        let name = format!("{} (pod {})", builder.name, builder.pod.name);
        let stderr = Some(handle.diagnosis().stderr).filter(|text| !text.is_empty());
        return Err(ReachError::Mute { builder: name, stderr, source });
    }
    let watch = PodWatch::start(connection, &builder.pod);
    Ok(Reached {
        client,
        name: builder.name.clone(),
        pod: Some(builder.pod.clone()),
        emulates: builder.emulate,
        container: builder.container.clone(),
        cluster: Some((connection.clone(), watch, handle)),
    })
}

async fn direct(client: Client, name: String, timeout: Duration) -> Result<Reached, ReachError> {
    match client.wait_ready(timeout).await {
        Ok(_) => {
            Ok(Reached { client, name, pod: None, emulates: false, container: String::new(), cluster: None })
        }
        Err(source) => Err(ReachError::Mute { builder: name, stderr: None, source }),
    }
}

impl Reached {
    /// Returns the name of the machine that builds: the pod's node, else the builder.
    pub fn machine(&self) -> &str {
        self.pod.as_ref().and_then(|pod| pod.node.as_deref()).unwrap_or(&self.name)
    }

    /// Returns the URI of the builder: its address, or in a cluster the one of its object there.
    pub fn id(&self) -> String {
        match (&self.cluster, &self.pod) {
            (Some((connection, ..)), Some(pod)) => {
                let server = connection.server().trim_end_matches('/');
                let (namespace, name) = (&pod.namespace, &self.name);
                format!("{server}/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
            }
            _ => self.name.clone(),
        }
    }

    /// Returns the container that it runs in, if it runs in a pod.
    pub fn pod_container(&self) -> Option<PodContainer> {
        let PodRef { name, namespace, .. } = self.pod.clone()?;
        Some(PodContainer { pod: name, namespace, container: self.container.clone() })
    }

    /// Returns the platforms that the daemon's worker names, its own first.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub async fn platforms(&self) -> Result<Vec<Platform>, ReachError> {
        let mute = |source| ReachError::Mute { builder: self.name.clone(), stderr: None, source };
        let workers = self.client.workers().await.map_err(mute)?;
        let worker = workers.into_iter().next().map(|worker| worker.platforms).unwrap_or_default();
        Ok(worker.iter().filter_map(|text| text.parse().ok()).collect())
    }

    /// Returns which of these architectures the pod's image brings an emulator for: BuildKit's own images do, and
    /// their daemons don't name them (buildkit solver/llbsolver/ops/exec.go). Elsewhere nobody can be asked.
    pub async fn emulators(&self, architectures: &[&str]) -> Vec<Platform> {
        let (Some((connection, ..)), Some(pod)) = (&self.cluster, &self.pod) else { return Vec::new() };
        let mut found = Vec::new();
        for architecture in architectures {
            let command = Command {
                pod: pod.name.clone(),
                namespace: pod.namespace.clone(),
                container: self.container.clone(),
                command: ["which".to_owned(), format!("buildkit-qemu-{}", qemu(architecture))].to_vec(),
            };
            match exec::run(connection, &command, ANSWER).await {
                Ok(output) if !output.stdout.is_empty() => {
                    found.push(Platform::new("linux", architecture, ""));
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the pod does not tell its emulators"),
            }
        }
        found
    }

    /// Completes when the pod is lost; never without one.
    pub async fn lost(&mut self) -> Loss {
        match &mut self.cluster {
            Some((_, watch, _)) => watch.lost().await,
            None => std::future::pending().await,
        }
    }

    /// Finds out why the connection was lost, as far as the cluster knows; nothing without a pod. Takes 2 s at most
    /// if the daemon fell silent, else a few more: news of a pod's end come after the end of its streams.
    pub async fn explain(&mut self, lost: &(dyn std::error::Error + 'static), silent: bool) -> Option<Loss> {
        let (Some((connection, watch, handle)), Some(pod)) = (&mut self.cluster, &self.pod) else {
            return None;
        };
        let tunnel = handle.diagnosis();
        tracing::debug!(%lost, ?tunnel, "the connection is lost");
        // A tunnel that ended over silence has used up the time for news already.
        let silent = silent || matches!(tunnel.end, Some(ExecEnd::Silent { .. }));
        if !silent && let Ok(loss) = tokio::time::timeout(WORD, watch.lost()).await {
            return Some(loss);
        }
        let mut loss = watch::examine(connection, pod).await;
        if loss.kind == LossKind::Silent {
            if !silent {
                loss.kind = LossKind::Cut;
            }
            loss.facts.splice(0..0, chain(lost));
        }
        Some(loss)
    }

    /// Returns how the pod was lost if it is lost now or within moments: a daemon that is told to stop ends its
    /// builds with errors that don't say so.
    pub async fn going(&mut self) -> Option<Loss> {
        tokio::time::timeout(WORD, self.lost()).await.ok()
    }
}

/// Returns QEMU's name of an architecture (buildkit util/archutil).
fn qemu(architecture: &str) -> &str {
    match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "386" => "i386",
        "loong64" => "loongarch64",
        "mips64le" => "mips64el",
        other => other,
    }
}

/// Returns an error and its causes, each that says something new.
fn chain(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    let texts = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    let mut texts: Vec<String> = texts.collect();
    texts.dedup_by(|next, last| last.contains(next.as_str()));
    texts
}
