//! Finds, creates and removes builders.
//!
//! Two that create one builder at the same time end up sharing it: whatever exists already, with our labels, is
//! used. Steps are ordered so that a builder never starts without its configuration.

mod config;
mod find;
mod nodes;
mod remove;

use super::api::{ApiError, Operation};
use super::buildkitd::{ConfigFiles, RegistrySettings};
use super::connect::Connection;
use super::manifest::{self, CONTAINER, MODE_LABEL, Mode, ModeChoice, Plan, Slot};
use super::wait::{self, Awaited};
use super::{ClusterError, WaitError, mode};
use crate::event::{Events, Step};
use config::ConfigSource;
pub use find::{Found, find, natives, registries};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
pub use nodes::{NodeRef, nodes};
pub use remove::remove;
use std::time::Duration;

const DEPLOYMENTS: &str = "deployments.apps";
const CONFIG_MAPS: &str = "configmaps";
const BUDGETS: &str = "poddisruptionbudgets.policy";

/// The longest name of a builder: ReplicaSet and pod append up to 17 characters to it, within the 63 of a label.
pub const NAME_LIMIT: usize = 40;

/// What a builder is to be. Only its name counts for one that is there already, except in [`create`].
#[derive(Clone, Debug)]
pub struct BuilderSpec {
    /// Its name, and that of its objects.
    pub name: String,
    /// The image; `None` is the mode's default.
    pub image: Option<String>,
    /// How it is confined.
    pub mode: ModeChoice,
    /// The text of `--config`, a buildkitd.toml.
    pub config: Option<String>,
    /// The name of a ConfigMap to mount at `/etc/config`.
    pub custom_config: Option<String>,
    /// How registries are reached; goes over `config`.
    pub registries: RegistrySettings,
    /// QEMU may run what its node does not.
    pub emulate: bool,
    /// Further arguments of buildkitd.
    pub flags: Vec<String>,
    /// The end of the wait for a pod that is ready.
    pub timeout: Duration,
    /// Only nodes of this architecture are meant, by Go's name; any if none is named.
    pub architecture: Option<String>,
    /// Not the builder's first Deployment is meant, but one more, for nodes of this architecture.
    pub sibling: Option<String>,
}

impl BuilderSpec {
    /// Returns the spec of a builder with nothing but a name.
    pub fn named(name: impl Into<String>, timeout: Duration) -> Self {
        Self {
            name: name.into(),
            image: None,
            mode: ModeChoice::Auto,
            config: None,
            custom_config: None,
            registries: RegistrySettings::default(),
            emulate: false,
            flags: Vec::new(),
            timeout,
            architecture: None,
            sibling: None,
        }
    }

    /// Returns the spec of this builder's Deployment for nodes of another architecture.
    pub fn sibling(&self, architecture: &str) -> Self {
        Self { sibling: Some(architecture.to_owned()), ..self.clone() }
    }

    fn slot(&self) -> Slot<'_> {
        Slot { builder: &self.name, architecture: self.sibling.as_deref() }
    }

    fn is_configured(&self) -> bool {
        self.config.is_some() || !self.registries.hosts.is_empty() || self.registries.builder_key.is_some()
    }

    fn check(&self) -> Result<(), ClusterError> {
        let refuse = |why| Err(ClusterError::Name { name: self.name.clone(), why });
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        match self.name.as_str() {
            // The predecessor reserved it, and scripts know that.
            "default" => refuse("default is a reserved name and cannot be used to identify builder instance"),
            "" => refuse("it is empty"),
            name if name.len() > NAME_LIMIT => refuse("it is too long"),
            name if !name.chars().all(plain) => refuse("it has characters that Kubernetes does not allow"),
            name if name.starts_with('-') || name.ends_with('-') => refuse("it starts or ends with a dash"),
            _ => Ok(()),
        }
    }
}

/// One pod of a builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Tells it from a later pod of the same name.
    pub uid: String,
    /// The node it runs on.
    pub node: Option<String>,
}

impl PodRef {
    fn of(pod: &Pod, namespace: &str) -> Self {
        Self {
            name: pod.metadata.name.clone().unwrap_or_default(),
            namespace: namespace.to_owned(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        }
    }
}

/// A builder that takes builds, and the pod of it that this build goes to.
#[derive(Clone, Debug)]
pub struct Builder {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The pod: a ready one.
    pub pod: PodRef,
    /// The container that runs buildkitd.
    pub container: String,
    /// How it is confined; `None` if its label says something unknown.
    pub mode: Option<Mode>,
    /// Its image.
    pub image: String,
    /// QEMU may run what its node does not.
    pub emulate: bool,
    /// How its daemon reaches registries; `None` where its ConfigMap may not be read.
    pub registries: Option<RegistrySettings>,
}

/// What [`create`] did.
#[derive(Clone, Debug)]
pub struct Created {
    /// The builder, ready.
    pub builder: Builder,
    /// It was there already, with these settings.
    pub existed: bool,
}

/// Finds the builder, creates it if there is none, and waits until it takes builds.
///
/// `key` is the absolute path of the build context: a context keeps its pod. Dropping the future at any point
/// leaves a builder that the next call goes on with.
///
/// # Errors
/// What stands in the way, by object and with the cluster's own words.
pub async fn ensure(
    connection: &Connection,
    spec: &BuilderSpec,
    key: &str,
    events: &Events,
) -> Result<Builder, ClusterError> {
    spec.check()?;
    let step = events.step("builder", format!("finding builder {}", spec.name));
    let (builder, waited) = match find::look(connection, spec, key).await {
        Ok(Ok(builder)) => (builder, false),
        Ok(Err(_none)) => match bring_up(connection, spec, key, Purpose::Build, &step, events).await {
            Ok((builder, _)) => (builder, true),
            Err(error) => return failed(step, error),
        },
        Err(error) => return failed(step, error),
    };
    step.line(format!(
        "using pod {} on node {}",
        builder.pod.name,
        builder.pod.node.as_deref().unwrap_or("?")
    ));
    if waited {
        step.done();
    } else {
        step.cached();
    }
    Ok(builder)
}

/// Creates the builder and waits until it takes builds. One of that name with the same settings is a success;
/// with others it is an error, since running builds would not survive the change.
///
/// # Errors
/// As [`ensure`], and [`ClusterError::Exists`].
pub async fn create(
    connection: &Connection,
    spec: &BuilderSpec,
    events: &Events,
) -> Result<Created, ClusterError> {
    spec.check()?;
    let step = events.step("builder", format!("creating builder {}", spec.name));
    match bring_up(connection, spec, "", Purpose::Create, &step, events).await {
        Ok((builder, existed)) => {
            step.line(format!(
                "pod {} is ready on node {}",
                builder.pod.name,
                builder.pod.node.as_deref().unwrap_or("?")
            ));
            step.done();
            Ok(Created { builder, existed })
        }
        Err(error) => failed(step, error),
    }
}

fn failed<T>(step: Step, error: ClusterError) -> Result<T, ClusterError> {
    step.fail(&error);
    Err(error)
}

/// For what a builder is brought up: `create` insists on its settings, a build takes what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Build,
    Create,
}

/// Returns what is known of a builder by one of its pods.
async fn describe(
    connection: &Connection,
    name: &str,
    pod: &Pod,
    own: Result<Option<config::Files>, ApiError>,
) -> Result<Builder, ClusterError> {
    let namespace = connection.namespace();
    let spec = pod.spec.as_ref();
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(MODE_LABEL));
    let mode = match label.map(|label| label.parse()) {
        Some(Ok(ModeChoice::Exactly(mode))) => Some(mode),
        _ => None,
    };
    let container =
        spec.and_then(|spec| spec.containers.iter().find(|container| container.name == CONTAINER));
    Ok(Builder {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        pod: PodRef::of(pod, namespace),
        container: CONTAINER.to_owned(),
        mode,
        image: container.and_then(|container| container.image.clone()).unwrap_or_default(),
        emulate: manifest::emulates(&pod.metadata),
        registries: config::registries(connection, namespace, spec, own).await?,
    })
}

/// Creates what is missing and waits.
async fn bring_up(
    connection: &Connection,
    spec: &BuilderSpec,
    key: &str,
    purpose: Purpose,
    step: &Step,
    events: &Events,
) -> Result<(Builder, bool), ClusterError> {
    let mut fallback = None;
    loop {
        let provisioned = provision(connection, spec, purpose, fallback, events).await?;
        let awaited = Awaited {
            slot: spec.slot(),
            namespace: connection.namespace(),
            mode: provisioned.mode,
            born: provisioned.born.as_ref(),
            key,
            timeout: spec.timeout,
        };
        match wait::ready(connection, awaited, step).await {
            Ok(pod) => {
                let own = config::read_map(connection, connection.namespace(), &spec.name).await;
                let builder = describe(connection, &spec.name, &pod, own).await?;
                return Ok((builder, provisioned.existed));
            }
            // Root in a pod that was meant to have a user namespace and has none must not stay.
            Err(error @ WaitError::NoUserNamespace { .. }) if !provisioned.existed => {
                delete_deployment(connection, &spec.slot().object()).await?;
                // A sibling is what the first one is.
                if spec.mode != ModeChoice::Auto || fallback.is_some() || spec.sibling.is_some() {
                    return Err(error.into());
                }
                events.note(format!("{error}; using a privileged builder instead"));
                fallback = Some(Mode::Privileged);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

struct Provisioned {
    mode: Option<Mode>,
    existed: bool,
    /// When the Deployment was made.
    born: Option<Time>,
}

async fn provision(
    connection: &Connection,
    spec: &BuilderSpec,
    purpose: Purpose,
    fallback: Option<Mode>,
    events: &Events,
) -> Result<Provisioned, ClusterError> {
    let namespace = connection.namespace();
    let api: Api<Deployment> = Api::namespaced(connection.client().clone(), namespace);
    let object = spec.slot().object();
    if let Some(deployment) = get_deployment(connection, &object).await? {
        return existing(connection, spec, purpose, &deployment).await;
    }
    if spec.sibling.is_some() {
        return provision_sibling(connection, spec, purpose, events).await;
    }
    if let Some(name) = &spec.custom_config {
        config::must_exist(connection, namespace, name).await?;
    }
    let wanted = ConfigFiles::render(spec.config.as_deref(), &spec.registries)?;
    let plan = Plan {
        name: &spec.name,
        namespace,
        image: spec.image.as_deref(),
        mode: Mode::Privileged,
        config: Some(&wanted),
        custom_config: spec.custom_config.as_deref(),
        flags: &spec.flags,
        emulate: spec.emulate,
        architecture: spec.architecture.as_deref(),
        app_armor_annotation: false,
    };
    // Decided before anything is made: a refusal here leaves nothing behind.
    let plan = decide(connection, spec, plan, fallback, events).await?;
    let source = config::settle(connection, spec, purpose, &plan, events).await?;
    let plan = Plan { config: (source != ConfigSource::Foreign).then_some(&wanted), ..plan };
    let deployment = plan.deployment();
    let operation = Operation::one("create", DEPLOYMENTS, namespace, &spec.name);
    let parameters = PostParams::default();
    let born = match connection.call(operation, || api.create(&parameters, &deployment)).await {
        Ok(made) => made.metadata.creation_timestamp,
        // Somebody was faster; theirs is ours.
        Err(ApiError::AlreadyExists { .. }) => {
            if let Some(deployment) = get_deployment(connection, &object).await? {
                return existing(connection, spec, purpose, &deployment).await;
            }
            None
        }
        Err(error) => {
            if source == ConfigSource::Made {
                config::unmake(connection, namespace, &spec.name).await;
            }
            return Err(error.into());
        }
    };
    protect(connection, &plan).await?;
    Ok(Provisioned { mode: Some(plan.mode), existed: false, born })
}

/// Makes the Deployment for nodes of another architecture, and the first one if that isn't there yet.
async fn provision_sibling(
    connection: &Connection,
    spec: &BuilderSpec,
    purpose: Purpose,
    events: &Events,
) -> Result<Provisioned, ClusterError> {
    let namespace = connection.namespace();
    let api: Api<Deployment> = Api::namespaced(connection.client().clone(), namespace);
    let first = match get_deployment(connection, &spec.name).await? {
        Some(first) => first,
        None => {
            Box::pin(provision(connection, &first_of(spec), purpose, None, events)).await?;
            let removed = || WaitError::Removed { builder: spec.name.clone() };
            get_deployment(connection, &spec.name).await?.ok_or_else(removed)?
        }
    };
    let mode = existing(connection, &first_of(spec), Purpose::Build, &first).await?.mode;
    let (slot, parameters) = (spec.slot(), PostParams::default());
    let deployment = manifest::sibling(&first, slot);
    let operation = Operation::one("create", DEPLOYMENTS, namespace, &slot.object());
    match connection.call(operation, || api.create(&parameters, &deployment)).await {
        Ok(made) => Ok(Provisioned { mode, existed: false, born: made.metadata.creation_timestamp }),
        // Somebody was faster; theirs is ours.
        Err(ApiError::AlreadyExists { .. }) => Ok(Provisioned { mode, existed: true, born: None }),
        Err(error) => Err(error.into()),
    }
}

fn first_of(spec: &BuilderSpec) -> BuilderSpec {
    BuilderSpec { sibling: None, ..spec.clone() }
}

/// Looks at a Deployment of the builder's name that is there already.
async fn existing(
    connection: &Connection,
    spec: &BuilderSpec,
    purpose: Purpose,
    deployment: &Deployment,
) -> Result<Provisioned, ClusterError> {
    let namespace = connection.namespace();
    if !spec.slot().owns(&deployment.metadata) {
        let (name, namespace) = (spec.slot().object(), namespace.to_owned());
        return Err(ClusterError::Foreign { kind: "deployment", name, namespace });
    }
    let label = deployment.metadata.labels.as_ref().and_then(|labels| labels.get(MODE_LABEL));
    let mode = match label.and_then(|label| label.parse().ok()) {
        Some(ModeChoice::Exactly(mode)) => Some(mode),
        _ => None,
    };
    if purpose == Purpose::Create {
        let mut differences = differences(spec, deployment, mode);
        if spec.is_configured() {
            let wanted = ConfigFiles::render(spec.config.as_deref(), &spec.registries)?;
            let own = config::read_map(connection, namespace, &spec.name).await?;
            if own.is_none_or(|own| !config::same(&own.data, &wanted)) {
                differences.push("another configuration".to_owned());
            }
        }
        if !differences.is_empty() {
            let (name, namespace) = (spec.name.clone(), namespace.to_owned());
            return Err(ClusterError::Exists { name, namespace, differences });
        }
    }
    if deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(0) {
        let (name, namespace) = (spec.slot().object(), namespace.to_owned());
        return Err(ClusterError::ScaledDown { name, namespace });
    }
    let born = deployment.metadata.creation_timestamp.clone();
    Ok(Provisioned { mode, existed: true, born })
}

/// Says in what a builder differs from what is asked for; what was not asked for may be anything. Pure.
fn differences(spec: &BuilderSpec, deployment: &Deployment, mode: Option<Mode>) -> Vec<String> {
    let mut found = Vec::new();
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let container = pod.and_then(|pod| pod.containers.iter().find(|container| container.name == CONTAINER));
    let image = container.and_then(|container| container.image.as_deref()).unwrap_or_default();
    if spec.image.as_deref().is_some_and(|wanted| wanted != image) {
        found.push(format!("image `{image}`"));
    }
    if let (ModeChoice::Exactly(wanted), Some(mode)) = (spec.mode, mode)
        && wanted != mode
    {
        found.push(format!("mode `{mode}`"));
    }
    if spec.emulate && !manifest::emulates(&deployment.metadata) {
        found.push("no emulation".to_owned());
    }
    let volumes = pod.and_then(|pod| pod.volumes.as_deref()).unwrap_or_default();
    let custom = volumes.iter().find(|volume| volume.name == "custom-config");
    let custom = custom.and_then(|volume| volume.config_map.as_ref()).map(|map| map.name.as_str());
    if spec.custom_config.is_some() && spec.custom_config.as_deref() != custom {
        found.push(match custom {
            Some(name) => format!("custom configuration `{name}`"),
            None => "no custom configuration".to_owned(),
        });
    }
    let arguments = container.and_then(|container| container.args.as_deref()).unwrap_or_default();
    if !spec.flags.is_empty() && !arguments.ends_with(&spec.flags) {
        found.push("other buildkitd flags".to_owned());
    }
    found
}

/// Settles the mode, asking the API server what it would make of a user-namespaced builder.
async fn decide<'a>(
    connection: &Connection,
    spec: &BuilderSpec,
    plan: Plan<'a>,
    fallback: Option<Mode>,
    events: &Events,
) -> Result<Plan<'a>, ClusterError> {
    let asked = match (fallback, spec.mode) {
        (Some(mode), _) | (None, ModeChoice::Exactly(mode)) => Some(mode),
        (None, ModeChoice::Auto) => None,
    };
    if asked == Some(Mode::Privileged) {
        return Ok(Plan { mode: Mode::Privileged, ..plan });
    }
    let trial = Plan { mode: asked.unwrap_or(Mode::UserNs), ..plan };
    let namespace = connection.namespace();
    let api: Api<Deployment> = Api::namespaced(connection.client().clone(), namespace);
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    let deployment = trial.deployment();
    let operation = Operation::one("create", DEPLOYMENTS, namespace, &spec.name);
    let dry_run = connection.call(operation, || api.create(&parameters, &deployment));
    let nodes: Api<Node> = Api::all(connection.client().clone());
    let every = ListParams::default();
    let nodes = connection.call(Operation::everywhere("list", "nodes"), || nodes.list(&every));
    let (made, nodes) = match asked {
        None => tokio::join!(dry_run, nodes),
        Some(_) => {
            let none = Err(ApiError::NotFound { operation: Operation::everywhere("list", "nodes") });
            (dry_run.await, none)
        }
    };
    let made = match made {
        Ok(made) => made,
        // Somebody else is creating it right now; provisioning will find theirs.
        Err(ApiError::AlreadyExists { .. }) => return Ok(trial),
        Err(error) => return Err(error.into()),
    };
    let mode = match asked {
        Some(mode) => mode,
        None => {
            let nodes = nodes.ok().map(|nodes| nodes.items);
            let decision = mode::decide(&made, nodes.as_deref());
            if let Some(because) = decision.because {
                events.note(format!(
                    "builder {} is privileged: user namespaces are not to be had, {because}",
                    spec.name
                ));
            }
            decision.mode
        }
    };
    let app_armor_annotation = mode != Mode::Privileged && !mode::keeps_app_armor(&made);
    Ok(Plan { mode, app_armor_annotation, ..trial })
}

/// Makes the PodDisruptionBudget. Builds work without it, so lacking the right to make one is no failure.
async fn protect(connection: &Connection, plan: &Plan<'_>) -> Result<(), ClusterError> {
    let api: Api<PodDisruptionBudget> = Api::namespaced(connection.client().clone(), plan.namespace);
    let budget = plan.disruption_budget();
    let parameters = PostParams::default();
    let operation = Operation::one("create", BUDGETS, plan.namespace, plan.name);
    match connection.call(operation, || api.create(&parameters, &budget)).await {
        Ok(_) | Err(ApiError::AlreadyExists { .. }) => Ok(()),
        Err(error @ (ApiError::Forbidden { .. } | ApiError::Denied { .. } | ApiError::NotFound { .. })) => {
            tracing::warn!(builder = plan.name, %error, "the builder is not protected from drains");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

async fn get_deployment(connection: &Connection, name: &str) -> Result<Option<Deployment>, ClusterError> {
    let namespace = connection.namespace();
    let api: Api<Deployment> = Api::namespaced(connection.client().clone(), namespace);
    let operation = Operation::one("get", DEPLOYMENTS, namespace, name);
    match connection.call(operation, || api.get(name)).await {
        Ok(deployment) => Ok(Some(deployment)),
        Err(ApiError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn delete_deployment(connection: &Connection, name: &str) -> Result<(), ClusterError> {
    let namespace = connection.namespace();
    let api: Api<Deployment> = Api::namespaced(connection.client().clone(), namespace);
    let operation = Operation::one("delete", DEPLOYMENTS, namespace, name);
    let parameters = DeleteParams::background();
    match connection.call(operation, || api.delete(name, &parameters)).await {
        Ok(_) | Err(ApiError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
