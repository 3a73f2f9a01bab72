//! Secrets of the cluster, read when asked for and never before.

use super::ClusterError;
use super::api::{ApiError, Operation};
use super::connect::Connection;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use secrecy::SecretSlice;
use std::collections::BTreeMap;

/// A secret's value; it does not print itself, and its memory is cleared when it is dropped.
pub type SecretBytes = SecretSlice<u8>;

/// Reads a Secret: its keys and values, decoded.
///
/// # Errors
/// When it is not there or may not be read, by its name and namespace.
pub async fn read(
    connection: &Connection,
    namespace: &str,
    name: &str,
) -> Result<BTreeMap<String, SecretBytes>, ClusterError> {
    let api: Api<Secret> = Api::namespaced(connection.client().clone(), namespace);
    let operation = Operation::one("get", "secrets", namespace, name);
    let secret = connection.call(operation, || api.get(name)).await.map_err(|error| match error {
        ApiError::NotFound { .. } => {
            ClusterError::NoSecret { name: name.to_owned(), namespace: namespace.to_owned() }
        }
        other => other.into(),
    })?;
    let data = secret.data.unwrap_or_default();
    Ok(data.into_iter().map(|(key, value)| (key, SecretBytes::from(value.0))).collect())
}
