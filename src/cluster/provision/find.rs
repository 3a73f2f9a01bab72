//! What a build asks about a builder before anything else starts: is it there, and how does it reach registries.

use super::super::ClusterError;
use super::super::api::{ApiError, Operation};
use super::super::buildkitd::RegistrySettings;
use super::super::choose;
use super::super::connect::Connection;
use super::super::list;
use super::super::manifest::{self, NODE_ARCHITECTURE};
use super::{Builder, BuilderSpec, config, describe, get_deployment};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use std::collections::BTreeMap;

/// What there is of a builder.
#[derive(Clone, Debug)]
pub enum Found {
    /// A pod of it takes builds now.
    Ready(Box<Builder>),
    /// There is something of that name, which will be used as it is.
    Waiting {
        /// How its daemon will reach registries; `None` where that may not be read.
        registries: Option<RegistrySettings>,
        /// The node that a pod of it is already on.
        node: Option<String>,
        /// The architecture of the nodes that it is meant for, if it says so.
        architecture: Option<String>,
        /// QEMU may run what its node does not.
        emulate: bool,
    },
    /// Nothing.
    Absent,
}

impl Found {
    /// Returns how the daemon reaches registries; `None` where that may not be read, or nothing is there.
    pub fn registries(&self) -> Option<&RegistrySettings> {
        match self {
            Self::Ready(builder) => builder.registries.as_ref(),
            Self::Waiting { registries, .. } => registries.as_ref(),
            Self::Absent => None,
        }
    }

    /// Whether the builder was made to let QEMU run what its node does not.
    pub fn emulates(&self) -> bool {
        match self {
            Self::Ready(builder) => builder.emulate,
            Self::Waiting { emulate, .. } => *emulate,
            Self::Absent => false,
        }
    }

    /// Returns the builder, if it has a pod that takes builds now.
    pub fn ready(self) -> Option<Box<Builder>> {
        match self {
            Self::Ready(builder) => Some(builder),
            Self::Waiting { .. } | Self::Absent => None,
        }
    }
}

/// Looks for a builder; makes nothing and waits for nothing.
///
/// # Errors
/// The API server's, or a name that no builder can have.
pub async fn find(connection: &Connection, spec: &BuilderSpec, key: &str) -> Result<Found, ClusterError> {
    spec.check()?;
    let NotReady { own, node } = match look(connection, spec, key).await? {
        Ok(ready) => return Ok(Found::Ready(Box::new(ready))),
        Err(not_ready) => not_ready,
    };
    // It may be starting, or have lost its pod: its settings are the same.
    let deployment = readable(get_deployment(connection, &spec.slot().object()).await)?;
    if deployment.is_none() && !matches!(own, Ok(Some(_))) {
        // What is wrong with reading it is told, unless it is a right that is missing.
        registries_of(connection, None, own).await?;
        return Ok(Found::Absent);
    }
    let template = deployment.as_ref().and_then(|it| it.spec.as_ref()?.template.spec.as_ref());
    let architecture = template.and_then(|pod| pod.node_selector.as_ref()?.get(NODE_ARCHITECTURE).cloned());
    let emulate = deployment.as_ref().is_some_and(|it| manifest::emulates(&it.metadata));
    let registries = registries_of(connection, deployment, own).await?;
    Ok(Found::Waiting { registries, node, architecture, emulate })
}

/// What a look at a builder shows that takes no builds now.
pub(super) struct NotReady {
    own: Result<Option<config::Files>, ApiError>,
    node: Option<String>,
}

/// Returns the builder if it has a pod that takes builds now: the short way of all builds but the first.
pub(super) async fn look(
    connection: &Connection,
    spec: &BuilderSpec,
    key: &str,
) -> Result<Result<Builder, NotReady>, ClusterError> {
    let (namespace, slot) = (connection.namespace(), spec.slot());
    let api: Api<Pod> = Api::namespaced(connection.client().clone(), namespace);
    let parameters = ListParams::default().labels(&slot.query());
    let pods = connection.call(Operation::many("list", "pods", namespace), || api.list(&parameters));
    // Both at once: the second connection is needed anyway, for the watch beside the build.
    let (pods, own) = tokio::join!(pods, config::read_map(connection, namespace, &spec.name));
    let pods = pods?.items;
    match choose::choose(&pods, key) {
        Some(pod) => describe(connection, &spec.name, pod, own).await.map(Ok),
        None => {
            let node = pods.iter().find_map(|pod| pod.spec.as_ref()?.node_name.clone());
            Ok(Err(NotReady { own, node }))
        }
    }
}

/// Returns the pods of a builder that take builds now, one of each architecture, for whoever may not list nodes: what
/// runs natively is what the pod was made for, if its daemon names that too, else the daemon's first platform. Empty
/// where there is one pod at most: there is nothing to choose then.
///
/// # Errors
/// The API server's.
pub async fn natives(
    connection: &Connection,
    name: &str,
    key: &str,
) -> Result<Vec<(String, Builder)>, ClusterError> {
    let namespace = connection.namespace();
    let api: Api<Pod> = Api::namespaced(connection.client().clone(), namespace);
    let parameters = ListParams::default().labels(&manifest::query(name));
    let pods = connection.call(Operation::many("list", "pods", namespace), || api.list(&parameters)).await?;
    let usable: Vec<&Pod> = pods.items.iter().filter(|pod| choose::is_usable(pod)).collect();
    if usable.len() < 2 {
        return Ok(Vec::new());
    }
    let asked = usable.into_iter().map(async |pod| {
        let platforms = list::platforms(connection, pod.metadata.name.as_deref().unwrap_or_default()).await;
        (native(pod, &platforms), pod)
    });
    let mut groups: BTreeMap<String, Vec<&Pod>> = BTreeMap::new();
    for (architecture, pod) in futures_util::future::join_all(asked).await {
        if let Some(architecture) = architecture {
            groups.entry(architecture).or_default().push(pod);
        }
    }
    let chosen = groups
        .into_iter()
        .filter_map(|(architecture, pods)| choose::choose(pods, key).map(|pod| (architecture, pod)));
    let described = chosen.map(async |(architecture, pod)| {
        let own = config::read_map(connection, namespace, name).await;
        Ok((architecture, describe(connection, name, pod, own).await?))
    });
    futures_util::future::try_join_all(described).await
}

/// Returns the architecture that a pod's node has, by all that can be known without the node.
fn native(pod: &Pod, platforms: &[String]) -> Option<String> {
    let selector = pod.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
    let meant = selector.and_then(|selector| selector.get(NODE_ARCHITECTURE));
    let meant = meant.filter(|meant| platforms.contains(&format!("linux/{meant}")));
    let first = || platforms.first()?.split('/').nth(1).map(str::to_owned);
    meant.cloned().or_else(first)
}

/// Returns how a builder's daemon reaches registries, from its objects alone: the builder itself need not run. What
/// may not be read is not known.
///
/// # Errors
/// The API server's.
pub async fn registries(connection: &Connection, name: &str) -> Result<RegistrySettings, ClusterError> {
    let own = config::read_map(connection, connection.namespace(), name);
    let (own, deployment) = tokio::join!(own, get_deployment(connection, name));
    registries_of(connection, readable(deployment)?, own).await.map(Option::unwrap_or_default)
}

async fn registries_of(
    connection: &Connection,
    deployment: Option<Deployment>,
    own: Result<Option<config::Files>, ApiError>,
) -> Result<Option<RegistrySettings>, ClusterError> {
    let template = deployment.and_then(|deployment| deployment.spec).and_then(|spec| spec.template.spec);
    config::registries(connection, connection.namespace(), template.as_ref(), own).await
}

/// Who may not look at Deployments may still build with those that are there.
fn readable(found: Result<Option<Deployment>, ClusterError>) -> Result<Option<Deployment>, ClusterError> {
    match found {
        Err(ClusterError::Api(error)) if error.is_forbidden() => Ok(None),
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_of_the_architecture_that_it_was_made_for_if_its_daemon_agrees() {
        let pod = |meant: Option<&str>| -> Pod {
            let selector = meant.map(|meant| serde_json::json!({ NODE_ARCHITECTURE: meant }));
            serde_json::from_value(serde_json::json!({
                "metadata": {}, "spec": { "containers": [], "nodeSelector": selector },
            }))
            .unwrap()
        };
        let both = ["linux/amd64", "linux/arm64"].map(str::to_owned);
        assert_eq!(native(&pod(None), &both).as_deref(), Some("amd64"));
        assert_eq!(native(&pod(Some("arm64")), &both).as_deref(), Some("arm64"));
        assert_eq!(native(&pod(Some("arm64")), &both[..1]).as_deref(), Some("amd64"));
        assert_eq!(native(&pod(Some("arm64")), &[]), None);
    }
}
