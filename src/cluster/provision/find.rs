//! What a build asks about a builder before anything else starts: is it there, and how does it reach registries.

use super::super::ClusterError;
use super::super::buildkitd::RegistrySettings;
use super::super::connect::Connection;
use super::{Builder, BuilderSpec, config};

/// Returns the builder if it has a pod that takes builds now; makes nothing and waits for nothing.
///
/// # Errors
/// The API server's, or a name that no builder can have.
pub async fn find(
    connection: &Connection,
    spec: &BuilderSpec,
    key: &str,
) -> Result<Option<Builder>, ClusterError> {
    spec.check()?;
    super::find_ready(connection, spec, key).await
}

/// Returns how a builder's daemon reaches registries, from its ConfigMap alone: the builder itself need not run.
///
/// # Errors
/// The API server's.
pub async fn registries(connection: &Connection, name: &str) -> Result<RegistrySettings, ClusterError> {
    let own = config::read_map(connection, connection.namespace(), name).await?;
    let own = own.map(|files| files.data).unwrap_or_default();
    Ok(super::super::buildkitd::read_registries(&own, &std::collections::BTreeMap::new()))
}
