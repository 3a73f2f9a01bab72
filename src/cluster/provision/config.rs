//! The builder's ConfigMap: made, left alone, taken over, and read back.

use super::{BuilderSpec, CONFIG_MAPS, Purpose};
use crate::cluster::ClusterError;
use crate::cluster::api::{ApiError, Operation};
use crate::cluster::buildkitd::{self, ConfigFiles, RegistrySettings};
use crate::cluster::connect::Connection;
use crate::cluster::manifest::{self, Plan, is_ours};
use crate::event::Events;
use k8s_openapi::api::core::v1::{ConfigMap, PodSpec};
use kube::api::{Api, DeleteParams, PostParams};
use std::collections::BTreeMap;

/// A ConfigMap's content, text and binary alike.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) data: BTreeMap<String, Vec<u8>>,
}

/// Whose the builder's ConfigMap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConfigSource {
    /// Made just now.
    Made,
    /// Ours from before, or taken over.
    Kept,
    /// The user's: used, never changed.
    Foreign,
}

/// Makes sure that there is a ConfigMap for the builder.
///
/// One of the user's with that name is used as it is, unless `create` brings settings of its own: these then
/// replace it and it becomes ours, as the predecessor did, with a line that says so.
pub(super) async fn settle(
    connection: &Connection,
    spec: &BuilderSpec,
    purpose: Purpose,
    plan: &Plan<'_>,
    events: &Events,
) -> Result<ConfigSource, ClusterError> {
    let Plan { name, namespace, .. } = *plan;
    let api: Api<ConfigMap> = Api::namespaced(connection.client().clone(), namespace);
    let Some(wanted) = plan.config_map() else { return Ok(ConfigSource::Foreign) };
    let parameters = PostParams::default();
    let operation = |verb| Operation::one(verb, CONFIG_MAPS, namespace, name);
    match connection.call(operation("create"), || api.create(&parameters, &wanted)).await {
        Ok(_) => return Ok(ConfigSource::Made),
        Err(ApiError::AlreadyExists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let found = connection.call(operation("get"), || api.get(name)).await?;
    let ours = is_ours(&found.metadata, name);
    let replace = purpose == Purpose::Create && (ours || spec.is_configured());
    if !replace {
        if !ours {
            events.note(format!("builder {name} uses the ConfigMap `{name}` that is there, as it is"));
        }
        return Ok(if ours { ConfigSource::Kept } else { ConfigSource::Foreign });
    }
    if !ours {
        events
            .note(format!("the ConfigMap `{name}` that was there is taken over: its settings are replaced"));
    }
    let mut next = found;
    next.data.get_or_insert_default().extend(wanted.data.unwrap_or_default());
    next.metadata.labels.get_or_insert_default().extend(manifest::labels(name));
    // The resource version that came with it makes the server refuse if somebody changed it meanwhile.
    connection.call(operation("update"), || api.replace(name, &parameters, &next)).await?;
    Ok(ConfigSource::Kept)
}

/// Removes a ConfigMap that was made for a builder which then could not be.
pub(super) async fn unmake(connection: &Connection, namespace: &str, name: &str) {
    let api: Api<ConfigMap> = Api::namespaced(connection.client().clone(), namespace);
    let operation = Operation::one("delete", CONFIG_MAPS, namespace, name);
    let parameters = DeleteParams::default();
    if let Err(error) = connection.call(operation, || api.delete(name, &parameters)).await {
        tracing::debug!(%error, "the ConfigMap stays behind");
    }
}

/// Refuses a ConfigMap that is not there: a pod would wait for it in vain.
pub(super) async fn must_exist(
    connection: &Connection,
    namespace: &str,
    name: &str,
) -> Result<(), ClusterError> {
    match read_map(connection, namespace, name).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(ClusterError::NoConfigMap { name: name.to_owned(), namespace: namespace.to_owned() }),
        // Who may not look may still be right; the wait will tell.
        Err(error) if error.is_forbidden() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Reads a ConfigMap; `None` if it is not there.
pub(super) async fn read_map(
    connection: &Connection,
    namespace: &str,
    name: &str,
) -> Result<Option<Files>, ApiError> {
    let api: Api<ConfigMap> = Api::namespaced(connection.client().clone(), namespace);
    let operation = Operation::one("get", CONFIG_MAPS, namespace, name);
    match connection.call(operation, || api.get(name)).await {
        Ok(map) => {
            let text = map.data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes()));
            let binary = map.binary_data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0));
            Ok(Some(Files { data: text.chain(binary).collect() }))
        }
        Err(ApiError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a ConfigMap holds what is wanted; further keys don't matter.
pub(super) fn same(found: &BTreeMap<String, Vec<u8>>, wanted: &ConfigFiles) -> bool {
    wanted.files.iter().all(|(key, text)| found.get(key).is_some_and(|bytes| bytes == text.as_bytes()))
}

/// Reads how the builder's daemon reaches registries, from its ConfigMap and those that its pods mount; `None` where
/// that may not be read.
pub(super) async fn registries(
    connection: &Connection,
    namespace: &str,
    pod: Option<&PodSpec>,
    own: Result<Option<Files>, ApiError>,
) -> Result<Option<RegistrySettings>, ClusterError> {
    let own = match own {
        Ok(files) => files.map(|files| files.data).unwrap_or_default(),
        Err(error) if error.is_forbidden() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let volumes = pod.and_then(|pod| pod.volumes.as_deref()).unwrap_or_default();
    let custom = volumes.iter().find(|volume| volume.name == "custom-config");
    let custom = match custom.and_then(|volume| volume.config_map.as_ref()) {
        Some(map) => match read_map(connection, namespace, &map.name).await {
            Ok(files) => files.map(|files| files.data).unwrap_or_default(),
            Err(error) if error.is_forbidden() => BTreeMap::new(),
            Err(error) => return Err(error.into()),
        },
        None => BTreeMap::new(),
    };
    Ok(Some(buildkitd::read_registries(&own, &custom)))
}
