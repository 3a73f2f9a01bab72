//! The user's cluster: connecting to it, builders in it, byte streams into their pods.
//!
//! A builder is a Deployment, a ConfigMap and a PodDisruptionBudget with our labels (`manifest`); all that is
//! known of it stands in these objects, nothing in the client's home. Objects without our labels are never
//! changed, with one exception that the person asks for by name: `create --config` takes over a ConfigMap of the
//! builder's name.
//!
//! This module knows neither BuildKit's protocol nor registries: it hands out [`builder::Builder`], a ready pod,
//! and [`exec::ExecStream`], bytes to a process in it. [`watch::PodWatch`] tells when that pod is lost.

pub mod account;
pub mod buildkitd;
pub mod connect;
pub mod exec;
pub mod manifest;
pub mod secret;
pub mod service;
pub mod token;
pub mod watch;

mod api;
mod choose;
mod follow;
mod list;
mod mode;
mod provision;
mod wait;

pub use api::{ApiError, Operation, Said};
pub use connect::{ConnectError, ConnectOptions, Connection};
pub use wait::WaitError;

/// Builders: found, created, listed, removed.
pub mod builder {
    pub use super::list::{Listed, ListedPod, list};
    pub use super::manifest::{DEFAULT_IMAGE, DEFAULT_NAME, Mode, ModeChoice, ModeError};
    pub use super::provision::{
        Builder, BuilderSpec, Created, Found, NAME_LIMIT, NodeRef, PodRef, create, ensure, find, natives,
        nodes, registries, remove,
    };
}

/// Why something about a builder failed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The API server failed us.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The builder did not get ready.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The builder's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] buildkitd::ConfigError),
    /// A name that no builder can have.
    #[error("`{name}` cannot be the name of a builder: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An object of the builder's name is somebody else's.
    #[error(
        "the {kind} `{name}` in namespace `{namespace}` was not made by kubectl-build and stays as it is"
    )]
    Foreign {
        /// `deployment` or `config map`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
    },
    /// `create` of a builder that is there, with other settings.
    #[error("builder `{name}` exists already in namespace `{namespace}`, with {}", differences.join(" and "))]
    Exists {
        /// The builder.
        name: String,
        /// Its namespace.
        namespace: String,
        /// What is different from what was asked for.
        differences: Vec<String>,
    },
    /// The builder is told to have no pods.
    #[error("builder `{name}` in namespace `{namespace}` is scaled to 0")]
    ScaledDown {
        /// The builder.
        name: String,
        /// Its namespace.
        namespace: String,
    },
    /// No builder has this name.
    #[error("there is no builder `{name}` in namespace `{namespace}`")]
    Unknown {
        /// The name.
        name: String,
        /// Where was looked.
        namespace: String,
        /// The builders that are there.
        known: Vec<String>,
    },
    /// The ConfigMap of `--custom-config` is not there.
    #[error("there is no ConfigMap `{name}` in namespace `{namespace}`")]
    NoConfigMap {
        /// Its name.
        name: String,
        /// Where was looked.
        namespace: String,
    },
    /// A service account is not there.
    #[error("there is no service account `{name}` in namespace `{namespace}`")]
    NoServiceAccount {
        /// Its name.
        name: String,
        /// Where was looked.
        namespace: String,
    },
    /// A Secret is not there.
    #[error("there is no Secret `{name}` in namespace `{namespace}`")]
    NoSecret {
        /// Its name.
        name: String,
        /// Where was looked.
        namespace: String,
    },
}

impl ClusterError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Api(error) => error.hint(),
            Self::Wait(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::Name { .. } => Some(format!(
                "names are lower-case letters, digits and `-`, at most {} of them",
                builder::NAME_LIMIT
            )),
            Self::Foreign { kind, name, namespace } => Some(format!(
                "choose another name with `--builder`, or remove it yourself: `kubectl delete -n {namespace} {} {name}`",
                kind.replace(' ', "")
            )),
            Self::Exists { name, namespace, .. } => Some(format!(
                "remove it first, if no build needs it: `kubectl buildkit rm -n {namespace} {name}`"
            )),
            Self::ScaledDown { name, namespace } => {
                Some(format!("`kubectl scale deployment {name} -n {namespace} --replicas=1` brings it back"))
            }
            Self::Unknown { known, .. } if known.is_empty() => {
                Some("there are no builders in this namespace; `-n` chooses another".to_owned())
            }
            Self::Unknown { known, .. } => {
                Some(format!("the builders here are {}; `-n` chooses another namespace", known.join(", ")))
            }
            Self::NoConfigMap { name, namespace } => Some(format!(
                "create it first: `kubectl create configmap -n {namespace} {name} --from-file=…`"
            )),
            Self::NoServiceAccount { namespace, .. } => {
                Some(format!("`kubectl get serviceaccounts -n {namespace}` lists those that are there"))
            }
            Self::NoSecret { namespace, .. } => {
                Some(format!("`kubectl get secrets -n {namespace}` lists those that are there"))
            }
        }
    }
}
