//! What a builder consists of: Deployment, ConfigMap, PodDisruptionBudget. Pure.
//!
//! All three carry `app.kubernetes.io/managed-by=kubectl-build` and `kubectl-build.github.io/builder=NAME`;
//! objects without these are never changed or deleted. `kubectl-build.github.io/` is the domain of every label
//! and annotation of ours.

use super::buildkitd::{CONFIG_DIRECTORY, CONFIG_KEY, CUSTOM_DIRECTORY, ConfigFiles};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, ConfigMap, ConfigMapVolumeSource, Container, EmptyDirVolumeSource,
    ExecAction, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecurityContext,
    Volume, VolumeMount,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The image of a builder that names none; rootless builders take its `-rootless` sibling.
pub const DEFAULT_IMAGE: &str = "docker.io/moby/buildkit:v0.33.1";
/// The name of a builder that has none.
pub const DEFAULT_NAME: &str = "buildkit";
/// The container that runs the daemon.
pub const CONTAINER: &str = "buildkitd";

/// Who made an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY_LABEL`] on our objects.
pub const MANAGED_BY: &str = "kubectl-build";
/// Which builder an object belongs to.
pub const BUILDER_LABEL: &str = "kubectl-build.github.io/builder";
/// The [`Mode`] that a builder's pods run in.
pub const MODE_LABEL: &str = "kubectl-build.github.io/mode";
/// On a Deployment that a builder has beside its first one, and on its pods: the nodes that it is for.
pub const ARCHITECTURE_LABEL: &str = "kubectl-build.github.io/architecture";
/// On a builder that lets QEMU run what its node does not: `true`.
pub const EMULATE_LABEL: &str = "kubectl-build.github.io/emulate";
/// The label by which nodes say their architecture.
pub(super) const NODE_ARCHITECTURE: &str = "kubernetes.io/arch";
/// On a pod: the mark of the settings it was started with.
const CONFIG_ANNOTATION: &str = "kubectl-build.github.io/config";

/// How a builder is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In a user namespace of its own (`hostUsers: false`), not privileged: root in the pod is nobody on the
    /// node. Needs, inside of that namespace only, CAP_SYS_ADMIN to mount and CAP_NET_ADMIN for the loopback of
    /// `--network none`, and seccomp and AppArmor out of the way.
    UserNs,
    /// As user 1000 with rootlesskit, not privileged; without a process sandbox for `RUN` steps.
    Rootless,
    /// Privileged: root on the node, for whoever breaks out.
    Privileged,
}

impl Mode {
    /// Returns the name that flags and labels use.
    pub fn name(self) -> &'static str {
        match self {
            Self::UserNs => "userns",
            Self::Rootless => "rootless",
            Self::Privileged => "privileged",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A mode, or the choice left to what the cluster offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModeChoice {
    /// [`Mode::UserNs`] where the cluster has user namespaces, else [`Mode::Privileged`].
    #[default]
    Auto,
    /// This one.
    Exactly(Mode),
}

/// A word that is no mode.
#[derive(Debug, thiserror::Error)]
#[error("invalid mode `{0}`: must be auto, userns, rootless or privileged")]
pub struct ModeError(String);

impl FromStr for ModeChoice {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "userns" => Ok(Self::Exactly(Mode::UserNs)),
            "rootless" => Ok(Self::Exactly(Mode::Rootless)),
            "privileged" => Ok(Self::Exactly(Mode::Privileged)),
            other => Err(ModeError(other.to_owned())),
        }
    }
}

/// One Deployment of a builder: its first, or another for nodes of another architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot<'a> {
    pub(super) builder: &'a str,
    /// `None`: the first.
    pub(super) architecture: Option<&'a str>,
}

impl Slot<'_> {
    /// Returns the Deployment's name.
    pub(super) fn object(&self) -> String {
        match self.architecture {
            None => self.builder.to_owned(),
            Some(architecture) => format!("{}-{architecture}", self.builder),
        }
    }

    /// Returns the selector of its pods, as a query has it.
    pub(super) fn query(&self) -> String {
        match self.architecture {
            None => format!("{},!{ARCHITECTURE_LABEL}", query(self.builder)),
            Some(architecture) => format!("{},{ARCHITECTURE_LABEL}={architecture}", query(self.builder)),
        }
    }

    /// Whether an object is of this Deployment, by its labels.
    pub(super) fn owns(&self, metadata: &ObjectMeta) -> bool {
        let label = metadata.labels.as_ref().and_then(|labels| labels.get(ARCHITECTURE_LABEL));
        is_ours(metadata, self.builder) && label.map(String::as_str) == self.architecture
    }
}

/// Returns the Deployment for nodes of another architecture: the builder's first one in all but names and nodes, so that
/// mode, image and settings are the same whatever they are.
pub(super) fn sibling(first: &Deployment, slot: Slot<'_>) -> Deployment {
    let architecture = slot.architecture.unwrap_or_default();
    let mark = (ARCHITECTURE_LABEL.to_owned(), architecture.to_owned());
    let mut labels = first.metadata.labels.clone().unwrap_or_default();
    labels.extend([mark.clone()]);
    let mut spec = first.spec.clone().unwrap_or_default();
    spec.replicas = Some(1);
    spec.selector.match_labels.get_or_insert_default().extend([mark.clone()]);
    spec.template.metadata.get_or_insert_default().labels.get_or_insert_default().extend([mark]);
    if let Some(pod) = &mut spec.template.spec {
        let nodes = pod.node_selector.get_or_insert_default();
        nodes.insert(NODE_ARCHITECTURE.to_owned(), architecture.to_owned());
    }
    Deployment {
        metadata: ObjectMeta {
            name: Some(slot.object()),
            namespace: first.metadata.namespace.clone(),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        ..Deployment::default()
    }
}

/// What decides a builder's manifests.
#[derive(Clone, Debug)]
pub(super) struct Plan<'a> {
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
    /// `None`: the default of the mode.
    pub(super) image: Option<&'a str>,
    pub(super) mode: Mode,
    /// `None`: the ConfigMap of this name is somebody else's, and used as it is.
    pub(super) config: Option<&'a ConfigFiles>,
    /// The user's ConfigMap for [`CUSTOM_DIRECTORY`].
    pub(super) custom_config: Option<&'a str>,
    /// Further arguments of buildkitd.
    pub(super) flags: &'a [String],
    /// QEMU may run what the node does not.
    pub(super) emulate: bool,
    /// Only nodes of this architecture are meant.
    pub(super) architecture: Option<&'a str>,
    /// The API server drops `appArmorProfile` (before 1.30), so the annotation of that time says it.
    pub(super) app_armor_annotation: bool,
}

impl Plan<'_> {
    /// Returns the image that the builder runs.
    pub(super) fn image(&self) -> String {
        match (self.image, self.mode) {
            (Some(image), _) => image.to_owned(),
            (None, Mode::Rootless) => format!("{DEFAULT_IMAGE}-rootless"),
            (None, _) => DEFAULT_IMAGE.to_owned(),
        }
    }

    fn metadata(&self, extra: &[(&str, &str)]) -> ObjectMeta {
        let mut labels = labels(self.name);
        labels.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        ObjectMeta {
            name: Some(self.name.to_owned()),
            namespace: Some(self.namespace.to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        }
    }

    /// Returns the ConfigMap, if the builder has one of its own.
    pub(super) fn config_map(&self) -> Option<ConfigMap> {
        let data = self.config?.files.clone();
        Some(ConfigMap { metadata: self.metadata(&[]), data: Some(data), ..ConfigMap::default() })
    }

    /// Returns the PodDisruptionBudget: drains and upgrades wait for a person rather than kill a build.
    pub(super) fn disruption_budget(&self) -> PodDisruptionBudget {
        PodDisruptionBudget {
            metadata: self.metadata(&[]),
            spec: Some(PodDisruptionBudgetSpec {
                max_unavailable: Some(IntOrString::Int(0)),
                selector: Some(selector(self.name)),
                // A builder that is not ready builds nothing; it need not hold up a drain.
                unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
                ..PodDisruptionBudgetSpec::default()
            }),
            ..PodDisruptionBudget::default()
        }
    }

    /// Returns the Deployment.
    pub(super) fn deployment(&self) -> Deployment {
        let emulate = self.emulate.then_some((EMULATE_LABEL, "true"));
        let marks: Vec<_> = [(MODE_LABEL, self.mode.name())].into_iter().chain(emulate).collect();
        Deployment {
            metadata: self.metadata(&marks),
            spec: Some(DeploymentSpec {
                replicas: Some(1),
                revision_history_limit: Some(1),
                selector: selector(self.name),
                // The new pod must not compete with the old one for the node's memory and disk.
                strategy: Some(DeploymentStrategy {
                    type_: Some("Recreate".to_owned()),
                    rolling_update: None,
                }),
                template: PodTemplateSpec { metadata: Some(self.pod_metadata()), spec: Some(self.pod()) },
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        }
    }

    fn pod_metadata(&self) -> ObjectMeta {
        let mut annotations = BTreeMap::from([
            // Cluster Autoscaler and Karpenter leave the node alone while a builder is on it.
            ("cluster-autoscaler.kubernetes.io/safe-to-evict".to_owned(), "false".to_owned()),
            ("karpenter.sh/do-not-disrupt".to_owned(), "true".to_owned()),
        ]);
        if let Some(config) = self.config {
            annotations.insert(CONFIG_ANNOTATION.to_owned(), config.mark());
        }
        if self.app_armor_annotation {
            let key = format!("container.apparmor.security.beta.kubernetes.io/{CONTAINER}");
            annotations.insert(key, "unconfined".to_owned());
        }
        let mut labels = labels(self.name);
        labels.insert(MODE_LABEL.to_owned(), self.mode.name().to_owned());
        if self.emulate {
            labels.insert(EMULATE_LABEL.to_owned(), "true".to_owned());
        }
        ObjectMeta { labels: Some(labels), annotations: Some(annotations), ..ObjectMeta::default() }
    }

    fn pod(&self) -> PodSpec {
        let state = match self.mode {
            Mode::Rootless => "/home/user/.local/share/buildkit",
            Mode::UserNs | Mode::Privileged => "/var/lib/buildkit",
        };
        let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
            name: name.to_owned(),
            mount_path: path.to_owned(),
            read_only: read_only.then_some(true),
            ..VolumeMount::default()
        };
        let from_config_map = |volume: &str, name: &str| Volume {
            name: volume.to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: name.to_owned(),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        };
        let state_volume = Volume {
            name: "state".to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        };
        let mut mounts = vec![mount("state", state, false), mount("config", CONFIG_DIRECTORY, true)];
        let mut volumes = vec![state_volume, from_config_map("config", self.name)];
        if let Some(custom) = self.custom_config {
            mounts.push(mount("custom-config", CUSTOM_DIRECTORY, true));
            volumes.push(from_config_map("custom-config", custom));
        }
        let container = Container {
            name: CONTAINER.to_owned(),
            image: Some(self.image()),
            args: Some(self.arguments()),
            resources: Some(ResourceRequirements {
                // Without requests a builder is the first to be evicted.
                requests: Some(BTreeMap::from([
                    ("cpu".to_owned(), Quantity("100m".to_owned())),
                    ("memory".to_owned(), Quantity("256Mi".to_owned())),
                ])),
                ..ResourceRequirements::default()
            }),
            // Once a second until the daemon answers; rarely after that, since each probe starts a process.
            startup_probe: Some(probe(1, 10, 600)),
            readiness_probe: Some(probe(15, 15, 4)),
            // A busy daemon is not a dead one: minutes of silence, not seconds.
            liveness_probe: Some(probe(60, 60, 5)),
            security_context: Some(self.security()),
            volume_mounts: Some(mounts),
            ..Container::default()
        };
        PodSpec {
            containers: vec![container],
            volumes: Some(volumes),
            host_users: (self.mode == Mode::UserNs).then_some(false),
            // `RUN` steps are other people's code; they get no token and no map of the namespace's services.
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            node_selector: Some(self.nodes()),
            termination_grace_period_seconds: Some(60),
            ..PodSpec::default()
        }
    }

    fn nodes(&self) -> BTreeMap<String, String> {
        let architecture = self.architecture.map(|architecture| (NODE_ARCHITECTURE, architecture));
        let labels = [("kubernetes.io/os", "linux")].into_iter().chain(architecture);
        labels.map(|(label, value)| (label.to_owned(), value.to_owned())).collect()
    }

    fn arguments(&self) -> Vec<String> {
        // In a user namespace buildkitd would look for its file in a home directory.
        let mut arguments = vec!["--config".to_owned(), format!("{CONFIG_DIRECTORY}/{CONFIG_KEY}")];
        if self.mode == Mode::Rootless {
            // A process sandbox needs a /proc of its own, which an unprivileged container may not mount.
            arguments.push("--oci-worker-no-process-sandbox".to_owned());
        }
        arguments.extend(self.flags.iter().cloned());
        arguments
    }

    fn security(&self) -> SecurityContext {
        let unconfined = SecurityContext {
            seccomp_profile: Some(SeccompProfile { type_: "Unconfined".to_owned(), localhost_profile: None }),
            app_armor_profile: Some(AppArmorProfile {
                type_: "Unconfined".to_owned(),
                localhost_profile: None,
            }),
            ..SecurityContext::default()
        };
        match self.mode {
            Mode::Privileged => SecurityContext { privileged: Some(true), ..SecurityContext::default() },
            Mode::UserNs => SecurityContext {
                capabilities: Some(Capabilities {
                    add: Some(["SYS_ADMIN", "NET_ADMIN"].map(str::to_owned).to_vec()),
                    drop: None,
                }),
                run_as_user: Some(0),
                run_as_group: Some(0),
                ..unconfined
            },
            Mode::Rootless => {
                SecurityContext { run_as_user: Some(1000), run_as_group: Some(1000), ..unconfined }
            }
        }
    }
}

/// Returns the labels of every object of a builder.
pub(super) fn labels(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "buildkit".to_owned()),
        ("app.kubernetes.io/instance".to_owned(), name.to_owned()),
        (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
        (BUILDER_LABEL.to_owned(), name.to_owned()),
    ])
}

/// Returns the selector of one builder's objects, as a query has it.
pub(super) fn query(name: &str) -> String {
    format!("{MANAGED_BY_LABEL}={MANAGED_BY},{BUILDER_LABEL}={name}")
}

fn selector(name: &str) -> LabelSelector {
    let labels = [(MANAGED_BY_LABEL, MANAGED_BY), (BUILDER_LABEL, name)];
    let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned()));
    LabelSelector { match_labels: Some(labels.into()), match_expressions: None }
}

/// Whether a builder's object says that QEMU may run what its node does not.
pub(super) fn emulates(metadata: &ObjectMeta) -> bool {
    metadata.labels.as_ref().and_then(|labels| labels.get(EMULATE_LABEL)).is_some_and(|value| value == "true")
}

/// Whether an object belongs to the builder, by its labels.
pub(super) fn is_ours(metadata: &ObjectMeta, name: &str) -> bool {
    let label = |key: &str| metadata.labels.as_ref()?.get(key).map(String::as_str);
    label(MANAGED_BY_LABEL) == Some(MANAGED_BY) && label(BUILDER_LABEL) == Some(name)
}

fn probe(period: i32, timeout: i32, failures: i32) -> Probe {
    let command = ["buildctl", "debug", "workers"].map(str::to_owned);
    Probe {
        exec: Some(ExecAction { command: Some(command.into()) }),
        initial_delay_seconds: Some(0),
        period_seconds: Some(period),
        timeout_seconds: Some(timeout),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::buildkitd::RegistrySettings;
    use super::*;

    fn plan(mode: Mode, config: Option<&ConfigFiles>) -> Plan<'_> {
        Plan {
            name: "buildkit",
            namespace: "ci",
            image: None,
            mode,
            config,
            custom_config: None,
            flags: &[],
            emulate: false,
            architecture: None,
            app_armor_annotation: false,
        }
    }

    fn json(value: &impl serde::Serialize) -> String {
        serde_json::to_string_pretty(value).unwrap()
    }

    #[test]
    fn a_user_namespaced_builder() {
        let config = ConfigFiles::render(None, &RegistrySettings::default()).unwrap();
        let plan = plan(Mode::UserNs, Some(&config));
        insta::assert_snapshot!("deployment-userns", json(&plan.deployment()));
        insta::assert_snapshot!("config-map", json(&plan.config_map()));
        insta::assert_snapshot!("disruption-budget", json(&plan.disruption_budget()));
    }

    #[test]
    fn a_privileged_builder() {
        let flags = ["--debug".to_owned()];
        let plan = Plan {
            image: Some("registry.corp/buildkit:1"),
            custom_config: Some("certs"),
            flags: &flags,
            ..plan(Mode::Privileged, None)
        };
        insta::assert_snapshot!("deployment-privileged", json(&plan.deployment()));
        assert!(plan.config_map().is_none(), "a ConfigMap of the user's is used, not made");
    }

    #[test]
    fn a_rootless_builder_on_an_old_cluster() {
        let plan = Plan { app_armor_annotation: true, ..plan(Mode::Rootless, None) };
        insta::assert_snapshot!("deployment-rootless", json(&plan.deployment()));
    }

    #[test]
    fn a_sibling_differs_in_names_and_nodes_alone() {
        let first =
            Plan { architecture: Some("amd64"), emulate: true, ..plan(Mode::UserNs, None) }.deployment();
        let slot = Slot { builder: "buildkit", architecture: Some("arm64") };
        let (first, second) = (serde_json::to_value(&first).unwrap(), sibling(&first, slot));
        let mut back = serde_json::to_value(&second).unwrap();
        assert_eq!(back["metadata"]["name"], "buildkit-arm64");
        let arch = "kubectl-build.github.io/architecture";
        for labels in ["/metadata/labels", "/spec/selector/matchLabels", "/spec/template/metadata/labels"] {
            let labels = back.pointer_mut(labels).unwrap().as_object_mut().unwrap();
            assert_eq!(labels.remove(arch).unwrap(), "arm64");
        }
        let nodes = &mut back["spec"]["template"]["spec"]["nodeSelector"]["kubernetes.io/arch"];
        assert_eq!(*nodes, "arm64");
        *nodes = "amd64".into();
        back["metadata"]["name"] = "buildkit".into();
        assert_eq!(back, first);

        let main = Slot { builder: "buildkit", architecture: None };
        let meta = |value: serde_json::Value| {
            serde_json::from_value::<ObjectMeta>(value["metadata"].clone()).unwrap()
        };
        assert!(slot.owns(&second.metadata) && !main.owns(&second.metadata));
        assert!(main.owns(&meta(first.clone())) && !slot.owns(&meta(first)));
    }

    #[test]
    fn ours_is_what_carries_both_labels() {
        let ours = ObjectMeta { labels: Some(labels("a")), ..ObjectMeta::default() };
        assert!(is_ours(&ours, "a"));
        assert!(!is_ours(&ours, "b"));
        assert!(!is_ours(&ObjectMeta::default(), "a"));
    }

    #[test]
    fn modes_have_names() {
        for name in ["userns", "rootless", "privileged"] {
            let ModeChoice::Exactly(mode) = name.parse().unwrap() else { panic!("{name} is a mode") };
            assert_eq!(mode.to_string(), name);
        }
        assert_eq!("auto".parse::<ModeChoice>().unwrap(), ModeChoice::Auto);
        assert!("host".parse::<ModeChoice>().is_err());
    }
}
