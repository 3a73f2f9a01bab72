//! What a build asks about a builder before anything else starts: is it there, and how does it reach registries.

use super::super::ClusterError;
use super::super::api::ApiError;
use super::super::buildkitd::RegistrySettings;
use super::super::choose;
use super::super::connect::Connection;
use super::{Builder, BuilderSpec, Looked, config, describe, get_deployment, look};
use k8s_openapi::api::apps::v1::Deployment;

/// What there is of a builder.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The builder, if it has a pod that takes builds now.
    pub ready: Option<Builder>,
    /// There is something of that name, which will be used as it is.
    pub exists: bool,
    /// How its daemon reaches registries; `None` where that may not be read, or nothing is there.
    pub registries: Option<RegistrySettings>,
}

/// Looks for a builder; makes nothing and waits for nothing.
///
/// # Errors
/// The API server's, or a name that no builder can have.
pub async fn find(connection: &Connection, spec: &BuilderSpec, key: &str) -> Result<Found, ClusterError> {
    spec.check()?;
    let Looked { pods, own } = look(connection, &spec.name).await?;
    if let Some(pod) = choose::choose(&pods, key) {
        let ready = describe(connection, &spec.name, pod, own).await?;
        return Ok(Found { registries: ready.registries.clone(), ready: Some(ready), exists: true });
    }
    // It may be starting, or have lost its pod: its settings are the same.
    let deployment = readable(get_deployment(connection, &spec.name).await)?;
    if deployment.is_none() && matches!(own, Ok(None)) {
        return Ok(Found::default());
    }
    let exists = deployment.is_some() || own.is_ok();
    Ok(Found { ready: None, exists, registries: registries_of(connection, deployment, own).await? })
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
