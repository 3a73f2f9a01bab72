//! The decision behind `--mode auto`. Pure.

use super::manifest::Mode;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;

/// What a builder will run as, and why, where it is not the first choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) mode: Mode,
    /// Why user namespaces are not used; one clause for one line of progress.
    pub(super) because: Option<String>,
}

/// Decides between a user namespace and privileges.
///
/// `dry_run` is what the API server made of a Deployment that asks for `hostUsers: false`: with the feature off
/// it drops the field silently. `nodes` is `None` where nodes may not be listed; the dry run then decides alone.
pub(super) fn decide(dry_run: &Deployment, nodes: Option<&[Node]>) -> Decision {
    let privileged = |because: String| Decision { mode: Mode::Privileged, because: Some(because) };
    if !keeps_host_users(dry_run) {
        return privileged("the API server has the feature UserNamespacesSupport off".to_owned());
    }
    let Some(nodes) = nodes else { return Decision { mode: Mode::UserNs, because: None } };
    let unable: Vec<&str> = nodes
        .iter()
        .filter(|node| is_eligible(node) && !runs_user_namespaces(node))
        .map(|node| node.metadata.name.as_deref().unwrap_or("?"))
        .collect();
    match unable.as_slice() {
        [] => Decision { mode: Mode::UserNs, because: None },
        [one] => privileged(format!("the runtime of node `{one}` does not offer them")),
        [first, rest @ ..] => {
            privileged(format!("the runtimes of node `{first}` and {} more do not offer them", rest.len()))
        }
    }
}

/// Whether a Deployment, as the API server returned it, still asks for a user namespace.
pub(super) fn keeps_host_users(deployment: &Deployment) -> bool {
    pod_spec(deployment).and_then(|pod| pod.host_users) == Some(false)
}

/// Whether the API server knows `appArmorProfile` (Kubernetes 1.30), by what it made of a Deployment with it.
pub(super) fn keeps_app_armor(deployment: &Deployment) -> bool {
    let containers = pod_spec(deployment).map(|pod| pod.containers.as_slice()).unwrap_or_default();
    containers.iter().any(|container| {
        container.security_context.as_ref().is_some_and(|context| context.app_armor_profile.is_some())
    })
}

fn pod_spec(deployment: &Deployment) -> Option<&k8s_openapi::api::core::v1::PodSpec> {
    deployment.spec.as_ref()?.template.spec.as_ref()
}

/// Whether a builder could be scheduled there: it asks for Linux and tolerates no taint.
pub(super) fn is_eligible(node: &Node) -> bool {
    let spec = node.spec.as_ref();
    let closed = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
    let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tainted = taints.iter().any(|taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute");
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    let linux = info.is_none_or(|info| info.operating_system.is_empty() || info.operating_system == "linux");
    !closed && !tainted && linux
}

/// Whether the node's default runtime handler, named "", says that it can (KEP-127).
fn runs_user_namespaces(node: &Node) -> bool {
    let handlers =
        node.status.as_ref().and_then(|status| status.runtime_handlers.as_deref()).unwrap_or_default();
    handlers
        .iter()
        .filter(|handler| handler.name.as_deref().unwrap_or_default().is_empty())
        .any(|handler| handler.features.as_ref().and_then(|features| features.user_namespaces) == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn deployment(host_users: Option<bool>) -> Deployment {
        serde_json::from_value(json!({ "spec": {
            "selector": {},
            "template": { "spec": { "hostUsers": host_users, "containers": [{ "name": "buildkitd" }] } },
        }}))
        .unwrap()
    }

    fn node(name: &str, handlers: Value, extra: Value) -> Node {
        let mut node = json!({
            "metadata": { "name": name },
            "spec": {},
            "status": { "runtimeHandlers": handlers },
        });
        for (key, value) in extra.as_object().unwrap() {
            node["spec"][key] = value.clone();
        }
        serde_json::from_value(node).unwrap()
    }

    fn able() -> Value {
        json!([{ "name": "", "features": { "userNamespaces": true } }])
    }

    #[rstest]
    #[case::dropped(None, Some(vec![node("a", able(), json!({}))]), Mode::Privileged)]
    #[case::all_able(Some(false), Some(vec![node("a", able(), json!({})), node("b", able(), json!({}))]), Mode::UserNs)]
    #[case::one_unable(Some(false), Some(vec![node("a", able(), json!({})), node("b", json!([]), json!({}))]), Mode::Privileged)]
    #[case::only_another_handler(
        Some(false),
        Some(vec![node("a", json!([{ "name": "runc", "features": { "userNamespaces": true } }, { "name": "" }]), json!({}))]),
        Mode::Privileged
    )]
    #[case::nameless_is_default(Some(false), Some(vec![node("a", json!([{ "features": { "userNamespaces": true } }]), json!({}))]), Mode::UserNs)]
    #[case::cordoned_does_not_count(
        Some(false),
        Some(vec![node("a", able(), json!({})), node("b", json!([]), json!({ "unschedulable": true }))]),
        Mode::UserNs
    )]
    #[case::tainted_does_not_count(
        Some(false),
        Some(vec![node("a", able(), json!({})), node("b", json!([]), json!({ "taints": [{ "key": "k", "effect": "NoSchedule" }] }))]),
        Mode::UserNs
    )]
    #[case::preferences_count(
        Some(false),
        Some(vec![node("b", json!([]), json!({ "taints": [{ "key": "k", "effect": "PreferNoSchedule" }] }))]),
        Mode::Privileged
    )]
    #[case::unlistable(Some(false), None, Mode::UserNs)]
    #[case::unlistable_and_dropped(None, None, Mode::Privileged)]
    #[case::none_yet(Some(false), Some(vec![]), Mode::UserNs)]
    fn table(#[case] host_users: Option<bool>, #[case] nodes: Option<Vec<Node>>, #[case] expected: Mode) {
        let decision = decide(&deployment(host_users), nodes.as_deref());
        assert_eq!(decision.mode, expected, "{decision:?}");
        assert_eq!(decision.because.is_some(), expected == Mode::Privileged);
    }

    #[test]
    fn the_reason_names_a_node() {
        let nodes = [node("a", json!([]), json!({})), node("b", json!([]), json!({}))];
        let decision = decide(&deployment(Some(false)), Some(&nodes));
        assert_eq!(decision.because.unwrap(), "the runtimes of node `a` and 1 more do not offer them");
    }
}
