//! What stands between a builder and its first build, as far as pods, events and the Deployment tell. Pure but
//! for the clock, which comes in.

use crate::cluster::api::{denial_hint, is_denial};
use crate::cluster::choose::is_usable;
use crate::cluster::follow::Change;
use crate::cluster::wait::anew;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStateWaiting, Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// How long one reason may stand without progress.
const PATIENCE: Duration = Duration::from_secs(10);
/// Sandboxes fail for a while on nodes that are new: their network is not there yet.
const SANDBOX_PATIENCE: Duration = Duration::from_secs(30);

/// Something that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Obstacle {
    /// Kubernetes' word for it; words that alternate for one cause are one here.
    pub(in super::super) reason: String,
    /// The event's or status's own text.
    pub(in super::super) text: String,
    pub(in super::super) pod: Option<String>,
    /// The container ran, so its log may tell more.
    pub(in super::super) has_log: bool,
    /// The pod's node, where that is what is out of touch.
    pub(in super::super) silent_node: Option<String>,
    patience: Duration,
    user_namespaced: bool,
}

impl Obstacle {
    /// Returns what a person can do about it.
    pub(in super::super) fn hint(&self, builder: &str, namespace: &str) -> Option<String> {
        if let Some(hint) = denial_hint(&self.text, namespace) {
            return Some(hint);
        }
        let pod = self.pod.as_deref().unwrap_or("POD");
        Some(match self.reason.as_str() {
            "FailedMount" if self.text.contains("configmap") && self.text.contains("not found") => format!(
                "create the ConfigMap in namespace `{namespace}`, or make the builder anew without it: {}",
                anew(builder, namespace, "")
            ),
            "FailedMount" => format!("`kubectl describe pod -n {namespace} {pod}` says more"),
            "ImagePullBackOff" => format!(
                "check the image's name and that the nodes may pull it; with another one: {}",
                anew(builder, namespace, " --image IMAGE")
            ),
            "Unschedulable" => "no node has room for the builder: free or add nodes, then try again; \
                 `--builder-timeout` bounds the wait for an autoscaler"
                .to_owned(),
            // runc's words for a program that the image does not have.
            "CreateContainerError" if self.text.contains("exec: \"") => format!(
                "the image is none of BuildKit's, which start buildkitd; with another one: {}",
                anew(builder, namespace, " --image IMAGE")
            ),
            "CreateContainerError" | "FailedCreatePodSandBox" if self.user_namespaced => format!(
                "if the node's kernel or runtime cannot do user namespaces, choose another mode, such as rootless: {}",
                anew(builder, namespace, " --mode privileged")
            ),
            "CreateContainerError" => format!(
                "`kubectl describe pod -n {namespace} {pod}` says more; with another image or `--mode`: {}",
                anew(builder, namespace, " --image IMAGE")
            ),
            "CrashLoopBackOff" => format!(
                "`kubectl logs -n {namespace} {pod}` says more; if the configuration is at fault: {}",
                anew(builder, namespace, " --config FILE")
            ),
            "NodeNotReady" => format!(
                "`kubectl describe node {}` says more; \
                 `kubectl delete pod -n {namespace} {pod} --force` has another pod made elsewhere",
                self.silent_node.as_deref().unwrap_or("NODE")
            ),
            _ => format!("`kubectl describe pod -n {namespace} {pod}` says more"),
        })
    }
}

/// What to do now.
#[derive(Debug, PartialEq)]
pub(in super::super) enum Verdict {
    Ready,
    /// Nothing is lost yet; look again then at the latest.
    Wait(Option<Instant>),
    Stuck(Obstacle),
    /// This pod lost its `hostUsers: false`.
    NoUserNamespace(String),
    Removed,
}

/// What is known of a builder that starts.
#[derive(Debug)]
pub(in super::super) struct Standing {
    name: String,
    namespace: String,
    user_namespaced: bool,
    /// When the Deployment was made. Older pods are an earlier builder's of the name, soon to go.
    born: Option<Time>,
    pods: BTreeMap<String, Pod>,
    pods_known: bool,
    /// Whether the Deployment was seen, and then gone.
    deployment_seen: bool,
    removed: bool,
    /// Why no pod can be created.
    create_failure: Option<String>,
    /// Events told before: object and count.
    told: BTreeSet<(String, i32)>,
    /// Events of pods that were not seen yet, if they ever are: a new pod's, or those of one long gone.
    unclaimed: Vec<Event>,
    /// By pod: the event that stands until a later one shows progress.
    mounts: BTreeMap<String, (String, String)>,
    pulls: BTreeMap<String, String>,
    last_event: BTreeMap<String, String>,
    scaling_up: BTreeSet<String>,
    /// The reason that stands, and since when.
    since: Option<(String, Instant)>,
}

impl Standing {
    pub(in super::super) fn new(name: &str, namespace: &str, user_namespaced: bool) -> Self {
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            user_namespaced,
            born: None,
            pods: BTreeMap::new(),
            pods_known: false,
            deployment_seen: false,
            removed: false,
            create_failure: None,
            told: BTreeSet::new(),
            unclaimed: Vec::new(),
            mounts: BTreeMap::new(),
            pulls: BTreeMap::new(),
            last_event: BTreeMap::new(),
            scaling_up: BTreeSet::new(),
            since: None,
        }
    }

    /// Says when the builder's Deployment was made, if that is known.
    pub(in super::super) fn born(self, born: Option<Time>) -> Self {
        Self { born, ..self }
    }

    /// Returns the builder's pods.
    pub(in super::super) fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// Takes in pods; returns the lines of events that came before the pods that they are about.
    pub(in super::super) fn apply_pods(&mut self, change: Change<Pod>) -> Vec<String> {
        match change {
            Change::Reset(pods) => {
                let own = pods.into_iter().filter(|pod| self.is_own(pod));
                self.pods = own.map(|pod| (uid(&pod), pod)).collect();
                self.pods_known = true;
            }
            Change::Applied(pod) => {
                if self.is_own(&pod) {
                    self.pods.insert(uid(&pod), pod);
                }
            }
            Change::Deleted(pod) => {
                self.pods.remove(&uid(&pod));
            }
        }
        if self.live().next().is_some() {
            self.create_failure = None;
        }
        let known =
            |event: &Event| event.involved_object.uid.as_ref().is_some_and(|uid| self.pods.contains_key(uid));
        let (claimed, unclaimed) = std::mem::take(&mut self.unclaimed).into_iter().partition(known);
        self.unclaimed = unclaimed;
        let claimed: Vec<Event> = claimed;
        claimed.iter().filter_map(|event| self.apply_event(event)).collect()
    }

    fn is_own(&self, pod: &Pod) -> bool {
        match (&self.born, &pod.metadata.creation_timestamp) {
            (Some(born), Some(made)) => made.0 >= born.0,
            _ => true,
        }
    }

    pub(in super::super) fn apply_deployments(&mut self, change: Change<Deployment>) {
        match change {
            Change::Reset(deployments) => match deployments.first() {
                Some(deployment) => self.deployment(deployment),
                None => self.removed = self.deployment_seen,
            },
            Change::Applied(deployment) => self.deployment(&deployment),
            Change::Deleted(_) => self.removed = true,
        }
    }

    fn deployment(&mut self, deployment: &Deployment) {
        (self.deployment_seen, self.removed) = (true, false);
        let conditions =
            deployment.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let failure = conditions
            .iter()
            .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True");
        let has_pods = self.live().next().is_some();
        if let (Some(failure), false) = (failure, has_pods) {
            self.create_failure = failure.message.clone().or_else(|| failure.reason.clone());
        }
    }

    /// Whether the pods that there are have been seen.
    pub(in super::super) fn knows_pods(&self) -> bool {
        self.pods_known
    }

    /// Takes in events from before: only those of pods that are there count and are returned as lines. Others may
    /// be about an earlier builder of the name.
    pub(in super::super) fn known_events(&mut self, mut events: Vec<Event>) -> Vec<String> {
        // A list comes in the order of names.
        events.sort_by_key(|event| {
            let last = event.last_timestamp.as_ref().map(|time| time.0);
            last.or_else(|| event.event_time.as_ref().map(|time| time.0))
        });
        let mut lines = Vec::new();
        for event in events {
            let pod = event.involved_object.uid.as_ref().is_some_and(|uid| self.pods.contains_key(uid));
            if pod {
                lines.extend(self.apply_event(&event));
            } else if event.involved_object.kind.as_deref() == Some("Pod") {
                if self.concerns(&event) {
                    self.unclaimed.push(event);
                }
            } else {
                self.told.insert(identity(&event));
            }
        }
        lines
    }

    /// Takes in a new event; returns the line to show, if it is about this builder and new.
    pub(in super::super) fn apply_event(&mut self, event: &Event) -> Option<String> {
        if !self.concerns(event) || !self.told.insert(identity(event)) {
            return None;
        }
        self.weigh(event);
        let object = &event.involved_object;
        let kind = object.kind.as_deref().unwrap_or("object").to_lowercase();
        let name = object.name.as_deref().unwrap_or("?");
        let reason = event.reason.as_deref().unwrap_or("?");
        let message = event.message.as_deref().unwrap_or_default().trim();
        Some(format!("{kind} {name}: {reason}: {message}"))
    }

    /// Whether the event is about the Deployment, one of its ReplicaSets or one of its pods. The names of
    /// ReplicaSets and pods add one and two parts without dashes.
    fn concerns(&self, event: &Event) -> bool {
        let object = &event.involved_object;
        let rest = object.name.as_deref().and_then(|name| name.strip_prefix(self.name.as_str()));
        let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with('-'));
        let parts = rest.map(|rest| rest.split('-').skip(1).count());
        match (object.kind.as_deref(), parts) {
            (Some("Deployment"), Some(0)) => true,
            (Some("ReplicaSet"), Some(1)) => true,
            (Some("Pod"), _) if object.uid.as_ref().is_some_and(|uid| self.pods.contains_key(uid)) => true,
            // The event may come before the pod that it is about.
            (Some("Pod"), Some(2)) => true,
            _ => false,
        }
    }

    fn weigh(&mut self, event: &Event) {
        let reason = event.reason.as_deref().unwrap_or_default();
        let text = event.message.clone().unwrap_or_default();
        if event.involved_object.kind.as_deref() == Some("ReplicaSet") {
            if reason == "FailedCreate" && self.live().next().is_none() {
                self.create_failure = Some(text);
            }
            return;
        }
        let Some(pod) = event.involved_object.uid.clone() else { return };
        match reason {
            "FailedMount" | "FailedAttachVolume" => {
                self.mounts.insert(pod.clone(), ("FailedMount".to_owned(), text.clone()));
            }
            "FailedCreatePodSandBox" => {
                self.mounts.insert(pod.clone(), (reason.to_owned(), text.clone()));
            }
            "Failed" if text.contains("pull image") => {
                self.pulls.insert(pod.clone(), text.clone());
            }
            // What comes after mounting and sandbox shows that both went well.
            "Pulling" | "Pulled" | "Created" | "Started" => {
                self.mounts.remove(&pod);
            }
            // Cluster Autoscaler's and Karpenter's words for a node on its way, and for none.
            "TriggeredScaleUp" | "Nominated" => {
                self.scaling_up.insert(pod.clone());
            }
            "NotTriggerScaleUp" | "FailedScaleUp" | "ScaleUpFailed" => {
                self.scaling_up.remove(&pod);
            }
            _ => {}
        }
        self.last_event.insert(pod, format!("{reason}: {text}"));
    }

    fn live(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values().filter(|pod| pod.metadata.deletion_timestamp.is_none())
    }

    /// Says what to do at this moment.
    pub(in super::super) fn verdict(&mut self, now: Instant) -> Verdict {
        if self.user_namespaced {
            let exposed =
                self.live().find(|pod| pod.spec.as_ref().is_some_and(|spec| spec.host_users != Some(false)));
            if let Some(pod) = exposed {
                return Verdict::NoUserNamespace(name(pod));
            }
        }
        if self.live().any(is_usable) {
            return Verdict::Ready;
        }
        if self.removed {
            return Verdict::Removed;
        }
        let Some(obstacle) = self.obstacle() else {
            self.since = None;
            return Verdict::Wait(None);
        };
        let since = match &self.since {
            Some((reason, since)) if *reason == obstacle.reason => *since,
            _ => {
                self.since = Some((obstacle.reason.clone(), now));
                now
            }
        };
        let end = since + obstacle.patience;
        if now >= end { Verdict::Stuck(obstacle) } else { Verdict::Wait(Some(end)) }
    }

    /// Returns what stands in the way: of all pods, or of having any.
    fn obstacle(&self) -> Option<Obstacle> {
        let mut pods = self.live().peekable();
        if pods.peek().is_none() {
            let text = self.create_failure.clone()?;
            // What admission and quota refuse they will go on refusing.
            let final_word = is_denial(&text) || text.contains("is forbidden");
            return Some(Obstacle {
                reason: "FailedCreate".to_owned(),
                text,
                pod: None,
                has_log: false,
                silent_node: None,
                patience: if final_word { Duration::ZERO } else { PATIENCE },
                user_namespaced: self.user_namespaced,
            });
        }
        let obstacles: Option<Vec<_>> = pods.map(|pod| self.pod_obstacle(pod)).collect();
        obstacles?.into_iter().next()
    }

    fn pod_obstacle(&self, pod: &Pod) -> Option<Obstacle> {
        let uid = uid(pod);
        let status = pod.status.as_ref();
        let obstacle = |reason: &str, text: String| Obstacle {
            reason: reason.to_owned(),
            text,
            pod: Some(name(pod)),
            has_log: false,
            silent_node: None,
            patience: PATIENCE,
            user_namespaced: self.user_namespaced,
        };
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let unschedulable = conditions.iter().find(|condition| {
            condition.type_ == "PodScheduled"
                && condition.status == "False"
                && condition.reason.as_deref() == Some("Unschedulable")
        });
        if let Some(condition) = unschedulable {
            let text = condition.message.clone().unwrap_or_default();
            return (!self.scaling_up.contains(&uid)).then(|| obstacle("Unschedulable", text));
        }
        if status.and_then(|status| status.phase.as_deref()) == Some("Failed") {
            let status = status?;
            let reason = status.reason.clone().unwrap_or_else(|| "Failed".to_owned());
            return Some(obstacle(&reason, status.message.clone().unwrap_or_default()));
        }
        let is = |type_: &str, status: &str| {
            conditions.iter().find(|condition| condition.type_ == type_ && condition.status == status)
        };
        // Only the node's controller calls a pod not ready whose containers are, its own gates aside.
        if let (Some(ready), Some(_)) = (is("Ready", "False"), is("ContainersReady", "True"))
            && ready.reason.as_deref() != Some("ReadinessGatesNotReady")
        {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            let text = format!("its node {} is out of touch", node.as_deref().unwrap_or("unknown"));
            return Some(Obstacle { silent_node: node, ..obstacle("NodeNotReady", text) });
        }
        let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        for container in containers {
            let Some(state) = container.state.as_ref() else { continue };
            if state.running.is_some() {
                return None;
            }
            if let Some(message) = state.terminated.as_ref().and_then(start_error) {
                return Some(obstacle("CreateContainerError", message));
            }
            let Some(waiting) = state.waiting.as_ref() else { continue };
            let ContainerStateWaiting { reason, message } = waiting;
            let message = message.clone().unwrap_or_default();
            match reason.as_deref().unwrap_or_default() {
                "ImagePullBackOff"
                | "ErrImagePull"
                | "InvalidImageName"
                | "ErrImageNeverPull"
                | "ImageInspectError"
                | "RegistryUnavailable"
                | "SignatureValidationFailed" => {
                    let text = self.pulls.get(&uid).cloned().unwrap_or(message);
                    return Some(obstacle("ImagePullBackOff", text));
                }
                "CreateContainerError" | "CreateContainerConfigError" | "RunContainerError" => {
                    return Some(obstacle("CreateContainerError", message));
                }
                "CrashLoopBackOff" => {
                    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
                    if let Some(message) = last.and_then(start_error) {
                        return Some(obstacle("CreateContainerError", message));
                    }
                    let text = last.map_or(message, |last| {
                        let reason = last.reason.as_deref().unwrap_or("Error");
                        format!("buildkitd ends at once: {reason}, exit code {}", last.exit_code)
                    });
                    let crash = obstacle("CrashLoopBackOff", text);
                    return Some(Obstacle { has_log: true, patience: Duration::ZERO, ..crash });
                }
                _ => {}
            }
        }
        let (reason, text) = self.mounts.get(&uid)?;
        let patience = if reason == "FailedCreatePodSandBox" { SANDBOX_PATIENCE } else { PATIENCE };
        Some(Obstacle { patience, ..obstacle(reason, text.clone()) })
    }

    /// Says in words what is waited for.
    pub(in super::super) fn doing(&self) -> String {
        let Some(pod) = self.live().next() else {
            return match &self.create_failure {
                Some(_) => format!(
                    "waiting for a pod of builder `{}` to be admitted in namespace `{}`",
                    self.name, self.namespace
                ),
                None if self.pods_known => {
                    format!("waiting for a pod of builder `{}` to be created", self.name)
                }
                None => format!("looking for the pods of builder `{}`", self.name),
            };
        };
        let what = match pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
            None if self.scaling_up.contains(&uid(pod)) => "waiting for a new node for".to_owned(),
            None => "waiting for a node for".to_owned(),
            Some(node) => {
                let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
                let runs = containers
                    .into_iter()
                    .flatten()
                    .any(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()));
                let pulling =
                    self.last_event.get(&uid(pod)).is_some_and(|event| event.starts_with("Pulling"));
                match (runs, pulling) {
                    (true, _) => format!("waiting on node `{node}` for buildkitd to answer in"),
                    (false, true) => format!("pulling the builder's image on node `{node}` for"),
                    (false, false) => format!("waiting on node `{node}` for the container of"),
                }
            }
        };
        format!("{what} pod `{}`", name(pod))
    }
}

/// Returns the runtime's words if the container ended because it could not be started: the kubelet counts that as a
/// crash, too.
fn start_error(ended: &ContainerStateTerminated) -> Option<String> {
    let failed = matches!(ended.reason.as_deref(), Some("StartError" | "ContainerCannotRun"));
    failed.then(|| ended.message.clone().unwrap_or_default())
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_else(|| name(pod))
}

fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

/// Returns what tells an event from its repetition: the same event object counts up.
fn identity(event: &Event) -> (String, i32) {
    let object = event.metadata.uid.clone().or_else(|| event.metadata.name.clone()).unwrap_or_default();
    let series = event.series.as_ref().and_then(|series| series.count);
    (object, event.count.or(series).unwrap_or(0))
}

#[cfg(test)]
mod tests;
