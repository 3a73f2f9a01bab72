//! Secrets of the cluster, read when asked for and never before.

use super::ClusterError;
use super::api::{ApiError, Operation};
use super::connect::Connection;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
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

/// Makes an Opaque Secret that can't be changed any more. One that is there is left alone.
///
/// # Errors
/// [`ApiError::AlreadyExists`] among them.
pub async fn create<'a>(
    connection: &Connection,
    namespace: &str,
    name: &str,
    entries: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<(), ApiError> {
    let data = entries.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.to_vec())));
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(data.collect()),
        immutable: Some(true),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    let api: Api<Secret> = Api::namespaced(connection.client().clone(), namespace);
    let operation = Operation::one("create", "secrets", namespace, name);
    let parameters = PostParams::default();
    connection.call(operation, || api.create(&parameters, &secret)).await.map(drop)
}
