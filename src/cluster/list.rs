//! The builders of a namespace and how they are.

use super::ClusterError;
use super::api::{ApiError, Operation};
use super::choose::is_usable;
use super::connect::Connection;
use super::exec::{self, Command};
use super::manifest::{
    ARCHITECTURE_LABEL, BUILDER_LABEL, CONTAINER, MANAGED_BY, MANAGED_BY_LABEL, MODE_LABEL,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde::Deserialize;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The longest that one pod may take to name its platforms.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// A builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// How it is confined: `userns`, `rootless`, `privileged`; empty if it does not say.
    pub mode: String,
    /// Its image.
    pub image: String,
    /// How it is as a whole: `ready`, `starting`, or why it has no pods.
    pub status: String,
    /// Its pods, by name; possibly none.
    pub pods: Vec<ListedPod>,
}

/// A pod of a builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPod {
    /// Its name.
    pub name: String,
    /// The node it runs on.
    pub node: Option<String>,
    /// `ready`, `terminating`, or what it waits for.
    pub status: String,
    /// What it builds for, `linux/amd64` and so on; empty if it does not answer.
    pub platforms: Vec<String>,
}

/// Lists the builders of the connection's namespace, those without pods too. Ready pods are asked for their
/// platforms, all at once, each for a few seconds at most.
///
/// # Errors
/// When Deployments or pods may not be listed.
pub async fn list(connection: &Connection) -> Result<Vec<Listed>, ClusterError> {
    let namespace = connection.namespace();
    let parameters =
        ListParams::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY},{BUILDER_LABEL}"));
    let deployments: Api<Deployment> = Api::namespaced(connection.client().clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(connection.client().clone(), namespace);
    let (deployments, pods) = tokio::try_join!(
        connection
            .call(Operation::many("list", "deployments.apps", namespace), || deployments.list(&parameters)),
        connection.call(Operation::many("list", "pods", namespace), || pods.list(&parameters)),
    )?;
    let asked = pods.items.iter().map(|pod| async move {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let platforms = if is_usable(pod) { platforms(connection, &name).await } else { Vec::new() };
        (name, platforms)
    });
    let platforms = futures_util::future::join_all(asked).await.into_iter().collect();
    Ok(assemble(&deployments.items, &pods.items, platforms))
}

/// Returns the names of the builders of the connection's namespace.
pub(super) async fn names(connection: &Connection) -> Result<Vec<String>, ApiError> {
    let namespace = connection.namespace();
    let parameters =
        ListParams::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY},{BUILDER_LABEL}"));
    let api: Api<Deployment> = Api::namespaced(connection.client().clone(), namespace);
    let operation = Operation::many("list", "deployments.apps", namespace);
    let list = connection.call(operation, || api.list(&parameters)).await?;
    let names: BTreeSet<String> = list.items.iter().map(builder_of).collect();
    Ok(names.into_iter().collect())
}

/// Returns the builder of a Deployment: one for further nodes has a name of its own.
fn builder_of(deployment: &Deployment) -> String {
    let label = deployment.metadata.labels.as_ref().and_then(|labels| labels.get(BUILDER_LABEL));
    label.or(deployment.metadata.name.as_ref()).cloned().unwrap_or_default()
}

/// Joins Deployments and pods. Pure.
fn assemble(
    deployments: &[Deployment],
    pods: &[Pod],
    mut platforms: BTreeMap<String, Vec<String>>,
) -> Vec<Listed> {
    let mut builders: BTreeMap<String, Listed> = BTreeMap::new();
    for deployment in deployments {
        let label = |key: &str| deployment.metadata.labels.as_ref()?.get(key).cloned();
        let name = builder_of(deployment);
        let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let image = pod.and_then(|pod| pod.containers.first()).and_then(|container| container.image.clone());
        let conditions =
            deployment.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let failure = conditions
            .iter()
            .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True");
        let scaled_down = deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(0);
        let status = match failure.and_then(|failure| failure.message.clone()) {
            Some(text) => text,
            None if scaled_down => "no pods (scaled to 0)".to_owned(),
            None => "no pods".to_owned(),
        };
        let mode = label(MODE_LABEL).unwrap_or_default();
        let listed =
            Listed { name: name.clone(), mode, image: image.unwrap_or_default(), status, pods: Vec::new() };
        // The first Deployment speaks for the builder.
        let sibling = label(ARCHITECTURE_LABEL).is_some();
        match builders.entry(name) {
            Entry::Vacant(free) => drop(free.insert(listed)),
            Entry::Occupied(mut known) if !sibling => drop(known.insert(listed)),
            Entry::Occupied(_) => {}
        }
    }
    for pod in pods {
        let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(BUILDER_LABEL));
        // A pod whose Deployment is gone is on its way out.
        let Some(builder) = label.and_then(|label| builders.get_mut(label)) else { continue };
        let name = pod.metadata.name.clone().unwrap_or_default();
        builder.pods.push(ListedPod {
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            status: pod_status(pod),
            platforms: platforms.remove(&name).unwrap_or_default(),
            name,
        });
        builder.status =
            if builder.pods.iter().any(|pod| pod.status == "ready") { "ready" } else { "starting" }
                .to_owned();
    }
    let mut listed: Vec<_> = builders.into_values().collect();
    for builder in &mut listed {
        builder.pods.sort_by(|one, other| one.name.cmp(&other.name));
    }
    listed
}

/// Says in a word how a pod is, as kubectl does.
fn pod_status(pod: &Pod) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "terminating".to_owned();
    }
    if is_usable(pod) {
        return "ready".to_owned();
    }
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let waiting =
        containers.iter().find_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let unscheduled =
        conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    waiting
        .or_else(|| unscheduled.and_then(|condition| condition.reason.clone()))
        .or_else(|| status.and_then(|status| status.reason.clone()))
        .or_else(|| status.and_then(|status| status.phase.clone()))
        .unwrap_or_else(|| "unknown".to_owned())
}

/// Asks the daemon in a pod for its platforms; nothing if it does not answer.
pub(super) async fn platforms(connection: &Connection, pod: &str) -> Vec<String> {
    let words = ["buildctl", "debug", "workers", "--format", "{{json .}}"];
    let command = Command {
        pod: pod.to_owned(),
        namespace: connection.namespace().to_owned(),
        container: CONTAINER.to_owned(),
        command: words.map(str::to_owned).into(),
    };
    match exec::run(connection, &command, ASK_TIMEOUT).await {
        Ok(output) => parse_platforms(&output.stdout),
        Err(error) => {
            tracing::debug!(pod, %error, "the pod does not name its platforms");
            Vec::new()
        }
    }
}

#[derive(Deserialize)]
struct Worker {
    #[serde(default)]
    platforms: Vec<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: String,
}

/// Reads what `buildctl debug workers` prints as JSON: the workers, each with OCI platforms.
fn parse_platforms(text: &[u8]) -> Vec<String> {
    let workers: Vec<Worker> = serde_json::from_slice(text).unwrap_or_default();
    let mut seen = BTreeSet::new();
    let mut platforms = Vec::new();
    for Platform { os, architecture, variant } in workers.into_iter().flat_map(|worker| worker.platforms) {
        let name = if variant.is_empty() {
            format!("{os}/{architecture}")
        } else {
            format!("{os}/{architecture}/{variant}")
        };
        if seen.insert(name.clone()) {
            platforms.push(name);
        }
    }
    platforms
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn deployment(name: &str, spec: Value, status: Value) -> Deployment {
        let mut spec = spec;
        spec["selector"] = json!({});
        spec["template"] = json!({ "spec": { "containers": [{ "name": "buildkitd", "image": "i:1" }] } });
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { MODE_LABEL: "userns" } }, "spec": spec, "status": status,
        }))
        .unwrap()
    }

    fn pod(builder: &str, name: &str, status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { BUILDER_LABEL: builder } },
            "spec": { "containers": [], "nodeName": "node-1" },
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn builders_without_pods_are_listed_too() {
        let quota = "pods \"x\" is forbidden: exceeded quota";
        let failed =
            json!({ "conditions": [{ "type": "ReplicaFailure", "status": "True", "message": quota }] });
        let deployments = [
            deployment("b", json!({ "replicas": 1 }), failed),
            deployment("a", json!({ "replicas": 1 }), json!({})),
            deployment("c", json!({ "replicas": 0 }), json!({})),
        ];
        let ready = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
        let pods = [
            pod("a", "a-2", json!({ "phase": "Pending" })),
            pod("a", "a-1", ready),
            pod("gone", "gone-1", json!({})),
        ];
        let platforms = BTreeMap::from([("a-1".to_owned(), vec!["linux/amd64".to_owned()])]);
        let listed = assemble(&deployments, &pods, platforms);
        let short: Vec<_> =
            listed.iter().map(|builder| (builder.name.as_str(), builder.status.as_str())).collect();
        assert_eq!(short, [("a", "ready"), ("b", quota), ("c", "no pods (scaled to 0)")]);
        assert_eq!(listed[0].mode, "userns");
        assert_eq!(listed[0].pods[0].platforms, ["linux/amd64"]);
        assert_eq!(listed[0].pods[1].status, "Pending");
    }

    #[test]
    fn platforms_are_read_from_buildctls_json() {
        let text = br#"[{"id":"x","platforms":[{"architecture":"amd64","os":"linux"},{"architecture":"amd64","os":"linux","variant":"v2"},{"architecture":"amd64","os":"linux"}]}]"#;
        assert_eq!(parse_platforms(text), ["linux/amd64", "linux/amd64/v2"]);
        assert!(parse_platforms(b"error: no such thing").is_empty());
    }
}
