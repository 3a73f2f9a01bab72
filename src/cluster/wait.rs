//! Waits until a builder takes builds, shows why it does not yet, and gives up on what will never pass.

mod standing;
mod words;

use super::api::{self, ApiError, Operation, Said};
use super::choose;
use super::connect::Connection;
use super::follow::{Change, Follow};
use super::manifest::{CONTAINER, Mode, Slot, query};
use super::watch;
use crate::event::Step;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, LogParams};
pub(super) use standing::{Obstacle, Standing, Verdict};
use std::time::Duration;
use tokio::time::Instant;

/// Why a builder did not get ready.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// Something stands in the way that will not go away by itself.
    #[error("builder `{builder}` cannot start: {reason}{}", pod.as_ref().map(|pod| format!(" (pod `{pod}`)")).unwrap_or_default())]
    Stuck {
        /// The builder.
        builder: String,
        /// The pod, if there is one.
        pod: Option<String>,
        /// Kubernetes' word for it: `FailedMount`, `ImagePullBackOff`, ….
        reason: Box<str>,
        /// The event's text.
        #[source]
        source: Said,
        /// What a person can do.
        hint: Option<Box<str>>,
    },
    /// The time is over.
    #[error("builder `{builder}` is not ready after {} s: still {doing}", after.as_secs())]
    Timeout {
        /// The builder.
        builder: String,
        /// Its namespace.
        namespace: Box<str>,
        /// How long was waited.
        after: Duration,
        /// What for.
        doing: String,
    },
    /// Somebody removed the builder meanwhile.
    #[error("builder `{builder}` was removed while it started")]
    Removed {
        /// The builder.
        builder: String,
    },
    /// The cluster dropped `hostUsers: false` on the way to the pod.
    #[error("pod `{pod}` of builder `{builder}` was not given a user namespace")]
    NoUserNamespace {
        /// The builder.
        builder: String,
        /// Its namespace.
        namespace: Box<str>,
        /// The pod.
        pod: String,
    },
    /// The API server failed us.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl WaitError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Stuck { hint, .. } => hint.as_deref().map(str::to_owned),
            Self::Timeout { builder, namespace, .. } => Some(format!(
                "`--builder-timeout` waits longer; `kubectl describe pods -n {namespace} -l {}` says more",
                query(builder)
            )),
            Self::Removed { .. } => Some("build again to create it anew".to_owned()),
            Self::NoUserNamespace { builder, namespace, .. } => Some(format!(
                "choose another mode, such as rootless: {}",
                anew(builder, namespace, " --mode privileged")
            )),
            Self::Api(error) => error.hint(),
        }
    }
}

/// Returns the line that makes a builder anew: `create` changes none that is there, and one that is stuck is there.
fn anew(builder: &str, namespace: &str, flags: &str) -> String {
    format!(
        "`kubectl buildkit rm {builder} -n {namespace} && kubectl buildkit create {builder} -n {namespace}{flags}`"
    )
}

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Awaited<'a> {
    pub(super) slot: Slot<'a>,
    pub(super) namespace: &'a str,
    pub(super) mode: Option<Mode>,
    /// When its Deployment was made.
    pub(super) born: Option<&'a Time>,
    /// The build context's path, for the choice among several ready pods.
    pub(super) key: &'a str,
    pub(super) timeout: Duration,
}

/// Waits for a pod of the builder that takes builds. Events become lines of `step`.
pub(super) async fn ready(
    connection: &Connection,
    awaited: Awaited<'_>,
    step: &Step,
) -> Result<Pod, WaitError> {
    let Awaited { slot, namespace, mode, born, key, timeout } = awaited;
    let (name, object) = (slot.builder, slot.object());
    let began = Instant::now();
    let mut pods = Follow::<Pod>::new(connection, namespace, "pods").labels(slot.query());
    let mut deployments = Follow::<Deployment>::new(connection, namespace, "deployments.apps")
        .fields(format!("metadata.name={object}"));
    let mut events = Follow::<Event>::new(connection, namespace, "events");
    // Both tell why it takes long; without the right to see them the pods alone must do.
    let (mut sees_deployments, mut sees_events) = (true, true);
    let mut standing = Standing::new(&object, namespace, mode == Some(Mode::UserNs)).born(born.cloned());
    let mut doing = String::new();
    loop {
        let look_again = match standing.verdict(Instant::now()) {
            Verdict::Ready => {
                if let Some(pod) = choose::choose(standing.pods(), key) {
                    return Ok(pod.clone());
                }
                None
            }
            Verdict::Stuck(obstacle) => return Err(stuck(connection, awaited, obstacle).await),
            Verdict::NoUserNamespace(pod) => {
                let (builder, namespace) = (name.to_owned(), namespace.into());
                return Err(WaitError::NoUserNamespace { builder, namespace, pod });
            }
            Verdict::Removed => return Err(WaitError::Removed { builder: name.to_owned() }),
            Verdict::Wait(until) => until,
        };
        let now_doing = standing.doing();
        if now_doing != doing {
            step.line(&now_doing);
            doing = now_doing;
        }
        let deadline = began + timeout;
        let wake = look_again.map_or(deadline, |at| at.min(deadline));
        tokio::select! {
            biased;
            change = pods.next() => standing.apply_pods(change?).iter().for_each(|line| step.line(line)),
            change = deployments.next(), if sees_deployments => match change {
                Ok(change) => standing.apply_deployments(change),
                Err(error) if error.is_forbidden() => sees_deployments = false,
                Err(error) => return Err(error.into()),
            },
            // After the pods, so that it is known which of the events from before are about them.
            change = events.next(), if sees_events && standing.knows_pods() => match change {
                Ok(Change::Reset(known)) => standing.known_events(known).iter().for_each(|line| step.line(line)),
                Ok(Change::Applied(event)) => {
                    if let Some(line) = standing.apply_event(&event) {
                        step.line(line);
                    }
                }
                Ok(Change::Deleted(_)) => {}
                Err(error) if error.is_forbidden() => sees_events = false,
                Err(error) => return Err(error.into()),
            },
            () = tokio::time::sleep_until(wake) => {
                if Instant::now() >= deadline {
                    let (builder, namespace) = (name.to_owned(), namespace.into());
                    return Err(WaitError::Timeout { builder, namespace, after: timeout, doing });
                }
            }
        }
    }
}

async fn stuck(connection: &Connection, awaited: Awaited<'_>, obstacle: Obstacle) -> WaitError {
    let mut text = obstacle.text.clone();
    if let (true, Some(pod)) = (obstacle.has_log, &obstacle.pod)
        && let Some(log) = last_words(connection, awaited.namespace, pod).await
    {
        text = format!("{text}; its last words:\n{log}");
    }
    if let Some(node) = &obstacle.silent_node {
        let facts = watch::node_facts(connection, node).await;
        text = facts.into_iter().fold(text, |text, fact| format!("{text}; {fact}"));
    }
    let hint = obstacle.hint(awaited.slot.builder, awaited.namespace).map(Into::into);
    let Obstacle { pod, reason, .. } = obstacle;
    let reason = reason.into();
    WaitError::Stuck { builder: awaited.slot.object(), pod, reason, source: Said(text), hint }
}

/// Returns the end of the log of a container that crashed.
async fn last_words(connection: &Connection, namespace: &str, pod: &str) -> Option<String> {
    let api: Api<Pod> = Api::namespaced(connection.client().clone(), namespace);
    for previous in [true, false] {
        let parameters = LogParams {
            container: Some(CONTAINER.to_owned()),
            previous,
            tail_lines: Some(64),
            limit_bytes: Some(32 << 10),
            ..LogParams::default()
        };
        let operation = Operation::one("get", "pods/log", namespace, pod);
        let log =
            api::call(connection.server(), Duration::from_secs(3), operation, || api.logs(pod, &parameters));
        match log.await {
            Ok(text) if !text.trim().is_empty() => return Some(words::last(&text)),
            _ => {}
        }
    }
    None
}
