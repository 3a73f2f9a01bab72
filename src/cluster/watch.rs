//! Watches the pod of a running build: when it is lost, the build is, and the person is told what is known.

use super::api::{self, Operation};
use super::connect::Connection;
use super::follow::{Change, Follow};
use super::provision::PodRef;
use crate::task::{self, Task};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Node, Pod};
use kube::api::Api;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A pod that is being deleted may still end a build that was about to end; it gets this long.
const LAST_CHANCE: Duration = Duration::from_secs(4);
/// The longest wait for each fact about a loss.
const FACT_TIMEOUT: Duration = Duration::from_secs(2);

/// How a pod was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LossKind {
    /// It is there, but does not answer.
    Silent,
    /// The way to it broke; the cluster has nothing against it.
    Cut,
    /// It is gone.
    Deleted,
    /// It is being deleted.
    Terminating,
    /// The node threw it out.
    Evicted,
    /// Its container ended.
    Ended,
}

/// A pod that a build was running on, and what is known of its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct Loss {
    /// The pod.
    pub pod: PodRef,
    /// How it was lost.
    pub kind: LossKind,
    /// What is known: last state, eviction message, the node's condition; possibly nothing.
    pub facts: Vec<String>,
    /// The kernel killed it for its memory.
    pub out_of_memory: bool,
}

impl Loss {
    fn text(&self) -> String {
        let what = match self.kind {
            LossKind::Silent => "no longer answers",
            LossKind::Cut => "can no longer be reached",
            LossKind::Deleted => "was deleted",
            LossKind::Terminating => "is being deleted",
            LossKind::Evicted => "was evicted",
            LossKind::Ended => "ended",
        };
        let mut text =
            format!("pod {} on node {} {what}", self.pod.name, self.pod.node.as_deref().unwrap_or("unknown"));
        for (index, fact) in self.facts.iter().enumerate() {
            text.push_str(if index == 0 { ": " } else { "; " });
            text.push_str(fact);
        }
        text
    }

    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let PodRef { name, namespace, node, .. } = &self.pod;
        Some(match self.kind {
            _ if self.out_of_memory => {
                "the builder ran out of memory: build with less in parallel, or on nodes with more".to_owned()
            }
            LossKind::Evicted => {
                "the node ran short of what the message names; building again may go to another node"
                    .to_owned()
            }
            LossKind::Deleted | LossKind::Terminating => {
                "build again: it goes to the pod that replaces it".to_owned()
            }
            LossKind::Ended => {
                format!("build again; `kubectl logs -n {namespace} {name} --previous` may say why it ended")
            }
            LossKind::Cut => {
                "build again; if it happens often, something between here and the API server cuts long connections"
                    .to_owned()
            }
            LossKind::Silent => match node {
                Some(node) => format!(
                    "`kubectl describe node {node}` and `kubectl describe pod -n {namespace} {name}` may say more"
                ),
                None => format!("`kubectl describe pod -n {namespace} {name}` may say more"),
            },
        })
    }
}

/// A watch on one pod, beside a build. Dropping it ends the watch.
#[derive(Debug)]
pub struct PodWatch {
    lost: oneshot::Receiver<Loss>,
    _task: Task<()>,
}

impl PodWatch {
    /// Starts to watch. The API server failing is no loss of the pod; the watch goes on when it is back.
    pub fn start(connection: &Connection, pod: &PodRef) -> Self {
        let (sender, lost) = oneshot::channel();
        let (connection, pod) = (connection.clone(), pod.clone());
        let task = task::spawn("pod-watch", async move {
            let loss = watch(&connection, pod).await;
            let _nobody_asks_any_more = sender.send(loss);
        });
        Self { lost, _task: task }
    }

    /// Completes when the pod is lost; never before. Call it once.
    pub async fn lost(&mut self) -> Loss {
        match (&mut self.lost).await {
            Ok(loss) => loss,
            // Only a panic ends the task without a word, and then there is nothing to say.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Finds out what became of a pod whose stream broke or fell silent. Takes 2 s at most, also when the API server
/// does not answer.
pub async fn examine(connection: &Connection, pod: &PodRef) -> Loss {
    // Both at once: a loss is to be told within 15 s, and noticing it has taken most of them.
    let (mut loss, node) = tokio::join!(examine_pod(connection, pod), facts_of_node(connection, pod));
    loss.facts.extend(node);
    loss
}

async fn examine_pod(connection: &Connection, pod: &PodRef) -> Loss {
    let api: Api<Pod> = Api::namespaced(connection.client().clone(), &pod.namespace);
    let operation = Operation::one("get", "pods", &pod.namespace, &pod.name);
    let found = api::call(connection.server(), FACT_TIMEOUT, operation, || api.get(&pod.name));
    match tokio::time::timeout(FACT_TIMEOUT, found).await {
        Ok(Ok(found)) => judge(pod, &found, None).unwrap_or_else(|| silent(pod, &found)),
        Ok(Err(api::ApiError::NotFound { .. })) => loss(pod, LossKind::Deleted, Vec::new()),
        Ok(Err(error)) => loss(pod, LossKind::Silent, vec![error.to_string()]),
        Err(_) => {
            let fact = format!("the API server at {} does not answer either", connection.server());
            loss(pod, LossKind::Silent, vec![fact])
        }
    }
}

async fn watch(connection: &Connection, pod: PodRef) -> Loss {
    let mut pods =
        Follow::<Pod>::new(connection, &pod.namespace, "pods").fields(format!("metadata.name={}", pod.name));
    let mut restarts = None;
    let mut terminating: Option<(Instant, Loss)> = None;
    let mut lost = loop {
        let change = tokio::select! {
            change = pods.next() => change,
            loss = last_chance(terminating.clone()) => break loss,
        };
        let seen = match change {
            Ok(Change::Reset(pods)) => match pods.into_iter().next() {
                Some(seen) => seen,
                None => break loss(&pod, LossKind::Deleted, Vec::new()),
            },
            Ok(Change::Applied(seen)) => seen,
            Ok(Change::Deleted(seen)) => {
                let ended = judge(&pod, &seen, restarts).filter(|loss| loss.kind != LossKind::Terminating);
                break ended.unwrap_or_else(|| loss(&pod, LossKind::Deleted, Vec::new()));
            }
            Err(error) => {
                tracing::debug!(%error, "cannot watch the pod");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let first = *restarts.get_or_insert_with(|| restart_count(&seen));
        match judge(&pod, &seen, Some(first)) {
            Some(loss) if loss.kind == LossKind::Terminating => {
                terminating.get_or_insert_with(|| (Instant::now() + LAST_CHANCE, loss));
            }
            Some(loss) => break loss,
            None => {}
        }
    };
    lost.facts.extend(facts_of_node(connection, &pod).await);
    lost
}

async fn last_chance(terminating: Option<(Instant, Loss)>) -> Loss {
    match terminating {
        Some((at, loss)) => {
            tokio::time::sleep_until(at).await;
            loss
        }
        None => std::future::pending().await,
    }
}

fn loss(pod: &PodRef, kind: LossKind, facts: Vec<String>) -> Loss {
    let out_of_memory = facts.iter().any(|fact| fact.contains("OOMKilled"));
    Loss { pod: pod.clone(), kind, facts, out_of_memory }
}

/// Returns how the pod was lost, if it was. `restarts` is the count from before, `None` where it is not known:
/// then a container that runs counts as never lost. Pure.
fn judge(pod: &PodRef, seen: &Pod, restarts: Option<i32>) -> Option<Loss> {
    if seen.metadata.uid.as_deref().is_some_and(|uid| uid != pod.uid) {
        return Some(loss(pod, LossKind::Deleted, vec!["another one has taken its name".to_owned()]));
    }
    let status = seen.status.as_ref();
    let reason = status.and_then(|status| status.reason.as_deref()).unwrap_or_default();
    let message = status.and_then(|status| status.message.clone());
    if status.and_then(|status| status.phase.as_deref()) == Some("Failed") {
        let kind = if reason == "Evicted" { LossKind::Evicted } else { LossKind::Ended };
        let mut facts: Vec<_> = message.into_iter().collect();
        if facts.is_empty() && kind != LossKind::Evicted && !reason.is_empty() {
            facts.push(reason.to_owned());
        }
        facts.extend(containers(seen).iter().filter_map(last_end));
        return Some(loss(pod, kind, facts));
    }
    for container in containers(seen) {
        let state = container.state.as_ref();
        let stopped = state.is_some_and(|state| state.running.is_none());
        let restarted = restarts.is_some_and(|before| container.restart_count > before);
        if stopped || restarted {
            return Some(loss(pod, LossKind::Ended, last_end(container).into_iter().collect()));
        }
    }
    if seen.metadata.deletion_timestamp.is_some() {
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        // Drains, preemption and taints say here why (KEP-3329).
        let target = conditions
            .iter()
            .find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True");
        let facts = target.and_then(|condition| condition.message.clone()).into_iter().collect();
        return Some(loss(pod, LossKind::Terminating, facts));
    }
    None
}

/// Returns the loss of a pod that the API server has nothing against.
fn silent(pod: &PodRef, seen: &Pod) -> Loss {
    let mut facts: Vec<String> = containers(seen)
        .iter()
        .filter(|container| container.restart_count > 0)
        .filter_map(|container| Some(format!("before: {}", last_end(container)?)))
        .collect();
    let conditions = seen.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let not_ready =
        conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status != "True");
    facts.push(match not_ready {
        Some(condition) => {
            let why = condition.message.as_deref().or(condition.reason.as_deref()).unwrap_or_default();
            format!("it is not ready: {why}")
        }
        None => "the cluster still takes it for ready".to_owned(),
    });
    loss(pod, LossKind::Silent, facts)
}

fn containers(pod: &Pod) -> &[ContainerStatus] {
    pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default()
}

fn restart_count(pod: &Pod) -> i32 {
    containers(pod).iter().map(|container| container.restart_count).max().unwrap_or(0)
}

/// Says how the container ended last.
fn last_end(container: &ContainerStatus) -> Option<String> {
    let terminated =
        |state: &Option<k8s_openapi::api::core::v1::ContainerState>| state.as_ref()?.terminated.clone();
    let ended = terminated(&container.state).or_else(|| terminated(&container.last_state))?;
    let ContainerStateTerminated { reason, exit_code, message, signal, .. } = ended;
    let mut text = format!("container {} {}", container.name, reason.as_deref().unwrap_or("ended"));
    match signal {
        Some(signal) if signal > 0 => text.push_str(&format!(" (signal {signal})")),
        _ => text.push_str(&format!(" (exit code {exit_code})")),
    }
    if let Some(message) = message.as_deref().map(str::trim).filter(|message| !message.is_empty()) {
        text.push_str(&format!(": {message}"));
    }
    Some(text)
}

async fn facts_of_node(connection: &Connection, pod: &PodRef) -> Vec<String> {
    match &pod.node {
        Some(name) => node_facts(connection, name).await,
        None => Vec::new(),
    }
}

/// Says what is wrong with a node, as far as it may be seen. Takes 2 s at most.
pub(super) async fn node_facts(connection: &Connection, name: &str) -> Vec<String> {
    let api: Api<Node> = Api::all(connection.client().clone());
    let operation = Operation { name: Some(name.into()), ..Operation::everywhere("get", "nodes") };
    let found = api::call(connection.server(), FACT_TIMEOUT, operation, || api.get(name));
    match tokio::time::timeout(FACT_TIMEOUT, found).await {
        Ok(Ok(node)) => describe_node(name, &node).into_iter().collect(),
        Ok(Err(api::ApiError::NotFound { .. })) => vec![format!("node {name} is gone")],
        // Most people may not look at nodes.
        _ => Vec::new(),
    }
}

/// Says what is wrong with a node; nothing if nothing is. Pure.
fn describe_node(name: &str, node: &Node) -> Option<String> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    if ready.status != "True" {
        let why = ready.message.as_deref().or(ready.reason.as_deref()).unwrap_or_default();
        return Some(format!("node {name} is not ready: {why}"));
    }
    let pressure = conditions
        .iter()
        .find(|condition| condition.type_.ends_with("Pressure") && condition.status == "True")?;
    Some(format!("node {name} has {}", pressure.type_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn reference() -> PodRef {
        let (name, namespace) = ("buildkit-0".to_owned(), "ci".to_owned());
        PodRef { name, namespace, uid: "u1".to_owned(), node: Some("node-1".to_owned()) }
    }

    fn pod(metadata: Value, status: Value) -> Pod {
        let mut metadata = metadata;
        metadata["name"] = json!("buildkit-0");
        if metadata["uid"].is_null() {
            metadata["uid"] = json!("u1");
        }
        serde_json::from_value(json!({ "metadata": metadata, "status": status })).unwrap()
    }

    fn container(restarts: i32, state: Value, last: Value) -> Value {
        json!({ "phase": "Running", "containerStatuses": [{
            "name": "buildkitd", "image": "i", "imageID": "", "ready": true, "restartCount": restarts,
            "state": state, "lastState": last,
        }]})
    }

    #[test]
    fn a_pod_that_runs_is_not_lost() {
        let running = container(3, json!({ "running": {} }), json!({ "terminated": { "exitCode": 1 } }));
        assert_eq!(judge(&reference(), &pod(json!({}), running), Some(3)), None);
    }

    #[test]
    fn an_out_of_memory_kill_is_named() {
        let killed = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
        for status in
            [container(0, killed.clone(), json!({})), container(1, json!({ "running": {} }), killed)]
        {
            let loss = judge(&reference(), &pod(json!({}), status), Some(0)).unwrap();
            let text = "pod buildkit-0 on node node-1 ended: container buildkitd OOMKilled (exit code 137)";
            assert_eq!(loss.to_string(), text);
            assert!(loss.out_of_memory && loss.hint().unwrap().contains("out of memory"));
        }
    }

    #[test]
    fn an_eviction_keeps_its_message() {
        let status = json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory." });
        let loss = judge(&reference(), &pod(json!({}), status), None).unwrap();
        let text = "pod buildkit-0 on node node-1 was evicted: The node was low on resource: memory.";
        assert_eq!(loss.to_string(), text);
    }

    #[test]
    fn deletion_and_replacement_are_seen() {
        let deleting = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" });
        let running = container(0, json!({ "running": {} }), json!({}));
        let loss = judge(&reference(), &pod(deleting, running.clone()), Some(0)).unwrap();
        assert_eq!(loss.kind, LossKind::Terminating);
        let loss = judge(&reference(), &pod(json!({ "uid": "u2" }), running), Some(0)).unwrap();
        assert_eq!(loss.kind, LossKind::Deleted);
    }

    #[test]
    fn silence_tells_what_the_cluster_thinks() {
        let mut status = container(0, json!({ "running": {} }), json!({}));
        status["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
        let loss = silent(&reference(), &pod(json!({}), status));
        let text = "pod buildkit-0 on node node-1 no longer answers: the cluster still takes it for ready";
        assert_eq!(loss.to_string(), text);
    }

    #[test]
    fn a_lost_node_is_described() {
        let node: Node = serde_json::from_value(json!({ "status": { "conditions": [
            { "type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status." },
        ]}}))
        .unwrap();
        let text = describe_node("node-1", &node).unwrap();
        assert_eq!(text, "node node-1 is not ready: Kubelet stopped posting node status.");
    }
}
